//! A control plane for a fleet of hosts: the real program, in the network of the hosts, with the folder of the office as its
//! releases. It can be killed, started again, and robbed of its database. Used by the demo and by end-to-end tests.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::fleet::{StaticFleet, follow_as};
use crate::small_disk::SmallDisk;
use crate::spawn::{self, Output, Running};
use crate::wait::wait_until;

/// Where it listens, at the hub of the network.
const PORT: u16 = 8_443;
/// What one request of a person may take. Acts are not repeated: on a busy machine they must have the time that they need.
const ASK_LIMIT: Duration = Duration::from_mins(2);
/// The same for the part of it that waits for the answer, in seconds.
const ANSWER_LIMIT_SECS: &str = "100";
/// Until it answers after it was started.
const START_LIMIT: Duration = Duration::from_mins(1);
/// What a verb at its side may take.
const VERB_LIMIT: Duration = Duration::from_mins(1);

/// A control plane; it ends with this.
#[derive(Debug)]
pub struct ControlPlane {
    program: PathBuf,
    /// Its configuration, its key and its database.
    folder: PathBuf,
    namespace: PathBuf,
    /// The mounts that it sees, if they are not the machine's.
    mounts: Option<PathBuf>,
    gateway: String,
    running: Option<Running>,
    pin: String,
    operator: String,
}

impl ControlPlane {
    /// Starts one for a fleet, with a database in a file; its hosts do not follow it yet.
    pub fn start(fleet: &StaticFleet, program: &Path) -> Result<Self> {
        let database = format!("sqlite:{}", folder_of(fleet).join("control-plane.db").display());
        Self::start_over(fleet, program, &database)
    }

    /// The same with the file on this disk, which must stay.
    pub fn start_on(fleet: &StaticFleet, program: &Path, disk: &SmallDisk) -> Result<Self> {
        let database = format!("sqlite:{}", disk.at().join("control-plane.db").display());
        Self::start_in(fleet, program, &database, Some(disk.namespace()))
    }

    /// The same over a database at this address.
    pub fn start_over(fleet: &StaticFleet, program: &Path, database: &str) -> Result<Self> {
        Self::start_in(fleet, program, database, None)
    }

    fn start_in(
        fleet: &StaticFleet,
        program: &Path,
        database: &str,
        mounts: Option<PathBuf>,
    ) -> Result<Self> {
        let folder = folder_of(fleet);
        fs::create_dir_all(&folder).context("make the folder of the control plane")?;
        let gateway = fleet.net().gateway().to_owned();
        let at = |name: &str| folder.join(name).display().to_string();
        let root = fleet.served().join("root/1.json");
        let config = format!(
            "listen = \"{gateway}:{PORT}\"\ncertificate = \"{}\"\ncertificate-key = \"{}\"\nroot = \"{}\"\n\
             database = \"{database}\"\nreleases = \"{}\"\n",
            at("server.pem"),
            at("server.pem"),
            root.display(),
            fleet.served().display(),
        );
        crate::files::put(&folder.join("control-plane.toml"), config.as_bytes(), 0o644)?;
        let mut control_plane = Self {
            program: program.to_owned(),
            namespace: fleet.net().namespace(),
            mounts,
            gateway: gateway.clone(),
            folder,
            running: None,
            pin: String::new(),
            operator: String::new(),
        };
        let made = control_plane.verb(&["certificate", &gateway])?;
        made.text().clone_into(&mut control_plane.pin);
        control_plane.make_token()?;
        control_plane.run(fleet)?;
        Ok(control_plane)
    }

    fn make_token(&mut self) -> Result<()> {
        let made = self.verb(&["token", "add", "ann", "--role", "operator"])?;
        made.text().clone_into(&mut self.operator);
        Ok(())
    }

    fn words(&self, verb: &[&str]) -> Vec<String> {
        let mut words = vec![self.program.display().to_string(), "--config".to_owned(), self.config()];
        words.extend(verb.iter().map(|word| (*word).to_owned()));
        self.in_network(words)
    }

    fn config(&self) -> String {
        self.folder.join("control-plane.toml").display().to_string()
    }

    /// A program that ends with the test, whatever becomes of it, in the network of the hosts.
    fn in_network(&self, argv: Vec<String>) -> Vec<String> {
        let net = format!("--net={}", self.namespace.display());
        let first = ["setpriv", "--pdeathsig=KILL", "nsenter", &net];
        let mounts = self.mounts.iter().map(|mounts| format!("--mount={}", mounts.display()));
        first.into_iter().map(str::to_owned).chain(mounts).chain(argv).collect()
    }

    /// A verb at its side, which must end well.
    pub fn verb(&self, verb: &[&str]) -> Result<Output> {
        let words = self.words(verb);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        spawn::run(&words, VERB_LIMIT)?.success()
    }

    /// Starts it, and waits until it answers.
    pub fn run(&mut self, fleet: &StaticFleet) -> Result<()> {
        self.run_program(fleet, &self.words(&["run"]))
    }

    /// The same with a clock that is so many hours ahead, by the program that can do that (the example `skewed`).
    pub fn run_skewed(&mut self, fleet: &StaticFleet, program: &Path, hours: i64) -> Result<()> {
        let argv = vec![program.display().to_string(), hours.to_string(), self.config()];
        self.run_program(fleet, &self.in_network(argv))
    }

