//! A store that a power cut left behind Nix's database: valid paths whose files are empty (see `power.rs` for real cuts).

use nixfleet_testbed::{Flavour, Host, System};

use crate::common::{activate, assert_rests_on, host, hosts_run};

/// The agent's list of what may not be on the disk.
const LIST: &str = "/var/lib/nixfleet/unsynced";

/// What a cut leaves: the system is valid and signed, its files are empty, and the list of its fetch is still there.
fn cut_off(host: &Host, system: System) {
    let path = host.system(system);
    host.fetch(path).expect("the cache has it");
    for file in ["activate", "bin/switch-to-configuration"] {
        host.run(&["truncate", "--size", "0", &format!("{path}/{file}")])
            .expect("it runs")
            .success()
            .expect("cut");
    }
    let whole = host.run(&["nix-store", "--query", "--requisites", path]).expect("it runs").stdout;
    host.write_file(LIST, &whole).expect("written");
}

fn is_whole(host: &Host, system: System) -> bool {
    host.run(&["nix-store", "--verify-path", host.system(system)]).expect("it runs").ok()
}

#[test]
fn what_a_power_cut_left_empty_is_fetched_again() {
    if !hosts_run() {
        return;
    }
    for flavour in Flavour::ALL {
        let host = host(*flavour);
        cut_off(&host, System::Good);
        assert!(!is_whole(&host, System::Good));
        activate(&host, host.system(System::Good), &[]).assert(0, "converged");
        assert!(is_whole(&host, System::Good));
        assert_rests_on(&host, System::Good);
        assert!(!host.exists(LIST));
    }
}

#[test]
fn what_cannot_be_fetched_again_keeps_out_its_own_systems_and_no_others() {
    if !hosts_run() {
        return;
    }
    for flavour in Flavour::ALL {
        let host = host(*flavour);
        host.fetch(host.system(System::Third)).expect("the cache has it");
        cut_off(&host, System::Good);
        host.cache().expect("it has one").down().expect("down");
        let said = activate(&host, host.system(System::Good), &[]);
        said.assert(1, "failed");
        assert_eq!(said.failure(), "corrupt", "{}", said.stderr);
        assert_rests_on(&host, System::Base);
        activate(&host, host.system(System::Third), &[]).assert(0, "converged");
        assert!(host.exists(LIST), "what is broken is not forgotten");
        host.cache().expect("it has one").up().expect("up");
        activate(&host, host.system(System::Good), &[]).assert(0, "converged");
        assert!(!host.exists(LIST));
        assert_rests_on(&host, System::Good);
    }
}
