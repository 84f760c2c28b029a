//! [`Order`].

use nixfleet_core::rollout::{Order, What};

use super::{all_variants, lines, refuses_a_field_more};

/// A new variant does not compile here until it is named, and does not pass until it has a line.
fn variant(value: &Order) -> &'static str {
    match value.what {
        What::Stage => "stage",
        What::Go => "go",
        What::Retry => "retry",
        What::Reboot => "reboot",
        What::Revert => "revert",
        What::Withdraw => "withdraw",
    }
}

const ALL: &[&str] = &["stage", "go", "retry", "reboot", "revert", "withdraw"];

#[test]
fn every_order_keeps_its_form() {
    let values: Vec<Order> = lines("rollout-1/order.jsonl");
    all_variants(&values, variant, ALL);
    values.iter().for_each(refuses_a_field_more);
}
