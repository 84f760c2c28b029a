//! `nixfleet-agent check` as a person runs it: the built program, real files, real servers, and the environment's proxies.

use std::path::{Path, PathBuf};

use nixfleet_agent::config::ready::now;
use nixfleet_core::host::HostState;
use nixfleet_core::host::saved::SavedState;
use nixfleet_sys::exec::{Cmd, Ended};
use nixfleet_sys::fs;
use serde_json::{Value, json};

use crate::fleet::*;
use crate::server::{Manners, Server};
use crate::shelf::Shelf;

/// A host's files, with documents that are good by the clock of this machine: the program asks it.
struct Host {
    dir: tempfile::TempDir,
    fleet: Fleet,
}

impl Host {
    fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().expect("a folder"), fleet: fleet() };
        host.put("root.json", &host.fleet.sign_root(&host.root()));
        host.put("key.pub", format!("{} root@web-0\n", host.fleet.host_keys[0].line()).as_bytes());
        host.shelf(1).write_to(&host.path("releases"));
        host
    }

    fn root(&self) -> Value {
        let root = with(&self.fleet.root(), "created_ms", now().get() - DAY);
        with(&root, "expires_ms", now().get() + 200 * DAY)
    }

    fn shelf(&self, seq: u64) -> Shelf {
        let release = with(&self.fleet.release(seq), "created_ms", now().get() - 1000);
        let release = with(&release, "expires_ms", now().get() + 9 * DAY + DAY / 2);
        let mut documents = Shelf::default();
        documents.put_release(seq, self.fleet.sign(&release), &self.fleet.entries());
        documents.latest(seq);
        documents
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write_atomic(&self.path(name), bytes).expect("written");
    }

    /// The file of the configuration, with this source.
    fn config(&self, source: &str) {
        let text = format!(
            "root = '{dir}/root.json'\nsource = '{source}'\nchannel = 'stable'\nhost = 'web-0'\n\
             host-key = '{dir}/key.pub'\nstate-dir = '{dir}/state'\n",
            dir = self.dir.path().display(),
        );
        self.put("agent.toml", text.as_bytes());
    }

    fn over_folder(&self) {
        let releases = self.path("releases");
        self.config(releases.to_str().expect("a plain path"));
    }

    async fn check(&self, env: &[(&str, &str)]) -> Checked {
        let cmd = Cmd::new(env!("CARGO_BIN_EXE_nixfleet-agent"));
        let cmd = cmd.args(["check", "--json", "--config"]).arg(self.path("agent.toml"));
        let cmd = env.iter().fold(cmd, |cmd, (key, value)| cmd.env(key, value));
        let finished = cmd.run().await.expect("it runs");
        let report: Value = serde_json::from_slice(&finished.stdout).expect("JSON, and nothing else");
        assert_eq!(report["version"], 1);
        // This machine need not be a NixOS host, so the whole may be bad; then it says so in both ways.
        let code = i32::from(report["good"] != json!(true));
        assert_eq!(finished.ended, Ended::Exited(code));
        Checked(report["findings"].as_array().expect("a list").clone())
    }
}

struct Checked(Vec<Value>);

impl Checked {
    /// What was found about one thing: the grades and texts.
    fn about(&self, about: &str) -> Vec<(&str, &str)> {
        let of = self.0.iter().filter(|finding| finding["about"] == about);
        of.map(|finding| {
            (finding["grade"].as_str().expect("a text"), finding["what"].as_str().expect("a text"))
        })
        .collect()
    }

    #[track_caller]
    fn one(&self, about: &str, grade: &str, part: &str) {
        let found = self.about(about);
        let fits = |(is, what): &(&str, &str)| *is == grade && what.contains(part);
        assert!(found.iter().filter(|one| fits(one)).count() == 1, "{about} {grade} {part}: {found:?}");
    }
}

