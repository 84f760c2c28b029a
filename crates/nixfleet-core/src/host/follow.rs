//! The log of a host: what it writes, and how somebody else follows it.
//!
//! Every event that changed the state has the next number. So a repeat is known by its number and does nothing, what
//! comes out of order waits for what is before it, and a gap is seen and asked for (lesson 24). Events that changed
//! nothing have no number and are not reported: folding them would change nothing either.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::event::Event;
use super::state::HostState;
use super::step::{Context, Refused, step};
use super::terms::Terms;
use super::time::{Now, UpMs};
use crate::model::names::ReleaseId;
use crate::model::time::UnixMs;

/// The format of a [`Record`] that this program writes; it reads this one and every older one.
pub const RECORD_FORMAT: u32 = 1;
/// How many records a follower keeps that came before what is in front of them: more than a batch has.
pub const WINDOW: u64 = 1_024;
/// The most decisions that follow from one event. The longest chain that there is has five: adopted, passed, taken up
/// and so on; the rest is a margin, and a net under a mistake of ours.
const DECISIONS_MAX: usize = 16;

/// One event that changed a host's state: a line of its log, and what it reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`RECORD_FORMAT`] of the writer.
    pub v: u32,
    /// Its number on this host, rising by one.
    pub seq: u64,
    /// What the host's clock said when it took it in. A fact about the host, not an order among hosts (lesson 33).
    pub at_ms: UnixMs,
    /// How long the host had been up.
    pub up_ms: UpMs,
    /// What happened.
    pub fact: Event,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordUnreadable {
    /// A newer program wrote it.
    #[error("it has format {0}, and {RECORD_FORMAT} is the newest that is known here")]
    Newer(u32),
    /// It is no record.
    #[error("it is not the JSON of a record")]
    Json(#[source] serde_json::Error),
}

impl Record {
    /// Reads what [`Record::to_json`] wrote. An event that is not known here is an error: to skip it would be to follow a
    /// host wrongly.
    pub fn from_json(bytes: &[u8]) -> Result<Self, RecordUnreadable> {
        #[derive(Deserialize)]
        struct AnyFormat {
            v: u32,
        }
        let AnyFormat { v } = serde_json::from_slice(bytes).map_err(RecordUnreadable::Json)?;
        if v > RECORD_FORMAT {
            return Err(RecordUnreadable::Newer(v));
        }
        serde_json::from_slice(bytes).map_err(RecordUnreadable::Json)
    }

    /// One line of JSON, without the newline.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are always JSON")
    }

    /// When it was taken in.
    pub fn now(&self) -> Now {
        Now { at: self.at_ms, up: self.up_ms }
    }
}

/// What follows from an event on the host itself, with all that the machine decides because of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the next state is to be saved, and the effects to be performed"]
pub struct Advance {
    /// The next state.
    pub next: HostState,
    /// What is to be written to the log and reported, before the state is saved.
    pub records: Vec<Record>,
    /// What to ask for once it is saved, in this order.
    pub effects: Vec<Effect>,
    /// When the machine wants to be woken (see [`super::Step::wake_at`]).
    pub wake_at: Option<UnixMs>,
}

/// Steps through `event` and then through what the machine decides, until nothing follows. This is what an agent calls.
pub fn advance(
    state: &HostState,
    event: &Event,
    context: &Context<'_>,
    now: Now,
) -> Result<Advance, Refused> {
    let mut out = Advance { next: state.clone(), records: Vec::new(), effects: Vec::new(), wake_at: None };
    let mut event = event.clone();
    for _ in 0..DECISIONS_MAX {
        let followed = step(&out.next, &event, context, now)?;
        if followed.next.seq != out.next.seq {
            let (v, seq) = (RECORD_FORMAT, followed.next.seq);
            out.records.push(Record { v, seq, at_ms: now.at, up_ms: now.up, fact: event });
        }
        (out.next, out.wake_at) = (followed.next, followed.wake_at);
        out.effects.extend(followed.effects);
        match followed.then {
            Some(decision) => event = decision,
            None => return Ok(out),
        }
    }
    // Not reached by any state that is known; woken at once, the machine goes on where it is.
    out.wake_at = Some(now.at);
    Ok(out)
}

/// Somebody who follows a host by its records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Follower {
    state: HostState,
    early: BTreeMap<u64, Record>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was folded, and perhaps others that had waited for it: so many in all.
    Folded(usize),
    /// It was folded before.
    Repeat,
    /// It waits for those in front of it: the first that is missing is this one, to be asked for.
    Early(u64),
    /// It is further ahead than is kept; ask from this one on.
    TooEarly(u64),
}

/// What was followed is not what the host did: ask it for its state and begin there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Diverged {
    /// The record cannot follow.
    #[error("record {seq} cannot follow")]
    Refused {
        /// Its number.
        seq: u64,
        /// Why.
        #[source]
        refused: Box<Refused>,
    },
    /// The record changes nothing here, and changed something there.
    #[error("record {seq} changes nothing here")]
    NoChange {
        /// Its number.
        seq: u64,
    },
}

impl Follower {
    /// Follows from `state` on, which the host sent; from [`HostState::fresh`] for a host that is new.
    pub fn from(state: HostState) -> Self {
        Self { state, early: BTreeMap::new() }
    }

    /// The host's state as far as it was followed.
    pub fn state(&self) -> &HostState {
        &self.state
    }

    /// Takes a record in, in any order. `terms` finds what a release says to this host.
    pub fn take<'t>(
        &mut self,
        record: Record,
        seed: u64,
        terms: &dyn Fn(&ReleaseId) -> Option<&'t Terms>,
    ) -> Result<Taken, Diverged> {
        let next = self.state.seq + 1;
        if record.seq < next {
            return Ok(Taken::Repeat);
        }
        if record.seq >= next + WINDOW {
            return Ok(Taken::TooEarly(next));
        }
        self.early.insert(record.seq, record);
        let mut folded = 0;
        while let Some(record) = self.early.remove(&(self.state.seq + 1)) {
            self.fold(&record, seed, terms)?;
            folded += 1;
        }
        if folded == 0 { Ok(Taken::Early(next)) } else { Ok(Taken::Folded(folded)) }
    }

    fn fold<'t>(
        &mut self,
        record: &Record,
        seed: u64,
        terms: &dyn Fn(&ReleaseId) -> Option<&'t Terms>,
    ) -> Result<(), Diverged> {
        let seq = record.seq;
        let named = record.fact.release_verified().and_then(terms);
        let context = Context { seed, terms: named };
        let followed = step(&self.state, &record.fact, &context, record.now())
            .map_err(|refused| Diverged::Refused { seq, refused: Box::new(refused) })?;
        if followed.next.seq != seq {
            return Err(Diverged::NoChange { seq });
        }
        self.state = followed.next;
        Ok(())
    }
}
