//! The lowest release of a channel that a host accepts.

use nixfleet_core::model::names::{Seq, Sha256};
use serde::{Deserialize, Serialize};

use crate::root::ChannelRules;

/// The lowest release that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// Its number.
    pub seq: Seq,
    /// What the release with this number must be; `None` while none with it was followed.
    pub digest: Option<Sha256>,
    /// How many resets of the channel this host has followed.
    pub resets: u32,
}

impl Floor {
    /// The floor of a host that has followed no release.
    pub(crate) fn of(rules: &ChannelRules) -> Self {
        Self { seq: rules.seq_floor, digest: None, resets: rules.resets }
    }

    /// The floor under a newer root: never lower, unless that root has reset the channel.
    pub(crate) fn under(self, rules: &ChannelRules) -> Self {
        if rules.resets > self.resets {
            Self::of(rules)
        } else if rules.seq_floor > self.seq {
            Self { resets: self.resets, ..Self::of(rules) }
        } else {
            self
        }
    }
}
