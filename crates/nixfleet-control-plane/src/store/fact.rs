//! What an event of the control plane's own log says. The names in JSON are stable: an event is never changed, only added
//! to with fields that may be missing; another meaning gets another name.

use nixfleet_core::host::Record;
use nixfleet_core::host::saved::SavedState;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId};
use nixfleet_core::wire::Wish;
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
    /// The state of a host as it was when older events of it were removed.
    Compacted {
        /// The state.
        state: Box<SavedState>,
    },
    /// A host is asked for something.
    Ordered {
        /// What.
        wish: Wish,
        /// Who wants it; `None` for the planner.
        by: Option<String>,
        /// Why, if somebody said so.
        why: Option<String>,
    },
    /// An operator did something that concerns no single host.
    Acted {
        /// Who.
        by: String,
        /// What, in the planner's words.
        verb: serde_json::Value,
        /// Why.
        why: String,
    },
    /// The planner decided something about a rollout.
    Decided {
        /// The rollout as it is from now on.
        rollout: serde_json::Value,
    },
    /// A token was made or removed.
    TokenChanged {
        /// Its name.
        name: String,
        /// What became of it.
        change: TokenChange,
    },
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
