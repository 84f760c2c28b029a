//! The link to a control plane: reports go there, orders come from it. It decides nothing and keeps nothing.
//!
//! What is reported lies in the outbox until the control plane has it; an order becomes an event like any other, and the
//! machine acts on it only if its own verified release allows it. A control plane that is away is asked again with a
//! growing, spread pause, for ever: the host goes on by its policy meanwhile. What it asks for with `Retry-After` comes on top.
//!
//! There are two halves, since a poll must not hold a report up. They share their connections: what an order leads to at once is
//! reported over the one on which it came, and is only then polled again, so that a fleet that is told to go does not shake
//! hands anew. While a poll is held, reports go over another connection, which is kept for a while.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nixfleet_core::host::Event;
use nixfleet_core::host::pause::{Urgency, after_failures, as_asked};
use nixfleet_core::wire::{CLOCK_HEADER, EventBatch, EventsTaken, Orders, POLL_SECS_MAX, Then, Wish};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::activation::types::{Observer, Weight};
use crate::runtime::input::{Errand, Input, WithState};
use crate::runtime::requests::short;
use crate::source::place::WebAddress;
use crate::source::web::{Limits, Speaking, again_after};
use nixfleet_sys::text::chain;

/// The largest answer that is read, in bytes: orders are some hundred, and there are four topics.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long a report may take.
const REPORT_WITHIN: Duration = Duration::from_mins(1);
/// Beyond the longest poll, for the way there and back.
const POLL_SLACK: Duration = Duration::from_secs(30);
/// The shortest time between two polls that bring nothing: a control plane that is ending answers at once.
const POLL_PAUSE: Duration = Duration::from_secs(1);

/// How long a poll waits for what was to be reported before it, so that it can have that connection: a moment, since it is only
/// for that, and some orders lead to no report.
pub const REPORTED_WITHIN: Duration = Duration::from_secs(2);

/// What the link needs.
#[derive(Clone)]
pub struct Link {
    /// Where the control plane is.
    pub address: WebAddress,
    /// How it is spoken to.
    pub speaking: Speaking,
    /// To the reducer.
    pub inputs: mpsc::Sender<Input>,
    /// The newest number that is saved.
    pub newest: watch::Receiver<u64>,
    /// [`REPORTED_WITHIN`], except in tests.
    pub reported_within: Duration,
    /// What this host's clock says, which may be wrong: the control plane is told with each request.
    pub clock: fn() -> u64,
    /// Any number, each time another.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Has the source looked at without delay.
    pub look: Arc<dyn Fn() + Send + Sync>,
    /// For people.
    pub voice: Arc<dyn Observer>,
}

/// The reducer is gone, so there is nothing to do any more.
struct ReducerGone;

/// Why a request brought no answer that could be used.
enum NoUse {
    /// It may go another time.
    Later(Later),
    /// The control plane has refused what was sent, and will the next time.
    Refused(String),
}

/// Why it may go another time.
#[derive(Debug)]
struct Later {
    why: String,
    /// For how long the control plane wants not to be asked, if it says so.
    again_after: Option<Duration>,
}

impl Later {
    fn new(why: String) -> Self {
        Self { why, again_after: None }
    }
}

/// The longest that a poll may take.
const POLLED_WITHIN: Duration = Duration::from_secs(POLL_SECS_MAX).saturating_add(POLL_SLACK);

impl Link {
    /// Starts both halves; they end with the reducer.
    pub fn start(self) {
        let shared = Arc::new(Shared::default());
        let half = |within| Half { link: self.clone(), within, shared: Arc::clone(&shared) };
        let (reporting, ordering) = (half(REPORT_WITHIN), half(POLLED_WITHIN));
        tokio::spawn(async move { drop(reporting.report().await) });
        tokio::spawn(async move { drop(ordering.follow_orders().await) });
    }
}

/// One of the two halves.
struct Half {
    link: Link,
    /// How long one request may take.
    within: Duration,
    shared: Arc<Shared>,
}

