//! What people see of rollouts: how far each is, who waits on what, and what the plan is. All of it from the planner's memory,
//! so it is as of one event of the log, and costs the database nothing.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Json, Router};
use nixfleet_core::host::waiting::StateName;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId, WaveName};
use nixfleet_core::model::policy::{Approval, WaveIndex};
use nixfleet_core::model::release::Revision;
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::rollout::fact::Fact as PlanFact;
use nixfleet_core::rollout::progress::{By, FailedHow, Quarantine};
use nixfleet_core::rollout::reason::WaveWaits;
use nixfleet_core::rollout::snapshot::Ordered;
use nixfleet_core::rollout::{
    Channel, Decision, Host, Order, Plan, PlanReport, Reason, Rollout, RolloutId, Snapshot, Status, Verb,
};
use serde::{Deserialize, Serialize};

use super::App;
use super::caller::{self, Viewer};
use super::people::{Page, asked, limit, named};
use super::problem::Problem;
use super::verbs::BYTES_MAX;
use crate::planner::{LEASE, Outlook, looked_at};

/// The most orders of a plan that are shown.
const ORDERS_MAX: usize = 1_000;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/rollouts", get(rollouts))
        .route("/v1/rollouts/{channel}", get(rollout))
        .route("/v1/rollouts/{channel}/hosts", get(hosts))
        .route("/v1/hosts/{host}/why", get(why))
        .route("/v1/plan", get(plan).post(plan_if))
}

/// How far a rollout is.
#[derive(Debug, Serialize, Deserialize)]
pub struct RolloutView {
    /// Its name: channel and number.
    pub rollout: String,
    /// The channel.
    pub channel: ChannelName,
    /// The release's number.
    pub seq: u64,
    /// The release.
    pub release: ReleaseId,
    /// The source revision; `None` while a newer release is about to take its place.
    pub revision: Option<Revision>,
    /// When it was opened.
    pub opened_ms: UnixMs,
    /// When every host was done or excused.
    pub converged_ms: Option<UnixMs>,
    /// Whether it goes on.
    pub status: Status,
    /// How its hosts stand.
    pub hosts: Counts,
    /// The failures that count.
    pub failures: Vec<FailureView>,
    /// Systems that are not offered in the channel any more.
    pub quarantine: Vec<QuarantineView>,
    /// Its waves, in their order.
    pub waves: Vec<WaveView>,
}

/// How many hosts stand how; each host is in one of these, beside `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// All of them.
    pub total: u64,
    /// They run the release.
    pub done: u64,
    /// They run it and are watched.
    pub soaking: u64,
    /// They are on their way, or were told to go.
    pub moving: u64,
    /// They failed.
    pub failed: u64,
    /// They are away.
    pub offline: u64,
    /// A person keeps them, or left them out.
    pub left_out: u64,
    /// They wait for something else.
    pub waiting: u64,
}

/// A failure that counts.
#[derive(Debug, Serialize, Deserialize)]
pub struct FailureView {
    /// The host.
    pub host: HostName,
    /// How it failed.
    pub how: FailedHow,
    /// The same in words.
    pub text: String,
    /// The system that is not offered to others because of it.
    pub system: Option<String>,
    /// When it was counted.
    pub at_ms: UnixMs,
}

/// A system that is not offered any more.
#[derive(Debug, Serialize, Deserialize)]
pub struct QuarantineView {
    /// The system.
    pub system: String,
    /// Where it failed.
    pub host: HostName,
    /// In which rollout.
    pub rollout: String,
    /// Since when.
    pub since_ms: UnixMs,
}

/// A wave.
#[derive(Debug, Serialize, Deserialize)]
pub struct WaveView {
    /// Its place, from 0.
    pub wave: WaveIndex,
    /// Its name.
    pub name: WaveName,
    /// When it was opened; `None` while it is shut.
    pub opened_ms: Option<UnixMs>,
    /// How long its hosts are watched.
    pub soak_secs: Secs,
    /// Whether a person must open it.
    pub approval: Approval,
    /// Who did.
    pub approved: Option<By>,
    /// How its hosts stand.
    pub hosts: Counts,
    /// What it waits for, while it is shut.
    pub waits: Option<WaveWaits>,
    /// The same in words.
    pub text: Option<String>,
    /// Why its hosts do not move, the most frequent reason first.
    pub reasons: Vec<ReasonCount>,
}

/// A reason that several hosts have.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReasonCount {
    /// Its name.
    pub reason: String,
    /// What it says of the first of them.
    pub text: String,
    /// How many have it.
    pub hosts: u64,
    /// The first of them by name.
    pub first: HostName,
}

