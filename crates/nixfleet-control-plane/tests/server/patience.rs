//! What the planner makes of a time in which it could hear nobody, of a channel that was set back, and of more orders than it
//! writes at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nixfleet_control_plane::mirror::Mirror;
use nixfleet_control_plane::planner::{Looked, looked_at};
use nixfleet_core::model::names::{ReleaseId, Sha256};
use nixfleet_core::model::policy::{Policy, WaveIndex};
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::rollout::fact::{Current, Placed};
use nixfleet_core::rollout::{Fact, Order, RolloutId, Snapshot, Verb, What, object};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::{Cluster, End};
use crate::fleet::{Fleet, host_name, now, policy, system};
use crate::plans::{NAMES, Story, decided, ordered, soaking};
use crate::running::Running;

/// Longer than the planner looks who waits, with some to spare on a machine that is busy.
const PATIENCE: Secs = Secs(25);
/// Far longer than a test takes, also for agents whose time flies.
const WATCHED_FOR: u32 = 86_400;

/// Hosts may be silent for so long, and are watched for ever.
fn watched(patience: Secs) -> Policy {
    let mut watched = soaking(WATCHED_FOR);
    watched.offline_after_secs = patience;
    watched
}

/// Rolls out two releases; the canary has switched to the second, and is watched.
async fn in_mid_wave(running: Running, fleet: Fleet, patience: Secs) -> Story {
    let story = Story::over(fleet, running, &NAMES);
    story.release(1, policy()).await;
    story.until_converged(1).await;
    story.release(2, watched(patience)).await;
    story
        .until_seen("/v1/hosts/canary", |seen| {
            seen["doing"]["state"] == "soaking" && seen["doing"]["release"]["seq"] == 2
        })
        .await;
    story
}

/// Waits for a plan of `since` or later, and returns the log.
async fn planned_since(story: &Story, since: UnixMs) -> Vec<Value> {
    story.until_seen("/v1/plan", |plan| plan["at_ms"].as_u64() >= Some(since.get())).await;
    story.events().await
}

