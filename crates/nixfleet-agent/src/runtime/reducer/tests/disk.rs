//! What a crash leaves of the model's host: its disk, with the activation journal and the system that it boots, and the facts
//! that are read off it.

use std::collections::BTreeMap;

use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::outcome::{ActivationOutcome, Failure, Step, Verdict};
use nixfleet_core::host::terms::WaveTerms;
use nixfleet_core::host::world::{JournalSays, Reboots, Said, Setup, SourceKind, World};
use nixfleet_core::host::{Event, Record, Terms};
use nixfleet_core::ids::{ActivationId, BootId, StorePath};
use nixfleet_core::model::names::{ReleaseId, Seq, Sha256};
use nixfleet_core::model::policy::{Approval, OnFailure, WaveIndex};
use nixfleet_core::model::release::Closure;
use nixfleet_core::model::schedule::RebootPolicy;
use nixfleet_core::model::time::{Secs, UnixMs};

use crate::runtime::reducer::Saved;
use crate::runtime::workers::activation::event_of;

pub(super) const START_MS: u64 = 1_772_452_800_000;
pub(super) fn ms(at: u64) -> UnixMs {
    UnixMs::new(at).expect("in range")
}

pub(in crate::runtime) fn system(name: &str) -> StorePath {
    format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-{name}").parse().expect("well-formed")
}

pub(in crate::runtime) fn terms(seq: u64) -> Terms {
    let channel = "stable".parse().expect("a name");
    let mut digest = [0; 32];
    digest[24..].copy_from_slice(&seq.to_be_bytes());
    Terms {
        release: ReleaseId { channel, seq: Seq::new(seq).expect("in range"), digest: Sha256::new(digest) },
        resets: 0,
        system: system(&format!("s{seq}")),
        closure: Closure {
            digest: format!("sha256:{seq:064x}").parse().expect("a digest"),
            fetch_bytes: 1,
            unpacked_bytes: 1,
        },
        created_ms: ms(START_MS),
        expires_ms: ms(START_MS + 1_000_000_000_000),
        wave: WaveTerms {
            index: WaveIndex(0),
            name: "all".parse().expect("a name"),
            opens_at_ms: ms(START_MS),
            soak_secs: Secs(60),
            approval: Approval::NotNeeded,
        },
        probes: Vec::new(),
        on_failure: OnFailure::Revert,
        commit: CommitPolicy::AfterConfirm,
        confirm_within_secs: Secs(300),
        windows: Vec::new(),
        reboot: RebootPolicy::default(),
    }
}

/// How far an activation of the model is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reached {
    Switching,
    OnTrial,
    Ended(Verdict),
}

#[derive(Debug, Clone)]
pub(super) struct Activation {
    pub(super) target: StorePath,
    pub(super) previous: StorePath,
    pub(super) reached: Reached,
}

/// What a crash leaves.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) log: Vec<Record>,
    pub(super) saved: Option<Saved>,
    pub(super) journal: BTreeMap<ActivationId, Activation>,
    pub(super) runs: StorePath,
    pub(super) boots: StorePath,
    pub(super) boot: u32,
    pub(super) fires: usize,
}

pub(super) fn setup() -> Setup {
    Setup {
        agent: "0.1.0".into(),
        host: "web-1".parse().expect("a name"),
        channel: "stable".parse().expect("a name"),
        source: SourceKind::Static,
        reboots: Reboots::default(),
    }
}

pub(super) fn world(disk: &Disk) -> World {
    World {
        boot: Some(BootId::new(&format!("boot-{}", disk.boot))),
        booted: None,
        current: Some(disk.runs.clone()),
        profile: Some(disk.boots.clone()),
        reboot_needed: Vec::new(),
    }
}

pub(super) fn says(disk: &Disk, id: &ActivationId) -> JournalSays {
    let said = match disk.journal.get(id).map(|activation| &activation.reached) {
        None => Said::Nothing,
        Some(Reached::Switching) => Said::Pending(Step::Fire),
        Some(Reached::OnTrial) => Said::Pending(Step::Confirm),
        Some(Reached::Ended(_)) => Said::Ended,
    };
    JournalSays { id: id.clone(), said }
}

