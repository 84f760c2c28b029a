//! Carries activations out, one after the other, on a thread of its own: a disk that takes its time over a sync must not
//! look like a hung agent.
//!
//! The reducer pushes jobs and never waits. Each job but [`Job::TidyUp`] ends in exactly one event of an activation. The
//! activation lock, which a person's `activate` takes too, keeps two switches apart; whoever holds it is waited for where
//! giving up would say something wrong. Cut off anywhere, the activation journal says where to go on.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nixfleet_core::activation::events::{ActivationIntent, CommitPolicy};
use nixfleet_core::activation::outcome::{ActivationOutcome, Failure, Step, Verdict};
use nixfleet_core::activation::record::{ConfirmBy, OnFailedUnits, Purpose, Unsigned};
use nixfleet_core::host::Event;
use nixfleet_core::host::effect::{Back, RevertOrder};
use nixfleet_core::ids::ActivationId;
use nixfleet_sys::clock;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::activation::{event_of, started};
use crate::activation::recovery::{self, TakenUp};
use crate::activation::types::{ActivationTarget, Observer, Weight};
use crate::activation::{ActivationBackend, activate_with};
use crate::runtime::input::Input;
use crate::runtime::one_thread;
use crate::tools::progress::Progress;

/// How many different jobs may wait. The machine has one activation at a time and asks for four things about it; one tidies
/// up.
const JOBS_MAX: usize = 8;
/// Between two attempts to get the lock from whoever takes up or reverts the same activation.
const LOCK_AGAIN: Duration = Duration::from_secs(1);
/// How long a way back waits for the lock before it says that it could not begin; the machine then tries again, and the
/// deadman is the net. Longer than a switch of somebody else's takes.
const REVERT_WAITS: Duration = Duration::from_mins(6);

/// Something to be done with activations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Begin one.
    Activate(Box<ActivationIntent>),
    /// Commit the one on trial.
    Commit(ActivationId),
    /// Go back.
    Revert(Box<RevertOrder>),
    /// Finish one that an earlier process began, or tell how it ended.
    TakeUp(ActivationId),
    /// Finish what a person's agent left behind.
    TidyUp {
        /// Left alone: it is the machine's.
        ours: Option<ActivationId>,
    },
}

impl Job {
    /// The activation that it is about.
    fn id(&self) -> Option<&ActivationId> {
        match self {
            Self::Activate(intent) => Some(&intent.id),
            Self::Revert(order) => Some(&order.id),
            Self::Commit(id) | Self::TakeUp(id) => Some(id),
            Self::TidyUp { ours: _ } => None,
        }
    }

    /// Whether `newer` leaves it nothing to do: it is about an earlier activation, of which the machine knows the end already,
    /// as it has one at a time. What it would tell might be taken for the end of the newer one.
    fn is_overtaken_by(&self, newer: &Self) -> bool {
        matches!((self.id(), newer.id()), (Some(mine), Some(newer)) if mine != newer)
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Job>>,
    pushed: Notify,
}

/// The way to the worker.
#[derive(Debug, Clone)]
pub struct Jobs(Arc<Queue>);

impl Jobs {
    /// Starts the worker's thread. It ends with the process.
    pub fn start<B: ActivationBackend + Send + 'static>(
        backend: Arc<B>,
        voice: Arc<dyn Observer>,
        inputs: mpsc::Sender<Input>,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let runtime = one_thread()?;
        let mine = Arc::clone(&queue);
        std::thread::Builder::new().name("activation".to_owned()).spawn(move || {
            runtime.block_on(work(&*backend, &mine, &voice, &inputs));
        })?;
        Ok(Self(queue))
    }

    /// Has it done after what waits already. A job that waits already is not done twice: its one answer is for both.
    /// What waits about an earlier activation is not done any more. `false` when there is no room, which no state of the
    /// machine can bring about.
    pub fn push(&self, job: Job) -> bool {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|other| !other.is_overtaken_by(&job));
        if waiting.contains(&job) {
            return true;
        }
        if waiting.len() >= JOBS_MAX {
            return false;
        }
        waiting.push_back(job);
        self.0.pushed.notify_one();
        true
    }
}

