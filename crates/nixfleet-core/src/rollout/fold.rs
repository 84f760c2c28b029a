//! How facts change a snapshot. Each but a new release touches one host and one rollout.

use std::collections::{BTreeMap, BTreeSet};

use super::fact::{Current, Fact, NotFolded, Placed, Verb};
use super::hosts::Hosts;
use super::order::{Decision, Order, Transition, What};
use super::progress::{By, Quarantine, Rollout, RolloutId, Status};
use super::snapshot::{Channel, Host, Ordered, RebootWanted, Snapshot, Standing, Then};
use crate::host::HostState;
use crate::host::state::Hold;
use crate::host::waiting::StateName;
use crate::model::names::{ChannelName, HostName, ReleaseId};
use crate::model::policy::WaveIndex;
use crate::model::time::UnixMs;
use crate::wire::Wish;

impl Snapshot {
    /// Takes in what happened at `at`. A fact that does not fit changes nothing.
    pub fn fold(&mut self, fact: &Fact, at: UnixMs) -> Result<(), NotFolded> {
        match fact {
            Fact::ReleaseTaken { release, hosts } => self.release_taken(release, hosts),
            Fact::HostStands { host, standing } => {
                let host = self.host_mut(host)?;
                host.standing = Some((**standing).clone());
                host.end_order();
                host.heard_ms = host.heard_ms.max(Some(at));
                Ok(())
            }
            Fact::HostHeard { host } => {
                let host = self.host_mut(host)?;
                host.heard_ms = host.heard_ms.max(Some(at));
                Ok(())
            }
            Fact::Asked { verb, who, why } => {
                self.asked(verb, By { who: who.clone(), why: why.clone(), at_ms: at })
            }
            Fact::Decided(decision) => self.decided(decision, at),
            Fact::Ordered(order) => self.order(order, at),
        }
    }

    fn home_mut(&mut self, name: &HostName) -> Result<&mut Channel, NotFolded> {
        let home = self.homes.get(name).and_then(|home| self.channels.get_mut(home));
        home.ok_or_else(|| NotFolded::NoHost(name.clone()))
    }

    fn host_mut(&mut self, name: &HostName) -> Result<&mut Host, NotFolded> {
        let host = self.home_mut(name)?.hosts.get_mut(name);
        host.ok_or_else(|| NotFolded::NoHost(name.clone()))
    }

    fn rollout_mut(&mut self, id: &RolloutId) -> Result<(&Current, &mut Rollout), NotFolded> {
        let channel = self.channels.get_mut(&id.channel);
        let Channel { current, rollout, hosts: _, quarantine: _ } =
            channel.ok_or_else(|| NotFolded::NoChannel(id.channel.clone()))?;
        let rollout = rollout.as_mut().filter(|rollout| rollout.id() == *id);
        Ok((current, rollout.ok_or_else(|| NotFolded::NotCurrent(id.clone()))?))
    }

    /// Hosts keep what is known of them, also when they come from another channel.
    fn release_taken(
        &mut self,
        release: &Current,
        hosts: &BTreeMap<HostName, Placed>,
    ) -> Result<(), NotFolded> {
        let name = &release.id.channel;
        if let Some(have) = self.channels.get(name).filter(|have| have.current.id.seq >= release.id.seq) {
            return Err(NotFolded::NotNewer { release: release.id.clone(), have: have.current.id.seq });
        }
        let known = hosts.iter().map(|(host, placed)| {
            let old = self.host(host).map(|(_, old)| old.clone());
            let old = old.unwrap_or_else(|| Host::new(placed.clone()));
            (host.clone(), Host { placed: placed.clone(), skip: None, retry: None, ..old })
        });
        let hosts: Hosts = known.collect();
        let before = self.channels.get(name);
        let (rollout, quarantine) = before
            .map_or_else(Default::default, |before| (before.rollout.clone(), before.quarantine.clone()));
        self.put(Channel { current: release.clone(), hosts, rollout, quarantine });
        Ok(())
    }

    /// Puts a channel in, in place of the one that it was. It becomes the home of its hosts and of no others.
    pub fn put(&mut self, channel: Channel) {
        let name = channel.current.id.channel.clone();
        for gone in self.channels.get(&name).iter().flat_map(|before| before.hosts.keys()) {
            self.homes.remove(gone);
        }
        let mut moved: BTreeMap<ChannelName, BTreeSet<&HostName>> = BTreeMap::new();
        for host in channel.hosts.keys() {
            if let Some(old) = self.homes.insert(host.clone(), name.clone()) {
                moved.entry(old).or_default().insert(host);
            }
        }
        for (old, gone) in moved {
            if let Some(old) = self.channels.get_mut(&old) {
                old.hosts.take_out(&gone);
            }
        }
        self.channels.insert(name, channel);
    }

