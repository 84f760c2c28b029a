//! The second opinion objects to a plan that breaks one rule, with that rule's objection and no other. Each test takes
//! a good plan and breaks it by hand.

use std::collections::BTreeMap;

use nixfleet_core::activation::outcome::FailureClass;
use nixfleet_core::host::waiting::StateName;
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::policy::WaveIndex;
use nixfleet_core::model::time::Secs;
use nixfleet_core::rollout::fact::Placed;
use nixfleet_core::rollout::progress::{Failed, FailedHow};
use nixfleet_core::rollout::snapshot::{RebootWanted, Then};
use nixfleet_core::rollout::{
    Decision, Objection, Order, Plan, RolloutId, Sound, Transition, Verb, What, object, plan, sound_part,
};

use crate::world::{World, policy, release, system};

fn name(host: &str) -> HostName {
    host.parse().unwrap()
}

fn id(seq: u64) -> RolloutId {
    RolloutId { channel: "web".parse().unwrap(), seq: seq.try_into().unwrap() }
}

/// It reports that it has no release yet.
fn fresh(world: &mut World, host: &str) {
    let fresh = serde_json::json!({ "state": "converged", "since_ms": world.now, "about": null, "go": null,
        "reboot_go": null, "reboot": "no", "failure": null, "hold": null });
    world.report(&name(host), serde_json::from_value(fresh).unwrap());
}

/// A fleet `web` with release 1 under this policy, of hosts `(name, wave, tag)` that have reported that they are fresh.
fn fleet(with: &str, hosts: &[(&str, u16, &str)]) -> World {
    let mut world = World::new();
    next(&mut world, 1, with, hosts);
    for (host, _, _) in hosts {
        fresh(&mut world, host);
    }
    world
}

fn next(world: &mut World, seq: u64, with: &str, hosts: &[(&str, u16, &str)]) {
    let placed: BTreeMap<_, _> = hosts
        .iter()
        .map(|(host, wave, tag)| {
            let (wave, tags) = (WaveIndex(*wave), [tag.parse().unwrap()].into());
            (name(host), Placed { wave, tags, system: system(&format!("{host}-{seq}")) })
        })
        .collect();
    world.release(release("web", seq, world.now, policy(with)), placed);
}

/// Plans, carries it out, and lets everybody fetch.
fn staged(with: &str, hosts: &[(&str, u16, &str)]) -> World {
    let mut world = fleet(with, hosts);
    let (made, _) = world.plan();
    assert_eq!(made.orders.len(), hosts.len(), "all fetch");
    made.orders.iter().for_each(|order| world.obey(order));
    world
}

fn good(world: &World) -> Plan {
    let (made, _) = plan(&world.snapshot, world.now);
    assert_eq!(object(&made, &world.snapshot), [], "a good plan");
    made
}

/// The good plan with this order more, which is for the newest release.
fn ordered(world: &World, host: &str, what: What) -> Vec<Objection> {
    let mut made = good(world);
    made.orders.push(Order { host: name(host), release: world.current(&name(host)), what });
    object(&made, &world.snapshot)
}

/// The good plan with this decision more about the rollout of release 1.
fn decided(world: &World, becomes: Transition) -> Vec<Objection> {
    let mut made = good(world);
    made.decisions.push(Decision { rollout: id(1), becomes });
    object(&made, &world.snapshot)
}

const TWO_WAVES: &str = r#"{ "waves": [{ "name": "one", "opens_after_secs": 0, "soak_secs": 60 },
    { "name": "two", "opens_after_secs": 3600, "soak_secs": 60 }], "max_failures": 1 }"#;

#[test]
fn a_host_that_nobody_knows_is_not_ordered() {
    let world = staged("{}", &[("a", 0, "t")]);
    let mut made = good(&world);
    made.orders[0].host = name("stranger");
    assert_eq!(object(&made, &world.snapshot), [Objection::UnknownHost(name("stranger"))]);
}

#[test]
fn a_host_is_ordered_once() {
    let world = staged("{}", &[("a", 0, "t")]);
    assert_eq!(ordered(&world, "a", What::Go), [Objection::OrderedTwice(name("a"))]);
}

#[test]
fn an_order_is_for_the_newest_release() {
    let world = staged("{}", &[("a", 0, "t")]);
    let mut made = good(&world);
    made.orders[0].release.seq = 7u64.try_into().unwrap();
    assert_eq!(object(&made, &world.snapshot), [Objection::OtherRelease(name("a"))]);
}

