//! Hosts that lack something: no Nix, no service manager, no writable state, no root. Every verb is asked on each; each says
//! what is missing and what to do, ends with the promised code, and leaves the host as it was.

use std::time::Duration;

use nixfleet_testbed::{Flavour, Host, Output, System};

use crate::common::{AGENT, LIMIT, activate, assert_rests_on, fires, history, host, hosts_run};

/// Whatever an agent could change, a line each: files with size, mode and time of change, links with what they lead to. The
/// lock has the number of whoever took it last, and is no state.
const PICTURE: &str = "cd / && find etc boot var/lib/nixfleet run/nixfleet run/nixos run/current-system run/systemd/transient \
     nix/store nix/var/nix/gcroots nix/var/nix/profiles -maxdepth 5 -not -path 'nix/store/*/*' \
     -not -path run/nixfleet/activation.lock \
     \\( -type l -printf '%p -> %l\\n' -o -printf '%p %M %s %T@\\n' \\) 2>/dev/null | sort";
/// Longer than any verb takes that does not hang.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// A verb, the code that it ends with, and words of what it says.
type Row<'a> = (&'a [&'a str], i32, &'a [&'a str]);
/// What shows where the host stands shows it.
const SHOWN: [Row<'_>; 2] =
    [(&["status"], 0, &["pending   nothing", "converged"]), (&["history"], 0, &["converged"])];

/// A host on which something was activated before, and nobody else changes anything.
struct Subject {
    host: Host,
    id: String,
    target: String,
}

impl Subject {
    fn new() -> Self {
        let host = host(Flavour::Trixie);
        activate(&host, host.system(System::Good), &[]).assert(0, "converged");
        assert_rests_on(&host, System::Good);
        host.run(&["systemctl", "stop", "nixfleet-agent.service"]).expect("it runs");
        let id = history(&host)[0]["id"].as_str().expect("it has one").to_owned();
        let target = host.system(System::Good3).to_owned();
        // What is here already has the shortest way to a mistake.
        host.fetch(&target).expect("fetched");
        Self { host, id, target }
    }

    fn picture(&self) -> Vec<String> {
        // The host's own come and go by themselves.
        let changed_by_switches =
            |name: &str| ["nixfleet", "nixos", "demo"].iter().any(|own| name.starts_with(own));
        let units = self.host.units().expect("listed").into_iter();
        let units = units
            .filter(|(name, _)| changed_by_switches(name))
            .map(|(name, state)| format!("{name} {state}"));
        let files = self.host.sh(PICTURE).expect("it runs").stdout;
        assert!(files.contains("nix/var/nix/profiles/system -> system-2-link"), "{files}");
        units.chain(files.lines().map(str::to_owned)).collect()
    }

    /// Runs the agent where `hide` has hidden something, in a mount namespace of its own.
    fn ask(&self, hide: &str, verb: &[&str]) -> Output {
        let script = format!("{hide} && exec \"$@\"");
        let alone = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", &script, "sh", AGENT];
        self.host.run_for(ANSWERS_WITHIN, &[&alone[..], verb].concat()).expect("it runs")
    }

    /// Each verb answers as its row says, and when all have, the host is as it was.
    fn assert_answers(&self, hide: &str, rows: &[Row<'_>]) {
        let before = self.picture();
        for (verb, code, says) in rows {
            let output = self.ask(hide, verb);
            let said = format!("{}{}", output.stdout, output.stderr);
            assert!(!output.timed_out && !said.contains("panicked"), "{verb:?}: {output}");
            assert_eq!(output.code, *code, "{verb:?}: {output}");
            for words in *says {
                assert!(said.contains(words), "{verb:?} does not say `{words}`: {output}");
            }
        }
        let after = self.picture();
        let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
        let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        assert!(gone.is_empty() && new.is_empty(), "changed: {gone:#?} became {new:#?}");
        assert_eq!(fires(&self.host, &self.target), 0);
        assert_rests_on(&self.host, System::Good);
    }
}

#[test]
fn without_nix_every_verb_that_needs_it_says_so_and_changes_nothing() {
    if !hosts_run() {
        return;
    }
    let subject = Subject::new();
    let hide = "for nix in nix nix-store nix-env; do mount --bind /dev/null /usr/bin/$nix; done";
    let missing =
        &["error: cannot find nix-store, nix-env, nix in ", "hint: install Nix (`nix.enable = true`"][..];
    let rows: [Row<'_>; 8] = [
        (&["activate", &subject.target], 1, missing),
        (&["activate", "--dry-run", &subject.target], 1, missing),
        (&["confirm"], 1, missing),
        (&["rollback"], 1, missing),
        (&["recover"], 1, missing),
        (&["run"], 1, missing),
        (&["check"], 1, &["problem  nix       cannot find nix-store", "to mend it: install Nix"]),
        // The journal is read without Nix.
        (&["logs", &subject.id], 0, &["activating the configuration..."]),
    ];
    subject.assert_answers(hide, &[&rows[..], &SHOWN].concat());
}

#[test]
fn without_systemd_every_verb_that_needs_it_says_so_and_changes_nothing() {
    if !hosts_run() {
        return;
    }
    let subject = Subject::new();
    let hide = "mount -t tmpfs tmpfs /run/systemd && mount -t tmpfs tmpfs /run/dbus";
    let missing = &["error: systemd is not the service manager here", "hint: run it on the host itself"][..];
    let rows: [Row<'_>; 7] = [
        (&["activate", &subject.target], 1, missing),
        (&["activate", "--dry-run", &subject.target], 1, missing),
        (&["confirm"], 1, missing),
        (&["rollback"], 1, missing),
        (&["recover"], 1, missing),
        (&["run"], 1, missing),
        (&["check"], 1, &["problem  system    systemd is not the service manager here", "to mend it: "]),
    ];
    subject.assert_answers(hide, &[&rows[..], &SHOWN].concat());
    let hide =
        "for it in systemctl systemd-run journalctl busctl; do mount --bind /dev/null /usr/bin/$it; done";
    let missing =
        &["error: cannot find systemctl, systemd-run, journalctl, busctl in ", "hint: install systemd"][..];
    let rows: [Row<'_>; 5] = [
        (&["activate", &subject.target], 1, missing),
        (&["rollback"], 1, missing),
        (&["run"], 1, missing),
        (&["logs", &subject.id], 1, &["error: cannot find journalctl in ", "hint: install systemd"]),
        (&["check"], 1, &["problem  system    cannot find systemctl", "to mend it: install systemd"]),
    ];
    subject.assert_answers(hide, &[&rows[..], &SHOWN].concat());
}

#[test]
fn a_service_manager_that_does_not_answer_is_found_out_before_anything_is_changed() {
    if !hosts_run() {
        return;
    }
    let subject = Subject::new();
    // As in a container that sees the folders of its host: both ways to the manager lead nowhere.
    let hide = "mount --bind /dev/null /run/systemd/private && mount -t tmpfs tmpfs /run/dbus";
    let silent =
        &["the service manager does not answer", "the switch could not be started", "is-system-running"][..];
    let rows: [Row<'_>; 5] = [
        (&["activate", &subject.target], 1, silent),
        (&["rollback"], 1, silent),
        (&["confirm"], 1, &["error: nothing is on trial"]),
        (&["recover"], 0, &["there is nothing to take up"]),
        (&["check"], 1, &["problem  system    the service manager does not answer", "to mend it: "]),
    ];
    subject.assert_answers(hide, &[&rows[..], &SHOWN].concat());
}

#[test]
fn a_state_folder_that_cannot_be_written_stops_every_verb_that_would_write_in_it() {
    if !hosts_run() {
        return;
    }
    let subject = Subject::new();
    let state = "/var/lib/nixfleet";
    let hide = format!("mount --bind {state} {state} && mount -o remount,bind,ro {state}");
    let read_only =
        &["/var/lib/nixfleet is on a file system that is mounted read-only", "mount it for writing"][..];
    let wish = &["Read-only file system", "`nixfleet-agent check` says more"][..];
    let rows: [Row<'_>; 9] = [
        (&["activate", &subject.target], 1, read_only),
        (&["confirm"], 1, read_only),
        (&["rollback"], 1, read_only),
        (&["recover"], 1, read_only),
        (&["hold", "exams"], 1, wish),
        (&["unhold"], 1, wish),
        (&["retry"], 1, wish),
        (&["check"], 1, read_only),
        (&["activate", "--dry-run", &subject.target], 0, &["reboot    not needed"]),
    ];
    subject.assert_answers(&hide, &[&rows[..], &SHOWN].concat());
    // The service waits until it can write, and its journal says what for.
    let service =
        ["systemd-run", "--quiet", "--unit=waiting", "-p", "ReadOnlyPaths=/var/lib/nixfleet", AGENT, "run"];
    assert_eq!(subject.host.run(&service).expect("it runs").code, 0);
    let told = |host: &Host| {
        host.journal("waiting.service").is_ok_and(|said| said.contains("Read-only file system"))
    };
    subject.host.wait_until("it says what for", LIMIT, told).expect("it does");
    assert_eq!(subject.host.unit_state("waiting.service").expect("asked"), "active");
}

#[test]
fn without_root_every_verb_says_so_and_changes_nothing() {
    if !hosts_run() {
        return;
    }
    let subject = Subject::new();
    let hide = "set -- setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/tmp \"$@\"";
    let refused = &["error: this needs root", "hint: run it with sudo"][..];
    let unread = &["error: cannot read `/var/lib/nixfleet/journal.jsonl`", "hint: run it with sudo"][..];
    let wish = &["error: only root may ask this host's agent", "hint: run it with sudo"][..];
    let rows: [Row<'_>; 13] = [
        (&["activate", &subject.target], 1, refused),
        (&["activate", "--dry-run", &subject.target], 1, refused),
        (&["confirm"], 1, refused),
        (&["rollback"], 1, refused),
        (&["recover"], 1, refused),
        (&["run"], 1, refused),
        (&["status"], 1, unread),
        (&["history"], 1, unread),
        (&["logs", &subject.id], 1, unread),
        (&["hold", "exams"], 1, wish),
        (&["unhold"], 1, wish),
        (&["retry"], 1, wish),
        (&["check"], 1, &["this check does not run as root", "to mend it: run it with sudo"]),
    ];
    subject.assert_answers(hide, &rows);
}
