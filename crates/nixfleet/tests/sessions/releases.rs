//! Releases: built, published only when enough have signed, compared, and refused when somebody touched them.

use nixfleet_sys::exec::Cmd;
use serde_json::Value;

use crate::support::{NIXFLEET, Session, said, system};

#[test]
fn nothing_is_published_before_enough_different_keys_have_signed() {
    let session = Session::initialised();
    let second = session.text("keys/second");
    session.done(&["keys", "new", &second, "--type", "p256"]);
    let public = format!("{second}.pub");
    session.done(&["root", "channel", "stable", "--release-key", &public, "--threshold", "2"]);
    session.done(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
    session.build();
    for _ in 0..2 {
        let said = session.sign("keys/release");
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.err.contains("is signed by 1 of 2; it is not published yet"), "{said:?}");
        assert_eq!(session.latest(), None);
    }
    let said = session.sign("keys/second");
    assert!(said.err.contains("release stable/1 is published"), "{said:?}");
    assert_eq!(session.verify().code, 0);
}

#[test]
fn a_number_is_never_used_twice_not_even_that_of_a_release_that_nobody_signed() {
    let session = Session::initialised();
    assert_eq!(session.build(), "stable/1\n");
    assert_eq!(session.build(), "stable/2\n");
    let closures = session.text("closures.json");
    let build = |seq| {
        session.run(&["release", "build", "--channel", "stable", "--path-info", &closures, "--seq", seq])
    };
    assert!(build("2").err.contains("release 2 would not be higher than the last, 2"));
    assert_eq!(build("10").code, 0);
    assert_eq!(session.build(), "stable/11\n");
}

#[test]
fn a_signed_release_that_was_not_published_can_be() {
    let session = Session::initialised();
    session.build();
    let words = ["release", "publish", "--channel", "stable"];
    let said = session.run(&words);
    assert_eq!((said.code, session.latest()), (0, None), "{said:?}");
    assert!(said.err.contains("signed by 0 of 1"), "{said:?}");
    session.sign("keys/release");
    // As after a crash between the signature and `latest`.
    std::fs::remove_file(session.path("served/channels/stable/latest")).expect("removed");
    assert_eq!(session.done(&words), "stable/1\n");
    assert_eq!(session.verify().code, 0);
}

#[test]
fn what_is_published_never_goes_back() {
    let session = Session::initialised();
    session.build();
    session.publish();
    let key = session.text("keys/release");
    let said = session.run(&["release", "sign", "--channel", "stable", "--seq", "1", "--key", &key, "--yes"]);
    assert!(said.err.contains("a newer one is published already"), "{said:?}");
    session.build();
    assert_eq!(session.done(&["release", "list", "-o", "name"]), "stable/1\nstable/2\nstable/3\n");
    let listed: Value =
        serde_json::from_str(&session.done(&["release", "list", "-o", "json"])).expect("JSON");
    let states: Vec<_> =
        listed["releases"].as_array().expect("a list").iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["superseded", "published", "unpublished"]);
    assert_eq!(session.latest().as_deref(), Some("2"));
}

#[test]
fn each_release_names_the_one_that_was_published_before_it() {
    let session = Session::initialised();
    session.publish();
    let first: Value = shown(&session, "1");
    session.build();
    session.publish();
    assert_eq!(shown(&session, "1")["release"].get("previous"), None);
    for seq in ["2", "3"] {
        assert_eq!(
            shown(&session, seq)["release"]["previous"],
            first["digest"],
            "release 2 was never published"
        );
    }
}

fn shown(session: &Session, seq: &str) -> Value {
    let out = session.done(&["release", "show", "--channel", "stable", "--seq", seq, "-o", "json"]);
    serde_json::from_str(&out).expect("JSON")
}

#[test]
fn an_entry_that_somebody_touched_is_found_by_verifier_and_signer() {
    let session = Session::initialised();
    session.publish();
    let entry = "served/channels/stable/1/hosts/web-1.json";
    let good = session.read(entry);
    let other = session.read("served/channels/stable/1/hosts/web-2.json");
    session.write(entry, &other);
    assert!(session.verify().err.contains("in the place of host web-1 stands web-2"));
    session.write(entry, &good.replacen("\"index\":0", "\"index\":1", 1));
    assert!(session.verify().err.contains("the entry is not part of release stable/1"));
    std::fs::remove_file(session.path(entry)).expect("removed");
    assert!(session.verify().err.contains("is for 2 hosts, and 1 entries are there"));
    let said = session.sign("keys/release");
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("the entries of release stable/1 are not those that it was made of"),
        "{said:?}"
    );
}

#[test]
fn a_signature_needs_a_yes_and_nobody_is_asked_without_a_terminal() {
    let session = Session::initialised();
    session.build();
    let key = session.text("keys/release");
    let why = session.refused(&["release", "sign", "--channel", "stable", "--key", &key]);
    assert!(
        why.contains("wave        all: 2 hosts")
            && why.contains("nobody can be asked")
            && why.contains("`--yes`"),
        "{why}"
    );
    assert_eq!(session.latest(), None);
}

#[test]
fn a_person_at_a_terminal_is_asked() {
    let session = Session::initialised();
    session.build();
    let line = format!(
        "{NIXFLEET} -C {} release sign --channel stable --key {}",
        session.text(""),
        session.text("keys/release")
    );
    let answer = |answer: &str| {
        let script =
            Cmd::new("/usr/bin/script").args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        said(script.env("PATH", "/usr/bin:/bin").stdin(answer).run_blocking())
    };
    let no = answer("n\n");
    assert!(no.code == 1 && no.out.contains("[y/N]") && no.out.contains("the answer was no"), "{no:?}");
    assert_eq!(session.latest(), None);
    let yes = answer("y\n");
    assert_eq!((yes.code, session.latest().as_deref()), (0, Some("1")), "{yes:?}");
}

#[test]
fn a_diff_says_who_moves_and_which_rules_changed_and_what_is_not_known() {
    let session = Session::initialised();
    session.publish();
    session.describe(&[("web-1", &system('0', "1")), ("web-3", &system('2', "2"))]);
    let changed = session.read("fleet.json").replace("\"soak\":\"0s\"", "\"soak\":\"1m\"");
    session.write("fleet.json", &changed.replace("{\"waves\"", "{\"max_failures\":3,\"waves\""));
    session.build();
    let diff = session.done(&["release", "diff", "--channel", "stable"]);
    for line in [
        "1 host gets another system, 1 keeps its own",
        "+ hosts       web-3",
        "- hosts       web-2",
        "~ policy.max_failures: 0 -> 3",
        "~ policy.waves[0].soak_secs: 0 -> 60",
        "package       unknown for 1 host: a closure is not on this machine (ask a cache with `--from`)",
    ] {
        assert!(diff.lines().any(|found| found == line), "{line}\n---\n{diff}");
    }
    assert_eq!(session.done(&["release", "diff", "--channel", "stable", "-o", "name"]), "web-3\n");
    let json: Value =
        serde_json::from_str(&session.done(&["release", "diff", "--channel", "stable", "-o", "json"]))
            .expect("JSON");
    assert_eq!((&json["version"], &json["unchanged"]), (&Value::from(1), &Value::from(1)));
    assert!(json["steps"][0]["packages"].is_null());
}

#[test]
fn the_same_description_gives_the_same_entries() {
    let session = Session::initialised();
    session.build();
    session.build();
    assert_eq!(shown(&session, "1")["entries"], shown(&session, "2")["entries"]);
    assert_eq!(
        shown(&session, "1")["release"]["entries_root"],
        shown(&session, "2")["release"]["entries_root"]
    );
}
