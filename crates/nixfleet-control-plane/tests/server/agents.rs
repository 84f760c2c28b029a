//! What agents send is kept once, whatever is lost; what is asked of them stays until they have it.

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::store::fact::{About, Fact};
use nixfleet_core::host::{Event, Record};
use nixfleet_core::rollout::Verb;
use nixfleet_core::wire::{Then, Wish};
use reqwest::StatusCode;
use serde_json::json;

use crate::fleet::{Fleet, Host, host_name, kept_orders, now};
use crate::running::{Running, SOON};

#[tokio::test]
async fn what_a_host_reports_is_its_state_here_and_a_repeat_is_harmless() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let release = fleet.release(1);
    running.push(&release).await;
    let mut host = Host::started("web-1");
    host.verified(&release);
    host.staged(&release);
    let web_1 = running.host(&fleet.hosts[&host.name]);
    let all = host.log.clone();
    assert!(all.len() >= 4, "{all:?}");
    let next = all.len() as u64 + 1;
    for records in [&all[..2], &all[..], &all[1..3], &all[..]] {
        web_1.report(records).await;
    }
    let taken = web_1.report(&all).await;
    assert_eq!((taken.next, taken.then), (next, Then::GoOn));
    let (state, fault) = running.store.state(&host.name).await.expect("kept").expect("named");
    assert_eq!((state, fault), (host.state.clone(), None));
    let (_, view) = running.person(&running.viewer).get("/v1/hosts/web-1").await;
    assert_eq!(view["doing"]["state"], "staged", "{view}");
    assert_eq!(view["doing"]["waiting"]["on"], "order", "{view}");
    let (_, events) = running.person(&running.viewer).get("/v1/events?host=web-1").await;
    let items = events["items"].as_array().expect("a list");
    let reported = items.iter().filter(|event| event["fact"] == "reported").count();
    assert_eq!(reported, all.len(), "each once: {events}");
}

#[tokio::test]
async fn a_gap_is_seen_and_asked_for() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let release = fleet.release(1);
    running.push(&release).await;
    let mut host = Host::started("web-1");
    host.verified(&release);
    let web_1 = running.host(&fleet.hosts[&host.name]);
    let taken = web_1.report(&host.log[1..]).await;
    assert_eq!((taken.next, taken.then), (1, Then::GoOn));
    assert_eq!(web_1.report(&host.log).await.next, host.state.seq + 1);
}

#[tokio::test]
async fn what_cannot_be_folded_makes_the_host_send_its_state() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    // A release that never came here: this server is new, or was put back.
    let elsewhere = fleet.release(2);
    let mut host = Host::started("web-1");
    host.verified(&elsewhere);
    let web_1 = running.host(&fleet.hosts[&host.name]);
    assert_eq!(web_1.report(&host.log).await.then, Then::SendState);
    assert_eq!(web_1.hello(&host, 1, false).await.then, Then::SendState);
    let taken = web_1.hello(&host, 1, true).await;
    assert_eq!((taken.next, taken.then), (host.state.seq + 1, Then::GoOn));
    host.staged(&elsewhere);
    assert_eq!(web_1.report(&host.log).await.next, host.state.seq + 1);
    assert_eq!(web_1.hello(&host, 1, false).await.then, Then::GoOn);
    let (state, _) = running.store.state(&host.name).await.expect("kept").expect("named");
    assert_eq!(state, host.state);
}

