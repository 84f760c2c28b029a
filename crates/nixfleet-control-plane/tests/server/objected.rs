//! What people see of a plan that the second opinion objects to: a mistake in our program, so the opinion here makes one up.

use std::time::Duration;

use nixfleet_control_plane::planner::LEASE;
use nixfleet_control_plane::server::Means;
use nixfleet_control_plane::store::Store;
use nixfleet_core::model::names::ChannelName;
use nixfleet_core::model::time::Secs;
use nixfleet_core::rollout::{Objection, Plan, Snapshot, What, object};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::fleet::{Documents, Fleet, Host, channel, host_name, now, policy};
use crate::plans::{Story, ordered};
use crate::running::{CONNECTIONS_MAX, Running, SOON};

fn edge() -> ChannelName {
    "edge".parse().expect("a name")
}

/// Nobody of `stable` may go.
fn against_stable(plan: &Plan, snapshot: &Snapshot) -> Vec<Objection> {
    let goes = plan.orders.iter().filter(|order| order.what == What::Go);
    let stable = goes.filter(|order| order.release.channel == channel());
    let made_up = stable.map(|order| Objection::OrderedTwice(order.host.clone()));
    object(plan, snapshot).into_iter().chain(made_up).collect()
}

/// Nobody may do anything.
fn against_all(plan: &Plan, _: &Snapshot) -> Vec<Objection> {
    plan.orders.iter().map(|order| Objection::OrderedTwice(order.host.clone())).collect()
}

/// A host reports that it has fetched this release.
async fn has_fetched(running: &Running, fleet: &Fleet, name: &str, release: &Documents) {
    let mut host = Host::started_in(release.id.channel.clone(), name);
    host.verified(release);
    host.staged(release);
    running.host(&fleet.hosts[&host_name(name)]).report(&host.log).await;
}

async fn metric(story: &Story, name: &str) -> u64 {
    let request = story.running.person(&story.running.viewer).request(Method::GET, "/metrics");
    let text = request.send().await.expect("an answer").text().await.expect("a body");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("nixfleet_{name} ")));
    line.unwrap_or_else(|| panic!("{name} is there: {text}")).parse().expect("a number")
}

/// What everybody who looks is told of the plan for `stable`.
async fn assert_seen(story: &Story) {
    let said = "web-1 is ordered twice";
    let why = story.view("/v1/hosts/web-1/why").await;
    assert_eq!(
        (&why["reason"]["reason"], &why["reason"]["objections"][0]),
        (&"withheld".into(), &said.into())
    );
    assert!(why["text"].as_str().is_some_and(|text| text.contains(said)), "{why}");
    let trouble = story.view("/v1/fleet").await["troubles"][0].clone();
    assert_eq!(trouble["kind"], "plan-objected", "{trouble}");
    assert!(trouble["since_ms"].as_u64() > Some(0), "{trouble}");
    let text = trouble["text"].as_str().unwrap_or_default();
    assert!(text.contains("stable") && text.contains(said) && !text.contains("edge"), "{text}");
    let rollout = story.view("/v1/rollouts/stable").await;
    assert_eq!(rollout["waves"][0]["reasons"][0]["reason"], "withheld", "{rollout:#}");
    assert_eq!(rollout["hosts"]["waiting"], 1, "{rollout:#}");
    assert_eq!(story.view("/v1/plan").await["objections"][0], said);
    assert_eq!(metric(story, "channels_withheld").await, 1);
    assert!(metric(story, "plans_objected_total").await > 0);
    // It serves all others.
    story.running.until_ready(StatusCode::OK, "").await;
}

/// A fleet whose host of `stable` may not go, which is seen and said; and its host of `edge`, with what that is to fetch.
async fn withheld() -> (Story, Fleet, Documents) {
    let fleet = Fleet::of(&["web-1"]);
    let kiosks = fleet.with_hosts(&["kiosk"]);
    let means = Means { opinion: against_stable, ..Means::default() };
    let running = Running::start_as(&fleet, None, means, CONNECTIONS_MAX).await;
    let (stable, other) = (fleet.release(1), kiosks.release_in(&edge(), 1, policy()));
    let pushed = [fleet.root_of(2, 0, &[channel(), edge()]), stable.pushed()].concat();
    let (status, answer) = running.person(&running.operator).push(pushed).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    running.push(&other).await;
    let story = Story::over(fleet, running, &[]);
    // That the rollout begins would be withheld as well.
    story.until_seen("/v1/rollouts/stable", |_| true).await;
    has_fetched(&story.running, &story.fleet, "web-1", &stable).await;
    story.until_seen("/v1/hosts/web-1/why", is_withheld).await;
    // It is seen before it is tried to carry it out; then it is counted and said.
    until_objected(&story, 1).await;
    (story, kiosks, other)
}

