//! `init` and `keys`.

use std::os::unix::fs::PermissionsExt;

use nixfleet_sys::exec::Cmd;
use serde_json::Value;

use crate::support::{NIXFLEET, Session, said, ssh, ssh_is_here};

fn mode(session: &Session, below: &str) -> u32 {
    std::fs::metadata(session.path(below)).expect(below).permissions().mode() & 0o7777
}

#[test]
fn a_new_fleet_folder_works_with_the_three_commands_that_it_prints() {
    let session = Session::new();
    let printed = session.done(&["init", "--fleet-id", "example"]);
    let commands: Vec<Vec<&str>> = printed.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(commands.len(), 3, "{printed}");
    session.describe(&[("web-1", &crate::support::system('0', "1"))]);
    for command in &commands {
        assert_eq!(command[0], "nixfleet");
        let mut words = command[1..].to_vec();
        let closures = session.text("closures.json");
        if words.contains(&"build") {
            words.extend(["--path-info", &closures]);
        }
        if words.contains(&"sign") {
            words.push("--yes");
        }
        let ended = said(Cmd::new(NIXFLEET).args(&words).run_blocking());
        assert_eq!(ended.code, 0, "{words:?}: {ended:?}");
    }
    assert_eq!(session.latest().as_deref(), Some("1"));
}

#[test]
fn the_example_that_init_writes_is_a_description_without_faults() {
    let session = Session::new();
    session.done(&["init", "--fleet-id", "example", "--channel", "edge"]);
    assert_eq!(session.done(&["check", "-o", "name"]), "web-1\n");
}

#[test]
fn init_says_what_nix_would_copy_where_no_git_is_told_to_leave_the_keys_out() {
    let session = Session::new();
    let init = ["init", "--fleet-id", "example"];
    let said = session.run(&init);
    assert!(said.code == 0 && said.err.contains("is in no git tree"), "{said:?}");
    std::fs::remove_dir_all(session.path("")).expect("removed");
    std::fs::create_dir(session.beside(".git")).expect("made");
    let said = session.run(&init);
    assert!(said.code == 0 && !said.err.contains("git tree"), "{said:?}");
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let session = Session::new();
    std::fs::create_dir_all(session.path("")).expect("made");
    session.write("precious", "x");
    let why = session.refused(&["init"]);
    assert!(why.contains("is not empty: it has `precious`") && why.contains("hint: "), "{why}");
    assert_eq!(std::fs::read_dir(session.path("")).expect("a folder").count(), 1);
}

#[test]
fn private_keys_are_for_their_owner_and_what_is_served_is_for_all() {
    let session = Session::initialised();
    session.publish();
    for (below, wanted) in [
        ("keys", 0o700),
        ("keys/root", 0o600),
        ("keys/release", 0o600),
        ("keys/release.pub", 0o644),
        ("served", 0o755),
        ("served/root/1.json", 0o644),
        ("served/channels/stable/1/hosts", 0o755),
        ("served/channels/stable/1/hosts/web-1.json", 0o644),
        ("served/channels/stable/1/release.json", 0o644),
        ("served/channels/stable/latest", 0o644),
    ] {
        assert_eq!(mode(&session, below), wanted, "{below}");
    }
}

#[test]
fn a_key_file_that_others_can_read_is_not_used() {
    let session = Session::initialised();
    session.build();
    let path = session.path("keys/release");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let said = session.sign("keys/release");
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("can be read by others (mode 0644)") && said.err.contains("chmod 600"),
        "{said:?}"
    );
    assert_eq!(session.latest(), None);
}

#[test]
fn keys_are_named_as_openssh_names_them_and_never_overwritten() {
    if !ssh_is_here() {
        return;
    }
    let session = Session::new();
    for kind in ["ed25519", "p256"] {
        let path = session.beside(kind);
        let id = session.done(&["keys", "new", &path, "--type", kind, "--comment", "for tests"]);
        assert_eq!(session.done(&["keys", "show", &path, "-o", "name"]), id, "by its private half");
        assert_eq!(session.done(&["keys", "show", &format!("{path}.pub"), "-o", "name"]), id);
        for file in [path.clone(), format!("{path}.pub")] {
            let listed = said(Cmd::new(ssh("ssh-keygen")).args(["-l", "-f", &file]).run_blocking()).out;
            assert!(listed.contains(id.trim()) && listed.contains("for tests"), "{listed}");
        }
        let before = std::fs::read(&path).expect("the key");
        assert!(session.refused(&["keys", "new", &path]).contains("is there already"));
        assert_eq!(std::fs::read(&path).expect("the key"), before);
    }
}

#[test]
fn no_verb_prints_a_private_key() {
    let session = Session::initialised();
    session.publish();
    let secret = session.read("keys/release");
    // Any line of the middle of the file: the first ones are the same in every key.
    let line = secret.lines().nth(3).expect("a key has many lines").to_owned();
    let key = session.text("keys/release");
    for words in [
        vec!["keys", "show", &key],
        vec!["keys", "show", &key, "-o", "json"],
        vec!["root", "show", "-o", "json"],
        vec!["release", "show", "--channel", "stable", "-o", "json"],
        vec!["release", "sign", "--channel", "stable", "--key", &key, "--yes"],
        vec!["root", "add-key", &key, "--role", "root"],
    ] {
        let said = session.run(&words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        assert!(!said.out.contains(&line) && !said.err.contains(&line), "{words:?}");
    }
}

#[test]
fn completions_and_manual_pages_come_from_the_command_line_itself() {
    let session = Session::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(session.done(&["completions", shell]).contains("add-key"), "{shell}");
    }
    let folder = session.beside("man");
    std::fs::create_dir(&folder).expect("made");
    session.done(&["man", &folder]);
    let page = std::fs::read_to_string(format!("{folder}/nixfleet-release-build.1")).expect("a page");
    assert!(page.contains("path\\-info"), "{page}");
}

#[test]
fn a_call_without_a_meaning_ends_with_2_and_help_with_0() {
    let session = Session::new();
    for (words, code) in [
        (vec!["frobnicate"], 2),
        (vec!["release", "sign", "--channel", "stable", "--key", "a", "--agent"], 2),
        (vec!["release", "build", "--channel", "Not A Channel"], 2),
        (vec!["release", "build", "--help"], 0),
    ] {
        assert_eq!(session.run(&words).code, code, "{words:?}");
    }
}

#[test]
fn a_program_that_reads_json_gets_one_object_for_whatever_is_refused_and_people_get_words() {
    let session = Session::initialised();
    for (words, code, kind) in [
        (vec!["release", "show", "--channel", "stable", "-o", "json"], 1, "refused"),
        (vec!["hosts", "--server", "https://localhost:1", "-o", "json"], 2, "usage"),
        (vec!["hosts", "--frobnicate", "--output=json"], 2, "usage"),
    ] {
        let said = session.run(&words);
        let read: Value = serde_json::from_str(&said.out).expect("one object");
        let error = &read["error"];
        assert_eq!(
            (said.code, &read["version"], &error["kind"]),
            (code, &1.into(), &kind.into()),
            "{said:?}"
        );
        assert_eq!(error["code"], code, "{said:?}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && said.err.contains(&format!("error: {message}")), "{said:?}");
    }
    let said = session.run(&["hosts", "--frobnicate", "-o", "name"]);
    assert_eq!((said.code, said.out.as_str()), (2, ""), "nobody asked for JSON");
}
