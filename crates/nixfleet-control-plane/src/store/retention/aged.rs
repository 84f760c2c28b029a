//! What is old in the log, and what has to be written into it before that may go. It is read beside all writers, page by page:
//! whatever they do meanwhile is newer than all of it.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::model::time::UnixMs;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::super::planned::name;
use super::super::rows::Among;
use super::super::{Store, StoreError, int, sql, uint};

/// Rows that are read together: some milliseconds.
const PAGE: i64 = 2_000;

/// Events before that time, oldest first. By [`super::super::schema`]'s index on both.
const OLD: &str = "SELECT at_ms, id, kind, host, channel FROM events WHERE (at_ms, id) > ($1, $2) AND at_ms < $3 \
                   ORDER BY at_ms, id LIMIT $4";
/// The newest state of each host in the log.
const STATES: &str = "SELECT host, MAX(id) AS id FROM events WHERE kind = 'compacted' AND host > $1 GROUP BY host \
                      ORDER BY host LIMIT $2";
/// Hosts that a release names. Of those of which `known` is nothing, there is nothing to lose.
const HOSTS: &str = "SELECT name, channel, seq + (SELECT COUNT(*) FROM remembered WHERE host = name) AS known \
                     FROM hosts WHERE name > $1 ORDER BY name LIMIT $2";
/// Of each channel that has an older one, the newest release that is old itself.
const FIRST: &str = "SELECT channel, MAX(event) AS event FROM releases AS r WHERE taken_ms < $1 \
                     AND EXISTS (SELECT 1 FROM releases AS o WHERE o.channel = r.channel AND o.event < r.event) \
                     GROUP BY channel ORDER BY channel";
/// The newest event of hosts.
const NEWEST: Among = Among {
    head: "SELECT name, (SELECT MAX(id) FROM events WHERE host = name) AS id FROM hosts WHERE name IN",
};
/// From one folder of documents to the next, so that not each document is looked at.
const NEXT_FOLDER: &str = "SELECT MIN(part_of) AS part_of FROM documents WHERE part_of > $1";
/// Channels that a root ended of which the log still says so, and perhaps names releases.
const ENDED: &str =
    "SELECT DISTINCT channel FROM events WHERE channel IS NOT NULL AND kind = 'channel-removed'";
const KEPT: &str = "SELECT MAX(id) AS id FROM events WHERE channel = $1 AND kind = 'kept'";

/// Those of them that read the log.
#[cfg(test)]
pub(super) const STATEMENTS: [&str; 4] = [OLD, STATES, NEXT_FOLDER, KEPT];

/// What is old.
#[derive(Debug, Default)]
pub(super) struct Aged {
    /// Hosts of which something may go.
    pub(super) hosts: Vec<HostName>,
    /// Those of them of which the state is to be written into the log first.
    pub(super) moved: Vec<HostName>,
    /// Those that no release names.
    pub(super) nameless: Vec<HostName>,
    /// Channels of which something may go.
    pub(super) channels: Vec<AgedChannel>,
    /// Channels that a root ended, and the event.
    pub(super) removals: BTreeMap<ChannelName, u64>,
    /// Whether there is anything about nobody.
    pub(super) has_others: bool,
}

/// A channel of which something may go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AgedChannel {
    pub(super) name: ChannelName,
    /// Whether its rollout is to be written into the log first.
    pub(super) is_moved: bool,
    /// The event of the oldest release that stays; nothing if all do.
    pub(super) first: Option<u64>,
}

/// A folder of documents, of a release.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) path: String,
    pub(super) channel: String,
    pub(super) seq: i64,
}

/// What the old events are about.
#[derive(Debug, Default)]
struct Old {
    hosts: BTreeMap<HostName, OldOf>,
    /// The newest number of an event of each channel's rollout.
    channels: BTreeMap<ChannelName, u64>,
    removals: BTreeMap<ChannelName, u64>,
    has_others: bool,
}

