//! What the owner of a fleet does over the years, with real keys and real documents: keys are changed and lost, releases
//! are held back, run out and are taken back, hosts sleep through several of them or get them on a stick.
//!
//! One fleet lives through all of it, as each story leaves what the next one needs: roots, floors, and releases that were
//! missed. `web` follows a web server, `late` does so too and is off for most of the time, `kiosk` has no network and
//! follows a folder.

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use nixfleet_testbed::fleet::{CHANNEL, StaticFleet, await_state, status};
use nixfleet_testbed::{Flavour, Host, System, wait_until};
use serde_json::{Value, json};

use crate::common::{AGENT, assert_rests_on, fires, hosts_run};

const LIMIT: Duration = Duration::from_mins(3);
/// Where a stick is put into the host without a network.
const STICK: &str = "/media/stick";
/// From a line drawn by the owner until it is passed: longer than it takes to make a root and a release.
const LINE_AHEAD: Duration = Duration::from_secs(150);

#[test]
fn keys_dates_numbers_and_sticks_do_what_their_owner_means() {
    if !hosts_run() {
        return;
    }
    let fleet = Owned::new();
    fleet.is_followed_from_a_stick_when_it_is_whole();
    fleet.host("late").kill().expect("it is off");
    fleet.keeps_a_copy_for_the_thief();
    fleet.changes_its_keys_while_hosts_follow();
    fleet.is_not_moved_by_the_lost_key();
    fleet.draws_a_line_before_which_no_release_counts();
    fleet.lets_a_release_run_out();
    fleet.goes_back_by_going_forward();
    fleet.takes_in_hosts_that_missed_it_all();
}

/// A fleet, and its owner's acts in the order of the test.
struct Owned(StaticFleet);

impl Owned {
    /// With a first release, which `web` and `late` run.
    fn new() -> Self {
        let cli = std::env::var_os("NIXFLEET_CLI_BIN").expect("`cargo xtask test` sets NIXFLEET_CLI_BIN");
        let names = ["web", "late", "kiosk"];
        let fleet = Self(StaticFleet::boot(Flavour::Trixie, Path::new(&cli), &names).expect("a fleet"));
        fleet.0.follow(fleet.host("kiosk"), &format!("file://{STICK}")).expect("it restarts");
        fleet.release(System::Good, &[], "release");
        fleet.converge("web", 1, System::Good);
        fleet.converge("late", 1, System::Good);
        fleet
    }

    fn is_followed_from_a_stick_when_it_is_whole(&self) {
        let kiosk = self.host("kiosk");
        let silent = kiosk
            .wait_until("no stick", LIMIT, |kiosk| status(kiosk)["source"]["contact"]["contact"] == "silent");
        assert!(silent.is_ok(), "no stick: {}", status(kiosk));
        self.half_a_stick();
        refuses(kiosk, "unreadable");
        assert_rests_on(kiosk, System::Base);
        self.whole_stick();
        self.converge("kiosk", 1, System::Good);
    }

    /// What somebody has who copied the owner's laptop before its keys were changed.
    fn keeps_a_copy_for_the_thief(&self) {
        let folder = self.0.folder();
        let copied =
            self.0.office().sh(&format!("mkdir {folder}/thief && cd {folder} && cp -a [!t]* thief/"));
        assert_eq!(copied.expect("it runs").code, 0);
    }

    fn changes_its_keys_while_hosts_follow(&self) {
        for role in ["root", "release"] {
            self.cli(&["keys", "new", &self.key(&format!("{role}-2"))]);
            self.cli(&["root", "rotate", &self.public(role), &self.public(&format!("{role}-2"))]);
        }
        let half = self.cli(&["root", "sign", "--key", &self.key("root"), "--yes"]);
        assert!(half.contains("not in force yet"), "the new key must sign its root too: {half}");
        self.cli(&["root", "sign", "--key", &self.key("root-2"), "--yes"]);
        self.release(System::Good3, &[], "release-2");
        self.converge("web", 2, System::Good3);
    }

