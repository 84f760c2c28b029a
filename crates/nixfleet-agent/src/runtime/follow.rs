//! The loop around the reducer: inputs, the timer, systemd's watchdog.
//!
//! It ends only when it is dropped, which may happen at any of its waits: whatever was taken in was saved by then, and what
//! was not is told again at the next start. A switch that goes on has units of its own and is not touched.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_core::host::event::Event;
use nixfleet_core::host::{HostState, Now};
use nixfleet_core::ids::BootId;
use nixfleet_sys::fs;
use nixfleet_sys::timer::sleep_until;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::desk::HostDesk;
use super::handover::{Due, Handover};
use super::input::Input;
use super::net::Net;
use super::reducer::{Fact, Reducer};
use super::start::Ended;
use super::{notify, recovery, timer};
use crate::activation::ActivationBackend;
use crate::activation::types::{Observer, Weight};
use crate::source::look::{Moved, Offer};
use nixfleet_sys::text::chain;

/// Between two attempts to write what could not be written. Nothing is done meanwhile; on trial the deadman is armed.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// What is said of a configuration that was changed for the worse.
const UNREADABLE: &str = "error: the configuration has changed, and no agent could follow by it: this one goes on with what \
                          it has read, and none would come up after a reboot (`nixfleet-agent check` says what to mend)";

/// A reducer with everything around it.
pub struct Following<B> {
    backend: Arc<B>,
    reducer: Reducer<HostDesk<B>>,
    inputs: mpsc::Receiver<Input>,
    boot: BootId,
    voice: Arc<dyn Observer>,
    handover: Option<Handover>,
    /// What systemd was told last.
    said: String,
    /// When the watchdog wants to hear from us next, and how often.
    alive: Option<(Instant, Duration)>,
    net: Net,
}

