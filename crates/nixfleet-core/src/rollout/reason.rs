//! Why a host does not move.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::object::Objection;
use super::progress::{By, FailedHow};
use crate::activation::outcome::FailureClass;
use crate::host::waiting::{RestartBy, StateName};
use crate::host::window::NeverOpens;
use crate::model::names::{ChannelName, HostName, ReleaseId, WaveName};
use crate::model::policy::{Scope, WaveIndex};
use crate::model::select::Selector;
use crate::model::time::{Date, UnixMs};

/// Why hosts do not move.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a host held back for a reason nobody reads is held back for ever"]
pub struct PlanReport {
    /// The reason of every host that the plan has no order for.
    pub held: Held,
    /// When a plan may say something else although nothing happened: a wave, a window, a hold, or a silence that gets
    /// too long. `None` if only news can change it.
    pub again_ms: Option<UnixMs>,
}

/// The hosts that a plan has no order for, by channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    pub(super) channels: BTreeMap<ChannelName, HeldIn>,
}

impl Held {
    /// Those of one channel.
    pub fn of(&self, channel: &ChannelName) -> Option<&HeldIn> {
        self.channels.get(channel)
    }

    /// Why this host does not move; `None` if it was ordered, or nobody knows it. Every channel is asked, so whoever has
    /// many hosts to ask about takes them channel by channel.
    pub fn get(&self, host: &HostName) -> Option<&Reason> {
        self.channels.values().find_map(|held| held.get(host))
    }

    /// Every host with its reason, by channel and name.
    pub fn iter(&self) -> impl Iterator<Item = (&HostName, &Reason)> {
        self.channels.values().flat_map(HeldIn::iter)
    }

    /// Says of everybody in this channel who waits, or would have been ordered, that nothing of the plan for it is done: this is
    /// objected to.
    pub fn withhold(&mut self, channel: &ChannelName, objections: &[Objection]) {
        let Some(held) = self.channels.get_mut(channel) else { return };
        let id = held.reason(Reason::withheld(objections));
        for place in 0..held.which.len() {
            let which = held.which.get(place).copied().flatten();
            if !held.told(which).is_some_and(Reason::is_of_no_plan) {
                held.hold(place, id);
            }
        }
    }

    /// Every host, by channel and name.
    pub fn keys(&self) -> impl Iterator<Item = &HostName> {
        self.iter().map(|(host, _)| host)
    }
}

/// Why hosts of one channel do not move. Each reason stands here once, however many hosts share it: hosts have four
/// bytes each, and their names are those of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldIn {
    names: Arc<[HostName]>,
    /// By place; `None` for a host that was ordered.
    which: Vec<Option<ReasonId>>,
    reasons: Vec<Reason>,
}

/// The place of a reason among those of its channel, counted from 1 so that a missing one takes no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReasonId(NonZeroU32);

impl HeldIn {
    /// Nobody yet, of these hosts.
    pub(super) fn new(names: Arc<[HostName]>) -> Self {
        let which = vec![None; names.len()];
        Self { names, which, reasons: Vec::new() }
    }

    /// A reason that hosts may have from now on.
    pub(super) fn reason(&mut self, reason: Reason) -> ReasonId {
        self.reasons.push(reason);
        let count = u32::try_from(self.reasons.len()).ok().and_then(NonZeroU32::new);
        ReasonId(count.unwrap_or(NonZeroU32::MAX))
    }

    /// The host at `place` has this reason.
    pub(super) fn hold(&mut self, place: usize, id: ReasonId) {
        if let Some(which) = self.which.get_mut(place) {
            *which = Some(id);
        }
    }

    /// Why this host does not move; `None` if it was ordered, or is of another channel.
    pub fn get(&self, host: &HostName) -> Option<&Reason> {
        let place = self.names.binary_search(host).ok()?;
        self.told(*self.which.get(place)?)
    }

    /// Every host of the channel that was not ordered, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&HostName, &Reason)> {
        self.names.iter().zip(&self.which).filter_map(|(name, which)| Some((name, self.told(*which)?)))
    }

    fn told(&self, which: Option<ReasonId>) -> Option<&Reason> {
        self.reasons.get(usize::try_from(which?.0.get()).ok()?.checked_sub(1)?)
    }
}

