//! Stories of a root of trust that comes while a release waits: what it took back is not begun any more.

use nixfleet_core::activation::outcome::{Failure, Verdict};
use nixfleet_core::host::event::Refusal;
use nixfleet_core::host::phase::StateName;
use nixfleet_core::host::probing::ProbeResult;
use nixfleet_core::host::trusted::RootTerms;
use nixfleet_core::host::waiting::WaitingOn;
use nixfleet_core::host::world::{Said, SourceKind};
use nixfleet_core::host::{Effect, Event};
use nixfleet_core::model::schedule::RebootMode;

use crate::support::{Host, START_MS, ms, outage, release, root, setup, terms, world};

const HOUR_MS: u64 = 3_600_000;

/// A host under root 1, whose source has answered.
fn under_root_1(source: SourceKind) -> Host {
    let mut host = Host::new(source);
    begin(&mut host, root(1));
    host.feed(Event::SourceAnswered { watch: None });
    host
}

/// A process of the agent starts, under this root.
fn begin(host: &mut Host, root: RootTerms) {
    let setup = setup(host.source);
    host.feed(Event::AgentStarted { setup, world: world("boot-1", "s0"), journal: None, root: Some(root) });
}

/// One that waits an hour for its wave.
fn staged(root: RootTerms) -> Host {
    let mut host = Host::new(SourceKind::Static);
    begin(&mut host, root);
    let mut later = terms(1);
    later.wave.opens_at_ms = ms(START_MS + HOUR_MS);
    host.offer(later);
    host.staged(1);
    assert_eq!(host.name(), StateName::Staged);
    host
}

fn offer_again(host: &mut Host, seq: u64) {
    let system = terms(seq).system;
    host.feed(Event::ReleaseVerified { release: release(seq), system, resets: 0 });
}

fn refuse(host: &mut Host) {
    host.feed(Event::ReleaseRefused { kind: Refusal::Trust, why: "signed before the line".into() });
}

#[test]
fn what_waited_for_its_turn_when_a_new_root_took_its_key_away_is_never_begun() {
    let mut host = staged(root(1));
    host.feed(Event::RootAccepted { root: root(2) });
    refuse(&mut host);
    host.wait(86_400);
    assert_eq!(host.name(), StateName::Staged);
    assert_eq!(host.waiting(), WaitingOn::VerifiedAnew { root: root(2).version });
    begin(&mut host, root(2));
    host.wait(60);
    assert_eq!(host.name(), StateName::Staged, "a new process does not forget it");
}

