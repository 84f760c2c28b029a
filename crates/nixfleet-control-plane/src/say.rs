//! One line to stderr for each thing that an operator would put into a report; systemd's journal adds time and unit.

use std::error::Error;
use std::io::Write;

use nixfleet_sys::text::chain;

/// Says something. Nobody listening is no error.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says that something failed, with all its causes.
pub fn error(what: &str, error: &(dyn Error + 'static)) {
    line(&format!("error: {what}: {}", chain(error)));
}