    fn asked(&mut self, verb: &Verb, by: By) -> Result<(), NotFolded> {
        match verb {
            Verb::Pause { rollout } => {
                let (_, rollout) = self.rollout_mut(rollout)?;
                status(rollout, "paused", |old| matches!(old, Status::Going), Status::Paused(by))
            }
            Verb::Resume { rollout } => resume(self.rollout_mut(rollout)?.1),
            Verb::Abort { rollout } => {
                let (_, rollout) = self.rollout_mut(rollout)?;
                status(rollout, "aborted", |old| !matches!(old, Status::Aborted(_)), Status::Aborted(by))
            }
            Verb::Approve { rollout, wave } => self.approve(rollout, *wave, by),
            Verb::Retry { host } => self.retry(host, by),
            Verb::Skip { host } => {
                let home = self.home_mut(host)?;
                let found = home.hosts.get_mut(host).ok_or_else(|| NotFolded::NoHost(host.clone()))?;
                found.skip = Some(by);
                if let Some(rollout) = &mut home.rollout {
                    rollout.failures.remove(host);
                }
                Ok(())
            }
            Verb::Hold { host, until_ms } => {
                let By { who: by, why, at_ms: _ } = by;
                self.host_mut(host)?.hold = Some(Hold { by, why, until_ms: *until_ms });
                Ok(())
            }
            Verb::Unhold { host } => {
                let found = self.host_mut(host)?;
                // By its own word it may be held although nothing of that is known here, after a database was lost.
                let own = found.standing.as_ref().and_then(|standing| standing.hold.as_ref());
                let held = found.hold.is_some() || own.is_some();
                found.hold = None;
                if held { Ok(()) } else { Err(NotFolded::NotHeld(host.clone())) }
            }
        }
    }

    fn approve(&mut self, id: &RolloutId, wave: WaveIndex, by: By) -> Result<(), NotFolded> {
        let (current, rollout) = self.rollout_mut(id)?;
        if rollout.release != current.id || current.policy.wave(wave).is_none() {
            return Err(NotFolded::NoWave { rollout: id.clone(), wave });
        }
        rollout.approved.entry(wave).or_insert(by);
        Ok(())
    }

    fn retry(&mut self, name: &HostName, by: By) -> Result<(), NotFolded> {
        let home = self.home_mut(name)?;
        let not_failed = || NotFolded::NotFailed(name.clone());
        let host = home.hosts.get_mut(name).ok_or_else(|| NotFolded::NoHost(name.clone()))?;
        let standing = host.standing.as_ref().filter(|at| at.about.as_ref() == Some(&home.current.id));
        let failure = standing.and_then(|at| at.failure.as_ref()).ok_or_else(not_failed)?;
        if failure.then == Then::TriesAgain {
            return Err(not_failed());
        }
        home.quarantine.remove(&host.placed.system);
        host.retry = Some(by);
        if let Some(rollout) = &mut home.rollout {
            rollout.failures.remove(name);
            rollout.forgiven.remove(name);
        }
        Ok(())
    }

    fn decided(&mut self, decision: &Decision, at: UnixMs) -> Result<(), NotFolded> {
        let Decision { rollout: id, becomes } = decision;
        if let Transition::Opened { release } = becomes {
            return self.opened(id, Rollout::new(release.clone(), at));
        }
        let (current, rollout) = self.rollout_mut(id)?;
        match becomes {
            Transition::Opened { .. } | Transition::Superseded { by: _ } => {}
            Transition::FailureCounted { host, failed } => {
                rollout.failures.insert(host.clone(), failed.clone());
            }
            Transition::Halted { host, failure } => {
                rollout.status = Status::Halted { host: host.clone(), failure: *failure, at_ms: at };
            }
            Transition::Quarantined { system, host } => {
                let quarantine = Quarantine { host: host.clone(), rollout: id.clone(), since_ms: at };
                let home = self.channels.get_mut(&id.channel);
                let home = home.ok_or_else(|| NotFolded::NoChannel(id.channel.clone()))?;
                home.quarantine.insert(system.clone(), quarantine);
            }
            Transition::WaveOpened { wave } => {
                if usize::from(wave.0) != rollout.waves_opened.len() || current.policy.wave(*wave).is_none() {
                    return Err(NotFolded::NotNextWave { rollout: id.clone(), wave: *wave });
                }
                rollout.waves_opened.push(at);
            }
            Transition::Converged => rollout.converged_ms = Some(at),
        }
        Ok(())
    }

    fn opened(&mut self, id: &RolloutId, rollout: Rollout) -> Result<(), NotFolded> {
        let channel = self.channels.get_mut(&id.channel);
        let channel = channel.ok_or_else(|| NotFolded::NoChannel(id.channel.clone()))?;
        // Not by its number: after its owner has set a channel back, a lower one is the newer.
        let known = channel.rollout.as_ref().is_some_and(|known| known.release == rollout.release);
        if known || rollout.release != channel.current.id || rollout.id() != *id {
            return Err(NotFolded::NotCurrent(id.clone()));
        }
        channel.rollout = Some(rollout);
        Ok(())
    }

    fn order(&mut self, order: &Order, at: UnixMs) -> Result<(), NotFolded> {
        self.host_mut(&order.host)?.take_order(order, at);
        Ok(())
    }
}

