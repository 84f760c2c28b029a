//! What steers a rollout on real hosts: budgets, edges, approvals, holds, windows, reboots, and hosts that are away.

use std::time::Duration;

use nixfleet_testbed::System;
use nixfleet_testbed::fleet::{CHANNEL, await_state};
use serde_json::{Value, json};

use crate::common::{assert_rests_on, hosts_run};
use crate::controlled::{LIMIT, Led, decided, ordered, reported};

/// Twelve hosts on a busy machine, two at a time.
const LONG: Duration = Duration::from_mins(6);

/// A description in which every host shall run `system` under this policy. Hosts have their name up to the dash as a tag.
fn describe(led: &Led, system: System, policy: &Value) -> Value {
    let probe = json!({
        "name": "web",
        "kind": { "http": { "url": "http://127.0.0.1:8000/health" } },
        "interval": "1s", "timeout": "1s", "failures": 3,
    });
    let mut hosts = serde_json::Map::new();
    for host in led.fleet.hosts() {
        let tag = host.name().split('-').next().expect("a name");
        let entry = json!({
            "channel": CHANNEL, "tags": [tag], "system": host.system(system),
            "key": led.fleet.key_of(host).expect("a key"), "probes": [probe],
        });
        hosts.insert(host.name().to_owned(), entry);
    }
    json!({ "fleet": "acme", "channels": { CHANNEL: { "policy": policy } }, "hosts": hosts })
}

fn release(led: &Led, system: System, revision: &str, policy: &Value) {
    led.fleet.describe(&describe(led, system, policy)).expect("written");
    led.fleet.release(revision).expect("published");
}

fn act(led: &Led, path: &str, body: &Value) {
    let (status, answer) = led.control_plane.post(&led.fleet, path, body).expect("an answer");
    assert_eq!(status, 202, "{path}: {answer}");
}

/// Waits until the control plane gives this reason for a host that does not move.
fn until_why(led: &Led, host: &str, reason: &str) -> Value {
    led.wait(&format!("{host} to wait for {reason}"), LIMIT, || {
        let path = format!("/v1/hosts/{host}/why");
        // Before the release was found, the host is not known.
        let why = led.control_plane.get(&led.fleet, &path).ok()?;
        Some(why).filter(|why| why["reason"]["reason"] == reason)
    })
}

/// The most hosts that were on their way to a release at the same time, by the log: from the order to the commit.
fn most_on_their_way(events: &[Value], seq: u64) -> usize {
    let (mut moving, mut most) = (std::collections::BTreeSet::new(), 0);
    for event in events {
        let host = event["host"].as_str().unwrap_or_default().to_owned();
        let (order, fact) = (&event["order"], &event["record"]["fact"]);
        if order["what"] == "go" && order["release"]["seq"] == seq {
            moving.insert(host);
        } else if fact["event"] == "local-activation-completed" && fact["outcome"]["verdict"] == "converged" {
            moving.remove(&host);
        }
        most = most.max(moving.len());
    }
    most
}

#[test]
fn twelve_hosts_move_two_at_a_time_behind_their_edge_and_those_who_are_kept_or_away_catch_up() {
    if !hosts_run() {
        return;
    }
    let names = [
        "canary", "db-1", "db-2", "web-1", "web-2", "web-3", "web-4", "web-5", "web-6", "web-7", "web-8",
        "away",
    ];
    let led = Led::boot(&names);
    let policy = json!({
        "waves": [
            { "name": "canary", "hosts": { "tag": "canary" }, "soak": "1s", "opens_after": "0s" },
            { "name": "some", "hosts": { "any-of": [{ "tag": "db" }, { "host": "web-1" }] }, "soak": "1s", "opens_after": "0s" },
            { "name": "rest", "soak": "1s", "opens_after": "0s", "approval": "by-a-person" },
        ],
        "max_in_flight": [{ "hosts": "all", "limit": 2 }],
        "edges": [{ "hosts": { "tag": "web" }, "after": { "tag": "db" } }],
        "confirm_within": "120s",
        "offline_after": "30s",
    });
    release(&led, System::Good, "one", &policy);
    act_when_known(&led, "/v1/hosts/web-8/hold", &json!({ "why": "an audit" }));
    led.fleet.host("away").cut_network().expect("it is cut off");

    let seen = led.wait("the third wave to wait for a person", LONG, || {
        let seen = led.control_plane.get(&led.fleet, "/v1/rollouts/stable").ok()?;
        (seen["waves"][2]["waits"]["on"] == "approval").then_some(seen)
    });
    assert_eq!(seen["waves"][1]["hosts"]["done"], 3, "{seen:#}");
    act(&led, "/v1/rollouts/stable/1/approve", &json!({ "why": "looks good", "wave": 2 }));
    let events = led.until_decided_within(1, "converged", LONG);
    assert!(most_on_their_way(&events, 1) <= 2, "{}", most_on_their_way(&events, 1));
    let db_done = ["db-1", "db-2"].map(|host| reported(&events, host, "soak-passed", 0).expect("it is done"));
    for host in led.fleet.hosts() {
        let go = ordered(&events, host.name(), 1, "go");
        if matches!(host.name(), "web-8" | "away") {
            assert!(go.is_empty(), "{} stays", host.name());
            continue;
        }
        assert_eq!(go.len(), 1, "{}", host.name());
        if host.name().starts_with("web") {
            assert!(db_done.iter().all(|done| *done < go[0]), "{} waits for the databases", host.name());
        }
        await_state(host, "converged", "stable/1", LIMIT).expect("it is done");
        assert_rests_on(host, System::Good);
    }
    assert_eq!(until_why(&led, "web-8", "held")["reason"]["by"], "ann");
    until_why(&led, "away", "offline");
    act(&led, "/v1/hosts/web-8/unhold", &json!({ "why": "it is over" }));
    led.fleet.host("away").restore_network().expect("it is back");
    for host in ["web-8", "away"] {
        let host = led.fleet.host(host);
        let said = await_state(host, "converged", "stable/1", LONG);
        said.unwrap_or_else(|error| panic!("{error:#}\n{}", led.told()));
        assert_rests_on(host, System::Good);
    }
    led.no_objections();
}

