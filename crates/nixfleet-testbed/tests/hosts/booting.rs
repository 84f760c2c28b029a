//! A boot while a committed system is watched: the agent comes up beside the services that it asks.

use nixfleet_testbed::{Flavour, Host, System};
use serde_json::json;

use crate::common::{LIMIT, assert_rests_on, fires, host, hosts_run};
use crate::fleet::{Saying, probe};
use crate::followed::{await_state, follow_on};

/// A service that no switch touches, and that needs longer for its start than a probe has patience.
const LATE: &str = "[Service]\nExecStartPre=/bin/sleep 12\nExecStart=/bin/busybox httpd -f -p 9 -h /run\n";
const WHERE: &str = "/usr/local/lib/systemd/system";

fn listens(host: &Host) -> bool {
    host.run(&["/bin/bash", "-c", ": < /dev/tcp/127.0.0.1/9"]).is_ok_and(|said| said.code == 0)
}

#[test]
fn a_service_that_comes_up_late_at_a_boot_in_mid_soak_is_not_blamed() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = follow_on(host(Flavour::Trixie));
    host.write_file(&format!("{WHERE}/late.service"), LATE).expect("written");
    let wanted = format!(
        "mkdir -p {WHERE}/multi-user.target.wants; ln -s ../late.service {WHERE}/multi-user.target.wants/"
    );
    host.sh(&wanted).expect("it runs").success().expect("linked");
    host.run(&["systemctl", "daemon-reload"]).expect("it runs").success().expect("reloaded");
    host.run(&["systemctl", "start", "late.service"]).expect("it runs").success().expect("started");
    host.wait_until("the service listens", LIMIT, listens).expect("it does");
    let good = host.system(System::Good).to_owned();
    let patient_for_3_s = probe("late", &json!({ "tcp": { "address": "127.0.0.1:9" } }));
    let saying = Saying { probes: json!([patient_for_3_s]), soak_secs: 40, ..Saying::default() };
    fleet.publish(&host, 1, &good, &saying);
    await_state(&host, "soaking", "stable/1");
    host.reboot().expect("it comes back");
    await_state(&host, "converged", "stable/1");
    assert_rests_on(&host, System::Good);
    assert_eq!(fires(&host, &good), 1, "nobody went back from it");
}
