//! A systemd unit is well: active, and not in a restart loop; one that does its work and ends has done it.
//!
//! A unit that dies and is restarted is active most of the time, so one look does not show it. [`Restarts`] compares
//! each look with the one before: systemd's own count of restarts, and the id of the run, which also changes when
//! something else restarts it. One restart is one failure; more than one within [`LOOP_WITHIN`] is a loop, and fails
//! until that time is over. A unit that does its work and ends is started by a timer as often as it should be, so
//! only its last run counts. systemd forgets that run when nothing that is loaded wants the unit; then it has not run, as far as
//! anybody knows, and the probe fails.

use std::collections::VecDeque;
use std::time::Duration;

use super::Answer;
use crate::tools::unit_now::{UnitNow, Work};
use crate::tools::units::{ActiveState, MainEnd};

/// Restarts that lie closer together are a loop: long enough for one that backs off to some minutes between two
/// restarts, short enough that what a person has repaired by then passes again before they lose patience.
pub(super) const LOOP_WITHIN: Duration = Duration::from_mins(10);
/// So many within that time are a loop.
const LOOP_RESTARTS: usize = 2;
/// Remembered; of more, only the newest matter.
const RESTARTS_KEPT: usize = 100;

/// The restarts of a unit since it was first looked at.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    last: Option<Look>,
    at: VecDeque<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    restarts: u32,
    invocation: Option<String>,
}

impl Restarts {
    /// What is to be said of a unit that looks like this `now`, a time that only rises.
    pub(super) fn judge(&mut self, unit: &UnitNow, now: Duration) -> Answer {
        let fresh = match unit.work {
            Work::Ends => 0,
            Work::Stays => self.note(unit, now),
        };
        is_well(unit)?;
        let recent = self.at.iter().filter(|at| now.saturating_sub(**at) <= LOOP_WITHIN).count();
        if recent >= LOOP_RESTARTS {
            return Err(format!("it is active, and restarted {recent} times in {} s", LOOP_WITHIN.as_secs()));
        }
        if fresh > 0 {
            return Err("it is active, and has restarted since the last look".to_owned());
        }
        Ok(format!("{} ({})", word(&unit.active), unit.sub))
    }

    /// How many restarts this look shows that the one before did not.
    fn note(&mut self, unit: &UnitNow, now: Duration) -> u32 {
        let look = Look { restarts: unit.restarts, invocation: unit.invocation.clone() };
        let fresh = self.last.as_ref().map_or(0, |last| since(last, &look));
        // A unit on its way up or down has no run, and the next one is still compared with the last.
        if look.invocation.is_some() || self.last.is_none() {
            self.last = Some(look);
        }
        let times = usize::try_from(fresh).unwrap_or(RESTARTS_KEPT).min(RESTARTS_KEPT);
        self.at.extend(std::iter::repeat_n(now, times));
        self.at.drain(..self.at.len().saturating_sub(RESTARTS_KEPT));
        fresh
    }
}

fn since(last: &Look, now: &Look) -> u32 {
    // The count begins anew when somebody else restarts the unit; then the other id tells.
    let counted = now.restarts.saturating_sub(last.restarts);
    let other_run =
        last.invocation.is_some() && now.invocation.is_some() && last.invocation != now.invocation;
    counted.max(u32::from(other_run))
}

fn is_well(unit: &UnitNow) -> Result<(), String> {
    let UnitNow { load, active, sub, result, work, main_end, restarts: _, invocation: _ } = unit;
    match (active, work) {
        (ActiveState::Active | ActiveState::Reloading, _) => Ok(()),
        // Done and well. It must have run: systemd says `success` of one that never did, too.
        (ActiveState::Inactive, Work::Ends)
            if result == "success" && *main_end == Some(MainEnd::Exited(0)) =>
        {
            Ok(())
        }
        (ActiveState::Inactive, Work::Ends) if main_end.is_none() && load == "loaded" => {
            Err("it has not run".to_owned())
        }
        (ActiveState::Inactive, _) if load != "loaded" => Err(format!("it is {load}")),
        (
            ActiveState::Inactive
            | ActiveState::Failed
            | ActiveState::Activating
            | ActiveState::Deactivating
            | ActiveState::Other(_),
            Work::Ends | Work::Stays,
        ) => {
            let result =
                if result.is_empty() || result == "success" { String::new() } else { format!(": {result}") };
            Err(format!("it is {} ({sub}){result}", word(active)))
        }
    }
}

fn word(active: &ActiveState) -> &str {
    match active {
        ActiveState::Active => "active",
        ActiveState::Reloading => "reloading",
        ActiveState::Inactive => "inactive",
        ActiveState::Failed => "failed",
        ActiveState::Activating => "activating",
        ActiveState::Deactivating => "deactivating",
        ActiveState::Other(word) => word,
    }
}

#[cfg(test)]
mod tests;