/// Numbers of the old events of a host.
#[derive(Debug, Clone, Copy)]
struct OldOf {
    first: u64,
    /// The newest that is no state which was written for this; 0 if there is none.
    newest: u64,
}

/// A host, as a release names it.
struct Named {
    channel: ChannelName,
    is_blank: bool,
}

impl Store {
    /// What was taken in before `before`.
    pub(super) async fn aged(&self, before: UnixMs) -> Result<Aged, StoreError> {
        let first = self.first_to_stay(before).await?;
        let Old { hosts: mut old, channels, removals, has_others } = self.old(before).await?;
        let states = self.states_in_log().await?;
        let named = self.named().await?;
        let newest =
            self.newest_of(named.iter().filter(|(_, named)| first.contains_key(&named.channel))).await?;
        let mut aged = Aged { removals, has_others, ..Aged::default() };
        for (name, named) in named {
            let state = states.get(&name).copied().unwrap_or_default();
            let old = old.remove(&name);
            // Where releases go: a state from before the first that stays has nothing to be put into at a rebuild, and what
            // came after a state may name one that goes.
            let first = first.get(&named.channel).filter(|_| !named.is_blank);
            let is_early = first.is_some_and(|first| state < *first.max(newest.get(&name).unwrap_or(&0)));
            let is_moved = is_early || old.is_some_and(|old| old.newest > state);
            if is_moved || old.is_some_and(|old| old.first < state) {
                aged.moved.extend(is_moved.then(|| name.clone()));
                aged.hosts.push(name);
            }
        }
        aged.nameless = old.into_keys().collect();
        let aged_channels: BTreeSet<&ChannelName> = channels.keys().chain(first.keys()).collect();
        for name in aged_channels {
            let kept = self.kept(name).await?;
            let first = first.get(name).copied();
            let is_moved = first.is_some_and(|first| kept < first)
                || channels.get(name).is_some_and(|newest| *newest > kept);
            aged.channels.push(AgedChannel { name: name.clone(), is_moved, first });
        }
        Ok(aged)
    }

    async fn first_to_stay(&self, before: UnixMs) -> Result<BTreeMap<ChannelName, u64>, StoreError> {
        let rows = sql(FIRST).bind(int(before.get())).fetch_all(&self.readers).await?;
        let first = |row: &AnyRow| Ok((channel(row)?, uint(row.try_get("event")?)));
        rows.iter().map(first).collect()
    }

    async fn old(&self, before: UnixMs) -> Result<Old, StoreError> {
        let (mut old, mut after) = (Old::default(), (-1_i64, -1_i64));
        loop {
            let query = sql(OLD).bind(after.0).bind(after.1).bind(int(before.get())).bind(PAGE);
            let rows = query.fetch_all(&self.readers).await?;
            let Some(last) = rows.last() else { return Ok(old) };
            after = (last.try_get("at_ms")?, last.try_get("id")?);
            for row in &rows {
                old.see(row)?;
            }
        }
    }

    async fn states_in_log(&self) -> Result<BTreeMap<HostName, u64>, StoreError> {
        let (mut states, mut after) = (BTreeMap::new(), String::new());
        loop {
            let rows = sql(STATES).bind(after.clone()).bind(PAGE).fetch_all(&self.readers).await?;
            let Some(last) = rows.last() else { return Ok(states) };
            after = last.try_get("host")?;
            for row in &rows {
                states.insert(name(row.try_get("host")?, "host")?, uint(row.try_get("id")?));
            }
        }
    }

    async fn named(&self) -> Result<BTreeMap<HostName, Named>, StoreError> {
        let (mut named, mut after) = (BTreeMap::new(), String::new());
        loop {
            let rows = sql(HOSTS).bind(after.clone()).bind(PAGE).fetch_all(&self.readers).await?;
            let Some(last) = rows.last() else { return Ok(named) };
            after = last.try_get("name")?;
            for row in &rows {
                let is_blank = row.try_get::<i64, _>("known")? == 0;
                named.insert(name(row.try_get("name")?, "host")?, Named { channel: channel(row)?, is_blank });
            }
        }
    }

