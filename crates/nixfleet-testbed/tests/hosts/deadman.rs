//! The deadman: the previous system comes back although the agent is gone, the network is cut and the clock jumps.

use nixfleet_testbed::{Flavour, Host, Net, System};
use serde_json::Value;

use crate::common::{AGENT, LIMIT, Said, activate, assert_rests_on, history, host, hosts_run, reach};

fn fire_and_forget(host: &Host, path: &str, flags: &[&str]) {
    let start = ["systemd-run", "--quiet", "--unit", "activation", AGENT, "activate", path];
    assert_eq!(host.run(&[start.as_slice(), flags].concat()).expect("it runs").code, 0);
    let flipped = host.wait_until("the flip", LIMIT, |host| host.current_system().as_deref() == Some(path));
    assert!(flipped.is_ok(), "{}", host.journal("activation").unwrap_or_default());
}

/// No agent is left that could revert: neither the one that fired nor the daemon.
fn kill_all_agents(host: &Host) {
    // After the switch: its last act starts what multi-user.target wants, and that includes the daemon.
    let switched = host.wait_until("the switch is over", LIMIT, |host| {
        host.read_file("/var/lib/nixfleet/journal.jsonl")
            .is_ok_and(|journal| journal.contains("\"line\":\"confirming\""))
    });
    assert!(switched.is_ok(), "{}", host.journal("activation").unwrap_or_default());
    // The daemon first: it would take the activation up as soon as its agent is gone.
    host.run(&["systemctl", "stop", "nixfleet-agent.service"]).expect("it runs");
    host.run(&["systemctl", "kill", "--signal=KILL", "activation.service"]).expect("it runs");
}

fn assert_brought_back(host: &Host) {
    let back = host.wait_until("the deadman", LIMIT, |host| {
        history(host).last().is_some_and(|last| !last["outcome"].is_null())
    });
    assert!(back.is_ok(), "{:?}", history(host));
    let last = history(host).pop().expect("one");
    assert_eq!(last["outcome"]["verdict"], "reverted", "{last}");
    assert_eq!(last["outcome"]["failure"]["kind"], "confirm-timeout", "{last}");
    assert_rests_on(host, System::Base);
}

#[test]
fn a_dead_agent_and_a_cut_network_are_brought_back() {
    if !hosts_run() {
        return;
    }
    let net = Net::new(Flavour::Trixie).expect("a network");
    let host = Host::builder(Flavour::Trixie).net(&net).boot().expect("the host boots");
    let target = host.system(System::BreaksNetwork).to_owned();
    fire_and_forget(&host, &target, &["--confirm-within", "60s"]);
    kill_all_agents(&host);
    assert_brought_back(&host);
}

#[test]
fn a_living_agent_sees_that_the_network_is_gone_and_reverts_by_itself() {
    if !hosts_run() {
        return;
    }
    let net = Net::new(Flavour::Trixie).expect("a network");
    let host = Host::builder(Flavour::Trixie).net(&net).boot().expect("the host boots");
    let said = activate(&host, host.system(System::BreaksNetwork), &["--confirm-within", "60s"]);
    said.assert(5, "reverted");
    assert_eq!(said.failure(), "probe-failed");
    assert_rests_on(&host, System::Base);
}

#[test]
fn an_agent_that_stands_still_on_trial_is_ended_by_the_deadman() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    // It holds the lock of whoever activates, and never lets it go.
    reach(&host, "before-confirm", host.system(System::Good), "45s");
    assert_brought_back(&host);
}

