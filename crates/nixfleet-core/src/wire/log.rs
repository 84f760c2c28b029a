//! What an event of a control plane's log says. The names in JSON are stable: an event is never changed, only added
//! to with fields that may be missing; another meaning gets another name.
//!
//! It is what the control plane keeps and what people are shown, so it stands here, where both sides find it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::host::Record;
use crate::host::saved::SavedState;
use crate::ids::StorePath;
use crate::model::names::{ReleaseId, RootVersion};
use crate::rollout::progress::Quarantine;
use crate::rollout::reason::in_short;
use crate::rollout::{Decision, Order, Remembered, Rollout, Verb};

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
pub enum Fact {
    /// A release passed every check and is served.
    ReleaseTaken {
        /// Which one.
        release: ReleaseId,
        /// Who pushed it; nobody if it was found in a folder, or an older program wrote this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// A newer root passed every check and is in force.
    RootTaken {
        /// Its version.
        root: RootVersion,
        /// Who pushed it; nobody if it was found in a folder.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// A newer root has no such channel any more: its hosts, what was asked of them and its rollout are gone.
    ChannelRemoved {
        /// The root's version.
        root: RootVersion,
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
        /// Up to which of its records everything was taken in or lost, if that is further than the state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        told: Option<u64>,
        /// What was remembered of it besides.
        #[serde(default)]
        remembered: Box<Remembered>,
        /// The numbers of the orders that waited for it; nothing where an older program wrote this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waiting: Option<Vec<u64>>,
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
        /// What it may do, if it was made; an older program did not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
    },
}

/// What somebody with a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// To look.
    Viewer,
    /// To act, too.
    Operator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        })
    }
}

impl FromStr for Role {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            _ => Err("there are the roles `viewer` and `operator`"),
        }
    }
}

/// What is remembered of a channel beside its newest release and its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The newest rollout.
    pub rollout: Option<Rollout>,
    /// Systems that failed here.
    pub quarantine: BTreeMap<StorePath, Quarantine>,
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
            Self::RootTaken { .. } => "root-taken",
            Self::ChannelRemoved { .. } => "channel-removed",
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
}

impl fmt::Display for Fact {
    /// In words, for people; these may change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReleaseTaken { release, by } => {
                write!(f, "release {release} is served{}", pushed(by.as_deref()))
            }
            Self::RootTaken { root, by } => write!(f, "root {root} is in force{}", pushed(by.as_deref())),
            Self::ChannelRemoved { root } => write!(f, "root {root} has no such channel any more"),
            Self::Reported { record } => record.fact.fmt(f),
            Self::StateSent { state, agent } => {
                write!(f, "agent {agent} sent its whole state: {}", state.0.phase.name())
            }
            Self::Compacted { state, told: _, remembered: _, waiting: _ } => {
                write!(f, "older events were removed; it was {}", state.0.phase.name())
            }
            Self::Ordered { order } => write!(f, "plan: {order}"),
            Self::Acted { by, verb, why } => write!(f, "{by} asks to {verb}: {why}"),
            Self::Decided { decision } => write!(f, "plan: {decision}"),
            Self::Kept { progress: _ } => f.write_str("older events were removed; the rollout is kept"),
            Self::Objected { objections } => {
                write!(f, "a plan was not carried out: {}", in_short(objections, "; ", None))
            }
            Self::TokenChanged { name, change: TokenChange::Made, role } => {
                write!(f, "a token for {name} was made")?;
                role.map_or(Ok(()), |role| write!(f, ", {role}"))
            }
            Self::TokenChanged { name, change: TokenChange::Removed, role: _ } => {
                write!(f, "the token of {name} was removed")
            }
        }
    }
}

/// Who pushed it, behind a comma.
fn pushed(by: Option<&str>) -> String {
    by.map_or_else(String::new, |by| format!(", pushed by {by}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_program_wrote_is_read_and_names_nobody() {
        let digest = "ab".repeat(32);
        let release = format!(r#"{{"channel":"stable","seq":3,"digest":"sha256:{digest}"}}"#);
        let old = [
            (format!(r#"{{"fact":"release-taken","release":{release}}}"#), "release stable/3 is served"),
            (r#"{"fact":"root-taken","root":2}"#.to_owned(), "root 2 is in force"),
            (r#"{"fact":"channel-removed","root":2}"#.to_owned(), "root 2 has no such channel any more"),
            (
                r#"{"fact":"token-changed","name":"ann","change":"made"}"#.to_owned(),
                "a token for ann was made",
            ),
            (
                r#"{"fact":"token-changed","name":"ann","change":"removed"}"#.to_owned(),
                "the token of ann was removed",
            ),
        ];
        for (text, words) in old {
            let fact: Fact = serde_json::from_str(&text).expect("a fact");
            assert_eq!(fact.to_string(), words);
            assert_eq!(serde_json::to_string(&fact).expect("JSON"), text, "and is written as it was");
        }
    }
}
