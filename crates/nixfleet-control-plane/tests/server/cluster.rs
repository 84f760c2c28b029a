//! A throw-away PostgreSQL cluster, reached over a socket in its own folder. Not for root: it runs as `nobody`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_control_plane::config::Database;
use nixfleet_sys::exec::Cmd;
use sqlx::Connection;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// It ends itself after so long, whatever became of the test.
const LIVES: Duration = Duration::from_mins(40);
/// A generous limit for its start.
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
    running: JoinHandle<()>,
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
        Self::start_for(LIVES, Synced::No).await
    }

    /// One that ends itself after `lives`.
    #[allow(clippy::print_stdout, reason = "`cargo xtask test` collects these lines")]
    pub(crate) async fn start_for(lives: Duration, synced: Synced) -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed: `cargo xtask setup`");
            println!("LEFT OUT: the database tests on PostgreSQL (it is not installed: `cargo xtask setup`)");
            return None;
        };
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        std::os::unix::fs::chown(dir.path(), nobody(), None).expect("a folder of nobody's");
        let made = as_nobody(&programs.join("initdb"), lives)
            .args([
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--auth=trust",
                "--username=fleet",
                "-D",
            ])
            .arg(&data);
        made.run().await.and_then(nixfleet_sys::exec::Finished::success).expect("a cluster");
        let server =
            as_nobody(&programs.join("postgres"), lives).arg("-D").arg(&data).arg("-k").arg(dir.path());
        let server = match synced {
            Synced::Yes => server,
            Synced::No => server.arg("-F"),
        };
        let server = server.args(["-h", ""]).deadline(lives + Duration::from_secs(20));
        let running = tokio::spawn(async move { drop(server.run().await) });
        let cluster = Self { dir, running };
        cluster.wait().await;
        Some(cluster)
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

    /// An empty database in it.
    pub(crate) async fn database(&self, name: &str) -> Database {
        let mut connection = sqlx::AnyConnection::connect(&self.address("postgres")).await.expect("it is up");
        let create = format!("CREATE DATABASE {name}");
        sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut connection).await.expect("a database");
        Database::Postgres(self.address(name))
    }
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

fn as_nobody(program: &Path, lives: Duration) -> Cmd {
    let cmd = Cmd::new("/usr/bin/timeout").args(["--signal=QUIT", &lives.as_secs().to_string()]);
    let cmd = match nobody() {
        Some(user) => {
            cmd.args(["setpriv", &format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"])
        }
        None => cmd,
    };
    cmd.arg(program).env("PATH", "/usr/bin:/bin")
}

/// Who it runs as, if we are root; else it runs as we do.
fn nobody() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(65_534)
}
