//! Programs of other people: exec probes and hooks, run so that nothing of them stays.
//!
//! They get an argument vector (no shell), a deadline, the little environment that follows, no input, and a leash
//! ([`nixfleet_sys::leash`]): whatever they started is ended with them, at the deadline, and when this agent dies.
//! They see what the agent sees, so its unit must not hide from it what they need (`/home`, `/tmp`).
//!
//! What they print is evidence: its end is kept, reported and shown to people. It must not hold secrets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_sys::exec::{Cmd, ExecError};
use nixfleet_sys::text;

/// The verb of this program that holds the leash.
pub const LEASH: &str = "leash";
/// Where programs of other people find others; on NixOS the first is what a person has, too.
const PATH: &str = "/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Kept of what a program prints while it runs; more than [`EVIDENCE_CHARS`], which is counted in characters.
const OUTPUT_BYTES: usize = 4 << 10;
/// A report's line of evidence: some lines of a terminal.
pub const EVIDENCE_CHARS: usize = 400;

/// The program of ours that holds the leash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder(PathBuf);

impl Holder {
    /// This program's own file, also when another lies in its place by now.
    pub fn this_program() -> Self {
        if cfg!(target_os = "linux") {
            // The child that is about to become the program looks at itself, and is still us.
            return Self("/proc/self/exe".into());
        }
        Self(std::env::current_exe().unwrap_or_default())
    }

    /// An agent at another place, for whoever is no agent.
    pub fn at(agent: &Path) -> Self {
        Self(agent.to_owned())
    }
}

/// Runs the program to its end. Both sides carry what it said; `Ok` is exit code 0 and nothing else.
pub async fn run(holder: &Holder, argv: &[String], limit: Duration) -> Result<String, String> {
    let Some((program, rest)) = argv.split_first() else { return Err("no program is named".to_owned()) };
    if !program.starts_with('/') {
        return Err(evidence(&format!("`{program}` is not an absolute path")));
    }
    let cmd = Cmd::new(program)
        .args(rest)
        .env("PATH", PATH)
        .deadline(limit)
        .stdout_tail(OUTPUT_BYTES)
        .on_leash(&holder.0, &[LEASH, "--"]);
    match cmd.run().await {
        Ok(finished) => {
            let out = text::tail(&finished.stdout, OUTPUT_BYTES);
            let said = if out.trim().is_empty() { finished.stderr_tail } else { out };
            match finished.ended.code() {
                Some(0) => Ok(evidence(&said)),
                Some(_) | None => Err(with_words(&finished.ended.to_string(), &said)),
            }
        }
        Err(ExecError::Deadline { last_words, .. }) => Err(with_words(&too_slow(limit), &last_words)),
        Err(ExecError::Start { source, .. }) => Err(format!("it cannot be run: {source}")),
        Err(error) => Err(evidence(&error.to_string())),
    }
}

/// What is said of something that did not end in time.
pub(crate) fn too_slow(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs_f64())
}

fn with_words(what: &str, words: &str) -> String {
    // Room for the words, whatever `what` is; it is a few words itself.
    let words = evidence(words);
    if words.is_empty() { what.to_owned() } else { evidence(&format!("{what}: {words}")) }
}

/// The end of a text on one line, printable, at most [`EVIDENCE_CHARS`] characters.
pub fn evidence(said: &str) -> String {
    let said = text::printable(said).replace('\t', " ");
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines.join(" | ");
    let over = line.chars().count().saturating_sub(EVIDENCE_CHARS);
    line.chars().skip(over).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn evidence_is_one_short_printable_line(said in any::<String>(), what in "[a-z ]{0,20}") {
            for line in [evidence(&said), with_words(&what, &said)] {
                prop_assert!(line.chars().count() <= EVIDENCE_CHARS);
                prop_assert!(!line.contains(char::is_control));
            }
        }

        #[test]
        fn the_last_words_are_kept(said in "[a-z\n]{0,2000}", last in "[0-9]{1,400}") {
            let got = evidence(&format!("{said}{last}"));
            prop_assert!(got.ends_with(&last));
        }
    }
}
