//! A fleet folder in a temporary place, and the command line at work in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_sys::exec::{Cmd, ExecError, Finished};
use nixfleet_sys::fs;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Public keys of hosts; nobody needs their private halves.
pub(crate) const HOST_KEYS: [&str; 2] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII5GMBLWJ9jJdzGDkSq95EKf2Zw454Wfnk35Ji4NOZUc",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMFyl6oLg5F4qHFo+qAP92foSmlcNttfdk+htfla+M/S",
];

/// The command line under test.
pub(crate) const NIXFLEET: &str = env!("CARGO_BIN_EXE_nixfleet");

/// A system's store path, told apart by a digit and a version.
pub(crate) fn system(digit: char, version: &str) -> String {
    format!("/nix/store/{}-nixos-system-web-{version}", digit.to_string().repeat(32))
}

/// What a verb did.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A fleet folder.
pub(crate) struct Session {
    dir: TempDir,
}

impl Session {
    /// An empty place.
    pub(crate) fn new() -> Self {
        let session = Self { dir: tempfile::tempdir().expect("a folder") };
        // Nothing but what a session needs is found: whether this machine has Nix must make no difference.
        fs::make_dir(Path::new(&session.beside("programs"))).expect("made");
        let link = session.beside("programs/ssh-keygen");
        std::os::unix::fs::symlink(ssh("ssh-keygen"), link).expect("linked");
        session
    }

    /// A fleet folder as `init` makes it, with two hosts and their closures.
    pub(crate) fn initialised() -> Self {
        let session = Self::new();
        session.done(&["init", "--fleet-id", "example"]);
        session.describe(&[("web-1", &system('0', "1")), ("web-2", &system('1', "1"))]);
        session
    }

    /// A path in the fleet folder.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        if below.is_empty() {
            self.dir.path().join("fleet")
        } else {
            self.dir.path().join("fleet").join(below)
        }
    }

    /// The same as text.
    pub(crate) fn text(&self, below: &str) -> String {
        self.path(below).to_str().expect("a temporary path is text").to_owned()
    }

    /// A path beside the fleet folder.
    pub(crate) fn beside(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a temporary path is text").to_owned()
    }

    pub(crate) fn write(&self, below: &str, text: &str) {
        fs::write_atomic(&self.path(below), text.as_bytes()).expect("written");
    }

    pub(crate) fn read(&self, below: &str) -> String {
        let bytes = fs::read_bounded(&self.path(below), 1 << 20).expect(below);
        String::from_utf8(bytes).expect("a text")
    }

    /// Writes `fleet.json` and `closures.json` for these hosts; each closure is the system and one package.
    pub(crate) fn describe(&self, hosts: &[(&str, &str)]) {
        let described: serde_json::Map<String, Value> = hosts
            .iter()
            .zip(HOST_KEYS)
            .map(|((name, system), key)| {
                ((*name).to_owned(), json!({ "channel": "stable", "system": system, "key": key }))
            })
            .collect();
        let fleet = json!({
            "fleet": "example",
            "channels": { "stable": { "policy": { "waves": [{ "name": "all", "soak": "0s" }] } } },
            "hosts": described,
        });
        self.write("fleet.json", &fleet.to_string());
        let package = format!("/nix/store/{}-openssl-3.0.13", "9".repeat(32));
        let hash = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
        let mut infos = serde_json::Map::new();
        infos.insert(package.clone(), json!({ "narHash": hash, "narSize": 1000, "references": [] }));
        for (_, system) in hosts {
            infos.insert(
                (*system).to_owned(),
                json!({ "narHash": hash, "narSize": 24, "references": [package, system] }),
            );
        }
        self.write("closures.json", &Value::Object(infos).to_string());
    }

    /// A verb in the fleet folder, to be run.
    pub(crate) fn verb(&self, words: &[&str]) -> Cmd {
        Cmd::new(NIXFLEET)
            .args(["-C", &self.text("")])
            .args(words)
            .env("PATH", self.beside("programs"))
            .env("HOME", self.beside("home"))
            .deadline(Duration::from_mins(2))
    }

    pub(crate) fn run(&self, words: &[&str]) -> Said {
        // On a thread of its own, since a test may be on one that has other things to wait for.
        let cmd = self.verb(words);
        said(std::thread::spawn(|| cmd.run_blocking()).join().expect("it does not panic"))
    }

    /// A verb that must end well; its standard output.
    pub(crate) fn done(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        said.out
    }

    /// A verb that must be refused; its standard error.
    pub(crate) fn refused(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert_eq!(said.code, 1, "{words:?}: {said:?}");
        assert_eq!(said.out, "", "what is refused prints no data");
        said.err
    }

    /// Builds a release out of the described closures.
    pub(crate) fn build(&self) -> String {
        self.done(&[
            "release",
            "build",
            "--channel",
            "stable",
            "--path-info",
            &self.text("closures.json"),
            "-o",
            "name",
        ])
    }

    /// Signs the newest release with a key file.
    pub(crate) fn sign(&self, key: &str) -> Said {
        self.run(&["release", "sign", "--channel", "stable", "--key", &self.text(key), "--yes"])
    }

    /// Builds and publishes a release with the key that `init` made.
    pub(crate) fn publish(&self) {
        self.publish_with("keys/release");
    }

    /// Builds and publishes a release with this key.
    pub(crate) fn publish_with(&self, key: &str) {
        self.build();
        let said = self.sign(key);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.err.contains("is published"), "{said:?}");
    }

    /// What a host would say, with the first root alone.
    pub(crate) fn verify(&self) -> Said {
        let (served, root) = (self.text("served"), self.text("served/root/1.json"));
        self.run(&["release", "verify", "--served", &served, "--root", &root, "--channel", "stable"])
    }

    pub(crate) fn latest(&self) -> Option<String> {
        let path = self.path("served/channels/stable/latest");
        path.exists().then(|| self.read("served/channels/stable/latest").trim().to_owned())
    }
}

