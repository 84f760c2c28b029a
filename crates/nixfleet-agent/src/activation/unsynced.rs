//! What was fetched and may not be on the disk yet: synced before anything builds on it, mended after a power cut.
//!
//! Nix writes to its database that a path is valid, and syncs that; the files it leaves to the kernel, which writes them
//! half a minute later. A power cut in between leaves a path that is valid, signed, and full of empty files, and no
//! later `--realise` looks at it again (seen: the system can never be activated any more). So a list of what is being
//! fetched is on the disk from before the fetch until the store has been synced. Whoever finds a list reads the contents
//! of its paths and has Nix fetch the broken ones once more; without a list nothing is read.
//!
//! Limits: only our own fetches have a list. What somebody else copied to the host just before a power cut is not
//! covered (newer versions of Nix have the setting `fsync-store-paths` for that), nor is a disk that rots.

use std::path::{Path, PathBuf};

use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::ids::{STORE_DIR, StorePath};
use nixfleet_sys::{fs, text};

use super::realise::{no_space_or_internal, not_asked};
use super::types::{Observer, Weight};
use crate::tools::{ToolError, Tools};
use nixfleet_sys::text::chain;

/// Nix's database, if it is on a file system of its own.
const NIX_STATE: &str = "/nix/var/nix";
/// A list of a hundred thousand paths.
const BYTES_MAX: u64 = 32 << 20;

/// The list, and what of an earlier one could not be mended.
pub struct Unsynced {
    file: PathBuf,
    broken: Vec<StorePath>,
}

impl Unsynced {
    /// Reads what an earlier fetch left behind and mends what is broken of it. Needs a substituter only for that, and
    /// goes on without: what stays broken keeps out the systems that it belongs to, and no other ([`Self::refuse`]).
    pub async fn take_up(tools: &Tools, file: &Path, observer: &dyn Observer) -> Result<Self, Failure> {
        let file = file.to_owned();
        let listed = match fs::read_bounded(&file, BYTES_MAX) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.is_not_found() => return Ok(Self { file, broken: Vec::new() }),
            Err(error) => return Err(no_space_or_internal(&error, "/var")),
        };
        observer.remark(Weight::Note, "an earlier fetch was cut off; reading what it had brought");
        let broken = match mend(tools, listed.clone(), observer).await {
            Ok(broken) => broken,
            Err(error) => {
                observer.remark(Weight::Warning, &format!("it cannot be read: {}", chain(&error)));
                listed
            }
        };
        let taken_up = Self { file, broken };
        taken_up.settle().await?;
        Ok(taken_up)
    }

    /// Awaits a fetch that brings these paths. They are on the list until they are on the disk.
    pub async fn while_fetching(
        &self,
        planned: &[StorePath],
        fetch: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        if planned.is_empty() {
            return fetch.await;
        }
        self.write(self.broken.iter().chain(planned))?;
        let fetched = fetch.await;
        // Also what a failed fetch has brought is valid and stays.
        let synced = self.settle().await;
        fetched.and(synced)
    }

    /// Refuses a system with a path in it that is known to be broken.
    pub async fn refuse(&self, tools: &Tools, system: &StorePath) -> Result<(), Failure> {
        if self.broken.is_empty() {
            return Ok(());
        }
        let closure = tools.requisites(system).await;
        let closure = closure.map_err(|error| not_asked("cannot read the closure", &error))?;
        match self.broken.iter().find(|path| closure.contains(path)) {
            None => Ok(()),
            Some(path) => Err(Failure::Corrupt {
                last_lines: vec![format!(
                    "{path} is incomplete since a power cut and could not be fetched again"
                )],
            }),
        }
    }

    /// Syncs the store, and then shortens the list to what is broken.
    async fn settle(&self) -> Result<(), Failure> {
        let synced = tokio::task::spawn_blocking(|| {
            fs::sync_file_system(Path::new(STORE_DIR))?;
            if fs::same_file_system(Path::new(STORE_DIR), Path::new(NIX_STATE)) {
                return Ok(());
            }
            fs::sync_file_system(Path::new(NIX_STATE))
        });
        let synced =
            synced.await.map_err(|error| Failure::Internal { what: text::printable(&error.to_string()) })?;
        synced.map_err(|error| no_space_or_internal(&error, STORE_DIR))?;
        self.write(self.broken.iter())
    }

    fn write<'a>(&self, paths: impl Iterator<Item = &'a StorePath>) -> Result<(), Failure> {
        let list: String = paths.flat_map(|path| [path.as_str(), "\n"]).collect();
        let written = if list.is_empty() {
            fs::remove(&self.file)
        } else {
            fs::write_atomic(&self.file, list.as_bytes())
        };
        written.map_err(|error| no_space_or_internal(&error, "/var"))
    }
}

