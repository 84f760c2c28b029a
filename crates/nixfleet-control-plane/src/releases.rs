//! Takes releases in: each document is verified as a host would, and served only when the release is whole.
//!
//! No host relies on that: it checks everything itself. It keeps mistakes and other people's documents out, and it tells
//! an operator at once what each host would refuse later. [`folder`] watches a folder of this machine; the API takes
//! pushes. Both fill a [`Draft`], without holding any lock while bytes come in, and [`Draft::finish`] writes it all in
//! one transaction: `latest` never names a release of which a document is missing.

pub mod folder;
pub mod stream;

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::model::circles::{self, Member, Stuck};
use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId, RootVersion, Tag};
use nixfleet_core::model::policy::WaveIndex;
use nixfleet_core::model::release::{Entry, Release};
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::check::Verified;
use nixfleet_trust::check::entry::{EntryRefused, entry};
use nixfleet_trust::check::release::ReleaseRefused;
use nixfleet_trust::check::root::RootRefused;
use nixfleet_trust::envelope::{Envelope, EnvelopeFault, PayloadType};
use nixfleet_trust::key::{KeyId, PublicKey};
use nixfleet_trust::root::Root;
use nixfleet_trust::trust::{Accepted, Trust, TrustUnreadable};
use serde::Deserialize;

use crate::say;
use crate::store::fact::{About, Fact};
use crate::store::write::{Elsewhere, Write};
use crate::store::{Store, StoreError};

/// Under which name the trust is saved.
const TRUST: &str = "trust";
/// The most bytes of entries in one release: 100,000 hosts with long probes, three times over. They are in memory until
/// the release is whole.
const ENTRIES_BYTES_MAX: usize = 512 << 20;
/// The newest roots that are taken in one go. One a year is many.
const ROOTS_MAX: usize = 64;

/// Why a release was not taken in. Nothing has changed by it, except that roots before it may have been taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeRefused {
    /// A root.
    #[error("the root is refused")]
    Root(#[source] RootRefused),
    /// More roots than anybody makes.
    #[error("there are more than {ROOTS_MAX} new roots")]
    TooManyRoots,
    /// The release.
    #[error("the release is refused")]
    Release(#[source] ReleaseRefused),
    /// It cannot even be told which channel it is for.
    #[error("the release cannot be read")]
    Unreadable(#[source] EnvelopeFault),
    /// It does not say which channel it is for.
    #[error("the release names no channel")]
    NoChannel,
    /// An entry.
    #[error("entry {number} of the release is refused")]
    Entry {
        /// The how manyth it was, from 1.
        number: usize,
        /// Why.
        #[source]
        refused: EntryRefused,
    },
    /// Two entries for one host.
    #[error("host {0} has two entries")]
    HostTwice(HostName),
    /// Entries came before their release, or a second release after them.
    #[error("the order is: roots, one release, its entries")]
    Order,
    /// Some are missing.
    #[error("the release is for {wanted} hosts, and there are {found} entries")]
    Incomplete {
        /// How many there should be.
        wanted: u32,
        /// How many there are.
        found: usize,
    },
    /// A host could never move.
    #[error(transparent)]
    Stuck(#[from] Stuck),
    /// More than is kept in memory.
    #[error("the entries take more than {} MiB", ENTRIES_BYTES_MAX >> 20)]
    TooLarge,
    /// Somebody else took a root or release in meanwhile.
    #[error("another release was taken in meanwhile; try again")]
    Overtaken,
    /// A host or a key of another channel.
    #[error("{} belongs to host {} of channel {}", .0.named, .0.host, .0.channel)]
    Elsewhere(Elsewhere),
    /// What is trusted here cannot be told.
    #[error("what this server trusts cannot be told")]
    Trust(#[source] TrustUnreadable),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IntakeRefused {
    /// What can be done about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Elsewhere(Elsewhere { host, channel, .. }) => {
                Some(format!("release channel {channel} without {host} first, if it is meant to move"))
            }
            _ => None,
        }
    }
}

/// What was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intake {
    /// The roots that were new, oldest first.
    pub roots: Vec<RootVersion>,
    /// What became of the release.
    pub taken: Taken,
}

/// A release was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is new.
    New(ReleaseId),
    /// It was here before.
    Known(ReleaseId),
    /// There were only roots.
    RootsOnly,
}

/// What this server trusts, as far as it was saved, and from the first root otherwise.
pub async fn trust(store: &Store, first_root: &[u8]) -> Result<Trust, IntakeRefused> {
    let saved = store.setting(TRUST).await?;
    Trust::open(first_root, saved.as_deref()).map_err(IntakeRefused::Trust)
}

