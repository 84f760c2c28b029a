//! Events in words, for people who read what happened. The names and fields on the wire are in [`super::event`]; these
//! words may change.

use std::fmt;

use super::event::{Event, HookTime, Refusal};
use super::probing::{ProbeReport, ProbeResult};
use crate::activation::outcome::{ActivationOutcome, Failure};
use crate::model::time::Date;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentStarted { setup, world: _, journal: _, root: _ } => {
                write!(f, "agent {} started", setup.agent)
            }
            Self::SystemChanged { .. } => f.write_str("somebody else changed what runs"),
            Self::Woke => f.write_str("it looked again"),
            Self::SourceAnswered { watch: _ } => f.write_str("the source answers"),
            Self::SourceFailed { why } => write!(f, "the source does not answer: {why}"),
            Self::RootAccepted { root } => write!(f, "accepted root {}", root.version),
            Self::ReleaseVerified { release, system: _, resets: _ } => {
                write!(f, "verified release {release}")
            }
            Self::ReleaseRefused { kind, why } => write!(f, "refused what was served ({kind}): {why}"),
            Self::TargetStaged { release } => write!(f, "fetched and checked release {release}"),
            Self::StageFailed { release, failure } => {
                failed(f, format_args!("fetching release {release}"), failure)
            }
            Self::OrderedToGo { release } => write!(f, "was told to go to release {release}"),
            Self::OrderedToReboot { release } => write!(f, "was told to restart for release {release}"),
            Self::OrderedToRevert { release } => write!(f, "was told to go back from release {release}"),
            Self::OrderWithdrawn { release } => write!(f, "the order for release {release} was taken back"),
            Self::Held { by, why, until_ms: None } => write!(f, "held by {by}: {why}"),
            Self::Held { by, why, until_ms: Some(until) } => {
                write!(f, "held by {by} until {}: {why}", Date(*until))
            }
            Self::Unheld { by } => write!(f, "let go by {by}"),
            Self::RetryAsked { by } => write!(f, "{by} wants another try"),
            Self::LocalActivationStarted { id, target: _, at_ms: _ } => write!(f, "activation {id} began"),
            Self::LocalActivationAdvanced { id, step, at_ms: _ } => write!(f, "activation {id} is at {step}"),
            Self::LocalActivationCompleted { outcome, at_ms: _ }
            | Self::LocalActivationDeferred { outcome, at_ms: _ } => ended(f, outcome),
            Self::LocalActivationFailed { failure, outcome: _, at_ms: _ } => {
                failed(f, format_args!("the activation"), failure)
            }
            Self::ProbeReported(report) => report.fmt(f),
            Self::HooksRan { run } => write!(f, "the hooks {} the reboot ran", run.when),
            Self::HookFailed { run, why } => write!(f, "a hook {} the reboot failed: {why}", run.when),
            Self::RebootRefused { why } => write!(f, "the restart was refused: {why}"),
            Self::StagingBegan { release, attempt: 1 } => write!(f, "takes up release {release}"),
            Self::StagingBegan { release, attempt } => write!(f, "takes up release {release}, try {attempt}"),
            Self::WentAhead { release, id } => write!(f, "switches to release {release} by activation {id}"),
            Self::TargetAdopted { release } => write!(f, "runs release {release} already"),
            Self::TargetWithdrawn { id, newer } => write!(f, "gives activation {id} up for release {newer}"),
            Self::ProbesPassed { watch: _ } => f.write_str("the trial is good; it is committed"),
            Self::RevertBegan { id: _, failure } => failed(f, format_args!("goes back: the trial"), failure),
            Self::SoakPassed { watch: _ } => {
                f.write_str("the release is done here: it was well for long enough")
            }
            Self::SoakFailed { failure } => failed(f, format_args!("the watch"), failure),
            Self::RebootBegan { release } => write!(f, "restarts for release {release}"),
            Self::RebootOverdue => f.write_str("should have restarted by now"),
            Self::ReportsLost { from } => write!(f, "reports from {from} on were lost"),
            Self::StateTold { state } => write!(f, "told where it stands: {}", state.phase.name()),
        }
    }
}

fn failed(f: &mut fmt::Formatter<'_>, what: fmt::Arguments<'_>, failure: &Failure) -> fmt::Result {
    write!(f, "{what} failed ({}): {failure}", failure.class())
}

fn ended(f: &mut fmt::Formatter<'_>, outcome: &ActivationOutcome) -> fmt::Result {
    write!(f, "activation {} ended: {}", outcome.id, outcome.verdict)
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { watch: _, probe, run, result, evidence } = self;
        let found = match result {
            ProbeResult::Passed => "passed",
            ProbeResult::Failed => "failed",
        };
        write!(f, "probe {probe} {found} (run {run}): {evidence}")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trust => "trust",
            Self::Expired => "expired",
            Self::Clock => "clock",
            Self::Unreadable => "unreadable",
        })
    }
}

impl fmt::Display for HookTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}
