//! What is promised of a fleet for which nothing goes wrong any more.

use nixfleet_core::host::phase::Phase;
use nixfleet_core::model::names::HostName;
use nixfleet_core::rollout::reason::WaveWaits;
use nixfleet_core::rollout::{Channel, Held, Reason, Standing, Status, plan};

use super::Promise;
use crate::plane::place_of;
use crate::sim::Sim;

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
            let stopped = !matches!(rollout.status, Status::Going);
            if let Some(name) = stopped.then(|| self.left_with_an_order(channel)).flatten() {
                return Err(format!("{name} may begin in a rollout that is stopped{}", self.own_word(name)));
            }
            for name in channel.hosts.keys() {
                let Some(reason) = report.held.get(name) else { continue };
                if !rests(reason, &report.held, stopped) {
                    return Err(format!("{name}: {reason}{}", self.own_word(name)));
                }
            }
        }
        Ok(())
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
            let Some(served) = &self.plane.served[it.channel] else {
                return Err("nothing is served".to_owned());
            };
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

    /// It took too long.
    pub(crate) fn never_rests(&mut self, promise: Promise, who: &str) {
        self.must(false, promise, None, || who.to_owned());
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
        | Reason::Expired { .. }
        | Reason::TriesAgain { .. }
        | Reason::Offline { .. }
        | Reason::NeverReported
        | Reason::NotStaged
        | Reason::StageBudget { .. }
        | Reason::Budget { .. }
        | Reason::Window { .. } => false,
    }
}
