//! The planner over living agents: waves, failures, restarts.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::planner::LEASE;
use nixfleet_control_plane::store::Store;
use nixfleet_core::model::policy::{Approval, OnFailure, Policy};
use nixfleet_core::model::time::{Secs, UnixMs};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fleet::{Documents, Fleet, Host, host_name, now, policy, system};
use crate::living::{Agent, Outside, Wire};
use crate::running::{Running, SOON};

pub(crate) const NAMES: [&str; 4] = ["canary", "web-1", "web-2", "web-3"];

/// A server with a living agent for each host.
pub(crate) struct Story {
    pub(crate) fleet: Fleet,
    pub(crate) running: Running,
    pub(crate) outside: Outside,
    agents: Vec<Agent>,
}

impl Story {
    async fn begin(names: &[&str]) -> Self {
        let fleet = Fleet::of(names);
        let running = Running::start(&fleet).await;
        Self::over(fleet, running, names)
    }

    /// Over servers that run already.
    pub(crate) fn over(fleet: Fleet, running: Running, names: &[&str]) -> Self {
        let outside = Outside::default();
        let mut story = Self { fleet, running, outside, agents: Vec::new() };
        for name in names {
            story.join(name);
        }
        story
    }

    fn join(&mut self, name: &str) {
        let caller = self.running.host(&self.fleet.hosts[&host_name(name)]);
        self.agents.push(Agent::start(name, caller, &self.outside));
    }

    /// Makes a release that agents find when they look, and pushes it.
    pub(crate) async fn release(&self, seq: u64, policy: Policy) -> Arc<Documents> {
        let documents = Arc::new(self.fleet.release_with(seq, policy));
        self.outside.offer(&documents);
        self.running.push_until_there(&documents).await;
        documents
    }

