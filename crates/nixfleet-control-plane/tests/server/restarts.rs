//! What was acknowledged is there after a restart, and what is derived is derived again.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::store::{Store, StoreError, backup};
use nixfleet_sys::fs::{Lock, Owner, owner, write_atomic};
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
        let hosts = running.hosts_of_the_log().await;
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

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_backup_is_private_and_what_is_put_back_belongs_to_whom_the_old_file_belonged() {
    let fleet = Fleet::of(&["web-1"]);
    let mut running = Running::start(&fleet).await;
    let (copy, file) = (running.dir.path().join("copy.db"), running.dir.path().join("control-plane.db"));
    running.store.backup(&copy).await.expect("it copies");
    assert_eq!(mode(&copy), 0o600, "it has the hashes of tokens in it");
    running.stop().await;
    // It came back from somewhere that gave it to everybody.
    std::fs::set_permissions(&copy, Permissions::from_mode(0o644)).expect("it is ours");
    let server = given_away(&[&file]);
    backup::restore(&running.config.database, &copy).await.expect("it is put back");
    assert_eq!((mode(&file), owner(&file).expect("it is there")), (0o600, server));
    // Where there is none, as on a new machine, the folder says whose it is.
    let elsewhere = running.dir.path().join("new");
    std::fs::create_dir(&elsewhere).expect("a folder");
    let server = given_away(&[&elsewhere]);
    let file = elsewhere.join("control-plane.db");
    backup::restore(&Database::Sqlite(file), &copy).await.expect("it is put back");
    for name in ["control-plane.db", "control-plane.db.lock"] {
        let file = elsewhere.join(name);
        assert_eq!((mode(&file), owner(&file).expect("it is there")), (0o600, server), "{name}");
    }
    running.again().await;
}

#[allow(clippy::print_stdout, reason = "`cargo xtask test` collects these lines from tests that passed")]
/// Gives these to the user that a server runs as. Without root nothing can be given away, and they stay ours.
fn given_away(paths: &[&Path]) -> Owner {
    let ours = owner(paths[0]).expect("it is there");
    if ours.user != 0 {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is left out: it takes root");
        println!("LEFT OUT: whose file is put back: only root can give files away");
        return ours;
    }
    let server = Owner { user: 64_999, group: 64_998 };
    for path in paths {
        std::os::unix::fs::chown(path, Some(server.user), Some(server.group)).expect("we are root");
    }
    server
}

#[tokio::test]
async fn what_root_takes_hold_of_belongs_to_the_owner_of_the_folder_also_where_the_database_is_roots() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, copy) = (folder.path().join("fleet.db"), folder.path().join("copy.db"));
    let database = Database::Sqlite(file.clone());
    let store = Store::open(&database).await.expect("a database");
    store.backup(&copy).await.expect("it copies");
    store.close().await;
    let server = given_away(&[folder.path()]);
    let lock = folder.path().join("fleet.db.lock");
    drop(backup::hold(&database).expect("nobody serves it"));
    assert_eq!((mode(&lock), owner(&lock).expect("it is there")), (0o600, server));
    backup::restore(&database, &copy).await.expect("it is put back");
    assert_eq!((mode(&file), owner(&file).expect("it is there")), (0o600, server));
}

#[tokio::test]
async fn what_a_server_puts_in_the_place_of_the_lock_or_of_the_copy_is_not_given_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, copy) = (folder.path().join("fleet.db"), folder.path().join("copy.db"));
    let (database, secret) = (Database::Sqlite(file.clone()), folder.path().join("shadow"));
    let store = Store::open(&database).await.expect("a database");
    store.backup(&copy).await.expect("it copies");
    store.close().await;
    write_atomic(&secret, b"root").expect("a file");
    let (ours, server) = (owner(&secret).expect("it is there"), given_away(&[folder.path(), &file]));
    let lock = folder.path().join("fleet.db.lock");
    std::os::unix::fs::symlink(&secret, &lock).expect("a link");
    let refused = backup::restore(&database, &copy).await.expect_err("a link");
    assert!(refused.to_string().starts_with("cannot open the lock `"), "{refused}");
    assert!(backup::hold(&database).is_err());
    std::fs::remove_file(&lock).expect("it is there");
    if server.user != ours.user {
        std::fs::hard_link(&secret, &lock).expect("a name");
        assert!(backup::restore(&database, &copy).await.is_err());
        std::fs::remove_file(&lock).expect("it is there");
    }
    std::os::unix::fs::symlink(&secret, folder.path().join("fleet.restored")).expect("a link");
    backup::restore(&database, &copy).await.expect("it is put back");
    assert_eq!(owner(&secret).expect("it is there"), ours);
    assert_eq!(std::fs::read(&secret).expect("it is there"), b"root");
    assert_eq!(owner(&file).expect("it is there"), server);
    drop(Lock::try_take(&lock).expect("no error").expect("it is free"));
}
