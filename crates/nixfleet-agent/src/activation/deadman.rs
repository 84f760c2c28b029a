//! The deadman: what its unit runs at the deadline, whoever holds the lock.
//!
//! It takes up the activation as any agent would, and `resume` says that the time is over. An agent that hangs with the
//! lock in its hands is ended, sooner or later by how far it had come.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::activation::record::Activation;
use nixfleet_core::ids::{ActivationId, BootId};
use nixfleet_sys::clock;
use tokio::time::{Instant, sleep};

use super::backend::ActivationBackend;
use super::journal::history;
use super::pipeline::DEADMAN_LATER;
use super::recovery::{LOCK_TRY_EVERY, boot_id, recover_by};
use super::run::journal_failure;
use super::types::{ActivationOutcome, Observer};
use super::verify_poll::POLL_BUDGET;

/// How long the deadman waits for a living agent that is past its deadline, before it ends that agent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the one of a later boot, and the probes after it, wait for the boot to be over; a job that never ends must not keep them.
pub(crate) const PATIENCE_BOOTING: Duration = Duration::from_mins(10);
/// Between two looks at whether the boot is over.
const LOOK_AT_BOOT_EVERY: Duration = Duration::from_secs(1);
/// How long it waits for one that is on the way back already, or has confirmed and writes the boot entries.
const PATIENCE_DECIDED: Duration = Duration::from_secs(POLL_BUDGET.as_secs() + 60);

/// Until when a confirmation would be in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// As the journal says.
    AsWritten,
    /// It is over: the deadman of a boot that came between says so, for which the journal can have none.
    Passed,
}

/// What the deadman's unit runs at the deadline: the same, whoever holds the lock.
///
/// A hung agent that holds the lock is ended; the kernel then drops the lock.
pub async fn deadman<B: ActivationBackend>(
    backend: &B,
    (id, deadline): (&ActivationId, Deadline),
    observer: &Arc<dyn Observer>,
) -> Result<Option<ActivationOutcome>, Failure> {
    if deadline == Deadline::Passed {
        // A boot that is still going on may be about to start the agent; a job that never ends must not keep us.
        boot_is_over(backend, PATIENCE_BOOTING).await;
    }
    let mut since = Instant::now();
    loop {
        if deadline == Deadline::Passed && await_written_time(backend, id).await? {
            since = Instant::now();
        }
        let pending = history(&backend.host().journal()).map_err(|error| journal_failure(&error))?;
        let Some(mine) =
            pending.into_iter().find(|activation| activation.id == *id && activation.is_pending())
        else {
            return Ok(None);
        };
        match recover_by(backend, (observer, deadline)).await {
            Err(Failure::Busy { .. }) => {}
            ended => return ended,
        }
        if since.elapsed() > patience(&mine, deadline) {
            end_holders(backend).await;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// How long whoever holds the lock may go on with it past the deadline, before it is ended.
fn patience(activation: &Activation, deadline: Deadline) -> Duration {
    // The way back, or the boot entries of what was confirmed in time: whoever ends that in the middle only begins it anew.
    if activation.reverting.is_some() || activation.confirmed {
        return PATIENCE_DECIDED;
    }
    match deadline {
        Deadline::AsWritten => PATIENCE,
        // Whoever holds the lock began after the boot, and has as long as it takes to confirm.
        Deadline::Passed => PATIENCE + Duration::from_secs(activation.began.confirm_within_secs),
    }
}

/// Waits for the end of the boot, for so long at most; says whether it came.
pub(crate) async fn boot_is_over<B: ActivationBackend>(backend: &B, within: Duration) -> bool {
    let give_up = Instant::now() + within;
    while backend.is_booting().await {
        if Instant::now() >= give_up {
            return false;
        }
        sleep(LOOK_AT_BOOT_EVERY).await;
    }
    true
}

/// The trial that a reboot began may have a time of its own by now, written down by the agent that took it up: until then the
/// deadman of that boot has no business. Says whether it waited.
async fn await_written_time<B: ActivationBackend>(backend: &B, id: &ActivationId) -> Result<bool, Failure> {
    let boot = boot_id(backend).await?;
    let mut waited = false;
    loop {
        let known = history(&backend.host().journal()).map_err(|error| journal_failure(&error))?;
        let mine = known.into_iter().find(|activation| activation.id == *id && activation.is_pending());
        match mine.and_then(|mine| time_left(&mine, &boot)) {
            Some(left) => sleep(left + DEADMAN_LATER).await,
            None => return Ok(waited),
        }
        waited = true;
    }
}

/// What is left of the time that was written down for this boot; nothing if there is none, or none left.
pub(super) fn time_left(activation: &Activation, boot: &BootId) -> Option<Duration> {
    let (_, at_ms) = activation.deadline.as_ref().filter(|(of, _)| of == boot)?;
    Some(Duration::from_millis(*at_ms).saturating_sub(clock::monotonic())).filter(|left| !left.is_zero())
}

/// Ends whoever holds the activation lock; only an agent of ours ever takes it.
///
/// Whoever held it at both of two looks: in between, a holder that is just leaving may have handed it on.
async fn end_holders<B: ActivationBackend>(backend: &B) {
    let seen = backend.lock_holders();
    sleep(LOCK_TRY_EVERY).await;
    for pid in backend.lock_holders().into_iter().filter(|pid| seen.contains(pid)) {
        if let Some(pid) = Some(pid).filter(|pid| *pid > 0).and_then(rustix::process::Pid::from_raw) {
            // It may be gone already, which is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_core::activation::record::{Entry, JOURNAL_VERSION, Line, Run, fold};

    use super::*;
    use crate::activation::journal::tests::beginning;

    /// A trial of 300 s, as far as `more` brings it.
    fn trial(more: &[Line]) -> Activation {
        let lines = std::iter::once(Line::Began(beginning())).chain(more.iter().cloned());
        let entry = |(seq, line)| Entry {
            v: JOURNAL_VERSION,
            seq,
            at_ms: 0,
            boot: BootId::new("a"),
            id: ActivationId::new(1, 1),
            line,
        };
        let entries: Vec<Entry> = (1..).zip(lines).map(entry).collect();
        fold(&entries).pop().expect("it began")
    }

    #[test]
    fn the_deadman_leaves_whoever_has_confirmed_as_much_time_as_whoever_goes_back() {
        let confirming = trial(&[Line::Confirming]);
        assert_eq!(patience(&confirming, Deadline::AsWritten), Duration::from_secs(10));
        assert_eq!(patience(&confirming, Deadline::Passed), Duration::from_secs(310));
        let (unit, run) = ("nixfleet-switch-x.service".to_owned(), Run::Commit);
        let firing = Line::Firing { unit, run, units_before: None, reachable: Vec::new() };
        let decided = [
            trial(&[Line::Confirming, Line::Confirmed]),
            trial(&[Line::Confirming, Line::Confirmed, firing]),
            trial(&[Line::Confirming, Line::Reverting { failure: Failure::Asked }]),
        ];
        // A run may take 300 s, and is ended after some more.
        for activation in decided {
            for deadline in [Deadline::AsWritten, Deadline::Passed] {
                assert_eq!(patience(&activation, deadline), Duration::from_mins(6), "{activation:?}");
            }
        }
    }
}
