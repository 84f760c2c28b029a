//! Rollouts and plans, as the description of the API has them: a stand-in answers, so that each state can be shown.

use serde_json::{Value, json};

use super::stand_in::{Answer, StandIn};
use crate::support::Said;

fn release() -> Value {
    json!({ "channel": "stable", "seq": 3, "digest": format!("sha256:{}", "ab".repeat(32)) })
}

/// A rollout in its second wave of three, of which one host failed, with a third that waits for a person.
fn rollout() -> Value {
    let wave = |number: u32, name: &str, opened: Option<u64>, done: u32, total: u32| {
        json!({
            "wave": number, "name": name, "opened_ms": opened, "soak_secs": 60, "approval": "not-needed",
            "approved": null, "hosts": { "total": total, "done": done }, "waits": null, "text": null, "reasons": [],
        })
    };
    let mut waves = vec![
        wave(0, "canary", Some(1_000), 1, 1),
        wave(1, "some", Some(2_000), 1, 3),
        wave(2, "rest", None, 0, 4),
    ];
    waves[1]["hosts"] = json!({ "total": 3, "done": 1, "moving": 1, "failed": 1 });
    waves[1]["reasons"] = json!([
        { "reason": "on-its-way", "text": "it was told to move", "hosts": 1, "first": "web-2" },
        { "reason": "failed", "text": "it failed (probe)", "hosts": 1, "first": "web-3" },
    ]);
    waves[2]["approval"] = "by-a-person".into();
    waves[2]["hosts"] = json!({ "total": 4, "waiting": 4 });
    waves[2]["waits"] = json!({ "on": "approval", "wave": 2 });
    waves[2]["text"] = "wave 3 waits for a person's approval".into();
    json!({
        "rollout": "stable/3", "channel": "stable", "seq": 3, "release": release(), "revision": "9c1f2e4",
        "opened_ms": 1_000, "converged_ms": null, "status": { "status": "going" },
        "hosts": { "total": 8, "done": 2, "moving": 1, "failed": 1, "waiting": 4 },
        "failures": [{ "host": "web-3", "how": { "how": "reported", "class": "probe" }, "system": null,
                       "at_ms": 3_000, "text": "probe https failed" }],
        "quarantine": [{ "system": format!("/nix/store/{}-nixos-system-web-3", "0".repeat(32)), "host": "web-3",
                         "rollout": "stable/3", "since_ms": 3_000 }],
        "waves": waves,
    })
}

fn plan() -> Value {
    json!({
        "event": 7, "at_ms": 5_000, "leader": { "holder": "cp-1", "until_ms": 9_000 },
        "decisions": [{ "rollout": { "channel": "stable", "seq": 3 }, "becomes": { "becomes": "wave-opened", "wave": 2 } }],
        "orders": [{ "host": "web-5", "release": release(), "what": "go" }], "orders_total": 4, "objections": [],
        "held": [{ "reason": "budget", "text": "2 of 2 hosts of `all` are on their way", "hosts": 3, "first": "web-6" }],
        "again_ms": 60_000,
    })
}

fn host(name: &str) -> Value {
    json!({
        "name": name, "channel": "stable", "release_seq": 3, "wave": 1, "tags": ["web"], "system": "/nix/store/x",
        "current": null, "agent": null, "reported_ms": null, "heard_ms": null, "fault": null,
        "doing": null,
    })
}

fn why() -> Value {
    json!({
        "host": "web-3", "channel": "stable", "wave": 1, "rollout": "stable/3", "state": "failed", "heard_ms": 4_000,
        "reason": { "reason": "failed", "failure": { "how": "reported", "class": "probe" } }, "text": "it failed (probe)",
        "ordered": { "what": "go", "release": release(), "at_ms": 2_500, "since_ms": 2_500 },
    })
}

