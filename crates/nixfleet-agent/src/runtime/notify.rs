//! What systemd is told: that the agent is ready, what the host does and waits for, and that the reducer's loop turns.
//!
//! Without systemd around us there is nobody to tell, and nothing of it fails.

use std::time::Duration;

use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::host::event::Refusal;
use nixfleet_core::host::phase::Phase;
use nixfleet_core::host::state::{Contact, Refused, Source};
use nixfleet_core::host::{HostState, Now};
use sd_notify::NotifyState;

use crate::activation::types::Weight;

/// Whether a service manager started this process, and would start it again.
pub fn is_a_unit() -> bool {
    std::env::var_os("INVOCATION_ID").is_some()
}

/// Says that the agent is up.
pub fn ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// Says that it is on its way out.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// One sentence for `systemctl status`.
pub fn status(sentence: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(sentence)]);
}

/// Says that the loop turns.
pub fn alive() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}

/// How often [`alive`] has to be said: twice in the time that the unit allows; `None` if nobody watches.
pub fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|every| !every.is_zero())
}

/// What the host does, and what it waits for.
pub fn sentence(state: &HostState, now: Now) -> String {
    let doing = state.describe(now);
    let about = doing.release.map_or_else(|| "no release yet".to_owned(), |release| release.to_string());
    let failed = doing.failure.map(|(_, failure)| format!("; {failure}")).unwrap_or_default();
    format!("{} ({about}){failed}; waiting for {}", doing.state, doing.waiting)
}

/// How much it matters that the host has come to this.
pub fn weight(phase: &Phase) -> Weight {
    match phase {
        Phase::Converged
        | Phase::Staging(_)
        | Phase::Staged(_)
        | Phase::Activating(_)
        | Phase::AwaitingReboot(_)
        | Phase::Confirming(_)
        | Phase::Soaking(_) => Weight::Note,
        // Whoever asked for it knows.
        Phase::Reverting(_) | Phase::Reverted(_) if phase.failure() == Some(&Failure::Asked) => Weight::Note,
        Phase::Failed(failed) if failed.again_up_ms.is_some() => Weight::Warning,
        Phase::Reverting(_) => Weight::Warning,
        Phase::Reverted(_) | Phase::Failed(_) => Weight::Error,
    }
}

/// What changed about the release source, a line each.
pub fn news_of_the_source(before: &Source, now: &Source) -> Vec<(Weight, String)> {
    let mut lines = Vec::new();
    if before.contact != now.contact {
        lines.push(match &now.contact {
            Contact::NotAsked => (Weight::Note, "the release source was not asked yet".to_owned()),
            Contact::Answers { .. } => (Weight::Note, "the release source answers".to_owned()),
            Contact::Silent { why, .. } => {
                (Weight::Warning, format!("the release source does not answer: {why}"))
            }
        });
    }
    if before.refused != now.refused
        && let Some(Refused { kind, why, .. }) = &now.refused
    {
        let refused = format!("what the release source serves is refused, {}: {why}", in_words(*kind));
        lines.push((Weight::Error, refused));
    }
    lines
}

/// In which way something was refused.
pub fn in_words(kind: Refusal) -> &'static str {
    match kind {
        Refusal::Trust => "as nobody trusted vouches for it here",
        Refusal::Expired => "as it has expired",
        Refusal::Clock => "as it is dated in the future",
        Refusal::Unreadable => "as it cannot be read",
    }
}
