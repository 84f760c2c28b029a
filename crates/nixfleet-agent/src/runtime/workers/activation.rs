//! Turns an intent of the reducer into an activation, and its outcome into an event.

use std::fmt::Write;

use nixfleet_core::activation::events::{ActivationIntent, Event};
use nixfleet_core::activation::outcome::{Failure, Verdict};
use nixfleet_sys::clock;

use crate::activation::types::{ActivationOutcome, ActivationTarget};
use crate::activation::{DEFAULT_BACKEND, activate_with};

/// The event for the beginning; it goes out before [`handle_intent`] is called.
pub fn started(intent: &ActivationIntent) -> Event {
    Event::LocalActivationStarted {
        id: intent.id.clone(),
        target: intent.target.clone(),
        at_ms: clock::unix_ms(),
    }
}

/// Carries the intent out on this host and returns the one event that tells how it ended.
pub async fn handle_intent(intent: ActivationIntent) -> Event {
    let target = ActivationTarget::from_intent(&intent);
    let ended = activate_with(&DEFAULT_BACKEND, &target).await;
    event_of(ended, clock::unix_ms())
}

/// The event for an outcome: total over the verdicts, so that a new one must be given its event here.
pub fn event_of(ended: anyhow::Result<ActivationOutcome>, at_ms: u64) -> Event {
    let outcome = match ended {
        Ok(outcome) => outcome,
        Err(error) => {
            let mut what = String::new();
            // Writing to a string cannot fail.
            let _ = write!(what, "{error:#}");
            return Event::LocalActivationFailed {
                failure: Failure::Internal { what },
                outcome: None,
                at_ms,
            };
        }
    };
    match &outcome.verdict {
        Verdict::Converged | Verdict::LiveWithFailedUnits { .. } | Verdict::OnTrial { .. } => {
            Event::LocalActivationCompleted { outcome, at_ms }
        }
        Verdict::DeferredPendingReboot { .. } => Event::LocalActivationDeferred { outcome, at_ms },
        Verdict::SignatureMismatch { failure }
        | Verdict::Failed { failure }
        | Verdict::Reverted { failure, .. }
        | Verdict::RevertFailed { failure, .. } => {
            Event::LocalActivationFailed { failure: failure.clone(), outcome: Some(outcome), at_ms }
        }
    }
}
