//! `nixfleet hold`, `unhold` and `retry`: what a person does to hosts. Each is shown and asked about first, and is in the
//! control plane's log with who and why.

use std::time::Duration;

use clap::Args;
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::time::{Date, UnixMs};
use nixfleet_core::rollout::Verb;
use nixfleet_core::wire::people::{Because, HoldBody, HostView, Noted};
use nixfleet_core::wire::rollouts::{PlanAsked, PlanView};
use serde::Serialize;

use super::asking::{AskArgs, Asking, asking};
use super::ui::{self, Complaint, Done, Output};
use super::{later, now, plan, span, time};

/// Which hosts, and why.
#[derive(Debug, Args)]
pub(crate) struct ActArgs {
    /// The hosts
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
    #[command(flatten)]
    act: Act,
}

/// What every act needs.
#[derive(Debug, Args)]
pub(crate) struct Act {
    /// Why, in a line; it is in the log and shown to everybody
    #[arg(long)]
    pub(crate) why: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How it is told what was done
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// For so long [default: until `unhold`]
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    span: Option<Duration>,
    /// Until then
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "span")]
    until: Option<UnixMs>,
    #[command(flatten)]
    hosts: ActArgs,
}

pub(crate) fn hold(args: &HoldArgs) -> Done {
    let HoldArgs { span, until, hosts } = args;
    let until_ms = span.map(|span| later(now()?, span)).transpose()?.or(*until);
    if until_ms.is_some_and(|until| now().is_ok_and(|now| until <= now)) {
        return Err(Complaint::usage("the time of `--until` is past"));
    }
    let body = HoldBody { why: hosts.act.why.clone(), until_ms };
    let what = match until_ms {
        None => "to stay where it is until `unhold`".to_owned(),
        Some(until) => format!("to stay where it is until {}", Date(until)),
    };
    let verb = |host: &HostName| Verb::Hold { host: host.clone(), until_ms };
    act_on_hosts(hosts, &Asked { path: "hold", body: &body, what: &what, verb: &verb })
}

pub(crate) fn unhold(args: &ActArgs) -> Done {
    let body = Because { why: args.act.why.clone() };
    let verb = |host: &HostName| Verb::Unhold { host: host.clone() };
    act_on_hosts(args, &Asked { path: "unhold", body: &body, what: "to stay no longer", verb: &verb })
}

pub(crate) fn retry(args: &ActArgs) -> Done {
    let body = Because { why: args.act.why.clone() };
    let verb = |host: &HostName| Verb::Retry { host: host.clone() };
    act_on_hosts(args, &Asked { path: "retry", body: &body, what: "to try again what failed", verb: &verb })
}

pub(crate) fn skip(args: &ActArgs) -> Done {
    let body = Because { why: args.act.why.clone() };
    let verb = |host: &HostName| Verb::Skip { host: host.clone() };
    let what = "to be left out of the current rollout";
    act_on_hosts(args, &Asked { path: "skip", body: &body, what, verb: &verb })
}

/// What hosts are asked for.
struct Asked<'a, B> {
    path: &'static str,
    body: &'a B,
    what: &'a str,
    verb: &'a dyn Fn(&HostName) -> Verb,
}

fn act_on_hosts<B: Serialize>(args: &ActArgs, asked: &Asked<'_, B>) -> Done {
    asking(&args.act.ask, async |server| {
        // All of them are looked for before anything is done.
        let mut hosts = Vec::new();
        for name in &args.hosts {
            hosts.push(server.host(name).await?);
        }
        for host in &hosts {
            ui::say(&format!("{} is asked {}", shown(host), asked.what));
        }
        if let [host] = &hosts[..] {
            foresee(&server, (asked.verb)(&host.name)).await;
        }
        ui::confirm(
            &format!("Ask {} of them?", if hosts.len() == 1 { "this" } else { "all" }),
            args.act.yes,
        )?;
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for host in &hosts {
            let path = format!("/v1/hosts/{}/{}", host.name, asked.path);
            match server.post::<Noted>(&path, asked.body).await {
                Ok(noted) => done.push(Done1 { name: host.name.to_string(), event: noted.event }),
                Err(complaint) => refused.push((host.name.to_string(), complaint)),
            }
        }
        let acts = Acts::of(&done, &refused);
        if refused.is_empty() || args.act.output != Output::Json {
            tell_all(&acts, args.act.output)?;
        }
        let acts = serde_json::to_value(&acts)?;
        all_or_some(hosts.len(), refused).map_err(|complaint| complaint.with(&acts))
    })
}

/// Nothing is left undone for one host because of another: each is asked, and said for itself.
fn all_or_some(asked: usize, mut refused: Vec<(String, Complaint)>) -> Done {
    match refused.len() {
        0 => Ok(()),
        1 if asked == 1 => refused.pop().map_or(Ok(()), |(host, complaint)| Err(complaint.about(&host))),
        not_done => {
            for (host, complaint) in &refused {
                ui::say(&format!("{host}: not done: {}", complaint.what()));
            }
            let said = format!("not done for {not_done} of {asked} hosts");
            let silent = refused.iter().all(|(_, complaint)| complaint.is_unreachable());
            Err(if silent { Complaint::silent(said) } else { Complaint::refused(said) })
        }
    }
}

fn shown(host: &HostView) -> String {
    let state = host.doing.as_ref().map_or("never reported".to_owned(), |doing| doing.state.to_string());
    format!("{} ({}, {state})", host.name, host.channel)
}

/// Shows what the plan would be if this were asked for; a control plane that does not plan says nothing.
pub(crate) async fn foresee(server: &Asking, verb: Verb) {
    // Whatever stands against it is said when it is asked for.
    if let Ok(plan) = server.remote().post::<PlanView>("/v1/plan", &PlanAsked { verb }).await {
        ui::say_all(plan::foreseen(&plan));
    }
}

/// Something that was done.
#[derive(Debug, Serialize)]
pub(crate) struct Done1 {
    /// To what.
    pub(crate) name: String,
    /// The event that says so.
    pub(crate) event: u64,
}

/// Tells what was done.
pub(crate) fn tell(done: &[Done1], output: Output) -> Done {
    tell_all(&Acts::of(done, &[]), output)
}

/// Something that was not done, and why.
#[derive(Serialize)]
struct NotDone<'a> {
    name: &'a str,
    why: &'a str,
}

/// What was done and what was not, as programs read it. People are told the second as what it is, an error.
#[derive(Serialize)]
struct Acts<'a> {
    acts: &'a [Done1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<NotDone<'a>>,
}

impl<'a> Acts<'a> {
    fn of(acts: &'a [Done1], refused: &'a [(String, Complaint)]) -> Self {
        let not_done = |(name, complaint): &'a (String, Complaint)| NotDone { name, why: complaint.what() };
        Self { acts, refused: refused.iter().map(not_done).collect() }
    }
}

/// Tells what was done.
fn tell_all(said: &Acts<'_>, output: Output) -> Done {
    match output {
        Output::Json => return ui::json(said),
        Output::Name => ui::lines(said.acts.iter().map(|one| &one.name)),
        Output::Table => {
            ui::lines(said.acts.iter().map(|one| format!("{}: noted as event {}", one.name, one.event)));
        }
    }
    Ok(())
}
