//! The worker as the reducer sees it: what it says, and what it does not say twice.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nixfleet_agent::source::web::tls::ServerTrust;
use nixfleet_agent::source::web::{Limits, Proxies};
use nixfleet_agent::source::{Ask, Following, Said, follow};
use nixfleet_core::host::event::Refusal;
use nixfleet_core::host::probing::WatchId;
use nixfleet_trust::trust::Trust;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::fleet::*;
use crate::server::{Manners, Server};
use crate::shelf::{Clock, Shelf, looker};

const SOON: Duration = Duration::from_mins(1);

/// A worker, and the ends that its reducer would hold.
pub(crate) struct Reducer {
    pub(crate) asks: Sender<Ask>,
    said: Receiver<Said>,
    task: JoinHandle<()>,
    pub(crate) clock: Clock,
}

impl Reducer {
    pub(crate) fn of(place: &str, fleet: &Fleet, trust: Trust, poll: Duration) -> Self {
        let clock = Clock::new(NOW);
        let told = clock.clone();
        let following = Following {
            place: place.parse().expect(place),
            server: ServerTrust::Host,
            identity: None,
            proxies: Proxies::None,
            limits: Limits {
                connect: Duration::from_secs(20),
                silent: Duration::from_secs(20),
                whole: Duration::from_secs(40),
            },
            looker: looker(fleet, 0),
            poll,
            clock: Arc::new(move || told.now()),
            random: Arc::new(|| 0),
            look_at: Arc::new(|time| time),
        };
        let (asks, asked) = channel(4);
        let (say, said) = channel(4);
        let task = tokio::spawn(follow(following, trust, asked, say));
        Self { asks, said, task, clock }
    }

    /// What is said next; each look ends with `answered` or `failed`.
    pub(crate) async fn next(&mut self) -> Said {
        timeout(SOON, self.said.recv()).await.expect("something is said").expect("the worker runs")
    }

    /// All that one look brings, in short words.
    pub(crate) async fn round(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        loop {
            let said = self.next().await;
            words.push(in_short(&said));
            if matches!(said, Said::Answered { .. } | Said::Failed { .. }) {
                return words;
            }
        }
    }

    pub(crate) async fn again(&mut self) -> Vec<String> {
        self.asks.send(Ask::Again).await.expect("the worker runs");
        self.round().await
    }
}

fn in_short(said: &Said) -> String {
    match said {
        Said::Answered { watch: None } => "answered".to_owned(),
        Said::Answered { watch: Some(watch) } => format!("answered watch {watch}"),
        Said::Failed { .. } => "failed".to_owned(),
        Said::Refused { kind, .. } => format!("refused {kind:?}"),
        Said::Moved { .. } => "moved".to_owned(),
        Said::Offered(offer) => format!("offered {}", offer.terms.release.seq),
    }
}

const HOUR: Duration = Duration::from_hours(1);

async fn server_and_reducer(newest: u64, manners: Manners) -> (Fleet, Server, Reducer) {
    let fleet = fleet();
    let server = Server::start(Shelf::up_to(&fleet, newest), manners).await;
    let reducer = Reducer::of(&server.url(), &fleet, fleet.trust(), HOUR);
    (fleet, server, reducer)
}

#[tokio::test]
async fn a_release_is_offered_once_and_a_newer_one_again() {
    let (fleet, server, mut reducer) = server_and_reducer(1, Manners::Tagging).await;
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    assert_eq!(reducer.again().await, ["answered"]);
    assert_eq!(reducer.again().await, ["answered"]);
    server.change(|shelf| shelf.publish(&fleet, 5));
    assert_eq!(reducer.again().await, ["offered 5", "answered"]);
    assert_eq!(reducer.again().await, ["answered"]);
}

#[tokio::test]
async fn a_refusal_is_said_once_and_the_good_release_after_it_is_offered_again() {
    let (fleet, server, mut reducer) = server_and_reducer(2, Manners::Good).await;
    assert_eq!(reducer.round().await, ["offered 2", "answered"]);
    server.change(|shelf| shelf.latest(1));
    assert_eq!(reducer.again().await, ["refused Trust", "answered"]);
    assert_eq!(reducer.again().await, ["answered"]);
    server.change(|shelf| shelf.latest(2));
    assert_eq!(reducer.again().await, ["offered 2", "answered"], "so that the refusal is over");
    server.change(|shelf| {
        shelf.publish(&fleet, 3);
        shelf.remove("channels/stable/3/release.json");
    });
    assert_eq!(reducer.again().await, ["refused Unreadable", "answered"], "latest came before its release");
    server.change(|shelf| shelf.publish(&fleet, 3));
    assert_eq!(reducer.again().await, ["offered 3", "answered"]);
}

#[tokio::test]
async fn a_root_or_a_floor_without_a_release_for_this_host_is_said_before_anything_else() {
    let (fleet, server, mut reducer) = server_and_reducer(1, Manners::Good).await;
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    server.change(|shelf| {
        shelf.put("root/2.json".into(), fleet.sign_root(&with(&fleet.root(), "version", 2)));
        shelf.publish(&fleet, 2);
        shelf.remove("channels/stable/2/hosts/web-0.json");
    });
    assert_eq!(reducer.again().await, ["moved", "refused Unreadable", "answered"]);
    assert_eq!(reducer.again().await, ["answered"]);
    server.change(|shelf| {
        shelf.put("root/3.json".into(), fleet.sign_root(&with(&fleet.root(), "version", 3)));
        shelf.publish(&fleet, 2);
    });
    reducer.asks.send(Ask::Again).await.expect("it runs");
    let Said::Offered(offer) = reducer.next().await else { panic!("an offer") };
    let trust = Trust::resume(&fleet.sign_root(&fleet.root()), offer.moved.trust).expect("whole");
    assert_eq!(trust.root().version.get(), 3, "an offer carries the roots that came with it");
}