/// What the two halves share.
#[derive(Default)]
struct Shared {
    /// With the number of clients before it. Made when it is needed, and anew after a failure: certificates are read then,
    /// and may have changed.
    client: Mutex<(u64, Option<Client>)>,
    /// The half that follows orders tells the other that the control plane does not know this host's state.
    to_greet: Notify,
    /// The newest saved number when it was last seen that all is reported.
    reported: watch::Sender<Option<u64>>,
}

impl Shared {
    fn client(&self, link: &Link) -> Result<(u64, Client), reqwest::Error> {
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let (number, Some(client)) = &*known {
            return Ok((*number, client.clone()));
        }
        // Each request has a limit of its own besides.
        let limits = Limits { silent: POLLED_WITHIN, whole: POLLED_WITHIN, ..Limits::default() };
        let client = link.speaking.client(limits, link.address.is_https())?;
        known.1 = Some(client.clone());
        Ok((known.0, client))
    }

    /// A request of this client failed. Its connections end with the last request that is still under way.
    fn failed(&self, number: u64) {
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 == number {
            *known = (number + 1, None);
        }
    }
}

impl Half {
    // Reports.

    async fn report(mut self) -> Result<(), ReducerGone> {
        let mut trouble = Trouble::default();
        let mut known = false;
        loop {
            let done = if known { self.send_some().await? } else { self.hello().await? };
            match done {
                Ok(Sent::More) => {
                    known = true;
                    self.well(&mut trouble);
                }
                Ok(Sent::Nothing { newest }) => {
                    self.well(&mut trouble);
                    self.shared.reported.send_replace(Some(newest));
                    tokio::select! {
                        // Safe to cancel: a change stays noted. Closed means that the desk is gone.
                        changed = self.link.newest.changed() => changed.map_err(|_| ReducerGone)?,
                        // Safe to cancel: a notice stays until it is taken.
                        () = self.shared.to_greet.notified() => known = false,
                    }
                }
                // Either side may have lost something meanwhile.
                Ok(Sent::OutOfStep) => known = false,
                Err(why) => {
                    known = false;
                    self.bear(&mut trouble, "reports cannot be sent", why).await;
                }
            }
        }
    }

    /// Sends the oldest of what is not there yet.
    async fn send_some(&mut self) -> Result<Result<Sent, Later>, ReducerGone> {
        // Before it is looked: what is saved after that wakes us again.
        let newest = *self.link.newest.borrow_and_update();
        let (reply, unsent) = oneshot::channel();
        self.ask(Errand::Unsent { reply }).await?;
        let records = unsent.await.map_err(|_| ReducerGone)?;
        let Some(last) = records.last().map(|record| record.seq) else {
            return Ok(Ok(Sent::Nothing { newest }));
        };
        let first = records[0].seq;
        let taken: EventsTaken =
            match self.post("v1/agent/events", &EventBatch { records: records.clone() }).await {
                Ok(taken) => taken,
                Err(NoUse::Later(why)) => return Ok(Err(why)),
                Err(NoUse::Refused(why)) if records.len() == 1 => return self.give_up(first, &why).await,
                // One of them is the cause: from here on they go one by one, until that one is found.
                Err(NoUse::Refused(_)) => {
                    let one = EventBatch { records: records[..1].to_vec() };
                    match self.post("v1/agent/events", &one).await {
                        Ok(taken) => taken,
                        Err(NoUse::Later(why)) => return Ok(Err(why)),
                        Err(NoUse::Refused(why)) => return self.give_up(first, &why).await,
                    }
                }
            };
        self.ask(Errand::Received { next: taken.next }).await?;
        let in_step = taken.then == Then::GoOn && taken.next > first && taken.next <= last + 1;
        Ok(Ok(if in_step { Sent::More } else { Sent::OutOfStep }))
    }

    /// A report that is refused blocks none behind it (lesson 10): it is passed over, and the state that it led to is sent.
    async fn give_up(&mut self, seq: u64, why: &str) -> Result<Result<Sent, Later>, ReducerGone> {
        let what = format!("error: the control plane refuses report {seq}, which is passed over: {why}");
        self.link.voice.remark(Weight::Error, &what);
        self.ask(Errand::Received { next: seq + 1 }).await?;
        match self.say_hello(WithState::Yes).await? {
            Ok(_) => Ok(Ok(Sent::More)),
            Err(why) => Ok(Err(why)),
        }
    }

