//! The operator's command line with real Nix: systems into a signed release, and from there to the agent.
//!
//! The command line is `NIXFLEET_CLI_BIN`, which `cargo xtask test` builds. It works inside a host, since that is where
//! Nix is.

use std::path::Path;

use nixfleet_testbed::fleet::await_state;
use nixfleet_testbed::{Flavour, Host, Output, System};
use serde_json::{Value, json};

use crate::common::{AGENT, LIMIT, activate, assert_rests_on, hosts_run};

/// Where the command line is, inside.
const CLI: &str = "/testbed/nixfleet";
/// The fleet folder, inside.
const FLEET: &str = "/root/fleet";
/// Where the keys are: not in the fleet folder, of which Nix copies everything for a `path:`.
const RELEASE_KEY: &str = "/root/keys/release";
/// Keys of hosts; nobody needs their private halves.
const KEYS: [&str; 3] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII5GMBLWJ9jJdzGDkSq95EKf2Zw454Wfnk35Ji4NOZUc",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMFyl6oLg5F4qHFo+qAP92foSmlcNttfdk+htfla+M/S",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH/CjuYaaoLMzTp8R6Cq/9JNINe/D4PbjDdUqH1unzWn",
];

/// A flake without inputs that builds one system, whose closure is itself.
const FLAKE: &str = r#"{
  outputs = { self }: {
    system = derivation {
      name = "nixos-system-built-1";
      system = "x86_64-linux";
      builder = "/bin/sh";
      args = [ "-c" "echo built > $out" ];
    };
  };
}
"#;

/// A host with the command line and a fleet folder; `None` where it cannot be had.
fn host_with_cli(flavour: Flavour) -> Option<Host> {
    if !hosts_run() {
        return None;
    }
    let cli = std::env::var_os("NIXFLEET_CLI_BIN").expect("`cargo xtask test` sets NIXFLEET_CLI_BIN");
    let host = Host::builder(flavour).bind(Path::new(&cli), Path::new(CLI)).boot().expect("the host boots");
    let made = host.run(&[CLI, "init", FLEET, "--fleet-id", "testbed"]).expect("it runs");
    assert_eq!(made.code, 0, "{made}");
    Some(host)
}

/// Moves the keys to where no build takes them along.
fn move_keys(host: &Host) {
    let moved = host.run(&["mv", &format!("{FLEET}/keys"), "/root/keys"]).expect("it runs");
    assert_eq!(moved.code, 0, "{moved}");
}

/// Runs a verb in the fleet folder.
fn nixfleet(host: &Host, words: &[&str]) -> Output {
    host.run_for(LIMIT, &[&[CLI, "-C", FLEET], words].concat()).expect("it runs")
}

/// Runs a verb that must end well, and returns its standard output.
fn done(host: &Host, words: &[&str]) -> String {
    let output = nixfleet(host, words);
    assert_eq!(output.code, 0, "{words:?}: {output}");
    output.stdout
}

fn put(host: &Host, path: &str, text: &str) {
    host.write_file(path, text).expect("written");
}

/// A description with one host for each system.
fn describe(host: &Host, systems: &[&str]) {
    let hosts: serde_json::Map<String, Value> = systems
        .iter()
        .zip(KEYS)
        .enumerate()
        .map(|(number, (system, key))| {
            (format!("web-{number}"), json!({ "channel": "stable", "system": system, "key": key }))
        })
        .collect();
    let fleet = json!({
        "fleet": "testbed",
        "channels": { "stable": { "policy": { "waves": [{ "name": "all", "soak": "0s" }] } } },
        "hosts": hosts,
    });
    put(host, &format!("{FLEET}/fleet.json"), &fleet.to_string());
}

fn release(host: &Host, seq: &str) -> Value {
    let shown = done(host, &["release", "show", "--channel", "stable", "--seq", seq, "-o", "json"]);
    serde_json::from_str(&shown).expect("JSON")
}

fn entry<'a>(release: &'a Value, name: &str) -> &'a Value {
    let entries = release["entries"].as_array().expect("a list");
    entries.iter().find(|entry| entry["host"] == name).expect("the host is in the release")
}

