use proptest::prelude::*;
use serde_json::{Value, json};

use super::faults::{placed, render};
use super::*;
use nixfleet_core::model::policy::{Approval, OnFailure};
use nixfleet_core::model::probe::{ProbeKind, Redirects, TlsTrust};
use nixfleet_core::model::time::Secs;

const KEYS: [&str; 2] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII5GMBLWJ9jJdzGDkSq95EKf2Zw454Wfnk35Ji4NOZUc",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMFyl6oLg5F4qHFo+qAP92foSmlcNttfdk+htfla+M/S",
];
const PATH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-web-1-25.11";

/// A description with two hosts, and nothing wrong with it.
fn good() -> Value {
    json!({
        "fleet": "example",
        "channels": { "stable": { "policy": { "waves": [{ "name": "all", "soak": "5m" }] } } },
        "hosts": {
            "web-1": { "channel": "stable", "system": PATH, "key": KEYS[0], "tags": ["web"] },
            "db-1": { "channel": "stable", "system": ".#db", "key": KEYS[1], "tags": ["db"] },
        },
    })
}

fn reading(value: &Value) -> Result<Fleet, Vec<Fault>> {
    read(&serde_json::to_string_pretty(value).expect("a value"))
}

/// What is wrong with a good description after a change: fault and hint.
fn wrong(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut value = good();
    change(&mut value);
    let faults = reading(&value).expect_err("it has a fault");
    faults.into_iter().map(|fault| format!("{} [{}]", fault.what, fault.hint.unwrap_or_default())).collect()
}

fn policy(value: &mut Value) -> &mut Value {
    &mut value["channels"]["stable"]["policy"]
}

fn only(faults: &[String]) -> &str {
    assert_eq!(faults.len(), 1, "{faults:?}");
    &faults[0]
}

#[test]
fn the_example_of_the_documentation_is_a_description() {
    let text = EXAMPLE.replace("@FLEET@", "example").replace("@KEY@", KEYS[0]);
    let fleet = read(&text).expect("the example");
    let policy = &fleet.channels.values().next().expect("a channel").policy.policy;
    // The earliest opening is that of the wave in front, and its soak.
    let opens: Vec<u32> = policy.waves.iter().map(|wave| wave.opens_after_secs.0).collect();
    assert_eq!(opens, [0, 600, 2400]);
    assert_eq!((policy.confirm_within_secs, policy.max_failures), (Secs(300), 1));
}

#[test]
fn defaults_are_those_of_the_reference() {
    let fleet = reading(&good()).expect("nothing is wrong");
    let policy = &fleet.channels.values().next().expect("a channel").policy.policy;
    assert_eq!((policy.max_failures, policy.on_failure), (0, OnFailure::Revert));
    assert_eq!((policy.confirm_within_secs, policy.offline_after_secs), (Secs(300), Secs(259_200)));
    assert_eq!((policy.reboot.mode, policy.waves[0].approval), (RebootMode::Never, Approval::NotNeeded));
    let host = &fleet.hosts[&"db-1".parse().expect("a name")];
    assert_eq!(host.system, System::Installable(".#db".to_owned()));
}

#[test]
fn all_faults_are_reported_together_each_with_its_place_and_what_to_do() {
    let text = r#"{
  "fleet": "Example",
  "chanels": {},
  "channels": {
    "stable": {
      "policy": {
        "waves": [{ "name": "all", "soak": "5 minutes?" }],
        "on_failure": "rever"
      }
    }
  },
  "hosts": {
    "web-1": {
      "channel": "stabel",
      "system": "/nix/store/nope",
      "tags": ["web", 7],
      "key": "ssh-rsa AAAA"
    }
  }
}"#;
    let faults = read(text).expect_err("it has faults");
    let places: Vec<String> =
        placed(text, &faults).iter().map(|fault| format!("{}:{}", fault.line, fault.column)).collect();
    assert_eq!(places, ["2:12", "3:3", "7:44", "8:23", "14:18", "15:17", "16:23", "17:14"], "{faults:#?}");
    let rendered = render("fleet.json", text, &faults);
    for part in [
        "fleet.json:3:3: a fleet description has no field `chanels`\n  |\n3 |   \"chanels\": {},\n  |   ^^^^^^^^^\n  = hint: did you mean `channels`?\n",
        "hint: write it with its unit: \"90s\", \"5m\", \"1h 30m\", \"3d\"",
        "hint: did you mean `revert`?",
        "14 |       \"channel\": \"stabel\",\n   |                  ^^^^^^^^\n   = hint: did you mean `stable`?",
        "a tag must be a text, and this is a number",
        "`Example` is not a fleet id",
    ] {
        assert!(rendered.contains(part), "{part}\n---\n{rendered}");
    }
}

