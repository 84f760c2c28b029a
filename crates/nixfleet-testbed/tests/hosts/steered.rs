//! What steers a rollout on real hosts: budgets, edges, approvals, holds, windows, reboots, and hosts that are away.

use std::time::Duration;

use nixfleet_testbed::fleet::{CHANNEL, await_state, status};
use nixfleet_testbed::{Host, System};
use serde_json::{Value, json};

use crate::common::{AGENT, HOLD, assert_rests_on, fires, hosts_run};
use crate::controlled::{LIMIT, Led, decided, ordered, reported};

/// Twelve hosts on a busy machine, two at a time.
const LONG: Duration = Duration::from_mins(6);

/// A description in which every host shall run `system` under this policy. Hosts have their name up to the dash as a tag.
pub(crate) fn describe(led: &Led, system: System, policy: &Value) -> Value {
    let probe = json!({
        "name": "web",
        "kind": { "http": { "url": "http://127.0.0.1:8000/health" } },
        // A busy machine may keep a good service waiting for seconds.
        "interval": "1s", "timeout": "5s", "failures": 10,
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

pub(crate) fn release(led: &Led, system: System, revision: &str, policy: &Value) {
    led.fleet.describe(&describe(led, system, policy)).expect("written");
    led.fleet.release(revision).expect("published");
}

/// A file without which a host stays on trial.
const WELL: &str = "/var/well";

/// [`release`], with a probe that says nothing good until the file is there: however busy the machine is, a test can do something
/// to a host that is on trial.
fn release_on_trial_until_well(led: &Led, system: System, revision: &str, policy: &Value) {
    let mut fleet = describe(led, system, policy);
    for host in fleet["hosts"].as_object_mut().expect("hosts").values_mut() {
        host["probes"].as_array_mut().expect("a list").push(json!({
            "name": "well", "kind": { "exec": { "argv": ["/bin/test", "-e", WELL] } },
            "interval": "1s", "timeout": "5s", "failures": 1000,
        }));
    }
    led.fleet.describe(&fleet).expect("written");
    led.fleet.release(revision).expect("published");
}

pub(crate) fn act(led: &Led, path: &str, body: &Value) {
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

/// From when to when a host's only activation went on, by the journal on its own disk; all hosts have the clock of this machine.
fn activated(host: &Host) -> (u64, u64) {
    let journal = host.read_file("/var/lib/nixfleet/journal.jsonl").expect("it was activated");
    let entries = journal.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let entries: Vec<Value> = entries.map(|line| line["entry"].clone()).collect();
    let began = entries.iter().filter(|entry| entry["line"] == "began").count();
    assert_eq!(began, 1, "{}: {journal}", host.name());
    let times = entries.iter().map(|entry| entry["at_ms"].as_u64().expect("a time"));
    let (first, last) = (times.clone().min(), times.max());
    (first.expect("a line"), last.expect("a line"))
}

/// The most of these that went on at the same time.
fn most_at_once(spans: &[(u64, u64)]) -> usize {
    let at = |time: u64| spans.iter().filter(|(first, last)| (*first..*last).contains(&time)).count();
    spans.iter().map(|(first, _)| at(*first)).max().unwrap_or(0)
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
        "offline_after": "60s",
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
    // Not only by what the control plane believes.
    let spans: Vec<(u64, u64)> = led.fleet.hosts().iter().map(activated).collect();
    assert_eq!(spans.len(), names.len());
    assert!(most_at_once(&spans) <= 2, "{spans:?}");
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
    led.fleet.host("canary").write_file(WELL, "").expect("written");
    release_on_trial_until_well(&led, System::OtherKernel, "two", &rolling);
    let is_ordered = |host: &str| !ordered(&led.events(), host, 2, "go").is_empty();
    let first = led.wait("the first of the second wave to be ordered", LONG, || {
        ["web-1", "web-2"].into_iter().find(|host| is_ordered(host))
    });
    act(&led, "/v1/rollouts/stable/2/pause", &json!({ "why": "lunch" }));
    // Who is on its way arrives, which it could not before; nobody else begins.
    let said = await_state(led.fleet.host(first), "confirming", "stable/2", LONG);
    said.unwrap_or_else(|error| panic!("{error:#}\n{}", led.told()));
    for host in ["web-1", "web-2"] {
        led.fleet.host(host).write_file(WELL, "").expect("written");
    }
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

/// A policy with a canary and the rest.
pub(crate) fn two_waves(soak: &str) -> Value {
    json!({
        "waves": [
            { "name": "canary", "hosts": { "tag": "canary" }, "soak": soak, "opens_after": "0s" },
            { "name": "rest", "soak": soak, "opens_after": "0s" },
        ],
        "confirm_within": "60s",
    })
}

/// How often the control plane below dies.
const DEATHS: u64 = 50;

#[test]
fn a_control_plane_that_is_killed_fifty_times_during_a_rollout_orders_each_host_once() {
    if !hosts_run() {
        return;
    }
    let mut led = Led::boot(&["canary", "web-1", "web-2"]);
    // Each host has its share of the deaths, and the last one may not go before nearly all are over.
    let waves: Vec<Value> = [("canary", "not-needed"), ("web-1", "by-a-person"), ("web-2", "by-a-person")]
        .map(|(host, approval)| {
            json!({ "name": host, "hosts": { "host": host }, "soak": "1s", "opens_after": "0s", "approval": approval })
        })
        .into();
    release(&led, System::Good, "one", &json!({ "waves": waves, "confirm_within": "60s" }));
    led.until_decided(1, "opened");
    for death in 0..DEATHS {
        // Spread over what it does at its start and behind it.
        std::thread::sleep(Duration::from_millis(death * 37 % 500));
        led.control_plane.kill();
        led.control_plane.run(&led.fleet).expect("it comes up again");
        for (wave, after) in [(1, DEATHS / 3), (2, DEATHS - 5)] {
            if death == after {
                assert_eq!(decided(&led.events(), 1, "converged"), None, "it is still to be rolled out");
                act(&led, "/v1/rollouts/stable/1/approve", &json!({ "why": "go on", "wave": wave }));
            }
        }
    }
    // Hosts whose requests failed in a row wait for up to five minutes before the next one.
    let events = led.until_decided_within(1, "converged", 2 * LONG);
    led.all_converge("stable/1", System::Good);
    for host in led.fleet.hosts() {
        assert_eq!(ordered(&events, host.name(), 1, "go").len(), 1, "{} is ordered once", host.name());
        assert_eq!(fires(host, host.system(System::Good)), 1, "{} switched once", host.name());
    }
    led.no_objections();
}

#[test]
fn a_failed_host_is_tried_again_when_a_person_asks_and_an_aborted_rollout_moves_nobody() {
    if !hosts_run() {
        return;
    }
    let led = Led::boot(&["canary", "web-1"]);
    let with_probe = |system: System, policy: &Value| {
        let mut fleet = describe(&led, system, policy);
        for host in fleet["hosts"].as_object_mut().expect("hosts").values_mut() {
            host["probes"] = json!([{
                "name": "well", "kind": { "exec": { "argv": ["/bin/test", "-e", "/var/well"] } },
                "interval": "1s", "timeout": "5s", "failures": 3,
            }]);
        }
        fleet
    };
    led.fleet.describe(&with_probe(System::Good, &two_waves("1s"))).expect("written");
    led.fleet.release("one").expect("published");
    led.until_decided(1, "halted");
    let canary = led.fleet.host("canary");
    await_state(canary, "reverted", "stable/1", LIMIT).expect("it went back");
    for host in led.fleet.hosts() {
        host.write_file("/var/well", "").expect("written");
    }
    act(&led, "/v1/hosts/canary/retry", &json!({ "why": "it was the file" }));
    act(&led, "/v1/rollouts/stable/1/resume", &json!({ "why": "it was the file" }));
    let events = led.until_decided(1, "converged");
    led.all_converge("stable/1", System::Good);
    assert_eq!(ordered(&events, "canary", 1, "retry").len(), 1);

    let mut asks = two_waves("1s");
    asks["waves"][1]["approval"] = json!("by-a-person");
    led.fleet.describe(&with_probe(System::Good3, &asks)).expect("written");
    led.fleet.release("two").expect("published");
    await_state(canary, "converged", "stable/2", LIMIT).expect("the canary is done");
    act(&led, "/v1/rollouts/stable/2/abort", &json!({ "why": "not now" }));
    assert_eq!(until_why(&led, "web-1", "aborted")["reason"]["why"], "not now");
    let (status, answer) = led
        .control_plane
        .post(&led.fleet, "/v1/rollouts/stable/2/resume", &json!({ "why": "after all" }))
        .expect("an answer");
    assert_eq!(status, 409, "{answer}");
    led.fleet.describe(&with_probe(System::Third, &two_waves("1s"))).expect("written");
    led.fleet.release("three").expect("published");
    let events = led.until_decided(3, "converged");
    led.all_converge("stable/3", System::Third);
    assert!(ordered(&events, "web-1", 2, "go").is_empty(), "an aborted rollout moves nobody");
    led.no_objections();
}

#[test]
fn a_host_that_is_cut_off_in_its_trial_goes_back_by_itself_and_the_rollout_halts_when_it_tells() {
    if !hosts_run() {
        return;
    }
    let led = Led::boot(&["canary", "web-1"]);
    release(&led, System::Good, "one", &two_waves("1s"));
    led.until_decided(1, "converged");
    led.all_converge("stable/1", System::Good);
    let canary = led.fleet.host("canary");
    lose_the_canary_in_its_switch(&led, two_waves("1s"), || canary.cut_network().expect("cut"));
    await_state(canary, "reverted", "stable/2", LONG).expect("nobody confirmed it");
    assert_rests_on(canary, System::Good);
    assert!(decided(&led.events(), 2, "halted").is_none(), "nobody knows of it yet");
    canary.restore_network().expect("back");
    let events = led.until_decided_within(2, "halted", LONG);
    assert!(ordered(&events, "web-1", 2, "go").is_empty(), "web-1 is not touched");
    assert_rests_on(led.fleet.host("web-1"), System::Good);
    led.no_objections();
}

#[test]
fn a_policy_that_wants_a_restart_after_each_update_restarts_one_host_at_a_time_by_order() {
    if !hosts_run() {
        return;
    }
    let led = Led::boot(&["canary", "web-1", "web-2"]);
    let mut always = two_waves("1s");
    always["max_in_flight"] = json!([{ "hosts": "all", "limit": 1 }]);
    always["reboot"] = json!({ "mode": "always", "warn": "0s" });
    release(&led, System::Good, "one", &always);
    let booted = |host: &nixfleet_testbed::Host| host.boots() == 2;
    led.wait("every host to be restarted", LONG, || led.fleet.hosts().iter().all(booted).then_some(()));
    led.all_converge("stable/1", System::Good);
    led.wait("nobody to move any more", LIMIT, || {
        let seen = led.control_plane.get(&led.fleet, "/v1/rollouts/stable").ok()?;
        (seen["hosts"]["done"] == 3).then_some(())
    });
    let events = led.events();
    for host in led.fleet.hosts() {
        assert_eq!(ordered(&events, host.name(), 1, "reboot").len(), 1, "{}", host.name());
        assert_eq!(host.boots(), 2, "{} was restarted once", host.name());
    }
    led.no_objections();
}

/// Waits until the host says that it has its order: an order that is only written may not have left.
fn until_told_to_go(led: &Led, host: &str, seq: u64) {
    led.wait("the host to have its order", LIMIT, || {
        let events = led.events();
        let fact = |said: &Value| said["record"]["fact"].clone();
        let mut facts = events.iter().filter(|said| said["host"] == host).map(fact);
        facts.any(|fact| fact["event"] == "ordered-to-go" && fact["release"]["seq"] == seq).then_some(())
    });
}

/// Moves the canary to release two, and takes its line away while it switches: in its trial no source answers any more.
fn lose_the_canary_in_its_switch(led: &Led, mut policy: Value, lose: impl FnOnce()) {
    let canary = led.fleet.host("canary");
    canary.write_file(HOLD, "").expect("written");
    // The switch counts.
    policy["confirm_within"] = json!("120s");
    release_on_trial_until_well(led, System::Slow, "two", &policy);
    until_told_to_go(led, "canary", 2);
    lose();
    canary.write_file(WELL, "").expect("written");
    canary.run(&["rm", HOLD]).expect("it runs").success().expect("let go");
}

/// The numbers of reports of this kind that a host made.
pub(crate) fn told_of(events: &[Value], host: &str, event: &str) -> usize {
    let of_host = events.iter().filter(|said| said["host"] == host);
    of_host.filter(|said| said["record"]["fact"]["event"] == event).count()
}

#[test]
fn a_host_that_has_its_order_and_has_not_begun_is_called_back_when_another_fails_and_never_goes() {
    if !hosts_run() {
        return;
    }
    let led = Led::boot(&["canary", "web-1"]);
    let (canary, web) = (led.fleet.host("canary"), led.fleet.host("web-1"));
    canary.write_file("/var/well", "").expect("written");
    web.write_file("/var/well", "").expect("written");
    let policy = json!({
        "waves": [{ "name": "all", "soak": "1h", "opens_after": "0s", "approval": "by-a-person" }],
        "confirm_within": "120s",
    });
    let mut fleet = describe(&led, System::Good, &policy);
    for host in fleet["hosts"].as_object_mut().expect("hosts").values_mut() {
        host["probes"] = json!([{
            "name": "well", "kind": { "exec": { "argv": ["/bin/test", "-e", "/var/well"] } },
            "interval": "1s", "timeout": "5s", "failures": 3,
        }]);
    }
    led.fleet.describe(&fleet).expect("written");
    led.fleet.release("one").expect("published");
    for host in [canary, web] {
        await_state(host, "staged", "stable/1", LIMIT).expect("it waits for its turn");
        led.wait("it to be known", LIMIT, || {
            (told_of(&led.events(), host.name(), "target-staged") == 1).then_some(())
        });
    }
    // Somebody at the host keeps it, which nobody else knows yet: so it is told to go.
    web.cut_network().expect("cut");
    web.run(&[AGENT, "hold", "a demo", "--by", "bob"]).expect("it runs").success().expect("it is kept");
    act(&led, "/v1/rollouts/stable/1/approve", &json!({ "why": "looks good", "wave": 0 }));
    led.wait("both to be told to go", LIMIT, || {
        let events = led.events();
        let told = |host| ordered(&events, host, 1, "go").len() == 1;
        (told("canary") && told("web-1")).then_some(())
    });
    web.restore_network().expect("back");
    led.wait("web-1 to have its order", LONG, || {
        (told_of(&led.events(), "web-1", "ordered-to-go") == 1).then_some(())
    });
    await_state(canary, "soaking", "stable/1", LIMIT).expect("it is watched");
    canary.run(&["rm", "/var/well"]).expect("it runs").success().expect("it is ill");
    led.until_decided(1, "halted");
    led.wait("web-1 to say that it forgot its order", LIMIT, || {
        (told_of(&led.events(), "web-1", "order-withdrawn") == 1).then_some(())
    });
    web.run(&[AGENT, "unhold", "--by", "bob"]).expect("it runs").success().expect("it is let go");
    led.wait("that to be known", LIMIT, || (told_of(&led.events(), "web-1", "unheld") == 1).then_some(()));
    until_why(&led, "web-1", "halted");
    let waits = status(web);
    assert_eq!(waits["state"], "staged", "{waits:#}");
    assert_eq!(fires(web, web.system(System::Good)), 0);
    assert_eq!(told_of(&led.events(), "web-1", "went-ahead"), 0);

    // The fix finds it where it was.
    canary.write_file("/var/well", "").expect("written");
    let mut fix = describe(&led, System::Good3, &two_waves("1s"));
    for host in fix["hosts"].as_object_mut().expect("hosts").values_mut() {
        host["probes"] = fleet["hosts"]["web-1"]["probes"].clone();
    }
    led.fleet.describe(&fix).expect("written");
    led.fleet.release("two").expect("published");
    led.until_decided_within(2, "converged", LONG);
    led.all_converge("stable/2", System::Good3);
    led.no_objections();
}

#[test]
fn a_pinned_host_stays_with_its_system_through_releases_and_follows_again_when_it_is_let_go() {
    if !hosts_run() {
        return;
    }
    let led = Led::boot(&["canary", "web-1"]);
    let (canary, web) = (led.fleet.host("canary"), led.fleet.host("web-1"));
    release(&led, System::Good, "one", &two_waves("1s"));
    led.until_decided(1, "converged");
    led.all_converge("stable/1", System::Good);
    let mut pinned = describe(&led, System::Good3, &two_waves("1s"));
    pinned["hosts"]["web-1"]["pin"] = json!({ "system": web.system(System::Good), "reason": "a fair" });
    led.fleet.describe(&pinned).expect("written");
    led.fleet.release("two").expect("published");
    led.until_decided(2, "converged");
    for (host, system) in [(canary, System::Good3), (web, System::Good)] {
        await_state(host, "converged", "stable/2", LIMIT).expect("it has the release");
        assert_rests_on(host, system);
    }
    assert_eq!(fires(web, web.system(System::Good)), 1, "there was nothing to switch to");
    release(&led, System::Good3, "three", &two_waves("1s"));
    led.until_decided(3, "converged");
    led.all_converge("stable/3", System::Good3);
    assert_eq!(fires(web, web.system(System::Good3)), 1);
    led.no_objections();
}

/// Makes a release of another channel and publishes it.
fn release_of(led: &Led, channel: &str, revision: &str) {
    led.fleet.cli(&["release", "build", "--channel", channel, "--revision", revision]).expect("built");
    let key = format!("{}/keys/release", led.fleet.folder());
    led.fleet.cli(&["release", "sign", "--channel", channel, "--key", &key, "--yes"]).expect("signed");
    led.fleet.publish().expect("published");
}

#[test]
fn a_channel_that_comes_after_another_waits_until_that_one_has_converged_on_the_same_revision() {
    if !hosts_run() {
        return;
    }
    let led = Led::boot(&["db-1", "web-1"]);
    let (db, web) = (led.fleet.host("db-1"), led.fleet.host("web-1"));
    let moved = "sed -i 's/^channel = .*/channel = \"apps\"/' /etc/nixfleet/agent.toml && systemctl restart nixfleet-agent";
    let key = |name: &str| format!("{}/keys/{name}", led.fleet.folder());
    led.fleet.cli(&["root", "channel", "apps", "--release-key", &key("release.pub")]).expect("a new root");
    led.fleet.cli(&["root", "sign", "--key", &key("root"), "--yes"]).expect("signed");
    led.fleet.publish().expect("published");
    web.sh(moved).expect("it runs").success().expect("it follows the other channel");
    let policy = json!({
        "waves": [{ "name": "all", "soak": "5s", "opens_after": "0s" }],
        "confirm_within": "60s",
    });
    let describe_both = |system: System| {
        let mut fleet = describe(&led, system, &policy);
        fleet["channels"]["apps"] = json!({ "policy": policy, "after": [CHANNEL] });
        fleet["hosts"]["web-1"]["channel"] = json!("apps");
        fleet
    };
    for (seq, system) in [(1, System::Good), (2, System::Good3)] {
        led.fleet.describe(&describe_both(system)).expect("written");
        let revision = format!("revision-{seq}");
        release_of(&led, "apps", &revision);
        let why = until_why(&led, "web-1", "wave");
        assert_eq!(why["reason"]["on"]["channel"], CHANNEL, "{why:#}");
        led.fleet.release(&revision).expect("published");
        for (host, release) in [(db, format!("stable/{seq}")), (web, format!("apps/{seq}"))] {
            await_state(host, "converged", &release, LONG)
                .unwrap_or_else(|error| panic!("{error:#}\n{}", led.told()));
            assert_rests_on(host, system);
        }
        let events = led.events();
        let of_first = json!({ "channel": CHANNEL, "seq": seq });
        let done = events.iter().position(|event| {
            let decision = &event["decision"];
            decision["rollout"] == of_first && decision["becomes"]["becomes"] == "converged"
        });
        let done = done.expect("the first channel has converged");
        let go = ordered(&events, "web-1", seq, "go");
        assert_eq!(go.len(), 1, "{go:?}");
        assert!(done < go[0], "the channel that comes after waits for the first");
    }
    led.no_objections();
}

/// A cut that goes one way leaves connections half open: neither side is told that the other is gone.
/// Two hosts that run the first release, under a policy that misses a silent host after 40 s.
fn two_that_are_missed_soon() -> (Led, Value) {
    let led = Led::boot(&["canary", "web-1"]);
    let mut policy = two_waves("1s");
    policy["offline_after"] = json!("40s");
    release(&led, System::Good, "one", &policy);
    led.until_decided(1, "converged");
    led.all_converge("stable/1", System::Good);
    (led, policy)
}

#[test]
fn a_host_that_speaks_and_is_not_heard_goes_back_and_its_rollout_halts() {
    if !hosts_run() {
        return;
    }
    let (led, policy) = two_that_are_missed_soon();
    let canary = led.fleet.host("canary");

    // What it says vanishes before its trial begins, so nothing confirms it. The way back may set its link up anew.
    lose_the_canary_in_its_switch(&led, policy, || canary.mute_network().expect("muted"));
    await_state(canary, "reverted", "stable/2", LONG).expect("nobody confirmed it");
    assert_rests_on(canary, System::Good);
    canary.restore_network().expect("back");
    let events = led.until_decided_within(2, "halted", LONG);
    assert!(ordered(&events, "web-1", 2, "go").is_empty(), "web-1 is not touched");
    // It may have been counted as lost before its report could be heard.
    led.wait("the control plane to hear that the canary went back", LONG, || {
        let known = led.control_plane.get(&led.fleet, "/v1/hosts/canary").ok()?;
        (known["doing"]["state"] == "reverted").then_some(())
    });
    led.no_objections();
}

#[test]
fn a_host_that_hears_nothing_is_not_waited_for_and_is_asked_again_once_it_hears() {
    if !hosts_run() {
        return;
    }
    let (led, policy) = two_that_are_missed_soon();
    let canary = led.fleet.host("canary");

    canary.deafen_network().expect("deafened");
    release(&led, System::Good3, "two", &policy);
    until_why(&led, "canary", "offline");
    assert!(ordered(&led.events(), "web-1", 2, "go").is_empty(), "no canary, no evidence");
    canary.restore_network().expect("back");
    led.until_decided_within(2, "converged", LONG);
    led.all_converge("stable/2", System::Good3);
    led.no_objections();
}
