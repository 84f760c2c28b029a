use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::faults::{EntryFault, ProbeFault, ProgramFault, ReleaseFault};
use super::names::{
    ChannelName, EXACT_MAX, FleetId, HostKey, HostName, NotAName, ReleaseId, Seq, Sha256, Tag, WaveName,
};
use super::policy::{Policy, Wave, WaveIndex};
use super::probe::{Finite, MetricLimit, ProbeSpec};
use super::release::{Entry, Release, Revision};
use super::schedule::{TimeOfDay, Window, ZoneName};
use super::select::{Amount, Selector};
use super::time::{Secs, UnixMs};

fn host(name: &str) -> HostName {
    name.parse().expect(name)
}

fn tags(names: &[&str]) -> BTreeSet<Tag> {
    names.iter().map(|name| name.parse().expect(name)).collect()
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

// Names

#[test]
fn names_are_refused_with_a_reason() {
    for (text, why) in [
        ("", "empty"),
        (&"x".repeat(65), "too long"),
        ("Web", "character"),
        ("web 1", "character"),
        ("web/1", "character"),
        ("wéb", "character"),
        ("web\n", "character"),
        (".web", "begin"),
        ("-web", "begin"),
        ("_web", "begin"),
        ("web.", "ends"),
        ("web-", "ends"),
        ("we..b", "two dots"),
    ] {
        let NotAName { kind, why: said, .. } = text.parse::<ChannelName>().expect_err(text);
        assert!(said.contains(why), "{text:?}: {said}");
        assert_eq!(kind, "channel name");
    }
    for good in ["a", "0", "web-1", "web_1.eu", &"x".repeat(64)] {
        assert_eq!(good.parse::<FleetId>().expect(good).as_str(), good);
    }
    assert!("x".repeat(128).parse::<HostName>().is_ok());
    assert!("x".repeat(129).parse::<HostName>().is_err());
}

#[test]
fn numbers_end_where_some_readers_of_json_would_round_them() {
    assert_eq!(Seq::MAX.get(), 9_007_199_254_740_991);
    assert_eq!(Seq::MAX.next(), None);
    assert_eq!(Seq::ZERO.next(), Some(Seq::new(1).expect("small")));
    assert!(Seq::new(EXACT_MAX + 1).is_err());
    assert!(read::<Seq>(json!(9_007_199_254_740_992u64)).is_err());
    assert!(read::<UnixMs>(json!(9_007_199_254_740_992u64)).is_err());
    assert!(read::<Seq>(json!(-1)).is_err());
    assert!(read::<Seq>(json!(1.0)).is_err());
}

#[test]
fn a_release_is_called_by_its_channel_and_number() {
    let id = ReleaseId {
        channel: "stable".parse().expect("a name"),
        seq: Seq::new(42).expect("small"),
        digest: Sha256::new([0xab; 32]),
    };
    assert_eq!(id.to_string(), "stable/42");
    let json = serde_json::to_value(&id).expect("JSON");
    assert_eq!(json["digest"], format!("sha256:{}", "ab".repeat(32)));
    assert_eq!(read::<ReleaseId>(json).expect("its own form"), id);
}

#[test]
fn digests_have_one_form() {
    let good = format!("sha256:{}", "0f".repeat(32));
    assert_eq!(good.parse::<Sha256>().expect("a digest").to_string(), good);
    for bad in [
        String::new(),
        good[7..].to_owned(),
        good.to_uppercase(),
        good.replace("sha256", "sha512"),
        good.replace("0f", "0g"),
        format!("{good}00"),
        good[..70].to_owned(),
        good.replacen("0f", "+f", 1),
    ] {
        assert!(bad.parse::<Sha256>().is_err(), "{bad}");
    }
}

#[test]
fn a_host_key_is_a_line_without_a_comment() {
    let good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEV9QHBcFcTmdLUvfA77iQpSYdBPE7hEjQaQqoNS7Qdz";
    assert_eq!(good.parse::<HostKey>().expect("a line").as_str(), good);
    for bad in [
        "",
        "ssh-ed25519",
        "ssh-ed25519 ",
        "ssh-rsa AAAA",
        "sk-ssh-ed25519@openssh.com AAAA",
        "ssh-ed25519  AAAA",
        "ssh-ed25519 AAAA root@web-1",
        "ssh-ed25519 AA\nAA",
        &format!("ssh-ed25519 {}", "A".repeat(200)),
    ] {
        assert!(bad.parse::<HostKey>().is_err(), "{bad:?}");
    }
}

#[test]
fn revisions_are_one_printable_word() {
    assert!("3f1c9a7e".parse::<Revision>().is_ok());
    for bad in ["", "two words", "tab\t", "ünicode", &"x".repeat(201)] {
        assert!(bad.parse::<Revision>().is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn a_name_is_safe_wherever_it_is_put(text in "\\PC{0,80}|[a-z0-9._-]{0,80}") {
        if let Ok(name) = text.parse::<HostName>() {
            let name = name.as_str();
            prop_assert!(!name.is_empty() && name.len() <= 128);
            prop_assert!(!name.contains(['/', '\\', '\0', ' ', '%', '?', '#', '@', ':']));
            prop_assert!(!name.starts_with(['.', '-']) && !name.contains(".."));
            prop_assert_eq!(name.to_lowercase(), name);
        }
    }

    #[test]
    fn a_digest_comes_back(bytes in any::<[u8; 32]>()) {
        let digest = Sha256::new(bytes);
        prop_assert_eq!(digest.to_string().parse::<Sha256>().expect("its own form"), digest);
    }
}

// Time

#[test]
fn times_stop_at_the_end() {
    let end = UnixMs::MAX.plus(Secs(u32::MAX));
    assert_eq!(end, UnixMs::MAX);
    assert_eq!(UnixMs::EPOCH.plus(Secs(2)).get(), 2_000);
    assert_eq!(UnixMs::EPOCH.ms_since(UnixMs::MAX), 0);
    assert_eq!(Secs(90).duration().as_millis(), 90_000);
}

#[test]
fn times_of_the_day_have_one_form() {
    for (text, hour, minute) in [("00:00", 0, 0), ("09:05", 9, 5), ("23:59", 23, 59)] {
        let time: TimeOfDay = text.parse().expect(text);
        assert_eq!((time.hour(), time.minute(), time.to_string().as_str()), (hour, minute, text));
    }
    for bad in ["", "9:05", "24:00", "12:60", "12.30", "12:3", "12:300", "+1:00", "ab:cd"] {
        assert!(bad.parse::<TimeOfDay>().is_err(), "{bad}");
    }
}

#[test]
fn zones_are_looked_up_as_files_and_stay_in_their_folder() {
    for good in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+12"] {
        assert!(good.parse::<ZoneName>().is_ok(), "{good}");
    }
    for bad in ["", "/etc/passwd", "../UTC", "Europe/..", "Europe//Berlin", "Europe/", "+01:00", "a b"] {
        assert!(bad.parse::<ZoneName>().is_err(), "{bad}");
    }
}

// Selectors and amounts

#[test]
fn selectors_mean_what_they_say() {
    let web = tags(&["web", "eu"]);
    let all = |value| read::<Selector>(value).expect("a selector");
    for (value, means, text) in [
        (json!("all"), true, "all"),
        (json!({ "tag": "web" }), true, "tag web"),
        (json!({ "tag": "db" }), false, "tag db"),
        (json!({ "host": "web-1" }), true, "host web-1"),
        (json!({ "host": "web-2" }), false, "host web-2"),
        (json!({ "not": { "tag": "db" } }), true, "not(tag db)"),
        (json!({ "all-of": [{ "tag": "web" }, { "tag": "db" }] }), false, "all-of(tag web, tag db)"),
        (json!({ "any-of": [{ "tag": "web" }, { "tag": "db" }] }), true, "any-of(tag web, tag db)"),
        (json!({ "all-of": [] }), true, "all-of()"),
        (json!({ "any-of": [] }), false, "any-of()"),
    ] {
        let selector = all(value.clone());
        assert_eq!(selector.means(&host("web-1"), &web), means, "{text}");
        assert_eq!(selector.to_string(), text);
        assert_eq!(serde_json::to_value(&selector).expect("JSON"), value, "lesson 27: nothing is lost");
    }
    for bad in [json!({}), json!("none"), json!({ "tag": "web", "host": "web-1" }), json!(["all"])] {
        assert!(read::<Selector>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn amounts_are_numbers_or_percentages() {
    for (value, amount) in [
        (json!(0), Amount::Count(0)),
        (json!(12), Amount::Count(12)),
        (json!("0%"), Amount::Percent(0)),
        (json!("100%"), Amount::Percent(100)),
    ] {
        assert_eq!(read::<Amount>(value.clone()).expect("an amount"), amount);
        assert_eq!(serde_json::to_value(amount).expect("JSON"), value);
        assert_eq!(amount.to_string().parse::<Amount>().expect("its own form"), amount);
    }
    for bad in [
        json!("101%"),
        json!("12"),
        json!("-1%"),
        json!("+1%"),
        json!("%"),
        json!(" 5%"),
        json!(-1),
        json!(1.5),
    ] {
        assert!(read::<Amount>(bad.clone()).is_err(), "{bad}");
    }
}

fn selector() -> impl Strategy<Value = Selector> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let leaf = prop_oneof![
        Just(Selector::All),
        name().prop_map(|tag| Selector::Tag(tag.parse().expect("a tag"))),
        name().prop_map(|name| Selector::Host(host(name))),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| Selector::Not(Box::new(one))),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Selector::AllOf),
            prop::collection::vec(inner, 0..3).prop_map(Selector::AnyOf),
        ]
    })
}

