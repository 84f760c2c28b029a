//! The outcome matrix: every kind of system ends as promised, on both flavours, checked on the host itself.
//!
//! A row says what must be true, not what was seen: verdict and exit code, how the switch itself ended as the history
//! records it, where links, profile and boot default rest, every generation, every unit, and what the logs hold.

use nixfleet_testbed::System as S;
use nixfleet_testbed::{Flavour, Host, System};
use serde_json::{Value, json};

use crate::common::{AGENT, LIMIT, Said, activate, assert_rests_on, await_settled, history, host, hosts_run};
use crate::observed::{Units, assert_generations, assert_no_panic, ends, logs};

/// How a run ended, as the record of its own unit says.
#[derive(Debug, Clone, Copy)]
enum End {
    Exit(i32),
    Killed(i32),
    TimedOut,
}

impl End {
    fn as_recorded(self) -> Value {
        match self {
            Self::Exit(code) => json!({ "how": "exited", "code": code }),
            Self::Killed(signal) => json!({ "how": "killed", "signal": signal }),
            Self::TimedOut => json!({ "how": "timed-out" }),
        }
    }
}

/// What becomes of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Becomes {
    /// It runs the target, and boots it.
    Target,
    /// It was switched, and is as it was before.
    Base,
    /// It was not touched, not even a process.
    Untouched,
}

#[derive(Debug)]
struct Row {
    system: System,
    flags: &'static [&'static str],
    code: i32,
    verdict: &'static str,
    failure: &'static str,
    becomes: Becomes,
    /// How the switch ended, and the repair where there was one; nothing if it was refused before.
    switch: &'static [End],
    /// What the switch printed, to be found in its logs.
    says: &'static str,
    /// Units of the target that are not up afterwards.
    down: &'static [&'static str],
}

/// What every switch says that gets past its checks.
const ACTIVATES: &str = "activating the configuration...";

impl Row {
    const fn converges(system: System) -> Self {
        Self {
            system,
            flags: &[],
            code: 0,
            verdict: "converged",
            failure: "none",
            becomes: Becomes::Target,
            switch: &[End::Exit(0)],
            says: ACTIVATES,
            down: &[],
        }
    }

    const fn reverts(system: System, failure: &'static str, switch: &'static [End]) -> Self {
        Self {
            code: 5,
            verdict: "reverted",
            failure,
            becomes: Becomes::Base,
            switch,
            ..Self::converges(system)
        }
    }

    const fn refused(system: System, failure: &'static str) -> Self {
        Self {
            code: 1,
            verdict: "failed",
            failure,
            becomes: Becomes::Untouched,
            switch: &[],
            says: "",
            ..Self::converges(system)
        }
    }

    const fn kept_with(system: System, down: &'static [&'static str]) -> Self {
        let kept = Self::converges(system);
        Self { code: 4, verdict: "live-with-failed-units", switch: &[End::Exit(4)], down, ..kept }
    }

    const fn with(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }

    const fn says(self, says: &'static str) -> Self {
        Self { says, ..self }
    }

    /// What the profile went through: nothing, the target, or the target and back.
    fn generations(&self) -> Vec<System> {
        match self.becomes {
            Becomes::Untouched if self.switch.is_empty() => vec![S::Base],
            Becomes::Target => vec![S::Base, self.system],
            // Set back by its path: a new generation, as no older one is ever re-used.
            Becomes::Base | Becomes::Untouched => vec![S::Base, self.system, S::Base],
        }
    }
}

fn check(flavour: Flavour, row: &Row) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    let before = Units::of(&host);
    let said = activate(&host, host.system(row.system), row.flags);
    said.assert(row.code, row.verdict);
    assert_eq!(said.failure(), row.failure, "{}", said.json);
    let told = history(&host).pop().expect("the history has it");
    assert_eq!(told["outcome"]["verdict"], row.verdict, "{told}");
    let recorded: Vec<Value> = [ends(&told, "switch"), ends(&told, "repair")].concat();
    let want: Vec<Value> = row.switch.iter().map(|end| end.as_recorded()).collect();
    assert_eq!(recorded, want, "how the switch ended: {told}");
    let (rests, now) = match row.becomes {
        Becomes::Target => (row.system, Units::of(&host)),
        Becomes::Base | Becomes::Untouched => (S::Base, Units::of(&host)),
    };
    assert_rests_on(&host, rests);
    assert_generations(&host, &row.generations());
    match row.becomes {
        Becomes::Target => now.assert_of(&host, row.system, row.down),
        Becomes::Base => before.assert_are_back(&now, "reverted"),
        Becomes::Untouched => before.assert_untouched(&now, "refused"),
    }
    assert_told(&host, &said, row.says);
}