#[test]
fn a_daemon_reload_does_not_move_the_deadman() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let target = host.system(System::Good).to_owned();
    fire_and_forget(&host, &target, &["--trial", "--confirm-within", "60s"]);
    kill_all_agents(&host);
    let deadline_ms = written(&host, "arming-deadman")["deadline_ms"].as_u64().expect("a time of this boot");
    // Each daemon-reload would start an `--on-active` timer anew: that one would be due a minute after the last of them.
    let mut reloads = 0;
    let near = host.wait_until("the deadline is near", LIMIT, |host| {
        host.run(&["systemctl", "daemon-reload"]).expect("it runs").success().expect("reloaded");
        reloads += 1;
        now_ms(host).0 + 5_000 >= deadline_ms
    });
    assert!(near.is_ok() && reloads > 1, "{reloads} reloads");
    assert_brought_back(&host);
    // The line is of the clock for people; nothing moves that one here.
    let (uptime_ms, clock_ms) = now_ms(&host);
    let went_back_ms = written(&host, "reverting")["at_ms"].as_u64().expect("a time");
    let fired_ms = uptime_ms.saturating_sub(clock_ms.saturating_sub(went_back_ms));
    let late_ms = fired_ms.checked_sub(deadline_ms).expect("not before the deadline");
    assert!(late_ms < 40_000, "the deadman came {late_ms} ms after the deadline, three seconds is its due");
}

/// The newest line of this kind in the activation journal.
fn written(host: &Host, kind: &str) -> Value {
    let journal = host.read_file("/var/lib/nixfleet/journal.jsonl").expect("there is one");
    let lines = journal.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let entry = lines.map(|line| line["entry"].clone()).rfind(|entry| entry["line"] == kind);
    entry.unwrap_or_else(|| panic!("no line `{kind}`: {journal}"))
}

/// Milliseconds since the boot, and since 1970, at the same moment.
fn now_ms(host: &Host) -> (u64, u64) {
    let said = host
        .sh("clock=$(date +%s%3N); read -r up _ < /proc/uptime; echo ${up%.*}${up#*.}0 $clock")
        .expect("it runs")
        .stdout;
    let numbers: Vec<u64> = said.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    (numbers[0], numbers[1])
}

#[test]
fn a_broken_agent_in_the_new_system_cannot_break_the_rescue() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let target = host.system(System::AgentBroken).to_owned();
    fire_and_forget(&host, &target, &["--trial", "--keep-failed-units", "--confirm-within", "60s"]);
    kill_all_agents(&host);
    assert_eq!(host.current_system(), Some(target), "it is on trial");
    assert_eq!(host.run(&[AGENT, "status"]).expect("it runs").code, 1, "the new system's agent is broken");
    assert_brought_back(&host);
}

#[test]
fn a_reboot_into_a_system_with_a_broken_agent_is_brought_back() {
    if !hosts_run() {
        return;
    }
    for flavour in Flavour::ALL {
        let host = host(*flavour);
        let target = host.system(System::KernelAgentBroken).to_owned();
        activate(&host, &target, &["--confirm-within", "40s"]).assert(6, "deferred-pending-reboot");
        // Whoever starts what the targets want, as a switch does, does not wake it in this boot.
        host.run(&["systemctl", "daemon-reload"]).expect("it runs").success().expect("reloaded");
        host.run(&["systemctl", "start", "timers.target"]).expect("it runs").success().expect("started");
        assert_eq!(host.current_system().as_deref(), Some(host.system(System::Base)));
        host.reboot().expect("it comes back");
        assert_eq!(host.current_system(), Some(target), "the reboot brought it");
        // Its kernel would go on running under the previous system if that one were switched to live.
        host.await_reboot().expect("the deadman restarts it into the previous system");
        assert_brought_back(&host);
        assert_eq!(host.booted_system().as_deref(), Some(host.system(System::Base)));
    }
}

#[test]
fn a_trial_that_is_confirmed_by_hand_stays() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Bookworm);
    activate(&host, host.system(System::Good), &["--trial", "--confirm-within", "5m"]).assert(0, "on-trial");
    assert_eq!(
        host.boot_default().as_deref(),
        Some(host.system(System::Base)),
        "a reboot would bring the old one back"
    );
    let confirmed = host.run(&[AGENT, "confirm"]).expect("it runs");
    assert_eq!(confirmed.code, 0, "{}", confirmed.stderr);
    assert_rests_on(&host, System::Good);
}

