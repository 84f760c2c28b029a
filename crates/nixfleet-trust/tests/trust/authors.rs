//! From contents to envelopes: what leaves here a host accepts, and what a host would refuse does not leave.

use nixfleet_core::model::policy::Policy;
use nixfleet_core::model::release::{Entry, Release};
use nixfleet_trust::author::{self, Assembly, AssemblyFault, NotAuthored};
use nixfleet_trust::check::entry::{entry, own_entry};
use nixfleet_trust::envelope::{ENVELOPE_SIZE_MAX, Envelope};
use nixfleet_trust::signature::Signature;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::*;

fn entries(values: &[Value]) -> Vec<Entry> {
    values.iter().map(|value| serde_json::from_value(value.clone()).expect("an entry")).collect()
}

fn policy_value() -> Policy {
    serde_json::from_value(policy()).expect("a policy")
}

fn faults(values: &[Value]) -> Vec<AssemblyFault> {
    Assembly::new(entries(values), &policy_value()).expect_err("something is wrong")
}

fn signed_by(envelope: &Envelope, keys: &[&Key]) -> Vec<u8> {
    let add = |envelope: Envelope, key: &&Key| {
        let signature = Signature::read(&key.sign(&envelope.to_sign()), &key.public()).expect("64 bytes");
        envelope.with_signature(&key.public(), signature).expect("good")
    };
    keys.iter().fold(envelope.clone(), add).to_bytes()
}

#[test]
fn what_is_authored_is_accepted() {
    let fleet = fleet();
    let assembly = Assembly::new(entries(&fleet.entries()), &policy_value()).expect("it makes sense");
    let mut release: Release = serde_json::from_value(fleet.release(1)).expect("a release");
    assert_eq!(assembly.hosts(), release.hosts);
    release.entries_root = assembly.entries_root();
    // The tree of the test's own making, over the same bytes, has the same root.
    let leaves: Vec<_> = assembly.envelopes().map(|(_, envelope)| pae(ENTRY, envelope.payload())).collect();
    assert_eq!(release.entries_root.bytes(), &merkle_root(&leaves));
    let envelope = author::release(&release).expect("it makes sense");
    let bytes = signed_by(&envelope, &[&fleet.stable_keys[0], &fleet.stable_keys[2]]);
    let accepted = fleet.trust().accept_release(&stable(), &bytes, at(NOW)).expect("signed").release;
    assert_eq!(accepted.digest(), envelope.digest());
    let mut taken = 0;
    for (number, (host, envelope)) in assembly.envelopes().enumerate() {
        let mine = own_entry(&accepted, &envelope.to_bytes(), &fleet.me(number)).expect("its own");
        assert_eq!(&mine.entry.host, host);
        taken += 1;
    }
    assert_eq!(taken, 5);

    let root = author::root(fleet.trust().root()).expect("it makes sense");
    let bytes = signed_by(&root, &[&fleet.root_keys[0], &fleet.root_keys[1]]);
    assert_eq!(nixfleet_trust::trust::Trust::begin(&bytes).expect("sound").root().digest(), root.digest());
}

#[test]
fn the_order_of_the_hosts_does_not_matter() {
    let fleet = fleet();
    let mut values = fleet.entries();
    let one = Assembly::new(entries(&values), &policy_value()).expect("it makes sense");
    values.reverse();
    let other = Assembly::new(entries(&values), &policy_value()).expect("it makes sense");
    assert_eq!(one.entries_root(), other.entries_root());
    let bytes = |assembly: &Assembly| -> Vec<Vec<u8>> {
        assembly.envelopes().map(|(_, envelope)| envelope.to_bytes()).collect()
    };
    assert_eq!(bytes(&one), bytes(&other));
}

