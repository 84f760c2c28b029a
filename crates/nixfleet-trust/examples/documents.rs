//! Measures what a host fetches and verifies for an update, in fleets of three sizes: `cargo xtask bench documents`.
//!
//! Prints a Markdown table. Times are medians on one thread. The numbers to hold are in the design: a release and an
//! entry are verified in 1 ms; 100,000 entries are assembled in 1 s.

#![expect(clippy::print_stdout, reason = "the figures are the result")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use nixfleet_core::model::layout;
use nixfleet_core::model::names::{RootVersion, Seq};
use nixfleet_core::model::policy::Policy;
use nixfleet_core::model::release::{Entry, Release};
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::author::{self, Assembly};
use nixfleet_trust::check::entry::{HostIdentity, own_entry};
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::root::{ChannelRules, Role, Root};
use nixfleet_trust::sign::private_key::PrivateKey;
use nixfleet_trust::sign::{self, Signer};
use nixfleet_trust::trust::Trust;
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const NOW: u64 = 1_795_600_000_000;
const DAY: u64 = 86_400_000;
/// The number of the release, as it is after some years.
const SEQ: u64 = 1_000;
/// As many hosts as the design is made for.
const HOSTS: u32 = 100_000;
/// The sizes that are compared.
const SIZES: [u32; 3] = [10, 1_000, HOSTS];
/// How often a release with an entry is verified for one figure: a second or less.
const VERIFIED: usize = 5_000;

fn main() -> Result<()> {
    let keys = Keys {
        root: PrivateKey::generate()?,
        release: [PrivateKey::generate()?, PrivateKey::generate()?],
        host: PrivateKey::generate()?.public_key().clone(),
    };
    let columns = SIZES.into_iter().map(|hosts| measure(hosts, &keys)).collect::<Result<Vec<_>>>()?;
    let heads = SIZES.map(|hosts| format!("{hosts} hosts"));
    println!("| what a host fetches for an update, beside its closure |{}", row(heads));
    println!("|---|{}", "---|".repeat(SIZES.len()));
    for (number, (what, _)) in columns[0].iter().enumerate() {
        println!("| {what} |{}", row(columns.iter().map(|column| column[number].1.clone())));
    }
    Ok(())
}

fn row(cells: impl IntoIterator<Item = String>) -> String {
    cells.into_iter().fold(String::new(), |row, cell| row + " " + &cell + " |")
}

/// Whose signatures there are, and a key that those of the hosts are made after.
struct Keys {
    root: PrivateKey,
    release: [PrivateKey; 2],
    host: PublicKey,
}

/// The rows of one column: what it is, and its value.
type Column = Vec<(&'static str, String)>;

fn measure(hosts: u32, keys: &Keys) -> Result<Column> {
    let policy = serde_json::from_value(policy())?;
    let entries = entries(hosts, &keys.host)?;
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
    let latest = layout::write_latest(Seq::new(SEQ)?).len();
    let release = signed_release(&assembly, &policy, keys)?;
    let verifying = verifying(&assembly, &release, keys)?;
    let entry = written as f64 / f64::from(hosts);
    Ok(vec![
        ("`latest`, bytes", latest.to_string()),
        ("the release with two signatures, bytes", release.len().to_string()),
        ("its own entry with the proof, bytes in the mean", format!("{entry:.0}")),
        ("all of it, bytes", format!("{:.0}", (latest + release.len()) as f64 + entry)),
        ("release and entry verified, ms", format!("{:.2}", verifying * 1e3)),
        ("where they are made: all entries checked and hashed, ms", format!("{:.2}", assembling * 1e3)),
        ("where they are made: all proofs and bytes, ms", format!("{:.2}", writing * 1e3)),
    ])
}

/// The bytes of a release with these entries.
fn signed_release(assembly: &Assembly, policy: &Policy, keys: &Keys) -> Result<Vec<u8>> {
    let release: Release = serde_json::from_value(json!({
        "fleet": "acme", "channel": "stable", "seq": SEQ, "created_ms": NOW, "expires_ms": NOW + 10 * DAY,
        "revision": "3f1c9a7e5b2d48603f1c9a7e5b2d48603f1c9a7e", "policy": policy,
        "hosts": assembly.hosts(), "entries_root": assembly.entries_root(), "previous": assembly.entries_root(),
    }))?;
    let mut signed = author::release(&release)?;
    for key in &keys.release {
        signed = sign::add(&signed, key)?;
    }
    Ok(signed.to_bytes())
}

/// How long a host takes to verify the release and its own entry, from their bytes, in seconds.
fn verifying(assembly: &Assembly, release: &[u8], keys: &Keys) -> Result<f64> {
    let root = root(keys.root.public_key(), &keys.release)?;
    let trust = Trust::begin(&sign::add(&author::root(&root)?, &keys.root)?.to_bytes())?;
    let (host, entry) = assembly.envelopes().last().ok_or("there are hosts")?;
    let (entry, key) = (entry.to_bytes(), host_key_of(assembly.hosts() - 1, &keys.host)?);
    let me = HostIdentity { name: host.clone(), key };
    let (channel, clock) = ("stable".parse()?, UnixMs::new(NOW)?);
    median(VERIFIED, || {
        let accepted = trust.accept_release(&channel, release, clock)?;
        black_box(own_entry(&accepted.release, &entry, &me)?);
        Ok(())
    })
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
