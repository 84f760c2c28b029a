//! What people see of rollouts: how far each is, who waits on what, and what the plan is. All of it from the planner's memory,
//! so it is as of one event of the log, and costs the database nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::model::policy::WaveIndex;
use nixfleet_core::rollout::fact::Fact as PlanFact;
use nixfleet_core::rollout::progress::Quarantine;
use nixfleet_core::rollout::{Channel, HeldIn, Host, Plan, PlanReport, Reason, Rollout, RolloutId, Snapshot};
use nixfleet_core::wire::people::Page;
use nixfleet_core::wire::rollouts::{
    FailureView, HostCounts, LeaderView, PlanAsked, PlanView, QuarantineView, ReasonCount, ReasonView,
    RolloutView, WaveView, WhyView,
};
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::App;
use super::asked::{Named, Sent, Wanted, limit};
use super::caller::Viewer;
use super::problem::Problem;
use super::verbs::BYTES_MAX;
use crate::mirror::Mirror;
use crate::planner::{LEASE, Looked, Outlook};

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

/// Which hosts of a rollout.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostQuery {
    #[serde(default)]
    after: String,
    wave: Option<WaveIndex>,
    limit: Option<u32>,
}

/// What `look` sees in what is known and planned. On a thread that may take its time: it may go through the whole fleet.
async fn looked<T: Send + 'static>(
    app: &App,
    look: impl FnOnce(&Mirror, &Outlook) -> T + Send + 'static,
) -> Result<T, Problem> {
    app.planned().await;
    let planning = app.planning.clone();
    let seen = tokio::task::spawn_blocking(move || {
        let guard = planning.read();
        let (mirror, outlook) = &*guard;
        look(mirror, outlook)
    });
    seen.await.map_err(|_| Problem::unavailable("the server is ending"))
}

async fn rollouts(_: Viewer, State(app): State<App>) -> Result<Json<Page<RolloutView>>, Problem> {
    let seen = looked(&app, |mirror, outlook| {
        let channels = mirror.snapshot.channels.values();
        channels.filter_map(|channel| rollout_view(channel, &outlook.report)).collect()
    });
    Ok(Json(Page { items: seen.await?, next: None }))
}

async fn rollout(
    _: Viewer,
    State(app): State<App>,
    Named(name): Named<ChannelName>,
) -> Result<Json<RolloutView>, Problem> {
    let seen = looked(&app, move |mirror, outlook| {
        let view = rollout_view(channel_of(&mirror.snapshot, &name)?, &outlook.report);
        let missing =
            || Problem::not_found(format!("the newest release of channel {name} is not rolled out yet"));
        view.map(Json).ok_or_else(missing)
    });
    seen.await?
}

async fn hosts(
    _: Viewer,
    State(app): State<App>,
    Named(name): Named<ChannelName>,
    Wanted(HostQuery { after, wave, limit: asked }): Wanted<HostQuery>,
) -> Result<Json<Page<WhyView>>, Problem> {
    let limit = limit(asked)? as usize;
    app.planned().await;
    let guard = app.planning.read();
    let (mirror, outlook) = &*guard;
    let channel = channel_of(&mirror.snapshot, &name)?;
    let of_wave = |host: &Host| wave.is_none_or(|wave| host.placed.wave == wave);
    let wanted = channel.hosts.iter().filter(|(name, host)| name.as_str() > after.as_str() && of_wave(host));
    let items: Vec<WhyView> =
        wanted.take(limit).map(|(name, host)| why_view(channel, (name, host), outlook)).collect();
    let next = (items.len() == limit).then(|| items.last().map(|host| host.host.to_string())).flatten();
    Ok(Json(Page { items, next }))
}

async fn why(
    _: Viewer,
    State(app): State<App>,
    Named(name): Named<HostName>,
) -> Result<Json<WhyView>, Problem> {
    app.planned().await;
    let guard = app.planning.read();
    let (mirror, outlook) = &*guard;
    let found = mirror.snapshot.host(&name);
    let found =
        found.ok_or_else(|| Problem::not_found(format!("no release that is served names host {name}")));
    let (channel, host) = found?;
    Ok(Json(why_view(channel, (&name, host), outlook)))
}

async fn plan(_: Viewer, State(app): State<App>) -> Result<Json<PlanView>, Problem> {
    let leader = leader(&app).await?;
    let seen = looked(&app, |_, outlook| {
        let Outlook { event, at, plan, report, objections, withheld: _, objected_since: _ } = outlook;
        let empty = Plan { at_ms: *at, decisions: Vec::new(), orders: Vec::new() };
        let plan = plan.as_deref().unwrap_or(&empty);
        plan_view((*event, leader), plan, report, objections.clone())
    });
    seen.await.map(Json)
}

