//! What is read: who a key belongs to, hosts, orders, events. Every list has a limit (lesson 32).

use std::collections::BTreeSet;

use nixfleet_core::host::HostState;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId, Seq, Tag};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::wire::Order;
use nixfleet_trust::key::KeyId;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::board::Asked;
use super::fact::{About, Fact};
use super::rows::Insert;
use super::{Store, StoreError, int, sql, uint};
use crate::heard::Sign;

/// The most rows of one page.
pub const PAGE_MAX: u32 = 1_000;
/// The most keys of strangers that are remembered; more of them at once are an attack, and say nothing new.
const STRANGERS_MAX: i64 = 1_000;

/// A host, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostListed {
    /// Its name.
    pub name: HostName,
    /// The channel that it is in.
    pub channel: ChannelName,
    /// The newest release that names it.
    pub release_seq: Seq,
    /// Its wave in that release, from 0.
    pub wave: u16,
    /// Its tags in that release.
    pub tags: BTreeSet<Tag>,
    /// The system that it shall run.
    pub system: String,
    /// Its state, as far as it reported.
    pub state: HostState,
    /// When it last reported something new; `None` if it never did.
    pub reported_ms: Option<UnixMs>,
    /// When it was last heard of at all.
    pub heard_ms: Option<UnixMs>,
    /// How far its clock was ahead then; `None` if it did not say.
    pub clock_ahead_ms: Option<i64>,
    /// Why its events cannot be followed at the moment.
    pub fault: Option<String>,
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its number.
    pub id: u64,
    /// When it was taken in.
    pub at: UnixMs,
    /// Whom it is about.
    pub about: About,
    /// What it says.
    pub fact: Fact,
}

/// A key that no release names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its fingerprint.
    pub key: String,
    /// When it first came.
    pub first_ms: UnixMs,
    /// When it last came.
    pub last_ms: UnixMs,
    /// How often it came.
    pub times: u64,
    /// From where it last came.
    pub address: String,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Those above this number.
    pub after: u64,
    /// Those of this host.
    pub host: Option<HostName>,
}

const HOST_COLUMNS: &str = "SELECT name, channel, release_seq, wave, tags, system, state, reported_ms, fault, \
     heard.at_ms AS heard_ms, heard.ahead_ms FROM hosts LEFT JOIN heard ON heard.host = hosts.name";

const NOTE_HEARD: Insert = Insert {
    head: "INSERT INTO heard (host, at_ms, ahead_ms) VALUES",
    columns: 3,
    tail: "ON CONFLICT (host) DO UPDATE SET at_ms = excluded.at_ms, ahead_ms = excluded.ahead_ms",
};

impl Store {
    /// The host that has this key by a release that is served, from memory if it is there.
    pub async fn host_of_key(&self, key: &KeyId) -> Result<Option<HostName>, StoreError> {
        // Before the question: what is taken in meanwhile makes the answer void.
        let released = self.board.released();
        if let Some(host) = self.board.host_of(key) {
            return Ok(Some(host));
        }
        let host: Option<String> = sqlx::query_scalar("SELECT host FROM host_keys WHERE key_id = $1")
            .bind(key.to_string())
            .fetch_optional(self.readers())
            .await?;
        let Some(host) = host else { return Ok(None) };
        let host = host.parse().map_err(|_| StoreError::corrupt("a host's name"))?;
        if let Some(released) = released {
            self.board.note_key(released, key, &host);
        }
        Ok(Some(host))
    }

    /// A host.
    pub async fn host(&self, name: &HostName) -> Result<Option<HostListed>, StoreError> {
        let text = format!("{HOST_COLUMNS} WHERE name = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(name.to_string())
            .fetch_optional(self.readers())
            .await?;
        row.as_ref().map(host_of).transpose()
    }

    /// Hosts whose names come after `after`, in the order of their names; of one channel, or of all.
    pub async fn hosts(
        &self,
        after: &str,
        channel: Option<&ChannelName>,
        limit: u32,
    ) -> Result<Vec<HostListed>, StoreError> {
        let text =
            format!("{HOST_COLUMNS} WHERE name > $1 AND ($2 = '' OR channel = $2) ORDER BY name LIMIT $3");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(after.to_owned())
            .bind(channel.map(ToString::to_string).unwrap_or_default())
            .bind(i64::from(limit.min(PAGE_MAX)))
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(host_of).collect()
    }

    /// How many hosts are in which state, by channel. One that never reported is in none: absence of data is no state.
    pub async fn counts(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        let rows = sql("SELECT channel, state, COUNT(*) AS hosts FROM \
                        (SELECT channel, CASE WHEN reported_ms = 0 THEN 'never-reported' ELSE phase END AS state \
                        FROM hosts) AS h GROUP BY channel, state ORDER BY channel, state")
        .fetch_all(self.readers())
        .await?;
        let count = |row: &AnyRow| Ok((row.try_get(0)?, row.try_get(1)?, uint(row.try_get(2)?)));
        rows.iter().map(count).collect()
    }

    /// A host's state as it was followed, up to which of its records everything was taken in or is lost, and why they cannot be
    /// followed at the moment.
    pub async fn followed(
        &self,
        name: &HostName,
    ) -> Result<Option<(HostState, u64, Option<String>)>, StoreError> {
        let row = sql("SELECT seq, state, fault FROM hosts WHERE name = $1")
            .bind(name.to_string())
            .fetch_optional(self.readers())
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((state_of(&row)?, uint(row.try_get("seq")?), row.try_get("fault")?)))
    }

