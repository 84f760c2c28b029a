//! What an agent and a control plane say to each other, as JSON: the agent's events, and orders.
//!
//! The events are [`crate::host::Record`]s as they stand in the agent's outbox; nothing is translated on the way. An
//! order is advisory and unsigned: an agent acts only on what its own verified release says, and not before the signed
//! policy's earliest time. Neither side trusts the other with more than that, so every size has a limit here.
//!
//! Fields may be added that may be missing; a reader passes over fields that it does not know, since both sides are
//! updated at different times. What people's programs are told is in [`people`], [`rollouts`] and [`log`].

pub mod log;
pub mod people;
pub mod rollouts;

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::saved::SavedState;
use crate::host::{Event, HostState, Record};
use crate::model::names::{ReleaseId, Sha256};
use crate::model::time::{Date, UnixMs};

/// The most records in one batch; fewer than [`crate::host::follow::WINDOW`].
pub const BATCH_RECORDS_MAX: usize = 500;
/// The largest batch, in bytes of JSON: 500 ordinary records take some 300 KB, one with a long outcome some 60 KB.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// The largest [`Hello`], in bytes of JSON: a state has a few KB; the terms in it are bounded by the size of an entry.
pub const HELLO_BYTES_MAX: usize = 512 << 10;
/// How long a long poll is held at most, in seconds. Proxies on the way give up at 60 s by their own defaults.
pub const POLL_SECS_MAX: u64 = 55;

/// The header in which an agent says, with each request, what its clock says at that moment: milliseconds since 1970. It decides
/// nothing; it is shown to people where the two clocks are far from each other.
pub const CLOCK_HEADER: &str = "nixfleet-clock-ms";

/// What happened on a host: `POST /v1/agent/events`. A repeat is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBatch {
    /// Records in the order of their numbers.
    pub records: Vec<Record>,
}

/// The answer to a batch, given when what was taken is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsTaken {
    /// The first number that the control plane does not have. Everything below it may be forgotten.
    pub next: u64,
    /// What the agent is asked to do besides.
    pub then: Then,
}

/// What a control plane asks an agent to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// To go on as usual.
    GoOn,
    /// To say hello with its state: what was sent cannot be folded from what is known.
    SendState,
}

/// Who the agent is and how far it is: `POST /v1/agent/hello`, at each start and when it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's version.
    pub agent: String,
    /// The number of its newest event.
    pub seq: u64,
    /// SHA-256 over [`state_bytes`] at that number.
    pub digest: Sha256,
    /// The oldest number that it can still send.
    pub oldest: u64,
    /// Its state, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<SavedState>>,
}

/// A [`Hello`] without a state, and how far the control plane is with its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeted {
    /// Up to which of the host's records everything was taken in or is lost.
    pub told: u64,
    /// Whether they cannot be followed at the moment.
    pub has_fault: bool,
    /// [`Hello::seq`].
    pub seq: u64,
    /// [`Hello::oldest`].
    pub oldest: u64,
}

impl Greeted {
    /// The answer. `is_same` says whether the state that is known is the host's; it is asked where it should be.
    pub fn answer(self, is_same: impl FnOnce() -> bool) -> EventsTaken {
        let Self { told, has_fault, seq, oldest } = self;
        let next = told + 1;
        let is_followed = !has_fault
            && match told.cmp(&seq) {
                Ordering::Equal => is_same(),
                // It sends what is missing. Of what is gone there it tells the numbers, and later its state: with the state at
                // once it would take the verdicts between for acknowledged. Of whom nothing is known, a state is less than a
                // whole log.
                Ordering::Less => oldest <= next || told > 0,
                // It was set up anew, or its disk was put back.
                Ordering::Greater => false,
            };
        EventsTaken { next, then: if is_followed { Then::GoOn } else { Then::SendState } }
    }
}

/// The bytes of a state over which a [`Hello`] has its digest.
pub fn state_bytes(state: &HostState) -> Vec<u8> {
    serde_json::to_vec(state).expect("texts and numbers are always JSON")
}

/// What one host is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number, rising; of no meaning beyond the order of orders.
    pub number: u64,
    /// What it is.
    pub what: Wish,
}