/// Copies of the fleet at the same time: one of 100,000 hosts takes some hundred MB.
const COPIES_MAX: usize = 2;
/// How long somebody waits for a turn: a plan over 100,000 hosts takes a tenth of a second.
const TURN_WITHIN: Duration = Duration::from_secs(5);
static COPIES: Semaphore = Semaphore::const_new(COPIES_MAX);

/// A turn to copy the fleet, which ends when the copy is gone.
async fn turn(copies: &Semaphore, within: Duration) -> Result<SemaphorePermit<'_>, Problem> {
    let turn = timeout(within, copies.acquire()).await.ok().and_then(Result::ok);
    turn.ok_or_else(|| Problem::unavailable(format!("{COPIES_MAX} such plans are being made already")))
}

/// The plan as if a verb had been asked for. Nothing is changed.
async fn plan_if(
    _: Viewer,
    State(app): State<App>,
    Sent(PlanAsked { verb }): Sent<PlanAsked, BYTES_MAX>,
) -> Result<Json<PlanView>, Problem> {
    let leader = leader(&app).await?;
    app.planned().await;
    let turn = turn(&COPIES, TURN_WITHIN).await?;
    let now = (app.clock)();
    // A copy of the fleet, and on a thread that may take its time.
    let planned = tokio::task::spawn_blocking(move || {
        // Here, since this goes on when whoever asked has gone.
        let _turn = turn;
        let mut mirror = app.planning.read().0.clone();
        let (who, why) = (String::new(), String::new());
        mirror.snapshot.fold(&PlanFact::Asked { verb, who, why }, now)?;
        let Looked { plan, report, objections, withheld: _ } = app.planning.looked_at(&mirror.snapshot, now);
        Ok(plan_view((mirror.event, leader), &plan, &report, objections))
    });
    let planned = planned.await.map_err(|_| Problem::unavailable("the server is ending"))?;
    planned.map(Json).map_err(|unfit| Problem::unfit(&unfit))
}

async fn leader(app: &App) -> Result<Option<LeaderView>, Problem> {
    let lease = app.store.holder(LEASE).await?;
    Ok(lease.map(|lease| LeaderView { holder: lease.holder, until_ms: lease.until }))
}

fn channel_of<'a>(snapshot: &'a Snapshot, name: &ChannelName) -> Result<&'a Channel, Problem> {
    let channel = snapshot.channels.get(name);
    channel.ok_or_else(|| Problem::not_found(format!("there is no release of channel {name}")))
}

fn rollout_view(channel: &Channel, report: &PlanReport) -> Option<RolloutView> {
    let rollout = channel.rollout.as_ref()?;
    let is_newest = rollout.release == channel.current.id;
    let Rollout { release, opened_ms, status, converged_ms, failures, .. } = rollout;
    let failures = failures.iter().map(|(host, failed)| FailureView {
        host: host.clone(),
        how: failed.how,
        text: failed.how.to_string(),
        system: failed.system.clone(),
        at_ms: failed.at_ms,
    });
    let quarantine = channel.quarantine.iter().map(|(system, Quarantine { host, rollout, since_ms })| {
        let (system, rollout) = (system.clone(), rollout.to_string());
        QuarantineView { system, host: host.clone(), rollout, since_ms: *since_ms }
    });
    Some(RolloutView {
        rollout: rollout.id().to_string(),
        channel: release.channel.clone(),
        seq: release.seq,
        release: release.clone(),
        revision: is_newest.then(|| channel.current.revision.clone()),
        opened_ms: *opened_ms,
        converged_ms: *converged_ms,
        status: status.clone(),
        hosts: counted(channel.hosts.keys(), report.held.of(&release.channel)),
        failures: failures.collect(),
        quarantine: quarantine.collect(),
        waves: if is_newest { wave_views(channel, rollout, report) } else { Vec::new() },
    })
}

fn wave_views(channel: &Channel, rollout: &Rollout, report: &PlanReport) -> Vec<WaveView> {
    let mut hosts: BTreeMap<WaveIndex, Vec<&HostName>> = BTreeMap::new();
    for (name, host) in &channel.hosts {
        hosts.entry(host.placed.wave).or_default().push(name);
    }
    let held = report.held.of(&channel.current.id.channel);
    let view = |(at, wave): (usize, &nixfleet_core::model::policy::Wave)| {
        let index = WaveIndex(u16::try_from(at).unwrap_or(u16::MAX));
        let hosts = hosts.remove(&index).unwrap_or_default();
        let opened_ms = rollout.waves_opened.get(at).copied();
        let told = || hosts.iter().filter_map(|host| Some((*host, held?.get(host)?)));
        let waits =
            told().find_map(
                |(_, reason)| {
                    if let Reason::Wave { on, .. } = reason { Some(on.clone()) } else { None }
                },
            );
        let waits = waits.filter(|_| opened_ms.is_none());
        WaveView {
            wave: index,
            name: wave.name.clone(),
            opened_ms,
            soak_secs: wave.soak_secs,
            approval: wave.approval,
            approved: rollout.approved.get(&index).cloned(),
            hosts: counted(hosts.iter().copied(), held),
            text: waits.as_ref().map(ToString::to_string),
            waits,
            reasons: reasons(told()),
        }
    };
    channel.current.policy.waves.iter().enumerate().map(view).collect()
}

