//! Every endpoint with the wrong method, identity, role, body and size: a problem document, never a 500.

use nixfleet_control_plane::wakes::POLLS_OF_A_HOST_MAX;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::fleet::{Fleet, Host, HostKeys, host_name};
use crate::running::{Caller, Running};

/// For how many seconds an answer asks to be left alone.
fn again_after(answer: &reqwest::Response) -> u64 {
    let value = answer.headers().get("retry-after").expect("when to come again");
    value.to_str().expect("a text").parse().expect("seconds")
}

#[tokio::test]
async fn a_host_that_asks_too_often_at_the_same_time_is_told_when_to_come_again() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let web_1 = running.host(&fleet.hosts[&host_name("web-1")]);
    web_1.report(&Host::started("web-1").log).await;
    let orders = web_1.orders(0).await;
    // Those that are let in are held for half a minute, so the one too many is answered first.
    let mut polls = JoinSet::new();
    let after = orders.orders.last().map_or(0, |order| order.number);
    for _ in 0..=POLLS_OF_A_HOST_MAX {
        polls.spawn(web_1.request(Method::GET, &format!("/v1/agent/orders?after={after}")).send());
    }
    let refused = polls.join_next().await.expect("one").expect("no panic").expect("an answer");
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!((5..20).contains(&again_after(&refused)));
    // Its reports are another matter.
    web_1.report(&Host::started("web-1").log).await;
}

/// Who may use an endpoint.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Anybody,
    Host,
    HostOrViewer,
    Viewer,
    Operator,
}

/// Whether a caller may use an endpoint of this kind.
type May = fn(Who) -> bool;

const ENDPOINTS: [(Method, &str, Who); 32] = [
    (Method::GET, "/root/1.json", Who::HostOrViewer),
    (Method::GET, "/channels/stable/latest", Who::HostOrViewer),
    (Method::GET, "/channels/stable/1/release.json", Who::HostOrViewer),
    (Method::GET, "/channels/stable/1/hosts/web-1.json", Who::HostOrViewer),
    (Method::GET, "/v1/agent/orders", Who::Host),
    (Method::POST, "/v1/agent/events", Who::Host),
    (Method::POST, "/v1/agent/hello", Who::Host),
    (Method::GET, "/v1/releases", Who::Viewer),
    (Method::POST, "/v1/releases", Who::Operator),
    (Method::GET, "/v1/fleet", Who::Viewer),
    (Method::GET, "/v1/hosts", Who::Viewer),
    (Method::GET, "/v1/hosts/web-1", Who::Viewer),
    (Method::POST, "/v1/hosts/web-1/hold", Who::Operator),
    (Method::POST, "/v1/hosts/web-1/unhold", Who::Operator),
    (Method::POST, "/v1/hosts/web-1/retry", Who::Operator),
    (Method::POST, "/v1/hosts/web-1/skip", Who::Operator),
    (Method::GET, "/v1/hosts/web-1/why", Who::Viewer),
    (Method::GET, "/v1/rollouts", Who::Viewer),
    (Method::GET, "/v1/rollouts/stable", Who::Viewer),
    (Method::GET, "/v1/rollouts/stable/hosts", Who::Viewer),
    (Method::POST, "/v1/rollouts/stable/1/pause", Who::Operator),
    (Method::POST, "/v1/rollouts/stable/1/resume", Who::Operator),
    (Method::POST, "/v1/rollouts/stable/1/abort", Who::Operator),
    (Method::POST, "/v1/rollouts/stable/1/approve", Who::Operator),
    (Method::GET, "/v1/plan", Who::Viewer),
    (Method::POST, "/v1/plan", Who::Viewer),
    (Method::GET, "/v1/openapi.json", Who::Anybody),
    (Method::GET, "/readyz", Who::Anybody),
    (Method::GET, "/v1/strangers", Who::Viewer),
    (Method::GET, "/v1/events", Who::Viewer),
    (Method::GET, "/metrics", Who::Viewer),
    (Method::GET, "/healthz", Who::Anybody),
];

fn is_problem(status: StatusCode, problem: &Value) {
    assert_eq!(problem["status"], status.as_u16(), "{problem}");
    assert!(
        problem["type"].as_str().is_some_and(|kind| kind.starts_with("urn:nixfleet:problem:")),
        "{problem}"
    );
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
}

