//! What is promised of a fleet for which nothing goes wrong any more.

use nixfleet_core::host::phase::Phase;
use nixfleet_core::host::waiting::WaitingOn;
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::policy::OnFailure;
use nixfleet_core::rollout::reason::WaveWaits;
use nixfleet_core::rollout::{Channel, Held, Reason, Standing, Status, plan};

use super::Promise;
use crate::plane::place_of;
use crate::sim::Sim;
use crate::truth::Signed;

impl Sim {
    /// Whether nothing moves any more: each rollout has converged, has halted, or waits for a person; each host that is not
    /// done says why in a way that only a person or a newer release can change. The error is who is not at rest.
    pub(crate) fn at_rest(&self) -> Result<(), String> {
        let (made, report) = plan(&self.plane.snapshot, self.plane.now(self.now));
        if !made.is_empty() {
            return Err(format!(
                "there is something to plan: {:?} {:?}",
                made.decisions.first(),
                made.orders.first()
            ));
        }
        for channel in self.plane.snapshot.channels.values() {
            let Some(rollout) = &channel.rollout else { return Err("a release has no rollout".to_owned()) };
            let stopped = !matches!(rollout.status, Status::Going)
                || channel.current.expires_ms <= self.plane.now(self.now);
            if let Some(name) = stopped.then(|| self.left_with_an_order(channel)).flatten() {
                return Err(format!("{name} may begin in a rollout that is stopped{}", self.own_word(name)));
            }
            if let Some(name) = self.left_behind(channel) {
                return Err(format!("{name} did not go back{}", self.own_word(name)));
            }
            for name in channel.hosts.keys() {
                let Some(reason) = report.held.get(name) else { continue };
                if place_of(name).is_some_and(|host| self.is_static(host)) {
                    continue;
                }
                // What it has is older than what has expired, so it waits for a release too.
                let waits = stopped && matches!(reason, Reason::Superseded { .. });
                if !waits && !rests(reason, &report.held, stopped) {
                    let first = waited_for(reason).and_then(|first| Some((first, report.held.get(first)?)));
                    let first = first.map_or_else(String::new, |(first, why)| format!("; {first}: {why}"));
                    return Err(format!("{name}: {reason}{}{first}", self.own_word(name)));
                }
            }
        }
        let moves = (0..self.hosts.len()).find(|host| self.is_static(*host) && !self.rests_alone(*host));
        moves.map_or(Ok(()), |host| {
            let name = &self.story.hosts[host].name;
            Err(format!("{name} follows the web server{}", self.own_word(name)))
        })
    }

    /// Whether a host that nobody tells anything waits for a person or a newer release.
    fn rests_alone(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        match it.disk.state.describe(it.machine.now(self.now)).waiting {
            WaitingOn::NewerRelease
            | WaitingOn::NewerReleaseOrRetry
            | WaitingOn::ReleaseExpired { .. }
            | WaitingOn::RootExpired { .. }
            | WaitingOn::VerifiedAnew { .. }
            | WaitingOn::Approval { .. }
            | WaitingOn::WindowNeverOpens { .. } => true,
            WaitingOn::Hold { until_ms, .. } => until_ms.is_none(),
            WaitingOn::AgentStart
            | WaitingOn::Fetch { .. }
            | WaitingOn::Wave { .. }
            | WaitingOn::Order
            | WaitingOn::RebootOrder
            | WaitingOn::Clock { .. }
            | WaitingOn::Window { .. }
            | WaitingOn::RunningSystemUnknown
            | WaitingOn::Activation { .. }
            | WaitingOn::Proof { .. }
            | WaitingOn::Commit
            | WaitingOn::Soak { .. }
            | WaitingOn::Hooks
            | WaitingOn::PersonToReboot
            | WaitingOn::Reboot
            | WaitingOn::RebootAgain { .. }
            | WaitingOn::WayBack { .. }
            | WaitingOn::Retry { .. } => false,
        }
    }

