//! A host that follows signed releases in a folder: it converges, reverts what is not well, and goes on wherever its agent
//! is cut off.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nixfleet_testbed::{Fault, Flavour, Host, Machine, System, fleet};
use serde_json::{Value, json};

use crate::common::{
    AGENT, HOLD, LIMIT, Subject, assert_nothing_left, assert_rests_on, fires, history, host, hosts_run,
};
use crate::fleet::{FOLDER, Fleet, HOST, HOST_KEY, ROOT_FILE, Saying, probe};

/// Where the agent's configuration is.
pub(crate) const CONFIG: &str = "/etc/nixfleet/agent.toml";
/// The unit of the agent that follows.
pub(crate) const UNIT: &str = "nixfleet-agent.service";

/// The unit as it is shipped.
const SHIPPED_UNIT: &str = include_str!("../../../../dist/nixfleet-agent.service");
/// What of it is put over the unit that the test hosts' systems have; gone after a reboot.
const DROP_IN: &str = "/run/systemd/system/nixfleet-agent.service.d/50-shipped.conf";

/// A host whose agent follows the folder, in the sandbox that is shipped.
fn following(flavour: Flavour) -> (Host, Fleet) {
    follow_on(host(flavour))
}

/// Has the agent of this host follow the folder, in the sandbox that is shipped.
pub(crate) fn follow_on(host: Host) -> (Host, Fleet) {
    ship(&host);
    let fleet = Fleet::new();
    fleet.introduce(&host);
    host.sh(&format!("mkdir -p {FOLDER}")).expect("it runs");
    host.write_file(CONFIG, &configuration()).expect("written");
    restart_agent(&host);
    (host, fleet)
}

/// Puts the shipped unit over the one that the host's system has, until the next boot.
pub(crate) fn ship(host: &Host) {
    // The program stays that of the host's system, and what is behind `[Install]` says nothing here.
    let shipped = SHIPPED_UNIT.split("[Install]").next().expect("a beginning");
    let lines = shipped.lines().filter(|line| !line.starts_with("ExecStart="));
    let over: Vec<&str> = lines.collect();
    assert!(over.len() > 30, "the unit says something");
    host.write_file(DROP_IN, &over.join("\n")).expect("written");
    host.run(&["systemctl", "daemon-reload"]).expect("it runs");
}

/// What the agent of such a host is told.
pub(crate) fn configuration() -> String {
    format!(
        "host = \"{HOST}\"\nchannel = \"stable\"\nsource = \"{FOLDER}\"\nroot = \"{ROOT_FILE}\"\nhost-key = \"{HOST_KEY}.pub\"\npoll = \"10s\"\n"
    )
}

pub(crate) fn restart_agent(host: &impl Machine) {
    let restarted = host.run(&["systemctl", "restart", UNIT]).expect("it runs");
    assert_eq!(restarted.code, 0, "{restarted}\n{}", host.journal(UNIT).unwrap_or_default());
}

/// Waits until the host has come to this state with this release.
pub(crate) fn await_state<M: Subject>(host: &M, state: &str, release: &str) -> Value {
    let mut last = Value::Null;
    let reached = Machine::wait_until(host, &format!("{state} {release}"), M::LIMIT, |host| {
        last = fleet::status(host);
        if last["waiting"]["on"] == "retry" {
            // An activation that was cut off before its switch is tried again after a pause, which grows.
            let _ = host.run(&[AGENT, "retry", "--by", "the test"]);
        }
        last["state"] == state && last["release"] == release
    });
    if let Err(error) = reached {
        panic!("{error:#}\n{last:#}\n{}\n{:?}", host.journal(UNIT).unwrap_or_default(), history(host));
    }
    last
}

pub(crate) fn web() -> Value {
    probe("web", &json!({ "http": { "url": "http://127.0.0.1:8000/health" } }))
}

/// A probe that never passes, and does not end a trial before its time.
fn never_passes() -> Value {
    let mut never = probe("never", &json!({ "tcp": { "address": "127.0.0.1:9" } }));
    never["failures"] = json!(1000);
    never
}

#[test]
fn a_release_is_followed_one_that_is_not_well_is_reverted_and_the_next_one_converges() {
    good_bad_good(Flavour::Trixie);
}

