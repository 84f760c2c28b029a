//! The crash matrix: at every named point the agent is killed, its unit stopped, the host restarted or cut off.
//!
//! All four on trixie; on bookworm (Nix 2.8, systemd 252) the two that leave nobody time to tidy up, so that the whole
//! run stays short.
//!
//! Afterwards the host rests on the previous or the target system, profile and boot default agree with it, nothing is
//! left over, the history says what happened, and the target was not fired twice.

use nixfleet_testbed::{Flavour, Host, System};

use crate::common::{
    AGENT, HOLD, LIMIT, UNIT, assert_rests_on, await_on, await_settled, begin, fires, history, host,
    hosts_run, reach,
};
use crate::followed;

/// How whoever carries an activation out is cut off.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Blow {
    KillAgent,
    StopUnit,
    Reboot,
    KillHost,
}

impl Blow {
    /// Every one.
    pub(crate) const ALL: [Self; 4] = [Self::KillAgent, Self::StopUnit, Self::Reboot, Self::KillHost];
}

/// Strikes the agent that runs in `unit`, or its host, which comes back.
pub(crate) fn strike(host: &Host, unit: &str, blow: Blow) {
    match blow {
        Blow::KillAgent => {
            host.run(&["systemctl", "kill", "--signal=KILL", unit]).expect("it runs");
        }
        Blow::StopUnit => {
            host.run(&["systemctl", "stop", unit]).expect("it runs");
        }
        Blow::Reboot => host.reboot().expect("it comes back"),
        Blow::KillHost => {
            host.kill().expect("it dies");
            host.start().expect("it starts");
            host.await_up().expect("it comes back");
        }
    }
}

/// All blows at one point, one after the other on one host: a boot costs more than an activation.
#[allow(clippy::print_stdout, reason = "says at which blow a test failed")]
fn crashes(flavour: Flavour, point: &str, blows: &[Blow], system: System) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    let mut rests_on = System::Base;
    for blow in blows {
        let target = if rests_on == system { another(system) } else { system };
        println!("{point}: {blow:?} on the way from {rests_on:?} to {target:?}");
        rests_on = crash(&host, point, *blow, (rests_on, target));
        if rests_on != target {
            // The next one fetches it again, unless a root keeps it.
            host.run(&["nix-store", "--delete", host.system(target)]).expect("it runs");
        }
    }
}

/// Where to go from a system that a crash has not kept the host from: the same way in all that matters here.
fn another(system: System) -> System {
    match system {
        System::Good => System::Good3,
        // The kernel of all others.
        System::OtherKernel => System::Good,
        other => panic!("{other:?} is never the outcome"),
    }
}

/// One blow, and which system the host rests on.
fn crash(host: &Host, point: &str, blow: Blow, (previous, system): (System, System)) -> System {
    let target = host.system(system).to_owned();
    let (fired, told) = (fires(host, &target), history(host).len());
    reach(host, point, &target, "60s");
    strike(host, UNIT, blow);
    // After a deferral the reboot is part of the way.
    let deferred = point.contains("defer") || point.contains("await-reboot");
    await_settled(host, deferred.then_some("await-reboot"));
    if deferred && host.current_system() != host.boot_default() {
        host.reboot().expect("it comes back");
        await_on(host, "the reboot is told", |host| {
            history(host).iter().all(|one| !one["outcome"].is_null())
        });
    }
    let ended_on = if host.current_system().as_deref() == Some(target.as_str()) { system } else { previous };
    assert_rests_on(host, ended_on);
    if point != "before-began" {
        let history = history(host);
        assert_eq!(history.len(), told + 1, "{point}: the history says what happened: {history:?}");
        let last = history.last().expect("one more than before");
        assert!(!last["outcome"].is_null(), "{point}: {last}");
        let converged = last["outcome"]["verdict"] == "converged";
        assert_eq!(converged, ended_on == system, "{point}: the history agrees with the host: {last}");
    }
    assert!(fires(host, &target) - fired <= 1, "{point}: fired twice");
    ended_on
}

macro_rules! points {
    ($($name:ident: $point:expr, $system:ident;)*) => {
        $(mod $name {
            use super::*;
            #[test]
            fn on_trixie() {
                crashes(Flavour::Trixie, $point, &Blow::ALL, System::$system);
            }
            #[test]
            fn on_bookworm() {
                crashes(Flavour::Bookworm, $point, &[Blow::KillAgent, Blow::KillHost], System::$system);
            }
        })*
        /// Every point of an activation.
        pub(crate) const POINTS: &[&str] = &[$($point),*];
    };
}