/// The switch's own words are found under the activation's id, and nobody has panicked.
fn assert_told(host: &Host, said: &Said, words: &str) {
    let id = said.json["id"].as_str().expect("an outcome names its activation");
    let mut told = String::new();
    // A busy journal takes in late what a unit has said.
    let has_them = host.wait_until("the logs have it", LIMIT, |host| {
        told = logs(host, id);
        told.contains(words)
    });
    let shown: String = told.chars().take(4_000).collect();
    assert!(has_them.is_ok(), "`logs {id}` does not have `{words}`: {shown}");
    assert_no_panic(host);
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
}

/// One module of tests for each row, and the list of all rows.
macro_rules! outcomes {
    ($($name:ident: $row:expr;)*) => {
        $(mod $name {
            use super::*;
            #[test]
            fn on_trixie() {
                check(Flavour::Trixie, &$row);
            }
            #[test]
            fn on_bookworm() {
                check(Flavour::Bookworm, &$row);
            }
        })*
        const ROWS: &[Row] = &[$($row),*];
    };
}

outcomes! {
    a_good_system_converges: Row::converges(S::Good);
    a_good_system_converges_at_once: Row::converges(S::Good).with(&["--immediately"]);
    another_good_system_converges: Row::converges(S::Good3);
    a_system_of_the_same_units_converges: Row::converges(S::Third);
    a_system_without_changes_converges: Row::converges(S::Twin);
    a_removed_unit_is_no_failure: Row::converges(S::RemovedUnit);
    a_unit_that_nothing_starts_is_no_failure: Row::converges(S::HandStarted);
    a_slow_unit_is_waited_for: Row::converges(S::UnitSlow);
    a_slow_switch_is_waited_for: Row::converges(S::Slow);
    a_failed_unit_is_reverted: Row::reverts(S::UnitFails, "units-failed", &[End::Exit(4)])
        .says("Failed to start demo-b.service");
    a_new_unit_that_fails_is_reverted: Row::reverts(S::NewUnitFails, "units-failed", &[End::Exit(4)])
        .says("units failed: demo-fail.service");
    a_failed_unit_is_kept_if_asked: Row::kept_with(S::UnitFails, &["demo-b.service"]).with(&["--immediately"]);
    a_failed_unit_is_kept_on_trial_if_asked: Row::kept_with(S::UnitFails, &["demo-b.service"])
        .with(&["--keep-failed-units"]);
    a_late_failure_is_found_by_observing: Row::reverts(S::UnitFailsLate, "units-failed", &[End::Exit(0)])
        .with(&["--observe-for", "30s", "--confirm-within", "90s"]);
    a_hung_switch_is_ended_and_reverted: Row::reverts(S::Hangs, "switch-failed", &[End::TimedOut])
        .with(&["--confirm-within", "30s"]);
    a_refused_precheck_changes_nothing: Row {
        switch: &[End::Exit(1)],
        says: "Pre-switch checks failed",
        ..Row::refused(S::PrecheckFails, "switch-failed")
    };
    a_boot_loader_that_fails_is_reverted: Row::reverts(S::BootloaderFails, "boot-not-written", &[End::Exit(0)])
        .says("Failed to install bootloader");
    an_error_after_the_flip_is_reverted: Row::reverts(S::Exits1AfterFlip, "switch-failed", &[End::Exit(1)])
        .says("timeout after 180s");
    a_failed_activate_after_the_flip_is_reverted:
        Row::reverts(S::ActivateFailsAfterFlip, "switch-failed", &[End::Exit(2)]).says("a snippet failed");
    a_failed_activate_before_the_flip_is_reverted:
        Row::reverts(S::ActivateFailsBeforeFlip, "switch-failed", &[End::Exit(2)]).says("a snippet failed");
    a_repointed_profile_is_put_right: Row::converges(S::RepointsProfile);
    a_third_system_is_reverted: Row::reverts(S::FlipsToThird, "flipped-to-unexpected", &[End::Exit(0)]);
    an_agent_that_is_restarted_does_not_matter: Row::converges(S::RestartsAgent);
    // Whether the switch lists it as failed depends on the moment: between two tries it is on its way up.
    a_broken_agent_is_reverted: Row::reverts(S::AgentBroken, "units-failed", &[End::Exit(4)])
        .with(&["--confirm-within", "90s"]).says("Failed to start nixfleet-agent.service");
    an_agent_that_hangs_is_reverted: Row::reverts(S::AgentHangs, "probe-failed", &[End::Exit(4)])
        .with(&["--confirm-within", "45s"]);
    a_removed_agent_is_no_failure: Row::converges(S::AgentRemoved);
    an_agent_that_is_replaced_and_left_running_is_no_failure: Row::converges(S::AgentNewer);
    a_reexecuted_pid_1_does_not_matter: Row::converges(S::Reexecs).says("restarting systemd...");
    a_network_that_is_gone_is_reverted: Row::reverts(S::BreaksNetwork, "probe-failed", &[End::Exit(0)])
        .with(&["--confirm-within", "30s"]);
    inhibitors_in_the_older_format_do_not_matter: Row::converges(S::ListInhibitors);
    a_system_without_inhibitor_files_converges: Row::converges(S::NoInhibitors);
    a_flood_of_output_does_not_matter: Row::converges(S::Floods).says("the quick brown fox");
    a_link_that_is_gone_for_an_instant_does_not_matter: Row::converges(S::UnlinksFirst);
    what_is_no_system_is_refused: Row::refused(S::NotASystem, "not-a-system");
    a_foreign_architecture_is_refused: Row::refused(S::WrongArchitecture, "wrong-architecture");
    a_probe_that_is_answered_404_reverts: Row::reverts(S::Probe404, "probe-failed", &[End::Exit(0)])
        .with(&["--probe", "http://127.0.0.1:8000/health", "--confirm-within", "30s"]);
    a_probe_that_nobody_answers_reverts: Row::reverts(S::ProbeSilent, "probe-failed", &[End::Exit(0)])
        .with(&["--probe", "tcp:127.0.0.1:8000", "--confirm-within", "30s"]);
    a_switch_killed_before_the_flip_is_not_left_half_done:
        Row::reverts(S::KilledBeforeFlip, "switch-failed", &[End::Killed(9), End::Killed(9)]);
    a_switch_killed_after_the_flip_is_not_left_half_done:
        Row::reverts(S::KilledAfterFlip, "switch-failed", &[End::Killed(9), End::Killed(9)]);
    a_broken_pipe_is_not_left_half_done:
        Row::reverts(S::BrokenPipe, "switch-failed", &[End::Exit(101), End::Exit(101)]);
    a_thousand_paths_and_twenty_units_converge: Row::converges(S::BigA);
}

