//! Every operation of the description against requests by its schemas and against broken ones, over TLS, on the real
//! program: an answer as described or a problem document, never a 500, never none, and nothing that is not the caller's.
//!
//! Ten seconds of it in a normal run; `NIXFLEET_SOAK` makes it forty times as many.

use std::sync::Arc;

use nixfleet_control_plane::config::Database;
use nixfleet_core::wire::EventBatch;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use reqwest::{Method, StatusCode};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::cluster::Cluster;
use crate::fleet::{Fleet, Host, HostKeys, host_name};
use crate::odd::{anything, by_schema, in_address, spoilt};
use crate::program::{Program, configured, free_port};
use crate::running::{Running, SOON, said};
use crate::schema::{description, operations, wrong};
use crate::wire::{Answer, Then, ask};

/// Requests to each operation.
const EACH: u32 = 24;
/// The same with `NIXFLEET_SOAK`.
const EACH_SOAK: u32 = 1_000;
/// The largest problem document, in bytes: a sentence and a hint, whatever was sent.
const PROBLEM_BYTES_MAX: usize = 4 << 10;
/// What no answer and no line of the log may have in it.
const SECRETS: [&str; 7] = ["panicked", "sqlx", "SELECT ", "INSERT ", "UPDATE ", ".rs:", "PRIVATE KEY"];

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Stranger,
    Host,
    Viewer,
    Operator,
    WrongToken,
}

impl Who {
    const ALL: [Self; 6] =
        [Self::Nobody, Self::Stranger, Self::Host, Self::Viewer, Self::Operator, Self::WrongToken];

    /// Whether the description lets it in.
    fn may(self, who: &str) -> bool {
        match self {
            Self::Nobody | Self::Stranger | Self::WrongToken => who == "anybody",
            Self::Host => matches!(who, "anybody" | "host" | "hostOrViewer"),
            Self::Viewer => matches!(who, "anybody" | "viewer" | "hostOrViewer"),
            Self::Operator => matches!(who, "anybody" | "viewer" | "operator" | "hostOrViewer"),
        }
    }
}

/// How the body is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    /// More is announced than comes.
    Truncated,
    /// Chunks of a size that is no number.
    BadChunks,
    /// Two lengths that differ.
    TwoLengths,
}

/// A request.
#[derive(Debug, Clone)]
struct Request {
    who: Who,
    method: String,
    path: String,
    headers: Vec<String>,
    framing: Framing,
    body: Vec<u8>,
}

impl Request {
    /// Whether it is HTTP at all. What is not is ended below the API, with or without a word.
    fn is_http(&self) -> bool {
        let is_address = |byte: u8| byte.is_ascii_graphic();
        matches!(self.framing, Framing::Length | Framing::Chunked) && self.path.bytes().all(is_address)
    }

