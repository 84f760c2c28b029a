//! A clock that jumps: no deadline moves, an activation completes, and nobody is locked out by a wrong year.
//!
//! A virtual machine has a clock of its own. All is one test in two boots, as a boot takes 15 s and more. Time is
//! judged by the machine's uptime, which nobody can set, and never more narrowly than emulation on a busy machine
//! allows: the jumps are of days.

use std::time::{Duration, Instant};

use nixfleet_testbed::{Clock, Flavour, Machine, System, Vm};
use serde_json::Value;

use crate::common::{
    AGENT, Said, Subject, activate, assert_rests_on, await_on, await_settled, begin, history, hosts_run,
    switch_log,
};

/// Nothing is to be cut off by this deadline.
const NEVER: &str = "20m";
/// The deadman leaves a living agent this much time to revert by itself first.
const DEADMAN_LATER: Duration = Duration::from_secs(3);
/// From the deadline until systemd has started the deadman: a busy machine may need a while, a jump is a day.
const LATE_AT_MOST: Duration = Duration::from_mins(2);

#[test]
fn power_stays_and_the_clock_jumps_no_deadline_moves_and_wrong_years_lock_nobody_out() {
    if std::env::var_os("NIXFLEET_POWER").is_none() || !hosts_run() {
        return;
    }
    let first_boot = Vm::builder(Flavour::Trixie).name("clock").clock(Clock::At("2030-01-01T00:00:00"));
    let vm = first_boot.boot().expect("the machine boots");
    let took = a_system_is_activated_in_2030(&vm);
    vm.restart(Clock::Right).expect("it boots again");
    the_deadman_comes_at_its_time_through_jumps_of_days(&vm, took);
    an_activation_completes_while_the_clock_falls_back_to_1970(&vm);
    the_history_is_in_the_order_of_events(&vm);
}

/// How long it took.
fn a_system_is_activated_in_2030(vm: &Vm) -> Duration {
    assert_eq!(year(vm), 2030);
    let begun = Instant::now();
    activate(vm, vm.system(System::Good), &["--confirm-within", NEVER]).assert(0, "converged");
    let took = begun.elapsed();
    assert_rests_on(vm, System::Good);
    took
}

fn the_deadman_comes_at_its_time_through_jumps_of_days(vm: &Vm, took: Duration) {
    assert!((2025..2030).contains(&year(vm)), "the right year is behind the one of the first boot");
    let target = vm.system(System::Good3).to_owned();
    // Room for the switch, as slow as this machine is today.
    let within = format!("{}s", (3 * took).as_secs().max(120));
    let argv = [AGENT, "activate", "--json", &target, "--trial", "--confirm-within", &within];
    Said::of(&vm.run_for(Vm::LIMIT, &argv).expect("the agent runs")).assert(0, "on-trial");
    // Nobody but the deadman is left to revert.
    vm.run(&["systemctl", "stop", "nixfleet-agent.service"]).expect("it runs").success().expect("stopped");
    let deadline = deadline(vm);

    jump(vm, "+1 day");
    let current = vm.current_system();
    if vm.uptime().expect("it runs") < deadline {
        assert_eq!(current.as_deref(), Some(target.as_str()), "a day ahead is not too late");
    }
    jump(vm, "-2 days");
    await_on(vm, "the deadman", |vm| history(vm).last().is_some_and(|last| !last["outcome"].is_null()));

    let last = history(vm).pop().expect("the newest");
    assert_eq!(last["outcome"]["verdict"], "reverted", "{last}");
    assert_eq!(last["outcome"]["failure"]["kind"], "confirm-timeout", "{last}");
    let fired = deadman_started(vm, last["id"].as_str().expect("an id"));
    let due = deadline + DEADMAN_LATER;
    assert!(fired >= due && fired < due + LATE_AT_MOST, "due at {due:?} of uptime, came at {fired:?}");
    assert_rests_on(vm, System::Good);
    vm.run(&["systemctl", "start", "nixfleet-agent.service"]).expect("it runs").success().expect("started");
}

fn an_activation_completes_while_the_clock_falls_back_to_1970(vm: &Vm) {
    // Its activation script sleeps for six seconds.
    let target = vm.system(System::Slow).to_owned();
    begin(vm, &target, NEVER, &[]);
    await_on(vm, "the activation script", |vm| {
        switch_log(vm).lines().any(|line| line.contains(&target) && line.ends_with("activate begin"))
    });
    vm.run(&["date", "--set", "1970-01-02 00:00:00"]).expect("it runs").success().expect("set");
    assert_eq!(year(vm), 1970);
    await_settled(vm, None);
    assert_rests_on(vm, System::Slow);
}

fn the_history_is_in_the_order_of_events(vm: &Vm) {
    let told = history(vm);
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let targets: Vec<String> = told.iter().map(|one| text(one, "target")).collect();
    assert_eq!(
        targets,
        [System::Good, System::Good3, System::Slow].map(|system| vm.system(system).to_owned())
    );
    let mut ids: Vec<String> = told.iter().map(|one| text(one, "id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), told.len(), "{told:?}");
}

fn year(vm: &Vm) -> u32 {
    vm.run(&["date", "+%Y"]).expect("it runs").text().parse().expect("a year")
}

/// `date --set` by so much.
fn jump(vm: &Vm, by: &str) {
    vm.run(&["date", "--set", by]).expect("it runs").success().expect("set");
}

/// The newest deadline in the agent's journal, by the machine's uptime.
fn deadline(vm: &Vm) -> Duration {
    let journal = vm.read_file("/var/lib/nixfleet/journal.jsonl").expect("there is one");
    let lines = journal.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let newest = lines.filter_map(|line| line["entry"]["deadline_ms"].as_u64()).next_back();
    Duration::from_millis(newest.expect("a trial has a deadline"))
}

/// When systemd started the deadman of an activation, by the machine's uptime.
fn deadman_started(vm: &Vm, id: &str) -> Duration {
    let unit = format!("UNIT=nixfleet-deadman-{id}.service");
    let argv = ["journalctl", "--boot", "--quiet", "--output=json", "_PID=1", &unit];
    let said = vm.run(&argv).expect("it runs").success().expect("readable");
    let first = said.stdout.lines().next().expect("systemd says that it starts the deadman");
    let entry: Value = serde_json::from_str(first).expect("JSON");
    let micros = entry["__MONOTONIC_TIMESTAMP"].as_str().and_then(|text| text.parse().ok());
    Duration::from_micros(micros.expect("each entry has a time"))
}
