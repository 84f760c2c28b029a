//! `nixfleet hosts`, `host` and `why`: what the control plane knows of hosts, and why one does not move.

use clap::Args;
use nixfleet_core::activation::outcome::{Failure, FailureClass};
use nixfleet_core::host::Event;
use nixfleet_core::host::phase::StateName;
use nixfleet_core::host::state::Refused;
use nixfleet_core::host::waiting::Doing;
use nixfleet_core::model::names::Tag;
use nixfleet_core::model::time::{Date, UnixMs};
use nixfleet_core::wire::log::Fact;
use nixfleet_core::wire::people::{EventView, HostView, StrangerView};
use nixfleet_core::wire::rollouts::WhyView;
use serde::Serialize;

use super::asking::{AskArgs, Asking, asking};
use super::now;
use super::ui::table::{Cell, Tone};
use super::ui::{self, Done, Output};

/// Hosts that are listed at once.
const HOSTS_MAX: usize = 100_000;
/// A host's events that are looked through for the newest ones.
const EVENTS_MAX: usize = 50_000;
/// Clocks so far apart are shown: what a host says is dated by its own, and a request may be under way for some seconds.
const CLOCKS_APART_MS: u64 = 60_000;

#[derive(Debug, Args)]
pub(crate) struct HostsArgs {
    /// Only those of this channel
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Only those in this state: converged, staged, failed, reverted, …
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Option<StateName>,
    /// The keys that came and that no release names, instead
    #[arg(long, conflicts_with_all = ["channel", "state"])]
    strangers: bool,
    /// How the list is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// The host
    host: String,
    /// So many of its newest events
    #[arg(long, value_name = "N", default_value_t = 20)]
    events: usize,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The host
    host: String,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
}

const STATES: [StateName; 10] = [
    StateName::Converged,
    StateName::Staging,
    StateName::Staged,
    StateName::Activating,
    StateName::AwaitingReboot,
    StateName::Confirming,
    StateName::Soaking,
    StateName::Reverting,
    StateName::Reverted,
    StateName::Failed,
];

fn state(text: &str) -> Result<StateName, String> {
    let named = STATES.into_iter().find(|state| state.to_string() == text);
    named.ok_or_else(|| {
        let known: Vec<String> = STATES.iter().map(ToString::to_string).collect();
        match nixfleet_sys::text::nearest(text, known.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("there are {}", known.join(", ")),
        }
    })
}

/// What colour repeats of a state.
pub(crate) fn tone(state: StateName) -> Tone {
    match state {
        StateName::Converged => Tone::Good,
        StateName::Staging
        | StateName::Staged
        | StateName::Activating
        | StateName::AwaitingReboot
        | StateName::Confirming
        | StateName::Soaking => Tone::Busy,
        StateName::Reverting | StateName::Reverted | StateName::Failed => Tone::Bad,
    }
}

/// The tone of a cell with a host's state in it.
fn state_cell(host: &HostView) -> Cell {
    match &host.doing {
        None => Cell::toned("never reported", Tone::Busy),
        Some(doing) => Cell::toned(doing.state.to_string(), tone(doing.state)),
    }
}

pub(crate) fn hosts(args: &HostsArgs) -> Done {
    asking(&args.ask, async |server| {
        if args.strangers {
            return strangers(&server, args.output).await;
        }
        let path = match &args.channel {
            Some(channel) => format!("/v1/hosts?channel={}", server.channel(channel).await?),
            None => "/v1/hosts".to_owned(),
        };
        let (mut hosts, is_all) = server.pages::<HostView>(&path, "", HOSTS_MAX).await?;
        if let Some(state) = args.state {
            hosts.retain(|host| host.doing.as_ref().is_some_and(|doing| doing.state == state));
        }
        print_hosts(&hosts, args.output)?;
        if !is_all {
            ui::say(&format!("there are more than {HOSTS_MAX}; `--channel` makes them fewer"));
        }
        Ok(())
    })
}

fn print_hosts(hosts: &[HostView], output: Output) -> Done {
    #[derive(Serialize)]
    struct Hosts<'a> {
        hosts: &'a [HostView],
    }
    match output {
        Output::Json => return ui::json(&Hosts { hosts }),
        Output::Name => ui::lines(hosts.iter().map(|host| host.name.as_str())),
        Output::Table => {
            let now = now()?;
            let rows: Vec<_> = hosts.iter().map(|host| row(host, now)).collect();
            ui::table(&["HOST", "CHANNEL", "RELEASE", "WAVE", "STATE", "HEARD", "WAITS FOR"], &rows);
        }
    }
    Ok(())
}

