//! Bad input: answered clearly, with the promised exit code, and nothing is changed.

use nixfleet_testbed::{Flavour, Host, System, fleet};
use serde_json::{Value, json};

use crate::common::{AGENT, LIMIT, activate, assert_rests_on, history, host, hosts_run};
use crate::fleet::Saying;
use crate::followed::{await_state, follow_on};

fn refused(host: &Host, argv: &[&str], code: i32, says: &str) {
    let output = host.run(argv).expect("it runs");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, code, "{argv:?}: {said}");
    assert!(said.contains(says), "{argv:?} does not say `{says}`: {said}");
}

#[test]
fn wrong_words_are_usage_errors_and_change_nothing() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let good = host.system(System::Good).to_owned();
    refused(&host, &[AGENT, "activate", "/etc/passwd"], 2, "is not a store path");
    refused(&host, &[AGENT, "activate", &format!("{good}/bin")], 2, "inside a store path");
    refused(&host, &[AGENT, "activate", &good, "--probe", "sh"], 2, "is not a probe");
    refused(&host, &[AGENT, "activate", &good, "--confirm-within", "0s"], 2, "a second at least");
    refused(&host, &[AGENT, "activate", &good, "--digest", "md5:0"], 2, "is not a closure digest");
    refused(&host, &[AGENT, "activate", &good, "--trial", "--immediately"], 2, "cannot be used with");
    let probe = ["--probe", "tcp:127.0.0.1:1"];
    let immediately = [&[AGENT, "activate", &good, "--immediately"][..], &probe].concat();
    refused(&host, &immediately, 2, "cannot be used with");
    refused(&host, &[AGENT, "confirm"], 1, "nothing is on trial");
    refused(
        &host,
        &[AGENT, "confirm", "--json"],
        1,
        r#"{"version":1,"verdict":"nothing-on-trial","last":null,"#,
    );
    refused(&host, &[AGENT, "rollback", "--json"], 1, r#"{"version":1,"verdict":"no-way-back","last":null,"#);
    refused(&host, &[AGENT, "logs", "nothing-here"], 1, "there is no activation");
    refused(
        &host,
        &["setpriv", "--reuid=65534", "--clear-groups", AGENT, "activate", &good],
        1,
        "needs root",
    );
    assert_rests_on(&host, System::Base);
}

/// One object on stdout with the `error` that a script reads, and words for people on stderr.
fn refused_in_json(host: &Host, argv: &[&str], code: i32, kind: &str) -> Value {
    let output = host.run(argv).expect("it runs");
    let read: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let error = &read["error"];
    let got = (output.code, &read["version"], error["kind"].as_str(), error["code"].as_i64());
    assert_eq!(got, (code, &1.into(), Some(kind), Some(code.into())), "{argv:?}: {output}");
    // People are told the same, in as many lines as it takes.
    let for_people = output.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty() && for_people.contains(message), "{argv:?}: {output}");
    assert!(for_people.contains(error["hint"].as_str().unwrap_or_default()), "{argv:?}: {output}");
    read
}

#[test]
fn a_script_gets_one_object_for_whatever_is_refused_and_people_get_words() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let (good, json) = (host.system(System::Good).to_owned(), "--json");
    let other = format!("sha256:{}", "0".repeat(64));
    let argv = [AGENT, "activate", &good, "--digest", &other, json];
    let said = refused_in_json(&host, &argv, 1, "closure-mismatch");
    assert_eq!(
        (&said["verdict"], &said["failure"]["kind"]),
        (&"signature-mismatch".into(), &"closure-mismatch".into())
    );
    refused_in_json(&host, &[AGENT, "activate", "/etc/passwd", json], 2, "usage");
    refused_in_json(&host, &[AGENT, "activate", json], 2, "usage");
    refused_in_json(&host, &[AGENT, "status", json, "--state-dir", "here"], 2, "usage");
    refused_in_json(&host, &[AGENT, "logs", "1a2b3c4d-00001", json], 1, "no-such-activation");
    refused_in_json(&host, &[AGENT, "confirm", json], 1, "nothing-on-trial");
    refused_in_json(&host, &[AGENT, "rollback", json], 1, "no-way-back");
    for verb in [&["activate", &good][..], &["confirm"], &["rollback"], &["recover"]] {
        let nobody = ["setpriv", "--reuid=65534", "--clear-groups", AGENT];
        refused_in_json(&host, &[&nobody[..], verb, &[json]].concat(), 1, "needs-root");
    }
    for verb in ["status", "history"] {
        refused_in_json(
            &host,
            &["setpriv", "--reuid=65534", "--clear-groups", AGENT, verb, json],
            1,
            "state",
        );
    }
    let _held = host.spawn(&["flock", "/run/nixfleet/activation.lock", "sleep", "600"]).expect("held");
    let locked = |host: &Host| {
        host.sh("flock -n /run/nixfleet/activation.lock true").is_ok_and(|output| output.code != 0)
    };
    host.wait_until("the lock is held", LIMIT, locked).expect("held");
    for verb in [&["activate", &good][..], &["confirm"], &["rollback"], &["recover"]] {
        let said = refused_in_json(&host, &[&[AGENT], verb, &[json]].concat(), 1, "busy");
        assert_eq!(said["failure"]["with"]["who"], "activation", "{said}");
    }
    assert_rests_on(&host, System::Base);
}

