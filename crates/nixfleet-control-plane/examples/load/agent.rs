//! An agent, as the server sees it: one connection on which it asks for orders, and another for its reports while it has
//! any. It folds events as the real one does, so that the server can follow; what it does not do is to switch anything.
//!
//! Bounded: one request at a time on each connection, and after a failure the pause that agents make.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use nixfleet_core::host::saved::SavedState;
use nixfleet_core::host::{Event, Record};
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

/// The pause after so many failures, as `nixfleet_agent::source::pause` draws it.
fn after_failures(failures: u32) -> Duration {
    let span = FIRST_SPAN.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_SPAN);
    let share = f64::from(u32::try_from(random::number() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    span.mul_f64(share).max(SHORTEST_PAUSE)
}

/// The half of an agent that reports.
pub(crate) struct Reporter {
    host: Host,
    /// The first record that the server does not have.
    next: u64,
    way: Way,
    line: Option<Line>,
}

impl Reporter {
    pub(crate) fn new(host: Host, way: Way) -> Self {
        Self { host, next: 1, way, line: None }
    }

    async fn post<T: serde::de::DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, NoUse> {
        let body = serde_json::to_vec(body).expect("JSON");
        if self.line.is_none() {
            self.line = Some(self.way.open().await?);
        }
        let line = self.line.as_mut().expect("it was opened above");
        let answer = line.ask(Method::POST, path, body).await;
        if answer.is_err() {
            self.line = None;
        }
        answer
    }

    /// Says where it is, and sends its state if the server does not know it.
    pub(crate) async fn greet(&mut self) -> Result<(), NoUse> {
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
            let EventsTaken { next, then } = self.post("/v1/agent/hello", &hello).await?;
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
    pub(crate) async fn report(&mut self) -> Result<usize, NoUse> {
        let mut sent = 0;
        while !self.host.log.is_empty() {
            let some = self.host.log.len().min(BATCH_RECORDS_MAX);
            let records: Vec<Record> = self.host.log[..some].to_vec();
            let EventsTaken { next, then } = self.post("/v1/agent/events", &EventBatch { records }).await?;
            self.received(next);
            sent += some;
            if then == Then::SendState {
                self.greet().await?;
            }
        }
        Ok(sent)
    }

    /// Ends the connection: nothing is left to be said for now.
    pub(crate) fn rest(&mut self) {
        self.line = None;
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
    way: Way,
    world: Arc<World>,
}

impl Agent {
    pub(crate) fn new(host: Host, way: Way, world: Arc<World>) -> Self {
        let reporter = Arc::new(Mutex::new(Reporter::new(host, way.clone())));
        Self { reporter, way, world }
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
            *failures = 0;
            if known.log != log {
                *known = Known { after: 0, log };
            }
            let may_report = self.world.reports.acquire().await;
            let mut reporter = self.reporter.lock().await;
            if then == Then::SendState {
                reporter.greet().await?;
            }
            let is_empty = orders.is_empty();
            for order in orders {
                known.after = known.after.max(order.number);
                self.obey(&mut reporter.host, &order.what);
            }
            while reporter.host.go_on(&|_| true) {}
            self.world.note_sent(reporter.report().await?);
            reporter.rest();
            drop((reporter, may_report));
            if is_empty {
                sleep_until(begun + POLL_PAUSE).await;
            }
        }
    }

    /// Both connections, a bounded number of agents at the same time while the fleet is switched on.
    async fn connect(&self) -> Result<Line, NoUse> {
        let _turn = self.world.turns.acquire().await;
        let line = self.way.open().await?;
        let mut reporter = self.reporter.lock().await;
        reporter.greet().await?;
        self.world.note_sent(reporter.report().await?);
        reporter.rest();
        Ok(line)
    }

    fn obey(&self, host: &mut Host, wish: &Wish) {
        match wish {
            Wish::Stage { .. } => host.verified(&self.world.documents),
            wish => {
                if matches!(wish, Wish::Go { .. }) {
                    self.world.note_go();
                }
                host.take(&wish.event(), None);
            }
        }
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
