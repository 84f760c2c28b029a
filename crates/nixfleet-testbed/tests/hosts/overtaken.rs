//! A newer release takes the place of one that waits for its reboot: the boot entry of the older is given up, and a host that
//! nobody restarts does not stay with what was found to be bad.

use std::path::Path;

use nixfleet_testbed::fleet::{StaticFleet, await_state};
use nixfleet_testbed::{Flavour, Host, System};
use serde_json::json;

use crate::common::{assert_rests_on, hosts_run};
use crate::controlled::{LIMIT, Led, ordered, program, reported};
use crate::steered::{act, describe, release};

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

#[test]
fn a_fix_reaches_a_host_before_its_reboot_into_what_a_control_plane_has_halted() {
    if !hosts_run() {
        return;
    }
    let led = Led::boot(&["canary", "web-1"]);
    let (canary, web) = (led.fleet.host("canary"), led.fleet.host("web-1"));
    let together = json!({
        "waves": [{ "name": "all", "soak": "1s", "opens_after": "0s" }],
        "confirm_within": "60s",
    });
    release(&led, System::Good, "one", &together);
    led.until_decided(1, "converged");
    led.all_converge("stable/1", System::Good);
    // One of the two gets something that fails, and the other what only a reboot brings. They are told to go when both
    // can, and the first takes a while: a halt before the other's turn would keep it from having one.
    let mut approved = together.clone();
    approved["waves"][0]["approval"] = json!("by-a-person");
    let mut fleet = describe(&led, System::OtherKernel, &approved);
    fleet["hosts"]["canary"]["system"] = json!(canary.system(System::Probe404));
    // It is lost when its trial is over: long enough for the other to have its order on a busy machine.
    fleet["hosts"]["canary"]["probes"][0]["failures"] = json!(1000);
    led.fleet.describe(&fleet).expect("written");
    led.fleet.release("two").expect("published");
    for host in [canary, web] {
        await_state(host, "staged", "stable/2", LIMIT).expect("it is fetched");
    }
    act(&led, "/v1/rollouts/stable/2/approve", &json!({ "why": "both can go", "wave": 0 }));
    led.until_decided(2, "halted");
    assert_waits_for_its_reboot(web, "stable/2", (System::Good, System::OtherKernel));

    release(&led, System::Good3, "three", &together);
    let events = led.until_decided(3, "converged");
    led.all_converge("stable/3", System::Good3);
    assert_eq!(ordered(&events, "web-1", 3, "go").len(), 1, "it had its turn");
    assert!(reported(&events, "web-1", "target-withdrawn", 0).is_some(), "it gave the other up");
    assert_eq!(web.boots(), 1, "nobody restarted it");
    led.no_objections();
}