proptest! {
    #[test]
    fn selectors_obey_de_morgan_and_survive_json(
        one in selector(), other in selector(), bits in 0u8..8, name in prop::sample::select(vec!["a", "b", "z"]),
    ) {
        let tagged: Vec<&str> = ["a", "b", "c"].into_iter().enumerate()
            .filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, tag)| tag).collect();
        let (name, tagged) = (host(name), tags(&tagged));
        let means = |selector: &Selector| selector.means(&name, &tagged);
        let not = |selector: &Selector| Selector::Not(Box::new(selector.clone()));
        let both = Selector::AllOf(vec![one.clone(), other.clone()]);
        let neither = Selector::AnyOf(vec![not(&one), not(&other)]);
        prop_assert_eq!(means(&both), means(&one) && means(&other));
        prop_assert_eq!(means(&not(&both)), means(&neither));
        let json = serde_json::to_value(&one).expect("JSON");
        prop_assert_eq!(read::<Selector>(json).expect("its own form"), one);
    }

    #[test]
    fn a_share_is_never_more_than_the_group_and_a_share_of_somebody_is_somebody(
        percent in 0u8..=100, group in any::<u32>(),
    ) {
        let share = Amount::Percent(percent).of(group);
        prop_assert!(share <= group.max(1));
        prop_assert_eq!(share == 0, percent == 0);
        if percent == 100 {
            prop_assert_eq!(share, group.max(1));
        }
        // Not more than the exact share by a whole host, except for the first one.
        prop_assert!(share <= 1 || u64::from(share) * 100 <= u64::from(group) * u64::from(percent));
    }
}

