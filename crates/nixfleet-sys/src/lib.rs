//! nixfleet-sys
