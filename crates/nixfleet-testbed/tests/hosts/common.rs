//! What all scenarios share: a host with the agent, an activation and its outcome, and the rules that always hold.

use std::time::Duration;

use nixfleet_testbed::{Flavour, Host, Output, System, available};
use serde_json::Value;

/// The agent of the running system, as a person would call it.
pub(crate) const AGENT: &str = "/run/current-system/sw/bin/nixfleet-agent";
/// Longer than any activation here: a test waits for a condition, never for a time.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

#[allow(clippy::print_stdout, reason = "`cargo xtask test` collects these lines from tests that passed")]
/// Whether hosts can run here. In CI what cannot run is a failure.
pub(crate) fn hosts_run() -> bool {
    let agent = std::env::var_os("NIXFLEET_AGENT_BIN").is_some();
    let why = match (available(), agent) {
        (Ok(()), true) => return true,
        (Ok(()), false) => "NIXFLEET_AGENT_BIN is not set; run `cargo xtask test`".to_owned(),
        (Err(why), _) => why,
    };
    assert!(std::env::var_os("CI").is_none(), "in CI nothing is left out: {why}");
    println!("LEFT OUT: a scenario on a real host ({why})");
    false
}

/// What an activation said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        let json = serde_json::from_str(output.stdout.trim()).unwrap_or(Value::Null);
        Self { code: output.code, json, stderr: output.stderr.clone() }
    }

    pub(crate) fn verdict(&self) -> &str {
        self.json["verdict"].as_str().unwrap_or("none")
    }

    pub(crate) fn failure(&self) -> &str {
        self.json["failure"]["kind"].as_str().unwrap_or("none")
    }

    pub(crate) fn assert(&self, code: i32, verdict: &str) {
        let got = (self.code, self.verdict());
        assert_eq!(got, (code, verdict), "{}\n{}", self.json, self.stderr);
    }
}

/// Activates a store path and returns what was said.
pub(crate) fn activate(host: &Host, path: &str, flags: &[&str]) -> Said {
    let argv = [&[AGENT, "activate", "--json", path], flags].concat();
    Said::of(&host.run_for(LIMIT, &argv).expect("the agent runs"))
}

/// A fresh host.
pub(crate) fn host(flavour: Flavour) -> Host {
    Host::boot(flavour).expect("the host boots")
}

/// The running system, the profile and the boot default are all this one, and nothing is left of any activation.
pub(crate) fn assert_rests_on(host: &Host, system: System) {
    let want = Some(host.system(system).to_owned());
    assert_eq!(host.current_system(), want, "the running system");
    assert_eq!(host.profile_system(), want, "the profile");
    assert_eq!(host.boot_default(), want, "the boot default");
    assert_nothing_left(host);
}

/// No unit, timer, root, record or rescue copy of an activation is left over.
pub(crate) fn assert_nothing_left(host: &Host) {
    let left = || {
        let units = host.units().unwrap_or_default();
        let ours =
            |name: &String| name.starts_with("nixfleet-switch-") || name.starts_with("nixfleet-deadman-");
        let units: Vec<String> = units.into_iter().map(|(name, _)| name).filter(ours).collect();
        let files = host
            .sh("ls /nix/var/nix/gcroots/nixfleet /var/lib/nixfleet/ends 2>/dev/null | grep -v : | grep .;\
                             ls -d /var/lib/nixfleet/rescue-* 2>/dev/null");
        (units, files.map(|output| output.stdout).unwrap_or_default())
    };
    // What an agent that was killed left is found by the daemon's slow poll, 30 s apart.
    let clean = host.wait_until("nothing is left", LIMIT, |_| {
        let (units, files) = left();
        units.is_empty() && files.trim().is_empty()
    });
    assert!(clean.is_ok(), "left over: {:?}", left());
}

/// The activations of the host as `history --json` tells them.
pub(crate) fn history(host: &Host) -> Vec<Value> {
    let output = host.run(&[AGENT, "history", "--json"]).expect("the agent runs");
    output.stdout.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

/// How often the switch program of `path` was started live (`test` or `switch`), by its own log.
pub(crate) fn fires(host: &Host, path: &str) -> usize {
    let log = host.read_file("/var/log/switch-runs.log").unwrap_or_default();
    let live =
        |line: &&str| line.contains(" begin ") && (line.contains(" test ") || line.contains(" switch "));
    log.lines().filter(live).filter(|line| line.contains(path)).count()
}