/// What must wait for a reboot, and how the switch ended where it had to be asked to find that out.
struct Deferral {
    system: System,
    key: &'static str,
    switch: &'static [End],
}

fn deferred(flavour: Flavour, row: &Deferral) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    let before = Units::of(&host);
    let target = host.system(row.system).to_owned();
    let said = activate(&host, &target, &[]);
    said.assert(6, "deferred-pending-reboot");
    assert_eq!(said.json["inhibitors"][0]["key"], row.key, "{}", said.json);
    assert_eq!(host.current_system().as_deref(), Some(host.system(S::Base)), "nothing is switched live");
    assert_eq!(host.boot_default(), Some(target.clone()));
    before.assert_untouched(&Units::of(&host), "deferred");
    assert_generations(&host, &[S::Base, row.system]);
    let told = history(&host).pop().expect("the history has it");
    let want: Vec<Value> = row.switch.iter().map(|end| end.as_recorded()).collect();
    assert_eq!(ends(&told, "switch"), want, "{told}");
    assert_eq!(ends(&told, "defer"), [End::Exit(0).as_recorded()], "{told}");
    host.reboot().expect("it comes back");
    assert_finished(&host, row.system);
    assert_told(&host, &said, "nixfleet-switch-");
}

/// The agent finishes a deferred activation by itself after the reboot.
fn assert_finished(host: &Host, system: System) {
    let over = host.wait_until("the agent finished it", LIMIT, |host| {
        history(host).last().is_some_and(|last| last["outcome"]["verdict"] == "converged")
    });
    assert!(over.is_ok(), "{:?}\n{}", history(host), host.journal("nixfleet-agent").unwrap_or_default());
    assert_rests_on(host, system);
    assert_generations(host, &[S::Base, system]);
    Units::of(host).assert_of(host, system, &[]);
    let told = history(host).pop().expect("the history has it");
    assert_eq!(ends(&told, "commit"), [End::Exit(0).as_recorded()], "{told}");
}