// Documents

fn policy_json() -> Value {
    json!({
        "waves": [
            { "name": "canary", "opens_after_secs": 0, "soak_secs": 600 },
            { "name": "rest", "opens_after_secs": 3600, "soak_secs": 600, "approval": "by-a-person" },
        ],
        "max_in_flight": [{ "hosts": { "tag": "web" }, "limit": "25%" }],
        "edges": [{ "hosts": { "tag": "web" }, "after": { "tag": "db" } }],
        "max_failures": 0,
        "on_failure": "revert-all",
        "commit": "after-confirm",
        "confirm_within_secs": 360,
        "windows": [{ "days": ["mon", "sun"], "from": "22:00", "until": "04:00", "zone": "Europe/Berlin" }],
        "reboot": {
            "mode": "when-needed", "warn_secs": 60,
            "windows": [{ "from": "03:00", "until": "03:30", "zone": "UTC" }],
            "before": [{ "argv": ["/bin/drain", "-x"], "deadline_secs": 30 }],
            "after": [{ "argv": ["/bin/undrain"], "deadline_secs": 30 }],
        },
        "offline_after_secs": 86400,
    })
}

fn probe_json(name: &str, kind: &Value) -> Value {
    json!({ "name": name, "kind": kind, "interval_secs": 5, "timeout_secs": 2, "after_secs": 0, "failures": 3 })
}