    /// The thief has the old keys, a higher number, and the web server.
    fn is_not_moved_by_the_lost_key(&self) {
        let folder = format!("{}/thief", self.0.folder());
        self.describe(System::Probe404);
        let described = self.0.outside().join("fleet.json");
        fs::copy(described, self.0.outside().join("thief/fleet.json")).expect("copied");
        for words in [
            &["release", "build", "--channel", CHANNEL, "--seq", "9"][..],
            &["release", "sign", "--channel", CHANNEL, "--key", &format!("{folder}/keys/release"), "--yes"],
        ] {
            let done = self.0.cli_in(&folder, words).expect("it runs");
            assert_eq!(done.code, 0, "by the root of before it is a good release: {done}");
        }
        self.0.publish_from(&self.0.outside().join("thief/served")).expect("it is the thief's server now");
        let said = refuses(self.host("web"), "trust");
        assert!(
            said["source"]["refused"]["why"].as_str().is_some_and(|why| why.contains("arbitrary")),
            "{said}"
        );
        assert_eq!((&said["state"], &said["release"]), (&"converged".into(), &"stable/2".into()), "{said}");
        self.0.publish().expect("the owner's again");
        refuses_nothing(self.host("web"));
        for host in [self.host("web"), self.host("kiosk")] {
            assert_eq!(fires(host, host.system(System::Probe404)), 0);
        }
        assert_rests_on(self.host("web"), System::Good3);
    }

    /// A release that a host had fetched, and waits with, when its owner took it back.
    fn draws_a_line_before_which_no_release_counts(&self) {
        let web = self.host("web");
        wishes(web, &["hold", "it waits", "--by", "the test"]);
        // What is wished is written down, and heard a moment later.
        web.wait_until("it is held", LIMIT, |web| !status(web)["hold"].is_null()).expect("it is");
        self.release(System::Twin, &[], "release-2");
        await_state(web, "staged", &format!("{CHANNEL}/3"), LIMIT).expect("it is fetched");

        let line = now() + LINE_AHEAD;
        let text = self.0.office().run(&["date", "-u", &format!("-d@{}", line.as_secs()), "+%FT%TZ"]);
        let text = text.expect("it runs").text().to_owned();
        self.cli(&["root", "channel", CHANNEL, "--not-before", &text]);
        self.cli(&["root", "sign", "--key", &self.key("root-2"), "--yes"]);
        self.describe(System::Third);
        self.cli(&["release", "build", "--channel", CHANNEL]);
        let early = ["release", "sign", "--channel", CHANNEL, "--key", &self.key("release-2"), "--yes"];
        let early = self.0.cli_in(self.0.folder(), &early).expect("it runs");
        assert_eq!(early.code, 1, "no host would take it yet: {early}");
        assert!(early.stderr.contains("refuses what was made before"), "{early}");
        self.0.publish().expect("published");
        let refused = refuses(web, "trust");
        assert_eq!(refused["state"], "staged", "what runs goes on: {refused}");
        wishes(web, &["unhold", "--by", "the test"]);
        let waits =
            web.wait_until("it is let go", LIMIT, |web| status(web)["waiting"]["on"] == "verified-anew");
        assert!(waits.is_ok(), "{}", status(web));
        assert_rests_on(web, System::Good3);

        wait_until("the line", LIMIT, || (now() > line).then_some(())).expect("time passes");
        self.release(System::Third, &[], "release-2");
        self.converge("web", 5, System::Third);
        assert_eq!(fires(web, web.system(System::Twin)), 0, "what was taken back was never begun");
    }

    /// Its only wave opens after it has run out, so it is fetched at most, and never begun.
    fn lets_a_release_run_out(&self) {
        let web = self.host("web");
        self.describe_in_a_wave(System::Twin, Duration::from_mins(5));
        self.sign_and_publish(&["--expires-in", "90s"], "release-2");
        let mut last = Value::Null;
        let ran_out = web.wait_until("it has run out", LIMIT, |web| {
            last = status(web);
            // A host that comes to look too late does not even begin to fetch.
            let seen_late = last["source"]["refused"]["kind"] == "expired";
            seen_late || last["waiting"]["on"] == "release-expired"
        });
        assert!(ran_out.is_ok(), "{last}");
        assert_eq!(fires(web, web.system(System::Twin)), 0);
        assert_rests_on(web, System::Third);
    }

    fn goes_back_by_going_forward(&self) {
        self.release(System::Good3, &[], "release-2");
        self.converge("web", 7, System::Good3);
    }

    /// Three roots and six releases later, each goes to the newest at once, and not behind it any more.
    fn takes_in_hosts_that_missed_it_all(&self) {
        let (late, kiosk) = (self.host("late"), self.host("kiosk"));
        late.start().expect("it is on");
        self.whole_stick();
        for name in ["late", "kiosk"] {
            self.converge(name, 7, System::Good3);
        }
        for host in [late, kiosk] {
            for missed in [System::Probe404, System::Third, System::Twin] {
                assert_eq!(fires(host, host.system(missed)), 0, "{missed:?}");
            }
        }
        let older = format!("{}/older/channels/{CHANNEL}/latest", self.0.folder());
        self.0.office().write_file(&older, "4\n").expect("written");
        self.0.publish_from(&self.0.outside().join("older")).expect("published");
        let said = refuses(late, "trust");
        assert!(
            said["source"]["refused"]["why"].as_str().is_some_and(|why| why.contains("rollback")),
            "{said}"
        );
        assert_rests_on(late, System::Good3);
    }

