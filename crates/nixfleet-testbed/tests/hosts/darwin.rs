//! The Darwin backend on a Linux host: sessions and locked files in place of units, and a flip that comes last.
//!
//! `NIXFLEET_BACKEND=darwin` chooses it, in test builds only. What cannot be shown here is what only macOS has:
//! launchd, its `ps`, and the nix-darwin activation script itself, of which the systems have the shape.

use nixfleet_testbed::{Flavour, Host, Output, System};
use serde_json::Value;

use crate::common::{AGENT, HOLD, LIMIT, Said, assert_nothing_left, history, host, hosts_run};

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
    activate(&host, System::DarwinSlow, &["--immediately"]).assert(0, "converged");
    assert_rests_on(&host, System::DarwinSlow);
    let back = agent(&host, &["rollback"]);
    assert_eq!(back.code, 0, "{}", back.stderr);
    assert_rests_on(&host, System::DarwinGood);
}

#[test]
fn a_failed_activate_is_reverted_since_it_may_have_done_half_of_its_work() {
    check(System::DarwinFails, &[], (5, "reverted", "switch-failed"), System::Base);
}

#[test]
fn a_hung_activate_is_ended_and_reverted() {
    let flags = ["--confirm-within", "30s"];
    let Some(host) = check(System::DarwinHangs, &flags, (5, "reverted", "switch-failed"), System::Base)
    else {
        return;
    };
    let sleepers = host.processes().expect("listed");
    let sleepers: Vec<_> = sleepers.iter().filter(|(_, line)| line.as_str() == "sleep infinity").collect();
    assert!(sleepers.is_empty(), "the whole session is ended: {sleepers:?}");
    let said = last(&host)["outcome"]["failure"].to_string();
    assert!(said.contains("about to hang") && said.contains("deadline"), "its last words are kept: {said}");
}

#[test]
fn a_flood_of_output_does_not_matter_and_does_not_fill_the_disk() {
    let Some(host) = check(System::DarwinFloods, &[], (0, "converged", "none"), System::DarwinFloods) else {
        return;
    };
    let kept =
        host.sh("du -s --apparent-size --block-size=1 /var/lib/nixfleet/logs | cut -f 1").expect("it runs");
    let kept: u64 = kept.text().parse().expect("a number");
    assert!((100_000..2_000_000).contains(&kept), "{kept} bytes");
    let id = last(&host)["id"].as_str().expect("an id").to_owned();
    let logs = agent(&host, &["logs", &id]);
    assert!(logs.stdout.trim_end().ends_with("the flood is over"), "the end is what is kept");
}

#[test]
fn a_repointed_profile_is_put_right() {
    check(System::DarwinRepoints, &[], (0, "converged", "none"), System::DarwinRepoints);
    let flags = ["--immediately"];
    let host = check(System::DarwinRepoints, &flags, (0, "converged", "none"), System::DarwinRepoints);
    if let Some(host) = host {
        assert!(last(&host)["outcome"]["warnings"].to_string().contains("re-pointed"), "{}", last(&host));
    }
}

#[test]
fn a_third_system_is_reverted() {
    check(System::DarwinThird, &[], (5, "reverted", "flipped-to-unexpected"), System::Base);
}

#[test]
fn what_is_no_system_of_this_platform_is_refused() {
    if !hosts_run() {
        return;
    }
    let host = darwin_host();
    let said = activate(&host, System::Good, &[]);
    said.assert(1, "failed");
    assert_eq!(said.failure(), "not-a-system", "{}", said.json);
    assert_rests_on(&host, System::Base);
}

#[test]
fn a_probe_that_nobody_answers_reverts() {
    let flags = ["--probe", "tcp:127.0.0.1:9", "--confirm-within", "30s"];
    check(System::DarwinGood, &flags, (5, "reverted", "probe-failed"), System::Base);
}

#[test]
fn a_trial_is_confirmed_by_hand_and_one_that_nobody_confirms_comes_back() {
    if !hosts_run() {
        return;
    }
    let host = darwin_host();
    activate(&host, System::DarwinGood, &["--trial", "--confirm-within", "5m"]).assert(0, "on-trial");
    the_deadman(&host);
    let base = Some(host.system(System::Base).to_owned());
    assert_eq!(host.profile_system(), base, "what a reboot brings is still the previous system");
    let confirmed = agent(&host, &["confirm"]);
    assert_eq!(confirmed.code, 0, "{}", confirmed.stderr);
    assert_rests_on(&host, System::DarwinGood);
    activate(&host, System::DarwinSlow, &["--trial", "--confirm-within", "60s"]).assert(0, "on-trial");
    assert_brought_back(&host, "confirm-timeout", System::DarwinGood);
}