impl Queue {
    fn pop(&self) -> Option<Job> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

async fn work<B: ActivationBackend>(
    backend: &B,
    queue: &Queue,
    voice: &Arc<dyn Observer>,
    inputs: &mpsc::Sender<Input>,
) {
    loop {
        let Some(job) = queue.pop() else {
            // A push between the look and the wait leaves a permit, so it is not missed.
            queue.pushed.notified().await;
            continue;
        };
        let told = match job {
            Job::TidyUp { ours } => {
                tidy_up(backend, ours.as_ref(), voice).await;
                Some(Input::LookAgain)
            }
            Job::Activate(intent) => Some(activate(backend, *intent, voice, inputs).await),
            Job::Commit(id) => Some(commit(backend, &id, voice, inputs).await),
            Job::Revert(order) => Some(revert(backend, *order, voice, inputs).await),
            Job::TakeUp(id) => Some(take_up(backend, &id, voice, inputs).await),
        };
        // Closed: the reducer is gone, and so are we in a moment.
        if let Some(told) = told
            && inputs.send(told).await.is_err()
        {
            return;
        }
    }
}

/// Tells the reducer of the steps of one activation, and people of everything.
struct Teller {
    id: ActivationId,
    voice: Arc<dyn Observer>,
    inputs: mpsc::Sender<Input>,
}

impl Teller {
    fn of(id: &ActivationId, voice: &Arc<dyn Observer>, inputs: &mpsc::Sender<Input>) -> Arc<dyn Observer> {
        Arc::new(Self { id: id.clone(), voice: Arc::clone(voice), inputs: inputs.clone() })
    }
}

impl Observer for Teller {
    fn step(&self, step: Step) {
        self.voice.step(step);
        let (id, at_ms) = (self.id.clone(), clock::unix_ms());
        // Full: a step is only progress, and the end of the activation says more.
        let _ = self.inputs.try_send(Input::Told(Event::LocalActivationAdvanced { id, step, at_ms }));
    }
    fn fetched(&self, progress: Progress) {
        self.voice.fetched(progress);
    }
    fn remark(&self, weight: Weight, text: &str) {
        self.voice.remark(weight, text);
    }
}

async fn activate<B: ActivationBackend>(
    backend: &B,
    intent: ActivationIntent,
    voice: &Arc<dyn Observer>,
    inputs: &mpsc::Sender<Input>,
) -> Input {
    // Closed: the answer finds that out too.
    let _ = inputs.send(Input::Told(started(&intent))).await;
    let mut target = ActivationTarget::from_intent(&intent);
    target.observer = Teller::of(&intent.id, voice, inputs);
    if target.commit == CommitPolicy::AfterConfirm {
        // The machine confirms, as a person would; until then the deadman waits.
        target.confirm_by = ConfirmBy::Person;
    }
    let ended = activate_with(backend, &target).await;
    Input::Told(event_of(ended, clock::unix_ms()))
}

async fn commit<B: ActivationBackend>(
    backend: &B,
    id: &ActivationId,
    voice: &Arc<dyn Observer>,
    inputs: &mpsc::Sender<Input>,
) -> Input {
    let teller = Teller::of(id, voice, inputs);
    tell(backend, id, recovery::commit_one(backend, id, &teller).await)
}

async fn revert<B: ActivationBackend>(
    backend: &B,
    order: RevertOrder,
    voice: &Arc<dyn Observer>,
    inputs: &mpsc::Sender<Input>,
) -> Input {
    let RevertOrder { id, back, to, failure } = order;
    let teller = Teller::of(&id, voice, inputs);
    match back {
        Back::Uncommitted => {
            let go_back = async || recovery::revert_one(backend, (&id, failure.clone()), &teller).await;
            tell(backend, &id, with_lock(Some(REVERT_WAITS), voice, go_back).await)
        }
        Back::Committed => {
            let mut target = ActivationTarget::new(id, to);
            (target.purpose, target.commit) = (Purpose::Rollback, CommitPolicy::Immediately);
            // It ran here before: neither its units nor a key that was rotated since may stop the way back.
            (target.on_failed_units, target.unsigned) = (OnFailedUnits::Keep, Unsigned::Accept);
            target.observer = teller;
            Input::Told(event_of(activate_with(backend, &target).await, clock::unix_ms()))
        }
    }
}

/// Waits for the lock for as long as it takes: whoever has it works on this very activation (the deadman), or is a person
/// whose switch ends. To say that nothing could be taken up would say that nothing had changed.
async fn take_up<B: ActivationBackend>(
    backend: &B,
    id: &ActivationId,
    voice: &Arc<dyn Observer>,
    inputs: &mpsc::Sender<Input>,
) -> Input {
    let teller = Teller::of(id, voice, inputs);
    let look = async || recovery::take_up_one(backend, id, &teller).await;
    tell(backend, id, with_lock(None, voice, look).await)
}

/// Tries again for as long as somebody else holds the lock, for `patience` at most.
async fn with_lock(
    patience: Option<Duration>,
    voice: &Arc<dyn Observer>,
    act: impl AsyncFn() -> Result<TakenUp, Failure>,
) -> Result<TakenUp, Failure> {
    let since = tokio::time::Instant::now();
    let mut said = false;
    loop {
        match act().await {
            Err(Failure::Busy { with }) if patience.is_none_or(|patience| since.elapsed() < patience) => {
                if !said {
                    voice.remark(Weight::Note, &format!("waiting for the activation lock: {with}"));
                    said = true;
                }
                sleep(LOCK_AGAIN).await;
            }
            ended => return ended,
        }
    }
}

fn tell<B: ActivationBackend>(backend: &B, id: &ActivationId, taken_up: Result<TakenUp, Failure>) -> Input {
    let at_ms = clock::unix_ms();
    let failed = |failure| Event::LocalActivationFailed { failure, outcome: None, at_ms };
    Input::Told(match taken_up {
        Ok(TakenUp::Stands(outcome)) => event_of(Ok(*outcome), at_ms),
        Ok(TakenUp::Unknown) => lost(backend, id).map_or_else(failed, |lost| event_of(Ok(lost), at_ms)),
        Err(failure) => failed(failure),
    })
}

/// The outcome of an activation that the machine remembers and the journal does not: nobody knows what was done, so it
/// counts as a way back that failed, and somebody looks. `Err` where not even what runs can be read.
fn lost<B: ActivationBackend>(backend: &B, id: &ActivationId) -> Result<ActivationOutcome, Failure> {
    let failure = Failure::Internal { what: format!("the activation journal does not know {id} any more") };
    let Some(runs) = backend.host().current() else { return Err(failure) };
    Ok(ActivationOutcome {
        id: id.clone(),
        target: runs,
        previous: None,
        generation: None,
        verdict: Verdict::RevertFailed { failure: failure.clone(), revert: failure },
        warnings: Vec::new(),
        reboot_needed: Vec::new(),
        steps: Vec::new(),
    })
}

async fn tidy_up<B: ActivationBackend>(backend: &B, ours: Option<&ActivationId>, voice: &Arc<dyn Observer>) {
    match recovery::recover_others(backend, ours, voice).await {
        Ok(Some(ActivationOutcome { verdict, target, .. })) => {
            voice.remark(Weight::of(&verdict), &format!("{verdict}: {target}"));
        }
        // A person's activation that goes on.
        Ok(None) | Err(Failure::Busy { .. }) => {}
        Err(failure) => voice.remark(Weight::Error, &format!("error: {failure}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_waits_is_not_doubled_and_one_about_an_earlier_activation_is_overtaken() {
        let jobs = Jobs(Arc::default());
        let (first, second) = (ActivationId::new(1, 1), ActivationId::new(2, 2));
        let tidy = Job::TidyUp { ours: Some(first.clone()) };
        for job in [Job::TakeUp(first.clone()), Job::TakeUp(first.clone()), tidy.clone(), Job::Commit(first)]
        {
            assert!(jobs.push(job));
        }
        assert_eq!(jobs.0.waiting.lock().expect("nobody panicked").len(), 3);
        assert!(jobs.push(Job::Commit(second.clone())));
        assert_eq!([jobs.0.pop(), jobs.0.pop(), jobs.0.pop()], [Some(tidy), Some(Job::Commit(second)), None]);
    }
}
