//! A control plane in trouble while real hosts follow it: its database server ends in the middle of a rollout, the disk of
//! its database is full, and the line to its hosts repeats, delays and loses what is said.
//!
//! What counts is what is left: each host was ordered once and switched once, and what its own disk has of its reports is, record
//! by record, what the log has of it.

use std::path::Path;
use std::time::Duration;

use nixfleet_testbed::control_plane::ControlPlane;
use nixfleet_testbed::fleet::{StaticFleet, await_state, status};
use nixfleet_testbed::postgres::{Disk, End, Postgres};
use nixfleet_testbed::{Flavour, Machine, SmallDisk, System};
use serde_json::{Value, json};

use crate::common::{assert_rests_on, fires, hosts_run};
use crate::controlled::{LIMIT, Led, ordered, program};
use crate::deaths::records;
use crate::steered::{release, told_of, two_waves};
use crate::unruly::{self, Unruly};

/// Whether PostgreSQL can run here. In CI what cannot run is a failure.
#[allow(clippy::print_stdout, reason = "`cargo xtask test` collects these lines from tests that passed")]
fn postgres_runs() -> bool {
    if !hosts_run() {
        return false;
    }
    if Postgres::is_installed() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "in CI nothing is left out: PostgreSQL is not installed");
    println!("LEFT OUT: a control plane over PostgreSQL (it is not installed: `cargo xtask setup`)");
    false
}

/// A fleet whose control plane keeps everything in a PostgreSQL server of its own.
fn led_over(names: &[&str], database: &Postgres) -> Led {
    led_by(names, |fleet, program| ControlPlane::start_over(fleet, program, &database.address()))
}

/// A fleet with the control plane that `start` starts.
fn led_by(names: &[&str], start: impl FnOnce(&StaticFleet, &Path) -> anyhow::Result<ControlPlane>) -> Led {
    let fleet = StaticFleet::boot(Flavour::Trixie, Path::new(&program("NIXFLEET_CLI_BIN")), names);
    let fleet = fleet.expect("a fleet");
    let control_plane = start(&fleet, &program("NIXFLEET_CONTROL_PLANE_BIN")).expect("a control plane");
    for host in fleet.hosts() {
        control_plane.lead(&fleet, host).expect("it follows");
    }
    Led { control_plane, fleet }
}

/// Waits until the control plane says that it is ready, or that it is not, and returns what it says.
fn until_ready(led: &Led, wanted: u16) -> Value {
    led.wait(&format!("readiness to be {wanted}"), LIMIT, || {
        let (status, said) = led.control_plane.readiness(&led.fleet).ok()?;
        (status == wanted).then_some(said)
    })
}

/// What the log has of a host's reports.
fn reports(events: &[Value], host: &str) -> Vec<Value> {
    let of_host = events.iter().filter(|event| event["fact"] == "reported" && event["host"] == host);
    of_host.map(|event| event["record"].clone()).collect()
}

/// What each host has on its own disk is what the log has of it: each report once, in its order, and none is missing.
pub(crate) fn assert_nothing_is_lost(led: &Led) {
    for host in led.fleet.hosts() {
        kept_of(led, host.name(), host);
    }
}

/// What the log has of a host's reports, as soon as it is what the host has on its own disk.
pub(crate) fn kept_of(led: &Led, name: &str, host: &impl Machine) -> Vec<Value> {
    led.wait(&format!("the log to have what {name} has"), LIMIT, || {
        let kept = reports(&led.events(), name);
        let first = kept.first()?["seq"].as_u64()?;
        let own: Vec<Value> =
            records(host).into_iter().filter(|one| one["seq"].as_u64() >= Some(first)).collect();
        (kept.len() > 5 && own == kept).then_some(kept)
    })
}

