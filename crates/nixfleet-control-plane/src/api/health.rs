//! For those who watch the server: is it alive, does it answer, and how much of everything there is.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::App;
use super::caller::Viewer;
use super::problem::Problem;
use crate::metrics::Gauges;

/// It runs. Nothing else is asked, so that a database that is away does not get it restarted.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// It can do what it is for: the database is there and takes what is written, and the process is not ending.
pub(super) async fn readyz(State(app): State<App>) -> Result<&'static str, Problem> {
    if *app.ending.borrow() {
        return Err(Problem::unavailable("the server is ending"));
    }
    app.store.answers().await?;
    match app.store.troubles().now((app.clock)()).as_slice() {
        [] => Ok("ok\n"),
        troubles => {
            let texts: Vec<&str> = troubles.iter().map(|trouble| trouble.text.as_str()).collect();
            Err(Problem::unavailable(texts.join("; ")))
        }
    }
}

/// What can be asked here.
pub(super) async fn description() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], include_str!("../../openapi.json")).into_response()
}

/// How much of everything there is.
pub(super) async fn metrics(_: Viewer, State(app): State<App>) -> Result<Response, Problem> {
    let gauges = Gauges {
        hosts: app.store.counts().await?,
        polling: app.wakes.waiting(),
        newest_event: app.store.newest_event().await?,
        troubles: app.store.troubles().now((app.clock)()),
    };
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], app.metrics.render(&gauges)).into_response())
}
