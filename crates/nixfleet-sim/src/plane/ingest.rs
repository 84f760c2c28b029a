//! What agents ask, and how it is answered: as `api/agent.rs`, `store/ingest.rs` and `store/write/host.rs` of the control plane
//! have it. One request is one write: it is in the database before the answer is sent, or not at all.

use nixfleet_core::host::follow::Taken;
use nixfleet_core::host::{Event, Follower, HostState, Phase, Record, Terms};
use nixfleet_core::model::names::ReleaseId;
use nixfleet_core::rollout::snapshot::Ordered;
use nixfleet_core::rollout::{Fact, Reason, RolloutId, Standing};
use nixfleet_core::wire::{EventsTaken, Greeted, Order, Then, Topic, Wish};

use super::Row;
use crate::mistakes::Mistake;
use crate::sim::{Happens, Sim};
use crate::wire::{Answer, Ask, Request};

/// Between two notes that a host was heard of.
const HEARD_EVERY_MS: u64 = 30_000;

impl Sim {
    /// A request arrives.
    pub(crate) fn asked(&mut self, mut request: Request) {
        if !self.balanced() {
            return self.answer(&request, Answer::Broken);
        }
        let cut = self.story.rates.plane_cut;
        if self.goes_wrong(cut / 4) {
            // Before anything is written.
            self.answer(&request, Answer::Broken);
            return self.kill_replica();
        }
        let is_report = matches!(request.what, Ask::Events(_));
        if is_report && self.makes(Mistake::AcknowledgedFirst) && self.goes_wrong(cut) {
            return self.acknowledges_first(&request);
        }
        if self.plane.thief {
            return self.thief_answers(&request);
        }
        self.heard(request.host);
        match &mut request.what {
            Ask::Events(records) => {
                let records = std::mem::take(records);
                let taken = self.take(request.host, records);
                if self.goes_wrong(cut / 4) {
                    // Written, and not answered.
                    self.times_out(&request);
                    return self.kill_replica();
                }
                self.answer(&request, Answer::Taken(taken));
            }
            Ask::Hello { state, oldest, whole } => {
                let what = (*oldest, *whole);
                let taken = self.hello(request.host, state, what);
                self.answer(&request, Answer::Taken(taken));
            }
            Ask::Poll { after: _ } => self.holds_poll(request),
        }
    }

    /// It was heard of, whatever it said.
    fn heard(&mut self, host: usize) {
        let before = self.plane.rows[host].heard_at;
        if self.now < before + HEARD_EVERY_MS {
            return;
        }
        self.plane.rows[host].heard_at = self.now;
        let name = self.story.hosts[host].name.clone();
        let reason = self.plane.report.held.get(&name);
        let is_back = matches!(reason, Some(Reason::Offline { .. } | Reason::NeverReported));
        self.fold(&Fact::HostHeard { host: name });
        if is_back {
            self.plan_soon();
        }
    }

    /// Reports, in their order. How far it is from then on.
    pub(super) fn take(&mut self, host: usize, records: Vec<Record>) -> EventsTaken {
        let mut then = Then::GoOn;
        for record in records {
            match self.take_one(host, record) {
                Took::Folded | Took::Repeat => {}
                Took::Gap => break,
                Took::Diverged => {
                    then = Then::SendState;
                    break;
                }
            }
        }
        self.stands_now(host);
        EventsTaken { next: self.plane.rows[host].follower.told() + 1, then }
    }

    fn take_one(&mut self, host: usize, mut record: Record) -> Took {
        let channel = &self.truth.signed[self.hosts[host].channel];
        let find = |wanted: &ReleaseId| -> Option<&Terms> {
            let signed = channel.iter().find(|signed| signed.id == *wanted)?;
            signed.terms[host].as_deref()
        };
        let row = &mut self.plane.rows[host];
        if self.settings.mistake == Some(Mistake::RepeatsFolded) && record.seq <= row.follower.told() {
            record.seq = row.follower.told() + 1;
        }
        let may_be_retried = |state: &HostState| matches!(state.phase, Phase::Failed(_) | Phase::Reverted(_));
        let was_to_be_retried = may_be_retried(row.follower.state());
        let wish = noted(&record.fact);
        let taken = row.follower.take(record, self.hosts[host].seed, &find);
        match taken {
            Ok(Taken::Folded(_)) => row.has_diverged = false,
            Ok(Taken::Repeat) => return Took::Repeat,
            Ok(Taken::Early(_) | Taken::TooEarly(_)) => return Took::Gap,
            Err(_) => {
                row.has_diverged = true;
                return Took::Diverged;
            }
        }
        row.forget(wish.as_ref());
        row.forget_fetch();
        self.orders_again(host);
        let row = &mut self.plane.rows[host];
        if was_to_be_retried && !may_be_retried(row.follower.state()) {
            row.orders[place(Topic::Retry)] = None;
        }
        self.counts.folded += 1;
        Took::Folded
    }