impl<B: ActivationBackend + Send + 'static> Following<B> {
    /// Ready to go on from what was saved.
    pub fn new(
        (backend, voice): (Arc<B>, Arc<dyn Observer>),
        (reducer, handover): (Reducer<HostDesk<B>>, Option<Handover>),
        inputs: mpsc::Receiver<Input>,
        (boot, net): (BootId, Net),
    ) -> Self {
        let alive = notify::alive_every().map(|every| (Instant::now(), every));
        Self { backend, reducer, inputs, boot, voice, handover, said: String::new(), alive, net }
    }

    /// Takes the first event in, then whatever comes, until another process is to go on.
    pub async fn run(mut self, first: Event) -> Ended {
        self.take(first.into()).await;
        loop {
            let state = self.reducer.state();
            match self.handover.as_mut().map_or(Due::No, |handover| handover.due(state)) {
                Due::No => {}
                Due::Now(successor) => return Ended::HandedOver(successor),
                Due::Unreadable => self.voice.remark(Weight::Error, UNREADABLE),
            }
            let wake = timer::until(self.reducer.wake(), Instant::now(), self.net);
            let alive = self.alive;
            tokio::select! {
                // Safe to cancel: nothing is taken from the channel until the branch is.
                input = self.inputs.recv() => match input {
                    Some(input) => self.input(input).await,
                    None => return Ended::WorkersGone,
                },
                // Safe to cancel: it is worked out anew each time.
                () = sleep_until(wake) => self.take(Event::Woke.into()).await,
                // Safe to cancel: the time is kept.
                () = sleep_until(alive.map_or(wake, |(at, _)| at)), if alive.is_some() => self.tell_alive(),
            }
        }
    }

    async fn input(&mut self, input: Input) {
        match input {
            Input::Told(event) => self.take(event.into()).await,
            Input::Offered(offer) => {
                let Offer { moved, terms } = *offer;
                // The root first: a release counts as verified under the one in force.
                self.trust_moved(moved).await;
                let (release, system) = (terms.release.clone(), terms.system.clone());
                let event = Some(Event::ReleaseVerified { release, system, resets: terms.resets });
                self.take(Fact { event, terms: Some(Box::new(terms)), trust: None }).await;
            }
            Input::TrustMoved(moved) => self.trust_moved(*moved).await,
            Input::LookAgain => self.look_again().await,
            Input::TidyUp => {
                // It ends in another look, and not in another `TidyUp`, or the two would never end.
                let ours = self.reducer.in_flight().cloned();
                self.reducer.desk().tidy_up(ours);
                self.look_again().await;
            }
            Input::Errand(errand) => {
                let (desk, state) = self.reducer.desk_and_state();
                desk.run_errand(errand, state);
                // What the control plane has may make room at the cost of what it has not.
                self.tell_owed().await;
            }
            Input::Asked { event, request } => {
                self.take(event.into()).await;
                if let Err(error) = fs::remove(&request) {
                    self.voice.remark(Weight::Error, &format!("error: {}", chain(&error)));
                }
            }
        }
    }

    /// Saves what is trusted now, together with the root if that is another one.
    async fn trust_moved(&mut self, Moved { trust, root }: Moved) {
        let known = self.reducer.state().root.as_ref().map(|known| known.terms);
        let event = (known != Some(root)).then_some(Event::RootAccepted { root });
        self.take(Fact { event, terms: None, trust: Some(trust) }).await;
    }

    /// Somebody may have changed what runs.
    async fn look_again(&mut self) {
        let world = recovery::look(&*self.backend, &self.boot);
        if world != self.reducer.state().world {
            self.take(Event::SystemChanged { world }.into()).await;
        }
    }

    /// One turn of the reducer, and one more where the outbox lost reports in it: nothing is sent in between.
    async fn take(&mut self, fact: Fact) {
        self.turn(fact).await;
        self.tell_owed().await;
    }

    async fn tell_owed(&mut self) {
        if let Some(owed) = self.reducer.owed() {
            self.turn(owed).await;
        }
    }

    /// One turn. What cannot be written is tried again for as long as it takes.
    async fn turn(&mut self, fact: Fact) {
        let now = timer::now();
        let (mut prepared, refused) = self.reducer.prepare(fact, now);
        if let Some(refused) = refused {
            self.voice.remark(Weight::Warning, &format!("not taken: {refused}"));
        }
        let mut told = false;
        while let Err(error) = self.reducer.persist(&mut prepared) {
            if !told {
                let why = format!("error: {}; nothing is done until it is written", chain(&error));
                self.voice.remark(Weight::Error, &why);
                notify::status("cannot write its state; nothing is done until it can");
                self.said.clear();
                told = true;
            }
            self.nap(WRITE_AGAIN).await;
        }
        let before = self.reducer.finish(prepared);
        self.tell(&before, now);
    }

    /// Sleeps, and keeps the watchdog quiet: to wait for room on a disk is not to hang.
    async fn nap(&mut self, span: Duration) {
        let until = Instant::now() + span;
        while Instant::now() < until {
            self.tell_alive();
            let next = self.alive.map_or(until, |(at, _)| at.min(until));
            sleep_until(next).await;
        }
    }

    fn tell_alive(&mut self) {
        if let Some((at, every)) = &mut self.alive
            && *at <= Instant::now()
        {
            notify::alive();
            *at = self.net.not_after(Instant::now() + *every);
        }
    }

    /// What people are told: the state in a sentence where it is shown, and a line in the journal when it changed.
    fn tell(&mut self, before: &HostState, now: Now) {
        let state = self.reducer.state();
        let sentence = notify::sentence(state, now);
        let moved = before.phase.name() != state.phase.name()
            || before.phase.target().map(|terms| &terms.release)
                != state.phase.target().map(|terms| &terms.release);
        if moved {
            self.voice.remark(notify::weight(&state.phase), &sentence);
        }
        for (weight, line) in notify::news_of_the_source(&before.source, &state.source) {
            self.voice.remark(weight, &line);
        }
        if sentence != self.said {
            notify::status(&sentence);
            self.said = sentence;
        }
    }
}
