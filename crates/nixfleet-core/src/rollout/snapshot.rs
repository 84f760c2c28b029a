//! Everything that a plan is made from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::fact::{Current, Placed};
use super::hosts::Hosts;
use super::order::What;
use super::progress::{By, Quarantine, Rollout};
use crate::activation::outcome::FailureClass;
use crate::host::state::Hold;
use crate::host::waiting::{RestartBy, StateName};
use crate::host::{HostState, Phase};
use crate::ids::StorePath;
use crate::model::names::{ChannelName, HostName, ReleaseId};
use crate::model::time::UnixMs;

/// What is known of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Since when the control plane listens: a host's silence is not counted from before, or an outage of the control
    /// plane would make every host look as if it were away.
    pub listening_since_ms: UnixMs,
    /// The channels.
    pub channels: BTreeMap<ChannelName, Channel>,
    /// The channel of each host: an index over `channels`, kept by the fold.
    pub homes: BTreeMap<HostName, ChannelName>,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Its newest verified release.
    pub current: Current,
    /// The hosts that this release names.
    pub hosts: Hosts,
    /// The newest rollout; it may still be that of an older release.
    pub rollout: Option<Rollout>,
    /// Systems that failed here. They outlive their rollout: a newer release with the same system does not move.
    pub quarantine: BTreeMap<StorePath, Quarantine>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// What the newest release says of it.
    pub placed: Placed,
    /// How it stands by its own reports; `None` if it never reported.
    pub standing: Option<Standing>,
    /// When it was last heard of.
    pub heard_ms: Option<UnixMs>,
    /// What was ordered and is not yet seen to have begun.
    pub ordered: Option<Ordered>,
    /// The person who keeps it, by a verb.
    pub hold: Option<Hold>,
    /// The person who left it out of the current rollout.
    pub skip: Option<By>,
    /// The person who wants it tried again, until that is ordered.
    pub retry: Option<By>,
}

impl Host {
    /// Whether something was ordered of it that it does not say to have. It may be on its way.
    pub fn may_not_have_its_order(&self) -> bool {
        let has = |ordered| self.standing.as_ref().is_some_and(|standing| standing.has_noted(ordered));
        self.ordered.as_ref().is_some_and(|ordered| !has(ordered))
    }

    /// A host of which nothing is known but its entry.
    pub fn new(placed: Placed) -> Self {
        Self { placed, standing: None, heard_ms: None, ordered: None, hold: None, skip: None, retry: None }
    }
}

/// What is remembered of a host beside its newest entry and its own reports: what was ordered, and what people asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Remembered {
    /// What was ordered and is not yet seen to have begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<Ordered>,
    /// The person who keeps it, by a verb.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The person who left it out of the current rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<By>,
    /// The person who wants it tried again, until that is ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<By>,
}

impl Remembered {
    /// The host of which this is remembered.
    pub fn host(self, placed: Placed, standing: Option<Standing>, heard_ms: Option<UnixMs>) -> Host {
        let Self { ordered, hold, skip, retry } = self;
        Host { placed, standing, heard_ms, ordered, hold, skip, retry }
    }

    /// What is remembered of `host`.
    pub fn of(host: Host) -> Self {
        let Host { placed: _, standing: _, heard_ms: _, ordered, hold, skip, retry } = host;
        Self { ordered, hold, skip, retry }
    }
}

/// An order that is not yet seen to have begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ordered {
    /// What.
    pub what: What,
    /// For which release.
    pub release: ReleaseId,
    /// When.
    pub at_ms: UnixMs,
    /// [`Standing::since_ms`] at that time, by which a state that was entered since is told from the one before.
    pub since_ms: Option<UnixMs>,
    /// The person who asked for it, if it is another try: that it was asked for outlives an order that is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<By>,
}

/// How a host stands: of its folded state what the planner needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Its state.
    pub state: StateName,
    /// Since when, by the host's own clock.
    pub since_ms: UnixMs,
    /// The release that its state is about; when it has converged, the one that is done.
    pub about: Option<ReleaseId>,
    /// The release that it was ordered to go for, by its own word.
    pub go: Option<ReleaseId>,
    /// The release for which it was let restart, by its own word.
    pub reboot_go: Option<ReleaseId>,
    /// Whether it has converged and should be restarted into what it runs.
    pub reboot: RebootWanted,
    /// The release that it runs, was ordered to go back from, and stays on: it has nothing to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_way_back: Option<ReleaseId>,
    /// By whom it is restarted, if it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_by: Option<RestartBy>,
    /// How it failed, if its state is a failure.
    pub failure: Option<StandingFailure>,
    /// The person who keeps it, by its own word.
    pub hold: Option<Hold>,
}

/// Whether a converged host should be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RebootWanted {
    /// It need not.
    No,
    /// Its policy wants it.
    Yes,
}

