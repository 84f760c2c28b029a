//! `nixfleet plan`: what would move now, and why the rest would not. Nothing is changed.

use clap::Args;
use nixfleet_core::model::time::Date;
use nixfleet_core::wire::rollouts::{PlanView, ReasonCount};

use super::asking::{AskArgs, asking};
use super::ui::{self, Done, Output};

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// How it is printed; `name` prints the hosts that would move
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
}

pub(crate) fn plan(args: &PlanArgs) -> Done {
    asking(&args.ask, async |server| {
        let plan: PlanView = server.get("/v1/plan").await?;
        match args.output {
            Output::Json => return ui::json(&plan),
            Output::Name => ui::lines(plan.orders.iter().map(|order| order.host.as_str())),
            Output::Table => show(&plan),
        }
        Ok(())
    })
}

fn show(plan: &PlanView) {
    ui::lines(
        plan.objections.iter().map(|objection| format!("objection: {objection}; its channel stands still")),
    );
    ui::lines(plan.decisions.iter().map(ToString::to_string));
    ui::lines(plan.orders.iter().map(ToString::to_string));
    if plan.orders_total > plan.orders.len() as u64 {
        ui::data(&format!("and so on: {} in all", plan.orders_total));
    }
    if plan.decisions.is_empty() && plan.orders.is_empty() {
        ui::data("nothing would move now");
    }
    if !plan.held.is_empty() {
        ui::data("");
        ui::table(&["HOSTS", "SUCH AS", "DO NOT MOVE: FOR THEM"], &held(&plan.held));
    }
    match &plan.leader {
        Some(leader) => ui::say(&format!("replica {} carries plans out", leader.holder)),
        None => ui::say("no replica carries plans out at the moment"),
    }
    if let Some(again) = plan.again_ms {
        ui::say(&format!("without news, the next plan may say something else at {}", Date(again)));
    }
}

/// Reasons with how many hosts they keep.
pub(crate) fn held(held: &[ReasonCount]) -> Vec<Vec<String>> {
    held.iter().map(|one| vec![one.hosts.to_string(), one.first.to_string(), one.text.clone()]).collect()
}

/// What a verb would bring, for whoever is asked whether it shall be.
pub(crate) fn foreseen(plan: &PlanView) -> Vec<String> {
    /// More lines than this say less.
    const LINES_MAX: usize = 12;
    let decisions = plan.decisions.iter().map(ToString::to_string);
    let orders = plan.orders.iter().map(ToString::to_string);
    let mut lines: Vec<String> = decisions.chain(orders).map(|line| format!("  then {line}")).collect();
    let total = lines.len().max(usize::try_from(plan.orders_total).unwrap_or(0));
    if total > LINES_MAX {
        lines.truncate(LINES_MAX);
        lines.push(format!("  and so on: {total} in all"));
    }
    lines.extend(plan.objections.iter().map(|objection| format!("  objection: {objection}")));
    lines
}
