//! [`Orders`], with every [`Wish`].

use nixfleet_core::wire::{Order, Orders, Wish};

use super::{all_variants, lines, passes_over_a_field_more};

fn variant(order: &Order) -> &'static str {
    match order.what {
        Wish::Go { .. } => "go",
        Wish::Reboot { .. } => "reboot",
        Wish::Withdraw { .. } => "withdraw",
        Wish::Hold { .. } => "hold",
        Wish::Unhold { .. } => "unhold",
        Wish::Retry { .. } => "retry",
        Wish::Stage { .. } => "stage",
        Wish::Revert { .. } => "revert",
    }
}

#[test]
fn orders_keep_their_form_whatever_they_ask_for() {
    let values: Vec<Orders> = lines("wire-1/orders.jsonl");
    values.iter().for_each(passes_over_a_field_more);
    let orders: Vec<Order> = values.into_iter().flat_map(|orders| orders.orders).collect();
    let all = ["go", "reboot", "withdraw", "hold", "unhold", "retry", "stage", "revert"];
    all_variants(&orders, variant, &all);
}
