//! How a rollout goes. It is signed with the release, so a stolen control plane can delay and cannot loosen it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::is_default;
use super::names::{ChannelName, WaveName};
use super::schedule::{RebootPolicy, Window};
use super::select::{Amount, Selector};
use super::time::{Secs, UnixMs};
use crate::activation::events::CommitPolicy;

/// How a release goes out to its channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The waves in order; at least one. Which wave a host is in is said by its entry.
    pub waves: Vec<Wave>,
    /// How many hosts of a group may be on their way at the same time; every one of them holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub max_in_flight: Vec<Budget>,
    /// Which hosts wait for which others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Edge>,
    /// Channels that must have converged on the same source revision before a wave of this one opens.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub after: BTreeSet<ChannelName>,
    /// How many hosts of the channel may be told to fetch at the same time; `None` means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_in_flight: Option<Amount>,
    /// The rollout halts when more than so many different hosts have failed.
    pub max_failures: u32,
    /// What a failure does.
    pub on_failure: OnFailure,
    /// When a system becomes the boot default.
    pub commit: CommitPolicy,
    /// From the switch to the confirmation; after it the previous system comes back.
    pub confirm_within_secs: Secs,
    /// When a host may switch; empty means at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// How and when hosts restart.
    pub reboot: RebootPolicy,
    /// A host that was silent for this long blocks nobody; it catches up later.
    pub offline_after_secs: Secs,
}

impl Policy {
    /// The wave `index`, if there is such a one.
    pub fn wave(&self, index: WaveIndex) -> Option<&Wave> {
        self.waves.get(usize::from(index.0))
    }
}

/// The place of a wave in [`Policy::waves`], from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WaveIndex(pub u16);

impl fmt::Display for WaveIndex {
    /// As people count, from 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", u32::from(self.0) + 1)
    }
}

/// One wave of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// Its name, for people.
    pub name: WaveName,
    /// The earliest opening, from the release's creation: nobody can hurry a host past it. Under a source without a
    /// control plane the wave opens then. No wave opens earlier than the one before it.
    pub opens_after_secs: Secs,
    /// How long a host of this wave is watched after its own activation before it counts as done.
    pub soak_secs: Secs,
    /// Whether a person must open it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub approval: Approval,
}

impl Wave {
    /// When it may open at the earliest, in a release that was made at `created`.
    pub fn opens_at(&self, created: UnixMs) -> UnixMs {
        created.plus(self.opens_after_secs)
    }
}

/// Whether a person must open a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// It opens by itself.
    #[default]
    NotNeeded,
    /// It waits for `approve`; under a source without a control plane it does not open.
    ByAPerson,
}

/// How many hosts of a group may be on their way at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The group, within the scope.
    pub hosts: Selector,
    /// How many of it.
    pub limit: Amount,
    /// Where the group is looked for, and where hosts on their way count.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scope: Scope,
}

/// Where a budget looks for its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// In the release's own channel.
    #[default]
    Channel,
    /// In every channel of the fleet: it binds the hosts of its own channel only, and counts those of all.
    Fleet,
}

/// Hosts that wait until others have converged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Those that wait.
    pub hosts: Selector,
    /// Those that they wait for.
    pub after: Selector,
}

/// What a failure does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The host goes back; above `max_failures` the rollout halts, and hosts that have converged stay.
    Revert,
    /// The host stays as it is for a person to look at, and the rollout halts.
    Halt,
    /// The host goes back; above `max_failures` the rollout halts and hosts that have converged go back too.
    RevertAll,
}
