//! The dull edge of nixfleet: the one way to run a program, to replace a file, to watch a folder and to ask the clock.
//!
//! Nothing here decides anything. [`exec`] gives every program an argument vector, a deadline, bounded output and
//! an error that says the whole line; [`fs`] replaces files so that a reader or a power cut sees the old or the new
//! one; [`watch`] wakes on a change in a folder; [`session`] ends what shares a session;
//! [`leash`] ends all that a program started; `pin` knows a server by its key; [`clock`] is the only place that asks what time it is, and [`random`] the only
//! one that asks for chance; [`timer`] waits for what is far away.
//! Used by the agent, the testbed and the operator's CLI; it knows none of them.

pub mod clock;
pub mod exec;
pub mod fs;
pub mod leash;
#[cfg(feature = "tls")]
pub mod pin;
pub mod random;
pub mod session;
pub mod text;
pub mod timer;
pub mod watch;
