//! A throw-away PostgreSQL cluster, reached over a socket in its own folder. Not for root: it runs as `nobody`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_control_plane::config::Database;
use nixfleet_sys::exec::Cmd;
use sqlx::Connection;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::running::SOON;

/// It ends itself after so long, whatever became of the test.
const LIVES: &str = "2400";

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
    #[expect(clippy::print_stdout, reason = "`cargo xtask test` collects these lines")]
    pub(crate) async fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed: `cargo xtask setup`");
            println!("LEFT OUT: the database tests on PostgreSQL (it is not installed: `cargo xtask setup`)");
            return None;
        };
        let dir = tempfile::tempdir().expect("a folder");
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
            .arg(&data);
        made.run().await.and_then(nixfleet_sys::exec::Finished::success).expect("a cluster");
        let server = as_nobody(&programs.join("postgres")).arg("-D").arg(&data).arg("-k").arg(dir.path());
        let server = server.args(["-h", "", "-F"]).deadline(Duration::from_mins(40));
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
        tokio::time::timeout(SOON, connected).await.expect("it comes up");
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

fn as_nobody(program: &Path) -> Cmd {
    let cmd = Cmd::new("/usr/bin/timeout").args(["--signal=QUIT", LIVES]);
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
