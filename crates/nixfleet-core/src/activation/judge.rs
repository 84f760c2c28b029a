//! The verdict on a run that ended, from the state of the world; the exit code only helps.
//!
//! Written from `facts/switch.md` 3 and 5: a 1 is not "nothing happened", a 4 counts unrelated units, 2 and 11 have
//! two meanings, a killed run is healed by running it again, and an end that nobody recorded is not a success.

use super::end::RunEnd;
use super::platform::Platform;
use super::units::TroubledUnit;

/// Where the running system's link points after the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// At the system that the run was to bring.
    Expected,
    /// Still at the one before.
    Previous,
    /// At neither, or nowhere.
    Third,
}

/// What a run left behind.
#[derive(Debug, Clone)]
pub struct Aftermath {
    /// Whose codes these are.
    pub platform: Platform,
    /// How it ended; what is hidden behind that, where [`hides_another`] and the output say so.
    pub end: RunEnd,
    /// Where the link points.
    pub link: Link,
    /// Units worse off than before, suspicions already cleared.
    pub troubled: Vec<TroubledUnit>,
    /// Whether any unit's being up differs from before.
    pub units_changed: bool,
    /// Whether the target was running before already, so that a link at the target proves nothing.
    pub was_running: bool,
    /// Whether the run had already been tried once more.
    pub repaired: bool,
}

/// What the switch program says when `activate` has failed (`facts/switch.md` 3).
const ACTIVATE_FAILED_WORDS: &str = "Failed to run activate script";

/// Whether this end may be another than it seems: a 4 for units, of whomever, takes the place of a 2 for `activate`, and then only the
/// output tells.
pub fn hides_another(platform: Platform, end: RunEnd) -> bool {
    match platform {
        Platform::NixOs => end == RunEnd::Exited { code: code::UNITS_FAILED },
        Platform::NixDarwin => false,
    }
}

/// The end behind one that hides another, by what the run said. That nothing is said of it proves nothing, and changes nothing.
pub fn end_behind(end: RunEnd, output: &[String]) -> RunEnd {
    let failed = output.iter().any(|line| line.contains(ACTIVATE_FAILED_WORDS));
    if failed { RunEnd::Exited { code: code::ACTIVATE_FAILED } } else { end }
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The target runs as it should; `unrelated` is an exit code 4 that no unit of ours explains.
    Settled {
        /// Whether the switch complained about units that had nothing to do with it.
        unrelated: bool,
    },
    /// The target runs and these units are worse off.
    Units(Vec<TroubledUnit>),
    /// Nothing changed: put the profile back.
    Refused,
    /// Nothing changed, because somebody else is switching.
    Busy,
    /// It cannot be done live: write the boot entries.
    Defer,
    /// It was cut off half-way: run it once more.
    Repair,
    /// Something changed and it is not the target as it should be: go back.
    Revert,
    /// The host is on a system that nobody asked for: go back.
    RevertUnexpected,
}

/// Exit codes of `switch-to-configuration` (`facts/switch.md` 3).
mod code {
    pub(super) const DONE: i32 = 0;
    pub(super) const ANY_ERROR: i32 = 1;
    pub(super) const ACTIVATE_FAILED: i32 = 2;
    pub(super) const UNITS_FAILED: i32 = 4;
    pub(super) const WOULD_BLOCK: i32 = 11;
    pub(super) const INIT_INTERFACE_DIFFERS: i32 = 100;
    pub(super) const OUTPUT_LOST: i32 = 101;
}