/// How a host failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingFailure {
    /// Of which kind it is.
    pub class: FailureClass,
    /// Whether the host tries again by itself.
    pub then: Then,
    /// The system that the host itself does not try again.
    pub quarantined: Option<StorePath>,
}

/// What a host does after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// It tries again by itself, since waiting may help.
    TriesAgain,
    /// It waits for a newer release or a person.
    Stays,
}

impl Standing {
    /// How a host with this state stands.
    pub fn of(state: &HostState) -> Self {
        let settled = state.settled.as_ref().map(|done| &*done.terms);
        let about = state.phase.target().or(settled).map(|terms| terms.release.clone());
        Self {
            state: state.phase.name(),
            since_ms: state.since_ms,
            about,
            go: state.go.clone(),
            reboot_go: state.reboot_go.clone(),
            reboot: if state.wants_reboot() { RebootWanted::Yes } else { RebootWanted::No },
            no_way_back: state.no_way_back().cloned(),
            restart_by: state.restart_by(),
            failure: failure(state),
            hold: state.hold.clone(),
        }
    }

    /// Whether the host has an order for `release`, by its own word, and has not begun: it fetches, waits for a window, for
    /// the end of a pause, or for its restart. It may begin at any moment, unless the order is taken back.
    pub fn may_begin(&self, release: &ReleaseId) -> bool {
        let restarts = self.reboot_go.as_ref() == Some(release) && self.about.as_ref() == Some(release);
        self.may_switch(release) || (restarts && self.may_restart())
    }

    /// Whether the host has the order, by its own word. Of orders that are followed at once it says nothing.
    pub fn has_noted(&self, ordered: &Ordered) -> bool {
        match ordered.what {
            What::Go => self.go.as_ref() == Some(&ordered.release),
            What::Reboot => self.reboot_go.as_ref() == Some(&ordered.release),
            What::Stage | What::Retry | What::Revert | What::Withdraw => false,
        }
    }

    /// Whether it was ordered to go back from `release`, and says that it has nothing to go back to.
    pub fn stays_on(&self, release: &ReleaseId) -> bool {
        self.no_way_back.as_ref() == Some(release)
    }

    /// Whether that is an order to switch.
    pub fn may_switch(&self, release: &ReleaseId) -> bool {
        self.go.as_ref() == Some(release) && self.is_before(release)
    }

    /// Whether it has not begun to switch to `release`.
    fn is_before(&self, release: &ReleaseId) -> bool {
        match &self.about {
            Some(about) if about == release => match self.state {
                StateName::Staging | StateName::Staged => true,
                StateName::Failed => self.failure.as_ref().is_some_and(|why| why.then == Then::TriesAgain),
                StateName::Converged
                | StateName::Activating
                | StateName::AwaitingReboot
                | StateName::Confirming
                | StateName::Soaking
                | StateName::Reverting
                | StateName::Reverted => false,
            },
            Some(about) => about.channel != release.channel || about.seq < release.seq,
            None => true,
        }
    }

    /// With the leave to restart, it may still do so. One that is going down cannot be told from one whose restart was put
    /// off; the host knows which it is.
    fn may_restart(&self) -> bool {
        match self.state {
            StateName::Converged => self.reboot == RebootWanted::Yes,
            StateName::AwaitingReboot => true,
            StateName::Staging
            | StateName::Staged
            | StateName::Activating
            | StateName::Confirming
            | StateName::Soaking
            | StateName::Reverting
            | StateName::Reverted
            | StateName::Failed => false,
        }
    }
}

fn failure(state: &HostState) -> Option<StandingFailure> {
    let then = match &state.phase {
        Phase::Failed(failed) if failed.again_up_ms.is_some() => Then::TriesAgain,
        Phase::Failed(_) | Phase::Reverted(_) => Then::Stays,
        Phase::Converged
        | Phase::Staging(_)
        | Phase::Staged(_)
        | Phase::Activating(_)
        | Phase::AwaitingReboot(_)
        | Phase::Confirming(_)
        | Phase::Soaking(_)
        | Phase::Reverting(_) => return None,
    };
    let class = state.phase.failure()?.class();
    Some(StandingFailure { class, then, quarantined: state.quarantined().cloned() })
}

impl Snapshot {
    /// A fleet of which nothing is known, by a control plane that listens since then.
    pub fn new(listening_since_ms: UnixMs) -> Self {
        Self { listening_since_ms, channels: BTreeMap::new(), homes: BTreeMap::new() }
    }

    /// A host with its channel.
    pub fn host(&self, name: &HostName) -> Option<(&Channel, &Host)> {
        let channel = self.channels.get(self.homes.get(name)?)?;
        Some((channel, channel.hosts.get(name)?))
    }

    /// The names of all systems that are quarantined somewhere.
    pub fn quarantined(&self) -> BTreeSet<&StorePath> {
        self.channels.values().flat_map(|channel| channel.quarantine.keys()).collect()
    }
}