#[tokio::test]
async fn hello_tells_by_the_digest_whether_both_know_the_same() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let release = fleet.release(1);
    running.push(&release).await;
    let mut host = Host::started("web-1");
    let web_1 = running.host(&fleet.hosts[&host.name]);
    // Everything is still to come, and it still has everything.
    let taken = web_1.hello(&host, 1, false).await;
    assert_eq!((taken.next, taken.then), (1, Then::GoOn));
    // What it would have to send is gone there.
    assert_eq!(web_1.hello(&host, 2, false).await.then, Then::SendState);
    web_1.report(&host.log).await;
    assert_eq!(web_1.hello(&host, 1, false).await.then, Then::GoOn);
    // The same number, and another history.
    let mut other = Host::started("web-1");
    other.take(&Event::Held { by: "eve".into(), why: "mine".into(), until_ms: None }, None);
    host.take(&Event::Held { by: "ann".into(), why: "audit".into(), until_ms: None }, None);
    web_1.report(&host.log).await;
    assert_eq!(web_1.hello(&other, 1, false).await.then, Then::SendState);
    // Set up anew: it knows less than we do.
    let fresh = Host::started("web-1");
    assert_eq!(web_1.hello(&fresh, 1, false).await.then, Then::SendState);
    assert_eq!(web_1.hello(&fresh, 1, true).await.next, fresh.state.seq + 1);
}

#[tokio::test]
async fn a_verdict_behind_lost_reports_is_in_the_log_and_the_state_is_known_when_it_is_told() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let mut host = Host::started("web-1");
    while host.log.len() < 21 {
        host.take(&Event::Held { by: "ann".into(), why: "audit".into(), until_ms: None }, None);
        host.take(&Event::Unheld { by: "ann".into() }, None);
    }
    let log = host.log.clone();
    let told = Box::new(host.state.clone());
    host.take(&Event::StateTold { state: told }, None);
    let newest = host.state.seq;
    let verdict = log.last().expect("they are there").clone();
    let lost = Record { fact: Event::ReportsLost { from: 6 }, ..log[log.len() - 2].clone() };
    let web_1 = running.host(&fleet.hosts[&host.name]);
    assert_eq!(web_1.report(&log[..5]).await.next, 6);
    // Its outbox ran over: whole it is only from the verdict on.
    let hello = web_1.hello(&host, verdict.seq, false).await;
    assert_eq!((hello.next, hello.then), (6, Then::GoOn), "what was not sent is not passed over");
    let taken = web_1.report(&[lost.clone(), verdict.clone()]).await;
    assert_eq!((taken.next, taken.then), (verdict.seq + 1, Then::GoOn));
    // Where it stands is not known until it tells, also after old events went and the rest was folded again.
    let as_before = async |what: &str| {
        let followed = running.store.followed(&host.name).await.expect("kept").expect("named");
        assert_eq!((followed.0.seq, followed.1, followed.2), (5, verdict.seq, None), "{what}");
    };
    as_before("told").await;
    running.store.rebuild(now()).await.expect("it folds");
    as_before("rebuilt").await;
    let (_, events) = running.person(&running.viewer).get("/v1/events?host=web-1").await;
    let items = events["items"].as_array().expect("a list");
    let newest_report = items.iter().rfind(|event| event["fact"] == "reported").expect("one");
    assert_eq!(newest_report["record"]["seq"], json!(verdict.seq), "{events}");
    let later = now().plus(nixfleet_core::model::time::Secs(10));
    assert_eq!(running.store.retain(later, later).await.expect("kept").compacted, 1);
    running.store.rebuild(now()).await.expect("it folds");
    as_before("compacted").await;
    let taken = web_1.report(&host.log[host.log.len() - 1..]).await;
    assert_eq!((taken.next, taken.then), (newest + 1, Then::GoOn));
    for _ in 0..2 {
        let (state, fault) = running.store.state(&host.name).await.expect("kept").expect("named");
        assert_eq!((state, fault), (host.state.clone(), None));
        running.store.rebuild(now()).await.expect("it folds");
    }
    assert_eq!(web_1.hello(&host, verdict.seq, false).await.then, Then::GoOn);
    assert_eq!(web_1.report(&[lost]).await.next, newest + 1, "a repeat is harmless");
}

