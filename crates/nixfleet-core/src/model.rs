//! What a release says: names, policy, probes, and what each host shall run. Plain values, no decisions.
//!
//! `nixfleet-trust` reads these from signed bytes, the host machine and the planner act on them, and the operator's
//! command line writes them.
//!
//! # How the format may grow
//!
//! A host must not drop a rule silently that it does not understand: a new gate that an old agent ignores is no gate.
//! So **unknown fields are refused**, in every type here. A field that is added later has a default that means "as
//! before", and a writer leaves it out when it has that value; so a release stays readable to older agents until it
//! uses something that they cannot do, and then they say so instead of guessing. What no host has to understand goes
//! into [`release::Release::info`], which is free text.
//!
//! - [`names`]: fleet, channel, host, tag, sequence number, release.
//! - [`time`]: points in time and spans, with their units.
//! - [`select`]: which hosts, and how many.
//! - [`schedule`]: windows and reboots.
//! - [`probe`]: what a healthy host answers.
//! - [`policy`]: how a rollout goes.
//! - [`release`]: the release of a channel, and the entry of one host.
//! - [`faults`]: what can be wrong with either.
//! - [`circles`]: hosts that would wait for each other.
//! - [`layout`]: where a release source has which document.

pub mod circles;
pub mod faults;
pub mod layout;
pub mod names;
pub mod policy;
pub mod probe;
pub mod release;
pub mod schedule;
pub mod select;
pub mod time;

/// Whether a field is left out when it is written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
