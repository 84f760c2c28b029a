//! What the rules need to know, asked of the snapshot in the rules' own words.

use std::collections::BTreeSet;

use crate::host::waiting::StateName as S;
use crate::ids::StorePath;
use crate::model::names::ReleaseId;
use crate::model::time::UnixMs;
use crate::rollout::order::{Transition, What};
use crate::rollout::progress::{Rollout, Status};
use crate::rollout::snapshot::{Channel, Host, Ordered, RebootWanted, Snapshot, Standing, Then};

/// A rollout as it will be once the plan's decisions are taken.
pub(super) struct Hindsight {
    pub(super) rollout: Rollout,
    pub(super) quarantined: BTreeSet<StorePath>,
    /// Which waves are over, by what is known of their hosts and failures; `None` until it is asked for.
    pub(super) waves_over: Option<Vec<bool>>,
}

impl Hindsight {
    /// A rollout of this channel, with no decision taken yet.
    pub(super) fn new(rollout: Rollout, channel: &Channel) -> Self {
        Self { rollout, quarantined: channel.quarantine.keys().cloned().collect(), waves_over: None }
    }

    /// Whether failures have stopped it.
    pub(super) fn is_halted(&self) -> bool {
        matches!(self.rollout.status, Status::Halted { .. })
    }

    /// Whether nobody shall begin in it.
    pub(super) fn is_stopped(&self) -> bool {
        self.rollout.status != Status::Going
    }

    /// Takes a decision, whatever there is against it.
    pub(super) fn take(&mut self, becomes: &Transition, now: UnixMs) {
        match becomes {
            Transition::Opened { release: _ } | Transition::Superseded { by: _ } => {}
            Transition::FailureCounted { host, failed } => {
                self.rollout.failures.insert(host.clone(), failed.clone());
                self.waves_over = None;
            }
            Transition::Halted { host, failure } => {
                self.rollout.status = Status::Halted { host: host.clone(), failure: *failure, at_ms: now };
            }
            Transition::Quarantined { system, host: _ } => {
                self.quarantined.insert(system.clone());
            }
            Transition::WaveOpened { wave: _ } => self.rollout.waves_opened.push(now),
            Transition::Converged => self.rollout.converged_ms = Some(now),
        }
    }
}

fn standing_on<'a>(channel: &Channel, host: &'a Host) -> Option<&'a Standing> {
    host.standing.as_ref().filter(|standing| standing.about.as_ref() == Some(&channel.current.id))
}

fn told(host: &Host) -> Option<What> {
    host.ordered.as_ref().map(|ordered| ordered.what)
}

/// It runs the newest release, and is not on its way anywhere else. One that restarts for it does run it, and one that is away
/// and cannot have heard what it was told.
pub(super) fn runs_newest(snapshot: &Snapshot, channel: &Channel, host: &Host, now: UnixMs) -> bool {
    let runs = standing_on(channel, host).is_some_and(|standing| standing.state == S::Converged);
    let told_away = matches!(told(host), Some(What::Go | What::Retry | What::Revert));
    runs && (!told_away || (unreached(host) && away(snapshot, channel, host, now)))
}

/// It is fetched, and nobody has told it to go.
pub(super) fn waits_staged(channel: &Channel, host: &Host) -> bool {
    let untold = |standing: &Standing| standing.state == S::Staged && standing.go != standing.about;
    standing_on(channel, host).is_some_and(untold) && matches!(told(host), None | Some(What::Stage))
}

/// It waits to be restarted into a release that is not the newest any more, and nobody has told it to move since.
pub(super) fn awaits_older(channel: &Channel, host: &Host) -> bool {
    let older = |standing: &Standing| {
        standing.state == S::AwaitingReboot
            && standing.about.as_ref().is_some_and(|about| *about != channel.current.id)
    };
    host.standing.as_ref().is_some_and(older) && matches!(told(host), None | Some(What::Stage))
}

/// It was told to go back from the newest release, and says that it has nothing to go back to.
pub(super) fn cannot_go_back(channel: &Channel, host: &Host) -> bool {
    host.standing.as_ref().is_some_and(|standing| standing.stays_on(&channel.current.id))
}

