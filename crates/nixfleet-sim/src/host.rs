//! A host: its machine, what its agent keeps on disk, and the agent's process, if one runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::host::effect::Back;
use nixfleet_core::host::event::HookRun;
use nixfleet_core::host::probing::{ProbeRef, WatchId};
use nixfleet_core::host::retry::seed_of;
use nixfleet_core::host::world::{Reboots, Setup};
use nixfleet_core::host::{Event, HostState};
use nixfleet_core::ids::ActivationId;
use nixfleet_core::model::names::{ReleaseId, Seq};
use nixfleet_core::model::time::UnixMs;

use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::story::HostStory;
use crate::truth::System;

/// One host.
pub(crate) struct Host {
    pub(crate) channel: usize,
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    pub(crate) machine: Machine,
    pub(crate) disk: Disk,
    pub(crate) agent: Option<Agent>,
    /// How many processes of the agent there were: what was meant for an older one is dropped.
    pub(crate) processes: u32,
    /// Whether its requests, and the answers to them, get through.
    pub(crate) net: Net,
    /// What the checks remember of it.
    pub(crate) seen: Seen,
}

/// Which ways of the network are cut.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Net {
    pub(crate) out_cut: bool,
    pub(crate) in_cut: bool,
}

/// What survives the agent: the state with what is trusted, and the log.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) state: HostState,
    pub(crate) trust: Trust,
    pub(crate) outbox: Outbox,
}

/// What is trusted, saved together with the state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Trust {
    /// The newest release that was accepted.
    pub(crate) floor: Option<ReleaseId>,
    /// The newest time that was signed.
    pub(crate) signed_ms: UnixMs,
}

/// What the checks remember of a host.
#[derive(Default)]
pub(crate) struct Seen {
    /// The highest number of a release that was ever known here.
    pub(crate) floor: Option<Seq>,
    /// The number of the newest event that was saved.
    pub(crate) saved: u64,
    /// The control plane gave it up while it was on its way.
    pub(crate) is_given_up: bool,
    /// The control plane took its order back, and has told it nothing since that would make it move.
    pub(crate) is_taken_back: bool,
    /// Systems that a verified release named for it, and what it ran at the beginning.
    pub(crate) allowed: BTreeSet<System>,
    /// Releases for which the owner's control plane ordered it to go, with the numbers of these orders; not those that it forgot
    /// since it was called back.
    pub(crate) let_go: BTreeMap<ReleaseId, u64>,
    /// Releases from which the owner's control plane ordered it back.
    /// Not those after which it was told to go.
    pub(crate) told_back: BTreeSet<ReleaseId>,
    /// The number of the newest order to forget one that arrived.
    pub(crate) called_back: u64,
    /// Orders of the thief reached it.
    pub(crate) was_misled: bool,
}

/// The agent's process: what dies with it.
pub(crate) struct Agent {
    pub(crate) number: u32,
    pub(crate) jobs: VecDeque<Job>,
    /// What the activation worker works on, and whether it waits for the switch's unit.
    pub(crate) job: Option<(Job, bool)>,
    pub(crate) staging: Option<ReleaseId>,
    pub(crate) stagings: u32,
    pub(crate) probing: Option<Probing>,
    /// The watch for which the source is asked over a fresh connection.
    pub(crate) asks: Option<WatchId>,
    pub(crate) hooks: Vec<HookRun>,
    pub(crate) reboot: bool,
    pub(crate) looks_soon: bool,
    /// When the newest wake-up in the queue comes.
    pub(crate) wakes_at: Option<u64>,
    /// What it wants to be woken for.
    pub(crate) wants_at: Option<u64>,
    /// What came while nothing could be written.
    pub(crate) inbox: VecDeque<Input>,
    /// The release that the source offered last.
    pub(crate) offered: Option<ReleaseId>,
    pub(crate) reporting: Half,
    pub(crate) ordering: Half,
    /// The link and the control plane know the same.
    pub(crate) known: bool,
    /// Orders up to this number were told.
    pub(crate) after: u64,
}

/// One of the two connections of the link.
#[derive(Debug, Default)]
pub(crate) struct Half {
    /// The request that is not answered yet.
    pub(crate) waits_for: Option<u64>,
    pub(crate) failures: u32,
    /// The next turn is in the queue.
    pub(crate) is_due: bool,
}

/// Probes that run.
pub(crate) struct Probing {
    pub(crate) watch: WatchId,
    pub(crate) probes: Vec<ProbeRef>,
    pub(crate) runs: u32,
}

/// What a worker tells the reducer.
pub(crate) struct Input {
    pub(crate) event: Event,
    pub(crate) terms: Option<std::sync::Arc<nixfleet_core::host::Terms>>,
    pub(crate) trust: Option<Trust>,
}

impl From<Event> for Input {
    fn from(event: Event) -> Self {
        Self { event, terms: None, trust: None }
    }
}

/// What the activation worker is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Job {
    Activate { id: ActivationId, target: System, commit: CommitPolicy, within_ms: u64 },
    Commit(ActivationId),
    Revert { id: ActivationId, back: Back, to: System, failure: Failure },
    TakeUp(ActivationId),
}

impl Job {
    pub(crate) fn id(&self) -> &ActivationId {
        match self {
            Self::Activate { id, .. } | Self::Commit(id) | Self::Revert { id, .. } | Self::TakeUp(id) => id,
        }
    }
}

impl Host {
    pub(crate) fn new(
        story: &HostStory,
        channel: &crate::story::ChannelStory,
        system: System,
        at: u64,
    ) -> Self {
        let setup = Setup {
            agent: "0.1.0".to_owned(),
            host: story.name.clone(),
            channel: channel.name.clone(),
            source: story.source,
            reboots: Reboots::default(),
        };
        Self {
            channel: story.channel,
            seed: seed_of(&story.name),
            setup,
            machine: Machine::new(system, at),
            disk: Disk::default(),
            agent: None,
            processes: 0,
            net: Net::default(),
            seen: Seen { allowed: BTreeSet::from([system]), ..Seen::default() },
        }
    }
}

impl Agent {
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            jobs: VecDeque::new(),
            job: None,
            staging: None,
            stagings: 0,
            probing: None,
            asks: None,
            hooks: Vec::new(),
            reboot: false,
            looks_soon: false,
            wakes_at: None,
            wants_at: None,
            inbox: VecDeque::new(),
            offered: None,
            reporting: Half::default(),
            ordering: Half::default(),
            known: false,
            after: 0,
        }
    }
}
