//! What an agent was told when it started: the files that say what it does, as they were when it read them.
//!
//! A switch, or a person, may change them under a running agent, which reads them once. [`super::handover`] compares what
//! was read with what is there now. That is a digest of bytes and not of meaning: a comment that changes costs a restart of
//! a second, and nothing that matters can be missed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nixfleet_sys::fs::{self, FsError};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The largest of these files is that of authorities.
const BYTES_MAX: u64 = crate::config::ready::CA_BYTES_MAX;

type Sum = [u8; 32];

/// Whether the files that are there now are of use.
type IsUsable = Arc<dyn Fn() -> bool + Send + Sync>;

/// The files that an agent's work follows from, and what was in them.
#[derive(Clone)]
pub struct Told {
    files: Vec<(PathBuf, Option<Sum>)>,
    is_usable: IsUsable,
}

impl Told {
    /// Nothing yet; `is_usable` reads the files as the next agent would.
    pub fn new(is_usable: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { files: Vec::new(), is_usable: Arc::new(is_usable) }
    }

    /// With one more file, as it is now. Called *before* the file is read: a change in between is then seen as one.
    #[must_use]
    pub fn with(mut self, file: &Path) -> Self {
        self.files.push((file.to_owned(), sum(file).unwrap_or_default()));
        self
    }

    /// Something that differs if and only if what is in the files does: as it was.
    pub fn then(&self) -> String {
        shown(self.files.iter().map(|(_, sum)| *sum))
    }

    /// The same, as it is now. A file that cannot be looked at is taken for what it was.
    pub fn now(&self) -> String {
        shown(self.files.iter().map(|(file, before)| sum(file).unwrap_or(*before)))
    }

    /// Whether the next agent could read what is there now.
    pub fn is_usable(&self) -> bool {
        (self.is_usable)()
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, is_usable: _ } = self;
        f.debug_struct("Told").field("files", files).finish_non_exhaustive()
    }
}

/// The sum of a file, if there is one.
fn sum(file: &Path) -> Result<Option<Sum>, FsError> {
    match fs::read_bounded(file, BYTES_MAX) {
        // The host's private key is one of them.
        Ok(bytes) => Ok(Some(Sha256::digest(&*Zeroizing::new(bytes)).into())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn shown(sums: impl Iterator<Item = Option<Sum>>) -> String {
    let mut all = Sha256::new();
    for sum in sums {
        all.update([u8::from(sum.is_some())]);
        all.update(sum.unwrap_or_default());
    }
    data_encoding::HEXLOWER.encode(&all.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_appears_or_goes_is_a_change_and_the_same_bytes_are_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let (config, root) = (dir.path().join("agent.toml"), dir.path().join("root.json"));
        let write = |file: &Path, text: &str| fs::write_atomic(file, text.as_bytes()).expect("written");
        write(&config, "a");
        let told = Told::new(|| true).with(&config).with(&root);
        assert_eq!(told.then(), told.now());
        write(&config, "b");
        assert_ne!(told.then(), told.now(), "it changed");
        write(&config, "a");
        assert_eq!(told.then(), told.now(), "written anew, and the same");
        write(&root, "");
        assert_ne!(told.then(), told.now(), "an empty file is not no file");
        fs::remove(&root).expect("removed");
        fs::remove(&config).expect("removed");
        assert_ne!(told.then(), told.now(), "it is gone");
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_is_no_change() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = dir.path().join("agent.toml");
        fs::write_atomic(&config, b"a").expect("written");
        let told = Told::new(|| true).with(&config);
        fs::remove(&config).expect("removed");
        // A folder in its place cannot be read, and is there.
        fs::make_dir(&config).expect("made");
        assert_eq!(told.then(), told.now());
    }
}
