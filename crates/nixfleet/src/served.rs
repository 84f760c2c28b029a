//! The folder that is served to hosts: roots and releases as static files.
//!
//! The layout is `nixfleet_core::model::layout`. What is in it is signed or worthless, so any web server may serve it. A
//! reader who comes at any moment finds a whole release: a new one appears with one rename, and `latest` is replaced
//! after that, once enough keys have signed. The folder of a release never changes afterwards, except that
//! `release.json` gets more signatures, as a whole file each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, HostName, RootVersion, Seq};
use nixfleet_sys::fs::{self, FsError, Lock, NewFolder};
use nixfleet_trust::author::Assembly;
use nixfleet_trust::envelope::{ENVELOPE_SIZE_MAX, Envelope};

/// A served folder.
#[derive(Debug, Clone)]
pub struct Served {
    folder: PathBuf,
}

/// Why something of the folder could not be had or written.
#[derive(Debug, thiserror::Error)]
pub enum ServedError {
    /// The files.
    #[error(transparent)]
    Fs(FsError),
    /// `latest` is damaged.
    #[error("`{path}` does not name a release")]
    Latest {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: layout::NotLatest,
    },
    /// Somebody else is at it.
    #[error("another nixfleet is writing to `{0}`")]
    Busy(PathBuf),
    /// A number that was used before would mean two things.
    #[error("channel {channel} has a release {seq} already")]
    SeqTaken {
        /// The channel.
        channel: ChannelName,
        /// The number.
        seq: Seq,
    },
}

impl ServedError {
    /// Whether it is about a file that is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Fs(error) => error.is_not_found(),
            Self::Latest { .. } | Self::Busy(_) | Self::SeqTaken { .. } => false,
        }
    }
}