    /// Finds out whether both sides know the same, and sends the state if not.
    async fn hello(&mut self) -> Result<Result<Sent, Later>, ReducerGone> {
        for state in [WithState::No, WithState::Yes] {
            match self.say_hello(state).await? {
                Ok(Then::GoOn) => return Ok(Ok(Sent::More)),
                Ok(Then::SendState) => {}
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Err(Later::new("the control plane wants the state again and again".to_owned())))
    }

    async fn say_hello(&mut self, state: WithState) -> Result<Result<Then, Later>, ReducerGone> {
        let (reply, hello) = oneshot::channel();
        self.ask(Errand::Hello { state, reply }).await?;
        let hello = hello.await.map_err(|_| ReducerGone)?;
        match self.post("v1/agent/hello", &*hello).await {
            Ok(EventsTaken { next, then }) => {
                self.ask(Errand::Received { next }).await?;
                Ok(Ok(then))
            }
            Err(why) => Ok(Err(why.later())),
        }
    }

    // Orders.

    async fn follow_orders(mut self) -> Result<(), ReducerGone> {
        let (mut known, mut trouble) = (Known::default(), Trouble::default());
        // Who we are comes first.
        self.until_reported(None).await;
        loop {
            let begun = Instant::now();
            match self.request::<Orders>(Method::GET, &known.path(), None).await {
                Ok(Orders { orders, then, log }) => {
                    self.well(&mut trouble);
                    let is_empty = orders.is_empty();
                    if known.is_of(log) || then == Then::SendState {
                        self.shared.to_greet.notify_one();
                    }
                    let newest = *self.link.newest.borrow();
                    for order in orders {
                        self.obey(&order.what).await?;
                        known.after = known.after.max(order.number);
                    }
                    if is_empty {
                        sleep_until(begun + POLL_PAUSE).await;
                    } else {
                        self.until_reported(Some(newest)).await;
                    }
                }
                Err(why) => self.bear(&mut trouble, "orders cannot be asked for", why.later()).await,
            }
            if self.link.inputs.is_closed() {
                return Err(ReducerGone);
            }
        }
    }

    /// Returns when something newer than the record `newest` is reported with all that there is, or anything at all if there is
    /// no such number; or after a moment.
    async fn until_reported(&self, newest: Option<u64>) {
        let mut reported = self.shared.reported.subscribe();
        // Safe to cancel. Neither is an error: then the poll has another connection.
        let _ = timeout(self.link.reported_within, reported.wait_for(|reported| *reported > newest)).await;
    }

    async fn obey(&self, wish: &Wish) -> Result<(), ReducerGone> {
        match wish {
            // What is found is an event; that it was looked for is none.
            Wish::Stage { release: _ } => (self.link.look)(),
            Wish::Go { .. }
            | Wish::Reboot { .. }
            | Wish::Revert { .. }
            | Wish::Withdraw { .. }
            | Wish::Hold { .. }
            | Wish::Unhold { .. }
            | Wish::Retry { .. } => {
                self.link.inputs.send(Input::Told(event_of(wish))).await.map_err(|_| ReducerGone)?;
            }
        }
        Ok(())
    }

    // Both.

    async fn ask(&self, errand: Errand) -> Result<(), ReducerGone> {
        self.link.inputs.send(Input::Errand(errand)).await.map_err(|_| ReducerGone)
    }

    async fn post<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> Result<T, NoUse> {
        let body = serde_json::to_vec(body).expect("texts and numbers are always JSON");
        self.request(Method::POST, path, Some(body)).await
    }

    async fn request<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, NoUse> {
        let answer = self.answer(method, path, body).await;
        let later = |error: reqwest::Error| NoUse::Later(Later::new(chain(&error.without_url())));
        let Answer { status, bytes, again_after } = answer.map_err(later)?;
        match status {
            StatusCode::OK => serde_json::from_slice(&bytes)
                .map_err(|error| NoUse::Later(Later::new(format!("the answer cannot be read: {error}")))),
            // Only these are about what was sent; the others are about who sent it, or about the server.
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(NoUse::Refused(said(status, &bytes)))
            }
            _ => Err(NoUse::Later(Later { why: said(status, &bytes), again_after })),
        }
    }

