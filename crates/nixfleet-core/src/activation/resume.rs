//! Where an interrupted activation goes on: decided from the journal and the world, never by firing again.
//!
//! Asked at every start of the agent and by the deadman. Total over what the journal can say: there is no state
//! without a way out (invariant 6), and the switch of one activation id is never started twice.

use super::end::RunEnd;
use super::outcome::Failure;
use super::platform::Platform;
use super::record::{Activation, Began, Reached, Run};
use crate::ids::StorePath;

/// What a unit of ours is doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunSeen {
    /// It is loaded and not over.
    Alive,
    /// It is over, and this is what it recorded.
    Ended(RunEnd),
    /// systemd does not know it and there is no record: it never began, or was cut off with the whole host.
    Absent,
}

/// The world as an interrupted activation finds it.
#[derive(Debug, Clone)]
pub struct World {
    /// What a restart of this host brings.
    pub platform: Platform,
    /// Whether the newest line was written in this boot.
    pub same_boot: bool,
    /// What runs.
    pub current: Option<StorePath>,
    /// What became of the newest run.
    pub run: RunSeen,
    /// Whether the time to confirm is over; after a reboot only the deadman of that boot says so.
    pub deadline_passed: bool,
}

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Nothing ran: put back what was prepared, and say that it was cut off.
    Abandon,
    /// The newest run is going on or over: wait for it and judge it as if nothing had happened.
    Await,
    /// The switch was good: ask the probes, or the person, until the deadline.
    Confirm,
    /// Confirmed: write the boot entries (again), then disarm.
    Commit,
    /// The host is down on the previous system: put the profile and the boot entries back and say so.
    LandedOnPrevious(Failure),
    /// The reboot brought the target: ask the probes.
    LandedOnTarget,
    /// The reboot has not happened yet.
    StillDeferred,
    /// Go back.
    Revert(Failure),
    /// Somebody has switched to a third system during the trial: theirs stays, and what was prepared is put back.
    Yield(Failure),
}

/// What runs, for people.
pub fn what_runs(current: Option<&StorePath>) -> String {
    current.map_or_else(|| "no system".to_owned(), ToString::to_string)
}

/// The failure of a trial during which somebody switched to a third system: it is theirs, neither to be undone nor to be
/// confirmed as the target. Nothing while no system can be read, which some flips do for a moment.
pub fn taken_over(activation: &Activation, current: Option<&StorePath>) -> Option<Failure> {
    let Began { target, previous, .. } = &activation.began;
    let other = current.filter(|current| ![target, previous].contains(current))?;
    Some(Failure::FlippedToUnexpected { expected: target.clone(), actual: other.to_string() })
}

/// Decides where an activation that is not over goes on.
pub fn resume(activation: &Activation, world: &World) -> Resume {
    if let Some(failure) = &activation.reverting {
        return resume_revert(activation, world, failure.clone());
    }
    match (world.same_boot, world.platform) {
        (true, Platform::NixOs | Platform::NixDarwin) => resume_same_boot(activation, world),
        (false, Platform::NixOs) => resume_after_reboot(activation, world),
        (false, Platform::NixDarwin) => resume_after_darwins_reboot(activation, world),
    }
}

fn resume_revert(activation: &Activation, world: &World, failure: Failure) -> Resume {
    let on_previous = world.current.as_ref() == Some(&activation.began.previous);
    match world.platform {
        Platform::NixOs if on_previous && !world.same_boot => Resume::LandedOnPrevious(failure),
        // On Darwin the link may be back and what `activate` does beside it is not.
        Platform::NixOs | Platform::NixDarwin => Resume::Revert(failure),
    }
}

