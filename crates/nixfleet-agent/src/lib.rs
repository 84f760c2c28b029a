//! The agent of one host: activates signed systems so that nothing can leave the host broken.
//!
//! [`activation`] is the heart; [`runtime`] is its way in for the reducer; [`probes`] and [`tools`] ask the host.

pub mod activation;
pub mod failpoint;
mod framed;
pub mod probes;
pub mod runtime;
pub mod tools;