impl Disk {
    pub(super) fn begin(&mut self, id: &ActivationId, target: &StorePath) {
        assert!(!self.journal.contains_key(id), "{id} is begun twice");
        let pending = self.journal.values().any(|one| !matches!(one.reached, Reached::Ended(_)));
        assert!(!pending, "{id} is begun while another is not over");
        self.fires += 1;
        let (target, previous) = (target.clone(), self.runs.clone());
        self.journal.insert(id.clone(), Activation { target, previous, reached: Reached::Switching });
    }

    pub(super) fn switch(&mut self, id: &ActivationId, well: bool) -> Event {
        if !well {
            return self.end(id, Verdict::Failed { failure: Failure::Interrupted { at: Step::Fire } });
        }
        let activation = self.journal.get_mut(id).expect("it was begun");
        activation.reached = Reached::OnTrial;
        self.runs = activation.target.clone();
        self.tell(id)
    }

    pub(super) fn commit(&mut self, id: &ActivationId) -> Event {
        match self.journal.get(id).map(|one| one.reached.clone()) {
            Some(Reached::OnTrial) => self.end(id, Verdict::Converged),
            _ => self.take_up(id),
        }
    }

    pub(super) fn revert(&mut self, id: &ActivationId) -> Event {
        match self.journal.get(id).map(|one| one.reached.clone()) {
            Some(Reached::Ended(_)) | None => self.tell(id),
            Some(Reached::Switching | Reached::OnTrial) => {
                let verdict = Verdict::Reverted { failure: Failure::Asked, left: Vec::new() };
                self.end(id, verdict)
            }
        }
    }

    pub(super) fn take_up(&mut self, id: &ActivationId) -> Event {
        match self.journal.get(id).map(|one| one.reached.clone()) {
            Some(Reached::Switching) => self.switch(id, true),
            Some(Reached::OnTrial | Reached::Ended(_)) | None => self.tell(id),
        }
    }

    pub(super) fn end(&mut self, id: &ActivationId, verdict: Verdict) -> Event {
        let activation = self.journal.get_mut(id).expect("it was begun");
        let runs = match &verdict {
            Verdict::Converged => &activation.target,
            _ => &activation.previous,
        };
        (self.runs, self.boots) = (runs.clone(), runs.clone());
        activation.reached = Reached::Ended(verdict);
        self.tell(id)
    }

    pub(super) fn tell(&self, id: &ActivationId) -> Event {
        let Some(activation) = self.journal.get(id) else {
            let failure = Failure::Internal { what: "unknown".into() };
            return Event::LocalActivationFailed { failure, outcome: None, at_ms: 0 };
        };
        let verdict = match &activation.reached {
            Reached::Switching | Reached::OnTrial => Verdict::OnTrial { confirm_within_secs: 300 },
            Reached::Ended(verdict) => verdict.clone(),
        };
        let outcome = ActivationOutcome {
            id: id.clone(),
            target: activation.target.clone(),
            previous: Some(activation.previous.clone()),
            generation: None,
            verdict,
            warnings: Vec::new(),
            reboot_needed: Vec::new(),
            steps: Vec::new(),
        };
        event_of(Ok(outcome), 0)
    }

    /// What a boot brings is the boot default; a trial is over by that, and its activation says so.
    pub(super) fn reboot(&mut self) {
        self.boot += 1;
        self.runs = self.boots.clone();
        let failure = Failure::Rebooted { at: Step::Confirm };
        for activation in self.journal.values_mut() {
            if !matches!(activation.reached, Reached::Ended(_)) {
                let verdict = Verdict::Reverted { failure: failure.clone(), left: Vec::new() };
                activation.reached = Reached::Ended(verdict);
            }
        }
    }

    pub(super) fn person_reverts(&mut self) -> bool {
        let on_trial = self.journal.iter().find(|(_, one)| one.reached == Reached::OnTrial);
        let Some(id) = on_trial.map(|(id, _)| id.clone()) else { return false };
        self.end(&id, Verdict::Reverted { failure: Failure::Asked, left: Vec::new() });
        true
    }
}
