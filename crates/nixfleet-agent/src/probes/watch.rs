//! Asks all probes of a watch over and over, and tells every answer.
//!
//! Each probe has a task of its own: wait, take a turn, ask, tell, wait. So a probe never overlaps with itself, a slow
//! one holds up nobody, and a receiver that does not take reports only slows the probes down: what it takes next is
//! the newest there is, because nothing is asked while an answer waits. Turns bound how many are asked at once.
//! Dropping [`Running`] ends the tasks and, through the leash, the programs.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use nixfleet_core::host::effect::ProbeOrder;
use nixfleet_core::host::probing::{BuiltIn, ProbeRef, ProbeReport, ProbeResult, WatchId};
use nixfleet_core::model::probe::{ProbeMode, ProbeSpec};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub use super::units::Baseline;
use super::{Answer, Prober, units};
use crate::activation::backend::ActivationBackend;
use crate::programs::{Holder, evidence, too_slow};

/// Probes that are asked at the same time. A host has a handful; more than this at once would be load of our own.
pub const TURNS: usize = 16;
/// From one run of a built-in probe to the next; [`nixfleet_core::host::probing::BUILT_IN_FAILURES`] counts on it.
const BUILT_IN_EVERY: Duration = Duration::from_secs(10);
/// Listing the units takes some tens of milliseconds, and seconds while systemd reloads.
const BUILT_IN_LIMIT: Duration = Duration::from_secs(30);
/// The shortest interval and deadline, in case a policy names none.
const SHORTEST: Duration = Duration::from_secs(1);
/// An interval is longer by up to this part of it, by chance, so that the hosts of a fleet do not ask a shared server
/// in step.
const JITTER_PART: u32 = 20;

/// The probes of a watch, while they run. Dropping it ends them with everything that they started.
#[derive(Debug)]
#[must_use = "the probes end when this is dropped"]
pub struct Running {
    /// Ends its tasks when it is dropped.
    tasks: JoinSet<()>,
}

impl Running {
    /// How many probes have not ended by themselves; they do when nobody hears them any more.
    pub fn probes(&self) -> usize {
        self.tasks.len()
    }
}

/// Runs the probes of the order until the result is dropped, and tells every run.
///
/// Needs the runtime of its caller. When `said` is closed the probes end by themselves.
pub fn start<B>(
    backend: &Arc<B>,
    order: ProbeOrder,
    baseline: &Baseline,
    said: &Sender<ProbeReport>,
) -> Running
where
    B: ActivationBackend + Send + 'static,
{
    let ProbeOrder { watch, declared, built_in } = order;
    let (turns, chance) = (Arc::new(Semaphore::new(TURNS)), RandomState::new());
    let mut tasks = JoinSet::new();
    let holder = Holder::of(&**backend);
    let declared = declared.into_iter().filter_map(|spec| Asked::declared(spec, &holder));
    let own = built_in.into_iter().map(|probe| Asked::built_in(probe, baseline));
    for (probe, asked, pace) in declared.chain(own) {
        let of = Of { watch, probe, pace, chance: chance.clone() };
        tasks.spawn(of.repeat(asked, Arc::clone(backend), Arc::clone(&turns), said.clone()));
    }
    Running { tasks }
}

/// When a probe runs.
#[derive(Debug, Clone, Copy)]
struct Pace {
    after: Duration,
    every: Duration,
}

/// Whom to ask.
enum Asked {
    Declared(Box<Prober>),
    Units(Baseline),
}

impl Asked {
    fn declared(spec: ProbeSpec, holder: &Holder) -> Option<(ProbeRef, Self, Pace)> {
        let ProbeSpec { name, kind, mode, interval_secs, timeout_secs, after_secs, failures: _ } = spec;
        match mode {
            ProbeMode::Enforce | ProbeMode::Observe => {}
            ProbeMode::Disabled => return None,
        }
        let pace = Pace { after: after_secs.duration(), every: interval_secs.duration().max(SHORTEST) };
        let prober = Prober::new(kind, timeout_secs.duration().max(SHORTEST), holder.clone());
        Some((ProbeRef::Declared(name), Self::Declared(Box::new(prober)), pace))
    }

    fn built_in(probe: BuiltIn, baseline: &Baseline) -> (ProbeRef, Self, Pace) {
        let pace = Pace { after: Duration::ZERO, every: BUILT_IN_EVERY };
        match probe {
            BuiltIn::Units => (ProbeRef::BuiltIn(probe), Self::Units(baseline.clone()), pace),
        }
    }

    async fn ask<B: ActivationBackend>(&mut self, backend: &B) -> Answer {
        match self {
            Self::Declared(prober) => prober.ask(backend).await,
            Self::Units(baseline) => {
                let asked = timeout(BUILT_IN_LIMIT, units::ask(backend, baseline)).await;
                let answer = asked.unwrap_or_else(|_| Err(too_slow(BUILT_IN_LIMIT)));
                answer.map(|found| evidence(&found)).map_err(|found| evidence(&found))
            }
        }
    }
}

/// One probe of a watch.
struct Of {
    watch: WatchId,
    probe: ProbeRef,
    pace: Pace,
    chance: RandomState,
}

impl Of {
    async fn repeat<B: ActivationBackend>(
        self,
        mut asked: Asked,
        backend: Arc<B>,
        turns: Arc<Semaphore>,
        said: Sender<ProbeReport>,
    ) {
        let mut at = Instant::now() + self.pace.after;
        // A watch of 136 years at a run each second, and then it is quiet.
        for run in 1..=u32::MAX {
            sleep_until(at).await;
            // Nobody closes the turns, so there always is one some time.
            let Ok(turn) = turns.acquire().await else { return };
            at = Instant::now() + self.interval(run);
            let answer = asked.ask(&*backend).await;
            drop(turn);
            // Closed means that the watch is over for whoever ordered it.
            if said.send(self.report(run, answer)).await.is_err() {
                return;
            }
        }
    }

    /// From the beginning of this run to that of the next.
    fn interval(&self, run: u32) -> Duration {
        /// Steps of chance between nothing and the whole jitter.
        const STEPS: u32 = 1000;
        let hash = self.chance.hash_one((&self.probe, run)) % u64::from(STEPS);
        let part = u32::try_from(hash).unwrap_or(0);
        self.pace.every + self.pace.every / JITTER_PART / STEPS * part
    }

    fn report(&self, run: u32, answer: Answer) -> ProbeReport {
        let (result, evidence) = match answer {
            Ok(found) => (ProbeResult::Passed, found),
            Err(found) => (ProbeResult::Failed, found),
        };
        ProbeReport { watch: self.watch, probe: self.probe.clone(), run, result, evidence }
    }
}

#[cfg(test)]
mod tests;
