//! What all simulated agents share: the release that they can see, and the tally of what became of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, Semaphore};

use crate::fleet::Documents;
use crate::wire::NoUse;

/// Agents that may connect at the same time while nobody has failed yet; after that there is no limit but their pauses.
const TURNS: usize = 256;
/// Agents that have a connection for reports at the same time, so that open files suffice. A real fleet has no such limit.
pub(crate) const REPORTS_MAX: usize = 4_000;

pub(crate) struct World {
    pub(crate) documents: Documents,
    /// Whoever connects has one.
    pub(crate) turns: Semaphore,
    /// Whoever reports has one.
    pub(crate) reports: Semaphore,
    polling: AtomicUsize,
    sent: AtomicU64,
    gone: Mutex<Vec<Instant>>,
    /// Tells that one more went.
    went: Notify,
    failures: Mutex<BTreeMap<NoUse, u64>>,
}

impl World {
    pub(crate) fn new(documents: Documents) -> Self {
        Self {
            documents,
            turns: Semaphore::new(TURNS),
            reports: Semaphore::new(REPORTS_MAX),
            polling: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            gone: Mutex::default(),
            went: Notify::new(),
            failures: Mutex::default(),
        }
    }

    /// Waits for an answer, and counts as polling meanwhile.
    pub(crate) async fn polling<T>(&self, answer: impl Future<Output = T>) -> T {
        self.polling.fetch_add(1, Ordering::Relaxed);
        let answer = answer.await;
        self.polling.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    /// How many wait for orders.
    pub(crate) fn waiting(&self) -> usize {
        self.polling.load(Ordering::Relaxed)
    }

    pub(crate) fn note_sent(&self, records: usize) {
        self.sent.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Records that were sent and acknowledged.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// An agent was told that it is its turn.
    pub(crate) fn note_go(&self) {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        self.went.notify_one();
    }

    /// Returns when so many were told.
    pub(crate) async fn until_gone(&self, count: usize) {
        while self.gone.lock().unwrap_or_else(PoisonError::into_inner).len() < count {
            self.went.notified().await;
        }
    }

    /// When agents were told, in order.
    pub(crate) fn gone(&self) -> Vec<Instant> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note_failure(&self, why: NoUse) {
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(why).or_default() += 1;
    }

    /// What went wrong since this was last asked, in words.
    pub(crate) fn failures(&self) -> String {
        let failures = std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        let texts: Vec<_> = failures.iter().map(|(why, times)| format!("{times} × {why:?}")).collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
    }
}