fn entry_json() -> Value {
    json!({
        "host": "web-1",
        "keys": ["ssh-ed25519 AAAA"],
        "tags": ["eu", "web"],
        "wave": 1,
        "system": "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-web-1-26.05",
        "closure": {
            "digest": format!("sha256:{}", "ab".repeat(32)), "fetch_bytes": 1, "unpacked_bytes": 2,
        },
        "probes": [
            probe_json("a", &json!({ "http": { "url": "http://[::1]:8080/x", "status": { "min": 200, "max": 200 },
                "body_contains": "ok", "tls": { "pinned-key": format!("sha256:{}", "cd".repeat(32)) } } })),
            probe_json("b", &json!({ "tcp": { "address": "[::1]:22" } })),
            probe_json("c", &json!({ "exec": { "argv": ["/bin/check"] } })),
            probe_json("d", &json!({ "unit": { "unit": "getty@tty1.service" } })),
            probe_json("e", &json!({ "http-metric": { "url": "https://db:9/m", "metric": "x{a=\"b\"}",
                "good": { "at-least": -1.5 } } })),
            probe_json("f", &json!({ "http": { "url": "http://web/", "tls": { "ca-file": "/etc/ca.pem" },
                "redirects": "follow" } })),
        ],
        "reboot": "always",
    })
}

fn release_json() -> Value {
    json!({
        "fleet": "acme", "channel": "stable", "seq": 7, "created_ms": 1, "expires_ms": 2, "revision": "abc",
        "policy": policy_json(), "hosts": 3, "entries_root": format!("sha256:{}", "ef".repeat(32)),
        "previous": format!("sha256:{}", "01".repeat(32)), "info": { "changelog": "text" },
    })
}

#[test]
fn documents_come_back_as_they_were_written() {
    let release: Release = read(release_json()).expect("a release");
    assert_eq!(serde_json::to_value(&release).expect("JSON"), release_json());
    let entry: Entry = read(entry_json()).expect("an entry");
    assert_eq!(serde_json::to_value(&entry).expect("JSON"), entry_json());
    assert_eq!(release.faults(), []);
    assert_eq!(entry.faults(&release.policy), []);
    let shown: Vec<_> = entry.probes.iter().map(|probe| probe.kind.to_string()).collect();
    assert_eq!(
        shown,
        [
            "http://[::1]:8080/x",
            "tcp:[::1]:22",
            "exec:/bin/check",
            "unit:getty@tty1.service",
            "x{a=\"b\"} at https://db:9/m",
            "http://web/",
        ]
    );
}

#[test]
fn what_is_as_before_is_left_out_so_that_older_agents_read_on() {
    let mut entry: Entry = read(entry_json()).expect("an entry");
    (entry.tags, entry.probes, entry.reboot) = (BTreeSet::new(), Vec::new(), None);
    let written = serde_json::to_value(&entry).expect("JSON");
    let fields: Vec<&String> = written.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["closure", "host", "keys", "system", "wave"]);
    let mut probe: ProbeSpec =
        read(probe_json("a", &json!({ "http": { "url": "http://x" } }))).expect("a probe");
    assert_eq!(
        serde_json::to_value(&probe).expect("JSON"),
        probe_json("a", &json!({ "http": { "url": "http://x" } }))
    );
    probe.mode = super::probe::ProbeMode::Observe;
    assert_eq!(serde_json::to_value(&probe).expect("JSON")["mode"], "observe");
}

