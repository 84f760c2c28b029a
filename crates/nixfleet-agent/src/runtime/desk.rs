//! The reducer's desk on a real host: the outbox, the state file, the roots and the workers.

use std::sync::Arc;

use nixfleet_core::host::{Effect, Record};
use nixfleet_core::ids::{ActivationId, StorePath};

use super::applier::Applier;
use super::outbox::{Outbox, OutboxError, Room, Written};
use super::reducer::Desk;
use super::roots;
use super::state_file::{Saved, StateFile};
use crate::activation::ActivationBackend;
use crate::activation::host::HostPaths;
use crate::activation::profile::describe;
use crate::activation::types::Observer;
use nixfleet_sys::fs::FsError;

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
    ) -> Self {
        Self { file, outbox, host, applier, voice, kept: None }
    }

    /// Finishes what a person's agent left behind, if it did.
    pub fn tidy_up(&mut self, ours: Option<ActivationId>) {
        self.applier.tidy_up(ours);
    }
}

impl<B: ActivationBackend + Send + 'static> Desk for HostDesk<B> {
    type Error = NotWritten;

    fn append(&mut self, records: &[Record]) -> Result<(), NotWritten> {
        let Written { dropped, room } = self.outbox.append(records).map_err(NotWritten::Log)?;
        if dropped > 0 {
            self.voice
                .remark(&format!("the outbox is full: {dropped} reports of progress were dropped unsent"));
        }
        match room {
            Room::Enough => {}
            Room::Stretched { bytes, bytes_max } => self.voice.remark(&format!(
                "the outbox holds {bytes} bytes of what may not be dropped, and {bytes_max} are meant for it"
            )),
            Room::NotTidied(error) => self.voice.remark(&format!("error: {}", describe(&error))),
        }
        Ok(())
    }

    fn save(&mut self, saved: &Saved) -> Result<(), NotWritten> {
        self.file.save(saved).map_err(NotWritten::State)
    }

    fn keep(&mut self, wanted: &[&StorePath]) {
        let same = self.kept.as_ref().is_some_and(|kept| kept.iter().eq(wanted.iter().copied()));
        if same {
            return;
        }
        match roots::keep(&self.host, wanted) {
            Ok(()) => self.kept = Some(wanted.iter().map(|system| (*system).clone()).collect()),
            // Tried again at the next turn.
            Err(error) => self.voice.remark(&format!("error: {}", describe(&error))),
        }
    }

    fn perform(&mut self, effect: Effect) {
        self.applier.perform(effect);
    }

    fn owes_state(&self) -> bool {
        self.outbox.owes_state()
    }
}