fn is_withheld(seen: &Value) -> bool {
    seen["reason"]["reason"] == "withheld"
}

#[tokio::test]
async fn a_plan_that_is_objected_to_is_seen_by_whoever_looks_and_other_channels_go_on() {
    let (story, kiosks, other) = withheld().await;
    assert_seen(&story).await;
    // The mistake is about one channel, before and after another one has something to do.
    has_fetched(&story.running, &kiosks, "kiosk", &other).await;
    story.until_seen("/v1/hosts/kiosk/why", |seen| seen["ordered"]["what"] == "go").await;
    assert_seen(&story).await;
    let events = story.events().await;
    assert_eq!(ordered(&events, "kiosk", 1, "go").len(), 1);
    assert!(ordered(&events, "web-1", 1, "go").is_empty());
    assert_eq!(objected(&events), 1, "it is said once: {events:?}");
}

/// How often it was said that something is objected to.
fn objected(events: &[Value]) -> usize {
    events.iter().filter(|event| event["fact"] == "objected").count()
}

/// Returns when it was said so often.
async fn until_objected(story: &Story, times: usize) {
    let said = async {
        while objected(&story.events().await) < times {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, said).await.expect("it is said");
}

#[tokio::test]
async fn what_is_objected_to_after_nothing_was_is_said_again() {
    let fleet = Fleet::of(&["web-1"]);
    let means = Means { opinion: against_all, ..Means::default() };
    let running = Running::start_as(&fleet, None, means, CONNECTIONS_MAX).await;
    running.push(&fleet.release(1)).await;
    let story = Story::over(fleet, running, &[]);
    // Nothing is objected to yet: that the rollout begins would be withheld as well.
    story.until_seen("/v1/rollouts/stable", |_| true).await;
    let caller = story.running.host(&story.fleet.hosts[&host_name("web-1")]);
    caller.report(&Host::started("web-1").log).await;
    until_objected(&story, 1).await;
    let why = json!({ "why": "a test" });
    assert_eq!(story.act("/v1/rollouts/stable/1/pause", &why).await, StatusCode::ACCEPTED);
    story.until_seen("/v1/hosts/web-1/why", |seen| seen["reason"]["reason"] == "paused").await;
    assert_eq!(story.act("/v1/rollouts/stable/1/resume", &why).await, StatusCode::ACCEPTED);
    until_objected(&story, 2).await;
}

/// Who takes the lease of who plans, and does nothing with it.
const IDLER: &str = "idler";

async fn idler_leads(store: &Store) {
    let until = now().plus(Secs(3_600));
    let taken = async {
        // Whoever has it takes it again every few seconds, and then it is not as it was seen.
        while let Some(held) = store.holder(LEASE).await.expect("read") {
            if store.inherit(LEASE, &held, IDLER, until).await.expect("written") {
                return;
            }
        }
        panic!("nobody plans");
    };
    timeout(SOON, taken).await.expect("it is taken");
}

#[tokio::test]
async fn what_is_objected_to_once_more_is_said_again_also_where_nothing_could_be_carried_out_meanwhile() {
    let (story, kiosks, other) = withheld().await;
    idler_leads(&story.running.store).await;
    // So that there is always something to do: that nothing is objected to is then no empty plan.
    has_fetched(&story.running, &kiosks, "kiosk", &other).await;
    let why = json!({ "why": "a test" });
    assert_eq!(story.act("/v1/rollouts/stable/1/pause", &why).await, StatusCode::ACCEPTED);
    story.until_seen("/v1/hosts/web-1/why", |seen| seen["reason"]["reason"] == "paused").await;
    assert_eq!(story.act("/v1/rollouts/stable/1/resume", &why).await, StatusCode::ACCEPTED);
    story.until_seen("/v1/hosts/web-1/why", is_withheld).await;
    story.running.store.give_back(LEASE, IDLER).await.expect("written");
    until_objected(&story, 2).await;
    story.until_seen("/v1/hosts/kiosk/why", |seen| seen["ordered"]["what"] == "go").await;
}
