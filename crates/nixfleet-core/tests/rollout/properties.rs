//! Rules that hold in every fleet, whatever happens in it. [`World::plan`] has three of them: no plan is objected to,
//! carried out it leaves nothing to plan, and every host has an order or a reason.
//!
//! Each was tried against a mistake that was put into the planner by hand, with the second pair of eyes and the check of orders
//! too many left out, so that it had to be found by the property's own words:
//!
//! | mistake | found by |
//! |---|---|
//! | a budget has one place more | `whatever_happens`: `moving` |
//! | a budget of the fleet counts its own channel only | `whatever_happens`: `moving` |
//! | edges are not looked at | `whatever_happens`: `edges_hold`; `a_host_that_waits_for_ever` |
//! | a system in quarantine is offered | `whatever_happens`: nothing is left to plan |
//! | the signed time of a wave is not waited for | `whatever_happens`: signed time |
//! | hosts get their turn by where they lie in memory | `the_order_in_which_hosts_are_given` |
//! | who has fetched still counts as one who fetches | `whatever_happens`, `the_order_in_which_hosts_are_given`: nothing is left to plan |
//! | one host of a wave that is done is no evidence | `a_fleet_whose_hosts_all_succeed` |
//! | a halted rollout gives orders | `whatever_happens`, `the_order_in_which_hosts_are_given`: nothing is left to plan |
//! | a channel does not see that another converges by the same plan | `a_fleet_whose_hosts_all_succeed`: nothing is left to plan |
//! | a halt quarantines at the next plan only | `whatever_happens` and two more: nothing is left to plan |
//! | nobody is called stuck | `a_host_that_waits_for_ever` |

use std::collections::BTreeMap;

use nixfleet_core::host::waiting::StateName;
use nixfleet_core::model::circles::{self, Member};
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::policy::{Policy, WaveIndex};
use nixfleet_core::model::select::Selector;
use nixfleet_core::model::time::Secs;
use nixfleet_core::rollout::fact::Placed;
use nixfleet_core::rollout::snapshot::{RebootWanted, Then};
use nixfleet_core::rollout::{
    Decision, Fact, Order, Plan, PlanReport, Reason, RolloutId, Snapshot, Status, Transition, Verb, What,
    object, plan, sound_part,
};
use proptest::prelude::*;

use crate::world::{World, policy, release, system};

/// What a host of a random fleet is like: its wave, and whether it has the tag `late`, which waits for `early`.
type HostLike = (u16, bool);

#[derive(Debug, Clone)]
enum Step {
    /// A host does the next thing that it was told to, or finishes it.
    Goes(usize),
    /// It has what it was told, and begins later.
    Notes(usize),
    /// It has converged, and wants a restart.
    WantsRestart(usize),
    /// It fails instead.
    Fails(usize, bool),
    /// Time passes, in minutes.
    Waits(u32),
    /// A person.
    Asks(usize, u8),
    /// The next release; the same systems again, if so.
    Releases(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..12).prop_map(Step::Goes),
        4 => (0usize..12).prop_map(Step::Notes),
        1 => (0usize..12).prop_map(Step::WantsRestart),
        1 => (0usize..12, any::<bool>()).prop_map(|(host, again)| Step::Fails(host, again)),
        2 => (1u32..700).prop_map(Step::Waits),
        2 => (0usize..12, 0u8..9).prop_map(|(host, verb)| Step::Asks(host, verb)),
        1 => any::<bool>().prop_map(Step::Releases),
    ]
}

/// A policy; with `chained` the channel `odd` comes after `even`.
fn rules(budget: u32, stage: u32, failures: u32, word: &str, chained: bool) -> Policy {
    let after = if chained { r#""even""# } else { "" };
    policy(&format!(
        r#"{{ "waves": [
            {{ "name": "one", "opens_after_secs": 0, "soak_secs": 60 }},
            {{ "name": "two", "opens_after_secs": 3600, "soak_secs": 60 }},
            {{ "name": "three", "opens_after_secs": 7200, "soak_secs": 60, "approval": "by-a-person" }}],
          "max_in_flight": [
            {{ "hosts": "all", "limit": {budget} }},
            {{ "hosts": {{ "tag": "late" }}, "limit": 1 }},
            {{ "hosts": "all", "limit": 4, "scope": "fleet" }}],
          "edges": [{{ "hosts": {{ "tag": "late" }}, "after": {{ "tag": "early" }} }}],
          "after": [{after}], "stage_in_flight": {stage}, "max_failures": {failures}, "on_failure": "{word}" }}"#
    ))
}

