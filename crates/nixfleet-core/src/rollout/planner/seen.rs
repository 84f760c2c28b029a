//! How a host stands to the newest release of its channel.

use super::Wake;
use crate::activation::outcome::FailureClass;
use crate::host::state::Hold;
use crate::host::waiting::{RestartBy, StateName};
use crate::model::names::{HostName, ReleaseId};
use crate::model::time::UnixMs;
use crate::rollout::order::What;
use crate::rollout::progress::Rollout;
use crate::rollout::snapshot::{Channel, Host, Ordered, RebootWanted, Snapshot, Standing, Then};

/// A host as the planner sees it.
pub(super) struct Seen<'a> {
    pub(super) name: &'a HostName,
    pub(super) host: &'a Host,
    pub(super) at: At<'a>,
    /// Whether it was silent for too long.
    pub(super) silence: Silence,
    /// The hold in force.
    pub(super) hold: Option<&'a Hold>,
    /// What becomes of an order that it has not begun to follow.
    pub(super) recall: Recall,
    /// The place of its wave.
    pub(super) wave: usize,
    /// Whether it counts in budgets.
    pub(super) takes_a_place: bool,
    /// Whether a failure of it counts, or did until a person took it back.
    pub(super) counted: bool,
}

/// Where a host is on its way to the newest release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At<'a> {
    /// It does not have it, and was not told.
    Behind,
    /// It fetches, or was told to.
    Fetching,
    /// It has fetched it and waits.
    Staged,
    /// It moves; `None` when it was told to and did not say yet that it began.
    OnItsWay(Option<StateName>),
    /// It runs it and is watched.
    Soaking,
    /// It is done.
    Done,
    /// It is done and restarts for it, or was told to.
    Restarting,
    /// It failed and tries again by itself.
    TriesAgain(FailureClass),
    /// It failed and stays so.
    Failed(FailureClass),
    /// It moves to an older release.
    Older(&'a ReleaseId),
}

/// What becomes of an order that a host has not begun to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recall {
    /// It stands.
    No,
    /// It is taken back.
    TakeBack,
    /// It is a restart, and the way back takes its place.
    GoBackInstead,
}

/// Whether a host was silent for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// It was not.
    Heard,
    /// It was.
    Offline,
}

impl Seen<'_> {
    /// Its order is taken back: it is where it says that it stands. Its place in the budgets is free, unless it says that it has
    /// the order: whether an order that is still under way arrives before what takes it back is never told here.
    fn take_back(&mut self, release: &ReleaseId) {
        self.recall = Recall::TakeBack;
        self.at = by_standing(self.host, release);
        self.takes_a_place = takes_a_place(self.host, self.recall);
    }

    /// Whether nobody waits for it. Silence excuses nobody who has begun: it may be the release that made the host silent, while
    /// it moved or while it was watched.
    pub(super) fn is_excused(&self) -> bool {
        let moves = matches!(self.at, At::OnItsWay(_) | At::Soaking);
        let waits =
            matches!(self.at, At::Behind | At::Fetching | At::Staged | At::TriesAgain(_) | At::Failed(_));
        self.host.skip.is_some()
            || (self.hold.is_some() && waits)
            || (self.silence == Silence::Offline && !moves)
    }

    /// Whether the waves after its own wait for it: not once its failure counts, until a person has it tried again.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.is_done() && !self.is_excused() && (!self.counted || self.host.retry.is_some())
    }

    /// Whether it waits to be restarted into an older release, which the newest may overtake: the host gives that one up when its
    /// turn for the newest has come, whether anybody would restart it or not.
    pub(super) fn may_be_overtaken(&self) -> bool {
        let waits = |standing: &Standing| standing.state == StateName::AwaitingReboot;
        let told = self.host.ordered.as_ref().map(|ordered| ordered.what);
        matches!(self.at, At::Older(_))
            && self.host.standing.as_ref().is_some_and(waits)
            && matches!(told, None | Some(What::Stage))
    }

    /// By whom it must be restarted, where that may take long: a window may be far, and a person may never come.
    pub(super) fn awaits_restart(&self) -> Option<RestartBy> {
        let by = self.host.standing.as_ref()?.restart_by?;
        let kept = self.hold.map(|_| RestartBy::APerson);
        kept.or(Some(by)).filter(|by| *by > RestartBy::Itself)
    }

    /// Whether it says that it has nothing to go back to from this release.
    pub(super) fn stays_on(&self, release: &ReleaseId) -> bool {
        self.host.standing.as_ref().is_some_and(|standing| standing.stays_on(release))
    }

    /// Whether it has the release, and nothing more is wanted of it but perhaps a restart.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.at, At::Done | At::Restarting)
    }
}