    fn bytes(&self, token: Option<&str>) -> (Vec<u8>, Then) {
        let count = self.body.len();
        let mut lines = vec![
            format!("{} {} HTTP/1.1", self.method, self.path),
            "Host: localhost".to_owned(),
            "Connection: close".to_owned(),
        ];
        lines.extend(token.map(|token| format!("Authorization: Bearer {token}")));
        lines.extend(self.headers.iter().cloned());
        lines.extend(match self.framing {
            Framing::Length => vec![format!("Content-Length: {count}")],
            Framing::Truncated => vec![format!("Content-Length: {}", count + 7)],
            Framing::TwoLengths => {
                [count, count + 1].map(|count| format!("Content-Length: {count}")).to_vec()
            }
            Framing::Chunked | Framing::BadChunks => vec!["Transfer-Encoding: chunked".to_owned()],
        });
        let body = match self.framing {
            Framing::Length | Framing::Truncated | Framing::TwoLengths => self.body.clone(),
            Framing::Chunked => chunked(&self.body),
            Framing::BadChunks => b"zz\r\nnothing\r\n".to_vec(),
        };
        let head = lines.join("\r\n") + "\r\n\r\n";
        let then = if self.framing == Framing::Truncated { Then::BreaksOff } else { Then::Waits };
        ([head.into_bytes(), body].concat(), then)
    }
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in body.chunks(1_000) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// What would be taken: the bodies from which spoilt ones are made.
struct Samples {
    events: Value,
    hello: Value,
    release: Vec<u8>,
}

impl Samples {
    fn of(path: &str, all: &Self) -> Option<Value> {
        let id = json!({ "channel": "stable", "seq": 1 });
        match path {
            "/v1/agent/events" => Some(all.events.clone()),
            "/v1/agent/hello" => Some(all.hello.clone()),
            "/v1/plan" => Some(json!({ "verb": { "verb": "approve", "rollout": id, "wave": 1 } })),
            _ => None,
        }
    }
}

/// Bodies for an operation.
fn bodies(path: &str, operation: &Value, all: &Value, samples: &Samples) -> BoxedStrategy<Vec<u8>> {
    let content = &operation["requestBody"]["content"];
    let noise = proptest::collection::vec(any::<u8>(), 0..200).boxed();
    if content["application/x-ndjson"].is_object() {
        let release = samples.release.clone();
        let bent = (any::<Index>(), any::<u8>()).prop_map(move |(at, byte)| {
            let mut bent = release.clone();
            bent[at.index(release.len())] = byte;
            bent
        });
        let lines =
            proptest::collection::vec(anything(), 0..4).prop_map(|lines| lines.join("\n").into_bytes());
        return prop_oneof![4 => bent, 2 => lines, 1 => noise].boxed();
    }
    let schema = &content["application/json"]["schema"];
    if schema.is_null() {
        return prop_oneof![8 => Just(Vec::new()), 1 => noise].boxed();
    }
    let by_schema = by_schema(schema, all, 0).prop_map(String::into_bytes);
    match Samples::of(path, samples) {
        Some(sample) => {
            let spoilt = spoilt(sample).prop_map(String::into_bytes);
            prop_oneof![5 => spoilt, 3 => by_schema, 1 => noise].boxed()
        }
        None => prop_oneof![8 => by_schema, 1 => anything().prop_map(String::into_bytes), 1 => noise].boxed(),
    }
}

/// The path of an operation, with values for its parameters, and a query.
fn addresses(path: &str, operation: &Value) -> BoxedStrategy<String> {
    let mut pieces: Vec<BoxedStrategy<String>> = Vec::new();
    for piece in path.split('/').skip(1) {
        pieces.push(match piece {
            "{channel}" => in_address(&["stable"]),
            "{seq}" => in_address(&["1", "2"]),
            "{host}" => in_address(&["web-1", "web-2"]),
            "{document}" => in_address(&["1.json", "web-1.json"]),
            fixed => Just(fixed.to_owned()).boxed(),
        });
    }
    let mut keys = vec!["colour".to_owned()];
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        if parameter["in"] == "query" {
            keys.extend(vec![parameter["name"].as_str().expect("a name").to_owned(); 4]);
        }
    }
    let pair = (select(keys), in_address(&["1", "0", "web-1", "stable"]));
    let query = proptest::collection::vec(pair.prop_map(|(key, value)| format!("{key}={value}")), 0..3);
    (pieces, query)
        .prop_map(|(pieces, query)| {
            let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
            format!("/{}{query}", pieces.join("/"))
        })
        .boxed()
}

fn headers(kind: &'static str) -> impl Strategy<Value = Vec<String>> {
    let odd = [
        "Accept: nothing/nowhere",
        "If-None-Match: \"x\"",
        "If-None-Match: *",
        "Last-Event-ID: 99999999999999999999",
        "Last-Event-ID: -1",
        "Content-Encoding: gzip",
        "Expect: 100-continue",
        "X-Forwarded-For: 127.0.0.1",
        "Range: bytes=0-1",
        "Upgrade: h2c",
        "Authorization: Basic eA==",
        "Cookie: a=b",
        "Origin: https://evil.example",
    ];
    let kinds = [kind, kind, kind, kind, kind, "text/plain", "application/json; charset=utf-16", "x", ""];
    let long = (1_usize..20_000).prop_map(|count| format!("X-Long: {}", "x".repeat(count)));
    let many = prop_oneof![6 => select(odd.to_vec()).prop_map(str::to_owned), 1 => long];
    (select(kinds.to_vec()), proptest::collection::vec(many, 0..3)).prop_map(|(kind, mut headers)| {
        headers.push(format!("Content-Type: {kind}"));
        headers
    })
}

fn requests(
    (method, path, operation): &(Method, String, Value),
    all: &Value,
    samples: &Samples,
) -> BoxedStrategy<Request> {
    let is_ndjson = operation["requestBody"]["content"]["application/x-ndjson"].is_object();
    let kind = if is_ndjson { "application/x-ndjson" } else { "application/json" };
    let own = method.to_string();
    let odd = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FETCH", "get"];
    let methods = prop_oneof![9 => Just(own), 1 => select(odd.to_vec()).prop_map(str::to_owned)];
    let fitting: Vec<Who> =
        Who::ALL.into_iter().filter(|who| who.may(operation["x-who"].as_str().unwrap_or_default())).collect();
    let callers = prop_oneof![3 => select(fitting), 1 => select(&Who::ALL[..])];
    let framing = prop_oneof![
        8 => Just(Framing::Length), 4 => Just(Framing::Chunked), 1 => Just(Framing::Truncated),
        1 => Just(Framing::BadChunks), 1 => Just(Framing::TwoLengths),
    ];
    (
        callers,
        methods,
        addresses(path, operation),
        headers(kind),
        framing,
        bodies(path, operation, all, samples),
    )
        .prop_map(|(who, method, path, headers, framing, body)| Request {
            who,
            method,
            path,
            headers,
            framing,
            body,
        })
        .boxed()
}

