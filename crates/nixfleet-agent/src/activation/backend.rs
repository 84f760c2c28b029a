//! What differs between NixOS and nix-darwin, as one small trait; everything else of an activation is shared.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use nixfleet_core::activation::inhibit::Parts;
use nixfleet_core::activation::outcome::BusyWith;
use nixfleet_core::activation::platform::Platform;
use nixfleet_core::activation::units::{TroubledUnit, UnitsSeen};
use nixfleet_core::ids::{ActivationId, BootId, StorePath};

use super::host::{BootUnknown, HostPaths};
use crate::tools::unit_now::UnitNow;
use crate::tools::{MissingTools, Tools};

/// What a system's own switch program is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Live and boot default.
    Switch,
    /// Live only.
    Test,
    /// Boot default only.
    Boot,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Switch => "switch",
            Self::Test => "test",
            Self::Boot => "boot",
        })
    }
}

/// A detached run to start.
#[derive(Debug, Clone)]
pub struct FireOrder<'a> {
    /// Its unit, new for every run.
    pub unit: &'a str,
    /// Whose switch program is run.
    pub system: &'a StorePath,
    /// What it is asked to do.
    pub action: Action,
    /// When the whole run is ended.
    pub limit: Duration,
    /// The agent that records the end.
    pub rescue: &'a Path,
    /// Where it records it.
    pub end_file: &'a Path,
}

/// When a deadman comes.
#[derive(Debug, Clone, Copy)]
pub enum DeadmanTime {
    /// At this monotonic time of this boot.
    ThisBoot(Duration),
    /// So long after the next boot has begun. Nothing is armed where that boot brings the previous system by itself.
    NextBoot(Duration),
}

/// The deadman to arm.
#[derive(Debug, Clone)]
pub struct DeadmanOrder<'a> {
    /// The activation that it reverts.
    pub id: &'a ActivationId,
    /// When it does.
    pub when: DeadmanTime,
    /// The agent that it runs.
    pub rescue: &'a Path,
    /// The state folder that it is told.
    pub state: &'a Path,
}

/// Why something could not be started, with the last words of whoever was to start it.
#[derive(Debug, Clone)]
pub struct NotStarted {
    /// The last lines.
    pub last_lines: Vec<String>,
}

/// The platform under an activation.
pub trait ActivationBackend: Sync {
    /// This host, with everything in its usual place but the state folder.
    fn with_state(state: &Path) -> Self
    where
        Self: Sized;

    /// What kind of host this is, for what decides.
    fn platform(&self) -> Platform;

    /// Why nothing can be activated here at all; `None` when it can.
    fn unusable(&self) -> Option<String>;

    /// Where things are.
    fn host(&self) -> &HostPaths;

    /// This boot, which no other boot of this host shares its id with.
    fn boot_id(&self) -> impl Future<Output = Result<BootId, BootUnknown>> + Send;

    /// The outside programs, found once.
    fn tools(&self) -> Result<&Tools, MissingTools>;

    /// What a store path must have to be a system of this platform.
    fn system_files(&self) -> &'static [&'static str];

    /// The architecture of this host as a system's file `system` names it, such as `x86_64-linux`.
    fn architecture(&self) -> &'static str;

    /// The parts of a system that are not replaced live, by name.
    fn inhibiting_parts(&self, system: &StorePath) -> Parts;

    /// Whoever is switching already; asked without touching any lock.
    fn busy(&self) -> impl Future<Output = Option<BusyWith>> + Send;

    /// The processes that hold the activation lock; only an agent of ours ever takes it.
    fn lock_holders(&self) -> Vec<i32>;

    /// Whether a run could be started now; asked while nothing is changed yet.
    fn can_fire(&self) -> impl Future<Output = Result<(), NotStarted>> + Send;

    /// Starts a run that outlives us and records its end.
    fn fire(&self, order: &FireOrder<'_>) -> impl Future<Output = Result<(), NotStarted>> + Send;

    /// Whether the run is still going on; an error of the platform reads as going on, so that nobody acts on it.
    fn is_running(&self, unit: &str) -> impl Future<Output = bool> + Send;

    /// Whether the run is known to have begun, for one that is not running and left no record of its end: it was cut
    /// off. `false` where a run cannot begin without leaving a record.
    fn has_begun(&self, unit: &str) -> bool;

    /// Ends the run with everything that it started, and returns when it is over.
    fn end_run(&self, unit: &str) -> impl Future<Output = ()> + Send;

    /// What it takes to read what a run printed.
    fn can_read_output(&self) -> Result<(), MissingTools>;

    /// The last lines that the run printed, so far or in all; at most `lines_max`. What whoever keeps them has not taken in `within` that
    /// time is missing.
    fn last_lines(
        &self,
        unit: &str,
        lines_max: u32,
        within: Duration,
    ) -> impl Future<Output = Vec<String>> + Send;

    /// Removes what the platform keeps to find a run of an activation that is over; its output stays.
    fn forget_run(&self, unit: &str);

    /// All units now; empty where the platform has none. `None` when it cannot be found out.
    fn units(&self) -> impl Future<Output = Option<UnitsSeen>> + Send;

    /// Drops the suspects that are down for a good reason: removed by the new system, or done with their work.
    fn clear_suspects(&self, troubled: Vec<TroubledUnit>) -> impl Future<Output = Vec<TroubledUnit>> + Send;

    /// Starts units that a revert did not bring back by itself.
    fn start_units(&self, units: &[String]) -> impl Future<Output = ()> + Send;

    /// What the platform says of a unit, for a probe. `Err` is why it cannot say anything.
    fn unit_now(&self, unit: &str) -> impl Future<Output = Result<UnitNow, String>> + Send;

    /// Returns when the boot has made its links, after a restart of the host; at once where they come before us.
    fn await_boot(&self) -> impl Future<Output = ()> + Send;

    /// Whether the host is still booting.
    fn is_booting(&self) -> impl Future<Output = bool> + Send;

    /// Arms the deadman, and returns when it waits and nothing that ends us ends it.
    fn arm_deadman(&self, order: &DeadmanOrder<'_>) -> impl Future<Output = Result<(), NotStarted>> + Send;

    /// Disarms the deadman of this boot and of the next; that there is none is fine. One that is on its way already finds an activation that is
    /// over, or one that goes on.
    fn disarm_deadman(&self, id: &ActivationId) -> impl Future<Output = ()> + Send;

    /// The activations for which a deadman is armed.
    fn armed_deadmen(&self) -> impl Future<Output = Vec<ActivationId>> + Send;
}

/// The unit of the deadman of an activation, without its type.
pub fn deadman_unit(id: &ActivationId) -> String {
    format!("nixfleet-deadman-{id}")
}
