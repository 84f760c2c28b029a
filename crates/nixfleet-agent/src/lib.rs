//! nixfleet-agent
