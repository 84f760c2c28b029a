//! What a person does.

use nixfleet_core::wire::Wish;
use serde_json::Value;

use super::agents::pushed;
use super::control_plane::is_built;

#[tokio::test]
async fn a_hold_reaches_the_host_and_is_in_the_log_with_who_and_why() {
    if !is_built() {
        return;
    }
    let (session, mut agents, server) = pushed(&["web-1"]).await;
    agents[0].started();
    agents[0].staged(&session, 1);
    agents[0].report(&server).await;
    let held = server.operate(&session, &["hold", "web-1", "--why", "exams", "--for", "2h", "--yes"]).await;
    assert_eq!(held.code, 0, "{held:?}");
    assert!(held.out.starts_with("web-1: noted as event "), "{held:?}");
    let orders = agents[0].orders(&server).await.orders;
    let order = orders.iter().find(|order| matches!(order.what, Wish::Hold { .. })).expect("it is asked");
    assert!(
        matches!(&order.what, Wish::Hold { by, why, until_ms: Some(_) } if by == "ann" && why == "exams"),
        "{order:?}"
    );
    agents[0].take(&order.what.event(), None);
    agents[0].report(&server).await;
    let why = server.done(&session, &["why", "web-1"]).await;
    assert!(why.contains("ann, who holds it until ") && why.contains("exams"), "{why}");
    let log = server.done(&session, &["events"]).await;
    assert!(log.contains("ann asks to hold web-1 until ") && log.contains(": exams"), "{log}");
    server.done(&session, &["unhold", "web-1", "--why", "they are over", "--yes"]).await;
    let orders = agents[0].orders(&server).await.orders;
    assert!(orders.iter().any(|order| matches!(order.what, Wish::Unhold { .. })), "{orders:?}");
}

#[tokio::test]
async fn several_hosts_are_all_looked_for_before_anything_is_done() {
    if !is_built() {
        return;
    }
    let (session, _, server) = pushed(&["web-1", "web-2"]).await;
    let said = server.operate(&session, &["hold", "web-1", "web-3", "--why", "x", "--yes"]).await;
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    let log = server.done(&session, &["events", "-o", "json"]).await;
    assert!(!log.contains("\"acted\""), "{log}");
    let both = ["hold", "web-1", "web-2", "--why", "x", "--yes", "-o", "json"];
    let acts: Value = serde_json::from_str(&server.done(&session, &both).await).expect("JSON");
    assert_eq!((&acts["version"], &acts["acts"][1]["name"]), (&1.into(), &"web-2".into()));
}

#[tokio::test]
async fn what_does_not_fit_to_how_things_are_is_refused_in_the_control_planes_words() {
    if !is_built() {
        return;
    }
    let (session, mut agents, server) = pushed(&["web-1"]).await;
    agents[0].started();
    agents[0].staged(&session, 1);
    agents[0].report(&server).await;
    let said = server.operate(&session, &["retry", "web-1", "--why", "x", "--yes"]).await;
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("error: web-1: "), "{said:?}");
    let past =
        server.operate(&session, &["hold", "web-1", "--why", "x", "--yes", "--until", "2020-01-01"]).await;
    assert!(past.code == 2 && past.err.contains("is past"), "{past:?}");
    let long = "x".repeat(501);
    let said = server.operate(&session, &["hold", "web-1", "--why", &long, "--yes"]).await;
    assert!(said.code == 1 && said.err.contains("`why` is one line of 1 to 500 characters"), "{said:?}");
    let none = server.operate(&session, &["hold", "web-1", "--yes"]).await;
    assert!(none.code == 2 && none.err.contains("--why"), "{none:?}");
}

#[tokio::test]
async fn of_several_hosts_each_is_asked_and_said_for_itself_whatever_another_one_answers() {
    if !is_built() {
        return;
    }
    let (session, _, server) = pushed(&["web-1", "web-2", "web-3"]).await;
    server.done(&session, &["hold", "web-1", "web-3", "--why", "x", "--yes"]).await;
    // Nobody holds the one in the middle, so it cannot be let go.
    let words = ["unhold", "web-1", "web-2", "web-3", "--why", "y", "--yes"];
    let said = server.operate(&session, &words).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("web-1: noted") && said.out.contains("web-3: noted"), "{said:?}");
    assert!(
        said.err.contains("web-2: not done: ") && said.err.contains("not done for 1 of 3 hosts"),
        "{said:?}"
    );
    server.done(&session, &["hold", "web-3", "--why", "x", "--yes"]).await;
    let json = server.operate(&session, &[&words[..], &["-o", "json"]].concat()).await;
    let acts: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!((json.code, acts["acts"].as_array().map(Vec::len)), (1, Some(1)), "{json:?}");
    assert_eq!((&acts["acts"][0]["name"], &acts["refused"][1]["name"]), (&"web-3".into(), &"web-2".into()));
    assert!(acts["refused"][0]["why"].as_str().is_some_and(|why| why.contains("not held")), "{json:?}");
    assert_eq!((&acts["error"]["kind"], &acts["error"]["code"]), (&"refused".into(), &1.into()), "{json:?}");
}
