//! Replicas that stand still or come all at once, and a database that says nothing any more: others go on, and it is said.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::store::Store;
use nixfleet_control_plane::store::ingest::{Ingest, NotTaken, Sent};
use nixfleet_control_plane::store::patience::Patience;
use nixfleet_control_plane::store::tokens::Role;
use nixfleet_core::wire::people::TroubleKind;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::fleet::{Host, now};
use crate::running::SOON;
use crate::stores::{raw, served};

/// Little of it, so that a test need not wait for long. A write of these tests takes some milliseconds.
fn impatient() -> Patience {
    Patience { write: Duration::from_secs(8), lock: Duration::from_secs(20), idle: Duration::from_secs(10) }
}

/// What stands between us and PostgreSQL, and can fall silent.
struct Relay {
    dir: TempDir,
    /// Connections below this number get nothing any more, in either direction, and are not closed.
    silent_below: watch::Sender<u64>,
    made: Arc<AtomicU64>,
    running: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Relay {
    /// One before the server of this database.
    fn before(database: &Database) -> (Self, Database) {
        let Database::Postgres(address) = database else { panic!("{database} is no server") };
        let (start, folder) = address.split_once("?host=").expect("it is reached over a socket");
        let to = Path::new(folder).join(".s.PGSQL.5432");
        let dir = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).expect("a socket");
        let (silent_below, made) = (watch::Sender::new(0), Arc::new(AtomicU64::new(0)));
        let (silence, numbers) = (silent_below.clone(), Arc::clone(&made));
        let running = tokio::spawn(async move {
            while let Ok((from_us, _)) = listener.accept().await {
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(pass(from_us, to.clone(), number, silence.subscribe()));
            }
        });
        let through = Database::Postgres(format!("{start}?host={}", dir.path().display()));
        (Self { dir, silent_below, made, running }, through)
    }

    /// The connections that there are fall silent; new ones do not.
    fn fall_silent(&self) {
        assert!(self.dir.path().exists());
        self.silent_below.send_replace(self.made.load(Ordering::SeqCst));
    }
}

