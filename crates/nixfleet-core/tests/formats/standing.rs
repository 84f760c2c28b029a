//! [`Standing`].

use nixfleet_core::host::waiting::StateName;
use nixfleet_core::rollout::Standing;

use super::{all_variants, lines, refuses_a_field_more};

/// A new variant does not compile here until it is named, and does not pass until it has a line.
fn variant(value: &Standing) -> &'static str {
    match value.state {
        StateName::Converged => "converged",
        StateName::Staging => "staging",
        StateName::Staged => "staged",
        StateName::Activating => "activating",
        StateName::AwaitingReboot => "awaiting-reboot",
        StateName::Confirming => "confirming",
        StateName::Soaking => "soaking",
        StateName::Reverting => "reverting",
        StateName::Reverted => "reverted",
        StateName::Failed => "failed",
    }
}

const ALL: &[&str] = &[
    "converged",
    "staging",
    "staged",
    "activating",
    "awaiting-reboot",
    "confirming",
    "soaking",
    "reverting",
    "reverted",
    "failed",
];

#[test]
fn every_standing_keeps_its_form() {
    let values: Vec<Standing> = lines("rollout-1/standing.jsonl");
    all_variants(&values, variant, ALL);
    values.iter().for_each(refuses_a_field_more);
}