/// Puts the first root there, so that it is served.
pub async fn begin(store: &Store, first_root: &[u8], now: UnixMs) -> Result<Trust, IntakeRefused> {
    let trust = trust(store, first_root).await?;
    let first = Trust::begin(first_root).map_err(IntakeRefused::Trust)?;
    let mut write = store.begin(now).await?;
    write.put_document(&layout::root(first.root().version.get()), first_root).await?;
    write.set(TRUST, &trust.to_saved().to_bytes()).await?;
    // Of a database that an older program wrote.
    end_channels(&mut write, &trust).await?;
    write.commit().await?;
    Ok(trust)
}

/// Ends what is left of channels that the root in force does not name.
async fn end_channels(write: &mut Write, trust: &Trust) -> Result<(), StoreError> {
    let root = trust.root();
    let named = root.channels.keys().cloned().collect();
    for channel in write.remove_channels(&named, root.version).await? {
        say::line(&format!("channel {channel} is gone, as root {} does not name it", root.version));
    }
    Ok(())
}

/// A release on its way in.
#[derive(Debug)]
pub struct Draft {
    /// What is saved, to be compared before anything is written.
    begun: Trust,
    trust: Trust,
    roots: Vec<(RootVersion, Vec<u8>)>,
    release: Option<Fresh>,
    entries: BTreeMap<HostName, Vec<u8>>,
    keys: Vec<KeyId>,
    /// By host: what selectors choose it by, and its wave.
    placed: BTreeMap<HostName, (BTreeSet<Tag>, WaveIndex)>,
    bytes: usize,
    clock: UnixMs,
    /// Who pushes it.
    by: Option<String>,
}

#[derive(Debug)]
struct Fresh {
    release: Verified<Release>,
    envelope: Vec<u8>,
    is_known: bool,
}

/// What a release that is being taken in needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Its entries.
    Entries,
    /// Nothing: it is here.
    Nothing,
}

impl Draft {
    /// Begins one, by what is trusted now.
    pub async fn begin(store: &Store, first_root: &[u8], clock: UnixMs) -> Result<Self, IntakeRefused> {
        Ok(Self::of(trust(store, first_root).await?, clock))
    }

