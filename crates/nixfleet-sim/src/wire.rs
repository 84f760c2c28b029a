//! The link between agents and the control plane, as `runtime/workers/link.rs` of the agent has it, over a network that loses,
//! doubles and delays. Two connections for each agent: a poll must not hold a report up.

use nixfleet_core::host::{Event, HostState, Phase, Record};
use nixfleet_core::model::names::ReleaseId;
use nixfleet_core::wire::{EventsTaken, Order, Then, Wish};

use crate::host::{Agent, Half};
use crate::mistakes::Mistake;
use crate::promises::Promise;
use crate::sim::{Agents, Happens, Sim};

/// The most records in one batch of a run: few, so that there are seams.
const BATCH_MAX: usize = 12;
/// How long an agent waits for an answer.
const ANSWER_WITHIN_MS: u64 = 60_000;

/// What an agent asks.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) host: usize,
    /// The process that asks.
    pub(crate) process: u32,
    pub(crate) id: u64,
    pub(crate) what: Ask,
}

#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Events(Vec<Record>),
    /// The state stands for its digest: the two are equal when the states are.
    Hello {
        state: Box<HostState>,
        oldest: u64,
        whole: bool,
    },
    Poll {
        after: u64,
    },
}

/// What the control plane answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Taken(EventsTaken),
    Orders(Vec<Order>),
    /// The connection broke, or nobody listens.
    Broken,
}

/// Which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Reporting,
    Ordering,
}

impl Ask {
    fn way(&self) -> Way {
        match self {
            Self::Events(_) | Self::Hello { .. } => Way::Reporting,
            Self::Poll { .. } => Way::Ordering,
        }
    }
}

fn half(agent: &mut Agent, way: Way) -> &mut Half {
    match way {
        Way::Reporting => &mut agent.reporting,
        Way::Ordering => &mut agent.ordering,
    }
}

impl Sim {
    /// Something was saved that may be sent.
    pub(crate) fn report_soon(&mut self, host: usize) {
        // A web server takes no reports.
        if self.is_static(host) {
            return;
        }
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if agent.reporting.waits_for.is_none() && !agent.reporting.is_due {
            agent.reporting.is_due = true;
            self.soon(host, (50, 2_500), Agents::Reports);
        }
    }

    /// A turn of the reporting half.
    pub(crate) fn reports(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        let Some(agent) = &mut it.agent else { return };
        agent.reporting.is_due = false;
        if agent.reporting.waits_for.is_some() {
            return;
        }
        if !agent.known {
            return self.says_hello(host, false);
        }
        let records = it.disk.outbox.unsent(BATCH_MAX);
        if !records.is_empty() {
            self.send(host, Ask::Events(records));
        }
    }

    fn says_hello(&mut self, host: usize, whole: bool) {
        let disk = &self.hosts[host].disk;
        let (state, oldest) = (Box::new(disk.state.clone()), disk.outbox.whole_from());
        self.send(host, Ask::Hello { state, oldest, whole });
    }