    /// The planner's view of a host follows what was folded.
    fn stands_now(&mut self, host: usize) {
        let row = &self.plane.rows[host];
        if row.follower.state().setup.is_none() || row.follower.is_behind() {
            return;
        }
        self.check_followed(host);
        let standing = Standing::of(self.plane.rows[host].follower.state());
        let standing = self.mistaken_standing(standing);
        let name = &self.story.hosts[host].name;
        let known = self.plane.snapshot.host(name).and_then(|(_, known)| known.standing.as_ref());
        if known != Some(&standing) {
            let fact = Fact::HostStands { host: name.clone(), standing: Box::new(standing) };
            self.fold(&fact);
            self.plan_soon();
        }
        self.check_order_stays(host);
    }

    /// Orders once more what a host lacks by what it reported, and what does not wait for it any more.
    fn orders_again(&mut self, host: usize) {
        let Some(ordered) = self.lost_order(host) else { return };
        let order = ordered.again(&self.story.hosts[host].name);
        self.fold(&Fact::Ordered(order.clone()));
        self.give(&order);
    }

    /// An order that is counted on, and that the host neither has by its reports nor finds when it asks.
    pub(crate) fn lost_order(&self, host: usize) -> Option<&Ordered> {
        let row = Some(&self.plane.rows[host]).filter(|row| !row.follower.is_behind())?;
        let (channel, known) = self.plane.snapshot.host(&self.story.hosts[host].name)?;
        let (state, newest) = (row.follower.state(), RolloutId::from(&channel.current.id));
        let lacks = |ordered: &&Ordered| ordered.is_missing_in(state, &newest);
        let is_over = |ordered: &Ordered| ordered.is_over(&Standing::of(state));
        let ordered = known.ordered.as_ref().filter(lacks).filter(|ordered| !is_over(ordered))?;
        let wish = ordered.wish()?;
        let waits = row.orders[place(wish.topic())].as_ref();
        waits.is_none_or(|(_, waits)| *waits != wish).then_some(ordered)
    }
    /// Whether both sides know the same; the whole state takes the place of what was followed.
    fn hello(&mut self, host: usize, state: &HostState, (oldest, whole): (u64, bool)) -> EventsTaken {
        let row = &mut self.plane.rows[host];
        if whole {
            row.follower = Follower::from(state.clone());
            row.has_diverged = false;
            row.forget_heeded(state);
            self.counts.states_sent += 1;
            self.orders_again(host);
            self.stands_now(host);
            return EventsTaken { next: state.seq + 1, then: Then::GoOn };
        }
        let Row { follower, has_diverged, .. } = row;
        let greeted = Greeted { told: follower.told(), has_fault: *has_diverged, seq: state.seq, oldest };
        greeted.answer(|| follower.state() == state)
    }

    /// Orders are answered at once when there are any, else when there are or when the poll ends.
    fn holds_poll(&mut self, request: Request) {
        let host = request.host;
        let Ask::Poll { after } = request.what else { return };
        let orders = self.plane.rows[host].after(after);
        if !orders.is_empty() {
            return self.answers_poll(&request, orders);
        }
        let span = self.story.poll_for + self.dice.below(30_000);
        self.holds(request, span);
    }

    /// Holds a poll for a while. One of the same host that was held before, perhaps by a connection that is gone, ends.
    pub(crate) fn holds(&mut self, poll: Request, span: u64) {
        let (host, id) = (poll.host, poll.id);
        let acting = self.plane.acting;
        self.queue.push(self.now + span, Happens::PollEnds(host, id, acting));
        let held = &mut self.plane.replicas[acting].polls[host];
        if let Some(before) = held.replace(poll).filter(|before| before.id != id) {
            self.answer(&before, Answer::Orders(Vec::new()));
        }
    }

    fn answers_poll(&mut self, request: &Request, orders: Vec<Order>) {
        if self.makes(Mistake::OrderForgotten) {
            self.plane.rows[request.host].orders = [const { None }; super::TOPICS];
        }
        self.answer(request, Answer::Orders(orders));
    }

