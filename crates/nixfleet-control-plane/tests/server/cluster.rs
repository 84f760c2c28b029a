//! A throw-away PostgreSQL cluster, reached over a socket in its own folder. Not for root: it runs as `nobody`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nixfleet_control_plane::config::Database;
use nixfleet_sys::exec::Cmd;
use sqlx::Connection;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// It ends itself after so long, whatever became of the test.
const LIVES: Duration = Duration::from_mins(40);
/// A generous limit for its start, and for its end.
const UP_WITHIN: Duration = Duration::from_mins(1);

/// Whether what is written is on the disk when it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Synced {
    /// As PostgreSQL does it by itself.
    #[allow(dead_code, reason = "the benchmark measures it; tests do not cut the power")]
    Yes,
    /// Faster, and whole as long as the machine is.
    No,
}

pub(crate) struct Cluster {
    dir: TempDir,
    programs: PathBuf,
    running: JoinHandle<()>,
    /// Whether it is meant to be there.
    wanted: Arc<AtomicBool>,
    synced: Synced,
}

/// How a database server ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// Connections are ended and what is in memory is written.
    Fast,
    /// At once; the log is replayed at the next start.
    Immediate,
    /// By SIGKILL to its first process: not even its children are told.
    Killed,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The program belongs to the task and ends with it.
        self.running.abort();
    }
}

impl Cluster {
    /// A fresh one; `None`, and said so, where PostgreSQL is not installed. In CI it must be.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(Synced::No).await
    }

    /// One that keeps what it has written as `synced` says.
    pub(crate) async fn start_with(synced: Synced) -> Option<Self> {
        Self::start_in(tempfile::tempdir().expect("a folder"), synced, &[]).await
    }

    /// One on a small disk, which is mounted at `data` of this folder: its log comes in small pieces.
    #[allow(dead_code, reason = "the benchmark fills no disk")]
    pub(crate) async fn start_small(dir: TempDir) -> Option<Self> {
        Self::start_in(dir, Synced::No, &["--wal-segsize=1"]).await
    }

    #[allow(clippy::print_stdout, reason = "`cargo xtask test` collects these lines")]
    async fn start_in(dir: TempDir, synced: Synced, more: &[&str]) -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed: `cargo xtask setup`");
            println!("LEFT OUT: the database tests on PostgreSQL (it is not installed: `cargo xtask setup`)");
            return None;
        };
        let data = dir.path().join("data");
        std::os::unix::fs::chown(dir.path(), nobody(), None).expect("a folder of nobody's");
        let made = as_nobody(&programs.join("initdb"))
            .args([
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--auth=trust",
                "--username=fleet",
                "-D",
            ])
            .arg(&data)
            .args(more);
        made.run().await.and_then(nixfleet_sys::exec::Finished::success).expect("a cluster");
        let wanted = Arc::new(AtomicBool::new(true));
        let running = serve(&programs, dir.path(), &wanted, synced);
        let cluster = Self { dir, programs, running, wanted, synced };
        cluster.wait().await;
        Some(cluster)
    }

    /// Ends the server this way, and returns when it is gone.
    pub(crate) async fn end(&mut self, how: End) {
        let lock = self.dir.path().join("data/postmaster.pid");
        let lock = std::fs::read_to_string(lock).expect("it runs");
        let pid = lock.lines().next().and_then(|line| line.trim().parse().ok()).expect("a number");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process");
        let signal = match how {
            End::Fast => rustix::process::Signal::INT,
            End::Immediate => rustix::process::Signal::QUIT,
            End::Killed => rustix::process::Signal::KILL,
        };
        self.wanted.store(false, Ordering::SeqCst);
        rustix::process::kill_process(pid, signal).expect("it runs");
        tokio::time::timeout(UP_WITHIN, &mut self.running).await.expect("it ends").expect("no panic");
    }

    /// Starts it again after [`Cluster::end`], and returns when it answers.
    pub(crate) async fn begin(&mut self) {
        self.wanted.store(true, Ordering::SeqCst);
        self.running = serve(&self.programs, self.dir.path(), &self.wanted, self.synced);
        self.wait().await;
    }

    fn address(&self, database: &str) -> String {
        format!("postgres://fleet@localhost/{database}?host={}", self.dir.path().display())
    }

    async fn wait(&self) {
        sqlx::any::install_default_drivers();
        let connected = async {
            while sqlx::AnyConnection::connect(&self.address("postgres")).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(UP_WITHIN, connected).await.expect("it comes up");
    }

    /// Ends every connection of everybody, as a restart does.
    pub(crate) async fn end_connections(&self) {
        let mut connection = sqlx::AnyConnection::connect(&self.address("postgres")).await.expect("it is up");
        sqlx::query(
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .execute(&mut connection)
        .await
        .expect("it ends them");
    }

    /// Has it begin the next piece of its log, which takes its room on the disk as a whole.
    #[allow(dead_code, reason = "the benchmark fills no disk")]
    pub(crate) async fn begin_log_piece(&self) {
        let mut connection = sqlx::AnyConnection::connect(&self.address("postgres")).await.expect("it is up");
        for text in
            ["SELECT pg_switch_wal()::text", "SELECT pg_logical_emit_message(TRUE, 'room', 'x')::text"]
        {
            sqlx::query(text).execute(&mut connection).await.expect("it does");
        }
    }

    /// Returns when so many wait for a lock in this database.
    #[allow(dead_code, reason = "the benchmark has no need of it")]
    pub(crate) async fn until_so_many_wait(&self, database: &str, wanted: i64) {
        let mut connection = sqlx::AnyConnection::connect(&self.address(database)).await.expect("it is up");
        loop {
            let waiting: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM pg_locks WHERE NOT granted")
                .fetch_one(&mut connection)
                .await
                .expect("read");
            if waiting >= wanted {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// An empty database in it.
    pub(crate) async fn database(&self, name: &str) -> Database {
        let mut connection = sqlx::AnyConnection::connect(&self.address("postgres")).await.expect("it is up");
        let create = format!("CREATE DATABASE {name}");
        sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut connection).await.expect("a database");
        Database::Postgres(self.address(name))
    }
}

/// The server, which ends with the task. It refuses to begin while children of one that was killed are there: then again.
fn serve(programs: &Path, folder: &Path, wanted: &Arc<AtomicBool>, synced: Synced) -> JoinHandle<()> {
    let (program, folder, wanted) = (programs.join("postgres"), folder.to_owned(), Arc::clone(wanted));
    tokio::spawn(async move {
        while wanted.load(Ordering::SeqCst) {
            let server = as_nobody(&program).arg("-D").arg(folder.join("data")).arg("-k").arg(&folder);
            let server = match synced {
                Synced::Yes => server,
                // Nor is there anything to tidy up in a test: who does that is in the way of who makes a database.
                Synced::No => server.args(["-F", "-c", "autovacuum=off"]),
            };
            let server = server.args(["-h", ""]).deadline(LIVES + Duration::from_secs(20));
            drop(server.run().await);
            sleep(Duration::from_millis(100)).await;
        }
    })
}

fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

fn as_nobody(program: &Path) -> Cmd {
    let cmd = Cmd::new("/usr/bin/timeout").args(["--signal=QUIT", &LIVES.as_secs().to_string()]);
    let cmd = match nobody() {
        Some(user) => {
            cmd.args(["setpriv", &format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"])
        }
        None => cmd,
    };
    cmd.arg(program).env("PATH", "/usr/bin:/bin")
}

/// Who it runs as, if we are root; else it runs as we do.
pub(crate) fn nobody() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(65_534)
}