/// Waits until nothing but the deadman is detached, and returns it: what ran `activate` ends just after its record.
fn the_deadman(host: &Host) -> (u32, String) {
    let alone = host.wait_until("the deadman waits alone", LIMIT, |host| detached(host).len() == 1);
    assert!(alone.is_ok(), "{:?}", detached(host));
    let waiting = detached(host).pop().expect("it waits");
    assert!(waiting.1.contains(" deadman "), "{waiting:?}");
    waiting
}

/// Waits until the deadman has told its story: nobody else is there to do it.
fn assert_brought_back(host: &Host, failure: &str, system: System) {
    let over = host.wait_until("the deadman", LIMIT, |host| !last(host)["outcome"].is_null());
    assert!(over.is_ok(), "{:?}", history(host));
    let last = last(host);
    assert_eq!(last["outcome"]["verdict"], "reverted", "{last}");
    assert_eq!(last["outcome"]["failure"]["kind"], failure, "{last}");
    assert_rests_on(host, system);
}

/// The unit in which the agent runs, in place of launchd's job: its processes share a group.
const UNIT: &str = "activation.service";

/// Starts an activation at the head of a process group of its own, as launchd would.
fn start(host: &Host, system: System, setenv: &str, flags: &[&str]) {
    let run = ["systemd-run", "--quiet", "--unit", UNIT, "--property=KillMode=process", "--setenv", DARWIN];
    let run = [&run, ["--setenv", setenv, AGENT, "activate", host.system(system)].as_slice(), flags].concat();
    assert_eq!(host.run(&run).expect("it runs").code, 0);
}

/// Waits until a process with exactly this command line runs.
fn await_process(host: &Host, line: &str) {
    let runs = host.wait_until(line, LIMIT, |host| {
        host.processes().is_ok_and(|all| all.iter().any(|(_, seen)| seen == line))
    });
    assert!(runs.is_ok(), "{line} never ran");
}

/// Signals the process group of the agent, and nothing else, as launchd does when it reloads a job.
fn signal_group(host: &Host, signal: &str) {
    let group = host.run(&["systemctl", "show", "--property=MainPID", "--value", UNIT]).expect("it runs");
    // The shell's own: `/bin/kill` takes a small number behind a dash for a signal, wherever it stands.
    let output = host.sh(&format!("kill -s {signal} -- -{}", group.text())).expect("it runs");
    assert_eq!(output.code, 0, "{}", output.stderr);
    let gone = host.wait_until("the agent is gone", LIMIT, |host| {
        !matches!(host.unit_state(UNIT).as_deref(), Ok("active" | "deactivating"))
    });
    assert!(gone.is_ok());
}

fn await_line(host: &Host, line: &str) {
    let there = host.wait_until(line, LIMIT, |host| {
        let journal = host.read_file("/var/lib/nixfleet/journal.jsonl").unwrap_or_default();
        journal.contains(&format!("\"line\":\"{line}\""))
    });
    assert!(there.is_ok(), "{line}: {}", host.journal(UNIT).unwrap_or_default());
}

#[test]
fn a_dead_agent_on_trial_is_brought_back_by_the_previous_systems_own_agent() {
    if !hosts_run() {
        return;
    }
    let host = darwin_host();
    let base = host.sh(&format!("readlink -f {AGENT}")).expect("it runs").text().to_owned();
    start(&host, System::DarwinGood, "NONE=", &["--probe", "tcp:127.0.0.1:9", "--confirm-within", "30s"]);
    await_line(&host, "confirming");
    assert_eq!(host.current_system().as_deref(), Some(host.system(System::DarwinGood)));
    signal_group(&host, "KILL");
    let waiting = the_deadman(&host);
    assert!(waiting.1.starts_with(&base), "{waiting:?} outlives the agent, and is {base}");
    assert_brought_back(&host, "confirm-timeout", System::Base);
}