/// Why a host does not move.
#[derive(Debug, Serialize, Deserialize)]
pub struct WhyView {
    /// The host.
    pub host: HostName,
    /// Its channel.
    pub channel: ChannelName,
    /// Its wave, from 0.
    pub wave: WaveIndex,
    /// The rollout of its channel's newest release.
    pub rollout: String,
    /// Why.
    pub reason: WhyReason,
    /// The same in words.
    pub text: String,
    /// What was ordered and is not yet seen to have begun.
    pub ordered: Option<Ordered>,
    /// Its own state, by its last report.
    pub state: Option<StateName>,
    /// When it was last heard of.
    pub heard_ms: Option<UnixMs>,
}

/// A reason of the planner, or that it has an order for the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WhyReason {
    /// The plan has an order for it, which is about to be given.
    Ordered(OrderedReason),
    /// Why it has none.
    Held(Reason),
}

/// The plan has an order for a host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum OrderedReason {
    /// This one.
    Ordered {
        /// What.
        what: nixfleet_core::rollout::What,
    },
}

/// What there is to do, and why the rest stays.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlanView {
    /// The newest event that it knows of.
    pub event: u64,
    /// When it was made.
    pub at_ms: UnixMs,
    /// Who plans for all.
    pub leader: Option<LeaderView>,
    /// What becomes of rollouts.
    pub decisions: Vec<Decision>,
    /// What hosts are asked to do, up to a limit.
    pub orders: Vec<Order>,
    /// How many orders there are.
    pub orders_total: u64,
    /// What the second opinion has against it; with anything here it is not carried out.
    pub objections: Vec<String>,
    /// Why everybody else stays, the most frequent reason first.
    pub held: Vec<ReasonCount>,
    /// When it may be another although nothing happens.
    pub again_ms: Option<UnixMs>,
}

/// Who plans for all.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaderView {
    /// The process.
    pub holder: String,
    /// Until when, unless it goes on.
    pub until_ms: UnixMs,
}

/// As if somebody had asked for this.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanIf {
    verb: Verb,
}

/// Which hosts of a rollout.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostQuery {
    #[serde(default)]
    after: String,
    wave: Option<WaveIndex>,
    limit: Option<u32>,
}

async fn rollouts(_: Viewer, State(app): State<App>) -> Json<Page<RolloutView>> {
    app.planned().await;
    let guard = app.planning.read();
    let (mirror, outlook) = &*guard;
    let channels = mirror.snapshot.channels.values();
    let items = channels.filter_map(|channel| RolloutView::of(channel, &outlook.report)).collect();
    Json(Page { items, next: None })
}

async fn rollout(
    _: Viewer,
    State(app): State<App>,
    Path(channel): Path<String>,
) -> Result<Json<RolloutView>, Problem> {
    let name: ChannelName = named(&channel)?;
    app.planned().await;
    let guard = app.planning.read();
    let (mirror, outlook) = &*guard;
    let channel = channel_of(&mirror.snapshot, &name)?;
    let view = RolloutView::of(channel, &outlook.report);
    let missing =
        || Problem::not_found(format!("the newest release of channel {name} is not rolled out yet"));
    view.map(Json).ok_or_else(missing)
}

async fn hosts(
    _: Viewer,
    State(app): State<App>,
    Path(channel): Path<String>,
    query: Result<Query<HostQuery>, QueryRejection>,
) -> Result<Json<Page<WhyView>>, Problem> {
    let HostQuery { after, wave, limit: asked_limit } = asked(query)?;
    let limit = limit(asked_limit)? as usize;
    let name: ChannelName = named(&channel)?;
    app.planned().await;
    let guard = app.planning.read();
    let (mirror, outlook) = &*guard;
    let channel = channel_of(&mirror.snapshot, &name)?;
    let of_wave = |host: &Host| wave.is_none_or(|wave| host.placed.wave == wave);
    let wanted = channel.hosts.iter().filter(|(name, host)| name.as_str() > after.as_str() && of_wave(host));
    let items: Vec<WhyView> =
        wanted.take(limit).map(|(name, host)| WhyView::of(channel, (name, host), outlook)).collect();
    let next = (items.len() == limit).then(|| items.last().map(|host| host.host.to_string())).flatten();
    Ok(Json(Page { items, next }))
}

async fn why(_: Viewer, State(app): State<App>, Path(host): Path<String>) -> Result<Json<WhyView>, Problem> {
    let name: HostName = named(&host)?;
    app.planned().await;
    let guard = app.planning.read();
    let (mirror, outlook) = &*guard;
    let found = mirror.snapshot.host(&name);
    let found =
        found.ok_or_else(|| Problem::not_found(format!("no release that is served names host {name}")));
    let (channel, host) = found?;
    Ok(Json(WhyView::of(channel, (&name, host), outlook)))
}

