//! [`EventsTaken`].

use nixfleet_core::wire::EventsTaken;

use super::{lines, passes_over_a_field_more};

#[test]
fn the_answer_to_a_batch_keeps_its_form() {
    let values: Vec<EventsTaken> = lines("wire-1/events-taken.jsonl");
    values.iter().for_each(passes_over_a_field_more);
}
