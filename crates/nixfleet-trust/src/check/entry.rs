//! Entries: that one is part of a release, and that it is this host's own.

use nixfleet_core::ids::ClosureDigest;
use nixfleet_core::model::faults::EntryFault;
use nixfleet_core::model::names::{HostName, ReleaseId};
use nixfleet_core::model::release::{Entry, Release};

use super::Verified;
use crate::attack::{Attack, ReplayOf};
use crate::envelope::{EntryEnvelope, EnvelopeFault};
use crate::json::{self, JsonError};
use crate::key::{KeyId, KeyRefused, PublicKey};

/// Why an entry is refused.
#[derive(Debug, thiserror::Error)]
pub enum EntryRefused {
    /// It cannot be read.
    #[error("the entry cannot be read")]
    Envelope(#[source] EnvelopeFault),
    /// Its proof does not lead to the release's Merkle root.
    #[error("the entry is not part of release {0}")]
    NotInRelease(ReleaseId),
    /// Part of the release, and still not an entry that this program understands.
    #[error("the entry's contents cannot be read; a newer agent may be needed")]
    Payload(#[source] JsonError),
    /// It is another host's.
    #[error("the entry is for host {found}, and this is {wanted}")]
    OtherHost {
        /// What it says.
        found: HostName,
        /// Who we are.
        wanted: HostName,
    },
    /// It is for a host of our name with another key.
    #[error("the entry is for a host {host} with another key than {wanted}, which this host has")]
    OtherKey {
        /// The name.
        host: HostName,
        /// Our key.
        wanted: KeyId,
    },
    /// A key in it is none.
    #[error("a host key in the entry cannot be read")]
    Key(#[source] KeyRefused),
    /// It makes no sense.
    #[error("the entry makes no sense: {}", list(.0))]
    Faults(Vec<EntryFault>),
}

fn list(faults: &[EntryFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl EntryRefused {
    /// What somebody may be trying.
    pub fn attack(&self) -> Option<Attack> {
        match self {
            Self::Envelope(fault) => fault.attack(),
            Self::NotInRelease(_) => Some(Attack::MixAndMatch),
            Self::OtherHost { .. } | Self::OtherKey { .. } => Some(Attack::Replay(ReplayOf::OtherHost)),
            Self::Payload(_) | Self::Key(_) | Self::Faults(_) => None,
        }
    }
}

/// Who a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIdentity {
    /// Its name in the fleet.
    pub name: HostName,
    /// The key of which it has the private half.
    pub key: PublicKey,
}

/// An entry, with the release that it is part of: what one host shall run, and on whose word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The release.
    pub release: ReleaseId,
    /// The host's entry in it.
    pub entry: Entry,
}

/// The entry in `envelope`, if it is part of `release`: for those who look at the whole fleet. A host asks
/// [`own_entry`].
pub fn entry(release: &Verified<Release>, envelope: &[u8]) -> Result<Verified<Entry>, EntryRefused> {
    let envelope = proven(release, envelope)?;
    let entry = read(&envelope)?;
    sensible(release, &entry)?;
    Ok(Verified::after_all_checks(entry, crate::envelope::digest_of(envelope.payload())))
}

/// The entry in `envelope`, if it is part of `release` and meant for the host `me`, by its name and its key.
pub fn own_entry(
    release: &Verified<Release>,
    envelope: &[u8],
    me: &HostIdentity,
) -> Result<Verified<Assignment>, EntryRefused> {
    let envelope = proven(release, envelope)?;
    let entry = read(&envelope)?;
    if entry.host != me.name {
        return Err(EntryRefused::OtherHost { found: entry.host, wanted: me.name.clone() });
    }
    if !keys(&entry)?.contains(&me.key) {
        return Err(EntryRefused::OtherKey { host: entry.host, wanted: me.key.id() });
    }
    sensible(release, &entry)?;
    let digest = crate::envelope::digest_of(envelope.payload());
    Ok(Verified::after_all_checks(Assignment { release: release.id(), entry }, digest))
}

fn proven(release: &Verified<Release>, envelope: &[u8]) -> Result<EntryEnvelope, EntryRefused> {
    let envelope = EntryEnvelope::read(envelope).map_err(EntryRefused::Envelope)?;
    if envelope.proof().proves(&envelope.leaf(), release.hosts, &release.entries_root) {
        Ok(envelope)
    } else {
        Err(EntryRefused::NotInRelease(release.id()))
    }
}

/// Only after the proof: nobody's bytes but the signers' reach this parser. The system becomes a store path here, or
/// there is no entry.
fn read(envelope: &EntryEnvelope) -> Result<Entry, EntryRefused> {
    json::read(envelope.payload()).map_err(EntryRefused::Payload)
}

fn keys(entry: &Entry) -> Result<Vec<PublicKey>, EntryRefused> {
    entry.keys.iter().map(PublicKey::of_host).collect::<Result<_, _>>().map_err(EntryRefused::Key)
}

fn sensible(release: &Release, entry: &Entry) -> Result<(), EntryRefused> {
    keys(entry)?;
    let faults = entry.faults(&release.policy);
    if faults.is_empty() { Ok(()) } else { Err(EntryRefused::Faults(faults)) }
}

/// A closure's contents are not what the release says: the cache, or somebody with its key, served something else under
/// the right store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the closure is {found}, and release {release} says {wanted}")]
pub struct OtherContents {
    /// The release.
    pub release: ReleaseId,
    /// What it says.
    pub wanted: ClosureDigest,
    /// What was fetched.
    pub found: ClosureDigest,
}

impl OtherContents {
    /// What somebody may be trying.
    pub fn attack(&self) -> Attack {
        Attack::StolenCacheKey
    }
}

impl Verified<Assignment> {
    /// Checks what was fetched; the last check, to be made before the system is touched.
    pub fn check_closure(&self, found: &ClosureDigest) -> Result<(), OtherContents> {
        let wanted = &self.entry.closure.digest;
        if wanted == found {
            return Ok(());
        }
        Err(OtherContents { release: self.release.clone(), wanted: wanted.clone(), found: found.clone() })
    }
}
