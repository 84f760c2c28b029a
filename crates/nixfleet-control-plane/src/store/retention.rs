//! Storage is bounded (lesson 32): old events go, and the log that is left still gives every projection back.
//!
//! Before the events of a host go, its state is written into the log as it is, and only what lies before such a state
//! goes. So `rebuild` begins there. It is the same with the rollouts. The newest release of each channel and what hosts still
//! have to hear of are kept.
//!
//! The documents of a release go when the one after it was taken in that long ago. Hosts only verify the newest one, so
//! none needs them; the late report of a host that was away for longer cannot be folded, and it is asked for its state.

use nixfleet_core::host::saved::SavedState;
use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::model::time::UnixMs;
use sqlx::Row;

use super::fact::{About, Fact};
use super::write::Write;
use super::{Engine, Store, StoreError, int, sql};

/// Hosts that are compacted in one transaction, so that reports do not wait long.
const STRIDE: i64 = 200;

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Hosts whose state was written into the log.
    pub compacted: u64,
    /// Events.
    pub events: u64,
    /// Releases, with their documents.
    pub releases: u64,
}

impl Store {
    /// Removes what was taken in before `before` and is not needed any more.
    pub async fn retain(&self, now: UnixMs, before: UnixMs) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        loop {
            let stride = self.compact_some(now, before).await?;
            removed.compacted += stride;
            if stride == 0 {
                break;
            }
        }
        let mut write = self.begin(now).await?;
        if self.engine == Engine::Postgres {
            super::patience::unhurried(write.raw()).await?;
        }
        keep_rollouts(&mut write, before).await?;
        write.flush_events().await?;
        for statement in [
            // Everything that a host reported before its newest state in the log.
            "DELETE FROM events WHERE at_ms < $1 AND host IS NOT NULL AND kind IN ('reported', 'state-sent', 'compacted') \
             AND id < (SELECT MAX(e.id) FROM events AS e WHERE e.host = events.host AND e.kind = 'compacted')",
            // Hosts that no release names any more.
            "DELETE FROM events WHERE at_ms < $1 AND host IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM hosts WHERE hosts.name = events.host)",
            // What was asked of a host, before its newest state in the log, unless the host still has to hear of it.
            "DELETE FROM events WHERE at_ms < $1 AND host IS NOT NULL AND kind IN ('ordered', 'acted') \
             AND id < (SELECT MAX(e.id) FROM events AS e WHERE e.host = events.host AND e.kind = 'compacted') \
             AND NOT EXISTS (SELECT 1 FROM orders WHERE orders.number = events.id)",
            "DELETE FROM events WHERE at_ms < $1 AND kind IN ('decided', 'acted', 'kept') AND channel IS NOT NULL \
             AND id < (SELECT MAX(e.id) FROM events AS e WHERE e.channel = events.channel AND e.kind = 'kept')",
            "DELETE FROM events WHERE at_ms < $1 AND kind IN ('token-changed', 'objected')",
            "DELETE FROM events WHERE at_ms < $1 AND kind = 'release-taken' \
             AND id < (SELECT MAX(e.id) FROM events AS e WHERE e.channel = events.channel AND e.kind = 'release-taken')",
        ] {
            removed.events +=
                sql(statement).bind(int(before.get())).execute(write.raw()).await?.rows_affected();
        }
        removed.releases = forget_releases(&mut write, before).await?;
        removed.events += forget_channels(&mut write, before).await?;
        write.commit().await?;
        Ok(removed)
    }

    /// Writes the state of some hosts into the log that have old events and no newer state there.
    async fn compact_some(&self, now: UnixMs, before: UnixMs) -> Result<u64, StoreError> {
        let mut write = self.begin(now).await?;
        let rows = sql("SELECT DISTINCT host FROM events WHERE at_ms < $1 \
                        AND kind IN ('reported', 'state-sent', 'ordered', 'acted') \
                        AND EXISTS (SELECT 1 FROM hosts WHERE hosts.name = events.host) \
                        AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.host = events.host AND e.id > events.id \
                                        AND e.kind = 'compacted') \
                        ORDER BY host LIMIT $2")
        .bind(int(before.get()))
        .bind(STRIDE)
        .fetch_all(write.raw())
        .await?;
        let mut count = 0;
        let name = |row: &sqlx::any::AnyRow| {
            let host: String = row.try_get("host")?;
            host.parse().map_err(|_| StoreError::corrupt("a host's name"))
        };
        let hosts = rows.iter().map(name).collect::<Result<Vec<HostName>, StoreError>>()?;
        write.fetch_hosts(&hosts).await?;
        for host in hosts {
            let Some(row) = write.host(&host).await? else { continue };
            let state = Box::new(SavedState(row.state().clone()));
            let remembered = Box::new(row.remembered().clone());
            let told = row.told_ahead();
            write.append(&About::Host(host), &Fact::Compacted { state, told, remembered }).await?;
            count += 1;
        }
        write.commit().await?;
        Ok(count)
    }
}