#[test]
fn a_host_is_where_an_order_takes_it_from() {
    let world = staged("{}", &[("a", 0, "t")]);
    for what in [What::Stage, What::Retry, What::Reboot, What::Withdraw] {
        let mut made = good(&world);
        made.orders[0].what = what;
        assert_eq!(object(&made, &world.snapshot), [Objection::WrongState(name("a"))], "{what:?}");
    }
}

#[test]
fn a_stopped_rollout_orders_nobody() {
    for verb in [Verb::Pause { rollout: id(1) }, Verb::Abort { rollout: id(1) }] {
        let mut world = staged("{}", &[("a", 0, "t")]);
        world.ask(verb).unwrap();
        assert_eq!(ordered(&world, "a", What::Go), [Objection::Stopped(name("a"))]);
    }
}

#[test]
fn only_a_halt_under_revert_all_sends_hosts_back() {
    let mut world = staged(r#"{ "on_failure": "revert-all" }"#, &[("a", 0, "t"), ("b", 0, "t")]);
    world.stands(&name("a"), StateName::Converged, world.current(&name("a")));
    assert_eq!(ordered(&world, "a", What::Revert), [Objection::Stopped(name("a"))], "it goes well");
    world.fails(&name("b"), StateName::Reverted, Then::Stays);
    assert!(good(&world).orders.iter().any(|order| order.what == What::Revert), "now it does not");
}

#[test]
fn nothing_begins_for_a_release_that_has_expired() {
    let mut world = staged(r#"{ "offline_after_secs": 8640000 }"#, &[("a", 0, "t")]);
    world.pass(Secs(31 * 86_400));
    assert_eq!(ordered(&world, "a", What::Go), [Objection::Expired(name("a"))]);
}

#[test]
fn a_host_waits_for_its_wave() {
    let world = staged(TWO_WAVES, &[("a", 0, "t"), ("b", 1, "t")]);
    assert_eq!(ordered(&world, "b", What::Go), [Objection::WaveNotOpen(name("b"))]);
}

#[test]
fn a_system_in_quarantine_is_offered_to_nobody() {
    let mut world = staged("{}", &[("a", 0, "t"), ("b", 0, "t")]);
    let failed = Failed {
        how: FailedHow::Reported(FailureClass::Probe),
        system: Some(system("b-1")),
        at_ms: world.now,
    };
    world.fails(&name("a"), StateName::Reverted, Then::Stays);
    let mut made = good(&world);
    // As if the failure of `a` spoke against the system of `b`.
    for decision in &mut made.decisions {
        match &mut decision.becomes {
            Transition::FailureCounted { failed: counted, .. } => *counted = failed.clone(),
            Transition::Quarantined { system: quarantined, .. } => *quarantined = system("b-1"),
            _ => {}
        }
    }
    made.orders.push(Order { host: name("b"), release: world.current(&name("b")), what: What::Go });
    let objections = object(&made, &world.snapshot);
    assert_eq!(objections, [Objection::Stopped(name("b")), Objection::Quarantined(name("b"))]);
}

#[test]
fn a_host_that_a_person_keeps_or_left_out_is_not_ordered() {
    for verb in [Verb::Hold { host: name("a"), until_ms: None }, Verb::Skip { host: name("a") }] {
        let mut world = staged("{}", &[("a", 0, "t"), ("b", 0, "t")]);
        world.ask(verb).unwrap();
        assert_eq!(ordered(&world, "a", What::Go), [Objection::Kept(name("a"))]);
    }
}

#[test]
fn a_host_that_is_away_is_not_ordered() {
    let mut world = staged("{}", &[("a", 0, "t"), ("b", 0, "t")]);
    world.pass(Secs(86_400));
    assert_eq!(ordered(&world, "a", What::Go), [Objection::Away(name("a"))]);
}

#[test]
fn a_host_waits_for_its_window() {
    let night = r#"[{ "from": "02:00", "until": "04:00", "zone": "UTC" }]"#;
    let world = staged(&format!(r#"{{ "windows": {night} }}"#), &[("a", 0, "t")]);
    assert_eq!(ordered(&world, "a", What::Go), [Objection::OutsideWindow(name("a"))]);
}

#[test]
fn a_host_waits_for_its_window_to_restart() {
    let night = r#"[{ "from": "02:00", "until": "04:00", "zone": "UTC" }]"#;
    let with = format!(r#"{{ "reboot": {{ "mode": "when-needed", "warn_secs": 0, "windows": {night} }} }}"#);
    let mut world = staged(&with, &[("a", 0, "t")]);
    world.stands(&name("a"), StateName::Converged, world.current(&name("a")));
    let mut standing = world.snapshot.host(&name("a")).unwrap().1.standing.clone().unwrap();
    standing.reboot = RebootWanted::Yes;
    world.report(&name("a"), standing);
    assert_eq!(ordered(&world, "a", What::Reboot), [Objection::OutsideWindow(name("a"))]);
}

#[test]
fn nobody_goes_before_those_who_come_first() {
    let with = r#"{ "edges": [{ "hosts": { "tag": "web" }, "after": { "tag": "db" } }] }"#;
    let world = staged(with, &[("a", 0, "web"), ("b", 0, "db")]);
    let crossed = Objection::EdgeCrossed { host: name("a"), after: name("b") };
    assert_eq!(ordered(&world, "a", What::Go), [crossed]);
}

#[test]
fn no_budget_is_exceeded() {
    for scope in ["channel", "fleet"] {
        let with =
            format!(r#"{{ "max_in_flight": [{{ "hosts": "all", "limit": 1, "scope": "{scope}" }}] }}"#);
        let world = staged(&with, &[("a", 0, "t"), ("b", 0, "t")]);
        let hosts = "\"all\"";
        let (channel, hosts) = ("web".parse().unwrap(), serde_json::from_str(hosts).unwrap());
        let over = Objection::OverBudget { channel, hosts, on_their_way: 2, limit: 1 };
        assert_eq!(ordered(&world, "b", What::Go), [over], "{scope}");
    }
}

/// Two channels of two staged hosts each, with budgets of their own over all hosts of the fleet.
fn two_channels(limits: [Option<u32>; 2]) -> World {
    let mut world = World::new();
    let channels = [("one", ["a", "b"]), ("two", ["c", "d"])];
    for ((channel, hosts), limit) in channels.iter().zip(limits) {
        let with = limit.map_or_else(
            || "{}".to_owned(),
            |limit| {
                format!(
                    r#"{{ "max_in_flight": [{{ "hosts": "all", "limit": {limit}, "scope": "fleet" }}] }}"#
                )
            },
        );
        let placed = hosts.map(|host| {
            let tags = ["t".parse().unwrap()].into();
            (name(host), Placed { wave: WaveIndex(0), tags, system: system(host) })
        });
        world.release(release(channel, 1, world.now, policy(&with)), placed.into());
    }
    for host in ["a", "b", "c", "d"] {
        fresh(&mut world, host);
    }
    let (made, _) = world.plan();
    made.orders.iter().for_each(|order| world.obey(order));
    world
}

#[test]
fn a_budget_of_the_fleet_binds_who_has_it_and_no_plan_of_ours_exceeds_it() {
    let go = |made: &Plan| -> Vec<String> {
        made.orders
            .iter()
            .filter(|order| order.what == What::Go)
            .map(|order| order.host.to_string())
            .collect()
    };
    for (limits, gone) in [
        ([Some(1), None], vec!["a", "c", "d"]),
        ([None, Some(1)], vec!["a", "b"]),
        ([Some(1), Some(3)], vec!["a", "c", "d"]),
        ([Some(3), Some(1)], vec!["a", "b"]),
    ] {
        let world = two_channels(limits);
        let made = plan(&world.snapshot, world.now).0;
        assert_eq!(go(&made), gone, "{limits:?}");
        assert_eq!(object(&made, &world.snapshot), [], "{limits:?}");
    }
    // One more than the narrow budget has room for, whoever else goes.
    let world = two_channels([Some(1), Some(3)]);
    let mut made = plan(&world.snapshot, world.now).0;
    let order = made.orders.iter().find(|order| order.host == name("a")).unwrap().clone();
    made.orders.push(Order { host: name("b"), ..order });
    let over = object(&made, &world.snapshot);
    let narrow =
        |objection: &Objection| matches!(objection, Objection::OverBudget { on_their_way: 2, limit: 1, .. });
    assert!(over.iter().any(narrow), "{over:?}");
}

#[test]
fn not_more_fetch_than_may() {
    let world = fleet(r#"{ "stage_in_flight": 1 }"#, &[("a", 0, "t"), ("b", 0, "t")]);
    let over = Objection::OverStageBudget { rollout: id(1), fetching: 2, limit: 1 };
    assert_eq!(ordered(&world, "b", What::Stage), [over]);
}

#[test]
fn what_is_decided_is_about_the_rollout_that_goes_on() {
    let world = staged("{}", &[("a", 0, "t")]);
    let mut made = good(&world);
    made.decisions.push(Decision { rollout: id(9), becomes: Transition::Converged });
    assert_eq!(object(&made, &world.snapshot), [Objection::NotCurrent(id(9))]);
}

#[test]
fn a_release_is_rolled_out_once() {
    let world = staged("{}", &[("a", 0, "t")]);
    let release = world.current(&name("a"));
    let objections = decided(&world, Transition::Opened { release });
    assert!(objections.contains(&Objection::NotCurrent(id(1))), "{objections:?}");
}

#[test]
fn what_supersedes_a_rollout_is_the_newest_release() {
    let world = staged("{}", &[("a", 0, "t")]);
    let by = 2u64.try_into().unwrap();
    assert_eq!(decided(&world, Transition::Superseded { by }), [Objection::NotCurrent(id(1))]);
}

#[test]
fn a_wave_does_not_open_before_its_signed_time_nor_before_the_one_in_front_of_it_is_over() {
    let mut world = staged(TWO_WAVES, &[("a", 0, "t"), ("b", 1, "t")]);
    let early = |why| [Objection::WaveTooEarly { rollout: id(1), wave: WaveIndex(1), why }];
    let opens = || Transition::WaveOpened { wave: WaveIndex(1) };
    assert_eq!(decided(&world, opens()), early("its signed time has not come"));
    world.pass(Secs(3_600));
    assert_eq!(decided(&world, opens()), early("an earlier wave is not over"));
    world.stands(&name("a"), StateName::Converged, world.current(&name("a")));
    assert!(good(&world).decisions.iter().any(|decision| decision.becomes == opens()));
}

#[test]
fn waves_open_in_their_order_and_only_those_that_there_are() {
    let world = staged(TWO_WAVES, &[("a", 0, "t"), ("b", 1, "t")]);
    for (wave, why) in [(0, "it is not the next one"), (2, "there is no such wave")] {
        let wave = WaveIndex(wave);
        let objections = decided(&world, Transition::WaveOpened { wave });
        assert_eq!(objections, [Objection::WaveTooEarly { rollout: id(1), wave, why }]);
    }
}

#[test]
fn a_wave_waits_for_a_person_and_for_another_channel() {
    let waves =
        r#""waves": [{ "name": "all", "opens_after_secs": 0, "soak_secs": 0, "approval": "by-a-person" }]"#;
    let needs_both = format!(r#"{{ {waves}, "after": ["db"] }}"#);
    let mut world = staged(&needs_both, &[("a", 0, "t")]);
    let early = |why| [Objection::WaveTooEarly { rollout: id(1), wave: WaveIndex(0), why }];
    let opens = || Transition::WaveOpened { wave: WaveIndex(0) };
    assert_eq!(decided(&world, opens()), early("nobody approved it"));
    world.ask(Verb::Approve { rollout: id(1), wave: WaveIndex(0) }).unwrap();
    assert_eq!(decided(&world, opens()), early("another channel comes first"));
}

#[test]
fn a_wave_of_a_stopped_or_expired_rollout_does_not_open() {
    let with = r#"{ "waves": [{ "name": "all", "opens_after_secs": 86400, "soak_secs": 0 }],
        "offline_after_secs": 8640000 }"#;
    let mut world = staged(with, &[("a", 0, "t")]);
    let early = |why| [Objection::WaveTooEarly { rollout: id(1), wave: WaveIndex(0), why }];
    let opens = || Transition::WaveOpened { wave: WaveIndex(0) };
    let mut paused = staged(with, &[("a", 0, "t")]);
    paused.ask(Verb::Pause { rollout: id(1) }).unwrap();
    assert_eq!(decided(&paused, opens()), early("the rollout is stopped"));
    world.pass(Secs(31 * 86_400));
    assert_eq!(decided(&world, opens()), early("the release has expired"));
}

#[test]
fn a_rollout_has_converged_only_when_every_wave_is_over() {
    let world = staged("{}", &[("a", 0, "t")]);
    assert_eq!(decided(&world, Transition::Converged), [Objection::NotConverged(id(1))]);
}

#[test]
fn a_rollout_halts_only_for_a_reason() {
    let world = staged("{}", &[("a", 0, "t")]);
    let failure = FailedHow::Reported(FailureClass::Probe);
    let mut made = good(&world);
    made.orders.clear();
    made.decisions
        .push(Decision { rollout: id(1), becomes: Transition::Halted { host: name("a"), failure } });
    assert_eq!(object(&made, &world.snapshot), [Objection::NoReasonToHalt(id(1))]);
}

#[test]
fn a_rollout_with_too_many_failures_halts() {
    let mut world = staged("{}", &[("a", 0, "t")]);
    world.fails(&name("a"), StateName::Reverted, Then::Stays);
    let mut made = good(&world);
    made.decisions.retain(|decision| matches!(decision.becomes, Transition::FailureCounted { .. }));
    assert_eq!(object(&made, &world.snapshot), [Objection::MustHalt(id(1))]);
}

#[test]
fn a_failure_is_counted_of_a_host_that_failed() {
    let world = staged(TWO_WAVES, &[("a", 0, "t")]);
    for how in [FailedHow::Reported(FailureClass::Probe), FailedHow::Lost] {
        let failed = Failed { how, system: None, at_ms: world.now };
        let objections = decided(&world, Transition::FailureCounted { host: name("a"), failed });
        assert_eq!(objections, [Objection::NotFailed(name("a"))]);
    }
}

#[test]
fn a_system_is_quarantined_only_for_a_failure_that_speaks_against_it() {
    let world = staged("{}", &[("a", 0, "t")]);
    let becomes = Transition::Quarantined { system: system("a-1"), host: name("a") };
    let mut made = good(&world);
    made.orders.clear();
    made.decisions.push(Decision { rollout: id(1), becomes });
    assert_eq!(object(&made, &world.snapshot), [Objection::NoReasonToQuarantine(system("a-1"))]);
}

/// Two channels with a host each that has fetched; `second` comes after what is given.
fn first_and_second(after: &str) -> World {
    let mut world = World::new();
    for (channel, host, with) in [("first", "a", "{}"), ("second", "b", after)] {
        let placed = Placed { wave: WaveIndex(0), tags: [].into(), system: system(host) };
        world.release(release(channel, 1, world.now, policy(with)), [(name(host), placed)].into());
        fresh(&mut world, host);
    }
    let (made, _) = world.plan();
    assert_eq!(made.orders.len(), 2, "both fetch");
    made.orders.iter().for_each(|order| world.obey(order));
    world
}

#[test]
fn a_mistake_about_one_channel_stops_no_other() {
    let world = first_and_second("{}");
    let whole = good(&world);
    let all = Sound { plan: whole.clone(), objections: Vec::new(), withheld: BTreeMap::new() };
    assert_eq!(sound_part(whole.clone(), &world.snapshot, object), all, "nothing is wrong");
    let mut made = whole.clone();
    made.orders.push(Order { host: name("a"), release: world.current(&name("a")), what: What::Go });
    let Sound { plan: part, objections, withheld } = sound_part(made, &world.snapshot, object);
    assert_eq!(objections, [Objection::OrderedTwice(name("a"))]);
    assert_eq!(withheld, BTreeMap::from([("first".parse().unwrap(), objections)]));
    assert_eq!(part.orders, whole.orders[1..], "b goes, and nothing is said to a");
    assert!(part.orders.iter().all(|order| order.host == name("b")) && part.orders.len() == 1);
}

#[test]
fn what_counts_on_a_mistake_is_stopped_with_it() {
    let mut world = first_and_second(r#"{ "after": ["first"] }"#);
    let (made, _) = world.plan();
    made.orders.iter().for_each(|order| world.obey(order));
    let mut made = good(&world);
    let of = |made: &Plan, what: &Transition| made.decisions.iter().any(|made| made.becomes == *what);
    assert!(of(&made, &Transition::Converged) && of(&made, &Transition::WaveOpened { wave: WaveIndex(0) }));
    made.orders.push(Order { host: name("a"), release: world.current(&name("a")), what: What::Go });
    let Sound { plan: part, objections, withheld } = sound_part(made, &world.snapshot, object);
    assert!(part.is_empty(), "the second channel went on since the first had converged: {part:?}");
    assert_eq!(objections.len(), 2, "what is wrong, and what was built on it: {objections:?}");
    assert_eq!(withheld.keys().map(ToString::to_string).collect::<Vec<_>>(), ["first", "second"]);
}

#[test]
fn an_order_for_nobody_stops_no_channel_but_the_one_that_it_names() {
    let world = first_and_second("{}");
    let mut made = good(&world);
    made.orders[0].host = name("stranger");
    made.orders[0].release.channel = "third".parse().unwrap();
    let Sound { plan: part, objections, withheld } = sound_part(made, &world.snapshot, object);
    assert_eq!(objections, [Objection::UnknownHost(name("stranger"))]);
    assert_eq!(withheld.len(), 1, "{withheld:?}");
    assert_eq!(part.orders.iter().map(|order| &order.host).collect::<Vec<_>>(), [&name("b")]);
}
