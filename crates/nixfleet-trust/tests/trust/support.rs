//! Makes documents without the code under test.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use data_encoding::{BASE64, BASE64_NOPAD};
use serde_json::{Value, json};

use nixfleet_core::model::names::{ChannelName, Seq};
use nixfleet_core::model::release::Release;
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::check::Verified;
use nixfleet_trust::check::entry::HostIdentity;
use nixfleet_trust::check::release::ReleaseRefused;
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::trust::Trust;

pub(crate) const ROOT: &str = "application/vnd.nixfleet.root.v1+json";
pub(crate) const RELEASE: &str = "application/vnd.nixfleet.release.v1+json";
pub(crate) const ENTRY: &str = "application/vnd.nixfleet.entry.v1+json";

/// One day in November 2026, in milliseconds.
pub(crate) const DAY: u64 = 86_400_000;
pub(crate) const NOW: u64 = 1_795_600_000_000;

pub(crate) fn at(ms: u64) -> UnixMs {
    UnixMs::new(ms).expect("a time in range")
}

pub(crate) fn seq(number: u64) -> Seq {
    Seq::new(number).expect("a number in range")
}

pub(crate) fn stable() -> ChannelName {
    "stable".parse().expect("a channel name")
}

/// A test key. Its private half is in this file, so it must never be trusted anywhere.
pub(crate) enum Key {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl Key {
    /// The same key for the same number.
    pub(crate) fn ed25519(number: u8) -> Self {
        Self::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[number; 32]).expect("32 bytes are a seed"))
    }

    /// Another key at each run.
    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("randomness"))
    }

    pub(crate) fn blob(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => [string(b"ssh-ed25519"), string(pair.public_key().as_ref())].concat(),
            Self::P256(pair) => {
                [string(b"ecdsa-sha2-nistp256"), string(b"nistp256"), string(pair.public_key().as_ref())]
                    .concat()
            }
        }
    }

    pub(crate) fn line(&self) -> String {
        let name = match self {
            Self::Ed25519(_) => "ssh-ed25519",
            Self::P256(_) => "ecdsa-sha2-nistp256",
        };
        format!("{name} {}", BASE64.encode(&self.blob()))
    }

    pub(crate) fn id(&self) -> String {
        fingerprint(&self.blob())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::P256(pair) => pair.sign(&SystemRandom::new(), message).expect("it signs").as_ref().to_vec(),
        }
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::read(&self.line()).expect("a key by construction")
    }
}

pub(crate) fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", BASE64_NOPAD.encode(digest(&SHA256, blob).as_ref()))
}

pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    let count = u32::try_from(bytes.len()).expect("short");
    [&count.to_be_bytes()[..], bytes].concat()
}

pub(crate) fn pae(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = b"DSSEv1 ".to_vec();
    for part in [kind.as_bytes(), payload] {
        out.extend_from_slice(part.len().to_string().as_bytes());
        out.push(b' ');
        out.extend_from_slice(part);
        out.push(b' ');
    }
    out.pop();
    out
}

/// An envelope with the signatures of `keys` over what it really has.
pub(crate) fn signed(kind: &str, payload: &Value, keys: &[&Key]) -> Vec<u8> {
    let payload = payload.to_string().into_bytes();
    let message = pae(kind, &payload);
    let signatures: Vec<_> = keys.iter().map(|key| (key.id(), key.sign(&message))).collect();
    envelope(kind, &payload, signatures)
}

/// An envelope with any signatures at all.
pub(crate) fn envelope(kind: &str, payload: &[u8], mut signatures: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    signatures.sort();
    let list: Vec<String> = signatures
        .iter()
        .map(|(id, signature)| format!(r#"{{"keyid":"{id}","sig":"{}"}}"#, BASE64.encode(signature)))
        .collect();
    let payload = BASE64.encode(payload);
    format!("{{\"payloadType\":\"{kind}\",\"payload\":\"{payload}\",\"signatures\":[{}]}}\n", list.join(","))
        .into_bytes()
}

pub(crate) fn entry_envelope(payload: &Value, index: usize, path: &[[u8; 32]]) -> Vec<u8> {
    let payload = BASE64.encode(payload.to_string().as_bytes());
    let path = BASE64.encode(&path.concat());
    format!(
        "{{\"payloadType\":\"{ENTRY}\",\"payload\":\"{payload}\",\"proof\":{{\"index\":{index},\"path\":\"{path}\"}}}}\n"
    )
    .into_bytes()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
}

pub(crate) fn hex_digest(bytes: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&sha256(bytes)))
}

/// The Merkle tree hash exactly as RFC 6962, section 2.1, defines it.
pub(crate) fn merkle_root(leaves: &[Vec<u8>]) -> [u8; 32] {
    match leaves {
        [] => sha256(b""),
        [leaf] => sha256(&[&[0], leaf.as_slice()].concat()),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            sha256(&[&[1], &merkle_root(left)[..], &merkle_root(right)].concat())
        }
    }
}

/// The audit path exactly as RFC 6962, section 2.1.1, defines it.
pub(crate) fn merkle_path(index: usize, leaves: &[Vec<u8>]) -> Vec<[u8; 32]> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, other) = if index < k {
        (merkle_path(index, left), merkle_root(right))
    } else {
        (merkle_path(index - k, right), merkle_root(left))
    };
    path.push(other);
    path
}