/// It is soaking on the newest release.
pub(super) fn soaks(channel: &Channel, host: &Host) -> bool {
    standing_on(channel, host).is_some_and(|standing| standing.state == S::Soaking) && told(host).is_none()
}

/// It failed for the newest release, and waits for somebody.
pub(super) fn failed(channel: &Channel, host: &Host) -> bool {
    let stays = |standing: &Standing| {
        matches!(standing.state, S::Failed | S::Reverted)
            && standing.failure.as_ref().is_none_or(|failure| failure.then == Then::Stays)
    };
    standing_on(channel, host).is_some_and(stays)
}

/// It wants a restart into the newest release, and has not been let.
pub(super) fn wants_restart(channel: &Channel, host: &Host) -> bool {
    let wants = |standing: &Standing| {
        standing.state == S::Converged
            && standing.reboot == RebootWanted::Yes
            && standing.reboot_go != standing.about
    };
    standing_on(channel, host).is_some_and(wants)
}

/// It does not have the newest release, and neither moves nor was told to.
pub(super) fn lacks_newest(channel: &Channel, host: &Host) -> bool {
    host.standing.is_some()
        && standing_on(channel, host).is_none()
        && !own_motion(host)
        && match &host.ordered {
            None => true,
            Some(ordered) => ordered.what == What::Stage && ordered.release != channel.current.id,
        }
}

/// It fetches the newest release, or was told to.
pub(super) fn fetches(channel: &Channel, host: &Host) -> bool {
    let told_to = host
        .ordered
        .as_ref()
        .is_some_and(|ordered| ordered.what == What::Stage && ordered.release == channel.current.id);
    let by_itself = standing_on(channel, host)
        .is_some_and(|standing| standing.state == S::Staging && standing.go != standing.about);
    let told_to_move = matches!(told(host), Some(What::Go | What::Retry | What::Reboot | What::Revert));
    (by_itself && !told_to_move) || (told_to && standing_on(channel, host).is_none() && !own_motion(host))
}

/// It changes what it runs, or may begin to at any moment, by its own word.
pub(super) fn own_motion(host: &Host) -> bool {
    let Some(standing) = &host.standing else { return false };
    let let_go = standing.about.is_some() && standing.go == standing.about;
    let let_restart = standing.about.is_some() && standing.reboot_go == standing.about;
    let again = standing.failure.as_ref().is_some_and(|failure| failure.then == Then::TriesAgain);
    match standing.state {
        S::Activating | S::AwaitingReboot | S::Confirming | S::Reverting => true,
        S::Staging | S::Staged => let_go,
        S::Failed => let_go && again,
        S::Converged => let_restart && standing.reboot == RebootWanted::Yes,
        S::Soaking | S::Reverted => false,
    }
}

/// It counts in budgets.
pub(super) fn on_the_way(host: &Host) -> bool {
    let told = matches!(told(host), Some(What::Go | What::Retry | What::Reboot | What::Revert));
    host.skip.is_none() && (told || own_motion(host))
}

/// It counts in budgets although it is called back: it has not answered that it stays.
pub(super) fn on_the_way_unless_told(host: &Host) -> bool {
    host.skip.is_none() && own_motion(host)
}

/// A person keeps it, by a verb or at the host itself.
pub(super) fn held(host: &Host, now: UnixMs) -> bool {
    let at_host = host.standing.as_ref().and_then(|standing| standing.hold.as_ref());
    host.hold.iter().chain(at_host).any(|hold| match hold.until_ms {
        Some(until) => until > now,
        None => true,
    })
}

/// It was silent for as long as the policy allows, counted from when there was somebody to hear it.
pub(super) fn away(snapshot: &Snapshot, channel: &Channel, host: &Host, now: UnixMs) -> bool {
    let opened = channel.rollout.as_ref().filter(|rollout| rollout.release == channel.current.id);
    let never = opened.map_or(now, |rollout| rollout.opened_ms);
    let heard = host.heard_ms.unwrap_or(never).get().max(snapshot.listening_since_ms.get());
    now.get() >= heard.saturating_add(channel.current.policy.offline_after_secs.ms()).min(UnixMs::MAX.get())
}