    /// A host that still runs what its halted rollout wanted all to go back from, and has a way back.
    fn left_behind<'a>(&self, channel: &'a Channel) -> Option<&'a HostName> {
        let halted = matches!(channel.rollout.as_ref()?.status, Status::Halted { .. });
        if !halted || channel.current.policy.on_failure != OnFailure::RevertAll {
            return None;
        }
        let stays = |(name, known): &(&HostName, &nixfleet_core::rollout::Host)| {
            let Some(host) = place_of(name) else { return false };
            let state = &self.hosts[host].disk.state;
            let done = state.settled.as_ref().filter(|_| matches!(state.phase, Phase::Converged));
            let runs = done.is_some_and(|done| {
                let way = done.previous.as_ref().is_some_and(|previous| *previous != done.terms.system);
                done.terms.release == channel.current.id && way
            });
            let excused = known.skip.is_some() || known.hold.is_some() || state.hold.is_some();
            runs && !excused && !self.is_static(host)
        };
        channel.hosts.iter().find(stays).map(|(name, _)| name)
    }

    /// A host that has an order by its own state and has not begun (L26).
    fn left_with_an_order<'a>(&self, channel: &'a Channel) -> Option<&'a HostName> {
        let may_begin = |name: &&HostName| {
            let state = place_of(name).map(|host| &self.hosts[host].disk.state);
            state.is_some_and(|state| Standing::of(state).may_begin(&channel.current.id))
        };
        channel.hosts.keys().find(may_begin)
    }

    fn own_word(&self, name: &HostName) -> String {
        let Some(host) = place_of(name) else { return String::new() };
        let it = &self.hosts[host];
        let doing = it.disk.state.describe(it.machine.now(self.now));
        let (told, newest) = (self.plane.rows[host].follower.told(), it.disk.state.seq);
        format!(
            "; the host itself is {} and waits for {} (report {told} of {newest})",
            doing.state, doing.waiting
        )
    }

    /// Whether everybody runs the newest release.
    pub(crate) fn all_run_the_newest(&self) -> Result<(), String> {
        for (host, it) in self.hosts.iter().enumerate() {
            let Some(served) = self.truth.signed[it.channel].last() else {
                return Err("nothing is signed".to_owned());
            };
            if self.is_static(host) && self.waits_for_a_person(host, served) {
                continue;
            }
            let done = it.disk.state.settled.as_ref().map(|done| &done.terms.release);
            let is_done = matches!(it.disk.state.phase, Phase::Converged) && done == Some(&served.id);
            let runs = served.terms[host].as_ref().and_then(|terms| self.truth.system(&terms.system));
            if !is_done || runs != Some(it.machine.current) {
                let name = &self.story.hosts[host].name;
                let why = self.plane.report.held.get(name).map_or_else(String::new, ToString::to_string);
                return Err(format!("{name} does not run {}: {why}{}", served.id, self.own_word(name)));
            }
        }
        let open =
            self.plane.snapshot.channels.values().find(|channel| {
                channel.rollout.as_ref().is_none_or(|rollout| rollout.converged_ms.is_none())
            });
        open.map_or(Ok(()), |channel| Err(format!("{} has not converged", channel.current.id)))
    }

    /// Whether a host that hears of no person has fetched the release and may not go without one.
    fn waits_for_a_person(&self, host: usize, served: &Signed) -> bool {
        let it = &self.hosts[host];
        let fetched = matches!(&it.disk.state.phase, Phase::Staged(at) if at.target.release == served.id);
        let doing = it.disk.state.describe(it.machine.now(self.now));
        fetched && matches!(doing.waiting, WaitingOn::Approval { .. })
    }

    /// It took too long.
    pub(crate) fn never_rests(&mut self, promise: Promise, who: &str) {
        self.must(false, promise, None, || who.to_owned());
    }
}

/// The host that somebody waits for.
fn waited_for(reason: &Reason) -> Option<&HostName> {
    match reason {
        Reason::Edge { after } | Reason::Wave { on: WaveWaits::Hosts { first: after, .. }, .. } => {
            Some(after)
        }
        _ => None,
    }
}

/// Whether a reason is one that only a person or a newer release changes.
fn rests(reason: &Reason, held: &Held, stopped: bool) -> bool {
    let of = |host: &HostName| match held.get(host) {
        // It waits for one that moves, or that can be told to.
        None | Some(Reason::Done) => false,
        Some(Reason::Wave { .. } | Reason::Edge { .. }) => true,
        Some(other) => rests(other, held, stopped),
    };
    match reason {
        Reason::Done
        | Reason::Paused(_)
        | Reason::Halted { .. }
        | Reason::Aborted(_)
        | Reason::Skipped(_)
        | Reason::Quarantined { .. }
        | Reason::Failed { .. }
        | Reason::NoSuchWave { .. }
        | Reason::WindowNeverOpens { .. }
        | Reason::Expired { .. }
        | Reason::Deadlock { .. } => true,
        Reason::Held { until_ms, .. } => until_ms.is_none(),
        Reason::Edge { after } => of(after),
        Reason::Wave { on, .. } => match on {
            WaveWaits::Hosts { first, .. } => stopped || of(first),
            WaveWaits::Evidence { .. } | WaveWaits::Channel { .. } => true,
            WaveWaits::Time { .. } | WaveWaits::Approval { .. } => stopped,
        },
        Reason::OnItsWay { .. }
        | Reason::Soaking
        | Reason::Superseded { .. }
        | Reason::TakenBack { .. }
        | Reason::TriesAgain { .. }
        | Reason::Offline { .. }
        | Reason::NeverReported
        | Reason::NotStaged
        | Reason::StageBudget { .. }
        | Reason::Budget { .. }
        | Reason::Withheld { .. }
        | Reason::Window { .. } => false,
    }
}