#[test]
fn a_confirmation_asks_the_probes_and_tells_what_is_kept() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let confirm = || Said::of(&host.run_for(LIMIT, &[AGENT, "confirm", "--json"]).expect("it runs"));
    let flags = ["--trial", "--confirm-within", "5m", "--probe", "tcp:127.0.0.1:9"];
    activate(&host, host.system(System::Good), &flags).assert(0, "on-trial");
    let early = confirm();
    early.assert(1, "on-trial");
    assert_eq!(early.failure(), "probe-failed", "{}", early.json);
    assert_eq!(host.boot_default().as_deref(), Some(host.system(System::Base)), "nothing is kept yet");
    let _well = host.spawn(&["/bin/busybox", "httpd", "-f", "-p", "9", "-h", "/run"]).expect("started");
    let listens = ["/bin/bash", "-c", ": < /dev/tcp/127.0.0.1/9"];
    let well =
        host.wait_until("it is well", LIMIT, |host| host.run(&listens).is_ok_and(|said| said.code == 0));
    well.expect("somebody listens");
    confirm().assert(0, "converged");
    assert_rests_on(&host, System::Good);
    let late = confirm();
    late.assert(1, "nothing-on-trial");
    assert_eq!(late.json["last"]["verdict"], "converged", "{}", late.json);
    let flags = ["--trial", "--confirm-within", "5m", "--keep-failed-units"];
    activate(&host, host.system(System::UnitFails), &flags).assert(0, "on-trial");
    let kept = confirm();
    kept.assert(4, "live-with-failed-units");
    assert_eq!(kept.json["units"][0]["unit"], "demo-b.service", "{}", kept.json);
    assert_rests_on(&host, System::UnitFails);
}

/// A `switch` or `boot` by hand, as `nixos-rebuild` does it.
fn rebuild_by_hand(host: &Host, system: System, action: &str) {
    let path = host.system(system);
    host.fetch(path).expect("it is there");
    let profile = "/nix/var/nix/profiles/system";
    host.run(&["nix-env", "--profile", profile, "--set", path]).expect("it runs").success().expect("set");
    let switch = format!("{path}/bin/switch-to-configuration");
    host.run(&[&switch, action]).expect("it runs").success().expect("done");
}

#[test]
fn whoever_switches_by_hand_during_a_trial_keeps_their_system() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    // Confirmed, or left to the deadman: either way theirs stays.
    for confirms in [true, false] {
        let within = if confirms { "5m" } else { "90s" };
        let on_trial = host.system(System::Good).to_owned();
        let theirs = if confirms { System::Third } else { System::Twin };
        // The time of the trial is for the switch alone.
        host.fetch(host.system(theirs)).expect("it is there");
        activate(&host, &on_trial, &["--trial", "--confirm-within", within]).assert(0, "on-trial");
        rebuild_by_hand(&host, theirs, "switch");
        if confirms {
            // Refused, or too late: the daemon, which a switch starts, may have seen it first.
            host.run(&[AGENT, "confirm"]).expect("it runs");
        }
        let over = host.wait_until("the end of the trial", LIMIT, |host| {
            history(host).last().is_some_and(|last| !last["outcome"].is_null())
        });
        assert!(over.is_ok(), "{:?}", history(&host));
        let last = history(&host).pop().expect("one");
        assert_eq!(last["outcome"]["failure"]["kind"], "flipped-to-unexpected", "{last}");
        assert_rests_on(&host, theirs);
    }
}

#[test]
fn a_refused_update_leaves_a_system_that_somebody_wrote_for_the_next_boot() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let pending = host.system(System::Good3).to_owned();
    rebuild_by_hand(&host, System::Good3, "boot");
    activate(&host, host.system(System::PrecheckFails), &[]).assert(1, "failed");
    assert_eq!(host.profile_system().as_ref(), Some(&pending), "as before");
    assert_eq!(host.boot_default().as_ref(), Some(&pending), "as before");
    assert_eq!(host.current_system().as_deref(), Some(host.system(System::Base)));
}

#[test]
fn a_trial_that_nobody_confirms_is_reverted() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Bookworm);
    // The switch is part of that time, and a busy machine takes several seconds for it.
    activate(&host, host.system(System::Good), &["--trial", "--confirm-within", "40s"]).assert(0, "on-trial");
    assert_brought_back(&host);
    // Whoever asks the exit code alone must not read that it was kept.
    let late = Said::of(&host.run(&[AGENT, "confirm", "--json"]).expect("it runs"));
    late.assert(1, "nothing-on-trial");
    assert_eq!(late.json["last"]["verdict"], "reverted", "{}", late.json);
}
