//! A fleet with a control plane, end to end: real agents on real hosts follow the real program over TLS, each proving who it
//! is with its own key, from releases made by the operator's command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_testbed::control_plane::ControlPlane;
use nixfleet_testbed::fleet::{StaticFleet, await_state, status};
use nixfleet_testbed::{Flavour, System, wait_until};
use serde_json::Value;

use crate::common::{assert_rests_on, fires, hosts_run};

/// A release reaches a host within two looks at the source, and is switched to and watched.
pub(crate) const LIMIT: Duration = Duration::from_mins(3);

/// Between two looks at the control plane.
const PAUSE: Duration = Duration::from_millis(300);

/// A fleet whose hosts follow a control plane.
pub(crate) struct Led {
    pub(crate) control_plane: ControlPlane,
    pub(crate) fleet: StaticFleet,
}

pub(crate) fn program(variable: &str) -> PathBuf {
    let program = std::env::var_os(variable);
    program.unwrap_or_else(|| panic!("`cargo xtask test` sets {variable}")).into()
}

impl Led {
    pub(crate) fn boot(names: &[&str]) -> Self {
        let cli = program("NIXFLEET_CLI_BIN");
        let fleet = StaticFleet::boot(Flavour::Trixie, Path::new(&cli), names).expect("a fleet");
        let control_plane =
            ControlPlane::start(&fleet, &program("NIXFLEET_CONTROL_PLANE_BIN")).expect("a control plane");
        for host in fleet.hosts() {
            control_plane.lead(&fleet, host).expect("it follows");
        }
        Self { control_plane, fleet }
    }

    /// Makes a release for the canary first, which the control plane finds in its folder.
    fn release(&self, system: System, revision: &str) {
        let description = self.fleet.canary_first(system, Duration::ZERO).expect("every host has a key");
        self.fleet.describe(&description).expect("written");
        self.fleet.release(revision).expect("published");
    }

    /// The log, from which somebody may be kept for a moment.
    pub(crate) fn events(&self) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), "0".to_owned());
        loop {
            let path = format!("/v1/events?limit=1000&after={after}");
            let page =
                self.wait("the log to be told", LIMIT, || self.control_plane.get(&self.fleet, &path).ok());
            all.extend(page["items"].as_array().expect("a list").clone());
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => return all,
            }
        }
    }

    /// Waits until the log says that this became of a release's rollout.
    pub(crate) fn until_decided(&self, seq: u64, becomes: &str) -> Vec<Value> {
        self.until_decided_within(seq, becomes, LIMIT)
    }

    /// [`Led::until_decided`], with more time.
    pub(crate) fn until_decided_within(&self, seq: u64, becomes: &str, limit: Duration) -> Vec<Value> {
        let what = format!("release {seq} to be {becomes}");
        self.wait(&what, limit, || {
            let events = self.events();
            decided(&events, seq, becomes).is_some().then_some(events)
        })
    }

    /// Waits until there is something, and tells everything if it does not come.
    pub(crate) fn wait<T>(&self, what: &str, limit: Duration, mut find: impl FnMut() -> Option<T>) -> T {
        let found = wait_until(what, limit, || {
            let found = find();
            if found.is_none() {
                // Each look is a program in the office, and there are hosts to be waited for.
                std::thread::sleep(PAUSE);
            }
            found
        });
        found.unwrap_or_else(|error| panic!("{error:#}\n{}", self.told()))
    }

    pub(crate) fn all_converge(&self, release: &str, system: System) {
        for host in self.fleet.hosts() {
            let said = await_state(host, "converged", release, LIMIT);
            said.unwrap_or_else(|error| panic!("{error:#}\n{}", self.told()));
            assert_rests_on(host, system);
        }
    }

    /// Everything that may explain a failure.
    pub(crate) fn told(&self) -> String {
        let hosts: Vec<String> =
            self.fleet.hosts().iter().map(|host| format!("{}: {:#}", host.name(), status(host))).collect();
        let plan: Vec<String> = self
            .events()
            .iter()
            .filter(|event| event["fact"] != "reported")
            .map(ToString::to_string)
            .collect();
        format!("{}\n{}\n{}", hosts.join("\n"), plan.join("\n"), self.control_plane.said())
    }

    /// No plan ever broke a rule.
    pub(crate) fn no_objections(&self) {
        let objected = self.events().into_iter().filter(|event| event["fact"] == "objected");
        assert_eq!(objected.collect::<Vec<_>>(), Vec::<Value>::new());
    }
}

