//! What people do to one host: hold, let go, try again. Each is an event with who and why, and an order to the host, which
//! notes it as its own event when it has it.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use nixfleet_core::host::phase::StateName;
use nixfleet_core::model::names::HostName;
use nixfleet_core::wire::Wish;
use nixfleet_core::wire::people::{Because, HoldBody, Noted};

use super::App;
use super::caller::{self, Operator};
use super::people::named;
use super::problem::Problem;
use crate::store::fact::{About, Fact};

/// The largest body of a verb, in bytes.
const BYTES_MAX: usize = 16 << 10;
/// The longest reason: a line or two.
const WHY_CHARS_MAX: usize = 500;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/hosts/{host}/hold", post(hold))
        .route("/v1/hosts/{host}/unhold", post(unhold))
        .route("/v1/hosts/{host}/retry", post(retry))
}

async fn hold(
    Operator(person): Operator,
    State(app): State<App>,
    Path(host): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Noted>), Problem> {
    let HoldBody { why, until_ms } = caller::json(&headers, body, BYTES_MAX).await?;
    let why = reason(why)?;
    if until_ms.is_some_and(|until| until <= (app.clock)()) {
        return Err(Problem::bad_request("`until_ms` is past"));
    }
    let wish = Wish::Hold { by: person.name.clone(), why: why.clone(), until_ms };
    order(&app, &named(&host)?, wish, person.name, why).await
}

async fn unhold(
    Operator(person): Operator,
    State(app): State<App>,
    Path(host): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Noted>), Problem> {
    let Because { why } = caller::json(&headers, body, BYTES_MAX).await?;
    let wish = Wish::Unhold { by: person.name.clone() };
    order(&app, &named(&host)?, wish, person.name, reason(why)?).await
}

async fn retry(
    Operator(person): Operator,
    State(app): State<App>,
    Path(host): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Noted>), Problem> {
    let Because { why } = caller::json(&headers, body, BYTES_MAX).await?;
    let host: HostName = named(&host)?;
    let (why, wish) = (reason(why)?, Wish::Retry { by: person.name.clone() });
    let known = app.store.state(&host).await?;
    let state = known.map(|(state, _)| state.phase.name());
    match state {
        Some(StateName::Failed | StateName::Reverted) | None => {}
        Some(
            state @ (StateName::Converged
            | StateName::Staging
            | StateName::Staged
            | StateName::Activating
            | StateName::AwaitingReboot
            | StateName::Confirming
            | StateName::Soaking
            | StateName::Reverting),
        ) => {
            let detail = format!("host {host} is {state}: there is nothing that failed to be tried again");
            return Err(Problem::conflict(detail));
        }
    }
    order(&app, &host, wish, person.name, why).await
}

/// A reason that can be shown.
fn reason(why: String) -> Result<String, Problem> {
    let is_plain = !why.chars().any(char::is_control) && why.chars().count() <= WHY_CHARS_MAX;
    if why.trim().is_empty() || !is_plain {
        return Err(Problem::bad_request(format!("`why` is one line of 1 to {WHY_CHARS_MAX} characters")));
    }
    Ok(why)
}

async fn order(
    app: &App,
    host: &HostName,
    wish: Wish,
    by: String,
    why: String,
) -> Result<(StatusCode, Json<Noted>), Problem> {
    let mut write = app.store.begin((app.clock)()).await?;
    if write.host(host).await?.is_none() {
        return Err(Problem::not_found(format!("no release that is served names host {host}")));
    }
    let fact = Fact::Ordered { wish, by: Some(by), why: Some(why) };
    let event = write.append(&About::Host(host.clone()), &fact).await?;
    app.tell(write.commit().await?.newest);
    Ok((StatusCode::ACCEPTED, Json(Noted { event })))
}
