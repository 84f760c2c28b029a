//! [`Verb`].

use nixfleet_core::rollout::Verb;

use super::{all_variants, lines};

/// A new variant does not compile here until it is named, and does not pass until it has a line.
fn variant(value: &Verb) -> &'static str {
    match value {
        Verb::Pause { .. } => "pause",
        Verb::Resume { .. } => "resume",
        Verb::Abort { .. } => "abort",
        Verb::Approve { .. } => "approve",
        Verb::Retry { .. } => "retry",
        Verb::Skip { .. } => "skip",
        Verb::Hold { .. } => "hold",
        Verb::Unhold { .. } => "unhold",
    }
}

const ALL: &[&str] = &["pause", "resume", "abort", "approve", "retry", "skip", "hold", "unhold"];

#[test]
fn every_verb_keeps_its_form() {
    let values: Vec<Verb> = lines("rollout-1/verb.jsonl");
    all_variants(&values, variant, ALL);
}