/// Each host was told to go once for a release, and switched to it once.
pub(crate) fn assert_moved_once(led: &Led, events: &[Value], (seq, system): (u64, System)) {
    for host in led.fleet.hosts() {
        let go = ordered(events, host.name(), seq, "go");
        assert_eq!(go.len(), 1, "{} is ordered once for release {seq}: {go:?}", host.name());
        assert_eq!(fires(host, host.system(system)), 1, "{} switched once", host.name());
    }
}

/// Waits until the canary was told to go.
fn until_the_canary_is_told(led: &Led, seq: u64) {
    led.wait("the canary to be ordered", LIMIT, || {
        (!ordered(&led.events(), "canary", seq, "go").is_empty()).then_some(())
    });
}

#[test]
fn a_database_server_that_ends_in_mid_rollout_is_missed_aloud_and_the_rollout_goes_on_with_it() {
    if !postgres_runs() {
        return;
    }
    let mut database = Postgres::start(Disk::Machine).expect("a database");
    let led = led_over(&["canary", "web-1", "web-2"], &database);
    release(&led, System::Good, "one", &two_waves("1s"));
    led.until_decided(1, "converged");
    let ends = [(End::Fast, System::Good3), (End::Immediate, System::Twin), (End::Killed, System::Third)];
    for (seq, (how, system)) in (2..).zip(ends) {
        release(&led, system, &format!("release-{seq}"), &two_waves("1s"));
        until_the_canary_is_told(&led, seq);
        database.end(how).expect("it ends");
        let problem = until_ready(&led, 503);
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("the database does not answer"), "{how:?}: {problem}");
        database.begin().expect("it is back");
        until_ready(&led, 200);
        let events = led.until_decided(seq, "converged");
        led.all_converge(&format!("stable/{seq}"), system);
        assert_moved_once(&led, &events, (seq, system));
    }
    assert_nothing_is_lost(&led);
    led.no_objections();
}

/// What people are told of a full disk.
const FULL: &str = "the disk of the database is full";

/// Room that the database has already taken is filled first, by a hundred acts or so, each a program in the office.
const UNTIL_FULL: Duration = Duration::from_mins(5);

/// Acts until that is refused for want of room.
fn act_until_refused(led: &Led) {
    led.wait("no room to be left", UNTIL_FULL, || {
        // Letters of four bytes: a longer text is filled with sooner, and PostgreSQL would compress one of 2 KB.
        let why = json!({ "why": "\u{10380}".repeat(300) });
        for verb in ["hold", "unhold"] {
            let path = format!("/v1/hosts/web-1/{verb}");
            let (status, answer) = led.control_plane.post(&led.fleet, &path, &why).ok()?;
            if status == 503 {
                // A database server that just restarts for want of room says something else, and is asked again.
                return answer["detail"].as_str().filter(|detail| detail.contains(FULL)).map(|_| ());
            }
            // What was left of the room took it.
            assert!(matches!(status, 202 | 409), "{answer}");
        }
        None
    });
}

/// The first line that a person sees who asks for the status.
fn first_of_status(led: &Led) -> String {
    let said = led.control_plane.ask(&led.fleet, &["status"]);
    said.ok().and_then(|said| said.stdout.lines().next().map(str::to_owned)).unwrap_or_default()
}