#[test]
fn a_release_that_passes_under_the_new_root_too_goes_on() {
    let mut host = staged(root(1));
    host.feed(Event::RootAccepted { root: root(2) });
    offer_again(&mut host, 1);
    assert!(matches!(host.waiting(), WaitingOn::Wave { .. }), "{:?}", host.waiting());
    host.sleep();
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn a_new_root_that_came_with_the_configuration_counts_as_much() {
    let mut host = staged(root(1));
    begin(&mut host, root(2));
    host.wait(86_400);
    assert_eq!(host.waiting(), WaitingOn::VerifiedAnew { root: root(2).version });
}

#[test]
fn the_same_root_at_another_start_takes_nothing_back() {
    let mut host = staged(root(1));
    begin(&mut host, root(1));
    host.sleep();
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn an_order_does_not_hurry_a_host_past_a_root_either() {
    let mut host = under_root_1(SourceKind::ControlPlane);
    host.offer(terms(1));
    host.staged(1);
    host.feed(Event::RootAccepted { root: root(2) });
    host.feed(Event::OrderedToGo { release: release(1) });
    assert_eq!(host.name(), StateName::Staged);
    offer_again(&mut host, 1);
    assert_eq!(host.name(), StateName::Activating, "the order was kept");
}

#[test]
fn what_was_taken_back_is_not_taken_up_from_a_pause_or_by_a_persons_retry() {
    let mut host = under_root_1(SourceKind::Static);
    host.offer(terms(1));
    host.feed(Event::StageFailed { release: release(1), failure: outage() });
    host.feed(Event::RootAccepted { root: root(2) });
    host.wait(86_400);
    host.feed(Event::RetryAsked { by: "anna".into() });
    host.staged(1);
    host.wait(60);
    assert_eq!(host.name(), StateName::Staged);
    assert!(!host.log.iter().any(|record| matches!(record.fact, Event::WentAhead { .. })));
}

#[test]
fn a_release_that_is_known_and_was_not_begun_is_not_begun_under_a_new_root() {
    let mut host = under_root_1(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.offer(terms(2));
    host.feed(Event::RootAccepted { root: root(2) });
    host.ends("s1", "s0", Verdict::Reverted { failure: Failure::Asked, left: vec![] });
    assert_eq!(host.name(), StateName::Reverted);
    host.wait(86_400);
    assert_eq!(host.name(), StateName::Reverted);
    offer_again(&mut host, 2);
    assert_eq!(host.name(), StateName::Staging);
}

#[test]
fn what_was_verified_under_this_root_is_not_news_when_it_is_verified_again() {
    let mut host = staged(root(1));
    // While the host waits with the first, the root vouches for both.
    host.offer(terms(2));
    host.staged(2);
    let before = host.state.clone();
    offer_again(&mut host, 2);
    assert_eq!(
        host.state, before,
        "each start of the agent verifies it again, and there is nothing to report"
    );
}

#[test]
fn a_trial_that_has_begun_goes_on_under_a_new_root() {
    let mut host = under_root_1(SourceKind::Static);
    host.on_trial(terms(1), "s0");
    host.feed(Event::RootAccepted { root: root(2) });
    host.source_proven();
    host.web(1, ProbeResult::Passed);
    assert!(host.asked.iter().any(|effect| matches!(effect, Effect::Commit(_))), "{:?}", host.asked);
}

#[test]
fn a_deferred_target_that_was_taken_back_is_not_restarted_into() {
    let inhibitors = vec![];
    let mut host = under_root_1(SourceKind::Static);
    let mut restarts = terms(1);
    restarts.reboot.mode = RebootMode::WhenNeeded;
    host.offer(restarts);
    host.staged(1);
    host.feed(Event::Held { by: "anna".into(), why: "lunch".into(), until_ms: None });
    host.ends("s1", "s0", Verdict::DeferredPendingReboot { inhibitors });
    host.feed(Event::RootAccepted { root: root(2) });
    host.feed(Event::Unheld { by: "anna".into() });
    assert_eq!(host.waiting(), WaitingOn::VerifiedAnew { root: root(2).version });
    offer_again(&mut host, 1);
    assert!(host.asked.iter().any(|effect| matches!(effect, Effect::Reboot { .. })), "{:?}", host.asked);
}

#[test]
fn a_deferred_target_that_was_taken_back_is_given_up_as_soon_as_a_newer_release_is_verified() {
    let mut host = under_root_1(SourceKind::Static);
    host.offer(terms(1));
    host.staged(1);
    host.ends("s1", "s0", Verdict::DeferredPendingReboot { inhibitors: vec![] });
    let id = host.id();
    host.feed(Event::RootAccepted { root: root(2) });
    // Its own turn comes tomorrow.
    let mut later = terms(2);
    later.wave.opens_at_ms = ms(START_MS + 24 * HOUR_MS);
    host.offer(later);
    assert_eq!(host.name(), StateName::Reverting, "the next boot must not bring the other");
    let asked = host.asked.iter().any(|effect| matches!(effect, Effect::Revert(order) if order.id == id));
    assert!(asked, "{:?}", host.asked);
}

#[test]
fn a_deferred_target_that_the_root_still_vouches_for_waits_on_when_a_newer_release_has_its_turn_later() {
    let mut host = under_root_1(SourceKind::Static);
    host.offer(terms(1));
    host.staged(1);
    host.ends("s1", "s0", Verdict::DeferredPendingReboot { inhibitors: vec![] });
    let mut later = terms(2);
    later.wave.opens_at_ms = ms(START_MS + 24 * HOUR_MS);
    host.offer(later);
    assert_eq!(host.name(), StateName::AwaitingReboot);
    assert_eq!(host.waiting(), WaitingOn::PersonToReboot);
}

#[test]
fn under_a_root_that_has_expired_nothing_that_waited_is_begun() {
    let short = RootTerms { expires_ms: ms(START_MS + HOUR_MS), ..root(1) };
    let mut host = staged(short);
    host.sleep();
    assert_eq!(host.name(), StateName::Staged);
    let expired = WaitingOn::RootExpired { root: short.version, since_ms: short.expires_ms };
    assert_eq!(host.waiting(), expired);
}

#[test]
fn a_clock_that_is_behind_does_not_make_a_release_good_again_that_expired_before_the_root_was_made() {
    let mut host = staged(root(1));
    let later = root(2);
    let after = terms(1).expires_ms;
    host.feed(Event::RootAccepted { root: RootTerms { created_ms: after, ..later } });
    offer_again(&mut host, 1);
    host.wait(3_600);
    assert!(matches!(host.waiting(), WaitingOn::ReleaseExpired { .. }), "{:?}", host.waiting());
}

#[test]
fn a_state_of_before_roots_were_told_goes_on_once_its_release_was_verified_again() {
    let mut host = Host::started(SourceKind::Static);
    let mut later = terms(1);
    later.wave.opens_at_ms = ms(START_MS + HOUR_MS);
    host.offer(later);
    host.staged(1);
    assert_eq!(host.state.root, None);
    begin(&mut host, root(1));
    host.wait(3_600);
    assert_eq!(host.waiting(), WaitingOn::VerifiedAnew { root: root(1).version });
    offer_again(&mut host, 1);
    assert_eq!(host.name(), StateName::Activating);
}

#[test]
fn an_agent_that_is_told_to_follow_another_channel_begins_nothing_of_the_old_one() {
    let mut host = staged(root(1));
    let mut moved = setup(SourceKind::Static);
    moved.channel = "edge".parse().unwrap();
    host.feed(Event::AgentStarted {
        setup: moved,
        world: world("boot-1", "s0"),
        journal: None,
        root: Some(root(1)),
    });
    host.wait(86_400);
    assert_eq!(host.name(), StateName::Staged);
}

#[test]
fn a_start_in_mid_flight_under_a_new_root_goes_on_with_what_was_begun() {
    let mut host = under_root_1(SourceKind::Static);
    host.offer(terms(1));
    host.staged(1);
    host.feed(Event::RootAccepted { root: root(2) });
    host.start_with(world("boot-1", "s0"), Said::Nothing);
    let asked = host.asked.iter().any(|effect| matches!(effect, Effect::Activate(_)));
    assert!(asked, "it was saved that it goes ahead: {:?}", host.asked);
}
