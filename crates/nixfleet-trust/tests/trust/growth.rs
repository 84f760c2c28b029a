//! How the format may grow: an agent never drops a rule silently that it does not understand.

use nixfleet_trust::check::entry::{EntryRefused, own_entry};
use nixfleet_trust::check::release::ReleaseRefused;
use serde_json::{Value, json};

use crate::support::*;

/// Every place of `document` that holds an object, as a JSON pointer.
fn objects(document: &Value, at: &str, found: &mut Vec<String>) {
    match document {
        Value::Object(fields) => {
            found.push(at.to_owned());
            for (name, value) in fields {
                objects(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                objects(value, &format!("{at}/{index}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A policy that uses everything that there is.
fn full_policy() -> Value {
    let window = json!({ "days": ["sat"], "from": "22:00", "until": "04:00", "zone": "Europe/Berlin" });
    let mut policy = policy();
    policy["waves"][1]["approval"] = json!("by-a-person");
    policy["max_in_flight"] = json!([
        { "hosts": "all", "limit": "10%" },
        { "hosts": { "all-of": [{ "tag": "web" }, { "not": { "host": "web-1" } }] }, "limit": 2 },
    ]);
    policy["edges"] = json!([{ "hosts": { "tag": "web" }, "after": { "any-of": [{ "tag": "db" }] } }]);
    policy["windows"] = json!([window]);
    policy["reboot"] = json!({
        "mode": "when-needed", "windows": [window], "warn_secs": 60,
        "before": [{ "argv": ["/run/current-system/sw/bin/drain"], "deadline_secs": 30 }],
    });
    policy
}

fn probes() -> Value {
    let common = json!({ "interval_secs": 5, "timeout_secs": 2, "after_secs": 1, "failures": 3 });
    let probe = |name: &str, kind: Value| {
        let mut probe = common.clone();
        probe["name"] = json!(name);
        probe["kind"] = kind;
        probe
    };
    let pin = format!("sha256:{}", "ab".repeat(32));
    let mut observed = probe("unit", json!({ "unit": { "unit": "nginx.service" } }));
    observed["mode"] = json!("observe");
    json!([
        probe(
            "http",
            json!({ "http": { "url": "https://[::1]/health", "status": { "min": 200, "max": 204 },
            "body_contains": "ok", "tls": { "pinned-key": pin } } })
        ),
        probe(
            "own-authority",
            json!({ "http": { "url": "http://[::1]/", "tls": { "ca-file": "/etc/ssl/own.pem" },
            "redirects": "follow" } })
        ),
        probe("tcp", json!({ "tcp": { "address": "127.0.0.1:5432" } })),
        probe("exec", json!({ "exec": { "argv": ["/run/current-system/sw/bin/check", "--all"] } })),
        observed,
        probe(
            "metric",
            json!({ "http-metric": { "url": "http://127.0.0.1:9100/metrics",
            "metric": "errors_total{job=\"web\"}", "good": { "at-most": 0.5 } } })
        ),
    ])
}

#[test]
fn a_field_that_is_not_known_is_refused_wherever_it_stands() {
    let fleet = fleet();
    let mut release = fleet.release(1);
    release["policy"] = full_policy();
    release["info"] = json!({ "changelog": "free text" });
    let trust = fleet.trust();
    let _ = trust.accept_release(&stable(), &fleet.sign(&release), at(NOW)).expect("all is known");
    let mut places = Vec::new();
    objects(&release, "", &mut places);
    let mut refusals = 0;
    for place in places.iter().filter(|place| *place != "/info") {
        let mut newer = release.clone();
        newer.pointer_mut(place).expect(place)["only_after_full_moon"] = json!(true);
        let refused = trust.accept_release(&stable(), &fleet.sign(&newer), at(NOW)).expect_err(place);
        assert!(matches!(refused, ReleaseRefused::Payload(_)), "{place}: {refused:?}");
        assert!(refused.to_string().contains("newer agent"), "{refused}");
        refusals += 1;
    }
    assert!(refusals >= 14, "{places:?}");
    release["info"]["only_after_full_moon"] = json!("is free text here");
    let _ = trust.accept_release(&stable(), &fleet.sign(&release), at(NOW)).expect("free text");
}

#[test]
fn the_same_holds_for_entries() {
    let fleet = fleet();
    let mut entry = fleet.entry(2);
    entry["probes"] = probes();
    entry["reboot"] = json!("always");
    let check = |entry: &Value| {
        let mut entries = fleet.entries();
        entries[2] = entry.clone();
        let bytes = fleet.sign(&release_over(1, &entries));
        let release = fleet.trust().accept_release(&stable(), &bytes, at(NOW)).expect("good").release;
        own_entry(&release, &proven(&entries, 2), &fleet.me(2))
    };
    check(&entry).expect("all is known");
    let mut places = Vec::new();
    objects(&entry, "", &mut places);
    let mut refusals = 0;
    for place in &places {
        let mut newer = entry.clone();
        newer.pointer_mut(place).expect(place)["only_after_full_moon"] = json!(true);
        let refused = check(&newer).expect_err(place);
        assert!(matches!(refused, EntryRefused::Payload(_)), "{place}: {refused:?}");
        refusals += 1;
    }
    assert!(refusals >= 18, "{places:?}");
}

#[test]
fn a_word_that_is_not_known_is_refused_too() {
    let fleet = fleet();
    for (place, word) in [
        ("/policy/on_failure", json!("shrug")),
        ("/policy/commit", json!("eventually")),
        ("/policy/reboot/mode", json!("hourly")),
        ("/policy/waves/0/name", json!("Wave One")),
        ("/seq", json!(1.5)),
        ("/seq", json!(1u64 << 53)),
        ("/created_ms", json!("2026-11-25T00:00:00Z")),
        ("/expires_ms", json!(-1)),
    ] {
        let mut release = fleet.release(1);
        *release.pointer_mut(place).expect(place) = word;
        let refused =
            fleet.trust().accept_release(&stable(), &fleet.sign(&release), at(NOW)).expect_err(place);
        assert!(matches!(refused, ReleaseRefused::Payload(_)), "{place}: {refused:?}");
    }
}
