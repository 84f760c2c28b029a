//! A fleet of one host and its signed releases in a folder, made without the code under test: from the descriptions of
//! the documents, with another library's view of nothing but keys, hashes and JSON.

use std::cell::RefCell;
use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER};
use nixfleet_testbed::Machine;
use serde_json::{Value, json};

const ROOT: &str = "application/vnd.nixfleet.root.v1+json";
const RELEASE: &str = "application/vnd.nixfleet.release.v1+json";
const ENTRY: &str = "application/vnd.nixfleet.entry.v1+json";
const DAY_MS: u64 = 86_400_000;

/// The release folder, as hosts see it.
pub(crate) const FOLDER: &str = "/srv/releases";
/// The root that a host's configuration names.
pub(crate) const ROOT_FILE: &str = "/etc/nixfleet/root.json";
/// The private key of the host.
pub(crate) const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";
/// The host's name in the fleet.
pub(crate) const HOST: &str = "web-1";

/// A test key. Its private half is in this file, so it must never be trusted anywhere.
struct Key {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let count = u32::try_from(bytes.len()).expect("short");
    [&count.to_be_bytes()[..], bytes].concat()
}

impl Key {
    fn new(number: u8) -> Self {
        let seed = [number; 32];
        Self { seed, pair: Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed") }
    }

    fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn blob(&self) -> Vec<u8> {
        [string(b"ssh-ed25519"), string(self.public())].concat()
    }

    fn line(&self) -> String {
        format!("ssh-ed25519 {}", BASE64.encode(&self.blob()))
    }

    fn id(&self) -> String {
        format!("SHA256:{}", BASE64_NOPAD.encode(digest(&SHA256, &self.blob()).as_ref()))
    }

    /// The private key as `ssh-keygen` writes it, without a passphrase.
    fn openssh(&self) -> String {
        let private = [
            &7u32.to_be_bytes()[..],
            &7u32.to_be_bytes(),
            &self.blob(),
            &string(&[&self.seed[..], self.public()].concat()),
            &string(b"testbed"),
        ]
        .concat();
        let padding: Vec<u8> = (1u8..).take((8 - private.len() % 8) % 8).collect();
        let bytes = [
            b"openssh-key-v1\0".to_vec(),
            string(b"none"),
            string(b"none"),
            string(b""),
            1u32.to_be_bytes().to_vec(),
            string(&self.blob()),
            string(&[private, padding].concat()),
        ]
        .concat();
        let text = BASE64.encode(&bytes);
        let lines: Vec<&str> =
            text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).expect("base64")).collect();
        let (begin, end) = ("-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----");
        format!("{begin}\n{}\n{end}\n", lines.join("\n"))
    }
}

fn pae(kind: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn signed(kind: &str, payload: &Value, key: &Key) -> String {
    let payload = payload.to_string().into_bytes();
    let signature = BASE64.encode(key.pair.sign(&pae(kind, &payload)).as_ref());
    let (payload, id) = (BASE64.encode(&payload), key.id());
    format!(
        "{{\"payloadType\":\"{kind}\",\"payload\":\"{payload}\",\"signatures\":[{{\"keyid\":\"{id}\",\"sig\":\"{signature}\"}}]}}\n"
    )
}

fn now_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(since.as_millis()).expect("in range")
}

/// What a release says beside the system.
pub(crate) struct Saying {
    pub(crate) probes: Value,
    pub(crate) soak_secs: u32,
    pub(crate) confirm_within_secs: u32,
    pub(crate) commit: &'static str,
    pub(crate) reboot: Value,
    /// How long ago it was made.
    pub(crate) made_ago_secs: u64,
}

impl Default for Saying {
    fn default() -> Self {
        Self {
            probes: json!([]),
            soak_secs: 1,
            confirm_within_secs: 300,
            commit: "after-confirm",
            reboot: json!({ "mode": "never", "warn_secs": 0 }),
            made_ago_secs: 0,
        }
    }
}

/// An enforced probe that asks every second and gives up at the third failure in a row.
pub(crate) fn probe(name: &str, kind: &Value) -> Value {
    json!({ "name": name, "kind": kind, "interval_secs": 1, "timeout_secs": 5, "after_secs": 0, "failures": 3 })
}

