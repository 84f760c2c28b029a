//! A program in our own place, for a process that exists only to say how another one ended.

use std::path::Path;

use super::{Ended, ExecError, ended};

/// Runs a program with our standard streams, environment and process group, and waits for as long as it takes.
///
/// Nothing is bounded here: whoever started us (a unit with `RuntimeMaxSec=`) bounds both of us, and takes the output
/// itself. A signal to us alone is not handed on.
///
/// # Errors
/// The program could not be started, or not be waited for.
#[allow(clippy::disallowed_methods, reason = "a part of the place that the ban sends everybody to")]
pub fn run_inheriting(program: &Path, args: &[String]) -> Result<Ended, ExecError> {
    let line = [&[program.display().to_string()], args].concat().join(" ");
    match std::process::Command::new(program).args(args).spawn() {
        Ok(mut child) => child.wait().map(ended).map_err(|source| ExecError::Lost { line, source }),
        Err(source) => Err(ExecError::Start { line, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Ended {
        run_inheriting(Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()]).expect("it runs")
    }

    #[test]
    fn the_code_or_the_signal_is_told() {
        assert_eq!(sh("exit 4"), Ended::Exited(4));
        assert_eq!(sh("kill -9 $$"), Ended::Signalled(9));
        assert_eq!(
            sh("kill -13 $$"),
            Ended::Signalled(13),
            "the ignored SIGPIPE of a Rust program is not handed on"
        );
    }

    #[test]
    fn what_cannot_be_started_is_an_error_with_the_whole_line() {
        let error =
            run_inheriting(Path::new("/nowhere/program"), &["switch".to_owned()]).expect_err("refused");
        assert!(error.to_string().contains("/nowhere/program switch"), "{error}");
    }
}
