//! A host whose own clock is a day wrong, under a control plane that it reaches over TLS with its key: what it says of it, what people
//! see of it, and that it gets its orders once and in order.
//!
//! A virtual machine has a clock of its own (see `clock_followed.rs`); the server and whoever signs have the right time. One boot
//! and two activations, with `--power`.

use std::time::{Duration, UNIX_EPOCH};

use nixfleet_testbed::control_plane::ControlPlane;
use nixfleet_testbed::fleet::{CHANNEL, StaticFleet, status};
use nixfleet_testbed::{Flavour, Machine, System, Vm};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::clock_followed::{jump, set_right};
use crate::common::{Subject, assert_rests_on, fires, hosts_run};
use crate::controlled::{Led, ordered, program};
use crate::fleet::{HOST_KEY, ROOT_FILE};
use crate::followed::{CONFIG, await_state, restart_agent};
use crate::relay::Relay;
use crate::troubled::kept_of;

const NAME: &str = "vm";
/// Where the machine has the authority of its control plane.
const AUTHORITY: &str = "/etc/nixfleet/ca.pem";
const DAY_MS: i64 = 86_400_000;
/// Clocks of emulated machines drift, and requests take their time.
const ABOUT_MS: i64 = 3_600_000;

#[test]
fn power_stays_and_a_host_whose_clock_is_a_day_wrong_follows_its_control_plane() {
    if std::env::var_os("NIXFLEET_POWER").is_none() || !hosts_run() {
        return;
    }
    let it = Wrong::boot();
    it.release(System::Good, "one");
    jump(&it.vm, "-1 day");
    a_certificate_that_is_not_valid_yet_is_named_by_the_host(&it);
    a_day_behind_it_is_heard_and_people_see_what_it_refuses_and_how_far_it_is_off(&it);
    once_it_is_right_it_goes_on(&it);
    a_day_ahead_it_moves_once_and_people_see_how_far_it_is_off(&it);
    its_reports_are_in_order_and_none_is_lost(&it);
    it.led.no_objections();
}

/// One machine that is led.
struct Wrong {
    led: Led,
    vm: Vm,
    _relay: Relay,
}

impl Wrong {
    fn boot() -> Self {
        let cli = program("NIXFLEET_CLI_BIN");
        let fleet = StaticFleet::boot(Flavour::Trixie, &cli, &[]).expect("a fleet");
        let mut control_plane =
            ControlPlane::start(&fleet, &program("NIXFLEET_CONTROL_PLANE_BIN")).expect("a control plane");
        // The same key, and so the same pin; and dates, which the shipped verb leaves out.
        control_plane.identify_by(&dated(&control_plane, fleet.net().gateway())).expect("written");
        control_plane.kill();
        control_plane.run(&fleet).expect("it comes up again");
        let vm = Vm::builder(Flavour::Trixie).name("clock-led").boot().expect("the machine boots");
        let listens: std::net::SocketAddr = control_plane.address().parse().expect("an address");
        let near = std::net::SocketAddr::from(([127, 0, 0, 1], listens.port()));
        let relay = Relay::start((vm.namespace(), near), (fleet.net().namespace(), listens));
        fleet.cli(&["keys", "new", &format!("{}/keys/{NAME}", fleet.folder())]).expect("a key");
        Self { led: Led { control_plane, fleet }, vm, _relay: relay }
    }

    fn key(&self, suffix: &str) -> String {
        let file = self.led.fleet.outside().join("keys").join(format!("{NAME}{suffix}"));
        std::fs::read_to_string(file).expect("a key")
    }

    fn release(&self, system: System, revision: &str) {
        let key = self.key(".pub");
        // Without the comment.
        let key = key.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let policy = json!({
            "waves": [{ "name": "all", "soak": "1s", "opens_after": "0s" }],
            // An activation in emulation takes half a minute, and its deadline is not what is tested here.
            "confirm_within": "1200s",
        });
        let description = json!({
            "fleet": "acme", "channels": { CHANNEL: { "policy": policy } },
            "hosts": { NAME: { "channel": CHANNEL, "tags": [], "system": self.vm.system(system), "key": key, "probes": [] } },
        });
        self.led.fleet.describe(&description).expect("written");
        self.led.fleet.release(revision).expect("published");
    }

    /// Has the machine follow the control plane, which it believes by these lines of its configuration.
    fn follow(&self, believing: &str) {
        let vm = &self.vm;
        let root = self.led.fleet.served().join("root/1.json");
        vm.write_file(ROOT_FILE, &std::fs::read_to_string(root).expect("the root")).expect("written");
        vm.write_file(HOST_KEY, &self.key("")).expect("written");
        vm.write_file(&format!("{HOST_KEY}.pub"), &self.key(".pub")).expect("written");
        vm.run(&["chmod", "600", HOST_KEY]).expect("it runs").success().expect("done");
        let source = self.led.control_plane.address();
        let config = format!(
            "host = \"{NAME}\"\nchannel = \"{CHANNEL}\"\nsource = \"control-plane+https://{source}\"\n\
             root = \"{ROOT_FILE}\"\nhost-key = \"{HOST_KEY}.pub\"\npoll = \"10s\"\n{believing}\n"
        );
        vm.write_file(CONFIG, &config).expect("written");
        restart_agent(vm);
    }

