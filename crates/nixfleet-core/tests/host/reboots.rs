//! Stories of reboots: what a host waits for, drains, orders, and does when it is up again.

use nixfleet_core::activation::inhibit::Inhibitor;
use nixfleet_core::activation::outcome::{Failure, Step, Verdict};
use nixfleet_core::host::event::{HookRun, HookTime};
use nixfleet_core::host::phase::StateName;
use nixfleet_core::host::probing::ProbeResult;
use nixfleet_core::host::waiting::{RestartBy, WaitingOn};
use nixfleet_core::host::world::{Reboots, Said, Setup, SourceKind};
use nixfleet_core::host::{Effect, Event, Terms, UpMs};
use nixfleet_core::model::schedule::{Hook, RebootMode, Window};
use nixfleet_core::model::time::Secs;

use crate::support::{Host, release, setup, system, terms, world};

fn hook(name: &str) -> Hook {
    Hook { argv: vec![format!("/bin/{name}")], deadline_secs: Secs(60) }
}

/// Release `seq`, which restarts hosts and has hooks around that.
fn restarting(seq: u64) -> Terms {
    let mut terms = terms(seq);
    terms.reboot.mode = RebootMode::Always;
    (terms.reboot.before, terms.reboot.after) = (vec![hook("drain")], vec![hook("let-in")]);
    terms
}

fn kernel() -> Inhibitor {
    Inhibitor { key: "kernel".into(), old: "6.1".into(), new: "6.6".into() }
}

/// To where only a reboot brings `terms`.
fn deferred(terms: Terms) -> Host {
    let mut host = Host::started(SourceKind::Static);
    let seq = terms.release.seq.get();
    host.offer(terms);
    host.staged(seq);
    host.ends("s1", "s0", Verdict::DeferredPendingReboot { inhibitors: vec![kernel()] });
    assert_eq!(host.name(), StateName::AwaitingReboot);
    host
}

/// The run of hooks that was asked for last.
fn run_of(host: &Host, when: HookTime) -> HookRun {
    let run = host.asked.iter().find_map(|asked| match asked {
        Effect::RunHooks(run, _) if run.when == when => Some(*run),
        _ => None,
    });
    run.unwrap_or_else(|| panic!("no hooks in {:?}", host.asked))
}

fn boots(host: &mut Host, boot: &str, runs: &str, said: Said) {
    host.now.up = UpMs(30_000);
    host.start_with(world(boot, runs), said);
}

#[test]
fn a_deferred_target_does_not_count_as_done_and_is_finished_by_its_reboot() {
    let mut host = deferred(terms(1));
    assert_eq!(host.waiting(), WaitingOn::PersonToReboot, "the policy has hosts restarted by people");
    assert_eq!(host.state.settled, None);
    boots(&mut host, "boot-2", "s1", Said::Pending(Step::AwaitReboot));
    assert_eq!(host.name(), StateName::Confirming);
    assert_eq!(host.asked[0], Effect::TakeUp(host.id()));
    host.ends("s1", "s0", Verdict::OnTrial { confirm_within_secs: 290 });
    host.web(1, ProbeResult::Passed);
    host.source_proven();
    host.ends("s1", "s0", Verdict::Converged);
    host.wait(600);
    assert_eq!(host.name(), StateName::Converged);
}

#[test]
fn a_host_says_by_whom_it_must_be_restarted() {
    let night = || Window {
        days: vec![],
        from: "02:00".parse().unwrap(),
        until: "03:00".parse().unwrap(),
        zone: "UTC".parse().unwrap(),
    };
    let by = |mode: RebootMode, windows: Vec<Window>| {
        let mut terms = terms(1);
        (terms.reboot.mode, terms.reboot.windows) = (mode, windows);
        deferred(terms).state.restart_by()
    };
    assert_eq!(by(RebootMode::Never, vec![night()]), Some(RestartBy::APerson), "no window helps");
    assert_eq!(by(RebootMode::WhenNeeded, vec![night()]), Some(RestartBy::AWindow));
    assert_eq!(by(RebootMode::WhenNeeded, vec![]), Some(RestartBy::Itself));
    assert_eq!(Host::started(SourceKind::Static).state.restart_by(), None, "it waits for no restart");
}

#[test]
fn a_reboot_that_brings_the_previous_system_is_a_revert() {
    let mut host = deferred(terms(1));
    boots(&mut host, "boot-2", "s0", Said::Pending(Step::AwaitReboot));
    assert_eq!(host.name(), StateName::Reverting);
    let failure = Failure::BootedElsewhere { expected: system("s1"), actual: system("s0").to_string() };
    host.ends("s1", "s0", Verdict::Reverted { failure, left: vec![] });
    assert_eq!((host.name(), host.state.quarantined()), (StateName::Reverted, Some(&system("s1"))));
}