/// Judges the aftermath of a switch (`test` or `switch`; on Darwin `activate`).
pub fn judge(after: &Aftermath) -> Judgement {
    match (after.link, after.platform) {
        // It found the lock taken, and whoever holds it has flipped already: the third system is theirs.
        (Link::Third, Platform::NixOs)
            if after.end == (RunEnd::Exited { code: code::WOULD_BLOCK }) && !after.was_running =>
        {
            Judgement::Busy
        }
        (Link::Third, Platform::NixOs | Platform::NixDarwin) => Judgement::RevertUnexpected,
        (Link::Expected, Platform::NixOs) => judge_flipped(after),
        (Link::Previous, Platform::NixOs) => judge_not_flipped(after),
        (Link::Expected | Link::Previous, Platform::NixDarwin) => judge_darwin(after),
    }
}

/// No code of `activate` but 0 has a meaning: any failing step stops the rest, and what came before it is done. So
/// nothing that failed counts as "nothing happened", and a link that did not move proves nothing.
fn judge_darwin(after: &Aftermath) -> Judgement {
    match after.end {
        RunEnd::Exited { code: code::DONE } if after.link == Link::Expected => by_units(after, false),
        RunEnd::Killed { .. } | RunEnd::Unknown if !after.repaired => Judgement::Repair,
        RunEnd::Exited { .. } | RunEnd::TimedOut | RunEnd::Killed { .. } | RunEnd::Unknown => {
            Judgement::Revert
        }
    }
}

fn judge_flipped(after: &Aftermath) -> Judgement {
    let once_more = if after.repaired { Judgement::Revert } else { Judgement::Repair };
    match after.end {
        RunEnd::Exited { code: code::DONE } => by_units(after, false),
        RunEnd::Exited { code: code::UNITS_FAILED } => by_units(after, true),
        RunEnd::Exited { code: code::INIT_INTERFACE_DIFFERS } if after.was_running => Judgement::Defer,
        // Switching to what already runs: the link proves nothing, so the rules for "not flipped" say what happened.
        RunEnd::Exited { code: code::WOULD_BLOCK | code::ANY_ERROR } if after.was_running => {
            judge_not_flipped(after)
        }
        RunEnd::Exited { code: code::WOULD_BLOCK | code::OUTPUT_LOST }
        | RunEnd::Killed { .. }
        | RunEnd::Unknown => once_more,
        RunEnd::Exited { .. } | RunEnd::TimedOut => Judgement::Revert,
    }
}

fn by_units(after: &Aftermath, complained: bool) -> Judgement {
    // A unit that restarts may still come up: the probes wait for it until the deadline.
    if after.troubled.iter().any(|unit| !unit.trouble.may_pass()) {
        Judgement::Units(after.troubled.clone())
    } else {
        Judgement::Settled { unrelated: complained && after.troubled.is_empty() }
    }
}