fn row(host: &HostView, now: UnixMs) -> Vec<Cell> {
    vec![
        host.name.as_str().into(),
        host.channel.as_str().into(),
        host.release_seq.to_string().into(),
        (u32::from(host.wave) + 1).to_string().into(),
        state_cell(host),
        heard(host, now).into(),
        waits(host).into(),
    ]
}

fn heard(host: &HostView, now: UnixMs) -> String {
    host.heard_ms.map_or_else(|| "never".to_owned(), |at| format!("{} ago", ui::ago(at, now)))
}

/// What it waits for, or what went wrong, by its own word.
fn waits(host: &HostView) -> String {
    match (&host.fault, &host.doing) {
        (Some(fault), _) => format!("its reports cannot be followed: {fault}"),
        (None, None) => "its first report".to_owned(),
        (None, Some(Doing { failure: Some((class, failure)), .. })) => format!("({class}) {failure}"),
        (None, Some(Doing { failure: None, waiting, .. })) => waiting.to_string(),
    }
}

async fn strangers(server: &Asking, output: Output) -> Done {
    #[derive(Serialize)]
    struct Strangers {
        strangers: Vec<StrangerView>,
    }
    let (strangers, _) = server.pages::<StrangerView>("/v1/strangers", "", HOSTS_MAX).await?;
    match output {
        Output::Json => ui::json(&Strangers { strangers }),
        Output::Name => {
            ui::lines(strangers.iter().map(|stranger| &stranger.key));
            Ok(())
        }
        Output::Table => {
            let now = now()?;
            let ago = |at| format!("{} ago", ui::ago(at, now));
            let row = |one: &StrangerView| {
                vec![
                    one.key.clone(),
                    ago(one.first_ms),
                    ago(one.last_ms),
                    one.times.to_string(),
                    one.address.clone(),
                ]
            };
            ui::table(
                &["KEY", "FIRST", "LAST", "TIMES", "FROM"],
                &strangers.iter().map(row).collect::<Vec<_>>(),
            );
            Ok(())
        }
    }
}

/// A host with all that is known of it.
#[derive(Debug, Serialize)]
struct Whole {
    host: HostView,
    why: Option<WhyView>,
    events: Vec<EventView>,
}

pub(crate) fn host(args: &HostArgs) -> Done {
    asking(&args.ask, async |server| {
        let host = server.host(&args.host).await?;
        if args.output == Output::Name {
            ui::data(host.name.as_str());
            return Ok(());
        }
        let name = host.name.clone();
        // Without a rollout there is no reason yet.
        let why = server.find(&format!("/v1/hosts/{name}/why")).await?;
        let (mut events, _) =
            server.pages::<EventView>(&format!("/v1/events?host={name}"), "", EVENTS_MAX).await?;
        events.drain(..events.len().saturating_sub(args.events));
        let whole = Whole { host, why, events };
        if args.output == Output::Json {
            return ui::json(&whole);
        }
        ui::lines(describe(&whole, now()?));
        if !whole.events.is_empty() {
            ui::data("");
            timeline(&whole.events);
        }
        Ok(())
    })
}

fn describe(whole: &Whole, now: UnixMs) -> Vec<String> {
    let Whole { host, why, events: _ } = whole;
    let none = || "not known".to_owned();
    let tags: Vec<_> = host.tags.iter().map(Tag::as_str).collect();
    let mut lines = vec![
        format!("host      {}", host.name),
        format!(
            "channel   {}, release {}, wave {}",
            host.channel,
            host.release_seq,
            u32::from(host.wave) + 1
        ),
    ];
    lines.extend((!tags.is_empty()).then(|| format!("tags      {}", tags.join(", "))));
    if let Some(doing) = &host.doing {
        lines.push(format!("state     {} since {}", doing.state, Date(doing.since_ms)));
        lines.push(format!("waits     for {}", doing.waiting));
    } else {
        lines.push("state     it never reported".to_owned());
    }
    lines.extend(why.iter().map(|why| format!("why       {}", why.text)));
    lines.extend(failure(host).map(|(class, failure)| format!("failure   ({class}) {failure}")));
    lines.extend(refused(host).map(|refused| format!("refuses   {refused}")));
    lines.extend(host.fault.iter().map(|fault| format!("fault     its reports cannot be followed: {fault}")));
    lines.push(format!("shall run {}", host.system));
    lines.push(format!("runs      {}", host.current.clone().unwrap_or_else(none)));
    lines.push(format!("agent     {}", host.agent.clone().unwrap_or_else(none)));
    lines.push(format!("heard     {}", heard(host, now)));
    lines.extend(clock(host).map(|clock| format!("clock     {clock}")));
    lines
}