#[test]
fn a_journal_from_a_newer_agent_stops_everything_and_is_kept() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let json = r#"{"v":9,"later":true}"#;
    // CRC-32 of that text, computed with Python's zlib.
    let line = format!("{{\"crc\":\"{}\",\"entry\":{json}}}\n", "f991fac9");
    host.write_file("/var/lib/nixfleet/journal.jsonl", &line).expect("written");
    let said = activate(&host, host.system(System::Good), &[]);
    assert_eq!(said.code, 1);
    assert!(said.json.to_string().contains("newer than this agent"), "{}", said.json);
    assert_eq!(host.read_file("/var/lib/nixfleet/journal.jsonl").expect("kept"), line);
}

#[test]
fn a_closure_with_another_digest_is_refused_as_a_trust_failure() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Bookworm);
    let digest = format!("sha256:{}", "0".repeat(64));
    let said = activate(&host, host.system(System::Good), &["--digest", &digest]);
    said.assert(1, "signature-mismatch");
    assert_eq!(said.failure(), "closure-mismatch");
    assert_rests_on(&host, System::Base);
}

#[test]
fn a_dry_run_names_packages_and_units_and_changes_nothing() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let good = host.system(System::Good).to_owned();
    host.fetch(&good).expect("fetched");
    let output = host.run(&[AGENT, "activate", "--dry-run", &good]).expect("it runs");
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.contains("hello: 2.12.1 -> 2.12.2"), "{}", output.stdout);
    assert!(output.stdout.contains("would stop the following units"), "{}", output.stdout);
    assert!(output.stdout.contains("reboot    not needed"), "{}", output.stdout);
    assert_rests_on(&host, System::Base);
}

#[test]
fn a_dry_run_refuses_what_an_activation_would_refuse() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let dry_run = |system: System, flags: &[&str]| {
        activate(&host, host.system(system), &[&["--dry-run"], flags].concat())
    };
    let absent = dry_run(System::Good, &[]);
    assert_eq!((absent.code, &absent.json["units"]), (0, &Value::Null), "{}", absent.json);
    assert_eq!(absent.json["units_unknown"], "the system is not fetched yet");
    host.fetch(host.system(System::NotASystem)).expect("fetched");
    let no_system = dry_run(System::NotASystem, &[]);
    no_system.assert(1, "failed");
    assert_eq!(no_system.failure(), "not-a-system");
    host.fetch(host.system(System::WrongArchitecture)).expect("fetched");
    assert_eq!(dry_run(System::WrongArchitecture, &[]).failure(), "wrong-architecture");
    host.fetch(host.system(System::OtherKernel)).expect("fetched");
    let closure_only = dry_run(System::OtherKernel, &["--closure-inhibitors-only"]);
    assert_eq!(closure_only.json["inhibitors"], json!([]), "{}", closure_only.json);
    assert_eq!(dry_run(System::OtherKernel, &[]).json["inhibitors"][0]["key"], "kernel");
    host.import_unsigned(host.system(System::Good)).expect("imported");
    let elsewhere = dry_run(System::Good, &[]);
    assert_eq!((elsewhere.code, &elsewhere.json["units"]), (0, &Value::Null), "{}", elsewhere.json);
    // Another one, as Nix remembers what a cache has once said.
    host.import_unsigned(host.system(System::Good3)).expect("imported");
    host.cache().expect("it has one").down().expect("down");
    let unsigned = dry_run(System::Good3, &[]);
    unsigned.assert(1, "signature-mismatch");
    let accepted = dry_run(System::Good3, &["--allow-unsigned"]);
    assert!(accepted.json["units"].is_array(), "{}", accepted.json);
    assert_rests_on(&host, System::Base);
}

