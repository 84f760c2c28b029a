//! Hooks: programs that a host runs before and after a reboot, one after the other, each with its deadline.
//!
//! Each is on a leash ([`crate::programs`]): at its deadline and when this agent dies, all that it started is ended. So
//! an agent that comes up again and finds that it was draining runs the hooks anew and meets none of the old ones; and
//! whoever drops the future of [`run`] ends the hook. A hook that wants something to go on gives it to the service
//! manager. A transient unit alone would outlive us, and would have to be found and ended; on its leash it does not.

use nixfleet_core::model::schedule::Hook;

use crate::programs::{self, Holder};

/// Which hook failed, and how. Those after it did not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hook {number} of {of}, `{program}`: {why}")]
pub struct HookFault {
    /// The how manyth, from 1.
    pub number: usize,
    /// Of how many.
    pub of: usize,
    /// Its program, without the arguments.
    pub program: String,
    /// How it ended and its last words, or why it could not be run; one short printable line.
    pub why: String,
}

/// Runs them to their end; the first that does not exit with 0 within its deadline ends the row.
pub async fn run(holder: &Holder, hooks: &[Hook]) -> Result<(), HookFault> {
    for (at, Hook { argv, deadline_secs }) in hooks.iter().enumerate() {
        if let Err(why) = programs::run(holder, argv, deadline_secs.duration()).await {
            let program = programs::evidence(argv.first().map_or("", String::as_str));
            return Err(HookFault { number: at + 1, of: hooks.len(), program, why });
        }
    }
    Ok(())
}
