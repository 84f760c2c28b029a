//! A release in a write: its documents, and what it says of the fleet's hosts.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::host::HostState;
use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId, Seq, Sha256};
use nixfleet_core::model::release::{Entry, Release};
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::envelope::{Envelope, PayloadType};
use nixfleet_trust::key::PublicKey;
use sqlx::Row;

use super::super::documents::part_of;
use super::super::planned::name;
use super::super::rows::{Among, Filled, Insert};
use super::super::{StoreError, int, sql};
use super::host::read_entry;
use super::{Write, json};

/// A release whose signatures were checked when it was taken in.
#[derive(Debug, Clone)]
pub(super) struct KnownRelease {
    pub(super) digest: Sha256,
    pub(super) release: Release,
}

const PUT_DOCUMENTS: Insert = Insert {
    head: "INSERT INTO documents (path, part_of, bytes) VALUES",
    columns: 3,
    tail: "ON CONFLICT (path) DO UPDATE SET bytes = excluded.bytes",
};
const NAME_HOSTS: Insert = Insert {
    head: "INSERT INTO hosts (name, channel, release_seq, wave, tags, system, phase, state, seq, reported_ms) \
           SELECT v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8, 0, 0 \
           FROM (VALUES",
    columns: 8,
    tail: ") AS v WHERE TRUE ON CONFLICT (name) DO UPDATE SET channel = excluded.channel, \
           release_seq = excluded.release_seq, wave = excluded.wave, tags = excluded.tags, system = excluded.system",
};
const PUT_KEYS: Insert = Insert {
    head: "INSERT INTO host_keys (key_id, host) VALUES",
    columns: 2,
    tail: "ON CONFLICT (key_id) DO UPDATE SET host = excluded.host",
};
/// What is known of hosts here.
const OF_HOSTS: [Among; 5] = [
    Among { head: "DELETE FROM host_keys WHERE host IN" },
    Among { head: "DELETE FROM orders WHERE host IN" },
    Among { head: "DELETE FROM remembered WHERE host IN" },
    Among { head: "DELETE FROM heard WHERE host IN" },
    Among { head: "DELETE FROM hosts WHERE name IN" },
];

impl Write {
    /// Puts a document there that was verified, in the place of an older one.
    pub async fn put_document(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.put_documents(&[(path.to_owned(), bytes)]).await
    }

    /// Puts documents there, no two at one path.
    pub async fn put_documents(&mut self, documents: &[(String, &[u8])]) -> Result<(), StoreError> {
        let fill = |query: Filled, (path, bytes): &(String, &[u8])| {
            query.bind(path.clone()).bind(part_of(path).to_owned()).bind(bytes.to_vec())
        };
        Ok(PUT_DOCUMENTS.run(&mut self.tx, documents, fill).await?)
    }

    /// A document.
    pub async fn document(&mut self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sql("SELECT bytes FROM documents WHERE path = $1")
            .bind(path.to_owned())
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(row.map(|row| row.try_get("bytes")).transpose()?)
    }

    pub(super) async fn known_release(
        &mut self,
        channel: &ChannelName,
        seq: Seq,
    ) -> Result<Option<&KnownRelease>, StoreError> {
        let key = (channel.clone(), seq);
        if !self.releases.contains_key(&key) {
            let path = layout::release(channel, seq);
            let known = match self.document(&path).await? {
                None => None,
                Some(bytes) => {
                    let bad = || StoreError::corrupt(path.clone());
                    let envelope = Envelope::read(&bytes, PayloadType::Release).map_err(|_| bad())?;
                    let release = nixfleet_trust::json::read(envelope.payload()).map_err(|_| bad())?;
                    Some(KnownRelease { digest: envelope.digest(), release })
                }
            };
            self.releases.insert(key.clone(), known);
        }
        Ok(self.releases.get(&key).and_then(Option::as_ref))
    }

    /// A release that was taken in: its hosts are those that may come, with the keys that it names.
    pub(super) async fn project_release(
        &mut self,
        event: u64,
        at: UnixMs,
        id: &ReleaseId,
    ) -> Result<(), StoreError> {
        self.flush_hosts().await?;
        // What is asked of the channel's hosts is taken away below.
        (self.is_released, self.noted) = (true, BTreeMap::new());
        let Some(known) = self.known_release(&id.channel, id.seq).await? else {
            return Err(StoreError::corrupt(format!("the log names release {id}, and it is not there")));
        };
        let created = known.release.created_ms;
        sql("INSERT INTO releases (channel, seq, digest, created_ms, taken_ms, event) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (channel, seq) DO UPDATE SET digest = excluded.digest, \
             created_ms = excluded.created_ms, taken_ms = excluded.taken_ms, event = excluded.event")
        .bind(id.channel.to_string())
        .bind(int(id.seq.get()))
        .bind(id.digest.to_string())
        .bind(int(created.get()))
        .bind(int(at.get()))
        .bind(int(event))
        .execute(&mut *self.tx)
        .await?;
        self.channel_moved(&id.channel).await?;
        let entries = self.entries_of(id).await?;
        let stay: BTreeSet<&HostName> = entries.iter().map(|entry| &entry.host).collect();
        let there = self.hosts_of(&id.channel).await?;
        let gone = there.iter().filter(|host| !stay.contains(host)).map(ToString::to_string);
        self.forget_hosts(&gone.collect::<Vec<_>>()).await?;
        self.name_hosts(id, &entries).await?;
        self.forget_asked(&id.channel).await
    }

