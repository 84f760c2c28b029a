//! One step: an event in, the next state out, with what to ask for and what the machine decides next.
//!
//! Here is what is the same in every state; the files below have one state each: what it makes of a fact (`told`), what
//! it decides (`decide`), and what it waits for (`waits`). [`decided`] carries decisions out. Nothing here reads a
//! clock; a decision needs time and time zones, carrying it out does not.

mod activating;
mod awaiting_reboot;
mod confirming;
mod converged;
mod decided;
mod draft;
mod failed;
mod reverted;
mod reverting;
mod soaking;
mod staged;
mod staging;
mod told;

use super::event::{Event, Refusal};
use super::gate::Waits;
use super::phase::{Phase, Rebooted, StateName};
use super::state::{Contact, Hold, HostState, Refused as RefusedOffer, Source};
use super::terms::Terms;
use super::time::Now;
use super::trusted::{accepted, began_under, forget, verified};
use super::waiting::WaitingOn;
use super::world::{Setup, World};
use crate::model::names::{ChannelName, ReleaseId, Seq};
use crate::model::time::UnixMs;

use super::effect::Effect;
use draft::Draft;
use told::Told;

/// What a step needs beside state, event and time.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// A number of the host's own, from [`super::retry::seed_of`].
    pub seed: u64,
    /// What the release says that a `ReleaseVerified` names; other events need none.
    pub terms: Option<&'a Terms>,
}

/// What follows from one event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the next state is to be saved, and the effects to be performed"]
pub struct Step {
    /// The next state: to be saved before anything else.
    pub next: HostState,
    /// What to ask for, in this order.
    pub effects: Vec<Effect>,
    /// When the machine wants to be woken, by the clock of the `now` that was given; the runtime sleeps for the
    /// difference, in time since boot.
    pub wake_at: Option<UnixMs>,
    /// What the machine decides next: to be stepped through at once, before any other event. Whoever only follows a host
    /// does not look at it, since the host reports it.
    pub then: Option<Event>,
}

/// Why an event is not taken. The state is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing is known of a host whose agent never started.
    #[error("{event} came before the agent's first start")]
    NotStarted {
        /// The event.
        event: &'static str,
    },
    /// The terms of the release did not come with it.
    #[error("release {release} was named without its terms")]
    NoTerms {
        /// The release.
        release: ReleaseId,
    },
    /// It is of a channel that this host does not follow.
    #[error("release {release} is not of channel {follows}, which this host follows")]
    OtherChannel {
        /// The release.
        release: ReleaseId,
        /// What is followed.
        follows: ChannelName,
    },
    /// A newer one is known.
    #[error("release {release} is older than {have}, which is known here")]
    Older {
        /// The release.
        release: ReleaseId,
        /// What is known.
        have: Seq,
    },
    /// Another release has the same number.
    #[error("two releases are called {release}")]
    SameNumberOtherContents {
        /// The release.
        release: ReleaseId,
    },
    /// A decision does not fit to the state: it was not the machine that took it, or events before it are missing.
    #[error("{event} cannot follow while the host is {state}")]
    NotNow {
        /// The decision.
        event: &'static str,
        /// The state.
        state: StateName,
    },
    /// Reports were lost, so nobody who only has those before them can go on.
    #[error("the reports from {from} on are lost")]
    Lost {
        /// The first.
        from: u64,
    },
    /// A state was told that is not the one that is known here.
    #[error("the state that was told is not the one that is known here")]
    OtherState,
}

/// What follows from `event`, which was taken in at `now`. Total: each event has an answer in each state.
pub fn step(state: &HostState, event: &Event, context: &Context<'_>, now: Now) -> Result<Step, Refused> {
    let mut draft = Draft::new(state, context, now);
    apply(&mut draft, event)?;
    let (mut next, effects) = draft.done();
    // What tells the state changes nothing else, and has a number of its own so that it has a place in the log.
    if next != *state || matches!(event, Event::StateTold { .. }) {
        next.seq = state.seq + 1;
    }
    let (wake_at, then) = (waits(&next, now).until, decide(&next, now));
    Ok(Step { next, effects, wake_at, then })
}

