//! The outcome matrix: every kind of system ends as promised, on both flavours, checked on the host itself.

use nixfleet_testbed::{Flavour, System};

use crate::common::{activate, assert_rests_on, host, hosts_run};

/// Which system the host must rest on afterwards.
#[derive(Clone, Copy)]
enum Rests {
    OnTarget,
    OnBase,
}

fn check(flavour: Flavour, system: System, flags: &[&str], want: (i32, &str, &str), rests: Rests) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    let said = activate(&host, host.system(system), flags);
    let (code, verdict, failure) = want;
    said.assert(code, verdict);
    assert_eq!(said.failure(), failure, "{}", said.json);
    match rests {
        Rests::OnTarget => assert_rests_on(&host, system),
        Rests::OnBase => assert_rests_on(&host, System::Base),
    }
}

macro_rules! outcome {
    ($name:ident, $system:ident, [$($flag:expr),*], $code:expr, $verdict:expr, $failure:expr, $rests:ident) => {
        mod $name {
            use super::*;
            #[test]
            fn on_trixie() {
                check(Flavour::Trixie, System::$system, &[$($flag),*], ($code, $verdict, $failure), Rests::$rests);
            }
            #[test]
            fn on_bookworm() {
                check(Flavour::Bookworm, System::$system, &[$($flag),*], ($code, $verdict, $failure), Rests::$rests);
            }
        }
    };
}

outcome!(a_good_system_converges, Good, [], 0, "converged", "none", OnTarget);
outcome!(a_good_system_converges_at_once, Good, ["--immediately"], 0, "converged", "none", OnTarget);
outcome!(a_system_without_changes_converges, Twin, [], 0, "converged", "none", OnTarget);
outcome!(a_removed_unit_is_no_failure, RemovedUnit, [], 0, "converged", "none", OnTarget);
outcome!(a_slow_unit_is_waited_for, UnitSlow, [], 0, "converged", "none", OnTarget);
outcome!(a_slow_switch_is_waited_for, Slow, [], 0, "converged", "none", OnTarget);
outcome!(a_failed_unit_is_reverted, UnitFails, [], 5, "reverted", "units-failed", OnBase);
outcome!(a_new_unit_that_fails_is_reverted, NewUnitFails, [], 5, "reverted", "units-failed", OnBase);
outcome!(
    a_failed_unit_is_kept_if_asked,
    UnitFails,
    ["--immediately"],
    4,
    "live-with-failed-units",
    "none",
    OnTarget
);
outcome!(
    a_failed_unit_is_kept_on_trial_if_asked,
    UnitFails,
    ["--keep-failed-units"],
    4,
    "live-with-failed-units",
    "none",
    OnTarget
);
outcome!(
    a_late_failure_is_found_by_observing,
    UnitFailsLate,
    ["--observe-for", "8s", "--confirm-within", "60s"],
    5,
    "reverted",
    "units-failed",
    OnBase
);
outcome!(
    a_hung_switch_is_ended_and_reverted,
    Hangs,
    ["--confirm-within", "5s"],
    5,
    "reverted",
    "switch-failed",
    OnBase
);
outcome!(a_refused_precheck_changes_nothing, PrecheckFails, [], 1, "failed", "switch-failed", OnBase);
outcome!(
    a_boot_loader_that_fails_is_reverted,
    BootloaderFails,
    [],
    5,
    "reverted",
    "boot-not-written",
    OnBase
);
outcome!(an_error_after_the_flip_is_reverted, Exits1AfterFlip, [], 5, "reverted", "switch-failed", OnBase);
outcome!(
    a_failed_activate_after_the_flip_is_reverted,
    ActivateFailsAfterFlip,
    [],
    5,
    "reverted",
    "switch-failed",
    OnBase
);
outcome!(
    a_failed_activate_before_the_flip_is_reverted,
    ActivateFailsBeforeFlip,
    [],
    5,
    "reverted",
    "switch-failed",
    OnBase
);
outcome!(a_repointed_profile_is_put_right, RepointsProfile, [], 0, "converged", "none", OnTarget);
outcome!(a_third_system_is_reverted, FlipsToThird, [], 5, "reverted", "flipped-to-unexpected", OnBase);
outcome!(an_agent_that_is_restarted_does_not_matter, RestartsAgent, [], 0, "converged", "none", OnTarget);
outcome!(
    a_broken_agent_is_reverted,
    AgentBroken,
    ["--confirm-within", "20s"],
    5,
    "reverted",
    "units-failed",
    OnBase
);
outcome!(
    an_agent_that_hangs_is_reverted,
    AgentHangs,
    ["--confirm-within", "20s"],
    5,
    "reverted",
    "probe-failed",
    OnBase
);
outcome!(a_removed_agent_is_no_failure, AgentRemoved, [], 0, "converged", "none", OnTarget);
outcome!(a_reexecuted_pid_1_does_not_matter, Reexecs, [], 0, "converged", "none", OnTarget);
outcome!(a_system_without_inhibitor_files_converges, NoInhibitors, [], 0, "converged", "none", OnTarget);
outcome!(a_flood_of_output_does_not_matter, Floods, [], 0, "converged", "none", OnTarget);
outcome!(
    a_link_that_is_gone_for_an_instant_does_not_matter,
    UnlinksFirst,
    [],
    0,
    "converged",
    "none",
    OnTarget
);
outcome!(what_is_no_system_is_refused, NotASystem, [], 1, "failed", "not-a-system", OnBase);
outcome!(a_foreign_architecture_is_refused, WrongArchitecture, [], 1, "failed", "wrong-architecture", OnBase);
outcome!(
    a_probe_that_is_answered_404_reverts,
    Probe404,
    ["--probe", "http://127.0.0.1:8000/health", "--confirm-within", "6s"],
    5,
    "reverted",
    "probe-failed",
    OnBase
);
outcome!(
    a_probe_that_nobody_answers_reverts,
    ProbeSilent,
    ["--probe", "tcp:127.0.0.1:8000", "--confirm-within", "6s"],
    5,
    "reverted",
    "probe-failed",
    OnBase
);
outcome!(
    a_switch_killed_before_the_flip_is_not_left_half_done,
    KilledBeforeFlip,
    [],
    5,
    "reverted",
    "switch-failed",
    OnBase
);
outcome!(
    a_switch_killed_after_the_flip_is_not_left_half_done,
    KilledAfterFlip,
    [],
    5,
    "reverted",
    "switch-failed",
    OnBase
);
outcome!(a_broken_pipe_is_not_left_half_done, BrokenPipe, [], 5, "reverted", "switch-failed", OnBase);