macro_rules! deferrals {
    ($($name:ident: $system:ident, $key:expr, $switch:expr;)*) => {
        $(mod $name {
            use super::*;
            const ROW: Deferral = Deferral { system: System::$system, key: $key, switch: $switch };
            #[test]
            fn on_trixie() {
                deferred(Flavour::Trixie, &ROW);
            }
            #[test]
            fn on_bookworm() {
                deferred(Flavour::Bookworm, &ROW);
            }
        })*
        const DEFERRED: &[System] = &[$(System::$system),*];
    };
}

deferrals! {
    another_kernel_waits_for_the_reboot: OtherKernel, "kernel", &[];
    another_systemd_waits_for_the_reboot: OtherSystemd, "systemd", &[];
    another_dbus_waits_for_the_reboot: OtherDbus, "dbus", &[];
    the_closures_own_inhibitor_waits_for_the_reboot: OtherInhibitor, "dbus-implementation", &[];
    another_init_interface_waits_for_the_reboot: OtherInit, "init-interface-version", &[End::Exit(100)];
}

/// Systems whose story takes two activations or a rescue; each has a test of its own below, in `deadman.rs`, in
/// `followed.rs` or in `successors.rs`.
const IN_TWO_STEPS: &[System] =
    &[S::HandStartedFails, S::BigB, S::KernelAgentBroken, S::AgentBrokenKept, S::AgentOlder];

#[test]
fn every_system_has_a_row() {
    let of_rows: Vec<System> = ROWS.iter().map(|row| row.system).collect();
    // Those of nix-darwin's shape have theirs in `darwin.rs`.
    let rows_here = |system: &&System| **system != S::Base && !system.name().starts_with("darwin-");
    for system in System::ALL.iter().filter(rows_here) {
        let lists = [of_rows.as_slice(), DEFERRED, IN_TWO_STEPS];
        assert!(
            lists.iter().any(|list| list.contains(system)),
            "{system:?} has no row in the outcome matrix"
        );
    }
}

#[test]
fn a_unit_started_by_hand_is_up_again_after_a_revert() {
    if !hosts_run() {
        return;
    }
    for flavour in Flavour::ALL {
        let host = host(*flavour);
        activate(&host, host.system(S::HandStarted), &[]).assert(0, "converged");
        assert_eq!(host.run(&["systemctl", "start", "hand-started.service"]).expect("it runs").code, 0);
        let before = Units::of(&host);
        let said = activate(&host, host.system(S::HandStartedFails), &[]);
        said.assert(5, "reverted");
        assert_eq!(said.failure(), "units-failed", "{}", said.json);
        before.assert_are_back(&Units::of(&host), "reverted");
        assert!(before.active.contains("hand-started.service"));
        assert_rests_on(&host, S::HandStarted);
        assert_generations(&host, &[S::Base, S::HandStarted, S::HandStartedFails, S::HandStarted]);
        assert_told(&host, &said, "Failed to start hand-started.service");
    }
}

#[test]
fn twenty_changed_units_of_a_thousand_paths_converge() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    activate(&host, host.system(S::BigA), &[]).assert(0, "converged");
    let said = activate(&host, host.system(S::BigB), &[]);
    said.assert(0, "converged");
    assert_rests_on(&host, S::BigB);
    assert_generations(&host, &[S::Base, S::BigA, S::BigB]);
    Units::of(&host).assert_of(&host, S::BigB, &[]);
    assert_told(&host, &said, "big-19.service");
}

#[test]
fn a_rollback_goes_to_the_recorded_system_and_not_to_a_number() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let before = Units::of(&host);
    activate(&host, host.system(S::Good), &[]).assert(0, "converged");
    activate(&host, host.system(S::UnitFails), &[]).assert(5, "reverted");
    let output = host.run_for(LIMIT, &[AGENT, "rollback"]).expect("it runs");
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_rests_on(&host, S::Base);
    // One number below the current one would be the system that failed.
    assert_generations(&host, &[S::Base, S::Good, S::UnitFails, S::Good, S::Base]);
    before.assert_are_back(&Units::of(&host), "rolled back");
}

