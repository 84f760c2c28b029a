//! What changes a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::order::{Decision, Order};
use super::progress::RolloutId;
use super::snapshot::Standing;
use crate::ids::StorePath;
use crate::model::names::{ChannelName, HostName, ReleaseId, Seq, Tag};
use crate::model::policy::{Policy, WaveIndex};
use crate::model::release::Revision;
use crate::model::time::UnixMs;

/// Something that happened. The names in JSON are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
pub enum Fact {
    /// A release passed every check, with all of its entries.
    ReleaseTaken {
        /// What it says.
        release: Box<Current>,
        /// Its hosts.
        hosts: BTreeMap<HostName, Placed>,
    },
    /// A host's own events were folded, and so it stands now.
    HostStands {
        /// The host.
        host: HostName,
        /// How it stands.
        standing: Box<Standing>,
    },
    /// A host was heard of, whatever it said.
    HostHeard {
        /// The host.
        host: HostName,
    },
    /// A person asked for something.
    Asked {
        /// What.
        verb: Verb,
        /// Who.
        who: String,
        /// Why.
        why: String,
    },
    /// A plan decided something.
    Decided(Decision),
    /// A plan ordered something.
    Ordered(Order),
}

/// The newest release of a channel: the part of it that the planner needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Current {
    /// The release.
    pub id: ReleaseId,
    /// The source revision.
    pub revision: Revision,
    /// When it was made, by its own word.
    pub created_ms: UnixMs,
    /// From here on nothing new is started because of it.
    pub expires_ms: UnixMs,
    /// How it goes out.
    pub policy: Policy,
}

/// What a host's entry says that the planner needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// Its wave.
    pub wave: WaveIndex,
    /// What selectors choose it by.
    pub tags: BTreeSet<Tag>,
    /// The system that it shall run.
    pub system: StorePath,
}

/// What a person can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Verb {
    /// No host of the rollout begins to move.
    Pause {
        /// The rollout.
        rollout: RolloutId,
    },
    /// It goes on. If it had halted, the failures so far do not count any more; their systems stay quarantined.
    Resume {
        /// The rollout.
        rollout: RolloutId,
    },
    /// It ends. Hosts that have begun arrive.
    Abort {
        /// The rollout.
        rollout: RolloutId,
    },
    /// A wave may open as far as a person has to say so.
    Approve {
        /// The rollout.
        rollout: RolloutId,
        /// The wave.
        wave: WaveIndex,
    },
    /// A host that failed is tried again when it is its turn; its failure does not count any more, and its system is
    /// offered again. A rollout that halted because of it stays halted until `resume`.
    Retry {
        /// The host.
        host: HostName,
    },
    /// A host is left out of the current rollout: nobody waits for it, and it counts in no budget.
    Skip {
        /// The host.
        host: HostName,
    },
    /// A host stays where it is, in every rollout; nobody waits for it.
    Hold {
        /// The host.
        host: HostName,
        /// Until then; `None` until `unhold`.
        until_ms: Option<UnixMs>,
    },
    /// A host may move again.
    Unhold {
        /// The host.
        host: HostName,
    },
}

/// Why a fact does not fit. The snapshot is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFolded {
    /// No release names the host.
    #[error("no release names host {0}")]
    NoHost(HostName),
    /// No release of the channel was taken.
    #[error("there is no release of channel {0}")]
    NoChannel(ChannelName),
    /// The channel has another rollout, or none.
    #[error("{0} is not the current rollout of its channel")]
    NotCurrent(RolloutId),
    /// The channel has this release or a newer one.
    #[error("release {release} is not newer than {have}, which is known")]
    NotNewer {
        /// The release.
        release: ReleaseId,
        /// What is known.
        have: Seq,
    },
    /// The rollout's status does not allow it.
    #[error("rollout {rollout} is {status}, so it cannot be {wish}")]
    Status {
        /// The rollout.
        rollout: RolloutId,
        /// What it is.
        status: &'static str,
        /// What was wanted.
        wish: &'static str,
    },
    /// The policy has no such wave.
    #[error("rollout {rollout} has no wave {wave}")]
    NoWave {
        /// The rollout.
        rollout: RolloutId,
        /// The wave.
        wave: WaveIndex,
    },
    /// Waves open in their order.
    #[error("wave {wave} of rollout {rollout} is not the next one to open")]
    NotNextWave {
        /// The rollout.
        rollout: RolloutId,
        /// The wave.
        wave: WaveIndex,
    },
    /// There is nothing to try again.
    #[error("host {0} has not failed")]
    NotFailed(HostName),
    /// There is nothing to let go.
    #[error("host {0} is not held")]
    NotHeld(HostName),
}
