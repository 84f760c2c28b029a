//! What keeps the database from being written: said once when it begins and once when it is over, and shown meanwhile by
//! `/readyz`, `/metrics` and the fleet.
//!
//! Those who write again and again by themselves report here how it went. Each is well again by a write of its own only: a
//! lease may find room where a batch of reports does not. People do not come again by themselves: while something of theirs was
//! refused, the server tries whether there is room ([`Store::try_room`]), so that a quiet fleet is neither silent nor alarmed
//! for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::wire::people::{TroubleKind, TroubleView};
use nixfleet_sys::text::chain;

use crate::say;
#[cfg(doc)]
use crate::store::Store;
use crate::store::StoreError;

/// Trouble that did not come again for so long is not shown any more: who met it may be gone. An agent whose reports are
/// not taken comes again within a few minutes.
const LAPSES_AFTER: Secs = Secs(900);

/// Who writes again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writer {
    /// What agents report.
    Reports,
    /// Plans, and the lease of who plans.
    Planner,
    /// Signs of life.
    SignsOfLife,
    /// What people do, and what is tried in their place.
    People,
}

/// What is known of it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Troubles(Arc<Mutex<BTreeMap<Writer, Trouble>>>);

#[derive(Debug, Clone, Copy)]
struct Trouble {
    kind: TroubleKind,
    since: UnixMs,
    last: UnixMs,
}

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Writer, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write failed.
    pub fn met(&self, writer: Writer, error: &StoreError, now: UnixMs) {
        let Some(kind) = error.trouble() else { return };
        let mut known = self.lock();
        let is_new = !known.values().any(|trouble| trouble.kind == kind);
        let since = known.get(&writer).map_or(now, |before| before.since);
        known.insert(writer, Trouble { kind, since, last: now });
        drop(known);
        if is_new {
            say::line(&format!("ALARM: {}: {}", text(kind), chain(error)));
        }
    }

    /// A write succeeded.
    pub fn over(&self, writer: Writer) {
        let mut known = self.lock();
        let was = known.remove(&writer).is_some();
        let is_last = was && known.is_empty();
        drop(known);
        if is_last {
            say::line("the database takes what is written again");
        }
    }

    /// Whether this one is in trouble.
    pub fn has(&self, writer: Writer) -> bool {
        self.lock().contains_key(&writer)
    }

    /// Either, as it went.
    pub fn note<T>(&self, writer: Writer, outcome: &Result<T, StoreError>, now: UnixMs) {
        match outcome {
            Ok(_) => self.over(writer),
            Err(error) => self.met(writer, error, now),
        }
    }

    /// What there is now, each kind once, for people.
    pub fn now(&self, now: UnixMs) -> Vec<TroubleView> {
        let mut known = self.lock();
        known.retain(|_, trouble| now < trouble.last.plus(LAPSES_AFTER));
        let mut kinds: BTreeMap<TroubleKind, UnixMs> = BTreeMap::new();
        for Trouble { kind, since, last: _ } in known.values() {
            let first = kinds.entry(*kind).or_insert(*since);
            *first = (*first).min(*since);
        }
        let view = |(kind, since_ms)| TroubleView { kind, since_ms, text: text(kind).to_owned() };
        kinds.into_iter().map(view).collect()
    }
}

/// What it is and what it means, in words.
pub fn text(kind: TroubleKind) -> &'static str {
    match kind {
        TroubleKind::DatabaseFull => {
            "the disk of the database is full: nothing new is kept until there is room; hosts keep their reports and go on"
        }
        TroubleKind::DatabaseAway => {
            "the database does not answer: nothing is kept until it does; hosts keep their reports and go on"
        }
        TroubleKind::DatabaseFailing => {
            "the database refuses what is written, and the log of the server says why; hosts keep their reports and go on"
        }
        TroubleKind::RootEnding => {
            "the root ends within 30 days: sign and push the next one, or no release is taken after that"
        }
        TroubleKind::PlanObjected => {
            "channels stand still, since what is planned for them breaks rules that it must keep, which is a mistake in this program"
        }
    }
}
