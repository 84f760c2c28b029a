//! A fleet without a server, end to end: five hosts follow a web server's folder, from releases made by the operator's
//! command line.

use std::path::Path;
use std::time::Duration;

use nixfleet_testbed::fleet::StaticFleet;
use nixfleet_testbed::{Flavour, Host, System};
use serde_json::{Value, json};

use crate::common::{assert_rests_on, fires, hosts_run};

/// A release reaches a host within two looks at the source, and is switched to and watched.
const LIMIT: Duration = Duration::from_mins(3);
/// The second wave opens this long after the release was made: longer than a canary needs to fail.
const OPENS_AFTER_SECS: u64 = 90;

/// One canary, and everybody else some time later.
fn fleet_json(fleet: &StaticFleet, system: System, opens_after_secs: u64) -> Value {
    let probe = json!({
        "name": "web",
        "kind": { "http": { "url": "http://127.0.0.1:8000/health" } },
        "interval": "1s", "timeout": "1s", "failures": 3,
    });
    let entry = |host: &Host| {
        let tags = if host.name() == "canary" { json!(["canary"]) } else { json!([]) };
        json!({
            "channel": "stable",
            "tags": tags,
            "system": host.system(system),
            "key": fleet.key_of(host).expect("it has one"),
            "probes": [probe],
        })
    };
    let hosts: serde_json::Map<String, Value> =
        fleet.hosts().iter().map(|host| (host.name().to_owned(), entry(host))).collect();
    let waves = json!([
        { "name": "canary", "hosts": { "tag": "canary" }, "soak": "1s" },
        { "name": "rest", "opens_after": format!("{opens_after_secs}s"), "soak": "1s" },
    ]);
    json!({
        "fleet": "acme",
        "channels": { "stable": { "policy": { "waves": waves, "confirm_within": "60s" } } },
        "hosts": hosts,
    })
}

fn all_converge(fleet: &StaticFleet, release: &str, system: System) {
    for host in fleet.hosts() {
        StaticFleet::await_state(host, "converged", release, LIMIT).expect("it converges");
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

    fleet.describe(&fleet_json(&fleet, System::Good, 0)).expect("written");
    fleet.release("one").expect("published");
    all_converge(&fleet, "stable/1", System::Good);

    fleet.describe(&fleet_json(&fleet, System::Probe404, OPENS_AFTER_SECS)).expect("written");
    fleet.release("two").expect("published");
    let canary = fleet.host("canary");
    let said = StaticFleet::await_state(canary, "reverted", "stable/2", LIMIT).expect("it goes back");
    assert_eq!(said["failure"]["class"], "probe", "{said}");
    assert_rests_on(canary, System::Good);

    fleet.describe(&fleet_json(&fleet, System::Good3, 0)).expect("written");
    fleet.release("three").expect("published");
    all_converge(&fleet, "stable/3", System::Good3);
    let touched = fleet.hosts().iter().filter(|host| fires(*host, host.system(System::Probe404)) > 0);
    let touched: Vec<&str> = touched.map(Host::name).collect();
    assert_eq!(touched, ["canary"], "who ran the release that was not well");
}
