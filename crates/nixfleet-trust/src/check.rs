//! The checks, in the order of the design: size, envelope, threshold, fleet, channel, number, time, expiry, proof, name
//! and key, system. The only makers of [`Verified`] are in here.

pub mod entry;
pub mod release;
pub mod root;
mod verified;

pub use verified::Verified;
