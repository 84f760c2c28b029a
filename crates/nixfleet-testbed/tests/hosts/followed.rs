//! A host that follows signed releases in a folder: it converges, reverts what is not well, and goes on wherever its agent
//! is cut off.

use std::time::Duration;

use nixfleet_testbed::{Flavour, Host, System};
use serde_json::{Value, json};

use crate::common::{AGENT, LIMIT, assert_nothing_left, assert_rests_on, fires, history, host, hosts_run};
use crate::fleet::{FOLDER, Fleet, HOST, HOST_KEY, ROOT_FILE, Saying, probe};

/// Where the agent's configuration is.
const CONFIG: &str = "/etc/nixfleet/agent.toml";
const UNIT: &str = "nixfleet-agent.service";

/// The unit as it is shipped.
const SHIPPED_UNIT: &str = include_str!("../../../../dist/nixfleet-agent.service");
/// What of it is put over the unit that the test hosts' systems have; gone after a reboot.
const DROP_IN: &str = "/run/systemd/system/nixfleet-agent.service.d/50-shipped.conf";

/// A host whose agent follows the folder, in the sandbox that is shipped.
fn following(flavour: Flavour) -> (Host, Fleet) {
    let host = host(flavour);
    // The program stays that of the host's system, and what is behind `[Install]` says nothing here.
    let shipped = SHIPPED_UNIT.split("[Install]").next().expect("a beginning");
    let lines = shipped.lines().filter(|line| !line.starts_with("ExecStart="));
    let over: Vec<&str> = lines.collect();
    assert!(over.len() > 30, "the unit says something");
    host.write_file(DROP_IN, &over.join("\n")).expect("written");
    host.run(&["systemctl", "daemon-reload"]).expect("it runs");
    let fleet = Fleet::new();
    fleet.introduce(&host);
    host.sh(&format!("mkdir -p {FOLDER}")).expect("it runs");
    host.write_file(CONFIG, &configuration()).expect("written");
    restart_agent(&host);
    (host, fleet)
}

fn configuration() -> String {
    format!(
        "host = \"{HOST}\"\nchannel = \"stable\"\nsource = \"{FOLDER}\"\nroot = \"{ROOT_FILE}\"\nhost-key = \"{HOST_KEY}.pub\"\npoll = \"10s\"\n"
    )
}

fn restart_agent(host: &Host) {
    let restarted = host.run(&["systemctl", "restart", UNIT]).expect("it runs");
    assert_eq!(restarted.code, 0, "{restarted}\n{}", host.journal(UNIT).unwrap_or_default());
}

/// `status --json`; nothing while it cannot be had.
fn status(host: &Host) -> Value {
    let said = host.run(&[AGENT, "status", "--json"]).map(|output| output.stdout).unwrap_or_default();
    serde_json::from_str(&said).unwrap_or_default()
}

/// Waits until the host has come to this state with this release.
fn await_state(host: &Host, state: &str, release: &str) -> Value {
    let mut last = Value::Null;
    let reached = host.wait_until(&format!("{state} {release}"), LIMIT, |host| {
        last = status(host)["follows"].clone();
        last["state"] == state && last["release"] == release
    });
    if let Err(error) = reached {
        panic!("{error:#}\n{last:#}\n{}\n{:?}", host.journal(UNIT).unwrap_or_default(), history(host));
    }
    last
}

fn web() -> Value {
    probe("web", &json!({ "http": { "url": "http://127.0.0.1:8000/health" } }))
}

#[test]
fn a_release_is_followed_one_that_is_not_well_is_reverted_and_the_next_one_converges() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    let saying = Saying { probes: json!([web()]), ..Saying::default() };
    fleet.publish(&host, 1, host.system(System::Good), &saying);
    await_state(&host, "converged", "stable/1");
    assert_rests_on(&host, System::Good);

    fleet.publish(&host, 2, host.system(System::Probe404), &saying);
    let said = await_state(&host, "reverted", "stable/2");
    assert_eq!(said["quarantined"], *host.system(System::Probe404), "{said}");
    assert_eq!(said["failure"]["class"], "probe", "{said}");
    assert_rests_on(&host, System::Good);
    restart_agent(&host);
    await_state(&host, "reverted", "stable/2");
    assert_eq!(fires(&host, host.system(System::Probe404)), 1, "it is not tried again by itself");

    fleet.publish(&host, 3, host.system(System::Good3), &saying);
    await_state(&host, "converged", "stable/3");
    assert_rests_on(&host, System::Good3);
}

