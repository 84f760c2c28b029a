//! What agents ask: their orders, and that their reports be taken.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Json;
use axum::extract::State;
use nixfleet_core::model::names::Sha256;
use nixfleet_core::wire::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, EventBatch, EventsTaken, Greeted, HELLO_BYTES_MAX, Hello, Orders,
    POLL_SECS_MAX, Then, state_bytes,
};
use nixfleet_sys::random;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::App;
use super::asked::{SentBy, Wanted};
use super::caller::Host;
use super::problem::Problem;
use crate::store::StoreError;
use crate::store::board::Asked;
use crate::store::ingest::{NotTaken, Sent};
use crate::wakes::POLLS_OF_A_HOST_MAX;

/// Which orders.
#[derive(Debug, Deserialize)]
pub(super) struct After {
    /// Those above this number.
    #[serde(default)]
    after: u64,
    /// Which log that number is of, by what came with the orders before.
    log: Option<String>,
}

/// What is asked of the host that asks. Answers at once when there is something, else when there is or when the poll
/// ends. What was sent stays until the host reports having it (lesson 25), so a lost answer loses nothing.
pub(super) async fn orders(
    Host(host): Host,
    State(app): State<App>,
    Wanted(After { after, log }): Wanted<After>,
) -> Result<Json<Orders>, Problem> {
    // A number of another log says nothing here: this database is new, or was put back.
    let is_ours = log.is_none_or(|log| *log == *app.log) && is_written(&app, after).await?;
    let after = if is_ours { after } else { 0 };
    let until = Instant::now() + poll();
    let mut ending = app.ending.clone();
    // Registered before the first look, so that what comes after the look wakes us.
    let Some(woken) = app.wakes.register(&host) else {
        return Err(Problem::too_many(format!("{POLLS_OF_A_HOST_MAX} polls of this host wait already")));
    };
    let mut until_news = Box::pin(woken.news());
    loop {
        let Asked { mut orders, is_followed } = app.store.asked(&host).await?;
        orders.retain(|order| order.number > after);
        // Who is not known here is asked at once, and not when it has something to report, which may be in weeks.
        let then = if is_followed { Then::GoOn } else { Then::SendState };
        let is_over = *ending.borrow() || Instant::now() >= until;
        if !orders.is_empty() || then == Then::SendState || is_over {
            return Ok(Json(Orders { orders, then, log: Some(app.log.to_string()) }));
        }
        tokio::select! {
            // Safe to cancel: news that came stays noted until the next look.
            waited = timeout_at(until, until_news.as_mut()) => {
                if waited.is_ok() {
                    until_news.set(woken.news());
                }
            }
            // Safe to cancel. Closed means the end.
            _ = ending.wait_for(|ending| *ending) => {}
        }
    }
}

/// Whether there is an event with this number, or was one.
async fn is_written(app: &App, number: u64) -> Result<bool, StoreError> {
    // Another replica may have given it, and this one not have read so far.
    let is_known = number <= *app.changed.borrow();
    Ok(is_known || number <= app.store.newest_event().await?)
}

/// Between half of the longest poll and all of it, so that a fleet does not ask in step.
fn poll() -> Duration {
    let longest = POLL_SECS_MAX * 1_000;
    Duration::from_millis(longest / 2 + random::number() % (longest / 2))
}

/// What happened on the host that sends. Answered when it is on the disk (lesson 24).
pub(super) async fn events(
    State(app): State<App>,
    SentBy { host, sent: batch, .. }: SentBy<EventBatch, BATCH_BYTES_MAX>,
) -> Result<Json<EventsTaken>, Problem> {
    if batch.records.len() > BATCH_RECORDS_MAX {
        return Err(Problem::too_large(format!("a batch may have {BATCH_RECORDS_MAX} records")));
    }
    app.metrics.events_received.add(batch.records.len() as u64);
    app.ingest.take(host, Sent::Records(batch.records)).await.map(Json).map_err(|error| not_taken(&error))
}

/// Who the host is and how far it is: whether what is known here is what the host knows.
pub(super) async fn hello(
    State(app): State<App>,
    SentBy { host, sent: hello, .. }: SentBy<Hello, HELLO_BYTES_MAX>,
) -> Result<Json<EventsTaken>, Problem> {
    let Some((known, told, fault)) = app.store.followed(&host).await? else {
        return Err(Problem::unknown_host("the release that named this host is gone"));
    };
    if let Some(state) = hello.state {
        if state.0.seq != hello.seq || digest_of(&state_bytes(&state.0)) != hello.digest {
            return Err(Problem::bad_request(
                "the state is not the one of the digest and the number beside it",
            ));
        }
        if state.0.setup.as_ref().is_some_and(|setup| setup.host != host) {
            return Err(Problem::forbidden("this is the state of another host"));
        }
        let sent = Sent::State { state, agent: hello.agent };
        return app.ingest.take(host, sent).await.map(Json).map_err(|error| not_taken(&error));
    }
    let greeted = Greeted { told, has_fault: fault.is_some(), seq: hello.seq, oldest: hello.oldest };
    Ok(Json(greeted.answer(|| digest_of(&state_bytes(&known)) == hello.digest)))
}

fn digest_of(bytes: &[u8]) -> Sha256 {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Sha256::new(out)
}

fn not_taken(error: &NotTaken) -> Problem {
    match error {
        NotTaken::Store { kind, .. } => Problem::not_kept(*kind, error),
        NotTaken::Full => Problem::unavailable(error.to_string()),
        NotTaken::Ending => Problem::unavailable("the server is ending; send it again"),
    }
}
