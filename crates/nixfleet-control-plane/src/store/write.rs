//! The one way to add events, and what each does to the projections. `rebuild` goes through the same.
//!
//! Hosts are folded in memory and written once at the commit, however many events of theirs a transaction has; events and
//! orders are gathered, and written many with one statement.

mod desk;
mod host;
mod orders;
mod plan;
mod release;
mod removal;

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::model::names::{ChannelName, HostName, Seq};
use nixfleet_core::model::time::UnixMs;
use sqlx::{Any, Row, Transaction};

use super::board::{Asked, Board};
use super::fact::{self, About, Fact};
use super::planned::PlannedHost;
use super::rows::{Filled, Insert};
use super::schema::PROJECTIONS;
use super::{Store, StoreError, int, sql, uint};
pub use host::{Folding, HostRow};
pub(super) use host::{read_placed, read_remembered};
use plan::ChannelRow;
use release::KnownRelease;
pub use removal::Elsewhere;

/// How many events `rebuild` folds between two writes of the hosts: a few MB of them.
const REBUILD_STRIDE: i64 = 2_000;
/// Events that are gathered before they are written: some hundred KB.
const GATHERED_MAX: usize = 1_024;

const INSERT_EVENTS: Insert =
    Insert { head: "INSERT INTO events (id, at_ms, kind, host, channel, body) VALUES", columns: 6, tail: "" };

/// A write in progress: nothing of it is there until [`Write::commit`], and none of it if this is dropped.
#[derive(Debug)]
pub struct Write {
    tx: Transaction<'static, Any>,
    now: UnixMs,
    /// The newest event before this.
    begun: u64,
    /// The newest event with this.
    newest: u64,
    /// Events that are not written yet.
    gathered: Vec<EventRow>,
    hosts: BTreeMap<HostName, HostRow>,
    /// What is asked of hosts after this, as far as it is another thing than before.
    noted: BTreeMap<HostName, Asked>,
    /// Hosts of which something was asked.
    asked: BTreeSet<HostName>,
    /// Hosts that were ordered something, as the planner sees them then.
    ordered: Vec<PlannedHost>,
    /// Whether a release was taken in.
    is_released: bool,
    board: Board,
    releases: BTreeMap<(ChannelName, Seq), Option<KnownRelease>>,
    channels: BTreeMap<ChannelName, ChannelRow>,
}

/// An event as it is kept.
#[derive(Debug)]
struct EventRow {
    id: u64,
    kind: &'static str,
    host: Option<String>,
    channel: Option<String>,
    body: String,
}

impl Store {
    /// Begins a write at `now`, after all others that are going on.
    pub async fn begin(&self, now: UnixMs) -> Result<Write, StoreError> {
        let mut tx = self.writer.begin().await?;
        let newest: i64 =
            sqlx::query_scalar("UPDATE counters SET value = value WHERE name = 'event' RETURNING value")
                .fetch_one(&mut *tx)
                .await?;
        let newest = uint(newest);
        Ok(Write {
            tx,
            now,
            begun: newest,
            newest,
            gathered: Vec::new(),
            hosts: BTreeMap::new(),
            noted: BTreeMap::new(),
            asked: BTreeSet::new(),
            ordered: Vec::new(),
            is_released: false,
            board: self.board.clone(),
            releases: BTreeMap::new(),
            channels: BTreeMap::new(),
        })
    }

    /// Makes all projections again from the log, in one transaction. Returns how many events were folded.
    pub async fn rebuild(&self, now: UnixMs) -> Result<u64, StoreError> {
        let mut write = self.begin(now).await?;
        for statement in PROJECTIONS {
            sql(statement).execute(&mut *write.tx).await?;
        }
        let (mut after, mut count) = (0, 0);
        loop {
            let rows =
                sql("SELECT id, at_ms, host, channel, body FROM events WHERE id > $1 ORDER BY id LIMIT $2")
                    .bind(after)
                    .bind(REBUILD_STRIDE)
                    .fetch_all(&mut *write.tx)
                    .await?;
            let Some(last) = rows.last() else { break };
            after = last.try_get::<i64, _>("id")?;
            for row in &rows {
                let (id, at, about, fact) = super::fleet::event_of(row)?;
                match write.project(id, at, &about, &fact).await {
                    // What was asked of a host that is gone, or what fitted to events that are gone.
                    Ok(()) | Err(StoreError::Unfit(_)) => count += 1,
                    Err(error) => return Err(error),
                }
            }
            write.flush_hosts().await?;
            write.flush_channels().await?;
        }
        write.commit().await?;
        Ok(count)
    }
}

