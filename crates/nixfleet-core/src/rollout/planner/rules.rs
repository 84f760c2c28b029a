//! What holds for a whole channel at this time: found once, and then asked of each of its hosts.

use super::deadlock;
use super::seen::Seen;
use super::why::{Same, Why};
use super::{View, Wake};
use crate::host::window::{NeverOpens, Opening, opening};
use crate::model::names::HostName;
use crate::model::policy::WaveIndex;
use crate::model::time::UnixMs;
use crate::rollout::progress::Status;
use crate::rollout::reason::{ChannelLacks, Deadlock, Reason, WaveWaits};

/// The reasons that many hosts of a channel share.
pub(super) struct Shared {
    /// Why nobody of the rollout begins to move.
    stopped: Option<Reason>,
    /// Why nobody switches now.
    windows: Option<Reason>,
    /// Why nobody restarts now.
    reboot_windows: Option<Reason>,
    /// Why waves are not open: the first that is not, and all after it.
    waves: Vec<Reason>,
}

impl Shared {
    pub(super) fn new(view: &View<'_>, wake: &mut Wake) -> Self {
        let policy = &view.channel.current.policy;
        let reboot = &policy.reboot.windows;
        let reboot = if reboot.is_empty() { &policy.windows } else { reboot };
        let shut_waves = view.rollout.waves_opened.len()..policy.waves.len();
        Self {
            stopped: stopped(view, wake.now),
            windows: shut(opening(&policy.windows, wake.now), wake),
            reboot_windows: shut(opening(reboot, wake.now), wake),
            waves: shut_waves.map(|wave| wave_waits(view, wave)).collect(),
        }
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

/// Why a wave that the policy has is not open.
fn wave_waits(view: &View<'_>, wave: usize) -> Reason {
    let index = WaveIndex(u16::try_from(wave).unwrap_or(u16::MAX));
    let name = view.channel.current.policy.wave(index).map(|wave| wave.name.clone());
    match (name, &view.waits) {
        (Some(_), Some(WaveWaits::Channel { channel, lacks: ChannelLacks::Circle })) => {
            Reason::Deadlock { on: Deadlock::Channels { channel: channel.clone() } }
        }
        (Some(name), Some(on)) => Reason::Wave { wave: index, name, on: on.clone() },
        (Some(_) | None, _) => Reason::NoSuchWave { wave: index },
    }
}

/// The rules of a channel, as they stand.
pub(super) struct Rules<'v> {
    view: &'v View<'v>,
    shared: &'v Shared,
    /// By edge: the first two hosts that must be done first and are not.
    edges: Vec<[Option<&'v HostName>; 2]>,
    /// By place: hosts that can never be done; empty if nobody waits for another host.
    stuck: Vec<bool>,
}

impl<'v> Rules<'v> {
    pub(super) fn new(view: &'v View<'v>, shared: &'v Shared) -> Self {
        let edges: Vec<_> = (0..view.groups.edges.len()).map(|edge| not_done(view, edge)).collect();
        let waits = edges.iter().any(|open| open.iter().any(Option::is_some));
        let stuck = if waits { deadlock::stuck(view) } else { Vec::new() };
        Self { view, shared, edges, stuck }
    }

    /// Why nobody of the rollout begins to move.
    pub(super) fn stopped(&self) -> Option<Why<'v>> {
        self.shared.stopped.as_ref().map(|reason| Why::Rule(Same(reason)))
    }

    /// Why nobody switches now.
    pub(super) fn window(&self) -> Option<Why<'v>> {
        self.shared.windows.as_ref().map(|reason| Why::Rule(Same(reason)))
    }

    /// Why nobody restarts now.
    pub(super) fn reboot_window(&self) -> Option<Why<'v>> {
        self.shared.reboot_windows.as_ref().map(|reason| Why::Rule(Same(reason)))
    }

    /// Why its system is not to be offered.
    pub(super) fn quarantine(&self, seen: &Seen<'_>) -> Option<Why<'v>> {
        self.view.quarantine(&seen.host.placed.system).map(Why::Quarantined)
    }

    /// Why its wave is not open.
    pub(super) fn wave(&self, seen: &Seen<'_>) -> Option<Why<'v>> {
        let after = seen.wave.checked_sub(self.view.rollout.waves_opened.len())?;
        // An entry of a wave that the policy does not have is refused before it comes here.
        let none = Why::NoSuchWave(seen.host.placed.wave);
        Some(self.shared.waves.get(after).map_or(none, |reason| Why::Rule(Same(reason))))
    }

    /// The first host that must be done before the one at `place`, and is not.
    pub(super) fn edge(&self, place: usize, seen: &Seen<'_>) -> Option<Why<'v>> {
        let after = self.edges.iter().zip(&self.view.groups.edges).find_map(|(open, (waiting, _))| {
            let after = open.iter().flatten().find(|after| **after != seen.name)?;
            self.view.groups.means(*waiting, place).then_some(*after)
        })?;
        let stuck = self.stuck.get(place).copied().unwrap_or(false);
        Some(if stuck { Why::Circle(after) } else { Why::Edge(after) })
    }
}

/// The first two: a host may be among those that it waits for, and does not wait for itself.
fn not_done<'v>(view: &'v View<'v>, edge: usize) -> [Option<&'v HostName>; 2] {
    let Some((_, after)) = view.groups.edges.get(edge) else { return [None; 2] };
    let open = |(place, seen): &(usize, &Seen<'v>)| {
        !seen.is_done() && !seen.is_excused() && view.groups.means(*after, *place)
    };
    let mut open = view.seen.iter().enumerate().filter(open).map(|(_, seen)| seen.name);
    [open.next(), open.next()]
}
