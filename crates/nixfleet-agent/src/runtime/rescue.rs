//! What an agent does that cannot follow: it leaves no activation half-done, and commits none that it cannot answer for.
//!
//! On trial, and after the reboot into a deferred target, it is the machine that confirms, and there is no machine without a
//! configuration and a state that can be read. What cannot be read is then part of what is tried: the previous system comes
//! back, with its own configuration and its own agent. Where waiting may help, the trial is left as it is, and the deadman is
//! the net. Everything else of an activation goes on as the journal says ([`recovery::recover`]).

use std::sync::Arc;
use std::time::Duration;

use nixfleet_core::activation::outcome::{ActivationOutcome, Failure};
use nixfleet_core::activation::record::{Activation, ConfirmBy, Reached};
use nixfleet_core::ids::{ActivationId, BootId, StorePath};
use nixfleet_sys::clock;

use super::state_file::StateFile;
use crate::activation::ActivationBackend;
use crate::activation::journal::history;
use crate::activation::pipeline::{DEADMAN_LATER, NEXT_BOOT_LATER};
use crate::activation::recovery::{self, TakenUp};
use crate::activation::types::Observer;

/// Why an agent cannot follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It may be gone at the next start.
    Passing,
    /// Only a person changes it, or another system.
    Lasting {
        /// What it is.
        why: String,
    },
}

/// How an activation was left.
#[derive(Debug)]
pub enum Left {
    /// Nothing is to be done, or only a reboot or a person goes on with it. With the outcome of what is over now.
    Settled(Option<Box<ActivationOutcome>>),
    /// Its target is tried, and somebody else ends that: the deadman, or whoever works on it now.
    Tried,
    /// Over, too, and the previous system is back: what cannot be read may be readable there.
    WentBack(Box<ActivationOutcome>),
}

/// Finishes what was cut off, or takes it back; see the head.
pub async fn tidy<B: ActivationBackend>(
    backend: &B,
    trouble: &Trouble,
    voice: &Arc<dyn Observer>,
) -> Result<Left, Failure> {
    let Some(Tried { id, whose, late }) = tried(backend).await? else {
        return Ok(Left::Settled(recovery::recover(backend, voice).await?.map(Box::new)));
    };
    match (whose, trouble, late) {
        (Whose::Persons, _, _) => Ok(Left::Settled(recovery::recover(backend, voice).await?.map(Box::new))),
        (Whose::Machines, Trouble::Lasting { why }, _) => {
            let what = format!("the agent of the target cannot follow: {why}");
            go_back(backend, (&id, Failure::Internal { what }), voice).await
        }
        // Where there is no deadman for the boot (a root in memory), nobody else would.
        (Whose::Machines | Whose::Unknown, _, Some(failure)) => go_back(backend, (&id, failure), voice).await,
        (Whose::Machines, Trouble::Passing, None) | (Whose::Unknown, _, None) => Ok(Left::Tried),
    }
}

/// Whether there is an activation that only the machine may confirm: whoever follows nothing must not take it up.
pub async fn is_the_machines<B: ActivationBackend>(backend: &B) -> bool {
    matches!(tried(backend).await, Ok(Some(Tried { whose: Whose::Machines, .. })))
}

/// An activation whose target is tried.
struct Tried {
    id: ActivationId,
    whose: Whose,
    /// How it failed, if its time is over.
    late: Option<Failure>,
}

async fn tried<B: ActivationBackend>(backend: &B) -> Result<Option<Tried>, Failure> {
    let internal = |what: String| Failure::Internal { what };
    let host = backend.host();
    let boot = backend.boot_id().await.map_err(|unknown| internal(unknown.to_string()))?;
    let known = history(&host.journal()).map_err(|error| internal(error.to_string()))?;
    let pending = known.into_iter().rfind(Activation::is_pending);
    let tried = pending.filter(|it| is_tried(it, &boot, host.current().as_ref()));
    Ok(tried.map(|it| Tried {
        id: it.id.clone(),
        whose: whose(&it, StateFile::in_folder(&host.state).read()),
        late: late(&it, &boot, clock::monotonic()),
    }))
}

/// How it failed, if its time is over `up` after the boot: the time that was written down for this boot, or what the deadman of
/// a boot waits for where no agent came so far as to write one.
fn late(it: &Activation, boot: &BootId, up: Duration) -> Option<Failure> {
    let within = Duration::from_secs(it.began.confirm_within_secs);
    let until = match &it.deadline {
        Some((of, at_ms)) if of == boot => Duration::from_millis(*at_ms) + DEADMAN_LATER,
        Some(_) | None if it.last_boot == *boot => return None,
        Some(_) | None => within + NEXT_BOOT_LATER,
    };
    (up > until).then_some(Failure::ConfirmTimeout { within_secs: within.as_secs() })
}

async fn go_back<B: ActivationBackend>(
    backend: &B,
    (id, failure): (&ActivationId, Failure),
    voice: &Arc<dyn Observer>,
) -> Result<Left, Failure> {
    match recovery::revert_one(backend, (id, failure), voice).await {
        Ok(TakenUp::Stands(outcome)) => Ok(Left::WentBack(outcome)),
        Ok(TakenUp::Unknown) => Ok(Left::Settled(None)),
        Err(Failure::Busy { .. }) => Ok(Left::Tried),
        Err(failure) => Err(failure),
    }
}

