//! Takes in what agents report: one task, many batches in one transaction.
//!
//! A commit waits for the disk, so its cost is shared by all that wait for one: while a transaction goes on, the next
//! batches gather. A batch is answered after the commit (lesson 24). When the queue is full, whoever sends waits for a while,
//! and is then refused: it keeps its reports and comes again. That is trouble of the database if nothing was written meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nixfleet_core::host::Record;
use nixfleet_core::host::saved::SavedState;
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::wire::people::TroubleKind;
use nixfleet_core::wire::{EventsTaken, Then};
use nixfleet_sys::text::chain;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot, watch};

use super::fact::{About, Fact};
use super::write::{Folding, Write};
use super::{Store, StoreError};
use crate::trouble::{Troubles, Writer};

/// Batches that wait. A restart of the control plane brings one of each host over some minutes; 1,024 are a second's
/// work, and the rest wait in their connections.
const QUEUE: usize = 1_024;
/// How long a batch waits for a place in the queue; an agent gives a report a minute.
const QUEUED_WITHIN: Duration = Duration::from_secs(15);
/// Batches in one transaction: about 50 ms of work on one core.
const TOGETHER: usize = 256;

/// What a host sent.
#[derive(Debug)]
pub enum Sent {
    /// Events.
    Records(Vec<Record>),
    /// Its state.
    State {
        /// The state.
        state: Box<SavedState>,
        /// The agent's version.
        agent: String,
    },
}

#[derive(Debug)]
struct Waiting {
    host: HostName,
    sent: Sent,
    reply: oneshot::Sender<Result<EventsTaken, NotTaken>>,
}

/// Where batches are handed in. Cheap to clone; the task ends when all are gone.
#[derive(Debug, Clone)]
pub struct Ingest {
    queue: mpsc::Sender<Waiting>,
    within: Duration,
    troubles: Troubles,
    clock: fn() -> UnixMs,
    /// When something was last written.
    written: Arc<Mutex<Instant>>,
}

/// Why a batch was not taken in.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotTaken {
    /// The database failed; the sender keeps what it has and comes again.
    #[error("the reports could not be kept: {why}")]
    Store {
        /// What that says of the database.
        kind: Option<TroubleKind>,
        /// What it said.
        why: String,
    },
    /// The queue is full.
    #[error("more reports wait than can be taken in at the moment")]
    Full,
    /// The process is ending.
    #[error("nothing is taken in any more: the process is ending")]
    Ending,
}

impl Ingest {
    /// Starts the task. `changed` is told the newest event's number after each commit.
    pub fn start(
        store: Store,
        clock: fn() -> UnixMs,
        changed: watch::Sender<u64>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        Self::start_with((QUEUE, QUEUED_WITHIN), store, clock, changed)
    }

    /// [`Ingest::start`], with another queue: so long, and so long waited for.
    pub fn start_with(
        (places, within): (usize, Duration),
        store: Store,
        clock: fn() -> UnixMs,
        changed: watch::Sender<u64>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, receiver) = mpsc::channel(places);
        let written = Arc::new(Mutex::new(Instant::now()));
        let troubles = store.troubles().clone();
        let writing = Writing { store, clock, changed, written: Arc::clone(&written) };
        (Self { queue, within, troubles, clock, written }, tokio::spawn(writing.run(receiver)))
    }

    /// Hands in what `host` sent; returns when it is on the disk.
    pub async fn take(&self, host: HostName, sent: Sent) -> Result<EventsTaken, NotTaken> {
        let (reply, answer) = oneshot::channel();
        let queued = self.queue.send_timeout(Waiting { host, sent, reply }, self.within).await;
        queued.map_err(|not| match not {
            SendTimeoutError::Timeout(_) => self.full(),
            SendTimeoutError::Closed(_) => NotTaken::Ending,
        })?;
        answer.await.map_err(|_| NotTaken::Ending)?
    }

    /// The queue is full: because much is sent at once, or because what is being written does not come to an end.
    fn full(&self) -> NotTaken {
        let since = self.written.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if since >= self.within {
            self.troubles.met(Writer::Reports, &StoreError::Late(since), (self.clock)());
        }
        NotTaken::Full
    }
}

/// The task.
struct Writing {
    store: Store,
    clock: fn() -> UnixMs,
    changed: watch::Sender<u64>,
    written: Arc<Mutex<Instant>>,
}

impl Writing {
    async fn run(self, mut receiver: mpsc::Receiver<Waiting>) {
        let Self { store, clock, changed, written } = self;
        let mut batches = Vec::with_capacity(TOGETHER);
        while receiver.recv_many(&mut batches, TOGETHER).await > 0 {
            let (work, replies): (Vec<_>, Vec<_>) =
                batches.drain(..).map(|Waiting { host, sent, reply }| ((host, sent), reply)).unzip();
            let answers = store.within(together(&store, clock(), work, &changed)).await;
            store.troubles().note(Writer::Reports, &answers, clock());
            match answers {
                Ok(answers) => {
                    *written.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    // Nobody waiting any more means that the sender went away and will ask again.
                    replies.into_iter().zip(answers).for_each(|(reply, answer)| drop(reply.send(Ok(answer))));
                }
                Err(error) => {
                    let not_taken = NotTaken::Store { kind: error.trouble(), why: chain(&error) };
                    for reply in replies {
                        drop(reply.send(Err(not_taken.clone())));
                    }
                }
            }
        }
    }
}

async fn together(
    store: &Store,
    now: UnixMs,
    work: Vec<(HostName, Sent)>,
    changed: &watch::Sender<u64>,
) -> Result<Vec<EventsTaken>, StoreError> {
    let mut write = store.begin(now).await?;
    write.fetch_hosts(work.iter().map(|(host, _)| host)).await?;
    let mut answers = Vec::with_capacity(work.len());
    for (host, sent) in work {
        answers.push(one(&mut write, &host, sent).await?);
    }
    let committed = write.commit().await?;
    changed.send_if_modified(|newest| {
        committed.events > 0 && std::mem::replace(newest, committed.newest) != committed.newest
    });
    Ok(answers)
}

async fn one(write: &mut Write, host: &HostName, sent: Sent) -> Result<EventsTaken, StoreError> {
    let mut then = Then::GoOn;
    match sent {
        Sent::Records(records) => {
            for record in records {
                match write.report(host, record).await? {
                    Folding::Taken | Folding::Repeat => {}
                    Folding::Gap => break,
                    Folding::Diverged(_) => {
                        then = Then::SendState;
                        break;
                    }
                }
            }
        }
        Sent::State { state, agent } => {
            if write.host(host).await?.is_some() {
                write.append(&About::Host(host.clone()), &Fact::StateSent { state, agent }).await?;
                write.order_again(host).await?;
            }
        }
    }
    let next = write.host(host).await?.map_or(1, |row| row.told() + 1);
    Ok(EventsTaken { next, then })
}
