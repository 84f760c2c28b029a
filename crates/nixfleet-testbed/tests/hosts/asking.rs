//! The service manager is asked over its socket, or by its programs: either way makes the same units.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_testbed::{Flavour, Host, System};

use crate::common::{host, hosts_run, reach_in};

/// Without the programs, what is asked and started is asked and started over the socket.
const BY_SOCKET: [&str; 4] = [
    "-p",
    "BindReadOnlyPaths=/bin/false:/usr/bin/systemd-run",
    "-p",
    "BindReadOnlyPaths=/bin/false:/usr/bin/systemctl",
];
/// Without the socket, by the programs, which see the host as it is.
const BY_PROGRAM: [&str; 6] = [
    "-p",
    "InaccessiblePaths=/run/systemd/private",
    "-p",
    "BindReadOnlyPaths=/run/outside/systemd-run:/usr/bin/systemd-run",
    "-p",
    "BindReadOnlyPaths=/run/outside/systemctl:/usr/bin/systemctl",
];

/// Longer than any switch may take, so that the switch's own limit is the same in both.
const CONFIRM_WITHIN: &str = "600s";

/// What differs between two runs of one unit.
const OF_ONE_RUN: [&str; 12] = [
    "Timestamp",
    "PID",
    "InvocationID",
    "UsageNSec",
    "Current",
    "Peak",
    "ControlGroupId",
    "NextElapse",
    "MemoryAvailable",
    "ExecMain",
    "LastTrigger",
    "HandoffTimestamp",
];

/// Everything that `systemctl show` tells of a unit, without what differs between two runs of it.
fn shown(host: &Host, unit: &str, id: &str) -> BTreeMap<String, String> {
    let said = host.run(&["systemctl", "show", "--all", unit]).expect("it runs").stdout;
    let property = |line: &str| {
        let (key, value) = line.split_once('=')?;
        // 257's own word in the description of what `systemd-run` starts.
        let value = value.replace(id, "ID").replace("[systemd-run] ", "");
        // Of a command what it is, not when it ran; of a timer what it counts from, not how far.
        let value = value.split(" ; start_time=").next().unwrap_or_default().to_owned();
        let value = match key {
            "TimersMonotonic" => first_word(&value),
            _ if key.starts_with("Exec") => value,
            _ => sorted(&value),
        };
        let varies = OF_ONE_RUN.iter().any(|of| key.contains(of));
        (!varies).then(|| (key.to_owned(), value))
    };
    said.lines().filter_map(property).collect()
}

/// `OnStartupUSec` in `{ OnStartupUSec=1min ; next_elapse=2min }`.
fn first_word(value: &str) -> String {
    value.trim_start_matches(['{', ' ']).split('=').next().unwrap_or_default().to_owned()
}

/// Units that a unit is after, and such, come in any order.
fn sorted(value: &str) -> String {
    let mut words: Vec<&str> = value.split(' ').collect();
    words.sort_unstable();
    words.join(" ")
}

/// The units of an activation that stands still after its switch was fired.
fn fired(flavour: Flavour, way: &[&str]) -> Vec<BTreeMap<String, String>> {
    let host = host(flavour);
    for program in ["systemd-run", "systemctl"] {
        let script = format!("#!/bin/sh\nexec nsenter --target 1 --mount /usr/bin/{program} \"$@\"\n");
        host.write_file(&format!("/run/outside/{program}"), &script).expect("written");
    }
    host.sh("chmod 755 /run/outside/*").expect("it runs");
    reach_in(&host, "after-fire", host.system(System::Hangs), CONFIRM_WITHIN, way);
    let units = host.units().expect("systemd answers");
    let timer = units
        .iter()
        .map(|(name, _)| name)
        .find(|name| name.starts_with("nixfleet-deadman-"))
        .expect("a deadman is armed");
    let id = timer.trim_start_matches("nixfleet-deadman-").split('.').next().expect("its id");
    let switch = format!("nixfleet-switch-{id}-1-switch.service");
    let deadman = format!("nixfleet-deadman-{id}");
    [switch, format!("{deadman}.timer"), format!("{deadman}.service")]
        .iter()
        .map(|unit| shown(&host, unit, id))
        .collect()
}

fn both_ways_make_the_same(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let (socket, program) = (fired(flavour, &BY_SOCKET), fired(flavour, &BY_PROGRAM));
    for (socket, program) in socket.iter().zip(&program) {
        assert!(socket.len() > 90, "a unit has many properties: {socket:?}");
        let keys: BTreeSet<&String> = socket.keys().chain(program.keys()).collect();
        for key in keys {
            assert_eq!(socket.get(key), program.get(key), "{key} of {}", socket["Id"]);
        }
    }
    let [switch, timer, service] = &socket[..] else { panic!("three units: {socket:?}") };
    // What the agent counts on, said once more in full.
    for (key, value) in [
        ("Type", "exec"),
        ("ActiveState", "active"),
        ("CollectMode", "inactive-or-failed"),
        ("RuntimeMaxUSec", "5min"),
        ("TimeoutStopUSec", "15s"),
        ("KillMode", "control-group"),
        ("Environment", "NIXOS_INSTALL_BOOTLOADER=0"),
    ] {
        assert_eq!(switch[key], value, "{key}");
    }
    assert!(switch["ExecStopPost"].contains("record-end"), "{}", switch["ExecStopPost"]);
    assert_eq!((timer["ActiveState"].as_str(), timer["RemainAfterElapse"].as_str()), ("active", "no"));
    assert!(timer["TimersMonotonic"].contains("OnStartup"), "{}", timer["TimersMonotonic"]);
    assert_eq!((service["Type"].as_str(), service["ActiveState"].as_str()), ("exec", "inactive"));
}

#[test]
fn the_socket_and_the_programs_make_the_same_units_on_trixie() {
    both_ways_make_the_same(Flavour::Trixie);
}

#[test]
fn the_socket_and_the_programs_make_the_same_units_on_bookworm() {
    both_ways_make_the_same(Flavour::Bookworm);
}
