//! The one owner of the host's state: takes an input, asks the pure machine, writes the log, saves, and only then has
//! anything done.
//!
//! ```text
//! input -> host::advance -> log (synced) -> state.json (synced) -> effects
//! ```
//!
//! A crash between two of these loses nothing: what is in the log and not in the state is cut off the log at the next
//! start, and effects that were not performed are asked for again by `AgentStarted`. Nothing here waits, decides, or reads
//! a clock. The loop around it is [`super::follow`]; what is outside of it is behind [`Desk`], so that the model test can
//! cut it off at every write.

use std::mem;

use nixfleet_core::host::{Advance, Context, Effect, Event, HostState, Now, Record, Refused, Terms, advance};
use nixfleet_core::ids::{ActivationId, StorePath};
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::trust::SavedTrust;

use super::state_file::Saved;
use crate::failpoint;

/// What the reducer writes to and has things done by.
pub trait Desk {
    /// Why something could not be written.
    type Error;

    /// Appends to the log; when this returns, a power cut does not lose them. Records that an attempt before it left are
    /// not there twice.
    fn append(&mut self, records: &[Record]) -> Result<(), Self::Error>;

    /// Replaces the state; when this returns, a power cut finds the new one.
    fn save(&mut self, saved: &Saved) -> Result<(), Self::Error>;

    /// Keeps these systems, and no others of ours, from collection.
    fn keep(&mut self, wanted: &[&StorePath]);

    /// Has one thing done; never waits for it.
    fn perform(&mut self, effect: Effect);

    /// Whether reports were lost, and whoever follows cannot go on until it is told where the host stands.
    fn owes_state(&self) -> bool;
}

/// An input in the form in which it is stepped through.
#[derive(Debug, Clone, Default)]
pub struct Fact {
    /// What happened; `None` if only the trust moved.
    pub event: Option<Event>,
    /// The terms of the release that the event names.
    pub terms: Option<Box<Terms>>,
    /// What to trust from now on.
    pub trust: Option<SavedTrust>,
}

impl From<Event> for Fact {
    fn from(event: Event) -> Self {
        Self { event: Some(event), terms: None, trust: None }
    }
}

/// What follows from one input, on its way to the disk.
#[derive(Debug)]
#[must_use = "it is to be written, and then its effects are to be performed"]
pub struct Prepared {
    next: Saved,
    records: Vec<Record>,
    effects: Vec<Effect>,
    wake: Option<Wake>,
    written: Written,
}

/// How much of it is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Nothing,
    Log,
    All,
}

/// When the machine wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// By the clock of `asked`.
    pub at: UnixMs,
    /// When it asked.
    pub asked: Now,
}

/// The state, and who writes it down.
#[derive(Debug)]
pub struct Reducer<D> {
    saved: Saved,
    seed: u64,
    wake: Option<Wake>,
    desk: D,
}

impl<D: Desk> Reducer<D> {
    /// Goes on from what was saved. `seed` is [`nixfleet_core::host::retry::seed_of`] the host.
    pub fn new(saved: Saved, seed: u64, desk: D) -> Self {
        Self { saved, seed, wake: None, desk }
    }

    /// Where the host stands.
    pub fn state(&self) -> &HostState {
        &self.saved.host
    }

    /// When the machine wants to be woken next.
    pub fn wake(&self) -> Option<Wake> {
        self.wake
    }

    /// Who writes it down.
    pub fn desk(&mut self) -> &mut D {
        &mut self.desk
    }

    /// Who writes it down, and the state that is saved.
    pub fn desk_and_state(&mut self) -> (&mut D, &HostState) {
        (&mut self.desk, &self.saved.host)
    }

    /// The activation that is this machine's own.
    pub fn in_flight(&self) -> Option<&ActivationId> {
        self.saved.host.activation_in_flight()
    }

    /// What follows from `fact`, which came at `now`. The second is why the event was not taken; what to trust is taken all
    /// the same.
    pub fn prepare(&self, fact: Fact, now: Now) -> (Prepared, Option<Refused>) {
        let Fact { event, terms, trust } = fact;
        let context = Context { seed: self.seed, terms: terms.as_deref() };
        let followed = event.map(|event| advance(&self.saved.host, &event, &context, now)).transpose();
        let (followed, refused) = match followed {
            Ok(followed) => (followed, None),
            Err(refused) => (None, Some(refused)),
        };
        let trust = trust.or_else(|| self.saved.trust.clone());
        let prepared = match followed {
            Some(Advance { next, records, effects, wake_at }) => Prepared {
                next: Saved { host: next, trust },
                records,
                effects,
                wake: wake_at.map(|at| Wake { at, asked: now }),
                written: Written::Nothing,
            },
            None => Prepared {
                next: Saved { host: self.saved.host.clone(), trust },
                records: Vec::new(),
                effects: Vec::new(),
                wake: self.wake,
                written: Written::Nothing,
            },
        };
        (prepared, refused)
    }

    /// What is to be stepped through before anything else: the state told, where reports were lost.
    pub fn owed(&self) -> Option<Fact> {
        let told = || Event::StateTold { state: Box::new(self.saved.host.clone()) };
        self.desk.owes_state().then(|| told().into())
    }

    /// Writes it down, the log first. After an error, call it again with the same: it goes on where it failed, and nothing
    /// has been done because of it yet.
    pub fn persist(&mut self, prepared: &mut Prepared) -> Result<(), D::Error> {
        if prepared.next == self.saved {
            prepared.written = Written::All;
        }
        if prepared.written == Written::Nothing {
            failpoint::hit("before-log");
            if !prepared.records.is_empty() {
                self.desk.append(&prepared.records)?;
            }
            prepared.written = Written::Log;
            failpoint::hit("after-log");
        }
        if prepared.written == Written::Log {
            failpoint::hit("before-save");
            self.desk.save(&prepared.next)?;
            prepared.written = Written::All;
            failpoint::hit("after-save");
        }
        Ok(())
    }

    /// Has done what follows from it. The state before it is returned, for whoever tells people.
    pub fn finish(&mut self, prepared: Prepared) -> HostState {
        let Prepared { next, records: _, effects, wake, written } = prepared;
        debug_assert_eq!(written, Written::All, "effects come after the save");
        let before = mem::replace(&mut self.saved, next);
        self.wake = wake;
        self.desk.keep(&self.saved.host.wanted_systems());
        for effect in effects {
            self.desk.perform(effect);
        }
        failpoint::hit("after-effects");
        before.host
    }
}

#[cfg(test)]
pub(super) mod tests;