#[test]
fn a_long_line_is_shown_around_the_fault() {
    let mut value = good();
    value["hosts"]["web-1"]["sistem"] = json!(1);
    let text = serde_json::to_string(&value).expect("a value");
    let rendered = render("-", &text, &read(&text).expect_err("a fault"));
    let longest = rendered.lines().map(|line| line.chars().count()).max().expect("lines");
    assert!(longest < 160 && rendered.contains("did you mean `system`?"), "{rendered}");
}

#[test]
fn a_name_that_nobody_has_is_a_fault_and_not_an_empty_wave() {
    let faults = wrong(|value| {
        policy(value)["waves"] = json!([
            { "name": "canary", "hosts": { "tag": "webb" }, "soak": "1m" },
            { "name": "some", "hosts": { "any-of": [{ "host": "web-2" }, { "not": { "tag": "db" } }] }, "soak": "1m" },
            { "name": "rest", "soak": "0s" },
        ]);
    });
    assert_eq!(
        faults,
        [
            "no host of channel stable has the tag webb [did you mean `web`?]",
            "channel stable has no host web-2 [did you mean `web-1`?]",
        ]
    );
}

#[test]
fn waves_that_leave_hosts_out_are_a_fault() {
    let faults = wrong(|value| {
        policy(value)["waves"] = json!([{ "name": "web", "hosts": { "tag": "web" }, "soak": "1m" }]);
    });
    assert!(
        only(&faults)
            .starts_with("1 hosts of channel stable are in no wave, for example db-1 [end with a wave")
    );
}

#[test]
fn hosts_that_would_wait_for_each_other_are_a_fault() {
    let edge = |hosts: &str, after: &str| json!({ "hosts": { "tag": hosts }, "after": { "tag": after } });
    let circle = wrong(|value| policy(value)["edges"] = json!([edge("web", "db"), edge("db", "web")]));
    assert_eq!(circle.len(), 2, "{circle:?}");
    assert!(circle[0].contains("would wait for ever: db-1 must be done before it"), "{circle:?}");
    let of_many = wrong(|value| {
        value["hosts"]["db-2"] = value["hosts"]["db-1"].clone();
        value["hosts"]["db-2"]["key"] = value["hosts"]["web-1"]["key"].clone();
        policy(value)["edges"] = json!([edge("db", "db")]);
    });
    assert!(of_many.iter().any(|fault| fault.contains("host db-1 would wait for ever: db-2")), "{of_many:?}");
    let mut fine = good();
    policy(&mut fine)["edges"] = json!([edge("web", "db"), edge("web", "db")]);
    reading(&fine).expect("web waits for db, twice");
    policy(&mut fine)["edges"] = json!([{ "hosts": "all", "after": { "tag": "db" } }]);
    reading(&fine).expect("one db does not wait for itself");
}

#[test]
fn an_edge_to_a_later_wave_is_a_fault_where_it_is_known_who_is_in_which() {
    let wave = |name: &str, tag: &str| json!({ "name": name, "hosts": { "tag": tag }, "soak": "1m" });
    let edges = json!([{ "hosts": { "tag": "web" }, "after": { "tag": "db" } }]);
    let against = wrong(|value| {
        policy(value)["waves"] = json!([wave("web", "web"), wave("db", "db")]);
        policy(value)["edges"] = edges.clone();
    });
    assert!(only(&against).starts_with("host web-1 would wait for ever: db-1 must be done before it"));
    let mut along = good();
    policy(&mut along)["waves"] = json!([wave("db", "db"), wave("web", "web")]);
    policy(&mut along)["edges"] = edges;
    reading(&along).expect("the first wave comes first");
}

#[test]
fn channels_that_would_wait_for_each_other_are_a_fault() {
    let faults = wrong(|value| {
        value["channels"]["edge"] = value["channels"]["stable"].clone();
        value["channels"]["edge"]["after"] = json!(["stable"]);
        value["channels"]["stable"]["after"] = json!(["edge", "betta"]);
        value["channels"]["beta"] = value["channels"]["edge"].clone();
        value["channels"]["beta"]["after"] = json!([]);
    });
    assert_eq!(
        faults,
        [
            "channel edge would wait for itself []",
            "channel stable would wait for itself []",
            "there is no channel betta [did you mean `beta`?]",
        ]
    );
}

