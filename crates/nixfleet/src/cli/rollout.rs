//! `nixfleet rollout`: how far releases are, and what a person does to a rollout.

use clap::{Args, Subcommand};
use nixfleet_core::model::names::{ChannelName, Seq};
use nixfleet_core::model::policy::{Approval, WaveIndex};
use nixfleet_core::model::time::{Date, UnixMs};
use nixfleet_core::rollout::progress::{By, RolloutId};
use nixfleet_core::rollout::{Status, Verb};
use nixfleet_core::wire::people::{Because, Noted};
use nixfleet_core::wire::rollouts::{ApproveBody, HostCounts, RolloutView, WaveView};
use serde::Serialize;

use super::acts::{self, Act, ActArgs, Done1};
use super::asking::{AskArgs, Asking, asking};
use super::now;
use super::ui::table::{Cell, Tone};
use super::ui::{self, Complaint, Done, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutVerb {
    /// List the newest rollout of each channel
    List(ListArgs),
    /// Show a rollout: its waves, who waits on what, what failed
    Show(ShowArgs),
    /// Stop a rollout; hosts on their way arrive
    Pause(StepArgs),
    /// Let a rollout go on; the failures that halted it do not count any more
    Resume(StepArgs),
    /// End a rollout; only a newer release moves the channel then
    Abort(StepArgs),
    /// Open a wave that waits for a person
    Approve(ApproveArgs),
    /// Leave hosts out of the current rollout; nobody waits for them
    Skip(ActArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How the list is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The channel
    channel: String,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// The rollout: a channel, or CHANNEL/N to refuse if it is another release by now
    #[arg(value_name = "ROLLOUT", value_parser = named)]
    rollout: Named,
    #[command(flatten)]
    act: Act,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// The rollout: a channel, or CHANNEL/N to refuse if it is another release by now
    #[arg(value_name = "ROLLOUT", value_parser = named)]
    rollout: Named,
    /// The wave, by its name or its number from 1 [default: the one that waits for a person]
    #[arg(long, value_name = "WAVE")]
    wave: Option<String>,
    #[command(flatten)]
    act: Act,
}

/// A rollout by its channel, and perhaps its number.
#[derive(Debug, Clone)]
struct Named {
    channel: String,
    seq: Option<Seq>,
}

fn named(text: &str) -> Result<Named, String> {
    match text.split_once('/') {
        None => Ok(Named { channel: text.to_owned(), seq: None }),
        Some((channel, seq)) => {
            let number = seq.parse().ok().and_then(|number| Seq::new(number).ok());
            let seq = number.ok_or("write CHANNEL or CHANNEL/N, such as stable/7")?;
            Ok(Named { channel: channel.to_owned(), seq: Some(seq) })
        }
    }
}

/// What is done to a whole rollout.
#[derive(Debug, Clone, Copy)]
enum Step {
    Pause,
    Resume,
    Abort,
}

pub(crate) fn rollout(verb: &RolloutVerb) -> Done {
    match verb {
        RolloutVerb::List(args) => asking(&args.ask, async |server| {
            let rollouts = all(&server).await?;
            print(&rollouts, args.output)
        }),
        RolloutVerb::Show(args) => asking(&args.ask, async |server| {
            let rollout = one(&server, &args.channel).await?;
            show(&rollout, args.output)
        }),
        RolloutVerb::Pause(args) => step(args, Step::Pause),
        RolloutVerb::Resume(args) => step(args, Step::Resume),
        RolloutVerb::Abort(args) => step(args, Step::Abort),
        RolloutVerb::Approve(args) => approve(args),
        RolloutVerb::Skip(args) => acts::skip(args),
    }
}

/// The newest rollout of each channel.
pub(crate) async fn all(server: &Asking) -> Result<Vec<RolloutView>, Complaint> {
    /// More channels than anybody has.
    const CHANNELS_MAX: usize = 10_000;
    Ok(server.pages("/v1/rollouts", "", CHANNELS_MAX).await?.0)
}

async fn one(server: &Asking, channel: &str) -> Result<RolloutView, Complaint> {
    let channel = server.channel(channel).await?;
    let rollout = server.find(&format!("/v1/rollouts/{channel}")).await?;
    rollout.ok_or_else(|| {
        Complaint::refused(format!("channel {channel} has no rollout yet"))
            .hint("a plan takes a new release up within a moment; `nixfleet plan` says who plans")
    })
}

fn print(rollouts: &[RolloutView], output: Output) -> Done {
    #[derive(Serialize)]
    struct Rollouts<'a> {
        rollouts: &'a [RolloutView],
    }
    match output {
        Output::Json => return ui::json(&Rollouts { rollouts }),
        Output::Name => ui::lines(rollouts.iter().map(|rollout| &rollout.rollout)),
        Output::Table => ui::table(&HEADINGS, &rollouts.iter().map(row).collect::<Vec<_>>()),
    }
    Ok(())
}

/// The headings of [`row`].
pub(crate) const HEADINGS: [&str; 8] =
    ["ROLLOUT", "STATE", "WAVE", "DONE", "MOVING", "WAITING", "FAILED", "WAITS ON"];

/// A line for a rollout.
pub(crate) fn row(rollout: &RolloutView) -> Vec<Cell> {
    let counts = &rollout.hosts;
    let (state, tone) = state(rollout);
    let failed = counts.failed.to_string();
    vec![
        rollout.rollout.as_str().into(),
        Cell::toned(state, tone),
        wave(rollout).into(),
        format!("{}/{}", counts.done, counts.total).into(),
        (counts.moving + counts.soaking).to_string().into(),
        (counts.waiting + counts.offline).to_string().into(),
        if counts.failed > 0 { Cell::toned(failed, Tone::Bad) } else { failed.into() },
        waits(rollout).into(),
    ]
}

/// Whether it goes on, in a word.
pub(crate) fn state(rollout: &RolloutView) -> (&'static str, Tone) {
    match (&rollout.status, rollout.converged_ms) {
        (Status::Going, Some(_)) => ("converged", Tone::Good),
        (Status::Going, None) => ("going", Tone::Busy),
        (Status::Paused(_), _) => ("paused", Tone::Busy),
        (Status::Halted { .. }, _) => ("halted", Tone::Bad),
        (Status::Aborted(_), _) => ("aborted", Tone::Bad),
    }
}

/// The last wave that is open, and how many there are: `2/3`.
pub(crate) fn wave(rollout: &RolloutView) -> String {
    let open = rollout.waves.iter().filter(|wave| wave.opened_ms.is_some()).count();
    format!("{open}/{}", rollout.waves.len())
}

/// What a rollout waits for, in words.
pub(crate) fn waits(rollout: &RolloutView) -> String {
    match &rollout.status {
        Status::Paused(By { who, why, at_ms: _ }) => return format!("{who} paused it: {why}"),
        Status::Halted { host, failure, at_ms: _ } => {
            return format!("{host} failed ({failure}): `rollout resume`, or a newer release, goes on");
        }
        Status::Aborted(By { who, why, at_ms: _ }) => {
            return format!("{who} ended it: {why}; a newer release goes on");
        }
        Status::Going => {}
    }
    let shut = rollout.waves.iter().find(|wave| wave.opened_ms.is_none());
    let first =
        |wave: &WaveView| wave.reasons.iter().find(|one| one.reason != "done").map(|one| one.text.clone());
    match shut.and_then(|wave| wave.text.clone()) {
        Some(text) => text,
        None if rollout.converged_ms.is_some() => "a newer release".to_owned(),
        None => rollout.waves.iter().find_map(first).unwrap_or_default(),
    }
}

fn show(rollout: &RolloutView, output: Output) -> Done {
    match output {
        Output::Json => return ui::json(rollout),
        Output::Name => ui::data(&rollout.rollout),
        Output::Table => {
            ui::lines(head(rollout, now()?));
            ui::data("");
            let rows: Vec<_> = rollout.waves.iter().map(wave_row).collect();
            ui::table(&["WAVE", "NAME", "OPEN", "DONE", "MOVING", "WAITING", "FAILED", "WAITS ON"], &rows);
            let reasons: Vec<_> = rollout
                .waves
                .iter()
                .flat_map(|wave| wave.reasons.iter().map(move |reason| (wave, reason)))
                .filter(|(_, reason)| reason.reason != "done")
                .map(|(wave, one)| {
                    vec![
                        wave.wave.to_string(),
                        one.hosts.to_string(),
                        one.first.to_string(),
                        one.text.clone(),
                    ]
                })
                .collect();
            if !reasons.is_empty() {
                ui::data("");
                ui::table(&["WAVE", "HOSTS", "SUCH AS", "DO NOT MOVE: FOR THEM"], &reasons);
            }
            failures(std::slice::from_ref(rollout));
        }
    }
    Ok(())
}

fn head(rollout: &RolloutView, now: UnixMs) -> Vec<String> {
    let mut lines = vec![
        format!("rollout    {}", rollout.rollout),
        format!("revision   {}", rollout.revision.as_ref().map_or("-".to_owned(), ToString::to_string)),
        format!("opened     {}, {} ago", Date(rollout.opened_ms), ui::ago(rollout.opened_ms, now)),
        format!("state      {}", state(rollout).0),
        format!("waits on   {}", waits(rollout)),
    ];
    lines.extend(rollout.converged_ms.map(|at| format!("converged  {}", Date(at))));
    lines.extend(rollout.quarantine.iter().map(|one| {
        format!("not offered any more: {}, since it failed on {} in {}", one.system, one.host, one.rollout)
    }));
    lines
}

fn wave_row(wave: &WaveView) -> Vec<Cell> {
    let HostCounts { total, done, soaking, moving, failed, offline, left_out: _, waiting } = wave.hosts;
    let open = match (wave.opened_ms, &wave.approved) {
        (Some(_), _) => "yes".to_owned(),
        (None, Some(by)) => format!("approved by {}", by.who),
        (None, None) if wave.approval == Approval::ByAPerson => "by a person".to_owned(),
        (None, None) => "no".to_owned(),
    };
    vec![
        wave.wave.to_string().into(),
        wave.name.to_string().into(),
        open.into(),
        format!("{done}/{total}").into(),
        (moving + soaking).to_string().into(),
        (waiting + offline).to_string().into(),
        if failed > 0 { Cell::toned(failed.to_string(), Tone::Bad) } else { "0".into() },
        wave.text.clone().unwrap_or_default().into(),
    ]
}

/// The lines of the failures of rollouts; none if there are none.
pub(crate) fn failure_rows(rollouts: &[RolloutView]) -> Vec<Vec<Cell>> {
    let of = |rollout: &RolloutView| {
        let rollout_name = rollout.rollout.clone();
        let row = move |failure: &nixfleet_core::wire::rollouts::FailureView| {
            vec![
                failure.host.to_string().into(),
                rollout_name.clone().into(),
                Cell::toned(failure.how.to_string(), Tone::Bad),
                failure.text.clone().into(),
            ]
        };
        rollout.failures.iter().map(row).collect::<Vec<_>>()
    };
    rollouts.iter().flat_map(of).collect()
}

/// The headings of [`failure_rows`].
pub(crate) const FAILURE_HEADINGS: [&str; 4] = ["FAILED", "ROLLOUT", "CLASS", "WHAT"];

fn failures(rollouts: &[RolloutView]) {
    let rows = failure_rows(rollouts);
    if !rows.is_empty() {
        ui::data("");
        ui::table(&FAILURE_HEADINGS, &rows);
    }
}

/// The rollout that is meant; refused if a number was said and it is another one by now.
async fn meant(server: &Asking, named: &Named) -> Result<RolloutView, Complaint> {
    let rollout = one(server, &named.channel).await?;
    match named.seq {
        Some(seq) if seq != rollout.seq => Err(Complaint::refused(format!(
            "the rollout of channel {} is {} by now",
            rollout.channel, rollout.rollout
        ))
        .hint(format!("`nixfleet rollout show {}` shows it", rollout.channel))),
        Some(_) | None => Ok(rollout),
    }
}

fn id(rollout: &RolloutView) -> RolloutId {
    RolloutId { channel: rollout.channel.clone(), seq: rollout.seq }
}

fn step(args: &StepArgs, step: Step) -> Done {
    asking(&args.act.ask, async |server| {
        let rollout = meant(&server, &args.rollout).await?;
        let (path, what, verb) = match step {
            Step::Pause => {
                ("pause", "is paused: no host begins to move", Verb::Pause { rollout: id(&rollout) })
            }
            Step::Resume => ("resume", "goes on", Verb::Resume { rollout: id(&rollout) }),
            Step::Abort => {
                ("abort", "ends: only a newer release moves it", Verb::Abort { rollout: id(&rollout) })
            }
        };
        ui::say(&format!("rollout {} ({}) {what}", rollout.rollout, state(&rollout).0));
        let body = Because { why: args.act.why.clone() };
        act(&server, &rollout, &args.act, path, (&body, verb)).await
    })
}

async fn act(
    server: &Asking,
    rollout: &RolloutView,
    act: &Act,
    path: &str,
    (body, verb): (&impl Serialize, Verb),
) -> Done {
    acts::foresee(server, verb).await;
    ui::confirm("Shall this be done?", act.yes)?;
    let (channel, seq): (&ChannelName, Seq) = (&rollout.channel, rollout.seq);
    let noted: Noted = server.post(&format!("/v1/rollouts/{channel}/{seq}/{path}"), body).await?;
    acts::tell(&[Done1 { name: rollout.rollout.clone(), event: noted.event }], act.output)
}

fn approve(args: &ApproveArgs) -> Done {
    asking(&args.act.ask, async |server| {
        let rollout = meant(&server, &args.rollout).await?;
        let wave = wave_meant(&rollout, args.wave.as_deref())?;
        ui::say(&format!(
            "wave {} ({}) of rollout {} may open: {}",
            wave.wave,
            wave.name,
            rollout.rollout,
            ui::hosts(wave.hosts.total)
        ));
        let body = ApproveBody { why: args.act.why.clone(), wave: wave.wave };
        let verb = Verb::Approve { rollout: id(&rollout), wave: wave.wave };
        act(&server, &rollout, &args.act, "approve", (&body, verb)).await
    })
}

fn wave_meant<'a>(rollout: &'a RolloutView, said: Option<&str>) -> Result<&'a WaveView, Complaint> {
    let names = || rollout.waves.iter().map(|wave| wave.name.as_str());
    let Some(said) = said else {
        let waits = |wave: &&WaveView| {
            wave.opened_ms.is_none() && wave.approval == Approval::ByAPerson && wave.approved.is_none()
        };
        return rollout.waves.iter().find(waits).ok_or_else(|| {
            Complaint::refused(format!("no wave of rollout {} waits for a person", rollout.rollout))
        });
    };
    let number = |wave: &WaveView| WaveIndex(wave.wave.0).to_string() == said;
    let found = rollout.waves.iter().find(|wave| wave.name.as_str() == said || number(wave));
    found.ok_or_else(|| {
        let complaint = Complaint::refused(format!("rollout {} has no wave `{said}`", rollout.rollout));
        complaint.hint(match nixfleet_sys::text::nearest(said, names()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("its waves are {}", names().collect::<Vec<_>>().join(", ")),
        })
    })
}
