//! The checks come in the order of the design: a document with every fault is refused for the first one, and mending that
//! one brings the next to light.

use nixfleet_trust::check::entry::{EntryRefused, own_entry};
use nixfleet_trust::check::release::ReleaseRefused;
use nixfleet_trust::envelope::{ENVELOPE_SIZE_MAX, EnvelopeFault};
use nixfleet_trust::trust::Trust;
use serde_json::json;

use crate::support::*;

/// The name of a refusal, without what is in it.
fn name(refused: &impl std::fmt::Debug) -> String {
    let text = format!("{refused:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

#[test]
fn a_release_with_every_fault_is_refused_for_one_after_the_other() {
    let fleet = fleet();
    let (_, trust) = {
        let mut root = fleet.root();
        root["channels"]["stable"]["not_before_ms"] = json!(NOW - DAY);
        let trust = Trust::begin(&fleet.sign_root(&root)).expect("sound");
        let accepted = trust.accept_release(&stable(), &fleet.sign(&fleet.release(5)), at(NOW));
        let accepted = accepted.expect("the floor is 5 from here on");
        (accepted.release, accepted.trust)
    };

    // Everything that can be wrong at the same time, mended from the front.
    let mut release = fleet.release(4);
    release["surprise"] = json!(true);
    release["fleet"] = json!("globex");
    release["channel"] = json!("edge");
    release["created_ms"] = json!(NOW + DAY);
    release["policy"]["waves"] = json!([]);
    release["expires_ms"] = json!(NOW - 2 * DAY);

    let nobody: [&Key; 0] = [];
    let mut seen = Vec::new();
    let mut look = |bytes: &[u8]| {
        let refused = trust.accept_release(&stable(), bytes, at(NOW)).expect_err("a fault is left");
        seen.push(name(&refused));
        refused
    };
    let mut huge = signed(RELEASE, &release, &nobody);
    huge.resize(ENVELOPE_SIZE_MAX + 1, b' ');
    assert!(matches!(look(&huge), ReleaseRefused::Envelope(EnvelopeFault::TooLarge { .. })));
    let mut spaced = signed(RELEASE, &release, &nobody);
    spaced.push(b' ');
    assert!(matches!(look(&spaced), ReleaseRefused::Envelope(EnvelopeFault::OtherForm)));
    look(&signed(RELEASE, &release, &nobody));
    look(&fleet.sign(&release));
    release.as_object_mut().expect("an object").remove("surprise");
    look(&fleet.sign(&release));
    release["fleet"] = json!("acme");
    look(&fleet.sign(&release));
    release["channel"] = json!("stable");
    look(&fleet.sign(&release));
    release["seq"] = json!(5);
    look(&fleet.sign(&release));
    release["seq"] = json!(6);
    look(&fleet.sign(&release));
    release["created_ms"] = json!(NOW - 3 * DAY);
    look(&fleet.sign(&release));
    release["created_ms"] = json!(NOW - DAY);
    look(&fleet.sign(&release));
    release["policy"] = policy();
    release["expires_ms"] = json!(NOW);
    look(&fleet.sign(&release));
    assert_eq!(
        seen,
        [
            "Envelope",
            "Envelope",
            "Threshold",
            "Payload",
            "OtherFleet",
            "OtherChannel",
            "Older",
            "SameNumberOtherContents",
            "FromTheFuture",
            "BeforeTheLine",
            "Faults",
            "Expired",
        ]
    );
    release["expires_ms"] = json!(NOW + 1);
    let _ = trust.accept_release(&stable(), &fleet.sign(&release), at(NOW)).expect("no fault is left");
}

#[test]
fn a_release_from_the_future_is_that_before_it_is_behind_the_line() {
    let fleet = fleet();
    let mut root = fleet.root();
    root["channels"]["stable"]["not_before_ms"] = json!(NOW + 2 * DAY);
    let trust = Trust::begin(&fleet.sign_root(&root)).expect("sound");
    let mut release = fleet.release(1);
    release["created_ms"] = json!(NOW + DAY);
    let refused = trust.accept_release(&stable(), &fleet.sign(&release), at(NOW)).expect_err("both");
    assert_eq!(name(&refused), "FromTheFuture");
}

#[test]
fn an_entry_with_every_fault_is_refused_for_one_after_the_other() {
    let fleet = fleet();
    let me = fleet.me(2);
    let mut entry = fleet.entry(3);
    entry["system"] = json!("/etc/passwd");
    entry["wave"] = json!(9);

    let mut seen = Vec::new();
    let mut number = 0;
    let mut look = |entry: &serde_json::Value, change: fn(Vec<u8>) -> Vec<u8>, in_release: bool| {
        let mut entries = fleet.entries();
        entries[2] = entry.clone();
        number += 1;
        let release = if in_release { release_over(number, &entries) } else { fleet.release(number) };
        let accepted = fleet.trust().accept_release(&stable(), &fleet.sign(&release), at(NOW));
        let release = accepted.expect("the release is good").release;
        let refused = own_entry(&release, &change(proven(&entries, 2)), &me).expect_err("a fault is left");
        seen.push(name(&refused));
        refused
    };
    let same = |bytes| bytes;
    let huge = |mut bytes: Vec<u8>| {
        bytes.resize(ENVELOPE_SIZE_MAX + 1, b' ');
        bytes
    };
    assert!(matches!(look(&entry, huge, false), EntryRefused::Envelope(EnvelopeFault::TooLarge { .. })));
    look(&entry, |bytes| bytes[1..].to_vec(), false);
    look(&entry, same, false);
    look(&entry, same, true);
    entry["system"] = fleet.entry(2)["system"].clone();
    look(&entry, same, true);
    entry["host"] = json!("web-2");
    look(&entry, same, true);
    entry["keys"] = json!([fleet.host_keys[2].line()]);
    look(&entry, same, true);
    assert_eq!(seen, ["Envelope", "Envelope", "NotInRelease", "Payload", "OtherHost", "OtherKey", "Faults"]);
}

#[test]
fn a_root_with_every_fault_is_refused_for_one_after_the_other() {
    let fleet = fleet();
    let mut first = fleet.root();
    first["channels"]["stable"]["resets"] = json!(1);
    let trust = Trust::begin(&fleet.sign_root(&first)).expect("sound");
    let mut root = first.clone();
    root["surprise"] = json!(true);
    root["fleet"] = json!("globex");
    root["version"] = json!(3);
    root["channels"]["stable"]["resets"] = json!(0);
    root["created_ms"] = json!(NOW + DAY);
    root["root"]["threshold"] = json!(3);
    root["channels"]["edge"]["release"]["threshold"] = json!(0);

    let mut seen = Vec::new();
    let mut look = |root: &serde_json::Value, keys: &[&Key]| {
        let refused = trust.accept_root(&signed(ROOT, root, keys), at(NOW)).expect_err("a fault is left");
        seen.push(name(&refused));
    };
    let [a, b, c] = fleet.root_keys.each_ref();
    look(&root, &[a]);
    look(&root, &[a, b]);
    root.as_object_mut().expect("an object").remove("surprise");
    look(&root, &[a, b]);
    root["fleet"] = json!("acme");
    look(&root, &[a, b]);
    root["version"] = json!(2);
    look(&root, &[a, b]);
    root["channels"]["stable"]["resets"] = json!(1);
    look(&root, &[a, b]);
    root["created_ms"] = json!(NOW);
    look(&root, &[a, b]);
    root["channels"]["edge"]["release"]["threshold"] = json!(1);
    look(&root, &[a, b]);
    assert_eq!(
        seen,
        [
            "ThresholdOfOld",
            "Payload",
            "OtherFleet",
            "NotTheNext",
            "FewerResets",
            "FromTheFuture",
            "Faults",
            "ThresholdOfNew"
        ]
    );
    trust.accept_root(&signed(ROOT, &root, &[a, b, c]), at(NOW)).expect("no fault is left");
}
