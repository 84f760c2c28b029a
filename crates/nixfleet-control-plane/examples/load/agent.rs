//! An agent, as the server sees it: one connection on which it says hello, asks for orders and reports what they lead to at
//! once. While a poll is held on it, a switch is reported over another one, after the source was asked over a third, as the
//! real agent does it. It folds events as that one does, so that the server can follow; what it does not do is to switch
//! anything: a switch is a wait.
//!
//! Bounded: one request at a time on each connection, and after a failure the pause that agents make.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use nixfleet_core::host::saved::SavedState;
use nixfleet_core::host::{Event, Phase, Record};
use nixfleet_core::model::names::Sha256;
use nixfleet_core::wire::{
    BATCH_RECORDS_MAX, EventBatch, EventsTaken, Hello, Orders, Then, Wish, state_bytes,
};
use nixfleet_sys::random;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::fleet::Host;
use crate::wire::{Line, NoUse, Way};
use crate::world::World;

/// The shortest time between two polls that bring nothing, as the agent's link has it.
const POLL_PAUSE: Duration = Duration::from_secs(1);
/// The span from which an agent draws its first pause, its longest span, and its shortest pause.
const FIRST_SPAN: Duration = Duration::from_secs(5);
const LONGEST_SPAN: Duration = Duration::from_mins(5);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a switch takes, and how much longer at most: on a host of the test bed it is 1.8 s (`BENCHMARKS.md`), and hosts
/// differ.
const SWITCH: Duration = Duration::from_secs(2);
const SWITCH_SPAN: Duration = Duration::from_secs(8);

/// The pause after so many failures, as `nixfleet_agent::source::pause` draws it.
fn after_failures(failures: u32) -> Duration {
    let span = FIRST_SPAN.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_SPAN);
    part_of(span).max(SHORTEST_PAUSE)
}

/// Some part of a span, by chance.
fn part_of(span: Duration) -> Duration {
    let share = f64::from(u32::try_from(random::number() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    span.mul_f64(share)
}

/// The half of an agent that reports.
pub(crate) struct Reporter {
    host: Host,
    /// The first record that the server does not have.
    next: u64,
}

impl Reporter {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, next: 1 }
    }

    async fn post<T: serde::de::DeserializeOwned>(
        line: &mut Line,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, NoUse> {
        line.ask(Method::POST, path, serde_json::to_vec(body).expect("JSON")).await
    }

    /// Says where it is, and sends its state if the server does not know it.
    pub(crate) async fn greet(&mut self, line: &mut Line) -> Result<(), NoUse> {
        for with_state in [false, true] {
            let state = &self.host.state;
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &state_bytes(state));
            let hello = Hello {
                agent: "0.1.0".to_owned(),
                seq: state.seq,
                digest: Sha256::new(digest.as_ref().try_into().expect("32 bytes")),
                oldest: self.host.log.first().map_or(state.seq + 1, |record| record.seq),
                state: with_state.then(|| Box::new(SavedState(state.clone()))),
            };
            let EventsTaken { next, then } = Self::post(line, "/v1/agent/hello", &hello).await?;
            self.received(next);
            if then == Then::GoOn {
                return Ok(());
            }
        }
        Err(NoUse::Unreadable)
    }

    /// What is below `next` need not be kept.
    fn received(&mut self, next: u64) {
        self.next = next;
        self.host.log.retain(|record| record.seq >= next);
    }

    /// Sends what the server does not have. Returns how many records that were.
    pub(crate) async fn report(&mut self, line: &mut Line) -> Result<usize, NoUse> {
        let mut sent = 0;
        while !self.host.log.is_empty() {
            let some = self.host.log.len().min(BATCH_RECORDS_MAX);
            let records: Vec<Record> = self.host.log[..some].to_vec();
            let batch = EventBatch { records };
            let EventsTaken { next, then } = Self::post(line, "/v1/agent/events", &batch).await?;
            self.received(next);
            sent += some;
            if then == Then::SendState {
                self.greet(line).await?;
            }
        }
        Ok(sent)
    }

    /// Somebody on the host holds it and lets it go, so often: the cheapest events that there are, two each time.
    pub(crate) fn is_held_and_let_go(&mut self, times: usize) {
        for _ in 0..times {
            let (by, why) = ("ann".to_owned(), "a look at the fan".to_owned());
            self.host.take(&Event::Held { by: by.clone(), why, until_ms: None }, None);
            self.host.take(&Event::Unheld { by }, None);
        }
    }
}

