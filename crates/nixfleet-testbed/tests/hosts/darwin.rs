//! The Darwin backend on a Linux host: sessions and locked files in place of units, and a flip that comes last.
//!
//! `NIXFLEET_BACKEND=darwin` chooses it, in test builds only. What cannot be shown here is what only macOS has:
//! launchd, its `ps`, and the nix-darwin activation script itself, of which the systems have the shape.

use nixfleet_testbed::{Flavour, Host, Output, System};
use serde_json::Value;

use crate::common::{AGENT, LIMIT, Said, assert_nothing_left, history, host, hosts_run};

const DARWIN: &str = "NIXFLEET_BACKEND=darwin";

/// A host whose own daemon is stopped: it would take an activation up with the Linux backend.
fn darwin_host() -> Host {
    let host = host(Flavour::Trixie);
    host.run(&["systemctl", "stop", "nixfleet-agent.service"]).expect("it runs");
    host
}

fn agent(host: &Host, argv: &[&str]) -> Output {
    let argv = [&["/usr/bin/env", DARWIN, AGENT], argv].concat();
    host.run_for(LIMIT, &argv).expect("the agent runs")
}

fn activate(host: &Host, system: System, flags: &[&str]) -> Said {
    Said::of(&agent(host, &[&["activate", "--json", host.system(system)], flags].concat()))
}

/// Detached processes of ours, with their command lines.
fn detached(host: &Host) -> Vec<(u32, String)> {
    let all = host.processes().expect("listed");
    all.into_iter().filter(|(_, line)| line.contains(" darwin-run ") || line.contains(" deadman ")).collect()
}

/// Runs on this system, with its profile and its /etc, and nothing of any activation is left.
fn assert_rests_on(host: &Host, system: System) {
    let path = host.system(system).to_owned();
    assert_eq!(host.current_system().as_ref(), Some(&path), "the running system");
    assert_eq!(host.profile_system().as_ref(), Some(&path), "the profile");
    assert_eq!(host.read_link("/etc/static"), Some(format!("{path}/etc")), "what `activate` sets up");
    assert_nothing_left(host);
    let gone = host.wait_until("the detached processes leave", LIMIT, |host| detached(host).is_empty());
    assert!(gone.is_ok(), "{:?}", detached(host));
}

/// How often `activate` of a Darwin-shaped system was started, by its own log.
fn fires(host: &Host, system: System) -> usize {
    let log = host.read_file("/var/log/darwin-runs.log").unwrap_or_default();
    log.lines().filter(|line| line.contains(host.system(system))).count()
}

fn last(host: &Host) -> Value {
    history(host).pop().expect("one activation at least")
}

fn check(system: System, flags: &[&str], want: (i32, &str, &str), rests_on: System) -> Option<Host> {
    if !hosts_run() {
        return None;
    }
    let host = darwin_host();
    let said = activate(&host, system, flags);
    let (code, verdict, failure) = want;
    said.assert(code, verdict);
    assert_eq!(said.failure(), failure, "{}", said.json);
    assert_rests_on(&host, rests_on);
    assert_eq!(fires(&host, system), 1, "fired once");
    Some(host)
}

#[test]
fn a_good_system_converges() {
    let Some(host) = check(System::DarwinGood, &[], (0, "converged", "none"), System::DarwinGood) else {
        return;
    };
    let id = last(&host)["id"].as_str().expect("an id").to_owned();
    let logs = agent(&host, &["logs", &id]);
    assert_eq!(logs.code, 0, "{}", logs.stderr);
    assert!(logs.stdout.contains("setting up darwin-good..."), "{}", logs.stdout);
    let back = agent(&host, &["rollback"]);
    assert_eq!(back.code, 0, "{}", back.stderr);
    assert_rests_on(&host, System::Base);
}