/// Kills the agent again and again while a release is carried out.
#[test]
fn an_agent_that_is_killed_again_and_again_still_brings_its_host_to_the_release() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    // Pauses that grow by a third: each kill falls into another moment of the way.
    let mut pause = Duration::from_millis(40);
    let mut kills = 0;
    while pause < Duration::from_secs(4) {
        std::thread::sleep(pause);
        host.run(&["systemctl", "kill", "--signal=KILL", UNIT]).expect("it runs");
        kills += 1;
        pause = pause * 4 / 3;
    }
    assert!(kills > 10);
    await_state(&host, "converged", "stable/1");
    assert_rests_on(&host, System::Good);
    assert_eq!(fires(&host, host.system(System::Good)), 1, "fired once, whoever was killed when");
}

#[test]
fn a_hold_keeps_the_host_and_letting_go_moves_it() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    let held = host.run(&[AGENT, "hold", "exams this week", "--by", "ann"]).expect("it runs");
    assert_eq!((held.code, held.stderr.as_str()), (0, ""), "{held}");
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    let said = await_state(&host, "staged", "stable/1");
    assert_eq!(said["waiting"]["on"], "hold", "{said}");
    assert_eq!(fires(&host, host.system(System::Good)), 0);
    let rooted = host.sh("ls /nix/var/nix/gcroots/nixfleet-wanted").expect("it runs");
    assert!(rooted.stdout.contains("nixos-system"), "what is staged is kept from collection: {rooted}");
    assert_eq!(host.run(&[AGENT, "unhold", "--by", "ann"]).expect("it runs").code, 0);
    await_state(&host, "converged", "stable/1");
    assert_rests_on(&host, System::Good);
}

#[test]
fn a_person_who_goes_back_on_trial_is_seen_and_the_target_is_not_tried_again() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    let never = probe("never", &json!({ "tcp": { "address": "127.0.0.1:9" } }));
    let mut patient = never.clone();
    patient["failures"] = json!(1000);
    let saying = Saying { probes: json!([patient]), ..Saying::default() };
    fleet.publish(&host, 1, host.system(System::Good), &saying);
    await_state(&host, "confirming", "stable/1");
    let busy = crate::common::activate(&host, host.system(System::Good3), &[]);
    assert_eq!(busy.failure(), "busy", "a trial keeps others out: {}", busy.stderr);
    let back = host.run_for(LIMIT, &[AGENT, "rollback"]).expect("it runs");
    assert_eq!(back.code, 5, "{back}");
    await_state(&host, "reverted", "stable/1");
    assert_rests_on(&host, System::Base);
}

#[test]
fn a_state_file_that_cannot_be_read_stops_the_agent_and_nothing_is_switched() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    await_state(&host, "converged", "stable/1");
    host.run(&["systemctl", "stop", UNIT]).expect("it runs");
    let whole = host.read_file("/var/lib/nixfleet/state.json").expect("there");
    for (contents, says) in
        [(&whole[..whole.len() / 2], "damaged"), ("", "damaged"), ("{\"format\":9}", "newer")]
    {
        host.write_file("/var/lib/nixfleet/state.json", contents).expect("written");
        fleet.publish(&host, 2, host.system(System::Good3), &Saying::default());
        let ran = host.run_for(Duration::from_secs(20), &[AGENT, "run"]).expect("it runs");
        assert_eq!(ran.code, 8, "{ran}");
        assert!(ran.stderr.contains(says), "{ran}");
        assert_eq!(fires(&host, host.system(System::Good3)), 0);
    }
    host.write_file("/var/lib/nixfleet/state.json", &whole).expect("written");
    restart_agent(&host);
    await_state(&host, "converged", "stable/2");
    assert_nothing_left(&host);
}

/// What `systemd-analyze security` gives the agent: 0 is no exposure, 10 is all of it.
#[test]
fn the_shipped_unit_is_as_closed_as_an_activation_allows() {
    if !hosts_run() {
        return;
    }
    let (host, _) = following(Flavour::Trixie);
    let said = host.run(&["systemd-analyze", "security", "--no-pager", UNIT]).expect("it runs");
    let line = said.stdout.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
    println!("{line}");
    let level = line.split_ascii_whitespace().find_map(|word| word.parse::<f64>().ok());
    let level = level.unwrap_or_else(|| panic!("no level: {said}"));
    assert!(level < 5.0, "{said}");
}