/// It was told to move, and the order cannot have reached it.
pub(super) fn unreached(host: &Host) -> bool {
    match &host.ordered {
        Some(ordered) if !matches!(ordered.what, What::Stage | What::Withdraw) => {
            // What it says itself that it has did reach it, whatever a clock said meanwhile.
            !says_it_has(host, ordered) && host.heard_ms < Some(ordered.at_ms)
        }
        Some(_) | None => false,
    }
}

/// It was told something of this kind, and does not say that it knows.
pub(super) fn unknown(host: &Host, kind: fn(What) -> bool) -> bool {
    host.ordered.as_ref().is_some_and(|ordered| kind(ordered.what) && !says_it_has(host, ordered))
}

/// It says that it has the order to go for the newest release, has not begun, and nobody told it to forget that.
pub(super) fn waits_to_switch(channel: &Channel, host: &Host) -> bool {
    let newest = &channel.current.id;
    let Some(standing) = host.standing.as_ref().filter(|standing| standing.go.as_ref() == Some(newest))
    else {
        return false;
    };
    let own_seq = |about: &ReleaseId| (about.channel == newest.channel).then_some(about.seq);
    let is_before = match standing.state {
        _ if standing.about.as_ref() != Some(newest) => {
            standing.about.as_ref().and_then(own_seq) < Some(newest.seq)
        }
        S::Staging | S::Staged => true,
        S::Failed => standing.failure.as_ref().is_some_and(|failure| failure.then == Then::TriesAgain),
        S::Converged
        | S::Activating
        | S::AwaitingReboot
        | S::Confirming
        | S::Soaking
        | S::Reverting
        | S::Reverted => false,
    };
    is_before && !told_otherwise(channel, host)
}

/// It says that it has leave to restart for the newest release, has not begun, and nobody told it to forget that.
pub(super) fn waits_to_restart(channel: &Channel, host: &Host) -> bool {
    let newest = Some(&channel.current.id);
    let wants = |standing: &Standing| match standing.state {
        S::Converged => standing.reboot == RebootWanted::Yes,
        S::AwaitingReboot => true,
        S::Staging
        | S::Staged
        | S::Activating
        | S::Confirming
        | S::Soaking
        | S::Reverting
        | S::Reverted
        | S::Failed => false,
    };
    standing_on(channel, host)
        .is_some_and(|standing| standing.reboot_go.as_ref() == newest && wants(standing))
        && !told_otherwise(channel, host)
}

fn told_otherwise(channel: &Channel, host: &Host) -> bool {
    host.ordered.as_ref().is_some_and(|ordered| match ordered.what {
        What::Withdraw => ordered.release == channel.current.id,
        What::Revert => true,
        What::Stage | What::Go | What::Retry | What::Reboot => false,
    })
}

fn says_it_has(host: &Host, ordered: &Ordered) -> bool {
    let own = host.standing.as_ref().and_then(|standing| match ordered.what {
        What::Go => standing.go.as_ref(),
        What::Reboot => standing.reboot_go.as_ref(),
        What::Stage | What::Retry | What::Revert | What::Withdraw => None,
    });
    own == Some(&ordered.release)
}

/// Nobody waits for it: it was left out; it is kept, or away, and not in the middle of a move.
pub(super) fn nobody_waits(snapshot: &Snapshot, channel: &Channel, host: &Host, now: UnixMs) -> bool {
    let away = away(snapshot, channel, host, now);
    let told = matches!(told(host), Some(What::Go | What::Retry | What::Reboot | What::Revert))
        && !(away && unreached(host));
    let for_newest = |host: &Host| match &host.ordered {
        Some(ordered) if told => ordered.release == channel.current.id && ordered.what != What::Reboot,
        Some(_) | None => standing_on(channel, host)
            .is_some_and(|standing| own_motion(host) && !matches!(standing.state, S::Converged | S::Failed)),
    };
    let moves = told || own_motion(host);
    let settles = soaks(channel, host);
    host.skip.is_some()
        || (away && !for_newest(host))
        || (held(host, now) && !settles && (!moves || tries_again(channel, host)))
}

fn tries_again(channel: &Channel, host: &Host) -> bool {
    told(host).is_none() && standing_on(channel, host).is_some_and(|standing| standing.state == S::Failed)
}
