//! [`Reason`].

use nixfleet_core::rollout::Reason;

use super::{all_variants, lines};

/// A new variant does not compile here until it is named, and does not pass until it has a line.
fn variant(value: &Reason) -> &'static str {
    match value {
        Reason::Done => "done",
        Reason::OnItsWay { .. } => "on-its-way",
        Reason::Soaking => "soaking",
        Reason::Superseded { .. } => "superseded",
        Reason::TakenBack { .. } => "taken-back",
        Reason::Paused(_) => "paused",
        Reason::Halted { .. } => "halted",
        Reason::Aborted(_) => "aborted",
        Reason::Expired { .. } => "expired",
        Reason::Held { .. } => "held",
        Reason::Skipped(_) => "skipped",
        Reason::Quarantined { .. } => "quarantined",
        Reason::Failed { .. } => "failed",
        Reason::TriesAgain { .. } => "tries-again",
        Reason::Offline { .. } => "offline",
        Reason::NeverReported => "never-reported",
        Reason::NotStaged => "not-staged",
        Reason::StageBudget { .. } => "stage-budget",
        Reason::Wave { .. } => "wave",
        Reason::NoSuchWave { .. } => "no-such-wave",
        Reason::Budget { .. } => "budget",
        Reason::Edge { .. } => "edge",
        Reason::Window { .. } => "window",
        Reason::WindowNeverOpens { .. } => "window-never-opens",
        Reason::Withheld { .. } => "withheld",
        Reason::Deadlock { .. } => "deadlock",
    }
}

const ALL: &[&str] = &[
    "done",
    "on-its-way",
    "soaking",
    "superseded",
    "taken-back",
    "paused",
    "halted",
    "aborted",
    "expired",
    "held",
    "skipped",
    "quarantined",
    "failed",
    "tries-again",
    "offline",
    "never-reported",
    "not-staged",
    "stage-budget",
    "wave",
    "no-such-wave",
    "budget",
    "edge",
    "window",
    "window-never-opens",
    "withheld",
    "deadlock",
];

#[test]
fn every_reason_keeps_its_form() {
    let values: Vec<Reason> = lines("rollout-1/reason.jsonl");
    all_variants(&values, variant, ALL);
}