    /// A poll was held for long enough.
    pub(crate) fn poll_ends(&mut self, host: usize, id: u64, replica: usize) {
        if let Some(poll) = self.plane.replicas[replica].polls[host].take_if(|poll| poll.id == id) {
            self.plane.acting = replica;
            self.heard(host);
            self.answer(&poll, Answer::Orders(Vec::new()));
        }
    }

    /// A host is asked for something; whoever polls for it is woken.
    pub(crate) fn order(&mut self, host: usize, wish: Wish) {
        self.plane.newest += 1;
        let number = self.mistaken_number(self.plane.newest);
        let topic = place(wish.topic());
        self.plane.rows[host].orders[topic] = Some((number, wish));
        self.wakes_polls(host);
    }

    /// A replica sees that a host was asked for something.
    pub(crate) fn poll_has_news(&mut self, host: usize, replica: usize) {
        let Some(poll) = self.plane.replicas[replica].polls[host].take() else { return };
        let Ask::Poll { after } = poll.what else { return };
        let orders = self.plane.rows[host].after(after);
        if orders.is_empty() {
            self.plane.replicas[replica].polls[host] = Some(poll);
        } else {
            self.answers_poll(&poll, orders);
        }
    }
}

/// The order that a host noted, if it did.
fn noted(fact: &Event) -> Option<Wish> {
    // Most events are none, and to ask copies them.
    let may_be = matches!(
        fact,
        Event::OrderedToGo { .. }
            | Event::OrderedToReboot { .. }
            | Event::OrderedToRevert { .. }
            | Event::OrderWithdrawn { .. }
            | Event::Held { .. }
            | Event::Unheld { .. }
            | Event::RetryAsked { .. }
    );
    if may_be { Wish::noted_by(fact) } else { None }
}

/// What became of a record.
enum Took {
    Folded,
    Repeat,
    Gap,
    Diverged,
}

/// The place of a topic in a row.
pub(crate) fn place(topic: Topic) -> usize {
    match topic {
        Topic::Go => 0,
        Topic::Reboot => 1,
        Topic::Hold => 2,
        Topic::Retry => 3,
        Topic::Stage => 4,
        Topic::Revert => 5,
    }
}

impl Row {
    /// What is asked of the host and has a number above `after`, oldest first.
    fn after(&self, after: u64) -> Vec<Order> {
        let orders = self.orders.iter().flatten().filter(|(number, _)| *number > after);
        let mut out: Vec<Order> =
            orders.map(|(number, wish)| Order { number: *number, what: wish.clone() }).collect();
        out.sort_by_key(|order| order.number);
        out
    }

    /// Takes back what was ordered for a release that is not the newest any more. That something was taken back still holds: the
    /// host may begin before it sees the newer one.
    pub(super) fn drop_older(&mut self) {
        let go = self.orders[place(Topic::Go)].take();
        self.drop_orders();
        self.orders[place(Topic::Go)] = go.filter(|(_, wish)| matches!(wish, Wish::Withdraw { .. }));
    }

    /// Takes back what was ordered for a release and is not known to have arrived.
    pub(super) fn drop_orders(&mut self) {
        for topic in [Topic::Stage, Topic::Go, Topic::Reboot, Topic::Retry, Topic::Revert] {
            self.orders[place(topic)] = None;
        }
    }

    /// An order that the host noted is done with.
    pub(super) fn forget(&mut self, wish: Option<&Wish>) {
        if let Some(wish) = wish {
            self.orders[place(wish.topic())].take_if(|(_, known)| known == wish);
        }
    }

    /// That it fetches is all that this order wanted, and it is no event of the host.
    fn forget_fetch(&mut self) {
        let Some((_, Wish::Stage { release })) = &self.orders[place(Topic::Stage)] else { return };
        let target = self.follower.state().phase.target();
        if target.is_some_and(|target| target.release == *release) {
            self.orders[place(Topic::Stage)] = None;
        }
    }

    fn forget_heeded(&mut self, state: &HostState) {
        let go = state.go.clone().map(|release| Wish::Go { release });
        let reboot = state.reboot_go.clone().map(|release| Wish::Reboot { release });
        let revert = state.revert_go.clone().map(|release| Wish::Revert { release });
        self.forget(go.as_ref());
        self.forget(reboot.as_ref());
        self.forget(revert.as_ref());
        self.forget_fetch();
    }
}