fn script(asked: &str) -> Answer {
    let fleet = json!({ "releases": [release()], "hosts": { "stable": { "converged": 2, "failed": 1 } }, "newest_event": 7 });
    let page = |item: Value| json!({ "items": [item], "next": null });
    let good = match asked {
        "GET /v1/fleet" => fleet,
        "GET /v1/rollouts?limit=1000" => page(rollout()),
        "GET /v1/rollouts/stable" => rollout(),
        "GET /v1/plan" | "POST /v1/plan" => plan(),
        "GET /v1/hosts/web-3" => host("web-3"),
        "GET /v1/hosts/web-3/why" => why(),
        "POST /v1/rollouts/stable/3/pause"
        | "POST /v1/rollouts/stable/3/resume"
        | "POST /v1/rollouts/stable/3/abort"
        | "POST /v1/rollouts/stable/3/approve"
        | "POST /v1/hosts/web-3/skip" => {
            return Answer::Says("202 Accepted", "application/json", r#"{"event": 8}"#.to_owned());
        }
        _ => {
            let problem = json!({ "type": "urn:nixfleet:problem:not-found", "title": "x", "status": 404, "detail": asked });
            return Answer::Says("404 Not Found", "application/problem+json", problem.to_string());
        }
    };
    Answer::Says("200 OK", "application/json", good.to_string())
}

async fn told(words: &[&str]) -> Said {
    StandIn::start("localhost", script).await.run(words).await
}

async fn done(words: &[&str]) -> String {
    let said = told(words).await;
    assert_eq!(said.code, 0, "{words:?}: {said:?}");
    said.out
}

#[tokio::test]
async fn the_status_has_a_line_for_each_rollout_and_one_for_each_failure() {
    let wanted = "\
ROLLOUT   STATE  WAVE  DONE  MOVING  WAITING  FAILED  WAITS ON
stable/3  going  2/3   2/8   1       4        1       wave 3 waits for a person's approval

FAILED  ROLLOUT   CLASS  WHAT
web-3   stable/3  probe  probe https failed

CHANNEL  HOSTS  BY THEIR OWN WORD
stable   3      2 converged, 1 failed
";
    assert_eq!(done(&["status"]).await, wanted);
    assert_eq!(done(&["rollout", "list", "-o", "name"]).await, "stable/3\n");
    let json: Value = serde_json::from_str(&done(&["status", "-o", "json"]).await).expect("JSON");
    assert_eq!((&json["version"], &json["rollouts"][0]["hosts"]["moving"]), (&1.into(), &1.into()));
}

#[tokio::test]
async fn a_rollout_is_shown_with_its_waves_and_who_waits_on_what() {
    let shown = done(&["rollout", "show", "stable"]).await;
    for line in [
        "revision   9c1f2e4",
        "waits on   wave 3 waits for a person's approval",
        "1     canary  yes          1/1   0       0        0",
        "3     rest    by a person  0/4   0       4        0       wave 3 waits for a person's approval",
        "2     1      web-3    it failed (probe)",
        "web-3   stable/3  probe  probe https failed",
    ] {
        assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
    }
    assert!(shown.contains("not offered any more: /nix/store/"), "{shown}");
}

#[tokio::test]
async fn a_plan_says_what_would_move_and_why_the_rest_would_not() {
    let said = told(&["plan"]).await;
    let wanted = "\
rollout stable/3: wave 3 opens
web-5 switches to release stable/3
and so on: 4 in all

HOSTS  SUCH AS  DO NOT MOVE: FOR THEM
3      web-6    2 of 2 hosts of `all` are on their way
";
    assert_eq!(said.out, wanted, "{said:?}");
    assert!(
        said.err.contains("replica cp-1 carries plans out") && said.err.contains("1970-01-01 00:01:00 UTC"),
        "{said:?}"
    );
    assert_eq!(done(&["plan", "-o", "name"]).await, "web-5\n");
}

#[tokio::test]
async fn why_says_the_planners_reason_and_the_hosts_own_word() {
    let why = done(&["why", "web-3"]).await;
    assert!(
        why.starts_with("web-3: it failed (probe)\n  rollout stable/3, wave 2\n  was ordered: go "),
        "{why}"
    );
    assert!(why.contains("heard of: never"), "{why}");
    assert_eq!(done(&["why", "web-3", "-o", "name"]).await, "failed\n");
}

#[tokio::test]
async fn a_rollout_is_steered_and_what_that_brings_is_shown_before() {
    for verb in ["pause", "resume", "abort"] {
        let said = told(&["rollout", verb, "stable", "--why", "lunch", "--yes"]).await;
        assert_eq!((said.code, said.out.as_str()), (0, "stable/3: noted as event 8\n"), "{said:?}");
        assert!(said.err.contains("  then rollout stable/3: wave 3 opens"), "{said:?}");
    }
    for wave in [&[][..], &["--wave", "3"], &["--wave", "rest"]] {
        let words = [&["rollout", "approve", "stable/3", "--why", "looks good", "--yes"], wave].concat();
        let said = told(&words).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.err.contains("wave 3 (rest) of rollout stable/3 may open: 4 hosts"), "{said:?}");
    }
    assert_eq!(done(&["rollout", "skip", "web-3", "--why", "x", "-o", "name", "--yes"]).await, "web-3\n");
}

#[tokio::test]
async fn another_rollout_than_the_one_that_was_meant_is_left_alone() {
    let said = told(&["rollout", "abort", "stable/2", "--why", "x", "--yes"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("the rollout of channel stable is stable/3 by now"), "{said:?}");
    let said = told(&["rollout", "approve", "stable", "--wave", "reste", "--why", "x", "--yes"]).await;
    assert!(said.code == 1 && said.err.contains("did you mean `rest`?"), "{said:?}");
    let said = told(&["rollout", "pause", "stable/x", "--why", "x", "--yes"]).await;
    assert_eq!(said.code, 2, "{said:?}");
}
