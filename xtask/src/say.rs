//! What is addressed to a person goes to stderr, what a script may read goes to stdout.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the only module of xtask that prints")]

/// Tells a person something.
pub(crate) fn line(text: &str) {
    eprintln!("{text}");
}

/// Prints a result.
pub(crate) fn data(text: &str) {
    println!("{text}");
}