#[test]
fn an_agent_that_stands_still_on_trial_is_ended_by_the_deadman() {
    if !hosts_run() {
        return;
    }
    let host = darwin_host();
    start(&host, System::DarwinGood, "NONE=", &["--probe", "tcp:127.0.0.1:9", "--confirm-within", "30s"]);
    await_line(&host, "confirming");
    host.run(&["systemctl", "kill", "--kill-whom=main", "--signal=STOP", UNIT]).expect("it runs");
    assert_brought_back(&host, "confirm-timeout", System::Base);
}

#[test]
fn an_activate_goes_on_when_the_agents_group_is_ended_and_is_picked_up_later() {
    if !hosts_run() {
        return;
    }
    let host = darwin_host();
    host.write_file(HOLD, "").expect("written");
    start(&host, System::DarwinSlow, "NONE=", &["--confirm-within", "5m"]);
    let begun = host.wait_until("activate has begun", LIMIT, |host| fires(host, System::DarwinSlow) == 1);
    assert!(begun.is_ok(), "{}", host.journal(UNIT).unwrap_or_default());
    signal_group(&host, "TERM");
    assert_eq!(host.current_system().as_deref(), Some(host.system(System::Base)), "it is not over yet");
    host.run(&["rm", HOLD]).expect("it runs").success().expect("let go");
    let picked_up = agent(&host, &["recover"]);
    assert_eq!(picked_up.code, 0, "{}", picked_up.stderr);
    assert_eq!(last(&host)["outcome"]["verdict"], "converged");
    assert_rests_on(&host, System::DarwinSlow);
    assert_eq!(fires(&host, System::DarwinSlow), 1, "fired once");
}

#[test]
fn the_output_of_a_run_can_be_read_while_it_goes_on() {
    if !hosts_run() {
        return;
    }
    let host = darwin_host();
    start(&host, System::DarwinHangs, "NONE=", &["--confirm-within", "5m"]);
    let shown = host.wait_until("its output", LIMIT, |host| {
        let Some(id) = history(host).pop().and_then(|one| one["id"].as_str().map(str::to_owned)) else {
            return false;
        };
        agent(host, &["logs", &id]).stdout.contains("about to hang")
    });
    assert!(shown.is_ok());
    signal_group(&host, "KILL");
    let back = agent(&host, &["rollback"]);
    assert_eq!(back.code, 5, "{}", back.stderr);
    assert_rests_on(&host, System::Base);
}

#[test]
fn a_process_id_that_is_used_again_is_neither_taken_for_the_run_nor_ended() {
    if !hosts_run() {
        return;
    }
    let host = darwin_host();
    start(&host, System::DarwinHangs, "NONE=", &["--confirm-within", "5m"]);
    await_process(&host, "sleep infinity");
    signal_group(&host, "KILL");
    // The run dies without a record, and somebody who has nothing to do with it gets its leader's id.
    let _bystander = host.spawn(&["setsid", "sleep", "4242"]).expect("started");
    await_process(&host, "sleep 4242");
    let swapped = host.sh("set -e; file=$(ls /var/lib/nixfleet/ends/*.pid); pkill -KILL -s $(cat $file); \
         other=$(pgrep -x -f 'sleep 4242'); printf %s $other > $file");
    let swapped = swapped.expect("it runs");
    assert_eq!(swapped.code, 0, "{}", swapped.stderr);
    let back = agent(&host, &["rollback"]);
    assert_eq!(back.code, 5, "{}", back.stderr);
    let alive = host.sh("pgrep -x -f 'sleep 4242'").expect("it runs");
    assert_eq!(alive.code, 0, "the bystander lives");
    assert_rests_on(&host, System::Base);
}

#[test]
fn a_run_that_is_killed_is_run_once_more_by_whoever_finds_it() {
    if !hosts_run() {
        return;
    }
    let host = darwin_host();
    host.write_file(HOLD, "").expect("written");
    start(&host, System::DarwinSlow, "NONE=", &["--confirm-within", "5m"]);
    let begun = host.wait_until("activate has begun", LIMIT, |host| fires(host, System::DarwinSlow) == 1);
    assert!(begun.is_ok(), "{}", host.journal(UNIT).unwrap_or_default());
    signal_group(&host, "KILL");
    let killed = host.sh("pkill -KILL -s $(cat /var/lib/nixfleet/ends/*.pid)").expect("it runs");
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    host.run(&["rm", HOLD]).expect("it runs").success().expect("let go");
    let picked_up = agent(&host, &["recover"]);
    assert_eq!(picked_up.code, 0, "{}", picked_up.stderr);
    assert_rests_on(&host, System::DarwinSlow);
    assert_eq!(fires(&host, System::DarwinSlow), 2, "half an activate may have been done: it is repaired");
}