#[tokio::test]
async fn an_order_wakes_the_poll_of_its_host_and_stays_until_the_host_has_it() {
    let fleet = Fleet::of(&["web-1", "web-2"]);
    let running = Running::start(&fleet).await;
    let release = fleet.release(1);
    running.push(&release).await;
    let mut host = Host::started("web-1");
    host.verified(&release);
    host.staged(&release);
    let web_1 = running.host(&fleet.hosts[&host.name]);
    // Of whom nothing is known, the poll is answered at once, since its state is wanted.
    assert_eq!(web_1.orders(0).await.then, Then::SendState);
    web_1.report(&host.log[..host.log.len() - 1]).await;
    let wish = Wish::Go { release: release.id.clone() };
    let report = async {
        // While the poll waits; if it came first, the poll finds the order, which is right as well.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        web_1.report(&host.log).await;
    };
    let (orders, ()) = tokio::join!(web_1.orders(0), report);
    assert_eq!(orders.orders.iter().map(|order| &order.what).collect::<Vec<_>>(), [&wish]);
    // The answer may be lost on the way.
    assert_eq!(web_1.orders(0).await, orders);
    let number = orders.orders[0].number;
    host.take(&wish.event(), None);
    web_1.report(&host.log).await;
    assert_eq!(kept_orders(&running.store, &host.name, 0).await, []);
    assert!(number > 0);
}

#[tokio::test]
async fn a_poll_of_a_host_that_is_known_reads_nothing_whether_it_waits_or_has_news() {
    let fleet = Fleet::of(&["web-1"]);
    let folder = tempfile::tempdir().expect("a folder");
    // Of its own, so that nobody looks at a folder of releases meanwhile.
    let database = Database::Sqlite(folder.path().join("control-plane.db"));
    let running = Running::start_over(&fleet, Some(database)).await;
    let release = fleet.release(1);
    running.push(&release).await;
    let mut host = Host::started("web-1");
    host.verified(&release);
    let web_1 = running.host(&fleet.hosts[&host.name]);
    web_1.report(&host.log).await;
    let come = async {
        let (mut after, mut quiet) = (0, 0);
        // In a first one it is asked whose key that is, and on a slow machine what is known may be too old.
        while quiet < 3 {
            let before = running.store.reads();
            let (news, ()) = tokio::join!(web_1.orders(after), hold(&running, &host));
            after = news.orders.last().expect("what it waited for").number;
            assert!(!web_1.orders(0).await.orders.is_empty(), "what is there already");
            quiet += u32::from(running.store.reads() == before);
        }
    };
    tokio::time::timeout(SOON, come).await.expect("it comes to that");
}

/// Ann wants the host to stay where it is.
async fn hold(running: &Running, host: &Host) {
    let mut write = running.store.begin(now()).await.expect("a write");
    let verb = Verb::Hold { host: host.name.clone(), until_ms: None };
    let held = Fact::Acted { by: "ann".to_owned(), verb, why: "audit".to_owned() };
    write.append(&About::Host(host.name.clone()), &held).await.expect("kept");
    write.commit().await.expect("on the disk");
}

#[tokio::test]
async fn a_host_that_a_newer_release_does_not_name_is_gone_at_once() {
    let mut fleet = Fleet::of(&["web-1", "web-2"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let keys = fleet.hosts.remove(&host_name("web-2")).expect("it is there");
    let web_2 = running.host(&keys);
    assert_eq!(web_2.get("/channels/stable/latest").await.0, StatusCode::OK);
    running.push(&fleet.release(2)).await;
    // The connection is still the old one.
    let (status, problem) = web_2.get("/channels/stable/latest").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let fingerprint = keys.public.id().to_string();
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(&fingerprint)), "{problem}");
    let (_, strangers) = running.person(&running.viewer).get("/v1/strangers").await;
    assert_eq!(strangers["items"][0]["key"], json!(fingerprint), "{strangers}");
    assert_eq!(running.person(&running.viewer).get("/v1/hosts/web-2").await.0, StatusCode::NOT_FOUND);
}