fn host(at: usize) -> HostName {
    format!("h{at:02}").parse().unwrap()
}

fn take(world: &mut World, hosts: &[HostLike], seq: u64, policy: &Policy, again: bool) {
    let seq_of_system = if again { 1 } else { seq };
    for (parity, channel) in ["even", "odd"].into_iter().enumerate() {
        let own = hosts.iter().enumerate().filter(|(at, _)| at % 2 == parity);
        let placed: BTreeMap<_, _> = own
            .map(|(at, (wave, late))| {
                // What comes first must not be in a later wave.
                let (wave, tag) = if *late { (*wave, "late") } else { (0, "early") };
                let system = system(&format!("{}-{seq_of_system}", at % 3));
                (host(at), Placed { wave: WaveIndex(wave), tags: [tag.parse().unwrap()].into(), system })
            })
            .collect();
        let (now, mut policy) = (world.now, policy.clone());
        // No channel comes after itself.
        policy.after.retain(|first| first.as_str() != channel);
        world.release(release(channel, seq, now, policy), placed);
    }
}

/// The next thing that a host does by itself.
fn goes(world: &mut World, host: &HostName) {
    let Some((channel, found)) = world.snapshot.host(host) else { return };
    let newest = channel.current.id.clone();
    if let Some(ordered) = found.ordered.clone() {
        let state = match ordered.what {
            What::Stage => StateName::Staged,
            What::Go | What::Retry => StateName::Activating,
            What::Revert => return world.fails(host, StateName::Reverted, Then::Stays),
            What::Withdraw => return world.notes(host),
            What::Reboot => return,
        };
        return world.stands(host, state, ordered.release);
    }
    match found.standing.as_ref().map(|standing| (standing.state, standing.about.clone())) {
        None => world.stands(host, StateName::Staging, newest),
        Some((StateName::Activating, Some(about))) => world.stands(host, StateName::Confirming, about),
        Some((StateName::Confirming, Some(about))) => world.stands(host, StateName::Soaking, about),
        Some((StateName::Soaking, Some(about))) => world.stands(host, StateName::Converged, about),
        Some((StateName::Staging, Some(about))) => world.stands(host, StateName::Staged, about),
        // It has the order already: a retry begins with the fetch and goes on by itself.
        Some((StateName::Staged, Some(about)))
            if found.standing.as_ref().is_some_and(|standing| standing.go == standing.about) =>
        {
            world.stands(host, StateName::Activating, about);
        }
        Some(_) => {
            let standing = found.standing.clone().unwrap();
            world.report(host, standing);
        }
    }
}

fn wants_restart(world: &mut World, host: &HostName) {
    let Some((_, found)) = world.snapshot.host(host) else { return };
    if let Some(mut standing) = found.standing.clone().filter(|at| at.state == StateName::Converged) {
        standing.reboot = RebootWanted::Yes;
        world.report(host, standing);
    }
}

fn asks(world: &mut World, host: &HostName, verb: u8) {
    let Some((channel, _)) = world.snapshot.host(host) else { return };
    let rollout = RolloutId::from(&channel.current.id);
    let host = host.clone();
    let verb = match verb {
        0 => Verb::Pause { rollout },
        1 | 2 => Verb::Resume { rollout },
        3 => Verb::Approve { rollout, wave: WaveIndex(2) },
        4 | 5 => Verb::Retry { host },
        6 => Verb::Skip { host },
        7 => Verb::Hold { host, until_ms: Some(world.now.plus(Secs(3_600))) },
        _ => Verb::Unhold { host },
    };
    // What does not fit changes nothing.
    let before = world.snapshot.clone();
    if world.ask(verb).is_err() {
        assert_eq!(world.snapshot, before);
    }
}