    /// A turn of the ordering half.
    pub(crate) fn polls(&mut self, host: usize) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.ordering.is_due = false;
        if agent.ordering.waits_for.is_none() {
            let after = agent.after;
            self.send(host, Ask::Poll { after });
        }
    }

    /// Sends a request: it may be lost, late, or arrive twice.
    fn send(&mut self, host: usize, what: Ask) {
        self.requests += 1;
        let id = self.requests;
        let net = self.hosts[host].net;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        half(agent, what.way()).waits_for = Some(id);
        let request = Request { host, process: agent.number, id, what };
        let (lost, doubled) = (self.story.rates.lost, self.story.rates.doubled);
        if net.out_cut || self.goes_wrong(lost) {
            return self.times_out(&request);
        }
        if self.goes_wrong(doubled) {
            let at = self.now + self.delay() + self.dice.below(20_000);
            self.queue.push(at, Happens::Asks(Box::new(request.clone())));
        }
        let at = self.now + self.delay();
        self.queue.push(at, Happens::Asks(Box::new(request)));
    }

    fn delay(&mut self) -> u64 {
        let slow = self.story.rates.slow;
        if self.goes_wrong(slow) { self.dice.between(200, 45_000) } else { self.dice.between(5, 120) }
    }

    /// Nobody answers: the agent gives it up in the end.
    pub(crate) fn times_out(&mut self, request: &Request) {
        let answer = Box::new(Answer::Broken);
        let at = self.now + ANSWER_WITHIN_MS;
        self.queue.push(at, Happens::Answers(request.host, request.process, request.id, answer));
    }

    /// Sends an answer, which may be lost or late.
    pub(crate) fn answer(&mut self, request: &Request, answer: Answer) {
        let lost = self.story.rates.lost;
        if self.hosts[request.host].net.in_cut || self.goes_wrong(lost) {
            return self.times_out(request);
        }
        let at = self.now + self.delay();
        self.queue.push(at, Happens::Answers(request.host, request.process, request.id, Box::new(answer)));
    }

    /// An answer arrives, if somebody still waits for it.
    pub(crate) fn answered(&mut self, host: usize, id: u64, answer: Answer) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let way = if agent.reporting.waits_for == Some(id) {
            Way::Reporting
        } else if agent.ordering.waits_for == Some(id) {
            Way::Ordering
        } else {
            return;
        };
        let connection = half(agent, way);
        connection.waits_for = None;
        match answer {
            Answer::Taken(taken) => {
                connection.failures = 0;
                self.taken(host, taken);
            }
            Answer::Orders(orders) => {
                // It is back: both sides may have lost something.
                agent.known &= std::mem::take(&mut agent.ordering.failures) == 0;
                self.report_soon(host);
                self.ordered(host, orders);
            }
            Answer::Broken => self.bears(host, way),
        }
    }

    /// Waits after a failure. Either side may have lost something meanwhile.
    fn bears(&mut self, host: usize, way: Way) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let connection = half(agent, way);
        connection.failures = connection.failures.saturating_add(1);
        let span = 5_000u64.saturating_mul(1 << connection.failures.min(6)).min(300_000);
        let again = match way {
            Way::Reporting => {
                agent.known = false;
                Agents::Reports
            }
            Way::Ordering => {
                agent.after = 0;
                Agents::Polls
            }
        };
        self.soon(host, (1_000, span), again);
    }

    /// The control plane says how far it is.
    fn taken(&mut self, host: usize, taken: EventsTaken) {
        let EventsTaken { next, then } = taken;
        let it = &mut self.hosts[host];
        let before = it.disk.outbox.acknowledged;
        it.disk.outbox.received(next);
        self.check_acknowledged(host, next);
        let Some(agent) = &mut self.hosts[host].agent else { return };
        match (then, agent.known) {
            (Then::GoOn, true) if next > before + 1 => self.report_soon(host),
            // Out of step: it says hello again.
            (Then::GoOn | Then::SendState, true) => {
                agent.known = false;
                self.report_soon(host);
            }
            (Then::GoOn, false) => {
                agent.known = true;
                self.report_soon(host);
            }
            (Then::SendState, false) => self.says_hello(host, true),
        }
        // Reports may have been given up that it does not have.
        if self.hosts[host].disk.outbox.owes_state() {
            let state = Box::new(self.hosts[host].disk.state.clone());
            self.tell(host, Event::StateTold { state }.into());
        }
    }

    /// Orders arrive; each is an event like any other.
    fn ordered(&mut self, host: usize, orders: Vec<Order>) {
        for order in orders {
            let Some(agent) = &mut self.hosts[host].agent else { return };
            agent.after = agent.after.max(order.number);
            self.note(Some(host), || format!("order {} arrives: {:?}", order.number, order.what));
            self.must(order.number > 0, Promise::WayOut, Some(host), || "an order has no number".into());
            self.is_told_on(host, &order.what);
            match &order.what {
                Wish::Withdraw { release } => self.called_back(host, &order, release),
                Wish::Stage { release: _ } => self.soon(host, (10, 200), Agents::LooksNow),
                _ => self.tell(host, order.what.event().into()),
            }
        }
        self.soon(host, (50, 1_000), Agents::Polls);
    }

    /// Who is told to go, or to try again, was not told to go back any more.
    fn is_told_on(&mut self, host: usize, wish: &Wish) {
        let it = &mut self.hosts[host];
        let failed = matches!(it.disk.state.phase, Phase::Failed(_) | Phase::Reverted(_));
        match (wish, it.disk.state.phase.target()) {
            (Wish::Retry { .. }, Some(target)) if failed => {
                it.seen.told_back.remove(&target.release);
            }
            _ => {}
        }
    }

    /// An order is taken back. Unless the agent dies of it or has no room for it, it is heeded from now on.
    fn called_back(&mut self, host: usize, order: &Order, release: &ReleaseId) {
        self.hosts[host].seen.called_back = order.number;
        if !self.makes(Mistake::CallBackIgnored) {
            self.tell(host, order.what.event().into());
        }
        if self.hosts[host].agent.as_ref().is_some_and(|agent| agent.inbox.is_empty()) {
            self.forgets(host, release);
        }
    }
}