fn is_built_signed_and_followed(flavour: Flavour) {
    let Some(host) = host_with_cli(flavour) else { return };
    put(&host, &format!("{FLEET}/flake.nix"), FLAKE);
    let good = host.system(System::Good).to_owned();
    describe(&host, &[&good, host.system(System::Base), "path:.#system"]);

    // The usual xz takes a minute for an agent that is not stripped.
    let cache = "file:///root/cache?compression=gzip";
    let keys = ["nix-store", "--generate-binary-cache-key", "cache-1", "/root/cache.sec", "/root/cache.pub"];
    assert_eq!(host.run(&keys).expect("it runs").code, 0);
    let words = ["release", "build", "--channel", "stable", "--revision", "abc", "--copy-to", cache];
    let refused = nixfleet(&host, &words);
    assert!(refused.code == 1 && refused.stderr.contains("is a private key"), "{refused}");
    move_keys(&host);
    done(&host, &[&words[..], &["--cache-key", "/root/cache.sec"]].concat());
    let hash = good.trim_start_matches("/nix/store/").split('-').next().expect("a hash");
    let described = host.read_file(&format!("/root/cache/{hash}.narinfo")).expect("it is in the cache");
    assert!(described.contains("Sig: cache-1:"), "{described}");
    let unsigned = nixfleet(&host, &["release", "verify", "--channel", "stable"]);
    assert_eq!(unsigned.code, 1, "nothing is published before it is signed: {unsigned}");
    done(&host, &["release", "sign", "--channel", "stable", "--key", RELEASE_KEY, "--yes"]);

    // Somebody who has the folder and the root, and nothing else.
    let elsewhere = host.sh(&format!(
        "cp -r {FLEET}/served /root/elsewhere && cp /root/elsewhere/root/1.json /root/root.json"
    ));
    assert_eq!(elsewhere.expect("it runs").code, 0);
    let verify = [
        CLI,
        "release",
        "verify",
        "--served",
        "/root/elsewhere",
        "--root",
        "/root/root.json",
        "--channel",
        "stable",
    ];
    let verified = host.run(&verify).expect("it runs");
    assert_eq!(verified.code, 0, "{verified}");

    let release = release(&host, "1");
    assert_eq!(release["release"]["hosts"], 3);
    let closure = &entry(&release, "web-0")["closure"];
    // Nix's own sum, and what the cache has on its disk.
    let counted = host
        .sh(&format!("nix-store -q --size $(nix-store -q --requisites {good}) | awk '{{ s += $1 }} END {{ printf \"%d\", s }}'"))
        .expect("it runs");
    assert_eq!(closure["unpacked_bytes"].to_string(), counted.text());
    let fetched = closure["fetch_bytes"].as_u64().expect("a number");
    assert!(fetched > 0 && fetched != closure["unpacked_bytes"].as_u64().expect("a number"), "{closure}");
    let built = entry(&release, "web-2")["system"].as_str().expect("a path").to_owned();
    assert!(built.ends_with("-nixos-system-built-1"), "{built}");

    // What was built is rooted: a collection in the middle of a release would take it away.
    let collected = host.run_for(LIMIT, &["nix-store", "--gc"]).expect("it runs");
    assert_eq!(collected.code, 0, "{collected}");
    assert!(host.exists(&built) && host.exists(&good), "{collected}");

    // The next release, and what it changes.
    describe(&host, &[host.system(System::Good3), host.system(System::OtherKernel), "path:.#system"]);
    done(&host, &["release", "build", "--channel", "stable"]);
    let diff = done(&host, &["release", "diff", "--channel", "stable"]);
    for words in [
        "2 hosts get another system, 1 keeps its own",
        "package       ",
        "unit          ",
        "reboot        needed for kernel: linux-6.12.1 -> linux-6.12.9 (1 host)",
    ] {
        assert!(diff.contains(words), "{words}\n{diff}");
    }

    // The agent computes the digest by itself: the two agree, or the system is refused.
    let digest = closure["digest"].as_str().expect("a text");
    let other = format!("sha256:{}", "0".repeat(64));
    assert_eq!(activate(&host, &good, &["--digest", &other]).failure(), "closure-mismatch");
    activate(&host, &good, &["--digest", digest]).assert(0, "converged");
}

#[test]
fn a_release_of_real_systems_is_built_signed_verified_and_followed() {
    is_built_signed_and_followed(Flavour::Trixie);
}

#[test]
fn a_release_of_real_systems_is_built_signed_verified_and_followed_with_old_nix() {
    is_built_signed_and_followed(Flavour::Bookworm);
}

#[test]
fn what_cannot_be_built_is_named_and_nothing_is_written() {
    let Some(host) = host_with_cli(Flavour::Trixie) else { return };
    let absent = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-absent-1";
    put(&host, &format!("{FLEET}/flake.nix"), FLAKE);
    move_keys(&host);
    describe(&host, &[host.system(System::Good), absent, "path:.#none"]);
    let refused = nixfleet(&host, &["release", "build", "--channel", "stable"]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains(absent) && refused.stderr.contains("path:.#none"), "{refused}");
    assert!(!host.exists(&format!("{FLEET}/served/channels/stable/1")));
}

/// What a new user types: the folder that `init` made, a system and a key put into its example, the commands that it
/// printed as they stand there, and what the README says about a host.
const TYPED: &str = r##"
set -eu
nixfleet() { /testbed/nixfleet "$@"; }
cd /root
nixfleet init acme >printed
mkdir -p /etc/ssh /etc/nixfleet
nixfleet keys new /etc/ssh/ssh_host_ed25519_key
key=$(cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub)
sed -i "s#\"system\": .*#\"system\": \"$1\",#; s#\"key\": .*#\"key\": \"$key\"#" acme/fleet.json
nixfleet -C acme check
sed 's/release sign .*/& --yes/' printed >typed
. ./typed
mkdir -p /srv/releases
cp -r acme/served/. /srv/releases/
cp acme/served/root/1.json /etc/nixfleet/root.json
cat >/etc/nixfleet/agent.toml <<END
host = "web-1"
channel = "stable"
source = "/srv/releases"
END
"##;

#[test]
fn the_folder_that_init_makes_goes_all_the_way_to_a_host_that_follows_it() {
    let Some(host) = host_with_cli(Flavour::Trixie) else { return };
    let typed =
        host.run_for(LIMIT, &["/bin/sh", "-c", TYPED, "sh", host.system(System::Good)]).expect("it runs");
    assert_eq!(typed.code, 0, "{typed}");
    let checked = host.run(&[AGENT, "check"]).expect("it runs");
    assert_eq!(checked.code, 0, "{checked}");
    let restarted = host.run(&["systemctl", "restart", "nixfleet-agent.service"]).expect("it runs");
    assert_eq!(restarted.code, 0, "{restarted}");
    // Its wave is watched for ten minutes; the system is the boot default from the confirmation on.
    await_state(&host, "soaking", "stable/1", LIMIT).expect("it follows");
    assert_rests_on(&host, System::Good);
}
