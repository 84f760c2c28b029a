//! A host whose agent cannot follow: its configuration is no good, and what it had begun is brought to an end all the same; or its
//! disk is full or read-only, and it goes on by itself when it can; or its journal is damaged, and a person has to look; or others can
//! read what is root's alone.

use std::time::Duration;

use nixfleet_testbed::{Flavour, Host, System, fleet};

use crate::common::{AGENT, UNIT as ACTIVATION, assert_rests_on, fires, history, host, hosts_run, reach};
use crate::fleet::{HOST_KEY, Saying};
use crate::followed::{await_state, follow_on};

/// Longer than an activation takes on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);
const UNIT: &str = "nixfleet-agent.service";
const CONFIG: &str = "/etc/nixfleet/agent.toml";
const ENVIRONMENT: &str = "/etc/nixfleet/agent.env";

#[test]
fn what_was_cut_off_is_brought_to_an_end_whatever_the_configuration_says() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let stop = |host: &Host| host.run(&["systemctl", "stop", UNIT]).expect("it runs");
    // The second is a good file that names what is not there: yet, perhaps, so it is tried again.
    let no_root =
        "host = \"web-1\"\nchannel = \"stable\"\nsource = \"/srv\"\nroot = \"/etc/nixfleet/none.json\"\n";
    let cases = [
        ("this is no [configuration", 8, "after-set-profile", System::Good, System::Base),
        (no_root, 1, "after-confirmed", System::Good3, System::Good3),
    ];
    for (config, code, point, target, ends_on) in cases {
        assert_eq!(stop(&host).code, 0);
        host.write_file(CONFIG, config).expect("written");
        reach(&host, point, host.system(target), "5m");
        // A switch starts what its system wants, the daemon among it, which would now and then hold what the next one needs.
        assert_eq!(stop(&host).code, 0);
        host.run(&["systemctl", "kill", "--signal=KILL", ACTIVATION]).expect("it runs");
        let gone = host.wait_until("it is gone", LIMIT, |host| {
            !matches!(host.unit_state(ACTIVATION).as_deref(), Ok("active" | "deactivating"))
        });
        gone.expect("it was killed");
        let ran = host.run_for(LIMIT, &[AGENT, "run"]).expect("it runs");
        assert_eq!(ran.code, code, "it does not follow: {ran}");
        assert_rests_on(&host, ends_on);
        let last = history(&host).pop().expect("one was begun");
        assert!(!last["outcome"].is_null(), "{last}");
    }
}

/// What the disk of a host holds beside its image: some systems of the test.
const DISK_BYTES: u64 = 200 << 20;

/// Follows a release while all but `spare_kib` of the disk are taken.
fn follows_on_a_full_disk(spare_kib: u32) {
    if !hosts_run() {
        return;
    }
    let full = Host::builder(Flavour::Trixie).disk_limit(DISK_BYTES).boot().expect("the host boots");
    let (host, fleet) = follow_on(full);
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    await_state(&host, "converged", "stable/1");
    host.run(&["systemctl", "stop", UNIT]).expect("it runs");
    let spare = format!("head -c {} /dev/zero > /var/spare", u64::from(spare_kib) << 10);
    assert_eq!(host.sh(&spare).expect("it runs").code, 0);
    fleet.publish(&host, 2, host.system(System::Good3), &Saying::default());
    host.fill_disk().expect("full");
    assert_eq!(host.sh("rm /var/spare").expect("it runs").code, 0);
    host.run(&["systemctl", "start", UNIT]).expect("it runs");

    let told = host.wait_until("the full disk is told", LIMIT, |host| {
        let shown = host.run(&["systemctl", "show", "-P", "StatusText", UNIT]);
        let shown = shown.map(|output| output.stdout).unwrap_or_default();
        fleet::status(host)["failure"]["class"] == "space" || shown.contains("nothing is done until it can")
    });
    assert!(told.is_ok(), "{:#}\n{}", fleet::status(&host), host.journal(UNIT).unwrap_or_default());
    assert_eq!(fires(&host, host.system(System::Good3)), 0, "nothing was changed");
    assert_rests_on(&host, System::Good);

    host.free_disk().expect("there is room");
    // Nobody asks for another try: its own pause is over within a minute.
    let mut last = fleet::status(&host);
    let goes_on = host.wait_until("it goes on by itself", LIMIT, |host| {
        last = fleet::status(host);
        last["state"] == "converged" && last["release"] == "stable/2"
    });
    assert!(goes_on.is_ok(), "{last:#}\n{}", host.journal(UNIT).unwrap_or_default());
    assert_rests_on(&host, System::Good3);
    assert_eq!(fires(&host, host.system(System::Good3)), 1);
}

#[test]
fn a_disk_without_a_byte_is_told_and_the_host_goes_on_when_there_is_room() {
    follows_on_a_full_disk(0);
}

#[test]
fn a_disk_with_room_for_words_and_not_for_the_release_is_told_and_the_host_goes_on_when_there_is_room() {
    follows_on_a_full_disk(2_048);
}

