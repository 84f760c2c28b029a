//! What is done with the bytes of a stranger, one function for each parser: the fuzz targets call them with noise, and a
//! test with the corpus. Beside "no panic", each holds what must be true of anything that was read.

use nixfleet_core::model::policy::Policy;
use nixfleet_core::model::release::{Entry, Release};
use nixfleet_trust::author;
use nixfleet_trust::check::root::first_root;
use nixfleet_trust::envelope::{ENVELOPE_SIZE_MAX, EntryEnvelope, Envelope, PayloadType};
use nixfleet_trust::json;
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::root::Root;
use nixfleet_trust::sign::agent;
use nixfleet_trust::sign::private_key::PrivateKey;
use nixfleet_trust::signature::{SIGNATURE_LEN_MAX, Signature};
use nixfleet_trust::trust::{SavedTrust, Trust};

/// A parser by the name of its corpus.
pub(crate) type Input = (&'static str, fn(&[u8]));

/// Every parser of this crate.
pub(crate) const ALL: [Input; 8] = [
    ("trust-envelope", envelope),
    ("trust-entry", entry),
    ("trust-payload", payload),
    ("trust-public-key", public_key),
    ("trust-signature", signature),
    ("trust-private-key", private_key),
    ("trust-agent", agent),
    ("trust-state", state),
];

/// The envelope of a root or a release; a root is also taken for a host's first one.
pub(crate) fn envelope(bytes: &[u8]) {
    for kind in [PayloadType::Root, PayloadType::Release] {
        if let Ok(envelope) = Envelope::read(bytes, kind) {
            assert!(bytes.len() <= ENVELOPE_SIZE_MAX);
            assert_eq!(envelope.to_bytes(), bytes, "an envelope has one form");
        }
    }
    if let Ok(root) = first_root(bytes) {
        assert_eq!(root.faults(), []);
        let trust = Trust::begin(bytes).expect("it is a root");
        let saved = trust.to_saved().to_bytes();
        assert_eq!(Trust::open(bytes, Some(&saved)).expect("it was saved"), trust);
    }
}

/// The envelope of an entry.
pub(crate) fn entry(bytes: &[u8]) {
    if let Ok(envelope) = EntryEnvelope::read(bytes) {
        assert!(bytes.len() <= ENVELOPE_SIZE_MAX);
        assert_eq!(envelope.to_bytes(), bytes, "an envelope has one form");
    }
}

/// The contents of the documents, which a host reads only when they are signed.
pub(crate) fn payload(bytes: &[u8]) {
    if let Ok(root) = json::read::<Root>(bytes)
        && let Ok(envelope) = author::root(&root)
    {
        assert_eq!(json::read::<Root>(envelope.payload()).expect("its own form"), root);
    }
    if let Ok(release) = json::read::<Release>(bytes)
        && let Ok(envelope) = author::release(&release)
    {
        assert_eq!(json::read::<Release>(envelope.payload()).expect("its own form"), release);
        assert!(
            release.policy.waves.iter().all(|wave| wave.opens_at(release.created_ms) >= release.created_ms)
        );
    }
    if let Ok(entry) = json::read::<Entry>(bytes) {
        let again = serde_json::to_vec(&entry).expect("it is JSON");
        assert_eq!(json::read::<Entry>(&again).expect("its own form"), entry);
        let policy: Policy = json::read(ONE_WAVE).expect("a policy");
        if let Ok(assembly) = author::Assembly::new(vec![entry], &policy) {
            for (_, envelope) in assembly.envelopes() {
                assert_eq!(envelope.payload(), again);
                EntryEnvelope::read(&envelope.to_bytes()).expect("a host reads it");
            }
        }
    }
}

const ONE_WAVE: &[u8] = br#"{"waves":[{"name":"all","opens_after_secs":0,"soak_secs":0}],"max_failures":0,
    "on_failure":"revert","commit":"after-confirm","confirm_within_secs":1,
    "reboot":{"mode":"never","warn_secs":0},"offline_after_secs":1}"#;

/// A public key as text, and as DER and OpenSSH's bytes.
pub(crate) fn public_key(bytes: &[u8]) {
    let read = [
        std::str::from_utf8(bytes).ok().and_then(|text| PublicKey::read(text).ok()),
        PublicKey::from_spki(bytes).ok(),
        PublicKey::from_blob(bytes).ok(),
    ];
    for key in read.into_iter().flatten() {
        assert_eq!(PublicKey::read(&key.to_string()).expect("its own form"), key);
        assert_eq!(PublicKey::from_blob(&key.blob()).expect("its own form"), key);
        if let Some(der) = key.spki() {
            assert_eq!(PublicKey::from_spki(&der).expect("its own form"), key);
        }
    }
}

/// One key of each kind, from `tests/fixtures/ssh`.
fn keys() -> [PublicKey; 4] {
    [
        include_str!("../fixtures/ssh/ed25519.pub"),
        include_str!("../fixtures/ssh/ecdsa.pub"),
        include_str!("../fixtures/ssh/sk-ed25519.pub"),
        include_str!("../fixtures/ssh/sk-ecdsa.pub"),
    ]
    .map(|line| PublicKey::read(line).expect("a key"))
}

/// A signature in any form, for any kind of key.
pub(crate) fn signature(bytes: &[u8]) {
    let claimed = Signature::claimed_key(bytes).ok().flatten();
    for key in keys().iter().chain(&claimed) {
        if let Ok(signature) = Signature::read(bytes, key) {
            assert!(bytes.len() <= 2 * SIGNATURE_LEN_MAX);
            let good = signature.verify(key, include_bytes!("../fixtures/ssh/message")).is_ok();
            let _ = signature.verify(key, b"something that nobody signed").expect_err("nobody signed it");
            // A signature by one of our four keys is a recorded one, or half of a recorded one mirrored.
            assert!(!good || bytes.len() >= 64);
        }
    }
}

/// A key file.
pub(crate) fn private_key(bytes: &[u8]) {
    use nixfleet_trust::sign::Signer;
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = PrivateKey::read(text) {
        let signature = key.sign(b"a message").expect("it signs");
        assert_eq!(signature.verify(key.public_key(), b"a message"), Ok(()));
        let written = key.to_openssh("a comment").expect("randomness");
        assert_eq!(PrivateKey::read(&written).expect("its own form").public_key(), key.public_key());
    }
}

/// An agent's answers.
pub(crate) fn agent(bytes: &[u8]) {
    let _ = agent::read_identities(bytes);
    for key in keys() {
        if let Ok(signature) = agent::read_signature(bytes, &key) {
            let _ = signature.verify(&key, b"something that nobody signed").expect_err("nobody signed it");
        }
    }
}

/// A saved state.
pub(crate) fn state(bytes: &[u8]) {
    if let Ok(saved) = SavedTrust::from_bytes(bytes) {
        assert_eq!(SavedTrust::from_bytes(&saved.to_bytes()).expect("its own form"), saved);
        let _ = Trust::resume(include_bytes!("../golden/root-1.json"), saved);
    }
}
