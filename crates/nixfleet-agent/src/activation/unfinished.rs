//! Whether something of an activation is still to be finished. Takes no lock, and decides nothing: whoever is told yes asks
//! [`super::recovery`].

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nixfleet_core::activation::record::Activation;

use super::host::HostPaths;
use super::journal::history;

/// Whether the journal has an activation that is not over, or something of one was left behind.
pub fn is_unfinished(host: &HostPaths) -> bool {
    // A journal that cannot be read needs somebody to say so.
    let pending = history(&host.journal()).map_or(true, |known| known.iter().any(Activation::is_pending));
    pending || left_behind(host)
}

fn left_behind(host: &HostPaths) -> bool {
    let holds = |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    holds(&host.roots) || holds(&host.ends())
}

/// Asks the same again and again: a journal that nobody has written to since it said no is not read once more.
#[derive(Debug)]
pub struct Unfinished {
    host: HostPaths,
    /// The journal that said no.
    quiet: Option<Stamp>,
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
        if stamp.is_some() && stamp == self.quiet {
            return left_behind(&self.host);
        }
        let unfinished = is_unfinished(&self.host);
        self.quiet = stamp.filter(|_| !unfinished);
        unfinished
    }
}

fn stamp(journal: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(journal).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nixfleet_sys::fs;

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
}