fn happens(world: &mut World, hosts: &[HostLike], policy: &Policy, seq: &mut u64, step: &Step) {
    match step {
        Step::Goes(at) => goes(world, &host(at % hosts.len())),
        Step::Notes(at) => {
            let host = host(at % hosts.len());
            if world.snapshot.host(&host).is_some() {
                world.notes(&host);
            }
        }
        Step::WantsRestart(at) => wants_restart(world, &host(at % hosts.len())),
        Step::Fails(at, again) => {
            let host = host(at % hosts.len());
            let (state, then) = if *again {
                (StateName::Failed, Then::TriesAgain)
            } else {
                (StateName::Reverted, Then::Stays)
            };
            if world.snapshot.host(&host).is_some_and(|(_, found)| found.standing.is_some()) {
                world.fails(&host, state, then);
            }
        }
        Step::Waits(minutes) => world.pass(Secs(minutes * 60)),
        Step::Asks(at, verb) => asks(world, &host(at % hosts.len()), *verb),
        Step::Releases(again) => {
            *seq += 1;
            take(world, hosts, *seq, policy, *again);
        }
    }
}

/// Counted by the test's own words: who was told to move or is moving, in the whole fleet.
fn moving(snapshot: &Snapshot, means: &Selector, channel: Option<&str>) -> usize {
    let channels =
        snapshot.channels.iter().filter(|(name, _)| channel.is_none_or(|own| own == name.as_str()));
    let hosts = channels.flat_map(|(_, channel)| channel.hosts.iter());
    hosts
        .filter(|(name, host)| means.means(name, &host.placed.tags) && host.skip.is_none())
        .filter(|(_, host)| {
            let told = host.ordered.as_ref().is_some_and(|ordered| ordered.what != What::Stage);
            let moves = host.standing.as_ref().is_some_and(|standing| {
                matches!(standing.state, StateName::Activating | StateName::Confirming | StateName::Reverting)
            });
            told || moves
        })
        .count()
}

fn fleet() -> impl Strategy<Value = Vec<HostLike>> {
    prop::collection::vec((0u16..3, any::<bool>()), 1..12)
}

