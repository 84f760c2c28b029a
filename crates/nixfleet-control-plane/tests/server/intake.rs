//! Releases come in by a push or by a folder, and are served byte for byte.

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::releases::folder::look;
use nixfleet_control_plane::releases::{self, Taken};
use nixfleet_control_plane::store::Store;
use nixfleet_core::model::layout;
use nixfleet_core::model::policy::{Edge, Policy};
use nixfleet_core::model::select::Selector;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fleet::{Fleet, channel, host_name, now, policy};
use crate::running::{Running, SOON};
use crate::schema::{description, wrong};

#[tokio::test]
async fn a_pushed_release_is_served_as_it_was_signed_and_each_host_reads_its_own_entry() {
    let fleet = Fleet::of(&["web-1", "web-2"]);
    let running = Running::start(&fleet).await;
    let release = fleet.release(1);
    let (status, answer) = running.person(&running.operator).push(release.pushed()).await;
    assert_eq!((status, answer["outcome"].as_str()), (StatusCode::OK, Some("taken")), "{answer}");

    let web_1 = running.host(&fleet.hosts[&host_name("web-1")]);
    let bytes = |path: String| {
        let request = web_1.request(Method::GET, &format!("/{path}"));
        async move { request.send().await.expect("an answer").bytes().await.expect("a body").to_vec() }
    };
    assert_eq!(bytes(layout::latest(&channel())).await, b"1\n");
    assert_eq!(bytes(layout::release(&channel(), release.id.seq)).await, release.release);
    let root = std::fs::read(running.dir.path().join("root.json")).expect("a file");
    assert_eq!(bytes(layout::root(1)).await, root);
    let own = layout::entry(&channel(), release.id.seq, &host_name("web-1"));
    assert_eq!(bytes(own).await, release.entries[0].1);
    let (status, problem) = web_1.get("/channels/stable/1/hosts/web-2.json").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{problem}");
    let (status, _) = web_1.get("/channels/stable/2/release.json").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_document_that_is_known_is_not_sent_again() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    running.push(&fleet.release(1)).await;
    let web_1 = running.host(&fleet.hosts[&host_name("web-1")]);
    let first = web_1.request(Method::GET, "/channels/stable/latest").send().await.expect("an answer");
    let etag = first.headers()["etag"].clone();
    let again = web_1.request(Method::GET, "/channels/stable/latest").header("if-none-match", etag.clone());
    assert_eq!(again.send().await.expect("an answer").status(), StatusCode::NOT_MODIFIED);
    running.push(&fleet.release(2)).await;
    let newer = web_1.request(Method::GET, "/channels/stable/latest").header("if-none-match", etag);
    assert_eq!(newer.send().await.expect("an answer").bytes().await.expect("a body").as_ref(), b"2\n");
}

#[tokio::test]
async fn what_a_host_would_refuse_is_refused_at_the_door_and_changes_nothing() {
    let fleet = Fleet::of(&["web-1", "web-2"]);
    let running = Running::start(&fleet).await;
    let (one, two) = (fleet.release(1), fleet.release(2));
    running.push(&two).await;
    let operator = running.person(&running.operator);
    let other = Fleet::of(&["web-1", "web-2"]).release(3);
    let three = fleet.release(3);
    let half = [three.release.clone(), three.entries[0].1.clone()].concat();
    let mixed = [three.release.clone(), two.entries[0].1.clone(), two.entries[1].1.clone()].concat();
    let twice = [three.release.clone(), three.entries[0].1.clone(), three.entries[0].1.clone()].concat();
    let cut = three.pushed()[..three.pushed().len() - 40].to_vec();
    for (what, lines, why) in [
        ("an older one", one.pushed(), "number 1"),
        ("another key's", other.pushed(), "too few keys"),
        ("half of one", half, "2 hosts"),
        ("entries of another", mixed, "not part of release"),
        ("an entry twice", twice, "two entries"),
        ("one that broke off", cut, "not a root, a release or an entry"),
        ("entries alone", three.entries[0].1.clone(), "the order is"),
        ("a login page", b"<html>\n</html>\n".to_vec(), "not a root, a release or an entry"),
        ("an endless line", vec![b'x'; 200_000], "longer than"),
    ] {
        let (status, problem) = operator.push(lines).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{what}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{what}: {problem}");
    }
    let (_, latest) = operator.get("/channels/stable/latest").await;
    assert_eq!(latest, 2);
    let (status, answer) = operator.push(two.pushed()).await;
    assert_eq!((status, answer["outcome"].as_str()), (StatusCode::OK, Some("known-before")));
    running.push(&three).await;
}