#[tokio::test]
async fn a_host_that_is_ready_is_told_what_its_release_says() {
    let host = Host::new();
    host.over_folder();
    let checked = host.check(&[]).await;
    checked.one("config", "good", "web-0 follows channel stable");
    checked.one("root", "good", "root 1 of fleet acme is good for 199 days");
    checked.one("host-key", "good", &host.fleet.host_keys[0].id());
    checked.one("state", "good", "is not there yet");
    checked.one("clock", "good", "");
    checked.one("source", "good", "answers");
    checked.one("release", "good", "nixos-system-web-0");
    checked.one("release", "good", "stable/1 is signed by enough keys and names this host, in wave canary");
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once_and_each_has_its_remedy() {
    let host = Host::new();
    let expired = with(&host.root(), "created_ms", now().get() - 9 * DAY);
    let expired = with(&expired, "expires_ms", now().get() - 3 * DAY - 1000);
    host.put("root.json", &host.fleet.sign_root(&expired));
    host.put("key.pub", b"-----BEGIN OPENSSH PRIVATE KEY-----\n");
    host.over_folder();
    std::fs::remove_dir_all(host.path("releases")).expect("it was there");
    let checked = host.check(&[]).await;
    checked.one("root", "problem", "expired 3 days ago");
    checked.one("host-key", "problem", "private key");
    checked.one("source", "warning", "not looked at");
    assert!(checked.0.iter().all(|finding| finding["grade"] == "good" || finding["fix"].is_string()));

    host.put("key.pub", format!("{}\n", host.fleet.host_keys[0].line()).as_bytes());
    host.check(&[]).await.one("source", "problem", "No such file or directory");
}

#[tokio::test]
async fn a_channel_that_the_root_does_not_know_is_told_with_those_that_it_knows() {
    let host = Host::new();
    host.over_folder();
    let text = std::fs::read_to_string(host.path("agent.toml")).expect("there").replace("stable", "stabel");
    host.put("agent.toml", text.as_bytes());
    host.check(&[]).await.one("root", "problem", "no channel stabel; it has edge, stable");
}

#[tokio::test]
async fn a_refused_release_is_told_by_the_attack_that_it_looks_like() {
    let host = Host::new();
    host.over_folder();
    let text = std::fs::read_to_string(host.path("agent.toml")).expect("there").replace("web-0", "web-1");
    host.put("agent.toml", text.as_bytes());
    // The host calls itself by another host's name, and has not its key.
    host.check(&[]).await.one("release", "problem", "another key");
}

#[tokio::test]
async fn state_that_was_altered_is_a_problem_and_the_floor_in_it_counts_if_it_was_not() {
    let host = Host::new();
    host.over_folder();
    let envelope = |seq| host.shelf(seq).0[&format!("channels/stable/{seq}/release.json")].clone();
    let trust = nixfleet_trust::trust::Trust::begin(&host.fleet.sign_root(&host.root())).expect("sound");
    let trust = trust.accept_release(&stable(), &envelope(5), now()).expect("good").trust;
    let saved = String::from_utf8(trust.to_saved().to_bytes()).expect("JSON");
    let fresh = String::from_utf8(SavedState::to_bytes(&HostState::fresh())).expect("JSON");
    let state = |trust: &str| format!("{{\"format\":1,\"host\":{fresh},\"trust\":{trust}}}");
    fs::make_dir(&host.path("state")).expect("made");
    host.put("state/state.json", state(&saved).as_bytes());
    host.check(&[]).await.one("release", "problem", "rollback");
    let lowered = saved.replace("\"seq\":5", "\"seq\":1");
    assert_ne!(saved, lowered);
    host.put("state/state.json", state(&lowered).as_bytes());
    host.check(&[]).await.one("state", "problem", "altered");
    let host_lost = format!("{{\"format\":1,\"host\":{{}},\"trust\":{saved}}}");
    for torn in ["", "{\"format\":1", "{\"format\":1}", &host_lost] {
        host.put("state/state.json", torn.as_bytes());
        host.check(&[]).await.one("state", "problem", "cannot be read");
    }
}

#[tokio::test]
async fn a_root_document_that_others_can_write_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    host.over_folder();
    let writable = std::fs::Permissions::from_mode(0o664);
    std::fs::set_permissions(host.path("root.json"), writable).expect("set");
    host.check(&[]).await.one("root", "problem", "its group can write it");
}

#[tokio::test]
async fn a_private_half_that_others_can_read_is_a_problem_of_the_host_key() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    host.over_folder();
    host.put("key", b"private");
    for (mode, problems) in [(0o600, 0), (0o640, 1)] {
        std::fs::set_permissions(host.path("key"), std::fs::Permissions::from_mode(mode)).expect("set");
        let checked = host.check(&[]).await;
        checked.one("host-key", "good", &host.fleet.host_keys[0].id());
        let found = checked.about("host-key");
        let told = found
            .iter()
            .filter(|(grade, what)| *grade == "problem" && what.contains("its group can read it"));
        assert_eq!(told.count(), problems, "{mode:o}: {found:?}");
    }
}

/// The targets of what a server was asked.
fn targets(server: &Server) -> Vec<String> {
    server.seen().into_iter().map(|seen| seen.target).collect()
}

#[tokio::test]
async fn proxies_of_the_environment_are_used_and_so_are_their_exceptions() {
    let host = Host::new();
    let proxy = Server::start(host.shelf(1), Manners::Good).await;
    let at = proxy.url();
    host.config("http://releases.example:8080/fleet/");
    // The shelf of the proxy has no folder `fleet`, and that is all that it is asked for.
    let env = [("http_proxy", at.as_str())];
    host.check(&env).await.one("source", "problem", "nothing was published");
    assert_eq!(targets(&proxy)[0], "http://releases.example:8080/fleet/channels/stable/latest");

    host.config("http://releases.example/");
    host.check(&env).await.one("release", "good", "stable/1");
    assert_eq!(targets(&proxy).len(), 4);

    // The port 9 of this machine has nobody behind it.
    host.config("http://127.0.0.1:9/");
    let env = [("http_proxy", at.as_str()), ("no_proxy", "127.0.0.1")];
    host.check(&env).await.one("source", "problem", "refused");
    assert!(targets(&proxy).is_empty());

    host.config("https://releases.example/");
    host.check(&[("https_proxy", at.as_str())]).await.one("source", "problem", "releases.example");
    assert_eq!(targets(&proxy), ["releases.example:443"], "a tunnel was asked for, and TLS goes through it");
}

#[tokio::test]
async fn a_login_page_is_told_as_what_it_is() {
    let host = Host::new();
    let server = Server::start(Shelf::default(), Manners::LoginPage).await;
    host.config(&server.url());
    host.check(&[]).await.one("source", "problem", "login page");
}

#[tokio::test]
async fn the_flags_of_help_are_those_of_the_table() {
    let cmd = Cmd::new(Path::new(env!("CARGO_BIN_EXE_nixfleet-agent"))).args(["check", "--help"]);
    let help = cmd.run().await.expect("it runs").stdout_text();
    for key in nixfleet_agent::config::keys::Key::ALL {
        assert!(help.contains(&format!(" {} ", key.flag())), "{}: {help}", key.flag());
    }
}