#[tokio::test]
async fn each_endpoint_lets_in_those_who_may_and_nobody_else() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let stranger = HostKeys::new();
    let callers: [(&str, Caller, May); 6] = [
        ("nobody", running.anybody(), |who| who == Who::Anybody),
        ("a stranger", running.host(&stranger), |who| who == Who::Anybody),
        ("a wrong token", running.person("nixfleet_guess"), |who| who == Who::Anybody),
        ("a host", running.host(&fleet.hosts[&host_name("web-1")]), |who| {
            matches!(who, Who::Anybody | Who::Host | Who::HostOrViewer)
        }),
        ("a viewer", running.person(&running.viewer), |who| {
            matches!(who, Who::Anybody | Who::HostOrViewer | Who::Viewer)
        }),
        ("an operator", running.person(&running.operator), |who| {
            matches!(who, Who::Anybody | Who::HostOrViewer | Who::Viewer | Who::Operator)
        }),
    ];
    let mut asked = 0;
    for (name, caller, may) in callers {
        for (method, path, who) in &ENDPOINTS {
            // A poll of a host that has no orders would wait; who may is shown by the other tests.
            if *path == "/v1/agent/orders" && may(*who) {
                continue;
            }
            let (status, answer) = caller.send(method.clone(), path, Vec::new()).await;
            let is_shut = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            assert_eq!(is_shut, !may(*who), "{name} {method} {path}: {status} {answer}");
            // Readiness gives the database three seconds, and says so.
            let is_late = *path == "/readyz" && status == StatusCode::SERVICE_UNAVAILABLE;
            assert!(!status.is_server_error() || is_late, "{name} {method} {path}: {status} {answer}");
            if is_shut {
                is_problem(status, &answer);
            }
            asked += 1;
        }
    }
    assert_eq!(asked, 6 * ENDPOINTS.len() - 1);
}

#[tokio::test]
async fn a_wrong_method_or_path_is_said_to_be_wrong() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let operator = running.person(&running.operator);
    for (_, path, _) in &ENDPOINTS {
        for method in [Method::DELETE, Method::PUT, Method::PATCH] {
            let (status, problem) = operator.send(method, path, Vec::new()).await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            is_problem(status, &problem);
        }
    }
    for path in [
        "/",
        "/v2/fleet",
        "/v1/hosts/",
        "/channels/../../etc/passwd",
        "/root/1",
        "/channels/stable/x/release.json",
    ] {
        let (status, problem) = operator.get(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {problem}");
        is_problem(status, &problem);
    }
}

#[tokio::test]
async fn a_bad_body_query_or_name_is_told_what_is_wrong_with_it() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let web_1 = running.host(&fleet.hosts[&host_name("web-1")]);
    let viewer = running.person(&running.viewer);
    for path in ["/v1/agent/events", "/v1/agent/hello"] {
        let deep = vec![b'['; 100_000];
        for body in [&b""[..], b"{", b"[]", b"null", b"\xff\xfe", &deep, br#"{"records":[{"v":2}]}"#] {
            let (status, problem) = web_1.send(Method::POST, path, body.to_vec()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {problem}");
            is_problem(status, &problem);
        }
        let (status, problem) = web_1.send(Method::POST, path, vec![b' '; (1 << 20) + 1]).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        is_problem(status, &problem);
        let text = web_1.request(Method::POST, path).header("content-type", "text/plain").body("{}");
        assert_eq!(text.send().await.expect("an answer").status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    for path in [
        "/v1/hosts?limit=0",
        "/v1/hosts?limit=1001",
        "/v1/hosts?limit=x",
        "/v1/hosts?colour=red",
        "/v1/hosts?channel=..",
        "/v1/hosts?after=%00",
        "/v1/events?after=-1",
        "/v1/events?host=A%20B",
        "/v1/hosts/A",
    ] {
        let (status, problem) = viewer.get(path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {problem}");
        is_problem(status, &problem);
    }
    let (status, problem) = web_1.get("/v1/agent/orders?after=x").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
}

#[tokio::test]
async fn a_batch_of_too_many_records_is_refused_as_a_whole() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let host = crate::fleet::Host::started("web-1");
    let record = serde_json::to_value(&host.log[0]).expect("JSON");
    let web_1 = running.host(&fleet.hosts[&host.name]);
    let (status, problem) = web_1.post("/v1/agent/events", &json!({ "records": vec![record; 501] })).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{problem}");
}

#[tokio::test]
async fn a_token_that_was_removed_is_refused_from_then_on_and_none_is_kept_readable() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let viewer = running.person(&running.viewer);
    assert_eq!(viewer.get("/v1/fleet").await.0, StatusCode::OK);
    let database = std::fs::read(running.dir.path().join("control-plane.db")).expect("a file");
    let wal = std::fs::read(running.dir.path().join("control-plane.db-wal")).unwrap_or_default();
    for bytes in [database, wal] {
        let token = running.viewer.as_bytes();
        assert!(!bytes.windows(token.len()).any(|window| window == token));
    }
    assert!(running.store.remove_token("vic", crate::fleet::now()).await.expect("kept"));
    assert_eq!(viewer.get("/v1/fleet").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_was_sent_is_not_sent_back_whole() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let web_1 = running.host(&fleet.hosts[&host_name("web-1")]);
    let body = json!({ "records": ["ä".repeat(100_000)] });
    let (status, problem) = web_1.post("/v1/agent/events", &body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    is_problem(status, &problem);
    assert!(problem.to_string().len() < 2_000, "{} bytes", problem.to_string().len());
}