/// What it does not take of what it is served, and why.
fn refused(host: &HostView) -> Option<String> {
    let Refused { kind, why, since_ms } = host.refused.as_ref()?;
    Some(format!("what it is served, since {}: ({kind}) {why}", Date(*since_ms)))
}

/// How far its clock is from the control plane's, where that is far. Nobody can tell from here which of the two is right.
fn clock(host: &HostView) -> Option<String> {
    let ahead = host.clock_ahead_ms?;
    let way = if ahead < 0 { "behind" } else { "ahead of" };
    let far = ahead.unsigned_abs() >= CLOCKS_APART_MS;
    far.then(|| format!("{} {way} the control plane's", ui::span_short(ahead.unsigned_abs())))
}

fn failure(host: &HostView) -> Option<&(FailureClass, Failure)> {
    host.doing.as_ref()?.failure.as_ref()
}

/// What happened, each with how long after the one before it; below the end of an activation, what its steps took.
fn timeline(events: &[EventView]) {
    let mut before: Option<&EventView> = None;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for event in events {
        let after = before.map(|before| format!("+{}", ui::span_short(ms_between(before, event))));
        let when = by_its_own_clock(event).unwrap_or(event.at_ms);
        rows.push(vec![Date(when).to_string(), after.unwrap_or_default(), event.fact.to_string()]);
        rows.extend(steps(event).map(|steps| vec![String::new(), String::new(), steps]));
        before = Some(event);
    }
    ui::table(&["WHEN", "AFTER", "WHAT"], &rows);
}

/// When the host says that it happened; `None` for what it did not report. A host that was cut off reports hours at once.
fn by_its_own_clock(event: &EventView) -> Option<UnixMs> {
    let Fact::Reported { record } = &event.fact else { return None };
    Some(record.at_ms)
}

/// Between two of a host's events by its own clock, and else by the control plane's: never by one and the other.
fn ms_between(before: &EventView, event: &EventView) -> u64 {
    match (by_its_own_clock(before), by_its_own_clock(event)) {
        (Some(before), Some(now)) => now.ms_since(before),
        (Some(_) | None, Some(_) | None) => event.at_ms.ms_since(before.at_ms),
    }
}

/// What the steps of an activation took, if this is its end.
fn steps(event: &EventView) -> Option<String> {
    let Fact::Reported { record } = &event.fact else { return None };
    let (Event::LocalActivationCompleted { outcome, .. }
    | Event::LocalActivationDeferred { outcome, .. }
    | Event::LocalActivationFailed { outcome: Some(outcome), .. }) = &record.fact
    else {
        return None;
    };
    let steps: Vec<_> = outcome.steps.iter().map(|one| format!("{} {} ms", one.step, one.ms)).collect();
    (!steps.is_empty()).then(|| format!("  {}", steps.join(", ")))
}

pub(crate) fn why(args: &WhyArgs) -> Done {
    asking(&args.ask, async |server| {
        let host = server.host(&args.host).await?;
        let name = host.name.clone();
        let why: Option<WhyView> = server.find(&format!("/v1/hosts/{name}/why")).await?;
        match args.output {
            Output::Json => return ui::json(&Whole { host, why, events: Vec::new() }),
            Output::Name => ui::data(why.as_ref().map_or("unknown", |why| &why.reason.reason)),
            Output::Table => ui::lines(reasons(&host, why.as_ref(), now()?)),
        }
        Ok(())
    })
}

fn reasons(host: &HostView, why: Option<&WhyView>, now: UnixMs) -> Vec<String> {
    let mut lines = Vec::new();
    match why {
        None => lines.push(format!("{}: no plan has taken it up", host.name)),
        Some(why) => {
            lines.push(format!("{}: {}", host.name, why.text));
            lines.push(format!("  rollout {}, wave {}", why.rollout, why.wave));
            lines.extend(why.ordered.iter().map(|ordered| {
                let what = serde_json::to_value(ordered.what).ok();
                let what = what.as_ref().and_then(|what| what.as_str()).unwrap_or("something").to_owned();
                format!("  was ordered: {what} {}, {} ago", ordered.release, ui::ago(ordered.at_ms, now))
            }));
        }
    }
    lines.extend(host.doing.iter().map(|doing| {
        let Doing { state, since_ms, waiting, .. } = doing;
        format!("  by its own word: {state} since {}, waits for {waiting}", Date(*since_ms))
    }));
    lines.extend(failure(host).map(|(class, failure)| format!("  what went wrong: ({class}) {failure}")));
    lines.extend(refused(host).map(|refused| format!("  it refuses {refused}")));
    lines.push(format!("  heard of: {}", heard(host, now)));
    lines.extend(clock(host).map(|clock| format!("  its clock: {clock}")));
    lines
}
