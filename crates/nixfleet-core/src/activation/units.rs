//! What became of the units: compared before and after a switch, as an exit code tells too much and too little.
//!
//! A switch's code 4 counts every failed unit of the machine, also unrelated ones, and misses units that are simply
//! gone (`facts/switch.md` 3). So the agent looks at the units itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One unit as `systemctl list-units` shows it, reduced to what a verdict needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitHealth {
    /// Active: running, listening, waiting, mounted, or done and remaining.
    Up,
    /// On its way up or down, or being reloaded.
    Changing,
    /// It failed and systemd waits to start it again.
    Restarting,
    /// Failed.
    Failed,
    /// Inactive.
    Down,
}

/// All loaded units of a host at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitsSeen(pub BTreeMap<String, UnitHealth>);

/// Why a unit counts against the new system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitTrouble {
    /// Failed now, and had not failed before.
    Failed,
    /// Restarted by systemd again and again, and was not before.
    Restarting,
    /// Was up before, and is on its way and not there yet.
    NotUpYet,
    /// Was up before, is wanted still, and is down now.
    DidNotComeBack,
}

impl UnitTrouble {
    /// Whether waiting may help: such a unit holds a confirmation up, and does not revert by itself.
    pub fn may_pass(self) -> bool {
        match self {
            Self::Restarting | Self::NotUpYet => true,
            Self::Failed | Self::DidNotComeBack => false,
        }
    }
}

/// A unit that the switch left in a worse state than it found it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TroubledUnit {
    /// The unit's name.
    pub unit: String,
    /// What is wrong with it.
    pub trouble: UnitTrouble,
}

impl fmt::Display for TroubledUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.trouble {
            UnitTrouble::Failed => "failed",
            UnitTrouble::Restarting => "keeps restarting",
            UnitTrouble::NotUpYet => "is not up yet",
            UnitTrouble::DidNotComeBack => "did not come back",
        };
        write!(f, "{} {what}", self.unit)
    }
}

/// What kinds of units a switch answers for; sessions, scopes, slices and devices come and go by themselves.
const KINDS: [&str; 6] = [".service", ".socket", ".timer", ".path", ".mount", ".automount"];

/// Whether a unit takes part in the comparison at all.
///
/// Our own transient units come and go with the activation, and a user's session is not the system's.
pub fn counts(unit: &str) -> bool {
    let ours = unit.starts_with("nixfleet-switch-") || unit.starts_with("nixfleet-deadman-");
    let sessions =
        unit.starts_with("user@") || unit.starts_with("user-runtime-dir@") || unit.starts_with("run-");
    !ours && !sessions && KINDS.iter().any(|kind| unit.ends_with(kind))
}

/// Units that are worse off now than before, without asking whether a unit that is down is still wanted.
///
/// [`UnitTrouble::DidNotComeBack`] is a suspicion: the caller asks systemd about those units and drops the ones
/// that the new system removed or that end by themselves.
pub fn worse(before: &UnitsSeen, now: &UnitsSeen) -> Vec<TroubledUnit> {
    let was = |unit: &str| before.0.get(unit).copied();
    let mut out: Vec<TroubledUnit> = now
        .0
        .iter()
        .filter(|(unit, _)| counts(unit))
        .filter_map(|(unit, health)| Some((unit, trouble(was(unit), *health)?)))
        .map(|(unit, trouble)| TroubledUnit { unit: unit.clone(), trouble })
        .collect();
    let gone = before
        .0
        .iter()
        .filter(|(unit, health)| **health == UnitHealth::Up && counts(unit) && !now.0.contains_key(*unit));
    out.extend(
        gone.map(|(unit, _)| TroubledUnit { unit: unit.clone(), trouble: UnitTrouble::DidNotComeBack }),
    );
    out.sort();
    out
}

fn trouble(was: Option<UnitHealth>, now: UnitHealth) -> Option<UnitTrouble> {
    match (was, now) {
        (Some(UnitHealth::Failed | UnitHealth::Restarting), UnitHealth::Failed | UnitHealth::Restarting)
        | (_, UnitHealth::Up)
        | (
            None
            | Some(UnitHealth::Changing | UnitHealth::Restarting | UnitHealth::Failed | UnitHealth::Down),
            UnitHealth::Changing,
        ) => None,
        (Some(UnitHealth::Up), UnitHealth::Changing) => Some(UnitTrouble::NotUpYet),
        (_, UnitHealth::Failed) => Some(UnitTrouble::Failed),
        (_, UnitHealth::Restarting) => Some(UnitTrouble::Restarting),
        (Some(UnitHealth::Up), UnitHealth::Down) => Some(UnitTrouble::DidNotComeBack),
        (_, UnitHealth::Down) => None,
    }
}

/// Whether anything the switch answers for differs at all: the sign that a failed run had begun to change units.
pub fn changed(before: &UnitsSeen, now: &UnitsSeen) -> bool {
    let up = |seen: &UnitsSeen| -> Vec<String> {
        let up = seen.0.iter().filter(|(unit, health)| counts(unit) && **health == UnitHealth::Up);
        up.map(|(unit, _)| unit.clone()).collect()
    };
    up(before) != up(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use UnitHealth::{Changing, Down, Failed, Restarting, Up};

    fn seen(units: &[(&str, UnitHealth)]) -> UnitsSeen {
        UnitsSeen(units.iter().map(|(name, health)| ((*name).to_owned(), *health)).collect())
    }

    #[test]
    fn an_old_failure_is_not_held_against_the_new_system() {
        assert_eq!(worse(&seen(&[("old.service", Failed)]), &seen(&[("old.service", Failed)])), []);
        assert_eq!(worse(&seen(&[("old.service", Restarting)]), &seen(&[("old.service", Failed)])), []);
    }

    #[test]
    fn a_new_failure_a_restart_loop_and_a_unit_that_stays_away_are_named() {
        let before = seen(&[("a.service", Up), ("b.service", Up), ("c.service", Up), ("d.socket", Up)]);
        let now = seen(&[
            ("a.service", Failed),
            ("b.service", Restarting),
            ("c.service", Down),
            ("e.service", Failed),
        ]);
        let said: Vec<String> = worse(&before, &now).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "a.service failed",
                "b.service keeps restarting",
                "c.service did not come back",
                "d.socket did not come back",
                "e.service failed"
            ]
        );
    }

    #[test]
    fn sessions_scopes_and_our_own_units_do_not_count() {
        let before =
            seen(&[("session-1.scope", Up), ("user@0.service", Up), ("nixfleet-switch-x.service", Up)]);
        assert_eq!(worse(&before, &seen(&[("nixfleet-switch-x.service", Failed)])), []);
        assert!(!changed(&before, &seen(&[])));
    }

    #[test]
    fn a_unit_on_its_way_holds_the_confirmation_up_only_if_it_was_up() {
        assert_eq!(worse(&seen(&[("a.service", Down)]), &seen(&[("a.service", Changing)])), []);
        let late = worse(&seen(&[("a.service", Up)]), &seen(&[("a.service", Changing)]));
        assert_eq!(late.iter().map(|unit| unit.trouble).collect::<Vec<_>>(), [UnitTrouble::NotUpYet]);
        assert!(late.iter().all(|unit| unit.trouble.may_pass()));
        assert!(changed(&seen(&[("a.service", Up)]), &seen(&[("a.service", Changing)])));
    }
}