/// What is the same in every state, and then what this state makes of it.
fn apply(draft: &mut Draft<'_>, event: &Event) -> Result<(), Refused> {
    if draft.state.setup.is_none() && !matches!(event, Event::AgentStarted { .. }) {
        return Err(Refused::NotStarted { event: event.name() });
    }
    match event {
        Event::AgentStarted { setup, world, journal, root } => {
            let rebooted = agent_started(draft, setup, world);
            if let Some(root) = root {
                began_under(&mut draft.state.root, *root);
            }
            tell(draft, &Told::Started { rebooted, journal: journal.as_ref() });
        }
        Event::SystemChanged { world } => {
            draft.state.world = world.clone();
            tell(draft, &Told::WorldChanged);
        }
        Event::Woke => {}
        Event::SourceAnswered { watch } => {
            source_answered(&mut draft.state.source, draft.now.at);
            if let Some(watch) = watch {
                tell(draft, &Told::SourceProven(*watch));
            }
        }
        Event::SourceFailed { why } => source_failed(&mut draft.state.source, why, draft.now.at),
        Event::RootAccepted { root } => accepted(&mut draft.state.root, *root),
        Event::ReleaseVerified { release, resets, system: _ } => release_verified(draft, release, *resets)?,
        Event::ReleaseRefused { kind, why } => {
            release_refused(&mut draft.state.source, *kind, why, draft.now.at);
        }
        Event::OrderedToGo { release } => {
            let newest = draft.state.newest.as_deref();
            order(&mut draft.state.go, release, newest);
            // It comes after one to go back from there, which was given to a host that did not run it.
            draft.state.revert_go.take_if(|from| from == release);
        }
        Event::OrderedToReboot { release } => {
            let newest = draft.state.newest.as_deref();
            order(&mut draft.state.reboot_go, release, newest);
        }
        Event::OrderedToRevert { release } => {
            let newest = draft.state.newest.as_deref();
            order(&mut draft.state.revert_go, release, newest);
        }
        Event::OrderWithdrawn { release } => {
            let state = &mut draft.state;
            for order in [&mut state.go, &mut state.reboot_go, &mut state.revert_go] {
                order.take_if(|order| order == release);
            }
            awaiting_reboot::leave_taken_back(draft);
        }
        Event::Held { by, why, until_ms } => {
            draft.state.hold = Some(Hold { by: by.clone(), why: why.clone(), until_ms: *until_ms });
        }
        Event::Unheld { by: _ } => draft.state.hold = None,
        Event::TargetStaged { .. }
        | Event::StageFailed { .. }
        | Event::RetryAsked { .. }
        | Event::LocalActivationStarted { .. }
        | Event::LocalActivationAdvanced { .. }
        | Event::LocalActivationCompleted { .. }
        | Event::LocalActivationFailed { .. }
        | Event::LocalActivationDeferred { .. }
        | Event::ProbeReported(_)
        | Event::HooksRan { .. }
        | Event::HookFailed { .. }
        | Event::RebootRefused { .. } => {
            if let Some(told) = Told::of(event) {
                tell(draft, &told);
            }
        }
        Event::StagingBegan { release, attempt } => {
            decided::staging_began(draft, event, (release, *attempt))?;
        }
        Event::WentAhead { release, id } => decided::went_ahead(draft, event, (release, id))?,
        Event::TargetAdopted { release } => decided::adopted(draft, event, release)?,
        Event::TargetWithdrawn { id, newer: _ } => decided::withdrawn(draft, event, id)?,
        Event::ProbesPassed { watch } => decided::probes_passed(draft, event, *watch)?,
        Event::RevertBegan { id, failure } => decided::revert_began(draft, event, (id, failure))?,
        Event::SoakPassed { watch } => decided::soak_passed(draft, event, *watch)?,
        Event::SoakFailed { failure } => decided::soak_failed(draft, event, failure)?,
        Event::RebootBegan { release } => decided::reboot_began(draft, event, release)?,
        Event::RebootOverdue => decided::reboot_overdue(draft, event)?,
        Event::ReportsLost { from } => return Err(Refused::Lost { from: *from }),
        Event::StateTold { state } => {
            if **state != *draft.before {
                return Err(Refused::OtherState);
            }
        }
    }
    Ok(())
}

fn tell(draft: &mut Draft<'_>, told: &Told<'_>) {
    match &draft.before.phase {
        Phase::Converged => converged::told(draft, told),
        Phase::Staging(at) => staging::told(draft, at, told),
        Phase::Staged(at) => staged::told(draft, at, told),
        Phase::Activating(at) => activating::told(draft, at, told),
        Phase::AwaitingReboot(at) => awaiting_reboot::told(draft, at, told),
        Phase::Confirming(at) => confirming::told(draft, at, told),
        Phase::Soaking(at) => soaking::told(draft, at, told),
        Phase::Reverting(at) => reverting::told(draft, at, told),
        Phase::Reverted(at) => reverted::told(draft, at, told),
        Phase::Failed(at) => failed::told(draft, at, told),
    }
}

/// What the machine decides in this state at this time, if anything. Pure in both: asked again, it says the same.
fn decide(state: &HostState, now: Now) -> Option<Event> {
    state.setup.as_ref()?;
    match &state.phase {
        Phase::Converged => converged::decide(state, now),
        Phase::Staging(at) => staging::decide(state, at),
        Phase::Staged(at) => staged::decide(state, at, now),
        Phase::Activating(_) => None,
        Phase::AwaitingReboot(at) => awaiting_reboot::decide(state, at, now),
        Phase::Confirming(at) => confirming::decide(at, now),
        Phase::Soaking(at) => soaking::decide(state, at, now),
        Phase::Reverting(at) => reverting::decide(state, at, now),
        Phase::Reverted(at) => reverted::decide(state, at),
        Phase::Failed(at) => failed::decide(state, at, now),
    }
}

