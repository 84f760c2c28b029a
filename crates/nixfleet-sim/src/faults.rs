//! What goes wrong by itself: agents, machines, clocks, disks, networks, the control plane. And people, who may do what they do.

use nixfleet_core::host::Event;
use nixfleet_core::model::policy::WaveIndex;
use nixfleet_core::model::time::Secs;
use nixfleet_core::rollout::{Fact, RolloutId, Status, Verb};
use nixfleet_core::wire::Wish;

use crate::host::Net;
use crate::plane::{Row, place_of};
use crate::sim::{Agents, Happens, Machines, Sim};
use crate::story::{HOUR, MINUTE, START_MS};
use crate::truth::Truth;

/// Something that is wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Net(usize),
    Disk(usize),
    Clock(usize),
    /// The clock of this replica.
    PlaneClock(usize),
    Web,
}

impl Sim {
    /// Puts the first of each kind into the queue.
    pub(crate) fn schedule_faults(&mut self) {
        let rates = &self.story.rates;
        let (disturb, people, thief) = (rates.disturb_every, rates.people_every, rates.thief);
        if disturb.is_some() {
            self.queue.push(START_MS + MINUTE, Happens::Disturbs);
        }
        if people.is_some() {
            self.queue.push(START_MS + 10 * MINUTE, Happens::Acts);
        }
        if thief.is_some() {
            let at = self.dice.between(START_MS + 30 * MINUTE, self.story.calm_at - 30 * MINUTE);
            self.queue.push(at, Happens::Thief(true));
        }
    }

    /// Something goes wrong somewhere.
    pub(crate) fn disturbs(&mut self) {
        let Some(every) = self.story.rates.disturb_every.filter(|_| !self.is_calm) else { return };
        let host = self.dice.index(self.hosts.len());
        match self.dice.below(20) {
            0..=4 => self.kill_agent(host),
            5..=7 => {
                let boot = self.hosts[host].machine.boot;
                self.queue.push(self.now, Happens::Machine(host, boot, Machines::GoesDown));
            }
            8..=11 => self.cut_net(host),
            12 | 13 => {
                self.hosts[host].machine.disk_full = true;
                self.for_a_while(Fault::Disk(host), (MINUTE, 20 * MINUTE));
            }
            14 | 15 => {
                let day = 86_400_000;
                let skew =
                    self.dice.pick(&[day, -day, 3_600_000, -3_600_000, 4 * 365 * day, -20 * 365 * day]);
                self.set_clock(host, skew);
                self.for_a_while(Fault::Clock(host), (5 * MINUTE, HOUR));
            }
            16 | 17 => {
                if self.some_replica().is_some() {
                    self.kill_replica();
                }
            }
            18 => self.a_person_switches(host),
            _ if self.dice.chance(200) => self.loses_database(),
            _ if self.dice.chance(200) => {
                self.web.is_up = false;
                self.for_a_while(Fault::Web, (MINUTE, HOUR));
            }
            _ => {
                let replica = self.dice.index(self.plane.replicas.len());
                self.plane.replicas[replica].skew = self.dice.pick(&[86_400_000, -86_400_000, 600_000]);
                self.plan_soon();
                self.for_a_while(Fault::PlaneClock(replica), (5 * MINUTE, HOUR));
            }
        }
        let next = self.now + self.dice.between(every / 2, every * 3 / 2);
        self.queue.push(next, Happens::Disturbs);
    }

    fn for_a_while(&mut self, fault: Fault, (from, to): (u64, u64)) {
        self.note(None, || format!("{fault:?} begins"));
        let until = self.now + self.dice.between(from, to);
        self.queue.push(until, Happens::Heals(fault));
    }

    fn cut_net(&mut self, host: usize) {
        let (out_cut, in_cut) = self.dice.pick(&[(true, true), (true, false), (false, true)]);
        // Now and then a whole row of hosts is behind the same link.
        let count = if self.dice.chance(150) { self.hosts.len() / 5 } else { 1 };
        for host in host..(host + count).min(self.hosts.len()) {
            self.hosts[host].net = Net { out_cut, in_cut };
        }
        let last = 2 * self.story.look_every + HOUR;
        for host in host..(host + count).min(self.hosts.len()) {
            self.for_a_while(Fault::Net(host), (MINUTE, last));
        }
    }