#[test]
fn releases_are_followed_with_old_nix_and_systemd_too() {
    good_bad_good(Flavour::Bookworm);
}

fn good_bad_good(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(flavour);
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

    fleet.publish(&host, 1, host.system(System::Good), &saying);
    let refused = host.wait_until("an older number is refused", LIMIT, |host| {
        fleet::status(host)["source"]["refused"]["kind"] == "trust"
    });
    assert!(refused.is_ok(), "{}", fleet::status(&host));
    assert_rests_on(&host, System::Good3);
    fleet.set_back(&host);
    await_state(&host, "converged", "stable/1");
    assert_rests_on(&host, System::Good);
}

#[test]
fn a_host_that_still_watches_a_release_shows_the_newer_one_that_comes_next() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    let watched_long = Saying { soak_secs: 3_600, ..Saying::default() };
    fleet.publish(&host, 1, host.system(System::Good), &watched_long);
    let said = await_state(&host, "soaking", "stable/1");
    assert!(said["next"].is_null(), "{said}");
    fleet.publish(&host, 2, host.system(System::Good3), &Saying::default());
    let seen = host.wait_until("the newer one is seen", LIMIT, |host| {
        let said = fleet::status(host);
        said["next"] == "stable/2" && said["state"] == "soaking" && said["release"] == "stable/1"
    });
    assert!(seen.is_ok(), "{:#}", fleet::status(&host));
    let shown = host.run(&[AGENT, "status"]).expect("it runs").stdout;
    assert!(shown.contains("next      stable/2, when this one is over"), "{shown}");
    assert_rests_on(&host, System::Good);
}

/// What the reducer and its log pass with every input: it must be possible to die at each of them, each time.
pub(crate) const POINTS: [&str; 7] = [
    "before-log",
    "after-log",
    "before-outbox-append",
    "after-outbox-append",
    "before-save",
    "after-save",
    "after-effects",
];
/// What the log passes when it is cut or made anew, which a test on a host does not come to: its own tests, with a disk that
/// loses what was not synced, die at each of its syncs (`nixfleet-agent`, `runtime/outbox/model.rs`).
pub(crate) const RARE_POINTS: [&str; 4] =
    ["before-outbox-cut", "after-outbox-cut", "before-outbox-replace", "after-outbox-replace"];
/// How many agents have died so.
const DEATHS: &str = "/run/nixfleet-deaths";
/// Lets agents die at a point: the first at once, the second at its second time, and so on.
const DEADLY: &str = "/run/systemd/system/nixfleet-agent.service.d/60-deadly.conf";

#[allow(
    clippy::print_stdout,
    reason = "how many died is what somebody who reads the test's output wants to know"
)]
/// SIGKILL at every write of the log, at every save, and after every input.
fn dies_at_each(point: &str) {
    if !hosts_run() {
        return;
    }
    assert!(POINTS.contains(&point));
    let (host, fleet) = following(Flavour::Trixie);
    let deadly = format!("[Service]\nEnvironment=NIXFLEET_FAILPOINT=each:{point}\nRestartSec=100ms\n");
    host.write_file(DEADLY, &deadly).expect("written");
    host.run(&["systemctl", "daemon-reload"]).expect("it runs");
    // Some thirty agents die, part of them on trial.
    let patient = Saying { confirm_within_secs: 300, ..Saying::default() };
    fleet.publish(&host, 1, host.system(System::Good), &patient);
    // It may die before it is ready.
    let _ = host.run(&["systemctl", "restart", UNIT]);
    await_state(&host, "converged", "stable/1");
    assert_rests_on(&host, System::Good);
    assert_eq!(fires(&host, host.system(System::Good)), 1, "fired once, whoever died when");
    let saying = Saying { probes: json!([web()]), ..patient };
    fleet.publish(&host, 2, host.system(System::Probe404), &saying);
    await_state(&host, "reverted", "stable/2");
    assert_rests_on(&host, System::Good);
    assert_eq!(fires(&host, host.system(System::Probe404)), 1, "fired once, whoever died when");
    let deaths: u32 = host.read_file(DEATHS).expect("somebody died").trim().parse().expect("a number");
    println!("{point}: {deaths} agents died");
    // The nth dies at its nth passing, so that n deaths take n (n + 1) / 2 of them; two releases take some thirty at the
    // least, and more when the machine is slow enough for more looks at the probes.
    assert!(deaths > 4, "{deaths} agents died");
}

