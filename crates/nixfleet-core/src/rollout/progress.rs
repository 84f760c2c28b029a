//! How far a rollout is: small, whatever the fleet's size, since it is written anew with each decision.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::activation::outcome::FailureClass;
use crate::ids::StorePath;
use crate::model::names::{ChannelName, HostName, ReleaseId, Seq};
use crate::model::policy::WaveIndex;
use crate::model::time::UnixMs;

/// Names a rollout for ever: a release is rolled out once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutId {
    /// The channel.
    pub channel: ChannelName,
    /// The release's number in it.
    pub seq: Seq,
}

impl From<&ReleaseId> for RolloutId {
    fn from(release: &ReleaseId) -> Self {
        Self { channel: release.channel.clone(), seq: release.seq }
    }
}

impl fmt::Display for RolloutId {
    /// `channel/seq`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channel, seq } = self;
        write!(f, "{channel}/{seq}")
    }
}

/// Who did something, why, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct By {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// When.
    pub at_ms: UnixMs,
}

/// A release on its way through its channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// What is rolled out.
    pub release: ReleaseId,
    /// When it was opened.
    pub opened_ms: UnixMs,
    /// Whether it goes on.
    pub status: Status,
    /// When each wave was opened; those that are not here are not open. Waves open in their order and stay open.
    pub waves_opened: Vec<UnixMs>,
    /// Waves that a person opened.
    pub approved: BTreeMap<WaveIndex, By>,
    /// The failures that count, by host.
    pub failures: BTreeMap<HostName, Failed>,
    /// Hosts whose failure a person took back by `resume`: that same failure does not count again.
    pub forgiven: BTreeSet<HostName>,
    /// When every host was done or excused; hosts that come back later still catch up.
    pub converged_ms: Option<UnixMs>,
}

impl Rollout {
    /// A rollout that begins.
    pub fn new(release: ReleaseId, opened_ms: UnixMs) -> Self {
        Self {
            release,
            opened_ms,
            status: Status::Going,
            waves_opened: Vec::new(),
            approved: BTreeMap::new(),
            failures: BTreeMap::new(),
            forgiven: BTreeSet::new(),
            converged_ms: None,
        }
    }

    /// Its name.
    pub fn id(&self) -> RolloutId {
        RolloutId::from(&self.release)
    }
}

/// Whether a rollout goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Status {
    /// It does.
    Going,
    /// A person stopped it, until `resume`. Hosts that have begun arrive.
    Paused(By),
    /// Failures stopped it, until `resume` or a newer release.
    Halted {
        /// The host that was one too many.
        host: HostName,
        /// How it failed.
        failure: FailedHow,
        /// When.
        at_ms: UnixMs,
    },
    /// A person ended it. Hosts that have begun arrive; only a newer release moves the channel.
    Aborted(By),
}

/// A host's failure, as it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// How.
    pub how: FailedHow,
    /// The system that is not to be offered to others; `None` if the failure says nothing about the system.
    pub system: Option<StorePath>,
    /// When it was counted.
    pub at_ms: UnixMs,
}

/// How a host failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", content = "class", rename_all = "kebab-case")]
pub enum FailedHow {
    /// It said so.
    Reported(FailureClass),
    /// It was ordered to move, was heard after that, and then of it nothing more for the policy's `offline_after`, before it was
    /// done: on its way, or while it was watched.
    Lost,
}

impl fmt::Display for FailedHow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported(class) => write!(f, "{class}"),
            Self::Lost => f.write_str("lost before it was done"),
        }
    }
}

/// A system that failed and is not offered in its channel any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// Where it failed.
    pub host: HostName,
    /// In which rollout.
    pub rollout: RolloutId,
    /// Since when.
    pub since_ms: UnixMs,
}
