//! A newer release takes the place of one that waits for its reboot: the boot entry of the older is given up, and a host that
//! nobody restarts does not stay with what was found to be bad.

use std::path::Path;

use nixfleet_testbed::fleet::{StaticFleet, await_state};
use nixfleet_testbed::{Flavour, Host, System};
use serde_json::json;

use crate::common::{assert_rests_on, hosts_run};
use crate::controlled::{LIMIT, program};

/// The next boot would bring the newer system, and the host runs the older.
fn assert_waits_for_its_reboot(host: &Host, release: &str, (runs, next): (System, System)) {
    await_state(host, "awaiting-reboot", release, LIMIT).expect("only a reboot brings it");
    assert_eq!(host.current_system().as_deref(), Some(host.system(runs)), "the running system");
    assert_eq!(host.boot_default().as_deref(), Some(host.system(next)), "the boot default");
}

#[test]
fn a_newer_release_takes_the_place_of_one_that_waits_for_a_person_to_restart_the_host() {
    if !hosts_run() {
        return;
    }
    let cli = program("NIXFLEET_CLI_BIN");
    let fleet = StaticFleet::boot(Flavour::Trixie, Path::new(&cli), &["web-1"]).expect("a fleet");
    let web = fleet.host("web-1");
    let release = |system: System, revision: &str| {
        let mut description = fleet.canary_first(system, std::time::Duration::ZERO).expect("a key");
        description["channels"]["stable"]["policy"]["waves"] =
            json!([{ "name": "all", "soak": "1s", "opens_after": "0s" }]);
        fleet.describe(&description).expect("written");
        fleet.release(revision).expect("published");
    };
    release(System::Good, "one");
    await_state(web, "converged", "stable/1", LIMIT).expect("it converges");
    release(System::OtherKernel, "two");
    assert_waits_for_its_reboot(web, "stable/2", (System::Good, System::OtherKernel));
    release(System::Good3, "three");
    await_state(web, "converged", "stable/3", LIMIT).expect("it converges");
    assert_rests_on(web, System::Good3);
    assert_eq!(web.boots(), 1, "nobody restarted it");
}