#[test]
fn a_host_is_drained_before_it_restarts_and_let_in_again_when_it_has_committed() {
    let mut host = deferred(restarting(1));
    let run = run_of(&host, HookTime::Before);
    assert_eq!(host.waiting(), WaitingOn::Hooks);
    host.feed(Event::HooksRan { run: HookRun { number: run.number + 1, ..run } });
    assert_eq!(host.waiting(), WaitingOn::Hooks, "another run's end is not this one's");
    host.feed(Event::HooksRan { run });
    assert_eq!(host.asked, [Effect::Reboot { warn_secs: Secs(0) }]);
    boots(&mut host, "boot-2", "s1", Said::Pending(Step::AwaitReboot));
    host.ends("s1", "s0", Verdict::OnTrial { confirm_within_secs: 290 });
    host.web(1, ProbeResult::Passed);
    host.source_proven();
    host.ends("s1", "s0", Verdict::Converged);
    let run = run_of(&host, HookTime::After);
    host.wait(600);
    assert_eq!((host.name(), host.waiting()), (StateName::Soaking, WaitingOn::Hooks), "not done before them");
    host.feed(Event::HooksRan { run });
    assert_eq!(host.name(), StateName::Converged);
}

#[test]
fn what_was_drained_is_let_in_again_when_the_reboot_is_refused_and_drained_anew_for_the_next_try() {
    let mut host = deferred(restarting(1));
    host.feed(Event::HooksRan { run: run_of(&host, HookTime::Before) });
    host.feed(Event::RebootRefused { why: "a backup runs".into() });
    run_of(&host, HookTime::After);
    assert!(
        matches!(host.waiting(), WaitingOn::RebootAgain { ref why, .. } if why == "a backup runs"),
        "{:?}",
        host.waiting()
    );
    host.sleep();
    run_of(&host, HookTime::Before);
}

#[test]
fn an_agent_killed_while_what_was_drained_is_let_in_again_lets_it_in_again() {
    let mut host = deferred(restarting(1));
    host.feed(Event::HooksRan { run: run_of(&host, HookTime::Before) });
    host.feed(Event::RebootRefused { why: "a backup runs".into() });
    let lost = run_of(&host, HookTime::After);
    host.start_with(world("boot-1", "s0"), Said::Pending(Step::AwaitReboot));
    let again = run_of(&host, HookTime::After);
    assert_ne!(again, lost, "nobody waits for the old one any more");
    host.feed(Event::HooksRan { run: lost });
    host.start_with(world("boot-1", "s0"), Said::Pending(Step::AwaitReboot));
    let again = run_of(&host, HookTime::After);
    host.feed(Event::HooksRan { run: again });
    host.start_with(world("boot-1", "s0"), Said::Pending(Step::AwaitReboot));
    assert_eq!(host.asked, [], "they ran");
}

#[test]
fn a_newer_release_waits_until_what_was_drained_is_let_in_again() {
    let mut host = deferred(restarting(1));
    host.feed(Event::HookFailed { run: run_of(&host, HookTime::Before), why: "no quorum".into() });
    let run = run_of(&host, HookTime::After);
    host.offer(terms(2));
    assert_eq!(host.name(), StateName::AwaitingReboot);
    host.feed(Event::HookFailed { run, why: "no quorum".into() });
    assert_eq!(host.name(), StateName::Reverting, "a hook that fails does not keep it for ever");
}

#[test]
fn a_host_that_its_own_configuration_keeps_from_restarting_waits_for_a_person() {
    let mut host = Host::started(SourceKind::Static);
    let setup = Setup { reboots: Reboots::Never, ..setup(SourceKind::Static) };
    host.feed(Event::AgentStarted { setup, world: world("boot-1", "s0"), journal: None, root: None });
    host.offer(restarting(1));
    host.staged(1);
    host.ends("s1", "s0", Verdict::DeferredPendingReboot { inhibitors: vec![kernel()] });
    assert_eq!((host.name(), host.waiting()), (StateName::AwaitingReboot, WaitingOn::PersonToReboot));
    // Where the release decides, it restarts.
    host.start_with(world("boot-1", "s0"), Said::Pending(Step::AwaitReboot));
    run_of(&host, HookTime::Before);
}

#[test]
fn a_hook_that_fails_keeps_the_host_from_restarting_until_the_next_try() {
    let mut host = deferred(restarting(1));
    host.feed(Event::HookFailed { run: run_of(&host, HookTime::Before), why: "drain: no quorum".into() });
    assert!(!host.asked.iter().any(|asked| matches!(asked, Effect::Reboot { .. })), "{:?}", host.asked);
    run_of(&host, HookTime::After);
    host.feed(Event::RetryAsked { by: "ada".into() });
    run_of(&host, HookTime::Before);
}

