//! The rollout planner: who may move now, and why everybody else may not.
//!
//! [`plan()`] takes a [`Snapshot`] and the time and returns a [`Plan`] (decisions about rollouts, orders to hosts) and a
//! [`PlanReport`] (a typed reason for every host that has no order). It is pure, total, and says the same for the same
//! snapshot. [`object()`] was written from the rules, shares no code with the planner, and is run on every plan before
//! it is carried out; [`sound_part()`] is what may be carried out of one that it objects to.
//!
//! The snapshot is kept by folding [`Fact`]s: what hosts reported, what people asked for, what plans decided. The fold
//! of one fact costs the same in a fleet of ten hosts and of a hundred thousand, but for a new release, which costs as
//! much as its channel has hosts. All times here are the control plane's own, except where a field says otherwise.
//!
//! A rollout is one release in its channel, so [`RolloutId`] is channel and sequence number. Nothing here chooses what a
//! host runs: an order names a release, and the host acts only on what it verified itself.

pub mod fact;
mod fold;
pub mod hosts;
pub mod object;
pub mod order;
pub mod planner;
pub mod progress;
pub mod reason;
mod said;
pub mod snapshot;

pub use fact::{Fact, NotFolded, Verb};
pub use hosts::Hosts;
pub use object::{Objection, Opinion, Sound, object, sound_part};
pub use order::{Decision, Order, Plan, Transition, What};
pub use planner::plan;
pub use progress::{Rollout, RolloutId, Status};
pub use reason::{Held, HeldIn, PlanReport, Reason};
pub use snapshot::{Channel, Host, Remembered, Snapshot, Standing};
