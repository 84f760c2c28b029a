//! What is answered: the release layout and the agents' endpoints by the key of a host, the rest by a person's token.
//!
//! [`caller`] says who asks, [`asked`] reads what they ask for, [`problem`] is what they are told when it does not work. Nothing
//! answers 500: what is wrong with a request is said to the caller, what is wrong with us goes to our log.

mod agent;
mod asked;
mod caller;
mod health;
mod layout;
mod live;
pub mod people;
pub mod problem;
mod push;
pub mod rollouts;
mod verbs;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use nixfleet_core::model::time::UnixMs;
use tokio::sync::watch;

use crate::heard::{Heard, Strangers};
use crate::metrics::Metrics;
use crate::planner::Planning;
use crate::room::Room;
use crate::store::Store;
use crate::store::ingest::Ingest;
use crate::tls::Certificate;
use crate::wakes::Wakes;
use problem::Problem;

/// All that an answer may need. Cheap to clone: each answer does it several times.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

/// The parts of [`App`].
#[derive(Debug)]
pub struct Parts {
    /// Where things are kept.
    pub store: Store,
    /// Where reports are handed in.
    pub ingest: Ingest,
    /// How much of them there may be.
    pub room: Room,
    /// How long a body may take to come.
    pub body_within: Duration,
    /// Which log the numbers of events are of.
    pub log: Arc<str>,
    /// The polls that wait.
    pub wakes: Wakes,
    /// What is known of the fleet, and what is planned.
    pub planning: Planning,
    /// The newest event's number; changes at each commit of this process, and soon after those of others.
    pub changed: watch::Receiver<u64>,
    /// For commits that are made while answering.
    pub committed: watch::Sender<u64>,
    /// Becomes true when the process is ending.
    pub ending: watch::Receiver<bool>,
    /// The first root of the fleet.
    pub first_root: Arc<[u8]>,
    /// The clock.
    pub clock: fn() -> UnixMs,
    /// Signs of life.
    pub heard: Heard,
    /// Keys that no release names.
    pub strangers: Strangers,
    /// What is counted.
    pub metrics: Metrics,
    /// The server's certificate.
    pub certificate: Arc<Certificate>,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// All that answers may need.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Returns when everything that this process has written is planned with, or after a while.
    async fn planned(&self) {
        let newest = *self.changed.borrow();
        self.planning.has_seen(newest).await;
    }

    /// Tells whoever waits that there are new events.
    pub fn tell(&self, newest: u64) {
        self.committed
            .send_if_modified(|known| newest > *known && std::mem::replace(known, newest) != newest);
    }
}

/// The router over all endpoints.
pub fn router(app: App) -> Router {
    let layout = Router::new()
        .route("/root/{document}", get(layout::root))
        .route("/channels/{channel}/latest", get(layout::latest))
        .route("/channels/{channel}/{seq}/release.json", get(layout::release))
        .route("/channels/{channel}/{seq}/hosts/{document}", get(layout::entry));
    let agents = Router::new()
        .route("/v1/agent/orders", get(agent::orders))
        .route("/v1/agent/events", post(agent::events))
        .route("/v1/agent/hello", post(agent::hello));
    let health = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/v1/openapi.json", get(health::description))
        .route("/v1/events/live", get(live::live));
    let push = Router::new().route("/v1/releases", post(push::push).get(people::releases));
    let all = layout.merge(agents).merge(health).merge(push).merge(people::router());
    let all = all.merge(rollouts::router()).merge(verbs::router());
    all.fallback(|request: Request| async move {
        Problem::not_found(format!("there is no `{}` here", shown(request.uri().path())))
    })
    .method_not_allowed_fallback(|request: Request| async move {
        Problem::wrong_method(format!("`{}` does not take {}", shown(request.uri().path()), request.method()))
    })
    .layer(middleware::from_fn_with_state(app.clone(), finish))
    .with_state(app)
}

/// What each answer gets on its way out.
async fn finish(
    axum::extract::State(app): axum::extract::State<App>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = as_problem(next.run(request).await);
    app.metrics.answers.add(1);
    app.metrics.answers_failed.add(u64::from(response.status().is_server_error()));
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What is refused before one of our answers is reached, such as a path that is not UTF-8, is a problem document as well.
fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !status.is_client_error() || kind.is_some_and(|kind| kind == "application/problem+json") {
        return response;
    }
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large("the request is too large").into_response(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::wrong_type("this content type is not taken").into_response()
        }
        StatusCode::NOT_FOUND => Problem::not_found("there is nothing here").into_response(),
        _ => Problem::bad_request("the path, the query or a header cannot be read").into_response(),
    }
}

/// A foreign path as an answer may repeat it.
fn shown(path: &str) -> String {
    nixfleet_sys::text::printable(path).chars().take(200).collect()
}

/// The last part of a path without its `.json`.
fn stem(document: &str) -> Result<&str, Problem> {
    let is_json = Path::new(document).extension().is_some_and(|extension| extension == "json");
    let stem = document.strip_suffix(".json").filter(|_| is_json);
    stem.ok_or_else(|| Problem::not_found("documents end with `.json`"))
}