fn deferred(flavour: Flavour, system: System) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    let target = host.system(system).to_owned();
    activate(&host, &target, &[]).assert(6, "deferred-pending-reboot");
    assert_eq!(host.current_system().as_deref(), Some(host.system(System::Base)), "nothing is switched live");
    assert_eq!(host.boot_default(), Some(target.clone()));
    host.reboot().expect("it comes back");
    let over = host.wait_until("the agent finished it", crate::common::LIMIT, |host| {
        crate::common::history(host).last().is_some_and(|last| last["outcome"]["verdict"] == "converged")
    });
    assert!(
        over.is_ok(),
        "{:?}\n{}",
        crate::common::history(&host),
        host.journal("nixfleet-agent").unwrap_or_default()
    );
    assert_rests_on(&host, system);
}

macro_rules! deferral {
    ($name:ident, $system:ident) => {
        mod $name {
            use super::*;
            #[test]
            fn on_trixie() {
                deferred(Flavour::Trixie, System::$system);
            }
            #[test]
            fn on_bookworm() {
                deferred(Flavour::Bookworm, System::$system);
            }
        }
    };
}

deferral!(another_kernel_waits_for_the_reboot, OtherKernel);
deferral!(another_systemd_waits_for_the_reboot, OtherSystemd);
deferral!(another_dbus_waits_for_the_reboot, OtherDbus);
deferral!(the_closures_own_inhibitor_waits_for_the_reboot, OtherInhibitor);
deferral!(another_init_interface_waits_for_the_reboot, OtherInit);

#[test]
fn a_unit_started_by_hand_is_up_again_after_a_revert() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    activate(&host, host.system(System::HandStarted), &[]).assert(0, "converged");
    assert_eq!(host.run(&["systemctl", "start", "hand-started.service"]).expect("it runs").code, 0);
    activate(&host, host.system(System::HandStartedFails), &[]).assert(5, "reverted");
    assert_eq!(host.unit_state("hand-started.service").expect("known"), "active");
    assert_rests_on(&host, System::HandStarted);
}

#[test]
fn a_rollback_goes_to_the_recorded_system_and_not_to_a_number() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    activate(&host, host.system(System::Good), &[]).assert(0, "converged");
    activate(&host, host.system(System::UnitFails), &[]).assert(5, "reverted");
    let output = host.run_for(crate::common::LIMIT, &[crate::common::AGENT, "rollback"]).expect("it runs");
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_rests_on(&host, System::Base);
}
