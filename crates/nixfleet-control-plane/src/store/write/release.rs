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
use super::super::{StoreError, int, sql};
use super::host::read_entry;
use super::{Write, json};

/// A release whose signatures were checked when it was taken in.
#[derive(Debug, Clone)]
pub(super) struct KnownRelease {
    pub(super) digest: Sha256,
    pub(super) release: Release,
}

impl Write {
    /// Puts a document there that was verified, in the place of an older one.
    pub async fn put_document(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        sql("INSERT INTO documents (path, part_of, bytes) VALUES ($1, $2, $3) \
             ON CONFLICT (path) DO UPDATE SET bytes = excluded.bytes")
        .bind(path.to_owned())
        .bind(part_of(path).to_owned())
        .bind(bytes.to_vec())
        .execute(&mut *self.tx)
        .await?;
        Ok(())
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
        let gone = self.hosts_of(&id.channel).await?;
        let stay: BTreeSet<&HostName> = entries.iter().map(|entry| &entry.host).collect();
        for host in gone.iter().filter(|host| !stay.contains(host)) {
            self.forget_host(host).await?;
        }
        for entry in &entries {
            self.name_host(id, entry).await?;
        }
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
            let name: String = row.try_get("name")?;
            let name: HostName = name.parse().map_err(|_| StoreError::corrupt("a host's name"))?;
            if let Some(row) = self.host(&name).await? {
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
        rows.iter()
            .map(|row| {
                let name: String = row.try_get("name")?;
                name.parse().map_err(|_| StoreError::corrupt("a host's name"))
            })
            .collect()
    }

    /// A release that does not name a host of its channel any more ends what the host may do here.
    async fn forget_host(&mut self, host: &HostName) -> Result<(), StoreError> {
        for statement in [
            "DELETE FROM host_keys WHERE host = $1",
            "DELETE FROM orders WHERE host = $1",
            "DELETE FROM remembered WHERE host = $1",
            "DELETE FROM heard WHERE host = $1",
            "DELETE FROM hosts WHERE name = $1",
        ] {
            sql(statement).bind(host.to_string()).execute(&mut *self.tx).await?;
        }
        Ok(())
    }

    async fn name_host(&mut self, id: &ReleaseId, entry: &Entry) -> Result<(), StoreError> {
        let (host, fresh) = (entry.host.to_string(), HostState::fresh());
        sql("INSERT INTO hosts (name, channel, release_seq, wave, tags, system, seq, phase, state, reported_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, 0) ON CONFLICT (name) DO UPDATE SET \
             channel = excluded.channel, release_seq = excluded.release_seq, wave = excluded.wave, \
             tags = excluded.tags, system = excluded.system")
        .bind(host.clone())
        .bind(id.channel.to_string())
        .bind(int(id.seq.get()))
        .bind(i64::from(entry.wave.0))
        .bind(json(&entry.tags))
        .bind(entry.system.to_string())
        .bind(fresh.phase.name().to_string())
        .bind(json(&fresh))
        .execute(&mut *self.tx)
        .await?;
        sql("DELETE FROM host_keys WHERE host = $1").bind(host.clone()).execute(&mut *self.tx).await?;
        for key in &entry.keys {
            let key = PublicKey::of_host(key).map_err(|_| StoreError::corrupt("a host's key"))?;
            sql("INSERT INTO host_keys (key_id, host) VALUES ($1, $2) \
                 ON CONFLICT (key_id) DO UPDATE SET host = excluded.host")
            .bind(key.id().to_string())
            .bind(host.clone())
            .execute(&mut *self.tx)
            .await?;
            sql("DELETE FROM strangers WHERE key_id = $1")
                .bind(key.id().to_string())
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }
}
