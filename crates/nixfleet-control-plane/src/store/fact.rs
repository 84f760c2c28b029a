//! What an event of the control plane's own log says. The names in JSON are stable: an event is never changed, only added
//! to with fields that may be missing; another meaning gets another name.

use std::collections::BTreeMap;

use nixfleet_core::host::Record;
use nixfleet_core::host::saved::SavedState;
use nixfleet_core::ids::StorePath;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId};
use nixfleet_core::rollout::progress::Quarantine;
use nixfleet_core::rollout::{Decision, Order, Remembered, Rollout, Verb};
use serde::{Deserialize, Serialize};

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
pub enum Fact {
    /// A release passed every check and is served.
    ReleaseTaken {
        /// Which one.
        release: ReleaseId,
    },
    /// A host reported an event of its own.
    Reported {
        /// Its record.
        record: Box<Record>,
    },
    /// A host sent its whole state, since its events could not be folded from what was known.
    StateSent {
        /// The state.
        state: Box<SavedState>,
        /// The agent's version.
        agent: String,
    },
    /// A host as it was when older events of it were removed.
    Compacted {
        /// Its state.
        state: Box<SavedState>,
        /// What was remembered of it besides.
        #[serde(default)]
        remembered: Box<Remembered>,
    },
    /// The planner ordered something.
    Ordered {
        /// What.
        order: Order,
    },
    /// An operator asked for something.
    Acted {
        /// Who.
        by: String,
        /// What.
        verb: Verb,
        /// Why.
        why: String,
    },
    /// The planner decided something about a rollout.
    Decided {
        /// What.
        decision: Decision,
    },
    /// The rollout of a channel as it was when older events of it were removed.
    Kept {
        /// How far it is.
        progress: Box<Progress>,
    },
    /// A plan was not carried out, since the second opinion objects to it: a mistake in our program.
    Objected {
        /// What is wrong with it.
        objections: Vec<String>,
    },
    /// A token was made or removed.
    TokenChanged {
        /// Its name.
        name: String,
        /// What became of it.
        change: TokenChange,
    },
}

/// What is remembered of a channel beside its newest release and its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The newest rollout.
    pub rollout: Option<Rollout>,
    /// Systems that failed here.
    pub quarantine: BTreeMap<StorePath, Quarantine>,
}

/// Whom a verb is about.
pub fn about(verb: &Verb) -> About {
    match verb {
        Verb::Pause { rollout }
        | Verb::Resume { rollout }
        | Verb::Abort { rollout }
        | Verb::Approve { rollout, wave: _ } => About::Channel(rollout.channel.clone()),
        Verb::Retry { host }
        | Verb::Skip { host }
        | Verb::Hold { host, until_ms: _ }
        | Verb::Unhold { host } => About::Host(host.clone()),
    }
}

/// What became of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenChange {
    /// It was made.
    Made,
    /// It was removed.
    Removed,
}

impl Fact {
    /// Its kind, for those who filter.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ReleaseTaken { .. } => "release-taken",
            Self::Reported { .. } => "reported",
            Self::StateSent { .. } => "state-sent",
            Self::Compacted { .. } => "compacted",
            Self::Ordered { .. } => "ordered",
            Self::Acted { .. } => "acted",
            Self::Decided { .. } => "decided",
            Self::Kept { .. } => "kept",
            Self::Objected { .. } => "objected",
            Self::TokenChanged { .. } => "token-changed",
        }
    }

    /// The fact as it is kept.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are always JSON")
    }
}

/// Whom a fact is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// The fleet.
    Fleet,
    /// A channel.
    Channel(ChannelName),
    /// A host.
    Host(HostName),
}

impl About {
    pub(super) fn host(&self) -> Option<&HostName> {
        match self {
            Self::Host(host) => Some(host),
            Self::Fleet | Self::Channel(_) => None,
        }
    }

    pub(super) fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Channel(channel) => Some(channel),
            Self::Fleet | Self::Host(_) => None,
        }
    }
}
