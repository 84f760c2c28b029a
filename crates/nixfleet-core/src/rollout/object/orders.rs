//! The rules that each order keeps by itself.

use super::Objection;
use super::view::{self, Hindsight};
use crate::host::window::{Opening, opening};
use crate::model::names::HostName;
use crate::model::policy::OnFailure;
use crate::model::schedule::Window;
use crate::model::time::UnixMs;
use crate::rollout::order::{Order, What};
use crate::rollout::progress::Status;
use crate::rollout::snapshot::{Channel, Host, Snapshot};

/// A channel, as its orders are looked at.
pub(super) struct Case<'a> {
    pub(super) now: UnixMs,
    pub(super) snapshot: &'a Snapshot,
    pub(super) channel: &'a Channel,
    /// Its rollout once the plan's decisions are taken.
    hindsight: Option<&'a Hindsight>,
    /// Whether hosts may switch now.
    open: bool,
    /// Whether hosts may restart now.
    open_for_reboots: bool,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        now: UnixMs,
        snapshot: &'a Snapshot,
        channel: &'a Channel,
        hindsight: Option<&'a Hindsight>,
    ) -> Self {
        let policy = &channel.current.policy;
        let open = is_open(&policy.windows, now);
        let own = &policy.reboot.windows;
        let open_for_reboots = if own.is_empty() { open } else { is_open(own, now) };
        Self { now, snapshot, channel, hindsight, open, open_for_reboots }
    }

    /// Whether nobody's order has to be taken back here.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_good() && self.rollout_is(|after| !after.is_stopped() && after.quarantined.is_empty())
    }

    /// Whether the host has something to do, known to it or not, that must not begin: anything where the rollout does not go
    /// on, and a switch where the system failed or the release has expired.
    fn must_not_begin(&self, host: &Host) -> bool {
        let switch = || view::waits_to_switch(self.channel, host) || view::unknown(host, is_turn);
        let restart =
            || view::waits_to_restart(self.channel, host) || view::unknown(host, |what| what == What::Reboot);
        let failed = |after: &Hindsight| after.quarantined.contains(&host.placed.system);
        self.rollout_is(|after| {
            (after.is_stopped() && (switch() || restart()))
                || ((failed(after) || !self.is_good()) && switch())
        })
    }

    /// Whether the release may still be begun.
    fn is_good(&self) -> bool {
        self.now < self.channel.current.expires_ms
    }

    /// Whether the host is away.
    fn away(&self, host: &Host) -> bool {
        view::away(self.snapshot, self.channel, host, self.now)
    }

    fn rollout_is(&self, right: impl FnOnce(&Hindsight) -> bool) -> bool {
        self.hindsight.is_some_and(right)
    }
}

fn is_open(windows: &[Window], now: UnixMs) -> bool {
    matches!(opening(windows, now), Ok(Opening::Open { .. }))
}

