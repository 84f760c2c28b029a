//! Roots: changed, signed one at a time, and followed by whoever has the first one.

use serde_json::Value;

use crate::support::Session;

fn show(session: &Session) -> Value {
    serde_json::from_str(&session.done(&["root", "show", "-o", "json"])).expect("JSON")
}

fn new_key(session: &Session, name: &str) -> String {
    let path = session.text(&format!("keys/{name}"));
    session.done(&["keys", "new", &path]);
    path
}

fn sign_root(session: &Session, key: &str) -> String {
    let said = session.run(&["root", "sign", "--key", key, "--yes"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.err
}

#[test]
fn a_fleet_can_begin_with_several_root_keys_that_sign_one_after_the_other() {
    let session = Session::new();
    std::fs::create_dir_all(session.path("")).expect("made");
    let (one, two) = (new_key(&session, "one"), new_key(&session, "two"));
    let publics = [format!("{one}.pub"), format!("{two}.pub")];
    session.done(&[
        "root",
        "new",
        "--fleet-id",
        "example",
        "--root-key",
        &publics[0],
        "--root-key",
        &publics[1],
        "--threshold",
        "2",
    ]);
    session.done(&["root", "channel", "stable", "--release-key", &publics[0]]);
    assert!(sign_root(&session, &one).contains("signed by 1 of 2 its own keys; it is not in force yet"));
    assert!(sign_root(&session, &one).contains("1 of 2"), "the same key does not count twice");
    assert!(show(&session)["in_force"].is_null());
    assert!(sign_root(&session, &two).contains("root 1 is in force"));
    session.done(&["root", "verify"]);
    assert_eq!(show(&session)["in_force"]["version"], 1);
}

#[test]
fn a_rotated_key_is_out_and_who_has_the_first_root_follows() {
    let session = Session::initialised();
    session.publish();
    let fresh = new_key(&session, "fresh");
    session.done(&["root", "rotate", &session.text("keys/release.pub"), &format!("{fresh}.pub")]);
    assert!(sign_root(&session, &session.text("keys/root")).contains("root 2 is in force"));
    session.build();
    let old = session.sign("keys/release");
    assert_eq!(old.code, 1);
    assert!(old.err.contains("signs no releases of channel stable"), "{old:?}");
    assert_eq!(session.sign("keys/fresh").code, 0);
    assert_eq!(session.latest().as_deref(), Some("2"));
    let verified = session.verify();
    assert_eq!(verified.code, 0, "{verified:?}");
    assert!(verified.err.contains("by root 2"), "{verified:?}");
    // The release that the old key signed is worth nothing any more.
    let earlier = session.refused(&["release", "verify", "--channel", "stable", "--seq", "1"]);
    assert!(earlier.contains("role release/stable wants 1 signatures and 0 are good"), "{earlier}");
}

#[test]
fn a_new_root_needs_the_keys_of_the_old_one_as_well_as_its_own() {
    let session = Session::initialised();
    let fresh = new_key(&session, "fresh");
    session.done(&["root", "rotate", &session.text("keys/root.pub"), &format!("{fresh}.pub")]);
    let said = sign_root(&session, &fresh);
    assert!(said.contains("0 of 1 keys of root 1, which is in force"), "{said}");
    assert_eq!(show(&session)["in_force"]["version"], 1);
    assert!(sign_root(&session, &session.text("keys/root")).contains("root 2 is in force"));
    session.done(&["root", "verify", "--root", &session.text("served/root/1.json")]);
}

#[test]
fn changes_add_up_until_they_are_signed_and_drop_signatures_for_something_else() {
    let session = Session::initialised();
    let (one, two) = (new_key(&session, "one"), new_key(&session, "two"));
    session.done(&["root", "add-key", &format!("{one}.pub"), "--role", "root", "--role", "release/stable"]);
    session.done(&["root", "threshold", "root", "2"]);
    assert!(sign_root(&session, &one).contains("is not in force yet"));
    let said = session.run(&["root", "add-key", &format!("{two}.pub"), "--role", "release/stable"]);
    assert!(
        said.err.contains("the signatures that it had were for something else and are dropped"),
        "{said:?}"
    );
    session.done(&[
        "root",
        "channel",
        "stable",
        "--threshold",
        "2",
        "--seq-floor",
        "7",
        "--not-before",
        "2026-01-01",
    ]);
    sign_root(&session, &one);
    sign_root(&session, &session.text("keys/root"));
    let root = &show(&session)["in_force"];
    assert_eq!((&root["version"], &root["root"]["threshold"]), (&Value::from(2), &Value::from(2)));
    let stable = &root["channels"]["stable"];
    assert_eq!(stable["release"]["keys"].as_array().expect("keys").len(), 3);
    assert_eq!((&stable["release"]["threshold"], &stable["seq_floor"]), (&Value::from(2), &Value::from(7)));
    // 2026-01-01T00:00:00Z, by `date -d … +%s`.
    assert_eq!(stable["not_before_ms"], 1_767_225_600_000_u64);
}

#[test]
fn a_root_that_no_host_would_take_is_refused_before_anybody_signs_it() {
    let session = Session::initialised();
    let why = session.refused(&["root", "remove-key", &session.text("keys/root.pub")]);
    assert!(why.contains("role root wants 1 signatures and has 0 keys"), "{why}");
    let why = session.refused(&["root", "threshold", "release/stable", "0"]);
    assert!(why.contains("has the threshold 0"), "{why}");
    let why = session.refused(&["root", "threshold", "release/stabel", "1"]);
    assert!(why.contains("did you mean `stable`?"), "{why}");
    assert!(show(&session)["next"].is_null());
}

#[test]
fn a_root_in_a_file_is_shown_if_its_own_keys_have_signed_it() {
    let session = Session::initialised();
    let file = session.text("served/root/1.json");
    assert!(session.done(&["root", "show", &file]).contains("root 1 of fleet example (as the file says)"));
    let unsigned = session.read("served/root/1.json");
    let at = unsigned.find("\"signatures\"").expect("an envelope has them");
    session.write("other.json", &format!("{}\"signatures\":[]}}\n", &unsigned[..at]));
    assert!(
        session
            .refused(&["root", "show", &session.text("other.json")])
            .contains("too few of the root's own keys have signed it")
    );
}

#[test]
fn a_dropped_root_leaves_nothing_behind() {
    let session = Session::initialised();
    session.done(&["root", "renew", "--expires-in", "3y"]);
    assert_eq!(show(&session)["next"]["root"]["version"], 2);
    session.done(&["root", "discard"]);
    assert!(show(&session)["next"].is_null());
    assert!(session.refused(&["root", "discard"]).contains("there is no next root to drop"));
}

#[test]
fn a_next_root_that_is_in_force_is_forgotten_and_one_that_came_too_late_is_told_apart() {
    let session = Session::initialised();
    session.done(&["root", "renew", "--expires-in", "3y"]);
    let late = session.read("pending/root.json");
    session.done(&["root", "renew", "--expires-in", "4y"]);
    sign_root(&session, &session.text("keys/root"));
    // As after a crash between serving the root and dropping the file.
    session.write("pending/root.json", &session.read("served/root/2.json"));
    assert!(show(&session)["next"].is_null());
    session.write("pending/root.json", &late);
    let why = session.refused(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
    assert!(
        why.contains("the next root has version 2, and 2 is in force") && why.contains("root discard"),
        "{why}"
    );
}

#[test]
fn an_expired_root_is_told_and_can_be_renewed() {
    let session = Session::new();
    session.done(&["init", "--fleet-id", "example", "--expires-in", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let why = session.refused(&["root", "verify"]);
    assert!(why.contains("root 1 expired on") && why.contains("root renew"), "{why}");
    session.done(&["root", "renew"]);
    sign_root(&session, &session.text("keys/root"));
    session.done(&["root", "verify"]);
}
