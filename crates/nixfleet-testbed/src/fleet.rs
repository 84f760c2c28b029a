//! A fleet without a server: hosts that follow signed releases from a web server, and the office where these are made.
//!
//! The office is a host too, since that is where Nix is. What it has published lies in a folder of the machine until
//! [`StaticFleet::publish`] copies it to the web server of the network, document by document and `latest` last, as a
//! person would with `rsync`. Used by the demo and by end-to-end tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::host::{Host, HostBuilder};
use crate::image::Flavour;
use crate::machine::Machine;
use crate::net::Net;
use crate::run_dir::RunDir;
use crate::spawn::Output;
use crate::systems::System;

/// The agent, inside.
const AGENT: &str = "/run/current-system/sw/bin/nixfleet-agent";
/// The operator's command line, inside the office.
pub(crate) const CLI: &str = "/testbed/nixfleet";
/// The fleet folder, inside the office.
const FOLDER: &str = "/root/fleet";
/// What one verb of the command line may take.
const LIMIT: Duration = Duration::from_mins(3);
const UNIT: &str = "nixfleet-agent.service";
const CONFIG: &str = "/etc/nixfleet/agent.toml";
const ROOT: &str = "/etc/nixfleet/root.json";
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key.pub";
/// The channel of every host.
pub const CHANNEL: &str = "stable";

/// Hosts that follow what the office publishes.
#[derive(Debug)]
pub struct StaticFleet {
    office: Host,
    hosts: Vec<Host>,
    net: Arc<Net>,
    /// The fleet folder, outside.
    folder: RunDir,
}

impl StaticFleet {
    /// Boots the office and a host of each name, makes the fleet's keys and its root, and gives each host its key, the
    /// root and the agent's configuration. `cli` is the operator's command line. The hosts follow at once, and there is
    /// no release yet.
    pub fn boot(flavour: Flavour, cli: &Path, names: &[&str]) -> Result<Self> {
        Self::boot_as(flavour, cli, names, |host| host)
    }

    /// The same, with hosts that wait for the disk, as where times are measured.
    pub fn boot_with_real_syncs(flavour: Flavour, cli: &Path, names: &[&str]) -> Result<Self> {
        Self::boot_as(flavour, cli, names, HostBuilder::real_syncs)
    }

    fn boot_as(
        flavour: Flavour,
        cli: &Path,
        names: &[&str],
        kind: impl Fn(HostBuilder) -> HostBuilder,
    ) -> Result<Self> {
        let net = Net::new(flavour)?;
        let folder = RunDir::new("fleet")?;
        let bound = folder.path.join("fleet");
        fs::create_dir_all(&bound).context("make the fleet folder")?;
        let office = Host::builder(flavour)
            .name("office")
            .net(&net)
            .bind(cli, Path::new(CLI))
            .bind(&bound, Path::new(FOLDER))
            .boot()?;
        let boot = |name: &&str| kind(Host::builder(flavour).name(name).net(&net)).boot();
        let hosts = names.iter().map(boot).collect::<Result<Vec<Host>>>()?;
        let fleet = Self { office, hosts, net, folder };
        fleet.cli(&["init", FOLDER, "--fleet-id", "acme"])?;
        fleet.publish()?;
        let root = fs::read_to_string(fleet.served().join("root/1.json")).context("the root")?;
        for host in &fleet.hosts {
            fleet.introduce(host, &root)?;
        }
        Ok(fleet)
    }

    fn introduce(&self, host: &Host, root: &str) -> Result<()> {
        self.cli(&["keys", "new", &format!("{FOLDER}/keys/{}", host.name())])?;
        host.write_file(ROOT, root)?;
        host.write_file(HOST_KEY, &self.key_of(host)?)?;
        self.follow(host, &format!("{}/releases", self.net.cache()?.url()))
    }

    /// Has a host follow this source from now on: an address, or a folder of its own.
    pub fn follow(&self, host: &Host, source: &str) -> Result<()> {
        configure(host, source, "")
    }

