//! Power cuts that lose unwritten pages, at the points of an activation that write to the disk.
//!
//! Each test has a virtual machine of its own and cuts its power three times: the disk loses all that was not flushed,
//! or none of it, or some blocks by chance. After each cut and boot the rules of the crash matrix hold, what runs is
//! whole in the store, and no line of the history is lost; in the end every system that was cut off can be activated.
//!
//! Only with `NIXFLEET_POWER` (`cargo xtask test --power`): a boot takes 15 s and more in software emulation.

#![allow(clippy::print_stdout, reason = "the test report keeps what each cut lost and where it landed")]

use nixfleet_testbed::{Clock, Flavour, Machine, System, Unflushed, Vm};
use serde_json::Value;

use crate::common::{
    activate, assert_rests_on, assert_rests_on_path, await_on, await_settled, begin, fires_in, history,
    hosts_run, reach, switch_log,
};

/// An activation in emulation takes half a minute, and its deadline is not what is tested here.
const CONFIRM_WITHIN: &str = "20m";
/// Any number: the same one loses the same blocks.
const SEED: u64 = 20_261_125;

/// When the power goes.
#[derive(Debug, Clone, Copy)]
enum When {
    /// The agent stands still at this crash point; what it started goes on.
    At(&'static str),
    /// The switch is in its activation script, before the flip.
    BeforeFlip,
    /// The switch starts units, after the flip.
    AfterFlip,
}

use When::{AfterFlip, At, BeforeFlip};

/// One cut: when, and on the way to which system.
type Blow = (When, System);

fn power(blows: [Blow; 3]) {
    if std::env::var_os("NIXFLEET_POWER").is_none() || !hosts_run() {
        return;
    }
    let vm = Vm::boot(Flavour::Trixie).expect("the machine boots");
    let unflushed = [Unflushed::Lost, Unflushed::Kept, Unflushed::Mixed { seed: SEED }];
    for (blow, unflushed) in blows.into_iter().zip(unflushed) {
        strike(&vm, blow, unflushed);
    }
    for (_, system) in blows {
        assert_can_be_activated(&vm, system);
    }
}

fn strike(vm: &Vm, (when, system): Blow, unflushed: Unflushed) {
    let previous = vm.current_system().expect("a system runs");
    let target = vm.system(other_than(vm, system)).to_owned();
    let (told_before, log_at_start) = (history(vm), switch_log(vm));
    await_moment(vm, when, &target);
    let log_at_cut = switch_log(vm);
    let cut = vm.cut_power(unflushed).expect("the power goes");
    vm.start(Clock::Right).expect("the machine boots again");
    await_settled(vm, None);

    let landed = vm.current_system().expect("a system runs");
    let about = format!("{when:?}, {unflushed:?}, {cut:?}: {target} after {previous}, landed on {landed}");
    println!("{about}");
    assert!(landed == previous || landed == target, "{about}");
    assert_rests_on_path(vm, &landed);
    assert_whole(vm, &landed, &about);
    assert_told(vm, &told_before, landed == target, &about);
    let fired = fires_in(&log_at_cut[log_at_start.len()..], &target)
        + fires_in(written_since(&switch_log(vm), &log_at_cut), &target);
    assert!(fired <= 1, "{about}: fired {fired} times");
}

/// The system, or where it runs already the one that is like it in all that counts here.
fn other_than(vm: &Vm, system: System) -> System {
    if vm.current_system().as_deref() != Some(vm.system(system)) {
        return system;
    }
    if system == System::Good { System::Good3 } else { System::Base }
}

fn await_moment(vm: &Vm, when: When, target: &str) {
    match when {
        When::At(point) => reach(vm, point, target, CONFIRM_WITHIN),
        When::BeforeFlip => {
            begin(vm, target, CONFIRM_WITHIN, &[]);
            await_on(vm, "the activation script", |vm| {
                switch_log(vm).lines().last().is_some_and(|line| line.ends_with("activate begin"))
            });
        }
        When::AfterFlip => {
            begin(vm, target, CONFIRM_WITHIN, &[]);
            await_on(vm, "the flip", |vm| vm.current_system().as_deref() == Some(target));
        }
    }
}

/// What a log has beyond what it had at the cut. Its end may be lost with the power, so the two need not begin alike.
fn written_since<'a>(now: &'a str, at_cut: &str) -> &'a str {
    let same = now.lines().zip(at_cut.lines()).take_while(|(now, then)| now == then);
    &now[same.map(|(line, _)| line.len() + 1).sum::<usize>().min(now.len())..]
}

