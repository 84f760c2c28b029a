//! A throw-away PostgreSQL server for a control plane under test: it can be ended in three ways, and its disk can be full.
//!
//! It runs as `nobody`, is reached over a socket in its own folder, and is started again whenever it ends while it is wanted, as
//! a service manager would. A disk of its own is a small file system in a mount namespace of its own: nothing of it is left on
//! the machine, however the test ends.
//!
//! Limits: what is written is not synced, as no test cuts the power of this machine.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::run_dir::RunDir;
use crate::spawn::{self, Running};
use crate::wait::wait_until;

/// A generous limit for its start, and for its end.
const LIMIT: Duration = Duration::from_mins(1);

/// Makes the cluster, and keeps its server running while there is a file `wanted`. Arguments: the folder, that of PostgreSQL's
/// programs, the size of the disk in MiB or 0.
const SUPERVISE: &str = r#"
folder=$1 programs=$2 size=$3 data=$1/data
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups --pdeathsig=KILL "$@"; }
mkdir -p "$data" && chown 65534:65534 "$folder" "$data" || exit 1
if [ "$size" != 0 ]; then
  mount -t tmpfs -o "size=${size}m,mode=0700,uid=65534,gid=65534" tmpfs "$data" || exit 1
fi
as_nobody "$programs/initdb" --no-sync --encoding=UTF8 --locale=C.UTF-8 --auth=trust --username=fleet \
  --wal-segsize=1 -D "$data" >&2 || exit 1
while :; do
  if [ -e "$folder/wanted" ]; then
    as_nobody "$programs/postgres" -F -D "$data" -k "$folder" -h '' -c max_wal_size=16MB >&2
  fi
  sleep 0.1
done
"#;

/// Where the database lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// On the machine's own.
    Machine,
    /// On one of its own of so many MiB; an empty cluster takes some 40.
    OfMib(u32),
}

/// How a database server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Connections are ended and what is in memory is written.
    Fast,
    /// At once; the log is replayed at the next start.
    Immediate,
    /// By SIGKILL to its first process: not even its children are told.
    Killed,
}

/// A running server; it ends with this.
#[derive(Debug)]
pub struct Postgres {
    folder: RunDir,
    programs: PathBuf,
    supervisor: Option<Running>,
}

impl Postgres {
    /// Whether it is installed.
    pub fn is_installed() -> bool {
        programs().is_some()
    }

    /// A fresh one.
    pub fn start(disk: Disk) -> Result<Self> {
        let programs = programs().context("PostgreSQL is not installed: `cargo xtask setup`")?;
        let folder = RunDir::new("postgres")?;
        let mib = match disk {
            Disk::Machine => 0,
            Disk::OfMib(mib) => mib,
        };
        let at = folder.path.join("pg");
        fs::create_dir_all(&at).context("make the folder of PostgreSQL")?;
        let unshared = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation", "private"];
        let mut argv: Vec<&OsStr> = unshared.iter().map(OsStr::new).collect();
        let mib = mib.to_string();
        argv.extend(["bash", "-c", SUPERVISE, "bash"].map(OsStr::new));
        argv.extend([at.as_os_str(), programs.as_os_str(), OsStr::new(&mib)]);
        let supervisor = Some(spawn::start(&argv)?);
        let mut server = Self { folder, programs, supervisor };
        server.begin()?;
        Ok(server)
    }

    /// Its address, for the configuration of a control plane.
    pub fn address(&self) -> String {
        format!("postgres://fleet@localhost/postgres?host={}", self.at().display())
    }

    /// Starts it after [`Postgres::end`], and returns when it answers.
    pub fn begin(&mut self) -> Result<()> {
        crate::files::put(&self.at().join("wanted"), b"", 0o644)?;
        self.until_it_answers()
    }

    /// Returns when it answers.
    pub fn until_it_answers(&self) -> Result<()> {
        let program = self.programs.join("pg_isready").display().to_string();
        let folder = self.at().display().to_string();
        let argv = [&program, "-q", "-h", &folder, "-U", "fleet", "-d", "postgres"];
        let answers = wait_until("PostgreSQL to answer", LIMIT, || {
            spawn::run(&argv, LIMIT).is_ok_and(|said| said.ok()).then_some(())
        });
        answers.with_context(|| self.said())
    }

    /// Ends it this way, and returns when it is gone. It stays away until [`Postgres::begin`].
    pub fn end(&mut self, how: End) -> Result<()> {
        fs::remove_file(self.at().join("wanted")).context("it is not wanted any more")?;
        let lock = self.data()?.join("postmaster.pid");
        let text = fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
        let pid = pid.context("no process")?;
        let signal = match how {
            End::Fast => Signal::INT,
            End::Immediate => Signal::QUIT,
            End::Killed => Signal::KILL,
        };
        kill_process(pid, signal).context("end PostgreSQL")?;
        wait_until("PostgreSQL to end", LIMIT, || test_kill_process(pid).is_err().then_some(()))
            .with_context(|| self.said())
    }

    /// Takes all the room that is left on its disk.
    pub fn fill(&self) -> Result<()> {
        crate::small_disk::fill(&self.filler()?)
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.filler()?).context("remove the filler")
    }

    /// What it has said.
    pub fn said(&self) -> String {
        self.supervisor.as_ref().map(Running::stderr_so_far).unwrap_or_default()
    }

    fn at(&self) -> PathBuf {
        self.folder.path.join("pg")
    }

    /// Its data, as its own mounts show it.
    fn data(&self) -> Result<PathBuf> {
        let Some(supervisor) = &self.supervisor else { bail!("PostgreSQL is gone") };
        let root = PathBuf::from(format!("/proc/{}/root", supervisor.pid()));
        let at = self.at().join("data");
        Ok(root.join(at.strip_prefix("/").context("not an absolute path")?))
    }

    fn filler(&self) -> Result<PathBuf> {
        Ok(self.data()?.join("filler"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // All that it started ends with it.
        self.supervisor = None;
        let _ = wait_until("what PostgreSQL wrote to go", LIMIT, || {
            let _ = fs::remove_dir_all(&self.folder.path);
            (!self.folder.path.exists()).then_some(())
        });
    }
}

/// The newest that is installed.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}
