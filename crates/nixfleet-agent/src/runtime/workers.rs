//! Workers only send facts; none of them decides what happens next.

pub mod activation;
pub mod jobs;
pub mod staging;
pub mod system;
