//! What was acknowledged is there after a restart, and what is derived is derived again.

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::store::{Store, StoreError, backup};
use reqwest::StatusCode;

use crate::fleet::{Fleet, Host, now};
use crate::running::Running;

#[tokio::test]
async fn after_a_restart_everything_is_as_it_was_and_waiting_polls_were_answered() {
    let fleet = Fleet::of(&["web-1"]);
    let mut running = Running::start(&fleet).await;
    let release = fleet.release(1);
    running.push(&release).await;
    let mut host = Host::started("web-1");
    host.verified(&release);
    running.host(&fleet.hosts[&host.name]).report(&host.log).await;
    let waiting = running.host(&fleet.hosts[&host.name]);
    let poll = tokio::spawn(async move { waiting.get("/v1/agent/orders?after=0").await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    running.stop().await;
    // Either it was answered, or it had not begun and was not taken any more.
    if let Ok((status, orders)) = poll.await {
        assert_eq!((status, orders["orders"].as_array().map(Vec::len)), (StatusCode::OK, Some(0)));
    }
    running.again().await;
    let web_1 = running.host(&fleet.hosts[&host.name]);
    assert_eq!(web_1.report(&host.log).await.next, host.state.seq + 1);
    assert_eq!(running.person(&running.viewer).get("/v1/fleet").await.1["releases"][0]["seq"], 1);
}

#[tokio::test]
async fn a_rebuild_gives_the_same_projections_again_also_after_old_events_are_gone() {
    let fleet = Fleet::of(&["web-1", "web-2"]);
    let running = Running::start(&fleet).await;
    let mut hosts = [Host::started("web-1"), Host::started("web-2")];
    for seq in 1..=3 {
        let release = fleet.release(seq);
        running.push(&release).await;
        for host in &mut hosts {
            host.verified(&release);
            host.staged(&release);
            running.host(&fleet.hosts[&host.name]).report(&host.log).await;
        }
    }
    let look = async || {
        let hosts = running.store.hosts("", None, 10).await.expect("read");
        let releases = running.store.newest_releases().await.expect("read");
        (hosts, releases)
    };
    let before = look().await;
    let folded = running.store.rebuild(now()).await.expect("it folds");
    assert!(folded > 10);
    assert_eq!(look().await, before);
    let removed = running.store.retain(now(), now()).await.expect("it removes");
    assert_eq!((removed.compacted, removed.releases), (2, 2), "{removed:?}");
    assert!(running.store.rebuild(now()).await.expect("it folds") < folded);
    let after = look().await;
    let states = |listed: &[nixfleet_control_plane::store::fleet::HostListed]| {
        listed.iter().map(|host| host.state.clone()).collect::<Vec<_>>()
    };
    assert_eq!(states(&after.0), states(&before.0));
    assert_eq!(after.1, before.1);
}

#[tokio::test]
async fn a_backup_taken_while_hosts_report_is_whole_and_can_be_put_back() {
    let fleet = Fleet::of(&["web-1"]);
    let mut running = Running::start(&fleet).await;
    let release = fleet.release(1);
    running.push(&release).await;
    let mut host = Host::started("web-1");
    let web_1 = running.host(&fleet.hosts[&host.name]);
    web_1.report(&host.log).await;
    let copy = running.dir.path().join("copy.db");
    running.store.backup(&copy).await.expect("it copies");
    let known = host.state.seq;
    host.verified(&release);
    web_1.report(&host.log).await;
    running.stop().await;
    nixfleet_control_plane::store::backup::restore(&running.config.database, &copy)
        .await
        .expect("it is put back");
    running.again().await;
    let web_1 = running.host(&fleet.hosts[&host.name]);
    // What the backup does not have is asked for, and comes again.
    let taken = web_1.hello(&host, 1, false).await;
    assert_eq!(taken.next, known + 1);
    assert_eq!(web_1.report(&host.log).await.next, host.state.seq + 1);
}

#[tokio::test]
async fn a_backup_is_not_put_back_under_a_server_that_runs_and_what_was_there_is_kept_each_time() {
    let fleet = Fleet::of(&["web-1"]);
    let mut running = Running::start(&fleet).await;
    let copy = running.dir.path().join("copy.db");
    running.store.backup(&copy).await.expect("it copies");
    let restore = async |running: &Running| backup::restore(&running.config.database, &copy).await;
    let refused = restore(&running).await.expect_err("it is served");
    assert!(
        matches!(refused, StoreError::InUse(_)) && refused.to_string().contains("end it first"),
        "{refused}"
    );
    running.push(&fleet.release(1)).await;
    running.stop().await;
    restore(&running).await.expect("it is put back");
    restore(&running).await.expect("and once more");
    let kept = |name: &str| Database::Sqlite(running.dir.path().join(name));
    let first = Store::open(&kept("control-plane.before-restore")).await.expect("it is kept");
    assert_eq!(first.newest_releases().await.expect("read").len(), 1, "it is what the server left");
    first.close().await;
    let second = Store::open(&kept("control-plane.before-restore-2")).await.expect("it is kept");
    assert_eq!(second.newest_releases().await.expect("read").len(), 0);
    second.close().await;
    running.again().await;
}
