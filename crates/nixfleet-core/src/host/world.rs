//! What an agent finds when it looks: who it is, what runs, and what the activation journal says.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::activation::inhibit::Inhibitor;
use crate::activation::outcome::Step;
use crate::activation::resume::what_runs;
use crate::ids::{ActivationId, BootId, StorePath};
use crate::model::names::{ChannelName, HostName};

/// Who an agent is and what it follows, by its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The agent's version.
    pub agent: String,
    /// The host's name in its fleet.
    pub host: HostName,
    /// The channel that it follows.
    pub channel: ChannelName,
    /// What its releases come from.
    pub source: SourceKind,
    /// Whether the agent may restart the host.
    #[serde(default, skip_serializing_if = "Reboots::are_as_released")]
    pub reboots: Reboots,
}

/// Whether this host's agent may restart it, whatever a release says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reboots {
    /// When and as the release says.
    #[default]
    AsReleased,
    /// Never: a person restarts it.
    Never,
}

impl Reboots {
    /// Whether the release decides. Setups that say nothing of it were written before there was a choice.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn are_as_released(&self) -> bool {
        *self == Self::AsReleased
    }
}

impl fmt::Display for Reboots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsReleased => "as-released",
            Self::Never => "never",
        })
    }
}

/// What releases come from, which decides who opens a host's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A folder or a web server: waves open at the times in the signed policy.
    Static,
    /// A control plane: it orders, and not before those times.
    ControlPlane,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Static => "a static source",
            Self::ControlPlane => "a control plane",
        })
    }
}

/// What runs on a host, and what it boots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// The boot; `None` only before the agent first looked.
    pub boot: Option<BootId>,
    /// The system that was booted.
    pub booted: Option<StorePath>,
    /// The system that runs; `None` when it cannot be read.
    pub current: Option<StorePath>,
    /// The system that the profile points to, which the next boot starts.
    pub profile: Option<StorePath>,
    /// What of the running system only a reboot brings.
    pub reboot_needed: Vec<Inhibitor>,
}

impl World {
    /// What runs, for people, if it is another system than `expected`.
    pub(super) fn runs_other_than(&self, expected: &StorePath) -> Option<String> {
        let current = self.current.as_ref();
        (current != Some(expected)).then(|| what_runs(current))
    }

    /// Whether `system` runs, and the next boot starts it too.
    pub(super) fn is_settled_on(&self, system: &StorePath) -> bool {
        self.current.as_ref() == Some(system) && self.profile.as_ref() == Some(system)
    }
}

/// What the activation journal says of one activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSays {
    /// Which one.
    pub id: ActivationId,
    /// What of it.
    pub said: Said,
}

/// How far an activation came, by the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// It has no line of it: it never began, and may begin.
    Nothing,
    /// It is not over, and came to this step.
    Pending(Step),
    /// It is over; how is told by the event that follows.
    Ended,
}
