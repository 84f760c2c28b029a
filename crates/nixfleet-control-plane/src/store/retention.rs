//! Storage is bounded (lesson 32): old events go, and the log that is left still gives every projection back.
//!
//! Before the events of a host go, its state is written into the log as it is, and only what lies before such a state
//! goes. So `rebuild` begins there. It is the same with the rollouts, also where what goes was asked about a host: another try
//! lifts a quarantine, and cannot be folded into a host of which the failure is gone. What hosts still have to hear of is kept.
//!
//! A state is folded into a host that a release names, so a release stays until all states of its channel are written behind
//! the one that takes its place, and that one is old. Its documents go after it: hosts only verify the newest, so none needs
//! them; the late report of a host that was away for longer cannot be folded, and it is asked for its state.
//!
//! What is old is read beside all writers ([`mod@aged`]); it is removed by many small writes, since reports wait for each of
//! them, and each leaves a log that is whole.

mod aged;

use std::collections::BTreeSet;

use nixfleet_core::host::saved::SavedState;
use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::model::time::UnixMs;

use super::fact::{About, Fact};
use super::write::Write;
use super::{Store, StoreError, int, sql};
use aged::{AgedChannel, Folder};

/// Hosts of which the state is written in one write: some 50 ms of it.
const STRIDE: usize = 200;
/// Events of hosts that are removed in one write, and documents.
const EVENTS: u64 = 2_000;
const DOCUMENTS: i64 = 500;

/// Some of what is old of a host, before its newest state in the log, and nothing that it still has to hear of.
const OF_HOST: &str = "DELETE FROM events WHERE id IN (SELECT id FROM events AS e WHERE e.host = $1 AND e.at_ms < $2 \
     AND e.id < (SELECT MAX(id) FROM events WHERE host = $1 AND kind = 'compacted') \
     AND NOT EXISTS (SELECT 1 FROM orders WHERE orders.host = $1 AND orders.number = e.id) ORDER BY e.id LIMIT $3)";
/// Some of what is old of a host, unless a release names it by now.
const OF_NAMELESS: &str = "DELETE FROM events WHERE id IN (SELECT id FROM events AS e WHERE e.host = $1 \
     AND e.at_ms < $2 AND NOT EXISTS (SELECT 1 FROM hosts WHERE name = $1) ORDER BY e.id LIMIT $3)";
/// What people asked about a host behind the newest state of its channel's rollout in the log.
const ASKED: &str = "SELECT COUNT(*) FROM events WHERE host = $1 AND kind = 'acted' \
     AND id > COALESCE((SELECT MAX(id) FROM events WHERE channel = $2 AND kind = 'kept'), 0)";
/// What of a rollout is old, before its newest state in the log.
const OF_ROLLOUT: &str = "DELETE FROM events WHERE channel = $1 AND at_ms < $2 AND kind IN ('decided', 'acted', 'kept') \
     AND id < (SELECT MAX(id) FROM events WHERE channel = $1 AND kind = 'kept')";
/// All up to the one by which a root ended a channel.
const OF_CHANNEL: &str = "DELETE FROM events WHERE channel = $1 AND id <= $2";
const OF_RELEASE: &str = "DELETE FROM events WHERE channel = $1 AND kind = 'release-taken' AND id < $2";
const RELEASES: &str = "DELETE FROM releases WHERE channel = $1 AND event < $2";
/// What is old and in no projection.
const OTHERS: &str =
    "DELETE FROM events WHERE at_ms < $1 AND kind IN ('token-changed', 'root-taken', 'objected')";
/// Some documents of a folder; the release may have been taken in meanwhile, after its owner has set the channel back, or a
/// root ended the channel and the log still names it.
const SWEPT: &str = "DELETE FROM documents WHERE path IN (SELECT path FROM documents WHERE part_of = $1 LIMIT $2) \
     AND NOT EXISTS (SELECT 1 FROM releases WHERE channel = $3 AND seq = $4) \
     AND NOT EXISTS (SELECT 1 FROM events WHERE channel = $3 AND kind = 'channel-removed')";

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Hosts whose state was written into the log.
    pub compacted: u64,
    /// Events.
    pub events: u64,
    /// Releases; their documents go with them.
    pub releases: u64,
}

