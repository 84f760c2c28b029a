//! The server under test: the program in a process of its own, and what the kernel says of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::store::Store;
use nixfleet_control_plane::store::tokens::{Made, Role};
use nixfleet_sys::fs;
use nixfleet_sys::pin::Pin;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustix::process::{Pid, Signal, kill_process};

use crate::fleet::{Fleet, now};

/// Ticks of a process' clock in a second; the same on every Linux that there is.
const TICKS: u64 = 100;

/// The folder of a server, with all that it needs.
pub(crate) struct Prepared {
    dir: PathBuf,
    program: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) pin: Pin,
    pub(crate) token: String,
}

impl Prepared {
    /// Writes configuration, certificate and root into `dir`, and makes a token of an operator.
    pub(crate) async fn make(dir: &Path, program: &Path, fleet: &Fleet, database: &Database) -> Result<Self> {
        let pair = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&pair)?;
        let pem = format!("{}{}", certificate.pem(), pair.serialize_pem());
        fs::write_atomic(&dir.join("server.pem"), pem.as_bytes())?;
        fs::write_atomic(&dir.join("root.json"), &fleet.root(1))?;
        let address = free_address()?;
        let (file, engine) = (
            dir.display(),
            match database {
                Database::Sqlite(path) => format!("sqlite:{}", path.display()),
                Database::Postgres(address) => address.clone(),
            },
        );
        let config = format!(
            "listen = \"{address}\"\ncertificate = \"{file}/server.pem\"\ncertificate-key = \"{file}/server.pem\"\n\
             root = \"{file}/root.json\"\ndatabase = \"{engine}\"\nconnections-max = \"1000000\"\n"
        );
        fs::write_atomic(&dir.join("control-plane.toml"), config.as_bytes())?;
        let store = Store::open(database).await?;
        let Made::Token(token) = store.make_token("load", Role::Operator, now()).await? else {
            bail!("the token is there already");
        };
        store.close().await;
        let pin = Pin::of(&pair.subject_public_key_info());
        Ok(Self { dir: dir.to_owned(), program: program.to_owned(), address, pin, token })
    }

    /// Starts the program.
    #[expect(clippy::disallowed_methods, reason = "it is looked at and killed by its number while it runs")]
    pub(crate) fn start(&self) -> Result<Running> {
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.dir.join("control-plane.toml"))
            .arg("run")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start `{}`", self.program.display()))?;
        Ok(Running { child })
    }
}

/// An address that is free now.
fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A server that runs; it is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// Memory that is resident now, in bytes.
    pub(crate) resident: u64,
    /// The most that ever was.
    pub(crate) resident_max: u64,
    /// Processor time, in milliseconds.
    pub(crate) processor_ms: u64,
}

/// What the simulated agents have used so far: this process.
pub(crate) fn used_by_us() -> Result<Used> {
    used_by("self")
}

fn used_by(process: &str) -> Result<Used> {
    let folder = PathBuf::from("/proc").join(process);
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).with_context(|| format!("cannot read its {name}"))
    };
    let status = read("status")?;
    let kib = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        Ok(1024 * line.context("a field of status")?.trim().trim_end_matches(" kB").parse::<u64>()?)
    };
    let stat = read("stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("its stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    ensure!(fields.len() > 12, "its stat is short");
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Used { resident: kib("VmRSS:")?, resident_max: kib("VmHWM:")?, processor_ms: ticks * 1000 / TICKS })
}

impl Running {
    /// What it has used so far.
    pub(crate) fn used(&self) -> Result<Used> {
        used_by(&self.child.id().to_string())
    }

    /// Ends it in order. Returns how long that took.
    pub(crate) async fn end(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("its number")?;
        kill_process(pid, Signal::TERM)?;
        while self.child.try_wait()?.is_none() {
            ensure!(begun.elapsed() < Duration::from_mins(1), "the server does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(begun.elapsed())
    }
}

/// Memory of all sockets of this machine, in bytes: of both ends of each connection.
pub(crate) fn socket_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/net/sockstat").context("cannot read sockstat")?;
    let pages = text.lines().find(|line| line.starts_with("TCP:")).and_then(|line| line.rsplit(' ').next());
    Ok(pages.context("the pages of TCP")?.parse::<u64>()? * 4096)
}