/// Writes the rollouts into the log as they are, where older events of them are about to go.
async fn keep_rollouts(write: &mut Write, before: UnixMs) -> Result<(), StoreError> {
    let rows = sql("SELECT DISTINCT channel FROM events WHERE at_ms < $1 AND channel IS NOT NULL \
                    AND kind IN ('decided', 'acted') \
                    AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.channel = events.channel AND e.id > events.id \
                                    AND e.kind = 'kept') ORDER BY channel")
    .bind(int(before.get()))
    .fetch_all(write.raw())
    .await?;
    for row in &rows {
        let channel: String = row.try_get("channel")?;
        let channel: ChannelName = channel.parse().map_err(|_| StoreError::corrupt("a channel's name"))?;
        if let Some(progress) = write.progress(&channel).await? {
            write.append(&About::Channel(channel), &Fact::Kept { progress: Box::new(progress) }).await?;
        }
    }
    Ok(())
}

/// Removes what is left of channels that a root before `before` ended: first their events, as a rebuild needs both.
async fn forget_channels(write: &mut Write, before: UnixMs) -> Result<u64, StoreError> {
    let rows =
        sql("SELECT channel, MAX(id) AS id FROM events AS g WHERE at_ms < $1 AND kind = 'channel-removed' \
                    AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.channel = g.channel AND e.id > g.id \
                                    AND e.kind = 'release-taken') GROUP BY channel ORDER BY channel")
        .bind(int(before.get()))
        .fetch_all(write.raw())
        .await?;
    let mut events = 0;
    for row in &rows {
        let (channel, id): (String, i64) = (row.try_get("channel")?, row.try_get("id")?);
        events += sql("DELETE FROM events WHERE channel = $1 AND id <= $2")
            .bind(channel.clone())
            .bind(id)
            .execute(write.raw())
            .await?
            .rows_affected();
        // From the slash to the character after it, so that no other channel's name fits.
        sql("DELETE FROM documents WHERE part_of >= $1 AND part_of < $2")
            .bind(format!("channels/{channel}/"))
            .bind(format!("channels/{channel}0"))
            .execute(write.raw())
            .await?;
    }
    Ok(events)
}

/// Removes the releases of which the next was taken in before `before`.
async fn forget_releases(write: &mut Write, before: UnixMs) -> Result<u64, StoreError> {
    let rows = sql("SELECT channel, seq FROM releases AS r WHERE EXISTS (SELECT 1 FROM releases AS n \
                    WHERE n.channel = r.channel AND n.event > r.event AND n.taken_ms < $1) ORDER BY channel, seq")
    .bind(int(before.get()))
    .fetch_all(write.raw())
    .await?;
    for row in &rows {
        let (channel, seq): (String, i64) = (row.try_get("channel")?, row.try_get("seq")?);
        let release = format!("channels/{channel}/{seq}");
        sql("DELETE FROM documents WHERE part_of = $1 OR part_of = $2")
            .bind(release.clone())
            .bind(format!("{release}/hosts"))
            .execute(write.raw())
            .await?;
        sql("DELETE FROM releases WHERE channel = $1 AND seq = $2")
            .bind(channel)
            .bind(seq)
            .execute(write.raw())
            .await?;
    }
    Ok(rows.len() as u64)
}