    fn host(&self, name: &str) -> &Host {
        self.0.host(name)
    }

    fn key(&self, name: &str) -> String {
        format!("{}/keys/{name}", self.0.folder())
    }

    fn public(&self, name: &str) -> String {
        format!("{}.pub", self.key(name))
    }

    /// Runs a verb that must end well; what it said.
    fn cli(&self, words: &[&str]) -> String {
        let output = self.0.cli(words).expect("it ends well");
        output.stdout + &output.stderr
    }

    fn describe(&self, system: System) {
        self.describe_in_a_wave(system, Duration::ZERO);
    }

    /// All hosts are in one wave, which opens so long after the release was made.
    fn describe_in_a_wave(&self, system: System, opens_after: Duration) {
        let mut description = self.0.canary_first(system, opens_after).expect("every host has a key");
        let opens_after = format!("{}s", opens_after.as_secs());
        let wave = json!({ "name": "all", "opens_after": opens_after, "soak": "1s" });
        description["channels"][CHANNEL]["policy"]["waves"] = json!([wave]);
        self.0.describe(&description).expect("written");
    }

    /// Every host shall run `system`, says this key.
    fn release(&self, system: System, flags: &[&str], key: &str) {
        self.describe(system);
        self.sign_and_publish(flags, key);
    }

    fn sign_and_publish(&self, flags: &[&str], key: &str) {
        self.cli(&[&["release", "build", "--channel", CHANNEL], flags].concat());
        self.cli(&["release", "sign", "--channel", CHANNEL, "--key", &self.key(key), "--yes"]);
        self.0.publish().expect("published");
    }

    fn converge(&self, name: &str, seq: u64, system: System) {
        await_state(self.host(name), "converged", &format!("{CHANNEL}/{seq}"), LIMIT).expect("it converges");
        assert_rests_on(self.host(name), system);
    }

    /// A stick that was pulled out too early: the names are there, this host's entry is not.
    fn half_a_stick(&self) {
        put(self.host("kiosk"), &self.0.served(), STICK, &|path| !path.ends_with("hosts/kiosk.json"));
    }

    /// The stick again, after it was written to its end: another folder in the place of the first.
    fn whole_stick(&self) {
        let kiosk = self.host("kiosk");
        put(kiosk, &self.0.served(), "/media/next", &|_| true);
        let changed = kiosk.sh(&format!("rm -rf {STICK} && mv /media/next {STICK}"));
        assert_eq!(changed.expect("it runs").code, 0);
    }
}

/// Copies the files of a folder into a host, those that are `wanted`.
fn put(host: &Host, from: &Path, to: &str, wanted: &dyn Fn(&Path) -> bool) {
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("listed").path();
        let name = path.file_name().expect("it has one").to_string_lossy();
        let to = format!("{to}/{name}");
        if path.is_dir() {
            put(host, &path, &to, wanted);
        } else if wanted(&path) {
            host.write_file(&to, &fs::read_to_string(&path).expect("a document")).expect("written");
        }
    }
}

/// What a person at the host wants.
fn wishes(host: &Host, words: &[&str]) {
    let done = host.run(&[&[AGENT], words].concat()).expect("it runs");
    assert_eq!(done.code, 0, "{done}");
}

/// Since 1970.
fn now() -> Duration {
    UNIX_EPOCH.elapsed().expect("after 1970")
}

/// Waits until a host refuses what it is served, in this way; its status then.
fn refuses(host: &Host, kind: &str) -> Value {
    let mut last = Value::Null;
    let refused = host.wait_until(&format!("it is refused: {kind}"), LIMIT, |host| {
        last = status(host);
        last["source"]["refused"]["kind"] == kind
    });
    refused.unwrap_or_else(|error| panic!("{error:#}: {last:#}"));
    last
}

fn refuses_nothing(host: &Host) {
    let taken =
        host.wait_until("nothing is refused", LIMIT, |host| status(host)["source"]["refused"].is_null());
    taken.unwrap_or_else(|error| panic!("{error:#}: {:#}", status(host)));
}
