//! Where a person's rollback leads, as the journal knows it.
//!
//! Asked by `rollback`, and by whoever sweeps what activations kept: the system of a way back that failed must not be
//! collected before somebody has taken it.

use super::outcome::Verdict;
use super::record::{Activation, Purpose};
use crate::ids::StorePath;

/// The newest activation whose way back failed, unless one has arrived since. What has changed nothing, or went back
/// itself, has not arrived.
pub fn failed_revert(known: &[Activation]) -> Option<&Activation> {
    let ended = known.iter().rev().filter_map(|one| Some((one, &one.outcome.as_ref()?.verdict)));
    let mut lasting = ended.filter(|(_, verdict)| match verdict {
        Verdict::Converged | Verdict::LiveWithFailedUnits { .. } | Verdict::RevertFailed { .. } => true,
        Verdict::OnTrial { .. }
        | Verdict::DeferredPendingReboot { .. }
        | Verdict::SignatureMismatch { .. }
        | Verdict::Failed { .. }
        | Verdict::Reverted { .. } => false,
    });
    let (newest, verdict) = lasting.next()?;
    matches!(verdict, Verdict::RevertFailed { .. }).then_some(newest)
}

/// Where an activation would have led the host if its way back had not failed. A rollback was on the way back itself:
/// what ran before it is what a person wanted to leave.
pub fn way_back(failed: &Activation) -> &StorePath {
    match failed.began.purpose {
        Purpose::Activate => &failed.began.previous,
        Purpose::Rollback => &failed.began.target,
    }
}

/// The system that a rollback brings on a host that runs `current`: where a way back led that failed, also if that runs
/// already, as profile and boot default may name another; otherwise what ran before the newest activation that brought
/// `current`. `None` if the journal knows neither.
pub fn rollback_to<'a>(known: &'a [Activation], current: &StorePath) -> Option<&'a StorePath> {
    if let Some(failed) = failed_revert(known) {
        return Some(way_back(failed));
    }
    let brought = known.iter().rev().find(|one| {
        let live = one.outcome.as_ref().is_none_or(|outcome| {
            matches!(outcome.verdict, Verdict::Converged | Verdict::LiveWithFailedUnits { .. })
        });
        live && one.began.target == *current && one.began.previous != *current
    });
    brought.map(|one| &one.began.previous)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::outcome::{ActivationOutcome, Failure};
    use crate::activation::record::{Entry, Line, fold};
    use crate::activation::samples::{began, system};
    use crate::ids::{ActivationId, BootId};

    /// The lines of one activation from `previous` to `target` that ended so.
    fn ended(
        number: u64,
        (previous, target): (&str, &str),
        purpose: Purpose,
        verdict: Verdict,
    ) -> [Entry; 2] {
        let id = ActivationId::new(number, 1);
        let began = began(previous, target, purpose);
        let outcome = ActivationOutcome {
            id: id.clone(),
            target: system(target),
            previous: Some(system(previous)),
            generation: None,
            verdict,
            warnings: vec![],
            reboot_needed: vec![],
            steps: vec![],
        };
        let entry = |seq, line| Entry { v: 1, seq, at_ms: 0, boot: BootId::new("a"), id: id.clone(), line };
        [
            entry(2 * number, Line::Began(began)),
            entry(2 * number + 1, Line::Finished { outcome: Box::new(outcome) }),
        ]
    }

    fn activate(number: u64, way: (&str, &str), verdict: Verdict) -> [Entry; 2] {
        ended(number, way, Purpose::Activate, verdict)
    }

    fn known(entries: &[[Entry; 2]]) -> Vec<Activation> {
        fold(&entries.concat())
    }

    fn revert_failed() -> Verdict {
        Verdict::RevertFailed { failure: Failure::Asked, revert: Failure::Asked }
    }

    fn goes_to(known: &[Activation], current: &str) -> Option<StorePath> {
        rollback_to(known, &system(current)).cloned()
    }

    #[test]
    fn after_a_failed_revert_a_rollback_leads_to_the_recorded_system_whatever_runs() {
        let known = known(&[
            activate(1, ("old", "good"), Verdict::Converged),
            activate(2, ("good", "bad"), revert_failed()),
        ]);
        assert_eq!(goes_to(&known, "bad"), Some(system("good")), "the target still runs");
        assert_eq!(
            goes_to(&known, "good"),
            Some(system("good")),
            "a reboot brought it, the profile may differ"
        );
        assert_eq!(goes_to(&known, "third"), Some(system("good")));
    }

    #[test]
    fn what_changed_nothing_or_went_back_does_not_hide_a_failed_revert() {
        let failed = Verdict::Failed { failure: Failure::Asked };
        let reverted = Verdict::Reverted { failure: Failure::Asked, left: vec![] };
        let known = known(&[
            activate(1, ("old", "good"), Verdict::Converged),
            activate(2, ("good", "bad"), revert_failed()),
            activate(3, ("bad", "other"), failed),
            activate(4, ("bad", "other"), reverted),
        ]);
        assert_eq!(goes_to(&known, "bad"), Some(system("good")));
        assert_eq!(failed_revert(&known).map(|one| &one.id), Some(&ActivationId::new(2, 1)));
    }

    #[test]
    fn a_rollback_that_failed_both_ways_is_tried_again_and_not_undone() {
        let known = known(&[
            activate(1, ("good", "bad"), revert_failed()),
            ended(2, ("bad", "good"), Purpose::Rollback, revert_failed()),
        ]);
        assert_eq!(goes_to(&known, "bad"), Some(system("good")));
    }

    #[test]
    fn an_activation_that_arrives_ends_it_and_the_history_counts_again() {
        for arrived in [Verdict::Converged, Verdict::LiveWithFailedUnits { units: vec![] }] {
            let known = known(&[
                activate(1, ("old", "good"), Verdict::Converged),
                activate(2, ("good", "bad"), revert_failed()),
                activate(3, ("bad", "fixed"), arrived),
            ]);
            assert_eq!(failed_revert(&known), None);
            assert_eq!(goes_to(&known, "fixed"), Some(system("bad")));
            assert_eq!(goes_to(&known, "good"), Some(system("old")));
        }
        assert_eq!(goes_to(&[], "good"), None);
    }
}