/// What a person is told who asks the host; how it ends is another matter.
fn told(host: &Host, verb: &str) -> String {
    let said = host.run(&[AGENT, verb]).expect("it runs");
    said.stdout + &said.stderr
}

/// A host that follows and is done with its first release.
fn at_rest() -> (Host, crate::fleet::Fleet) {
    let (host, fleet) = follow_on(host(Flavour::Trixie));
    fleet.publish(&host, 1, host.system(System::Good), &Saying::default());
    await_state(&host, "converged", "stable/1");
    assert_eq!(fleet::status(&host)["agent"], "follows");
    assert!(!told(&host, "status").contains("last word"), "it follows");
    (host, fleet)
}

#[test]
fn a_state_that_cannot_be_written_for_a_while_is_told_and_the_host_goes_on_when_it_can() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = at_rest();
    let state = "/var/lib/nixfleet";
    let read_only = format!("mount --bind {state} {state} && mount -o remount,bind,ro {state}");
    assert_eq!(host.sh(&read_only).expect("it runs").code, 0);
    // It does not come up, and this says so.
    host.run(&["systemctl", "restart", UNIT]).expect("it runs");
    fleet.publish(&host, 2, host.system(System::Good3), &Saying::default());
    // It holds its lock for an instant at each start, and follows by then as far as others can tell.
    let seen = |what, good: &dyn Fn(&Host) -> bool| {
        let seen = host.wait_until(what, LIMIT, |host| good(host));
        assert!(
            seen.is_ok(),
            "{what}: {}\n{}",
            told(&host, "status"),
            host.journal(UNIT).unwrap_or_default()
        );
    };
    seen("it says what it does", &|host| {
        let journal = host.journal(UNIT).unwrap_or_default();
        journal.contains("the agent starts again by itself until then")
    });
    seen("the status says that it is away", &|host| {
        let status = told(host, "status");
        status.contains("agent     does not follow at the moment") && status.contains("last word")
    });
    seen("the other form says so, too", &|host| fleet::status(host)["agent"] == "away");
    assert!(told(&host, "check").contains("mounted read-only"), "{}", told(&host, "check"));
    assert_eq!(host.current_system().as_deref(), Some(host.system(System::Good)), "nothing was done");

    let unmounts = |host: &Host| host.run(&["umount", state]).is_ok_and(|said| said.code == 0);
    host.wait_until("nobody has it open", LIMIT, unmounts).expect("it can be written again");
    await_state(&host, "converged", "stable/2");
    assert_rests_on(&host, System::Good3);
}

#[test]
fn a_damaged_journal_keeps_the_agent_away_until_a_person_has_looked_and_every_verb_says_what_to_do() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = at_rest();
    let damage = "systemctl stop nixfleet-agent && sed -i '1s/^./X/' /var/lib/nixfleet/journal.jsonl";
    assert_eq!(host.sh(damage).expect("it runs").code, 0);
    host.run(&["systemctl", "start", UNIT]).expect("it runs");
    // systemd may still call it ready when it has begun to give up.
    let failed =
        host.wait_until("it gives up", LIMIT, |host| host.unit_state(UNIT).is_ok_and(|is| is == "failed"));
    failed.expect("it does");
    let again = host.run(&["systemctl", "show", "--property=NRestarts", UNIT]).expect("it runs");
    assert_eq!(again.text(), "NRestarts=0", "it is not started again and again");
    for verb in ["check", "status", "history"] {
        let said = told(&host, verb);
        assert!(
            said.contains("is damaged at line 1") && said.contains("move the file away"),
            "{verb}: {said}"
        );
    }
    fleet.publish(&host, 2, host.system(System::Good3), &Saying::default());
    let mend = "mv /var/lib/nixfleet/journal.jsonl /root/ && systemctl start nixfleet-agent";
    assert_eq!(host.sh(mend).expect("it runs").code, 0);
    await_state(&host, "converged", "stable/2");
    assert_rests_on(&host, System::Good3);
}

#[test]
fn check_tells_who_else_can_read_the_private_key_of_a_host_and_the_environment_of_its_agent() {
    if !hosts_run() {
        return;
    }
    let (host, _) = at_rest();
    let said = told(&host, "check");
    assert!(!said.contains("can read it"), "{said}");
    let open = format!("echo X=1 > {ENVIRONMENT}; chmod 0644 {ENVIRONMENT}; chmod 0640 {HOST_KEY}");
    assert_eq!(host.sh(&open).expect("it runs").code, 0);
    let said = told(&host, "check");
    for (file, who) in [(ENVIRONMENT, "everybody can read it"), (HOST_KEY, "its group can read it")] {
        let line = said.lines().find(|line| line.contains(&format!("{file} is"))).unwrap_or_default();
        assert!(line.starts_with("problem") && line.ends_with(who), "{file}: {said}");
        assert!(said.contains(&format!("chmod 0600 {file}")), "{file}: {said}");
    }
}
