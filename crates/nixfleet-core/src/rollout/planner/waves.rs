//! Which waves open, and which rollouts have converged.

use std::collections::BTreeSet;

use super::{View, Wake};
use crate::model::names::{ChannelName, HostName};
use crate::model::policy::{Approval, Wave, WaveIndex};
use crate::rollout::order::Transition;
use crate::rollout::progress::Status;
use crate::rollout::reason::{ChannelLacks, WaveWaits};

/// How far a wave is.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally<'a> {
    /// Hosts that are neither done nor excused nor counted as failed.
    missing: u32,
    /// The first of them.
    first: Option<&'a HostName>,
    /// Hosts that are done.
    done: u32,
    /// Hosts that a person did not leave out.
    asked: u32,
}

impl Tally<'_> {
    /// Nobody is missing, and somebody has shown that the release is good, if there is anybody who could.
    fn is_complete(&self) -> bool {
        self.missing == 0 && (self.done > 0 || self.asked == 0)
    }
}

/// The waves of a channel.
pub(super) fn tallies<'a>(view: &View<'a>) -> Vec<Tally<'a>> {
    let mut out = vec![Tally::default(); view.channel.current.policy.waves.len()];
    for seen in &view.seen {
        let Some(tally) = out.get_mut(seen.wave) else { continue };
        tally.asked += u32::from(seen.host.skip.is_none());
        if seen.is_done() {
            tally.done += 1;
        } else if seen.is_waited_for() {
            tally.missing += 1;
            tally.first = tally.first.or(Some(seen.name));
        }
    }
    out
}

/// Opens what may open, again until nothing changes: a channel that converges may let another one begin.
pub(super) fn open(views: &mut [View<'_>], wake: &mut Wake) {
    // Each round but the last changes a wave or a rollout, so there are finitely many.
    loop {
        let lacking: Vec<_> = views.iter().map(|view| channel_lacks(views, view)).collect();
        let mut changed = false;
        for (view, lacking) in views.iter_mut().zip(lacking) {
            changed |= open_one(view, lacking.as_ref(), wake);
        }
        if !changed {
            return;
        }
    }
}

/// The channel called so; channels are sorted by name.
fn find<'v, 'a>(views: &'v [View<'a>], name: &ChannelName) -> Option<&'v View<'a>> {
    views.get(views.binary_search_by(|view| view.name.cmp(name)).ok()?)
}

/// The first channel that this one waits for.
fn channel_lacks(views: &[View<'_>], view: &View<'_>) -> Option<WaveWaits> {
    view.channel.current.policy.after.iter().find_map(|channel| {
        let lacks = match find(views, channel) {
            None => ChannelLacks::AnyRelease,
            Some(other) => lacks(other, view)?,
        };
        let circle = lacks == ChannelLacks::Convergence && waits_for(views, channel, view.name);
        let lacks = if circle { ChannelLacks::Circle } else { lacks };
        Some(WaveWaits::Channel { channel: channel.clone(), lacks })
    })
}

/// What `first` lacks for `view`, which comes after it.
fn lacks(first: &View<'_>, view: &View<'_>) -> Option<ChannelLacks> {
    if first.channel.current.revision.is_unknown() {
        Some(ChannelLacks::AnyRevision)
    } else if first.channel.current.revision == view.channel.current.revision {
        first.rollout.converged_ms.is_none().then_some(ChannelLacks::Convergence)
    } else {
        Some(ChannelLacks::SameRevision)
    }
}

/// Whether `from` waits, perhaps by others, for `to` to converge on the revision that they share, or is it.
fn waits_for(views: &[View<'_>], from: &ChannelName, to: &ChannelName) -> bool {
    let (mut known, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        let Some(view) = find(views, at).filter(|_| known.insert(at)) else { continue };
        let lacking = |first: &&ChannelName| {
            find(views, first).and_then(|first| lacks(first, view)) == Some(ChannelLacks::Convergence)
        };
        open.extend(view.channel.current.policy.after.iter().filter(lacking));
    }
    false
}

fn open_one(view: &mut View<'_>, lacking: Option<&WaveWaits>, wake: &mut Wake) -> bool {
    let before = view.decisions.len();
    let waves = &view.channel.current.policy.waves;
    let may = view.rollout.status == Status::Going && !view.is_expired(wake.now);
    view.waits = None;
    while let Some(wave) = waves.get(view.rollout.waves_opened.len()) {
        let index = WaveIndex(u16::try_from(view.rollout.waves_opened.len()).unwrap_or(u16::MAX));
        view.waits = lacking.cloned().or_else(|| wave_waits(view, index, wave, wake));
        if view.waits.is_some() || !may {
            break;
        }
        view.decide(Transition::WaveOpened { wave: index });
        view.rollout.waves_opened.push(wake.now);
    }
    let all_open = view.rollout.waves_opened.len() == waves.len();
    let complete = view.tallies.iter().all(Tally::is_complete);
    if may && all_open && complete && view.rollout.converged_ms.is_none() {
        view.decide(Transition::Converged);
        view.rollout.converged_ms = Some(wake.now);
    }
    view.decisions.len() != before
}

/// What keeps the next wave shut.
fn wave_waits(view: &View<'_>, index: WaveIndex, rules: &Wave, wake: &mut Wake) -> Option<WaveWaits> {
    let earlier = (0..index.0).map(WaveIndex).zip(&view.tallies);
    for (earlier, tally) in earlier {
        if let Some(first) = tally.first {
            return Some(WaveWaits::Hosts { wave: earlier, missing: tally.missing, first: first.clone() });
        }
        if !tally.is_complete() {
            return Some(WaveWaits::Evidence { wave: earlier });
        }
    }
    let opens_ms = rules.opens_at(view.channel.current.created_ms);
    if wake.now < opens_ms {
        wake.at(opens_ms);
        return Some(WaveWaits::Time { wave: index, opens_ms });
    }
    match rules.approval {
        Approval::ByAPerson if !view.rollout.approved.contains_key(&index) => {
            Some(WaveWaits::Approval { wave: index })
        }
        Approval::ByAPerson | Approval::NotNeeded => None,
    }
}
