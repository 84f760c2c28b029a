//! Verbs, decisions and orders in words, for people. The names on the wire are with the types; these words may change.

use std::fmt;

use super::fact::Verb;
use super::order::{Decision, Order, Transition, What};
use crate::model::time::Date;

impl fmt::Display for Verb {
    /// After "asks to".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause { rollout } => write!(f, "pause rollout {rollout}"),
            Self::Resume { rollout } => write!(f, "resume rollout {rollout}"),
            Self::Abort { rollout } => write!(f, "abort rollout {rollout}"),
            Self::Approve { rollout, wave } => write!(f, "open wave {wave} of rollout {rollout}"),
            Self::Retry { host } => write!(f, "try {host} again"),
            Self::Skip { host } => write!(f, "leave {host} out"),
            Self::Hold { host, until_ms: None } => write!(f, "hold {host}"),
            Self::Hold { host, until_ms: Some(until) } => write!(f, "hold {host} until {}", Date(*until)),
            Self::Unhold { host } => write!(f, "let {host} go"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rollout, becomes } = self;
        match becomes {
            Transition::Superseded { by } => write!(f, "rollout {rollout} gives way to release {by}"),
            Transition::Opened { release: _ } => write!(f, "rollout {rollout} begins"),
            Transition::FailureCounted { host, failed } => {
                write!(f, "rollout {rollout}: the failure of {host} counts ({})", failed.how)
            }
            Transition::Halted { host, failure } => {
                write!(f, "rollout {rollout} halts: {host} failed ({failure})")
            }
            Transition::Quarantined { system, host } => {
                write!(f, "rollout {rollout}: {system} failed on {host} and is offered to nobody else")
            }
            Transition::WaveOpened { wave } => write!(f, "rollout {rollout}: wave {wave} opens"),
            Transition::Converged => write!(f, "rollout {rollout} is done"),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, release, what } = self;
        match what {
            What::Stage => write!(f, "{host} fetches release {release}"),
            What::Go => write!(f, "{host} switches to release {release}"),
            What::Retry => write!(f, "{host} tries release {release} again"),
            What::Reboot => write!(f, "{host} restarts for release {release}"),
            What::Revert => write!(f, "{host} goes back from release {release}"),
            What::Withdraw => write!(f, "the order to {host} for release {release} is taken back"),
        }
    }
}