#[test]
fn a_host_that_does_not_go_down_is_overdue_and_says_so() {
    let host = deferred(Terms { reboot: terms(1).reboot, ..restarting(1) });
    assert_eq!(host.waiting(), WaitingOn::PersonToReboot);
    let mut host = {
        let mut plain = restarting(1);
        (plain.reboot.before, plain.reboot.warn_secs) = (vec![], Secs(300));
        drop(host.state);
        deferred(plain)
    };
    assert_eq!(host.asked, [Effect::Reboot { warn_secs: Secs(300) }]);
    host.wait(899);
    assert_eq!(host.waiting(), WaitingOn::Reboot, "five minutes of warning and ten of grace are not over");
    host.wait(1);
    assert!(matches!(host.waiting(), WaitingOn::RebootAgain { .. }), "{:?}", host.waiting());
    assert_eq!(host.reports(1), ["reboot-overdue"]);
}

#[test]
fn a_host_that_was_drained_and_comes_back_on_the_previous_system_is_let_in_again() {
    let mut host = deferred(restarting(1));
    host.feed(Event::HooksRan { run: run_of(&host, HookTime::Before) });
    boots(&mut host, "boot-2", "s0", Said::Pending(Step::AwaitReboot));
    host.ends("s1", "s0", Verdict::Reverted { failure: Failure::Asked, left: vec![] });
    assert_eq!(host.name(), StateName::Reverted);
    let lost = run_of(&host, HookTime::After);
    // The agent is killed while they run.
    host.start("boot-2", "s0");
    let run = run_of(&host, HookTime::After);
    assert_ne!(run, lost);
    host.feed(Event::HooksRan { run });
    host.start("boot-2", "s0");
    assert_eq!(host.asked, [], "they ran");
}

#[test]
fn hooks_that_fail_after_the_reboot_are_a_failure_and_a_retry_runs_them_again() {
    let mut host = deferred(restarting(1));
    host.feed(Event::HooksRan { run: run_of(&host, HookTime::Before) });
    boots(&mut host, "boot-2", "s1", Said::Pending(Step::AwaitReboot));
    host.ends("s1", "s0", Verdict::Converged);
    host.feed(Event::HookFailed { run: run_of(&host, HookTime::After), why: "let-in".into() });
    assert_eq!((host.name(), host.state.quarantined()), (StateName::Failed, None), "the system is good");
    host.feed(Event::RetryAsked { by: "ada".into() });
    assert_eq!(host.name(), StateName::Soaking);
    // Again, and now a person takes another system before asking for a retry.
    host.feed(Event::HookFailed { run: run_of(&host, HookTime::After), why: "let-in".into() });
    host.feed(Event::SystemChanged { world: world("boot-2", "s9") });
    host.feed(Event::RetryAsked { by: "ada".into() });
    assert_eq!(host.name(), StateName::Staging, "it is not taken for the release's system");
}

#[test]
fn a_policy_that_restarts_hosts_after_every_release_restarts_them_once() {
    let mut plain = restarting(1);
    (plain.reboot.before, plain.reboot.after) = (vec![], vec![]);
    let mut host = Host::started(SourceKind::Static);
    host.soaking(plain, "s0");
    host.wait(600);
    assert_eq!(host.name(), StateName::AwaitingReboot);
    boots(&mut host, "boot-2", "s1", Said::Nothing);
    assert_eq!(host.name(), StateName::Soaking, "what was booted is watched");
    host.web(1, ProbeResult::Passed);
    host.wait(600);
    assert_eq!((host.name(), host.waiting()), (StateName::Converged, WaitingOn::NewerRelease));
    assert_eq!(host.asked, [Effect::StopProbes], "and not again");
}

#[test]
fn under_a_control_plane_the_restart_of_a_done_host_is_a_turn_of_its_own() {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.feed(Event::OrderedToGo { release: release(1) });
    host.soaking(restarting(1), "s0");
    host.wait(600);
    assert_eq!((host.name(), host.waiting()), (StateName::Converged, WaitingOn::RebootOrder));
    host.feed(Event::OrderedToReboot { release: release(1) });
    assert_eq!(host.name(), StateName::AwaitingReboot);
    // A person changes the system while the reboot waits for its next try.
    host.feed(Event::HookFailed { run: run_of(&host, HookTime::Before), why: "no quorum".into() });
    let run = run_of(&host, HookTime::After);
    host.feed(Event::SystemChanged { world: world("boot-1", "s9") });
    host.feed(Event::HooksRan { run });
    assert_eq!(host.name(), StateName::Failed, "it is not restarted into what nobody looked at");
}

