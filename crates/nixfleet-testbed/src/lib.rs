//! nixfleet-testbed