/// Where in the log this became of a release's rollout.
pub(crate) fn decided(events: &[Value], seq: u64, becomes: &str) -> Option<usize> {
    events.iter().position(|event| {
        let decision = &event["decision"];
        decision["rollout"]["seq"] == seq && decision["becomes"]["becomes"] == becomes
    })
}

/// Where in the log a host was ordered this for a release.
pub(crate) fn ordered(events: &[Value], host: &str, seq: u64, what: &str) -> Vec<usize> {
    let is_it = |event: &Value| {
        let order = &event["order"];
        event["host"] == host && order["release"]["seq"] == seq && order["what"] == what
    };
    events.iter().enumerate().filter(|(_, event)| is_it(event)).map(|(at, _)| at).collect()
}

/// Where in the log a host reports this for the first time behind `after`.
pub(crate) fn reported(events: &[Value], host: &str, what: &str, after: usize) -> Option<usize> {
    let is_it = |event: &Value| event["host"] == host && event["record"]["fact"]["event"] == what;
    events.iter().skip(after).position(is_it).map(|at| at + after)
}

#[test]
fn a_control_plane_moves_the_canary_first_halts_when_it_fails_and_goes_on_with_the_fix() {
    if !hosts_run() {
        return;
    }
    let led = Led::boot(&["canary", "web-1", "web-2"]);
    led.release(System::Good, "one");
    let events = led.until_decided(1, "converged");
    led.all_converge("stable/1", System::Good);
    let canary = ordered(&events, "canary", 1, "go");
    let proven = reported(&events, "canary", "soak-passed", canary[0]).expect("the canary soaked");
    for host in ["web-1", "web-2"] {
        let go = ordered(&events, host, 1, "go");
        assert!(go.len() == 1 && go[0] > proven, "{host} waits for the canary: {go:?} {proven}");
    }

    led.release(System::Probe404, "two");
    led.until_decided(2, "halted");
    let canary = led.fleet.host("canary");
    let said = await_state(canary, "reverted", "stable/2", LIMIT).expect("it went back");
    assert_eq!(said["failure"]["class"], "probe", "{said}");
    assert_rests_on(canary, System::Good);
    let events = led.until_decided(2, "quarantined");
    let at = decided(&events, 2, "quarantined").expect("it was waited for");
    assert_eq!(events[at]["decision"]["becomes"]["system"], canary.system(System::Probe404));

    led.release(System::Good3, "three");
    led.until_decided(3, "converged");
    led.all_converge("stable/3", System::Good3);
    let touched = led.fleet.hosts().iter().filter(|host| fires(*host, host.system(System::Probe404)) > 0);
    let touched: Vec<&str> = touched.map(nixfleet_testbed::Host::name).collect();
    assert_eq!(touched, ["canary"], "who ran the release that was not well");
    led.no_objections();
}

#[test]
fn a_control_plane_that_is_killed_or_loses_its_database_in_mid_rollout_goes_on_and_repeats_nothing() {
    if !hosts_run() {
        return;
    }
    let mut led = Led::boot(&["canary", "web-1", "web-2"]);
    led.release(System::Good, "one");
    led.until_decided(1, "converged");

    led.release(System::Good3, "two");
    for moment in ["opened", "wave-opened"] {
        led.until_decided(2, moment);
        led.control_plane.kill();
        led.control_plane.run(&led.fleet).expect("it comes up again");
    }
    let events = led.until_decided(2, "converged");
    led.all_converge("stable/2", System::Good3);
    for host in led.fleet.hosts() {
        assert_eq!(ordered(&events, host.name(), 2, "go").len(), 1, "{} is ordered once", host.name());
        assert_eq!(fires(host, host.system(System::Good3)), 1, "{} switched once", host.name());
    }

    led.release(System::Twin, "three");
    let canary = led.fleet.host("canary");
    await_state(canary, "converged", "stable/3", LIMIT).expect("the canary is done");
    led.control_plane.kill();
    led.control_plane.forget_everything().expect("robbed");
    led.control_plane.run(&led.fleet).expect("it comes up with nothing");
    led.until_decided(3, "converged");
    led.all_converge("stable/3", System::Twin);
    for host in led.fleet.hosts() {
        assert_eq!(fires(host, host.system(System::Twin)), 1, "{} switched once", host.name());
    }
    led.no_objections();
}