async fn plan(_: Viewer, State(app): State<App>) -> Result<Json<PlanView>, Problem> {
    let leader = leader(&app).await?;
    app.planned().await;
    let guard = app.planning.read();
    let Outlook { event, at, plan, report, objections } = &guard.1;
    let empty = Plan { at_ms: *at, decisions: Vec::new(), orders: Vec::new() };
    let plan = plan.as_deref().unwrap_or(&empty);
    Ok(Json(PlanView::of((*event, leader), plan, report, objections.clone())))
}

/// The plan as if a verb had been asked for. Nothing is changed.
async fn plan_if(
    _: Viewer,
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PlanView>, Problem> {
    let PlanIf { verb } = caller::json(&headers, body, BYTES_MAX).await?;
    let leader = leader(&app).await?;
    app.planned().await;
    let now = (app.clock)();
    // A copy of the fleet, and on a thread that may take its time.
    let planned = tokio::task::spawn_blocking(move || {
        let mut mirror = app.planning.read().0.clone();
        let (who, why) = (String::new(), String::new());
        mirror.snapshot.fold(&PlanFact::Asked { verb, who, why }, now)?;
        Ok((mirror.event, looked_at(&mirror.snapshot, now, usize::MAX)))
    });
    let planned = planned.await.map_err(|_| Problem::unavailable("the server is ending"))?;
    let (event, (plan, report, objections)) = planned.map_err(|unfit| Problem::unfit(&unfit))?;
    Ok(Json(PlanView::of((event, leader), &plan, &report, objections)))
}

async fn leader(app: &App) -> Result<Option<LeaderView>, Problem> {
    let lease = app.store.holder(LEASE).await?;
    Ok(lease.map(|lease| LeaderView { holder: lease.holder, until_ms: lease.until }))
}

fn channel_of<'a>(snapshot: &'a Snapshot, name: &ChannelName) -> Result<&'a Channel, Problem> {
    let channel = snapshot.channels.get(name);
    channel.ok_or_else(|| Problem::not_found(format!("there is no release of channel {name}")))
}

impl RolloutView {
    fn of(channel: &Channel, report: &PlanReport) -> Option<Self> {
        let rollout = channel.rollout.as_ref()?;
        let is_newest = rollout.release == channel.current.id;
        let Rollout { release, opened_ms, status, converged_ms, failures, .. } = rollout;
        let failures = failures.iter().map(|(host, failed)| FailureView {
            host: host.clone(),
            how: failed.how,
            text: failed.how.to_string(),
            system: failed.system.as_ref().map(ToString::to_string),
            at_ms: failed.at_ms,
        });
        let quarantine = channel.quarantine.iter().map(|(system, Quarantine { host, rollout, since_ms })| {
            let (system, rollout) = (system.to_string(), rollout.to_string());
            QuarantineView { system, host: host.clone(), rollout, since_ms: *since_ms }
        });
        Some(Self {
            rollout: rollout.id().to_string(),
            channel: release.channel.clone(),
            seq: release.seq.get(),
            release: release.clone(),
            revision: is_newest.then(|| channel.current.revision.clone()),
            opened_ms: *opened_ms,
            converged_ms: *converged_ms,
            status: status.clone(),
            hosts: Counts::of(channel.hosts.keys(), report),
            failures: failures.collect(),
            quarantine: quarantine.collect(),
            waves: if is_newest { WaveView::all(channel, rollout, report) } else { Vec::new() },
        })
    }
}

impl WaveView {
    fn all(channel: &Channel, rollout: &Rollout, report: &PlanReport) -> Vec<Self> {
        let mut hosts: BTreeMap<WaveIndex, Vec<&HostName>> = BTreeMap::new();
        for (name, host) in &channel.hosts {
            hosts.entry(host.placed.wave).or_default().push(name);
        }
        let view = |(at, wave): (usize, &nixfleet_core::model::policy::Wave)| {
            let index = WaveIndex(u16::try_from(at).unwrap_or(u16::MAX));
            let hosts = hosts.remove(&index).unwrap_or_default();
            let opened_ms = rollout.waves_opened.get(at).copied();
            let waits = hosts.iter().find_map(|host| match report.held.get(host) {
                Some(Reason::Wave { on, .. }) => Some(on.clone()),
                Some(_) | None => None,
            });
            let waits = waits.filter(|_| opened_ms.is_none());
            Self {
                wave: index,
                name: wave.name.clone(),
                opened_ms,
                soak_secs: wave.soak_secs,
                approval: wave.approval,
                approved: rollout.approved.get(&index).cloned(),
                hosts: Counts::of(hosts.iter().copied(), report),
                text: waits.as_ref().map(ToString::to_string),
                waits,
                reasons: ReasonCount::all(hosts.iter().copied(), report),
            }
        };
        channel.current.policy.waves.iter().enumerate().map(view).collect()
    }
}

