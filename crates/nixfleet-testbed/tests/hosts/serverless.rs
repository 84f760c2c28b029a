//! A fleet without a server, end to end: five hosts follow a web server's folder, from releases made by the operator's
//! command line.

use std::path::Path;
use std::time::Duration;

use nixfleet_testbed::fleet::{StaticFleet, await_state};
use nixfleet_testbed::{Flavour, Host, System};

use crate::common::{assert_rests_on, fires, hosts_run};

/// A release reaches a host within two looks at the source, and is switched to and watched.
const LIMIT: Duration = Duration::from_mins(3);
/// The second wave opens this long after the release was made: longer than a canary needs to fail and somebody to release the fix, on
/// a busy machine too. Nobody waits for it.
const OPENS_AFTER: Duration = Duration::from_mins(15);

fn release(fleet: &StaticFleet, system: System, opens_after: Duration, revision: &str) {
    let description = fleet.canary_first(system, opens_after).expect("every host has a key");
    fleet.describe(&description).expect("written");
    fleet.release(revision).expect("published");
}

fn all_converge(fleet: &StaticFleet, release: &str, system: System) {
    for host in fleet.hosts() {
        await_state(host, "converged", release, LIMIT).expect("it converges");
        assert_rests_on(host, system);
    }
}

#[test]
fn a_canary_that_fails_is_reverted_and_the_fix_reaches_five_hosts_before_the_fault_does() {
    if !hosts_run() {
        return;
    }
    let cli = std::env::var_os("NIXFLEET_CLI_BIN").expect("`cargo xtask test` sets NIXFLEET_CLI_BIN");
    let names = ["canary", "web-1", "web-2", "web-3", "web-4"];
    let fleet = StaticFleet::boot(Flavour::Trixie, Path::new(&cli), &names).expect("a fleet");

    release(&fleet, System::Good, Duration::ZERO, "one");
    all_converge(&fleet, "stable/1", System::Good);

    release(&fleet, System::Probe404, OPENS_AFTER, "two");
    let canary = fleet.host("canary");
    let said = await_state(canary, "reverted", "stable/2", LIMIT).expect("it goes back");
    assert_eq!(said["failure"]["class"], "probe", "{said}");
    assert_rests_on(canary, System::Good);

    release(&fleet, System::Good3, Duration::ZERO, "three");
    all_converge(&fleet, "stable/3", System::Good3);
    let touched = fleet.hosts().iter().filter(|host| fires(*host, host.system(System::Probe404)) > 0);
    let touched: Vec<&str> = touched.map(Host::name).collect();
    assert_eq!(touched, ["canary"], "who ran the release that was not well");
}