fn counted<'a>(hosts: impl Iterator<Item = &'a HostName>, held: Option<&HeldIn>) -> HostCounts {
    let mut counts = HostCounts::default();
    for host in hosts {
        counts.total += 1;
        *place(&mut counts, held.and_then(|held| held.get(host))) += 1;
    }
    counts
}

/// Where a host with this reason is counted. Without one the plan has an order for it.
fn place<'a>(counts: &'a mut HostCounts, reason: Option<&Reason>) -> &'a mut u64 {
    match reason {
        Some(Reason::Done) => &mut counts.done,
        Some(Reason::Soaking) => &mut counts.soaking,
        Some(Reason::OnItsWay { .. } | Reason::Superseded { .. } | Reason::TakenBack { .. }) => {
            &mut counts.moving
        }
        Some(Reason::Failed { .. } | Reason::TriesAgain { .. }) => &mut counts.failed,
        Some(Reason::Offline { .. } | Reason::NeverReported) => &mut counts.offline,
        Some(Reason::Held { .. } | Reason::Skipped(_)) => &mut counts.left_out,
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
            | Reason::Budget { .. }
            | Reason::Edge { .. }
            | Reason::Window { .. }
            | Reason::WindowNeverOpens { .. }
            | Reason::Withheld { .. }
            | Reason::Deadlock { .. },
        )
        | None => &mut counts.waiting,
    }
}

fn reasons<'a>(told: impl Iterator<Item = (&'a HostName, &'a Reason)>) -> Vec<ReasonCount> {
    let mut by_name: BTreeMap<String, ReasonCount> = BTreeMap::new();
    for (host, reason) in told {
        let name = name_of(reason);
        let count = by_name.entry(name.clone()).or_insert_with(|| ReasonCount {
            reason: name,
            text: reason.to_string(),
            hosts: 0,
            first: host.clone(),
        });
        count.hosts += 1;
    }
    let mut all: Vec<ReasonCount> = by_name.into_values().collect();
    all.sort_by(|a, b| b.hosts.cmp(&a.hosts).then_with(|| a.reason.cmp(&b.reason)));
    all
}

/// The name of a reason, as it is in JSON.
fn name_of(reason: &Reason) -> String {
    let json = serde_json::to_value(reason).unwrap_or_default();
    json["reason"].as_str().unwrap_or_default().to_owned()
}

fn why_view(channel: &Channel, (name, host): (&HostName, &Host), outlook: &Outlook) -> WhyView {
    let held = outlook.report.held.of(&channel.current.id.channel);
    let (reason, text) = match held.and_then(|held| held.get(name)) {
        Some(reason) => (ReasonView::from(reason), reason.to_string()),
        None => ordered(name, outlook),
    };
    WhyView {
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

/// The plan has an order for it, or was made before it was known.
fn ordered(name: &HostName, outlook: &Outlook) -> (ReasonView, String) {
    let orders = outlook.plan.iter().flat_map(|plan| &plan.orders);
    match orders.into_iter().find(|order| order.host == *name) {
        Some(order) => {
            let what = order.what;
            (ReasonView::ordered(what), "the plan has an order for it".to_owned())
        }
        None => (ReasonView::from(&Reason::NeverReported), Reason::NeverReported.to_string()),
    }
}

fn plan_view(
    (event, leader): (u64, Option<LeaderView>),
    plan: &Plan,
    report: &PlanReport,
    objections: Vec<String>,
) -> PlanView {
    let Plan { at_ms, decisions, orders } = plan;
    PlanView {
        event,
        at_ms: *at_ms,
        leader,
        decisions: decisions.clone(),
        orders: orders.iter().take(ORDERS_MAX).cloned().collect(),
        orders_total: orders.len() as u64,
        objections,
        held: reasons(report.held.iter()),
        again_ms: report.again_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_turn_is_told_to_come_again_and_a_turn_that_ends_is_the_next_ones() {
        let copies = Semaphore::new(1);
        let within = Duration::from_millis(20);
        let first = turn(&copies, within).await.expect("a turn");
        assert!(turn(&copies, within).await.is_err());
        let (waited, ()) = tokio::join!(turn(&copies, Duration::from_mins(1)), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        drop(waited.expect("the next turn"));
    }
}
