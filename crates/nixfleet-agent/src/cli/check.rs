//! `check`: whether this host could follow its releases, and what to mend.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use nixfleet_agent::activation::ActivationBackend;
use nixfleet_agent::activation::host::STATE_DIR;
use nixfleet_agent::check::{Finding, Grade, check, is_good};
use nixfleet_agent::config::keys::Key;
use nixfleet_agent::config::written::Written;
use nixfleet_agent::config::{Config, ConfigFile, ConfigRefused, load, state_dir_in};
use serde::Serialize;

use super::ui;

// These have forms in them that a comment of Rust's would be asked to mark up.
const SOURCE_HELP: &str =
    "`source`: where releases come from: https://HOST/FOLDER, http://HOST/FOLDER or a folder";
const HOST_KEY_HELP: &str =
    "`host-key`: the public half of this host's key [default: /etc/ssh/ssh_host_ed25519_key.pub]";

/// The configuration's keys as flags; each wins over the file.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// Read this file instead of /etc/nixfleet/agent.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// `root`: the root document that the fleet gave this host [default: /etc/nixfleet/root.json]
    #[arg(long, value_name = "FILE")]
    root: Option<String>,
    #[arg(long, value_name = "PLACE", help = SOURCE_HELP)]
    source: Option<String>,
    /// `channel`: the channel to follow
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// `host`: this host's name in its fleet [default: the kernel's name for it]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    #[arg(long, value_name = "FILE", help = HOST_KEY_HELP)]
    host_key: Option<String>,
    /// `poll`: the pause between two looks at the source, 10s to 24h [default: 60s]
    #[arg(long, value_name = "TIME")]
    poll: Option<String>,
    /// `ca-file`: the authorities that vouch for the server, in place of this host's own
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
    /// `pins`: a key that the server may have, as curl's --pinnedpubkey takes it (repeatable)
    #[arg(long = "pin", value_name = "sha256//…")]
    pins: Vec<String>,
    /// `reboot`: whether this host may restart: as-released or never [default: as-released]
    #[arg(long, value_name = "WHEN")]
    reboot: Option<String>,
}

impl ConfigArgs {
    /// Whether neither a file nor any key was given.
    pub(super) fn say_nothing(&self) -> bool {
        let Self { config, root, source, channel, host, host_key, poll, ca_file, pins, reboot } = self;
        let texts = [root, source, channel, host, host_key, poll, ca_file, reboot];
        config.is_none() && texts.into_iter().all(Option::is_none) && pins.is_empty()
    }

    /// Which file is read.
    pub(super) fn file(&self) -> ConfigFile {
        self.config.clone().map_or(ConfigFile::Usual, ConfigFile::Named)
    }

    /// The file, and the configuration that it and the flags make.
    pub(crate) fn load(self, state_dir: Option<&PathBuf>) -> (ConfigFile, Result<Config, ConfigRefused>) {
        let file = self.file();
        let Self { config: _, root, source, channel, host, host_key, poll, ca_file, pins, reboot } = self;
        let one = |text: Option<String>| text.into_iter().collect::<Vec<_>>();
        let flags = Written::from_flags([
            (Key::Root, one(root)),
            (Key::Source, one(source)),
            (Key::Channel, one(channel)),
            (Key::Host, one(host)),
            (Key::HostKey, one(host_key)),
            (Key::StateDir, one(state_dir.map(|path| path.display().to_string()))),
            (Key::Poll, one(poll)),
            (Key::CaFile, one(ca_file)),
            (Key::Pins, pins),
            (Key::Reboot, one(reboot)),
        ]);
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let config = load(&file, &flags, &name);
        (file, config)
    }
}

/// The state folder by the command line, or by a configuration that may have faults.
pub(super) fn named_state(args: &ConfigArgs, state_dir: Option<&PathBuf>) -> Option<PathBuf> {
    state_dir.cloned().or_else(|| state_dir_in(&args.file()).ok().flatten())
}

/// What `check --json` prints; version 1.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    good: bool,
    findings: &'a [Finding],
}

pub(crate) async fn run<B: ActivationBackend>(
    args: ConfigArgs,
    state_dir: Option<&PathBuf>,
    as_json: bool,
) -> ExitCode {
    let named = named_state(&args, state_dir);
    let (file, config) = args.load(state_dir);
    // Where the agent keeps it, also by a configuration that has faults.
    let state = config
        .as_ref()
        .map_or_else(|_| named.unwrap_or_else(|| STATE_DIR.into()), |config| config.state_dir.clone());
    let findings = check(&file, &config, &B::with_state(&state)).await;
    let good = is_good(&findings);
    if as_json {
        ui::json(&Report { version: 1, good, findings: &findings });
    } else {
        findings.iter().for_each(print);
        ui::say(summary(&findings).as_str());
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(finding: &Finding) {
    let Finding { about, grade, what, fix } = finding;
    ui::data(&format!("{:8} {:9} {what}", grade.to_string(), about.to_string()));
    if let Some(fix) = fix {
        ui::data(&format!("{:18} to mend it: {fix}", ""));
    }
}

fn summary(findings: &[Finding]) -> String {
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
    match (count(Grade::Problem), count(Grade::Warning)) {
        (0, 0) => "this host can follow its releases".to_owned(),
        (0, warnings) => format!("this host can follow its releases; {warnings} warnings"),
        (1, _) => "this host cannot follow its releases: 1 problem".to_owned(),
        (problems, _) => format!("this host cannot follow its releases: {problems} problems"),
    }
}