    /// One by this trust, which is what was saved when [`Draft::finish`] compares them.
    pub fn of(begun: Trust, clock: UnixMs) -> Self {
        let trust = begun.clone();
        let (roots, keys, entries, placed) = (Vec::new(), Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { begun, trust, roots, release: None, entries, keys, placed, bytes: 0, clock, by: None }
    }

    /// The same, pushed by this person; the log says so.
    #[must_use = "it is the draft from now on"]
    pub fn by(self, person: &str) -> Self {
        Self { by: Some(person.to_owned()), ..self }
    }

    /// The root in force, with those that were taken so far.
    pub fn root_in_force(&self) -> &Verified<Root> {
        self.trust.root()
    }

    /// What is trusted, with what was taken so far.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Takes the next root. One that is in force or older is passed over.
    pub fn root(&mut self, envelope: &[u8]) -> Result<(), IntakeRefused> {
        if self.release.is_some() {
            return Err(IntakeRefused::Order);
        }
        if self.roots.len() >= ROOTS_MAX {
            return Err(IntakeRefused::TooManyRoots);
        }
        if version_of(envelope).is_some_and(|version| version <= self.trust.root().version.get()) {
            return Ok(());
        }
        self.trust = self.trust.accept_root(envelope, self.clock).map_err(IntakeRefused::Root)?;
        self.roots.push((self.trust.root().version, envelope.to_vec()));
        Ok(())
    }

    /// Takes the release.
    pub fn release(&mut self, envelope: &[u8]) -> Result<Needs, IntakeRefused> {
        if self.release.is_some() {
            return Err(IntakeRefused::Order);
        }
        let channel = channel_of(envelope)?;
        let floor = self.trust.floor(&channel);
        let accepted =
            self.trust.accept_release(&channel, envelope, self.clock).map_err(IntakeRefused::Release)?;
        let Accepted { release, succession: _, trust } = accepted;
        let is_known =
            floor.is_some_and(|floor| floor.seq == release.seq && floor.digest == Some(release.digest()));
        self.trust = trust;
        self.release = Some(Fresh { release, envelope: envelope.to_vec(), is_known });
        Ok(if is_known { Needs::Nothing } else { Needs::Entries })
    }

    /// Takes an entry of it.
    pub fn entry(&mut self, envelope: &[u8]) -> Result<(), IntakeRefused> {
        let Some(fresh) = &self.release else { return Err(IntakeRefused::Order) };
        let number = self.entries.len() + 1;
        let refused = |refused| IntakeRefused::Entry { number, refused };
        let Entry { host, keys, tags, wave, .. } =
            entry(&fresh.release, envelope).map_err(refused)?.into_inner();
        self.bytes = self.bytes.saturating_add(envelope.len());
        if self.bytes > ENTRIES_BYTES_MAX {
            return Err(IntakeRefused::TooLarge);
        }
        // A key that no host can have is in no entry that was checked.
        self.keys.extend(keys.iter().filter_map(|key| Some(PublicKey::of_host(key).ok()?.id())));
        self.placed.insert(host.clone(), (tags, wave));
        match self.entries.insert(host.clone(), envelope.to_vec()) {
            None => Ok(()),
            Some(_) => Err(IntakeRefused::HostTwice(host)),
        }
    }

    /// Writes all of it, if it is whole.
    pub async fn finish(self, store: &Store, first_root: &[u8]) -> Result<Intake, IntakeRefused> {
        let Self { begun, trust, roots, release, entries, keys, placed, bytes: _, clock, by } = self;
        let whole = match &release {
            Some(fresh) if !fresh.is_known => usize::try_from(fresh.release.hosts).unwrap_or(usize::MAX),
            Some(_) | None => entries.len(),
        };
        if entries.len() != whole {
            let wanted = release.map_or(0, |fresh| fresh.release.hosts);
            return Err(IntakeRefused::Incomplete { wanted, found: entries.len() });
        }
        if let Some(Fresh { release, is_known: false, .. }) = &release {
            nobody_waits_for_ever(release, &placed)?;
        }
        let mut write = store.begin(clock).await?;
        let saved = write.setting(TRUST).await?;
        if Trust::open(first_root, saved.as_deref()).map_err(IntakeRefused::Trust)? != begun {
            return Err(IntakeRefused::Overtaken);
        }
        write.set(TRUST, &trust.to_saved().to_bytes()).await?;
        for (version, envelope) in &roots {
            write.put_document(&layout::root(version.get()), envelope).await?;
            write.append(&About::Fleet, &Fact::RootTaken { root: *version, by: by.clone() }).await?;
        }
        if !roots.is_empty() {
            end_channels(&mut write, &trust).await?;
        }
        let taken = match release {
            None => Taken::RootsOnly,
            Some(Fresh { release, is_known: true, .. }) => Taken::Known(release.id()),
            Some(Fresh { release, envelope, is_known: false }) => {
                let id = release.id();
                if let Some(elsewhere) = write.elsewhere(&id.channel, entries.keys(), &keys).await? {
                    return Err(IntakeRefused::Elsewhere(elsewhere));
                }
                write.empty_release(&id.channel, id.seq).await?;
                let entries = entries.iter();
                let entries =
                    entries.map(|(host, entry)| (layout::entry(&id.channel, id.seq, host), &**entry));
                write.put_documents(&entries.collect::<Vec<_>>()).await?;
                write.put_document(&layout::release(&id.channel, id.seq), &envelope).await?;
                let latest = layout::write_latest(id.seq);
                write.put_document(&layout::latest(&id.channel), latest.as_bytes()).await?;
                let about = About::Channel(id.channel.clone());
                write.append(&about, &Fact::ReleaseTaken { release: id.clone(), by }).await?;
                Taken::New(id)
            }
        };
        write.commit().await?;
        Ok(Intake { roots: roots.into_iter().map(|(version, _)| version).collect(), taken })
    }
}

/// A release under which a host could never move is not taken in, whoever signed it: its rollout could not end.
fn nobody_waits_for_ever(
    release: &Release,
    placed: &BTreeMap<HostName, (BTreeSet<Tag>, WaveIndex)>,
) -> Result<(), IntakeRefused> {
    let members: Vec<Member<'_>> =
        placed.iter().map(|(name, (tags, wave))| Member { name, tags, wave: *wave }).collect();
    circles::stuck(&release.policy, &members).into_iter().next().map_or(Ok(()), |stuck| Err(stuck.into()))
}

/// Which channel a release claims to be for; believed by nobody before it is checked.
fn channel_of(envelope: &[u8]) -> Result<ChannelName, IntakeRefused> {
    #[derive(Deserialize)]
    struct Named {
        channel: ChannelName,
    }
    let envelope = Envelope::read(envelope, PayloadType::Release).map_err(IntakeRefused::Unreadable)?;
    let named: Named =
        nixfleet_trust::json::read(envelope.payload()).map_err(|_| IntakeRefused::NoChannel)?;
    Ok(named.channel)
}

/// Which version a root claims to be.
fn version_of(envelope: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let envelope = Envelope::read(envelope, PayloadType::Root).ok()?;
    nixfleet_trust::json::read::<Versioned>(envelope.payload()).ok().map(|root| root.version)
}
