//! Stories of agents that are killed, hosts that lose power, and people who change what runs.

use nixfleet_core::activation::outcome::{BusyWith, Failure, Step, Verdict};
use nixfleet_core::host::phase::{FailedAt, Phase, StateName};
use nixfleet_core::host::probing::ProbeResult;
use nixfleet_core::host::waiting::WaitingOn;
use nixfleet_core::host::world::{Said, SourceKind, World};
use nixfleet_core::host::{Effect, Event, Terms, UpMs};

use crate::support::{Host, outage, release, system, terms, world};

/// What runs on trial: the target, while the profile still has the previous system.
fn on_trial() -> World {
    World { current: Some(system("s1")), ..world("boot-1", "s0") }
}

fn busy() -> Event {
    let failure = Failure::Busy { with: BusyWith::Activation };
    Event::LocalActivationFailed { failure, outcome: None, at_ms: 0 }
}

#[test]
fn an_agent_killed_while_it_fetches_fetches_again() {
    let mut host = Host::started(SourceKind::Static);
    host.offer(terms(1));
    host.start("boot-1", "s0");
    let [Effect::Stage(order)] = host.asked.as_slice() else { panic!("{:?}", host.asked) };
    assert_eq!(order.release, release(1));
}

#[test]
fn what_probes_find_counts_from_the_first_run_of_a_new_process() {
    let mut host = Host::started(SourceKind::Static);
    host.soaking(terms(1), "s0");
    // A blip in the fiftieth run; the agent, which an update of itself ends then, counts its runs from 1 again.
    host.web(50, ProbeResult::Failed);
    host.web(51, ProbeResult::Passed);
    host.start("boot-1", "s1");
    host.web(1, ProbeResult::Failed);
    host.web(2, ProbeResult::Failed);
    assert_eq!(host.name(), StateName::Soaking);
    host.web(3, ProbeResult::Failed);
    assert_eq!(host.name(), StateName::Reverting, "three in a row count, whoever heard of them");
}

#[test]
fn a_pass_that_a_new_process_saw_clears_the_failures_that_the_one_before_saw() {
    let mut host = Host::started(SourceKind::Static);
    host.soaking(terms(1), "s0");
    host.web(50, ProbeResult::Failed);
    host.web(51, ProbeResult::Failed);
    host.start("boot-1", "s1");
    host.web(1, ProbeResult::Passed);
    host.web(2, ProbeResult::Failed);
    assert_eq!(host.name(), StateName::Soaking, "one failure since the pass");
}

#[test]
fn an_agent_killed_while_it_waits_staged_has_lost_nothing() {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.offer(terms(1));
    host.staged(1);
    host.start("boot-1", "s0");
    assert_eq!((host.name(), host.asked.len()), (StateName::Staged, 0));
}

#[test]
fn an_agent_killed_during_a_trial_goes_on_with_what_passed_and_the_same_deadline() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.web(1, ProbeResult::Passed);
    host.start_with(on_trial(), Said::Pending(Step::Confirm));
    assert!(
        matches!(host.asked.as_slice(), [Effect::StartProbes(_), Effect::AskSource(_)]),
        "{:?}",
        host.asked
    );
    host.source_proven();
    assert_eq!(host.asked, [Effect::Commit(host.id())], "what passed before has passed");
    host.start_with(on_trial(), Said::Pending(Step::Confirm));
    assert!(
        host.asked.contains(&Effect::Commit(host.id())),
        "the commit is asked for again: {:?}",
        host.asked
    );
}

#[test]
fn a_power_cut_during_a_trial_comes_back_on_the_previous_system() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.now.up = UpMs(20_000);
    host.start_with(world("boot-2", "s0"), Said::Pending(Step::Confirm));
    assert!(host.asked.contains(&Effect::TakeUp(host.id())), "{:?}", host.asked);
    let failure = Failure::Rebooted { at: Step::Confirm };
    host.ends("s1", "s0", Verdict::Reverted { failure, left: vec![] });
    assert_eq!((host.name(), host.state.quarantined()), (StateName::Reverted, Some(&system("s1"))));
}

