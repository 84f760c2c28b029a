//! What people do: to a rollout (pause, resume, abort, approve) and to one host (hold, let go, try again, leave out). Each is
//! an event with who and why, refused if it does not fit to how things are; the planner acts on it, and a host that is held
//! is told as well.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use nixfleet_core::model::names::{ChannelName, HostName, Seq};
use nixfleet_core::rollout::{RolloutId, Verb};
use nixfleet_core::wire::people::{Because, HoldBody, Noted};
use nixfleet_core::wire::rollouts::ApproveBody;

use super::App;
use super::caller::{self, Operator};
use super::people::named;
use super::problem::Problem;
use crate::store::fact::{Fact, about};
use crate::store::tokens::Person;

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

async fn hold(
    Operator(person): Operator,
    State(app): State<App>,
    Path(host): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let HoldBody { why, until_ms } = caller::json(&headers, body, BYTES_MAX).await?;
    if until_ms.is_some_and(|until| until <= (app.clock)()) {
        return Err(Problem::bad_request("`until_ms` is past"));
    }
    act(&app, person, Verb::Hold { host: named(&host)?, until_ms }, why).await
}

async fn unhold(
    operator: Operator,
    app: State<App>,
    host: Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    to_host(operator, app, host, (headers, body), |host| Verb::Unhold { host }).await
}

async fn retry(
    operator: Operator,
    app: State<App>,
    host: Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    to_host(operator, app, host, (headers, body), |host| Verb::Retry { host }).await
}

async fn skip(
    operator: Operator,
    app: State<App>,
    host: Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    to_host(operator, app, host, (headers, body), |host| Verb::Skip { host }).await
}

async fn pause(
    operator: Operator,
    app: State<App>,
    rollout: Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    to_rollout(operator, app, rollout, (headers, body), |rollout| Verb::Pause { rollout }).await
}

async fn resume(
    operator: Operator,
    app: State<App>,
    rollout: Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    to_rollout(operator, app, rollout, (headers, body), |rollout| Verb::Resume { rollout }).await
}

async fn abort(
    operator: Operator,
    app: State<App>,
    rollout: Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    to_rollout(operator, app, rollout, (headers, body), |rollout| Verb::Abort { rollout }).await
}

async fn approve(
    Operator(person): Operator,
    State(app): State<App>,
    Path(rollout): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let ApproveBody { why, wave } = caller::json(&headers, body, BYTES_MAX).await?;
    act(&app, person, Verb::Approve { rollout: id(&rollout)?, wave }, why).await
}

async fn to_host(
    Operator(person): Operator,
    State(app): State<App>,
    Path(host): Path<String>,
    (headers, body): (HeaderMap, Body),
    verb: impl FnOnce(HostName) -> Verb,
) -> Answer {
    let Because { why } = caller::json(&headers, body, BYTES_MAX).await?;
    act(&app, person, verb(named(&host)?), why).await
}

async fn to_rollout(
    Operator(person): Operator,
    State(app): State<App>,
    Path(rollout): Path<(String, String)>,
    (headers, body): (HeaderMap, Body),
    verb: impl FnOnce(RolloutId) -> Verb,
) -> Answer {
    let Because { why } = caller::json(&headers, body, BYTES_MAX).await?;
    act(&app, person, verb(id(&rollout)?), why).await
}

fn id((channel, seq): &(String, String)) -> Result<RolloutId, Problem> {
    let channel: ChannelName = named(channel)?;
    let seq = seq.parse().ok().and_then(|seq| Seq::new(seq).ok());
    let seq = seq
        .ok_or_else(|| Problem::bad_request("a rollout is named by its channel and the release's number"))?;
    Ok(RolloutId { channel, seq })
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
    let mut write = app.store.begin((app.clock)()).await?;
    let event = write.append(&about(&verb), &Fact::Acted { by: person.name, verb, why }).await?;
    app.tell(write.commit().await?.newest);
    Ok((StatusCode::ACCEPTED, Json(Noted { event })))
}
