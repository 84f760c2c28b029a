//! The running agent; for now its workers' ways in. The reducer that feeds them comes next.

pub mod outbox;
pub mod workers;
