//! Signers other than a key file of ours, with the real programs of OpenSSH.

use std::path::Path;

use nixfleet_sys::exec::Cmd;

use crate::support::{NIXFLEET, Session, said, ssh, ssh_is_here, ssh_key};

/// A built release of a fleet whose releases the key at `public` may sign.
fn waiting_for(public: &str, session: &Session) {
    session.done(&["root", "rotate", &session.text("keys/release.pub"), public]);
    session.done(&["root", "sign", "--key", &session.text("keys/root"), "--yes"]);
    session.build();
}

const SIGN: [&str; 4] = ["release", "sign", "--channel", "stable"];

#[test]
fn a_signature_by_ssh_keygen_publishes() {
    if !ssh_is_here() {
        return;
    }
    for kind in ["ed25519", "ecdsa"] {
        let session = Session::initialised();
        let key = ssh_key(&session, "person", kind);
        waiting_for(&format!("{key}.pub"), &session);
        let bytes = session.beside("bytes");
        session.done(&[&SIGN[..], &["--write-bytes", &bytes]].concat());
        let signed = Cmd::new(ssh("ssh-keygen"))
            .args(["-Y", "sign", "-n", "nixfleet", "-f", &key, &bytes])
            .run_blocking();
        assert_eq!(said(signed).code, 0);
        session.done(&[&SIGN[..], &["--signature", &format!("{bytes}.sig"), "--yes"]].concat());
        assert_eq!(session.verify().code, 0, "{kind}");
    }
}

#[test]
fn a_signature_over_something_else_or_for_another_purpose_is_not_written() {
    if !ssh_is_here() {
        return;
    }
    let session = Session::initialised();
    let key = ssh_key(&session, "person", "ed25519");
    waiting_for(&format!("{key}.pub"), &session);
    let bytes = session.beside("bytes");
    session.done(&[&SIGN[..], &["--write-bytes", &bytes]].concat());
    let before = session.read("served/channels/stable/1/release.json");
    let sign = |namespace: &str| {
        let _ = std::fs::remove_file(format!("{bytes}.sig"));
        let signed = Cmd::new(ssh("ssh-keygen"))
            .args(["-Y", "sign", "-n", namespace, "-f", &key, &bytes])
            .run_blocking();
        assert_eq!(said(signed).code, 0);
        session.refused(&[&SIGN[..], &["--signature", &format!("{bytes}.sig"), "--yes"]].concat())
    };
    assert!(sign("git").contains("git"));
    std::fs::OpenOptions::new()
        .append(true)
        .open(&bytes)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"x"))
        .expect("changed");
    assert!(sign("nixfleet").contains("was not added"));
    assert_eq!(session.read("served/channels/stable/1/release.json"), before);
    assert_eq!(session.latest(), None);
}

/// Runs a line of shell under an ssh-agent that ends with it.
fn with_agent(session: &Session, script: &str) -> crate::support::Said {
    // Each has its own: one that was left removes its socket by name, up to ten seconds after the end of its line.
    let mut sockets = (0..).map(|number| session.beside(&format!("agent-{number}")));
    let socket = &sockets.find(|path| !Path::new(path).exists()).expect("numbers do not end");
    let line = format!("export PATH=/usr/bin:/bin; {script}");
    let cmd = Cmd::new(ssh("ssh-agent")).args(["-a", socket, "/bin/sh", "-c", &line]);
    said(cmd.env("HOME", session.beside("home")).run_blocking())
}

#[test]
fn an_agent_signs_with_the_one_key_of_the_role_that_it_has() {
    if !ssh_is_here() {
        return;
    }
    let session = Session::initialised();
    let (key, stranger) = (ssh_key(&session, "person", "ed25519"), ssh_key(&session, "stranger", "ed25519"));
    waiting_for(&format!("{key}.pub"), &session);
    let sign = format!("{NIXFLEET} -C {} release sign --channel stable --agent --yes", session.text(""));
    let without = with_agent(&session, &format!("ssh-add -q {stranger} && {sign}"));
    assert_eq!(without.code, 1);
    assert!(without.err.contains("the ssh-agent has no key of this role; it has SHA256:"), "{without:?}");
    let with = with_agent(&session, &format!("ssh-add -q {stranger} && ssh-add -q {key} && {sign}"));
    assert_eq!(with.code, 0, "{with:?}");
    assert_eq!(session.verify().code, 0);
}

#[test]
fn an_agent_that_is_not_there_is_unreachable() {
    let session = Session::initialised();
    session.build();
    let words = [&SIGN[..], &["--agent", "--yes"]].concat();
    let unset = session.run(&words);
    assert_eq!(unset.code, 1, "{unset:?}");
    assert!(unset.err.contains("SSH_AUTH_SOCK is not set"), "{unset:?}");
    let dead = said(session.verb(&words).env("SSH_AUTH_SOCK", session.beside("nobody")).run_blocking());
    assert_eq!(dead.code, 3, "{dead:?}");
    assert!(dead.err.contains("cannot be talked to"), "{dead:?}");
}

#[test]
fn a_command_signs_what_it_gets_on_its_standard_input() {
    if !ssh_is_here() {
        return;
    }
    let session = Session::initialised();
    let key = ssh_key(&session, "person", "ecdsa");
    let public = format!("{key}.pub");
    waiting_for(&public, &session);
    // Without a file, ssh-keygen signs its standard input.
    session.done(
        &[
            &SIGN[..],
            &["--by", &public, "--yes", "--", "ssh-keygen", "-q", "-Y", "sign", "-n", "nixfleet", "-f", &key],
        ]
        .concat(),
    );
    assert_eq!(session.verify().code, 0);
}

#[test]
fn a_command_that_answers_rubbish_or_fails_costs_nothing() {
    let session = Session::initialised();
    session.build();
    let before = session.read("served/channels/stable/1/release.json");
    let public = session.text("keys/release.pub");
    for command in
        [vec!["/bin/echo", "rubbish"], vec!["/bin/false"], vec!["/bin/true"], vec!["/no/such/program"]]
    {
        let words = [&SIGN[..], &["--by", &public, "--yes", "--"], &command].concat();
        session.refused(&words);
        assert_eq!(session.read("served/channels/stable/1/release.json"), before, "{command:?}");
    }
    let unnamed = session.run(&[&SIGN[..], &["--yes", "--", "/bin/true"]].concat());
    assert_eq!(unnamed.code, 2);
    assert!(unnamed.err.contains("`--by`"), "{unnamed:?}");
    assert!(Path::new(&public).exists());
}
