use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::activation::linux::LinuxBackend;
use nixfleet_core::model::probe::{HttpProbe, ProbeKind, Redirects, StatusRange, TcpProbe, TlsTrust};
use nixfleet_core::model::time::Secs;
use proptest::prelude::*;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, channel};

/// Far longer than any of this takes.
const LONG: Duration = Duration::from_mins(1);

fn spec(name: &str, kind: ProbeKind) -> ProbeSpec {
    ProbeSpec {
        name: name.parse().expect("a name"),
        kind,
        mode: ProbeMode::Enforce,
        interval_secs: Secs(1),
        timeout_secs: Secs(60),
        after_secs: Secs(0),
        failures: 3,
    }
}

/// Nobody listens on that port, which is found out at once.
fn nobody() -> ProbeKind {
    ProbeKind::Tcp(TcpProbe { address: "127.0.0.1:1".to_owned() })
}

fn http(url: String) -> ProbeKind {
    let status = StatusRange::default();
    ProbeKind::Http(HttpProbe {
        url,
        status,
        body_contains: None,
        tls: TlsTrust::SystemRoots,
        redirects: Redirects::Refuse,
    })
}

fn order(declared: Vec<ProbeSpec>, built_in: Vec<BuiltIn>) -> ProbeOrder {
    ProbeOrder { watch: WatchId(7), declared, built_in }
}

fn started(order: ProbeOrder, depth: usize) -> (Running, Receiver<ProbeReport>) {
    let (said, heard) = channel(depth);
    (start(&Arc::new(LinuxBackend::new()), order, &Baseline::default(), &said), heard)
}

async fn hear(heard: &mut Receiver<ProbeReport>) -> ProbeReport {
    timeout(LONG, heard.recv()).await.expect("in time").expect("it goes on")
}

/// A server that takes connections and never answers; it counts those that are open at once.
async fn silent(most: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        let open = Arc::new(AtomicUsize::new(0));
        while let Ok((stream, _)) = listener.accept().await {
            let (open, most) = (Arc::clone(&open), Arc::clone(&most));
            tokio::spawn(async move {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                while stream.readable().await.is_ok() && !matches!(stream.try_read(&mut [0; 512]), Ok(0)) {}
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    url
}

#[tokio::test]
async fn each_probe_is_asked_again_and_again_and_its_runs_are_numbered() {
    let disabled = ProbeSpec { mode: ProbeMode::Disabled, ..spec("off", nobody()) };
    let probes = vec![spec("a", nobody()), disabled, spec("b", nobody())];
    let (_running, mut heard) = started(order(probes, vec![BuiltIn::Units]), 10);
    let mut runs: BTreeMap<ProbeRef, Vec<u32>> = BTreeMap::new();
    for _ in 0..7 {
        let report = hear(&mut heard).await;
        assert_eq!((report.watch, report.result), (WatchId(7), ProbeResult::Failed), "{report:?}");
        assert!(!report.evidence.is_empty());
        runs.entry(report.probe).or_default().push(report.run);
    }
    let names: Vec<String> = runs.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "b", "built-in:units"]);
    assert!(runs.values().all(|runs| runs.iter().copied().eq(1..=u32::try_from(runs.len()).expect("few"))));
}

#[tokio::test]
async fn the_first_run_waits_for_its_time() {
    let late = ProbeSpec { after_secs: Secs(1), ..spec("late", nobody()) };
    let began = Instant::now();
    let (_running, mut heard) = started(order(vec![late], vec![]), 1);
    assert_eq!(hear(&mut heard).await.run, 1);
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_probe_that_gets_no_answer_holds_up_no_other_and_is_not_asked_twice_at_once() {
    let most = Arc::new(AtomicUsize::new(0));
    let url = silent(Arc::clone(&most)).await;
    let (_running, mut heard) =
        started(order(vec![spec("hangs", http(url)), spec("goes", nobody())], vec![]), 1);
    for run in 1..=3 {
        let report = hear(&mut heard).await;
        assert_eq!((report.probe.to_string().as_str(), report.run), ("goes", run));
    }
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn only_so_many_are_asked_at_once() {
    let most = Arc::new(AtomicUsize::new(0));
    let url = silent(Arc::clone(&most)).await;
    let probes = (0..3 * TURNS)
        .map(|n| ProbeSpec { timeout_secs: Secs(1), ..spec(&format!("p{n}"), http(url.clone())) });
    let (_running, mut heard) = started(order(probes.collect(), vec![]), 1);
    for _ in 0..2 * TURNS {
        let _ = hear(&mut heard).await;
    }
    let most = most.load(Ordering::SeqCst);
    // The server sees the end of one a moment after the turn of the next has begun.
    assert!((TURNS..=2 * TURNS).contains(&most), "{most}");
}

#[tokio::test]
async fn a_receiver_that_does_not_take_slows_the_probe_down_and_misses_no_run() {
    let every = Duration::from_secs(8);
    let seldom = ProbeSpec { interval_secs: Secs(8), ..spec("a", nobody()) };
    let (_running, mut heard) = started(order(vec![seldom], vec![]), 1);
    // Long enough for three runs; only two can be said: one in the channel, one that waits to be.
    tokio::time::sleep(every * 5 / 2).await;
    assert_eq!(hear(&mut heard).await.run, 1);
    assert_eq!(hear(&mut heard).await.run, 2);
    let asked_again = Instant::now();
    assert_eq!(hear(&mut heard).await.run, 3);
    // Not after another interval.
    assert!(asked_again.elapsed() < every * 3 / 4, "it was asked for anew, and at once");
}

#[tokio::test]
async fn dropping_it_ends_all_probes() {
    let (running, mut heard) = started(order(vec![spec("a", nobody()), spec("b", nobody())], vec![]), 1);
    let _ = hear(&mut heard).await;
    drop(running);
    while timeout(LONG, heard.recv()).await.expect("it closes").is_some() {}
}

#[tokio::test]
async fn a_receiver_that_is_gone_ends_all_probes() {
    let (mut running, heard) = started(order(vec![spec("a", nobody())], vec![]), 1);
    drop(heard);
    let ended = timeout(LONG, running.tasks.join_next()).await.expect("in time").expect("one task");
    assert!(ended.is_ok(), "by itself: {ended:?}");
}

proptest! {
    #[test]
    fn an_interval_is_never_shorter_than_asked_for_and_a_twentieth_longer_at_most(secs in 1u64..100_000, run: u32) {
        let every = Duration::from_secs(secs);
        let pace = Pace { after: Duration::ZERO, every };
        let probe = ProbeRef::BuiltIn(BuiltIn::Units);
        let of = Of { watch: WatchId(1), probe, pace, chance: RandomState::new() };
        let got = of.interval(run);
        prop_assert!(got >= every && got <= every + every / 20);
        prop_assert_eq!(got, of.interval(run), "one run, one interval");
    }
}