    /// A host's state, and why its events cannot be followed at the moment.
    pub async fn state(&self, name: &HostName) -> Result<Option<(HostState, Option<String>)>, StoreError> {
        Ok(self.followed(name).await?.map(|(state, _, fault)| (state, fault)))
    }

    /// What is asked of a host, from memory if it is there.
    pub async fn asked(&self, host: &HostName) -> Result<Asked, StoreError> {
        if let Some(asked) = self.board.look(host) {
            return Ok(asked);
        }
        // One statement, so all of it is as of one event.
        let rows = sql("SELECT c.value AS newest, o.number, o.body, \
                        (SELECT COUNT(*) FROM hosts WHERE name = $1 AND seq > 0 AND fault IS NULL) AS followed \
                        FROM counters AS c LEFT JOIN orders AS o ON o.host = $1 \
                        WHERE c.name = 'event' ORDER BY o.number")
        .bind(host.to_string())
        .fetch_all(self.readers())
        .await?;
        let first = rows.first().ok_or_else(|| StoreError::corrupt("the newest event's number"))?;
        let (event, is_followed) = (uint(first.try_get("newest")?), first.try_get::<i64, _>("followed")? > 0);
        let mut orders = Vec::new();
        for row in &rows {
            if row.try_get::<Option<i64>, _>("number")?.is_some() {
                orders.push(order_of(row)?);
            }
        }
        let asked = Asked { orders, is_followed };
        self.board.note(event, [(host.clone(), asked.clone())]);
        Ok(asked)
    }

    /// The newest release of each channel.
    pub async fn newest_releases(&self) -> Result<Vec<ReleaseId>, StoreError> {
        let rows = sql("SELECT channel, seq, digest FROM releases AS r WHERE event = \
                        (SELECT MAX(event) FROM releases WHERE channel = r.channel) ORDER BY channel")
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(release_of).collect()
    }

    /// The newest release of a channel.
    pub async fn newest_release(&self, channel: &ChannelName) -> Result<Option<ReleaseId>, StoreError> {
        let row =
            sql("SELECT channel, seq, digest FROM releases WHERE channel = $1 ORDER BY event DESC LIMIT 1")
                .bind(channel.to_string())
                .fetch_optional(self.readers())
                .await?;
        row.as_ref().map(release_of).transpose()
    }

    /// The rollouts, as the planner left them.
    pub async fn rollouts(&self) -> Result<Vec<(ChannelName, serde_json::Value)>, StoreError> {
        let rows =
            sql("SELECT channel, body FROM rollouts ORDER BY channel").fetch_all(self.readers()).await?;
        rows.iter()
            .map(|row| {
                let bad = || StoreError::corrupt("a rollout");
                let channel = row.try_get::<String, _>("channel")?.parse().map_err(|_| bad())?;
                Ok((channel, serde_json::from_str(row.try_get("body")?).map_err(|_| bad())?))
            })
            .collect()
    }

    /// Events in the order of their numbers.
    pub async fn events(&self, filter: &EventFilter, limit: u32) -> Result<Vec<Logged>, StoreError> {
        let limit = i64::from(limit.min(PAGE_MAX));
        let query = match &filter.host {
            None => {
                sql("SELECT id, at_ms, host, channel, body FROM events WHERE id > $1 ORDER BY id LIMIT $2")
            }
            Some(_) => sql("SELECT id, at_ms, host, channel, body FROM events WHERE id > $1 AND host = $3 \
                            ORDER BY id LIMIT $2"),
        };
        let query = query.bind(int(filter.after)).bind(limit);
        let query = match &filter.host {
            None => query,
            Some(host) => query.bind(host.to_string()),
        };
        let rows = query.fetch_all(self.readers()).await?;
        let logged = |row: &AnyRow| {
            let (id, at, about, fact) = event_of(row)?;
            Ok(Logged { id, at, about, fact })
        };
        rows.iter().map(logged).collect()
    }

    /// The newest event's number.
    pub async fn newest_event(&self) -> Result<u64, StoreError> {
        let newest: i64 = sqlx::query_scalar("SELECT value FROM counters WHERE name = 'event'")
            .fetch_one(self.readers())
            .await?;
        Ok(uint(newest))
    }

    /// When the newest event was written.
    pub async fn newest_event_at(&self) -> Result<Option<UnixMs>, StoreError> {
        let row =
            sql("SELECT at_ms FROM events ORDER BY id DESC LIMIT 1").fetch_optional(self.readers()).await?;
        row.as_ref().map(|row| time(row, "at_ms")).transpose()
    }