#[test]
fn an_agent_that_dies_before_each_write_of_the_log_goes_on() {
    dies_at_each("before-log");
}

#[test]
fn an_agent_that_dies_after_each_write_of_the_log_goes_on() {
    dies_at_each("after-log");
}

#[test]
fn an_agent_that_dies_before_each_sync_of_the_log_goes_on() {
    dies_at_each("before-outbox-append");
}

#[test]
fn an_agent_that_dies_after_each_sync_of_the_log_goes_on() {
    dies_at_each("after-outbox-append");
}

#[test]
fn an_agent_that_dies_before_each_save_goes_on() {
    dies_at_each("before-save");
}

#[test]
fn an_agent_that_dies_after_each_save_goes_on() {
    dies_at_each("after-save");
}

#[test]
fn an_agent_that_dies_after_each_input_goes_on() {
    dies_at_each("after-effects");
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
    // On a busy machine the agent may take it only after the verb has stopped waiting for that.
    assert_eq!(held.code, 0, "{held}");
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
    let saying = Saying { probes: json!([never_passes()]), ..Saying::default() };
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
        let ran = host.run_for(LIMIT, &[AGENT, "run"]).expect("it runs");
        assert_eq!(ran.code, 8, "{ran}");
        assert!(ran.stderr.contains(says), "{ran}");
        assert_eq!(fires(&host, host.system(System::Good3)), 0);
    }
    host.write_file("/var/lib/nixfleet/state.json", &whole).expect("written");
    restart_agent(&host);
    await_state(&host, "converged", "stable/2");
    assert_nothing_left(&host);
}

#[test]
fn an_agent_that_is_stopped_leaves_at_once_and_its_switch_goes_on() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    let slow = host.system(System::Slow).to_owned();
    host.write_file(HOLD, "").expect("written");
    fleet.publish(&host, 1, &slow, &Saying::default());
    host.wait_until("the switch runs", LIMIT, |host| fires(host, &slow) == 1).expect("it does");
    host.run(&["systemctl", "stop", UNIT]).expect("it runs");
    assert_ne!(host.current_system().as_ref(), Some(&slow), "the agent did not wait for the switch");
    host.run(&["rm", HOLD]).expect("it runs").success().expect("let go");
    let result = host.run(&["systemctl", "show", "--property=Result", UNIT]).expect("it runs");
    assert_eq!(result.text(), "Result=success", "nobody had to kill the agent");
    host.wait_until("the switch is over", LIMIT, |host| host.current_system().as_ref() == Some(&slow))
        .expect("nobody cut it off");
    restart_agent(&host);
    await_state(&host, "converged", "stable/1");
    assert_rests_on(&host, System::Slow);
    assert_eq!(fires(&host, &slow), 1);
}

#[test]
fn an_agent_that_is_stopped_in_the_middle_of_a_fetch_blames_nobody_and_goes_on() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    // A byte every 50 ms: minutes for the system alone, so that whoever looks late still finds the fetch going on.
    host.break_cache(Fault::Slow { bytes_per_second: 20 }).expect("broken");
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    // Stopped before the server goes, too: a fetch that loses its server in the middle has failed.
    for act in ["restart", "restart", "stop"] {
        let fetches = |host: &Host| {
            let processes = host.processes().unwrap_or_default();
            processes.iter().any(|(_, line)| line.contains("nix-store --realise"))
        };
        host.wait_until("it fetches", LIMIT, fetches).expect("it does");
        host.run(&["systemctl", act, UNIT]).expect("it runs").success().expect("done");
    }
    host.cache().expect("there is one").up().expect("mended");
    restart_agent(&host);
    await_state(&host, "converged", "stable/1");
    let said = host.journal(UNIT).expect("there is one");
    assert!(!said.contains("failed (stable/1)"), "{said}");
    assert_rests_on(&host, System::Good);
}

