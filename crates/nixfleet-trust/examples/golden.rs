//! Makes the golden vectors in `tests/golden`: `cargo run -p nixfleet-trust --example golden -- crates/nixfleet-trust/tests/golden`.
//!
//! They were made once and are never made again: a host that is off for a year must still read them. The program stays
//! so that everybody can see where they come from. It makes the keys that are missing. One signs like a person:
//!
//! The keys `root-c` and `db-1` are P-256, by `ssh-keygen -t ecdsa`; the others are Ed25519.
//!
//! 1. `ssh-keygen -t ed25519 -N '' -C 'TEST KEY, trust it nowhere' -f keys/person`
//! 2. run the program: it writes `release-1.to-sign` and stops
//! 3. `ssh-keygen -Y sign -n nixfleet -f keys/person release-1.to-sign`
//! 4. run it again

#![expect(clippy::print_stderr, reason = "an example that is run by hand")]
#![expect(clippy::disallowed_methods, reason = "it writes fixtures, and nothing depends on them being whole")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nixfleet_core::model::names::{ChannelName, RootVersion, Seq};
use nixfleet_core::model::release::{Entry, Release};
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::author::{self, Assembly};
use nixfleet_trust::check::entry::{HostIdentity, own_entry};
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::root::{ChannelRules, Role, Root};
use nixfleet_trust::sign::private_key::PrivateKey;
use nixfleet_trust::sign::{self, Signer};
use nixfleet_trust::signature::Signature;
use nixfleet_trust::trust::Trust;
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// 2026-11-01T00:00:00Z.
const CREATED: u64 = 1_793_491_200_000;
/// 2036-11-01T00:00:00Z.
const EXPIRES: u64 = 2_109_110_400_000;
const DAY: u64 = 86_400_000;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).ok_or("say where the vectors go")?;
    let folder = Path::new(&folder);
    let keys = Keys::new(folder)?;
    let channel: ChannelName = "stable".parse()?;

    let first = root(&keys, 1, &[&keys.root_a, &keys.root_b])?;
    let mut first_envelope = author::root(&first)?;
    for signer in [&keys.root_a, &keys.root_b] {
        first_envelope = sign::add(&first_envelope, signer)?;
    }
    let second = root(&keys, 2, &[&keys.root_b, &keys.root_c])?;
    let mut second_envelope = author::root(&second)?;
    for signer in [&keys.root_a, &keys.root_b, &keys.root_c] {
        second_envelope = sign::add(&second_envelope, signer)?;
    }
    save(folder, "root-1.json", &first_envelope.to_bytes())?;
    save(folder, "root-2.json", &second_envelope.to_bytes())?;

    let release = |seq: u64, assembly: &Assembly, previous| -> Result<Release> {
        let mut release: Release = serde_json::from_value(json!({
            "fleet": "acme", "channel": "stable", "seq": seq,
            "created_ms": CREATED + seq * DAY, "expires_ms": EXPIRES,
            "revision": "3f1c9a7e5b2d4860", "policy": policy(),
            "hosts": assembly.hosts(), "entries_root": assembly.entries_root(),
            "info": { "changelog": "the release with number ".to_owned() + &seq.to_string() },
        }))?;
        release.previous = previous;
        Ok(release)
    };
    let entries = entries(&keys)?;
    let policy = serde_json::from_value(policy())?;
    let assembly = Assembly::new(entries, &policy).map_err(|faults| format!("{faults:?}"))?;
    for (host, envelope) in assembly.envelopes() {
        save(folder, &format!("entry-{host}.json"), &envelope.to_bytes())?;
    }

    let one = author::release(&release(1, &assembly, None)?)?;
    save(folder, "release-1.to-sign", &one.to_sign())?;
    let Ok(by_person) = fs::read(folder.join("release-1.to-sign.sig")) else {
        eprintln!("now sign release-1.to-sign as described in this file, and run it again");
        return Ok(());
    };
    let person = PublicKey::read(&fs::read_to_string(folder.join("keys/person.pub"))?)?;
    let signed =
        sign::add(&one, &keys.release)?.with_signature(&person, Signature::read(&by_person, &person)?)?;
    save(folder, "release-1.json", &signed.to_bytes())?;
    let two = author::release(&release(2, &assembly, Some(one.digest()))?)?;
    let two = sign::add(&two, &keys.release)?;
    save(folder, "release-2.json", &two.to_bytes())?;

    let clock = UnixMs::new(CREATED + 5 * DAY)?;
    let trust = Trust::begin(&first_envelope.to_bytes())?;
    let accepted = trust.accept_release(&channel, &signed.to_bytes(), clock)?;
    let host = HostIdentity { name: "web-1".parse()?, key: keys.host("web-1").public_key().clone() };
    let bytes = fs::read(folder.join("entry-web-1.json"))?;
    own_entry(&accepted.release, &bytes, &host)?;
    let trust = accepted.trust.accept_root(&second_envelope.to_bytes(), clock)?;
    save(folder, "trust-state-v1.json", &trust.to_saved().to_bytes())
}

fn save(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    Ok(fs::write(folder.join(name), bytes)?)
}

struct Keys {
    root_a: PrivateKey,
    root_b: PrivateKey,
    root_c: PrivateKey,
    release: PrivateKey,
    person: PublicKey,
    hosts: BTreeMap<&'static str, PrivateKey>,
}