#[test]
fn a_power_cut_while_a_host_soaks_begins_the_watch_anew() {
    let mut host = Host::started(SourceKind::Static);
    host.soaking(terms(1), "s0");
    let watch = host.watch();
    host.wait(500);
    host.now.up = UpMs(20_000);
    host.start("boot-2", "s1");
    assert_ne!(host.watch(), watch);
    host.wait(599);
    host.web(1, ProbeResult::Passed);
    assert_eq!(host.name(), StateName::Soaking, "its ten minutes are counted from the boot");
    host.wait(1);
    assert_eq!(host.name(), StateName::Converged);
}

#[test]
fn an_agent_killed_on_the_way_back_asks_for_it_again_and_takes_up_what_is_over() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.wait(300);
    let id = host.id();
    host.start_with(on_trial(), Said::Pending(Step::Confirm));
    assert!(matches!(host.asked.as_slice(), [Effect::Revert(order)] if order.id == id), "{:?}", host.asked);
    host.start_with(world("boot-1", "s0"), Said::Ended);
    assert_eq!(host.asked, [Effect::TakeUp(id)]);
}

#[test]
fn an_agent_killed_after_all_was_done_has_nothing_to_do() {
    let mut host = Host::started(SourceKind::Static);
    host.converged(terms(1), "s0");
    host.start("boot-1", "s1");
    assert_eq!((host.name(), host.asked.len()), (StateName::Converged, 0));
}

#[test]
fn the_deadman_of_a_trial_is_seen_and_the_host_is_reverted() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.feed(Event::SystemChanged { world: world("boot-1", "s0") });
    assert_eq!(host.asked, [Effect::TakeUp(host.id())]);
    let failure = Failure::ConfirmTimeout { within_secs: 300 };
    host.ends("s1", "s0", Verdict::Reverted { failure, left: vec![] });
    assert_eq!(host.name(), StateName::Reverted);
}

#[test]
fn a_trial_that_nobody_knows_of_is_still_led_out_by_its_deadline() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    // Its journal is lost with the power.
    host.now.up = UpMs(20_000);
    host.start_with(world("boot-2", "s0"), Said::Nothing);
    host.feed(busy());
    assert!(host.wake_at.is_some(), "{:?}", host.waiting());
    host.wait(300);
    assert_eq!(host.name(), StateName::Reverting);
    host.feed(busy());
    assert!(matches!(host.waiting(), WaitingOn::Retry { .. }), "{:?}", host.waiting());
    host.feed(Event::SystemChanged { world: world("boot-2", "s0") });
    assert_eq!(host.name(), StateName::Reverted, "it is back, whoever brought it");
}

#[test]
fn nothing_new_begins_while_an_activation_could_neither_be_committed_nor_reverted() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.wait(300);
    let id = host.id();
    let failure = Failure::Internal { what: "the journal is damaged".into() };
    host.feed(Event::LocalActivationFailed { failure, outcome: None, at_ms: 0 });
    host.offer(terms(2));
    assert_eq!(host.name(), StateName::Failed, "the trial is open");
    assert_eq!(host.state.activation_in_flight(), Some(&id));
    host.sleep();
    assert!(matches!(host.asked.as_slice(), [Effect::Revert(order)] if order.id == id), "{:?}", host.asked);
    host.ends("s1", "s0", Verdict::Reverted { failure: Failure::Asked, left: vec![] });
    assert_eq!(host.name(), StateName::Staging);
}

