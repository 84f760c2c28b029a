//! What a host is doing, since when, and what it waits for: an answer for every state, typed, so that no state is left
//! out. `status` prints it, and the control plane's `why` does.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::probing::ProbeRef;
use super::state::HostState;
use super::step::waits;
use super::time::Now;
use super::window::NeverOpens;
use super::world::SourceKind;
use crate::activation::outcome::{Failure, FailureClass, Step};
use crate::ids::StorePath;
use crate::model::names::{ReleaseId, RootVersion, WaveName};
use crate::model::policy::WaveIndex;
use crate::model::time::{Date, UnixMs};

pub use super::phase::StateName;

/// What keeps a host where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "kebab-case")]
pub enum WaitingOn {
    /// Its agent has not started yet.
    AgentStart,
    /// All is done; the next release moves it.
    NewerRelease,
    /// The fetch and the checks.
    Fetch {
        /// The how manyth try.
        attempt: u32,
    },
    /// A person keeps it.
    Hold {
        /// Who.
        by: String,
        /// Why.
        why: String,
        /// Until then.
        until_ms: Option<UnixMs>,
    },
    /// The release has expired, so nothing is started because of it; a newer one must come.
    ReleaseExpired {
        /// Since then.
        since_ms: UnixMs,
    },
    /// The root in force has expired, so nothing is started; a newer one must come.
    RootExpired {
        /// Its number.
        root: RootVersion,
        /// Since then.
        since_ms: UnixMs,
    },
    /// A newer root came since the release was verified, and it did not pass every check under that one yet.
    VerifiedAnew {
        /// The number of that root.
        root: RootVersion,
    },
    /// The wave opens later.
    Wave {
        /// Its place.
        wave: WaveIndex,
        /// Its name.
        name: WaveName,
        /// When.
        opens_at_ms: UnixMs,
    },
    /// A person must open the wave, and the source cannot pass that on: only a control plane can.
    Approval {
        /// The wave.
        name: WaveName,
        /// The source.
        source: SourceKind,
    },
    /// The control plane's order to go.
    Order,
    /// The control plane's leave to restart.
    RebootOrder,
    /// The host's clock is behind the release's own date, and a window cannot be told by it.
    Clock {
        /// What it must reach.
        reach_ms: UnixMs,
    },
    /// A window opens later.
    Window {
        /// When.
        opens_at_ms: UnixMs,
    },
    /// No window will open.
    WindowNeverOpens {
        /// Why.
        never: NeverOpens,
    },
    /// It cannot be read what runs, so there would be no way back.
    RunningSystemUnknown,
    /// The activation, at this step.
    Activation {
        /// `None` until it has begun.
        step: Option<Step>,
    },
    /// Probes that have not passed since the activation, or fail now, and perhaps the source.
    Proof {
        /// Those probes.
        probes: Vec<ProbeRef>,
        /// Whether the source must still answer.
        source: bool,
        /// When the trial or the watch is over.
        until_ms: UnixMs,
    },
    /// The commit.
    Commit,
    /// The watch goes on, and all is well.
    Soak {
        /// Until then.
        until_ms: UnixMs,
    },
    /// The hooks before or after a reboot.
    Hooks,
    /// A person's reboot: the policy forbids the host to restart by itself.
    PersonToReboot,
    /// The reboot, which was ordered.
    Reboot,
    /// A pause after something stood against a reboot.
    RebootAgain {
        /// What it was.
        why: String,
        /// When it is tried again.
        at_ms: UnixMs,
    },
    /// The way back.
    WayBack {
        /// To there.
        to: StorePath,
    },
    /// A pause before the next try.
    Retry {
        /// When.
        at_ms: UnixMs,
        /// The how manyth try that will be.
        attempt: u32,
    },
    /// A newer release, or a person who asks for another try.
    NewerReleaseOrRetry,
}

/// By whom a host is restarted that waits for it. What may take longer is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartBy {
    /// By itself, as soon as nothing stands against it.
    Itself,
    /// By itself, within a window of its release.
    AWindow,
    /// By a person.
    APerson,
}