/// Whether its target runs and a confirmation is all that it lacks.
fn is_tried(it: &Activation, boot: &BootId, current: Option<&StorePath>) -> bool {
    // What a person has switched to meanwhile is theirs.
    let runs = current == Some(&it.began.target);
    match &it.reached {
        Reached::Confirming => runs,
        Reached::AwaitingReboot | Reached::Running { .. } => runs && it.last_boot != *boot && !it.confirmed,
        Reached::Began
        | Reached::Realising
        | Reached::SettingProfile
        | Reached::ArmingDeadman
        | Reached::Confirmed
        | Reached::Reverting
        | Reached::Finished => false,
    }
}

/// Who confirms an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The machine.
    Machines,
    /// A person, or the activation itself.
    Persons,
    /// The state that would say so cannot be read.
    Unknown,
}

fn whose<E>(it: &Activation, saved: Result<Option<super::state_file::Saved>, E>) -> Whose {
    match (saved, it.began.confirm_by) {
        (Ok(Some(saved)), _) if saved.host.activation_in_flight() == Some(&it.id) => Whose::Machines,
        (Ok(_), _) | (Err(_), ConfirmBy::Probes) => Whose::Persons,
        (Err(_), ConfirmBy::Person) => Whose::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::journal::tests::beginning;
    use crate::runtime::reducer::tests::disk::{system, terms};
    use crate::runtime::state_file::Saved;
    use nixfleet_core::activation::record::{Began, Entry, Line, Run, fold};
    use nixfleet_core::host::phase::{Activating, Flight, Phase, SourceNeed};

    fn activation(reached: Reached, confirm_by: ConfirmBy) -> Activation {
        let began = Began { target: system("new"), previous: system("old"), confirm_by, ..beginning() };
        let (id, boot, line) = (ActivationId::new(1, 1), BootId::new("a"), Line::Began(began));
        let started = fold(&[Entry { v: 1, seq: 1, at_ms: 0, boot, id, line }]).pop().expect("one began");
        Activation { confirmed: reached == Reached::Confirmed, reached, ..started }
    }

    fn tried(reached: Reached, boot: &str, current: &str) -> bool {
        let it = activation(reached, ConfirmBy::Person);
        is_tried(&it, &BootId::new(boot), Some(&system(current)))
    }

    #[test]
    fn what_lacks_only_a_confirmation_is_tried_and_nothing_else_is() {
        assert!(tried(Reached::Confirming, "a", "new"), "on trial");
        assert!(!tried(Reached::Confirming, "a", "third"), "somebody has switched to another system");
        assert!(tried(Reached::AwaitingReboot, "b", "new"), "the reboot brought it");
        assert!(!tried(Reached::AwaitingReboot, "a", "old"), "the reboot is still to come");
        assert!(!tried(Reached::AwaitingReboot, "b", "old"), "the reboot brought the previous one");
        let running = || Reached::Running { unit: "x.service".into(), run: Run::Switch };
        assert!(!tried(running(), "a", "new"), "the switch is to be judged first");
        assert!(tried(running(), "b", "new"), "a boot into what was not judged");
        assert!(!tried(Reached::Confirmed, "b", "new"), "it was confirmed: the way is forward");
        assert!(!tried(Reached::Realising, "a", "old") && !tried(Reached::Reverting, "a", "new"));
    }

    #[test]
    fn the_time_of_a_trial_is_what_was_written_for_this_boot_or_begins_with_it() {
        let up = |secs| Duration::from_secs(secs);
        let is_late = |it: &Activation, boot: &str, secs| late(it, &BootId::new(boot), up(secs)).is_some();
        let within = beginning().confirm_within_secs;
        let mut it = activation(Reached::AwaitingReboot, ConfirmBy::Person);
        assert!(!is_late(&it, "b", within), "the agent may be about to come up");
        assert!(is_late(&it, "b", within + 21), "the boot is that long ago");
        assert!(!is_late(&it, "a", within + 21), "it does not count before the reboot");
        it.deadline = Some((BootId::new("b"), 900_000));
        assert!(!is_late(&it, "b", 902) && is_late(&it, "b", 904), "a time of its own");
        assert!(!is_late(&it, "c", within) && is_late(&it, "c", within + 21), "is of one boot");
    }

    #[test]
    fn the_state_says_whose_it_is_and_without_one_nobody_confirms_what_a_machine_may_have_to() {
        let by = |confirm_by| activation(Reached::Confirming, confirm_by);
        let mut saved = Saved::default();
        let theirs = whose::<()>(&by(ConfirmBy::Person), Ok(Some(saved.clone())));
        assert_eq!(theirs, Whose::Persons, "a person's trial");
        assert_eq!(
            whose::<()>(&by(ConfirmBy::Person), Ok(None)),
            Whose::Persons,
            "a host that follows nothing"
        );
        let flight = Flight {
            target: Box::new(terms(1)),
            attempt: 1,
            id: ActivationId::new(1, 1),
            previous: system("old"),
            source: SourceNeed::NotNeeded,
        };
        saved.host.phase = Phase::Activating(Activating { flight, step: None });
        assert_eq!(whose::<()>(&by(ConfirmBy::Person), Ok(Some(saved))), Whose::Machines);
        assert_eq!(whose(&by(ConfirmBy::Person), Err(())), Whose::Unknown);
        assert_eq!(whose(&by(ConfirmBy::Probes), Err(())), Whose::Persons, "it confirms by itself");
    }
}