#[test]
fn faults_of_entries_are_found_all_at_once() {
    let fleet = fleet();
    let mut values = fleet.entries();
    values[1]["host"] = json!("web-0");
    values[2]["keys"] = json!([fleet.host_keys[3].line()]);
    values[4]["wave"] = json!(2);
    values.push({
        let mut bad_key = fleet.entry(0);
        bad_key["host"] = json!("web-9");
        bad_key["keys"] = json!(["ssh-ed25519 AAAA"]);
        bad_key
    });
    let found: Vec<String> = faults(&values).iter().map(ToString::to_string).collect();
    for expected in [
        "host web-0 stands there twice",
        "hosts web-2 and web-3 have the same key",
        "host web-4: it is in wave 3, and there are 2",
        "a key of host web-9: the key is damaged",
    ] {
        assert_eq!(
            found.iter().filter(|fault| fault.starts_with(expected)).count(),
            1,
            "{expected}: {found:?}"
        );
    }
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(faults(&[]), [AssemblyFault::NoHosts]);
}

#[test]
fn an_entry_that_no_host_would_read_is_not_assembled() {
    let fleet = fleet();
    let sized = |tags: usize| {
        let mut value = fleet.entry(0);
        value["tags"] = json!((0..tags).map(|n| format!("tag-{n:050}")).collect::<Vec<_>>());
        value
    };
    let mut edge = (0, 0);
    for tags in [100, 700, 770, 775, 780, 785, 790, 800, 900, 1000] {
        match Assembly::new(entries(&[sized(tags)]), &policy_value()) {
            Ok(assembly) => {
                let (_, envelope) = assembly.envelopes().next().expect("one host");
                assert!(envelope.to_bytes().len() <= ENVELOPE_SIZE_MAX, "{tags}");
                edge.0 += 1;
            }
            Err(faults) => {
                assert!(matches!(faults.as_slice(), [AssemblyFault::TooLarge { .. }]), "{tags}: {faults:?}");
                edge.1 += 1;
            }
        }
    }
    assert!(edge.0 >= 2 && edge.1 >= 2, "{edge:?}");
}

#[test]
fn a_release_or_root_that_a_host_would_refuse_is_not_authored() {
    let fleet = fleet();
    let mut release: Release = serde_json::from_value(fleet.release(1)).expect("a release");
    release.policy.waves.clear();
    release.hosts = 0;
    release.expires_ms = release.created_ms;
    let Err(NotAuthored::Faults(faults)) = author::release(&release) else { panic!("three faults") };
    assert_eq!(faults.len(), 3, "{faults:?}");

    let mut release: Release = serde_json::from_value(fleet.release(1)).expect("a release");
    release.info.insert("changelog".to_owned(), "x".repeat(60_000));
    assert!(matches!(author::release(&release), Err(NotAuthored::TooLarge(_))));

    let mut root = fleet.trust().root().clone().into_inner();
    root.root.threshold = 4;
    root.channels.clear();
    let Err(NotAuthored::Faults(faults)) = author::root(&root) else { panic!("faults") };
    // Out of reach, and the keys of the channels are in no role any more.
    assert_eq!(faults.len(), 5, "{faults:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_entry_of_every_assembly_is_proven(count in 1usize..40) {
        let fleet = fleet();
        let values: Vec<Value> = (0..count)
            .map(|number| {
                let mut value = fleet.entry(0);
                value["host"] = json!(format!("host-{number:03}"));
                value["keys"] = json!([Key::ed25519(u8::try_from(number + 1).expect("few")).line()]);
                value
            })
            .collect();
        let assembly = Assembly::new(entries(&values), &policy_value()).expect("it makes sense");
        let mut release = fleet.release(1);
        release["hosts"] = json!(assembly.hosts());
        release["entries_root"] = json!(assembly.entries_root());
        let accepted = fleet.trust().accept_release(&stable(), &fleet.sign(&release), at(NOW));
        let accepted = accepted.expect("signed").release;
        let mut seen = 0;
        for (host, envelope) in assembly.envelopes() {
            prop_assert_eq!(&entry(&accepted, &envelope.to_bytes()).expect("proven").host, host);
            seen += 1;
        }
        prop_assert_eq!(seen, count);
    }
}
