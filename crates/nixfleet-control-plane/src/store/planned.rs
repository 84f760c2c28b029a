//! What the planner needs, read from the projections: what changed since a number of the log, and the rows of that.
//!
//! It can be read beside all writers, and then is at least as new as the number that it goes with, or within a write, and
//! then is exactly what the log says.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::host::HostState;
use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId, Seq};
use nixfleet_core::model::release::Release;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::fact::Current;
use nixfleet_core::rollout::{Host, Standing};
use nixfleet_trust::envelope::{Envelope, PayloadType};
use sqlx::AnyConnection;
use sqlx::Row;
use sqlx::any::AnyRow;
use sqlx::pool::PoolConnection;

use super::board::Asked;
use super::fact::Progress;
use super::fleet::order_of;
use super::rows::Among;
use super::write::{Write, read_placed, read_remembered};
use super::{Store, StoreError, int, sql, uint};

/// Events that are looked at together.
const PAGE: i64 = 2_000;

const HOSTS: Among = Among {
    head: "SELECT name, channel, wave, tags, system, state, reported_ms, \
           (SELECT body FROM remembered WHERE remembered.host = hosts.name) AS remembered, \
           (SELECT at_ms FROM heard WHERE heard.host = hosts.name) AS heard_ms FROM hosts WHERE name IN",
};
const FOLLOWED: Among = Among {
    head: "SELECT name, CAST(CASE WHEN seq > 0 AND fault IS NULL THEN 1 ELSE 0 END AS BIGINT) AS followed FROM hosts WHERE name IN",
};
const ORDERS: Among = Among { head: "SELECT host, number, body FROM orders WHERE host IN" };

/// What events were about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// The newest of the events; the number that was asked with if there were none.
    pub newest: u64,
    /// Whether there may be more.
    pub more: bool,
    /// Channels with a new release, or that are gone, and the event: everything of them may be another.
    pub released: BTreeMap<ChannelName, u64>,
    /// Channels of which the rollout changed.
    pub progressed: BTreeSet<ChannelName>,
    /// Hosts that reported, or of which something was asked, and the newest event about each.
    pub hosts: BTreeMap<HostName, u64>,
    /// Of these, those that were asked for something.
    pub asked: BTreeSet<HostName>,
}

/// A channel, without its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedChannel {
    /// Its newest release.
    pub current: Current,
    /// What is remembered of it.
    pub progress: Progress,
}

/// A host, with its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedHost {
    /// Its name.
    pub name: HostName,
    /// Its channel.
    pub channel: ChannelName,
    /// What is known of it.
    pub host: Host,
}

/// Of rows that were written, what the planner needs: those of channels, and those of hosts.
pub type PlannedRows = (Vec<(ChannelName, Progress)>, Vec<PlannedHost>);

/// Where it is read.
#[derive(Debug)]
pub enum Reading<'a> {
    /// Beside all writers.
    Beside(PoolConnection<sqlx::Any>),
    /// Within a write.
    Within(&'a mut Write),
}

impl Store {
    /// Reads beside all writers.
    pub async fn reading(&self) -> Result<Reading<'static>, StoreError> {
        Ok(Reading::Beside(self.readers.acquire().await?))
    }

    /// When hosts were heard of, those that were since `since`.
    pub async fn heard_since(&self, since: UnixMs) -> Result<Vec<(HostName, UnixMs)>, StoreError> {
        let rows = sql("SELECT host, at_ms FROM heard WHERE at_ms >= $1")
            .bind(int(since.get()))
            .fetch_all(&self.readers)
            .await?;
        let heard = |row: &AnyRow| {
            let name: String = row.try_get("host")?;
            Ok((
                name.parse().map_err(|_| StoreError::corrupt("a host's name"))?,
                time(row.try_get("at_ms")?)?,
            ))
        };
        rows.iter().map(heard).collect()
    }
}

