//! `nixfleet status`: the fleet on one screen, and with `--watch` as it changes.

mod watch;

use std::collections::BTreeMap;

use clap::Args;
use nixfleet_core::host::phase::StateName;
use nixfleet_core::model::names::ReleaseId;
use nixfleet_core::model::time::Date;
use nixfleet_core::wire::people::{FleetView, TroubleView};
use nixfleet_core::wire::rollouts::RolloutView;
use nixfleet_sys::text::one_line;
use serde::Serialize;

use super::asking::{AskArgs, Asking, asking};
use super::rollout::{self, FAILURE_HEADINGS, failure_rows};
use super::ui::table::{self, Cell, Page, Tone};
use super::ui::{self, Complaint, Done, Output};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Go on showing it as it changes, until you end it; lines of text where there is no terminal
    #[arg(short, long)]
    watch: bool,
    /// How it is printed; `name` prints the channels, json with `--watch` is one document in each line
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
}

/// What is known of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Known {
    #[serde(flatten)]
    fleet: FleetView,
    rollouts: Vec<RolloutView>,
}

pub(crate) fn status(args: &StatusArgs) -> Done {
    asking(&args.ask, async |server| {
        if args.watch {
            return watch::watch(&server, args.output).await;
        }
        let known = know(&server).await?;
        print(&known, args.output)
    })
}

async fn know(server: &Asking) -> Result<Known, Complaint> {
    let fleet = server.get("/v1/fleet").await?;
    let rollouts = match rollout::all(server).await {
        // A control plane that does not plan has none.
        Err(complaint) if complaint.is_not_found() => Vec::new(),
        rollouts => rollouts?,
    };
    Ok(Known { fleet, rollouts })
}

fn print(known: &Known, output: Output) -> Done {
    match output {
        Output::Json => return ui::json(known),
        Output::Name => ui::lines(known.fleet.hosts.keys()),
        Output::Table => ui::painted(screen(known, Page::stdout())),
    }
    Ok(())
}

/// All lines: a line for each channel, the hosts by state, and what failed.
fn screen(known: &Known, page: Page) -> Vec<String> {
    let Known { fleet, rollouts } = known;
    let mut top: Vec<String> = fleet.troubles.iter().map(alarm).collect();
    if fleet.releases.is_empty() {
        top.push("no release was pushed yet".to_owned());
        return top;
    }
    let mut rows: Vec<Vec<Cell>> = rollouts.iter().map(rollout::row).collect();
    let without =
        fleet.releases.iter().filter(|release| !rollouts.iter().any(|one| one.release == **release));
    rows.extend(without.map(|release| not_taken_up(release, &fleet.hosts)));
    let mut lines = top;
    lines.extend(table::lines(&rollout::HEADINGS, &rows, page));
    let failures = failure_rows(rollouts);
    if !failures.is_empty() {
        lines.push(String::new());
        lines.extend(table::lines(&FAILURE_HEADINGS, &failures, page));
    }
    lines.push(String::new());
    lines.extend(table::lines(&["CHANNEL", "HOSTS", "BY THEIR OWN WORD"], &by_state(&fleet.hosts), page));
    lines
}

/// What keeps the control plane from working as it should: above all else.
fn alarm(trouble: &TroubleView) -> String {
    let TroubleView { kind: _, since_ms, text } = trouble;
    one_line(&format!("ALARM since {}: {text}", Date(*since_ms)), usize::MAX)
}

/// A release that no plan has taken up yet.
fn not_taken_up(release: &ReleaseId, hosts: &BTreeMap<String, BTreeMap<String, u64>>) -> Vec<Cell> {
    let total: u64 = hosts.get(release.channel.as_str()).map_or(0, |states| states.values().sum());
    let name = format!("{}/{}", release.channel, release.seq);
    let count = format!("-/{total}");
    let dash = || Cell::from("-");
    vec![
        name.into(),
        Cell::toned("new", Tone::Busy),
        dash(),
        count.into(),
        dash(),
        dash(),
        dash(),
        "a plan".into(),
    ]
}

fn by_state(hosts: &BTreeMap<String, BTreeMap<String, u64>>) -> Vec<Vec<Cell>> {
    let row = |(channel, states): (&String, &BTreeMap<String, u64>)| {
        let total: u64 = states.values().sum();
        let bad =
            [StateName::Failed, StateName::Reverted, StateName::Reverting].map(|state| state.to_string());
        let words: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let is_bad = states.keys().any(|state| bad.contains(state));
        let tone = if is_bad { Tone::Bad } else { Tone::Plain };
        vec![channel.as_str().into(), total.to_string().into(), Cell::toned(words.join(", "), tone)]
    };
    hosts.iter().map(row).collect()
}