impl Write {
    /// When it began.
    pub fn now(&self) -> UnixMs {
        self.now
    }

    /// Has it begun at `now`: whoever waited for others asks the clock once more.
    pub(crate) fn begun_at(&mut self, now: UnixMs) {
        self.now = now;
    }

    /// The connection, for what is in no event. What was gathered is not written yet.
    pub(super) fn raw(&mut self) -> &mut sqlx::AnyConnection {
        &mut self.tx
    }

    /// Adds an event and does what follows from it. Returns its number.
    pub async fn append(&mut self, about: &About, fact: &Fact) -> Result<u64, StoreError> {
        let id = self.note(about, fact).await?;
        self.project(id, self.now, about, fact).await?;
        Ok(id)
    }

    /// Adds an event of which the projection is made already.
    async fn note(&mut self, about: &About, fact: &Fact) -> Result<u64, StoreError> {
        let id = self.newest + 1;
        self.gathered.push(EventRow {
            id,
            kind: fact.kind(),
            host: about.host().map(ToString::to_string),
            channel: about.channel().map(ToString::to_string),
            body: fact::to_json(fact),
        });
        if self.gathered.len() >= GATHERED_MAX {
            self.flush_events().await?;
        }
        self.newest = id;
        Ok(id)
    }

    /// Writes the events that were added so far: whoever reads the log within this write sees them then.
    pub(super) async fn flush_events(&mut self) -> Result<(), StoreError> {
        let (now, gathered) = (int(self.now.get()), std::mem::take(&mut self.gathered));
        let fill = |query: Filled, EventRow { id, kind, host, channel, body }: &EventRow| {
            let query = query.bind(int(*id)).bind(now).bind(*kind);
            query.bind(host.clone()).bind(channel.clone()).bind(body.clone())
        };
        Ok(INSERT_EVENTS.run(&mut self.tx, &gathered, fill).await?)
    }

    /// What follows from an event.
    async fn project(&mut self, id: u64, at: UnixMs, about: &About, fact: &Fact) -> Result<(), StoreError> {
        match fact {
            Fact::ReleaseTaken { release, by: _ } => self.project_release(id, at, release).await,
            Fact::ChannelRemoved { root: _ } => self.project_removal(about).await,
            Fact::Reported { record } => self.project_report(at, about, record).await,
            Fact::StateSent { state, agent: _ } => {
                self.project_state(at, about, (&state.0, state.0.seq)).await
            }
            // What is folded already, and where a rebuild begins. That it was written says nothing of the host.
            Fact::Compacted { state, told, remembered, waiting } => {
                let told = told.unwrap_or(state.0.seq);
                self.project_state(UnixMs::EPOCH, about, (&state.0, told)).await?;
                self.project_remembered(about, remembered, waiting.as_deref()).await
            }
            Fact::Ordered { order } => self.project_order((id, at), order).await,
            Fact::Acted { .. } => self.project_act((id, at), about, fact).await,
            Fact::Decided { decision } => self.project_decision(at, about, decision).await,
            Fact::Kept { progress } => self.project_kept(about, progress).await,
            // A token and a root are in no projection, and an objection changes nothing.
            Fact::TokenChanged { .. } | Fact::RootTaken { .. } | Fact::Objected { .. } => Ok(()),
        }
    }

    /// Puts it on the disk, and then on the board. Returns the newest event's number, and whether there are new ones.
    pub async fn commit(mut self) -> Result<Committed, StoreError> {
        self.flush_events().await?;
        self.flush_hosts().await?;
        self.flush_channels().await?;
        if self.newest != self.begun {
            sql("UPDATE counters SET value = $1 WHERE name = 'event'")
                .bind(int(self.newest))
                .execute(&mut *self.tx)
                .await?;
        }
        let Self { tx, begun, newest, noted, asked, is_released, board, .. } = self;
        tx.commit().await?;
        if is_released {
            board.release_taken(newest);
        }
        board.note(newest, noted);
        Ok(Committed { newest, events: newest - begun, asked })
    }
}

/// What a write left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The newest event's number.
    pub newest: u64,
    /// How many events were added.
    pub events: u64,
    /// Hosts of which something was asked.
    pub asked: BTreeSet<HostName>,
}

/// One of our own values as it is kept.
pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("texts and numbers are always JSON")
}
