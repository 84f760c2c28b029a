//! Stories of what a host waits for before it switches, and of clocks that are wrong.

use nixfleet_core::activation::outcome::{Failure, Verdict};
use nixfleet_core::host::phase::{SourceNeed, StateName};
use nixfleet_core::host::probing::ProbeResult;
use nixfleet_core::host::waiting::WaitingOn;
use nixfleet_core::host::world::SourceKind;
use nixfleet_core::host::{Effect, Event, Refused, Terms};
use nixfleet_core::model::names::Sha256;
use nixfleet_core::model::policy::{Approval, OnFailure};
use nixfleet_core::model::schedule::Window;

use crate::support::{GOOD_FOR, Host, START_MS, ms, outage, release, setup, system, terms, world};

fn staged(terms: Terms) -> Host {
    let mut host = Host::started(SourceKind::Static);
    let seq = terms.release.seq.get();
    host.offer(terms);
    host.staged(seq);
    host
}

#[test]
fn under_a_static_source_a_wave_opens_at_its_signed_time() {
    let mut later = terms(1);
    later.wave.opens_at_ms = ms(START_MS + 3_600_000);
    let mut host = staged(later);
    assert!(matches!(host.waiting(), WaitingOn::Wave { .. }), "{:?}", host.waiting());
    assert_eq!(host.wake_at, Some(ms(START_MS + 3_600_000)));
    host.wait(3_599);
    assert_eq!(host.name(), StateName::Staged);
    host.wait(1);
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn an_order_does_not_hurry_a_host_past_the_signed_time() {
    let mut host = Host::started(SourceKind::ControlPlane);
    let mut later = terms(1);
    later.wave.opens_at_ms = ms(START_MS + 60_000);
    host.offer(later);
    host.staged(1);
    host.feed(Event::OrderedToGo { release: release(1) });
    assert!(matches!(host.waiting(), WaitingOn::Wave { .. }), "{:?}", host.waiting());
    host.wait(60);
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn an_order_for_an_older_release_that_comes_late_is_not_taken_for_the_newer_one() {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.feed(Event::OrderedToGo { release: release(2) });
    host.feed(Event::OrderedToGo { release: release(1) });
    host.offer(terms(2));
    host.staged(2);
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn an_order_for_a_release_that_nobody_signed_stands_in_the_way_of_none_that_comes() {
    let mut host = Host::started(SourceKind::ControlPlane);
    // Whoever stole the control plane ordered this, and it is its owner's again.
    host.feed(Event::OrderedToGo { release: release(50) });
    host.feed(Event::OrderedToReboot { release: release(50) });
    host.offer(terms(1));
    host.staged(1);
    assert_eq!(host.waiting(), WaitingOn::Order);
    host.feed(Event::OrderedToGo { release: release(1) });
    assert_eq!(host.name(), StateName::Activating);
    host.feed(Event::OrderedToReboot { release: release(1) });
    assert_eq!(host.state.reboot_go, Some(release(1)));
}

#[test]
fn an_order_to_go_back_is_followed_only_where_the_signed_policy_says_so() {
    for (on_failure, soaks, back) in [
        (OnFailure::Revert, false, false),
        (OnFailure::Halt, false, false),
        (OnFailure::RevertAll, false, true),
        (OnFailure::RevertAll, true, true),
        (OnFailure::Revert, true, false),
    ] {
        let mut host = Host::started(SourceKind::ControlPlane);
        host.feed(Event::OrderedToGo { release: release(1) });
        let terms = Terms { on_failure, ..terms(1) };
        if soaks {
            host.soaking(terms, "s0");
        } else {
            host.converged(terms, "s0");
        }
        let before = host.name();
        // Of another release than the one that is here: nothing.
        host.feed(Event::OrderedToRevert { release: release(7) });
        assert_eq!(host.name(), before);
        host.feed(Event::OrderedToRevert { release: release(1) });
        assert_eq!(host.name() == StateName::Reverting, back, "{on_failure:?} while {before}");
        if back {
            host.ends("s0", "s1", Verdict::Converged);
            assert_eq!(host.name(), StateName::Reverted);
        }
    }
}

#[test]
fn a_host_that_went_back_by_order_and_is_tried_again_stays_unless_it_is_ordered_anew() {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.feed(Event::OrderedToGo { release: release(1) });
    host.converged(Terms { on_failure: OnFailure::RevertAll, ..terms(1) }, "s0");
    host.feed(Event::OrderedToRevert { release: release(1) });
    host.ends("s0", "s1", Verdict::Converged);
    assert_eq!(host.name(), StateName::Reverted);
    host.feed(Event::RetryAsked { by: "ada".into() });
    host.staged(1);
    host.ends("s1", "s0", Verdict::OnTrial { confirm_within_secs: 290 });
    host.web(1, ProbeResult::Passed);
    host.source_proven();
    host.ends("s1", "s0", Verdict::Converged);
    assert_eq!(host.name(), StateName::Soaking, "the order was older than the retry");
    host.feed(Event::OrderedToRevert { release: release(1) });
    assert_eq!(host.name(), StateName::Reverting);
}

#[test]
fn a_host_that_was_told_to_go_back_from_what_it_only_has_fetched_stays_there_when_it_is_told_to_go_after_that()
 {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.offer(Terms { on_failure: OnFailure::RevertAll, ..terms(1) });
    host.staged(1);
    // Whoever ordered that believed that it runs it.
    host.feed(Event::OrderedToRevert { release: release(1) });
    assert_eq!(host.name(), StateName::Staged);
    host.feed(Event::OrderedToGo { release: release(1) });
    host.ends("s1", "s0", Verdict::OnTrial { confirm_within_secs: 290 });
    host.web(1, ProbeResult::Passed);
    host.source_proven();
    host.ends("s1", "s0", Verdict::Converged);
    assert_eq!(host.name(), StateName::Soaking, "the order to go is the newer one");
}

#[test]
fn the_system_that_all_may_be_brought_back_to_is_kept_for_as_long_as_its_release_is_done() {
    for (on_failure, kept) in [(OnFailure::RevertAll, true), (OnFailure::Revert, false)] {
        let mut host = Host::started(SourceKind::ControlPlane);
        host.feed(Event::OrderedToGo { release: release(1) });
        host.converged(Terms { on_failure, ..terms(1) }, "s0");
        let keeps = |host: &Host| host.state.wanted_systems().contains(&&system("s0"));
        assert_eq!(keeps(&host), kept, "{on_failure:?}, months later");
        host.offer(terms(2));
        assert_eq!(keeps(&host), kept, "{on_failure:?}, while the next one is fetched");
        assert!(host.state.wanted_systems().contains(&&system("s2")));
        host.staged(2);
        assert_eq!(keeps(&host), kept, "{on_failure:?}, until the next one begins");
    }
}

#[test]
fn an_order_to_go_back_that_is_withdrawn_or_has_nowhere_to_lead_moves_nothing() {
    let all = |seq| Terms { on_failure: OnFailure::RevertAll, ..terms(seq) };
    let mut host = Host::started(SourceKind::ControlPlane);
    host.feed(Event::OrderedToRevert { release: release(1) });
    host.feed(Event::OrderWithdrawn { release: release(1) });
    host.feed(Event::OrderedToGo { release: release(1) });
    host.converged(all(1), "s0");
    assert_eq!(host.name(), StateName::Converged);
}

#[test]
fn a_wave_that_a_person_must_open_stays_shut_where_nobody_can_pass_that_on() {
    let mut asked = terms(1);
    asked.wave.approval = Approval::ByAPerson;
    let host = staged(asked);
    assert!(matches!(host.waiting(), WaitingOn::Approval { .. }), "{:?}", host.waiting());
    assert_eq!(host.wake_at, None);
}

#[test]
fn a_window_is_waited_for_and_a_clock_behind_the_release_tells_no_window() {
    let nightly = Window {
        days: vec![],
        from: "02:00".parse().unwrap(),
        until: "03:00".parse().unwrap(),
        zone: "Europe/Berlin".parse().unwrap(),
    };
    let mut host = staged(Terms { windows: vec![nightly], ..terms(1) });
    // 02:00 in Berlin on 3 March is 01:00 UTC, thirteen hours after noon.
    assert_eq!(host.waiting(), WaitingOn::Window { opens_at_ms: ms(START_MS + 13 * 3_600_000) });
    host.now.at = ms(0);
    host.wait(1);
    assert_eq!(host.waiting(), WaitingOn::Clock { reach_ms: ms(START_MS) });
    host.now.at = ms(START_MS + 13 * 3_600_000 - 1_000);
    host.wait(1);
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn an_expired_release_starts_nothing_and_a_clock_in_2030_leaves_no_mark() {
    let mut host = Host::started(SourceKind::Static);
    host.offer(terms(1));
    let right = host.now.at;
    host.now.at = ms(1_893_456_000_000);
    host.staged(1);
    let since_ms = ms(START_MS).plus(GOOD_FOR);
    assert_eq!((host.name(), host.waiting()), (StateName::Staged, WaitingOn::ReleaseExpired { since_ms }));
    host.now.at = right;
    host.wait(1);
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn a_clock_that_is_set_while_a_host_soaks_neither_cuts_the_soak_short_nor_draws_it_out() {
    for clock in [0, 1_893_456_000_000] {
        let mut host = Host::started(SourceKind::Static);
        host.soaking(terms(1), "s0");
        host.now.at = ms(clock);
        host.wait(599);
        assert_eq!(host.name(), StateName::Soaking);
        host.wait(1);
        assert_eq!(host.name(), StateName::Converged);
    }
}

#[test]
fn a_trial_whose_clock_is_set_keeps_its_deadline() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.now.at = ms(1_893_456_000_000);
    host.wait(289);
    assert_eq!(host.name(), StateName::Confirming);
    host.now.at = ms(0);
    host.wait(1);
    assert_eq!(host.name(), StateName::Reverting);
}

#[test]
fn a_source_that_answered_before_the_switch_must_answer_after_it() {
    let mut host = Host::started(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.web(1, ProbeResult::Passed);
    host.feed(Event::SourceAnswered { watch: None });
    assert_eq!(host.asked, [], "an answer over a connection from before proves nothing");
    host.wait(290);
    assert_eq!(host.name(), StateName::Reverting);
    assert!(matches!(host.state.phase.failure(), Some(Failure::ConfirmTimeout { within_secs: 300 })));
}

#[test]
fn a_source_that_was_silent_before_the_switch_need_not_answer_after_it() {
    let mut host = Host::started(SourceKind::Static);
    host.offer(terms(1));
    host.feed(Event::SourceFailed { why: "no route".into() });
    host.staged(1);
    host.ends("s1", "s0", Verdict::OnTrial { confirm_within_secs: 290 });
    assert!(!host.asked.iter().any(|asked| matches!(asked, Effect::AskSource(_))), "{:?}", host.asked);
    host.web(1, ProbeResult::Passed);
    assert_eq!(host.asked, [Effect::Commit(host.id())]);
    let nixfleet_core::host::Phase::Confirming(at) = &host.state.phase else { panic!("{}", host.name()) };
    assert_eq!(at.flight.source, SourceNeed::NotNeeded);
}

#[test]
fn an_older_release_is_refused_and_so_is_another_with_the_same_number() {
    let mut host = Host::started(SourceKind::Static);
    host.offer(terms(2));
    let verified = |terms: &Terms| Event::ReleaseVerified {
        release: terms.release.clone(),
        system: terms.system.clone(),
        resets: 0,
    };
    let older = host.try_feed(&verified(&terms(1)));
    assert!(matches!(older, Err(Refused::Older { .. })), "{older:?}");
    let mut other = terms(2);
    other.release.digest = Sha256::new([7; 32]);
    let same_number = host.try_feed(&verified(&other));
    assert!(matches!(same_number, Err(Refused::SameNumberOtherContents { .. })), "{same_number:?}");
    let mut foreign = terms(3);
    foreign.release.channel = "edge".parse().unwrap();
    let other_channel = host.try_feed(&verified(&foreign));
    assert!(matches!(other_channel, Err(Refused::OtherChannel { .. })), "{other_channel:?}");
}

#[test]
fn an_agent_that_is_told_to_follow_another_channel_forgets_what_the_old_one_said() {
    let mut host = Host::started(SourceKind::Static);
    host.converged(terms(7), "s0");
    let mut moved = setup(SourceKind::Static);
    moved.channel = "edge".parse().unwrap();
    host.feed(Event::AgentStarted { setup: moved, world: world("boot-1", "s7"), journal: None, root: None });
    let mut first = terms(1);
    first.release.channel = "edge".parse().unwrap();
    host.offer(first);
    assert_eq!(host.name(), StateName::Staging, "numbers of two channels are not compared");
}

#[test]
fn a_channel_that_its_owner_has_set_back_begins_anew_with_a_lower_number() {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.feed(Event::OrderedToGo { release: release(9) });
    host.converged(terms(9), "s0");
    host.offer(terms(2).after_resets(1));
    assert_eq!(host.name(), StateName::Staging, "2 comes after 9, since the owner has said so");
    host.staged(2);
    assert_eq!(host.name(), StateName::Staged, "the order for 9 is not one for 2");
    host.feed(Event::OrderedToGo { release: release(2) });
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn a_reset_does_not_make_the_same_release_new() {
    let mut host = Host::started(SourceKind::Static);
    host.converged(terms(9), "s0");
    host.offer(terms(9).after_resets(1));
    assert_eq!(host.name(), StateName::Converged);
}

#[test]
fn a_number_from_before_a_reset_is_older_than_any_after_it() {
    let mut host = Host::started(SourceKind::Static);
    host.offer(terms(2).after_resets(1));
    let before = Event::ReleaseVerified { release: release(9), system: terms(9).system.clone(), resets: 0 };
    let older = host.try_feed(&before);
    assert!(matches!(older, Err(Refused::Older { .. })), "{older:?}");
}

#[test]
fn a_hold_that_is_over_lets_go_by_itself() {
    let mut host = Host::started(SourceKind::Static);
    let until_ms = Some(ms(START_MS + 600_000));
    host.feed(Event::Held { by: "ada".into(), why: "a sale".into(), until_ms });
    host.offer(terms(1));
    host.staged(1);
    assert_eq!(host.wake_at, until_ms);
    host.sleep();
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn a_newer_release_takes_the_place_of_one_that_is_being_fetched_or_waits() {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.offer(terms(1));
    host.offer(terms(2));
    assert_eq!(host.state.phase.target().map(|terms| &terms.release), Some(&release(2)));
    host.staged(1);
    assert_eq!(host.name(), StateName::Staging, "what was fetched is not what is wanted any more");
    host.staged(2);
    assert_eq!(host.name(), StateName::Staged);
    host.offer(terms(3));
    assert_eq!(host.name(), StateName::Staging);
}

#[test]
fn a_release_that_leaves_the_system_as_it_is_switches_nothing_and_is_proven_all_the_same() {
    let mut host = Host::started(SourceKind::Static);
    host.converged(terms(1), "s0");
    host.offer(Terms { system: terms(1).system, ..terms(2) });
    host.staged(2);
    assert_eq!(host.name(), StateName::Soaking);
    assert!(!host.asked.iter().any(|asked| matches!(asked, Effect::Activate(_))), "{:?}", host.asked);
    host.wait(600);
    assert_eq!(host.name(), StateName::Soaking, "no probe has passed since");
    host.web(1, ProbeResult::Passed);
    assert_eq!(host.name(), StateName::Converged);
}

#[test]
fn pauses_grow_with_every_failure_and_a_permanent_one_is_not_tried_again() {
    let mut host = Host::started(SourceKind::Static);
    host.offer(terms(1));
    let mut pauses = vec![];
    for _ in 0..4 {
        host.feed(Event::StageFailed { release: release(1), failure: outage() });
        let before = host.now.up;
        host.sleep();
        pauses.push(host.now.up.0 - before.0);
    }
    assert!(pauses.is_sorted_by(|a, b| a < b) && pauses[0] >= 22_500, "{pauses:?}");
    let failure = Failure::NotASystem { path: terms(1).system, lacks: "init".into() };
    host.feed(Event::StageFailed { release: release(1), failure });
    assert_eq!((host.waiting(), host.wake_at), (WaitingOn::NewerReleaseOrRetry, None));
    host.feed(Event::RetryAsked { by: "ada".into() });
    assert_eq!(host.waiting(), WaitingOn::Fetch { attempt: 1 });
}

#[test]
fn an_order_that_is_taken_back_moves_nobody_until_it_comes_again() {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.feed(Event::OrderedToGo { release: release(1) });
    host.offer(terms(1));
    host.feed(Event::OrderWithdrawn { release: release(1) });
    host.staged(1);
    assert_eq!((host.name(), host.waiting()), (StateName::Staged, WaitingOn::Order));
    host.start("boot-1", "s0");
    assert_eq!((host.name(), host.waiting()), (StateName::Staged, WaitingOn::Order));
    host.feed(Event::OrderedToGo { release: release(1) });
    assert_eq!(host.name(), StateName::Activating);
    host.feed(Event::OrderWithdrawn { release: release(1) });
    assert_eq!(host.name(), StateName::Activating, "what has begun goes on");
}

#[test]
fn taking_back_the_order_of_an_older_release_leaves_the_newer_one_ordered() {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.feed(Event::OrderedToGo { release: release(2) });
    host.feed(Event::OrderWithdrawn { release: release(1) });
    host.offer(terms(2));
    host.staged(2);
    assert_eq!(host.name(), StateName::Activating);
}