/// All hosts of a channel, by name.
pub(super) fn all<'a>(
    snapshot: &'a Snapshot,
    channel: &'a Channel,
    rollout: &Rollout,
    wake: &mut Wake,
) -> Vec<Seen<'a>> {
    let offline_after = channel.current.policy.offline_after_secs;
    let see = |(name, host): (&'a HostName, &'a Host)| {
        let since = host.heard_ms.unwrap_or(rollout.opened_ms).max(snapshot.listening_since_ms);
        let limit = since.plus(offline_after);
        let silence = if wake.now >= limit { Silence::Offline } else { Silence::Heard };
        let hold = hold(host, wake.now);
        let mut seen = Seen {
            name,
            host,
            at: at(host, &channel.current.id),
            silence,
            hold,
            recall: Recall::No,
            wave: usize::from(host.placed.wave.0),
            takes_a_place: takes_a_place(host, Recall::No),
            counted: rollout.failures.contains_key(name) || rollout.forgiven.contains(name),
        };
        if silence == Silence::Offline && never_delivered(host) {
            seen.take_back(&channel.current.id);
        }
        if seen.at != At::Done {
            wake.at(limit);
        }
        if let Some(until) = hold.and_then(|hold| hold.until_ms) {
            wake.at(until);
        }
        seen
    };
    channel.hosts.iter().map(see).collect()
}

/// Takes back what was ordered for `release`, from hosts that have not begun: an order that is on its way, or waits for a poll,
/// a fetch or a window, would be fired after the halt (lesson 26). Who has begun arrives.
pub(super) fn call_back(seen: &mut Seen<'_>, release: &ReleaseId, from: CalledFrom) {
    if seen.recall == Recall::No && is_to_be_told(seen.host, release, from) {
        seen.take_back(release);
    }
}

/// Whether a host that was told to restart has not heard of it and can go back from `release` instead, which it runs. It
/// keeps its place in the budgets; whoever has heard of it must answer first.
pub(super) fn may_go_back_instead(seen: &Seen<'_>, release: &ReleaseId) -> bool {
    let told = seen.host.ordered.as_ref();
    let unheard = told.is_some_and(|ordered| {
        ordered.what == What::Reboot && ordered.release == *release && !has_noted(seen.host, ordered)
    });
    let runs = matches!(by_standing(seen.host, release), At::Done | At::Soaking);
    let free = seen.host.skip.is_none() && seen.hold.is_none() && seen.silence == Silence::Heard;
    unheard && runs && !seen.stays_on(release) && free && seen.recall == Recall::No
}

/// From what hosts are called back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CalledFrom {
    /// From everything, since the rollout does not go on.
    Everything,
    /// From switching, since the system failed. One that runs it may restart.
    Switching,
}

/// Whether a host may still begin, and was not told to forget its order.
fn is_to_be_told(host: &Host, release: &ReleaseId, from: CalledFrom) -> bool {
    let has_it = || {
        host.standing.as_ref().is_some_and(|standing| match from {
            CalledFrom::Everything => standing.may_begin(release),
            CalledFrom::Switching => standing.may_switch(release),
        })
    };
    match &host.ordered {
        None => has_it(),
        Some(ordered) => match ordered.what {
            What::Reboot if from == CalledFrom::Switching => has_it(),
            What::Go | What::Retry | What::Reboot if !has_noted(host, ordered) => true,
            What::Stage | What::Go | What::Retry | What::Reboot => has_it(),
            // The way back comes after what went before it.
            What::Revert => false,
            What::Withdraw => ordered.release != *release && has_it(),
        },
    }
}

/// Whether it was told to move, and not heard of since.
fn never_delivered(host: &Host) -> bool {
    host.ordered.as_ref().is_some_and(|ordered| {
        let unheard = host.heard_ms.is_none_or(|heard| heard < ordered.at_ms);
        let moves = matches!(ordered.what, What::Go | What::Retry | What::Reboot | What::Revert);
        moves && unheard && !has_noted(host, ordered)
    })
}

