//! The rollout planner from outside: stories with recorded answers, and properties over any fleet.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod objections;
mod properties;
mod stories;
mod world;
