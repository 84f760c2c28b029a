//! What happens on a host by itself, as far as its agent would report it. Nothing is switched: a switch ends at once, well
//! or badly, by the system's name.

use nixfleet_core::activation::outcome::{ActivationOutcome, Failure, Verdict};
use nixfleet_core::host::phase::{Confirmer, Flight, SourceNeed};
use nixfleet_core::host::probing::{ProbeReport, ProbeResult, Watch};
use nixfleet_core::host::{Event, Phase};
use nixfleet_core::ids::{ActivationId, StorePath};

use crate::fleet::Host;

impl Host {
    /// What would happen next, on a host where a system `passes` or does not. Says whether anything did.
    pub(crate) fn go_on(&mut self, passes: &dyn Fn(&StorePath) -> bool) -> bool {
        let event = match self.state.phase.clone() {
            Phase::Staging(at) => Event::TargetStaged { release: at.target.release.clone() },
            Phase::Activating(at) => {
                let verdict = if passes(&at.flight.target.system) {
                    Verdict::OnTrial { confirm_within_secs: 300 }
                } else {
                    let (probe, evidence) = ("web".to_owned(), "404".to_owned());
                    let failure = Failure::ProbeFailed { probe, evidence, rounds: 3 };
                    Verdict::Reverted { failure, left: Vec::new() }
                };
                ended(&at.flight, verdict)
            }
            Phase::Confirming(at) => match proof(&at.watch) {
                Some(event) => event,
                None if at.flight.source == SourceNeed::Awaited => {
                    Event::SourceAnswered { watch: Some(at.watch.id) }
                }
                None if matches!(at.by, Confirmer::Committing { .. }) => {
                    ended(&at.flight, Verdict::Converged)
                }
                None => return false,
            },
            Phase::Soaking(at) => match proof(&at.watch) {
                Some(event) => event,
                None => return false,
            },
            Phase::Reverting(at) => {
                let (target, previous) = (at.to.clone(), at.target.system.clone());
                ended_as(&at.id, target, previous, Verdict::Converged)
            }
            Phase::Converged
            | Phase::Staged(_)
            | Phase::AwaitingReboot(_)
            | Phase::Reverted(_)
            | Phase::Failed(_) => return false,
        };
        self.take(&event, None);
        true
    }
}

/// A probe that has not passed yet passes.
fn proof(watch: &Watch) -> Option<Event> {
    let tally = watch.unproven().next()?;
    Some(Event::ProbeReported(ProbeReport {
        watch: watch.id,
        probe: tally.probe.clone(),
        run: 1,
        result: ProbeResult::Passed,
        evidence: "all is well".to_owned(),
    }))
}

fn ended(flight: &Flight, verdict: Verdict) -> Event {
    ended_as(&flight.id, flight.target.system.clone(), flight.previous.clone(), verdict)
}

fn ended_as(id: &ActivationId, target: StorePath, previous: StorePath, verdict: Verdict) -> Event {
    let outcome = ActivationOutcome {
        id: id.clone(),
        target,
        previous: Some(previous),
        generation: None,
        verdict: verdict.clone(),
        warnings: Vec::new(),
        reboot_needed: Vec::new(),
        steps: Vec::new(),
    };
    match verdict {
        Verdict::Reverted { failure, .. } => {
            Event::LocalActivationFailed { failure, outcome: Some(outcome), at_ms: 0 }
        }
        _ => Event::LocalActivationCompleted { outcome, at_ms: 0 },
    }
}