fn judge_not_flipped(after: &Aftermath) -> Judgement {
    let untouched = !after.units_changed && after.troubled.is_empty();
    let once_more = if after.repaired { Judgement::Revert } else { Judgement::Repair };
    match after.end {
        RunEnd::Exited { code: code::WOULD_BLOCK } if untouched => Judgement::Busy,
        RunEnd::Exited { code: code::INIT_INTERFACE_DIFFERS } if untouched => Judgement::Defer,
        RunEnd::Killed { .. } | RunEnd::Unknown | RunEnd::Exited { code: code::OUTPUT_LOST } => once_more,
        // 2 with the old link: /etc and the units may already be new. 0 with the old link: units without a flip.
        RunEnd::Exited { code: code::DONE | code::ACTIVATE_FAILED | code::UNITS_FAILED } => Judgement::Revert,
        // 1, or an errno of a call that failed before anything was done.
        RunEnd::Exited { .. } if untouched => Judgement::Refused,
        RunEnd::Exited { .. } | RunEnd::TimedOut => Judgement::Revert,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::units::UnitTrouble;
    use proptest::prelude::*;

    fn after(end: RunEnd, link: Link) -> Aftermath {
        Aftermath {
            platform: Platform::NixOs,
            end,
            link,
            troubled: vec![],
            units_changed: false,
            was_running: false,
            repaired: false,
        }
    }

    fn on_darwin(end: RunEnd, link: Link) -> Aftermath {
        Aftermath { platform: Platform::NixDarwin, ..after(end, link) }
    }

    fn exit(code: i32) -> RunEnd {
        RunEnd::Exited { code }
    }

    fn troubled(trouble: UnitTrouble) -> Vec<TroubledUnit> {
        vec![TroubledUnit { unit: "a.service".into(), trouble }]
    }

    #[test]
    fn a_flip_is_only_a_success_with_an_exit_code_of_0_or_an_unrelated_4() {
        assert_eq!(judge(&after(exit(0), Link::Expected)), Judgement::Settled { unrelated: false });
        assert_eq!(judge(&after(exit(4), Link::Expected)), Judgement::Settled { unrelated: true });
        for end in [exit(1), exit(2), exit(100), RunEnd::TimedOut] {
            assert_eq!(judge(&after(end, Link::Expected)), Judgement::Revert, "{end}");
        }
    }

    #[test]
    fn behind_a_4_there_may_be_a_2_of_which_only_the_output_tells() {
        let behind = |lines: [&str; 2]| end_behind(exit(4), &lines.map(str::to_owned));
        assert_eq!(behind(["activating the configuration...", "Failed to run activate script"]), exit(2));
        assert_eq!(behind(["activating the configuration...", "Failed to start a.service"]), exit(4));
        assert!(hides_another(Platform::NixOs, exit(4)));
        assert!(
            !hides_another(Platform::NixOs, exit(0)) && !hides_another(Platform::NixOs, RunEnd::TimedOut)
        );
        assert!(!hides_another(Platform::NixDarwin, exit(4)), "its codes have no meaning");
    }

    #[test]
    fn a_zero_with_a_unit_that_stayed_away_is_not_a_success() {
        let mut seen = after(exit(0), Link::Expected);
        seen.troubled = troubled(UnitTrouble::DidNotComeBack);
        assert!(matches!(judge(&seen), Judgement::Units(_)));
    }

    #[test]
    fn eleven_means_busy_only_when_nothing_moved() {
        assert_eq!(judge(&after(exit(11), Link::Previous)), Judgement::Busy);
        let mut half = after(exit(11), Link::Previous);
        half.units_changed = true;
        assert_eq!(judge(&half), Judgement::Revert);
        assert_eq!(judge(&after(exit(11), Link::Expected)), Judgement::Repair);
    }

    #[test]
    fn a_killed_or_unrecorded_run_is_repaired_once_and_then_reverted() {
        for end in [RunEnd::Killed { signal: 9 }, RunEnd::Unknown, exit(101)] {
            for link in [Link::Expected, Link::Previous] {
                let mut seen = after(end, link);
                assert_eq!(judge(&seen), Judgement::Repair, "{end}");
                seen.repaired = true;
                assert_eq!(judge(&seen), Judgement::Revert, "{end}");
            }
        }
    }

    #[test]
    fn a_refusal_before_the_flip_changes_nothing_and_a_half_done_one_is_reverted() {
        assert_eq!(judge(&after(exit(1), Link::Previous)), Judgement::Refused);
        let mut half = after(exit(1), Link::Previous);
        half.units_changed = true;
        assert_eq!(judge(&half), Judgement::Revert);
        assert_eq!(judge(&after(exit(2), Link::Previous)), Judgement::Revert);
        assert_eq!(judge(&after(exit(0), Link::Previous)), Judgement::Revert);
    }

    #[test]
    fn a_hundred_is_a_deferral() {
        assert_eq!(judge(&after(exit(100), Link::Previous)), Judgement::Defer);
    }

    #[test]
    fn a_third_system_is_never_kept() {
        for end in [exit(0), exit(1), exit(4), RunEnd::Unknown] {
            assert_eq!(judge(&after(end, Link::Third)), Judgement::RevertUnexpected);
        }
        assert_eq!(judge(&on_darwin(exit(11), Link::Third)), Judgement::RevertUnexpected);
    }

    #[test]
    fn a_third_system_of_somebody_who_holds_the_lock_is_theirs() {
        let mut theirs = after(exit(11), Link::Third);
        theirs.units_changed = true;
        assert_eq!(judge(&theirs), Judgement::Busy);
        // Ours runs already, so we had flipped before: who made the third is not known.
        theirs.was_running = true;
        assert_eq!(judge(&theirs), Judgement::RevertUnexpected);
    }

    #[test]
    fn on_darwin_the_switch_programs_codes_are_failures_like_any_other() {
        for code in [1, 2, 4, 11, 100, 101, 255] {
            for link in [Link::Expected, Link::Previous] {
                for was_running in [false, true] {
                    let seen = Aftermath { was_running, ..on_darwin(exit(code), link) };
                    assert_eq!(judge(&seen), Judgement::Revert, "{code} {link:?} {was_running}");
                }
            }
        }
    }

    #[test]
    fn on_darwin_a_zero_without_the_flip_is_no_success() {
        assert_eq!(judge(&on_darwin(exit(0), Link::Expected)), Judgement::Settled { unrelated: false });
        assert_eq!(judge(&on_darwin(exit(0), Link::Previous)), Judgement::Revert);
        assert_eq!(judge(&on_darwin(exit(0), Link::Third)), Judgement::RevertUnexpected);
    }

    #[test]
    fn on_darwin_a_killed_run_is_repaired_once_and_a_hung_one_is_not() {
        for link in [Link::Expected, Link::Previous] {
            for end in [RunEnd::Killed { signal: 9 }, RunEnd::Unknown] {
                let mut seen = on_darwin(end, link);
                assert_eq!(judge(&seen), Judgement::Repair, "{end}");
                seen.repaired = true;
                assert_eq!(judge(&seen), Judgement::Revert, "{end}");
            }
            assert_eq!(judge(&on_darwin(RunEnd::TimedOut, link)), Judgement::Revert);
        }
    }

    fn any_end() -> impl Strategy<Value = RunEnd> {
        prop_oneof![
            (-1..260i32).prop_map(|code| RunEnd::Exited { code }),
            (0..65i32).prop_map(|signal| RunEnd::Killed { signal }),
            Just(RunEnd::TimedOut),
            Just(RunEnd::Unknown),
        ]
    }

    proptest! {
        #[test]
        fn success_needs_the_flip_a_readable_good_code_and_healthy_units(
            end in any_end(), link in 0usize..3, hurt: bool, units_changed: bool, was_running: bool, repaired: bool,
            darwin: bool
        ) {
            let platform = if darwin { Platform::NixDarwin } else { Platform::NixOs };
            let link = [Link::Expected, Link::Previous, Link::Third][link];
            let list = if hurt { troubled(UnitTrouble::Failed) } else { vec![] };
            let seen = Aftermath { platform, end, link, troubled: list, units_changed, was_running, repaired };
            let judged = judge(&seen);
            if matches!(judged, Judgement::Settled { .. }) {
                prop_assert!(link == Link::Expected && !hurt);
                prop_assert!(end == exit(0) || (end == exit(4) && !darwin));
            }
            if darwin {
                let unknown_there = matches!(judged, Judgement::Refused | Judgement::Busy | Judgement::Defer);
                prop_assert!(!unknown_there, "nobody can say that nothing changed, and nothing is put off");
            }
            let theirs = judged == Judgement::Busy && link == Link::Third && end == exit(11);
            if matches!(judged, Judgement::Refused | Judgement::Busy) && !theirs {
                prop_assert!(!units_changed && !hurt, "something changed, so it must be undone");
                prop_assert!(link == Link::Previous || was_running);
            }
            if repaired {
                prop_assert_ne!(judged, Judgement::Repair, "one repair is enough");
            }
        }
    }
}
