//! Whose turn it is, and why everybody else waits.

use std::collections::BTreeMap;

use super::gauges::Gauges;
use super::seen::{At, Seen, Silence};
use super::{Out, View, Wake};
use crate::host::window::{NeverOpens, Opening, opening};
use crate::model::names::{ChannelName, HostName};
use crate::model::policy::{Edge, OnFailure};
use crate::model::time::UnixMs;
use crate::rollout::order::{Order, What};
use crate::rollout::progress::{FailedHow, Status};
use crate::rollout::reason::Reason;
use crate::rollout::snapshot::RebootWanted;

/// Gives every host an order or a reason: channel by channel, wave by wave, by name.
pub(super) fn give<'a>(views: &BTreeMap<&'a ChannelName, View<'a>>, wake: &mut Wake, out: &mut Out<'a>) {
    let mut gauges = Gauges::new(views);
    for (name, view) in views {
        let mut rules = Rules::new(view, wake);
        let mut turn: Vec<&Seen<'a>> = view.seen.iter().collect();
        turn.sort_by_key(|seen| seen.host.placed.wave);
        for seen in turn {
            match rules.answer(seen, &gauges) {
                Answer::Nothing(reason) => out.held.push((seen.name, reason)),
                Answer::Order(what) => {
                    match what {
                        What::Stage => rules.fetching = rules.fetching.saturating_add(1),
                        What::Go | What::Retry | What::Reboot | What::Revert => gauges.take(name, seen),
                        What::Withdraw => {}
                    }
                    let release = match (what, &seen.host.ordered) {
                        (What::Withdraw, Some(ordered)) => ordered.release.clone(),
                        (_, _) => view.rollout.release.clone(),
                    };
                    let place = (*name, seen.host.placed.wave.0, seen.name);
                    out.orders.push((place, Order { host: seen.name.clone(), release, what }));
                }
            }
        }
    }
}

enum Answer {
    Order(What),
    Nothing(Reason),
}

/// What holds for a whole channel at this time.
struct Rules<'v, 'a> {
    view: &'v View<'a>,
    /// Why nobody of the rollout begins to move, if so.
    stopped: Option<Reason>,
    windows: Option<Reason>,
    reboot_windows: Option<Reason>,
    /// By edge: the first two hosts that must be done first and are not.
    edges: Vec<(&'a Edge, [Option<&'a HostName>; 2])>,
    fetching: u32,
    fetching_max: u32,
}

impl<'v, 'a> Rules<'v, 'a> {
    fn new(view: &'v View<'a>, wake: &mut Wake) -> Self {
        let policy = &view.channel.current.policy;
        let reboot = &policy.reboot.windows;
        let size = u32::try_from(view.seen.len()).unwrap_or(u32::MAX);
        let fetch = |seen: &&Seen<'_>| seen.at == At::Fetching && seen.silence == Silence::Heard;
        Self {
            view,
            stopped: stopped(view, wake.now),
            windows: shut(opening(&policy.windows, wake.now), wake),
            reboot_windows: shut(
                opening(if reboot.is_empty() { &policy.windows } else { reboot }, wake.now),
                wake,
            ),
            edges: policy.edges.iter().map(|edge| (edge, not_done(view, edge))).collect(),
            fetching: u32::try_from(view.seen.iter().filter(fetch).count()).unwrap_or(u32::MAX),
            fetching_max: policy.stage_in_flight.map_or(u32::MAX, |amount| amount.of(size)),
        }
    }

    fn answer(&self, seen: &Seen<'a>, gauges: &Gauges<'_>) -> Answer {
        if seen.withdraw {
            return Answer::Order(What::Withdraw);
        }
        match seen.at {
            At::Done | At::Soaking if self.goes_back() => self.way_back(seen, gauges),
            At::Done => self.restart(seen, gauges),
            At::Soaking => Answer::Nothing(Reason::Soaking),
            At::Restarting => Answer::Nothing(Reason::OnItsWay {
                state: seen.host.standing.as_ref().map(|standing| standing.state),
                release: self.view.rollout.release.clone(),
            }),
            At::OnItsWay(state) => {
                Answer::Nothing(Reason::OnItsWay { state, release: self.view.rollout.release.clone() })
            }
            At::Older(release) => Answer::Nothing(Reason::Superseded { release: release.clone() }),
            At::Failed(class) if seen.host.retry.is_none() => {
                let failure = FailedHow::Reported(class);
                Answer::Nothing(kept(seen).unwrap_or(Reason::Failed { failure }))
            }
            At::TriesAgain(class) => Answer::Nothing(kept(seen).unwrap_or(Reason::TriesAgain { class })),
            At::Behind | At::Fetching | At::Staged | At::Failed(_) => self.forward(seen, gauges),
        }
    }