/// Why a host does not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// It runs the release.
    Done,
    /// It is on its way.
    OnItsWay {
        /// In this state; `None` when it was ordered and did not say yet that it began.
        state: Option<StateName>,
        /// To there.
        release: ReleaseId,
        /// By whom it must be restarted, where that may take long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restart_by: Option<RestartBy>,
    },
    /// It runs the release and is watched.
    Soaking,
    /// It goes to an older release, or was told to and did not say yet what became of it; that ends first.
    Superseded {
        /// The older release.
        release: ReleaseId,
    },
    /// It has an order that is taken back, and has neither answered nor begun yet.
    TakenBack {
        /// The release that it was to move for.
        release: ReleaseId,
    },
    /// A person paused the rollout.
    Paused(By),
    /// Failures stopped the rollout.
    Halted {
        /// The host that was one too many.
        host: HostName,
        /// How it failed.
        failure: FailedHow,
    },
    /// A person ended the rollout.
    Aborted(By),
    /// The release has expired.
    Expired {
        /// Since then.
        since_ms: UnixMs,
    },
    /// A person keeps it.
    Held {
        /// Who.
        by: String,
        /// Why.
        why: String,
        /// Until then.
        until_ms: Option<UnixMs>,
    },
    /// A person left it out of this rollout.
    Skipped(By),
    /// Its system failed elsewhere.
    Quarantined {
        /// There.
        host: HostName,
    },
    /// It failed itself: a newer release or `retry` moves it.
    Failed {
        /// How.
        failure: FailedHow,
    },
    /// It failed, and tries again by itself.
    TriesAgain {
        /// How.
        class: FailureClass,
    },
    /// It was not heard of for longer than the policy's `offline_after`; it catches up when it is back.
    Offline {
        /// Since then; `None` if it was never heard of.
        since_ms: Option<UnixMs>,
    },
    /// It never reported its state.
    NeverReported,
    /// It is fetching, or was told to.
    NotStaged,
    /// Enough hosts are fetching.
    StageBudget {
        /// So many fetch.
        used: u32,
        /// So many may.
        limit: u32,
    },
    /// Its wave is not open.
    Wave {
        /// Its wave.
        wave: WaveIndex,
        /// Its name.
        name: WaveName,
        /// What the next wave to open waits for.
        on: WaveWaits,
    },
    /// The policy has no such wave, so it never opens.
    NoSuchWave {
        /// The wave.
        wave: WaveIndex,
    },
    /// A budget is used up.
    Budget {
        /// The group.
        hosts: Selector,
        /// Where the group is looked for.
        scope: Scope,
        /// So many of it are on their way.
        used: u32,
        /// So many may be.
        limit: u32,
        /// One of those on their way who keeps its place until it is restarted, which may take long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_restart: Option<AwaitsRestart>,
    },
    /// A host that must be done first is not.
    Edge {
        /// That host; the first by name, if there are several.
        after: HostName,
    },
    /// No window is open.
    Window {
        /// The next opens then.
        opens_ms: UnixMs,
    },
    /// No window will open.
    WindowNeverOpens {
        /// Why.
        never: NeverOpens,
    },
    /// What is planned for its channel breaks rules that it must keep, so nothing of it is done: a mistake in our program.
    Withheld {
        /// What is wrong with it: the first of it, if it is much. The plan tells all.
        objections: Vec<String>,
        /// How much more there is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        others: Option<NonZeroU32>,
    },
    /// It can never be its turn: the policy contradicts itself, and only another one helps.
    Deadlock {
        /// In which way.
        on: Deadlock,
    },
}

impl Reason {
    /// That the channel stands still, since this is objected to.
    fn withheld(objections: &[Objection]) -> Self {
        let (first, rest) = objections.split_at(objections.len().min(TOLD_MAX));
        let others = NonZeroU32::new(u32::try_from(rest.len()).unwrap_or(u32::MAX));
        Self::Withheld { objections: first.iter().map(ToString::to_string).collect(), others }
    }

    /// Whether it holds whatever becomes of the plan: it is of the host's own doing, or of a person's.
    fn is_of_no_plan(&self) -> bool {
        match self {
            Self::Done
            | Self::OnItsWay { .. }
            | Self::Soaking
            | Self::Superseded { .. }
            | Self::TakenBack { .. }
            | Self::Paused(_)
            | Self::Aborted(_)
            | Self::Expired { .. }
            | Self::Held { .. }
            | Self::Skipped(_)
            | Self::Failed { .. }
            | Self::TriesAgain { .. }
            | Self::Offline { .. }
            | Self::NeverReported => true,
            Self::Halted { .. }
            | Self::Quarantined { .. }
            | Self::NotStaged
            | Self::StageBudget { .. }
            | Self::Wave { .. }
            | Self::NoSuchWave { .. }
            | Self::Budget { .. }
            | Self::Edge { .. }
            | Self::Window { .. }
            | Self::WindowNeverOpens { .. }
            | Self::Withheld { .. }
            | Self::Deadlock { .. } => false,
        }
    }
}