/// The largest power of two smaller than `n`.
fn split(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

/// The keys of the fleet `acme` that the tests play in.
pub(crate) struct Fleet {
    pub(crate) root_keys: [Key; 3],
    pub(crate) stable_keys: [Key; 3],
    pub(crate) edge_key: Key,
    pub(crate) host_keys: Vec<Key>,
}

pub(crate) fn fleet() -> Fleet {
    Fleet {
        root_keys: [1, 2, 3].map(Key::ed25519),
        stable_keys: [11, 12, 13].map(Key::ed25519),
        edge_key: Key::ed25519(21),
        host_keys: (100..105).map(Key::ed25519).collect(),
    }
}

fn role(keys: &[&Key], threshold: u32) -> Value {
    json!({ "keys": keys.iter().map(|key| key.id()).collect::<Vec<_>>(), "threshold": threshold })
}

impl Fleet {
    /// The first root: two of three root keys; two of three keys for `stable`, one for `edge`.
    pub(crate) fn root(&self) -> Value {
        let all = self.root_keys.iter().chain(&self.stable_keys).chain([&self.edge_key]);
        json!({
            "fleet": "acme",
            "version": 1,
            "created_ms": NOW - 30 * DAY,
            "expires_ms": NOW + 300 * DAY,
            "keys": all.map(|key| (key.id(), Value::from(key.line()))).collect::<serde_json::Map<_, _>>(),
            "root": role(&self.root_keys.each_ref(), 2),
            "channels": {
                "stable": { "release": role(&self.stable_keys.each_ref(), 2), "seq_floor": 0 },
                "edge": { "release": role(&[&self.edge_key], 1), "seq_floor": 0 },
            },
        })
    }

    pub(crate) fn sign_root(&self, root: &Value) -> Vec<u8> {
        signed(ROOT, root, &[&self.root_keys[0], &self.root_keys[1]])
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::begin(&self.sign_root(&self.root())).expect("the first root is sound")
    }

    /// An entry of host `web-N`.
    pub(crate) fn entry(&self, number: usize) -> Value {
        json!({
            "host": format!("web-{number}"),
            "keys": [self.host_keys[number].line()],
            "tags": ["web"],
            "wave": u16::from(number != 0),
            "system": format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-web-{number}-25.11"),
            "closure": {
                "digest": hex_digest(&[u8::try_from(number).expect("few")]),
                "fetch_bytes": 1_000_000,
                "unpacked_bytes": 3_000_000,
            },
        })
    }

    pub(crate) fn entries(&self) -> Vec<Value> {
        (0..self.host_keys.len()).map(|number| self.entry(number)).collect()
    }

    /// A release of `stable` over [`Fleet::entries`], made now and good for ten days.
    pub(crate) fn release(&self, seq: u64) -> Value {
        release_over(seq, &self.entries())
    }

    pub(crate) fn sign(&self, release: &Value) -> Vec<u8> {
        signed(RELEASE, release, &[&self.stable_keys[0], &self.stable_keys[1]])
    }

    pub(crate) fn me(&self, number: usize) -> HostIdentity {
        HostIdentity {
            name: format!("web-{number}").parse().expect("a host name"),
            key: self.host_keys[number].public(),
        }
    }
}

pub(crate) fn release_over(seq: u64, entries: &[Value]) -> Value {
    let root = merkle_root(&leaves(entries));
    json!({
        "fleet": "acme",
        "channel": "stable",
        "seq": seq,
        "created_ms": NOW,
        "expires_ms": NOW + 10 * DAY,
        "revision": "9c1f2e4",
        "policy": policy(),
        "hosts": entries.len(),
        "entries_root": format!("sha256:{}", data_encoding::HEXLOWER.encode(&root)),
    })
}

pub(crate) fn policy() -> Value {
    json!({
        "waves": [
            { "name": "canary", "opens_after_secs": 0, "soak_secs": 600 },
            { "name": "rest", "opens_after_secs": 3600, "soak_secs": 600 },
        ],
        "max_failures": 0,
        "on_failure": "revert",
        "commit": "after-confirm",
        "confirm_within_secs": 360,
        "reboot": { "mode": "never", "warn_secs": 0 },
        "offline_after_secs": 86400,
    })
}

fn leaves(entries: &[Value]) -> Vec<Vec<u8>> {
    entries.iter().map(|entry| pae(ENTRY, entry.to_string().as_bytes())).collect()
}

/// The envelope of entry `index` of `entries`, with its proof.
pub(crate) fn proven(entries: &[Value], index: usize) -> Vec<u8> {
    entry_envelope(&entries[index], index, &merkle_path(index, &leaves(entries)))
}

/// What comes of `envelope` on a host that trusts `trust`.
pub(crate) fn refused(trust: &Trust, envelope: &[u8]) -> ReleaseRefused {
    trust.accept_release(&stable(), envelope, at(NOW)).expect_err("it must be refused")
}

/// What comes of `envelope`, which must be good, on such a host.
pub(crate) fn accepted(trust: &Trust, envelope: &[u8]) -> (Verified<Release>, Trust) {
    let accepted = trust.accept_release(&stable(), envelope, at(NOW)).expect("it must be accepted");
    (accepted.release, accepted.trust)
}

/// `document` with `field` set to `value`.
pub(crate) fn with(document: &Value, field: &str, value: impl Into<Value>) -> Value {
    let mut changed = document.clone();
    changed[field] = value.into();
    changed
}