#[test]
fn a_metric_limit_is_a_finite_number() {
    assert!(Finite::try_from(f64::NAN).is_err());
    assert!(Finite::try_from(f64::INFINITY).is_err());
    let limit: MetricLimit = read(json!({ "at-most": 5 })).expect("whole numbers too");
    assert_eq!(limit, MetricLimit::AtMost(Finite::try_from(5.0).expect("finite")));
    assert!(read::<MetricLimit>(json!({ "at-most": "5" })).is_err());
}

#[test]
fn faults_of_a_release_are_found_all_at_once() {
    let mut release: Release = read(release_json()).expect("a release");
    release.expires_ms = release.created_ms;
    release.hosts = 0;
    let policy = &mut release.policy;
    policy.waves.push(Wave {
        name: "rest".parse().expect("a name"),
        opens_after_secs: Secs(10),
        ..policy.waves[0].clone()
    });
    policy.max_in_flight[0].limit = Amount::Percent(0);
    policy.confirm_within_secs = Secs(0);
    policy.reboot.before[0].argv.clear();
    policy.reboot.after[0].argv[0] = "undrain".to_owned();
    let rest: WaveName = "rest".parse().expect("a name");
    assert_eq!(
        release.faults(),
        [
            ReleaseFault::ExpiresBeforeCreated,
            ReleaseFault::NoHosts,
            ReleaseFault::WaveNameTwice(rest.clone()),
            ReleaseFault::WaveBeforeItsTurn(rest),
            ReleaseFault::BudgetOfNobody(read(json!({ "tag": "web" })).expect("a selector")),
            ReleaseFault::NoTimeToConfirm,
            ReleaseFault::Hook(ProgramFault::Missing),
            ReleaseFault::Hook(ProgramFault::NotAbsolute),
        ]
    );
    release.policy.waves.clear();
    assert!(release.faults().contains(&ReleaseFault::NoWaves));
}

#[test]
fn faults_of_an_entry_are_found_all_at_once() {
    let policy: Policy = read(policy_json()).expect("a policy");
    let mut entry: Entry = read(entry_json()).expect("an entry");
    entry.wave = WaveIndex(2);
    entry.keys.push(entry.keys[0].clone());
    entry.probes[1].name = entry.probes[0].name.clone();
    let faults = entry.faults(&policy);
    assert_eq!(
        faults,
        [
            EntryFault::KeyTwice(entry.keys[0].clone()),
            EntryFault::NoSuchWave { wave: WaveIndex(2), waves: 2 },
            EntryFault::ProbeNameTwice(entry.probes[0].name.clone()),
        ]
    );
    assert_eq!(faults[1].to_string(), "it is in wave 3, and there are 2", "people count from 1");
    entry.keys.clear();
    assert!(entry.faults(&policy).contains(&EntryFault::NoKey));
    entry.keys =
        ["AAAA", "BBBB", "CCCC"].map(|key| format!("ssh-ed25519 {key}").parse().expect("a key")).into();
    assert!(entry.faults(&policy).contains(&EntryFault::TooManyKeys(3)));
}

