//! Releases: built, published only when enough have signed, compared, and refused when somebody touched them.

use nixfleet_sys::exec::Cmd;
use serde_json::Value;

use crate::support::{NIXFLEET, Session, git, said, system};

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

/// The channel's numbers with how each stands.
fn states(session: &Session) -> Vec<(String, String)> {
    let out = session.done(&["release", "list", "-o", "json"]);
    let listed: Value = serde_json::from_str(&out).expect("JSON");
    let listed = listed["releases"].as_array().expect("a list").iter();
    listed.map(|one| (one["seq"].to_string(), one["state"].as_str().unwrap_or_default().to_owned())).collect()
}

/// A release of that number, built and signed by this key.
fn publish_as(session: &Session, seq: &str, key: &str) {
    let closures = session.text("closures.json");
    session.done(&["release", "build", "--channel", "stable", "--path-info", &closures, "--seq", seq]);
    let signed = session.sign(key);
    assert!(signed.code == 0 && signed.err.contains("is published"), "{signed:?}");
}

/// The owner sets the channel back, and nobody but this key signs its releases any more.
fn set_back(session: &Session) {
    session.done(&["root", "channel", "stable", "--reset-floor"]);
    session.done(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
}

#[test]
fn after_a_stolen_key_signed_the_highest_number_the_owner_sets_the_channel_back_and_goes_on_below() {
    let session = Session::initialised();
    session.publish();
    publish_as(&session, "9000000", "keys/release");
    let fresh = session.text("keys/fresh");
    session.done(&["keys", "new", &fresh]);
    session.done(&["root", "rotate", &session.text("keys/release.pub"), &format!("{fresh}.pub")]);
    set_back(&session);
    assert_eq!(session.build(), "stable/2\n", "the lowest number that means nothing yet");
    let said = session.sign("keys/fresh");
    assert!(said.err.contains("release stable/2 is published"), "{said:?}");
    assert_eq!(session.latest().as_deref(), Some("2"));
    assert_eq!(session.verify().code, 0, "who has the first root follows");
    let stand = |seq: &str, state: &str| (seq.to_owned(), state.to_owned());
    let expected = [stand("1", "set-back"), stand("2", "published"), stand("9000000", "set-back")];
    assert_eq!(states(&session), expected);
    let closures = session.text("closures.json");
    let build = |seq| {
        session.refused(&["release", "build", "--channel", "stable", "--path-info", &closures, "--seq", seq])
    };
    assert!(build("2").contains("would not be higher than the last, 2"));
    assert!(build("9000000").contains("there is a release 9000000 from before the channel was set back"));
    let diff = session.done(&["release", "diff", "--channel", "stable"]);
    assert!(diff.contains("keep"), "it is compared with what hosts were given before: {diff}");
    session.publish_with("keys/fresh");
    assert_eq!(session.latest().as_deref(), Some("3"), "from there on numbers go up");
    let older = ["release", "publish", "--channel", "stable", "--seq", "2"];
    assert!(session.run(&older).err.contains("a newer one is published already"));
}

#[test]
fn a_number_that_was_a_mistake_of_the_owners_is_in_nobodys_way_once_the_channel_is_set_back() {
    let session = Session::initialised();
    publish_as(&session, "9000000", "keys/release");
    set_back(&session);
    session.publish();
    assert_eq!(session.latest().as_deref(), Some("1"));
    assert_eq!(session.verify().code, 0);
}

#[test]
fn no_release_is_below_the_floor_that_the_root_says() {
    let session = Session::initialised();
    session.done(&["root", "channel", "stable", "--seq-floor", "40"]);
    session.done(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
    let closures = session.text("closures.json");
    let words = ["release", "build", "--channel", "stable", "--path-info", &closures, "--seq", "7"];
    assert!(session.refused(&words).contains("no host takes release 7: by the root, the lowest is 40"));
    assert_eq!(session.build(), "stable/40\n");
}

#[test]
fn where_channels_follow_one_another_a_release_names_its_source() {
    let session = Session::initialised();
    let described = session.read("fleet.json");
    let apps = r#""apps":{"after":["stable"],"policy":{"waves":[{"name":"all","soak":"0s"}]}},"stable":"#;
    session.write("fleet.json", &described.replacen("\"stable\":", apps, 1));
    let public = session.text("keys/release.pub");
    session.done(&["root", "channel", "apps", "--release-key", &public]);
    session.done(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
    let closures = session.text("closures.json");
    for channel in ["stable", "apps"] {
        let build = ["release", "build", "--channel", channel, "--path-info", &closures];
        for unsaid in [&[][..], &["--revision", "none"]] {
            let refused = session.refused(&[&build[..], unsaid].concat());
            let wants = format!("a release of channel {channel} needs a source revision");
            assert!(refused.contains(&wants), "{refused}");
            assert!(refused.contains("channel apps waits until stable has converged"), "{refused}");
        }
    }
    let build =
        ["release", "build", "--channel", "stable", "--path-info", &closures, "--revision", "9c1f2e4"];
    session.done(&build);
    assert_eq!(shown(&session, "1")["release"]["revision"], "9c1f2e4");
}

#[test]
fn what_is_built_and_not_committed_is_said_where_a_revision_is() {
    let session = Session::initialised();
    if git(&session, &["init", "--quiet"]).is_none() {
        return;
    }
    session.publish();
    git(&session, &["add", "fleet.json", "served"]);
    git(&session, &["commit", "--quiet", "-m", "all hosts"]);
    let closures = session.text("closures.json");
    let build =
        ["release", "build", "--channel", "stable", "--path-info", &closures, "--revision", "9c1f2e4"];
    let clean = session.run(&build);
    assert!(clean.code == 0 && !clean.err.contains("warning"), "{clean:?}");
    session.sign("keys/release");
    let served = session.run(&build);
    assert!(served.code == 0 && !served.err.contains("warning"), "what is served is no source: {served:?}");
    session.describe(&[("web-1", &system('0', "2"))]);
    let dirty = session.run(&build);
    assert!(dirty.err.contains("warning: `fleet.json` differs from what is committed"), "{dirty:?}");
    assert_eq!(dirty.code, 0, "it is said, and not forbidden");
}

/// Changes what an unsigned release says, as somebody can who writes to the folder and has no key.
fn forge(session: &Session, seq: &str, change: impl FnOnce(&mut Value)) {
    use data_encoding::BASE64;
    let below = format!("served/channels/stable/{seq}/release.json");
    let text = session.read(&below);
    let envelope: Value = serde_json::from_str(&text).expect("JSON");
    let payload = envelope["payload"].as_str().expect("a text");
    let bytes = BASE64.decode(payload.as_bytes()).expect("base64");
    let mut release: Value = serde_json::from_slice(&bytes).expect("JSON");
    change(&mut release);
    // In its own form: compact, and the fields where they were.
    session.write(&below, &text.replace(payload, &BASE64.encode(release.to_string().as_bytes())));
}

const SIGN: [&str; 5] = ["release", "sign", "--channel", "stable", "--key"];

#[test]
fn a_signer_sees_what_changes_for_hosts_and_not_what_the_unsigned_release_says_of_the_one_before_it() {
    let session = Session::initialised();
    session.publish();
    session.describe(&[("web-1", &system('0', "1")), ("web-2", &system('2', "2"))]);
    session.build();
    let key = session.text("keys/release");
    let asked = session.refused(&[&SIGN[..], &[&key]].concat());
    assert!(asked.contains("1 host gets another system") && !asked.contains("warning"), "{asked}");
    let other = format!("sha256:{}", "a".repeat(64));
    for named in [Value::from(other.as_str()), Value::Null] {
        forge(&session, "2", |release| {
            release.as_object_mut().expect("an object").remove("previous");
            if named.is_string() {
                release["previous"] = named.clone();
            }
        });
        let asked = session.refused(&[&SIGN[..], &[&key]].concat());
        assert!(asked.contains("warning: the newest signed release before it is stable/1"), "{asked}");
        assert!(asked.contains(named.as_str().unwrap_or("names none as the one before it")), "{asked}");
        assert!(asked.contains("1 host gets another system, 1 keeps its own"), "{asked}");
    }
    let said = session.sign("keys/release");
    let fork = "warning: release stable/2 names another release than stable/1 as the one before it";
    assert!(said.code == 0 && said.err.contains(fork), "{said:?}");
    let verified = session.verify();
    assert!(verified.code == 0 && verified.err.contains(fork), "{verified:?}");
}

#[test]
fn what_nobody_signed_is_no_measure_for_what_is_signed_whatever_latest_says() {
    let session = Session::initialised();
    session.publish();
    session.describe(&[("web-1", &system('2', "6")), ("web-2", &system('2', "6"))]);
    let closures = session.text("closures.json");
    for seq in ["6", "7"] {
        session.done(&["release", "build", "--channel", "stable", "--path-info", &closures, "--seq", seq]);
    }
    let sixth = shown(&session, "6")["digest"].clone();
    forge(&session, "7", |release| release["previous"] = sixth);
    let root = session.text("served/root/1.json");
    let key = session.text("keys/release");
    let sign = [&SIGN[..], &[&key]].concat();
    let diff = ["release", "diff", "--channel", "stable"];
    for (latest, warns) in [
        ("1", None),
        ("6", Some("hosts are pointed to release stable/6, and not enough keys of root 1 have signed it")),
        ("7", Some("hosts are pointed to release stable/7, the very one that is shown here, and not enough")),
    ] {
        session.write("served/channels/stable/latest", &format!("{latest}\n"));
        for words in [&sign[..], &[&sign[..], &["--root", &root]].concat()] {
            let asked = session.refused(words);
            assert!(asked.contains("2 hosts get another system, 0 keep theirs"), "{latest}: {asked}");
            assert!(asked.contains("warning: the newest signed release before it is stable/1"), "{asked}");
            assert!(asked.contains("it is compared with stable/1"), "{asked}");
            assert!(asked.contains("against     stable/1, the newest signed before it:"), "{asked}");
            assert!(warns.is_none_or(|warns| asked.contains(warns)), "{latest}: {asked}");
            assert_eq!(asked.contains("hosts are pointed to"), warns.is_some(), "{latest}: {asked}");
        }
        assert!(session.done(&diff).contains("2 hosts get another system"), "{latest}");
    }
}

#[test]
fn a_release_of_keys_that_sign_no_more_is_no_measure_either() {
    let session = Session::initialised();
    session.publish();
    let fresh = session.text("keys/fresh");
    session.done(&["keys", "new", &fresh]);
    session.done(&["root", "rotate", &session.text("keys/release.pub"), &format!("{fresh}.pub")]);
    session.done(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
    session.build();
    let asked = session.refused(&[&SIGN[..], &[&fresh]].concat());
    let warning =
        "warning: hosts are pointed to release stable/1, and not enough keys of root 2 have signed it";
    assert!(asked.contains(warning) && asked.contains("it is compared with nothing"), "{asked}");
    let chosen = session.done(&["release", "diff", "--channel", "stable", "--against", "1"]);
    assert!(chosen.contains("0 hosts get another system"), "{chosen}");
}

#[test]
fn a_release_that_follows_is_no_fork() {
    let session = Session::initialised();
    session.publish();
    session.publish();
    let verified = session.verify();
    assert!(verified.code == 0 && !verified.err.contains("warning"), "{verified:?}");
}

#[test]
fn what_others_wrote_into_a_release_moves_no_cursor_and_looks_like_no_line_of_ours() {
    let session = Session::initialised();
    session.build();
    let name = "ci\u{1b}[2A\nsignatures  2 of 2 needed";
    forge(&session, "1", |release| {
        release["info"] = serde_json::json!({ name: "x\u{202e}y\u{9b}2J" });
    });
    let asked = session.refused(&[&SIGN[..], &[&session.text("keys/release")]].concat());
    let diff = session.done(&["release", "diff", "--channel", "stable"]);
    for said in [&asked, &diff] {
        let line = said.lines().find(|line| line.contains("info.")).expect(said);
        assert!(
            line.contains(r"2A\nsignatures  2 of 2 needed") && line.ends_with(r#"none -> "xy2J""#),
            "{line}"
        );
        assert!(!said.lines().any(|line| line.starts_with("signatures  2 of 2")), "{said}");
        assert!(!said.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{said:?}");
    }
}

#[test]
fn other_contents_under_the_same_path_are_shown_before_anybody_signs() {
    let session = Session::initialised();
    session.publish();
    let closures = session.read("closures.json");
    session.write("closures.json", &closures.replace("\"narSize\":24", "\"narSize\":25"));
    session.build();
    let diff = session.done(&["release", "diff", "--channel", "stable"]);
    assert!(diff.contains("0 hosts get another system, 2 keep theirs"), "{diff}");
    let line = diff.lines().find(|line| line.starts_with("! contents")).expect(&diff);
    assert!(line.ends_with(": web-1, web-2"), "{line}");
    let json = session.done(&["release", "diff", "--channel", "stable", "-o", "json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["other_contents"], serde_json::json!(["web-1", "web-2"]));
}