impl Counts {
    fn of<'a>(hosts: impl Iterator<Item = &'a HostName>, report: &PlanReport) -> Self {
        let mut counts = Self::default();
        for host in hosts {
            counts.total += 1;
            *counts.place(report.held.get(host)) += 1;
        }
        counts
    }

    /// Where a host with this reason is counted. Without one the plan has an order for it.
    fn place(&mut self, reason: Option<&Reason>) -> &mut u64 {
        match reason {
            Some(Reason::Done) => &mut self.done,
            Some(Reason::Soaking) => &mut self.soaking,
            Some(Reason::OnItsWay { .. } | Reason::Superseded { .. }) => &mut self.moving,
            Some(Reason::Failed { .. } | Reason::TriesAgain { .. }) => &mut self.failed,
            Some(Reason::Offline { .. } | Reason::NeverReported) => &mut self.offline,
            Some(Reason::Held { .. } | Reason::Skipped(_)) => &mut self.left_out,
            Some(
                Reason::Paused(_)
                | Reason::Halted { .. }
                | Reason::Aborted(_)
                | Reason::Expired { .. }
                | Reason::Quarantined { .. }
                | Reason::NotStaged
                | Reason::StageBudget { .. }
                | Reason::Wave { .. }
                | Reason::NoSuchWave { .. }
                | Reason::Deadlock { .. }
                | Reason::Budget { .. }
                | Reason::Edge { .. }
                | Reason::Window { .. }
                | Reason::WindowNeverOpens { .. },
            )
            | None => &mut self.waiting,
        }
    }
}

impl ReasonCount {
    fn all<'a>(hosts: impl Iterator<Item = &'a HostName>, report: &PlanReport) -> Vec<Self> {
        let mut by_name: BTreeMap<String, Self> = BTreeMap::new();
        for host in hosts {
            let Some(reason) = report.held.get(host) else { continue };
            let name = name_of(reason);
            let count = by_name.entry(name.clone()).or_insert_with(|| Self {
                reason: name,
                text: reason.to_string(),
                hosts: 0,
                first: host.clone(),
            });
            count.hosts += 1;
        }
        let mut all: Vec<Self> = by_name.into_values().collect();
        all.sort_by(|a, b| b.hosts.cmp(&a.hosts).then_with(|| a.reason.cmp(&b.reason)));
        all
    }
}

/// The name of a reason, as it is in JSON.
fn name_of(reason: &Reason) -> String {
    let json = serde_json::to_value(reason).unwrap_or_default();
    json["reason"].as_str().unwrap_or_default().to_owned()
}

impl WhyView {
    fn of(channel: &Channel, (name, host): (&HostName, &Host), outlook: &Outlook) -> Self {
        let (reason, text) = match outlook.report.held.get(name) {
            Some(reason) => (WhyReason::Held(reason.clone()), reason.to_string()),
            None => ordered(name, outlook),
        };
        Self {
            host: name.clone(),
            channel: channel.current.id.channel.clone(),
            wave: host.placed.wave,
            rollout: RolloutId::from(&channel.current.id).to_string(),
            reason,
            text,
            ordered: host.ordered.clone(),
            state: host.standing.as_ref().map(|standing| standing.state),
            heard_ms: host.heard_ms,
        }
    }
}

/// The plan has an order for it, or was made before it was known.
fn ordered(name: &HostName, outlook: &Outlook) -> (WhyReason, String) {
    let orders = outlook.plan.iter().flat_map(|plan| &plan.orders);
    match orders.into_iter().find(|order| order.host == *name) {
        Some(order) => {
            let what = order.what;
            (WhyReason::Ordered(OrderedReason::Ordered { what }), "the plan has an order for it".to_owned())
        }
        None => (WhyReason::Held(Reason::NeverReported), Reason::NeverReported.to_string()),
    }
}

impl PlanView {
    fn of(
        (event, leader): (u64, Option<LeaderView>),
        plan: &Plan,
        report: &PlanReport,
        objections: Vec<String>,
    ) -> Self {
        let Plan { at_ms, decisions, orders } = plan;
        Self {
            event,
            at_ms: *at_ms,
            leader,
            decisions: decisions.clone(),
            orders: orders.iter().take(ORDERS_MAX).cloned().collect(),
            orders_total: orders.len() as u64,
            objections,
            held: ReasonCount::all(report.held.keys(), report),
            again_ms: report.again_ms,
        }
    }
}
