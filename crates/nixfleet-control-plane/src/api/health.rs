//! For those who watch the server: is it alive, does it answer, and how much of everything there is.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use nixfleet_core::model::names::ChannelName;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::reason::in_short;
use nixfleet_core::rollout::{Rollout, Status};
use nixfleet_core::wire::people::{TroubleKind, TroubleView};

use super::App;
use super::caller::Viewer;
use super::problem::Problem;
use crate::metrics::Gauges;
use crate::planner::Outlook;
use crate::trouble::text;

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

/// How long before its end a root is trouble: whoever signs the next one may be away for weeks.
const ROOT_ENDING_MS: u64 = 30 * 86_400_000;

/// When the root in force ends.
async fn root_ends(app: &App) -> Result<UnixMs, Problem> {
    let trust = crate::releases::trust(&app.store, &app.first_root).await;
    Ok(trust.map_err(|error| Problem::ours(&error))?.root().expires_ms)
}

/// What is wrong now: with the database, and with the root and with plans, which are no reasons not to be ready.
pub(super) async fn troubles(app: &App) -> Result<Vec<TroubleView>, Problem> {
    let now = (app.clock)();
    let mut troubles = app.store.troubles().now(now);
    let ends = root_ends(app).await?;
    let since_ms = UnixMs::new(ends.get().saturating_sub(ROOT_ENDING_MS)).unwrap_or(UnixMs::EPOCH);
    if now >= since_ms {
        let kind = TroubleKind::RootEnding;
        troubles.push(TroubleView { kind, since_ms, text: text(kind).to_owned() });
    }
    troubles.extend(objected(&app.planning.read().1));
    Ok(troubles)
}

/// That channels stand still, since what is planned for them is objected to.
fn objected(outlook: &Outlook) -> Option<TroubleView> {
    let (kind, since_ms) = (TroubleKind::PlanObjected, outlook.objected_since?);
    let channels: Vec<&str> = outlook.withheld.iter().map(ChannelName::as_str).collect();
    let (channels, objections) = (in_short(&channels, ", ", None), in_short(&outlook.objections, "; ", None));
    Some(TroubleView { kind, since_ms, text: format!("{}: {channels}: {objections}", text(kind)) })
}

/// What a rollout is, of [`crate::metrics::ROLLOUT_STATUS`].
fn status(rollout: &Rollout) -> &'static str {
    match &rollout.status {
        Status::Going if rollout.converged_ms.is_some() => "converged",
        Status::Going => "going",
        Status::Paused(_) => "paused",
        Status::Halted { .. } => "halted",
        Status::Aborted(_) => "aborted",
    }
}

/// What can be asked here.
pub(super) async fn description() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], include_str!("../../openapi.json")).into_response()
}

/// How much of everything there is.
pub(super) async fn metrics(_: Viewer, State(app): State<App>) -> Result<Response, Problem> {
    let root_ends = root_ends(&app).await?;
    let (hosts, newest_event) = (app.store.counts().await?, app.store.newest_event().await?);
    let guard = app.planning.read();
    let (mirror, outlook) = &*guard;
    let channels = &mirror.snapshot.channels;
    let rollouts = channels
        .iter()
        .filter_map(|(name, channel)| Some((name.to_string(), status(channel.rollout.as_ref()?))));
    let ends = channels.iter().map(|(name, channel)| (name.to_string(), channel.current.expires_ms));
    let gauges = Gauges {
        hosts,
        polling: app.wakes.waiting(),
        newest_event,
        troubles: app.store.troubles().now((app.clock)()),
        rollouts: rollouts.collect(),
        releases_end: ends.collect(),
        root_ends,
        certificate_ends: app.certificate.expires(),
        planned: Some(outlook.at).filter(|at| *at != UnixMs::EPOCH),
        withheld: outlook.withheld.len(),
    };
    drop(guard);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], app.metrics.render(&gauges)).into_response())
}
