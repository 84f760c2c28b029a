//! [`Fact`].

use nixfleet_core::rollout::Fact;

use super::{all_variants, lines};

/// A new variant does not compile here until it is named, and does not pass until it has a line.
fn variant(value: &Fact) -> &'static str {
    match value {
        Fact::ReleaseTaken { .. } => "release-taken",
        Fact::HostStands { .. } => "host-stands",
        Fact::HostHeard { .. } => "host-heard",
        Fact::Asked { .. } => "asked",
        Fact::Decided(_) => "decided",
        Fact::Ordered(_) => "ordered",
    }
}

const ALL: &[&str] = &["release-taken", "host-stands", "host-heard", "asked", "decided", "ordered"];

#[test]
fn every_fact_keeps_its_form() {
    let values: Vec<Fact> = lines("rollout-1/fact.jsonl");
    all_variants(&values, variant, ALL);
}