/// A path per line. It is our own file and replaced whole, so what is no path is none of ours and left out.
fn parse(bytes: &[u8]) -> Vec<StorePath> {
    String::from_utf8_lossy(bytes).lines().filter_map(|line| line.parse().ok()).collect()
}

/// Fetches the broken ones of these paths once more, and returns those that are still broken.
async fn mend(
    tools: &Tools,
    listed: Vec<StorePath>,
    observer: &dyn Observer,
) -> Result<Vec<StorePath>, ToolError> {
    // What is not valid is not there to Nix: the next fetch brings it.
    let invalid = tools.invalid(&listed).await?;
    let valid = listed.into_iter().filter(|path| !invalid.contains(path)).collect();
    let broken = broken_among(valid, async |some| tools.are_whole(some).await).await?;
    for path in &broken {
        let what = format!("{path} is incomplete since a power cut; fetching it again");
        observer.remark(Weight::Warning, &what);
        if let Err(error) = tools.repair(path).await {
            // The others would fail in the same way, each after all its retries.
            observer.remark(Weight::Warning, &chain(&error));
            break;
        }
    }
    broken_among(broken, async |some| tools.are_whole(some).await).await
}

/// Finds the broken ones by halves: Nix's exit code says that one of many is broken, and only its words say which.
async fn broken_among<E>(
    paths: Vec<StorePath>,
    are_whole: impl AsyncFn(&[StorePath]) -> Result<bool, E>,
) -> Result<Vec<StorePath>, E> {
    let mut broken = Vec::new();
    let mut unknown = vec![paths];
    while let Some(mut some) = unknown.pop() {
        if some.is_empty() || are_whole(&some).await? {
            continue;
        }
        if some.len() == 1 {
            broken.append(&mut some);
            continue;
        }
        let half = some.split_off(some.len() / 2);
        unknown.extend([some, half]);
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn path(number: usize) -> StorePath {
        format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-{number}").parse().expect("well-formed")
    }

    proptest! {
        #[test]
        fn exactly_the_broken_paths_are_found_and_whole_ones_cost_nothing_more(
            wrong in prop::collection::btree_set(0_usize..300, 0..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let wrong: BTreeSet<StorePath> = wrong.into_iter().map(path).collect();
            let asked = Cell::new(0);
            let oracle = async |some: &[StorePath]| {
                asked.set(asked.get() + 1);
                Ok::<bool, ()>(!some.iter().any(|path| wrong.contains(path)))
            };
            let found = runtime.block_on(broken_among((0..300).map(path).collect(), oracle)).expect("no error");
            prop_assert_eq!(found.len(), wrong.len());
            // Two questions at each of nine levels above a broken one, and the first.
            prop_assert!(asked.get() <= 1 + 18 * wrong.len());
            prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wrong);
        }

        #[test]
        fn a_list_of_any_bytes_is_read_without_a_panic(bytes in any::<Vec<u8>>()) {
            parse(&bytes);
        }
    }

    #[test]
    fn a_list_says_what_was_written_and_an_empty_one_is_no_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let unsynced = Unsynced { file: dir.path().join("unsynced"), broken: Vec::new() };
        unsynced.write([path(1), path(2)].iter()).expect("written");
        assert_eq!(parse(&std::fs::read(&unsynced.file).expect("there")), [path(1), path(2)]);
        unsynced.write([].iter()).expect("removed");
        assert!(!unsynced.file.exists());
    }

    #[tokio::test]
    async fn while_a_fetch_goes_on_its_paths_are_listed_and_one_that_brings_nothing_has_no_list() {
        let dir = tempfile::tempdir().expect("a folder");
        let unsynced = Unsynced { file: dir.path().join("unsynced"), broken: Vec::new() };
        let there = || unsynced.file.exists();
        let fetch = async || {
            assert!(there());
            Err(Failure::Asked)
        };
        // This machine need not have a store, so how it ends is not looked at.
        let _ = unsynced.while_fetching(&[path(1)], fetch()).await;
        let _ = fs::remove(&unsynced.file);
        let nothing = async {
            assert!(!there());
            Ok(())
        };
        assert_eq!(unsynced.while_fetching(&[], nothing).await, Ok(()));
    }
}