    /// The public key of a host, as the fleet description has it.
    pub fn key_of(&self, host: &Host) -> Result<String> {
        let file = self.outside().join("keys").join(format!("{}.pub", host.name()));
        let line = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        // Without the comment.
        Ok(line.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    /// The private key of a host, as text.
    pub fn private_key_of(&self, host: &Host) -> Result<String> {
        let file = self.outside().join("keys").join(host.name());
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    }

    /// The hosts that follow.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Where releases are made.
    pub fn office(&self) -> &Host {
        &self.office
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name() == name).expect("it is one of the fleet's")
    }

    /// Runs a verb in the fleet folder, which must end well.
    pub fn cli(&self, words: &[&str]) -> Result<Output> {
        let output = self.cli_in(FOLDER, words)?;
        ensure!(output.code == 0, "nixfleet {}: {output}", words.join(" "));
        Ok(output)
    }

    /// Runs a verb in a folder of the office, however it ends.
    pub fn cli_in(&self, folder: &str, words: &[&str]) -> Result<Output> {
        self.office.run_for(LIMIT, &[&[CLI, "-C", folder], words].concat())
    }

    /// Writes `fleet.json`.
    pub fn describe(&self, fleet: &Value) -> Result<()> {
        self.office.write_file(&format!("{FOLDER}/fleet.json"), &format!("{fleet:#}"))
    }

    /// A description in which every host shall run `system`, whose web service answers: the host `canary` at once, the
    /// others so long after the release was made.
    pub fn canary_first(&self, system: System, opens_after: Duration) -> Result<Value> {
        let probe = json!({
            "name": "web",
            "kind": { "http": { "url": "http://127.0.0.1:8000/health" } },
            // A busy machine may keep a good service waiting for seconds.
            "interval": "1s", "timeout": "5s", "failures": 10,
        });
        let mut hosts = serde_json::Map::new();
        for host in &self.hosts {
            let tags = if host.name() == "canary" { json!(["canary"]) } else { json!([]) };
            let entry = json!({
                "channel": CHANNEL, "tags": tags, "system": host.system(system),
                "key": self.key_of(host)?, "probes": [probe],
            });
            hosts.insert(host.name().to_owned(), entry);
        }
        let waves = json!([
            { "name": "canary", "hosts": { "tag": "canary" }, "soak": "1s" },
            { "name": "rest", "opens_after": format!("{}s", opens_after.as_secs()), "soak": "1s" },
        ]);
        let policy = json!({ "waves": waves, "confirm_within": "60s" });
        Ok(json!({ "fleet": "acme", "channels": { CHANNEL: { "policy": policy } }, "hosts": hosts }))
    }

    /// Builds and signs a release of what [`StaticFleet::describe`] wrote, and publishes it.
    pub fn release(&self, revision: &str) -> Result<()> {
        self.cli(&["release", "build", "--channel", CHANNEL, "--revision", revision])?;
        let key = format!("{FOLDER}/keys/release");
        self.cli(&["release", "sign", "--channel", CHANNEL, "--key", &key, "--yes"])?;
        self.publish()
    }

    /// Copies what is served to the web server; a reader sees either the old `latest` or the new one.
    pub fn publish(&self) -> Result<()> {
        self.publish_from(&self.served())
    }

    /// [`StaticFleet::publish`], of another folder.
    pub fn publish_from(&self, served: &Path) -> Result<()> {
        copy(served, &self.net.cache()?.folder().join("releases"))
    }

    /// The fleet folder, as the office sees it.
    pub fn folder(&self) -> &'static str {
        FOLDER
    }

    /// The same folder, from outside.
    pub fn outside(&self) -> PathBuf {
        self.folder.path.join("fleet")
    }

    /// What hosts are given, from outside.
    pub fn served(&self) -> PathBuf {
        self.outside().join("served")
    }

    /// The network of its hosts, with the binary cache and the web server.
    pub fn net(&self) -> &Net {
        &self.net
    }
}

/// Has a host follow a source to which it proves who it is, with more lines in its configuration.
pub(crate) fn follow_as(host: &Host, source: &str, private_key: &str, lines: &str) -> Result<()> {
    let file = HOST_KEY.trim_end_matches(".pub");
    host.write_file(file, private_key)?;
    host.run(&["chmod", "600", file])?.success()?;
    configure(host, source, lines)
}

/// Writes the agent's configuration, and has the agent read it.
fn configure(host: &Host, source: &str, lines: &str) -> Result<()> {
    host.write_file(
        CONFIG,
        &format!(
            "host = \"{}\"\nchannel = \"{CHANNEL}\"\nsource = \"{source}\"\nroot = \"{ROOT}\"\n\
                 host-key = \"{HOST_KEY}\"\npoll = \"10s\"\n{lines}",
            host.name()
        ),
    )?;
    let restarted = host.run(&["systemctl", "restart", UNIT])?.success();
    restarted.with_context(|| host.journal(UNIT).unwrap_or_default())?;
    Ok(())
}

/// `status --json` of a machine, the part of what it follows; nothing while it cannot be had.
pub fn status(machine: &impl Machine) -> Value {
    let said = machine.run(&[AGENT, "status", "--json"]).map(|output| output.stdout).unwrap_or_default();
    serde_json::from_str::<Value>(&said).map(|mut status| status["follows"].take()).unwrap_or_default()
}

/// Waits until a host is in this state with this release.
pub fn await_state(host: &Host, state: &str, release: &str, limit: Duration) -> Result<Value> {
    let mut last = Value::Null;
    let what = format!("{} to be {state} with {release}", host.name());
    let reached = host.wait_until(&what, limit, |host| {
        last = status(host);
        last["state"] == state && last["release"] == release
    });
    reached.with_context(|| format!("{last:#}\n{}", host.journal(UNIT).unwrap_or_default()))?;
    Ok(last)
}

impl Drop for StaticFleet {
    fn drop(&mut self) {
        // What stays is swept by the next run.
        let _ = fs::remove_dir_all(&self.folder.path);
    }
}

/// Copies a folder over another; whatever is called `latest` comes last and atomically.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    let mut entries = fs::read_dir(from)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("list {}", from.display()))?;
    entries.sort_by_key(|entry| entry.file_name() == "latest");
    for entry in entries {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            let bytes = fs::read(&source).with_context(|| format!("read {}", source.display()))?;
            let fresh = to.join(".fresh");
            crate::files::put(&fresh, &bytes, 0o644)?;
            fs::rename(&fresh, &target).with_context(|| format!("make {}", target.display()))?;
        }
    }
    Ok(())
}
