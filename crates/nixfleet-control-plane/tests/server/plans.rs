//! The planner over living agents: waves, failures, restarts.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_core::model::policy::Policy;
use nixfleet_core::model::time::Secs;
use serde_json::Value;
use tokio::time::sleep;

use crate::fleet::{Documents, Fleet, host_name, policy, system};
use crate::living::{Agent, Outside};
use crate::running::{Running, SOON};

const NAMES: [&str; 4] = ["canary", "web-1", "web-2", "web-3"];

/// A server with a living agent for each host.
struct Story {
    fleet: Fleet,
    running: Running,
    outside: Outside,
    agents: Vec<Agent>,
}

impl Story {
    async fn begin(names: &[&str]) -> Self {
        let fleet = Fleet::of(names);
        let running = Running::start(&fleet).await;
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
    async fn release(&self, seq: u64, policy: Policy) -> Arc<Documents> {
        let documents = Arc::new(self.fleet.release_with(seq, policy));
        self.outside.offer(&documents);
        self.running.push(&documents).await;
        documents
    }

    async fn events(&self) -> Vec<Value> {
        let viewer = self.running.person(&self.running.viewer);
        let (mut all, mut after) = (Vec::new(), "0".to_owned());
        loop {
            let (_, page) = viewer.get(&format!("/v1/events?limit=1000&after={after}")).await;
            all.extend(page["items"].as_array().expect("a list").clone());
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => return all,
            }
        }
    }

    /// Waits until the log has it, and returns the log.
    async fn until(&self, what: &str, is_there: impl Fn(&[Value]) -> bool) -> Vec<Value> {
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
        let came = tokio::time::timeout(SOON, came).await;
        let shown: Vec<String> = events.iter().map(ToString::to_string).collect();
        assert!(came.is_ok(), "{what} did not come:\n{}", shown.join("\n"));
        self.running.no_objections().await;
        events
    }

    async fn until_converged(&self, seq: u64) -> Vec<Value> {
        self.until("convergence", |events| decided(events, seq, "converged").is_some()).await
    }

    /// How a host stands: its state, and the release that it is about.
    async fn stands(&self, name: &str) -> (String, u64) {
        let (_, view) = self.running.person(&self.running.viewer).get(&format!("/v1/hosts/{name}")).await;
        let state = view["doing"]["state"].as_str().unwrap_or_default().to_owned();
        (state, view["doing"]["release"]["seq"].as_u64().unwrap_or_default())
    }
}

/// Where in the log this is decided of this release.
fn decided(events: &[Value], seq: u64, becomes: &str) -> Option<usize> {
    events.iter().position(|event| {
        let decision = &event["decision"];
        decision["rollout"]["seq"] == seq && decision["becomes"]["becomes"] == becomes
    })
}

/// Where in the log this is ordered of this host for this release.
fn ordered(events: &[Value], host: &str, seq: u64, what: &str) -> Vec<usize> {
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

fn soaking(secs: u32) -> Policy {
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
