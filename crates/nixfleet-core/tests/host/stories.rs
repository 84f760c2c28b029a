//! What happens to a host, told event by event.

use nixfleet_core::activation::outcome::{Failure, Step, Verdict};
use nixfleet_core::host::effect::Back;
use nixfleet_core::host::phase::StateName;
use nixfleet_core::host::probing::ProbeResult;
use nixfleet_core::host::waiting::WaitingOn;
use nixfleet_core::host::world::{Said, SourceKind};
use nixfleet_core::host::{Effect, Event, Terms};
use nixfleet_core::model::policy::OnFailure;
use nixfleet_core::model::probe::ProbeMode;

use crate::support::{Host, outage, release, system, terms, world};

#[test]
fn a_good_release_is_staged_tried_proven_committed_watched_and_done() {
    let mut host = Host::started(SourceKind::Static);
    assert_eq!((host.name(), host.waiting()), (StateName::Converged, WaitingOn::NewerRelease));

    host.offer(terms(1));
    assert_eq!(host.name(), StateName::Staging);
    let [Effect::Stage(order)] = host.asked.as_slice() else { panic!("{:?}", host.asked) };
    assert_eq!((&order.release, &order.system), (&release(1), &system("s1")));

    host.staged(1);
    assert_eq!(host.name(), StateName::Activating);
    let [Effect::Activate(intent)] = host.asked.as_slice() else { panic!("{:?}", host.asked) };
    assert_eq!(intent.target, system("s1"));
    assert_eq!(intent.digest.as_ref(), Some(&terms(1).closure.digest));

    host.ends("s1", "s0", Verdict::OnTrial { confirm_within_secs: 290 });
    assert_eq!(host.name(), StateName::Confirming);
    assert!(
        matches!(host.asked.as_slice(), [Effect::StartProbes(_), Effect::AskSource(_)]),
        "{:?}",
        host.asked
    );

    host.web(1, ProbeResult::Passed);
    assert_eq!(host.asked, [], "the source has not answered yet");
    host.source_proven();
    assert_eq!(host.asked, [Effect::Commit(host.id())]);
    assert_eq!(host.waiting(), WaitingOn::Commit);

    host.ends("s1", "s0", Verdict::Converged);
    assert_eq!(host.name(), StateName::Soaking);
    host.wait(599);
    assert_eq!(host.name(), StateName::Soaking);
    host.sleep();
    assert_eq!(host.name(), StateName::Converged);
    assert_eq!(host.asked, [Effect::StopProbes]);
    let done = host.state.settled.as_ref().unwrap();
    assert_eq!((&done.terms.release, done.previous.as_ref()), (&release(1), Some(&system("s0"))));
    assert_eq!(host.wake_at, None);
}

#[test]
fn a_probe_that_fails_three_times_in_a_row_on_trial_sends_the_host_back() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.web(1, ProbeResult::Failed);
    host.web(2, ProbeResult::Failed);
    assert_eq!(host.name(), StateName::Confirming, "not yet");
    host.web(3, ProbeResult::Failed);
    assert_eq!(host.name(), StateName::Reverting);
    let Some(Effect::Revert(order)) = host.asked.iter().find(|asked| matches!(asked, Effect::Revert(_)))
    else {
        panic!("{:?}", host.asked)
    };
    assert_eq!((order.back, &order.to), (Back::Uncommitted, &system("s0")));
    let failure = order.failure.clone();
    assert!(matches!(failure, Failure::ProbeFailed { rounds: 3, .. }), "{failure:?}");
    host.ends("s1", "s0", Verdict::Reverted { failure, left: vec![] });
    assert_eq!(host.name(), StateName::Reverted);
    assert_eq!(host.state.quarantined(), Some(&system("s1")));
    host.offer(terms(1));
    assert_eq!(host.name(), StateName::Reverted, "the same release is not tried again");
    host.offer(terms(2));
    assert_eq!(host.name(), StateName::Staging, "a newer one is");
}

#[test]
fn probes_that_only_observe_or_do_not_run_prove_nothing_and_the_units_are_looked_at_as_well() {
    for (mode, result, name) in [
        (ProbeMode::Observe, ProbeResult::Passed, StateName::Confirming),
        (ProbeMode::Observe, ProbeResult::Failed, StateName::Reverting),
        (ProbeMode::Disabled, ProbeResult::Failed, StateName::Reverting),
    ] {
        let mut terms = terms(1);
        terms.probes[0].mode = mode;
        let mut host = Host::started(SourceKind::Static);
        host.on_trial(terms, "s0");
        host.source_proven();
        host.web(1, ProbeResult::Passed);
        assert_ne!(host.waiting(), WaitingOn::Commit, "{mode:?}: nothing is proven yet");
        for run in 1..=3 {
            host.reported("built-in:units", run, result);
        }
        assert_eq!(host.name(), name, "{mode:?}");
        let commits = host.waiting() == WaitingOn::Commit;
        assert_eq!(commits, result == ProbeResult::Passed, "{mode:?}");
    }
}

#[test]
fn a_pass_between_failures_begins_the_count_anew() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    for (run, result) in [(1, ProbeResult::Failed), (2, ProbeResult::Failed), (3, ProbeResult::Passed)] {
        host.web(run, result);
    }
    host.web(4, ProbeResult::Failed);
    host.web(5, ProbeResult::Failed);
    assert_eq!(host.name(), StateName::Confirming);
}

