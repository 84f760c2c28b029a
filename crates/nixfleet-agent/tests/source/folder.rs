//! Folders that come and go, are flipped, half written, or not folders at all.

use std::time::Duration;

use nixfleet_agent::source::Following;
use nixfleet_agent::source::look::Found;
use nixfleet_agent::source::web::tls::ServerTrust;
use nixfleet_agent::source::web::{Limits, Proxies};

use crate::fleet::*;
use crate::shelf::{Shelf, looker};
use crate::worker::over_folder;

/// Polls do nothing in these tests: what is seen, the watch told.
const NEVER: Duration = Duration::from_hours(24);
/// Where the watch cannot tell, as with a mount, the poll does.
const OFTEN: Duration = Duration::from_secs(1);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test]
async fn a_release_that_is_published_in_a_folder_is_seen_at_once() {
    let (fleet, dir) = (fleet(), folder());
    Shelf::up_to(&fleet, 1).write_to(dir.path());
    let mut reducer = over_folder(dir.path(), &fleet, NEVER);
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    Shelf::up_to(&fleet, 2).write_to(dir.path());
    let mut words = reducer.round().await;
    while words == ["answered"] {
        words = reducer.round().await;
    }
    assert_eq!(words, ["offered 2", "answered"]);
}

#[tokio::test]
async fn a_root_that_is_published_in_a_folder_is_seen_at_once() {
    let (fleet, dir) = (fleet(), folder());
    let mut shelf = Shelf::up_to(&fleet, 1);
    shelf.write_to(dir.path());
    let mut reducer = over_folder(dir.path(), &fleet, NEVER);
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    shelf.put("root/2.json".into(), fleet.sign_root(&with(&fleet.root(), "version", 2)));
    shelf.write_to(dir.path());
    let mut words = reducer.round().await;
    while words == ["answered"] {
        words = reducer.round().await;
    }
    assert_eq!(words, ["offered 1", "answered"], "with the newer root");
}

#[tokio::test]
async fn a_folder_that_is_not_there_yet_is_waited_for() {
    let (fleet, dir) = (fleet(), folder());
    let path = dir.path().join("stick");
    let mut reducer = over_folder(&path, &fleet, NEVER);
    assert_eq!(reducer.round().await, ["failed"]);
    let beside = dir.path().join("beside");
    Shelf::up_to(&fleet, 1).write_to(&beside);
    std::fs::rename(&beside, &path).expect("moved there");
    let mut words = reducer.round().await;
    while words == ["failed"] {
        words = reducer.round().await;
    }
    assert_eq!(words, ["offered 1", "answered"]);
}

#[tokio::test]
async fn a_folder_that_goes_away_fails_and_is_taken_up_where_it_was_when_it_comes_back() {
    let (fleet, dir) = (fleet(), folder());
    let (path, away) = (dir.path().join("stick"), dir.path().join("away"));
    Shelf::up_to(&fleet, 1).write_to(&path);
    let mut reducer = over_folder(&path, &fleet, OFTEN);
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    std::fs::rename(&path, &away).expect("moved away");
    let mut words = reducer.round().await;
    while words == ["answered"] {
        words = reducer.round().await;
    }
    assert_eq!(words, ["failed"]);
    std::fs::rename(&away, &path).expect("moved back");
    while words == ["failed"] {
        words = reducer.round().await;
    }
    assert_eq!(words, ["answered"], "nothing new, and nothing is said of it");
    Shelf::up_to(&fleet, 2).write_to(&path);
    // A folder that seems to hang for a moment, on a busy machine, is looked at again.
    while words == ["answered"] || words == ["failed"] {
        words = reducer.round().await;
    }
    assert_eq!(words, ["offered 2", "answered"], "the watch is on the folder that came back");
}