pub(crate) fn said(finished: Result<Finished, ExecError>) -> Said {
    let finished = finished.expect("it runs");
    Said {
        code: finished.ended.code().expect("it exits"),
        out: finished.stdout_text(),
        err: finished.stderr_tail,
    }
}

/// Whether OpenSSH is here. In CI what cannot run is a failure.
#[allow(clippy::print_stdout, reason = "`cargo xtask test` collects these lines from tests that passed")]
pub(crate) fn ssh_is_here() -> bool {
    let missing = ["ssh-keygen", "ssh-agent", "ssh-add"].into_iter().find(|name| !ssh(name).exists());
    let Some(missing) = missing else { return true };
    assert!(std::env::var_os("CI").is_none(), "in CI nothing is left out: {missing} is not installed");
    println!("LEFT OUT: signing with OpenSSH ({missing} is not installed: `cargo xtask setup`)");
    false
}

pub(crate) fn ssh(name: &str) -> PathBuf {
    Path::new("/usr/bin").join(name)
}

/// A key made by `ssh-keygen` beside the fleet folder.
pub(crate) fn ssh_key(session: &Session, name: &str, kind: &str) -> String {
    let path = session.beside(name);
    let made = Cmd::new(ssh("ssh-keygen"))
        .args(["-q", "-t", kind, "-N", "", "-C", name, "-f", &path])
        .run_blocking();
    assert_eq!(said(made).code, 0);
    path
}

/// Runs git in the fleet folder; `None`, and said so, where there is none.
#[allow(clippy::print_stdout, reason = "`cargo xtask test` collects these lines")]
pub(crate) fn git(session: &Session, words: &[&str]) -> Option<()> {
    let git = std::path::Path::new("/usr/bin/git");
    if !git.exists() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is left out: git is not installed");
        println!("LEFT OUT: what git knows (git is not installed)");
        return None;
    }
    let link = session.beside("programs/git");
    if !std::path::Path::new(&link).exists() {
        std::os::unix::fs::symlink(git, link).expect("linked");
    }
    let as_somebody =
        ["-c", "user.name=ann", "-c", "user.email=ann@example.org", "-c", "init.defaultBranch=main"];
    let ran = Cmd::new(git).args(as_somebody).args(words).in_folder(session.path(""));
    let ran = said(ran.env("HOME", session.beside("home")).run_blocking());
    assert_eq!(ran.code, 0, "{ran:?}");
    Some(())
}
