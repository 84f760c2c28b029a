//! The golden vectors: what was written once is read for ever, and nothing else.

use std::path::Path;

use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::author;
use nixfleet_trust::check::entry::{HostIdentity, own_entry};
use nixfleet_trust::check::release::Succession;
use nixfleet_trust::envelope::{Envelope, PayloadType};
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::signature::Signature;
use nixfleet_trust::trust::{Accepted, Trust};

use crate::support::{at, stable};

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// 2026-11-06T00:00:00Z.
fn clock() -> UnixMs {
    at(1_793_923_200_000)
}

fn begin(root: &[u8]) -> Option<Trust> {
    Trust::begin(root).ok()
}

fn release(trust: &Trust, bytes: &[u8]) -> Option<Accepted> {
    trust.accept_release(&stable(), bytes, clock()).ok()
}

fn host(name: &str, key: &str) -> HostIdentity {
    HostIdentity { name: name.parse().expect("a name"), key: PublicKey::read(key).expect("a key") }
}

/// The hosts by the public halves of `keys/`.
fn hosts() -> [HostIdentity; 3] {
    [
        host(
            "db-1",
            "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBDyhNpCcHaPd5iQveJBXi6/Rt51YRvJ28tLrU87Z8KN2cYj2PgGO2i5Skt3Gl9+5yhC/NEDfRCRZvrjMkJIY7Kg=",
        ),
        host("web-1", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOPZ0xRhjEXRXtvULeT7gl3QoRiY0se9/clG/dvcf3gE"),
        host("web-2", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINKjW7UekIrLIMIin7lI4zjAbz5SxPthYAt9lv8WGcCq"),
    ]
}

#[test]
fn the_vectors_are_read_and_mean_what_they_meant() {
    let first = begin(&golden("root-1.json")).expect("root 1");
    let one = release(&first, &golden("release-1.json")).expect("release 1: a machine and a person");
    assert!(release(&first, &golden("release-2.json")).is_none(), "under root 1 the person is needed");
    let second = one.trust.accept_root(&golden("root-2.json"), clock()).expect("root 2");
    assert_eq!(second.floor(&stable()).expect("a channel").resets, 1);
    let two = release(&second, &golden("release-2.json")).expect("release 2: the machine alone");
    assert_eq!(two.succession, Succession::AfterGap, "root 2 has reset the channel");
    assert_eq!(two.release.previous, Some(one.release.digest()));
    assert_eq!(two.release.info["changelog"], "the release with number 2");
    assert_eq!(two.release.policy.waves.len(), 2);

    let mut taken = 0;
    for me in hosts() {
        let entry = golden(&format!("entry-{}.json", me.name));
        for release in [&one.release, &two.release] {
            let mine = own_entry(release, &entry, &me).expect("its own");
            assert_eq!(mine.entry.closure.fetch_bytes, 412_000_000);
            assert_eq!(mine.entry.probes.len(), if me.name.as_str() == "web-1" { 5 } else { 0 });
            taken += 1;
        }
    }
    assert_eq!(taken, 6);
}

#[test]
fn the_digests_are_those_that_were_computed_elsewhere() {
    let mut compared = 0;
    for line in String::from_utf8(golden("digests")).expect("text").lines() {
        let (name, digest) = line.split_once(' ').expect("a name and a digest");
        let bytes = golden(&format!("{name}.json"));
        let found = match name.split_once('-').expect("a kind").0 {
            "root" => Envelope::read(&bytes, PayloadType::Root).expect(name).digest(),
            "release" => Envelope::read(&bytes, PayloadType::Release).expect(name).digest(),
            _ => {
                let first = begin(&golden("root-1.json")).expect("root 1");
                let one = release(&first, &golden("release-1.json")).expect("release 1");
                let me = hosts().into_iter().find(|me| name.ends_with(me.name.as_str())).expect("a host");
                own_entry(&one.release, &bytes, &me).expect(name).digest()
            }
        };
        assert_eq!(found.to_string(), format!("sha256:{digest}"), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[test]
fn what_is_written_today_has_the_same_bytes() {
    let first = begin(&golden("root-1.json")).expect("root 1");
    let root = author::root(first.root()).expect("it makes sense");
    assert_eq!(
        root.payload(),
        Envelope::read(&golden("root-1.json"), PayloadType::Root).expect("root 1").payload()
    );
    let one = release(&first, &golden("release-1.json")).expect("release 1");
    let again = author::release(&one.release).expect("it makes sense");
    assert_eq!(again.to_sign(), golden("release-1.to-sign"));
    // With both signatures, the file itself.
    let was = Envelope::read(&golden("release-1.json"), PayloadType::Release).expect("release 1");
    let mut signed = again;
    for (id, signature) in was.signatures() {
        let key = first.root().keys.get(id).expect("a key of the root");
        signed = signed.with_signature(key, signature.clone()).expect("good");
    }
    assert_eq!(signed.to_bytes(), golden("release-1.json"));
    let entries = hosts().map(|me| {
        let entry = golden(&format!("entry-{}.json", me.name));
        own_entry(&one.release, &entry, &me).expect("its own").into_inner().entry
    });
    let assembly = author::Assembly::new(entries.into(), &one.release.policy).expect("it makes sense");
    assert_eq!(assembly.entries_root(), one.release.entries_root);
    for (host, envelope) in assembly.envelopes() {
        assert_eq!(envelope.to_bytes(), golden(&format!("entry-{host}.json")), "{host}");
    }
}

#[test]
fn the_persons_signature_is_the_one_that_ssh_keygen_wrote() {
    let person =
        PublicKey::read(&String::from_utf8(golden("keys/person.pub")).expect("text")).expect("a key");
    let written = Signature::read(&golden("release-1.to-sign.sig"), &person).expect("OpenSSH's");
    let was = Envelope::read(&golden("release-1.json"), PayloadType::Release).expect("release 1");
    assert_eq!(was.signatures().get(&person.id()), Some(&written));
}

#[test]
fn the_state_of_the_first_version_is_read() {
    let root = golden("root-1.json");
    let saved = golden("trust-state-v1.json");
    let trust = Trust::open(&root, Some(&saved)).expect("the first version");
    assert_eq!(trust.root().version.get(), 2);
    assert_eq!(trust.to_saved().to_bytes(), saved, "and written back as it was");
    let _ = release(&trust, &golden("release-2.json")).expect("release 2");
}

/// Every byte of `bytes` changed, one at a time.
fn each_byte_changed(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len()).map(|at| {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        (at, changed)
    })
}

#[test]
fn every_changed_byte_of_every_vector_is_refused() {
    let first = begin(&golden("root-1.json")).expect("root 1");
    let second = first.accept_root(&golden("root-2.json"), clock()).expect("root 2");
    let one = release(&first, &golden("release-1.json")).expect("release 1").release;
    let mut refused = 0;
    let mut all = |name: &str, takes: &dyn Fn(&[u8]) -> bool| {
        let bytes = golden(name);
        assert!(takes(&bytes), "{name} as it is");
        for (at, changed) in each_byte_changed(&bytes) {
            assert!(!takes(&changed), "{name}: byte {at}");
            refused += 1;
        }
    };
    all("root-1.json", &|bytes| begin(bytes).is_some());
    all("root-2.json", &|bytes| first.accept_root(bytes, clock()).is_ok());
    all("release-1.json", &|bytes| release(&first, bytes).is_some());
    all("release-2.json", &|bytes| release(&second, bytes).is_some());
    for me in hosts() {
        all(&format!("entry-{}.json", me.name), &|bytes| own_entry(&one, bytes, &me).is_ok());
    }
    let configured = golden("root-1.json");
    all("trust-state-v1.json", &|bytes| Trust::open(&configured, Some(bytes)).is_ok());
    assert!(refused > 10_000, "{refused}");
}
