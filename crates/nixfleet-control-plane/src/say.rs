//! One line to stderr for each thing that an operator would put into a report; systemd's journal adds time and unit.

use std::error::Error;
use std::io::Write;

/// Says something. Nobody listening is no error.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says that something failed, with all its causes.
pub fn error(what: &str, error: &(dyn Error + 'static)) {
    line(&format!("error: {what}: {}", chain(error)));
}

/// An error with its causes, in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
