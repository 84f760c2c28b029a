//! nixfleet-agent

pub mod tools;
