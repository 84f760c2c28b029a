//! Measures what a host and the command line do most: `cargo run --release -p nixfleet-trust --example bench`.
//!
//! Prints `name value unit` lines. Every figure is the median of several rounds on one thread. The numbers to hold are
//! in the design: a release and an entry are verified in 1 ms; 100,000 entries are assembled in 1 s.

#![expect(clippy::print_stdout, reason = "the figures are the result")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use nixfleet_core::model::names::Seq;
use nixfleet_core::model::release::{Entry, Release};
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::author::{self, Assembly};
use nixfleet_trust::check::entry::{HostIdentity, own_entry};
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::root::{ChannelRules, Role, Root, RootVersion};
use nixfleet_trust::sign::private_key::PrivateKey;
use nixfleet_trust::sign::{self, Signer};
use nixfleet_trust::trust::Trust;
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const NOW: u64 = 1_795_600_000_000;
const DAY: u64 = 86_400_000;
/// As many hosts as the design is made for.
const HOSTS: u32 = 100_000;

fn main() -> Result<()> {
    let (root_key, release_keys) =
        (PrivateKey::generate()?, [PrivateKey::generate()?, PrivateKey::generate()?]);
    let host_key = PrivateKey::generate()?.public_key().clone();
    for hosts in [10, 1_000, HOSTS] {
        measure(hosts, &root_key, &release_keys, &host_key)?;
    }
    Ok(())
}

fn measure(
    hosts: u32,
    root_key: &PrivateKey,
    release_keys: &[PrivateKey; 2],
    host_key: &PublicKey,
) -> Result<()> {
    let policy = serde_json::from_value(policy())?;
    let entries = entries(hosts, host_key)?;
    let rounds = if hosts == HOSTS { 5 } else { 20 };
    let mut copies = vec![entries; rounds];
    let mut made = None;
    let assembling = median(rounds, || {
        let entries = copies.pop().ok_or("one for each round")?;
        made = Some(Assembly::new(entries, &policy).map_err(|faults| format!("{faults:?}"))?);
        Ok(())
    })?;
    let assembly = made.ok_or("there were rounds")?;
    let mut written = 0;
    let writing = median(rounds, || {
        written = assembly.envelopes().map(|(_, envelope)| envelope.to_bytes().len()).sum();
        Ok(())
    })?;

    let release: Release = serde_json::from_value(json!({
        "fleet": "acme", "channel": "stable", "seq": 7, "created_ms": NOW, "expires_ms": NOW + 10 * DAY,
        "revision": "3f1c9a7e5b2d48603f1c9a7e5b2d48603f1c9a7e", "policy": policy,
        "hosts": assembly.hosts(), "entries_root": assembly.entries_root(), "previous": assembly.entries_root(),
    }))?;
    let root = root(root_key.public_key(), release_keys)?;
    let trust = Trust::begin(&sign::add(&author::root(&root)?, root_key)?.to_bytes())?;
    let mut signed = author::release(&release)?;
    for key in release_keys {
        signed = sign::add(&signed, key)?;
    }
    let release = signed.to_bytes();
    let (host, entry) = assembly.envelopes().last().ok_or("there are hosts")?;
    let (me, entry) =
        (HostIdentity { name: host.clone(), key: host_key_of(hosts - 1, host_key)? }, entry.to_bytes());
    let (channel, clock) = ("stable".parse()?, UnixMs::new(NOW)?);
    let verifying = median(2_000, || {
        let accepted = trust.accept_release(&channel, &release, clock)?;
        black_box(own_entry(&accepted.release, &entry, &me)?);
        Ok(())
    })?;
    println!("{hosts}-hosts/verify-release-and-entry {:.3} ms", verifying * 1e3);
    println!("{hosts}-hosts/assemble {:.1} ms", assembling * 1e3);
    println!("{hosts}-hosts/prove-and-write-all-entries {:.1} ms", writing * 1e3);
    println!("{hosts}-hosts/release {} bytes", release.len());
    println!("{hosts}-hosts/entry-and-proof {:.0} bytes", written as f64 / f64::from(hosts));
    Ok(())
}

/// Seconds.
fn median(rounds: usize, mut round: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        round()?;
        took.push(begun.elapsed().as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    Ok(took[rounds / 2])
}

fn root(root_key: &PublicKey, release_keys: &[PrivateKey; 2]) -> Result<Root> {
    let releases = release_keys.each_ref().map(Signer::public_key);
    let all = releases.iter().copied().chain([root_key]);
    let rules = ChannelRules {
        release: Role { keys: releases.iter().map(|key| key.id()).collect(), threshold: 2 },
        seq_floor: Seq::ZERO,
        resets: 0,
        not_before_ms: UnixMs::EPOCH,
    };
    Ok(Root {
        fleet: "acme".parse()?,
        version: RootVersion::FIRST,
        created_ms: UnixMs::new(NOW - DAY)?,
        expires_ms: UnixMs::new(NOW + 300 * DAY)?,
        keys: all.map(|key| (key.id(), key.clone())).collect(),
        root: Role { keys: vec![root_key.id()], threshold: 1 },
        channels: BTreeMap::from([("stable".parse()?, rules)]),
        info: BTreeMap::new(),
    })
}

fn policy() -> serde_json::Value {
    json!({
        "waves": [
            { "name": "canary", "opens_after_secs": 0, "soak_secs": 600 },
            { "name": "early", "opens_after_secs": 3600, "soak_secs": 1800 },
            { "name": "rest", "opens_after_secs": 14400, "soak_secs": 1800 },
        ],
        "max_in_flight": [{ "hosts": "all", "limit": "25%" }],
        "max_failures": 2,
        "on_failure": "revert",
        "commit": "after-confirm",
        "confirm_within_secs": 360,
        "reboot": { "mode": "when-needed", "warn_secs": 300 },
        "offline_after_secs": 86400,
    })
}

/// A key of its own for each host: its number in the place of the point's first bytes. Nobody has the private halves.
fn host_key_of(number: u32, like: &PublicKey) -> Result<PublicKey> {
    let mut blob = like.blob();
    let at = blob.len() - 32;
    blob[at..at + 4].copy_from_slice(&number.to_be_bytes());
    Ok(PublicKey::from_blob(&blob)?)
}

fn entries(hosts: u32, like: &PublicKey) -> Result<Vec<Entry>> {
    (0..hosts)
        .map(|number| {
            Ok(serde_json::from_value(json!({
                "host": format!("host-{number:06}"),
                "keys": [host_key_of(number, like)?.to_string()],
                "tags": ["web", "eu"],
                "wave": number % 3,
                "system": "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-web-26.05.20261101.3f1c9a7",
                "closure": {
                    "digest": format!("sha256:{}", "c3".repeat(32)), "fetch_bytes": 412_000_000u64,
                    "unpacked_bytes": 1_730_000_000u64,
                },
                "probes": [{
                    "name": "web", "kind": { "http": { "url": "http://127.0.0.1/health" } },
                    "interval_secs": 10, "timeout_secs": 5, "after_secs": 2, "failures": 3,
                }],
            }))?)
        })
        .collect()
}