    /// The answer, with its body up to the largest that is read.
    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, reqwest::Error> {
        let (number, client) = self.shared.client(&self.link)?;
        let request = client.request(method, self.link.address.of_query(path)).timeout(self.within);
        let request = request.header(CLOCK_HEADER, (self.link.clock)());
        let request = match body {
            None => request,
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(body),
        };
        let answer = Answer::of(request).await;
        if answer.is_err() {
            self.shared.failed(number);
        }
        answer
    }

    /// Waits after a failure, and tells people once.
    async fn bear(&self, trouble: &mut Trouble, what: &str, Later { why, again_after }: Later) {
        trouble.failures = trouble.failures.saturating_add(1);
        if trouble.said.as_ref() != Some(&why) {
            self.link.voice.remark(Weight::Warning, &format!("{what}: {why}"));
            trouble.said = Some(why);
        }
        let drawn = after_failures(trouble.failures, Urgency::Ordinary, (self.link.random)());
        sleep(as_asked(drawn, again_after, Urgency::Ordinary)).await;
    }

    /// Tells people that it goes again, if it did not.
    fn well(&self, trouble: &mut Trouble) {
        if std::mem::take(trouble).said.is_some() {
            self.link.voice.remark(Weight::Note, "the control plane answers again");
        }
    }
}

impl NoUse {
    fn later(self) -> Later {
        match self {
            Self::Later(later) => later,
            Self::Refused(why) => Later::new(why),
        }
    }
}

/// An answer.
struct Answer {
    status: StatusCode,
    bytes: Vec<u8>,
    /// For how long the control plane wants not to be asked again, if it says so.
    again_after: Option<Duration>,
}

impl Answer {
    async fn of(request: RequestBuilder) -> Result<Self, reqwest::Error> {
        let mut response = request.send().await?;
        let (status, again_after, mut bytes) =
            (response.status(), again_after(response.headers()), Vec::new());
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                // What is cut cannot be read as an answer.
                bytes.truncate(ANSWER_BYTES_MAX);
                break;
            }
        }
        Ok(Self { status, bytes, again_after })
    }
}

/// What came of one turn of the reporting half.
enum Sent {
    /// There may be more.
    More,
    /// There was nothing to send.
    Nothing {
        /// The newest number that was saved before it was looked.
        newest: u64,
    },
    /// The two sides do not know the same.
    OutOfStep,
}

/// The longest name of a log that is said back.
const LOG_CHARS_MAX: usize = 64;

/// Which orders are here already.
#[derive(Default)]
struct Known {
    /// Those up to this number,
    after: u64,
    /// of this log.
    log: Option<String>,
}

impl Known {
    /// Where to ask for those that are not.
    fn path(&self) -> String {
        let log = self.log.as_ref().map(|log| format!("&log={log}")).unwrap_or_default();
        format!("v1/agent/orders?after={}{log}", self.after)
    }

    /// The orders that just came are of this log. In another one than before, numbers begin anew: the control plane's
    /// database was lost or put back. Says whether that is so.
    fn is_of(&mut self, log: Option<String>) -> bool {
        let is_name = |log: &String| {
            log.len() <= LOG_CHARS_MAX && log.chars().all(|letter| letter.is_ascii_alphanumeric())
        };
        let log = log.filter(is_name);
        if log == self.log {
            return false;
        }
        let is_another = self.log.is_some();
        *self = Self { after: 0, log };
        is_another
    }
}

/// Failures in a row, and what people were told of them.
#[derive(Default)]
struct Trouble {
    failures: u32,
    said: Option<String>,
}

/// An order as an event; texts are somebody else's.
fn event_of(wish: &Wish) -> Event {
    match wish.event() {
        Event::Held { by, why, until_ms } => Event::Held { by: short(&by), why: short(&why), until_ms },
        Event::Unheld { by } => Event::Unheld { by: short(&by) },
        Event::RetryAsked { by } => Event::RetryAsked { by: short(&by) },
        other => other,
    }
}

/// What a problem document says, or the status alone.
fn said(status: StatusCode, body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    match detail {
        Some(detail) => format!("{status}: {}", short(detail)),
        None => status.to_string(),
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