#[test]
fn one_key_is_one_host() {
    let faults = wrong(|value| value["hosts"]["db-1"]["key"] = json!(format!("{} root@db", KEYS[0])));
    assert_eq!(faults, ["hosts db-1 and web-1 have the same key []"]);
    let faults = wrong(|value| {
        value["hosts"]["web-1"]["keys"] = json!([KEYS[0]]);
    });
    assert_eq!(faults, ["a host has either `key` or `keys` []"]);
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_where_it_stands() {
    let faults = wrong(|value| {
        *policy(value) = json!({
            "waves": [
                { "name": "a", "soak": "1h", "opens_after": "2h" },
                { "name": "a", "soak": "0s", "opens_after": "1h" },
            ],
            "max_in_flight": [{ "limit": "0%" }],
            "stage_in_flight": 0,
            "windows": [{ "from": "02:00", "until": "04:00", "zone": "Mars/Olympus" }],
            "confirm_within": "0s",
            "reboot": { "mode": "always", "before": [{ "argv": ["drain"], "deadline": "1m" }] },
        });
    });
    assert_eq!(
        faults,
        [
            "nothing can be confirmed within 0 s []",
            "the budget of all lets no host move []",
            "a reboot hook names a program without its absolute path []",
            "its `stage_in_flight` lets no host fetch []",
            "two waves are called a []",
            "wave a would open before the one in front of it []",
            "there is no time zone Mars/Olympus [write the name of a zone such as Europe/Berlin or UTC, as in the IANA \
             database]",
        ]
    );
}

#[test]
fn a_patience_that_hosts_who_only_wait_would_exceed_is_refused() {
    let faults = wrong(|value| policy(value)["offline_after"] = json!("19s"));
    assert!(only(&faults).starts_with("`offline_after` must be 20 s or more ["), "{faults:?}");
    let mut shortest = good();
    policy(&mut shortest)["offline_after"] = json!("20s");
    reading(&shortest).expect("nothing is wrong");
}

#[test]
fn a_probe_is_read_with_its_rhythm_or_refused_with_its_name() {
    let mut value = good();
    value["hosts"]["web-1"]["probes"] = json!([
        { "name": "a", "kind": { "http": { "url": "https://localhost/", "status": { "min": 200, "max": 204 } } } },
        { "name": "b", "kind": { "tcp": { "address": "localhost:80" } }, "interval": "1m", "failures": 1, "mode": "observe" },
        { "name": "c", "kind": { "exec": { "argv": ["/bin/true"] } } },
        { "name": "d", "kind": { "unit": { "unit": "nginx.service" } } },
        { "name": "e", "kind": { "http-metric": { "url": "http://localhost/", "metric": "errors", "good": { "at-most": 5 } } } },
    ]);
    let fleet = reading(&value).expect("nothing is wrong");
    assert_eq!(fleet.hosts[&"web-1".parse().expect("a name")].probes.len(), 5);
    let faults = wrong(|value| {
        value["hosts"]["web-1"]["probes"] = json!([
            { "name": "a", "kind": { "tcp": { "address": "localhost" } } },
            { "name": "a", "kind": { "htp": {} } },
            { "name": "b", "kind": { "http-metric": { "url": "http://x/", "metric": "m", "good": {} } } },
        ]);
    });
    assert_eq!(
        faults,
        [
            "probe a has an address that is not host:port []",
            "there is no probe `htp` [did you mean `http`?]",
            "`good` has either `at-most` or `at-least` []",
        ]
    );
}

#[test]
fn a_probe_says_whom_it_believes_and_whether_it_follows_redirects() {
    let with_probe = |http: Value| {
        let mut value = good();
        value["hosts"]["web-1"]["probes"] = json!([{ "name": "a", "kind": { "http": http } }]);
        value
    };
    let fleet = reading(&with_probe(
        json!({ "url": "https://localhost/", "tls": { "ca-file": "/etc/ca.pem" }, "redirects": "follow" }),
    ));
    let fleet = fleet.expect("nothing is wrong");
    let ProbeKind::Http(probe) = &fleet.hosts[&"web-1".parse().expect("a name")].probes[0].kind else {
        panic!("it is an http probe")
    };
    assert_eq!(probe.tls, TlsTrust::CaFile("/etc/ca.pem".to_owned()));
    assert_eq!(probe.redirects, Redirects::Follow);
    for (http, fault) in [
        (
            json!({ "url": "https://x/", "redirects": "folow" }),
            "`redirects` cannot be `folow` [did you mean `follow`?]",
        ),
        (
            json!({ "url": "https://x/", "tls": { "ca-file": "/a", "pinned-key": "b" } }),
            "`tls` has either `pinned-key` or `ca-file` [a server has one key (`pinned-key`), or somebody vouches for it \
             (`ca-file`)]",
        ),
        (
            json!({ "url": "https://x/", "tls": { "ca-fil": "/a" } }),
            "`tls` has no field `ca-fil` [did you mean `ca-file`?]",
        ),
        (
            json!({ "url": "https://x/", "tls": { "ca-file": "ca.pem" } }),
            "probe a names a `ca-file` that is not an absolute path of at most 4096 bytes without a control character []",
        ),
    ] {
        let faults = wrong(|value| *value = with_probe(http.clone()));
        assert!(faults.iter().any(|found| found == fault), "{faults:?}");
    }
}

#[test]
fn a_pin_holds_until_it_ends() {
    let mut value = good();
    value["hosts"]["web-1"]["pin"] = json!({ "system": ".#old", "reason": "driver", "until": "2027-01-31" });
    let fleet = reading(&value).expect("nothing is wrong");
    let host = &fleet.hosts[&"web-1".parse().expect("a name")];
    // 2027-01-31T00:00:00Z, by `date -d … +%s`.
    let end = 1_801_353_600_000;
    let at = |ms| host.system_at(UnixMs::new(ms).expect("in range")).to_string();
    assert_eq!((at(end - 1).as_str(), at(end).as_str()), (".#old", PATH));
}

#[test]
fn a_system_is_a_store_path_or_an_installable_and_never_an_option() {
    for good in
        [PATH, ".#x", "github:a/b#c", "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x.drv^out", "./result"]
    {
        good.parse::<System>().expect(good);
    }
    for bad in
        ["", "--help", "-f", "a\nb", "/nix/store/x", "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x.drv"]
    {
        assert!(bad.parse::<System>().is_err(), "{bad}");
    }
}

#[test]
fn a_name_that_stands_twice_is_a_fault_in_every_object() {
    let text = serde_json::to_string(&good()).expect("a value");
    let twice = text.replacen("\"web-1\":", "\"db-1\":", 1);
    let faults = read(&twice).expect_err("db-1 stands there twice");
    assert!(faults.iter().any(|fault| fault.what == "`db-1` stands twice in this object"), "{faults:?}");
}

/// A value that looks like a description: known names, and anything behind them.
fn like_a_description() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "fleet",
        "channels",
        "hosts",
        "policy",
        "waves",
        "name",
        "soak",
        "take",
        "key",
        "keys",
        "tags",
        "system",
        "channel",
        "stable",
        "web-1",
        "probes",
        "kind",
        "http",
        "url",
        "pin",
        "until",
        "edges",
        "after",
        "all",
        "tag",
        "not",
        "any-of",
        "reboot",
        "mode",
        "never",
        "max_in_flight",
        "limit",
        "20%",
        "5m",
        "windows",
        "from",
        "zone",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(Value::from),
        words.clone().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(Value::from(PATH)),
        Just(Value::from(KEYS[0])),
    ];
    leaf.prop_recursive(7, 80, 5, move |inner| {
        let name = prop_oneof![4 => words.clone().prop_map(str::to_owned), 1 => "\\PC{0,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name, inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Where something may be put into a good description.
fn place() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "/fleet",
        "/channels",
        "/channels/stable",
        "/channels/stable/policy",
        "/channels/stable/policy/waves",
        "/channels/stable/policy/waves/0",
        "/channels/stable/policy/waves/0/soak",
        "/hosts",
        "/hosts/web-1",
        "/hosts/web-1/channel",
        "/hosts/web-1/system",
        "/hosts/web-1/key",
        "/hosts/web-1/tags",
    ])
}

