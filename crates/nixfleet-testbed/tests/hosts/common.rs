//! What all scenarios share: a host with the agent, an activation and its outcome, and the rules that always hold.

use std::time::Duration;

use nixfleet_testbed::{Flavour, Host, Machine, Output, System, Vm, available};
use serde_json::Value;

/// The agent of the running system, as a person would call it.
pub(crate) const AGENT: &str = "/run/current-system/sw/bin/nixfleet-agent";
/// Longer than any activation here: a test waits for a condition, never for a time.
pub(crate) const LIMIT: Duration = Duration::from_mins(4);

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

/// A machine that an agent is tested on.
pub(crate) trait Subject: Machine {
    /// Longer than any activation here: a test waits for a condition, never for a time.
    const LIMIT: Duration;
}

impl Subject for Host {
    const LIMIT: Duration = LIMIT;
}

impl Subject for Vm {
    /// Some twenty times slower than a host.
    const LIMIT: Duration = Duration::from_mins(8);
}

/// The unit in which [`begin`] activates, as if a person or a timer had started it.
pub(crate) const UNIT: &str = "activation.service";
/// What an agent leaves that stands still at a crash point.
pub(crate) const MARK: &str = "/run/nixfleet-failpoint";
/// As long as this file is there, `activate` of the two slow systems goes on.
pub(crate) const HOLD: &str = "/run/hold-activate";

/// Starts an activation in a unit of its own and returns at once.
pub(crate) fn begin(machine: &impl Subject, path: &str, confirm_within: &str, environment: &[&str]) {
    let set: Vec<&str> = environment.iter().flat_map(|variable| ["--setenv", variable]).collect();
    begin_in(machine, path, confirm_within, &set);
}

/// [`begin`], with options for its unit in the words of `systemd-run`.
pub(crate) fn begin_in(machine: &impl Subject, path: &str, confirm_within: &str, options: &[&str]) {
    // Collected also after a failure, so that the name is free for the next one.
    let mut start = vec!["systemd-run", "--quiet", "--collect", "--unit", UNIT];
    start.extend(options);
    start.extend([AGENT, "activate", path, "--confirm-within", confirm_within]);
    let started = machine.run(&start).expect("it runs");
    assert_eq!(started.code, 0, "{started}");
}

/// Starts an activation and returns when it stands still at a crash point.
pub(crate) fn reach(machine: &impl Subject, point: &str, path: &str, confirm_within: &str) {
    reach_in(machine, point, path, confirm_within, &[]);
}

/// [`reach`], with options for the unit of the activation in the words of `systemd-run`.
pub(crate) fn reach_in(
    machine: &impl Subject,
    point: &str,
    path: &str,
    confirm_within: &str,
    options: &[&str],
) {
    machine.run(&["rm", "-f", MARK]).expect("it runs");
    let failpoint = format!("NIXFLEET_FAILPOINT={point}");
    begin_in(machine, path, confirm_within, &[&["--setenv", &failpoint], options].concat());
    // The daemon would take an activation up as soon as its agent is gone; here it may, as on any host.
    await_on(machine, &format!("{point} is reached"), |machine| machine.exists(MARK));
}

/// Waits, as long as this kind of machine may need, and shows what the activation said if it is in vain.
pub(crate) fn await_on<M: Subject>(machine: &M, what: &str, condition: impl FnMut(&M) -> bool) {
    if let Err(error) = Machine::wait_until(machine, what, M::LIMIT, condition) {
        let journal = |unit| machine.journal(unit).unwrap_or_default();
        panic!("{error:#}\n{}\n{}\n{:?}", journal(UNIT), journal("nixfleet-agent.service"), history(machine));
    }
}