#[test]
fn a_failed_way_back_has_a_state_of_its_own_and_is_over_when_the_recorded_system_runs() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.wait(300);
    let failure = Failure::NotFired { last_lines: vec![] };
    host.ends("s1", "s0", Verdict::RevertFailed { failure: Failure::Asked, revert: failure });
    let Phase::Failed(failed) = &host.state.phase else { panic!("{}", host.name()) };
    assert!(matches!(failed.at, FailedAt::Revert { .. }), "{:?}", failed.at);
    assert_eq!(host.asked, [Effect::Look]);
    // Live, but the next boot would bring the bad one: not over yet.
    let half = World { profile: Some(system("s1")), ..world("boot-1", "s0") };
    host.feed(Event::SystemChanged { world: half });
    assert_eq!(host.name(), StateName::Failed);
    host.feed(Event::SystemChanged { world: world("boot-1", "s0") });
    assert_eq!(host.name(), StateName::Reverted);
}

#[test]
fn a_system_that_a_failed_way_back_left_running_is_activated_and_not_taken_for_what_boots() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.wait(300);
    let revert = Failure::NotFired { last_lines: vec![] };
    host.ends("s1", "s0", Verdict::RevertFailed { failure: Failure::Asked, revert });
    let left = World { booted: Some(system("s0")), ..world("boot-1", "s1") };
    host.feed(Event::SystemChanged { world: left });
    host.offer(Terms { system: system("s1"), ..terms(2) });
    host.staged(2);
    assert_eq!(host.name(), StateName::Activating, "the boot default is still the one before");
    host.ends("s1", "s1", Verdict::OnTrial { confirm_within_secs: 290 });
    host.web(1, ProbeResult::Passed);
    host.source_proven();
    host.ends("s1", "s1", Verdict::Converged);
    assert_eq!(host.name(), StateName::Soaking);
}

#[test]
fn a_pause_that_was_counted_in_one_boot_does_not_outlive_it() {
    let mut host = Host::started(SourceKind::Static);
    host.now.up = UpMs(100 * 86_400_000);
    host.offer(terms(1));
    for _ in 0..9 {
        host.feed(Event::StageFailed { release: release(1), failure: outage() });
        host.sleep();
    }
    host.feed(Event::StageFailed { release: release(1), failure: outage() });
    host.start("boot-1", "s0");
    assert_eq!(host.name(), StateName::Failed, "another process of the same boot waits on");
    host.now.up = UpMs(20_000);
    host.start("boot-2", "s0");
    host.wait(30);
    assert_eq!(host.name(), StateName::Staging, "a hundred days have not to pass again");
}

#[test]
fn a_person_who_changes_the_system_of_a_host_at_rest_is_reported_and_not_overruled() {
    let mut host = Host::started(SourceKind::Static);
    host.converged(terms(1), "s0");
    host.feed(Event::SystemChanged { world: world("boot-1", "s9") });
    let Phase::Failed(failed) = &host.state.phase else { panic!("{}", host.name()) };
    assert_eq!(failed.at, FailedAt::Found);
    assert_eq!((host.asked.len(), host.waiting()), (0, WaitingOn::NewerReleaseOrRetry));
    host.offer(terms(2));
    assert_eq!(host.name(), StateName::Staging);
}

#[test]
fn a_person_who_switches_while_a_host_soaks_ends_its_watch() {
    let mut host = Host::started(SourceKind::Static);
    host.soaking(terms(1), "s0");
    host.feed(Event::SystemChanged { world: world("boot-1", "s9") });
    assert_eq!(host.asked, [Effect::StopProbes]);
    assert_eq!((host.name(), host.state.quarantined()), (StateName::Failed, None));
}

#[test]
fn a_look_at_a_fresh_host_that_finds_another_system_is_no_failure() {
    let mut host = Host::started(SourceKind::Static);
    host.feed(Event::SystemChanged { world: world("boot-1", "s9") });
    assert_eq!(host.name(), StateName::Converged, "nothing was promised yet");
}

#[test]
fn an_event_that_is_told_twice_changes_nothing_the_second_time() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.web(1, ProbeResult::Failed);
    let (seq, told) = (host.state.seq, host.log.last().unwrap().fact.clone());
    host.feed(told);
    assert_eq!(host.state.seq, seq, "one failure is not counted twice");
}
