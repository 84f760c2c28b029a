//! What nixfleet decides, without I/O, a clock, randomness, async or logging.
//!
//! [`ids`] are the strictly parsed names that everybody uses; [`model`] is what a release says; [`nix`] what Nix says; [`activation`] has the
//! facts, verdicts and decisions of one activation on one host; [`wire`] is what agents and control planes exchange. The agent gathers facts, asks here, and does what the
//! answer says.

pub mod activation;
pub mod host;
pub mod ids;
pub mod model;
pub mod nix;
pub mod rollout;
pub mod wire;

use std::time::Duration;

/// How long the control plane waits for a host to report the end of an activation, in seconds.
///
/// The agent's own poll must end before it, or the two sides disagree on what happened; the agent asserts that at
/// compile time.
pub const DEFAULT_CONFIRM_DEADLINE_SECS: u64 = 360;

/// What the agent leaves unused of [`DEFAULT_CONFIRM_DEADLINE_SECS`]: time to write and send its report.
pub const CONFIRM_SLACK: Duration = Duration::from_mins(1);