/// What is asked of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Wish {
    /// To look at the source at once and to fetch this release. It is no event of the host: that it fetches is one.
    Stage {
        /// Which one.
        release: ReleaseId,
    },
    /// To switch to this release: it is its turn.
    Go {
        /// Which one.
        release: ReleaseId,
    },
    /// To restart for this release, which it runs already.
    Reboot {
        /// Which one.
        release: ReleaseId,
    },
    /// To go back from this release: its rollout halted, and the signed policy says that all go back then.
    Revert {
        /// From which one.
        release: ReleaseId,
    },
    /// To forget what was ordered for this release, unless it has begun: the rollout was halted, paused or aborted.
    Withdraw {
        /// Which one.
        release: ReleaseId,
    },
    /// To stay where it is.
    Hold {
        /// Who wants it.
        by: String,
        /// Why.
        why: String,
        /// Until then; `None` until somebody lets it go.
        until_ms: Option<UnixMs>,
    },
    /// To stay no longer.
    Unhold {
        /// Who wants it.
        by: String,
    },
    /// To try again what failed.
    Retry {
        /// Who wants it.
        by: String,
    },
}

impl Wish {
    /// The event by which an agent notes that it was asked.
    pub fn event(&self) -> Event {
        match self.clone() {
            Self::Stage { release: _ } => Event::Woke,
            Self::Go { release } => Event::OrderedToGo { release },
            Self::Reboot { release } => Event::OrderedToReboot { release },
            Self::Revert { release } => Event::OrderedToRevert { release },
            Self::Withdraw { release } => Event::OrderWithdrawn { release },
            Self::Hold { by, why, until_ms } => Event::Held { by, why, until_ms },
            Self::Unhold { by } => Event::Unheld { by },
            Self::Retry { by } => Event::RetryAsked { by },
        }
    }

    /// What was asked of the host that took `event` in; `None` if nothing was. The inverse of [`Wish::event`].
    pub fn noted_by(event: &Event) -> Option<Self> {
        match event.clone() {
            Event::OrderedToGo { release } => Some(Self::Go { release }),
            Event::OrderedToReboot { release } => Some(Self::Reboot { release }),
            Event::OrderedToRevert { release } => Some(Self::Revert { release }),
            Event::OrderWithdrawn { release } => Some(Self::Withdraw { release }),
            Event::Held { by, why, until_ms } => Some(Self::Hold { by, why, until_ms }),
            Event::Unheld { by } => Some(Self::Unhold { by }),
            Event::RetryAsked { by } => Some(Self::Retry { by }),
            Event::AgentStarted { .. }
            | Event::SystemChanged { .. }
            | Event::Woke
            | Event::SourceAnswered { .. }
            | Event::SourceFailed { .. }
            | Event::RootAccepted { .. }
            | Event::ReleaseVerified { .. }
            | Event::ReleaseRefused { .. }
            | Event::TargetStaged { .. }
            | Event::StageFailed { .. }
            | Event::LocalActivationStarted { .. }
            | Event::LocalActivationAdvanced { .. }
            | Event::LocalActivationCompleted { .. }
            | Event::LocalActivationFailed { .. }
            | Event::LocalActivationDeferred { .. }
            | Event::ProbeReported(_)
            | Event::HooksRan { .. }
            | Event::HookFailed { .. }
            | Event::RebootRefused { .. }
            | Event::StagingBegan { .. }
            | Event::WentAhead { .. }
            | Event::TargetAdopted { .. }
            | Event::TargetWithdrawn { .. }
            | Event::ProbesPassed { .. }
            | Event::RevertBegan { .. }
            | Event::SoakPassed { .. }
            | Event::SoakFailed { .. }
            | Event::RebootBegan { .. }
            | Event::RebootOverdue
            | Event::ReportsLost { .. }
            | Event::StateTold { .. } => None,
        }
    }

    /// What it is about: a newer order about the same takes the place of an older one.
    pub fn topic(&self) -> Topic {
        match self {
            Self::Stage { .. } => Topic::Stage,
            Self::Go { .. } | Self::Withdraw { .. } => Topic::Go,
            Self::Reboot { .. } => Topic::Reboot,
            Self::Revert { .. } => Topic::Revert,
            Self::Hold { .. } | Self::Unhold { .. } => Topic::Hold,
            Self::Retry { .. } => Topic::Retry,
        }
    }
}

