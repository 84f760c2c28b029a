//! What a person sees.

use nixfleet_core::activation::outcome::{ActivationOutcome, Step, StepTime, Verdict};
use nixfleet_core::host::{Event, Record, UpMs};
use nixfleet_core::ids::{ActivationId, StorePath};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::wire::log::Fact;
use nixfleet_core::wire::people::EventView;
use serde_json::Value;

use super::agents::pushed;
use super::control_plane::{SOON, is_built};
use super::stand_in::{Answer, StandIn};
use crate::support::system;

fn json(text: &str) -> Value {
    let value: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(value["version"], 1, "every document says its version");
    value
}

#[tokio::test]
async fn hosts_are_listed_as_they_say_they_are() {
    if !is_built() {
        return;
    }
    let (session, mut agents, server) = pushed(&["web-1", "web-2"]).await;
    agents[0].started();
    agents[0].staged(&session, 1);
    agents[0].report(&server).await;
    let table = server.done(&session, &["hosts"]).await;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["HOST", "CHANNEL", "RELEASE", "WAVE", "STATE", "HEARD", "WAITS", "FOR"]);
    assert_eq!(words[1][..5], ["web-1", "stable", "1", "1", "staged"]);
    assert!(table.contains("the control plane's order"), "{table}");
    assert_eq!(words[2][..6], ["web-2", "stable", "1", "2", "never", "reported"]);
    assert!(!table.contains('\u{1b}'), "no colour where there is no terminal");
    assert_eq!(server.done(&session, &["hosts", "-o", "name", "--state", "staged"]).await, "web-1\n");
    assert_eq!(server.done(&session, &["hosts", "-o", "name", "--state", "failed"]).await, "");
    assert_eq!(
        server.done(&session, &["hosts", "-o", "name", "--channel", "stable"]).await,
        "web-1\nweb-2\n"
    );
    let hosts = json(&server.done(&session, &["hosts", "-o", "json"]).await);
    assert_eq!(hosts["hosts"][0]["doing"]["state"], "staged");
}

#[tokio::test]
async fn a_host_is_shown_with_what_happened_on_it() {
    if !is_built() {
        return;
    }
    let (session, mut agents, server) = pushed(&["web-1"]).await;
    agents[0].started();
    agents[0].staged(&session, 1);
    agents[0].report(&server).await;
    let shown = server.done(&session, &["host", "web-1"]).await;
    for line in ["host      web-1", "channel   stable, release 1, wave 1", "agent     0.1.0"] {
        assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
    }
    for words in ["agent 0.1.0 started", "verified release stable/1", "fetched and checked release stable/1"]
    {
        assert!(shown.contains(words), "{words}\n{shown}");
    }
    assert_eq!(server.done(&session, &["host", "web-1", "-o", "name"]).await, "web-1\n");
    let one = json(&server.done(&session, &["host", "web-1", "-o", "json", "--events", "1"]).await);
    assert_eq!(one["events"].as_array().map(Vec::len), Some(1));
    let why = server.done(&session, &["why", "web-1"]).await;
    assert!(why.contains("by its own word: staged"), "{why}");
    assert_eq!(json(&server.done(&session, &["why", "web-1", "-o", "json"]).await)["host"]["name"], "web-1");
}

#[tokio::test]
async fn a_key_that_no_release_names_is_listed_with_its_fingerprint() {
    if !is_built() {
        return;
    }
    let (session, _, server) = pushed(&["web-1"]).await;
    let mut stranger = super::agents::Agent::new("web-9");
    stranger.started();
    stranger.knock(&server).await;
    let keys = server.done(&session, &["hosts", "--strangers", "-o", "name"]).await;
    assert_eq!(keys.lines().count(), 1, "{keys}");
    assert!(server.done(&session, &["hosts", "--strangers"]).await.contains(keys.trim()));
}

#[tokio::test]
async fn the_log_is_shown_from_its_end_and_for_one_host() {
    if !is_built() {
        return;
    }
    let (session, mut agents, server) = pushed(&["web-1", "web-2"]).await;
    for agent in &mut agents {
        agent.started();
        agent.staged(&session, 1);
        agent.report(&server).await;
    }
    let all = server.done(&session, &["events"]).await;
    assert!(all.contains("release stable/1") && all.contains("a token for ann was made"), "{all}");
    let newest = server.done(&session, &["events", "--limit", "2", "-o", "name"]).await;
    assert_eq!(newest.lines().count(), 2);
    let one = server.done(&session, &["events", "--host", "web-2", "-o", "json"]).await;
    let one = json(&one);
    let events = one["events"].as_array().expect("a list");
    assert!(!events.is_empty() && events.iter().all(|event| event["host"] == "web-2"), "{one}");
    let after = events[0]["id"].to_string();
    let rest =
        json(&server.done(&session, &["events", "--host", "web-2", "--after", &after, "-o", "json"]).await);
    assert_eq!(rest["events"].as_array().map(Vec::len), Some(events.len() - 1));
}

