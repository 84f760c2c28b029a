//! The watch of everywhere else: the folders are looked at, often at first and then ever less.
//!
//! What is waited for mostly comes soon or late: a look every [`FIRST`] right after the last change, and twice as
//! long between two looks from then on, up to [`LONGEST`]. So the wait is at most doubled, and an idle agent looks
//! once a second at a handful of names. Compiled and tested on Linux too.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

/// Until the first look after a change: the delay that nobody notices.
const FIRST: Duration = Duration::from_millis(20);
/// Between two looks when nothing has changed for long.
const LONGEST: Duration = Duration::from_secs(1);
/// Names of a folder that are told apart; the folder's own time tells of the others. `/run` has some dozens.
const NAMES_MAX: usize = 1_000;

/// What is seen of a name: another file under the same name, or the same one written to, is a change.
type Seen = BTreeMap<(usize, OsString), (u64, u64, i64, i64)>;

/// A watch on one or more folders.
#[derive(Debug)]
pub struct Looks {
    folders: Vec<PathBuf>,
    seen: Seen,
    pause: Duration,
}

impl Looks {
    /// Watches the folders for names made, replaced or removed, and for files written to.
    pub fn new(folders: &[&Path]) -> io::Result<Self> {
        let folders: Vec<PathBuf> = folders.iter().map(|folder| folder.to_path_buf()).collect();
        let seen = look(&folders)?;
        Ok(Self { folders, seen, pause: FIRST })
    }

    /// Waits until something changed since the last time that it returned. Cancel-safe: a change not told stays.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let now = look(&self.folders)?;
            if now != self.seen {
                (self.seen, self.pause) = (now, FIRST);
                return Ok(());
            }
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST);
        }
    }
}

fn look(folders: &[PathBuf]) -> io::Result<Seen> {
    let mut seen = Seen::new();
    for (number, folder) in folders.iter().enumerate() {
        seen.insert((number, OsString::new()), stamp(folder)?);
        for name in std::fs::read_dir(folder)?.take(NAMES_MAX) {
            let name = name?.file_name();
            // A name that is gone again between the two questions is gone; the folder's own time has moved.
            if let Ok(stamp) = stamp(&folder.join(&name)) {
                seen.insert((number, name), stamp);
            }
        }
    }
    Ok(seen)
}

/// Which file it is, how long, and when it was last changed.
fn stamp(path: &Path) -> io::Result<(u64, u64, i64, i64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
}