    pub(crate) async fn events(&self) -> Vec<Value> {
        let viewer = self.running.person(&self.running.viewer);
        let (mut all, mut after) = (Vec::new(), "0".to_owned());
        loop {
            // A server that was killed while it answered is one that does not answer.
            let Some((StatusCode::OK, page)) =
                viewer.try_get(&format!("/v1/events?limit=1000&after={after}")).await
            else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            all.extend(page["items"].as_array().expect("a list").clone());
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => return all,
            }
        }
    }

    /// Waits until the log has it, and returns the log.
    pub(crate) async fn until(&self, what: &str, is_there: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        self.until_within(SOON, what, is_there).await
    }

    /// [`Story::until`], with another limit.
    pub(crate) async fn until_within(
        &self,
        limit: Duration,
        what: &str,
        is_there: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let mut events = Vec::new();
        let came = async {
            loop {
                events = self.events().await;
                if is_there(&events) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let came = tokio::time::timeout(limit, came).await;
        let shown: Vec<String> = events.iter().map(ToString::to_string).collect();
        assert!(came.is_ok(), "{what} did not come:\n{}", shown.join("\n"));
        let objected = events.iter().find(|event| event["fact"] == "objected");
        assert_eq!(objected, None, "no plan ever breaks a rule");
        events
    }

    pub(crate) async fn until_converged(&self, seq: u64) -> Vec<Value> {
        self.until("convergence", |events| decided(events, seq, "converged").is_some()).await
    }

    /// How a host stands: its state, and the release that it is about.
    async fn stands(&self, name: &str) -> (String, u64) {
        let (_, view) = self.running.person(&self.running.viewer).get(&format!("/v1/hosts/{name}")).await;
        let state = view["doing"]["state"].as_str().unwrap_or_default().to_owned();
        (state, view["doing"]["release"]["seq"].as_u64().unwrap_or_default())
    }
}

impl Story {
    /// Acts as an operator.
    pub(crate) async fn act(&self, path: &str, body: &Value) -> StatusCode {
        let (status, answer) = self.running.person(&self.running.operator).post(path, body).await;
        assert!(!status.is_server_error(), "{path}: {answer}");
        status
    }

    pub(crate) async fn view(&self, path: &str) -> Value {
        let (status, answer) = self.running.person(&self.running.viewer).get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    /// Waits until what is seen there is so.
    pub(crate) async fn until_seen(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        let came = async {
            loop {
                // A rollout that is not there yet may come.
                let status;
                (status, seen) = self.running.person(&self.running.viewer).get(path).await;
                if status == StatusCode::OK && is_so(&seen) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(SOON, came).await.is_ok(), "{path}: {seen:#}");
        seen
    }
}

/// Where in the log this is decided of this release.
pub(crate) fn decided(events: &[Value], seq: u64, becomes: &str) -> Option<usize> {
    events.iter().position(|event| {
        let decision = &event["decision"];
        decision["rollout"]["seq"] == seq && decision["becomes"]["becomes"] == becomes
    })
}

/// Where in the log this is ordered of this host for this release.
pub(crate) fn ordered(events: &[Value], host: &str, seq: u64, what: &str) -> Vec<usize> {
    let is_it = |event: &Value| {
        let order = &event["order"];
        event["host"] == host && order["release"]["seq"] == seq && order["what"] == what
    };
    events.iter().enumerate().filter(|(_, event)| is_it(event)).map(|(at, _)| at).collect()
}

/// Where in the log a host reports this for the first time behind `after`.
fn reported(events: &[Value], host: &str, what: &str, after: usize) -> Option<usize> {
    let is_it = |event: &Value| event["host"] == host && event["record"]["fact"]["event"] == what;
    events.iter().skip(after).position(is_it).map(|at| at + after)
}

pub(crate) fn soaking(secs: u32) -> Policy {
    let mut policy = policy();
    for wave in &mut policy.waves {
        wave.soak_secs = Secs(secs);
    }
    policy
}

#[tokio::test]
async fn the_canary_soaks_and_then_the_wave_goes_each_host_ordered_once() {
    let story = Story::begin(&NAMES).await;
    story.release(1, soaking(1)).await;
    let events = story.until_converged(1).await;
    let canary = ordered(&events, "canary", 1, "go");
    let soaked = reported(&events, "canary", "soak-passed", canary[0]).expect("it soaked");
    for host in NAMES {
        let go = ordered(&events, host, 1, "go");
        assert_eq!(go.len(), 1, "{host} is ordered once: {go:?}");
        assert!(host == "canary" || go[0] > soaked, "{host} waits for the canary's soak");
        assert_eq!(story.stands(host).await, ("converged".to_owned(), 1), "{host}");
    }
    story.release(2, soaking(0)).await;
    story.until_converged(2).await;
    for host in NAMES {
        assert_eq!(story.stands(host).await, ("converged".to_owned(), 2), "{host}");
    }
}

#[tokio::test]
async fn a_canary_that_fails_halts_the_rollout_and_a_fix_takes_its_place() {
    let story = Story::begin(&NAMES).await;
    story.release(1, policy()).await;
    story.until_converged(1).await;
    let bad = system(&host_name("canary"), 2);
    story.outside.is_bad(bad.clone());
    story.release(2, policy()).await;
    let events = story.until("the halt", |events| decided(events, 2, "halted").is_some()).await;
    let halted = "nixfleet_rollout{channel=\"stable\",status=\"halted\"} 1\n";
    let metrics =
        story.until_seen("/metrics", |seen| seen.as_str().is_some_and(|text| text.contains(halted))).await;
    let metrics = metrics.as_str().unwrap_or_default();
    assert!(metrics.contains("nixfleet_rollout{channel=\"stable\",status=\"going\"} 0\n"), "{metrics}");
    for series in ["release_expires_timestamp_seconds{channel=\"stable\"}", "root_expires_timestamp_seconds"]
    {
        assert!(metrics.contains(&format!("nixfleet_{series} ")), "{metrics}");
    }
    assert!(metrics.contains("nixfleet_planned_timestamp_seconds "), "{metrics}");
    let quarantined = decided(&events, 2, "quarantined").expect("its system is quarantined");
    assert_eq!(events[quarantined]["decision"]["becomes"]["system"], bad.to_string());
    assert_eq!(story.stands("canary").await.0, "reverted");
    story.release(3, policy()).await;
    let events = story.until_converged(3).await;
    assert!(decided(&events, 2, "superseded").is_some());
    for host in &NAMES[1..] {
        assert!(ordered(&events, host, 2, "go").is_empty(), "{host} is not touched by what failed");
        assert_eq!(story.stands(host).await, ("converged".to_owned(), 3));
    }
}

#[tokio::test]
async fn a_server_that_is_restarted_in_the_middle_loses_nothing_and_doubles_nothing() {
    let mut story = Story::begin(&NAMES).await;
    for seq in 1..=4 {
        story.release(seq, soaking(1)).await;
        let canary = format!("the order of release {seq}");
        story.until(&canary, |events| !ordered(events, "canary", seq, "go").is_empty()).await;
        story.running.stop().await;
        story.running.again().await;
        let events = story.until_converged(seq).await;
        for host in NAMES {
            assert_eq!(ordered(&events, host, seq, "go").len(), 1, "{host} is ordered once");
            assert_eq!(story.stands(host).await, ("converged".to_owned(), seq));
        }
    }
}

#[tokio::test]
async fn a_wave_that_waits_for_a_person_is_shown_so_and_opens_when_one_approves() {
    let story = Story::begin(&NAMES).await;
    let mut policy = policy();
    policy.waves[1].approval = Approval::ByAPerson;
    story.release(1, policy).await;
    let path = "/v1/rollouts/stable";
    story.until_seen(path, |seen| seen["waves"][1]["waits"]["on"] == "approval").await;
    for web in ["web-1", "web-2", "web-3"] {
        let waits = |why: &Value| why["state"] == "staged" && why["reason"]["reason"] == "wave";
        story.until_seen(&format!("/v1/hosts/{web}/why"), waits).await;
    }
    let seen = story.until_seen(path, |seen| seen["hosts"]["waiting"] == 3).await;
    assert_eq!(seen["rollout"], "stable/1");
    assert_eq!(seen["waves"][0]["hosts"]["done"], 1, "{seen:#}");
    assert_eq!(
        seen["hosts"],
        json!({ "total": 4, "done": 1, "soaking": 0, "moving": 0, "failed": 0,
        "offline": 0, "left_out": 0, "waiting": 3 })
    );
    assert_eq!(seen["waves"][1]["reasons"][0]["reason"], "wave", "{seen:#}");
    let page = story.view("/v1/rollouts/stable/hosts?wave=1&limit=2").await;
    assert_eq!((page["items"].as_array().map(Vec::len), &page["next"]), (Some(2), &json!("web-2")));

    // What it would bring is told without doing it.
    let id = json!({ "channel": "stable", "seq": 1 });
    let viewer = story.running.person(&story.running.viewer);
    let verb = json!({ "verb": { "verb": "approve", "rollout": id, "wave": 1 } });
    let (status, plan) = viewer.post("/v1/plan", &verb).await;
    assert_eq!((status, plan["orders_total"].as_u64()), (StatusCode::OK, Some(3)), "{plan}");
    assert_eq!(plan["objections"], json!([]));
    assert_eq!(story.view(path).await["waves"][1]["opened_ms"], Value::Null);
    assert!(story.view("/v1/plan").await["leader"]["holder"].is_string());

    let approve = "/v1/rollouts/stable/1/approve";
    assert_eq!(
        story.act(approve, &json!({ "why": "it looks good", "wave": 7 })).await,
        StatusCode::NOT_FOUND
    );
    assert_eq!(story.act(approve, &json!({ "why": "it looks good", "wave": 1 })).await, StatusCode::ACCEPTED);
    story.until_converged(1).await;
    assert_eq!(story.view(path).await["waves"][1]["approved"]["who"], "ann");
}

#[tokio::test]
async fn pause_resume_hold_skip_and_abort_do_what_they_say_and_what_does_not_fit_is_refused() {
    let story = Story::begin(&NAMES).await;
    story.release(1, policy()).await;
    story.until_converged(1).await;
    let why = json!({ "why": "a test" });
    assert_eq!(story.act("/v1/hosts/web-1/hold", &why).await, StatusCode::ACCEPTED);
    // It stands still until somebody approves, however slow this is.
    let mut asks = policy();
    asks.waves[1].approval = Approval::ByAPerson;
    story.release(2, asks).await;
    story.until("the rollout", |events| decided(events, 2, "wave-opened").is_some()).await;
    assert_eq!(story.act("/v1/rollouts/stable/1/pause", &why).await, StatusCode::CONFLICT, "it is over");
    assert_eq!(story.act("/v1/rollouts/stable/2/pause", &why).await, StatusCode::ACCEPTED);
    assert_eq!(story.act("/v1/rollouts/stable/2/pause", &why).await, StatusCode::CONFLICT, "it is paused");
    let path = "/v1/rollouts/stable";
    let seen = story.until_seen(path, |seen| seen["status"]["status"] == "paused").await;
    assert_eq!((&seen["status"]["who"], &seen["status"]["why"]), (&json!("ann"), &json!("a test")));
    story.until_seen("/v1/hosts/web-2/why", |why| why["reason"]["reason"] == "paused").await;
    assert_eq!(story.act("/v1/hosts/web-3/skip", &why).await, StatusCode::ACCEPTED);
    assert_eq!(story.act("/v1/rollouts/stable/2/resume", &why).await, StatusCode::ACCEPTED);
    let approve = json!({ "why": "a test", "wave": 1 });
    assert_eq!(story.act("/v1/rollouts/stable/2/approve", &approve).await, StatusCode::ACCEPTED);
    let events = story.until_converged(2).await;
    for host in ["web-1", "web-3"] {
        assert!(ordered(&events, host, 2, "go").is_empty(), "{host} stays");
        assert_eq!(story.view("/v1/rollouts/stable").await["hosts"]["left_out"], 2);
    }
    assert_eq!(story.act("/v1/hosts/web-1/unhold", &why).await, StatusCode::ACCEPTED);
    story
        .until_seen("/v1/hosts/web-1", |seen| {
            seen["doing"]["release"]["seq"] == 2 && seen["doing"]["state"] == "converged"
        })
        .await;
    assert_eq!(story.act("/v1/hosts/web-1/unhold", &why).await, StatusCode::CONFLICT, "nobody holds it");
    assert_eq!(story.act("/v1/hosts/web-1/retry", &why).await, StatusCode::CONFLICT, "it has not failed");
    assert_eq!(story.act("/v1/rollouts/stable/2/abort", &why).await, StatusCode::ACCEPTED);
    story
        .until_seen("/v1/hosts/web-3/why", |why| {
            matches!(why["reason"]["reason"].as_str(), Some("skipped" | "aborted"))
        })
        .await;
}

#[tokio::test]
async fn a_host_that_failed_is_tried_again_when_somebody_asks_and_the_rollout_is_resumed() {
    let story = Story::begin(&NAMES).await;
    story.release(1, policy()).await;
    story.until_converged(1).await;
    let bad = system(&host_name("canary"), 2);
    story.outside.is_bad(bad.clone());
    story.release(2, policy()).await;
    story.until("the halt", |events| decided(events, 2, "halted").is_some()).await;
    // What is seen is what was told after the commit, which may be read before.
    let is_told = |seen: &Value| !seen["failures"][0].is_null() && !seen["quarantine"][0].is_null();
    let seen = story.until_seen("/v1/rollouts/stable", is_told).await;
    assert_eq!(
        (&seen["failures"][0]["host"], &seen["failures"][0]["text"]),
        (&json!("canary"), &json!("probe"))
    );
    assert_eq!(seen["quarantine"][0]["system"], bad.to_string());
    story.outside.is_well(&bad);
    let why = json!({ "why": "the disk was full" });
    assert_eq!(story.act("/v1/hosts/canary/retry", &why).await, StatusCode::ACCEPTED);
    assert_eq!(story.act("/v1/rollouts/stable/2/resume", &why).await, StatusCode::ACCEPTED);
    let events = story.until_converged(2).await;
    assert_eq!(ordered(&events, "canary", 2, "retry").len(), 1);
    for host in NAMES {
        assert_eq!(story.stands(host).await, ("converged".to_owned(), 2), "{host}");
    }
}

/// Hosts with clocks that are wrong by more than a day, behind a wire that loses and doubles.
fn skewed(running: Running, fleet: Fleet) -> Story {
    let mut story = Story { fleet, running, outside: Outside::default(), agents: Vec::new() };
    for (name, ahead_hours) in NAMES.into_iter().zip([0, 25, -25, -25]) {
        let caller = story.running.host(&story.fleet.hosts[&host_name(name)]);
        let host = Host::started_at(name, ahead_hours);
        story.agents.push(Agent::start_as(host, caller, &story.outside, Wire::Bad));
    }
    story
}

async fn roll_out_once_each(story: &Story) {
    for seq in 1..=3 {
        story.release(seq, soaking(1)).await;
        let events = story.until_converged(seq).await;
        for host in NAMES {
            assert_eq!(ordered(&events, host, seq, "go").len(), 1, "{host} is ordered once");
            assert_eq!(story.stands(host).await, ("converged".to_owned(), seq), "{host}");
        }
    }
    let mut numbers: Vec<(String, u64)> = Vec::new();
    for event in story.events().await.iter().filter(|event| event["fact"] == "reported") {
        let host = event["host"].as_str().unwrap_or_default().to_owned();
        numbers.push((host, event["record"]["seq"].as_u64().expect("a number")));
    }
    let all = numbers.len();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), all, "each report is kept once");
}

#[tokio::test]
async fn a_wire_that_loses_and_doubles_and_clocks_that_are_wrong_by_a_day_change_nothing() {
    let fleet = Fleet::of(&NAMES);
    let running = Running::start(&fleet).await;
    roll_out_once_each(&skewed(running, fleet)).await;
}

fn a_day_ahead() -> UnixMs {
    now().plus(Secs(25 * 3_600))
}

fn a_day_behind() -> UnixMs {
    UnixMs::new(now().get() - 25 * 3_600_000).expect("a time in range")
}

#[tokio::test]
async fn a_server_whose_clock_is_a_day_ahead_rolls_out_as_any_other() {
    let fleet = Fleet::of(&NAMES);
    let running = Running::start_by(&fleet, None, a_day_ahead).await;
    roll_out_once_each(&skewed(running, fleet)).await;
}

#[tokio::test]
async fn a_server_whose_clock_is_a_day_behind_refuses_what_it_takes_for_the_future_and_goes_on_when_it_is_right()
 {
    let fleet = Fleet::of(&NAMES);
    let mut running = Running::start_by(&fleet, None, a_day_behind).await;
    let (status, problem) = running.person(&running.operator).push(fleet.release(1).pushed()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("clock"), "whoever reads it must think of the clock: {detail}");
    running.stop().await;
    running.again().await;
    roll_out_once_each(&skewed(running, fleet)).await;
}

#[tokio::test]
async fn under_revert_all_a_halt_brings_those_back_who_were_done() {
    let story = Story::begin(&NAMES).await;
    story.release(1, policy()).await;
    story.until_converged(1).await;
    story.outside.is_bad(system(&host_name("web-3"), 2));
    let mut all = policy();
    all.on_failure = OnFailure::RevertAll;
    story.release(2, all).await;
    story.until("the halt", |events| decided(events, 2, "halted").is_some()).await;
    for host in NAMES {
        let path = format!("/v1/hosts/{host}");
        // One that was not told to go yet is not told any more.
        let is_back = |seen: &Value| {
            let state = seen["doing"]["state"].as_str().unwrap_or_default();
            state == "reverted" || state == "staged"
        };
        let seen = story.until_seen(&path, is_back).await;
        assert_eq!(seen["current"], system(&host_name(host), 1).to_string(), "{seen:#}");
    }
    let events = story.events().await;
    assert_eq!(ordered(&events, "canary", 2, "revert").len(), 1);
    assert!(ordered(&events, "web-3", 2, "revert").is_empty(), "it went back by itself");
}

#[tokio::test]
async fn an_order_that_never_reached_a_host_is_taken_back_and_given_again_when_it_is_back() {
    let story = Story::begin(&NAMES).await;
    let mut asks = policy();
    asks.waves[1].approval = Approval::ByAPerson;
    // Well above the ten seconds after which the planner looks who waits, also where this is slow.
    asks.offline_after_secs = Secs(25);
    story.release(1, asks).await;
    story.until_seen("/v1/hosts/web-2", |seen| seen["doing"]["state"] == "staged").await;
    story.until_seen("/v1/rollouts/stable", |seen| seen["waves"][1]["waits"]["on"] == "approval").await;
    let web_2 = host_name("web-2");
    story.outside.cut_off(&web_2).await;
    let approve = json!({ "why": "go", "wave": 1 });
    assert_eq!(story.act("/v1/rollouts/stable/1/approve", &approve).await, StatusCode::ACCEPTED);
    let taken_back = |events: &[Value]| !ordered(events, "web-2", 1, "withdraw").is_empty();
    let events = story.until("the withdrawal", taken_back).await;
    assert_eq!(ordered(&events, "web-2", 1, "go").len(), 1);
    story.until_converged(1).await;
    story.outside.restore(&web_2);
    story
        .until_seen("/v1/hosts/web-2", |seen| {
            seen["doing"]["state"] == "converged" && seen["doing"]["release"]["seq"] == 1
        })
        .await;
    let events = story.events().await;
    assert_eq!(ordered(&events, "web-2", 1, "go").len(), 2, "once in vain, and once more");
}

#[tokio::test]
async fn a_host_that_only_waits_for_orders_is_not_away_however_short_the_patience_is() {
    let story = Story::begin(&NAMES).await;
    let mut asks = policy();
    asks.waves[1].approval = Approval::ByAPerson;
    // Shorter than a poll is held, and longer than the planner looks who waits.
    asks.offline_after_secs = Secs(25);
    story.release(1, asks).await;
    story.until_seen("/v1/rollouts/stable", |seen| seen["waves"][1]["waits"]["on"] == "approval").await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(32) {
        let seen = story.view("/v1/rollouts/stable").await;
        assert_eq!(seen["hosts"]["offline"], 0, "{seen:#}");
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_lease_that_a_wrong_clock_took_for_a_day_keeps_nobody_from_planning() {
    let dir = tempfile::tempdir().expect("a folder");
    let database = Database::Sqlite(dir.path().join("control-plane.db"));
    let kept = Store::open(&database).await.expect("a database");
    // A leader whose clock was ahead, and who was killed before it was set right.
    let held = kept.lease(LEASE, "vanished", a_day_ahead(), a_day_ahead().plus(Secs(6))).await;
    assert!(held.expect("written"));
    kept.close().await;
    let fleet = Fleet::of(&NAMES);
    let running = Running::start_over(&fleet, Some(database)).await;
    let story = Story::over(fleet, running, &NAMES);
    story.release(1, policy()).await;
    story.until_converged(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_for_a_plan_at_once_are_answered_or_told_to_come_again() {
    let fleet = Fleet::of(&NAMES);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let asked = json!({ "verb": { "verb": "hold", "host": "web-1", "until_ms": null } });
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let request = running.person(&running.viewer).request(reqwest::Method::POST, "/v1/plan");
        let request = request.header("content-type", "application/json").body(asked.to_string());
        asking.spawn(async move { request.send().await.expect("an answer") });
    }
    let mut answered = 0;
    while let Some(answer) = asking.join_next().await {
        let answer = answer.expect("no panic");
        match answer.status() {
            StatusCode::OK => answered += 1,
            status => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                assert!(answer.headers().contains_key("retry-after"));
            }
        }
    }
    assert!(answered > 0, "two at a time");
}
