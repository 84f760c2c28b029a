//! What a plan says is to be done.

use serde::{Deserialize, Serialize};

use super::progress::{Failed, FailedHow, RolloutId};
use crate::ids::StorePath;
use crate::model::names::{HostName, ReleaseId, Seq};
use crate::model::policy::WaveIndex;
use crate::model::time::UnixMs;

/// What is to be done now: first the decisions, in their order, then the orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use = "a plan is to be checked by `object` and then carried out"]
pub struct Plan {
    /// When it was made.
    pub at_ms: UnixMs,
    /// What becomes of rollouts.
    pub decisions: Vec<Decision>,
    /// What hosts are asked to do, by channel, wave and name.
    pub orders: Vec<Order>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.decisions.is_empty() && self.orders.is_empty()
    }
}

/// What becomes of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Which one.
    pub rollout: RolloutId,
    /// What.
    pub becomes: Transition,
}

/// A step of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "becomes", rename_all = "kebab-case")]
pub enum Transition {
    /// A newer release takes its place; hosts on their way arrive.
    Superseded {
        /// The newer one's number.
        by: Seq,
    },
    /// It begins.
    Opened {
        /// The release.
        release: ReleaseId,
    },
    /// A host's failure counts from now on.
    FailureCounted {
        /// The host.
        host: HostName,
        /// Its failure.
        failed: Failed,
    },
    /// Too many failed, or the policy allows none.
    Halted {
        /// The host that was one too many.
        host: HostName,
        /// How it failed.
        failure: FailedHow,
    },
    /// A system is not offered in the channel any more.
    Quarantined {
        /// The system.
        system: StorePath,
        /// Where it failed.
        host: HostName,
    },
    /// Hosts of a wave may move.
    WaveOpened {
        /// The wave.
        wave: WaveIndex,
    },
    /// Every host is done or excused.
    Converged,
}

/// What a host is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The host.
    pub host: HostName,
    /// For which release.
    pub release: ReleaseId,
    /// What.
    pub what: What,
}

/// What a host can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// To fetch and check the release, without activating it.
    Stage,
    /// To switch to it: it is its turn.
    Go,
    /// To try again what failed, since a person asked for it and it is its turn.
    Retry,
    /// To restart for the release, which it runs already.
    Reboot,
    /// To go back from the release, which its signed policy wants when a rollout halts (`revert-all`).
    Revert,
    /// Nothing any more: an order to move is taken back from a host that has not begun, since the host is away, its
    /// rollout does not go on, or the release has expired.
    Withdraw,
}
