use nixfleet_core::model::names::{FleetId, RootVersion};
use nixfleet_trust::check::entry;
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::root::{ChannelRules, Role, Root};
use nixfleet_trust::sign::private_key::PrivateKey;
use nixfleet_trust::sign::{self, Signer};
use nixfleet_trust::trust::Trust;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fleet;

const NOW: u64 = 1_795_600_000_000;

fn at(ms: u64) -> UnixMs {
    UnixMs::new(ms).expect("in range")
}

/// Hosts with tags by their numbers, and what was built for each.
fn described(hosts: &[bool]) -> (Fleet, BTreeMap<HostName, Built>) {
    let mut described = serde_json::Map::new();
    let mut built = BTreeMap::new();
    for (number, is_web) in hosts.iter().enumerate() {
        let key = String::from(PrivateKey::generate().expect("randomness").public_key().clone());
        let system = format!("/nix/store/{number:032}-nixos-system-x-1");
        let tags = if *is_web { json!(["web"]) } else { json!([]) };
        described.insert(
            format!("host-{number}"),
            json!({ "channel": "stable", "system": system, "key": key, "tags": tags }),
        );
        let closure = Closure {
            digest: format!("sha256:{number:064}").parse().expect("a digest"),
            fetch_bytes: 1,
            unpacked_bytes: 2,
        };
        let system = system.parse().expect("well-formed");
        built.insert(format!("host-{number}").parse().expect("a name"), Built { system, closure });
    }
    let waves = json!([{ "name": "some", "take": "30%", "soak": "1m" }, { "name": "rest", "soak": "0s" }]);
    let text = json!({
        "fleet": "example",
        "channels": { "stable": { "policy": { "waves": waves }, "after": ["edge"] }, "edge": { "policy": { "waves": waves } } },
        "hosts": described,
    });
    (fleet::read(&text.to_string()).expect("nothing is wrong"), built)
}

fn terms(seq: u64) -> Terms {
    Terms {
        seq: Seq::new(seq).expect("in range"),
        created: at(NOW),
        expires: at(NOW + 1_000_000),
        revision: "abc".parse().expect("a revision"),
        previous: None,
    }
}

/// A root that trusts one key for everything, signed by it.
fn root(key: &PrivateKey) -> Vec<u8> {
    let public: PublicKey = key.public_key().clone();
    let role = || Role { keys: vec![public.id()], threshold: 1 };
    let rules =
        ChannelRules { release: role(), seq_floor: Seq::ZERO, resets: 0, not_before_ms: UnixMs::EPOCH };
    let root = Root {
        fleet: "example".parse::<FleetId>().expect("a name"),
        version: RootVersion::FIRST,
        created_ms: at(NOW - 1),
        expires_ms: at(NOW + 2_000_000),
        keys: BTreeMap::from([(public.id(), public.clone())]),
        root: role(),
        channels: BTreeMap::from([("stable".parse().expect("a name"), rules)]),
        info: BTreeMap::new(),
    };
    sign::add(&author::root(&root).expect("it makes sense"), key).expect("signed").to_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// From a description to what a host and a signer read from the folder: nothing is lost, and every proof holds.
    #[test]
    fn what_is_released_is_what_was_described_and_built(hosts in prop::collection::vec(any::<bool>(), 1..20), seq in 1u64..50) {
        let (fleet, built) = described(&hosts);
        let channel: ChannelName = "stable".parse().expect("a name");
        let made = assemble(&fleet, &channel, &built, terms(seq)).expect("it makes sense");
        let dir = tempfile::tempdir().expect("a folder");
        let served = Served::new(dir.path());
        let held = served.lock().expect("free");
        served.put_release(&held, (&channel, made.release.seq), &made.envelope, &made.entries).expect("written");
        let again = served.put_release(&held, (&channel, made.release.seq), &made.envelope, &made.entries);
        prop_assert!(matches!(again, Err(ServedError::SeqTaken { .. })), "a number is used once");

        let opened = open(&served, &channel, made.release.seq).expect("whole");
        prop_assert_eq!(&opened.release, &made.release);
        prop_assert_eq!(opened.entries.len(), hosts.len());
        prop_assert_eq!(made.release.policy.after.iter().map(ChannelName::as_str).collect::<Vec<_>>(), ["edge"]);

        let key = PrivateKey::generate().expect("randomness");
        let signed = sign::add(&opened.envelope, &key).expect("signed");
        served.put_signatures(&held, &channel, made.release.seq, &signed).expect("written");
        let trust = Trust::begin(&root(&key)).expect("a root");
        let bytes = served.release(&channel, made.release.seq).expect("there");
        let accepted = trust.accept_release(&channel, &bytes, at(NOW + 1)).expect("signed").release;
        for (name, host) in &fleet.hosts {
            let bytes = served.entry(&channel, made.release.seq, name).expect("there");
            let entry = entry::entry(&accepted, &bytes).expect("proven");
            prop_assert_eq!((&entry.tags, &entry.keys), (&host.tags, &host.keys));
            prop_assert_eq!((&entry.system, &entry.closure), (&built[name].system, &built[name].closure));
        }
    }
}

#[test]
fn what_lacks_something_is_no_release() {
    let (fleet, mut built) = described(&[true, false]);
    let channel: ChannelName = "stable".parse().expect("a name");
    let none = assemble(&fleet, &"none".parse().expect("a name"), &built, terms(1));
    assert!(matches!(none, Err(NotAssembled::NoChannel(_))));
    let empty = assemble(&fleet, &"edge".parse().expect("a name"), &built, terms(1));
    assert!(matches!(empty, Err(NotAssembled::NoHosts(_))));
    let expired = assemble(&fleet, &channel, &built, Terms { expires: at(NOW), ..terms(1) });
    assert!(matches!(expired, Err(NotAssembled::Release(_))));
    built.pop_first();
    assert!(matches!(assemble(&fleet, &channel, &built, terms(1)), Err(NotAssembled::NotBuilt(_))));
}