/// Whether it has the order by its own word, which counts more than times of a clock that may have been set back.
fn has_noted(host: &Host, ordered: &Ordered) -> bool {
    host.standing.as_ref().is_some_and(|standing| standing.has_noted(ordered))
}

fn hold(host: &Host, now: UnixMs) -> Option<&Hold> {
    let own = host.standing.as_ref().and_then(|standing| standing.hold.as_ref());
    let in_force = |hold: &&Hold| hold.until_ms.is_none_or(|until| now < until);
    host.hold.as_ref().filter(in_force).or_else(|| own.filter(in_force))
}

fn at<'a>(host: &'a Host, release: &ReleaseId) -> At<'a> {
    let stands = by_standing(host, release);
    let Some(ordered) = &host.ordered else { return stands };
    match ordered.what {
        What::Stage if ordered.release == *release => match stands {
            At::Behind => At::Fetching,
            At::Fetching
            | At::Staged
            | At::OnItsWay(_)
            | At::Soaking
            | At::Done
            | At::Restarting
            | At::TriesAgain(_)
            | At::Failed(_)
            | At::Older(_) => stands,
        },
        What::Stage | What::Withdraw => stands,
        What::Go | What::Retry | What::Reboot | What::Revert if ordered.release != *release => {
            At::Older(&ordered.release)
        }
        What::Reboot => At::Restarting,
        What::Go | What::Retry | What::Revert => At::OnItsWay(None),
    }
}

fn by_standing<'a>(host: &'a Host, release: &ReleaseId) -> At<'a> {
    let Some(standing) = &host.standing else { return At::Behind };
    match &standing.about {
        Some(about) if about == release => here(standing),
        Some(about) if moves(standing) => At::Older(about),
        Some(_) | None => At::Behind,
    }
}

fn here(standing: &Standing) -> At<'_> {
    let goes = standing.go.is_some() && standing.go == standing.about;
    let restarts = standing.reboot_go.is_some() && standing.reboot_go == standing.about;
    match standing.state {
        StateName::Converged => match standing.reboot {
            RebootWanted::Yes if restarts => At::Restarting,
            RebootWanted::Yes | RebootWanted::No => At::Done,
        },
        StateName::Staging | StateName::Staged if goes => At::OnItsWay(Some(standing.state)),
        StateName::Staging => At::Fetching,
        StateName::Staged => At::Staged,
        StateName::Soaking => At::Soaking,
        StateName::Activating | StateName::AwaitingReboot | StateName::Confirming | StateName::Reverting => {
            At::OnItsWay(Some(standing.state))
        }
        StateName::Reverted | StateName::Failed => match &standing.failure {
            Some(failure) if failure.then == Then::TriesAgain => At::TriesAgain(failure.class),
            Some(failure) => At::Failed(failure.class),
            // Not reached by a standing that was made of a state: these two states always carry their failure.
            None => At::Failed(FailureClass::Internal),
        },
    }
}

/// Whether a host moves by its own report, to whatever release.
fn moves(standing: &Standing) -> bool {
    let goes = standing.go.is_some() && standing.go == standing.about;
    let restarts = standing.reboot_go.is_some() && standing.reboot_go == standing.about;
    match standing.state {
        StateName::Activating | StateName::AwaitingReboot | StateName::Confirming | StateName::Reverting => {
            true
        }
        StateName::Staging | StateName::Staged => goes,
        StateName::Converged => restarts && standing.reboot == RebootWanted::Yes,
        StateName::Failed => {
            goes && standing.failure.as_ref().is_some_and(|failure| failure.then == Then::TriesAgain)
        }
        StateName::Soaking | StateName::Reverted => false,
    }
}

/// Whether a host takes a place in the budgets: it moves, or was told to. One that a person left out takes none.
fn takes_a_place(host: &Host, recall: Recall) -> bool {
    let ordered = match host.ordered.as_ref().map(|ordered| ordered.what) {
        Some(What::Go | What::Retry | What::Reboot | What::Revert) => recall != Recall::TakeBack,
        Some(What::Stage | What::Withdraw) | None => false,
    };
    host.skip.is_none() && (ordered || host.standing.as_ref().is_some_and(moves))
}
