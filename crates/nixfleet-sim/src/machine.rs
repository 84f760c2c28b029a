//! A host's hardware and operating system, as far as they matter: what runs, what boots, the activation journal, the clock.
//! Written from what `activation.md` promises of an activation, not from the host machine.

use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::inhibit::Inhibitor;
use nixfleet_core::activation::outcome::{ActivationOutcome, Failure, Verdict};
use nixfleet_core::host::probing::ProbeRef;
use nixfleet_core::host::world::World;
use nixfleet_core::host::{Now, UpMs};
use nixfleet_core::ids::{ActivationId, BootId};
use nixfleet_core::model::time::UnixMs;

use crate::truth::{System, Truth};

/// One machine.
pub(crate) struct Machine {
    pub(crate) boot: u32,
    pub(crate) booted_at: u64,
    /// Whether it is switched on.
    pub(crate) is_up: bool,
    pub(crate) booted: System,
    pub(crate) current: System,
    pub(crate) profile: System,
    /// What the boot loader starts: on trial another one than the profile.
    pub(crate) boot_default: System,
    pub(crate) journal: Vec<Activation>,
    /// What its clock is ahead, in ms.
    pub(crate) skew: i64,
    pub(crate) disk_full: bool,
    /// From here on the probes that matter fail.
    pub(crate) sick_at: Option<u64>,
    /// A person switched last: the agent may not know yet.
    pub(crate) is_by_hand: bool,
    /// The probes that were seen to pass since the running system was last changed or booted.
    pub(crate) passed: Vec<ProbeRef>,
}

/// An activation in the journal.
pub(crate) struct Activation {
    pub(crate) id: ActivationId,
    pub(crate) target: System,
    pub(crate) previous: System,
    pub(crate) commit: CommitPolicy,
    /// In which boot its newest line was written.
    pub(crate) boot: u32,
    pub(crate) stand: Stand,
    /// From the fire to the confirmation.
    pub(crate) within_ms: u64,
    /// Until when it must be confirmed, in time of the run.
    pub(crate) deadline: Option<u64>,
    /// How often its switch was started.
    pub(crate) fires: u32,
}

/// How far it is.
pub(crate) enum Stand {
    Begun,
    /// The switch's unit runs, or is over and nobody has judged it yet.
    Running {
        over: bool,
        fate: Fate,
    },
    Trial,
    /// Confirmed: the boot entries are being written.
    Confirmed,
    Deferred,
    Reverting(Failure),
    Ended(Box<ActivationOutcome>),
}

/// What becomes of a switch that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Live,
    /// Units fail: the activation goes back.
    UnitsFail,
    /// Units fail, and the way back fails too.
    StaysBroken,
}

impl Activation {
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.stand, Stand::Ended(_))
    }
}

impl Machine {
    pub(crate) fn new(system: System, booted_at: u64) -> Self {
        Self {
            boot: 1,
            booted_at,
            is_up: true,
            booted: system,
            current: system,
            profile: system,
            boot_default: system,
            journal: Vec::new(),
            skew: 0,
            disk_full: false,
            sick_at: None,
            is_by_hand: false,
            passed: Vec::new(),
        }
    }

    /// What its clocks say.
    pub(crate) fn now(&self, now: u64) -> Now {
        let at = now.saturating_add_signed(self.skew);
        Now { at: UnixMs::new(at).unwrap_or(UnixMs::MAX), up: UpMs(now.saturating_sub(self.booted_at)) }
    }

    pub(crate) fn boot_id(&self) -> BootId {
        BootId::new(&format!("boot-{}", self.boot))
    }

    /// What the agent sees when it looks.
    pub(crate) fn world(&self, truth: &Truth) -> World {
        World {
            boot: Some(self.boot_id()),
            booted: Some(truth.path(self.booted).clone()),
            current: Some(truth.path(self.current).clone()),
            profile: Some(truth.path(self.profile).clone()),
            reboot_needed: self.reboot_needed(truth),
        }
    }

    /// What of the running system only a reboot brings.
    pub(crate) fn reboot_needed(&self, truth: &Truth) -> Vec<Inhibitor> {
        let wants = self.current != self.booted && truth.quality(self.current).wants_reboot;
        let firmware = || Inhibitor { key: "initrd".into(), old: "a".into(), new: "b".into() };
        if wants { vec![firmware()] } else { Vec::new() }
    }

    /// Another system runs, or the same one anew.
    pub(crate) fn runs(&mut self, system: System, sick_at: Option<u64>) {
        self.current = system;
        (self.sick_at, self.is_by_hand) = (sick_at, false);
        self.passed.clear();
    }

    pub(crate) fn find(&self, id: &ActivationId) -> Option<usize> {
        self.journal.iter().rposition(|activation| activation.id == *id)
    }

    /// The activation that is not over.
    pub(crate) fn open(&self) -> Option<&Activation> {
        self.journal.iter().rfind(|activation| activation.is_open())
    }

    /// What an activation tells.
    pub(crate) fn outcome(&self, at: usize, verdict: Verdict, truth: &Truth) -> ActivationOutcome {
        let activation = &self.journal[at];
        let live = matches!(verdict, Verdict::Converged | Verdict::OnTrial { .. });
        ActivationOutcome {
            id: activation.id.clone(),
            target: truth.path(activation.target).clone(),
            previous: Some(truth.path(activation.previous).clone()),
            generation: None,
            verdict,
            warnings: Vec::new(),
            reboot_needed: if live { self.reboot_needed(truth) } else { Vec::new() },
            steps: Vec::new(),
        }
    }
}