#[test]
fn a_reboot_waits_for_its_own_window() {
    let mut windowed = restarting(1);
    windowed.reboot.windows = vec![Window {
        days: vec![],
        from: "14:00".parse().unwrap(),
        until: "15:00".parse().unwrap(),
        zone: "UTC".parse().unwrap(),
    }];
    let mut host = deferred(windowed);
    assert!(matches!(host.waiting(), WaitingOn::Window { .. }), "{:?}", host.waiting());
    host.wait(7_199);
    assert_eq!(host.asked, []);
    host.wait(1);
    run_of(&host, HookTime::Before);
}

#[test]
fn a_deferred_target_gives_way_to_a_newer_release_when_that_ones_turn_has_come() {
    let mut host = deferred(terms(1));
    let mut later = terms(2);
    later.wave.opens_at_ms = later.created_ms.plus(Secs(60));
    host.offer(later);
    assert_eq!(host.name(), StateName::AwaitingReboot, "a boot entry is not given up for nothing");
    host.wait(60);
    assert_eq!(host.name(), StateName::Reverting);
    host.ends("s1", "s0", Verdict::Reverted { failure: Failure::Asked, left: vec![] });
    assert_eq!(host.name(), StateName::Staging);
    assert_eq!(host.state.phase.target().map(|terms| &terms.release), Some(&release(2)));
}

#[test]
fn a_way_back_that_only_a_reboot_brings_is_committed_when_it_comes_up() {
    let mut host = Host::started(SourceKind::Static);
    let mut restarting = terms(1);
    restarting.reboot.mode = RebootMode::WhenNeeded;
    host.soaking(restarting, "s0");
    for run in 2..5 {
        host.web(run, ProbeResult::Failed);
    }
    host.ends("s0", "s1", Verdict::DeferredPendingReboot { inhibitors: vec![kernel()] });
    assert_eq!(host.name(), StateName::Reverting);
    assert_eq!(host.asked, [Effect::Reboot { warn_secs: Secs(0) }]);
    let id = host.id();
    boots(&mut host, "boot-2", "s0", Said::Pending(Step::AwaitReboot));
    assert_eq!(host.asked, [Effect::TakeUp(id.clone())]);
    host.ends("s0", "s1", Verdict::OnTrial { confirm_within_secs: 290 });
    assert_eq!(host.asked, [Effect::Commit(id)], "it ran before: it is good");
    host.ends("s0", "s1", Verdict::Converged);
    assert_eq!(host.name(), StateName::Reverted);
}

/// Converged, and let restart; then hooks or somebody stood against it, and what was drained is let in again.
fn put_off() -> Host {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.feed(Event::OrderedToGo { release: release(1) });
    host.soaking(restarting(1), "s0");
    host.wait(600);
    host.feed(Event::OrderedToReboot { release: release(1) });
    host.feed(Event::HookFailed { run: run_of(&host, HookTime::Before), why: "no quorum".into() });
    assert_eq!(host.name(), StateName::AwaitingReboot);
    host
}

#[test]
fn a_restart_that_was_put_off_and_taken_back_is_wanted_again_and_waits_for_its_turn() {
    let mut host = put_off();
    let run = run_of(&host, HookTime::After);
    host.feed(Event::HooksRan { run });
    host.feed(Event::OrderWithdrawn { release: release(1) });
    assert_eq!((host.name(), host.waiting()), (StateName::Converged, WaitingOn::RebootOrder));
    assert!(host.state.wants_reboot(), "who gives turns sees it");
    host.feed(Event::OrderedToReboot { release: release(1) });
    assert_eq!(host.name(), StateName::AwaitingReboot);
}

#[test]
fn a_restart_that_is_taken_back_lets_in_again_what_was_drained_first() {
    let mut host = put_off();
    let run = run_of(&host, HookTime::After);
    host.feed(Event::OrderWithdrawn { release: release(1) });
    assert_eq!(host.name(), StateName::AwaitingReboot);
    host.feed(Event::HooksRan { run });
    assert_eq!((host.name(), host.waiting()), (StateName::Converged, WaitingOn::RebootOrder));
}

#[test]
fn a_restart_that_has_begun_is_not_taken_back() {
    let mut host = Host::started(SourceKind::ControlPlane);
    host.feed(Event::OrderedToGo { release: release(1) });
    host.soaking(restarting(1), "s0");
    host.wait(600);
    host.feed(Event::OrderedToReboot { release: release(1) });
    let run = run_of(&host, HookTime::Before);
    host.feed(Event::OrderWithdrawn { release: release(1) });
    host.feed(Event::HooksRan { run });
    assert_eq!(host.asked, [Effect::Reboot { warn_secs: Secs(0) }]);
}
