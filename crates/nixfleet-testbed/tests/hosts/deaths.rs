//! The crash matrix once more, through the running agent: while it follows a release, it is killed, stopped, or its host is
//! restarted or cut off at every point of an activation.
//!
//! Afterwards nobody helps but whoever starts a stopped unit or restarts a host that waits for it: the host comes to the
//! release or goes back from it by itself, links agree, nothing is left over, the target was fired once at most, and the
//! agent's log of reports says how it ended.
//!
//! A point is struck once in an ordinary run, by another blow than its neighbours; with `NIXFLEET_SOAK` (`cargo xtask test
//! --soak`) by every blow, and pauses between two tries are waited for instead of cut short. All points of a stretch of the
//! way are struck on one host.

use std::time::{Duration, UNIX_EPOCH};

use nixfleet_testbed::{Flavour, Host, Machine, System, fleet};
use serde_json::{Value, json};

use crate::common::{AGENT, LIMIT, MARK, assert_rests_on_path, fires, history, host, hosts_run};
use crate::crashes::{self, Blow};
use crate::fleet::{Fleet, Saying};
use crate::followed::{UNIT, follow_on, ship, web};

/// Has the agent stand still at a point, until the next boot.
const DROP_IN: &str = "/run/systemd/system/nixfleet-agent.service.d/70-point.conf";
/// The same for the next boot too. It must be gone before anybody looks whether something is left over.
const LASTING_DROP_IN: &str = "/etc/systemd/system.control/nixfleet-agent.service.d/70-point.conf";
/// What the agent says that it did.
pub(crate) const REPORTS: &str = "/var/lib/nixfleet/outbox.jsonl";
/// The first pause between two tries; a machine that is busy may be late to say when it ends.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

/// Where the agent comes by a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// On its way to this system.
    To(System),
    /// After the reboot into this system, which could not be switched to live.
    Landing(System),
}

use Way::{Landing, To};

/// Systems that are all like [`System::Good`].
const GOOD: [System; 4] = [System::Good, System::Good3, System::RemovedUnit, System::Third];

/// A stretch of the way, in the order in which it is gone.
type Stretch = &'static [(&'static str, Way)];

const TO_THE_FIRE: Stretch = &[
    ("before-began", To(System::Good)),
    ("after-began", To(System::Good)),
    ("before-root", To(System::Good)),
    ("after-root", To(System::Good)),
    ("before-realise", To(System::Good)),
    ("after-realise", To(System::Good)),
    ("before-set-profile", To(System::Good)),
    ("after-set-profile", To(System::Good)),
    ("before-arm-deadman", To(System::Good)),
    ("after-arm-deadman", To(System::Good)),
    ("before-fire", To(System::Good)),
];
const ON_TRIAL: Stretch = &[
    ("after-fire", To(System::Good)),
    ("before-verify-poll", To(System::Good)),
    ("after-verify-poll", To(System::Good)),
    ("before-self-correct", To(System::Good)),
    ("after-self-correct", To(System::Good)),
    ("before-confirmed", To(System::Good)),
    ("after-confirmed", To(System::Good)),
    ("before-commit-fire", To(System::Good)),
    ("after-commit-fire", To(System::Good)),
];
const TO_THE_END: Stretch = &[
    ("after-commit", To(System::Good)),
    ("before-disarm", To(System::Good)),
    ("after-disarm", To(System::Good)),
    ("before-finish", To(System::Good)),
    ("after-finish", To(System::Good)),
    ("after-cleanup", To(System::Good)),
];
const BY_A_REBOOT: Stretch = &[
    ("before-defer-fire", To(System::OtherKernel)),
    ("after-defer-fire", To(System::OtherKernel)),
    ("before-await-reboot", To(System::OtherKernel)),
    ("after-await-reboot", To(System::OtherKernel)),
    ("before-confirm", Landing(System::OtherKernel)),
    ("after-confirm", Landing(System::OtherKernel)),
];
const BACK: Stretch = &[
    ("before-reverting", To(System::UnitFails)),
    ("after-reverting", To(System::UnitFails)),
    ("before-revert-profile", To(System::UnitFails)),
    ("after-revert-profile", To(System::UnitFails)),
    ("before-revert-fire", To(System::UnitFails)),
    ("after-revert-fire", To(System::UnitFails)),
    ("after-revert", To(System::UnitFails)),
    ("before-revert-boot", To(System::BootloaderFails)),
    ("after-revert-boot", To(System::BootloaderFails)),
    ("after-put-back", To(System::PrecheckFails)),
];