fn resume_same_boot(activation: &Activation, world: &World) -> Resume {
    let too_late = Failure::ConfirmTimeout { within_secs: activation.began.confirm_within_secs };
    if activation.reached == Reached::Confirming
        && let Some(failure) = taken_over(activation, world.current.as_ref())
    {
        return Resume::Yield(failure);
    }
    match &activation.reached {
        Reached::Began
        | Reached::Realising
        | Reached::SettingProfile
        | Reached::ArmingDeadman
        | Reached::Finished => Resume::Abandon,
        Reached::Running { run: Run::Switch, .. } => match world.run {
            RunSeen::Absent if world.current.as_ref() == Some(&activation.began.previous) => Resume::Abandon,
            RunSeen::Alive if world.deadline_passed => Resume::Revert(too_late),
            RunSeen::Alive | RunSeen::Ended(_) | RunSeen::Absent => Resume::Await,
        },
        Reached::Running { run: Run::Repair, .. } | Reached::Confirming if world.deadline_passed => {
            Resume::Revert(too_late)
        }
        Reached::Running { run: Run::Repair | Run::Commit | Run::Defer, .. } => Resume::Await,
        Reached::Running { run: Run::Revert | Run::RevertBoot, .. } | Reached::Reverting => {
            Resume::Revert(Failure::Interrupted { at: activation.reached.step() })
        }
        Reached::Confirming => Resume::Confirm,
        Reached::Confirmed => Resume::Commit,
        Reached::AwaitingReboot => Resume::StillDeferred,
    }
}

fn resume_after_reboot(activation: &Activation, world: &World) -> Resume {
    let on = |system: &StorePath| world.current.as_ref() == Some(system);
    let rebooted = Failure::Rebooted { at: activation.reached.step() };
    let elsewhere = || Failure::BootedElsewhere {
        expected: activation.began.target.clone(),
        actual: what_runs(world.current.as_ref()),
    };
    let (on_target, on_previous) = (on(&activation.began.target), on(&activation.began.previous));
    match &activation.reached {
        Reached::Began
        | Reached::Realising
        | Reached::SettingProfile
        | Reached::ArmingDeadman
        | Reached::Finished => Resume::Abandon,
        // Target and previous may be the same system: then the reboot brought both, and there is nothing to go back to.
        Reached::Confirmed | Reached::Running { run: Run::Commit, .. } if on_target => Resume::Commit,
        Reached::AwaitingReboot | Reached::Running { .. } | Reached::Confirming
            if on_target && world.deadline_passed =>
        {
            Resume::Revert(Failure::ConfirmTimeout { within_secs: activation.began.confirm_within_secs })
        }
        Reached::AwaitingReboot | Reached::Running { .. } | Reached::Confirming if on_target => {
            Resume::LandedOnTarget
        }
        Reached::AwaitingReboot if on_previous => Resume::LandedOnPrevious(elsewhere()),
        Reached::Running { .. } | Reached::Confirming | Reached::Confirmed | Reached::Reverting
            if on_previous =>
        {
            Resume::LandedOnPrevious(rebooted)
        }
        Reached::AwaitingReboot
        | Reached::Running { .. }
        | Reached::Confirming
        | Reached::Confirmed
        | Reached::Reverting => Resume::Revert(elsewhere()),
    }
}

