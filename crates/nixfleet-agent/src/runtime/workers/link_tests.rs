//! The link against a control plane with a script: an HTTP server that answers as it is told, and a desk in memory.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use nixfleet_core::host::saved::SavedState;
use nixfleet_core::host::{HostState, Record, UpMs};
use nixfleet_core::model::names::{ReleaseId, Sha256};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::wire::{Hello, Order};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::activation::types::Silent;
use crate::source::place::Place;
use crate::source::web::Proxies;

/// A generous limit for anything that should happen at once.
const SOON: Duration = Duration::from_mins(1);

/// What the host's clock says.
const CLOCK_MS: u64 = 1_793_923_200_000;

/// What the control plane answers to a path and a body. With `retry-after` or `date` in the answer, it has these headers.
type Script = Box<dyn FnMut(&str, Value) -> (u16, Value) + Send>;

/// Serves one request after the other on each connection, and counts connections.
async fn control_plane(script: Script, connections: Arc<AtomicU32>) -> WebAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}/", listener.local_addr().expect("bound"));
    let script = Arc::new(Mutex::new(script));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(answer_all(stream, Arc::clone(&script)));
        }
    });
    match address.parse().expect("an address") {
        Place::Web(address) => address,
        other @ (Place::Folder(_) | Place::ControlPlane(_)) => panic!("{other}"),
    }
}

async fn answer_all(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut piece = [0; 4_096];
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length: usize = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
            .unwrap_or(0);
        while bytes.len() < head + length {
            let mut piece = [0; 4_096];
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
            }
        }
        let path = text.split(' ').nth(1).expect("a path").to_owned();
        // With each request, whatever it asks for.
        assert!(text.contains(&format!("\r\n{CLOCK_HEADER}: {CLOCK_MS}\r\n")), "{text}");
        let body = serde_json::from_slice(&bytes[head..head + length]).unwrap_or(Value::Null);
        bytes.drain(..head + length);
        let (status, answer) = script.lock().expect("no panic in a script")(&path, body);
        if status == 0 {
            // A poll that is held.
            tokio::time::sleep(SOON).await;
            return;
        }
        let header = |name: &str| {
            answer[name].as_str().map(|value| format!("{name}: {value}\r\n")).unwrap_or_default()
        };
        let headers = [header("retry-after"), header("date")].concat();
        let answer = answer.to_string();
        let answer =
            format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{answer}", answer.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn record(seq: u64) -> Record {
    let fact = Event::Unheld { by: format!("nobody-{seq}") };
    Record { v: 1, seq, at_ms: UnixMs::EPOCH, up_ms: UpMs(seq), fact }
}

/// The reducer's desk: records 1 to `newest`, and what was acknowledged of them.
struct Desk {
    inputs: mpsc::Receiver<Input>,
    records: Vec<Record>,
    acknowledged: u64,
    events: Vec<Event>,
    /// How often the source was to be looked at.
    looks: Arc<AtomicU32>,
    hellos: u32,
    /// Connections to the control plane so far.
    connections: Arc<AtomicU32>,
    /// The newest number; the link ends with it.
    newest: watch::Sender<u64>,
    /// Whether an order is saved as a record, as the reducer does it.
    saves: bool,
}