/// Strikes all points of a stretch on one host: `skew` says which blow comes first.
fn strike_once(stretch: Stretch, skew: usize) {
    if !hosts_run() {
        return;
    }
    let blow = |place: usize| Blow::ALL[(place + skew) % Blow::ALL.len()];
    let blows = stretch.iter().enumerate().map(|(place, (point, way))| (*point, *way, blow(place)));
    Struck::new(Patience::CutShort).strike(blows);
}

fn strike_with_all(stretch: Stretch) {
    if std::env::var_os("NIXFLEET_SOAK").is_none() || !hosts_run() {
        return;
    }
    let all = stretch.iter().flat_map(|(point, way)| Blow::ALL.map(|blow| (*point, *way, blow)));
    Struck::new(Patience::Waits).strike(all);
}

#[test]
fn an_agent_that_is_struck_on_the_way_to_the_fire_goes_on_by_itself() {
    strike_once(TO_THE_FIRE, 0);
}

#[test]
fn an_agent_that_is_struck_on_trial_goes_on_or_back_by_itself() {
    strike_once(ON_TRIAL, 1);
}

#[test]
fn an_agent_that_is_struck_after_the_commit_goes_on_by_itself() {
    strike_once(TO_THE_END, 2);
}

#[test]
fn an_agent_that_is_struck_around_a_reboot_goes_on_by_itself() {
    strike_once(BY_A_REBOOT, 3);
}

#[test]
fn an_agent_that_is_struck_on_the_way_back_goes_back_by_itself() {
    strike_once(BACK, 0);
}

#[test]
fn soak_every_blow_on_the_way_to_the_fire() {
    strike_with_all(TO_THE_FIRE);
}

#[test]
fn soak_every_blow_on_trial() {
    strike_with_all(ON_TRIAL);
}

#[test]
fn soak_every_blow_after_the_commit() {
    strike_with_all(TO_THE_END);
}

#[test]
fn soak_every_blow_around_a_reboot() {
    strike_with_all(BY_A_REBOOT);
}

#[test]
fn soak_every_blow_on_the_way_back() {
    strike_with_all(BACK);
}

#[test]
fn every_point_of_an_activation_is_struck_while_a_release_is_followed() {
    let stretches = [TO_THE_FIRE, ON_TRIAL, TO_THE_END, BY_A_REBOOT, BACK];
    let struck: Vec<&str> = stretches.concat().iter().map(|(point, _)| *point).collect();
    let without: Vec<_> = crashes::POINTS.iter().filter(|point| !struck.contains(point)).collect();
    assert!(without.is_empty(), "no row for {without:?}");
    assert_eq!(struck.len(), crashes::POINTS.len(), "each has one row");
}

/// What is done about a pause between two tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// It is looked at, and then a person asks for the next try.
    CutShort,
    /// It is waited for.
    Waits,
}

/// A host that is struck again and again.
struct Struck {
    host: Host,
    fleet: Fleet,
    /// The newest release.
    seq: u64,
    patience: Patience,
}

impl Struck {
    fn new(patience: Patience) -> Self {
        let (host, fleet) = follow_on(host(Flavour::Trixie));
        Self { host, fleet, seq: 0, patience }
    }