impl Store {
    /// Removes what was taken in before `before` and is not needed any more. What was removed before an error is removed.
    pub async fn retain(&self, now: UnixMs, before: UnixMs) -> Result<Removed, StoreError> {
        let aged = self.aged(before).await?;
        let mut removed = Removed::default();
        for hosts in aged.moved.chunks(STRIDE) {
            removed.compacted += self.within(self.compact(now, hosts)).await?;
        }
        removed.events += self.forget_of(now, before, (OF_HOST, &aged.hosts)).await?;
        removed.events += self.forget_of(now, before, (OF_NAMELESS, &aged.nameless)).await?;
        // Only now, as all states of their hosts are behind the releases that stay.
        for channel in &aged.channels {
            removed.add(self.within(self.keep_rollout(now, before, channel)).await?);
        }
        for (channel, removal) in &aged.removals {
            removed.events += self.within(self.forget_channel(now, channel, *removal)).await?;
        }
        if aged.has_others {
            removed.events += self.within(self.forget_others(now, before)).await?;
        }
        self.sweep_documents(now).await?;
        Ok(removed)
    }

    /// Writes the states of these hosts into the log. Returns of how many.
    async fn compact(&self, now: UnixMs, hosts: &[HostName]) -> Result<u64, StoreError> {
        let mut write = self.begin(now).await?;
        write.fetch_hosts(hosts).await?;
        let (mut count, mut asked) = (0, BTreeSet::new());
        for host in hosts {
            let Some(channel) = write.compact_host(host).await? else { continue };
            count += 1;
            if !asked.contains(&channel) && write.was_asked_about(host, &channel).await? {
                asked.insert(channel);
            }
        }
        for channel in asked {
            write.keep_channel(&channel).await?;
        }
        write.commit().await?;
        Ok(count)
    }

    /// Removes what is old of these hosts, as `statement` says, so many events in a write.
    async fn forget_of(
        &self,
        now: UnixMs,
        before: UnixMs,
        (statement, hosts): (&'static str, &[HostName]),
    ) -> Result<u64, StoreError> {
        let (mut rest, mut events) = (hosts, 0);
        while !rest.is_empty() {
            let (count, left) = self.within(self.forget_some(now, before, (statement, rest))).await?;
            events += count;
            rest = left;
        }
        Ok(events)
    }

    /// Removes the first of it. Returns how many events, and the hosts of which there may be more.
    async fn forget_some<'a>(
        &self,
        now: UnixMs,
        before: UnixMs,
        (statement, hosts): (&'static str, &'a [HostName]),
    ) -> Result<(u64, &'a [HostName]), StoreError> {
        let mut write = self.begin(now).await?;
        let (mut rest, mut events) = (hosts, 0);
        while let Some((host, others)) = rest.split_first()
            && events < EVENTS
            && hosts.len() - rest.len() < STRIDE
        {
            let some =
                sql(statement).bind(host.to_string()).bind(int(before.get())).bind(int(EVENTS - events));
            let count = some.execute(write.raw()).await?.rows_affected();
            events += count;
            // With all that may be removed, there may be more of it.
            rest = if events < EVENTS { others } else { rest };
        }
        write.commit().await?;
        Ok((events, rest))
    }

    /// Writes a rollout into the log where that is needed, removes what is old before it, and the releases of which another one
    /// has taken the place.
    async fn keep_rollout(
        &self,
        now: UnixMs,
        before: UnixMs,
        AgedChannel { name, is_moved, first }: &AgedChannel,
    ) -> Result<Removed, StoreError> {
        let mut write = self.begin(now).await?;
        if *is_moved {
            write.keep_channel(name).await?;
            write.flush_events().await?;
        }
        let events = write.remove(OF_ROLLOUT, name.as_str(), before.get()).await?;
        let mut removed = Removed { events, ..Removed::default() };
        if let Some(first) = first {
            removed.events += write.remove(OF_RELEASE, name.as_str(), *first).await?;
            removed.releases = write.remove(RELEASES, name.as_str(), *first).await?;
        }
        write.commit().await?;
        Ok(removed)
    }

    async fn forget_channel(
        &self,
        now: UnixMs,
        channel: &ChannelName,
        removal: u64,
    ) -> Result<u64, StoreError> {
        let mut write = self.begin(now).await?;
        let events = write.remove(OF_CHANNEL, channel.as_str(), removal).await?;
        write.commit().await?;
        Ok(events)
    }