#[test]
fn what_a_person_switches_to_is_seen_and_the_next_release_takes_over() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    await_state(&host, "converged", "stable/1");
    crate::common::activate(&host, host.system(System::Good3), &[]).assert(0, "converged");
    let said = await_state(&host, "failed", "stable/1");
    assert_eq!(said["failure"]["failure"]["kind"], "flipped-to-unexpected", "{said}");
    assert_eq!(host.current_system().as_deref(), Some(host.system(System::Good3)), "it is left alone");
    fleet.publish(&host, 2, host.system(System::Twin), &Saying::default());
    await_state(&host, "converged", "stable/2");
    assert_rests_on(&host, System::Twin);
}

#[test]
fn a_release_with_another_kernel_is_finished_by_the_reboot() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    fleet.publish(&host, 1, host.system(System::OtherKernel), &Saying::default());
    let said = await_state(&host, "awaiting-reboot", "stable/1");
    assert_eq!(said["waiting"]["on"], "person-to-reboot", "{said}");
    assert_eq!(host.current_system().as_deref(), Some(host.system(System::Base)));
    let armed = host.sh("ls /etc/systemd/system.control").expect("it runs").stdout;
    assert!(armed.contains("nixfleet-next-boot-"), "the sandbox lets the agent arm the next boot: {armed}");
    host.reboot().expect("it comes back");
    await_state(&host, "converged", "stable/1");
    assert_rests_on(&host, System::OtherKernel);
}

#[test]
fn a_reboot_does_not_excuse_a_new_system_from_the_probes_of_its_release() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    // It is lost half a minute after the boot, and the deadman, who would say something else, is far away.
    let mut lost = never_passes();
    (lost["after_secs"], lost["failures"]) = (json!(30), json!(3));
    let saying = Saying { probes: json!([lost]), confirm_within_secs: 120, ..Saying::default() };
    fleet.publish(&host, 1, host.system(System::OtherKernel), &saying);
    await_state(&host, "awaiting-reboot", "stable/1");
    host.reboot().expect("it comes back");
    await_state(&host, "confirming", "stable/1");
    let armed = host.sh("ls /etc/systemd/system.control").expect("it runs").stdout;
    assert!(armed.contains("nixfleet-next-boot-"), "the way back stays armed on trial: {armed}");
    host.await_reboot().expect("it restarts into the previous system");
    let said = await_state(&host, "reverted", "stable/1");
    assert_eq!(said["failure"]["failure"]["kind"], "probe-failed", "{said}");
    assert_eq!(
        host.booted_system().as_deref(),
        Some(host.system(System::Base)),
        "its kernel does not run on"
    );
    assert_rests_on(&host, System::Base);
}

#[test]
fn a_host_that_restarts_on_trial_comes_back_on_the_previous_system_and_says_so() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    let saying = Saying { probes: json!([never_passes()]), confirm_within_secs: 300, ..Saying::default() };
    fleet.publish(&host, 1, host.system(System::Good), &saying);
    await_state(&host, "confirming", "stable/1");
    host.kill().expect("it dies");
    host.start().expect("it starts");
    let said = await_state(&host, "reverted", "stable/1");
    assert_eq!(said["failure"]["failure"]["kind"], "rebooted", "{said}");
    assert_rests_on(&host, System::Base);
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

#[test]
fn the_agent_of_the_new_system_confirms_the_trial() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    let old = program(&host);
    fleet.publish(&host, 1, host.system(System::AgentNewer), &Saying::default());
    await_state(&host, "converged", "stable/1");
    let new = program(&host);
    assert_ne!(old, new, "the old agent has made way");
    assert!(new.contains("nixfleet-agent-0.1.1"), "{new}");
    let said = host.journal(UNIT).expect("there is one");
    let commits = said.lines().filter(|line| *line == "step: commit").count();
    let way = said.find("making way for").expect("it says so");
    assert!(commits == 1 && said.find("step: commit").is_some_and(|commit| commit > way), "{said}");
}

#[test]
fn a_new_agent_that_does_not_come_up_is_undone_with_its_system() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    let saying = Saying { confirm_within_secs: 20, ..Saying::default() };
    // It is as broken when another release brings it: what was tried once proves nothing.
    for seq in [1, 2] {
        fleet.publish(&host, seq, host.system(System::AgentBrokenKept), &saying);
        await_state(&host, "reverted", &format!("stable/{seq}"));
        assert_rests_on(&host, System::Base);
        assert_eq!(host.unit_state(UNIT).expect("systemd answers"), "active");
    }
}