/// A host that waits for a restart that may take long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitsRestart {
    /// The host: the first by name, of those that may take longest.
    pub host: HostName,
    /// By whom it must be restarted.
    pub by: RestartBy,
}

/// How a policy contradicts itself. Such a release is refused before it is signed and where it is taken in, so a planner
/// meets one only if somebody got round both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "deadlock", rename_all = "kebab-case")]
pub enum Deadlock {
    /// Edges, or edges and waves, form a circle.
    Circle {
        /// The host that must be done before it, and cannot be; the first by name, if there are several.
        after: HostName,
    },
    /// A budget lets no host move.
    Budget {
        /// The group.
        hosts: Selector,
        /// Where the group is looked for.
        scope: Scope,
    },
    /// No host may fetch.
    StageBudget,
    /// Channels wait for each other.
    Channels {
        /// The one that this channel waits for.
        channel: ChannelName,
    },
}

/// What a wave waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "kebab-case")]
pub enum WaveWaits {
    /// Hosts of an earlier wave.
    Hosts {
        /// That wave.
        wave: WaveIndex,
        /// How many are missing.
        missing: u32,
        /// The first of them by name.
        first: HostName,
    },
    /// Evidence: every host of an earlier wave is excused, and not one has shown that the release is good.
    Evidence {
        /// That wave.
        wave: WaveIndex,
    },
    /// Its signed time.
    Time {
        /// Which wave.
        wave: WaveIndex,
        /// Then.
        opens_ms: UnixMs,
    },
    /// A person.
    Approval {
        /// Which wave.
        wave: WaveIndex,
    },
    /// Another channel.
    Channel {
        /// Which one.
        channel: ChannelName,
        /// In which way.
        lacks: ChannelLacks,
    },
}

/// In which way another channel is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelLacks {
    /// It has no release.
    AnyRelease,
    /// Its release names no source revision, so nobody can tell whether it is of the one that waits.
    AnyRevision,
    /// Its release is of another source revision.
    SameRevision,
    /// Its rollout has not converged.
    Convergence,
    /// Its rollout has not converged, and waits for this channel in turn.
    Circle,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("it is done"),
            Self::OnItsWay { state: Some(state), release, restart_by } => {
                write!(f, "it is on its way to {release}: {state}")?;
                restart_by.map_or(Ok(()), |by| write!(f, "; {}", restarts("it", by)))
            }
            Self::OnItsWay { state: None, release, restart_by: _ } => {
                write!(f, "it was told to move to {release}")
            }
            Self::Soaking => f.write_str("it runs the release and is watched"),
            Self::Superseded { release } => write!(f, "its way to {release} must end first"),
            Self::TakenBack { release } => {
                write!(f, "its order for {release} is taken back, and it has not answered yet")
            }
            Self::Paused(By { who, why, at_ms: _ }) => write!(f, "{who} paused the rollout: {why}"),
            Self::Halted { host, failure } => write!(f, "the rollout halted: {host} failed ({failure})"),
            Self::Aborted(By { who, why, at_ms: _ }) => write!(f, "{who} ended the rollout: {why}"),
            Self::Expired { since_ms } => write!(f, "the release expired at {}", Date(*since_ms)),
            Self::Held { by, why, until_ms: None } => write!(f, "{by} keeps it: {why}"),
            Self::Held { by, why, until_ms: Some(until) } => {
                write!(f, "{by} keeps it until {}: {why}", Date(*until))
            }
            Self::Skipped(By { who, why, at_ms: _ }) => write!(f, "{who} left it out: {why}"),
            Self::Quarantined { host } => write!(f, "its system failed on {host}"),
            Self::Failed { failure } => write!(f, "it failed ({failure})"),
            Self::TriesAgain { class } => write!(f, "it failed ({class}) and tries again"),
            Self::Offline { since_ms: Some(since) } => write!(f, "it was last heard of at {}", Date(*since)),
            Self::Offline { since_ms: None } => f.write_str("it was never heard of"),
            Self::NeverReported => f.write_str("it never reported"),
            Self::NotStaged => f.write_str("it has not fetched the release yet"),
            Self::StageBudget { used, limit } => write!(f, "{used} of {limit} hosts fetch already"),
            Self::Wave { wave, name, on } => write!(f, "wave {wave} ({name}) is not open: {on}"),
            Self::NoSuchWave { wave } => write!(f, "the policy has no wave {wave}"),
            Self::Budget { hosts, scope, used, limit, until_restart } => {
                let over = match scope {
                    Scope::Channel => "",
                    Scope::Fleet => " in the fleet",
                };
                write!(f, "{used} of {limit} hosts of `{hosts}`{over} are on their way")?;
                let waits = |AwaitsRestart { host, by }: &AwaitsRestart| restarts(host.as_str(), *by);
                until_restart.as_ref().map_or(Ok(()), |one| write!(f, "; {}", waits(one)))
            }
            Self::Edge { after } => write!(f, "{after} must be done first"),
            Self::Window { opens_ms } => write!(f, "the next window opens at {}", Date(*opens_ms)),
            Self::WindowNeverOpens { never } => write!(f, "no window will open: {never}"),
            Self::Withheld { objections, others } => write!(
                f,
                "its channel stands still, by a mistake in the control plane's program: {}",
                in_short(objections, "; ", *others)
            ),
            Self::Deadlock { on } => write!(f, "it can never move under this policy: {on}"),
        }
    }
}

