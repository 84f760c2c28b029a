//! Rollouts of the real planner, steered by a person.

use std::time::Duration;

use super::agents::pushed;
use super::control_plane::{ControlPlane, SOON, is_built};
use crate::support::Session;

/// Waits until a verb prints all of `words`.
pub(crate) async fn until(server: &ControlPlane, session: &Session, verb: &[&str], words: &[&str]) -> String {
    let mut last = String::new();
    let read = async {
        loop {
            let said = server.operate(session, verb).await;
            last = format!("{}{}", said.out, said.err);
            if said.code == 0 && words.iter().all(|word| last.contains(word)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let came = tokio::time::timeout(SOON, read).await;
    assert!(came.is_ok(), "{words:?} did not come: {last}");
    last
}

#[tokio::test]
async fn a_rollout_is_paused_resumed_and_ended_by_a_person() {
    if !is_built() {
        return;
    }
    let (session, mut agents, server) = pushed(&["web-1", "web-2"]).await;
    for agent in &mut agents {
        agent.started();
        agent.staged(&session, 1);
        agent.report(&server).await;
    }
    // The canary was told to go, and the second wave waits for it.
    until(&server, &session, &["rollout", "list"], &["stable/1  going", "1/2", "0/2"]).await;
    until(&server, &session, &["why", "web-1"], &["it was told to move to stable/1", "was ordered: go"])
        .await;
    let why = until(&server, &session, &["why", "web-2"], &["wave 2 (rest) is not open"]).await;
    assert!(why.contains("rollout stable/1, wave 2"), "{why}");
    let plan = server.done(&session, &["plan"]).await;
    assert!(plan.contains("nothing would move now") && plan.contains("DO NOT MOVE"), "{plan}");

    let step = |verb: &'static str| ["rollout", verb, "stable", "--why", "lunch", "--yes"];
    let paused = server.done(&session, &step("pause")).await;
    assert!(paused.starts_with("stable/1: noted as event "), "{paused}");
    until(&server, &session, &["status"], &["paused", "ann paused it: lunch"]).await;
    let twice = server.operate(&session, &step("pause")).await;
    assert!(twice.code == 1 && twice.err.contains("paused"), "{twice:?}");
    let viewer = server.view(&session, &step("resume")).await;
    assert!(viewer.code == 1 && viewer.err.contains("may look and not act"), "{viewer:?}");
    server.done(&session, &step("resume")).await;
    until(&server, &session, &["rollout", "show", "stable"], &["state      going"]).await;

    server.done(&session, &["rollout", "skip", "web-2", "--why", "it is in a museum", "--yes"]).await;
    until(&server, &session, &["why", "web-2"], &["ann left it out: it is in a museum"]).await;
    server.done(&session, &step("abort")).await;
    until(&server, &session, &["rollout", "list"], &["aborted", "ann ended it: lunch"]).await;
    let ended = server.operate(&session, &step("resume")).await;
    assert!(ended.code == 1 && ended.err.contains("aborted"), "{ended:?}");
    let log = server.done(&session, &["events"]).await;
    for words in [
        "ann asks to pause rollout stable/1: lunch",
        "ann asks to leave web-2 out: it is in a museum",
        "plan: rollout stable/1 begins",
        "plan: web-1 switches to release stable/1",
    ] {
        assert!(log.contains(words), "{words}\n{log}");
    }
}

#[tokio::test]
async fn a_wave_that_waits_for_a_person_is_opened_by_one() {
    if !is_built() {
        return;
    }
    let (session, mut agents, server) = pushed(&["web-1"]).await;
    let gated = session
        .read("fleet.json")
        .replace("\"name\":\"canary\"", "\"approval\":\"by-a-person\",\"name\":\"canary\"");
    session.write("fleet.json", &gated);
    session.publish();
    server.done(&session, &["release", "push", "--channel", "stable", "--yes"]).await;
    agents[0].started();
    agents[0].staged(&session, 2);
    agents[0].report(&server).await;
    let waits = "wave 1 waits for a person's approval";
    until(&server, &session, &["rollout", "list"], &["stable/2", "0/2", waits]).await;
    let words = ["rollout", "approve", "stable", "--why", "looks good", "--yes"];
    let said = server.operate(&session, &words).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err.contains("then rollout stable/2: wave 1 opens"),
        "what it brings is shown before: {said:?}"
    );
    until(&server, &session, &["why", "web-1"], &["it was told to move to stable/2"]).await;
    let again = server.operate(&session, &words).await;
    assert!(
        again.code == 1 && again.err.contains("no wave of rollout stable/2 waits for a person"),
        "{again:?}"
    );
}
