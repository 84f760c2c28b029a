//! A folder of releases on this machine, watched: where `nixfleet release publish` writes, or what a mirror brings.
//!
//! A folder that is gone, half-written or wrong changes nothing and is looked at again. Files are read on a thread of
//! their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, HostName, Seq, Sha256};
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::fs::{self, FsError};
use nixfleet_sys::watch::FolderWatch;
use nixfleet_trust::envelope::{ENVELOPE_SIZE_MAX, Envelope, PayloadType};
use tokio::time::sleep;

use super::{Draft, IntakeRefused, Needs, Taken};
use crate::store::{Store, StoreError};

/// How often it is looked at when nothing wakes us: a mount that comes back wakes nobody.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// After a change it is left alone for so long.
const SETTLE: Duration = Duration::from_millis(300);

/// Why a folder gave no release.
#[derive(Debug, thiserror::Error)]
pub enum FolderRefused {
    /// A file.
    #[error(transparent)]
    File(#[from] FsError),
    /// What should be the number of the newest release is something else.
    #[error("`latest` of channel {channel} is refused")]
    Latest {
        /// The channel.
        channel: ChannelName,
        /// Why.
        #[source]
        why: layout::NotLatest,
    },
    /// A document.
    #[error("release {seq} of channel {channel} is refused")]
    Release {
        /// The channel.
        channel: ChannelName,
        /// Its number.
        seq: Seq,
        /// Why.
        #[source]
        refused: Box<IntakeRefused>,
    },
    /// A root, or the database.
    #[error(transparent)]
    Intake(#[from] IntakeRefused),
}

impl FolderRefused {
    /// What the database has against it, if it is that: the release itself may be good.
    pub fn not_kept(&self) -> Option<&StoreError> {
        let refused = match self {
            Self::File(_) | Self::Latest { .. } => return None,
            Self::Release { refused, .. } => refused.as_ref(),
            Self::Intake(refused) => refused,
        };
        match refused {
            IntakeRefused::Store(error) => Some(error),
            _ => None,
        }
    }

    /// What can be done about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(_) | Self::Latest { .. } => None,
            Self::Release { refused, .. } => refused.hint(),
            Self::Intake(refused) => refused.hint(),
        }
    }
}

/// Looks at a folder once, channel by channel: what was taken, and what was refused. One bad channel does not stop the
/// others.
pub async fn look(
    folder: &Path,
    store: &Store,
    first_root: &[u8],
    now: UnixMs,
) -> Vec<Result<Taken, FolderRefused>> {
    let mut out = Vec::new();
    match roots(folder, store, first_root, now).await {
        Ok(channels) => {
            for channel in channels {
                match one(folder, store, first_root, now, &channel).await {
                    Ok(None) => {}
                    Ok(Some(taken)) => out.push(Ok(taken)),
                    Err(refused) => out.push(Err(refused)),
                }
            }
        }
        Err(refused) => out.push(Err(refused)),
    }
    out
}

/// Takes the roots that are new, and returns the channels of the one that is in force then.
async fn roots(
    folder: &Path,
    store: &Store,
    first_root: &[u8],
    now: UnixMs,
) -> Result<Vec<ChannelName>, FolderRefused> {
    let mut draft = Draft::begin(store, first_root, now).await?;
    let mut any = false;
    while let Some(next) = draft.root_in_force().version.next() {
        let Some(bytes) = read(&folder.join(layout::root(next.get()))).await? else { break };
        draft.root(&bytes)?;
        any = true;
    }
    let channels = draft.root_in_force().channels.keys().cloned().collect();
    if any {
        draft.finish(store, first_root).await?;
    }
    Ok(channels)
}

async fn one(
    folder: &Path,
    store: &Store,
    first_root: &[u8],
    now: UnixMs,
    channel: &ChannelName,
) -> Result<Option<Taken>, FolderRefused> {
    let Some(latest) = read(&folder.join(layout::latest(channel))).await? else { return Ok(None) };
    let seq = layout::read_latest(&latest)
        .map_err(|why| FolderRefused::Latest { channel: channel.clone(), why })?;
    let mut draft = Draft::begin(store, first_root, now).await?;
    let floor = draft.trust().floor(channel);
    if floor.is_some_and(|floor| floor.digest.is_some() && floor.seq > seq) {
        // An older one moves nothing (lesson 34).
        return Ok(None);
    }
    let Some(release) = read(&folder.join(layout::release(channel, seq))).await? else { return Ok(None) };
    let served = floor.filter(|floor| floor.seq == seq).and_then(|floor| floor.digest);
    if served.is_some() && served == digest_of(&release) {
        // It is not checked again, as it may have expired since. Another one under its number is, and is refused aloud.
        return Ok(None);
    }
    let refused =
        |refused| FolderRefused::Release { channel: channel.clone(), seq, refused: Box::new(refused) };
    if draft.release(&release).map_err(refused)? == Needs::Entries {
        let hosts = folder.join(format!("channels/{channel}/{seq}/hosts"));
        for host in names(hosts).await? {
            if let Some(bytes) = read(&folder.join(layout::entry(channel, seq, &host))).await? {
                draft.entry(&bytes).map_err(refused)?;
            }
        }
    }
    let intake = draft.finish(store, first_root).await.map_err(refused)?;
    Ok(Some(intake.taken))
}

fn digest_of(release: &[u8]) -> Option<Sha256> {
    Some(Envelope::read(release, PayloadType::Release).ok()?.digest())
}

/// The hosts that have a file in the folder; files of other names are not ours.
async fn names(folder: PathBuf) -> Result<Vec<HostName>, FsError> {
    let names = on_thread(move || fs::names_in(&folder)).await?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
}

/// A file, cut after the first byte that no document has; `None` if there is none.
async fn read(path: &Path) -> Result<Option<Vec<u8>>, FsError> {
    let path = path.to_owned();
    on_thread(move || match fs::read_start(&path, ENVELOPE_SIZE_MAX as u64) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    })
    .await
}

async fn on_thread<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    // It is only cancelled when the whole process ends, and a panic in it is ours to pass on.
    tokio::task::spawn_blocking(job).await.expect("reading a file does not panic")
}

/// Changes of a folder from when this was made on: made before a look, so that what comes during it is not missed.
#[derive(Debug)]
pub struct Changes(Option<FolderWatch>);

/// Watches a folder.
pub fn watch(folder: &Path) -> Changes {
    let channels = folder.join("channels");
    let mut watched = vec![folder.to_owned(), folder.join("root"), channels.clone()];
    watched.extend(fs::names_in(&channels).unwrap_or_default().iter().map(|name| channels.join(name)));
    watched.retain(|path| path.is_dir());
    let paths: Vec<&Path> = watched.iter().map(PathBuf::as_path).collect();
    Changes(FolderWatch::new(&paths).ok())
}

impl Changes {
    /// Returns when there is one, or after a while.
    pub async fn next(self) {
        let Some(mut watch) = self.0 else { return sleep(LOOK_EVERY).await };
        tokio::select! {
            // Safe to cancel: what is missed is seen by the next look.
            _ = watch.changed() => sleep(SETTLE).await,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}