/// What a host is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doing {
    /// The state.
    pub state: StateName,
    /// Since when, by the host's clock.
    pub since_ms: UnixMs,
    /// The release that it is about.
    pub release: Option<ReleaseId>,
    /// The system that it is about.
    pub system: Option<StorePath>,
    /// What it waits for.
    pub waiting: WaitingOn,
    /// What went wrong, and of which kind it is.
    pub failure: Option<(FailureClass, Failure)>,
    /// When it looks again by itself.
    pub wake_at_ms: Option<UnixMs>,
}

impl HostState {
    /// What the host is doing, since when, and what it waits for.
    pub fn describe(&self, now: Now) -> Doing {
        let waits = waits(self, now);
        let settled = self.settled.as_ref().map(|done| &*done.terms);
        let about = self.phase.target().or(settled);
        Doing {
            state: self.phase.name(),
            since_ms: self.since_ms,
            release: about.map(|terms| terms.release.clone()),
            system: about.map(|terms| terms.system.clone()),
            waiting: waits.on,
            failure: self.phase.failure().map(|failure| (failure.class(), failure.clone())),
            wake_at_ms: waits.until,
        }
    }

    /// The newest verified release, if the host is still busy with another one that it comes after. It is taken up when
    /// that one is over, or may be left: never in the middle of a switch, of a trial or of a watch.
    pub fn comes_next(&self) -> Option<&ReleaseId> {
        let settled = self.settled.as_ref().map(|done| &*done.terms);
        let about = self.phase.target().or(settled)?;
        self.news(Some(about)).map(|newest| &newest.release)
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentStart => f.write_str("its agent's first start"),
            Self::NewerRelease => f.write_str("a newer release"),
            Self::Fetch { attempt: 1 } => f.write_str("the fetch"),
            Self::Fetch { attempt } => write!(f, "the fetch, try {attempt}"),
            Self::Hold { by, why, until_ms: None } => write!(f, "{by}, who holds it: {why}"),
            Self::Hold { by, why, until_ms: Some(until) } => {
                write!(f, "{by}, who holds it until {}: {why}", Date(*until))
            }
            Self::ReleaseExpired { since_ms } => {
                write!(f, "a newer release: this one expired at {}", Date(*since_ms))
            }
            Self::RootExpired { root, since_ms } => {
                write!(f, "a newer root: root {root} expired at {}", Date(*since_ms))
            }
            Self::VerifiedAnew { root } => {
                write!(f, "the release to be verified under root {root}, which came since")
            }
            Self::Wave { wave, name, opens_at_ms } => {
                write!(f, "wave {wave} ({name}), which opens at {}", Date(*opens_at_ms))
            }
            Self::Approval { name, source } => {
                write!(f, "a person's approval of wave {name}, which {source} cannot pass on")
            }
            Self::Order => f.write_str("the control plane's order"),
            Self::RebootOrder => f.write_str("the control plane's leave to restart"),
            Self::Clock { reach_ms } => {
                write!(f, "its clock, which is behind {}: no window can be told by it", Date(*reach_ms))
            }
            Self::Window { opens_at_ms } => write!(f, "a window, which opens at {}", Date(*opens_at_ms)),
            Self::WindowNeverOpens { never } => write!(f, "a window that never opens: {never}"),
            Self::RunningSystemUnknown => f.write_str("knowing what runs: the link to it cannot be read"),
            Self::Activation { step: None } => f.write_str("the activation's beginning"),
            Self::Activation { step: Some(step) } => write!(f, "the activation, which is at {step}"),
            Self::Proof { probes, source, until_ms } => {
                let probes = probes.iter().map(ToString::to_string);
                let all: Vec<String> = probes.chain(source.then(|| "the source".to_owned())).collect();
                write!(f, "{}, until {}", all.join(", "), Date(*until_ms))
            }
            Self::Commit => f.write_str("the commit"),
            Self::Soak { until_ms } => write!(f, "the end of the soak at {}", Date(*until_ms)),
            Self::Hooks => f.write_str("the reboot hooks"),
            Self::PersonToReboot => f.write_str("a person's reboot"),
            Self::Reboot => f.write_str("the reboot"),
            Self::RebootAgain { why, at_ms } => {
                write!(f, "another try to restart at {}, after: {why}", Date(*at_ms))
            }
            Self::WayBack { to } => write!(f, "the way back to {to}"),
            Self::Retry { at_ms, attempt } => write!(f, "try {attempt} at {}", Date(*at_ms)),
            Self::NewerReleaseOrRetry => f.write_str("a newer release, or a person's `retry`"),
        }
    }
}
