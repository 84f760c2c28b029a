//! What people see and do.

use std::time::Duration;

use nixfleet_core::host::Event;
use nixfleet_core::wire::{Order, Wish};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::fleet::{Fleet, Host, kept_orders, now};
use crate::running::{Caller, Running, SOON};

/// The first order of this kind that the host gets, among others that the planner gives it.
async fn wished(host: &Caller, is_it: impl Fn(&Wish) -> bool) -> Order {
    let found = async {
        loop {
            let orders = host.orders(0).await.orders;
            if let Some(order) = orders.into_iter().find(|order| is_it(&order.what)) {
                return order;
            }
        }
    };
    tokio::time::timeout(SOON, found).await.expect("it comes")
}

#[tokio::test]
async fn a_hold_reaches_the_host_and_is_shown_with_who_and_why() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let release = fleet.release(1);
    running.push(&release).await;
    let mut host = Host::started("web-1");
    host.verified(&release);
    host.staged(&release);
    let web_1 = running.host(&fleet.hosts[&host.name]);
    let (_, unheard) = running.person(&running.viewer).get("/v1/hosts/web-1").await;
    assert!(unheard["doing"].is_null(), "it never reported: {unheard}");
    web_1.report(&host.log).await;
    let operator = running.person(&running.operator);
    let (status, noted) = operator.post("/v1/hosts/web-1/hold", &json!({ "why": "exams" })).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{noted}");
    let hold = wished(&web_1, |wish| matches!(wish, Wish::Hold { .. })).await;
    host.take(&hold.what.event(), None);
    web_1.report(&host.log).await;
    let (_, view) = running.person(&running.viewer).get("/v1/hosts/web-1").await;
    let waiting = &view["doing"]["waiting"];
    assert_eq!((waiting["on"].as_str(), waiting["by"].as_str()), (Some("hold"), Some("ann")), "{view}");
    let (status, _) = operator.post("/v1/hosts/web-1/unhold", &json!({ "why": "they are over" })).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let unhold = wished(&web_1, |wish| matches!(wish, Wish::Unhold { .. })).await;
    assert!(unhold.number > hold.number);
    let (_, events) = running.person(&running.viewer).get("/v1/events?limit=1000").await;
    let acts: Vec<_> = events["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|event| event["fact"] == "acted" && event["by"] == "ann")
        .map(|event| event["why"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(acts, ["exams", "they are over"], "every act is in the log");
}

#[tokio::test]
async fn verbs_that_make_no_sense_are_refused_and_change_nothing() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let operator = running.person(&running.operator);
    let past = now().get() - 1_000;
    for (path, body, wanted) in [
        ("/v1/hosts/web-1/retry", json!({ "why": "again" }), StatusCode::CONFLICT),
        ("/v1/hosts/web-9/hold", json!({ "why": "exams" }), StatusCode::NOT_FOUND),
        ("/v1/hosts/web-1/hold", json!({}), StatusCode::BAD_REQUEST),
        ("/v1/hosts/web-1/hold", json!({ "why": " " }), StatusCode::BAD_REQUEST),
        ("/v1/hosts/web-1/hold", json!({ "why": "a\nb" }), StatusCode::BAD_REQUEST),
        ("/v1/hosts/web-1/hold", json!({ "why": "x".repeat(501) }), StatusCode::BAD_REQUEST),
        ("/v1/hosts/web-1/hold", json!({ "why": "x", "until_ms": past }), StatusCode::BAD_REQUEST),
        ("/v1/hosts/web-1/hold", json!({ "why": "x", "for": "ever" }), StatusCode::BAD_REQUEST),
        ("/v1/hosts/web-1/hold", json!({ "why": "x".repeat(20_000) }), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let (status, problem) = operator.post(path, &body).await;
        assert_eq!(status, wanted, "{path} {problem}");
    }
    assert_eq!(kept_orders(&running.store, &"web-1".parse().expect("a name"), 0).await, []);
}

/// The newest event, once the planner has taken the release up.
async fn settled(running: &Running) -> u64 {
    let viewer = running.person(&running.viewer);
    let opened = async {
        loop {
            let (_, events) = viewer.get("/v1/events?limit=1000").await;
            let last = events["items"].as_array().and_then(|items| items.last().cloned()).unwrap_or_default();
            if last["decision"]["becomes"]["becomes"] == "wave-opened" {
                return last["id"].as_u64().expect("a number");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, opened).await.expect("it is planned")
}

/// More than may watch at the same time.
const WATCHERS: usize = 250;

#[tokio::test]
async fn whoever_stops_watching_gives_the_place_away_at_once() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let viewer = running.person(&running.viewer);
    for count in 0..WATCHERS {
        // Gone before the next one comes.
        let answer = viewer.request(Method::GET, "/v1/events/live").send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "after {count} who watch no longer");
    }
}

#[tokio::test]
async fn the_live_stream_brings_what_happens_and_goes_on_where_it_was() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let viewer = running.person(&running.viewer);
    let before = settled(&running).await;
    let mut stream = viewer.request(Method::GET, "/v1/events/live").send().await.expect("an answer");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut host = Host::started("web-1");
    let web_1 = running.host(&fleet.hosts[&host.name]);
    web_1.report(&host.log).await;
    let mut text = String::new();
    let read = async {
        while !text.contains("agent-started") {
            let chunk = stream.chunk().await.expect("it goes on").expect("it has not ended");
            text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    };
    tokio::time::timeout(SOON, read).await.expect("it comes");
    assert!(text.starts_with(&format!("id: {}\nevent: reported\ndata: {{", before + 1)), "{text}");
    drop(stream);
    host.take(&Event::Held { by: "ann".into(), why: "x".into(), until_ms: None }, None);
    web_1.report(&host.log).await;
    let back =
        viewer.request(Method::GET, "/v1/events/live").header("last-event-id", (before + 1).to_string());
    let mut stream = back.send().await.expect("an answer");
    let chunk = tokio::time::timeout(SOON, stream.chunk()).await.expect("it comes").expect("it goes on");
    let text = String::from_utf8(chunk.expect("it has not ended").to_vec()).expect("text");
    assert!(text.starts_with(&format!("id: {}\n", before + 2)) && text.contains("\"held\""), "{text}");
    // The end of the server is not held up by those who watch.
    let mut running = running;
    tokio::time::timeout(Duration::from_mins(1), running.stop()).await.expect("it ends");
}

#[tokio::test]
async fn the_live_stream_of_a_token_that_was_removed_ends_and_brings_nothing_more() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    settled(&running).await;
    let viewer = running.person(&running.viewer);
    let mut stream = viewer.request(Method::GET, "/v1/events/live").send().await.expect("an answer");
    assert!(running.store.remove_token("vic", now()).await.expect("kept"));
    let mut host = Host::started("web-1");
    host.take(&Event::Held { by: "ann".into(), why: "x".into(), until_ms: None }, None);
    running.host(&fleet.hosts[&host.name]).report(&host.log).await;
    let ended = async {
        let mut text = String::new();
        while let Some(chunk) = stream.chunk().await.expect("it ends in order") {
            text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
        text
    };
    let text = tokio::time::timeout(SOON, ended).await.expect("it ends");
    assert!(!text.contains("held"), "{text}");
}

#[tokio::test]
async fn a_root_that_ends_within_a_month_is_trouble_and_the_server_is_ready_all_the_same() {
    let mut fleet = Fleet::of(&["web-1"]);
    fleet.root_days = 29;
    let running = Running::start(&fleet).await;
    let (_, seen) = running.person(&running.viewer).get("/v1/fleet").await;
    assert_eq!(seen["troubles"][0]["kind"], "root-ending", "{seen}");
    running.until_ready(StatusCode::OK, "").await;
}
