//! What people ask: the fleet, its hosts, what happened, and who knocks without being known.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use nixfleet_core::host::time::{Now, UpMs};
use nixfleet_core::host::waiting::Doing;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId, Tag};
use nixfleet_core::model::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::App;
use super::caller::Viewer;
use super::problem::Problem;
use crate::store::fact::{About, Fact};
use crate::store::fleet::{EventFilter, HostListed, Logged, PAGE_MAX};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/fleet", get(fleet))
        .route("/v1/hosts", get(hosts))
        .route("/v1/hosts/{host}", get(host))
        .route("/v1/strangers", get(strangers))
        .route("/v1/events", get(events))
}

/// The fleet at a glance.
#[derive(Debug, Serialize, Deserialize)]
pub struct FleetView {
    /// The newest release of each channel.
    pub releases: Vec<ReleaseId>,
    /// How many hosts are in which state, by channel.
    pub hosts: BTreeMap<String, BTreeMap<String, u64>>,
    /// The newest event's number.
    pub newest_event: u64,
}

/// A host, as the control plane knows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct HostView {
    /// Its name.
    pub name: HostName,
    /// Its channel.
    pub channel: ChannelName,
    /// The newest release that names it.
    pub release_seq: u64,
    /// Its wave in that release, from 0.
    pub wave: u16,
    /// Its tags.
    pub tags: BTreeSet<Tag>,
    /// The system that it shall run.
    pub system: String,
    /// The system that it runs, by its last report.
    pub current: Option<String>,
    /// The agent's version.
    pub agent: Option<String>,
    /// What it is doing, by its last report.
    pub doing: Doing,
    /// When it last reported something new.
    pub reported_ms: Option<UnixMs>,
    /// When it was last heard of.
    pub heard_ms: Option<UnixMs>,
    /// Why its events cannot be followed at the moment.
    pub fault: Option<String>,
}

/// A page of something, with where to go on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page<T> {
    /// What there is.
    pub items: Vec<T>,
    /// What to ask for next with `after`; `None` at the end.
    pub next: Option<String>,
}

/// An event.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventView {
    /// Its number.
    pub id: u64,
    /// When it was taken in.
    pub at_ms: UnixMs,
    /// The host that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<HostName>,
    /// The channel that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub channel: Option<ChannelName>,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// A key that no release names.
#[derive(Debug, Serialize, Deserialize)]
pub struct StrangerView {
    /// Its fingerprint.
    pub key: String,
    /// When it first came.
    pub first_ms: UnixMs,
    /// When it last came.
    pub last_ms: UnixMs,
    /// How often it came, at most once a minute.
    pub times: u64,
    /// From where it last came.
    pub address: String,
}

impl HostView {
    fn of(listed: HostListed, now: UnixMs) -> Self {
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
            fault,
        } = listed;
        Self {
            name,
            channel,
            release_seq: release_seq.get(),
            wave,
            tags,
            system,
            current: state.world.current.as_ref().map(ToString::to_string),
            agent: state.setup.as_ref().map(|setup| setup.agent.clone()),
            // How long the host has been up is not known here; only waits after a failed reboot go by it.
            doing: state.describe(Now { at: now, up: UpMs::default() }),
            reported_ms,
            heard_ms,
            fault,
        }
    }
}

impl EventView {
    /// An event for whoever asks.
    pub fn of(logged: Logged) -> Self {
        let Logged { id, at, about, fact } = logged;
        let (host, channel) = match about {
            About::Fleet => (None, None),
            About::Channel(channel) => (None, Some(channel)),
            About::Host(host) => (Some(host), None),
        };
        Self { id, at_ms: at, host, channel, fact }
    }
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

pub(super) fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(asked)| asked).map_err(|error| Problem::bad_request(error.body_text()))
}

pub(super) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked.unwrap_or(100) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(Problem::bad_request(format!("`limit` is a number from 1 to {PAGE_MAX}"))),
    }
}

pub(super) fn named<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::bad_request(format!("{error}")))
}

async fn fleet(_: Viewer, State(app): State<App>) -> Result<Json<FleetView>, Problem> {
    let mut hosts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (channel, state, count) in app.store.counts().await? {
        hosts.entry(channel).or_default().insert(state, count);
    }
    let releases = app.store.newest_releases().await?;
    Ok(Json(FleetView { releases, hosts, newest_event: app.store.newest_event().await? }))
}

pub(super) async fn releases(_: Viewer, State(app): State<App>) -> Result<Json<Page<ReleaseId>>, Problem> {
    Ok(Json(Page { items: app.store.newest_releases().await?, next: None }))
}

async fn hosts(
    _: Viewer,
    State(app): State<App>,
    query: Result<Query<HostQuery>, QueryRejection>,
) -> Result<Json<Page<HostView>>, Problem> {
    let HostQuery { after, channel, limit: asked_limit } = asked(query)?;
    let limit = limit(asked_limit)?;
    let channel: Option<ChannelName> = channel.as_deref().map(named).transpose()?;
    let listed = app.store.hosts(&after, channel.as_ref(), limit).await?;
    let next =
        (listed.len() == limit as usize).then(|| listed.last().map(|host| host.name.to_string())).flatten();
    let now = (app.clock)();
    Ok(Json(Page { items: listed.into_iter().map(|host| HostView::of(host, now)).collect(), next }))
}

async fn host(
    _: Viewer,
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<HostView>, Problem> {
    let name: HostName = named(&name)?;
    let listed = app.store.host(&name).await?;
    let listed =
        listed.ok_or_else(|| Problem::not_found(format!("no release that is served names host {name}")))?;
    Ok(Json(HostView::of(listed, (app.clock)())))
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
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Json<Page<EventView>>, Problem> {
    let EventQuery { after, host, limit: asked_limit } = asked(query)?;
    let limit = limit(asked_limit)?;
    let filter = EventFilter { after, host: host.as_deref().map(named).transpose()? };
    let logged = app.store.events(&filter, limit).await?;
    let next =
        (logged.len() == limit as usize).then(|| logged.last().map(|event| event.id.to_string())).flatten();
    Ok(Json(Page { items: logged.into_iter().map(EventView::of).collect(), next }))
}
