//! Signs of life: in memory, and written many at a time (lesson 32). What a crash loses is some seconds of "last heard".

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use nixfleet_core::model::names::HostName;
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_trust::key::KeyId;

use crate::say;
use crate::store::{Store, StoreError};

/// A stranger who comes again within this time is not written down again.
const STRANGER_AGAIN: Secs = Secs(60);
/// Signs of life in one transaction: some milliseconds of work.
const PIECE: usize = 2_000;
/// Strangers that are remembered for that.
const STRANGERS_MAX: usize = 1_000;

/// A sign of life of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign {
    /// When it came.
    pub at: UnixMs,
    /// How far the host's clock was ahead then, if it said what its clock says.
    pub clock_ahead_ms: Option<i64>,
}

impl Sign {
    /// One that comes now, from a host whose clock says so.
    pub fn of(now: UnixMs, host_clock: Option<UnixMs>) -> Self {
        // Both are below 2^53.
        let ahead = |clock: UnixMs| i64::try_from(i128::from(clock.get()) - i128::from(now.get())).ok();
        Self { at: now, clock_ahead_ms: host_clock.and_then(ahead) }
    }
}

/// Hosts that were heard of. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Mutex<Lists>>);

/// The same hosts for two readers, each of which takes its list when it comes.
#[derive(Debug, Default)]
struct Lists {
    unwritten: HashMap<HostName, Sign>,
    unplanned: HashMap<HostName, UnixMs>,
}

impl Heard {
    /// Notes a sign of life.
    pub fn note(&self, host: &HostName, sign: Sign) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.unwritten.insert(host.clone(), sign);
        lists.unplanned.insert(host.clone(), sign.at);
    }

    /// Those that were heard of since this was last asked, for the planner.
    pub fn take_fresh(&self) -> HashMap<HostName, UnixMs> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).unplanned)
    }

    /// Writes them down, in pieces, so that reports do not wait for long. What cannot be written is kept for the next time.
    pub async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        let heard = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).unwritten);
        let mut heard: Vec<(HostName, Sign)> = heard.into_iter().collect();
        // In one order, so that two replicas never wait for each other in a circle.
        heard.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (at, piece) in heard.chunks(PIECE).enumerate() {
            if let Err(error) = store.within(store.note_heard(piece)).await {
                self.keep(&heard[at * PIECE..]);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes them back, but for those who were heard of since.
    fn keep(&self, heard: &[(HostName, Sign)]) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (host, sign) in heard {
            lists.unwritten.entry(host.clone()).or_insert(*sign);
        }
    }
}

/// Keys that no release names.
#[derive(Debug, Clone, Default)]
pub struct Strangers(Arc<Mutex<HashMap<KeyId, UnixMs>>>);

impl Strangers {
    /// Notes that one came.
    pub async fn note(&self, store: &Store, key: &KeyId, address: SocketAddr, now: UnixMs) {
        if !self.is_worth_writing(key, now) {
            return;
        }
        if let Err(error) = store.note_stranger(key, &address.ip().to_string(), now).await {
            say::error("a stranger's key could not be noted", &error);
        }
    }

    fn is_worth_writing(&self, key: &KeyId, now: UnixMs) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(key).is_some_and(|at| now < at.plus(STRANGER_AGAIN)) {
            return false;
        }
        if known.len() >= STRANGERS_MAX {
            known.retain(|_, at| now < at.plus(STRANGER_AGAIN));
        }
        known.len() < STRANGERS_MAX && {
            known.insert(key.clone(), now);
            true
        }
    }
}