#[tokio::test]
async fn a_link_that_is_flipped_from_one_folder_to_the_next_is_followed() {
    let (fleet, dir) = (fleet(), folder());
    let (one, two, link) = (dir.path().join("one"), dir.path().join("two"), dir.path().join("releases"));
    Shelf::up_to(&fleet, 1).write_to(&one);
    Shelf::up_to(&fleet, 2).write_to(&two);
    nixfleet_sys::fs::link_atomic(&one, &link).expect("made");
    let mut reducer = over_folder(&link, &fleet, NEVER);
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    nixfleet_sys::fs::link_atomic(&two, &link).expect("flipped");
    let mut words = reducer.round().await;
    while words == ["answered"] {
        words = reducer.round().await;
    }
    assert_eq!(words, ["offered 2", "answered"]);
}

#[tokio::test]
async fn a_folder_whose_latest_came_first_is_followed_when_the_rest_is_there() {
    let (fleet, dir) = (fleet(), folder());
    let mut shelf = Shelf::up_to(&fleet, 1);
    shelf.write_to(dir.path());
    let mut reducer = over_folder(dir.path(), &fleet, OFTEN);
    assert_eq!(reducer.round().await, ["offered 1", "answered"]);
    nixfleet_sys::fs::write_atomic(&dir.path().join("channels/stable/latest"), b"2\n").expect("written");
    // A folder that seems to hang for a moment, on a busy machine, is looked at again.
    let mut words = reducer.round().await;
    while words == ["answered"] || words == ["failed"] {
        words = reducer.round().await;
    }
    assert_eq!(words, ["refused Unreadable", "answered"]);
    shelf.publish(&fleet, 2);
    shelf.write_to(dir.path());
    words = reducer.round().await;
    while words == ["answered"] || words == ["failed"] {
        words = reducer.round().await;
    }
    assert_eq!(words, ["offered 2", "answered"]);
}

async fn found_in(path: &std::path::Path) -> Found {
    let fleet = fleet();
    let following = Following {
        place: path.to_str().expect("plain").parse().expect("a folder"),
        server: ServerTrust::Host,
        identity: None,
        proxies: Proxies::None,
        limits: Limits::default(),
        looker: looker(&fleet, 0),
        poll: NEVER,
        clock: std::sync::Arc::new(|| at(NOW)),
        random: std::sync::Arc::new(|| 0),
        look_at: std::sync::Arc::new(|time| time),
    };
    following.look_once(&fleet.trust()).await
}

#[tokio::test]
async fn torn_documents_are_refused_and_a_torn_number_is_no_number() {
    let (fleet, dir) = (fleet(), folder());
    Shelf::up_to(&fleet, 12).write_to(dir.path());
    for (path, cut) in
        [("channels/stable/12/release.json", 400), ("channels/stable/12/hosts/web-0.json", 100)]
    {
        let path = dir.path().join(path);
        let whole = std::fs::read(&path).expect("there");
        nixfleet_sys::fs::write_atomic(&path, &whole[..cut]).expect("torn");
        let found = found_in(dir.path()).await;
        assert!(matches!(&found, Found::Refused(refused) if refused.attack.is_none()), "{found:?}");
        nixfleet_sys::fs::write_atomic(&path, &whole).expect("mended");
    }
    // Half of "12" is 1, an older release: not a rollback, since the number is not whole.
    nixfleet_sys::fs::write_atomic(&dir.path().join("channels/stable/latest"), b"1").expect("torn");
    assert!(matches!(found_in(dir.path()).await, Found::Nothing(_)));
}

#[tokio::test]
async fn what_is_no_file_is_not_waited_for() {
    let (fleet, dir) = (fleet(), folder());
    Shelf::up_to(&fleet, 1).write_to(dir.path());
    let path = dir.path().join("channels/stable/1/release.json");
    std::fs::remove_file(&path).expect("there");
    std::fs::create_dir(&path).expect("a folder in its place");
    let found = found_in(dir.path()).await;
    assert!(
        matches!(&found, Found::Nothing(why) if why.to_string().contains("not a regular file")),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_file_in_the_place_of_the_folder_has_nothing_in_it() {
    let dir = folder();
    let path = dir.path().join("file");
    nixfleet_sys::fs::write_atomic(&path, b"x").expect("written");
    assert!(matches!(found_in(&path).await, Found::Nothing(_)));
}
