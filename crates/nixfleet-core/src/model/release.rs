//! The release of a channel, and the entry of one host in it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::names::{ChannelName, FleetId, HostKey, HostName, Seq, Sha256, Tag};
use super::policy::{Policy, WaveIndex};
use super::probe::ProbeSpec;
use super::schedule::RebootMode;
use super::time::UnixMs;
use crate::ids::{ClosureDigest, StorePath};

/// What a channel shall run from now on: everything that is the same for all of its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The fleet.
    pub fleet: FleetId,
    /// The channel.
    pub channel: ChannelName,
    /// Its number; a deliberate rollback is a higher number with older systems.
    pub seq: Seq,
    /// When it was made.
    pub created_ms: UnixMs,
    /// From here on nothing new is started because of it; what runs goes on.
    pub expires_ms: UnixMs,
    /// The source revision that it was built from, such as a commit id.
    pub revision: Revision,
    /// How it goes out.
    pub policy: Policy,
    /// How many hosts there are; the size of the Merkle tree.
    pub hosts: u32,
    /// The Merkle tree's root over the entries of the hosts.
    pub entries_root: Sha256,
    /// The digest of the release before it in this channel; `None` for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Sha256>,
    /// Free text that no host has to understand: a changelog, a build number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub info: BTreeMap<String, String>,
}

/// A source revision: up to 200 printable ASCII characters without spaces, such as a commit id. `none` is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision(String);

/// Why a text is not a source revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a source revision: it has 1 to 200 printable ASCII characters and no space")]
pub struct NotARevision(String);

impl Revision {
    /// What a release says that was built from a source which nobody named.
    pub fn unknown() -> Self {
        Self("none".to_owned())
    }

    /// Whether nobody named the source: then it is the source of no other release either, also of none that says the same.
    pub fn is_unknown(&self) -> bool {
        *self == Self::unknown()
    }

    /// The revision as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Revision {
    type Err = NotARevision;
    fn from_str(text: &str) -> Result<Self, NotARevision> {
        let good = (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if good { Ok(Self(text.to_owned())) } else { Err(NotARevision(super::names::printable(text))) }
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Revision {
    type Error = NotARevision;
    fn try_from(text: String) -> Result<Self, NotARevision> {
        text.parse()
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> Self {
        revision.0
    }
}

/// What one host shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The host.
    pub host: HostName,
    /// Its public key, or two while one replaces the other.
    pub keys: Vec<HostKey>,
    /// What selectors choose it by.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<Tag>,
    /// The wave that it is in.
    pub wave: WaveIndex,
    /// The system.
    pub system: StorePath,
    /// What the contents of the system's closure must be.
    pub closure: Closure,
    /// What a healthy host answers; where none is enforced, the built-in probes decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbeSpec>,
    /// Whether this host restarts by itself; `None` means as the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<RebootMode>,
}

/// What a closure contains, and how large it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closure {
    /// The digest of its contents, checked after the fetch: a stolen cache key cannot change what runs.
    pub digest: ClosureDigest,
    /// What a host that has nothing of it would fetch.
    pub fetch_bytes: u64,
    /// What it takes in the store.
    pub unpacked_bytes: u64,
}