/// A person finds out from the exit code, from the history and from `status`; the host is not lost, since a trial never
/// touched what it boots. What led back is kept until somebody has taken that way.
fn a_failed_revert_is_told_and_the_next_boot_is_well(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    fail_to_revert(&host);
    host.reboot().expect("it comes back");
    await_settled(&host, None);
    assert_eq!(host.current_system().as_deref(), Some(host.system(S::Base)));
    roll_back(&host);
    assert_rests_on(&host, S::Base);
    activate(&host, host.system(S::Good), &[]).assert(0, "converged");
    assert_rests_on(&host, S::Good);
}

/// An activation whose way back fails: the disk has lost the program that leads back. A mount ends with this boot, as no
/// damage does.
fn fail_to_revert(host: &Host) {
    let program = format!("{}/bin/switch-to-configuration", host.system(S::Base));
    host.sh(&format!("mount --bind /bin/false {program}")).expect("damaged");
    let said = activate(host, host.system(S::UnitFails), &[]);
    said.assert(7, "revert-failed");
    assert_eq!(said.json["failure"]["kind"], "units-failed", "{}", said.json);
    assert_eq!(said.json["revert"]["kind"], "switch-failed", "{}", said.json);
    assert!(said.stderr.is_empty() || !said.stderr.contains("panicked"), "{}", said.stderr);
    let last = history(host).pop().expect("it has one");
    assert_eq!(last["outcome"]["verdict"], "revert-failed", "{last}");
    let status = host.run(&[AGENT, "status"]).expect("it runs");
    assert!(status.stdout.contains("the revert failed"), "{status}");
    let id = said.json["id"].as_str().expect("it has a name");
    let roots = host.run(&["ls", "/nix/var/nix/gcroots/nixfleet"]).expect("it runs");
    assert_eq!(roots.stdout.trim(), format!("{id}-previous"), "what leads back is kept, and nothing else");
}

#[test]
fn a_failed_activate_is_reverted_although_the_code_speaks_of_a_unit_that_nobody_touched() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let restarts = ["--property=Restart=always", "--property=RestartSec=600"];
    let unrelated = [&["systemd-run", "--unit=unrelated"], &restarts[..], &["false"]].concat();
    host.run(&unrelated).expect("it runs").success().expect("started");
    let waits = host.wait_until("it has failed and is to be restarted", LIMIT, |host| {
        let shown = host.run(&["systemctl", "show", "-P", "SubState", "unrelated.service"]);
        shown.is_ok_and(|output| output.text() == "auto-restart")
    });
    assert!(waits.is_ok());
    let said = activate(&host, host.system(S::Good), &[]);
    said.assert(0, "converged");
    assert!(said.stderr.contains("units that it did not touch"), "{}", said.stderr);
    let said = activate(&host, host.system(S::ActivateFailsAfterFlip), &[]);
    said.assert(5, "reverted");
    assert_eq!(said.failure(), "switch-failed", "{}", said.json);
    assert_eq!(said.json["failure"]["end"]["code"], 4, "{}", said.json);
    assert_rests_on(&host, S::Good);
}

/// As the hint says.
fn roll_back(host: &Host) {
    let back = host.run_for(LIMIT, &[AGENT, "rollback"]).expect("it runs");
    assert_eq!(back.code, 0, "{back}");
}

#[test]
fn a_rollback_after_a_failed_revert_tries_the_same_way_again() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let before = Units::of(&host);
    fail_to_revert(&host);
    assert_eq!(host.current_system().as_deref(), Some(host.system(S::UnitFails)), "the target still runs");
    host.sh(&format!("umount {}/bin/switch-to-configuration", host.system(S::Base))).expect("mended");
    roll_back(&host);
    assert_rests_on(&host, S::Base);
    before.assert_are_back(&Units::of(&host), "rolled back");
}

#[test]
fn a_failed_revert_is_told_and_the_next_boot_is_well_on_trixie() {
    a_failed_revert_is_told_and_the_next_boot_is_well(Flavour::Trixie);
}

#[test]
fn a_failed_revert_is_told_and_the_next_boot_is_well_on_bookworm() {
    a_failed_revert_is_told_and_the_next_boot_is_well(Flavour::Bookworm);
}
