//! [`Hello`].

use nixfleet_core::wire::Hello;

use super::{lines, passes_over_a_field_more};

#[test]
fn a_hello_with_and_without_its_state_keeps_its_form() {
    let values: Vec<Hello> = lines("wire-1/hello.jsonl");
    values.iter().for_each(passes_over_a_field_more);
}
