//! A folder as a source: watched, and looked at on a slow poll too, since a mount or a folder that comes back wakes nobody.
//!
//! Everything about it may come and go: a USB stick, a link that is flipped from one folder to the next, a network file
//! system that hangs. So the folder is resolved anew for each look and that look stays with what it found, and reading
//! happens on a thread of its own with a limit. Of a thread that hangs there is never more than one.

use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_core::model::layout;
use nixfleet_core::model::names::ChannelName;
use nixfleet_sys::fs::{self, FsError};
use nixfleet_sys::watch::FolderWatch;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::documents::{Connection, Documents, Got, NoAnswer, Wanted};
use nixfleet_sys::text::chain;

/// How long one document may take: a disk that must spin up needs some ten seconds.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// A folder that is being written to is looked at when nothing has changed in it for so long: `latest` comes last and as a
/// whole, so this only spares looks at what is half there.
const QUIET_FOR: Duration = Duration::from_millis(50);
/// One that never comes to rest is looked at after so long.
const SETTLE: Duration = Duration::from_secs(1);

/// A folder as a source.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The folder below it where `latest` is.
    channel: PathBuf,
    /// What `path` led to when this look began.
    resolved: Option<PathBuf>,
    watch: Option<FolderWatch>,
    /// The reading that was begun last. It may go on after nobody waits for it any more.
    reading: Option<JoinHandle<()>>,
}

impl Folder {
    /// The folder at `path`, which need not exist yet.
    pub(super) fn new(path: &Path, channel: &ChannelName) -> Self {
        let latest = layout::latest(channel);
        let channel = Path::new(&latest).parent().unwrap_or(Path::new("")).to_owned();
        Self { path: path.to_owned(), channel, resolved: None, watch: None, reading: None }
    }

    /// What one reading does. It touches the file system, so it must not run where others wait.
    fn job(&self, wanted: Wanted<'_>) -> impl FnOnce() -> Read + Send + 'static {
        let (path, channel, resolved) = (self.path.clone(), self.channel.clone(), self.resolved.clone());
        let (document, bytes_max) = (wanted.path.to_owned(), wanted.bytes_max);
        move || {
            // Watched before anything is read, so that what changes from now on is not lost.
            let watch = resolved.is_none().then(|| watch(&path, &channel)).flatten();
            let folder = resolved.map_or_else(|| fs::resolve(&path), Ok);
            let got = folder.and_then(|folder| {
                let got = read(&folder.join(document), bytes_max)?;
                Ok((folder, got))
            });
            Read { watch, got }
        }
    }
}

/// What came of a reading.
struct Read {
    /// The watch that was begun, if it was the first of a look.
    watch: Option<FolderWatch>,
    /// Where the folder really is, and the document.
    got: Result<(PathBuf, Got), FsError>,
}

impl Documents for Folder {
    async fn get(&mut self, wanted: Wanted<'_>) -> Result<Got, NoAnswer> {
        let at = self.path.join(wanted.path).display().to_string();
        if self.reading.as_ref().is_some_and(|reading| !reading.is_finished()) {
            let why = "an earlier reading has not come to its end; does the file system hang?".to_owned();
            return Err(NoAnswer::Unreachable { at, why });
        }
        let (tell, told) = oneshot::channel();
        let job = self.job(wanted);
        self.reading = Some(spawn_blocking(move || {
            // Nobody listening any more means that it took too long.
            let _ = tell.send(job());
        }));
        let read = match timeout(READ_WITHIN, told).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => {
                return Err(NoAnswer::Unreachable { at, why: "the reading was given up".to_owned() });
            }
            Err(_) => return Err(NoAnswer::TooSlow { at, secs: READ_WITHIN.as_secs() }),
        };
        // It has sent its last word, and ends.
        self.reading = None;
        self.watch = read.watch.or(self.watch.take());
        let (folder, got) = read.got.map_err(|error| NoAnswer::Unreachable { at, why: chain(&error) })?;
        self.resolved = Some(folder);
        Ok(got)
    }

    fn begin(&mut self, connection: Connection) {
        match connection {
            Connection::Any | Connection::Fresh => self.resolved = None,
        }
    }

    async fn news(&mut self) {
        let Some(watch) = &mut self.watch else { return pending().await };
        match watch.changed().await {
            Ok(()) => settled(watch).await,
            // The slow poll is the net.
            Err(_) => pending().await,
        }
    }
}

/// Waits until the changes have come to rest. What cannot be watched any more is looked at now.
async fn settled(watch: &mut FolderWatch) {
    let rest = async { while let Ok(Ok(())) = timeout(QUIET_FOR, watch.changed()).await {} };
    // Never at rest: the limit is the answer, too.
    let _ = timeout(SETTLE, rest).await;
}

/// Watches the folders in which a name changes when there is news: where the folder itself lies, where `latest` and the
/// roots are, and those in between, which may come later. `None` if none can be watched.
fn watch(path: &Path, channel: &Path) -> Option<FolderWatch> {
    let inside = ["root".as_ref(), "channels".as_ref(), channel].map(|name: &Path| path.join(name));
    let all = path.parent().map(Path::to_owned).into_iter().chain([path.to_owned()]).chain(inside);
    let folders: Vec<PathBuf> = all.filter(|folder| folder.is_dir()).collect();
    let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    FolderWatch::new(&folders).ok()
}

fn read(path: &Path, bytes_max: usize) -> Result<Got, FsError> {
    match fs::read_start(path, u64::try_from(bytes_max).unwrap_or(u64::MAX)) {
        Ok(bytes) => Ok(Got::Bytes { bytes, version: None }),
        Err(error) if is_missing(&error) => Ok(Got::Missing),
        Err(error) => Err(error),
    }
}

/// A file where a folder should be is no document either.
fn is_missing(error: &FsError) -> bool {
    matches!(error.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
