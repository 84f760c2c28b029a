//! [`EventBatch`].

use nixfleet_core::wire::EventBatch;

use super::{lines, passes_over_a_field_more};

#[test]
fn a_batch_of_events_keeps_its_form() {
    let values: Vec<EventBatch> = lines("wire-1/event-batch.jsonl");
    values.iter().for_each(passes_over_a_field_more);
}
