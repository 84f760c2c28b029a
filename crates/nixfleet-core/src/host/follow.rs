//! The log of a host: what it writes, and how somebody else follows it.
//!
//! Every event that changed the state has the next number. So a repeat is known by its number and does nothing, what
//! comes out of order waits for what is before it, and a gap is seen and asked for (lesson 24). Events that changed
//! nothing have no number and are not reported: folding them would change nothing either.
//!
//! A host that has no room left drops progress that nobody has had. In its place is a record that says so
//! ([`Event::ReportsLost`]), and later one that says where the host stands ([`Event::StateTold`]). Between the two a
//! follower takes records in without knowing the state ([`Follower::is_behind`]); from the second on it does again.

use std::borrow::Cow;
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

    /// The first number that it stands for: its own, or that of the first record whose loss it tells.
    pub fn first_seq(&self) -> u64 {
        if let Event::ReportsLost { from } = &self.fact { (*from).min(self.seq) } else { self.seq }
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
    let (mut records, mut effects) = (Vec::new(), Vec::new());
    // A state is some KB; the first one is only looked at.
    let (mut at, mut event) = (Cow::Borrowed(state), Cow::Borrowed(event));
    for _ in 0..DECISIONS_MAX {
        let followed = step(&at, &event, context, now)?;
        if followed.next.seq != at.seq {
            let (v, seq, fact) = (RECORD_FORMAT, followed.next.seq, event.into_owned());
            records.push(Record { v, seq, at_ms: now.at, up_ms: now.up, fact });
        }
        at = Cow::Owned(followed.next);
        effects.extend(followed.effects);
        match followed.then {
            Some(decision) => event = Cow::Owned(decision),
            None => {
                return Ok(Advance { next: at.into_owned(), records, effects, wake_at: followed.wake_at });
            }
        }
    }
    // Not reached by any state that is known; woken at once, the machine goes on where it is.
    Ok(Advance { next: at.into_owned(), records, effects, wake_at: Some(now.at) })
}

/// Somebody who follows a host by its records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Follower {
    state: HostState,
    /// All records up to this number were taken in or are lost. Above the state's number: what they changed is not known.
    told: u64,
    /// By their first number.
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
        let told = state.seq;
        Self::resume(state, told)
    }

    /// Goes on with what [`Follower::state`] and [`Follower::told`] gave.
    pub fn resume(state: HostState, told: u64) -> Self {
        let told = told.max(state.seq);
        Self { state, told, early: BTreeMap::new() }
    }

    /// The host's state as far as it was followed.
    pub fn state(&self) -> &HostState {
        &self.state
    }

    /// The number up to which every record was taken in or is lost: what may be acknowledged.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// Whether reports were lost after the state that is known, and the host has not told its state since.
    pub fn is_behind(&self) -> bool {
        self.told > self.state.seq
    }

    /// Takes a record in, in any order. `terms` finds what a release says to this host.
    pub fn take<'t>(
        &mut self,
        record: Record,
        seed: u64,
        terms: &dyn Fn(&ReleaseId) -> Option<&'t Terms>,
    ) -> Result<Taken, Diverged> {
        let next = self.told + 1;
        let first = record.first_seq();
        if record.seq < next {
            return Ok(Taken::Repeat);
        }
        if first >= next + WINDOW {
            return Ok(Taken::TooEarly(next));
        }
        // Of two that begin at the same number, the longer says that more was lost since the other was sent.
        if self.early.get(&first).is_none_or(|known| known.seq <= record.seq) {
            self.early.insert(first, record);
        }
        let mut folded = 0;
        while let Some(entry) = self.early.first_entry().filter(|entry| *entry.key() <= self.told + 1) {
            let record = entry.remove();
            if record.seq > self.told {
                self.fold(&record, seed, terms)?;
                folded += 1;
            }
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
        let from = if let Event::ReportsLost { from: _ } = &record.fact {
            None
        } else if !self.is_behind() {
            Some(&self.state)
        } else if let Event::StateTold { state } = &record.fact {
            Some(&**state)
        } else {
            None
        };
        if let Some(from) = from {
            let named = record.fact.release_verified().and_then(terms);
            let context = Context { seed, terms: named };
            let followed = step(from, &record.fact, &context, record.now())
                .map_err(|refused| Diverged::Refused { seq, refused: Box::new(refused) })?;
            if followed.next.seq != seq {
                return Err(Diverged::NoChange { seq });
            }
            self.state = followed.next;
        }
        self.told = seq;
        Ok(())
    }
}
