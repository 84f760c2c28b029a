//! Facts as the store keeps them, and whom they are about.

use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::rollout::Verb;

pub use nixfleet_core::wire::log::{Fact, Progress, TokenChange};

/// The fact as it is kept.
pub(super) fn to_json(fact: &Fact) -> String {
    serde_json::to_string(fact).expect("texts and numbers are always JSON")
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