impl Reading<'_> {
    fn connection(&mut self) -> &mut AnyConnection {
        match self {
            Self::Beside(connection) => connection,
            Self::Within(write) => write.raw(),
        }
    }

    /// What the events above `after` were about, some thousand at a time.
    pub async fn touched(&mut self, after: u64) -> Result<Touched, StoreError> {
        let rows = sql("SELECT id, kind, host, channel FROM events WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(int(after))
            .bind(PAGE)
            .fetch_all(self.connection())
            .await?;
        let more = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= PAGE;
        let mut touched = Touched { newest: after, more, ..Touched::default() };
        for row in &rows {
            touched.newest = uint(row.try_get("id")?);
            touched.see(touched.newest, row)?;
        }
        Ok(touched)
    }

    /// All channels that have a release.
    pub async fn channels(&mut self) -> Result<Vec<ChannelName>, StoreError> {
        let rows = sql("SELECT DISTINCT channel FROM releases ORDER BY channel")
            .fetch_all(self.connection())
            .await?;
        rows.iter().map(|row| name(row.try_get("channel")?, "channel")).collect()
    }

    /// The newest event's number.
    pub async fn newest(&mut self) -> Result<u64, StoreError> {
        let newest: i64 = sqlx::query_scalar("SELECT value FROM counters WHERE name = 'event'")
            .fetch_one(self.connection())
            .await?;
        Ok(uint(newest))
    }

    /// A channel; `None` if it has no release.
    pub async fn channel(&mut self, name: &ChannelName) -> Result<Option<PlannedChannel>, StoreError> {
        let Some(current) = read_current(self.connection(), name).await? else { return Ok(None) };
        let progress = read_progress(self.connection(), name).await?;
        Ok(Some(PlannedChannel { current, progress }))
    }

    /// All hosts of a channel.
    pub async fn hosts_of(
        &mut self,
        channel: &ChannelName,
    ) -> Result<BTreeMap<HostName, PlannedHost>, StoreError> {
        let (mut out, mut after) = (BTreeMap::new(), String::new());
        loop {
            let rows = sql("SELECT name, channel, wave, tags, system, state, reported_ms, \
                 (SELECT body FROM remembered WHERE remembered.host = hosts.name) AS remembered, \
                 (SELECT at_ms FROM heard WHERE heard.host = hosts.name) AS heard_ms \
                 FROM hosts WHERE channel = $1 AND name > $2 ORDER BY name LIMIT $3")
            .bind(channel.to_string())
            .bind(after.clone())
            .bind(PAGE)
            .fetch_all(self.connection())
            .await?;
            let Some(last) = rows.last() else { return Ok(out) };
            after = last.try_get("name")?;
            for row in &rows {
                let host = host_of(row)?;
                out.insert(host.name.clone(), host);
            }
        }
    }

    /// Those of these hosts that there are.
    pub async fn hosts(
        &mut self,
        names: impl IntoIterator<Item = &HostName>,
    ) -> Result<Vec<PlannedHost>, StoreError> {
        let names: Vec<String> = names.into_iter().map(ToString::to_string).collect();
        HOSTS.rows(self.connection(), &names).await?.iter().map(host_of).collect()
    }

    /// What is asked of these hosts, and the newest event before that was read.
    pub async fn asked(&mut self, names: &[String]) -> Result<(u64, Vec<(HostName, Asked)>), StoreError> {
        let newest = self.newest().await?;
        let mut asked = BTreeMap::new();
        for row in &FOLLOWED.rows(self.connection(), names).await? {
            let is_followed = row.try_get::<i64, _>("followed")? > 0;
            asked.insert(name(row.try_get("name")?, "host")?, Asked { orders: Vec::new(), is_followed });
        }
        for row in &ORDERS.rows(self.connection(), names).await? {
            let host: HostName = name(row.try_get("host")?, "host")?;
            if let Some(asked) = asked.get_mut(&host) {
                asked.orders.push(order_of(row)?);
            }
        }
        for asked in asked.values_mut() {
            asked.orders.sort_by_key(|order| order.number);
        }
        Ok((newest, asked.into_iter().collect()))
    }
}