    /// Notes that hosts were heard of, each named once, in one transaction for all of them: never a row for each sign of
    /// life (lesson 32).
    pub async fn note_heard(&self, heard: &[(HostName, Sign)]) -> Result<(), StoreError> {
        let mut tx = self.writer.begin().await?;
        NOTE_HEARD
            .run(&mut tx, heard, |query, (host, Sign { at, clock_ahead_ms })| {
                query.bind(host.to_string()).bind(int(at.get())).bind(*clock_ahead_ms)
            })
            .await?;
        Ok(tx.commit().await?)
    }

    /// Notes that a key came that no release names.
    pub async fn note_stranger(&self, key: &KeyId, address: &str, now: UnixMs) -> Result<(), StoreError> {
        sql("INSERT INTO strangers (key_id, first_ms, last_ms, times, address) \
             SELECT $1, $2, $2, 1, $3 WHERE (SELECT COUNT(*) FROM strangers) < $4 \
             OR EXISTS (SELECT 1 FROM strangers WHERE key_id = $1) \
             ON CONFLICT (key_id) DO UPDATE SET last_ms = excluded.last_ms, times = strangers.times + 1, \
             address = excluded.address")
        .bind(key.to_string())
        .bind(int(now.get()))
        .bind(address.to_owned())
        .bind(STRANGERS_MAX)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Keys that came and that no release names, the latest first.
    pub async fn strangers(&self) -> Result<Vec<Stranger>, StoreError> {
        let rows = sql("SELECT key_id, first_ms, last_ms, times, address FROM strangers \
                        ORDER BY last_ms DESC, key_id LIMIT $1")
        .bind(STRANGERS_MAX)
        .fetch_all(self.readers())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Stranger {
                    key: row.try_get("key_id")?,
                    first_ms: time(row, "first_ms")?,
                    last_ms: time(row, "last_ms")?,
                    times: uint(row.try_get("times")?),
                    address: row.try_get("address")?,
                })
            })
            .collect()
    }
}

fn time(row: &AnyRow, column: &str) -> Result<UnixMs, StoreError> {
    UnixMs::new(uint(row.try_get(column)?)).map_err(|_| StoreError::corrupt("a time"))
}

fn state_of(row: &AnyRow) -> Result<HostState, StoreError> {
    serde_json::from_str(row.try_get("state")?).map_err(|_| StoreError::corrupt("a host's state"))
}

fn release_of(row: &AnyRow) -> Result<ReleaseId, StoreError> {
    let bad = || StoreError::corrupt("a release");
    Ok(ReleaseId {
        channel: row.try_get::<String, _>("channel")?.parse().map_err(|_| bad())?,
        seq: Seq::new(uint(row.try_get("seq")?)).map_err(|_| bad())?,
        digest: row.try_get::<String, _>("digest")?.parse().map_err(|_| bad())?,
    })
}

fn host_of(row: &AnyRow) -> Result<HostListed, StoreError> {
    let bad = |what: &str| StoreError::corrupt(format!("a host's {what}"));
    let some = |at: UnixMs| (at != UnixMs::EPOCH).then_some(at);
    let heard: Option<i64> = row.try_get("heard_ms")?;
    Ok(HostListed {
        name: row.try_get::<String, _>("name")?.parse().map_err(|_| bad("name"))?,
        channel: row.try_get::<String, _>("channel")?.parse().map_err(|_| bad("channel"))?,
        release_seq: Seq::new(uint(row.try_get("release_seq")?)).map_err(|_| bad("release"))?,
        wave: u16::try_from(row.try_get::<i64, _>("wave")?).map_err(|_| bad("wave"))?,
        tags: serde_json::from_str(row.try_get("tags")?).map_err(|_| bad("tags"))?,
        system: row.try_get("system")?,
        state: state_of(row)?,
        reported_ms: some(time(row, "reported_ms")?),
        heard_ms: heard.and_then(|at| UnixMs::new(uint(at)).ok()),
        clock_ahead_ms: row.try_get("ahead_ms")?,
        fault: row.try_get("fault")?,
    })
}

/// An order as it was kept.
pub(super) fn order_of(row: &AnyRow) -> Result<Order, StoreError> {
    order(uint(row.try_get("number")?), row.try_get("body")?)
}

/// An order by its number, and its body as it is kept.
pub(super) fn order(number: u64, body: &str) -> Result<Order, StoreError> {
    let what = serde_json::from_str(body).map_err(|_| StoreError::corrupt("an order"))?;
    Ok(Order { number, what })
}

/// An event as it was kept.
pub(super) fn event_of(row: &AnyRow) -> Result<(u64, UnixMs, About, Fact), StoreError> {
    let id = uint(row.try_get("id")?);
    let bad = |what: &str| StoreError::corrupt(format!("the {what} of event {id}"));
    let (host, channel): (Option<String>, Option<String>) = (row.try_get("host")?, row.try_get("channel")?);
    let about = match (host, channel) {
        (Some(host), _) => About::Host(host.parse().map_err(|_| bad("host"))?),
        (None, Some(channel)) => About::Channel(channel.parse().map_err(|_| bad("channel"))?),
        (None, None) => About::Fleet,
    };
    let fact = serde_json::from_str(row.try_get("body")?).map_err(|_| bad("fact"))?;
    Ok((id, time(row, "at_ms")?, about, fact))
}
