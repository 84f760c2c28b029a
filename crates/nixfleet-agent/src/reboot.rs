//! Restarts the host, unless somebody is against it, and not before people who are logged in were warned.
//!
//! Without a warning: look at the locks, restart. With one: logind is given the time, and tells people now and again;
//! shortly before it the locks are looked at once more, and whether a person has cancelled it meanwhile. logind restarts
//! the host also if this agent is gone by then. Its time is the clock's, so when the clock was set back we restart the
//! host ourselves. Nothing here asks a person anything, and everything has a deadline. Linux only: what there is
//! no logind for is refused.

use std::fmt;
use std::time::Duration;

use nixfleet_core::activation::inhibit::{Inhibitor, Parts, differing, parse_inhibitors};
use nixfleet_core::ids::StorePath;
use nixfleet_core::model::time::Secs;
use nixfleet_sys::clock;
use tokio::time::{Instant, sleep_until};

use crate::activation::host::{HostPaths, parts, system_text};
use crate::programs::evidence;
use crate::tools::logind::{Lock, Scheduled};
use crate::tools::units::UnitShown;
use crate::tools::{ToolError, Tools};

/// What people are told; logind adds when.
const MESSAGE: &str = "nixfleet: this host restarts for an update.";
/// How long before the restart it is looked at a last time. Room for two questions to logind.
const LAST_LOOK: Duration = Duration::from_secs(2);
/// How long after its time logind may begin.
const SLACK: Duration = Duration::from_secs(5);
/// The unit of logind.
const LOGIND: &str = "systemd-logind.service";

/// The parts of a system that only a boot brings, each by the first of its files that a system has.
const BOOTED: [(&str, &[&str]); 4] = [
    ("kernel", &["kernel"]),
    ("initrd", &["initrd"]),
    ("kernel-modules", &["kernel-modules"]),
    ("systemd", &["systemd", "sw/lib/systemd/systemd"]),
];
/// What a system itself says that only a boot brings, since NixOS 26.05 (`facts/nixos.md` D3).
const TRIGGERS: &str = "reboot-triggers";

/// Why the host does not restart. It is as it was.
#[derive(Debug)]
pub enum RebootRefused {
    /// Somebody holds a lock against it.
    Locked(Vec<Lock>),
    /// A person cancelled it while people were being warned.
    Cancelled,
    /// It could not be found out whether somebody is against it.
    Unknown(ToolError),
    /// The order was not taken.
    NotTaken(ToolError),
}

impl fmt::Display for RebootRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(locks) => {
                let said: Vec<String> = locks
                    .iter()
                    .map(|Lock { who, why, pid, what: _, mode: _ }| format!("{who} (process {pid}): {why}"))
                    .collect();
                write!(f, "a restart is blocked by {}", evidence(&said.join(", ")))
            }
            Self::Cancelled => f.write_str("somebody cancelled the restart"),
            Self::Unknown(error) => {
                write!(
                    f,
                    "cannot find out whether somebody blocks a restart: {}",
                    evidence(&error.to_string())
                )
            }
            Self::NotTaken(error) => write!(f, "the restart was not begun: {}", evidence(&error.to_string())),
        }
    }
}

impl std::error::Error for RebootRefused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Locked(_) | Self::Cancelled => None,
            Self::Unknown(error) | Self::NotTaken(error) => error.source(),
        }
    }
}

/// Restarts the host when people have been warned for `warn`; returns when the host is going down.
///
/// Whoever drops this before its end calls [`cancel`]. After `Ok`, the host is down within moments, or something is
/// wrong with it.
pub async fn order(tools: &Tools, warn: Secs) -> Result<(), RebootRefused> {
    match may(tools).await? {
        Logind::Present if warn.0 > 0 => warned(tools, warn.duration()).await?,
        // Where there is no logind, nobody is logged in as far as anybody knows.
        Logind::Present | Logind::Absent => {}
    }
    tools.reboot().await.map_err(RebootRefused::NotTaken)
}

/// Takes back a restart of which people are being warned; that there is none is fine.
pub async fn cancel(tools: &Tools) -> Result<(), ToolError> {
    tools.cancel_restart().await
}

/// Warns people, and returns when the time is over and logind has not begun by itself.
async fn warned(tools: &Tools, warn: Duration) -> Result<(), RebootRefused> {
    let due = Instant::now() + warn;
    let warn_us = u64::try_from(warn.as_micros()).unwrap_or(u64::MAX);
    let at_us = clock::unix_ms().saturating_mul(1000).saturating_add(warn_us);
    tools.schedule_restart(at_us, MESSAGE).await.map_err(RebootRefused::NotTaken)?;
    sleep_until(due - LAST_LOOK.min(warn / 2)).await;
    match tools.scheduled_restart().await {
        Ok(Scheduled::At(_)) => {}
        Ok(Scheduled::Not) => return Err(RebootRefused::Cancelled),
        Err(error) => return Err(taken_back(tools, RebootRefused::Unknown(error)).await),
    }
    if let Err(refused) = may(tools).await {
        return Err(taken_back(tools, refused).await);
    }
    // From here on logind acts, and SIGTERM ends us. What follows is for a clock that was set back.
    sleep_until(due + SLACK).await;
    Ok(())
}

async fn taken_back(tools: &Tools, refused: RebootRefused) -> RebootRefused {
    match cancel(tools).await {
        Ok(()) => refused,
        Err(error) => RebootRefused::Unknown(error),
    }
}

/// Whether the host has logind.
enum Logind {
    Present,
    Absent,
}

/// Refuses when somebody is against a restart now.
async fn may(tools: &Tools) -> Result<Logind, RebootRefused> {
    match tools.locks().await {
        Ok(locks) => {
            let against: Vec<Lock> = locks.into_iter().filter(Lock::forbids_restart).collect();
            if against.is_empty() { Ok(Logind::Present) } else { Err(RebootRefused::Locked(against)) }
        }
        // Where there is no logind nobody can hold a lock of it.
        Err(_) if has_no_logind(tools).await => Ok(Logind::Absent),
        Err(error) => Err(RebootRefused::Unknown(error)),
    }
}

async fn has_no_logind(tools: &Tools) -> bool {
    let Ok(unit) = LOGIND.parse() else { return false };
    match tools.show_unit(&unit).await {
        Ok(UnitShown::NotLoaded) => true,
        Ok(UnitShown::Loaded(status)) => status.load == "masked",
        Err(_) => false,
    }
}

/// What of the running system only a reboot brings; empty when there is no booted system to compare with.
pub fn needed(host: &HostPaths) -> Vec<Inhibitor> {
    match (host.booted(), host.current()) {
        (Some(booted), Some(current)) => differing(&facts(&booted), &facts(&current)),
        (Some(_) | None, Some(_) | None) => Vec::new(),
    }
}

/// What a system says of itself, and its files, which count more.
fn facts(system: &StorePath) -> Parts {
    let mut facts = parse_inhibitors(&system_text(system, TRIGGERS));
    facts.extend(parts(system, &BOOTED));
    facts
}