/// So many things of one kind are told in a sentence, of as many as a fleet has hosts.
const TOLD_MAX: usize = 5;

/// The first of these texts, with what stands between them, and how many others there are: these `others`, which are not
/// among them, too.
pub fn in_short<T: Borrow<str>>(texts: &[T], between: &str, others: Option<NonZeroU32>) -> String {
    let (first, rest) = texts.split_at(texts.len().min(TOLD_MAX));
    let first = first.join(between);
    match rest.len() as u64 + others.map_or(0, |others| u64::from(others.get())) {
        0 => first,
        1 => format!("{first}{between}and 1 other"),
        others => format!("{first}{between}and {others} others"),
    }
}

/// What a host waits for that is to be restarted, after a semicolon.
fn restarts(host: &str, by: RestartBy) -> String {
    match by {
        RestartBy::Itself => format!("{host} restarts by itself"),
        RestartBy::AWindow => format!("{host} restarts in a window of its release"),
        RestartBy::APerson => format!("{host} waits for a person to restart it"),
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Circle { after } => write!(f, "{after} must be done first, and cannot be"),
            Self::Budget { hosts, scope: Scope::Channel } => {
                write!(f, "the budget of `{hosts}` lets no host move")
            }
            Self::Budget { hosts, scope: Scope::Fleet } => {
                write!(f, "the budget of `{hosts}` in the fleet lets no host move")
            }
            Self::StageBudget => f.write_str("no host may fetch"),
            Self::Channels { channel } => write!(f, "its channel and {channel} wait for each other"),
        }
    }
}

impl fmt::Display for WaveWaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts { wave, missing: 1, first } => write!(f, "{first} of wave {wave} is not done"),
            Self::Hosts { wave, missing, first } => {
                write!(f, "{missing} hosts of wave {wave} are not done, {first} for one")
            }
            Self::Evidence { wave } => write!(f, "no host of wave {wave} has shown that the release is good"),
            Self::Time { wave, opens_ms } => write!(f, "wave {wave} opens at {}", Date(*opens_ms)),
            Self::Approval { wave } => write!(f, "wave {wave} waits for a person's approval"),
            Self::Channel { channel, lacks } => write!(
                f,
                "channel {channel} {}",
                match lacks {
                    ChannelLacks::AnyRelease => "has no release",
                    ChannelLacks::AnyRevision => "has a release that names no source revision",
                    ChannelLacks::SameRevision => "is at another revision",
                    ChannelLacks::Convergence => "has not converged",
                    ChannelLacks::Circle => "waits for this one in turn",
                }
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twice(hosts: u32) -> Vec<Objection> {
        (1..=hosts)
            .map(|host| Objection::OrderedTwice(format!("web-{host}").parse().expect("a name")))
            .collect()
    }

    #[test]
    fn of_what_is_objected_to_the_first_five_are_told_and_the_others_counted() {
        let said = |hosts| {
            let reason = Reason::withheld(&twice(hosts));
            let Reason::Withheld { objections, others } = &reason else { panic!("{reason:?}") };
            (objections.len(), others.map(NonZeroU32::get), reason.to_string())
        };
        assert_eq!((said(5).0, said(5).1), (5, None));
        assert!(said(5).2.ends_with("; web-5 is ordered twice"), "{}", said(5).2);
        let (told, others, text) = said(12);
        assert_eq!((told, others), (5, Some(7)));
        assert!(text.ends_with("; web-5 is ordered twice; and 7 others"), "{text}");
        assert!(said(6).2.ends_with("; and 1 other"), "{}", said(6).2);
    }

    #[test]
    fn all_that_an_older_control_plane_tells_is_told_in_short() {
        let objections = twice(7).iter().map(ToString::to_string).collect();
        let text = Reason::Withheld { objections, others: None }.to_string();
        assert!(text.ends_with("; web-5 is ordered twice; and 2 others"), "{text}");
    }
}