/// What this state waits for, and until when without being told.
pub(super) fn waits(state: &HostState, now: Now) -> Waits {
    if state.setup.is_none() {
        return Waits::for_news(WaitingOn::AgentStart);
    }
    match &state.phase {
        Phase::Converged => converged::waits(state, now),
        Phase::Staging(at) => staging::waits(at),
        Phase::Staged(at) => staged::waits(state, at, now),
        Phase::Activating(at) => activating::waits(at),
        Phase::AwaitingReboot(at) => awaiting_reboot::waits(state, at, now),
        Phase::Confirming(at) => confirming::waits(at, now),
        Phase::Soaking(at) => soaking::waits(at, now),
        Phase::Reverting(at) => reverting::waits(state, at, now),
        Phase::Reverted(_) => reverted::waits(),
        Phase::Failed(at) => failed::waits(at, now),
    }
}

/// Takes in who the agent is and what it found; says whether the host was booted since.
fn agent_started(draft: &mut Draft<'_>, setup: &Setup, world: &World) -> bool {
    let state = &mut draft.state;
    let first = state.setup.is_none();
    let rebooted = !first && state.world.boot != world.boot;
    if state.setup.as_ref().is_some_and(|before| before.channel != setup.channel) {
        // Numbers of two channels cannot be compared; what is verified next counts. Floors are kept by the trust state.
        (state.newest, state.go, state.reboot_go, state.revert_go) = (None, None, None, None);
        forget(&mut state.root);
    }
    (state.setup, state.world) = (Some(setup.clone()), world.clone());
    if let Some(done) = state.settled.as_mut().filter(|_| rebooted)
        && state.world.booted.as_ref() == Some(&done.terms.system)
    {
        done.rebooted = Rebooted::Yes;
    }
    if first {
        state.since_ms = draft.now.at;
    }
    rebooted
}

fn source_answered(source: &mut Source, at: UnixMs) {
    match source.contact {
        Contact::Answers { .. } => {}
        Contact::NotAsked | Contact::Silent { .. } => source.contact = Contact::Answers { since_ms: at },
    }
}

fn source_failed(source: &mut Source, why: &str, at: UnixMs) {
    match source.contact {
        Contact::Silent { .. } => {}
        Contact::NotAsked | Contact::Answers { .. } => {
            source.contact = Contact::Silent { since_ms: at, why: why.to_owned() };
        }
    }
}

fn release_refused(source: &mut Source, kind: Refusal, why: &str, at: UnixMs) {
    if source.refused.as_ref().is_none_or(|known| known.kind != kind) {
        source.refused = Some(RefusedOffer { kind, why: why.to_owned(), since_ms: at });
    }
}

fn release_verified(draft: &mut Draft<'_>, release: &ReleaseId, resets: u32) -> Result<(), Refused> {
    let terms = draft.context.terms.filter(|terms| terms.release == *release);
    let follows = draft.state.setup.as_ref().map(|setup| &setup.channel);
    if let Some(follows) = follows.filter(|channel| **channel != release.channel) {
        return Err(Refused::OtherChannel { release: release.clone(), follows: follows.clone() });
    }
    if is_news(draft.state.newest.as_deref(), release, resets)? {
        let terms = terms.ok_or_else(|| Refused::NoTerms { release: release.clone() })?;
        if draft.state.newest.as_deref().is_some_and(|have| have.resets < resets) {
            // Orders compare by number, and those of before the reset would stand in the way of all that come.
            let state = &mut draft.state;
            (state.go, state.reboot_go, state.revert_go) = (None, None, None);
        }
        draft.state.newest = Some(Box::new(terms.clone().after_resets(resets)));
    }
    verified(&mut draft.state, release);
    draft.state.source.refused = None;
    Ok(())
}

/// Whether a verified release is one that was not known yet.
fn is_news(have: Option<&Terms>, release: &ReleaseId, resets: u32) -> Result<bool, Refused> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let Some(have) = have else { return Ok(true) };
    match (resets, release.seq).cmp(&(have.resets, have.release.seq)) {
        Greater => Ok(true),
        Equal if have.release == *release => Ok(false),
        Equal => Err(Refused::SameNumberOtherContents { release: release.clone() }),
        Less => Err(Refused::Older { release: release.clone(), have: have.release.seq }),
    }
}

/// An order stays until a newer one; an older one that comes late is not taken (lesson 25). One for the newest release
/// that was verified here is always taken: nobody signs orders, and one with a number that no release has would
/// otherwise stand in the way of all that come, even when the control plane is its owner's again.
fn order(have: &mut Option<ReleaseId>, release: &ReleaseId, newest: Option<&Terms>) {
    let older = |have: &ReleaseId| have.channel == release.channel && have.seq > release.seq;
    let is_newest = newest.is_some_and(|newest| newest.release == *release);
    if is_newest || !have.as_ref().is_some_and(older) {
        *have = Some(release.clone());
    }
}
