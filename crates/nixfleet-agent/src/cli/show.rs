//! The verbs that only look: `status`, `history` and `logs`. They take no lock and change nothing.

use std::path::Path;
use std::process::ExitCode;

use nixfleet_agent::activation::ActivationBackend;
use nixfleet_agent::activation::host::HostPaths;
use nixfleet_agent::activation::journal;
use nixfleet_agent::tools::journal::FOR_PEOPLE;
use nixfleet_core::activation::end::RunEnd;
use nixfleet_core::activation::outcome::Verdict;
use nixfleet_core::activation::record::{Activation, Fired, Reached, Run};
use nixfleet_core::ids::{ActivationId, Generation, NotAnActivationId, StorePath};
use serde::Serialize;

use super::followed::{self, Follows};
use super::refusal::{Done, Kind, Refusal};
use super::ui;

/// Lines of each unit of an activation that `logs` shows.
const LOG_LINES: u32 = 2_000;

fn known(state: &Path) -> Result<Vec<Activation>, Refusal> {
    let host = HostPaths::with_state(state);
    journal::history(&host.journal()).map_err(Refusal::from)
}

/// What `status --json` prints; version 1.
#[derive(Serialize)]
struct Status {
    version: u32,
    running: Option<StorePath>,
    booted: Option<StorePath>,
    profile: Option<Generation>,
    pending: Option<Row>,
    last: Option<Row>,
    /// Where the host stands on its way to the newest release; `null` while it follows no source.
    follows: Option<Follows>,
}

/// One activation, as `history --json` prints it; version 1.
#[derive(Serialize)]
struct Row {
    id: ActivationId,
    began_at_ms: u64,
    target: StorePath,
    previous: StorePath,
    step: String,
    runs: Vec<RunRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<nixfleet_core::activation::outcome::ActivationOutcome>,
}

/// A detached run of an activation, and how it ended.
#[derive(Serialize)]
struct RunRow {
    unit: String,
    run: Run,
    end: Option<RunEnd>,
}

impl RunRow {
    fn of(fired: &Fired) -> Self {
        Self { unit: fired.unit.clone(), run: fired.run, end: fired.end }
    }
}

impl Row {
    fn of(activation: &Activation) -> Self {
        Self {
            id: activation.id.clone(),
            began_at_ms: activation.began_at_ms,
            target: activation.began.target.clone(),
            previous: activation.began.previous.clone(),
            step: activation.reached.step().to_string(),
            runs: activation.runs.iter().map(RunRow::of).collect(),
            outcome: activation.outcome.clone(),
        }
    }
}

pub(crate) fn status(state: &Path, as_json: bool) -> Done {
    let activations = known(state)?;
    let follows = followed::read(state)?;
    let host = HostPaths::with_state(state);
    let pending = activations.iter().rfind(|activation| activation.is_pending());
    let last = activations.iter().rfind(|activation| !activation.is_pending());
    if as_json {
        ui::json(&Status {
            version: 1,
            running: host.current(),
            booted: host.booted(),
            profile: host.generation(),
            pending: pending.map(Row::of),
            last: last.map(Row::of),
            follows,
        });
        return Ok(ExitCode::SUCCESS);
    }
    let shown =
        |system: Option<StorePath>| system.map_or_else(|| "none".to_owned(), |system| system.to_string());
    ui::data(&format!("running   {}", shown(host.current())));
    ui::data(&format!("booted    {}", shown(host.booted())));
    let profile = host.generation().map(|g| format!("{} (generation {})", g.system, g.number));
    ui::data(&format!("profile   {}", profile.unwrap_or_else(|| "none".to_owned())));
    for line in follows.iter().flat_map(Follows::lines) {
        ui::data(&line);
    }
    ui::data(&format!("pending   {}", pending.map_or_else(|| "nothing".to_owned(), waiting)));
    ui::data(&format!("last      {}", last.map_or_else(|| "nothing".to_owned(), line)));
    Ok(ExitCode::SUCCESS)
}

/// What a pending activation waits for, in a sentence.
fn waiting(activation: &Activation) -> String {
    let target = &activation.began.target;
    let since = when(activation.last_at_ms);
    match &activation.reached {
        Reached::AwaitingReboot => format!("{target} waits for a reboot since {since}"),
        Reached::Confirming => format!("{target} is on trial since {since}; it waits for its confirmation"),
        Reached::Began
        | Reached::Realising
        | Reached::SettingProfile
        | Reached::ArmingDeadman
        | Reached::Running { .. }
        | Reached::Confirmed
        | Reached::Reverting
        | Reached::Finished => format!("{target} is at {} since {since}", activation.reached.step()),
    }
}

pub(super) fn when(at_ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at_ms);
    humantime::format_rfc3339_seconds(at).to_string()
}

fn line(activation: &Activation) -> String {
    let verdict = activation.outcome.as_ref().map(|outcome| &outcome.verdict);
    let said = verdict.map_or_else(|| format!("at {}", activation.reached.step()), Verdict::to_string);
    format!("{}  {}  {}  {said}", activation.id, when(activation.began_at_ms), activation.began.target)
}

pub(crate) fn history(state: &Path, as_json: bool) -> Done {
    let activations = known(state)?;
    for activation in &activations {
        if as_json { ui::json(&Row::of(activation)) } else { ui::data(&line(activation)) }
    }
    if activations.is_empty() && !as_json {
        ui::say("no activation yet");
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn logs<B: ActivationBackend>(state: &Path, id: &str, as_json: bool) -> Done {
    let listed = "`nixfleet-agent history` lists them";
    let id: ActivationId =
        id.parse().map_err(|error: NotAnActivationId| Refusal::usage(error.to_string()).hint(listed))?;
    let Some(activation) = known(state)?.into_iter().find(|activation| activation.id == id) else {
        let why = format!("there is no activation {id}");
        return Err(Refusal::new(Kind::NoSuchActivation, why).hint(listed));
    };
    let backend = B::with_state(state);
    backend.can_read_output().map_err(|missing| Refusal::from(&missing))?;
    for fired in &activation.runs {
        let lines = backend.last_lines(&fired.unit, LOG_LINES, FOR_PEOPLE).await;
        let end = fired.end.map_or_else(|| "not over".to_owned(), |end| end.to_string());
        if as_json {
            ui::json(&serde_json::json!({ "unit": fired.unit, "end": fired.end, "lines": lines }));
        } else {
            ui::say(&format!("--- {} ({end})", fired.unit));
            for line in &lines {
                ui::data(line);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
