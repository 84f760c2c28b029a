//! Bad input: answered clearly, with the promised exit code, and nothing is changed.

use nixfleet_testbed::{Flavour, Host, System};

use crate::common::{AGENT, activate, assert_rests_on, host, hosts_run};

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
    refused(&host, &[AGENT, "logs", "nothing-here"], 1, "there is no activation");
    refused(
        &host,
        &["setpriv", "--reuid=65534", "--clear-groups", AGENT, "activate", &good],
        1,
        "needs root",
    );
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
fn somebody_elses_switch_is_busy_and_its_lock_is_not_touched() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    host.sh("mkdir -p /run/nixos").expect("made");
    // In its own process: the kernel does not show a lock whose taker has handed it on and gone.
    let hold = "use Fcntl ':flock'; open(my $f, '>>', '/run/nixos/switch-to-configuration.lock'); flock($f, LOCK_EX); sleep 60";
    let _held = host.spawn(&["perl", "-e", hold]).expect("held");
    let locked = host.wait_until("the lock is held", crate::common::LIMIT, |host| {
        host.read_file("/run/nixos/switch-to-configuration.lock").is_ok()
            && host
                .sh("flock -n -x /run/nixos/switch-to-configuration.lock true")
                .is_ok_and(|output| output.code != 0)
    });
    assert!(locked.is_ok());
    let said = activate(&host, host.system(System::Good), &[]);
    said.assert(1, "failed");
    assert_eq!(said.failure(), "busy");
    assert_rests_on(&host, System::Base);
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
    activate(&host, host.system(System::Good), &["--trial", "--confirm-within", "60s"]).assert(0, "on-trial");
    host.fill_boot().expect("full");
    let confirmed = host.run_for(crate::common::LIMIT, &[AGENT, "confirm", "--json"]).expect("it runs");
    assert!([5, 7].contains(&confirmed.code), "{confirmed}");
    assert!(confirmed.stdout.contains("boot-not-written"), "{confirmed}");
    assert_rests_on(&host, System::Base);
}