impl Desk {
    /// Serves the link until `enough` is true.
    async fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        let serving = async {
            while !enough(self) {
                match self.inputs.recv().await.expect("the link lives") {
                    Input::Errand(Errand::Unsent { reply }) => {
                        let unsent = self.records.iter().filter(|record| record.seq > self.acknowledged);
                        let _ = reply.send(unsent.cloned().collect());
                    }
                    Input::Errand(Errand::Received { next }) => self.acknowledged = next - 1,
                    Input::Errand(Errand::Hello { state, reply }) => {
                        self.hellos += 1;
                        let seq = self.records.last().map_or(0, |record| record.seq);
                        let host = HostState { seq, ..HostState::fresh() };
                        let state = match state {
                            WithState::Yes => Some(Box::new(SavedState(host))),
                            WithState::No => None,
                        };
                        let digest = Sha256::new([7; 32]);
                        let hello = Hello { agent: "test".to_owned(), seq, digest, oldest: 1, state };
                        let _ = reply.send(Box::new(hello));
                    }
                    Input::Told(event) => {
                        self.events.push(event);
                        if self.saves {
                            let seq = self.records.len() as u64 + 1;
                            self.records.push(record(seq));
                            self.newest.send_replace(seq);
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        timeout(SOON, serving).await.expect("it comes to that");
    }
}

/// A link to `script`, with `count` records to report.
async fn linked(count: u64, script: impl FnMut(&str, Value) -> (u16, Value) + Send + 'static) -> Desk {
    linked_within(REPORTED_WITHIN, count, script).await
}

/// One whose polls wait for so long for what was to be reported before them.
async fn linked_within(
    reported_within: Duration,
    count: u64,
    script: impl FnMut(&str, Value) -> (u16, Value) + Send + 'static,
) -> Desk {
    let connections = Arc::new(AtomicU32::new(0));
    let address = control_plane(Box::new(script), Arc::clone(&connections)).await;
    let (inputs, taken) = mpsc::channel(8);
    let (newest, changed) = watch::channel(count);
    let speaking = Speaking { proxies: Proxies::None, ..Speaking::default() };
    let voice: Arc<dyn Observer> = Arc::new(Silent);
    let looks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&looks);
    let look = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let (random, clock) = (Arc::new(|| 0), || CLOCK_MS);
    Link { address, speaking, inputs, newest: changed, reported_within, clock, random, look, voice }.start();
    let records = (1..=count).map(record).collect();
    let (events, acknowledged, hellos, saves) = (Vec::new(), 0, 0, false);
    Desk { inputs: taken, records, acknowledged, events, looks, hellos, connections, newest, saves }
}

fn taken(next: u64, then: &str) -> (u16, Value) {
    (200, json!({ "next": next, "then": then }))
}

fn last_of(batch: &Value) -> u64 {
    batch["records"].as_array().and_then(|records| records.last()?["seq"].as_u64()).expect("a batch")
}

#[tokio::test]
async fn what_is_saved_is_reported_and_let_go_only_when_it_is_there() {
    let mut desk = linked(5, |path, body| match path {
        "/v1/agent/hello" => taken(1, "go-on"),
        // Two of them are taken, then the rest.
        "/v1/agent/events" if body["records"].as_array().map(Vec::len) == Some(5) => taken(3, "go-on"),
        "/v1/agent/events" => taken(last_of(&body) + 1, "go-on"),
        _ => (0, Value::Null),
    })
    .await;
    desk.until(|desk| desk.acknowledged == 2).await;
    desk.until(|desk| desk.acknowledged == 5).await;
}

#[tokio::test]
async fn a_control_plane_that_knows_less_is_sent_all_again_and_one_that_cannot_fold_gets_the_state() {
    let mut hellos = 0;
    let mut desk = linked(4, move |path, body| match path {
        "/v1/agent/hello" if body["state"].is_null() => {
            hellos += 1;
            taken(1, if hellos > 1 { "send-state" } else { "go-on" })
        }
        "/v1/agent/hello" => taken(body["seq"].as_u64().expect("a number") + 1, "go-on"),
        "/v1/agent/events" => taken(1, "send-state"),
        _ => (0, Value::Null),
    })
    .await;
    desk.acknowledged = 4;
    desk.until(|desk| desk.acknowledged == 0).await;
    desk.until(|desk| desk.acknowledged == 4).await;
}

#[tokio::test]
async fn a_report_that_is_refused_is_passed_over_and_blocks_none_behind_it() {
    let mut passed = false;
    let mut desk = linked(3, move |path, body| match path {
        "/v1/agent/hello" if body["state"].is_null() => taken(1, "go-on"),
        "/v1/agent/hello" => {
            passed = true;
            taken(2, "go-on")
        }
        "/v1/agent/events" if !passed => (400, json!({ "detail": "what is this?" })),
        "/v1/agent/events" => taken(last_of(&body) + 1, "go-on"),
        _ => (0, Value::Null),
    })
    .await;
    desk.until(|desk| desk.acknowledged == 1).await;
    desk.until(|desk| desk.acknowledged == 3).await;
}

#[tokio::test]
async fn a_control_plane_that_is_in_trouble_is_asked_again_and_nothing_is_let_go() {
    let mut failures = 0;
    let mut desk = linked(2, move |path, body| match path {
        "/v1/agent/hello" if failures < 3 => {
            failures += 1;
            match failures {
                1 => (503, Value::Null),
                2 => (403, json!({ "detail": "no release names this key" })),
                _ => (200, json!("<html>")),
            }
        }
        "/v1/agent/hello" => taken(1, "go-on"),
        "/v1/agent/events" => taken(last_of(&body) + 1, "go-on"),
        _ => (0, Value::Null),
    })
    .await;
    desk.until(|desk| desk.acknowledged == 2).await;
}

#[tokio::test]
async fn orders_become_events_in_their_order_and_are_asked_for_from_the_last_on() {
    let release = || ReleaseId {
        channel: "stable".parse().expect("a name"),
        seq: 7u64.try_into().expect("a number"),
        digest: Sha256::new([1; 32]),
    };
    let orders = [
        Order {
            number: 3,
            what: Wish::Hold { by: "ann".into(), why: "a\u{1b}[31m\nb".into(), until_ms: None },
        },
        Order { number: 9, what: Wish::Go { release: release() } },
    ];
    let mut desk = linked(0, move |path, _| match path {
        "/v1/agent/hello" => taken(1, "go-on"),
        "/v1/agent/orders?after=0" => (200, json!({ "orders": orders, "then": "go-on" })),
        "/v1/agent/orders?after=9" => {
            let order = Order { number: 10, what: Wish::Retry { by: "bob".to_owned() } };
            (200, json!({ "orders": [order], "then": "go-on" }))
        }
        _ => (0, Value::Null),
    })
    .await;
    desk.until(|desk| desk.events.len() == 3).await;
    let Event::Held { why, .. } = &desk.events[0] else { panic!("{:?}", desk.events) };
    assert!(!why.contains(['\u{1b}', '\n']), "a foreign text is shown as it may be: {why:?}");
    assert_eq!(desk.events[1], Event::OrderedToGo { release: release() });
    assert_eq!(desk.events[2].name(), "retry-asked");
}

#[tokio::test]
async fn numbers_of_another_log_begin_anew_and_the_state_is_told_again() {
    let order = |number: u64| json!([{ "number": number, "what": { "order": "retry", "by": "ann" } }]);
    let mut desk = linked(0, move |path, _| match path {
        "/v1/agent/hello" => taken(1, "go-on"),
        "/v1/agent/orders?after=0" => (200, json!({ "orders": order(90), "then": "go-on", "log": "a1" })),
        // The database is a new one, and its numbers are low.
        "/v1/agent/orders?after=90&log=a1" => {
            (200, json!({ "orders": order(4), "then": "go-on", "log": "b2" }))
        }
        "/v1/agent/orders?after=4&log=b2" => {
            (200, json!({ "orders": order(5), "then": "go-on", "log": "b2" }))
        }
        _ => (0, Value::Null),
    })
    .await;
    desk.until(|desk| desk.events.len() == 3).await;
    desk.until(|desk| desk.hellos >= 2).await;
}

#[tokio::test]
async fn who_is_told_to_stage_looks_at_the_source_and_who_is_not_known_tells_its_state() {
    let release = json!({ "channel": "stable", "seq": 7, "digest": format!("sha256:{}", "ab".repeat(32)) });
    let mut desk = linked(0, move |path, _| match path {
        "/v1/agent/hello" => taken(1, "go-on"),
        "/v1/agent/orders?after=0" => {
            let orders = json!([{ "number": 9, "what": { "order": "stage", "release": release } }]);
            (200, json!({ "orders": orders, "then": "go-on" }))
        }
        "/v1/agent/orders?after=9" => (200, json!({ "orders": [], "then": "send-state" })),
        _ => (0, Value::Null),
    })
    .await;
    desk.until(|desk| desk.hellos >= 3).await;
    assert_eq!(desk.looks.load(Ordering::SeqCst), 1);
    assert_eq!(desk.events, [], "that it was to look is no event");
}

#[tokio::test]
async fn what_an_order_leads_to_is_reported_over_the_connection_on_which_it_came() {
    let order = |number: u64| json!([{ "number": number, "what": { "order": "retry", "by": "ann" } }]);
    // All that is waited for here is reported, however slow this machine is today.
    let mut desk = linked_within(SOON, 0, move |path, body| match path {
        "/v1/agent/hello" => taken(1, "go-on"),
        "/v1/agent/events" => taken(last_of(&body) + 1, "go-on"),
        "/v1/agent/orders?after=0" => (200, json!({ "orders": order(4), "then": "go-on" })),
        "/v1/agent/orders?after=4" => (200, json!({ "orders": order(9), "then": "go-on" })),
        _ => (0, Value::Null),
    })
    .await;
    desk.saves = true;
    desk.until(|desk| desk.acknowledged == 2).await;
    assert_eq!(desk.events.len(), 2);
    assert_eq!(desk.connections.load(Ordering::SeqCst), 1, "hello, two polls and two reports");
}

#[tokio::test]
async fn a_report_does_not_wait_for_a_poll_that_is_held() {
    let mut desk = linked(0, |path, body| match path {
        "/v1/agent/hello" => taken(1, "go-on"),
        "/v1/agent/events" => taken(last_of(&body) + 1, "go-on"),
        _ => (0, Value::Null),
    })
    .await;
    let connections = Arc::clone(&desk.connections);
    desk.until(|desk| desk.hellos == 1).await;
    for seq in 1..=3 {
        desk.records.push(record(seq));
        desk.newest.send_replace(seq);
        desk.until(|desk| desk.acknowledged == seq).await;
    }
    assert!(connections.load(Ordering::SeqCst) <= 2, "one for the poll, and one that is kept for reports");
}

#[tokio::test]
async fn a_control_plane_that_wants_to_be_left_alone_is_left_alone_for_so_long() {
    let (said, mut refused) = (Duration::from_secs(2), 0);
    let times = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&times);
    let mut desk = linked(1, move |path, body| match path {
        "/v1/agent/hello" => {
            asked.lock().expect("no panic").push(Instant::now());
            refused += 1;
            match refused {
                1 => (503, json!({ "retry-after": "2" })),
                // Of two dates, the difference counts, whatever the clock here says.
                2 => {
                    let (at, until) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:39 GMT");
                    (429, json!({ "retry-after": until, "date": at }))
                }
                _ => taken(1, "go-on"),
            }
        }
        "/v1/agent/events" => taken(last_of(&body) + 1, "go-on"),
        _ => (0, Value::Null),
    })
    .await;
    desk.until(|desk| desk.acknowledged == 1).await;
    let times = times.lock().expect("no panic").clone();
    assert_eq!(times.len(), 3);
    // What it draws by itself comes on top, and is at least a second.
    let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| *pause >= said + Duration::from_secs(1)), "{pauses:?}");
}
