//! nixfleet-core
