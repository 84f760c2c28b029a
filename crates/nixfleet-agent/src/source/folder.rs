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
use nixfleet_sys::fs::{self, FsError};
use nixfleet_sys::watch::FolderWatch;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};

use super::documents::{Connection, Documents, Got, NoAnswer, Wanted};
use super::look::Looker;
use nixfleet_sys::text::chain;

/// How long one document may take: a disk that must spin up needs some ten seconds.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// How long a reading that nobody waits for any more may go on before the next one says that the folder hangs. It was given up
/// for a newer question a moment ago, and takes some tenths of a millisecond.
const LET_END: Duration = Duration::from_secs(1);
/// A folder that is being written to is looked at when nothing has changed in it for so long, so that what is half there is
/// not looked at. A release that is there as a whole is not waited for.
const QUIET_FOR: Duration = Duration::from_millis(50);
/// One that never comes to rest is looked at after so long.
const SETTLE: Duration = Duration::from_secs(1);
/// One byte more than `latest` may have is too much already.
const LATEST_BYTES_MAX: u64 = layout::LATEST_LEN_MAX as u64;

/// A folder as a source.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// For whom it is read.
    looker: Looker,
    /// What `latest` said when it was read last.
    latest: Option<Vec<u8>>,
    /// What `path` led to when this look began.
    resolved: Option<PathBuf>,
    watch: Option<FolderWatch>,
    /// The reading that was begun last. It may go on after nobody waits for it any more.
    reading: Option<JoinHandle<()>>,
    /// [`LET_END`], except in tests.
    let_end: Duration,
}

impl Folder {
    /// The folder at `path`, which need not exist yet.
    pub(super) fn new(path: &Path, looker: &Looker) -> Self {
        Self {
            path: path.to_owned(),
            looker: looker.clone(),
            latest: None,
            resolved: None,
            watch: None,
            reading: None,
            let_end: LET_END,
        }
    }

    /// What one reading does. It touches the file system, so it must not run where others wait.
    fn job(&self, wanted: Wanted<'_>) -> impl FnOnce() -> Read + Send + 'static {
        let (path, resolved) = (self.path.clone(), self.resolved.clone());
        let latest = layout::latest(&self.looker.channel);
        let channel = Path::new(&latest).parent().unwrap_or(Path::new("")).to_owned();
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

/// Why there is nothing to be said of a folder.
enum Hangs {
    /// An earlier reading has not come to its end.
    Still,
    /// This one takes too long.
    TooLong,
    /// It was given up: the runtime ends.
    GivenUp,
}

impl Folder {
    /// Runs `job` on a thread of its own, for [`READ_WITHIN`] at most. Safe to cancel: the next call waits for its end.
    async fn apart<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Hangs> {
        if let Some(reading) = &mut self.reading
            && timeout(self.let_end, reading).await.is_err()
        {
            return Err(Hangs::Still);
        }
        let (tell, told) = oneshot::channel();
        self.reading = Some(spawn_blocking(move || {
            // Nobody listening any more means that it took too long.
            let _ = tell.send(job());
        }));
        let read = match timeout(READ_WITHIN, told).await {
            Ok(told) => told.map_err(|_| Hangs::GivenUp),
            Err(_) => return Err(Hangs::TooLong),
        };
        // It has sent its last word, and ends.
        self.reading = None;
        read
    }

    /// Whether another release than the one read last is there, with all that this host reads of it.
    ///
    /// `latest` comes last and as a whole where a release is published as it should be. Where it does not (somebody copies
    /// a folder over this one), the documents that it names are missing, or it lacks its newline.
    async fn has_come(&mut self) -> bool {
        let Looker { channel, me } = &self.looker;
        let (path, channel, host, known) =
            (self.path.clone(), channel.clone(), me.name.clone(), self.latest.clone());
        let job = move || {
            let latest = fs::read_start(&path.join(layout::latest(&channel)), LATEST_BYTES_MAX).ok()?;
            let seq = layout::read_latest(&latest).ok().filter(|_| known.as_ref() != Some(&latest))?;
            let documents = [layout::release(&channel, seq), layout::entry(&channel, seq, &host)];
            Some(documents.iter().all(|document| path.join(document).is_file()))
        };
        matches!(self.apart(job).await, Ok(Some(true)))
    }
}

impl Documents for Folder {
    async fn get(&mut self, wanted: Wanted<'_>) -> Result<Got, NoAnswer> {
        let at = self.path.join(wanted.path).display().to_string();
        let job = self.job(wanted);
        let Read { watch, got } = self.apart(job).await.map_err(|hangs| no_answer(at.clone(), &hangs))?;
        self.watch = watch.or(self.watch.take());
        let (folder, got) = got.map_err(|error| NoAnswer::Unreachable { at, why: chain(&error) })?;
        self.resolved = Some(folder);
        if wanted.path == layout::latest(&self.looker.channel)
            && let Got::Bytes { bytes, version: _ } = &got
        {
            self.latest = Some(bytes.clone());
        }
        Ok(got)
    }

    fn begin(&mut self, connection: Connection) {
        match connection {
            Connection::Any | Connection::Fresh => self.resolved = None,
        }
    }

    /// Safe to cancel: whoever looks sees what is there.
    async fn news(&mut self) {
        match changed(&mut self.watch).await {
            Ok(()) => {}
            // The slow poll is the net.
            Err(_) => pending().await,
        }
        let give_up = Instant::now() + SETTLE;
        while !self.has_come().await {
            let rest = (Instant::now() + QUIET_FOR).min(give_up);
            match timeout_at(rest, changed(&mut self.watch)).await {
                Ok(Ok(())) if rest < give_up => {}
                // At rest, never at rest, or not to be watched any more: it is looked at now.
                Ok(Ok(()) | Err(_)) | Err(_) => return,
            }
        }
    }
}

async fn changed(watch: &mut Option<FolderWatch>) -> io::Result<()> {
    match watch {
        Some(watch) => watch.changed().await,
        None => pending().await,
    }
}

fn no_answer(at: String, hangs: &Hangs) -> NoAnswer {
    let unreachable = |why: &str| NoAnswer::Unreachable { at: at.clone(), why: why.to_owned() };
    match hangs {
        Hangs::Still => unreachable("an earlier reading has not come to its end; does the file system hang?"),
        Hangs::GivenUp => unreachable("the reading was given up"),
        Hangs::TooLong => NoAnswer::TooSlow { at, secs: READ_WITHIN.as_secs() },
    }
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

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
