//! The fleet's root: the one in force, from the chain that is served, and the next one while it collects signatures.
//!
//! The next root is kept in the fleet folder, in one file, and is nobody's business until enough keys have signed it: a
//! threshold of the root in force and of its own. Changing it drops its signatures, since they were for something else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nixfleet_core::model::names::{ChannelName, RootVersion};
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::fs::{self, FsError};
use nixfleet_trust::author::{self, NotAuthored};
use nixfleet_trust::check::root::RootRefused;
use nixfleet_trust::envelope::{ENVELOPE_SIZE_MAX, Envelope, EnvelopeFault, PayloadType};
use nixfleet_trust::json::{self, JsonError};
use nixfleet_trust::root::{RoleName, Root, RootFault};
use nixfleet_trust::threshold::Signatures;
use nixfleet_trust::trust::{Trust, TrustUnreadable};

use crate::served::{Served, ServedError};

/// Why there is no root to go by.
#[derive(Debug, thiserror::Error)]
pub enum NoRoot {
    /// The served folder.
    #[error(transparent)]
    Served(ServedError),
    /// There is none at all.
    #[error("there is no root in `{0}`")]
    None(PathBuf),
    /// The first is no good.
    #[error(transparent)]
    First(TrustUnreadable),
    /// One does not follow from the one before it.
    #[error("root {version} does not follow from the one before it")]
    Next {
        /// Which one.
        version: RootVersion,
        /// Why.
        source: RootRefused,
    },
}

/// What is trusted at `now`, beginning with the root `first` (the oldest that is served, if there is none) and going up
/// the chain in `served`.
pub fn trust(served: &Served, first: Option<&[u8]>, now: UnixMs) -> Result<Trust, NoRoot> {
    follow(served, first, now, |_| {})
}

/// When a root of that chain last set `channel` back; `None` if none has.
pub fn set_back(
    served: &Served,
    first: Option<&[u8]>,
    now: UnixMs,
    channel: &ChannelName,
) -> Result<Option<UnixMs>, NoRoot> {
    let (mut known, mut at) = (0, None);
    follow(served, first, now, |root| {
        let resets = root.channels.get(channel).map_or(known, |rules| rules.resets);
        if resets > known {
            (known, at) = (resets, Some(root.created_ms));
        }
    })?;
    Ok(at)
}

/// Goes up the chain, and looks at each root.
fn follow(
    served: &Served,
    first: Option<&[u8]>,
    now: UnixMs,
    mut look: impl FnMut(&Root),
) -> Result<Trust, NoRoot> {
    let roots = served.roots().map_err(NoRoot::Served)?;
    let oldest = roots.values().next().map(Vec::as_slice);
    let first = first.or(oldest).ok_or_else(|| NoRoot::None(served.folder().to_owned()))?;
    let mut trust = Trust::begin(first).map_err(NoRoot::First)?;
    look(trust.root());
    while let Some((version, bytes)) = following(&trust, &roots) {
        trust = trust.accept_root(bytes, now).map_err(|source| NoRoot::Next { version, source })?;
        look(trust.root());
    }
    Ok(trust)
}

fn following<'a>(
    trust: &Trust,
    roots: &'a BTreeMap<RootVersion, Vec<u8>>,
) -> Option<(RootVersion, &'a [u8])> {
    let version = trust.root().version.next()?;
    Some((version, roots.get(&version)?))
}

/// The next root, not yet in force.
#[derive(Debug, Clone)]
pub struct NextRoot {
    /// What it says.
    pub root: Root,
    /// The same with the signatures that it has.
    pub envelope: Envelope,
}

/// Why the next root cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum NextRootError {
    /// The file.
    #[error(transparent)]
    Fs(FsError),
    /// It is damaged.
    #[error("the next root in `{path}` cannot be read")]
    Envelope {
        /// The file.
        path: PathBuf,
        /// Why.
        source: EnvelopeFault,
    },
    /// Its contents are damaged.
    #[error("the next root in `{path}` cannot be read")]
    Payload {
        /// The file.
        path: PathBuf,
        /// Why.
        source: JsonError,
    },
    /// It would make no sense.
    #[error("that root would make no sense")]
    NotAuthored(#[source] NotAuthored<RootFault>),
}

/// Where the next root is kept.
#[derive(Debug, Clone)]
pub struct Pending {
    path: PathBuf,
}

impl Pending {
    /// In the fleet folder.
    pub fn in_folder(fleet: &Path) -> Self {
        Self { path: fleet.join("pending").join("root.json") }
    }

    /// The file, which need not be there.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next root; `None` if nothing is changed.
    pub fn load(&self) -> Result<Option<NextRoot>, NextRootError> {
        let bytes = match fs::read_bounded(&self.path, ENVELOPE_SIZE_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(NextRootError::Fs(error)),
        };
        let path = || self.path.clone();
        let envelope = Envelope::read(&bytes, PayloadType::Root)
            .map_err(|source| NextRootError::Envelope { path: path(), source })?;
        let root = json::read(envelope.payload())
            .map_err(|source| NextRootError::Payload { path: path(), source })?;
        Ok(Some(NextRoot { root, envelope }))
    }

    /// Keeps `root` as the next one, without signatures; refuses one that a host would.
    pub fn keep(&self, root: Root) -> Result<NextRoot, NextRootError> {
        let envelope = author::root(&root).map_err(NextRootError::NotAuthored)?;
        self.keep_signed(&envelope)?;
        Ok(NextRoot { root, envelope })
    }

    /// Keeps the next root with the signatures that it has by now.
    pub fn keep_signed(&self, envelope: &Envelope) -> Result<(), NextRootError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::make_dir(folder).map_err(NextRootError::Fs)?;
        fs::write_atomic(&self.path, &envelope.to_bytes()).map_err(NextRootError::Fs)
    }

    /// Drops the next root.
    pub fn drop(&self) -> Result<(), NextRootError> {
        fs::remove(&self.path).map_err(NextRootError::Fs)
    }
}

impl NextRoot {
    /// How far its signatures reach: by its own keys, and by those of the root in force, if there is one.
    pub fn signatures(&self, in_force: Option<&Root>) -> Vec<(Whose, Signatures)> {
        let count = |whose, root: &Root| {
            (whose, Signatures::count(&self.envelope, RoleName::Root, &root.root, &root.keys))
        };
        let old = in_force.map(|root| count(Whose::InForce(root.version), root));
        old.into_iter().chain([count(Whose::Own, &self.root)]).collect()
    }
}

/// Whose threshold is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The keys of the root in force.
    InForce(RootVersion),
    /// The next root's own keys.
    Own,
}
