//! Databases that end, and disks that are full: what is wrong is said wherever somebody looks, nothing that was
//! acknowledged is lost, nothing is written by half, and it goes on by itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::store::Store;
use nixfleet_control_plane::store::tokens::Role;
use nixfleet_core::model::policy::Approval;
use nixfleet_sys::exec::{Cmd, Finished};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::{Cluster, End, nobody};
use crate::fleet::{Fleet, now, policy};
use crate::plans::{NAMES, Story, decided, ordered, soaking};
use crate::running::{Running, SOON};

/// A file system of its own, small enough to be filled in no time. It is gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// The file on it.
    fn database(&self) -> Database {
        Database::Sqlite(self.0.join("control-plane.db"))
    }

    /// Of 8 MiB. `None`, and said so, where none can be mounted.
    async fn mount(at: &Path) -> Option<Self> {
        Self::of_mib(at, 8).await
    }

    #[expect(clippy::print_stdout, reason = "`cargo xtask test` collects these lines")]
    async fn of_mib(at: &Path, mib: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "a small file system is mounted by root");
            println!("LEFT OUT: a full disk under the database (a small file system is mounted by root)");
            return None;
        }
        std::fs::create_dir(at).expect("a folder");
        let options = format!("size={mib}m,mode=0700");
        let mount = Cmd::new("/usr/bin/mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at);
        mount.run().await.and_then(Finished::success).expect("it is mounted");
        Some(Self(at.to_owned()))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.join("filler")).expect("a file");
        for size in [1 << 20, 64 << 10, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Gives it back.
    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let umount = Cmd::new("/usr/bin/umount").arg("--lazy").arg(&self.0);
        // A thread of its own, as this may be dropped within a runtime.
        drop(std::thread::spawn(move || drop(umount.run_blocking())).join());
    }
}

/// A database server whose data is on a disk of its own.
struct SmallCluster {
    disk: SmallDisk,
    /// Gone before its disk is: fields are dropped in their order, and the disk is let go lazily.
    cluster: Cluster,
}

impl SmallCluster {
    /// `None`, and said so, where it cannot be.
    async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let disk = SmallDisk::of_mib(&data, 96).await?;
        std::os::unix::fs::chown(&data, nobody(), nobody()).expect("a folder of nobody's");
        Some(Self { disk, cluster: Cluster::start_small(dir).await? })
    }
}

/// What there is to read where the disk is full.
const FULL: &str = "the disk of the database is full";

/// Takes the room that is left within the files of the database. The names of what takes it begin with this one.
async fn take_the_rest(store: &Store, name: &str) {
    let mut taken = 0;
    while store.make_token(&format!("{name}-{taken}"), Role::Viewer, now()).await.is_ok() {
        taken += 1;
    }
}

/// Whether the room is missed before the rollout is over, which may have come to its end while the room was taken.
async fn is_missed(story: &Story, seq: u64) -> bool {
    let mut missed = false;
    let is_over = async {
        while !missed && decided(&story.events().await, seq, "converged").is_none() {
            missed = story.running.anybody().get("/readyz").await.0 == StatusCode::SERVICE_UNAVAILABLE;
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, is_over).await.is_ok(), "neither an alarm nor an end");
    missed
}

/// Living agents of [`NAMES`], and a server over this database.
async fn story_over(database: Database) -> Story {
    let fleet = Fleet::of(&NAMES);
    let running = Running::start_over(&fleet, Some(database)).await;
    Story::over(fleet, running, &NAMES)
}

/// What hosts reported is in the log once each, without a gap, and the projections are those of the log.
async fn assert_whole(story: &Story) {
    let events = story.events().await;
    for host in NAMES {
        let of_host = events.iter().filter(|event| event["fact"] == "reported" && event["host"] == host);
        let numbers: Vec<u64> =
            of_host.map(|event| event["record"]["seq"].as_u64().expect("a number")).collect();
        let whole: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, whole, "{host}: each report once, and none is missing");
        assert!(numbers.len() > 3, "{host} reported");
    }
    let before = story.running.hosts_of_the_log().await;
    story.running.store.rebuild(now()).await.expect("it folds");
    assert_eq!(story.running.hosts_of_the_log().await, before);
}