fn word() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("revert"), Just("halt"), Just("revert-all")]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_the_rules_hold(
        hosts in fleet(), steps in prop::collection::vec(step(), 1..80),
        budget in 1u32..4, stage in 1u32..4, failures in 0u32..3, word in word(), chained in any::<bool>(),
    ) {
        let policy = rules(budget, stage, failures, word, chained);
        let (mut world, mut seq) = (World::new(), 1);
        take(&mut world, &hosts, seq, &policy, false);
        for step in &steps {
            happens(&mut world, &hosts, &policy, &mut seq, step);
            let before = world.snapshot.clone();
            let (made, report) = world.plan();
            let moved = made.orders.iter().any(|order| matches!(order.what, What::Go | What::Retry | What::Revert));
            for channel in ["even", "odd"] {
                let own = made.orders.iter().any(|order| order.release.channel.as_str() == channel
                    && matches!(order.what, What::Go | What::Retry | What::Revert));
                if own {
                    prop_assert!(moving(&world.snapshot, &Selector::All, Some(channel)) <= budget as usize);
                }
            }
            if moved {
                prop_assert!(moving(&world.snapshot, &Selector::All, None) <= 4);
            }
            edges_hold(&before, &made)?;
            who_must_not_begin_is_told_so(&world.snapshot)?;
            for order in &made.orders {
                let (channel, found) = world.snapshot.host(&order.host).unwrap();
                let rollout = channel.rollout.as_ref().unwrap();
                if matches!(order.what, What::Go | What::Retry) {
                    prop_assert!(!channel.quarantine.contains_key(&found.placed.system), "never in quarantine");
                    prop_assert_eq!(&rollout.status, &Status::Going, "a halted rollout moves nobody");
                }
            }
            for decision in &made.decisions {
                if let Transition::WaveOpened { wave } = decision.becomes {
                    let current = &world.snapshot.channels[&decision.rollout.channel].current;
                    let hours = [0, 1, 2][usize::from(wave.0)];
                    prop_assert!(world.now.ms_since(current.created_ms) >= hours * 3_600_000, "signed time");
                }
            }
            every_order_more_is_objected_to(&made, &report, &before)?;
        }
    }

    #[test]
    fn the_order_in_which_hosts_are_given_changes_nothing(
        hosts in fleet(), steps in prop::collection::vec(step(), 1..40), order in Just((0..12).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let policy = rules(2, 2, 1, "revert", false);
        let (mut world, mut seq) = (World::new(), 1);
        take(&mut world, &hosts, seq, &policy, false);
        for step in &steps {
            happens(&mut world, &hosts, &policy, &mut seq, step);
            let _ = world.plan();
        }
        // The same is known, and was heard in another order.
        let mut told = World::new();
        told.now = world.now;
        for channel in world.snapshot.channels.values() {
            let placed = channel.hosts.iter().map(|(name, host)| (name.clone(), host.placed.clone()));
            told.release(channel.current.clone(), placed.collect());
        }
        for at in order.iter().filter(|at| **at < hosts.len()) {
            let (_, found) = world.snapshot.host(&host(*at)).unwrap();
            if let Some(standing) = &found.standing {
                told.report(&host(*at), standing.clone());
            }
        }
        let mut plain = told.snapshot.clone();
        for channel in plain.channels.values_mut() {
            let shuffled = order.iter().map(|at| host(*at));
            let rows = shuffled.filter_map(|name| Some((name.clone(), channel.hosts.get(&name)?.clone())));
            channel.hosts = rows.collect();
        }
        prop_assert_eq!(&plain, &told.snapshot);
        prop_assert_eq!(plan(&plain, world.now), plan(&told.snapshot, world.now));
    }

    #[test]
    fn a_host_that_waits_for_ever_is_told_so_and_no_other_is(
        hosts in prop::collection::vec((0u16..3, 0usize..4), 1..9),
        edges in prop::collection::vec((0usize..4, 0usize..4), 0..4),
    ) {
        let tag = |tag: usize| format!(r#"{{ "tag": "t{tag}" }}"#);
        let edges: Vec<String> = edges
            .iter()
            .map(|(hosts, after)| format!(r#"{{ "hosts": {}, "after": {} }}"#, tag(*hosts), tag(*after)))
            .collect();
        let wave = |name: &str| format!(r#"{{ "name": "{name}", "opens_after_secs": 0, "soak_secs": 0 }}"#);
        let waves = ["one", "two", "three"].map(wave).join(",");
        let policy = policy(&format!(r#"{{ "waves": [{waves}], "edges": [{}] }}"#, edges.join(",")));
        let placed: BTreeMap<_, _> = hosts
            .iter()
            .enumerate()
            .map(|(at, (wave, tag))| {
                let (wave, tags) = (WaveIndex(*wave), [format!("t{tag}").parse().unwrap()].into());
                (host(at), Placed { wave, tags, system: system("same") })
            })
            .collect();
        let members: Vec<Member<'_>> =
            placed.iter().map(|(name, Placed { wave, tags, .. })| Member { name, tags, wave: *wave }).collect();
        let refused = circles::stuck(&policy, &members);
        let mut world = World::new();
        let now = world.now;
        world.release(release("all", 1, now, policy), placed.clone());
        for at in 0..hosts.len() {
            world.stands(&host(at), StateName::Staging, world.current(&host(at)));
            world.stands(&host(at), StateName::Staged, world.current(&host(at)));
        }
        let (_, first) = world.plan();
        let told: Vec<&HostName> = first
            .held
            .iter()
            .filter(|(_, reason)| matches!(reason, Reason::Deadlock { .. }))
            .map(|(host, _)| host)
            .collect();
        // Everybody does as ordered until nobody is ordered any more.
        loop {
            let (made, _) = world.plan();
            for at in 0..hosts.len() {
                if world.snapshot.host(&host(at)).unwrap().1.ordered.is_some() {
                    world.stands(&host(at), StateName::Converged, world.current(&host(at)));
                }
            }
            if made.is_empty() && plan(&world.snapshot, world.now).0.is_empty() {
                break;
            }
        }
        let (_, last) = plan(&world.snapshot, world.now);
        for (name, reason) in last.held.iter() {
            let late = matches!(reason, Reason::Wave { .. } | Reason::Edge { .. });
            let done = matches!(reason, Reason::Done);
            prop_assert!(done || late || matches!(reason, Reason::Deadlock { .. }), "{name}: {reason}");
            prop_assert!(!(done && told.contains(&name)), "{name} was called stuck");
        }
        let stuck = last.held.iter().any(|(_, reason)| matches!(reason, Reason::Deadlock { .. }));
        let all_done = last.held.iter().all(|(_, reason)| *reason == Reason::Done);
        prop_assert_eq!(all_done, !stuck, "nobody waits in silence");
        prop_assert_eq!(all_done, refused.is_empty(), "such a policy is refused: {:?}", refused);
    }

    #[test]
    fn a_fleet_whose_hosts_all_succeed_converges(
        hosts in fleet(), budget in 1u32..4, stage in 1u32..4, chained in any::<bool>(),
    ) {
        let policy = rules(budget, stage, 0, "revert", chained);
        let mut world = World::new();
        take(&mut world, &hosts, 1, &policy, false);
        for at in 0..hosts.len() {
            world.stands(&host(at), StateName::Staging, world.current(&host(at)));
        }
        let mut rounds = 0;
        loop {
            for at in 0..hosts.len() {
                goes(&mut world, &host(at));
            }
            asks(&mut world, &host(0), 3);
            if hosts.len() > 1 {
                asks(&mut world, &host(1), 3);
            }
            let _ = world.plan();
            // Nobody approves the last wave of a channel without hosts.
            let mut peopled = world.snapshot.channels.values().filter(|channel| !channel.hosts.is_empty());
            if peopled.all(|channel| channel.rollout.as_ref().unwrap().converged_ms.is_some()) {
                break;
            }
            world.pass(Secs(600));
            rounds += 1;
            prop_assert!(rounds < 500, "{:#?}", plan(&world.snapshot, world.now));
        }
    }
}

/// After a plan was carried out: where the rollout does not go on, or the system failed, nobody has an order and has not begun,
/// unless it was told to forget that.
fn who_must_not_begin_is_told_so(after: &Snapshot) -> Result<(), TestCaseError> {
    for channel in after.channels.values() {
        let newest = Some(&channel.current.id);
        let goes_on = channel.rollout.as_ref().is_some_and(|rollout| rollout.status == Status::Going);
        let bad = channel
            .hosts
            .iter()
            .filter(|(_, host)| !goes_on || channel.quarantine.contains_key(&host.placed.system));
        for (name, host) in bad {
            // A way to an older release ends by itself: its host sees the newer one.
            let told = host.ordered.as_ref().filter(|ordered| Some(&ordered.release) == newest);
            let told = told.map(|ordered| ordered.what);
            let forward =
                matches!(told, Some(What::Go | What::Retry)) || (told == Some(What::Reboot) && !goes_on);
            let waits = host.standing.as_ref().is_some_and(|at| {
                let waits_to_switch = match at.state {
                    StateName::Staging | StateName::Staged => true,
                    StateName::Failed => at.failure.as_ref().is_some_and(|why| why.then == Then::TriesAgain),
                    _ => false,
                };
                let wants = at.state == StateName::Converged && at.reboot == RebootWanted::Yes;
                let waits_to_restart = wants && !goes_on;
                at.about.as_ref() == newest
                    && ((at.go.as_ref() == newest && waits_to_switch)
                        || (at.reboot_go.as_ref() == newest && waits_to_restart))
            });
            // What it said that it has is over by its own word, or it is called back.
            let known = forward && waits;
            prop_assert!(!forward || known, "{name} is told to move: {host:#?}");
            let answered = matches!(told, Some(What::Withdraw | What::Revert));
            prop_assert!(!waits || answered, "{name} keeps its order: {host:#?}");
        }
    }
    Ok(())
}

/// Nobody who is late is told to switch while somebody early is told to, does, or is there and has not: unless a person keeps
/// it, it failed, or it was silent for long.
fn edges_hold(before: &Snapshot, made: &Plan) -> Result<(), TestCaseError> {
    let turn = |order: &&Order| matches!(order.what, What::Go | What::Retry);
    let has = |host: &HostName, tag: &str| {
        let tags = before.host(host).map(|(_, found)| found.placed.tags.clone()).unwrap_or_default();
        tags.iter().any(|one| one.as_str() == tag)
    };
    for late in made.orders.iter().filter(turn).filter(|order| has(&order.host, "late")) {
        let (channel, _) = before.host(&late.host).unwrap();
        let early = channel.hosts.iter().filter(|(name, host)| has(name, "early") && host.skip.is_none());
        for (name, early) in early {
            let told = made.orders.iter().filter(turn).any(|order| order.host == *name);
            let newest = Some(&channel.current.id);
            let moves = early.standing.as_ref().is_some_and(|at| {
                at.about.as_ref() == newest
                    && match at.state {
                        StateName::Activating | StateName::Confirming | StateName::Reverting => true,
                        StateName::Staging | StateName::Staged | StateName::Soaking => {
                            let kept = early.hold.is_some() || at.hold.is_some();
                            let heard =
                                early.heard_ms.is_some_and(|heard| made.at_ms < heard.plus(Secs(86_400)));
                            !kept && heard
                        }
                        _ => false,
                    }
            });
            prop_assert!(!told && !moves, "{} before {name}", late.host);
        }
    }
    Ok(())
}

/// Whoever was held back must not be ordered, and what was not decided must not be: else the planner was too strict, or
/// the second pair of eyes is blind.
fn every_order_more_is_objected_to(
    made: &Plan,
    report: &PlanReport,
    before: &Snapshot,
) -> Result<(), TestCaseError> {
    for (host, reason) in report.held.iter() {
        for what in [What::Stage, What::Go, What::Retry, What::Reboot, What::Withdraw] {
            let release = before.host(host).unwrap().0.current.id.clone();
            let mut worse = made.clone();
            worse.orders.push(Order { host: host.clone(), release, what });
            prop_assert!(!object(&worse, before).is_empty(), "{what:?} of {host}, which stays: {reason}");
        }
    }
    if let Some(twice) = made.orders.first() {
        let mut worse = made.clone();
        worse.orders.push(twice.clone());
        prop_assert!(!object(&worse, before).is_empty(), "twice");
        let part = sound_part(worse, before, object).plan;
        prop_assert!(part.orders.iter().all(|order| order.host != twice.host), "its channel stands still");
        prop_assert_eq!(sound_part(part.clone(), before, object).plan, part, "and the rest is sound");
    }
    for (channel, decided) in &before.channels {
        let rollout = RolloutId { channel: channel.clone(), seq: decided.current.id.seq };
        let opened = decided.rollout.as_ref().filter(|open| open.release == decided.current.id);
        let opened = opened.map_or(0, |open| open.waves_opened.len());
        let more = made.decisions.iter().filter(|decision| {
            decision.rollout == rollout && matches!(decision.becomes, Transition::WaveOpened { .. })
        });
        let wave = WaveIndex(u16::try_from(opened + more.count()).unwrap());
        let mut worse = made.clone();
        worse.decisions.push(Decision { rollout, becomes: Transition::WaveOpened { wave } });
        prop_assert!(!object(&worse, before).is_empty(), "wave {wave}");
    }
    Ok(())
}

#[test]
fn a_plan_that_was_cut_off_between_a_failure_and_the_halt_halts_the_next_time() {
    let mut world = World::new();
    take(&mut world, &[(0, false), (0, false)], 1, &rules(2, 2, 0, "revert", false), false);
    let first = host(0);
    world.stands(&first, StateName::Staging, world.current(&first));
    let _ = world.plan();
    world.fails(&first, StateName::Reverted, Then::Stays);
    let (made, _) = plan(&world.snapshot, world.now);
    let counted = |decision: &&Decision| matches!(decision.becomes, Transition::FailureCounted { .. });
    let counted = made.decisions.iter().find(counted).expect("it is counted").clone();
    world.fold(&Fact::Decided(counted)).unwrap();
    let (again, _) = world.plan();
    assert!(again.decisions.iter().any(|decision| matches!(decision.becomes, Transition::Halted { .. })));
}

#[test]
fn an_order_that_the_host_says_it_has_was_delivered_although_the_clock_was_set_back_meanwhile() {
    let mut world = World::new();
    take(&mut world, &[(0, false), (0, false)], 1, &rules(2, 2, 1, "revert", false), false);
    let first = host(0);
    world.stands(&first, StateName::Staged, world.current(&first));
    let ordered_at = world.now.plus(Secs(86_400));
    world.now = ordered_at;
    world.report(&first, world.snapshot.host(&first).unwrap().1.standing.clone().unwrap());
    let (made, _) = world.plan();
    assert!(made.orders.iter().any(|order| order.host == first && order.what == What::Go));
    let mut standing = world.snapshot.host(&first).unwrap().1.standing.clone().unwrap();
    standing.go = standing.about.clone();
    world.now = ordered_at;
    // `heard_ms` never goes back, so the order is dated after it, as when the clock was ahead.
    let channel = world.snapshot.channels.get_mut(&world.snapshot.homes[&first]).unwrap();
    channel.hosts.get_mut(&first).unwrap().ordered.as_mut().unwrap().at_ms = ordered_at.plus(Secs(60));
    world.report(&first, standing);
    world.pass(Secs(3 * 86_400));
    let (made, _) = world.plan();
    assert!(!made.orders.iter().any(|order| order.what == What::Withdraw), "it has it: {made:?}");
}