/// The lock of a served folder: whoever has it may write.
#[derive(Debug)]
pub struct Writing(#[expect(dead_code, reason = "held, not read")] Lock);

/// The most bytes of a file in the folder: what a host would read.
const FILE_BYTES_MAX: u64 = ENVELOPE_SIZE_MAX as u64;
/// The most bytes of `latest`.
const LATEST_BYTES_MAX: u64 = layout::LATEST_LEN_MAX as u64;

impl Served {
    /// The folder at `folder`, which need not be there yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the lock, or says who is busy. The lock file begins with a dot and is served to nobody who asks by name.
    pub fn lock(&self) -> Result<Writing, ServedError> {
        fs::make_public_dir(&self.folder).map_err(ServedError::Fs)?;
        match Lock::try_take(&self.folder.join(".lock")).map_err(ServedError::Fs)? {
            Some(lock) => Ok(Writing(lock)),
            None => Err(ServedError::Busy(self.folder.clone())),
        }
    }

    /// The roots that are there, oldest first, as bytes.
    pub fn roots(&self) -> Result<BTreeMap<RootVersion, Vec<u8>>, ServedError> {
        let names = fs::names_in(&self.folder.join("root")).map_err(ServedError::Fs)?;
        let version =
            |name: &String| name.strip_suffix(".json")?.parse().ok().and_then(|n| RootVersion::new(n).ok());
        let versions = names.iter().filter_map(version);
        versions.map(|version| Ok((version, self.read(&layout::root(version.get()))?))).collect()
    }

    /// The bytes of a root.
    pub fn root(&self, version: RootVersion) -> Result<Vec<u8>, ServedError> {
        self.read(&layout::root(version.get()))
    }

    /// Puts a root there. It is signed, and stands there for ever.
    pub fn put_root(
        &self,
        _held: &Writing,
        version: RootVersion,
        envelope: &Envelope,
    ) -> Result<(), ServedError> {
        fs::make_public_dir(&self.folder.join("root")).map_err(ServedError::Fs)?;
        self.write(&layout::root(version.get()), &envelope.to_bytes())
    }

    /// The channels that have releases.
    pub fn channels(&self) -> Result<Vec<ChannelName>, ServedError> {
        let names = fs::names_in(&self.folder.join("channels")).map_err(ServedError::Fs)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The numbers of a channel's releases, published or not, lowest first.
    pub fn seqs(&self, channel: &ChannelName) -> Result<Vec<Seq>, ServedError> {
        let names = fs::names_in(&self.channel(channel)).map_err(ServedError::Fs)?;
        let seq = |name: &String| name.parse().ok().and_then(|number| Seq::new(number).ok());
        let mut seqs: Vec<Seq> = names.iter().filter_map(seq).collect();
        seqs.sort_unstable();
        Ok(seqs)
    }

    /// The release that hosts are given now; `None` if none was published.
    pub fn latest(&self, channel: &ChannelName) -> Result<Option<Seq>, ServedError> {
        let path = self.folder.join(layout::latest(channel));
        match fs::read_bounded(&path, LATEST_BYTES_MAX) {
            Ok(bytes) => {
                let read =
                    layout::read_latest(&bytes).map_err(|source| ServedError::Latest { path, source })?;
                Ok(Some(read))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(ServedError::Fs(error)),
        }
    }

    /// The bytes of a release's envelope.
    pub fn release(&self, channel: &ChannelName, seq: Seq) -> Result<Vec<u8>, ServedError> {
        self.read(&layout::release(channel, seq))
    }

    /// The hosts that a release has entries for, sorted.
    pub fn hosts(&self, channel: &ChannelName, seq: Seq) -> Result<Vec<HostName>, ServedError> {
        let folder = self.channel(channel).join(seq.to_string()).join("hosts");
        let names = fs::names_in(&folder).map_err(ServedError::Fs)?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// The bytes of a host's entry.
    pub fn entry(&self, channel: &ChannelName, seq: Seq, host: &HostName) -> Result<Vec<u8>, ServedError> {
        self.read(&layout::entry(channel, seq, host))
    }

    /// Puts a new release there, whole or not at all; hosts are not told of it yet.
    pub fn put_release(
        &self,
        _held: &Writing,
        (channel, seq): (&ChannelName, Seq),
        release: &Envelope,
        entries: &Assembly,
    ) -> Result<(), ServedError> {
        if self.seqs(channel)?.contains(&seq) {
            return Err(ServedError::SeqTaken { channel: channel.clone(), seq });
        }
        let write = || -> Result<(), FsError> {
            let channel_folder = self.channel(channel);
            fs::make_public_dir(&channel_folder)?;
            sweep(&channel_folder)?;
            let folder = NewFolder::begin(&channel_folder.join(seq.to_string()))?;
            folder.make_dir("hosts")?;
            for (host, envelope) in entries.envelopes() {
                folder.write(&format!("hosts/{host}.json"), &envelope.to_bytes())?;
            }
            folder.write("release.json", &release.to_bytes())?;
            folder.publish()
        };
        write().map_err(ServedError::Fs)
    }

    /// Replaces a release's envelope by the same with more signatures.
    pub fn put_signatures(
        &self,
        _held: &Writing,
        channel: &ChannelName,
        seq: Seq,
        release: &Envelope,
    ) -> Result<(), ServedError> {
        self.write(&layout::release(channel, seq), &release.to_bytes())
    }

    /// Gives the release to hosts: the last step of all.
    pub fn publish(&self, _held: &Writing, channel: &ChannelName, seq: Seq) -> Result<(), ServedError> {
        self.write(&layout::latest(channel), layout::write_latest(seq).as_bytes())
    }

    fn channel(&self, channel: &ChannelName) -> PathBuf {
        self.folder.join("channels").join(channel.as_str())
    }

    fn read(&self, below: &str) -> Result<Vec<u8>, ServedError> {
        fs::read_bounded(&self.folder.join(below), FILE_BYTES_MAX).map_err(ServedError::Fs)
    }

    fn write(&self, below: &str, bytes: &[u8]) -> Result<(), ServedError> {
        fs::write_atomic_mode(&self.folder.join(below), bytes, 0o644).map_err(ServedError::Fs)
    }
}

/// Removes what a build left that was ended in the middle. Whoever calls this has the lock, so nobody is at work there.
fn sweep(channel_folder: &Path) -> Result<(), FsError> {
    for name in fs::names_in(channel_folder)? {
        if name.starts_with('.') && name.contains(".new-") {
            fs::remove_tree(&channel_folder.join(name))?;
        }
    }
    Ok(())
}
