//! [`Decision`].

use nixfleet_core::rollout::{Decision, Transition};

use super::{all_variants, lines, refuses_a_field_more};

/// A new variant does not compile here until it is named, and does not pass until it has a line.
fn variant(value: &Decision) -> &'static str {
    match &value.becomes {
        Transition::Superseded { .. } => "superseded",
        Transition::Opened { .. } => "opened",
        Transition::FailureCounted { .. } => "failure-counted",
        Transition::Halted { .. } => "halted",
        Transition::Quarantined { .. } => "quarantined",
        Transition::WaveOpened { .. } => "wave-opened",
        Transition::Converged => "converged",
    }
}

const ALL: &[&str] =
    &["superseded", "opened", "failure-counted", "halted", "quarantined", "wave-opened", "converged"];

#[test]
fn every_decision_keeps_its_form() {
    let values: Vec<Decision> = lines("rollout-1/decision.jsonl");
    all_variants(&values, variant, ALL);
    values.iter().for_each(refuses_a_field_more);
}