proptest! {
    #[test]
    fn any_value_is_a_fleet_or_has_faults_that_can_be_shown(value in like_a_description()) {
        let text = serde_json::to_string_pretty(&value).expect("a value");
        if let Err(faults) = read(&text) {
            prop_assert!(!faults.is_empty());
            prop_assert!(!render("x", &text, &faults).is_empty());
            prop_assert_eq!(placed(&text, &faults).len(), faults.len());
        }
    }

    #[test]
    fn a_description_with_anything_in_any_place_is_a_fleet_or_has_faults(at in place(), value in like_a_description()) {
        let mut changed = good();
        *changed.pointer_mut(at).expect("it is there") = value;
        let text = serde_json::to_string_pretty(&changed).expect("a value");
        match read(&text) {
            Ok(fleet) => prop_assert!(fleet.hosts.values().all(|host| fleet.channels.contains_key(&host.channel))),
            Err(faults) => prop_assert!(!render("x", &text, &faults).is_empty()),
        }
    }

    /// Whatever name is not known is found, wherever it stands.
    #[test]
    fn every_unknown_field_is_a_fault(name in "[a-z]{12,20}") {
        for at in ["", "/channels/stable", "/channels/stable/policy", "/channels/stable/policy/waves/0", "/hosts/web-1"] {
            let mut value = good();
            let object = value.pointer_mut(at).expect("it is there").as_object_mut().expect("an object");
            object.insert(name.clone(), json!(1));
            let faults = reading(&value).expect_err("the field is not known");
            let said = format!("has no field `{name}`");
            prop_assert!(faults.iter().any(|fault| fault.what.contains(&said)), "{:?}", faults);
        }
    }

    #[test]
    fn no_text_is_too_strange(text: String) {
        if let Err(faults) = read(&text) {
            prop_assert!(!render("x", &text, &faults).is_empty());
        }
    }
}
