//! A clock that is wrong while a host follows releases: far behind, a day to either side, years ahead for one boot, and one by
//! which a release has expired. Nothing is started that may not be, no soak is cut short, and once the clock is right the host goes
//! on by itself, as if nothing had been.
//!
//! A virtual machine has a clock of its own. All is one test in two boots and two activations, since each takes half a minute on
//! an idle machine.

#![allow(clippy::print_stdout, reason = "how far a long run came is for whoever reads its output")]

use std::time::{Duration, Instant, UNIX_EPOCH};

use nixfleet_testbed::{Clock, Flavour, Machine, System, Vm, fleet};
use serde_json::{Value, json};

use crate::common::{AGENT, assert_rests_on, await_on, fires, hosts_run};
use crate::deaths::records;
use crate::fleet::{FOLDER, Fleet, Saying};
use crate::followed::{CONFIG, await_state, configuration, restart_agent, web};

/// Releases are older than the error with which a busy machine sets another one's clock.
const MADE_AGO_SECS: u64 = 3_600;
/// An activation in emulation takes half a minute, and its deadline is not what is tested here.
const CONFIRM_WITHIN_SECS: u32 = 1_200;
/// The shortest soak into which two jumps fall.
const SOAK_AT_LEAST: Duration = Duration::from_mins(1);

#[test]
fn power_stays_and_the_clock_is_wrong_while_releases_are_followed() {
    if std::env::var_os("NIXFLEET_POWER").is_none() || !hosts_run() {
        return;
    }
    // As after a dead battery; systemd puts a clock that is older than itself to the date at which it was built.
    let years_behind = Clock::At("2020-01-01T00:00:00");
    let vm = Vm::builder(Flavour::Trixie).name("clock-followed").clock(years_behind).boot();
    let vm = vm.expect("the machine boots");
    let fleet = Fleet::new();
    fleet.introduce(&vm);
    vm.run(&["mkdir", "-p", FOLDER]).expect("it runs").success().expect("made");
    vm.write_file(CONFIG, &configuration()).expect("written");
    restart_agent(&vm);

    let took = far_behind_nothing_is_taken(&vm, &fleet);
    once_it_is_right_the_host_goes_on_and_jumps_of_days_do_not_move_its_soak(&vm, &fleet, took);
    a_day_behind_what_was_signed_since_waits_for_the_clock(&vm, &fleet);
    what_is_staged_and_expires_is_not_started(&vm);
    vm.restart(Clock::At("2030-01-01T00:00:00")).expect("it boots again");
    one_boot_in_2030_starts_nothing_and_locks_nobody_out(&vm, &fleet);
}

/// How long it took until the release was refused.
fn far_behind_nothing_is_taken(vm: &Vm, fleet: &Fleet) -> Duration {
    let begun = Instant::now();
    fleet.publish(vm, 1, vm.system(System::Good), &made_a_while_ago());
    let refused = await_refused(vm, "clock");
    assert!(refused.contains("which is behind and must be set"), "{refused}");
    assert_eq!(fires(vm, vm.system(System::Good)), 0);
    assert_rests_on(vm, System::Base);
    begun.elapsed()
}

/// The clock is a day behind in the end.
fn once_it_is_right_the_host_goes_on_and_jumps_of_days_do_not_move_its_soak(
    vm: &Vm,
    fleet: &Fleet,
    took: Duration,
) {
    let soak_secs = u32::try_from((2 * took).max(SOAK_AT_LEAST).as_secs()).expect("short");
    let watched = Saying { soak_secs, probes: json!([web()]), ..made_a_while_ago() };
    fleet.publish(vm, 2, vm.system(System::Good3), &watched);
    set_right(vm);
    let said = await_state(vm, "soaking", "stable/2");
    assert!(said["source"]["refused"].is_null(), "{said}");
    jump(vm, "+1 day");
    jump(vm, "-2 days");
    await_state(vm, "converged", "stable/2");
    assert_rests_on(vm, System::Good3);

    let records = records(vm);
    let up_ms = |event: &str| {
        let newest = records.iter().rfind(|record| record["fact"]["event"] == event);
        newest.and_then(|record| record["up_ms"].as_u64()).unwrap_or_else(|| panic!("{event}: {records:?}"))
    };
    let soaked_ms = up_ms("soak-passed") - up_ms("local-activation-completed");
    println!("soaked for {soaked_ms} ms, and was to for {soak_secs} s");
    assert!(soaked_ms >= 1_000 * u64::from(soak_secs), "{soaked_ms} ms of {soak_secs} s");
}

