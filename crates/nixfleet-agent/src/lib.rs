//! The agent of one host: activates signed systems so that nothing can leave the host broken.
//!
//! [`activation`] is the heart; [`runtime`] runs it for the reducer. [`config`] says whom to trust and what to follow,
//! [`source`] brings releases, and [`check`] looks whether all of that can work. [`probes`] and [`tools`] ask the host;
//! [`hooks`] and [`reboot`] act on it. [`programs`] runs what other people wrote.

pub mod activation;
pub mod check;
pub mod config;
pub mod failpoint;
mod framed;
pub mod hooks;
pub mod probes;
pub mod programs;
pub mod reboot;
pub mod runtime;
pub mod source;
pub mod tools;