/// The program, and those who ask it.
struct Stage {
    running: Running,
    program: Program,
    port: u16,
    strangers: Arc<ClientConfig>,
    hosts: Arc<ClientConfig>,
    nobodies: Arc<ClientConfig>,
    samples: Samples,
    /// With the database that it uses, if that is one to be ended.
    _cluster: Option<Cluster>,
}

impl Stage {
    async fn set(database: Database, cluster: Option<Cluster>) -> Self {
        let fleet = Fleet::of(&["web-1", "web-2"]);
        let port = free_port().await;
        let address = format!("127.0.0.1:{port}").parse().expect("an address");
        let running = Running::apart(&fleet, database, address).await;
        let program = Program::start(configured(&running, "hostile", port));
        let release = fleet.release(1);
        running.push_until_there(&release).await;
        let mut host = Host::started("web-1");
        host.verified(&release);
        let batch = EventBatch { records: host.log.clone() };
        let samples = Samples {
            events: serde_json::to_value(batch).expect("JSON"),
            hello: serde_json::to_value(said(&host, 1, true)).expect("JSON"),
            release: release.pushed(),
        };
        Self {
            strangers: Arc::new(running.tls(Some(&HostKeys::new()))),
            hosts: Arc::new(running.tls(Some(&fleet.hosts[&host_name("web-1")]))),
            nobodies: Arc::new(running.tls(None)),
            running,
            program,
            port,
            samples,
            _cluster: cluster,
        }
    }

    async fn answer(&self, request: &Request) -> Option<Answer> {
        let (tls, token) = match request.who {
            Who::Nobody => (&self.nobodies, None),
            Who::Stranger => (&self.strangers, None),
            Who::Host => (&self.hosts, None),
            Who::Viewer => (&self.nobodies, Some(self.running.viewer.as_str())),
            Who::Operator => (&self.nobodies, Some(self.running.operator.as_str())),
            Who::WrongToken => (&self.nobodies, Some("guessed")),
        };
        let (bytes, then) = request.bytes(token);
        ask(tls, self.port, &bytes, then).await
    }

    /// What is in `text` and must not be.
    fn leaks(&self, text: &str) -> Option<String> {
        let Running { operator, viewer, dir, .. } = &self.running;
        let ours = [operator.clone(), viewer.clone(), dir.path().display().to_string()];
        SECRETS.map(str::to_owned).into_iter().chain(ours).find(|secret| text.contains(secret.as_str()))
    }
}

/// What is wrong with the answer to a request of this operation, if anything is.
fn fault(
    stage: &Stage,
    (method, _, operation): &(Method, String, Value),
    all: &Value,
    request: &Request,
    answer: Option<&Answer>,
) -> Option<String> {
    let Some(answer) = answer else {
        return request.is_http().then(|| "there was no answer".to_owned());
    };
    if let Some(secret) = stage.leaks(&answer.text) {
        return Some(format!("`{secret}` is in the answer"));
    }
    let status = StatusCode::from_u16(answer.status).expect("a status");
    let is_late = may_be_late(request) && status == StatusCode::SERVICE_UNAVAILABLE;
    if status.is_server_error() && !is_late {
        return Some(format!("it answers {status}"));
    }
    if status.is_client_error() || is_late {
        return problem_fault(answer, request, all);
    }
    let who = operation["x-who"].as_str().unwrap_or_default();
    if *method == request.method.as_str() && !request.who.may(who) {
        return Some(format!("{:?} was let in", request.who));
    }
    if status == StatusCode::NOT_MODIFIED || *method != request.method.as_str() {
        return None;
    }
    let content = &operation["responses"][status.as_str()]["content"];
    let kind = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
    let schema = &content[kind]["schema"];
    if schema.is_null() {
        return Some(format!("{status} with `{kind}` is not described"));
    }
    // The other bodies are texts, and documents that are passed on as they were signed.
    schema["$ref"].as_str()?;
    match serde_json::from_slice(&answer.body) {
        Ok(value) => wrong(&value, schema, all, "answer"),
        Err(error) => Some(format!("the answer is no JSON: {error}")),
    }
}

