//! The reducer's desk on a real host: the outbox, the state file, the roots and the workers.

use std::error::Error;
use std::sync::Arc;

use nixfleet_core::host::saved::SavedState;
use nixfleet_core::host::{Effect, HostState, Record};
use nixfleet_core::ids::{ActivationId, StorePath};
use nixfleet_core::model::names::Sha256;
use nixfleet_core::wire::{BATCH_RECORDS_MAX, Hello, state_bytes};
use sha2::Digest;
use tokio::sync::watch;

use super::applier::Applier;
use super::input::{Errand, WithState};
use super::outbox::{Outbox, OutboxError, Room, Written};
use super::reducer::Desk;
use super::roots;
use super::state_file::{Saved, StateFile};
use crate::activation::ActivationBackend;
use crate::activation::host::HostPaths;
use crate::activation::types::{Observer, Weight};
use nixfleet_sys::fs::FsError;
use nixfleet_sys::text::chain;

/// How much is sent at once, in bytes of JSON: half of what a batch may have, since a record counts by its line here.
const SENT_BYTES_MAX: usize = nixfleet_core::wire::BATCH_BYTES_MAX / 2;

/// Why something could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// The log.
    #[error("the log of this host's events cannot be written")]
    Log(#[source] OutboxError),
    /// The state.
    #[error("this host's state cannot be saved")]
    State(#[source] FsError),
}

/// Where the reducer writes, and whom it has work.
pub struct HostDesk<B> {
    file: StateFile,
    outbox: Outbox,
    host: HostPaths,
    applier: Applier<B>,
    voice: Arc<dyn Observer>,
    /// The newest number that is saved, for whoever sends.
    newest: watch::Sender<u64>,
    /// What is rooted; `None` until the first look.
    kept: Option<Vec<StorePath>>,
}

impl<B: ActivationBackend + Send + 'static> HostDesk<B> {
    /// With these files and workers.
    pub fn new(
        (file, outbox): (StateFile, Outbox),
        host: HostPaths,
        applier: Applier<B>,
        voice: Arc<dyn Observer>,
        newest: watch::Sender<u64>,
    ) -> Self {
        Self { file, outbox, host, applier, voice, newest, kept: None }
    }

    /// Tells people what became of what was in the outbox.
    fn tell_room(&self, written: &Written) {
        let Written { dropped, room } = written;
        if *dropped > 0 {
            let what = format!("the outbox is full: {dropped} reports of progress were dropped unsent");
            self.voice.remark(Weight::Warning, &what);
        }
        match room {
            Room::Enough => {}
            Room::Stretched { bytes, bytes_max } => {
                let what = format!(
                    "the outbox holds {bytes} bytes of what may not be dropped, and {bytes_max} are meant for it"
                );
                self.voice.remark(Weight::Warning, &what);
            }
            Room::NotTidied(error) => self.tell_error(error),
        }
    }

    /// Does what the link to a control plane needs, on a host in `state`, which is saved.
    pub fn run_errand(&mut self, errand: Errand, state: &HostState) {
        match errand {
            // The link is gone if nobody takes it, and the process is about to end.
            Errand::Unsent { reply } => {
                drop(reply.send(self.outbox.unsent(BATCH_RECORDS_MAX, SENT_BYTES_MAX)));
            }
            Errand::Received { next } => self.received(next),
            Errand::Hello { state: with, reply } => {
                drop(reply.send(Box::new(hello(state, with, self.outbox.whole_from()))));
            }
        }
    }

    /// Notes what the control plane has. What cannot be noted is sent again, which is harmless.
    fn received(&mut self, next: u64) {
        let has = next.saturating_sub(1);
        let noted = if has < self.outbox.acknowledged() {
            self.outbox.send_again_from(next)
        } else {
            self.outbox.acknowledge(has)
        };
        match noted {
            Ok(written) => self.tell_room(&written),
            Err(error) => self.tell_error(&error),
        }
    }

    fn tell_error(&self, error: &dyn Error) {
        self.voice.remark(Weight::Error, &format!("error: {}", chain(error)));
    }

    /// Finishes what a person's agent left behind, if it did.
    pub fn tidy_up(&mut self, ours: Option<ActivationId>) {
        self.applier.tidy_up(ours);
    }
}

impl<B: ActivationBackend + Send + 'static> Desk for HostDesk<B> {
    type Error = NotWritten;

    fn append(&mut self, records: &[Record]) -> Result<(), NotWritten> {
        let written = self.outbox.append(records).map_err(NotWritten::Log)?;
        self.tell_room(&written);
        Ok(())
    }

    fn save(&mut self, saved: &Saved) -> Result<(), NotWritten> {
        self.file.save(saved).map_err(NotWritten::State)?;
        // Only now may it be sent.
        self.newest.send_if_modified(|newest| std::mem::replace(newest, saved.host.seq) != saved.host.seq);
        Ok(())
    }

    fn keep(&mut self, wanted: &[&StorePath]) {
        let same = self.kept.as_ref().is_some_and(|kept| kept.iter().eq(wanted.iter().copied()));
        if same {
            return;
        }
        match roots::keep(&self.host, wanted) {
            Ok(()) => self.kept = Some(wanted.iter().map(|system| (*system).clone()).collect()),
            // Tried again at the next turn.
            Err(error) => self.tell_error(&error),
        }
    }

    fn perform(&mut self, effect: Effect) {
        self.applier.perform(effect);
    }

    fn owes_state(&self) -> bool {
        self.outbox.owes_state()
    }
}

/// Who this host is to a control plane, in a state that is saved; from `oldest` on it can send every event.
fn hello(state: &HostState, with: WithState, oldest: u64) -> Hello {
    Hello {
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        seq: state.seq,
        digest: Sha256::new(sha2::Sha256::digest(state_bytes(state)).into()),
        oldest,
        state: match with {
            WithState::Yes => Some(Box::new(SavedState(state.clone()))),
            WithState::No => None,
        },
    }
}