/// Acts as soon as the control plane knows the release.
fn act_when_known(led: &Led, path: &str, body: &Value) {
    led.wait("the release to be known", LIMIT, || {
        let (status, _) = led.control_plane.post(&led.fleet, path, body).ok()?;
        (status == 202).then_some(())
    });
}

#[test]
fn a_shut_window_keeps_all_a_new_kernel_reboots_one_at_a_time_and_a_pause_stops_the_rest() {
    if !hosts_run() {
        return;
    }
    let led = Led::boot(&["canary", "web-1", "web-2"]);
    let waves = json!([
        { "name": "canary", "hosts": { "tag": "canary" }, "soak": "1s", "opens_after": "0s" },
        { "name": "rest", "soak": "1s", "opens_after": "0s" },
    ]);
    // A window that opened some hours ago for a minute opens again tomorrow.
    let far = hour_of_day_in(6);
    let shut = json!({
        "waves": waves, "confirm_within": "120s",
        "windows": [{ "days": [], "from": format!("{far:02}:00"), "until": format!("{far:02}:01"), "zone": "UTC" }],
    });
    release(&led, System::Good, "one", &shut);
    until_why(&led, "canary", "window");
    assert!(ordered(&led.events(), "canary", 1, "go").is_empty());

    let rolling = json!({
        "waves": waves, "confirm_within": "120s",
        "max_in_flight": [{ "hosts": "all", "limit": 1 }],
        "reboot": { "mode": "when-needed", "warn": "0s" },
    });
    release(&led, System::OtherKernel, "two", &rolling);
    let is_ordered = |host: &str| !ordered(&led.events(), host, 2, "go").is_empty();
    let first = led.wait("the first of the second wave to be ordered", LONG, || {
        ["web-1", "web-2"].into_iter().find(|host| is_ordered(host))
    });
    act(&led, "/v1/rollouts/stable/2/pause", &json!({ "why": "lunch" }));
    // Who is on its way arrives; nobody else begins.
    let said = await_state(led.fleet.host(first), "converged", "stable/2", LONG);
    said.unwrap_or_else(|error| panic!("{error:#}\n{}", led.told()));
    let other = if first == "web-1" { "web-2" } else { "web-1" };
    assert_eq!(until_why(&led, other, "paused")["reason"]["why"], "lunch");
    assert!(!is_ordered(other), "{other} began although the rollout is paused");
    act(&led, "/v1/rollouts/stable/2/resume", &json!({ "why": "lunch is over" }));
    let events = led.until_decided_within(2, "converged", LONG);
    for host in led.fleet.hosts() {
        await_state(host, "converged", "stable/2", LIMIT).expect("it is done");
        assert_rests_on(host, System::OtherKernel);
        assert_eq!(host.boots(), 2, "{} was rebooted once", host.name());
    }
    let done = reported(&events, first, "soak-passed", ordered(&events, first, 2, "go")[0]);
    assert!(ordered(&events, other, 2, "go")[0] > done.expect("it is done"));
    assert!(decided(&events, 1, "superseded").is_some());
    led.no_objections();
}

/// The hour of the day, in so many hours.
fn hour_of_day_in(hours: u64) -> u64 {
    let secs = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    (secs / 3_600 + hours) % 24
}
