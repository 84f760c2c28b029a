//! Releases: put together from a fleet description and what was built, and read back from the served folder.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::ids::StorePath;
use nixfleet_core::model::circles::{self, Member, Stuck};
use nixfleet_core::model::faults::ReleaseFault;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId, Seq, Sha256, Tag};
use nixfleet_core::model::policy::Policy;
use nixfleet_core::model::release::{Closure, Entry, Release, Revision};
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::author::{self, Assembly, AssemblyFault, NotAuthored};
use nixfleet_trust::envelope::{EntryEnvelope, Envelope, EnvelopeFault, PayloadType};
use nixfleet_trust::json::{self, JsonError};

use crate::fleet::{Fleet, Host};
use crate::served::{Served, ServedError};
use crate::waves::{self, Draw, LeftOver};

/// What a release says beside what the description says.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Its number.
    pub seq: Seq,
    /// When it is made.
    pub created: UnixMs,
    /// When it expires.
    pub expires: UnixMs,
    /// The source revision.
    pub revision: Revision,
    /// The release that hosts are given now.
    pub previous: Option<Sha256>,
}

/// A host's system, built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Its store path.
    pub system: StorePath,
    /// What is in it.
    pub closure: Closure,
}

/// A release to be signed, with its entries.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// What it says.
    pub release: Release,
    /// The same to be signed.
    pub envelope: Envelope,
    /// The entries with their proofs.
    pub entries: Assembly,
}