fn problem_fault(answer: &Answer, request: &Request, all: &Value) -> Option<String> {
    if !request.is_http() && answer.body.is_empty() || request.method == "HEAD" {
        return None;
    }
    if answer.header("content-type") != Some("application/problem+json") {
        return Some(format!("{} is no problem document", answer.status));
    }
    if answer.body.len() > PROBLEM_BYTES_MAX {
        return Some(format!("the problem has {} bytes", answer.body.len()));
    }
    if answer.status == 405 && answer.header("allow").is_none() {
        return Some("it does not say which methods it takes".to_owned());
    }
    let problem: Value = match serde_json::from_slice(&answer.body) {
        Ok(problem) => problem,
        Err(error) => return Some(format!("the problem is no JSON: {error}")),
    };
    if problem["status"] != answer.status {
        return Some(format!("the problem says {}", problem["status"]));
    }
    wrong(&problem, &json!({ "$ref": "#/components/schemas/Problem" }), all, "problem")
}

/// A poll may wait for most of a minute, which is what it is for.
fn may_wait(request: &Request) -> bool {
    request.who == Who::Host && request.path.starts_with("/v1/agent/orders")
}

/// Readiness gives the database three seconds, and says so.
fn may_be_late(request: &Request) -> bool {
    request.path.split('?').next() == Some("/readyz")
}

async fn check(
    stage: &Stage,
    operation: &(Method, String, Value),
    all: &Value,
    request: &Request,
) -> Result<(), TestCaseError> {
    let answer = if may_wait(request) {
        let soon = tokio::time::timeout(std::time::Duration::from_millis(300), stage.answer(request)).await;
        let Ok(answer) = soon else { return Ok(()) };
        answer
    } else {
        stage.answer(request).await
    };
    match fault(stage, operation, all, request, answer.as_ref()) {
        None => Ok(()),
        Some(fault) => {
            let answer = answer.map(|answer| answer.text.chars().take(2_000).collect::<String>());
            Err(TestCaseError::fail(format!("{fault}\n{}", answer.unwrap_or_default())))
        }
    }
}

/// All operations, each with its share of requests; then the server is as well as before, and has said nothing that it
/// should not.
fn bear_everything(runtime: &Runtime, stage: &Stage) {
    let all = description();
    let each = if std::env::var_os("NIXFLEET_SOAK").is_some() { EACH_SOAK } else { EACH };
    let mut faults = Vec::new();
    for operation in operations(&all) {
        let requests = requests(&operation, &all, &stage.samples);
        let mut runner =
            TestRunner::new(Config { cases: each, failure_persistence: None, ..Config::default() });
        let ran = runner.run(&requests, |request| runtime.block_on(check(stage, &operation, &all, &request)));
        faults.extend(ran.err().map(|error| format!("{} {}: {error}", operation.0, operation.1)));
    }
    let said = stage.program.said.text();
    assert!(faults.is_empty(), "{}\n{said}", faults.join("\n\n"));
    runtime.block_on(async {
        stage.running.until_ready(StatusCode::OK, "").await;
        let viewer = stage.running.person(&stage.running.viewer);
        let mut after = "0".to_owned();
        loop {
            let (status, page) = viewer.get(&format!("/v1/events?limit=1000&after={after}")).await;
            assert_eq!(status, StatusCode::OK, "what was taken can be read: {page}");
            let Some(next) = page["next"].as_str() else { break };
            next.clone_into(&mut after);
        }
    });
    let said = stage.program.said.text();
    assert_eq!(
        stage.leaks(&said.replace(&stage.running.dir.path().display().to_string(), "")),
        None,
        "{said}"
    );
    // A database that stands still for seconds is nobody's mistake, and was answered with a 503.
    let ours = said.lines().find(|line| line.contains("error:") && !line.contains("pool timed out"));
    assert_eq!(ours, None, "nothing of this is our mistake: {said}");
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

#[test]
fn soak_on_sqlite_every_operation_answers_any_request_as_described_or_with_a_problem() {
    let (runtime, dir) = (runtime(), tempfile::tempdir().expect("a folder"));
    let database = Database::Sqlite(dir.path().join("control-plane.db"));
    let stage = runtime.block_on(async { tokio::time::timeout(SOON, Stage::set(database, None)).await });
    bear_everything(&runtime, &stage.expect("it comes up"));
}

#[test]
fn soak_on_postgresql_every_operation_answers_any_request_as_described_or_with_a_problem() {
    let runtime = runtime();
    let stage = runtime.block_on(async {
        let cluster = Cluster::start().await?;
        let database = cluster.database("hostile").await;
        Some(Stage::set(database, Some(cluster)).await)
    });
    if let Some(stage) = stage {
        bear_everything(&runtime, &stage);
    }
}
