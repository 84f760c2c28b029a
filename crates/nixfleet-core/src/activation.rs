//! One activation on one host: its facts, what they mean, and what to do next. Pure; the agent gathers and acts.
//!
//! - [`outcome`]: how an activation ended, as types with the facts in them; [`failure`]: why.
//! - [`record`]: the lines of the activation journal, and [`record::Activation`], what they fold to.
//! - [`end`]: how a detached run ended, as its own record says.
//! - [`units`]: what became of the units that were running before.
//! - [`platform`]: what of NixOS and nix-darwin the two below must know.
//! - [`judge`]: the verdict on a switch that ended, from the world and not from the exit code alone.
//! - [`resume`]: where an interrupted activation goes on.
//! - [`way_back`]: where a person's rollback leads.
//! - [`inhibit`]: what must not be replaced live, and when a reboot is needed.
//! - [`boot_space`]: whether the next boot entry fits.
//! - [`packages`]: package differences between two closures.
//! - [`events`]: what the reducer and the control plane are told.

pub mod boot_space;
pub mod end;
pub mod events;
pub mod failure;
pub mod inhibit;
pub mod judge;
pub mod outcome;
pub mod packages;
pub mod platform;
pub mod record;
pub mod resume;
#[cfg(test)]
mod samples;
pub mod units;
pub mod way_back;
