//! The agent's lines in systemd's journal: what went wrong is found by its priority, and nothing else is.

use nixfleet_testbed::{Flavour, Host, System};

use crate::common::{AGENT, LIMIT, UNIT as VERB, assert_rests_on, begin, host, hosts_run};
use crate::fleet::Saying;
use crate::followed::{await_state, follow_on};

const UNIT: &str = "nixfleet-agent.service";

/// What the unit said with this priority or a higher one; of which nothing is in the text.
fn said(host: &Host, unit: &str, priority: &str) -> String {
    let argv = ["journalctl", "--no-pager", "--quiet", "-o", "cat", "-u", unit, "-p", priority];
    let said = host.run(&argv).expect("it runs").stdout;
    assert!(!said.contains("<3>") && !said.contains("<4>") && !said.contains("<6>"), "{said}");
    said
}

/// Its state is saved before anybody is told of it.
fn await_said(host: &Host, unit: &str, priority: &str, words: &str) -> String {
    let told = host.wait_until(words, LIMIT, |host| said(host, unit, priority).contains(words));
    told.unwrap_or_else(|error| panic!("{error:#}\n{}", said(host, unit, "info")));
    said(host, unit, priority)
}

#[test]
fn a_reverted_release_is_an_error_in_the_journal_and_an_ordinary_update_is_none() {
    if !hosts_run() {
        return;
    }
    let (host, releases) = follow_on(host(Flavour::Trixie));
    releases.publish(&host, 1, host.system(System::Good), &Saying::default());
    await_state(&host, "converged", "stable/1");
    await_said(&host, UNIT, "info", "converged (stable/1)");
    // Before the first release there was nothing to be had from the source.
    let warnings = said(&host, UNIT, "warning");
    let silence = |line: &str| line.starts_with("the release source does not answer: ");
    assert!(warnings.lines().all(silence), "{warnings}");
    assert_eq!(said(&host, UNIT, "err"), "");

    releases.publish(&host, 2, host.system(System::UnitFails), &Saying::default());
    await_state(&host, "reverted", "stable/2");
    let errors = await_said(&host, UNIT, "err", "reverted (stable/2)");
    assert!(errors.contains("demo-b.service"), "{errors}");
    assert!(!errors.contains("stable/1") && !errors.contains("step: "), "{errors}");
    let warnings = said(&host, UNIT, "warning");
    assert!(warnings.contains("reverted (stable/2)") && warnings.contains("going back: "), "{warnings}");
    assert_rests_on(&host, System::Good);
    a_verb_is_told_apart(&host);
}

/// A verb in a unit tells the journal what its words weigh, and one whose words go elsewhere nobody.
fn a_verb_is_told_apart(host: &Host) {
    begin(host, "/etc/passwd", "60s", &[]);
    await_said(host, VERB, "err", "is not a store path");
    let elsewhere = format!("JOURNAL_STREAM=1:1 {AGENT} activate /etc/passwd");
    assert!(host.sh(&elsewhere).expect("it runs").stderr.starts_with("error: "));
}
