//! Who takes the place of a running agent: one that reads another key of its host, and one that is older than the state.

use nixfleet_testbed::{Flavour, System, fleet};

use crate::common::{LIMIT, assert_rests_on, host, hosts_run};
use crate::fleet::Saying;
use crate::followed::{UNIT, await_state, follow_on};

#[test]
fn a_host_whose_key_is_replaced_takes_the_release_that_names_the_new_one_and_nobody_restarts_its_agent() {
    if !hosts_run() {
        return;
    }
    let (host, mut fleet) = follow_on(host(Flavour::Trixie));
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    await_state(&host, "converged", "stable/1");
    fleet.renew_host_key();
    fleet.publish(&host, 2, host.system(System::Good3), &Saying::default());
    let refused = host.wait_until("a release for another key is refused", LIMIT, |host| {
        fleet::status(host)["source"]["refused"]["kind"] == "trust"
    });
    assert!(refused.is_ok(), "{:#}", fleet::status(&host));
    assert_rests_on(&host, System::Good);
    fleet.give_key(&host);
    await_state(&host, "converged", "stable/2");
    assert_rests_on(&host, System::Good3);
}

#[test]
fn an_agent_that_cannot_read_the_newer_state_of_its_host_says_so_and_its_system_is_reverted() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = follow_on(host(Flavour::Trixie));
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    await_state(&host, "converged", "stable/1");
    let saying = Saying { confirm_within_secs: 60, ..Saying::default() };
    fleet.publish(&host, 2, host.system(System::AgentOlder), &saying);
    let said = await_state(&host, "reverted", "stable/2");
    assert_eq!(said["quarantined"], *host.system(System::AgentOlder), "{said}");
    assert_rests_on(&host, System::Good);
    let journal = host.journal(UNIT).expect("there is one");
    let way = journal.find("nixfleet-agent-0.0.9").expect("the agent makes way for the older one");
    let says = "`/var/lib/nixfleet/state.json` has format 2, newer than this agent's 1";
    assert!(journal[way..].contains(says), "{journal}");
    assert!(!journal[way..].contains("step: commit"), "nobody answers for it: {journal}");
    // What it could not read it left as it was.
    fleet.publish(&host, 3, host.system(System::Good3), &Saying::default());
    await_state(&host, "converged", "stable/3");
    assert_rests_on(&host, System::Good3);
}
