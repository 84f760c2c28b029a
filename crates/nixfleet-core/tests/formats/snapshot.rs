//! [`Snapshot`], with the state of its rollouts.

use nixfleet_core::rollout::{Snapshot, Status};

use super::{all_variants, lines, refuses_a_field_more};

fn variant(status: &Status) -> &'static str {
    match status {
        Status::Going => "going",
        Status::Paused(_) => "paused",
        Status::Halted { .. } => "halted",
        Status::Aborted(_) => "aborted",
    }
}

#[test]
fn a_snapshot_keeps_its_form_whatever_became_of_its_rollouts() {
    let snapshots: Vec<Snapshot> = lines("rollout-1/snapshot.jsonl");
    snapshots.iter().for_each(refuses_a_field_more);
    let channels = snapshots.iter().flat_map(|snapshot| snapshot.channels.values());
    let statuses = channels.filter_map(|channel| channel.rollout.clone()).map(|rollout| rollout.status);
    let statuses: Vec<Status> = statuses.collect();
    all_variants(&statuses, variant, &["going", "paused", "halted", "aborted"]);
}
