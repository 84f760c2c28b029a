//! The crash matrix: at every named point the agent is killed, its unit stopped, the host restarted or cut off.
//!
//! Afterwards the host rests on the previous or the target system, profile and boot default agree with it, nothing is
//! left over, the history says what happened, and the target was not fired twice.

use std::time::Duration;

use nixfleet_testbed::{Flavour, Host, System};

use crate::common::{AGENT, LIMIT, assert_rests_on, fires, history, host, hosts_run};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    KillAgent,
    StopUnit,
    Reboot,
    KillHost,
}

/// The unit in which the activation runs, as if a person or a timer had started it.
const UNIT: &str = "activation.service";
const MARK: &str = "/run/nixfleet-failpoint";

fn reach(host: &Host, point: &str, system: System, confirm_within: &str) {
    let target = host.system(system).to_owned();
    let failpoint = format!("NIXFLEET_FAILPOINT={point}");
    let start = [
        "systemd-run",
        "--quiet",
        "--unit",
        UNIT,
        "--setenv",
        &failpoint,
        AGENT,
        "activate",
        &target,
        "--confirm-within",
        confirm_within,
    ];
    // The daemon would take an activation up as soon as its agent is gone; here it may, as on any host.
    assert_eq!(host.run(&start).expect("it runs").code, 0);
    let reached = host.wait_until("the failpoint is reached", LIMIT, |host| host.exists(MARK));
    assert!(reached.is_ok(), "{point}: {}", host.journal(UNIT).unwrap_or_default());
}

fn strike(host: &Host, blow: Blow) {
    match blow {
        Blow::KillAgent => {
            host.run(&["systemctl", "kill", "--signal=KILL", UNIT]).expect("it runs");
        }
        Blow::StopUnit => {
            host.run(&["systemctl", "stop", UNIT]).expect("it runs");
        }
        Blow::Reboot => host.reboot().expect("it comes back"),
        Blow::KillHost => {
            host.kill().expect("it dies");
            host.start().expect("it starts");
            host.await_up().expect("it comes back");
        }
    }
}

fn crash(point: &str, blow: Blow, system: System) {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    reach(&host, point, system, "60s");
    strike(&host, blow);
    // After a deferral the reboot is part of the way.
    let deferred = system == System::OtherKernel;
    let settled = host.wait_until("the host has settled", LIMIT, |host| {
        let pending = host.run(&[AGENT, "status", "--json"]).map(|output| output.stdout).unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&pending).unwrap_or_default();
        status["version"] == 1
            && (status["pending"].is_null() || (deferred && status["pending"]["step"] == "await-reboot"))
    });
    let journal = || host.journal("nixfleet-agent.service").unwrap_or_default();
    assert!(settled.is_ok(), "{point}: {:?}\n{}", history(&host), journal());
    if deferred && host.current_system() != host.boot_default() {
        host.reboot().expect("it comes back");
        let over = host.wait_until("the reboot is told", LIMIT, |host| {
            history(host).iter().all(|one| !one["outcome"].is_null())
        });
        assert!(over.is_ok(), "{point}: {:?}\n{}", history(&host), journal());
    }
    let target = host.system(system).to_owned();
    let ended_on =
        if host.current_system().as_deref() == Some(target.as_str()) { system } else { System::Base };
    assert_rests_on(&host, ended_on);
    let told = history(&host);
    if point != "before-began" {
        let last = told.last().expect("the history says what happened");
        assert!(!last["outcome"].is_null(), "{point}: {last}");
        let converged = last["outcome"]["verdict"] == "converged";
        assert_eq!(converged, ended_on == system, "{point}: the history agrees with the host: {last}");
    }
    assert!(fires(&host, &target) <= 1, "{point}: fired twice");
}

macro_rules! point {
    ($name:ident, $point:expr, $system:ident) => {
        mod $name {
            use super::*;
            #[test]
            fn agent_killed() {
                crash($point, Blow::KillAgent, System::$system);
            }
            #[test]
            fn unit_stopped() {
                crash($point, Blow::StopUnit, System::$system);
            }
            #[test]
            fn host_rebooted() {
                crash($point, Blow::Reboot, System::$system);
            }
            #[test]
            fn host_killed() {
                crash($point, Blow::KillHost, System::$system);
            }
        }
    };
}

point!(before_began, "before-began", Good);
point!(after_began, "after-began", Good);
point!(before_root, "before-root", Good);
point!(after_root, "after-root", Good);
point!(before_realise, "before-realise", Good);
point!(after_realise, "after-realise", Good);
point!(before_set_profile, "before-set-profile", Good);
point!(after_set_profile, "after-set-profile", Good);
point!(before_arm_deadman, "before-arm-deadman", Good);
point!(after_arm_deadman, "after-arm-deadman", Good);
point!(before_fire, "before-fire", Good);
point!(after_fire, "after-fire", Good);
point!(before_verify_poll, "before-verify-poll", Good);
point!(after_verify_poll, "after-verify-poll", Good);
point!(before_self_correct, "before-self-correct", Good);
point!(after_self_correct, "after-self-correct", Good);
point!(before_confirm, "before-confirm", Good);
point!(after_confirm, "after-confirm", Good);
point!(before_confirmed, "before-confirmed", Good);
point!(after_confirmed, "after-confirmed", Good);
point!(before_commit_fire, "before-commit-fire", Good);
point!(after_commit_fire, "after-commit-fire", Good);
point!(after_commit, "after-commit", Good);
point!(before_disarm, "before-disarm", Good);
point!(after_disarm, "after-disarm", Good);
point!(before_finish, "before-finish", Good);
point!(after_finish, "after-finish", Good);
point!(after_cleanup, "after-cleanup", Good);
point!(before_defer_fire, "before-defer-fire", OtherKernel);
point!(after_defer_fire, "after-defer-fire", OtherKernel);
point!(before_await_reboot, "before-await-reboot", OtherKernel);
point!(after_await_reboot, "after-await-reboot", OtherKernel);
point!(before_reverting, "before-reverting", UnitFails);
point!(after_reverting, "after-reverting", UnitFails);
point!(before_revert_profile, "before-revert-profile", UnitFails);
point!(after_revert_profile, "after-revert-profile", UnitFails);
point!(before_revert_fire, "before-revert-fire", UnitFails);
point!(after_revert_fire, "after-revert-fire", UnitFails);
point!(after_revert, "after-revert", UnitFails);

#[test]
fn a_second_activation_while_one_runs_is_refused_and_changes_nothing() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    reach(&host, "before-fire", System::Good, "60s");
    let said = crate::common::activate(&host, host.system(System::Good3), &[]);
    said.assert(1, "failed");
    assert_eq!(said.failure(), "busy");
    assert!(
        host.wait_until("time", Duration::from_secs(1), |host| fires(host, host.system(System::Good3)) == 0)
            .is_ok()
    );
}