/// Whether an order keeps a rule.
type Rule = fn(&Case<'_>, &Order, &Host) -> bool;

/// What is said of the host of an order that does not.
type Says = fn(HostName) -> Objection;

/// Every rule, with what is said of an order that breaks it.
const RULES: [(Rule, Says); 10] = [
    (is_for_the_newest, Objection::OtherRelease),
    (nobody_keeps_it, Objection::Kept),
    (it_is_there, Objection::Away),
    (takes_back_what_has_not_begun, Objection::WrongState),
    (comes_from_where_it_stands, Objection::WrongState),
    (its_rollout_goes, Objection::Stopped),
    (is_not_too_late, Objection::Expired),
    (its_system_is_good, Objection::Quarantined),
    (its_wave_is_open, Objection::WaveNotOpen),
    (its_window_is_open, Objection::OutsideWindow),
];

/// Asks every rule.
pub(super) fn check(case: &Case<'_>, order: &Order, host: &Host, out: &mut Vec<Objection>) {
    let broken = RULES.iter().filter(|(keeps, _)| !keeps(case, order, host));
    out.extend(broken.map(|(_, what)| what(order.host.clone())));
}

/// Whether the order begins something new: a fetch, or a switch.
fn is_new(what: What) -> bool {
    matches!(what, What::Stage | What::Go | What::Retry)
}

/// Whether the order makes a host switch.
fn is_turn(what: What) -> bool {
    matches!(what, What::Go | What::Retry)
}

/// An order is for the newest release of the host's channel. One is taken back for whatever release it was.
fn is_for_the_newest(case: &Case<'_>, order: &Order, _: &Host) -> bool {
    order.what == What::Withdraw || order.release == case.channel.current.id
}

/// No host is ordered that a person keeps or left out.
fn nobody_keeps_it(case: &Case<'_>, order: &Order, host: &Host) -> bool {
    order.what == What::Withdraw || (host.skip.is_none() && !view::held(host, case.now))
}

/// No host is ordered that is away.
fn it_is_there(case: &Case<'_>, order: &Order, host: &Host) -> bool {
    order.what == What::Withdraw || !case.away(host)
}

/// An order is taken back that never reached its host, which is away; or one that must not begin.
fn takes_back_what_has_not_begun(case: &Case<'_>, order: &Order, host: &Host) -> bool {
    let told = host.ordered.as_ref().is_some_and(|ordered| ordered.release == order.release);
    let is_lost = || told && case.away(host) && view::unreached(host);
    let is_known = order.release == case.channel.current.id;
    order.what != What::Withdraw || is_lost() || ((told || is_known) && case.must_not_begin(host))
}

/// Nobody keeps an order that must not begin.
pub(super) fn is_left_with_its_order(case: &Case<'_>, name: &HostName, host: &Host) -> Option<Objection> {
    case.must_not_begin(host).then(|| Objection::NotTakenBack(name.clone()))
}

/// A host is where the order takes it from.
fn comes_from_where_it_stands(case: &Case<'_>, order: &Order, host: &Host) -> bool {
    let channel = case.channel;
    let untold = host.ordered.is_none();
    match order.what {
        What::Stage => view::lacks_newest(channel, host),
        What::Go => view::waits_staged(channel, host) || view::awaits_older(channel, host),
        What::Retry => untold && host.retry.is_some() && view::failed(channel, host),
        What::Reboot => untold && view::wants_restart(channel, host),
        What::Revert => {
            let idle = untold || view::unknown(host, |what| what == What::Reboot);
            let runs = view::runs_newest(case.snapshot, channel, host, case.now);
            idle && !view::cannot_go_back(channel, host) && (runs || view::soaks(channel, host))
        }
        What::Withdraw => true,
    }
}

/// Orders are given in a rollout of the newest release that goes on; only the way back is one of a halted rollout, and
/// only if its policy says so.
fn its_rollout_goes(case: &Case<'_>, order: &Order, _: &Host) -> bool {
    match order.what {
        What::Withdraw => true,
        What::Revert => {
            case.channel.current.policy.on_failure == OnFailure::RevertAll
                && case.rollout_is(Hindsight::is_halted)
        }
        What::Stage | What::Go | What::Retry | What::Reboot => case.rollout_is(|after| {
            after.rollout.status == Status::Going && after.rollout.release == case.channel.current.id
        }),
    }
}

/// Nothing new begins for a release that has expired.
fn is_not_too_late(case: &Case<'_>, order: &Order, _: &Host) -> bool {
    !is_new(order.what) || case.is_good()
}

/// No system is offered that is in quarantine.
fn its_system_is_good(case: &Case<'_>, order: &Order, host: &Host) -> bool {
    !is_new(order.what) || !case.rollout_is(|after| after.quarantined.contains(&host.placed.system))
}

/// No host switches before its wave is open.
fn its_wave_is_open(case: &Case<'_>, order: &Order, host: &Host) -> bool {
    let wave = usize::from(host.placed.wave.0);
    !is_turn(order.what) || case.rollout_is(|after| wave < after.rollout.waves_opened.len())
}

/// No host switches or restarts outside of its windows.
fn its_window_is_open(case: &Case<'_>, order: &Order, _: &Host) -> bool {
    match order.what {
        What::Go | What::Retry => case.open,
        What::Reboot => case.open_for_reboots,
        What::Stage | What::Revert | What::Withdraw => true,
    }
}
