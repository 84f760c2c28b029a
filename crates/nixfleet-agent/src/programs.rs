//! Programs of other people: exec probes and hooks, run so that nothing of them stays.
//!
//! They get an argument vector (no shell), a deadline, a little environment, no input, and a leash
//! ([`nixfleet_sys::leash`]): whatever they started is ended with them, at the deadline, and when this agent dies.
//!
//! Where systemd runs, they run in a transient unit, outside of the sandbox that the agent's own unit is: an operator
//! who tried a probe as root would be surprised by a host without `/home`, and a hook that drains a host must be able
//! to. The unit is named by systemd (`run-…`), so it is none of those that a switch answers for, and it is unloaded at
//! its end. Its main process is the holder of the leash, whose standard input is ours: the leash works as it does
//! without a unit, and the exit code is the program's own (systemd calls an end by SIGTERM a success).
//!
//! What they print is evidence: its end is kept, reported and shown to people. It must not hold secrets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_sys::exec::{Cmd, ExecError};
use nixfleet_sys::text;

use crate::activation::backend::ActivationBackend;
use crate::tools::Tools;

/// The verb of this program that holds the leash.
pub const LEASH: &str = "leash";
/// Where programs of other people find others; on NixOS the first is what a person has, too.
const PATH: &str = "/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Kept of what a program prints while it runs; more than [`EVIDENCE_CHARS`], which is counted in characters.
const OUTPUT_BYTES: usize = 4 << 10;
/// From our own end of a program to the service manager's.
const UNIT_GRACE: Duration = Duration::from_secs(10);
/// A report's line of evidence: some lines of a terminal.
pub const EVIDENCE_CHARS: usize = 400;

/// Who holds the leash, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A child of ours.
    Child {
        /// The agent.
        agent: PathBuf,
    },
    /// The main process of a transient unit.
    Unit {
        /// Where `systemd-run` is.
        tools: Box<Tools>,
        /// The agent.
        agent: PathBuf,
    },
}

impl Holder {
    /// The holder for this host: in a unit where systemd runs, else a child. This very program in both cases; one whose
    /// file was removed can only be a child.
    pub fn of<B: ActivationBackend>(backend: &B) -> Self {
        let tools = backend.tools().ok().filter(|tools| !tools.systemd_run.as_os_str().is_empty());
        let tools = tools.filter(|_| Path::new("/run/systemd/system").is_dir());
        match (std::env::current_exe(), tools) {
            (Ok(agent), Some(tools)) if agent.exists() => {
                Self::Unit { tools: Box::new(tools.clone()), agent }
            }
            (Ok(agent), None) if agent.exists() => Self::Child { agent },
            // Our file is gone. The child that is about to become the program looks at itself, and is still us.
            (Ok(_) | Err(_), _) => Self::Child { agent: "/proc/self/exe".into() },
        }
    }

    /// The program with its arguments, on this leash for at most `limit`.
    fn hold(&self, program: &str, args: &[String], limit: Duration) -> Cmd {
        match self {
            Self::Child { agent } => {
                Cmd::new(program).args(args).env("PATH", PATH).on_leash(agent, &[LEASH, "--"])
            }
            Self::Unit { tools, agent } => {
                let head = unit_args(agent, limit);
                let head: Vec<&str> = head.iter().map(String::as_str).collect();
                // systemd replaces variables in the words of a command; this is its own way to write the sign.
                let plain = |word: &str| word.replace('$', "$$");
                Cmd::new(plain(program))
                    .args(args.iter().map(|arg| plain(arg)))
                    .on_leash(&tools.here(&tools.systemd_run), &head)
            }
        }
        .deadline(limit)
        .stdout_tail(OUTPUT_BYTES)
    }
}

/// What `systemd-run` is told, up to the program.
fn unit_args(agent: &Path, limit: Duration) -> Vec<String> {
    let mut args: Vec<String> =
        ["--quiet", "--no-ask-password", "--pipe", "--wait", "--collect", "--service-type=exec"]
            .map(str::to_owned)
            .to_vec();
    args.extend([
        "--description=A probe or hook of nixfleet".to_owned(),
        // The service manager's own net: we end it before.
        format!("--property=RuntimeMaxSec={}s", limit.saturating_add(UNIT_GRACE).as_secs()),
        "--property=TimeoutStopSec=5s".to_owned(),
        // Not two lines in the journal for each run of each probe.
        "--property=LogLevelMax=warning".to_owned(),
        format!("--setenv=PATH={PATH}"),
        "--setenv=LC_ALL=C".to_owned(),
        "--".to_owned(),
        agent.to_string_lossy().into_owned(),
        LEASH.to_owned(),
        "--".to_owned(),
    ]);
    args
}

/// Runs the program to its end. Both sides carry what it said; `Ok` is exit code 0 and nothing else.
pub async fn run(holder: &Holder, argv: &[String], limit: Duration) -> Result<String, String> {
    let Some((program, rest)) = argv.split_first() else { return Err("no program is named".to_owned()) };
    if !program.starts_with('/') {
        return Err(evidence(&format!("`{program}` is not an absolute path")));
    }
    match holder.hold(program, rest, limit).run().await {
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

    #[test]
    fn in_a_unit_the_holder_is_its_main_process_and_no_sign_is_replaced() {
        let tools = Box::new(crate::tools::tests::tools());
        let holder = Holder::Unit { tools, agent: "/agent".into() };
        let args = ["-c", "echo $HOME %i"].map(str::to_owned);
        let cmd = holder.hold("/bin/sh", &args, Duration::from_secs(30));
        let line = cmd.line();
        assert!(
            line.starts_with("/tools/systemd-run --quiet --no-ask-password --pipe --wait --collect "),
            "{line}"
        );
        assert!(line.contains(" --property=RuntimeMaxSec=40s "), "{line}");
        assert!(line.ends_with(" -- /agent leash -- /bin/sh -c 'echo $$HOME %i'"), "{line}");
    }

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
