//! What a host looks like from outside the agent: its units, its generations, its journal, what was recorded.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_testbed::{Host, System};
use serde_json::Value;

use crate::common::{AGENT, LIMIT};

/// Services whose process tells by `V` in its environment which version it was started from. Those that are only
/// reloaded, or left alone, keep their old process and are not in here.
const VERSIONED: [&str; 3] = ["demo-a", "demo-b", "demo-r"];
/// Comes up with the first switch of a boot and says nothing of any system.
const OF_NO_SYSTEM: &str = "sysinit-reactivation.target";

/// The units of a host at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Units {
    /// Active services, sockets, timers, paths and targets of the system.
    pub(crate) active: BTreeSet<String>,
    /// The main processes of the versioned services, with the version in each one's environment.
    processes: BTreeMap<String, (String, String)>,
}

impl Units {
    pub(crate) fn of(host: &Host) -> Self {
        let counts = |name: &str| {
            let kinds = [".service", ".socket", ".timer", ".path", ".target"];
            let transient = ["run-", "user@", "session-", "nixfleet-switch-", "nixfleet-deadman-"];
            kinds.iter().any(|kind| name.ends_with(kind))
                && !transient.iter().any(|of| name.starts_with(of))
                && name != OF_NO_SYSTEM
        };
        let units = host.units().expect("systemd answers").into_iter();
        let active = units.filter(|(name, state)| state == "active" && counts(name)).map(|(name, _)| name);
        let process = |name: &&str| ((*name).to_owned(), main_process(host, name));
        Self { active: active.collect(), processes: VERSIONED.iter().map(process).collect() }
    }

    /// The same units are active, of the same versions; the processes may be others.
    pub(crate) fn assert_are_back(&self, now: &Self, what: &str) {
        assert_eq!(self.active, now.active, "{what}: active before, active now");
        let versions = |units: &Self| -> Vec<String> {
            units.processes.values().map(|(_, version)| version.clone()).collect()
        };
        assert_eq!(versions(self), versions(now), "{what}: versions of {VERSIONED:?}");
    }

    /// Not even a process is another one.
    pub(crate) fn assert_untouched(&self, now: &Self, what: &str) {
        assert_eq!(self, now, "{what}: units before and now");
    }

    /// Everything that the system wants is active, in the system's version, but for `except`.
    pub(crate) fn assert_of(&self, host: &Host, system: System, except: &[&str]) {
        let units = format!("{}/etc/systemd/system", host.system(system));
        let wanted = host.run(&["ls", &format!("{units}/multi-user.target.wants")]).expect("it runs");
        let wanted: Vec<&str> = wanted.stdout.lines().filter(|name| !except.contains(name)).collect();
        assert!(wanted.len() > 3, "the system wants something: {wanted:?}");
        for name in wanted {
            assert!(self.active.contains(name), "{system:?} wants {name}, active are {:?}", self.active);
        }
        for name in except {
            assert!(!self.active.contains(*name), "{name} is active");
        }
        for (name, (_, version)) in &self.processes {
            let text = host.read_file(&format!("{units}/{name}.service")).unwrap_or_default();
            let own = text.lines().find_map(|line| line.strip_prefix("Environment=V="));
            if let Some(own) = own.filter(|_| !except.contains(&format!("{name}.service").as_str())) {
                assert_eq!(version, own, "{name} runs in the version of {system:?}");
            }
        }
    }
}

/// The main process of a versioned service, 0 if it is down, and the version in its environment.
fn main_process(host: &Host, name: &str) -> (String, String) {
    let mut seen = (String::new(), String::new());
    // A unit is active before its process has become what it is to be. Whoever asked sees what is wrong if that never comes.
    let _ = host.wait_until("its process has a version", LIMIT, |host| {
        let shown = host.run(&["systemctl", "show", "-P", "MainPID", name]);
        let pid = shown.map(|output| output.text().to_owned()).unwrap_or_default();
        let environment = host.read_file(&format!("/proc/{pid}/environ")).unwrap_or_default();
        let version = environment.split('\0').find_map(|word| word.strip_prefix("V=")).unwrap_or_default();
        seen = (pid, version.to_owned());
        seen.0 == "0" || !seen.1.is_empty()
    });
    seen
}

/// No generation but these, each pointing at its system.
pub(crate) fn assert_generations(host: &Host, want: &[System]) {
    let want: BTreeMap<u64, String> =
        (1..).zip(want.iter().map(|system| host.system(*system).to_owned())).collect();
    assert_eq!(host.generations().expect("they can be listed"), want, "the generations");
}

/// What `logs ID` prints of an activation, both streams.
pub(crate) fn logs(host: &Host, id: &str) -> String {
    let output = host.run(&[AGENT, "logs", id]).expect("it runs");
    assert_eq!(output.code, 0, "{}", output.stderr);
    format!("{}{}", output.stderr, output.stdout)
}

/// Nobody of ours has panicked in this boot, nor in a boot before.
pub(crate) fn assert_no_panic(host: &Host) {
    let journal = host.run(&["journalctl", "--no-pager", "--quiet", "-o", "cat"]).expect("it runs").stdout;
    let panic = journal.lines().find(|line| line.contains("panicked at"));
    assert_eq!(panic, None, "somebody panicked");
}

/// How the runs of one kind (`switch`, `commit`, …) of an activation ended, as its history tells.
pub(crate) fn ends(activation: &Value, kind: &str) -> Vec<Value> {
    let runs = activation["runs"].as_array().expect("the history lists its runs");
    runs.iter().filter(|run| run["run"] == kind).map(|run| run["end"].clone()).collect()
}