    fn forward(&self, seen: &Seen<'a>, gauges: &Gauges<'_>) -> Answer {
        let placed = &seen.host.placed;
        let quarantined =
            self.view.quarantine(&placed.system).map(|host| Reason::Quarantined { host: host.clone() });
        let held = kept(seen).or_else(|| away(seen)).or_else(|| self.stopped.clone()).or(quarantined);
        if let Some(reason) = held {
            return Answer::Nothing(reason);
        }
        let what = match seen.at {
            At::Behind if self.fetching < self.fetching_max => return Answer::Order(What::Stage),
            At::Behind => {
                let (used, limit) = (self.fetching, self.fetching_max);
                return Answer::Nothing(Reason::StageBudget { used, limit });
            }
            At::Fetching => return Answer::Nothing(Reason::NotStaged),
            At::Failed(_) => What::Retry,
            At::Staged
            | At::OnItsWay(_)
            | At::Soaking
            | At::Done
            | At::Restarting
            | At::TriesAgain(_)
            | At::Older(_) => What::Go,
        };
        let waits = self.wave(seen).or_else(|| self.edge(seen)).or_else(|| self.windows.clone());
        match waits.or_else(|| gauges.full(self.view, seen)) {
            Some(reason) => Answer::Nothing(reason),
            None => Answer::Order(what),
        }
    }

    /// A restart for a release that is done is a turn of its own, whatever became of the rollout, unless a person stopped
    /// it.
    fn restart(&self, seen: &Seen<'a>, gauges: &Gauges<'_>) -> Answer {
        let wanted = seen.host.standing.as_ref().map(|standing| standing.reboot);
        if wanted != Some(RebootWanted::Yes) {
            return Answer::Nothing(Reason::Done);
        }
        let held = kept(seen).or_else(|| away(seen)).or_else(|| self.stopped.clone());
        let held = held.or_else(|| self.reboot_windows.clone());
        match held.or_else(|| gauges.full(self.view, seen)) {
            Some(reason) => Answer::Nothing(reason),
            None => Answer::Order(What::Reboot),
        }
    }

    fn goes_back(&self) -> bool {
        let halted = matches!(self.view.rollout.status, Status::Halted { .. });
        halted && self.view.channel.current.policy.on_failure == OnFailure::RevertAll
    }

    fn way_back(&self, seen: &Seen<'a>, gauges: &Gauges<'_>) -> Answer {
        match kept(seen).or_else(|| away(seen)).or_else(|| gauges.full(self.view, seen)) {
            Some(reason) => Answer::Nothing(reason),
            None => Answer::Order(What::Revert),
        }
    }

    fn wave(&self, seen: &Seen<'a>) -> Option<Reason> {
        let wave = seen.host.placed.wave;
        if usize::from(wave.0) < self.view.rollout.waves_opened.len() {
            return None;
        }
        let name = self.view.channel.current.policy.wave(wave).map(|wave| wave.name.clone());
        Some(match (name, &self.view.waits) {
            (Some(name), Some(on)) => Reason::Wave { wave, name, on: on.clone() },
            // An entry of a wave that the policy does not have is refused before it comes here.
            (Some(_) | None, _) => Reason::NoSuchWave { wave },
        })
    }

    fn edge(&self, seen: &Seen<'a>) -> Option<Reason> {
        let means = |edge: &Edge| edge.hosts.means(seen.name, &seen.host.placed.tags);
        let lacks = |(edge, open): &(&Edge, [Option<&'a HostName>; 2])| {
            let after = open.iter().flatten().find(|after| **after != seen.name)?;
            means(edge).then(|| Reason::Edge { after: (*after).clone() })
        };
        self.edges.iter().find_map(lacks)
    }
}

/// Why nobody begins to move.
fn stopped(view: &View<'_>, now: UnixMs) -> Option<Reason> {
    match &view.rollout.status {
        Status::Paused(by) => Some(Reason::Paused(by.clone())),
        Status::Aborted(by) => Some(Reason::Aborted(by.clone())),
        Status::Halted { host, failure, at_ms: _ } => {
            Some(Reason::Halted { host: host.clone(), failure: *failure })
        }
        Status::Going => {
            let since_ms = view.channel.current.expires_ms;
            view.is_expired(now).then_some(Reason::Expired { since_ms })
        }
    }
}

/// Why a person does not let it move.
fn kept(seen: &Seen<'_>) -> Option<Reason> {
    if let Some(by) = &seen.host.skip {
        return Some(Reason::Skipped(by.clone()));
    }
    let hold = seen.hold?;
    Some(Reason::Held { by: hold.by.clone(), why: hold.why.clone(), until_ms: hold.until_ms })
}

/// Why nothing can be said to it.
fn away(seen: &Seen<'_>) -> Option<Reason> {
    match seen.silence {
        Silence::Offline => Some(Reason::Offline { since_ms: seen.host.heard_ms }),
        Silence::Heard => seen.host.standing.is_none().then_some(Reason::NeverReported),
    }
}

fn shut(opening: Result<Opening, NeverOpens>, wake: &mut Wake) -> Option<Reason> {
    match opening {
        Ok(Opening::Open { until: _ }) => None,
        Ok(Opening::Opens { at }) => {
            wake.at(at);
            Some(Reason::Window { opens_ms: at })
        }
        Err(never) => Some(Reason::WindowNeverOpens { never }),
    }
}

/// The first two: a host may be among those that it waits for, and does not wait for itself.
fn not_done<'a>(view: &View<'a>, edge: &Edge) -> [Option<&'a HostName>; 2] {
    let open = |seen: &&Seen<'a>| {
        !seen.is_done() && !seen.is_excused() && edge.after.means(seen.name, &seen.host.placed.tags)
    };
    let mut open = view.seen.iter().filter(open).map(|seen| seen.name);
    [open.next(), open.next()]
}