fn assert_ordered_once(events: &[Value], seq: u64) {
    for host in NAMES {
        assert_eq!(ordered(events, host, seq, "go").len(), 1, "{host} is ordered once for release {seq}");
    }
}

#[tokio::test]
async fn what_is_written_after_the_disk_was_full_is_committed() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk")).await else { return };
    let store = Store::open(&disk.database()).await.expect("it opens");
    for round in 0..3 {
        disk.fill();
        take_the_rest(&store, &format!("full-{round}")).await;
        disk.free();
        // One that is given up, as a verb that does not fit is.
        drop(store.begin(now()).await.expect("it begins"));
        let before = store.newest_event().await.expect("read");
        store.make_token(&format!("free-{round}"), Role::Viewer, now()).await.expect("there is room");
        assert_eq!(store.newest_event().await.expect("read"), before + 1, "others see it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_alarm_everywhere_loses_nothing_and_is_over_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk")).await else { return };
    let story = story_over(disk.database()).await;
    let mut asks = policy();
    asks.waves[1].approval = Approval::ByAPerson;
    story.release(1, asks).await;
    story.until_seen("/v1/rollouts/stable", |seen| seen["waves"][1]["waits"]["on"] == "approval").await;

    disk.fill();
    take_the_rest(&story.running.store, "full").await;
    let problem = story.running.until_ready(StatusCode::SERVICE_UNAVAILABLE, FULL).await;
    let detail = problem["detail"].as_str().unwrap_or_default().to_owned();
    // Who acts is refused, with the same words, and learns it before as well.
    let approve = json!({ "why": "go", "wave": 1 });
    let operator = story.running.person(&story.running.operator);
    let refused = async {
        loop {
            let (status, answer) = operator.post("/v1/hosts/web-3/hold", &json!({ "why": "x" })).await;
            if status == StatusCode::SERVICE_UNAVAILABLE {
                return answer;
            }
            // What was left of the room took it.
            assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
            let _ = operator.post("/v1/hosts/web-3/unhold", &json!({ "why": "x" })).await;
        }
    };
    let answer = tokio::time::timeout(SOON, refused).await.expect("no room is left");
    // Where something else was wrong as well, both were said.
    assert!(answer["detail"].as_str().is_some_and(|text| detail.contains(text)), "{answer}");
    assert!(answer["detail"].as_str().is_some_and(|text| text.contains(FULL)), "{answer}");
    let seen = story.view("/v1/fleet").await;
    assert_eq!(seen["troubles"][0]["kind"], "database-full", "{seen}");
    let metrics = story.view("/metrics").await;
    assert!(
        metrics.as_str().is_some_and(|text| text.contains("nixfleet_database_trouble{kind=\"full\"} 1\n"))
    );
    assert_eq!(story.running.anybody().get("/healthz").await.0, StatusCode::OK, "a restart would not help");

    disk.free();
    story.running.until_ready(StatusCode::OK, "").await;
    assert_eq!(story.view("/v1/fleet").await["troubles"], json!([]));
    let unhold = operator.post("/v1/hosts/web-3/unhold", &json!({ "why": "x" })).await.0;
    assert!(matches!(unhold, StatusCode::ACCEPTED | StatusCode::CONFLICT), "{unhold}");
    assert_eq!(story.act("/v1/rollouts/stable/1/approve", &approve).await, StatusCode::ACCEPTED);
    assert_ordered_once(&story.until_converged(1).await, 1);
    assert_whole(&story).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_again_and_again_in_mid_rollout_loses_no_report_and_no_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk")).await else { return };
    let story = story_over(disk.database()).await;
    for seq in 1..=3 {
        story.release(seq, soaking(1)).await;
        disk.fill();
        take_the_rest(&story.running.store, &format!("full-{seq}")).await;
        // Also where the rollout is over by now: who plans says so every few seconds.
        story.running.until_ready(StatusCode::SERVICE_UNAVAILABLE, FULL).await;
        disk.free();
        assert_ordered_once(&story.until_converged(seq).await, seq);
    }
    assert_whole(&story).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_server_that_is_ended_in_mid_rollout_loses_nothing_and_is_missed_aloud() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let story = story_over(cluster.database("restarted").await).await;
    story.release(1, policy()).await;
    story.until_converged(1).await;
    for (seq, how) in (2..).zip([End::Fast, End::Immediate, End::Killed]) {
        story.release(seq, soaking(1)).await;
        story.until("the canary's order", |events| !ordered(events, "canary", seq, "go").is_empty()).await;
        cluster.end(how).await;
        story.running.until_ready(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer").await;
        assert_eq!(story.running.anybody().get("/healthz").await.0, StatusCode::OK, "{how:?}");
        cluster.begin().await;
        story.running.until_ready(StatusCode::OK, "").await;
        assert_ordered_once(&story.until_converged(seq).await, seq);
    }
    assert_whole(&story).await;
}

