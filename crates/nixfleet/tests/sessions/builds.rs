//! How Nix is run: a stand-in for it, a program with a script, shows what it was asked and behaves badly on purpose.

use std::path::Path;
use std::time::{Duration, Instant};

use nixfleet_sys::exec::{Cmd, ExecError};
use nixfleet_sys::fs;
use serde_json::json;

use crate::support::{HOST_KEYS, Said, Session, git, said, system};

/// Puts a stand-in for `nix` beside the fleet folder; `$LOG` takes what it was asked. `nix-store` is always content.
fn stand_in(session: &Session, script: &str) {
    let folder = session.beside("bin");
    std::fs::create_dir_all(&folder).expect("made");
    let head = format!("#!/bin/sh\nLOG={}\necho \"$@\" >> \"$LOG\"\n", session.beside("log"));
    for (name, script) in [("nix", script), ("nix-store", "exit 0")] {
        let path = Path::new(&folder).join(name);
        fs::write_atomic_mode(&path, format!("{head}{script}\n").as_bytes(), 0o755).expect("written");
    }
}

fn describe(session: &Session, systems: [&str; 2]) {
    let host = |system: &str, key: &str| json!({ "channel": "stable", "system": system, "key": key });
    let fleet = json!({
        "fleet": "example",
        "channels": { "stable": { "policy": { "waves": [{ "name": "all", "soak": "0s" }] } } },
        "hosts": { "web-1": host(systems[0], HOST_KEYS[0]), "web-2": host(systems[1], HOST_KEYS[1]) },
    });
    session.write("fleet.json", &fleet.to_string());
}

fn build(session: &Session, after: Duration, more: &[&str]) -> Result<Said, ExecError> {
    let path = format!("{}:/usr/bin:/bin", session.beside("bin"));
    let words = [&["release", "build", "--channel", "stable"], more].concat();
    session.verb(&words).env("PATH", path).deadline(after).run_blocking().map(|finished| said(Ok(finished)))
}

fn log(session: &Session) -> String {
    std::fs::read_to_string(session.beside("log")).unwrap_or_default()
}

/// Answers each `build` with a path of its own, and `path-info` with both.
fn content(one: &str, two: &str) -> String {
    let hash = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
    let info = |size: u32| json!({ "narHash": hash, "narSize": size, "references": [] });
    let infos = json!({ one: info(10), two: info(20) });
    format!(
        "case \"$*\" in\n\
         *path-info*) echo '{infos}';;\n\
         *'#one'*) echo '[{{\"outputs\":{{\"out\":\"{one}\"}}}}]';;\n\
         *'#two'*) echo '[{{\"outputs\":{{\"out\":\"{two}\"}}}}]';;\n\
         esac"
    )
}

#[test]
fn installables_are_built_from_the_folder_of_the_description_and_linked() {
    let session = Session::initialised();
    describe(&session, [".#one", ".#two"]);
    stand_in(&session, &format!("pwd >> \"$LOG\"\n{}", content(&system('0', "1"), &system('1', "2"))));
    let said = build(&session, Duration::from_mins(1), &[]).expect("it ends");
    assert_eq!(said.code, 0, "{said:?}");
    let log = log(&session);
    assert!(log.lines().any(|line| line == session.text("").trim_end_matches('/')), "{log}");
    assert_eq!(log.matches("build --json --out-link").count(), 2, "{log}");
    assert!(log.contains("/roots/stable/"), "{log}");
    assert_eq!(
        log.matches("path-info --json --recursive").count(),
        1,
        "both closures in one question: {log}"
    );
}

#[test]
fn nix_sees_the_credentials_of_caches_and_the_way_out_and_no_token_of_ours() {
    let session = Session::initialised();
    describe(&session, [".#one", ".#two"]);
    stand_in(&session, &format!("env >> \"$LOG\"\n{}", content(&system('0', "1"), &system('1', "2"))));
    let path = format!("{}:/usr/bin:/bin", session.beside("bin"));
    let build = session.verb(&["release", "build", "--channel", "stable"]).env("PATH", path);
    let build = build
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SESSION_TOKEN", "session")
        .env("all_proxy", "socks5://out")
        .env("no_proxy", "inside")
        .env("NIXFLEET_TOKEN", "secret");
    assert_eq!(said(build.run_blocking()).code, 0);
    let log = log(&session);
    for line in
        ["AWS_ACCESS_KEY_ID=id", "AWS_SESSION_TOKEN=session", "all_proxy=socks5://out", "no_proxy=inside"]
    {
        assert!(log.lines().any(|found| found == line), "{line}: {log}");
    }
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_nix_that_was_in_the_way_of_another_one_is_asked_once_more_and_no_other() {
    let session = Session::initialised();
    describe(&session, [".#one", ".#two"]);
    let refused = "error: executing SQLite statement 'insert': constraint failed (in '/root/.cache/nix/binary-cache-v6.sqlite')";
    let content = content(&system('0', "1"), &system('1', "2"));
    let once = format!(
        "case \"$*\" in *'#one'*) if mkdir \"$LOG.tried\" 2>/dev/null; then echo \"{refused}\" >&2; exit 1; fi;; esac\n{content}"
    );
    stand_in(&session, &once);
    let done = build(&session, Duration::from_mins(1), &[]).expect("it ends");
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(log(&session).matches("build --json --out-link").count(), 3, "{}", log(&session));
    stand_in(&session, &format!("case \"$*\" in *build*) echo \"{refused}\" >&2; exit 1;; esac\n{content}"));
    let always = build(&session, Duration::from_mins(1), &[]).expect("it ends");
    assert_eq!(always.code, 1, "{always:?}");
    assert!(always.err.contains("binary-cache-v6.sqlite"), "{always:?}");
}

#[test]
fn all_failures_are_told_and_what_is_an_option_is_never_taken_for_one() {
    let session = Session::initialised();
    describe(&session, [".#one", ".#two"]);
    stand_in(&session, "echo \"no such thing\" >&2; exit 1");
    let said = build(&session, Duration::from_mins(1), &[]).expect("it ends");
    assert_eq!(said.code, 1, "{said:?}");
    for words in [".#one cannot be had", ".#two cannot be had", "no such thing", "2 systems could not be had"]
    {
        assert!(said.err.contains(words), "{words}: {said:?}");
    }
    assert!(log(&session).lines().all(|line| line.contains(" -- .#")), "{}", log(&session));
    assert!(!session.path("served/channels").exists());
}

#[test]
fn a_build_that_takes_too_long_is_ended() {
    let session = Session::initialised();
    describe(&session, [".#one", ".#two"]);
    stand_in(&session, "exec sleep 600");
    let started = Instant::now();
    let said = build(&session, Duration::from_mins(1), &["--deadline", "1s"]).expect("it ends");
    assert_eq!(said.code, 1);
    assert!(said.err.contains("its deadline"), "{said:?}");
    assert!(started.elapsed() < Duration::from_mins(5));
}

#[test]
fn nix_ends_with_a_build_that_is_told_to_end() {
    let session = Session::initialised();
    describe(&session, [".#one", ".#two"]);
    stand_in(&session, "echo \"pid $$\" >> \"$LOG\"\nexec sleep 600");
    let ended = told_to_end(&session);
    assert!(ended.code == 1 && ended.err.contains("told to end"), "{ended:?}");
    let log = log(&session);
    let pids: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("pid ")).collect();
    assert_eq!(pids.len(), 2, "{log}");
    let until = Instant::now() + Duration::from_mins(1);
    let alive = || pids.iter().any(|pid| is_running(pid));
    while alive() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!alive(), "Nix is still there");
}