    async fn forget_others(&self, now: UnixMs, before: UnixMs) -> Result<u64, StoreError> {
        let mut write = self.begin(now).await?;
        let removed = sql(OTHERS).bind(int(before.get())).execute(write.raw()).await?;
        write.commit().await?;
        Ok(removed.rows_affected())
    }

    /// Removes the documents of releases that are not there any more, also where this was cut off before.
    async fn sweep_documents(&self, now: UnixMs) -> Result<(), StoreError> {
        for folder in self.folders_without_release().await? {
            while self.within(self.sweep_some(now, &folder)).await? > 0 {}
        }
        Ok(())
    }

    async fn sweep_some(
        &self,
        now: UnixMs,
        Folder { path, channel, seq }: &Folder,
    ) -> Result<u64, StoreError> {
        let mut write = self.begin(now).await?;
        let swept = sql(SWEPT).bind(path.clone()).bind(DOCUMENTS).bind(channel.clone()).bind(*seq);
        let swept = swept.execute(write.raw()).await?;
        write.commit().await?;
        Ok(swept.rows_affected())
    }
}

impl Write {
    /// Writes the state of a host into the log. Returns its channel, if there is such a host.
    async fn compact_host(&mut self, host: &HostName) -> Result<Option<ChannelName>, StoreError> {
        let Some(row) = self.host(host).await? else { return Ok(None) };
        let channel = row.named.channel.clone();
        let state = Box::new(SavedState(row.state().clone()));
        let remembered = Box::new(row.remembered().clone());
        let (told, waiting) = (row.told_ahead(), Some(row.waiting()));
        self.append(&About::Host(host.clone()), &Fact::Compacted { state, told, remembered, waiting })
            .await?;
        Ok(Some(channel))
    }

    async fn was_asked_about(&mut self, host: &HostName, channel: &ChannelName) -> Result<bool, StoreError> {
        let asked = sqlx::query_scalar::<_, i64>(ASKED).bind(host.to_string()).bind(channel.to_string());
        Ok(asked.fetch_one(self.raw()).await? > 0)
    }

    /// Writes the rollout of a channel into the log, if it has a release.
    async fn keep_channel(&mut self, channel: &ChannelName) -> Result<(), StoreError> {
        if let Some(progress) = self.progress(channel).await? {
            let about = About::Channel(channel.clone());
            self.append(&about, &Fact::Kept { progress: Box::new(progress) }).await?;
        }
        Ok(())
    }

    /// Removes what `statement` says of `name`, before a number or a time. Returns how many rows that were.
    async fn remove(&mut self, statement: &'static str, name: &str, before: u64) -> Result<u64, StoreError> {
        let query = sql(statement).bind(name.to_owned()).bind(int(before));
        Ok(query.execute(self.raw()).await?.rows_affected())
    }
}

impl Removed {
    fn add(&mut self, more: Self) {
        let Self { compacted, events, releases } = more;
        self.compacted += compacted;
        self.events += events;
        self.releases += releases;
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Row;

    use super::*;

    #[tokio::test]
    async fn no_statement_looks_at_the_whole_log() {
        let dir = tempfile::tempdir().expect("a folder");
        let database = crate::config::Database::Sqlite(dir.path().join("fleet.db"));
        let store = Store::open(&database).await.expect("it opens");
        let events = [OF_HOST, OF_NAMELESS, ASKED, OF_ROLLOUT, OF_CHANNEL, OF_RELEASE, OTHERS, SWEPT];
        for statement in events.into_iter().chain(aged::STATEMENTS) {
            let text = format!("EXPLAIN QUERY PLAN {statement}");
            let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&store.writer).await.expect("a plan");
            let plan: Vec<String> = rows.iter().map(|row| row.try_get("detail").expect("a text")).collect();
            let scans = plan.iter().any(|line| {
                line.starts_with("SCAN events")
                    || line.starts_with("SCAN documents")
                    || line.contains("TEMP B-TREE")
            });
            assert!(!scans && plan.iter().any(|line| line.contains("INDEX")), "{statement}: {plan:#?}");
        }
    }
}
