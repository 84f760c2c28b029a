//! What systemd is told: that the agent is ready, what the host does and waits for, and that the reducer's loop turns.
//!
//! Without systemd around us there is nobody to tell, and nothing of it fails.

use std::time::Duration;

use nixfleet_core::host::{HostState, Now};
use sd_notify::NotifyState;

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