points! {
    before_began: "before-began", Good;
    after_began: "after-began", Good;
    before_root: "before-root", Good;
    after_root: "after-root", Good;
    before_realise: "before-realise", Good;
    after_realise: "after-realise", Good;
    before_set_profile: "before-set-profile", Good;
    after_set_profile: "after-set-profile", Good;
    before_arm_deadman: "before-arm-deadman", Good;
    after_arm_deadman: "after-arm-deadman", Good;
    before_fire: "before-fire", Good;
    after_fire: "after-fire", Good;
    before_verify_poll: "before-verify-poll", Good;
    after_verify_poll: "after-verify-poll", Good;
    before_self_correct: "before-self-correct", Good;
    after_self_correct: "after-self-correct", Good;
    before_confirm: "before-confirm", Good;
    after_confirm: "after-confirm", Good;
    before_confirmed: "before-confirmed", Good;
    after_confirmed: "after-confirmed", Good;
    before_commit_fire: "before-commit-fire", Good;
    after_commit_fire: "after-commit-fire", Good;
    after_commit: "after-commit", Good;
    before_disarm: "before-disarm", Good;
    after_disarm: "after-disarm", Good;
    before_finish: "before-finish", Good;
    after_finish: "after-finish", Good;
    after_cleanup: "after-cleanup", Good;
    before_defer_fire: "before-defer-fire", OtherKernel;
    after_defer_fire: "after-defer-fire", OtherKernel;
    before_await_reboot: "before-await-reboot", OtherKernel;
    after_await_reboot: "after-await-reboot", OtherKernel;
    before_reverting: "before-reverting", UnitFails;
    after_reverting: "after-reverting", UnitFails;
    before_revert_profile: "before-revert-profile", UnitFails;
    after_revert_profile: "after-revert-profile", UnitFails;
    before_revert_fire: "before-revert-fire", UnitFails;
    after_revert_fire: "after-revert-fire", UnitFails;
    after_revert: "after-revert", UnitFails;
    before_revert_boot: "before-revert-boot", BootloaderFails;
    after_revert_boot: "after-revert-boot", BootloaderFails;
    after_put_back: "after-put-back", PrecheckFails;
}

#[test]
fn every_crash_point_of_the_agent_has_a_row() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let listed = host.run(&[AGENT, "failpoints"]).expect("it runs");
    let listed: Vec<&str> = listed.stdout.lines().collect();
    assert!(listed.len() > 20, "the agent lists its points: {listed:?}");
    let followed = |point: &&str| followed::POINTS.contains(point) || followed::RARE_POINTS.contains(point);
    let has_row = |point: &&str| POINTS.contains(point) || followed(point);
    let without: Vec<_> = listed.iter().filter(|point| !has_row(point)).collect();
    assert!(without.is_empty(), "no row for {without:?}");
}

#[test]
fn a_second_activation_while_one_runs_is_refused_and_changes_nothing() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    reach(&host, "before-fire", host.system(System::Good), "5m");
    let said = crate::common::activate(&host, host.system(System::Good3), &[]);
    said.assert(1, "failed");
    assert_eq!(said.failure(), "busy");
    // Whatever it had begun would go on now.
    strike(&host, UNIT, Blow::KillAgent);
    await_settled(&host, None);
    assert_rests_on(&host, System::Base);
    assert_eq!(fires(&host, host.system(System::Good3)), 0);
    let targets: Vec<_> = history(&host).into_iter().map(|one| one["target"].clone()).collect();
    assert_eq!(targets, [host.system(System::Good)], "the refused one was not even begun");
}

/// The state of a unit, as systemd has it.
fn is_active(host: &Host, unit: &str) -> bool {
    host.units().expect("listed").into_iter().any(|(name, state)| name == unit && state == "active")
}

#[test]
fn a_switch_that_was_cut_off_and_whose_end_nobody_could_record_is_run_once_more() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let slow = host.system(System::Slow).to_owned();
    // It would see for itself that the run is gone, as long as it lives.
    host.run(&["systemctl", "stop", "nixfleet-agent.service"]).expect("it runs");
    host.write_file(HOLD, "").expect("written");
    begin(&host, &slow, "5m", &[]);
    // Services are stopped by now, and the link leads to the previous system for a while yet.
    let stopped = host.wait_until("the switch has stopped what it replaces", LIMIT, |host| {
        fires(host, &slow) == 1 && !is_active(host, "demo-a.service")
    });
    assert!(stopped.is_ok(), "{:?}", host.journal(UNIT));
    // As a full disk does it: what systemd says of the end cannot be written.
    let ends = "/var/lib/nixfleet/ends";
    let read_only = format!("mount --bind {ends} {ends} && mount -o remount,bind,ro {ends}");
    assert_eq!(host.sh(&read_only).expect("it runs").code, 0);
    host.run(&["systemctl", "kill", "--signal=KILL", UNIT]).expect("it runs");
    host.run(&["systemctl", "kill", "--signal=KILL", "nixfleet-switch-*"]).expect("it runs");
    let gone = host.wait_until("the switch is gone", LIMIT, |host| {
        let units = host.units().expect("listed");
        units.iter().all(|(name, _)| !name.starts_with("nixfleet-switch-"))
    });
    assert!(gone.is_ok(), "{:?}", host.units());
    assert_eq!(host.current_system().as_deref(), Some(host.system(System::Base)), "it was in time");
    host.run(&["rm", HOLD]).expect("it runs").success().expect("let go");
    assert_eq!(host.sh(&format!("umount {ends}")).expect("it runs").code, 0);
    host.run_for(LIMIT, &[AGENT, "recover"]).expect("it runs");
    await_settled(&host, None);
    let last = history(&host).pop().expect("one");
    assert_eq!(last["outcome"]["verdict"], "converged", "it is not taken for one that never began: {last}");
    assert_rests_on(&host, System::Slow);
    assert!(is_active(&host, "demo-a.service"), "what was stopped runs again");
}