/// A rollout in the middle of which the database's disk is filled, until people see it, and then has room again.
fn a_disk_fills_in_mid_rollout_and_has_room_again(led: &Led, fill: impl FnOnce(), free: impl FnOnce()) {
    release(led, System::Good, "one", &two_waves("1s"));
    led.until_decided(1, "converged");
    release(led, System::Good3, "two", &two_waves("1s"));
    until_the_canary_is_told(led, 2);
    fill();
    act_until_refused(led);
    led.wait("the alarm to be the first line of the status", LIMIT, || {
        let first = first_of_status(led);
        (first.starts_with("ALARM since ") && first.contains(FULL)).then_some(())
    });
    led.wait("the alarm to be where machines look", LIMIT, || {
        let problem = until_ready(led, 503);
        let metrics = led.control_plane.get(&led.fleet, "/metrics").ok()?;
        let alarmed = "nixfleet_database_trouble{kind=\"full\"} 1\n";
        let told = problem["detail"].as_str().is_some_and(|detail| detail.contains(FULL));
        (told && metrics.as_str().is_some_and(|text| text.contains(alarmed))).then_some(())
    });

    free();
    until_ready(led, 200);
    // Somebody may have kept it with the last of the room.
    let let_go = json!({ "why": "there is room" });
    let (status, answer) =
        led.control_plane.post(&led.fleet, "/v1/hosts/web-1/unhold", &let_go).expect("an answer");
    assert!(matches!(status, 202 | 409), "{answer}");
    led.wait("web-1 to go", LIMIT, || (!ordered(&led.events(), "web-1", 2, "go").is_empty()).then_some(()));
    led.all_converge("stable/2", System::Good3);
    let events = led.until_decided(2, "converged");
    assert_moved_once(led, &events, (2, System::Good3));
    assert!(!first_of_status(led).starts_with("ALARM"), "it is over");
    assert_nothing_is_lost(led);
    led.no_objections();
}

#[test]
fn a_full_disk_under_a_database_server_is_an_alarm_for_people_and_over_with_room() {
    if !postgres_runs() {
        return;
    }
    let database = Postgres::start(Disk::OfMib(96)).expect("a database");
    let led = led_over(&["canary", "web-1"], &database);
    let room = || {
        database.free().expect("room");
        database.until_it_answers().expect("it is there");
    };
    a_disk_fills_in_mid_rollout_and_has_room_again(&led, || database.fill().expect("full"), room);
}

#[test]
fn a_full_disk_under_a_database_in_a_file_is_an_alarm_for_people_and_over_with_room() {
    if !hosts_run() {
        return;
    }
    let disk = SmallDisk::of_mib(16).expect("a disk");
    let mut led =
        led_by(&["canary", "web-1"], |fleet, program| ControlPlane::start_on(fleet, program, &disk));
    a_disk_fills_in_mid_rollout_and_has_room_again(
        &led,
        || disk.fill().expect("full"),
        || disk.free().expect("room"),
    );

    // A server that is killed while there is no room comes up with all of it, and goes on.
    release(&led, System::Twin, "three", &two_waves("1s"));
    until_the_canary_is_told(&led, 3);
    disk.fill().expect("full");
    act_until_refused(&led);
    led.control_plane.kill();
    disk.free().expect("room");
    led.control_plane.run(&led.fleet).expect("it comes up again");
    let events = led.until_decided(3, "converged");
    led.all_converge("stable/3", System::Twin);
    assert_moved_once(&led, &events, (3, System::Twin));
    assert_nothing_is_lost(&led);
}

/// A fleet whose hosts and control plane have an unruly line between them.
fn led_by_an_unruly_line(names: &[&str]) -> (Unruly, Led) {
    let led = Led::boot(names);
    let line = Unruly::start(&led.fleet, &led.control_plane, 20_261_128);
    for host in led.fleet.hosts() {
        led.control_plane.lead_by(&led.fleet, host, unruly::PORT).expect("it follows");
    }
    (line, led)
}

#[test]
fn requests_that_come_twice_late_or_behind_newer_ones_move_each_host_once_and_lose_no_report() {
    if !hosts_run() {
        return;
    }
    let (line, led) = led_by_an_unruly_line(&["canary", "web-1", "web-2", "web-3"]);
    for (seq, system) in [(1, System::Good), (2, System::Good3)] {
        release(&led, system, &format!("release-{seq}"), &two_waves("1s"));
        let events = led.until_decided(seq, "converged");
        led.all_converge(&format!("stable/{seq}"), system);
        assert_moved_once(&led, &events, (seq, system));
    }
    let done = line.behave();
    for what in Unruly::repertoire() {
        assert!(done.contains_key(&what), "{what} never happened: {done:?}");
    }
    assert_nothing_is_lost(&led);
    led.no_objections();
}