    /// The clock of a host is set; the net under its timer notices within a minute.
    fn set_clock(&mut self, host: usize, skew: i64) {
        self.hosts[host].machine.skew = skew;
        if let Some(agent) = &mut self.hosts[host].agent {
            let at = self.now + 30_000;
            (agent.wakes_at, agent.wants_at) = (Some(at), Some(at));
            self.queue.push(at, Happens::Agent(host, agent.number, Agents::Wakes));
        }
    }

    /// It is over.
    pub(crate) fn heals(&mut self, fault: Fault) {
        match fault {
            Fault::Net(host) => self.hosts[host].net = Net::default(),
            Fault::Disk(host) => self.hosts[host].machine.disk_full = false,
            Fault::Clock(host) => self.set_clock(host, 0),
            Fault::Web => self.web.is_up = true,
            Fault::PlaneClock(replica) => {
                self.plane.replicas[replica].skew = 0;
                self.plan_soon();
            }
        }
    }

    /// Somebody switches by hand, to what the host ran at the beginning.
    fn a_person_switches(&mut self, host: usize) {
        let story = &self.story.hosts[host];
        let first = Truth::first_system(story.channel, story.role);
        let machine = &mut self.hosts[host].machine;
        if machine.is_up && machine.open().is_none() && machine.current != first {
            (machine.profile, machine.boot_default) = (first, first);
            machine.runs(first, None);
            machine.is_by_hand = true;
            self.look_soon(host);
        }
    }

    /// The database is gone: the control plane begins with the releases that are pushed again, and with what agents tell.
    fn loses_database(&mut self) {
        self.note(None, || "the database is lost".to_owned());
        self.counts.databases_lost += 1;
        self.stop_plane((120_000, 900_000));
        self.plane.was_tampered = true;
        let now = self.plane.now(self.now);
        self.plane.snapshot = nixfleet_core::rollout::Snapshot::new(now);
        self.plane.rows.iter_mut().for_each(|row| *row = Row::new());
        (self.plane.newest, self.plane.lease) = (0, None);
        for signed in self.plane.served.clone().into_iter().flatten() {
            let hosts = signed.placed(&self.story);
            let release = Box::new(signed.current.clone());
            self.fold(&Fact::ReleaseTaken { release, hosts });
        }
    }

    /// All that was wrong is over; people let go what they kept.
    pub(crate) fn calms_down(&mut self) {
        self.is_calm = true;
        self.note(None, || "from here on nothing goes wrong".to_owned());
        self.web.is_up = true;
        self.plane.replicas.iter_mut().for_each(|replica| replica.skew = 0);
        if self.plane.thief {
            self.thief(false);
        }
        for host in 0..self.hosts.len() {
            (self.hosts[host].net, self.hosts[host].machine.disk_full) = (Net::default(), false);
            if self.hosts[host].machine.skew != 0 {
                self.set_clock(host, 0);
            }
        }
        self.plan_soon();
    }

    // People.

    fn asks(&mut self, verb: Verb) {
        let (who, why) = ("ann".to_owned(), "she says so".to_owned());
        self.note(None, || format!("ann asks: {verb:?}"));
        if self.some_replica().is_some() && self.fold(&Fact::Asked { verb, who, why }) {
            self.plan_soon();
        }
    }