/// Why there is no release.
#[derive(Debug, thiserror::Error)]
pub enum NotAssembled {
    /// There is no such channel.
    #[error("the fleet description has no channel {0}")]
    NoChannel(ChannelName),
    /// Nobody to release to.
    #[error("channel {0} has no hosts")]
    NoHosts(ChannelName),
    /// Nothing was built for a host.
    #[error("nothing was built for host {0}")]
    NotBuilt(HostName),
    /// Hosts in no wave.
    #[error("{} hosts are in no wave, for example {}", .0.len(), .0[0])]
    LeftOver(Vec<HostName>),
    /// Hosts that would wait for each other, as the waves were drawn.
    #[error("{}", stuck(.0))]
    Stuck(Vec<Stuck>),
    /// Entries that a host would refuse.
    #[error("the entries make no sense: {}", list(.0))]
    Entries(Vec<AssemblyFault>),
    /// A release that a host would refuse.
    #[error("the release cannot be made")]
    Release(#[source] NotAuthored<ReleaseFault>),
}

fn list(faults: &[AssemblyFault]) -> String {
    faults.iter().take(20).map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn stuck(hosts: &[Stuck]) -> String {
    hosts.iter().take(20).map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The hosts of a channel.
pub fn hosts_of<'a>(fleet: &'a Fleet, channel: &ChannelName) -> BTreeMap<&'a HostName, &'a Host> {
    fleet.hosts.iter().filter(|(_, host)| host.channel == *channel).collect()
}

/// The release of `channel` with what was `built` for each of its hosts. The same input gives the same bytes.
pub fn assemble(
    fleet: &Fleet,
    channel: &ChannelName,
    built: &BTreeMap<HostName, Built>,
    terms: Terms,
) -> Result<Assembled, NotAssembled> {
    let described = fleet.channels.get(channel).ok_or_else(|| NotAssembled::NoChannel(channel.clone()))?;
    let hosts = hosts_of(fleet, channel);
    let tags: BTreeMap<&HostName, &BTreeSet<Tag>> =
        hosts.iter().map(|(name, host)| (*name, &host.tags)).collect();
    let draw = Draw { fleet: &fleet.fleet, channel, seq: terms.seq };
    let waves = waves::assign(&described.policy.choices, &tags, draw)
        .map_err(|LeftOver(hosts)| NotAssembled::LeftOver(hosts))?;
    let members: Vec<Member<'_>> =
        tags.iter().map(|(name, tags)| Member { name, tags, wave: waves[*name] }).collect();
    let stuck = circles::stuck(&described.policy.policy, &members);
    if !stuck.is_empty() {
        return Err(NotAssembled::Stuck(stuck));
    }
    let entry = |(name, host): (&HostName, &Host)| {
        let Built { system, closure } =
            built.get(name).ok_or_else(|| NotAssembled::NotBuilt(name.clone()))?.clone();
        Ok(Entry {
            host: name.clone(),
            keys: host.keys.clone(),
            tags: host.tags.clone(),
            wave: waves[name],
            system,
            closure,
            probes: host.probes.clone(),
            reboot: host.reboot,
        })
    };
    let entries = hosts.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    if entries.is_empty() {
        return Err(NotAssembled::NoHosts(channel.clone()));
    }
    let policy = Policy { after: described.after.clone(), ..described.policy.policy.clone() };
    let entries = Assembly::new(entries, &policy).map_err(NotAssembled::Entries)?;
    let Terms { seq, created, expires, revision, previous } = terms;
    let release = Release {
        fleet: fleet.fleet.clone(),
        channel: channel.clone(),
        seq,
        created_ms: created,
        expires_ms: expires,
        revision,
        policy,
        hosts: entries.hosts(),
        entries_root: entries.entries_root(),
        previous,
        info: BTreeMap::new(),
    };
    let envelope = author::release(&release).map_err(NotAssembled::Release)?;
    Ok(Assembled { release, envelope, entries })
}

/// A release read back, with its entries. Nothing is said of its signatures.
#[derive(Debug, Clone)]
pub struct Opened {
    /// What it says.
    pub release: Release,
    /// The same with its signatures.
    pub envelope: Envelope,
    /// The entries by host: exactly those that the release's Merkle root is over.
    pub entries: BTreeMap<HostName, Entry>,
}

/// Why a release cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// The folder.
    #[error(transparent)]
    Served(ServedError),
    /// The release's envelope.
    #[error("release {channel}/{seq} cannot be read")]
    Envelope {
        /// The channel.
        channel: ChannelName,
        /// The number.
        seq: Seq,
        /// Why.
        source: EnvelopeFault,
    },
    /// The release's contents.
    #[error("the contents of release {channel}/{seq} cannot be read")]
    Payload {
        /// The channel.
        channel: ChannelName,
        /// The number.
        seq: Seq,
        /// Why.
        source: JsonError,
    },
    /// It is another one.
    #[error("in the place of release {channel}/{seq} stands {found}")]
    Misplaced {
        /// The channel.
        channel: ChannelName,
        /// The number.
        seq: Seq,
        /// What it says that it is.
        found: ReleaseId,
    },
    /// An entry's envelope.
    #[error("the entry of host {host} cannot be read")]
    Entry {
        /// The host.
        host: HostName,
        /// Why.
        source: EnvelopeFault,
    },
    /// An entry's contents.
    #[error("the contents of the entry of host {host} cannot be read")]
    EntryPayload {
        /// The host.
        host: HostName,
        /// Why.
        source: JsonError,
    },
    /// The entry is another host's.
    #[error("in the place of the entry of host {host} stands that of {found}")]
    EntryMisplaced {
        /// The host.
        host: HostName,
        /// Whose it is.
        found: HostName,
    },
    /// The entries are not the release's.
    #[error("the entries of release {0} are not those that it was made of")]
    OtherEntries(ReleaseId),
}

/// A release's envelope and contents, without its entries.
pub fn open_alone(
    served: &Served,
    channel: &ChannelName,
    seq: Seq,
) -> Result<(Envelope, Release), NotOpened> {
    let bytes = served.release(channel, seq).map_err(NotOpened::Served)?;
    let place = || (channel.clone(), seq);
    let envelope = Envelope::read(&bytes, PayloadType::Release).map_err(|source| {
        let (channel, seq) = place();
        NotOpened::Envelope { channel, seq, source }
    })?;
    let release: Release = json::read(envelope.payload()).map_err(|source| {
        let (channel, seq) = place();
        NotOpened::Payload { channel, seq, source }
    })?;
    if release.channel == *channel && release.seq == seq {
        return Ok((envelope, release));
    }
    let found = ReleaseId { channel: release.channel, seq: release.seq, digest: envelope.digest() };
    Err(NotOpened::Misplaced { channel: channel.clone(), seq, found })
}

/// A release with all of its entries, which are proven to be those that it was made of: its Merkle root is made anew
/// from them. That is what a signer looks at; a host proves its own entry alone.
pub fn open(served: &Served, channel: &ChannelName, seq: Seq) -> Result<Opened, NotOpened> {
    let (envelope, release) = open_alone(served, channel, seq)?;
    let mut entries = BTreeMap::new();
    for host in served.hosts(channel, seq).map_err(NotOpened::Served)? {
        let entry = open_entry(served, channel, seq, &host)?;
        entries.insert(host, entry);
    }
    let made_anew = Assembly::new(entries.values().cloned().collect(), &release.policy);
    let same = made_anew
        .is_ok_and(|made| made.hosts() == release.hosts && made.entries_root() == release.entries_root);
    if same {
        return Ok(Opened { release, envelope, entries });
    }
    let digest = envelope.digest();
    Err(NotOpened::OtherEntries(ReleaseId { channel: release.channel, seq: release.seq, digest }))
}

/// A host's entry. Nothing is said of whether it is the release's.
pub fn open_entry(
    served: &Served,
    channel: &ChannelName,
    seq: Seq,
    host: &HostName,
) -> Result<Entry, NotOpened> {
    let bytes = served.entry(channel, seq, host).map_err(NotOpened::Served)?;
    let envelope =
        EntryEnvelope::read(&bytes).map_err(|source| NotOpened::Entry { host: host.clone(), source })?;
    let entry: Entry = json::read(envelope.payload())
        .map_err(|source| NotOpened::EntryPayload { host: host.clone(), source })?;
    if entry.host == *host {
        return Ok(entry);
    }
    Err(NotOpened::EntryMisplaced { host: host.clone(), found: entry.host })
}

#[cfg(test)]
mod tests;
