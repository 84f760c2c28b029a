//! Whether something of an activation is still to be finished. Takes no lock, and decides nothing: whoever is told yes asks
//! [`super::recovery`].

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nixfleet_core::activation::record::Activation;

use super::host::HostPaths;
use super::journal::history;

/// Whether the journal has an activation that is not over, or something of one was left behind.
pub fn is_unfinished(host: &HostPaths) -> bool {
    match look(host) {
        Says::Pending => true,
        Says::Quiet { kept } => left_behind(host, kept.as_deref()),
    }
}

/// What the journal says.
enum Says {
    /// Something is not over, or nobody can read it, and somebody needs to say so.
    Pending,
    /// All are over. A way back that failed keeps this root: nothing is to be finished about it.
    Quiet { kept: Option<PathBuf> },
}

fn look(host: &HostPaths) -> Says {
    match history(&host.journal()) {
        Ok(known) if !known.iter().any(Activation::is_pending) => {
            Says::Quiet { kept: host.kept_root(&known) }
        }
        Ok(_) | Err(_) => Says::Pending,
    }
}

fn left_behind(host: &HostPaths, kept: Option<&Path>) -> bool {
    let holds = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| Some(path.as_path()) != kept)
    };
    holds(&host.roots) || holds(&host.ends())
}

/// Asks the same again and again: a journal that nobody has written to since it said no is not read once more.
#[derive(Debug)]
pub struct Unfinished {
    host: HostPaths,
    /// The journal that said no, and the root that it keeps.
    quiet: Option<(Stamp, Option<PathBuf>)>,
}

/// Which file, how long, when written.
type Stamp = (u64, u64, i64, i64);

impl Unfinished {
    /// Nothing is known yet.
    pub fn new(host: HostPaths) -> Self {
        Self { host, quiet: None }
    }

    /// Whether something is to be finished now.
    pub fn is_there(&mut self) -> bool {
        // Taken before the journal is read: what is written meanwhile is read the next time.
        let stamp = stamp(&self.host.journal());
        if let Some((_, kept)) = self.quiet.as_ref().filter(|(quiet, _)| stamp == Some(*quiet)) {
            return left_behind(&self.host, kept.as_deref());
        }
        match look(&self.host) {
            Says::Pending => {
                self.quiet = None;
                true
            }
            Says::Quiet { kept } => {
                let unfinished = left_behind(&self.host, kept.as_deref());
                self.quiet = stamp.filter(|_| !unfinished).map(|stamp| (stamp, kept));
                unfinished
            }
        }
    }
}

fn stamp(journal: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(journal).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use nixfleet_core::activation::outcome::{Failure, Verdict};
    use nixfleet_core::activation::record::Line;
    use nixfleet_core::ids::{ActivationId, BootId};
    use nixfleet_sys::fs;

    use super::*;
    use crate::activation::host::RootKind;
    use crate::activation::journal::Journal;
    use crate::activation::journal::tests::{beginning, ended};

    #[test]
    fn a_journal_is_read_again_when_it_was_written_to_and_leftovers_are_always_seen() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = HostPaths { roots: dir.path().join("roots"), ..HostPaths::with_state(dir.path()) };
        let mut unfinished = Unfinished::new(host.clone());
        assert!(!unfinished.is_there(), "no journal, no history");
        fs::write_atomic(&host.journal(), b"").expect("written");
        assert!(!unfinished.is_there() && !unfinished.is_there());
        fs::write_atomic(&host.journal(), b"torn\ndamage\nmore\n").expect("written");
        let damaged = unfinished.is_there();
        assert_eq!(damaged, is_unfinished(&host), "it was read again");
        fs::write_atomic(&host.journal(), b"").expect("written");
        assert!(!unfinished.is_there());
        fs::make_dir(&host.roots.join("left")).expect("made");
        assert!(unfinished.is_there());
    }

    #[test]
    fn the_root_that_a_failed_revert_keeps_is_nothing_to_be_finished_until_something_arrives() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = HostPaths { roots: dir.path().join("roots"), ..HostPaths::with_state(dir.path()) };
        let (mut journal, _) = Journal::open(&host.journal(), BootId::new("b")).expect("made");
        let (failed, later) = (ActivationId::new(1, 1), ActivationId::new(2, 1));
        let revert_failed = Verdict::RevertFailed { failure: Failure::Asked, revert: Failure::Asked };
        journal.append(&failed, 0, Line::Began(beginning())).expect("written");
        journal.append(&failed, 0, ended(&failed, revert_failed)).expect("written");
        let kept = host.kept_root(&history(&host.journal()).expect("read"));
        assert_eq!(kept, Some(host.root(RootKind::Previous, &failed)));
        fs::make_dir(&host.root(RootKind::Previous, &failed)).expect("made");
        let mut unfinished = Unfinished::new(host.clone());
        assert!(!unfinished.is_there() && !unfinished.is_there() && !is_unfinished(&host));
        fs::make_dir(&host.root(RootKind::Rescue, &failed)).expect("made");
        assert!(unfinished.is_there() && is_unfinished(&host), "nothing else is kept");
        std::fs::remove_dir(host.root(RootKind::Rescue, &failed)).expect("removed");
        assert!(!unfinished.is_there());
        journal.append(&later, 0, Line::Began(beginning())).expect("written");
        journal.append(&later, 0, ended(&later, Verdict::Converged)).expect("written");
        assert!(unfinished.is_there() && is_unfinished(&host), "nobody needs it any more");
    }
}