/// Waits until nothing is pending, or only what `but` names (a step).
pub(crate) fn await_settled(machine: &impl Subject, but: Option<&str>) {
    await_on(machine, "nothing is pending", |machine| {
        let said = machine.run(&[AGENT, "status", "--json"]).map(|output| output.stdout).unwrap_or_default();
        let status: Value = serde_json::from_str(&said).unwrap_or_default();
        let pending = &status["pending"];
        status["version"] == 1 && (pending.is_null() || (but.is_some() && pending["step"].as_str() == but))
    });
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
pub(crate) fn activate<M: Subject>(host: &M, path: &str, flags: &[&str]) -> Said {
    let argv = [&[AGENT, "activate", "--json", path], flags].concat();
    Said::of(&host.run_for(M::LIMIT, &argv).expect("the agent runs"))
}

/// A fresh host.
pub(crate) fn host(flavour: Flavour) -> Host {
    Host::boot(flavour).expect("the host boots")
}

/// The running system, the profile and the boot default are all this one, and nothing is left of any activation.
pub(crate) fn assert_rests_on(host: &impl Subject, system: System) {
    assert_rests_on_path(host, host.system(system));
}

/// [`assert_rests_on`], for whoever has its path.
pub(crate) fn assert_rests_on_path(host: &impl Subject, path: &str) {
    let want = Some(path.to_owned());
    assert_eq!(host.current_system(), want, "the running system");
    assert_eq!(host.profile_system(), want, "the profile");
    assert_eq!(host.boot_default(), want, "the boot default");
    assert_nothing_left(host);
}

/// No unit, timer, root, record or rescue copy of an activation is left over.
pub(crate) fn assert_nothing_left<M: Subject>(host: &M) {
    let left = || {
        let units = host.units().unwrap_or_default();
        let kinds = ["nixfleet-switch-", "nixfleet-deadman-", "nixfleet-next-boot-"];
        let ours = |name: &String| kinds.iter().any(|kind| name.starts_with(kind));
        let units: Vec<String> = units.into_iter().map(|(name, _)| name).filter(ours).collect();
        let files = host
            .sh("ls /nix/var/nix/gcroots/nixfleet /var/lib/nixfleet/ends 2>/dev/null | grep -v : | grep .;\
                             ls -d /var/lib/nixfleet/rescue-* /etc/systemd/system.control/* /run/nixfleet/*.begun /run/nixfleet/*.recorded 2>/dev/null");
        (units, files.map(|output| output.stdout).unwrap_or_default())
    };
    // What an agent that was killed left is found by the daemon's slow poll, 30 s apart.
    let clean = Machine::wait_until(host, "nothing is left", M::LIMIT, |_| {
        let (units, files) = left();
        units.is_empty() && files.trim().is_empty()
    });
    let shown = || {
        let (units, _) = left();
        let names: Vec<&str> = units.iter().map(String::as_str).collect();
        let why = ["systemctl", "show", "-p", "Id,LoadState,ActiveState,SubState,FragmentPath,Job"];
        let more = ["-p", "WantedBy,RequiredBy,TriggeredBy,Triggers,Before,After,NeedDaemonReload"];
        host.run(&[&why[..], &more, &names].concat()).map(|output| output.stdout).unwrap_or_default()
    };
    assert!(clean.is_ok(), "left over: {:?}\n{}", left(), shown());
}

/// The activations of the host as `history --json` tells them.
pub(crate) fn history(host: &impl Subject) -> Vec<Value> {
    let output = host.run(&[AGENT, "history", "--json"]).expect("the agent runs");
    output.stdout.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

/// How often the switch program of `path` was started live (`test` or `switch`), by its own log.
pub(crate) fn fires(host: &impl Subject, path: &str) -> usize {
    fires_in(&switch_log(host), path)
}

/// What the switch program of every system says of its runs, a line for each phase.
pub(crate) fn switch_log(host: &impl Subject) -> String {
    host.read_file("/var/log/switch-runs.log").unwrap_or_default()
}

/// [`fires`], in a piece of the log.
pub(crate) fn fires_in(log: &str, path: &str) -> usize {
    let live =
        |line: &&str| line.contains(" begin ") && (line.contains(" test ") || line.contains(" switch "));
    log.lines().filter(live).filter(|line| line.contains(path)).count()
}