fn a_day_behind_what_was_signed_since_waits_for_the_clock(vm: &Vm, fleet: &Fleet) {
    fleet.publish(vm, 3, vm.system(System::Twin), &made_a_while_ago());
    let refused = await_refused(vm, "clock");
    println!("a day behind: {refused}");
    assert_eq!(fleet::status(vm)["release"], "stable/2");
    assert_rests_on(vm, System::Good3);
}

/// A release is good for ten days. Its host is held while the clock goes past them.
fn what_is_staged_and_expires_is_not_started(vm: &Vm) {
    hold(vm, &["hold", "exams"]);
    set_right(vm);
    // A day ahead is as good as right: only what is dated later than the clock says is refused.
    jump(vm, "+1 day");
    let said = await_state(vm, "staged", "stable/3");
    assert_eq!(said["waiting"]["on"], "hold", "{said}");
    jump(vm, "+11 days");
    hold(vm, &["unhold"]);
    await_expired(vm);
}

fn one_boot_in_2030_starts_nothing_and_locks_nobody_out(vm: &Vm, fleet: &Fleet) {
    await_expired(vm);
    fleet.publish(vm, 4, vm.system(System::Good), &made_a_while_ago());
    // The state remembers how release 3 was refused, so that this one is asked about by a look of its own; the agent looks when it
    // starts.
    restart_agent(vm);
    let checked = vm.run(&[AGENT, "check"]).expect("it runs");
    println!("in 2030: {}", checked.stdout);
    assert!(checked.code == 1 && checked.stdout.contains("expired"), "{checked}");
    await_refused(vm, "expired");
    await_expired(vm);
    assert_eq!(fires(vm, vm.system(System::Good)), 0);
    set_right(vm);
    await_state(vm, "converged", "stable/4");
    assert_rests_on(vm, System::Good);
    assert_eq!(fires(vm, vm.system(System::Twin)), 0, "nothing was ever done because of release 3");
}

/// Waits until the host says that its release has expired; what ran goes on.
fn await_expired(vm: &Vm) {
    let said = await_following(vm, "the release has expired", |said| {
        said["state"] == "staged" && said["waiting"]["on"] == "release-expired"
    });
    assert_eq!(said["release"], "stable/3", "{said}");
    assert_eq!(fires(vm, vm.system(System::Twin)), 0);
    assert_rests_on(vm, System::Good3);
}

fn made_a_while_ago() -> Saying {
    Saying { made_ago_secs: MADE_AGO_SECS, confirm_within_secs: CONFIRM_WITHIN_SECS, ..Saying::default() }
}

/// Waits until what the source serves is refused in this way, and returns why.
fn await_refused(vm: &Vm, kind: &str) -> String {
    let what = format!("refused: {kind}");
    let said = await_following(vm, &what, |said| said["source"]["refused"]["kind"] == kind);
    said["source"]["refused"]["why"].as_str().unwrap_or_default().to_owned()
}

fn await_following(vm: &Vm, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    await_on(vm, what, |vm| {
        last = fleet::status(vm);
        is_so(&last)
    });
    last
}

/// A person at the host.
fn hold(vm: &Vm, words: &[&str]) {
    let done = vm.run(&[&[AGENT], words, &["--by", "ann"]].concat()).expect("it runs");
    assert_eq!(done.code, 0, "{done}");
}

/// Sets the machine's clock to this one's.
pub(crate) fn set_right(vm: &Vm) {
    let now = UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    vm.run(&["date", "--set", &format!("@{now}")]).expect("it runs").success().expect("set");
}

/// `date --set` by so much.
pub(crate) fn jump(vm: &Vm, by: &str) {
    vm.run(&["date", "--set", by]).expect("it runs").success().expect("set");
}
