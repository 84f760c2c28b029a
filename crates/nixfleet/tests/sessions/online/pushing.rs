//! A release goes to the control plane.

use serde_json::Value;

use super::agents::fleet_of;
use super::control_plane::{ControlPlane, is_built};
use super::steering::until;

const PUSH: [&str; 5] = ["release", "push", "--channel", "stable", "--yes"];

#[tokio::test]
async fn a_published_release_is_pushed_once_and_known_from_then_on() {
    if !is_built() {
        return;
    }
    let (session, _) = fleet_of(&["web-1", "web-2"]);
    let server = ControlPlane::start(&session).await;
    let first = server.operate(&session, &PUSH).await;
    assert_eq!((first.code, first.out.as_str()), (0, "stable/1\n"), "{first:?}");
    assert!(first.err.contains("it is served from now on"), "{first:?}");
    let again = server.operate(&session, &PUSH).await;
    assert_eq!((again.code, again.out.as_str()), (0, "stable/1\n"), "{again:?}");
    assert!(again.err.contains("it was there already"), "{again:?}");
    let json = server.done(&session, &[&PUSH[..], &["-o", "json"]].concat()).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["version"], &json["outcome"]), (&1.into(), &"known-before".into()));
    assert_eq!(server.done(&session, &["hosts", "-o", "name"]).await, "web-1\nweb-2\n");
}

#[tokio::test]
async fn a_push_shows_what_it_brings_and_whose_place_it_takes_and_needs_a_yes() {
    if !is_built() {
        return;
    }
    let (session, _) = fleet_of(&["web-1", "web-2"]);
    let server = ControlPlane::start(&session).await;
    let unasked = server.operate(&session, &PUSH[..4]).await;
    assert_eq!((unasked.code, unasked.out.as_str()), (1, ""), "{unasked:?}");
    for words in [
        "release stable/1 of fleet example",
        "signatures  1 of 1 needed",
        "wave        canary: 1 host, ",
        "wave        rest: 1 host, ",
        "nobody can be asked: push release stable/1 to https://localhost:",
        "`--yes`",
    ] {
        assert!(unasked.err.contains(words), "{words}: {unasked:?}");
    }
    assert_eq!(server.done(&session, &["status"]).await, "no release was pushed yet\n");

    let first = server.operate(&session, &PUSH).await;
    assert!(first.code == 0 && !first.err.contains("rollout"), "nothing was there: {first:?}");
    until(&server, &session, &["rollout", "list"], &["stable/1", "0/2"]).await;
    session.publish();
    let second = server.operate(&session, &PUSH[..4]).await;
    let ends = "ends        rollout stable/1 (going, wave ";
    assert!(second.code == 1 && second.err.contains(ends), "{second:?}");
    let older = server.operate(&session, &[&PUSH[..4], &["--seq", "1"]].concat()).await;
    assert!(older.err.contains("there       rollout stable/1 (going"), "{older:?}");
}

#[tokio::test]
async fn what_nobody_trusted_signed_is_refused_by_the_control_plane_and_nothing_of_it_counts() {
    if !is_built() {
        return;
    }
    let (session, _) = fleet_of(&["web-1"]);
    let server = ControlPlane::start(&session).await;
    session.build();
    let unsigned = server.operate(&session, &[&PUSH[..], &["--seq", "2"]].concat()).await;
    assert_eq!((unsigned.code, unsigned.out.as_str()), (1, ""), "{unsigned:?}");
    assert!(unsigned.err.contains("is refused"), "{unsigned:?}");
    assert_eq!(server.done(&session, &["status"]).await, "no release was pushed yet\n");
    let none = server.operate(&session, &["release", "push", "--channel", "stabel"]).await;
    assert!(none.code == 1 && none.err.contains("channel stabel has no release"), "{none:?}");
}

#[tokio::test]
async fn a_newer_root_goes_with_the_release_that_needs_it() {
    if !is_built() {
        return;
    }
    let (session, _) = fleet_of(&["web-1"]);
    let server = ControlPlane::start(&session).await;
    server.done(&session, &PUSH).await;
    let second = session.text("keys/second");
    session.done(&["keys", "new", &second]);
    session.done(&[
        "root",
        "channel",
        "stable",
        "--release-key",
        &format!("{second}.pub"),
        "--threshold",
        "2",
    ]);
    session.done(&["root", "channel", "edge", "--release-key", &format!("{second}.pub")]);
    session.done(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
    session.build();
    session.sign("keys/release");
    session.sign("keys/second");
    let unasked = server.operate(&session, &PUSH[..4]).await;
    let key = "\n  ~ release/stable: 1 of [";
    assert!(unasked.err.contains("root        1 to 2\n") && unasked.err.contains(key), "{unasked:?}");
    assert_eq!(server.done(&session, &PUSH).await, "stable/2\n");
    session.done(&["root", "remove-channel", "edge"]);
    session.done(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
    let unasked = server.operate(&session, &PUSH[..4]).await;
    assert!(unasked.err.contains("root        2 to 3, ends channel edge"), "{unasked:?}");
}

#[tokio::test]
async fn a_lower_number_takes_the_place_of_a_higher_one_once_the_channel_is_set_back() {
    if !is_built() {
        return;
    }
    let (session, _) = fleet_of(&["web-1"]);
    let server = ControlPlane::start(&session).await;
    let closures = session.text("closures.json");
    session.done(&["release", "build", "--channel", "stable", "--path-info", &closures, "--seq", "9000"]);
    session.sign("keys/release");
    server.done(&session, &PUSH).await;
    until(&server, &session, &["rollout", "list"], &["stable/9000", "0/1"]).await;
    let newer = server.operate(&session, &[&PUSH[..4], &["--seq", "1"]].concat()).await;
    assert!(newer.err.contains("there       rollout stable/9000 ("), "{newer:?}");
    assert!(newer.err.contains(", which is newer"), "{newer:?}");
    session.done(&["root", "channel", "stable", "--reset-floor"]);
    session.done(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
    session.publish();
    let unasked = server.operate(&session, &PUSH[..4]).await;
    assert!(unasked.err.contains("push release stable/2 to "), "{unasked:?}");
    assert!(unasked.err.contains("ends        rollout stable/9000 ("), "{unasked:?}");
}