#[test]
fn a_canary_that_fails_behind_an_unruly_line_halts_the_rollout_and_what_comes_again_later_moves_nobody() {
    if !hosts_run() {
        return;
    }
    let (line, led) = led_by_an_unruly_line(&["canary", "web-1"]);
    release(&led, System::Good, "one", &two_waves("1s"));
    led.until_decided(1, "converged");
    release(&led, System::Probe404, "two", &two_waves("1s"));
    led.until_decided(2, "halted");
    let canary = led.fleet.host("canary");
    await_state(canary, "reverted", "stable/2", LIMIT).expect("it went back");
    release(&led, System::Good3, "three", &two_waves("1s"));
    let events = led.until_decided(3, "converged");
    led.all_converge("stable/3", System::Good3);
    assert_moved_once(&led, &events, (3, System::Good3));
    line.behave();
    assert_nothing_is_lost(&led);
    assert_eq!(fires(canary, canary.system(System::Probe404)), 1, "it is not tried again");
    assert_eq!(fires(led.fleet.host("web-1"), led.fleet.host("web-1").system(System::Probe404)), 0);
    assert!(ordered(&led.events(), "web-1", 2, "go").is_empty());
    led.no_objections();
}

/// Ends the control plane in the middle of whatever it does, and starts it with a clock that is so many hours ahead.
fn restart_skewed(led: &mut Led, hours: i64) {
    led.control_plane.kill();
    let started = led.control_plane.run_skewed(&led.fleet, &program("NIXFLEET_SKEWED_BIN"), hours);
    started.expect("it comes up again");
}

#[test]
fn a_server_whose_clock_is_wrong_by_a_day_delays_and_hurries_nobody_past_the_signed_time() {
    if !hosts_run() {
        return;
    }
    let mut led = Led::boot(&["canary", "web-1"]);
    release(&led, System::Good, "one", &two_waves("1s"));
    led.until_decided(1, "converged");
    release(&led, System::Good3, "two", &two_waves("1s"));
    until_the_canary_is_told(&led, 2);
    restart_skewed(&mut led, 25);
    let events = led.until_decided(2, "converged");
    led.all_converge("stable/2", System::Good3);
    assert_moved_once(&led, &events, (2, System::Good3));

    // By its clock the hour is over that the policy wants between the waves. The hosts have their own.
    let mut an_hour_later = two_waves("1s");
    an_hour_later["waves"][1]["opens_after"] = json!("1h");
    release(&led, System::Twin, "three", &an_hour_later);
    led.wait("web-1 to be told to go", LIMIT, || {
        (!ordered(&led.events(), "web-1", 3, "go").is_empty()).then_some(())
    });
    let mut told = Value::Null;
    led.wait("web-1 to have its order and to wait for the signed time", LIMIT, || {
        told = status(led.fleet.host("web-1"));
        let has_it = told_of(&led.events(), "web-1", "ordered-to-go") == 3;
        (has_it && told["state"] == "staged" && told["waiting"]["on"] == "wave").then_some(())
    });
    assert_rests_on(led.fleet.host("web-1"), System::Good3);

    restart_skewed(&mut led, -25);
    release(&led, System::Third, "four", &two_waves("1s"));
    led.wait("it to say what it thinks of the date", LIMIT, || {
        led.control_plane.said().contains("clock").then_some(())
    });
    assert!(ordered(&led.events(), "canary", 4, "go").is_empty());
    led.control_plane.kill();
    led.control_plane.run(&led.fleet).expect("it comes up again, and its clock is right");
    let events = led.until_decided(4, "converged");
    led.all_converge("stable/4", System::Third);
    assert_moved_once(&led, &events, (4, System::Third));
    let web = led.fleet.host("web-1");
    assert_eq!(fires(web, web.system(System::Twin)), 0, "its time never came");
    assert_nothing_is_lost(&led);
    led.no_objections();
}
