//! A release that somebody pushes: verified line by line as it comes in, written when it is whole.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use nixfleet_core::wire::people::{PushOutcome, Pushed};
use nixfleet_sys::text::chain;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::App;
use super::caller::Operator;
use super::problem::Problem;
use crate::releases::stream::Push;
use crate::releases::{Draft, Intake, IntakeRefused, Taken};
use crate::say;
use crate::trouble::Writer;

/// How long a push may take: the 90 MB of 100,000 hosts over 2 Mbit/s, and some.
const PUSH_WITHIN: Duration = Duration::from_mins(10);
/// Pushes at the same time: each is in memory until it is whole.
static PUSHES: Semaphore = Semaphore::const_new(1);

pub(super) async fn push(
    Operator(person): Operator,
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Pushed>, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind != "application/x-ndjson" {
        return Err(Problem::wrong_type(
            "this endpoint takes application/x-ndjson: one document in each line",
        ));
    }
    let Ok(_turn) = PUSHES.try_acquire() else {
        return Err(Problem::conflict("another release is being pushed; try again when it is there"));
    };
    let draft = Draft::begin(&app.store, &app.first_root, (app.clock)()).await;
    let draft = draft.map_err(|error| refused(&error))?.by(&person.name);
    let draft = receive(Push::new(draft), body).await?;
    let intake = draft.finish(&app.store, &app.first_root).await;
    if let Err(IntakeRefused::Store(error)) = &intake {
        app.store.troubles().met(Writer::People, error, (app.clock)());
    }
    let Intake { roots, taken } = intake.map_err(|error| refused(&error))?;
    for root in &roots {
        say::line(&format!("root {root} was pushed by {}", person.name));
    }
    let is_new = matches!(taken, Taken::New(_));
    let (outcome, release) = match taken {
        Taken::New(release) => {
            say::line(&format!("release {release} was pushed by {}", person.name));
            (PushOutcome::Taken, Some(release))
        }
        Taken::Known(release) => (PushOutcome::KnownBefore, Some(release)),
        Taken::RootsOnly => (PushOutcome::RootsOnly, None),
    };
    // Where all of it was known, nothing was to be written.
    if is_new || !roots.is_empty() {
        app.store.troubles().over(Writer::People);
        app.tell(app.store.newest_event().await?);
    }
    Ok(Json(Pushed { outcome, release, roots }))
}

async fn receive(mut push: Push, mut body: Body) -> Result<Draft, Problem> {
    let until = Instant::now() + PUSH_WITHIN;
    let told = |error: crate::releases::stream::PushRefused| Problem::refused(chain(&error));
    loop {
        let frame = timeout_at(until, body.frame()).await;
        let frame =
            frame.map_err(|_| Problem::too_slow(format!("a push must be here within {PUSH_WITHIN:?}")))?;
        match frame {
            None => return push.end().map_err(told),
            Some(Err(_)) => return Err(Problem::bad_request("the body broke off")),
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    push.piece(piece).map_err(told)?;
                }
            }
        }
    }
}

fn refused(error: &IntakeRefused) -> Problem {
    match error {
        IntakeRefused::Store(store) => Problem::not_kept(store.trouble(), error),
        IntakeRefused::Trust(_) => Problem::ours(error),
        IntakeRefused::Overtaken => Problem::conflict(error.to_string()),
        IntakeRefused::Root(_)
        | IntakeRefused::TooManyRoots
        | IntakeRefused::Release(_)
        | IntakeRefused::Unreadable(_)
        | IntakeRefused::NoChannel
        | IntakeRefused::Entry { .. }
        | IntakeRefused::HostTwice(_)
        | IntakeRefused::Order
        | IntakeRefused::Incomplete { .. }
        | IntakeRefused::Stuck(_)
        | IntakeRefused::Elsewhere(_)
        | IntakeRefused::TooLarge => {
            let problem = Problem::refused(chain(error));
            error.hint().into_iter().fold(problem, Problem::hint)
        }
    }
}