impl Host {
    /// Takes in that this was ordered of it at `at`: all that [`Fact::Ordered`] changes in a fleet.
    pub fn take_order(&mut self, order: &Order, at: UnixMs) {
        let since_ms = self.standing.as_ref().map(|standing| standing.since_ms);
        let asked = match order.what {
            What::Retry => self.retry.take(),
            What::Stage | What::Go | What::Reboot | What::Revert | What::Withdraw => None,
        };
        let Order { host: _, release, what } = order.clone();
        let before = self.ordered.replace(Ordered { what, release, at_ms: at, since_ms, asked });
        if what == What::Withdraw {
            self.retry = self.retry.take().or(before.and_then(|before| before.asked));
            // Who does not say that it has an order has nothing to answer.
            self.end_order();
        }
    }

    /// Forgets what was ordered, if the host shows that it is over.
    fn end_order(&mut self) {
        let Self { standing, ordered, .. } = self;
        let shows = |ordered: &mut Ordered| match standing {
            Some(standing) => ordered.is_over(standing),
            // Nobody can show it, and nobody can have an order to forget.
            None => ordered.what == What::Withdraw,
        };
        ordered.take_if(shows);
    }
}

impl Ordered {
    /// Whether a host in this state lacks it, by its own word. If nothing of it waits for the host either, it is to be given once
    /// more: the host noted an order after it that undoes it, or a thief's, or forgot all orders when its channel was set back.
    /// What was ordered for another release than the newest one that names the host is never delivered again (lesson 25); that
    /// it was taken back is true of any release.
    pub fn is_missing_in(&self, state: &HostState, newest: &RolloutId) -> bool {
        let is_newest = RolloutId::from(&self.release) == *newest;
        let lacks = |known: &Option<ReleaseId>| is_newest && known.as_ref() != Some(&self.release);
        match self.what {
            What::Go => lacks(&state.go),
            What::Reboot => lacks(&state.reboot_go),
            What::Revert => lacks(&state.revert_go),
            What::Withdraw => Standing::of(state).may_begin(&self.release),
            // That a host has these is seen by what it does.
            What::Stage | What::Retry => false,
        }
    }

    /// What it is on the wire; `None` for another try, which says who asked for it.
    pub fn wish(&self) -> Option<Wish> {
        let release = self.release.clone();
        Some(match self.what {
            What::Stage => Wish::Stage { release },
            What::Go => Wish::Go { release },
            What::Reboot => Wish::Reboot { release },
            What::Revert => Wish::Revert { release },
            What::Withdraw => Wish::Withdraw { release },
            What::Retry => return None,
        })
    }

    /// The same, to be given once more.
    pub fn again(&self, host: &HostName) -> Order {
        Order { host: host.clone(), release: self.release.clone(), what: self.what }
    }

    /// Whether what was ordered is seen to have begun in a host that stands so, or has lost its meaning there.
    pub fn is_over(&self, standing: &Standing) -> bool {
        use StateName as S;
        if self.what == What::Withdraw {
            return !standing.may_begin(&self.release);
        }
        let Some(about) = &standing.about else { return false };
        if about.channel != self.release.channel || about.seq > self.release.seq {
            return true;
        }
        let here = *about == self.release;
        match self.what {
            What::Stage => here,
            What::Go => here && !matches!(standing.state, S::Staging | S::Staged),
            What::Retry => {
                let failed = matches!(standing.state, S::Failed | S::Reverted);
                here && (!failed || Some(standing.since_ms) != self.since_ms)
            }
            What::Reboot => standing.state != S::Converged || standing.reboot == RebootWanted::No,
            What::Revert => {
                let runs = matches!(standing.state, S::Converged | S::Soaking | S::AwaitingReboot);
                !here || !runs || standing.stays_on(&self.release)
            }
            What::Withdraw => true,
        }
    }
}

fn status(
    rollout: &mut Rollout,
    wish: &'static str,
    may: impl Fn(&Status) -> bool,
    next: Status,
) -> Result<(), NotFolded> {
    if !may(&rollout.status) {
        let status = name(&rollout.status);
        return Err(NotFolded::Status { rollout: rollout.id(), status, wish });
    }
    rollout.status = next;
    Ok(())
}

/// What halted it does not count any more, or it would halt again at once.
fn resume(rollout: &mut Rollout) -> Result<(), NotFolded> {
    let halted = matches!(rollout.status, Status::Halted { .. });
    let stopped = |old: &Status| matches!(old, Status::Paused(_) | Status::Halted { .. });
    status(rollout, "resumed", stopped, Status::Going)?;
    if halted {
        let failures = std::mem::take(&mut rollout.failures);
        rollout.forgiven.extend(failures.into_keys());
    }
    Ok(())
}

fn name(status: &Status) -> &'static str {
    match status {
        Status::Going => "going on",
        Status::Paused(_) => "paused",
        Status::Halted { .. } => "halted",
        Status::Aborted(_) => "aborted",
    }
}
