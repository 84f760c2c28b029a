//! A host whose agent cannot follow, as its configuration is no good: what it had begun is brought to an end all the same.

use std::time::Duration;

use nixfleet_testbed::{Flavour, Host, System};

use crate::common::{AGENT, UNIT as ACTIVATION, assert_rests_on, history, host, hosts_run, reach};

/// Longer than an activation takes on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);
const UNIT: &str = "nixfleet-agent.service";
const CONFIG: &str = "/etc/nixfleet/agent.toml";

#[test]
fn what_was_cut_off_is_brought_to_an_end_whatever_the_configuration_says() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let stop = |host: &Host| host.run(&["systemctl", "stop", UNIT]).expect("it runs");
    // The second is a good file that names what is not there.
    let no_root =
        "host = \"web-1\"\nchannel = \"stable\"\nsource = \"/srv\"\nroot = \"/etc/nixfleet/none.json\"\n";
    let cases = [
        ("this is no [configuration", "after-set-profile", System::Good, System::Base),
        (no_root, "after-confirmed", System::Good3, System::Good3),
    ];
    for (config, point, target, ends_on) in cases {
        assert_eq!(stop(&host).code, 0);
        host.write_file(CONFIG, config).expect("written");
        reach(&host, point, host.system(target), "5m");
        host.run(&["systemctl", "kill", "--signal=KILL", ACTIVATION]).expect("it runs");
        let ran = host.run_for(LIMIT, &[AGENT, "run"]).expect("it runs");
        assert_eq!(ran.code, 8, "it does not follow: {ran}");
        assert_rests_on(&host, ends_on);
        let last = history(&host).pop().expect("one was begun");
        assert!(!last["outcome"].is_null(), "{last}");
    }
}