/// Nobody counts as lost by this log, and the second wave is shut.
fn assert_patient(events: &[Value]) {
    for becomes in ["failure-counted", "halted", "quarantined", "converged"] {
        assert_eq!(decided(events, 2, becomes), None, "{becomes}");
    }
    for host in &NAMES[1..] {
        assert!(ordered(events, host, 2, "go").is_empty(), "{host} waits for the canary");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_away_for_longer_than_hosts_may_be_makes_no_host_look_lost() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let fleet = Fleet::of(&NAMES);
    let running = Running::start_over(&fleet, Some(cluster.database("patient").await)).await;
    let story = in_mid_wave(running, fleet, PATIENCE).await;
    // They come back later than the planner does, as hosts do that were told to wait.
    for host in NAMES {
        story.outside.cut_off(&host_name(host)).await;
    }
    cluster.end(End::Fast).await;
    sleep(Duration::from_secs(u64::from(PATIENCE.0) + 2)).await;
    let back = now();
    cluster.begin().await;
    assert_patient(&planned_since(&story, back).await);
    for host in NAMES {
        story.outside.restore(&host_name(host));
    }
    // It goes on: whoever acts is heard, and the canary is still watched.
    let why = json!({ "why": "a test" });
    assert_eq!(story.act("/v1/hosts/web-3/hold", &why).await, StatusCode::ACCEPTED);
    assert_eq!(story.view("/v1/rollouts/stable").await["status"]["status"], "going");
}

/// How far the clock of the test below is ahead.
static AHEAD: AtomicU32 = AtomicU32::new(0);

fn steps() -> UnixMs {
    now().plus(Secs(AHEAD.load(Ordering::SeqCst)))
}

#[tokio::test]
async fn a_clock_that_is_set_forward_in_mid_wave_makes_no_host_look_lost() {
    let fleet = Fleet::of(&NAMES);
    let running = Running::start_by(&fleet, None, steps).await;
    let story = in_mid_wave(running, fleet, Secs(1_800)).await;
    for host in NAMES {
        story.outside.cut_off(&host_name(host)).await;
    }
    AHEAD.store(3 * 3_600, Ordering::SeqCst);
    assert_patient(&planned_since(&story, steps()).await);
}

#[tokio::test]
async fn a_channel_that_was_set_back_rolls_out_what_its_owner_signs_under_the_lower_number() {
    let fleet = Fleet::of(&NAMES);
    let running = Running::start(&fleet).await;
    let story = Story::over(fleet, running, &NAMES);
    story.release(1, policy()).await;
    story.until_converged(1).await;
    // Whoever stole the key signs the highest number.
    story.release(9_000_000, policy()).await;
    story.until_converged(9_000_000).await;
    let good = Arc::new(story.fleet.release(2).after_resets(1));
    story.outside.offer(&good);
    let pushed = [story.fleet.root_after_resets(2, 1), good.pushed()].concat();
    let (status, answer) = story.running.person(&story.running.operator).push(pushed).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    // Which also says that no plan was objected to.
    let events = story.until_converged(2).await;
    for host in NAMES {
        assert_eq!(ordered(&events, host, 2, "go").len(), 1, "{host} is ordered once");
        let seen = story.view(&format!("/v1/hosts/{host}")).await;
        assert_eq!(seen["doing"]["release"]["seq"], 2, "{seen}");
    }
}

/// A host stands so.
fn stands(snapshot: &mut Snapshot, host: &str, state: &str, about: Option<&ReleaseId>) {
    let standing = json!({ "state": state, "since_ms": now(), "about": about, "go": null, "reboot_go": null,
        "reboot": "no", "failure": null, "hold": null });
    let standing = serde_json::from_value(standing).expect("a standing");
    let fact = Fact::HostStands { host: host_name(host), standing: Box::new(standing) };
    snapshot.fold(&fact, now()).expect("it fits");
}

/// The same, with the order to go for it, by its own word.
fn has_its_order(snapshot: &mut Snapshot, host: &str, state: &str, release: &ReleaseId) {
    let standing = json!({ "state": state, "since_ms": now(), "about": release, "go": release, "reboot_go": null,
        "reboot": "no", "failure": null, "hold": null });
    let standing = serde_json::from_value(standing).expect("a standing");
    let fact = Fact::HostStands { host: host_name(host), standing: Box::new(standing) };
    snapshot.fold(&fact, now()).expect("it fits");
}

/// Release 1 of a channel, whose hosts run nothing yet.
fn joins(snapshot: &mut Snapshot, channel: &str, hosts: &[&str]) -> ReleaseId {
    let channel = channel.parse().expect("a name");
    let id = ReleaseId { channel, seq: 1u64.try_into().expect("a number"), digest: Sha256::new([1; 32]) };
    let current = Current {
        id: id.clone(),
        revision: "rev1".parse().expect("a revision"),
        created_ms: now(),
        expires_ms: now().plus(Secs(86_400)),
        policy: policy(),
    };
    let placed = |host: &&str| {
        let (name, tags) = (host_name(host), BTreeSet::new());
        let system = system(&name, 1);
        (name, Placed { wave: WaveIndex(0), tags, system })
    };
    snapshot.take_release(&current, &hosts.iter().map(placed).collect());
    for host in hosts {
        stands(snapshot, host, "converged", None);
    }
    id
}

/// Plans and folds what comes out.
fn planned(snapshot: &mut Snapshot) {
    let Looked { plan, objections, .. } = looked_at(snapshot, now(), usize::MAX, object);
    assert_eq!(objections, [""; 0]);
    let decided = plan.decisions.into_iter().map(Fact::Decided);
    for fact in decided.chain(plan.orders.into_iter().map(Fact::Ordered)) {
        snapshot.fold(&fact, now()).expect("it fits");
    }
}

#[test]
fn of_more_orders_than_are_written_at_once_those_come_first_that_take_others_back() {
    let mut snapshot = Snapshot::new(now());
    let late = joins(&mut snapshot, "late", &["late-1"]);
    planned(&mut snapshot);
    stands(&mut snapshot, "late-1", "staged", Some(&late));
    planned(&mut snapshot);
    let verb = Verb::Pause { rollout: RolloutId::from(&late) };
    let asked = Fact::Asked { verb, who: "ann".to_owned(), why: "lunch".to_owned() };
    snapshot.fold(&asked, now()).expect("it goes on");
    joins(&mut snapshot, "early", &["early-1", "early-2"]);
    let Looked { plan, objections, .. } = looked_at(&snapshot, now(), 1, object);
    assert_eq!(objections, [""; 0], "who is left out for a moment breaks no rule");
    let orders: Vec<_> = plan.orders.iter().map(|order| (order.host.as_str(), order.what)).collect();
    assert_eq!(orders, [("late-1", What::Withdraw)]);
}

#[test]
fn a_host_that_has_its_order_and_waits_for_its_window_is_heard_by_the_poll_that_waits() {
    let mut mirror = Mirror::new(now());
    let release = joins(&mut mirror.snapshot, "stable", &["web-1", "web-2"]);
    for host in ["web-1", "web-2"] {
        stands(&mut mirror.snapshot, host, "staged", Some(&release));
        let order = Order { host: host_name(host), release: release.clone(), what: What::Go };
        mirror.snapshot.fold(&Fact::Ordered(order), now()).expect("it fits");
    }
    // The order may still be on its way to the other one, whose poll waits as well.
    has_its_order(&mut mirror.snapshot, "web-1", "staged", &release);
    let later = now().plus(Secs(3_600));
    assert!(mirror.waiting(vec![host_name("web-1"), host_name("web-2")], later));
    let heard = |host| mirror.snapshot.host(&host_name(host)).expect("it is named").1.heard_ms;
    assert_eq!(heard("web-1"), Some(later));
    assert!(heard("web-2") < Some(later), "that it was sent does not say that it arrived");
}
