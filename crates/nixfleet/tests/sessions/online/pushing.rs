//! A release goes to the control plane.

use serde_json::Value;

use super::agents::fleet_of;
use super::control_plane::{ControlPlane, is_built};

const PUSH: [&str; 4] = ["release", "push", "--channel", "stable"];

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
    session.done(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
    session.build();
    session.sign("keys/release");
    session.sign("keys/second");
    assert_eq!(server.done(&session, &PUSH).await, "stable/2\n");
}