/// An agent.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) reporter: Arc<Mutex<Reporter>>,
    pub(crate) way: Way,
    world: Arc<World>,
}

impl Agent {
    pub(crate) fn new(host: Host, way: Way, world: Arc<World>) -> Self {
        Self { reporter: Arc::new(Mutex::new(Reporter::new(host))), way, world }
    }

    /// Lives for ever.
    pub(crate) async fn run(self) {
        let (mut failures, mut known) = (0, Known::default());
        loop {
            let Err(why) = self.live(&mut known, &mut failures).await;
            failures += 1;
            self.world.note_failure(why);
            sleep(after_failures(failures)).await;
        }
    }

    async fn live(&self, known: &mut Known, failures: &mut u32) -> Result<std::convert::Infallible, NoUse> {
        let mut line = self.connect().await?;
        loop {
            let begun = Instant::now();
            let answer = self.world.polling(line.ask(Method::GET, &known.path(), Vec::new())).await;
            let Orders { orders, then, log } = answer?;
            if orders.iter().any(|order| matches!(order.what, Wish::Go { .. })) {
                self.world.note_go();
            }
            *failures = 0;
            if known.log != log {
                *known = Known { after: 0, log };
            }
            let mut reporter = self.reporter.lock().await;
            if then == Then::SendState {
                reporter.greet(&mut line).await?;
            }
            let is_empty = orders.is_empty();
            for order in orders {
                known.after = known.after.max(order.number);
                self.obey(&mut reporter.host, &order.what);
            }
            // What that leads to at once goes over the connection on which it came, and which is free now.
            self.world.note_sent(reporter.report(&mut line).await?);
            drop(reporter);
            if is_empty {
                sleep_until(begun + POLL_PAUSE).await;
            }
        }
    }

    /// The connection, a bounded number of agents at the same time while the fleet is switched on.
    async fn connect(&self) -> Result<Line, NoUse> {
        let _turn = self.world.turns.acquire().await;
        let mut line = self.way.open().await?;
        let mut reporter = self.reporter.lock().await;
        reporter.greet(&mut line).await?;
        self.world.note_sent(reporter.report(&mut line).await?);
        Ok(line)
    }

    fn obey(&self, host: &mut Host, wish: &Wish) {
        match wish {
            Wish::Stage { .. } => {
                host.verified(&self.world.documents);
                // What there is to fetch is there at once.
                while matches!(host.state.phase, Phase::Staging(_)) && host.go_on(&|_| true) {}
            }
            wish => host.take(&wish.event(), None),
        }
        if matches!(host.state.phase, Phase::Activating(_)) {
            // Bounded: a host switches once for each order.
            tokio::spawn(self.clone().switch());
        }
    }

    /// Switches, which takes its time, and reports it.
    async fn switch(self) {
        sleep(SWITCH + part_of(SWITCH_SPAN)).await;
        let _may_report = self.world.reports.acquire().await;
        if let Err(why) = self.confirm().await {
            // What it could not say is said when its poll comes again.
            self.world.note_failure(why);
        }
    }

    /// Asks the source over a connection of its own, as a system on trial does, and reports over another one, since the first
    /// one's poll is held.
    async fn confirm(&self) -> Result<(), NoUse> {
        self.way
            .afresh()
            .open()
            .await?
            .raw(Method::GET, "/channels/stable/latest", "text/plain", None, Vec::new())
            .await?;
        let mut line = self.way.open().await?;
        let mut reporter = self.reporter.lock().await;
        while reporter.host.go_on(&|_| true) {}
        self.world.note_sent(reporter.report(&mut line).await?);
        Ok(())
    }
}

/// Which orders are here already.
#[derive(Default)]
struct Known {
    after: u64,
    log: Option<String>,
}

impl Known {
    fn path(&self) -> String {
        let log = self.log.as_ref().map(|log| format!("&log={log}")).unwrap_or_default();
        format!("/v1/agent/orders?after={}{log}", self.after)
    }
}