#[test]
fn somebody_elses_switch_is_busy_and_its_lock_is_not_touched() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    host.sh("mkdir -p /run/nixos").expect("made");
    // In its own process: the kernel does not show a lock whose taker has handed it on and gone.
    let hold = "use Fcntl ':flock'; open(my $f, '>>', '/run/nixos/switch-to-configuration.lock'); flock($f, LOCK_EX); sleep 600";
    let _held = host.spawn(&["perl", "-e", hold]).expect("held");
    let locked = host.wait_until("the lock is held", LIMIT, |host| {
        host.read_file("/run/nixos/switch-to-configuration.lock").is_ok()
            && host
                .sh("flock -n -x /run/nixos/switch-to-configuration.lock true")
                .is_ok_and(|output| output.code != 0)
    });
    assert!(locked.is_ok());
    let good = host.system(System::Good).to_owned();
    host.fetch(&good).expect("fetched");
    let dry = activate(&host, &good, &["--dry-run"]);
    assert_eq!(dry.json["units"], Value::Null, "not known is not none: {}", dry.json);
    let why = dry.json["units_unknown"].as_str().unwrap_or_default();
    assert!(why.contains("exit status 11"), "{why}");
    let said = activate(&host, host.system(System::Good), &[]);
    said.assert(1, "failed");
    assert_eq!(said.failure(), "busy");
    assert_rests_on(&host, System::Base);
}

/// As `nixos-rebuild` starts it; the switch in it is `program`.
fn a_person_switches(host: &Host, unit: &str, program: &str) {
    let run = ["systemd-run", "--quiet", "--collect", "--service-type=exec", "--unit", unit];
    let stubborn = ["-p", "TimeoutStopSec=infinity", "/bin/sh", "-c", program];
    assert_eq!(host.run(&[&run[..], &stubborn].concat()).expect("it runs").code, 0);
}

#[test]
fn a_switch_of_nixos_rebuild_is_busy_until_the_last_of_it_is_gone() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let good = host.system(System::Good).to_owned();
    host.fetch(&good).expect("fetched");
    let unit = "nixos-rebuild-switch-to-configuration.service";
    // It has not come to take the lock yet; when it is told to end, it takes its time.
    a_person_switches(&host, unit, "trap : TERM; touch /run/switches; while :; do sleep 60 & wait; done");
    host.wait_until("it listens", LIMIT, |host| host.exists("/run/switches")).expect("it does");
    let busy = || {
        let said = activate(&host, &good, &[]);
        said.assert(1, "failed");
        let with = json!({ "who": "unit", "unit": unit });
        assert_eq!((said.failure(), &said.json["failure"]["with"]), ("busy", &with), "{}", said.json);
        assert!(said.stderr.contains("a person is switching"), "{}", said.stderr);
        assert_rests_on(&host, System::Base);
        assert_eq!(history(&host), Vec::<Value>::new(), "nothing was begun");
    };
    busy();
    host.run(&["systemctl", "stop", "--no-block", unit]).expect("it runs");
    let ends = |host: &Host| host.unit_state(unit).is_ok_and(|is| is == "deactivating");
    host.wait_until("it is told to end", LIMIT, ends).expect("it is");
    busy();
    host.run(&["systemctl", "kill", "--signal=KILL", unit]).expect("it runs");
    let over = |host: &Host| host.unit_state(unit).is_ok_and(|is| is == "inactive");
    host.wait_until("it is over", LIMIT, over).expect("it is");
    activate(&host, &good, &[]).assert(0, "converged");
}

#[test]
fn a_host_that_follows_waits_while_a_person_switches_and_goes_on_afterwards() {
    if !hosts_run() {
        return;
    }
    let (host, releases) = follow_on(host(Flavour::Trixie));
    let unit = "nixos-rebuild-switch-to-configuration-a1b2.service";
    a_person_switches(&host, unit, "exec sleep 600");
    releases.publish(&host, 1, host.system(System::Good), &Saying::default());
    let mut last = Value::Null;
    let waits = host.wait_until("it says who is at it", LIMIT, |host| {
        last = fleet::status(host);
        last["failure"]["failure"]["kind"] == "busy"
    });
    assert!(waits.is_ok(), "{last:#}");
    assert_eq!(
        (&last["failure"]["failure"]["with"]["unit"], &last["quarantined"]),
        (&unit.into(), &Value::Null)
    );
    assert_rests_on(&host, System::Base);
    host.run(&["systemctl", "stop", unit]).expect("it runs");
    // It comes back by itself after its pause; nobody has to wait for that.
    assert_eq!(host.run(&[AGENT, "retry"]).expect("it runs").code, 0);
    await_state(&host, "converged", "stable/1");
    assert_rests_on(&host, System::Good);
}

