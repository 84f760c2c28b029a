//! What an event of a control plane's log says. The names in JSON are stable: an event is never changed, only added
//! to with fields that may be missing; another meaning gets another name.
//!
//! It is what the control plane keeps and what people are shown, so it stands here, where both sides find it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Wish;
use crate::host::Record;
use crate::host::saved::SavedState;
use crate::model::names::ReleaseId;

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
}

impl fmt::Display for Fact {
    /// In words, for people; these may change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReleaseTaken { release } => write!(f, "release {release} is served"),
            Self::Reported { record } => record.fact.fmt(f),
            Self::StateSent { state, agent } => {
                write!(f, "agent {agent} sent its whole state: {}", state.0.phase.name())
            }
            Self::Compacted { state } => {
                write!(f, "older events were removed; it was {}", state.0.phase.name())
            }
            Self::Ordered { wish, by, why } => {
                match by {
                    Some(by) => write!(f, "{by} asks it {wish}")?,
                    None => write!(f, "asked {wish}")?,
                }
                why.iter().try_for_each(|why| write!(f, ": {why}"))
            }
            Self::Acted { by, verb, why } => write!(f, "{by}: {} ({why})", tagged(verb, "verb")),
            Self::Decided { rollout } => write!(f, "the rollout is {}", tagged(rollout, "status")),
            Self::TokenChanged { name, change: TokenChange::Made } => {
                write!(f, "a token for {name} was made")
            }
            Self::TokenChanged { name, change: TokenChange::Removed } => {
                write!(f, "the token of {name} was removed")
            }
        }
    }
}

/// The word under `tag`, at the top or one level below.
fn tagged<'a>(value: &'a serde_json::Value, tag: &str) -> &'a str {
    let word = |value: &'a serde_json::Value| value.get(tag).and_then(serde_json::Value::as_str);
    word(value).or_else(|| value.get(tag).and_then(word)).unwrap_or("something else")
}