/// Has an operator act until that is refused, and returns what they are told.
async fn act_until_refused(running: &Running, wanted: StatusCode) -> Value {
    let operator = running.person(&running.operator);
    let why = json!({ "why": "x".repeat(400) });
    let refused = async {
        loop {
            for verb in ["hold", "unhold"] {
                let (status, answer) = operator.post(&format!("/v1/hosts/web-3/{verb}"), &why).await;
                if status == wanted {
                    return answer;
                }
                // What was left of the room took it.
                assert!(matches!(status, StatusCode::ACCEPTED | StatusCode::CONFLICT), "{answer}");
            }
        }
    };
    tokio::time::timeout(SOON, refused).await.expect("no room is left")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_finds_no_room_is_an_alarm_also_where_nobody_else_writes_until_there_is_room() {
    let Some(database) = SmallCluster::start().await else { return };
    let fleet = Fleet::of(&NAMES);
    let running = Running::start_over(&fleet, Some(database.cluster.database("quiet").await)).await;
    running.push(&fleet.release(1)).await;
    // Else the log of PostgreSQL may be what finds no room first, which ends the server.
    database.cluster.begin_log_piece().await;
    database.disk.fill();
    let answer = act_until_refused(&running, StatusCode::SERVICE_UNAVAILABLE).await;
    let detail = answer["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(FULL), "{answer}");
    // Nobody writes but the planner, whose lease finds room. It is tried every ten seconds whether others would.
    for _ in 0..30 {
        let (status, _) = running.anybody().get("/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "who acts is refused, and nothing says so");
        sleep(Duration::from_millis(500)).await;
    }
    running.until_ready(StatusCode::SERVICE_UNAVAILABLE, FULL).await;
    let seen = running.person(&running.viewer).get("/v1/fleet").await.1;
    assert_eq!(seen["troubles"][0]["kind"], "database-full", "{seen}");
    let pushed = running.person(&running.operator).push(fleet.release(2).pushed()).await;
    assert_eq!(pushed.0, StatusCode::SERVICE_UNAVAILABLE, "{}", pushed.1);
    assert_eq!(pushed.1["detail"], detail, "{}", pushed.1);
    database.disk.free();
    running.until_ready(StatusCode::OK, "").await;
    running.push(&fleet.release(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_a_database_server_in_mid_rollout_loses_no_report_and_no_order() {
    let Some(database) = SmallCluster::start().await else { return };
    let story = story_over(database.cluster.database("filled").await).await;
    let mut alarms = 0;
    for seq in 1..=3 {
        story.release(seq, soaking(1)).await;
        database.disk.fill();
        take_the_rest(&story.running.store, &format!("full-{seq}")).await;
        alarms += u32::from(is_missed(&story, seq).await);
        database.disk.free();
        assert_ordered_once(&story.until_converged(seq).await, seq);
        story.running.until_ready(StatusCode::OK, "").await;
    }
    assert!(alarms > 0, "three rollouts took no room at all");
    assert_whole(&story).await;
}