#[test]
fn a_full_disk_is_refused_with_numbers_and_changes_nothing() {
    if !hosts_run() {
        return;
    }
    let host = Host::builder(Flavour::Trixie).disk_limit(64 << 20).boot().expect("the host boots");
    host.fill_disk().expect("full");
    let said = activate(&host, host.system(System::Good), &[]);
    said.assert(1, "failed");
    assert_eq!(said.failure(), "no-space", "{}", said.json);
    let failure = &said.json["failure"];
    assert!(failure["need_bytes"].as_u64() > failure["free_bytes"].as_u64(), "{failure}");
    assert!(failure["free_bytes"].as_u64() < Some(1 << 20), "what the journal's reserve leaves: {failure}");
    host.free_disk().expect("free again");
    assert_rests_on(&host, System::Base);
    activate(&host, host.system(System::Good), &[]).assert(0, "converged");
}

/// A host whose `/boot` is a file system of its own, with room for one more kernel and initrd (96 KiB) and entries.
fn small_boot(flavour: Flavour) -> Host {
    Host::builder(flavour).boot_limit(256 << 10).boot().expect("the host boots")
}

fn assert_no_room_in_boot(said: &crate::common::Said) {
    said.assert(1, "failed");
    assert_eq!(said.failure(), "no-space", "{}", said.json);
    let failure = &said.json["failure"];
    assert_eq!(failure["at"], "/boot", "{failure}");
    assert!(failure["need_bytes"].as_u64() > failure["free_bytes"].as_u64(), "{failure}");
}

fn a_full_boot_is_refused(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let host = small_boot(flavour);
    host.fill_boot().expect("full");
    let target = host.system(System::OtherKernel).to_owned();
    let fetched = |host: &Host| host.run(&["nix-store", "--check-validity", &target]).expect("it runs").ok();
    assert_no_room_in_boot(&activate(&host, &target, &[]));
    assert!(!fetched(&host), "it is refused before the download");
    host.fetch(&target).expect("fetched");
    assert_no_room_in_boot(&activate(&host, &target, &[]));
    // Without a new kernel there is still an entry to write.
    assert_no_room_in_boot(&activate(&host, host.system(System::Good), &[]));
    assert_rests_on(&host, System::Base);
    host.free_boot().expect("free again");
    activate(&host, host.system(System::Good), &[]).assert(0, "converged");
    activate(&host, &target, &[]).assert(6, "deferred-pending-reboot");
}

#[test]
fn a_full_boot_is_refused_before_the_download_and_changes_nothing_on_trixie() {
    a_full_boot_is_refused(Flavour::Trixie);
}

#[test]
fn a_full_boot_is_refused_before_the_download_and_changes_nothing_on_bookworm() {
    a_full_boot_is_refused(Flavour::Bookworm);
}

#[test]
fn a_boot_with_room_for_an_entry_and_none_for_a_kernel_takes_what_needs_no_kernel() {
    if !hosts_run() {
        return;
    }
    let host = small_boot(Flavour::Trixie);
    host.sh("head -c 90112 /dev/zero > /boot/something-else").expect("written");
    assert_no_room_in_boot(&activate(&host, host.system(System::OtherKernel), &[]));
    activate(&host, host.system(System::Good), &[]).assert(0, "converged");
    assert_rests_on(&host, System::Good);
}

#[test]
fn a_boot_in_which_no_kernel_of_ours_lies_says_nothing_and_refuses_nothing() {
    if !hosts_run() {
        return;
    }
    let host = small_boot(Flavour::Trixie);
    host.sh("mv /boot/EFI/nixos /boot/EFI/elsewhere").expect("moved");
    host.fill_boot().expect("full");
    activate(&host, host.system(System::Good), &["--trial"]).assert(0, "on-trial");
}

#[test]
fn a_boot_that_fills_up_during_the_trial_is_reverted() {
    if !hosts_run() {
        return;
    }
    let host = small_boot(Flavour::Trixie);
    activate(&host, host.system(System::Good), &["--trial"]).assert(0, "on-trial");
    host.fill_boot().expect("full");
    let confirmed = host.run_for(LIMIT, &[AGENT, "confirm", "--json"]).expect("it runs");
    assert!([5, 7].contains(&confirmed.code), "{confirmed}");
    assert!(confirmed.stdout.contains("boot-not-written"), "{confirmed}");
    if confirmed.code == 7 {
        // The way back needed room as well: what led back is kept until it is taken.
        host.free_boot().expect("free again");
        let back = host.run_for(LIMIT, &[AGENT, "rollback"]).expect("it runs");
        assert_eq!(back.code, 0, "{back}");
    }
    assert_rests_on(&host, System::Base);
}
