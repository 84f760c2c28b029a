//! The description of the API holds: every route is in it, nothing else is, and answers have the shape that it says.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Host, host_name};
use crate::running::{Caller, Running};
use crate::schema::{description, operations, wrong};

/// Where routes are made.
const SOURCES: [&str; 4] = [
    include_str!("../../src/api.rs"),
    include_str!("../../src/api/people.rs"),
    include_str!("../../src/api/rollouts.rs"),
    include_str!("../../src/api/verbs.rs"),
];

/// The routes, as the sources have them.
fn routes() -> BTreeSet<(String, String)> {
    let mut out = BTreeSet::new();
    for source in SOURCES {
        for piece in source.split(".route(\"").skip(1) {
            let (path, rest) = piece.split_once('"').expect("a path");
            let handlers = rest.split(".route(").next().unwrap_or_default();
            let handlers = handlers.lines().next().unwrap_or_default();
            for method in ["get", "post", "put", "delete", "patch"] {
                if handlers.contains(&format!("{method}(")) {
                    out.insert((method.to_uppercase(), path.to_owned()));
                }
            }
        }
    }
    out
}

/// A path with what there is in place of its parameters.
fn filled(path: &str) -> String {
    let document = if path.starts_with("/root") { "1.json" } else { "web-1.json" };
    path.replace("{channel}", "stable")
        .replace("{seq}", "1")
        .replace("{host}", "web-1")
        .replace("{document}", document)
}

fn is_problem((status, answer): (StatusCode, Value), wanted: StatusCode, what: &str) {
    assert_eq!(status, wanted, "{what}: {answer}");
    assert_eq!(answer["status"], wanted.as_u16(), "{what}: {answer}");
    assert!(answer["detail"].is_string(), "{what}: {answer}");
}

#[test]
fn every_route_is_described_and_nothing_else_is() {
    let description = description();
    let described: BTreeSet<(String, String)> =
        operations(&description).into_iter().map(|(method, path, _)| (method.to_string(), path)).collect();
    let routes = routes();
    assert!(routes.len() > 30, "{routes:?}");
    assert_eq!(described, routes);
}

#[tokio::test]
async fn what_is_not_described_is_refused_with_a_problem_and_who_may_is_as_described() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let (operator, viewer) = (running.person(&running.operator), running.person(&running.viewer));
    let description = description();
    let described = operations(&description);
    for (_, path, _) in &described {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            if !described.iter().any(|(known, at, _)| at == path && *known == method) {
                let answer = operator.send(method.clone(), &filled(path), Vec::new()).await;
                is_problem(answer, StatusCode::METHOD_NOT_ALLOWED, &format!("{method} {path}"));
            }
        }
    }
    for (method, path, operation) in &described {
        let (at, what) = (filled(path), format!("{method} {path}"));
        if operation["x-who"] != "anybody" {
            let answer = running.anybody().send(method.clone(), &at, Vec::new()).await;
            is_problem(answer, StatusCode::UNAUTHORIZED, &what);
        }
        if operation["x-who"] == "operator" {
            let answer = viewer.send(method.clone(), &at, Vec::new()).await;
            is_problem(answer, StatusCode::FORBIDDEN, &what);
        }
        if operation["requestBody"].is_object() && operation["x-who"] != "host" {
            bad_bodies(&operator, (method, &at), &what).await;
        }
    }
}

/// Bodies that nobody could mean, each refused for what it is.
async fn bad_bodies(caller: &Caller, (method, at): (&Method, &str), what: &str) {
    for body in ["", "{", "[]", "null", "{\"why\": 7}", "{\"verb\": {}}", "\u{0}\u{1}"] {
        let (status, answer) = caller.send(method.clone(), at, body.as_bytes().to_vec()).await;
        assert!(status.is_client_error(), "{what} with {body:?}: {status} {answer}");
        assert!(answer["detail"].is_string(), "{what} with {body:?}: {answer}");
    }
    let (status, answer) = caller.send(method.clone(), at, vec![0xff, 0xfe, 0x22]).await;
    assert!(status.is_client_error() && answer["detail"].is_string(), "{what}: {status} {answer}");
}

#[tokio::test]
async fn answers_have_the_shape_that_is_described() {
    let fleet = Fleet::of(&["web-1", "web-2"]);
    let running = Running::start(&fleet).await;
    let release = fleet.release(1);
    running.push(&release).await;
    let mut host = Host::started("web-1");
    host.verified(&release);
    host.staged(&release);
    let web_1 = running.host(&fleet.hosts[&host_name("web-1")]);
    web_1.report(&host.log).await;
    let orders = serde_json::to_value(web_1.orders(0).await).expect("JSON");
    let (description, operator) = (description(), running.person(&running.operator));
    let (_, held) = operator.post("/v1/hosts/web-2/hold", &json!({ "why": "a test" })).await;
    let schema = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    assert_eq!(wrong(&orders, &schema("Orders"), &description, "orders"), None);
    assert_eq!(wrong(&held, &schema("Noted"), &description, "hold"), None);
    let mut seen = 0;
    for (method, path, operation) in operations(&description) {
        let answer = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        if method != Method::GET || operation["x-who"] != "viewer" || answer["$ref"].is_null() {
            continue;
        }
        let (status, value) = operator.get(&filled(&path)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {value}");
        assert_eq!(wrong(&value, answer, &description, &path), None, "{value:#}");
        seen += 1;
    }
    assert!(seen >= 11, "{seen}");
    let verb = json!({ "verb": { "verb": "skip", "host": "web-2" } });
    let (_, plan) = operator.post("/v1/plan", &verb).await;
    assert_eq!(wrong(&plan, &schema("Plan"), &description, "plan"), None, "{plan:#}");
}

#[tokio::test]
async fn a_path_that_is_not_text_is_refused_with_a_problem() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let operator = running.person(&running.operator);
    for path in [
        "/v1/hosts/%ff",
        "/v1/hosts/%ff/why",
        "/v1/rollouts/%ff",
        "/channels/%ff/latest",
        "/v1/rollouts/%ff/hosts",
    ] {
        is_problem(operator.get(path).await, StatusCode::BAD_REQUEST, path);
    }
    for path in ["/v1/rollouts/stable/x/pause", "/v1/rollouts/stable/-1/pause"] {
        let answer = operator.post(path, &json!({ "why": "a test" })).await;
        is_problem(answer, StatusCode::BAD_REQUEST, path);
    }
}