#[tokio::test]
async fn a_release_whose_hosts_would_wait_for_each_other_is_refused_whoever_signed_it() {
    let fleet = Fleet::of(&["web-1", "web-2"]);
    let running = Running::start(&fleet).await;
    let after = |host: &str, after: &str| Edge {
        hosts: Selector::Host(host_name(host)),
        after: Selector::Host(host_name(after)),
    };
    // The second host is in the second wave.
    let edges = vec![after("web-1", "web-2")];
    let against = fleet.release_with(1, Policy { edges, ..policy() });
    let (status, problem) = running.person(&running.operator).push(against.pushed()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    let said = problem["detail"].as_str().expect("a detail");
    assert!(said.contains("web-1 would wait for ever: web-2 must be done before it"), "{said}");
    let along = Policy { edges: vec![after("web-2", "web-1")], ..policy() };
    running.push(&fleet.release_with(1, along)).await;
}

#[tokio::test]
async fn a_folder_is_followed_with_its_roots_and_an_older_release_in_it_moves_nothing() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let viewer = running.person(&running.viewer);
    let latest = |wanted: u64| {
        let viewer = &viewer;
        async move {
            tokio::time::timeout(SOON, async {
                while viewer.get("/channels/stable/latest").await.1 != wanted {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            })
            .await
        }
    };
    fleet.release(4).publish(running.releases());
    latest(4).await.expect("it is found");
    let root = running.releases().join(layout::root(2));
    nixfleet_sys::fs::make_dir(root.parent().expect("a folder")).expect("a folder");
    nixfleet_sys::fs::write_atomic(&root, &fleet.root(2)).expect("a file");
    fleet.release(3).publish(running.releases());
    fleet.release(5).publish(running.releases());
    latest(5).await.expect("it is found");
    let (status, _) = viewer.get("/root/2.json").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn two_releases_with_one_number_in_a_folder_are_refused_aloud_and_the_first_is_served() {
    let (fleet, folder) = (Fleet::of(&["web-1"]), tempfile::tempdir().expect("a folder"));
    let store = Store::open(&Database::Sqlite(folder.path().join("fleet.db"))).await.expect("a database");
    let root = fleet.root(1);
    releases::begin(&store, &root, now()).await.expect("a root");
    let look = async || look(folder.path(), &store, &root, now()).await;
    let first = fleet.release(1);
    first.publish(folder.path());
    assert!(matches!(look().await.as_slice(), [Ok(Taken::New(id))] if *id == first.id));
    assert!(look().await.is_empty(), "it is known");
    let other = fleet.release_with(1, Policy { max_failures: 1, ..policy() });
    other.publish(folder.path());
    let outcomes = look().await;
    let [Err(refused)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    let said = nixfleet_sys::text::chain(refused);
    assert!(
        said.contains("release 1 of channel stable is refused")
            && said.contains("an earlier one with that number was"),
        "{said}"
    );
    assert_eq!(store.newest_releases().await.expect("read"), std::slice::from_ref(&first.id));
    first.publish(folder.path());
    assert!(look().await.is_empty());
    store.close().await;
}

/// The facts of the log that are of this kind.
async fn logged(running: &Running, kind: &str) -> Vec<Value> {
    let (_, page) = running.person(&running.viewer).get("/v1/events?limit=1000").await;
    let events = page["items"].as_array().expect("a list").iter();
    events.filter(|event| event["fact"] == kind).cloned().collect()
}

#[tokio::test]
async fn a_root_that_comes_with_a_known_release_is_news() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let (release, operator) = (fleet.release(1), running.person(&running.operator));
    running.push(&release).await;
    let lines = [fleet.root(2), release.pushed()].concat();
    let schema = json!({ "$ref": "#/components/schemas/Pushed" });
    for (turn, wanted) in [json!([2]), Value::Null].iter().enumerate() {
        let (status, answer) = operator.push(lines.clone()).await;
        assert_eq!((status, &answer["outcome"]), (StatusCode::OK, &"known-before".into()), "{answer}");
        assert_eq!(&answer["roots"], wanted, "push {turn}");
        assert_eq!(wrong(&answer, &schema, &description(), "push"), None);
    }
    assert_eq!(logged(&running, "root-taken").await.len(), 1);
}

#[tokio::test]
async fn the_log_says_who_pushed_a_release_or_a_root_and_what_a_token_may_do() {
    let fleet = Fleet::of(&["web-1"]);
    let running = Running::start(&fleet).await;
    let first = fleet.release(1);
    running.push(&first).await;
    let pushed = logged(&running, "release-taken").await;
    assert_eq!((pushed.len(), &pushed[0]["by"]), (1, &"ann".into()), "{pushed:?}");
    // What was known before is no news.
    running.push(&first).await;
    let (status, answer) = running.person(&running.operator).push(fleet.root(2)).await;
    assert_eq!((status, answer["outcome"].as_str()), (StatusCode::OK, Some("roots-only")), "{answer}");
    assert_eq!(answer["roots"], json!([2]));
    let roots = logged(&running, "root-taken").await;
    assert_eq!((roots.len(), &roots[0]["root"], &roots[0]["by"]), (1, &2.into(), &"ann".into()), "{roots:?}");
    fleet.release(2).publish(running.releases());
    let found = tokio::time::timeout(SOON, async {
        loop {
            match logged(&running, "release-taken").await.as_slice() {
                [_, found] => break found.clone(),
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    });
    let found = found.await.expect("it is found");
    assert!(found["by"].is_null(), "nobody pushed it: {found}");
    let tokens = logged(&running, "token-changed").await;
    let roles: Vec<_> = tokens.iter().map(|token| (token["name"].as_str(), token["role"].as_str())).collect();
    assert_eq!(roles, [(Some("ann"), Some("operator")), (Some("vic"), Some("viewer"))]);
}
