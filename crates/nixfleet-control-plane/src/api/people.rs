//! What people ask: the fleet, its hosts, what happened, and who knocks without being known.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use nixfleet_core::host::time::{Now, UpMs};
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::wire::people::{EventView, FleetView, HostView, Page, StrangerView};
use serde::Deserialize;

use super::App;
use super::asked::{Named, Wanted, limit, named};
use super::caller::Viewer;
use super::problem::Problem;
use crate::store::fact::About;
use crate::store::fleet::{EventFilter, HostListed, Logged};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/fleet", get(fleet))
        .route("/v1/hosts", get(hosts))
        .route("/v1/hosts/{host}", get(host))
        .route("/v1/strangers", get(strangers))
        .route("/v1/events", get(events))
}

/// A host for whoever asks.
fn host_view(listed: HostListed, now: UnixMs) -> HostView {
    let HostListed {
        name,
        channel,
        release_seq,
        wave,
        tags,
        system,
        state,
        reported_ms,
        heard_ms,
        clock_ahead_ms,
        fault,
    } = listed;
    HostView {
        name,
        channel,
        release_seq: release_seq.get(),
        wave,
        tags,
        system,
        current: state.world.current.as_ref().map(ToString::to_string),
        agent: state.setup.as_ref().map(|setup| setup.agent.clone()),
        // How long the host has been up is not known here; only waits after a failed reboot go by it.
        doing: reported_ms.map(|_| state.describe(Now { at: now, up: UpMs::default() })),
        reported_ms,
        heard_ms,
        clock_ahead_ms,
        refused: state.source.refused,
        fault,
    }
}

/// An event for whoever asks.
pub(super) fn event_view(logged: Logged) -> EventView {
    let Logged { id, at, about, fact } = logged;
    let (host, channel) = match about {
        About::Fleet => (None, None),
        About::Channel(channel) => (None, Some(channel)),
        About::Host(host) => (Some(host), None),
    };
    EventView { id, at_ms: at, host, channel, fact }
}

/// Which hosts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostQuery {
    #[serde(default)]
    after: String,
    channel: Option<String>,
    limit: Option<u32>,
}

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventQuery {
    #[serde(default)]
    after: u64,
    host: Option<String>,
    limit: Option<u32>,
}

async fn fleet(_: Viewer, State(app): State<App>) -> Result<Json<FleetView>, Problem> {
    let mut hosts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (channel, state, count) in app.store.counts().await? {
        hosts.entry(channel).or_default().insert(state, count);
    }
    let releases = app.store.newest_releases().await?;
    let newest_event = app.store.newest_event().await?;
    let troubles = super::health::troubles(&app).await?;
    Ok(Json(FleetView { releases, hosts, newest_event, troubles }))
}

pub(super) async fn releases(_: Viewer, State(app): State<App>) -> Result<Json<Page<ReleaseId>>, Problem> {
    Ok(Json(Page { items: app.store.newest_releases().await?, next: None }))
}

async fn hosts(
    _: Viewer,
    State(app): State<App>,
    Wanted(HostQuery { after, channel, limit: asked }): Wanted<HostQuery>,
) -> Result<Json<Page<HostView>>, Problem> {
    let limit = limit(asked)?;
    let channel: Option<ChannelName> = channel.as_deref().map(named).transpose()?;
    // A name, as the pages give it: the engines do not agree on what else a text may hold.
    if !after.is_empty() {
        named::<HostName>(&after)?;
    }
    let listed = app.store.hosts(&after, channel.as_ref(), limit).await?;
    let next =
        (listed.len() == limit as usize).then(|| listed.last().map(|host| host.name.to_string())).flatten();
    let now = (app.clock)();
    Ok(Json(Page { items: listed.into_iter().map(|host| host_view(host, now)).collect(), next }))
}

async fn host(
    _: Viewer,
    State(app): State<App>,
    Named(name): Named<HostName>,
) -> Result<Json<HostView>, Problem> {
    let listed = app.store.host(&name).await?;
    let listed =
        listed.ok_or_else(|| Problem::not_found(format!("no release that is served names host {name}")))?;
    Ok(Json(host_view(listed, (app.clock)())))
}

async fn strangers(_: Viewer, State(app): State<App>) -> Result<Json<Page<StrangerView>>, Problem> {
    let strangers = app.store.strangers().await?;
    let items = strangers.into_iter().map(|stranger| {
        let crate::store::fleet::Stranger { key, first_ms, last_ms, times, address } = stranger;
        StrangerView { key, first_ms, last_ms, times, address }
    });
    Ok(Json(Page { items: items.collect(), next: None }))
}

async fn events(
    _: Viewer,
    State(app): State<App>,
    Wanted(EventQuery { after, host, limit: asked }): Wanted<EventQuery>,
) -> Result<Json<Page<EventView>>, Problem> {
    let limit = limit(asked)?;
    let filter = EventFilter { after, host: host.as_deref().map(named).transpose()? };
    let logged = app.store.events(&filter, limit).await?;
    let next =
        (logged.len() == limit as usize).then(|| logged.last().map(|event| event.id.to_string())).flatten();
    Ok(Json(Page { items: logged.into_iter().map(event_view).collect(), next }))
}
