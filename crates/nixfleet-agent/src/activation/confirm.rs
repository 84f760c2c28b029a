//! Confirmation: the built-in and the enforced probes, asked until they pass or the deadline is near.

use std::time::Duration;

use nixfleet_core::activation::end::RunEnd;
use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::activation::units::{TroubledUnit, UnitsSeen};
use tokio::time::{Instant, sleep};

use super::backend::ActivationBackend;
use super::run::{Halt, Run};
use crate::probes::units::{Since, worse_off};
use crate::probes::{Prober, address_of, connect};
use crate::programs::Holder;
use crate::tools::nix::NixSettings;

/// Between two rounds of probes.
const ROUND_EVERY: Duration = Duration::from_millis(500);

/// The substituters that answer a fresh connection now; what answered before must answer after.
pub async fn reachable(settings: &NixSettings) -> Vec<String> {
    let mut out = Vec::new();
    for address in settings.substituters.iter().filter_map(|url| address_of(url)) {
        if !out.contains(&address) && connect(&address).await.is_ok() {
            out.push(address);
        }
    }
    out
}

/// What a round of probes found.
enum Round {
    Passed,
    /// Not yet: which probe, and its evidence.
    NotYet(String, String),
    /// Units that will not recover by waiting.
    Hurt(Vec<TroubledUnit>),
}

/// Asks all probes until they have passed for as long as they must, or the time is over.
pub async fn confirm<B: ActivationBackend>(run: &mut Run<'_, B>, landed_by_reboot: bool) -> Result<(), Halt> {
    let observe = Duration::from_secs(run.began().observe_secs);
    let give_up = Instant::now() + run.time_left();
    let holder = Holder::of(run.backend);
    let mut probers: Vec<Prober> =
        run.began().probes.iter().map(|probe| Prober::of(probe, holder.clone())).collect();
    let mut passing_since = None;
    let mut rounds = 0;
    loop {
        rounds += 1;
        let now = Instant::now();
        let (probe, evidence) = match round(run, &mut probers, landed_by_reboot).await {
            Round::Passed if now.duration_since(*passing_since.get_or_insert(now)) >= observe => {
                return Ok(());
            }
            Round::Passed => ("observation".to_owned(), "passing, but not for long enough".to_owned()),
            Round::NotYet(probe, evidence) => {
                // A pass that did not last does not count (lesson 9).
                passing_since = None;
                (probe, evidence)
            }
            Round::Hurt(units) => {
                let end = RunEnd::Exited { code: 0 };
                return Err(Halt::Revert(Failure::UnitsFailed { units, end, last_lines: Vec::new() }));
            }
        };
        if Instant::now() + ROUND_EVERY >= give_up {
            return Err(Halt::Revert(Failure::ProbeFailed { probe, evidence, rounds }));
        }
        sleep(ROUND_EVERY).await;
    }
}

async fn round<B: ActivationBackend>(
    run: &mut Run<'_, B>,
    probers: &mut [Prober],
    landed_by_reboot: bool,
) -> Round {
    if landed_by_reboot && run.backend.is_booting().await {
        return Round::NotYet("boot".to_owned(), "the host is still starting".to_owned());
    }
    let now = match run.just_seen.take() {
        Some(seen) => Some(seen),
        None => run.backend.units().await,
    };
    if let Some(trouble) = units(run, now, landed_by_reboot).await {
        return trouble;
    }
    let sources = &run.activation.reachable;
    if !sources.is_empty() && !any_answers(sources).await {
        return Round::NotYet(
            "source".to_owned(),
            format!("none of {} answers any more", sources.join(", ")),
        );
    }
    for prober in probers {
        if let Err(evidence) = prober.ask(run.backend).await {
            return Round::NotYet(prober.name(), evidence);
        }
    }
    Round::Passed
}

async fn any_answers(sources: &[String]) -> bool {
    for source in sources {
        if connect(source).await.is_ok() {
            return true;
        }
    }
    false
}

/// `None` when no unit is worse off than before the switch.
async fn units<B: ActivationBackend>(
    run: &Run<'_, B>,
    now: Option<UnitsSeen>,
    landed_by_reboot: bool,
) -> Option<Round> {
    use nixfleet_core::activation::record::OnFailedUnits;
    let Some(now) = now else {
        return Some(Round::NotYet("units".to_owned(), "the units cannot be listed".to_owned()));
    };
    let none = UnitsSeen::default();
    let before = run.activation.units_before.as_ref().unwrap_or(&none);
    let since = if landed_by_reboot { Since::Boot } else { Since::Switch };
    let troubled = worse_off(run.backend, (before, since), &now).await;
    let keep = run.began().on_failed_units == OnFailedUnits::Keep;
    if troubled.is_empty() || keep {
        return None;
    }
    if troubled.iter().any(|unit| !unit.trouble.may_pass()) {
        return Some(Round::Hurt(troubled));
    }
    let said: Vec<String> = troubled.iter().map(ToString::to_string).collect();
    Some(Round::NotYet("units".to_owned(), said.join(", ")))
}