    #[allow(clippy::print_stdout, reason = "says at which blow a test failed, and how long each took")]
    fn strike(mut self, blows: impl Iterator<Item = (&'static str, Way, Blow)>) {
        let mut struck = 0;
        for (point, way, blow) in blows {
            let begun = std::time::Instant::now();
            let ended = self.one(point, way, blow);
            println!("{point}: {blow:?}: {ended} after {:?}", begun.elapsed());
            struck += 1;
        }
        assert!(struck > 0);
    }

    /// One blow on the way to a release of its own; the state in which the host ended.
    fn one(&mut self, point: &str, way: Way, blow: Blow) -> String {
        let (To(system) | Landing(system)) = way;
        let profile = "/nix/var/nix/profiles/system";
        self.host.run(&["nix-env", "--profile", profile, "--delete-generations", "old"]).expect("it runs");
        let system = self.fresh(system);
        let (previous, target) =
            (self.host.current_system().expect("a system runs"), self.host.system(system).to_owned());
        let fired = fires(&self.host, &target);
        self.seq += 1;
        self.reach(point, way, &target);
        crashes::strike(&self.host, UNIT, blow);
        self.host.run(&["systemctl", "start", UNIT]).expect("it runs");
        let ended = self.await_end();
        let state = ended["state"].as_str().unwrap_or_default().to_owned();
        let rests_on = if state == "converged" { &target } else { &previous };
        assert_rests_on_path(&self.host, rests_on);
        assert!(fires(&self.host, &target) - fired <= 1, "{point}: fired twice");
        self.assert_told(point, &state, &target);
        self.assert_reported(point, &state);
        state
    }

    /// A system that is like this one in all that matters here, that does not run, and that has to be fetched again.
    fn fresh(&self, system: System) -> System {
        let runs = |system| self.host.current_system().as_deref() == Some(self.host.system(system));
        match system {
            // In turns: the last two are kept by roots, and so is the one that was booted.
            System::Good => {
                let turn = usize::try_from(self.seq).expect("small");
                let next = (0..GOOD.len()).map(|later| GOOD[(turn + later) % GOOD.len()]);
                let mut gone = next.filter(|system| !runs(*system) && self.is_gone(*system));
                gone.next().expect("three are kept at most")
            }
            // The kernel of all others.
            System::OtherKernel if runs(system) => System::Good,
            other => {
                self.is_gone(other);
                other
            }
        }
    }

    /// Whether the system is not in the store any more after Nix was asked to delete it.
    fn is_gone(&self, system: System) -> bool {
        let path = self.host.system(system);
        self.host.run(&["nix-store", "--delete", path]).expect("it runs");
        !self.host.exists(path)
    }

    /// Publishes the release, and returns when the agent stands still at the point.
    fn reach(&self, point: &str, way: Way, target: &str) {
        let host = &self.host;
        let (drop_in, waits_for) = match way {
            To(_) => (DROP_IN, "systemctl start"),
            Landing(_) => (LASTING_DROP_IN, "a reboot"),
        };
        host.run(&["systemctl", "stop", UNIT]).expect("it runs");
        host.run(&["rm", "-f", MARK]).expect("it runs");
        ship(host);
        let stands_still = format!("[Service]\nEnvironment=NIXFLEET_FAILPOINT={point}\nRestartSec=100ms\n");
        host.write_file(drop_in, &stands_still).expect("written");
        host.run(&["systemctl", "daemon-reload"]).expect("it runs");
        // The built-in probes run every ten seconds; this one every second.
        let mut web = web();
        // At a boot the agent may be first by seconds.
        web["failures"] = json!(30);
        let saying = Saying { probes: json!([web]), ..Saying::default() };
        self.fleet.publish(host, self.seq, target, &saying);
        host.run(&["systemctl", "start", UNIT]).expect("it runs");
        if let Landing(_) = way {
            self.await_state("it waits for its reboot", |status| status["state"] == "awaiting-reboot");
            host.reboot().expect("it comes back");
        }
        let reached = host.wait_until("the point", LIMIT, |host| host.exists(MARK));
        assert!(reached.is_ok(), "{point} is not reached after {waits_for}: {}", self.told());
        host.run(&["rm", "-rf", LASTING_DROP_IN.trim_end_matches("/70-point.conf")]).expect("it runs");
        host.run(&["systemctl", "daemon-reload"]).expect("it runs");
    }

    /// Waits until the host has come to rest with the newest release, restarts it where it waits for that, and returns what
    /// it says then.
    fn await_end(&self) -> Value {
        loop {
            let status = self.await_state("it rests or waits for a person", |status| {
                let waits = status["waiting"]["on"].as_str().unwrap_or_default();
                let rests = ["newer-release", "newer-release-or-retry"].contains(&waits);
                rests
                    || waits == "person-to-reboot"
                    || waits == "retry" && self.patience == Patience::CutShort
            });
            match status["waiting"]["on"].as_str() {
                Some("person-to-reboot") => self.host.reboot().expect("it comes back"),
                Some("retry") => self.cut_short(&status),
                _ => return status,
            }
        }
    }

    /// It would go on by itself, and soon.
    fn cut_short(&self, status: &Value) {
        let at_ms = status["waiting"]["at_ms"].as_u64().expect("a time");
        let now = UNIX_EPOCH.elapsed().expect("after 1970");
        assert!(Duration::from_millis(at_ms) < now + FIRST_PAUSE, "{status:#}");
        self.host.run(&[AGENT, "retry", "--by", "the test"]).expect("it runs");
        self.await_state("it tries again", |status| status["waiting"]["on"] != "retry");
    }

    /// Waits until the agent says so of the newest release.
    fn await_state(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let release = format!("stable/{}", self.seq);
        let mut last = Value::Null;
        let reached = self.host.wait_until(what, LIMIT, |host| {
            last = fleet::status(host);
            last["release"] == release && good(&last)
        });
        assert!(reached.is_ok(), "{what}, and it does not: {last:#}\n{}", self.told());
        last
    }

    /// The history says the same: all is over, and the target was committed or it was not.
    fn assert_told(&self, point: &str, state: &str, target: &str) {
        let history = history(&self.host);
        assert!(history.iter().all(|one| !one["outcome"].is_null()), "{point}: {history:?}");
        let last = history.last().expect("there was one");
        assert_eq!(last["target"], target, "{point}: {last}");
        let committed = last["outcome"]["verdict"] == "converged";
        assert_eq!(committed, state == "converged", "{point}: {state}, but {last}");
    }

    /// The log of reports says the same, and goes as far as the state.
    fn assert_reported(&self, point: &str, state: &str) {
        let mut facts = Vec::new();
        let whole = self.host.wait_until("the log is as far as the state", LIMIT, |host| {
            facts = records(host);
            facts.last().is_some_and(|last| last["seq"] == fleet::status(host)["seq"])
        });
        assert!(whole.is_ok(), "{point}: {:?}", facts.last());
        let mine = facts.iter().position(|record| {
            record["fact"]["event"] == "release-verified" && record["fact"]["release"]["seq"] == self.seq
        });
        let since = &facts[mine.expect("the release was taken in")..];
        let names: Vec<&str> = since.iter().filter_map(|record| record["fact"]["event"].as_str()).collect();
        let ended = since.iter().rev().find_map(|record| record["fact"]["outcome"]["verdict"].as_str());
        let (verdict, decided) = match state {
            "converged" => ("converged", "soak-passed"),
            "reverted" => ("reverted", "local-activation-failed"),
            "failed" => ("failed", "local-activation-failed"),
            other => panic!("{point}: it rests {other}"),
        };
        assert_eq!(ended, Some(verdict), "{point}: {names:?}");
        assert!(names.contains(&decided), "{point}: {decided} is not in {names:?}");
        let verified = names.iter().filter(|name| **name == "release-verified").count();
        assert_eq!(
            verified, 1,
            "{point}: a start that finds the release that is known reports nothing of it: {names:?}"
        );
    }

    /// What there is to see after a failure.
    fn told(&self) -> String {
        format!("{}\n{:#?}", self.host.journal(UNIT).unwrap_or_default(), history(&self.host))
    }
}

/// The reports that are on the host's disk.
pub(crate) fn records(host: &impl Machine) -> Vec<Value> {
    let lines = host.read_file(REPORTS).unwrap_or_default();
    // The last may be half written.
    let read = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    read.map(|mut line| line["entry"]["record"].take()).filter(|record| !record.is_null()).collect()
}
