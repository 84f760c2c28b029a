//! What people do: to a rollout (pause, resume, abort, approve) and to one host (hold, let go, try again, leave out). Each is
//! an event with who and why, refused if it does not fit to how things are; the planner acts on it, and a host that is held
//! is told as well.

use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, RequestExt, Router};
use nixfleet_core::model::names::HostName;
use nixfleet_core::rollout::{RolloutId, Verb};
use nixfleet_core::wire::people::{Because, HoldBody, Noted};
use nixfleet_core::wire::rollouts::ApproveBody;
use serde::de::DeserializeOwned;

use super::App;
use super::asked::{FromPath, Named, Sent};
use super::caller::Operator;
use super::problem::Problem;
use crate::store::StoreError;
use crate::store::fact::{Fact, about};
use crate::store::tokens::Person;
use crate::trouble::Writer;

/// The largest body of a verb, in bytes.
pub(super) const BYTES_MAX: usize = 16 << 10;
/// The longest reason: a line or two.
const WHY_CHARS_MAX: usize = 500;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/hosts/{host}/hold", post(hold))
        .route("/v1/hosts/{host}/unhold", post(unhold))
        .route("/v1/hosts/{host}/retry", post(retry))
        .route("/v1/hosts/{host}/skip", post(skip))
        .route("/v1/rollouts/{channel}/{seq}/pause", post(pause))
        .route("/v1/rollouts/{channel}/{seq}/resume", post(resume))
        .route("/v1/rollouts/{channel}/{seq}/abort", post(abort))
        .route("/v1/rollouts/{channel}/{seq}/approve", post(approve))
}

type Answer = Result<(StatusCode, Json<Noted>), Problem>;

/// An operator who wants something done to what the path names.
struct Act<T, B> {
    by: Person,
    to: T,
    body: B,
}

impl<T: FromPath, B: DeserializeOwned> FromRequest<App> for Act<T, B> {
    type Rejection = Problem;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, Problem> {
        let Operator(by) = request.extract_parts_with_state(app).await?;
        let Named(to) = request.extract_parts_with_state(app).await?;
        let Sent(body) = Sent::<B, BYTES_MAX>::from_request(request, app).await?;
        Ok(Self { by, to, body })
    }
}

type ToHost = Act<HostName, Because>;
type ToRollout = Act<RolloutId, Because>;

async fn hold(State(app): State<App>, Act { by, to: host, body }: Act<HostName, HoldBody>) -> Answer {
    let HoldBody { why, until_ms } = body;
    if until_ms.is_some_and(|until| until <= (app.clock)()) {
        return Err(Problem::bad_request("`until_ms` is past"));
    }
    act(&app, by, Verb::Hold { host, until_ms }, why).await
}

async fn unhold(State(app): State<App>, Act { by, to: host, body }: ToHost) -> Answer {
    act(&app, by, Verb::Unhold { host }, body.why).await
}

async fn retry(State(app): State<App>, Act { by, to: host, body }: ToHost) -> Answer {
    act(&app, by, Verb::Retry { host }, body.why).await
}

async fn skip(State(app): State<App>, Act { by, to: host, body }: ToHost) -> Answer {
    act(&app, by, Verb::Skip { host }, body.why).await
}

async fn pause(State(app): State<App>, Act { by, to: rollout, body }: ToRollout) -> Answer {
    act(&app, by, Verb::Pause { rollout }, body.why).await
}

async fn resume(State(app): State<App>, Act { by, to: rollout, body }: ToRollout) -> Answer {
    act(&app, by, Verb::Resume { rollout }, body.why).await
}

async fn abort(State(app): State<App>, Act { by, to: rollout, body }: ToRollout) -> Answer {
    act(&app, by, Verb::Abort { rollout }, body.why).await
}

async fn approve(
    State(app): State<App>,
    Act { by, to: rollout, body }: Act<RolloutId, ApproveBody>,
) -> Answer {
    let ApproveBody { why, wave } = body;
    act(&app, by, Verb::Approve { rollout, wave }, why).await
}

/// A reason that can be shown.
fn reason(why: String) -> Result<String, Problem> {
    let is_plain = !why.chars().any(char::is_control) && why.chars().count() <= WHY_CHARS_MAX;
    if why.trim().is_empty() || !is_plain {
        return Err(Problem::bad_request(format!("`why` is one line of 1 to {WHY_CHARS_MAX} characters")));
    }
    Ok(why)
}

async fn act(app: &App, person: Person, verb: Verb, why: String) -> Answer {
    let why = reason(why)?;
    let act = Fact::Acted { by: person.name, verb: verb.clone(), why };
    let noted = app.store.within(note(app, act, &verb)).await;
    app.store.troubles().note(Writer::People, &noted, (app.clock)());
    Ok((StatusCode::ACCEPTED, Json(Noted { event: noted? })))
}

async fn note(app: &App, act: Fact, verb: &Verb) -> Result<u64, StoreError> {
    let mut write = app.store.begin((app.clock)()).await?;
    let event = write.append(&about(verb), &act).await?;
    app.tell(write.commit().await?.newest);
    Ok(event)
}
