//! The agent of one host: activates signed systems so that nothing can leave the host broken.
//!
//! [`activation`] is the heart; [`runtime`] is its way in for the reducer. [`config`] says whom to trust and what to
//! follow, [`source`] brings releases, and [`check`] looks whether all of that can work. [`probes`] and [`tools`] ask the
//! host.

pub mod activation;
pub mod check;
pub mod config;
pub mod failpoint;
pub mod probes;
pub mod runtime;
pub mod source;
pub mod tools;