    /// A person does something.
    pub(crate) fn a_person_acts(&mut self) {
        let Some(every) = self.story.rates.people_every.filter(|_| !self.is_calm) else { return };
        if !self.plane.thief && self.some_replica().is_some() {
            let host = self.dice.index(self.hosts.len());
            let name = self.story.hosts[host].name.clone();
            let rollout = self.rollout_of(self.hosts[host].channel);
            let until_ms = self.dice.chance(500).then(|| self.plane.now(self.now).plus(Secs(1_800)));
            match (self.dice.below(15), rollout) {
                (0 | 1, Some(rollout)) => self.asks(Verb::Pause { rollout }),
                (2..=4, Some(rollout)) => self.asks(Verb::Resume { rollout }),
                (5, Some(rollout)) if self.dice.chance(200) => self.asks(Verb::Abort { rollout }),
                (6 | 7, _) => self.asks(Verb::Retry { host: name }),
                (8, _) => self.asks(Verb::Hold { host: name, until_ms }),
                (9, _) => self.asks(Verb::Unhold { host: name }),
                (10, _) => self.asks(Verb::Skip { host: name }),
                (11, _) => self.people_help(),
                (_, _) => self.a_person_comes_to(host),
            }
        }
        let next = self.now + self.dice.between(every / 2, every * 3 / 2);
        self.queue.push(next, Happens::Acts);
    }

    /// Somebody logs in at the host itself.
    fn a_person_comes_to(&mut self, host: usize) {
        let by = "bob".to_owned();
        let event = match self.dice.below(4) {
            0 => {
                let until_ms = Some(self.hosts[host].machine.now(self.now).at.plus(Secs(1_800)));
                Event::Held { by, why: "he works here".to_owned(), until_ms }
            }
            1 => Event::Unheld { by },
            // In no budget: nobody asks the control plane.
            _ => {
                self.hosts[host].seen.is_given_up = true;
                Event::RetryAsked { by }
            }
        };
        self.tell(host, event.into());
    }

    fn rollout_of(&self, channel: usize) -> Option<RolloutId> {
        let known = self.plane.snapshot.channels.get(&self.story.channels[channel].name)?;
        known.rollout.as_ref().map(nixfleet_core::rollout::Rollout::id)
    }

    /// People approve what waits for them, go on with what they paused, and let go what was kept.
    pub(crate) fn people_help(&mut self) {
        for channel in 0..self.story.channels.len() {
            let Some(rollout) = self.rollout_of(channel) else { continue };
            let known = &self.plane.snapshot.channels[&rollout.channel];
            let going =
                known.rollout.as_ref().map(|rollout| (rollout.status.clone(), rollout.approved.clone()));
            let Some((status, approved)) = going else { continue };
            if matches!(status, Status::Paused(_)) {
                self.asks(Verb::Resume { rollout: rollout.clone() });
            }
            for wave in
                (0..self.story.channels[channel].policy.waves.len()).filter_map(|at| u16::try_from(at).ok())
            {
                if !approved.contains_key(&WaveIndex(wave)) {
                    self.asks(Verb::Approve { rollout: rollout.clone(), wave: WaveIndex(wave) });
                }
            }
        }
        self.people_leave_out();
        let held = |known: &nixfleet_core::rollout::Host| {
            (known.hold.is_some(), known.standing.as_ref().is_some_and(|standing| standing.hold.is_some()))
        };
        let hosts = self.plane.snapshot.channels.values().flat_map(|channel| &channel.hosts);
        let kept: Vec<_> = hosts.map(|(name, known)| (name.clone(), held(known))).collect();
        for (name, (by_verb, at_host)) in kept {
            if by_verb {
                self.asks(Verb::Unhold { host: name.clone() });
            }
            let host = place_of(&name);
            if let Some(host) = host.filter(|host| at_host && !self.is_static(*host)) {
                self.order(host, Wish::Unhold { by: "ann".to_owned() });
            }
        }
    }

    /// Hosts that follow the web server never report: nobody is to wait for them, and people know it.
    fn people_leave_out(&mut self) {
        let quiet = (0..self.hosts.len()).filter(|host| self.is_static(*host));
        let quiet: Vec<_> = quiet.map(|host| self.story.hosts[host].name.clone()).collect();
        for host in quiet {
            let at = place_of(&host).filter(|at| self.hosts[*at].disk.state.hold.is_some());
            if let Some(at) = at.filter(|_| self.is_calm) {
                self.tell(at, Event::Unheld { by: "bob".to_owned() }.into());
            }
            let known = self.plane.snapshot.host(&host).map(|(_, known)| known.skip.is_some());
            if known == Some(false) {
                self.asks(Verb::Skip { host });
            }
        }
    }
}