#[test]
fn a_trial_that_proves_nothing_in_time_is_reverted() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.wait(300);
    assert_eq!(host.name(), StateName::Reverting);
    assert!(host.state.phase.failure().is_some());
}

#[test]
fn a_cache_that_is_away_is_asked_again_after_a_pause_and_nothing_was_changed() {
    let mut host = Host::started(SourceKind::Static);
    host.offer(terms(1));
    host.feed(Event::StageFailed { release: release(1), failure: outage() });
    assert_eq!((host.name(), host.state.phase.failure()), (StateName::Failed, Some(&outage())));
    assert_eq!(host.state.quarantined(), None);
    host.sleep();
    assert_eq!(host.name(), StateName::Staging);
    assert!(matches!(host.waiting(), WaitingOn::Fetch { attempt: 2 }), "{:?}", host.waiting());
}

#[test]
fn a_newer_release_is_taken_up_when_the_host_has_settled_and_never_in_the_midst_of_a_switch() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.offer(terms(2));
    assert_eq!(host.name(), StateName::Confirming, "the trial goes on");
    host.source_proven();
    host.web(1, ProbeResult::Passed);
    host.ends("s1", "s0", Verdict::Converged);
    assert_eq!(host.name(), StateName::Soaking, "what was switched to is watched to its end");
    host.wait(600);
    assert_eq!(host.name(), StateName::Staging);
    assert_eq!(host.state.phase.target().map(|terms| terms.release.seq.get()), Some(2));
}

#[test]
fn a_newer_release_that_is_known_is_shown_until_it_is_taken_up() {
    let mut host = Host::started(SourceKind::Static);
    assert_eq!(host.state.comes_next(), None, "no release is known");
    host.offer(terms(1));
    assert_eq!(host.state.comes_next(), None, "it is being fetched");
    host.soaking(terms(1), "s0");
    assert_eq!(host.state.comes_next(), None, "it is watched");
    host.offer(terms(2));
    assert_eq!((host.name(), host.state.comes_next()), (StateName::Soaking, Some(&release(2))));
    host.wait(600);
    assert_eq!((host.name(), host.state.comes_next()), (StateName::Staging, None));
}

#[test]
fn a_sustained_failure_while_soaking_brings_the_system_before_by_an_activation_of_its_own() {
    let mut host = Host::started(SourceKind::Static);
    host.soaking(terms(1), "s0");
    let trial = host.log.iter().find_map(|record| match &record.fact {
        Event::WentAhead { id, .. } => Some(id.clone()),
        _ => None,
    });
    for run in 2..5 {
        host.web(run, ProbeResult::Failed);
    }
    assert_eq!(host.name(), StateName::Reverting);
    assert_ne!(Some(host.id()), trial, "the trial is over");
    let back = host.asked.iter().find_map(|asked| match asked {
        Effect::Revert(order) => Some((order.back, order.to.clone())),
        _ => None,
    });
    assert_eq!(back, Some((Back::Committed, system("s0"))));
}

#[test]
fn under_the_policy_halt_a_host_that_fails_while_soaking_stays_for_a_person_to_look_at() {
    let mut host = Host::started(SourceKind::Static);
    host.soaking(Terms { on_failure: OnFailure::Halt, ..terms(1) }, "s0");
    for run in 2..5 {
        host.web(run, ProbeResult::Failed);
    }
    assert_eq!(host.name(), StateName::Failed);
    assert_eq!(host.state.quarantined(), Some(&system("s1")));
}

#[test]
fn under_a_control_plane_a_staged_host_waits_for_its_order() {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.offer(terms(1));
    host.staged(1);
    assert_eq!((host.name(), host.waiting()), (StateName::Staged, WaitingOn::Order));
    host.feed(Event::OrderedToGo { release: release(1) });
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn a_held_host_stages_and_does_not_switch_until_it_is_let_go() {
    let mut host = Host::started(SourceKind::Static);
    let by = || "ada".to_owned();
    host.feed(Event::Held { by: by(), why: "a sale".into(), until_ms: None });
    host.offer(terms(1));
    host.staged(1);
    assert_eq!(host.name(), StateName::Staged);
    assert!(matches!(host.waiting(), WaitingOn::Hold { .. }), "{:?}", host.waiting());
    host.feed(Event::Unheld { by: by() });
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn two_releases_in_a_row_converge_and_every_decision_is_reported() {
    let mut host = Host::started(SourceKind::Static);
    host.converged(terms(1), "s0");
    host.converged(terms(2), "s1");
    assert_eq!(host.reports(1), ["soak-passed"]);
    let done = host.state.settled.as_ref().unwrap();
    assert_eq!((&done.terms.release, done.previous.as_ref()), (&release(2), Some(&system("s1"))));
}

#[test]
fn a_killed_agent_takes_up_what_its_journal_has_begun_and_fires_nothing_new() {
    let mut host = Host::started(SourceKind::Static);
    host.offer(terms(1));
    host.staged(1);
    let id = host.id();
    host.start_with(world("boot-1", "s0"), Said::Pending(Step::Fire));
    assert_eq!(host.asked, [Effect::TakeUp(id.clone())]);
    // Killed between the save and the first line of the journal: the same activation begins now.
    host.start("boot-1", "s0");
    let [Effect::Activate(intent)] = host.asked.as_slice() else { panic!("{:?}", host.asked) };
    assert_eq!((&intent.id, host.name()), (&id, StateName::Activating));
}