impl fmt::Display for Wish {
    /// In words, after "it is asked".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Go { release } => write!(f, "to go to release {release}"),
            Self::Stage { release } => write!(f, "to fetch release {release}"),
            Self::Reboot { release } => write!(f, "to restart for release {release}"),
            Self::Revert { release } => write!(f, "to go back from release {release}"),
            Self::Withdraw { release } => write!(f, "to forget the order for release {release}"),
            Self::Hold { until_ms: None, .. } => f.write_str("to stay where it is"),
            Self::Hold { until_ms: Some(until), .. } => {
                write!(f, "to stay where it is until {}", Date(*until))
            }
            Self::Unhold { .. } => f.write_str("to stay no longer"),
            Self::Retry { .. } => f.write_str("to try again"),
        }
    }
}

/// What an order is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// The fetch.
    Stage,
    /// The switch.
    Go,
    /// The restart.
    Reboot,
    /// The way back.
    Revert,
    /// The hold.
    Hold,
    /// Another try.
    Retry,
}

impl Topic {
    /// Its name in a database; never changed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Go => "go",
            Self::Reboot => "reboot",
            Self::Revert => "revert",
            Self::Hold => "hold",
            Self::Retry => "retry",
        }
    }
}

/// The answer to `GET /v1/agent/orders?after=N`: what is asked of this host and has a number above `N`, oldest first.
/// Empty when the poll ended without news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The orders.
    pub orders: Vec<Order>,
    /// What the agent is asked to do besides.
    pub then: Then,
    /// Which log the numbers are of. An agent says it back with its `after`; numbers of another log mean nothing, as after a
    /// database was lost or put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> ReleaseId {
        let digest = format!("sha256:{}", "ab".repeat(32)).parse().expect("64 digits");
        ReleaseId { channel: "stable".parse().expect("a name"), seq: 7u64.try_into().expect("small"), digest }
    }

    #[test]
    fn an_order_has_one_form_on_the_wire_and_passes_over_what_is_newer() {
        let order = Order { number: 12, what: Wish::Go { release: release() } };
        let text = serde_json::to_string(&order).expect("JSON");
        let digest = "ab".repeat(32);
        assert_eq!(
            text,
            format!(
                r#"{{"number":12,"what":{{"order":"go","release":{{"channel":"stable","seq":7,"digest":"sha256:{digest}"}}}}}}"#
            )
        );
        let newer = text.replace(r#""number":12"#, r#""number":12,"trace":"x""#);
        assert_eq!(serde_json::from_str::<Order>(&newer).expect("a field more"), order);
    }

    #[test]
    fn an_order_is_noted_as_an_event_of_the_host() {
        let wish = Wish::Hold { by: "ann".to_owned(), why: "audit".to_owned(), until_ms: None };
        assert_eq!(wish.event().name(), "held");
        assert_eq!(Wish::noted_by(&wish.event()), Some(wish.clone()));
        assert_eq!(wish.topic(), Wish::Unhold { by: "bob".to_owned() }.topic());
    }

    #[test]
    fn a_state_is_asked_for_where_records_cannot_lead_to_it() {
        let greeted = Greeted { told: 7, has_fault: false, seq: 7, oldest: 3 };
        let then = |greeted: Greeted, is_same| {
            let EventsTaken { next, then } = greeted.answer(|| is_same);
            assert_eq!(next, greeted.told + 1);
            then
        };
        assert_eq!((then(greeted, true), then(greeted, false)), (Then::GoOn, Then::SendState));
        let of_fault = Greeted { has_fault: true, ..greeted };
        assert_eq!(then(of_fault, true), Then::SendState);
        // It has more, all of which it can send, or of which it tells the numbers that are gone.
        assert_eq!(then(Greeted { seq: 9, oldest: 8, ..greeted }, false), Then::GoOn);
        assert_eq!(then(Greeted { seq: 90, oldest: 50, ..greeted }, false), Then::GoOn);
        // Nothing is known of it, and its log has no beginning any more.
        assert_eq!(then(Greeted { told: 0, seq: 9, ..greeted }, false), Then::SendState);
        assert_eq!(then(Greeted { told: 0, seq: 9, oldest: 1, ..greeted }, false), Then::GoOn);
        // It has less than was told.
        assert_eq!(then(Greeted { seq: 6, ..greeted }, true), Then::SendState);
    }
}