    /// What was ordered for older releases is never delivered after a newer one (lesson 25), and whom a person left out of
    /// the rollout before, or wanted tried again in it, begins anew. That an order was taken back still holds: the host may
    /// have it, and begin before it sees the newer release.
    async fn forget_asked(&mut self, channel: &ChannelName) -> Result<(), StoreError> {
        sql("DELETE FROM orders WHERE topic IN ('stage', 'go', 'reboot', 'retry', 'revert') \
             AND body NOT LIKE '{\"order\":\"withdraw\"%' AND host IN (SELECT name FROM hosts WHERE channel = $1)")
        .bind(channel.to_string())
        .execute(&mut *self.tx)
        .await?;
        // Few hosts have one, so only those are read.
        let rows = sql("SELECT name FROM hosts WHERE channel = $1 AND name IN (SELECT host FROM remembered \
                        WHERE body LIKE '%\"skip\"%' OR body LIKE '%\"retry\"%') ORDER BY name")
        .bind(channel.to_string())
        .fetch_all(&mut *self.tx)
        .await?;
        for row in &rows {
            let host: HostName = name(row.try_get("name")?, "host")?;
            if let Some(row) = self.host(&host).await? {
                (row.remembered.skip, row.remembered.retry, row.is_recalled) = (None, None, true);
            }
        }
        Ok(())
    }

    async fn entries_of(&mut self, id: &ReleaseId) -> Result<Vec<Entry>, StoreError> {
        let folder = layout::entry(&id.channel, id.seq, &"x".parse().expect("a host name"));
        let rows = sql("SELECT path, bytes FROM documents WHERE part_of = $1 ORDER BY path")
            .bind(part_of(&folder).to_owned())
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter()
            .map(|row| {
                let bytes: Vec<u8> = row.try_get("bytes")?;
                let path: String = row.try_get("path")?;
                read_entry(&bytes).ok_or_else(|| StoreError::corrupt(path))
            })
            .collect()
    }

    async fn hosts_of(&mut self, channel: &ChannelName) -> Result<Vec<HostName>, StoreError> {
        let rows = sql("SELECT name FROM hosts WHERE channel = $1 ORDER BY name")
            .bind(channel.to_string())
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(|row| name(row.try_get("name")?, "host")).collect()
    }

    /// A release that does not name hosts of its channel any more ends what they may do here.
    async fn forget_hosts(&mut self, hosts: &[String]) -> Result<(), StoreError> {
        for of_host in OF_HOSTS {
            of_host.rows(&mut self.tx, hosts).await?;
        }
        Ok(())
    }

    async fn name_hosts(&mut self, id: &ReleaseId, entries: &[Entry]) -> Result<(), StoreError> {
        let fresh = HostState::fresh();
        let (phase, state) = (fresh.phase.name().to_string(), json(&fresh));
        let fill = |query: Filled, entry: &Entry| {
            let query = query.bind(entry.host.to_string()).bind(id.channel.to_string());
            let query = query.bind(int(id.seq.get())).bind(i64::from(entry.wave.0));
            let query = query.bind(json(&entry.tags)).bind(entry.system.to_string());
            query.bind(phase.clone()).bind(state.clone())
        };
        NAME_HOSTS.run(&mut self.tx, entries, fill).await?;
        self.name_keys(&id.channel, entries).await
    }

    /// The keys of a channel's hosts are those that its newest release names.
    async fn name_keys(&mut self, channel: &ChannelName, entries: &[Entry]) -> Result<(), StoreError> {
        let mut keys = BTreeMap::new();
        for entry in entries {
            for key in &entry.keys {
                let key = PublicKey::of_host(key).map_err(|_| StoreError::corrupt("a host's key"))?;
                keys.insert(key.id().to_string(), &entry.host);
            }
        }
        sql("DELETE FROM host_keys WHERE host IN (SELECT name FROM hosts WHERE channel = $1)")
            .bind(channel.to_string())
            .execute(&mut *self.tx)
            .await?;
        let keys: Vec<(String, &HostName)> = keys.into_iter().collect();
        let fill =
            |query: Filled, (key, host): &(String, &HostName)| query.bind(key.clone()).bind(host.to_string());
        PUT_KEYS.run(&mut self.tx, &keys, fill).await?;
        // There are few of these, however many hosts there are.
        sql("DELETE FROM strangers WHERE key_id IN (SELECT key_id FROM host_keys)")
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }
}