async fn pass(mut from: UnixStream, to: std::path::PathBuf, number: u64, mut silent: watch::Receiver<u64>) {
    let Ok(mut to) = UnixStream::connect(&to).await else { return };
    let falls_silent = async { silent.wait_for(|below| number < *below).await.map(drop) };
    tokio::select! {
        _ = copy_bidirectional(&mut from, &mut to) => return,
        _ = falls_silent => {}
    }
    // Both ends stay open.
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stands_still_within_a_write_holds_up_nobody_for_long() {
    let Some(cluster) = Cluster::start().await else { return };
    let database = cluster.database("still").await;
    // The tables are made by one that has patience: each step is a transaction.
    Store::open(&database).await.expect("it opens").close().await;
    // Whoever waits has far more of it than the database needs to notice.
    let patience = Patience { write: Duration::from_secs(50), lock: Duration::from_secs(45), ..impatient() };
    let open = async || Store::open_with(&database, patience).await.expect("it opens");
    let (still, other) = (open().await, open().await);
    let write = still.begin(now()).await.expect("a write");
    // The process is stopped here, with the row that every write begins with.
    let made = timeout(SOON, other.make_token("ann", Role::Viewer, now())).await;
    made.expect("it is passed over").expect("kept");
    assert!(write.commit().await.is_err(), "what it had begun is given up");
    still.make_token("bob", Role::Viewer, now()).await.expect("and it goes on");
    assert_eq!(other.newest_event().await.expect("read"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_on_an_empty_database_all_start() {
    let Some(cluster) = Cluster::start().await else { return };
    let database = cluster.database("empty").await;
    // One stands still while it makes the first table, so all others get as far as that before any is through.
    let pool = raw(&database).await;
    let mut dies = pool.begin().await.expect("a transaction");
    let first = sqlx::query("CREATE TABLE schema_steps (step BIGINT PRIMARY KEY)");
    first.execute(&mut *dies).await.expect("nobody was here");
    let long = Duration::from_mins(5);
    let mut starting = JoinSet::new();
    for _ in 0..4 {
        let database = database.clone();
        let patience = Patience { write: long, lock: long, idle: long };
        starting.spawn(async move { Store::open_with(&database, patience).await });
    }
    timeout(SOON, cluster.until_so_many_wait("empty", 4)).await.expect("all are about to make it");
    dies.rollback().await.expect("it is given up");
    let all = async {
        while let Some(started) = starting.join_next().await {
            let store = started.expect("no panic").expect("it starts");
            assert_eq!(store.newest_event().await.expect("the tables are there"), 0);
        }
    };
    timeout(SOON, all).await.expect("they start");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_falls_silent_in_mid_write_is_missed_aloud_and_reports_are_taken_again() {
    let Some(cluster) = Cluster::start().await else { return };
    let database = cluster.database("silent").await;
    let (direct, _, _, documents) = served(&database, &["web-1"]).await;
    let (relay, through) = Relay::before(&database);
    let store = Store::open_with(&through, impatient()).await.expect("it opens");
    let (ingest, _task) =
        Ingest::start_with((2, Duration::from_millis(500)), store.clone(), now, watch::Sender::new(0));
    let mut host = Host::started("web-1");
    host.verified(&documents);
    let report = async || ingest.take(host.name.clone(), Sent::Records(host.log.clone())).await;
    // It waits for its turn when the other side falls silent.
    let turn = direct.begin(now()).await.expect("a write");
    let waits = tokio::spawn({
        let (ingest, name, log) = (ingest.clone(), host.name.clone(), host.log.clone());
        async move { ingest.take(name, Sent::Records(log)).await }
    });
    // The turn is over when the database knows of somebody who waits for it.
    timeout(SOON, cluster.until_so_many_wait("silent", 1)).await.expect("it begins");
    relay.fall_silent();
    drop(turn);
    let refused = timeout(SOON, waits).await.expect("an answer").expect("no panic").expect_err("not kept");
    assert!(matches!(refused, NotTaken::Store { kind: Some(TroubleKind::DatabaseAway), .. }), "{refused:?}");
    let troubles = store.troubles().now(now());
    assert_eq!(troubles.iter().map(|trouble| trouble.kind).collect::<Vec<_>>(), [TroubleKind::DatabaseAway]);
    let taken = async {
        loop {
            if let Ok(taken) = report().await {
                return taken;
            }
        }
    };
    let taken = timeout(SOON, taken).await.expect("it goes on");
    assert_eq!(taken.next, host.state.seq + 1);
    assert_eq!(store.troubles().now(now()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_full_while_nothing_is_written_is_trouble_of_the_database() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, ..) = served(&Database::Sqlite(dir.path().join("fleet.db")), &["web-1"]).await;
    let within = Duration::from_millis(300);
    let (ingest, _task) = Ingest::start_with((1, within), store.clone(), now, watch::Sender::new(0));
    let host = Host::started("web-1");
    // Nothing is written meanwhile.
    let turn = store.begin(now()).await.expect("a write");
    let mut sent = JoinSet::new();
    let full = async {
        loop {
            let (ingest, name, log) = (ingest.clone(), host.name.clone(), host.log.clone());
            sent.spawn(async move { ingest.take(name, Sent::Records(log)).await });
            if let Ok(Some(done)) = timeout(within * 3, sent.join_next()).await {
                return done.expect("no panic");
            }
        }
    };
    let refused = timeout(SOON, full).await.expect("an answer").expect_err("it is full");
    assert!(matches!(refused, NotTaken::Full), "{refused:?}");
    let troubles = store.troubles().now(now());
    assert_eq!(troubles.iter().map(|trouble| trouble.kind).collect::<Vec<_>>(), [TroubleKind::DatabaseAway]);
    drop(turn);
    while let Some(done) = sent.join_next().await {
        let _ = done.expect("no panic");
    }
    assert_eq!(store.troubles().now(now()), []);
}
