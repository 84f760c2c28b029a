//! The agent's own probe of the units: none is worse off than before the switch.

use nixfleet_core::activation::units::{TroubledUnit, UnitTrouble, UnitsSeen, worse};

use super::Answer;
use crate::activation::backend::ActivationBackend;

/// What the units are compared with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Baseline {
    /// The units before the switch; empty where nobody looked, so that every failed unit counts.
    pub units: UnitsSeen,
    /// What has happened since.
    pub since: Since,
}

/// What lies between the baseline and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Since {
    /// A switch.
    #[default]
    Switch,
    /// A boot: other units are up in it, and only failures say something.
    Boot,
}

/// The units of `now` that are worse off than in the baseline, without those that have a good reason.
pub async fn worse_off<B: ActivationBackend>(
    backend: &B,
    (before, since): (&UnitsSeen, Since),
    now: &UnitsSeen,
) -> Vec<TroubledUnit> {
    let mut troubled = worse(before, now);
    match since {
        Since::Switch => {}
        Since::Boot => troubled.retain(|unit| unit.trouble != UnitTrouble::DidNotComeBack),
    }
    backend.clear_suspects(troubled).await
}

/// Asks once.
pub(super) async fn ask<B: ActivationBackend>(backend: &B, baseline: &Baseline) -> Answer {
    let Some(now) = backend.units().await else { return Err("the units cannot be listed".to_owned()) };
    let troubled = worse_off(backend, (&baseline.units, baseline.since), &now).await;
    if troubled.is_empty() {
        return Ok("no unit is worse off than before".to_owned());
    }
    let said: Vec<String> = troubled.iter().map(ToString::to_string).collect();
    Err(said.join(", "))
}