/// A build that gets SIGTERM when both Nix are there, and takes the time that it needs.
fn told_to_end(session: &Session) -> Said {
    let verb = session.verb(&["release", "build", "--channel", "stable"]).line();
    let both = format!("[ \"$(grep -c '^pid ' '{}' 2>/dev/null)\" = 2 ]", session.beside("log"));
    let script =
        format!("{verb} & build=$!; until {both}; do sleep 0.05; done; kill -TERM $build; wait $build");
    let path = format!("{}:/usr/bin:/bin", session.beside("bin"));
    let shell =
        Cmd::new("/bin/sh").args(["-c", &script]).env("PATH", path).env("HOME", session.beside("home"));
    said(shell.deadline(Duration::from_mins(2)).run_blocking())
}

/// A process that has ended and that nobody has waited for yet has no command line.
fn is_running(pid: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn no_private_key_is_in_a_folder_that_nix_copies_whole_into_its_store() {
    let session = Session::initialised();
    session.write("flake.nix", "{ outputs = { self }: { }; }");
    stand_in(&session, &content(&system('0', "1"), &system('1', "2")));
    let build = || build(&session, Duration::from_mins(1), &[]).expect("it ends");
    let here = session.text("");
    for flake in [".", "path:.", here.as_str()] {
        describe(&session, [&format!("{flake}#one"), &format!("{flake}#two")]);
        let said = build();
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
        assert!(said.err.contains("/keys/release` is a private key"), "{said:?}");
        assert!(said.err.contains("/nix/store") && said.err.contains("git init"), "{said:?}");
    }
    assert_eq!(log(&session), "", "Nix was asked for nothing");

    // Git ignores the keys, and Nix takes what git knows; of a `path:` it takes everything all the same.
    std::fs::create_dir(session.path(".git")).expect("made");
    assert_eq!(build().code, 0);
    describe(&session, ["path:.#one", "path:.#two"]);
    assert_eq!(build().code, 1);

    // A key is a key by what is in it.
    std::fs::rename(session.path("keys"), session.beside("keys")).expect("moved");
    assert_eq!(build().code, 0);
    std::fs::rename(session.beside("keys/release"), session.path("notes.txt")).expect("moved");
    let said = build();
    assert!(said.code == 1 && said.err.contains("/notes.txt` is a private key"), "{said:?}");
}

#[test]
fn a_private_key_that_git_knows_is_not_built_with_and_where_nobody_looked_that_is_said() {
    let session = Session::initialised();
    if git(&session, &["init", "--quiet"]).is_none() {
        return;
    }
    session.write("flake.nix", "{ outputs = { self }: { }; }");
    describe(&session, [".#one", ".#two"]);
    stand_in(&session, &content(&system('0', "1"), &system('1', "2")));
    let build = || build(&session, Duration::from_mins(1), &[]).expect("it ends");
    session.write("notes.txt", &session.read("keys/release"));
    git(&session, &["add", "flake.nix", "fleet.json", ".gitignore"]);
    let unknown = build();
    assert!(unknown.code == 0 && !unknown.err.contains("warning"), "{unknown:?}");
    git(&session, &["add", "notes.txt"]);
    let known = build();
    assert_eq!((known.code, known.out.as_str()), (1, ""), "{known:?}");
    assert!(known.err.contains("/notes.txt` is a private key that git knows"), "{known:?}");
    assert!(known.err.contains("git rm --cached"), "{known:?}");
    session.write(".git/index", "none");
    let silent = build();
    assert!(silent.code == 0 && silent.err.contains("warning: nobody has looked"), "{silent:?}");
}

#[test]
fn without_nix_the_refusal_says_so() {
    let session = Session::initialised();
    let why = session.refused(&["release", "build", "--channel", "stable"]);
    assert!(why.contains("cannot find nix and nix-store in PATH"), "{why}");
}