impl Keys {
    fn new(folder: &Path) -> Result<Self> {
        let key = |name: &str| -> Result<PrivateKey> {
            let path = folder.join("keys").join(name);
            if !path.exists() {
                let text = PrivateKey::generate()?.to_openssh("TEST KEY, trust it nowhere")?;
                fs::write(&path, text.as_bytes())?;
            }
            Ok(PrivateKey::read(&fs::read_to_string(path)?)?)
        };
        let hosts = ["db-1", "web-1", "web-2"];
        Ok(Self {
            root_a: key("root-a")?,
            root_b: key("root-b")?,
            root_c: key("root-c")?,
            release: key("release")?,
            person: PublicKey::read(&fs::read_to_string(folder.join("keys/person.pub"))?)?,
            hosts: hosts.into_iter().map(|host| Ok((host, key(host)?))).collect::<Result<_>>()?,
        })
    }

    fn host(&self, name: &str) -> &PrivateKey {
        &self.hosts[name]
    }
}

fn root(keys: &Keys, version: u64, root_keys: &[&PrivateKey]) -> Result<Root> {
    let role = |members: &[&PublicKey], threshold| Role {
        keys: members.iter().map(|key| key.id()).collect(),
        threshold,
    };
    let root_keys: Vec<&PublicKey> = root_keys.iter().map(|key| key.public_key()).collect();
    // The first release needs both, the second one only the machine's.
    let release_keys = [keys.release.public_key(), &keys.person];
    let release = role(&release_keys, if version == 1 { 2 } else { 1 });
    let all = root_keys.iter().chain(&release_keys);
    Ok(Root {
        fleet: "acme".parse()?,
        version: RootVersion::new(version)?,
        created_ms: UnixMs::new(CREATED)?,
        expires_ms: UnixMs::new(EXPIRES)?,
        keys: all.map(|key| (key.id(), (*key).clone())).collect(),
        root: role(&root_keys, 2),
        channels: BTreeMap::from([(
            "stable".parse()?,
            ChannelRules {
                release,
                seq_floor: Seq::new(1)?,
                resets: u32::try_from(version)? - 1,
                not_before_ms: UnixMs::new(CREATED)?,
            },
        )]),
        info: BTreeMap::from([("about".to_owned(), "a golden vector".to_owned())]),
    })
}

fn policy() -> serde_json::Value {
    json!({
        "waves": [
            { "name": "canary", "opens_after_secs": 0, "soak_secs": 600 },
            { "name": "rest", "opens_after_secs": 3600, "soak_secs": 1800, "approval": "by-a-person" },
        ],
        "max_in_flight": [
            { "hosts": "all", "limit": "25%" },
            { "hosts": { "all-of": [{ "tag": "db" }, { "not": { "host": "db-9" } }] }, "limit": 1 },
        ],
        "edges": [{ "hosts": { "tag": "web" }, "after": { "any-of": [{ "tag": "db" }] } }],
        "max_failures": 1,
        "on_failure": "revert",
        "commit": "after-confirm",
        "confirm_within_secs": 360,
        "windows": [{ "days": ["sat", "sun"], "from": "22:00", "until": "04:30", "zone": "Europe/Berlin" }],
        "reboot": {
            "mode": "when-needed", "warn_secs": 300,
            "windows": [{ "from": "03:00", "until": "04:00", "zone": "UTC" }],
            "before": [{ "argv": ["/run/current-system/sw/bin/drain", "--now"], "deadline_secs": 60 }],
            "after": [{ "argv": ["/run/current-system/sw/bin/undrain"], "deadline_secs": 60 }],
        },
        "offline_after_secs": 86400,
    })
}

fn entries(keys: &Keys) -> Result<Vec<Entry>> {
    let common = |name: &str, kind: serde_json::Value| json!({ "name": name, "kind": kind, "interval_secs": 10, "timeout_secs": 5, "after_secs": 2, "failures": 3 });
    let mut observed = common("unit", json!({ "unit": { "unit": "nginx.service" } }));
    observed["mode"] = json!("observe");
    let pin = format!("sha256:{}", "5a".repeat(32));
    let probes = json!([
        common(
            "http",
            json!({ "http": { "url": "https://127.0.0.1/health", "status": { "min": 200, "max": 204 },
            "body_contains": "ok", "tls": { "pinned-key": pin } } })
        ),
        common("tcp", json!({ "tcp": { "address": "127.0.0.1:5432" } })),
        common("exec", json!({ "exec": { "argv": ["/run/current-system/sw/bin/check"] } })),
        observed,
        common(
            "metric",
            json!({ "http-metric": { "url": "http://127.0.0.1:9100/metrics",
            "metric": "errors_total", "good": { "at-most": 0.25 } } })
        ),
    ]);
    let entry = |host: &str, tags: &[&str], wave: u16| -> Result<serde_json::Value> {
        Ok(json!({
            "host": host,
            "keys": [keys.host(host).public_key().to_string()],
            "tags": tags,
            "wave": wave,
            "system": format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-{host}-26.05"),
            "closure": {
                "digest": format!("sha256:{}", "c3".repeat(32)), "fetch_bytes": 412_000_000u64,
                "unpacked_bytes": 1_730_000_000u64,
            },
        }))
    };
    let mut web = entry("web-1", &["canary", "web"], 0)?;
    web["probes"] = probes;
    web["reboot"] = json!("always");
    let all = [entry("db-1", &["db"], 1)?, web, entry("web-2", &["web"], 1)?];
    Ok(all.into_iter().map(serde_json::from_value).collect::<std::result::Result<_, _>>()?)
}