/// The fleet's keys, and the host's.
pub(crate) struct Fleet {
    root: Key,
    release: Key,
    host: Key,
    /// The closure digests of the systems that were released, by path: they do not change.
    digests: RefCell<BTreeMap<String, String>>,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let digests = RefCell::default();
        Self { root: Key::new(1), release: Key::new(2), host: Key::new(3), digests }
    }

    /// Puts the fleet's root and the host's key where the host's configuration names them.
    pub(crate) fn introduce(&self, host: &impl Machine) {
        host.write_file(ROOT_FILE, &self.root_document(1, 0)).expect("written");
        self.give_key(host);
    }

    /// Puts the host's key where its configuration names it.
    pub(crate) fn give_key(&self, host: &impl Machine) {
        host.write_file(HOST_KEY, &self.host.openssh()).expect("written");
        host.sh(&format!("chmod 600 {HOST_KEY}")).expect("it runs");
        host.write_file(&format!("{HOST_KEY}.pub"), &format!("{}\n", self.host.line())).expect("written");
    }

    /// From now on releases name another key for the host, and only that one.
    pub(crate) fn renew_host_key(&mut self) {
        self.host = Key::new(4);
    }

    /// A root of that version, signed, by which the channel's floor was set back so often.
    fn root_document(&self, version: u32, resets: u32) -> String {
        let role = |key: &Key| json!({ "keys": [key.id()], "threshold": 1 });
        let root = json!({
            "fleet": "acme",
            "version": version,
            "created_ms": now_ms() - DAY_MS,
            "expires_ms": now_ms() + 300 * DAY_MS,
            "keys": { self.root.id(): self.root.line(), self.release.id(): self.release.line() },
            "root": role(&self.root),
            "channels": { "stable": { "release": role(&self.release), "seq_floor": 0, "resets": resets } },
        });
        signed(ROOT, &root, &self.root)
    }

    /// Publishes a second root, by which hosts forget the highest number that they have seen.
    pub(crate) fn set_back(&self, host: &impl Machine) {
        host.write_file(&format!("{FOLDER}/root/2.json"), &self.root_document(2, 1)).expect("written");
    }

    /// The closure digest of the system at `path`, as it was the first time that somebody asked.
    pub(crate) fn learn(&self, host: &impl Machine, path: &str) -> String {
        let mut known = self.digests.borrow_mut();
        known.entry(path.to_owned()).or_insert_with(|| closure_digest(host, path)).clone()
    }

    /// Publishes release `seq`: this host shall run the system at `path`.
    pub(crate) fn publish(&self, host: &impl Machine, seq: u64, path: &str, saying: &Saying) {
        let digest_of = self.learn(host, path);
        let entry = json!({
            "host": HOST,
            "keys": [self.host.line()],
            "wave": 0,
            "system": path,
            "closure": { "digest": digest_of, "fetch_bytes": 1_000, "unpacked_bytes": 1_000 },
            "probes": saying.probes,
        });
        let payload = entry.to_string().into_bytes();
        let leaf = digest(&SHA256, &[&[0], pae(ENTRY, &payload).as_slice()].concat());
        let release = json!({
            "fleet": "acme",
            "channel": "stable",
            "seq": seq,
            "created_ms": now_ms() - 1_000 * saying.made_ago_secs,
            "expires_ms": now_ms() + 10 * DAY_MS,
            "revision": "9c1f2e4",
            "policy": {
                "waves": [{ "name": "all", "opens_after_secs": 0, "soak_secs": saying.soak_secs }],
                "max_failures": 0,
                "on_failure": "revert",
                "commit": saying.commit,
                "confirm_within_secs": saying.confirm_within_secs,
                "reboot": saying.reboot,
                "offline_after_secs": 86_400,
            },
            "hosts": 1,
            "entries_root": format!("sha256:{}", HEXLOWER.encode(leaf.as_ref())),
        });
        let folder = format!("{FOLDER}/channels/stable");
        let at = format!("{folder}/{seq}");
        let proven = format!(
            "{{\"payloadType\":\"{ENTRY}\",\"payload\":\"{}\",\"proof\":{{\"index\":0,\"path\":\"\"}}}}\n",
            BASE64.encode(&payload)
        );
        host.write_file(&format!("{at}/hosts/{HOST}.json"), &proven).expect("written");
        let release = signed(RELEASE, &release, &self.release);
        host.write_file(&format!("{at}/release.json"), &release).expect("written");
        host.write_file(&format!("{folder}/.latest"), &format!("{seq}\n")).expect("written");
        let moved = host.run(&["mv", &format!("{folder}/.latest"), &format!("{folder}/latest")]);
        assert_eq!(moved.expect("it runs").code, 0);
    }
}

/// SHA-256 over the sorted `path narHash narSize` lines of a closure, by the tools of a shell. What the host does not have
/// is asked of its cache.
fn closure_digest(host: &impl Machine, path: &str) -> String {
    let script = r#"
        set -e
        export NIX_CONFIG='extra-experimental-features = nix-command'
        store=$(sed -n 's/^substituters *= *//p' /etc/nix/nix.conf | cut -d ' ' -f 1)
        nix path-info --store "$store" --json -r "$1" > /tmp/closure.json
        cat /tmp/closure.json
    "#;
    let said = host.run(&["/bin/bash", "-c", script, "sh", path]).expect("it runs");
    assert_eq!(said.code, 0, "{said}");
    let json: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let mut lines: Vec<String> = match &json {
        Value::Array(paths) => {
            paths.iter().map(|one| line(one["path"].as_str().expect("a path"), one)).collect()
        }
        Value::Object(paths) => paths.iter().map(|(path, one)| line(path, one)).collect(),
        other => panic!("no closure: {other}"),
    };
    assert!(lines.len() > 5, "a system has a closure: {lines:?}");
    lines.sort();
    let text = lines.join("\n") + "\n";
    format!("sha256:{}", HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref()))
}

fn line(path: &str, info: &Value) -> String {
    let hash = info["narHash"].as_str().expect("a hash");
    let hash = match hash.strip_prefix("sha256-") {
        Some(sri) => format!("sha256:{}", nix32(&BASE64.decode(sri.as_bytes()).expect("base64"))),
        None => hash.to_owned(),
    };
    format!("{path} {hash} {}", info["narSize"])
}

/// Nix's own base32: the number of the bytes, least significant byte first, five bits a digit, most significant digit
/// first.
fn nix32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let bit = |n: usize| bytes.get(n / 8).is_some_and(|byte| byte >> (n % 8) & 1 == 1);
    let digit = |d: usize| (0..5).rev().fold(0, |value, b| value << 1 | usize::from(bit(d * 5 + b)));
    (0..(bytes.len() * 8).div_ceil(5)).rev().map(|d| char::from(DIGITS[digit(d)])).collect()
}
