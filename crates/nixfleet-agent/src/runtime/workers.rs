//! Workers only send facts; none of them decides what happens next.

pub mod activation;
pub mod hooks;
pub mod jobs;
pub mod link;
pub mod probes;
pub mod reboot;
pub mod source;
pub mod staging;
pub mod system;