    /// Waits until the machine says something, and returns what.
    fn until_it_says(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let said = Machine::wait_until(&self.vm, what, Vm::LIMIT, |vm| {
            last = status(vm);
            is_so(&last)
        });
        said.unwrap_or_else(|error| panic!("{error:#}\n{last:#}\n{}", self.led.told()));
        last
    }

    /// Waits until people who ask are told something, and returns what.
    fn until_people_see(&self, verb: &str, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        self.led.wait(what, Vm::LIMIT, || {
            let said = self.led.control_plane.ask(&self.led.fleet, &[verb, NAME]).ok()?;
            is_so(&said.stdout).then_some(said.stdout)
        })
    }

    fn view(&self) -> Value {
        self.led.control_plane.get(&self.led.fleet, &format!("/v1/hosts/{NAME}")).expect("it is known")
    }
}

/// The control plane's key in a certificate that is valid for the right time, and not a day before; it is its own authority.
fn dated(control_plane: &ControlPlane, name: &str) -> String {
    let identity = control_plane.identity().expect("a certificate");
    let pair = KeyPair::from_pem(&identity[identity.find("-----BEGIN PRIVATE").expect("a key")..]);
    let pair = pair.expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let now = UNIX_EPOCH.elapsed().expect("after 1970");
    params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(Duration::from_hours(1));
    params.not_after = date_time_ymd(1970, 1, 1) + (now + Duration::from_hours(720));
    format!("{}{}", params.self_signed(&pair).expect("it signs").pem(), pair.serialize_pem())
}

fn a_certificate_that_is_not_valid_yet_is_named_by_the_host(it: &Wrong) {
    let identity = it.led.control_plane.identity().expect("a certificate");
    let authority = identity.split_inclusive("-----END CERTIFICATE-----\n").next().expect("it comes first");
    it.vm.write_file(AUTHORITY, authority).expect("written");
    it.follow(&format!("ca-file = \"{AUTHORITY}\""));
    let said = it.until_it_says("the certificate to be refused", |said| {
        said["source"]["contact"]["why"].as_str().is_some_and(|why| why.contains("not valid yet"))
    });
    assert!(said["release"].is_null(), "{said}");
    it.until_people_see("why", "people to see that it never came", |why| why.contains("heard of: never"));
}

fn a_day_behind_it_is_heard_and_people_see_what_it_refuses_and_how_far_it_is_off(it: &Wrong) {
    it.follow(&format!("pins = [\"{}\"]", it.led.control_plane.pin()));
    let why = it.until_people_see("why", "people to see both", |why| {
        why.contains("its clock: 2") && why.contains("behind the control plane's") && why.contains("(clock)")
    });
    assert!(why.contains("it refuses what it is served"), "{why}");
    let view = it.view();
    let ahead = view["clock_ahead_ms"].as_i64().expect("it said what its clock says");
    assert!((ahead + DAY_MS).abs() < ABOUT_MS, "{view}");
    assert_eq!(view["refused"]["kind"], "clock", "{view}");
    assert_eq!(fires(&it.vm, it.vm.system(System::Good)), 0);
    assert_rests_on(&it.vm, System::Base);
}

fn once_it_is_right_it_goes_on(it: &Wrong) {
    set_right(&it.vm);
    await_state(&it.vm, "converged", "stable/1");
    assert_rests_on(&it.vm, System::Good);
    it.led.until_decided_within(1, "converged", Vm::LIMIT);
    it.until_people_see("host", "its clock to be one like any other", |host| {
        !host.contains("clock     ") && !host.contains("refuses   ")
    });
}

fn a_day_ahead_it_moves_once_and_people_see_how_far_it_is_off(it: &Wrong) {
    jump(&it.vm, "+1 day");
    it.until_people_see("host", "people to see it", |host| {
        host.lines()
            .any(|line| line.starts_with("clock     2") && line.contains("ahead of the control plane's"))
    });
    it.release(System::Good3, "two");
    await_state(&it.vm, "converged", "stable/2");
    assert_rests_on(&it.vm, System::Good3);
    let events = it.led.until_decided_within(2, "converged", Vm::LIMIT);
    for (seq, system) in [(1, System::Good), (2, System::Good3)] {
        assert_eq!(ordered(&events, NAME, seq, "go").len(), 1, "it is ordered once for release {seq}");
        assert_eq!(fires(&it.vm, it.vm.system(system)), 1, "it switched once");
    }
}

/// By their numbers and by the time since the boot, which nobody sets; their dates go back and forth, or nothing was shown.
fn its_reports_are_in_order_and_none_is_lost(it: &Wrong) {
    let kept = kept_of(&it.led, NAME, &it.vm);
    let number = |one: &Value, of: &str| one[of].as_u64().expect("a number");
    for pair in kept.windows(2) {
        assert_eq!(number(&pair[1], "seq"), number(&pair[0], "seq") + 1, "{pair:?}");
        assert!(number(&pair[1], "up_ms") >= number(&pair[0], "up_ms"), "{pair:?}");
    }
    let apart = |pair: &&[Value]| number(&pair[0], "at_ms").abs_diff(number(&pair[1], "at_ms"));
    let leaps = kept.windows(2).filter(|pair| apart(pair) > DAY_MS.unsigned_abs() / 2).count();
    assert!(leaps >= 2, "from behind to right to ahead: {kept:?}");
}