#[tokio::test]
async fn a_release_that_expires_while_nothing_changes_is_told() {
    let (_fleet, _server, mut reducer) = server_and_reducer(1, Manners::Tagging).await;
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    reducer.clock.set(NOW + 10 * DAY);
    assert_eq!(reducer.again().await, ["refused Expired", "answered"]);
    assert_eq!(reducer.again().await, ["answered"]);
    reducer.clock.set(NOW + DAY);
    assert_eq!(reducer.again().await, ["offered 1", "answered"], "the clock was wrong for a while");
}

#[tokio::test]
async fn a_trial_is_answered_over_a_fresh_connection_and_for_the_whole_document() {
    let (_fleet, server, mut reducer) = server_and_reducer(1, Manners::Tagging).await;
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    let before = server.seen();
    reducer.asks.send(Ask::Now(WatchId(7))).await.expect("it runs");
    assert_eq!(reducer.round().await, ["answered watch 7"]);
    let asked = server.seen();
    assert_eq!((asked[0].target.as_str(), asked[0].status), ("/channels/stable/latest", 200));
    assert!(asked[0].connection > before[0].connection, "a new connection");
    assert_eq!(reducer.again().await, ["answered"], "a watch is answered once");
}

#[tokio::test]
async fn a_trial_whose_source_is_silent_is_asked_again_until_it_answers() {
    let (_fleet, server, mut reducer) = server_and_reducer(1, Manners::Status(503)).await;
    assert_eq!(reducer.round().await, ["failed"]);
    reducer.asks.send(Ask::Now(WatchId(1))).await.expect("it runs");
    assert_eq!(reducer.round().await, ["failed"]);
    reducer.asks.send(Ask::Now(WatchId(2))).await.expect("it runs");
    assert_eq!(reducer.round().await, ["failed"]);
    server.behave(Manners::Good);
    // Nobody asks any more; the pause is short by itself.
    let mut last = reducer.round().await;
    while last == ["failed"] {
        last = reducer.round().await;
    }
    assert_eq!(last, ["offered 1", "answered watch 2"], "the newest watch is the one that waits");
}

#[tokio::test]
async fn a_trial_does_not_wait_for_a_look_that_hangs() {
    let fleet = fleet();
    let server = Server::start(Shelf::up_to(&fleet, 1), Manners::Silent).await;
    let mut reducer = Reducer::of(&server.url(), &fleet, fleet.trust(), HOUR);
    while server.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.behave(Manners::Good);
    reducer.asks.send(Ask::Now(WatchId(3))).await.expect("it runs");
    assert_eq!(reducer.round().await, ["offered 1", "answered watch 3"], "without a failure in between");
}

#[tokio::test]
async fn the_worker_ends_with_its_reducer() {
    let (_fleet, _server, mut reducer) = server_and_reducer(1, Manners::Good).await;
    reducer.round().await;
    let Reducer { asks, said, task, clock: _ } = reducer;
    drop(asks);
    timeout(SOON, task).await.expect("it ends").expect("without a panic");
    drop(said);
    let (_fleet, _server, reducer) = server_and_reducer(1, Manners::Good).await;
    let Reducer { asks, said, task, clock: _ } = reducer;
    drop(said);
    timeout(SOON, task).await.expect("it ends").expect("without a panic");
    drop(asks);
}

#[tokio::test]
async fn polls_come_by_themselves() {
    let fleet = fleet();
    let server = Server::start(Shelf::up_to(&fleet, 1), Manners::Good).await;
    let mut reducer = Reducer::of(&server.url(), &fleet, fleet.trust(), Duration::from_secs(1));
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    server.change(|shelf| shelf.publish(&fleet, 2));
    let mut words = reducer.round().await;
    while words == ["answered"] {
        words = reducer.round().await;
    }
    assert_eq!(words, ["offered 2", "answered"]);
}

/// For the tests of folders: a reducer over the folder at `path` that hardly ever polls.
pub(crate) fn over_folder(path: &Path, fleet: &Fleet, poll: Duration) -> Reducer {
    Reducer::of(path.to_str().expect("a plain path"), fleet, fleet.trust(), poll)
}

/// The kinds of refusals have their words in the tests above.
#[test]
fn words_are_those_of_the_machine() {
    assert_eq!(format!("{:?} {:?}", Refusal::Trust, Refusal::Unreadable), "Trust Unreadable");
}

#[tokio::test]
async fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    // The smallest draw: without being asked to wait, the worker comes back after a second.
    // The pause begins in the worker, some time before we hear of it: so this is taken before.
    let since = std::time::Instant::now();
    let (_, server, mut reducer) = server_and_reducer(1, Manners::Busy(3)).await;
    assert_eq!(reducer.round().await, ["failed"]);
    server.behave(Manners::Good);
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    assert!(since.elapsed() > Duration::from_millis(2_900), "it came after {:?}", since.elapsed());
}

#[tokio::test]
async fn what_a_server_wants_is_told_and_a_word_from_the_reducer_counts_for_more() {
    let (_, server, mut reducer) = server_and_reducer(1, Manners::Busy(86_400)).await;
    let Said::Failed { why } = reducer.next().await else { panic!("it is busy") };
    assert!(why.contains("503 and wants not to be asked for 86400 s"), "{why}");
    server.behave(Manners::Good);
    assert_eq!(reducer.again().await, ["offered 1", "answered"]);
}