/// A boot of nix-darwin makes the links of the system that the profile names, and runs nothing else of its activation:
/// services, users and settings are still those of whatever was activated last, wholly or in part. So the previous
/// system is never "just there", and the target only if its switch had ended well before.
fn resume_after_darwins_reboot(activation: &Activation, world: &World) -> Resume {
    let on = |system: &StorePath| world.current.as_ref() == Some(system);
    let (on_target, on_previous) = (on(&activation.began.target), on(&activation.began.previous));
    let ended_well = matches!(world.run, RunSeen::Ended(RunEnd::Exited { code: 0 }));
    let cut_off = if on_target || on_previous {
        Failure::Rebooted { at: activation.reached.step() }
    } else {
        Failure::BootedElsewhere {
            expected: activation.began.target.clone(),
            actual: what_runs(world.current.as_ref()),
        }
    };
    match &activation.reached {
        // The profile named the target already, and the boot made its links without any switch.
        Reached::SettingProfile | Reached::ArmingDeadman if on_target && !on_previous => {
            Resume::Revert(cut_off)
        }
        Reached::Began
        | Reached::Realising
        | Reached::SettingProfile
        | Reached::ArmingDeadman
        | Reached::Finished => Resume::Abandon,
        Reached::Running { run: Run::Switch | Run::Repair, .. } if on_target && ended_well => {
            Resume::LandedOnTarget
        }
        Reached::Confirming if on_target => Resume::LandedOnTarget,
        Reached::Confirmed | Reached::Running { run: Run::Commit, .. } if on_target => Resume::Commit,
        Reached::Running { .. }
        | Reached::Confirming
        | Reached::Confirmed
        | Reached::AwaitingReboot
        | Reached::Reverting => Resume::Revert(cut_off),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::record::{Fired, Purpose};
    use crate::activation::samples::{began, system};
    use crate::ids::{ActivationId, BootId};
    use proptest::prelude::*;

    fn running(run: Run) -> Reached {
        Reached::Running { unit: "nixfleet-switch-x.service".into(), run }
    }

    fn activation(reached: Reached) -> Activation {
        let runs = match &reached {
            Reached::Running { unit, run } => vec![Fired { unit: unit.clone(), run: *run, end: None }],
            _ => vec![],
        };
        Activation {
            id: ActivationId::new(1, 1),
            began_at_ms: 0,
            last_boot: BootId::new("a"),
            last_at_ms: 0,
            began: began("old", "new", Purpose::Activate),
            confirmed: reached == Reached::Confirmed,
            reverting: (reached == Reached::Reverting).then_some(Failure::Asked),
            reached,
            inhibitors: vec![],
            deadline: None,
            runs,
            units_before: None,
            reachable: vec![],
            outcome: None,
        }
    }

    fn world(same_boot: bool, current: &str, run: RunSeen, deadline_passed: bool) -> World {
        World { platform: Platform::NixOs, same_boot, current: Some(system(current)), run, deadline_passed }
    }

    #[test]
    fn before_the_fire_everything_is_put_back() {
        for reached in [Reached::Began, Reached::Realising, Reached::SettingProfile, Reached::ArmingDeadman] {
            for same_boot in [true, false] {
                let seen = world(same_boot, "old", RunSeen::Absent, false);
                assert_eq!(resume(&activation(reached.clone()), &seen), Resume::Abandon, "{reached:?}");
            }
        }
    }

    #[test]
    fn a_switch_that_goes_on_or_ended_is_judged_and_not_fired_again() {
        for run in [RunSeen::Alive, RunSeen::Ended(RunEnd::Exited { code: 0 })] {
            let got = resume(&activation(running(Run::Switch)), &world(true, "old", run, false));
            assert_eq!(got, Resume::Await);
        }
    }

    #[test]
    fn a_switch_that_never_began_is_abandoned() {
        let got = resume(&activation(running(Run::Switch)), &world(true, "old", RunSeen::Absent, false));
        assert_eq!(got, Resume::Abandon);
    }

    #[test]
    fn a_trial_that_nobody_confirmed_is_reverted_by_whoever_looks_after_the_deadline() {
        let late = world(true, "new", RunSeen::Ended(RunEnd::Exited { code: 0 }), true);
        let got = resume(&activation(Reached::Confirming), &late);
        assert_eq!(got, Resume::Revert(Failure::ConfirmTimeout { within_secs: 60 }));
    }

    #[test]
    fn a_trial_during_which_somebody_switched_is_neither_undone_nor_confirmed() {
        let actual = system("third").to_string();
        let theirs = Resume::Yield(Failure::FlippedToUnexpected { expected: system("new"), actual });
        for late in [false, true] {
            let seen = world(true, "third", RunSeen::Ended(RunEnd::Exited { code: 0 }), late);
            assert_eq!(resume(&activation(Reached::Confirming), &seen), theirs);
            // Whoever is on the way back, or confirmed, goes on; and a flip of ours that is under way is judged.
            for reached in [Reached::Confirmed, Reached::Reverting, running(Run::Switch)] {
                assert!(!matches!(resume(&activation(reached), &seen), Resume::Yield(_)));
            }
            let between = World { current: None, ..seen };
            assert!(!matches!(resume(&activation(Reached::Confirming), &between), Resume::Yield(_)));
        }
    }

    #[test]
    fn after_the_confirmation_the_way_is_forward_even_past_the_deadline() {
        let late = world(true, "new", RunSeen::Absent, true);
        assert_eq!(resume(&activation(Reached::Confirmed), &late), Resume::Commit);
    }

    #[test]
    fn a_power_cut_on_trial_lands_on_the_previous_system() {
        for reached in [running(Run::Switch), Reached::Confirming] {
            let step = reached.step();
            let got = resume(&activation(reached), &world(false, "old", RunSeen::Absent, false));
            assert_eq!(got, Resume::LandedOnPrevious(Failure::Rebooted { at: step }));
        }
    }

    #[test]
    fn a_deferred_activation_is_finished_by_the_reboot_and_not_before() {
        let deferred = activation(Reached::AwaitingReboot);
        assert_eq!(resume(&deferred, &world(true, "old", RunSeen::Absent, true)), Resume::StillDeferred);
        assert_eq!(resume(&deferred, &world(false, "new", RunSeen::Absent, false)), Resume::LandedOnTarget);
        let other = resume(&deferred, &world(false, "old", RunSeen::Absent, true));
        assert!(matches!(other, Resume::LandedOnPrevious(Failure::BootedElsewhere { .. })), "{other:?}");
        let third = resume(&deferred, &world(false, "third", RunSeen::Absent, true));
        assert!(matches!(third, Resume::Revert(Failure::BootedElsewhere { .. })), "{third:?}");
    }

    #[test]
    fn a_reboot_into_a_target_that_nobody_confirms_is_reverted_by_the_deadman_of_that_boot() {
        let too_late = Resume::Revert(Failure::ConfirmTimeout { within_secs: 60 });
        let booted = world(false, "new", RunSeen::Absent, true);
        assert_eq!(resume(&activation(Reached::AwaitingReboot), &booted), too_late);
        // The target's agent came up, began to ask its probes, and died of it.
        let tried = world(true, "new", RunSeen::Absent, true);
        assert_eq!(resume(&activation(Reached::Confirming), &tried), too_late);
    }

    #[test]
    fn a_revert_that_was_cut_off_is_taken_up_again() {
        let got = resume(&activation(Reached::Reverting), &world(true, "new", RunSeen::Absent, false));
        assert_eq!(got, Resume::Revert(Failure::Asked));
        let got = resume(&activation(Reached::Reverting), &world(false, "old", RunSeen::Absent, false));
        assert_eq!(got, Resume::LandedOnPrevious(Failure::Asked));
    }

    fn darwin_rebooted(current: &str, run: RunSeen) -> World {
        World { platform: Platform::NixDarwin, ..world(false, current, run, true) }
    }

    #[test]
    fn a_reboot_of_darwin_on_trial_goes_all_the_way_back_although_the_link_is_back_already() {
        for reached in [running(Run::Switch), running(Run::Repair), Reached::Confirming, Reached::Confirmed] {
            let step = reached.step();
            let got = resume(&activation(reached), &darwin_rebooted("old", RunSeen::Absent));
            assert_eq!(got, Resume::Revert(Failure::Rebooted { at: step }));
        }
        let got = resume(&activation(Reached::Reverting), &darwin_rebooted("old", RunSeen::Absent));
        assert_eq!(got, Resume::Revert(Failure::Asked));
    }

    #[test]
    fn a_target_that_a_reboot_of_darwin_brought_counts_only_if_its_switch_had_ended_well() {
        let ended = |code| RunSeen::Ended(RunEnd::Exited { code });
        let at = running(Run::Switch).step();
        for (run, want) in [
            (ended(0), Resume::LandedOnTarget),
            (ended(1), Resume::Revert(Failure::Rebooted { at })),
            (RunSeen::Absent, Resume::Revert(Failure::Rebooted { at })),
            (RunSeen::Ended(RunEnd::Unknown), Resume::Revert(Failure::Rebooted { at })),
        ] {
            assert_eq!(
                resume(&activation(running(Run::Switch)), &darwin_rebooted("new", run)),
                want,
                "{run:?}"
            );
        }
        let confirming = resume(&activation(Reached::Confirming), &darwin_rebooted("new", RunSeen::Absent));
        assert_eq!(confirming, Resume::LandedOnTarget);
        let confirmed = resume(&activation(Reached::Confirmed), &darwin_rebooted("new", RunSeen::Absent));
        assert_eq!(confirmed, Resume::Commit);
    }

    #[test]
    fn links_of_a_target_that_was_never_switched_to_are_taken_back() {
        for reached in [Reached::SettingProfile, Reached::ArmingDeadman] {
            let at = reached.step();
            let got = resume(&activation(reached.clone()), &darwin_rebooted("new", RunSeen::Absent));
            assert_eq!(got, Resume::Revert(Failure::Rebooted { at }));
            let got = resume(&activation(reached), &darwin_rebooted("old", RunSeen::Absent));
            assert_eq!(got, Resume::Abandon);
        }
    }

    #[test]
    fn another_system_than_both_is_said_and_left() {
        let got = resume(&activation(Reached::Confirming), &darwin_rebooted("third", RunSeen::Absent));
        assert!(matches!(got, Resume::Revert(Failure::BootedElsewhere { .. })), "{got:?}");
    }

    proptest! {
        #[test]
        fn after_a_reboot_of_darwin_nothing_half_done_is_kept(at in 0usize..11, on in 0usize..3, run in 0usize..4) {
            let reached = [
                Reached::Began, Reached::Realising, Reached::SettingProfile, Reached::ArmingDeadman,
                running(Run::Switch), running(Run::Repair), Reached::Confirming, Reached::Confirmed,
                running(Run::Commit), Reached::Reverting, running(Run::Revert),
            ][at].clone();
            let run = [
                RunSeen::Absent, RunSeen::Ended(RunEnd::Unknown),
                RunSeen::Ended(RunEnd::Exited { code: 1 }), RunSeen::Ended(RunEnd::Exited { code: 0 }),
            ][run];
            let on = ["old", "new", "third"][on];
            let switched = at >= 4;
            let got = resume(&activation(reached), &darwin_rebooted(on, run));
            // The links alone are never taken for a system: what was switched is kept only on the target, and left whole.
            prop_assert!(!matches!(got, Resume::LandedOnPrevious(_)));
            if switched && on != "new" {
                prop_assert!(matches!(got, Resume::Revert(_)), "{:?}", got);
            }
            if matches!(got, Resume::LandedOnTarget | Resume::Commit) {
                prop_assert_eq!(on, "new");
            }
            prop_assert!(!matches!(got, Resume::Await | Resume::Confirm), "no run outlives a boot");
        }

        #[test]
        fn the_boot_side_is_never_left_to_an_unconfirmed_target(
            at in 0usize..9, same_boot: bool, on in 0usize..3, run in 0usize..3, deadline_passed: bool, darwin: bool
        ) {
            let reached = [
                Reached::Began, Reached::Realising, Reached::SettingProfile, Reached::ArmingDeadman,
                running(Run::Switch), running(Run::Repair), Reached::Confirming, Reached::Reverting,
                running(Run::Revert),
            ][at].clone();
            let run = [RunSeen::Alive, RunSeen::Absent, RunSeen::Ended(RunEnd::Unknown)][run];
            let platform = if darwin { Platform::NixDarwin } else { Platform::NixOs };
            let seen = world(same_boot, ["old", "new", "third"][on], run, deadline_passed);
            let got = resume(&activation(reached), &World { platform, ..seen });
            prop_assert_ne!(got, Resume::Commit);
        }
    }
}