#[tokio::test]
async fn the_fleet_is_on_one_screen() {
    if !is_built() {
        return;
    }
    let (session, mut agents, server) = pushed(&["web-1", "web-2"]).await;
    agents[0].started();
    agents[0].report(&server).await;
    let status = server.done(&session, &["status"]).await;
    assert!(status.contains("stable/1"), "{status}");
    assert!(status.lines().any(|line| line.starts_with("stable ") && line.contains('2')), "{status}");
    assert_eq!(server.done(&session, &["status", "-o", "name"]).await, "stable\n");
    let json = json(&server.done(&session, &["status", "-o", "json"]).await);
    assert_eq!(json["releases"][0]["seq"], 1);
}

#[tokio::test]
async fn an_event_of_a_kind_that_is_newer_than_this_program_is_shown_by_its_name() {
    let script = |asked: &str| match asked {
        asked if asked.starts_with("GET /v1/fleet") => {
            let fleet = r#"{"releases": [], "hosts": {}, "newest_event": 1, "mood": "fine"}"#;
            Answer::Says("200 OK", "application/json", fleet.to_owned())
        }
        _ => {
            let events =
                r#"{"items": [{"id": 1, "at_ms": 5, "fact": "moon-rose", "phase": "full"}], "next": null}"#;
            Answer::Says("200 OK", "application/json", events.to_owned())
        }
    };
    let server = StandIn::start("localhost", script).await;
    let said = server.run(&["events"]).await;
    assert!(said.code == 0 && said.out.contains("moon-rose"), "{said:?}");
    assert!(server.run(&["events", "-o", "json"]).await.out.contains(r#""phase":"full""#));
}

/// A control plane whose database finds no room, as `GET /v1/fleet` tells it.
fn without_room(asked: &str) -> Answer {
    let answer = match asked {
        "GET /v1/fleet" => serde_json::json!({
            "releases": [{ "channel": "stable", "seq": 3, "digest": format!("sha256:{}", "ab".repeat(32)) }],
            "hosts": { "stable": { "converged": 2 } },
            "newest_event": 7,
            "troubles": [
                { "kind": "database-full", "since_ms": 60_000, "text": "the disk is full" },
                { "kind": "database-away", "since_ms": 3_600_000, "text": "nobody answers" },
            ],
        }),
        _ => serde_json::json!({ "items": [], "next": null }),
    };
    Answer::Says("200 OK", "application/json", answer.to_string())
}

#[tokio::test]
async fn what_keeps_the_control_plane_from_working_stands_above_all_else() {
    let server = StandIn::start("localhost", without_room).await;
    let said = server.run(&["status"]).await;
    assert_eq!(said.code, 0, "the question was answered: {said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "ALARM since 1970-01-01 00:01:00 UTC: the disk is full",
            "ALARM since 1970-01-01 01:00:00 UTC: nobody answers",
        ],
        "{said:?}"
    );
    assert!(lines[2].starts_with("ROLLOUT"), "the fleet is shown all the same: {said:?}");
    let json = json(&server.run(&["status", "-o", "json"]).await.out);
    assert_eq!(json["troubles"][0]["kind"], "database-full");
    assert_eq!(server.run(&["status", "-o", "name"]).await.out, "stable\n", "names are names");
}

#[tokio::test]
async fn what_keeps_the_control_plane_from_working_is_a_line_of_a_watch() {
    let server = StandIn::start("localhost", without_room).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let line = format!("exec {} >{} 2>&1", server.verb(&["status", "--watch"]).line(), file.path().display());
    let watching = server.beside(&["/bin/sh", "-c", &line]);
    // It ends with the test: whoever drops what waits for it ends it.
    tokio::spawn(async move { drop(watching.run().await) });
    let wanted = "  ALARM since 1970-01-01 00:01:00 UTC  the disk is full\n";
    let read = async {
        while !std::fs::read_to_string(file.path()).is_ok_and(|text| text.contains(wanted)) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let came = tokio::time::timeout(SOON, read).await;
    assert!(came.is_ok(), "{:?}", std::fs::read_to_string(file.path()));
}

/// A host whose clock is a day behind, and which therefore refuses what is served.
fn a_day_behind(asked: &str) -> Answer {
    let answer = match asked {
        "GET /v1/hosts/web-1" => serde_json::json!({
            "name": "web-1", "channel": "stable", "release_seq": 3, "wave": 0, "tags": [], "system": "/nix/store/x",
            "current": null, "agent": "0.1.0", "doing": null, "reported_ms": null, "heard_ms": 1_000, "fault": null,
            "clock_ahead_ms": -86_400_000, "mood": "fine",
            "refused": { "kind": "clock", "why": "it is dated in the future", "since_ms": 86_400_000 },
        }),
        asked if asked.starts_with("GET /v1/events") => serde_json::json!({ "items": [], "next": null }),
        _ => {
            let problem = serde_json::json!({ "type": "urn:nixfleet:problem:not-found", "title": "Not found", "status": 404,
                                              "detail": "there is no rollout" });
            return Answer::Says("404 Not Found", "application/problem+json", problem.to_string());
        }
    };
    Answer::Says("200 OK", "application/json", answer.to_string())
}

#[tokio::test]
async fn a_host_with_another_time_is_shown_with_how_far_it_is_off_and_with_what_it_refuses() {
    let server = StandIn::start("localhost", a_day_behind).await;
    let shown = server.run(&["host", "web-1"]).await;
    for line in [
        "clock     24h behind the control plane's",
        "refuses   what it is served, since 1970-01-02 00:00:00 UTC: (clock) it is dated in the future",
    ] {
        assert!(shown.code == 0 && shown.out.lines().any(|found| found == line), "{line}: {shown:?}");
    }
    let why = server.run(&["why", "web-1"]).await;
    assert!(why.out.contains("  its clock: 24h behind the control plane's"), "{why:?}");
    assert!(why.out.contains("  it refuses what it is served"), "{why:?}");
}

/// A host that was cut off for hours and reports them at once: what it did is an hour apart, and was taken in together.
fn back_after_hours(asked: &str) -> Answer {
    let system: StorePath = system('0', "1").parse().expect("a path");
    let outcome = ActivationOutcome {
        id: ActivationId::new(1, 2),
        target: system.clone(),
        previous: None,
        generation: None,
        verdict: Verdict::Converged,
        warnings: Vec::new(),
        reboot_needed: Vec::new(),
        steps: vec![StepTime { step: Step::Realise, ms: 61_500 }, StepTime { step: Step::Fire, ms: 12 }],
    };
    let started = Event::LocalActivationStarted { id: outcome.id.clone(), target: system, at_ms: 0 };
    let ended = Event::LocalActivationCompleted { outcome, at_ms: 0 };
    let taken = |id: u64, at_ms: u64, fact: Fact| {
        let host = Some("web-1".parse().expect("a name"));
        EventView { id, at_ms: UnixMs::new(at_ms).expect("in range"), host, channel: None, fact }
    };
    let reported = |seq: u64, at_ms: u64, fact: Event| {
        let at_ms = UnixMs::new(at_ms).expect("in range");
        let record = Record { v: 1, seq, at_ms, up_ms: UpMs(at_ms.get()), fact };
        taken(seq, 36_000_000, Fact::Reported { record: Box::new(record) })
    };
    let items = [
        reported(1, 3_600_000, Event::Woke),
        reported(2, 7_200_000, started),
        reported(3, 7_500_000, ended),
        taken(4, 36_005_000, Fact::Objected { objections: vec!["x".to_owned()] }),
    ];
    match asked {
        asked if asked.starts_with("GET /v1/events") => {
            let page = serde_json::json!({ "items": items, "next": null });
            Answer::Says("200 OK", "application/json", page.to_string())
        }
        asked => a_day_behind(asked),
    }
}

#[tokio::test]
async fn what_a_host_reports_late_is_shown_when_it_was_and_with_what_each_step_took() {
    let server = StandIn::start("localhost", back_after_hours).await;
    let shown = server.run(&["host", "web-1"]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    let lines: Vec<Vec<&str>> = shown.out.lines().map(|line| line.split_whitespace().collect()).collect();
    let at = lines.iter().position(|line| line.first() == Some(&"WHEN")).expect("a timeline");
    assert_eq!(lines[at + 1][..3], ["1970-01-01", "01:00:00", "UTC"], "{shown:?}");
    assert_eq!(lines[at + 2][..4], ["1970-01-01", "02:00:00", "UTC", "+60m"], "{shown:?}");
    assert_eq!(lines[at + 3][..4], ["1970-01-01", "02:05:00", "UTC", "+5m"], "{shown:?}");
    assert_eq!(lines[at + 4], ["realise", "61500", "ms,", "fire", "12", "ms"], "{shown:?}");
    let noted = ["1970-01-01", "10:00:05", "UTC", "+5s"];
    assert_eq!(lines[at + 5][..4], noted, "not eight hours: the two clocks are never mixed: {shown:?}");
}