impl Touched {
    fn see(&mut self, id: u64, row: &AnyRow) -> Result<(), StoreError> {
        let kind: String = row.try_get("kind")?;
        let (host, channel): (Option<String>, Option<String>) =
            (row.try_get("host")?, row.try_get("channel")?);
        match (host, channel) {
            (Some(host), _) => {
                let host: HostName = name(&host, "host")?;
                if matches!(kind.as_str(), "ordered" | "acted") {
                    self.asked.insert(host.clone());
                }
                // They come in the order of their numbers.
                self.hosts.insert(host, id);
            }
            (None, Some(channel)) => {
                let channel = name(&channel, "channel")?;
                match kind.as_str() {
                    "release-taken" | "channel-removed" => drop(self.released.insert(channel, id)),
                    _ => drop(self.progressed.insert(channel)),
                }
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Whether there was nothing.
    pub fn is_empty(&self) -> bool {
        self.released.is_empty() && self.progressed.is_empty() && self.hosts.is_empty()
    }
}

/// What the planner needs of the newest release of a channel.
pub(super) async fn read_current(
    connection: &mut AnyConnection,
    channel: &ChannelName,
) -> Result<Option<Current>, StoreError> {
    let row = sql("SELECT seq FROM releases WHERE channel = $1 ORDER BY event DESC LIMIT 1")
        .bind(channel.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let bad = || StoreError::corrupt("a release");
    let seq = Seq::new(uint(row.try_get("seq")?)).map_err(|_| bad())?;
    let path = layout::release(channel, seq);
    let row = sql("SELECT bytes FROM documents WHERE path = $1").bind(path).fetch_one(connection).await?;
    let bytes: Vec<u8> = row.try_get("bytes")?;
    // Its signatures were checked when it was taken in.
    let envelope = Envelope::read(&bytes, PayloadType::Release).map_err(|_| bad())?;
    let release: Release = nixfleet_trust::json::read(envelope.payload()).map_err(|_| bad())?;
    Ok(Some(Current {
        id: ReleaseId { channel: channel.clone(), seq, digest: envelope.digest() },
        revision: release.revision,
        created_ms: release.created_ms,
        expires_ms: release.expires_ms,
        policy: release.policy,
    }))
}

/// What is remembered of a channel; nothing, if no plan was made for it yet.
pub(super) async fn read_progress(
    connection: &mut AnyConnection,
    channel: &ChannelName,
) -> Result<Progress, StoreError> {
    let row = sql("SELECT body FROM rollouts WHERE channel = $1")
        .bind(channel.to_string())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(Progress::default()) };
    serde_json::from_str(row.try_get("body")?).map_err(|_| StoreError::corrupt("a rollout"))
}

fn host_of(row: &AnyRow) -> Result<PlannedHost, StoreError> {
    let state: HostState =
        serde_json::from_str(row.try_get("state")?).map_err(|_| StoreError::corrupt("a host's state"))?;
    // Before its agent's first start nothing was reported.
    let standing = state.setup.is_some().then(|| Standing::of(&state));
    let placed = read_placed(row.try_get("wave")?, row.try_get("tags")?, row.try_get("system")?)?;
    let reported = Some(time(row.try_get("reported_ms")?)?).filter(|at| *at != UnixMs::EPOCH);
    let heard: Option<i64> = row.try_get("heard_ms")?;
    let heard = heard.map(time).transpose()?;
    let remembered = read_remembered(row.try_get("remembered")?)?;
    Ok(PlannedHost {
        name: name(row.try_get("name")?, "host")?,
        channel: name(row.try_get("channel")?, "channel")?,
        host: remembered.host(placed, standing, reported.max(heard)),
    })
}

/// A name as it was kept, of a host or of a channel.
pub(super) fn name<T: std::str::FromStr>(text: &str, of: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::corrupt(format!("a {of}'s name")))
}

fn time(ms: i64) -> Result<UnixMs, StoreError> {
    UnixMs::new(uint(ms)).map_err(|_| StoreError::corrupt("a time"))
}