#[test]
fn a_reboot_on_trial_comes_back_on_the_previous_system_and_is_told() {
    if !hosts_run() {
        return;
    }
    let host = darwin_host();
    // As on nix-darwin: nothing but the profile says what is activated at boot, and the agent is the Darwin one.
    let dropin = "/usr/local/lib/systemd/system/nixfleet-agent.service.d/darwin.conf";
    host.write_file(dropin, &format!("[Service]\nEnvironment={DARWIN}\n")).expect("written");
    host.sh("rm /boot/default").expect("removed");
    activate(&host, System::DarwinGood, &["--trial", "--confirm-within", "5m"]).assert(0, "on-trial");
    host.reboot().expect("it comes back");
    assert_brought_back(&host, "rebooted", System::Base);
    assert_eq!(host.booted_system().as_deref(), Some(host.system(System::Base)));
    activate(&host, System::DarwinGood, &[]).assert(0, "converged");
    host.run(&["systemctl", "stop", "nixfleet-agent.service"]).expect("it runs");
    assert_rests_on(&host, System::DarwinGood);
}

/// Kills the agent at a point, has it recovered, and checks the rules that always hold.
fn crash(point: &str, system: System) {
    const MARK: &str = "/run/nixfleet-failpoint";
    if !hosts_run() {
        return;
    }
    let host = darwin_host();
    start(&host, system, &format!("NIXFLEET_FAILPOINT={point}"), &["--confirm-within", "5m"]);
    let reached = host.wait_until("the failpoint is reached", LIMIT, |host| host.exists(MARK));
    assert!(reached.is_ok(), "{point}: {}", host.journal(UNIT).unwrap_or_default());
    signal_group(&host, "KILL");
    let recovered = agent(&host, &["recover"]);
    assert!(matches!(recovered.code, 0 | 1 | 5), "{point}: {} {}", recovered.code, recovered.stderr);
    let on_target = host.current_system().as_deref() == Some(host.system(system));
    assert_rests_on(&host, if on_target { system } else { System::Base });
    assert!(fires(&host, system) <= 1, "{point}: fired twice");
    if point != "before-began" {
        let last = last(&host);
        let converged = last["outcome"]["verdict"] == "converged";
        assert!(!last["outcome"].is_null(), "{point}: {last}");
        assert_eq!(converged, on_target, "{point}: the history agrees with the host: {last}");
    }
}

macro_rules! points {
    ($system:ident: $($name:ident = $point:expr),* $(,)?) => {
        $(#[test]
        fn $name() {
            crash($point, System::$system);
        })*
    };
}

mod killed_on_the_way_forward {
    use super::*;
    points! { DarwinGood:
        before_began = "before-began",
        after_began = "after-began",
        before_root = "before-root",
        after_root = "after-root",
        before_realise = "before-realise",
        after_realise = "after-realise",
        before_set_profile = "before-set-profile",
        after_set_profile = "after-set-profile",
        before_arm_deadman = "before-arm-deadman",
        after_arm_deadman = "after-arm-deadman",
        before_fire = "before-fire",
        after_fire = "after-fire",
        before_verify_poll = "before-verify-poll",
        after_verify_poll = "after-verify-poll",
        before_self_correct = "before-self-correct",
        after_self_correct = "after-self-correct",
        before_confirm = "before-confirm",
        after_confirm = "after-confirm",
        before_confirmed = "before-confirmed",
        after_confirmed = "after-confirmed",
        before_commit_fire = "before-commit-fire",
        after_commit_fire = "after-commit-fire",
        after_commit = "after-commit",
        before_disarm = "before-disarm",
        after_disarm = "after-disarm",
        before_finish = "before-finish",
        after_finish = "after-finish",
        after_cleanup = "after-cleanup",
    }
}

mod killed_on_the_way_back {
    use super::*;
    points! { DarwinFails:
        before_reverting = "before-reverting",
        after_reverting = "after-reverting",
        before_revert_profile = "before-revert-profile",
        after_revert_profile = "after-revert-profile",
        before_revert_fire = "before-revert-fire",
        after_revert_fire = "after-revert-fire",
        after_revert = "after-revert",
    }
}