    fn run_program(&mut self, fleet: &StaticFleet, words: &[String]) -> Result<()> {
        self.running = Some(spawn::start(&words.iter().map(OsStr::new).collect::<Vec<_>>())?);
        let ready = wait_until("the control plane to answer", START_LIMIT, || {
            self.readiness(fleet).is_ok_and(|(status, _)| status == 200).then_some(())
        });
        ready.with_context(|| self.said())
    }

    /// Ends it by SIGKILL at this instant.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }

    /// Removes its database, and with it all that it knew. It must not run.
    pub fn forget_everything(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "its database is in use");
        for suffix in ["", "-wal", "-shm"] {
            match fs::remove_file(self.folder.join(format!("control-plane.db{suffix}"))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context("remove the database");
                }
                Ok(()) | Err(_) => {}
            }
        }
        self.make_token()
    }

    /// What it has said.
    pub fn said(&self) -> String {
        self.running.as_ref().map(Running::stderr_so_far).unwrap_or_default()
    }

    /// Has a host of the fleet follow it, and nothing else.
    pub fn lead(&self, fleet: &StaticFleet, host: &crate::Host) -> Result<()> {
        self.lead_by(fleet, host, PORT)
    }

    /// [`ControlPlane::lead`], by way of whoever has the same certificate and listens at this port of the hub.
    pub fn lead_by(&self, fleet: &StaticFleet, host: &crate::Host, port: u16) -> Result<()> {
        let private = fleet.private_key_of(host)?;
        let source = format!("control-plane+https://{}:{port}", self.gateway);
        let lines = format!("pins = [\"{}\"]\nreboot = \"as-released\"\n", self.pin);
        follow_as(host, &source, &private, &lines)
    }

    /// The address at which it listens, in the network of its hosts.
    pub fn address(&self) -> String {
        format!("{}:{PORT}", self.gateway)
    }

    /// Its certificate and its private key, PEM.
    pub fn identity(&self) -> Result<String> {
        fs::read_to_string(self.folder.join("server.pem")).context("read its certificate")
    }

    /// Gives it another certificate and private key, PEM, for its next start.
    pub fn identify_by(&self, pem: &str) -> Result<()> {
        crate::files::put(&self.folder.join("server.pem"), pem.as_bytes(), 0o600)
    }

    /// The pin by which hosts know it.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// Whether it says that it is ready: the status and the answer of `/readyz`.
    pub fn readiness(&self, fleet: &StaticFleet) -> Result<(u16, Value)> {
        self.curl(fleet, &["/readyz"])
    }

    /// What a person is answered who asks for `path`, which must be there.
    pub fn get(&self, fleet: &StaticFleet, path: &str) -> Result<Value> {
        match self.curl(fleet, &[path])? {
            (200, answer) => Ok(answer),
            (status, answer) => bail!("{path}: {status} {answer}"),
        }
    }

    /// A person acts; the status and the answer.
    pub fn post(&self, fleet: &StaticFleet, path: &str, body: &Value) -> Result<(u16, Value)> {
        let body = body.to_string();
        self.curl(fleet, &[path, "-H", "Content-Type: application/json", "-d", &body])
    }

    /// Runs a verb of the operator's command line in the office, as the person with the token; it must end well.
    pub fn ask(&self, fleet: &StaticFleet, verb: &[&str]) -> Result<Output> {
        let argv = self.asking(verb);
        fleet.office().run_for(ASK_LIMIT, &argv.iter().map(String::as_str).collect::<Vec<_>>())?.success()
    }

    /// The same for a verb that goes on: it runs until what is returned is dropped.
    pub fn watch(&self, fleet: &StaticFleet, verb: &[&str]) -> Result<Running> {
        let argv = self.asking(verb);
        fleet.office().spawn(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn asking(&self, verb: &[&str]) -> Vec<String> {
        let mut argv = vec![
            "/usr/bin/env".to_owned(),
            format!("NIXFLEET_SERVER=https://{}:{PORT}", self.gateway),
            format!("NIXFLEET_TOKEN={}", self.operator),
            format!("NIXFLEET_PIN={}", self.pin),
            crate::fleet::CLI.to_owned(),
        ];
        argv.extend(verb.iter().map(|word| (*word).to_owned()));
        argv
    }

    /// From the office, which is in the network.
    fn curl(&self, fleet: &StaticFleet, words: &[&str]) -> Result<(u16, Value)> {
        let (path, rest) = words.split_first().context("no path")?;
        let address = format!("https://{}:{PORT}{path}", self.gateway);
        let token = format!("Authorization: Bearer {}", self.operator);
        let mut argv =
            vec!["curl", "-sS", "-k", "--pinnedpubkey", &self.pin, "-w", "\n%{http_code}", "-H", &token];
        argv.extend(["-m", ANSWER_LIMIT_SECS]);
        argv.extend(rest);
        argv.push(&address);
        let said = fleet.office().run_for(ASK_LIMIT, &argv)?.success()?;
        let (body, status) = said.stdout.rsplit_once('\n').context("no status")?;
        let status = status.trim().parse().context("a status")?;
        Ok((status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))))
    }
}

/// Where everything of the control plane of a fleet lies.
fn folder_of(fleet: &StaticFleet) -> PathBuf {
    fleet.outside().with_file_name("control-plane")
}