/// Every path of the closure has the contents that Nix's database says.
fn assert_whole(vm: &Vm, system: &str, about: &str) {
    let script = "nix-store --verify-path $(nix-store --query --requisites \"$1\")";
    let verified =
        vm.run_for(<Vm as crate::common::Subject>::LIMIT, &["/bin/sh", "-c", script, "sh", system]);
    let verified = verified.expect("it runs");
    assert!(verified.ok(), "{about}: {verified}");
}

/// The history has one activation more, which is over, and everything that it had before.
fn assert_told(vm: &Vm, before: &[Value], converged: bool, about: &str) {
    let told = history(vm);
    let ids = |told: &[Value]| told.iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&told)[..before.len()], ids(before), "{about}: what was told before stays");
    assert_eq!(told.len(), before.len() + 1, "{about}: {told:?}");
    let last = told.last().expect("the newest");
    assert!(!last["outcome"].is_null(), "{about}: {last}");
    assert_eq!(last["outcome"]["verdict"] == "converged", converged, "{about}: {last}");
}

/// The cut leaves nothing that is in the way of the next activation.
fn assert_can_be_activated(vm: &Vm, system: System) {
    let target = vm.system(system).to_owned();
    if vm.current_system().as_deref() == Some(target.as_str()) {
        return;
    }
    let said = activate(vm, &target, &["--confirm-within", CONFIRM_WITHIN]);
    match system {
        System::UnitFails => said.assert(5, "reverted"),
        System::OtherKernel => said.assert(6, "deferred-pending-reboot"),
        _ => {
            said.assert(0, "converged");
            assert_rests_on(vm, system);
        }
    }
    assert_whole(vm, &target, "in the end");
}

fn thrice(point: &'static str) -> [Blow; 3] {
    [(At(point), System::Good); 3]
}

#[test]
fn power_cut_after_the_first_line() {
    power(thrice("after-began"));
}

/// Each time another system: what was fetched before the cut may be valid to Nix and not be on the disk.
#[test]
fn power_cut_after_the_fetch() {
    let at = At("after-realise");
    power([(at, System::Good), (at, System::Good3), (at, System::RemovedUnit)]);
}

#[test]
fn power_cut_after_the_profile_was_set() {
    power(thrice("after-set-profile"));
}

#[test]
fn power_cut_after_the_fire() {
    power(thrice("after-fire"));
}

#[test]
fn power_cut_in_the_middle_of_a_switch() {
    power([(BeforeFlip, System::Slow), (AfterFlip, System::UnitSlow), (BeforeFlip, System::Slow)]);
}

#[test]
fn power_cut_after_the_confirmation() {
    power(
        ["after-confirmed", "before-commit-fire", "after-confirmed"].map(|point| (At(point), System::Good)),
    );
}

#[test]
fn power_cut_while_boot_entries_are_written() {
    power(thrice("after-commit-fire"));
}

#[test]
fn power_cut_after_the_commit() {
    power(thrice("after-commit"));
}

#[test]
fn power_cut_before_the_last_line() {
    power(thrice("before-finish"));
}

#[test]
fn power_cut_on_the_way_back() {
    power(
        ["after-reverting", "after-revert-fire", "after-revert"].map(|point| (At(point), System::UnitFails)),
    );
}

#[test]
fn power_cut_around_a_deferral() {
    let points = ["after-defer-fire", "after-await-reboot", "before-await-reboot"];
    power(points.map(|point| (At(point), System::OtherKernel)));
}