#[test]
fn a_changed_configuration_is_read_and_one_that_nobody_can_read_fails_the_trial_that_brings_it() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    await_state(&host, "converged", "stable/1");
    let journal = |host: &Host| host.journal(UNIT).unwrap_or_default();
    host.write_file(CONFIG, &configuration().replace("10s", "11s")).expect("written");
    host.wait_until("another process reads it", LIMIT, |host| {
        journal(host).contains("making way for an agent that reads the changed configuration")
    })
    .expect("nobody restarted it");

    let slow = host.system(System::Slow).to_owned();
    host.write_file(HOLD, "").expect("written");
    fleet.publish(&host, 2, &slow, &Saying::default());
    host.wait_until("the switch runs", LIMIT, |host| fires(host, &slow) == 1).expect("it does");
    host.write_file(CONFIG, "source = 7\n").expect("written");
    host.run(&["rm", HOLD]).expect("it runs").success().expect("let go");
    host.wait_until("the way back", LIMIT, |host| journal(host).contains("reverted: "))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", journal(&host)));
    // As the configuration of the system from before would come back with it.
    host.write_file(CONFIG, &configuration()).expect("written");
    restart_agent(&host);
    let said = await_state(&host, "reverted", "stable/2");
    assert!(said["failure"].to_string().contains("cannot follow"), "{said}");
    assert_rests_on(&host, System::Good);
}

/// How long an agent is watched that has nothing to do.
const IDLE_FOR: Duration = Duration::from_secs(20);
/// How often its threads may go to sleep in that time: it looks at its folder twice, a thread of its own reads, and whatever else
/// there may be is far from a circle in which two threads keep each other awake.
const SLEEPS_MAX: u64 = 100;

#[test]
fn an_agent_that_has_nothing_to_do_sleeps() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = following(Flavour::Trixie);
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    await_state(&host, "converged", "stable/1");
    assert_nothing_left(&host);
    // Waiting for a disk that others use is sleeping, too: one quiet time of three shows that it is not the agent's way.
    let slept: Vec<u64> = std::iter::repeat_with(|| sleeps_while_idle(&host)).take(3).collect();
    assert!(slept.iter().any(|slept| *slept < SLEEPS_MAX), "{slept:?} times in {IDLE_FOR:?}");
}

/// How often the agent's threads go to sleep while nothing is to be done.
fn sleeps_while_idle(host: &Host) -> u64 {
    let before = sleeps(host);
    let begun = Instant::now();
    std::thread::sleep(IDLE_FOR);
    // A thread that was busy before may have ended: idle ones of a pool do.
    let since = |(thread, count): (u32, u64)| count - before.get(&thread).copied().unwrap_or(0).min(count);
    let slept: u64 = sleeps(host).into_iter().map(since).sum();
    // In the time that was meant, however long it was.
    slept * IDLE_FOR.as_secs() / begun.elapsed().as_secs().max(1)
}

/// How often each thread of the agent has gone to sleep.
fn sleeps(host: &Host) -> BTreeMap<u32, u64> {
    let script =
        format!("grep -H ^voluntary_ctxt_switches: /proc/$(systemctl show -P MainPID {UNIT})/task/*/status");
    let said = host.sh(&script).expect("it runs").stdout;
    let of_thread = |line: &str| -> Option<(u32, u64)> {
        let (file, count) = line.split_once(":voluntary_ctxt_switches:")?;
        let thread = file.strip_suffix("/status")?.rsplit('/').next()?;
        Some((thread.parse().ok()?, count.trim().parse().ok()?))
    };
    let counts: BTreeMap<u32, u64> = said.lines().filter_map(of_thread).collect();
    assert!(!counts.is_empty(), "{said}");
    counts
}

/// The program that the agent's unit runs.
fn program(host: &Host) -> String {
    let pid = host.run(&["systemctl", "show", "-P", "MainPID", UNIT]).expect("it runs").text().to_owned();
    host.read_link(&format!("/proc/{pid}/exe")).unwrap_or_default()
}