#[test]
fn probes_that_cannot_be_run_are_found() {
    for (kind, fault) in [
        (json!({ "http": { "url": "ftp://x" } }), ProbeFault::Url),
        (json!({ "http": { "url": "http://" } }), ProbeFault::Url),
        (json!({ "http": { "url": "http:///path" } }), ProbeFault::Url),
        (json!({ "http": { "url": "http://x/a b" } }), ProbeFault::Url),
        (json!({ "http": { "url": "http://x", "status": { "min": 300, "max": 200 } } }), ProbeFault::Status),
        (json!({ "http": { "url": "http://x", "status": { "min": 0, "max": 200 } } }), ProbeFault::Status),
        (json!({ "http": { "url": "http://x", "body_contains": "" } }), ProbeFault::EmptyText),
        (json!({ "http": { "url": "https://x", "tls": { "ca-file": "ca.pem" } } }), ProbeFault::CaFile),
        (json!({ "http": { "url": "https://x", "tls": { "ca-file": "/a\nb" } } }), ProbeFault::CaFile),
        (
            json!({ "http": { "url": "http://x", "tls": { "ca-file": "/ca.pem" } } }),
            ProbeFault::CaFileWithoutTls,
        ),
        (
            json!({ "http": { "url": "http://x", "status": { "min": 301, "max": 308 }, "redirects": "follow" } }),
            ProbeFault::FollowsWhatIsWanted,
        ),
        (
            json!({ "http-metric": { "url": "https://x", "tls": { "ca-file": "" }, "metric": "x",
                "good": { "at-most": 1 } } }),
            ProbeFault::CaFile,
        ),
        (json!({ "tcp": { "address": "localhost" } }), ProbeFault::Address),
        (json!({ "tcp": { "address": "::1:22" } }), ProbeFault::Address),
        (json!({ "tcp": { "address": "localhost:0" } }), ProbeFault::Address),
        (json!({ "tcp": { "address": "localhost:+22" } }), ProbeFault::Address),
        (json!({ "tcp": { "address": "localhost:65536" } }), ProbeFault::Address),
        (json!({ "tcp": { "address": ":22" } }), ProbeFault::Address),
        (json!({ "exec": { "argv": [] } }), ProbeFault::Program(ProgramFault::Missing)),
        (json!({ "exec": { "argv": ["check"] } }), ProbeFault::Program(ProgramFault::NotAbsolute)),
        (
            json!({ "exec": { "argv": ["/bin/check", "a\u{0}b"] } }),
            ProbeFault::Program(ProgramFault::ZeroByte),
        ),
        (json!({ "unit": { "unit": "nginx" } }), ProbeFault::Unit),
        (json!({ "unit": { "unit": "--all.service" } }), ProbeFault::Unit),
        (json!({ "unit": { "unit": "a b.service" } }), ProbeFault::Unit),
        (json!({ "unit": { "unit": ".service" } }), ProbeFault::Unit),
        (
            json!({ "http-metric": { "url": "http://x", "metric": " ", "good": { "at-most": 1 } } }),
            ProbeFault::Metric,
        ),
    ] {
        let probe: ProbeSpec = read(probe_json("p", &kind)).expect("it can be read");
        assert_eq!(probe.faults(), [fault], "{kind}");
    }
    let mut probe: ProbeSpec =
        read(probe_json("p", &json!({ "tcp": { "address": "x:1" } }))).expect("a probe");
    assert_eq!(probe.faults(), []);
    (probe.interval_secs, probe.timeout_secs, probe.failures) = (Secs(0), Secs(0), 0);
    assert_eq!(probe.faults(), [ProbeFault::NoInterval, ProbeFault::NoTimeout, ProbeFault::NoFailures]);
}

#[test]
fn a_probe_from_before_authorities_and_redirects_keeps_its_bytes() {
    for kind in [
        json!({ "http": { "url": "https://x" } }),
        json!({ "http-metric": { "url": "http://x", "metric": "up", "good": { "at-least": 1.0 } } }),
    ] {
        let written = probe_json("p", &kind);
        let probe: ProbeSpec = read(written.clone()).expect("it is understood");
        assert_eq!(serde_json::to_value(&probe).expect("it is written"), written);
        assert!(!serde_json::to_string(&probe).expect("it is written").contains("redirects"));
    }
}

#[test]
fn windows_are_every_day_unless_they_say_otherwise() {
    let window: Window = read(json!({ "from": "22:00", "until": "04:00", "zone": "UTC" })).expect("a window");
    assert!(window.days.is_empty());
    assert!(read::<Window>(json!({ "from": "22:00", "until": "04:00" })).is_err(), "no zone is guessed");
}