    /// The newest event of each of these hosts.
    async fn newest_of(
        &self,
        hosts: impl Iterator<Item = (&HostName, &Named)>,
    ) -> Result<BTreeMap<HostName, u64>, StoreError> {
        let names: Vec<String> = hosts.map(|(name, _)| name.to_string()).collect();
        let mut connection = self.readers.acquire().await?;
        let rows = NEWEST.rows(&mut connection, &names).await?;
        let newest = |row: &AnyRow| {
            let id: Option<i64> = row.try_get("id")?;
            Ok((name(row.try_get("name")?, "host")?, id.map(uint).unwrap_or_default()))
        };
        rows.iter().map(newest).collect()
    }

    /// The newest event with a rollout of a channel; 0 if there is none.
    async fn kept(&self, channel: &ChannelName) -> Result<u64, StoreError> {
        let row = sql(KEPT).bind(channel.to_string()).fetch_one(&self.readers).await?;
        Ok(row.try_get::<Option<i64>, _>("id")?.map(uint).unwrap_or_default())
    }

    /// Folders with documents of releases that are not there any more, and that the log does not name either.
    pub(super) async fn folders_without_release(&self) -> Result<Vec<Folder>, StoreError> {
        // First, so that those of a release that is taken in meanwhile are not taken for such.
        let mut folders = Vec::new();
        let mut after = String::new();
        loop {
            let row = sql(NEXT_FOLDER).bind(after).fetch_one(&self.readers).await?;
            let Some(next) = row.try_get::<Option<String>, _>("part_of")? else { break };
            folders.extend(Folder::read(&next));
            after = next;
        }
        let ended = sql(ENDED).fetch_all(&self.readers).await?;
        let ended = ended.iter().map(|row| Ok(row.try_get("channel")?));
        let ended = ended.collect::<Result<BTreeSet<String>, StoreError>>()?;
        let releases = sql("SELECT channel, seq FROM releases").fetch_all(&self.readers).await?;
        let known = releases.iter().map(|row| Ok((row.try_get("channel")?, row.try_get("seq")?)));
        let known = known.collect::<Result<BTreeSet<(String, i64)>, StoreError>>()?;
        folders.retain(|Folder { path: _, channel, seq }| {
            !known.contains(&(channel.clone(), *seq)) && !ended.contains(channel)
        });
        Ok(folders)
    }
}

impl Old {
    fn see(&mut self, row: &AnyRow) -> Result<(), StoreError> {
        let (id, kind) = (uint(row.try_get("id")?), row.try_get::<&str, _>("kind")?);
        if let Some(host) = row.try_get::<Option<&str>, _>("host")? {
            let newest = if kind == "compacted" { 0 } else { id };
            let of = self.hosts.entry(name(host, "host")?).or_insert(OldOf { first: id, newest });
            (of.first, of.newest) = (of.first.min(id), of.newest.max(newest));
            return Ok(());
        }
        match kind {
            "token-changed" | "root-taken" | "objected" => self.has_others = true,
            "channel-removed" => newest(&mut self.removals, channel(row)?, id),
            "decided" | "acted" => newest(&mut self.channels, channel(row)?, id),
            _ => {}
        }
        Ok(())
    }
}

fn newest(of: &mut BTreeMap<ChannelName, u64>, channel: ChannelName, id: u64) {
    let newest = of.entry(channel).or_default();
    *newest = id.max(*newest);
}

impl Folder {
    /// The folder at `path`, if it is one of a release: `channels/<name>/<number>`, or `hosts` in it.
    fn read(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix("channels/")?.splitn(3, '/');
        let (channel, seq) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        Some(Self { path: path.to_owned(), channel, seq })
    }
}

fn channel(row: &AnyRow) -> Result<ChannelName, StoreError> {
    name(row.try_get("channel")?, "channel")
}
