//! Confirmation: the built-in and the enforced probes, asked until they pass or the deadline is near.

use std::time::Duration;

use nixfleet_core::activation::end::RunEnd;
use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::activation::record::OnFailedUnits;
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
    /// All pass; these units are worse off, and are to be kept so.
    Passed(Vec<TroubledUnit>),
    /// Not yet: which probe, and its evidence.
    NotYet(String, String),
    /// Units that will not recover by waiting.
    Hurt(Vec<TroubledUnit>),
}

/// Asks all probes until they have passed for as long as they must, or the time is over.
pub async fn confirm<B: ActivationBackend>(run: &mut Run<'_, B>, landed_by_reboot: bool) -> Result<(), Halt> {
    let observe = Duration::from_secs(run.began().observe_secs);
    let give_up = Instant::now() + run.time_left();
    let mut probers = probers(run);
    let mut passing_since = None;
    let mut rounds = 0;
    loop {
        rounds += 1;
        let now = Instant::now();
        let (probe, evidence) = match round(run, &mut probers, landed_by_reboot).await {
            Round::Passed(_) if now.duration_since(*passing_since.get_or_insert(now)) >= observe => {
                return Ok(());
            }
            Round::Passed(_) => ("observation".to_owned(), "passing, but not for long enough".to_owned()),
            Round::NotYet(probe, evidence) => {
                // A pass that did not last does not count (lesson 9).
                passing_since = None;
                (probe, evidence)
            }
            Round::Hurt(units) => return Err(Halt::Revert(hurt(units))),
        };
        if Instant::now() + ROUND_EVERY >= give_up {
            return Err(Halt::Revert(Failure::ProbeFailed { probe, evidence, rounds }));
        }
        sleep(ROUND_EVERY).await;
    }
}

/// Asks all probes once, for a person who confirms. Tells the units that are worse off, and are to be kept so.
pub async fn ask_once<B: ActivationBackend>(run: &mut Run<'_, B>) -> Result<Vec<TroubledUnit>, Failure> {
    let mut probers = probers(run);
    let booted = run.backend.host().booted();
    let landed_by_reboot =
        !run.activation.inhibitors.is_empty() && booted.as_ref() == Some(&run.began().target);
    match round(run, &mut probers, landed_by_reboot).await {
        Round::Passed(units) => Ok(units),
        Round::NotYet(probe, evidence) => Err(Failure::ProbeFailed { probe, evidence, rounds: 1 }),
        Round::Hurt(units) => Err(hurt(units)),
    }
}

fn probers<B: ActivationBackend>(run: &Run<'_, B>) -> Vec<Prober> {
    let holder = Holder::of(run.backend);
    run.began().probes.iter().map(|probe| Prober::of(probe, holder.clone())).collect()
}

fn hurt(units: Vec<TroubledUnit>) -> Failure {
    Failure::UnitsFailed { units, end: RunEnd::Exited { code: 0 }, last_lines: Vec::new() }
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
    let kept = match units(run, now, landed_by_reboot).await {
        Ok(kept) => kept,
        Err(trouble) => return trouble,
    };
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
    Round::Passed(kept)
}

async fn any_answers(sources: &[String]) -> bool {
    for source in sources {
        if connect(source).await.is_ok() {
            return true;
        }
    }
    false
}

/// The units that are worse off than before the switch, where such a system is kept. Where it is not, and one is: why the round
/// does not pass.
async fn units<B: ActivationBackend>(
    run: &Run<'_, B>,
    now: Option<UnitsSeen>,
    landed_by_reboot: bool,
) -> Result<Vec<TroubledUnit>, Round> {
    let Some(now) = now else {
        return Err(Round::NotYet("units".to_owned(), "the units cannot be listed".to_owned()));
    };
    let none = UnitsSeen::default();
    let before = run.activation.units_before.as_ref().unwrap_or(&none);
    let since = if landed_by_reboot { Since::Boot } else { Since::Switch };
    let troubled = worse_off(run.backend, (before, since), &now).await;
    let will_stay = troubled.iter().any(|unit| !unit.trouble.may_pass());
    match run.began().on_failed_units {
        OnFailedUnits::Keep if will_stay => Ok(troubled),
        OnFailedUnits::Keep => Ok(Vec::new()),
        OnFailedUnits::Revert if troubled.is_empty() => Ok(troubled),
        OnFailedUnits::Revert if will_stay => Err(Round::Hurt(troubled)),
        OnFailedUnits::Revert => {
            let said: Vec<String> = troubled.iter().map(ToString::to_string).collect();
            Err(Round::NotYet("units".to_owned(), said.join(", ")))
        }
    }
}
