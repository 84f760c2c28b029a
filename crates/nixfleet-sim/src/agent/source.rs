//! The worker that follows the release source, and what it trusts. What `nixfleet-trust` proves of bytes is known here of ids:
//! whether somebody signed a release is asked of the truth.

use std::sync::Arc;

use nixfleet_core::host::event::Refusal;
use nixfleet_core::host::probing::WatchId;
use nixfleet_core::host::state::Contact;
use nixfleet_core::host::{Event, Terms};
use nixfleet_core::model::time::Secs;

use crate::host::{Input, Trust};
use crate::mistakes::Mistake;
use crate::sim::{Agents, Sim};
use crate::truth::Signed;

/// How far the clock may be behind what was signed.
const AHEAD_MAX: Secs = Secs(60);

/// What a look brought that passed every check.
struct Offer {
    terms: Arc<Terms>,
    trust: Trust,
}

impl Sim {
    /// An ordinary look.
    pub(crate) fn looks(&mut self, host: usize) {
        if self.reaches_source(host) {
            self.look(host, None);
            let every = self.story.look_every;
            self.soon(host, (every * 4 / 5, every * 6 / 5), Agents::Looks);
        } else {
            let is_silent = matches!(self.hosts[host].disk.state.source.contact, Contact::Silent { .. });
            if !is_silent {
                self.tell(host, Event::SourceFailed { why: "it does not answer".to_owned() }.into());
            }
            self.soon(host, (5_000, 120_000), Agents::Looks);
        }
    }

    /// A look that an order asks for; the ordinary ones go on as they do.
    pub(crate) fn looks_now(&mut self, host: usize) {
        if self.reaches_source(host) {
            self.look(host, None);
        }
    }

    /// A watch asks over a fresh connection, until it is answered.
    pub(crate) fn proves(&mut self, host: usize, watch: WatchId) {
        let asks = self.hosts[host].agent.as_ref().and_then(|agent| agent.asks);
        if asks != Some(watch) {
            return;
        }
        if !self.reaches_source(host) {
            return self.soon(host, (1_000, 10_000), Agents::Proves(watch));
        }
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.asks = None;
        }
        self.look(host, Some(watch));
    }

    /// Whether a request and its answer would get through now.
    fn reaches_source(&mut self, host: usize) -> bool {
        let net = self.hosts[host].net;
        let lost = self.story.rates.lost;
        let is_up = if self.is_static(host) { self.web.is_up } else { self.balanced() };
        is_up && !net.out_cut && !net.in_cut && !self.goes_wrong(lost)
    }

    /// What the source serves is looked at; the answer itself is told only where it is news.
    fn look(&mut self, host: usize, watch: Option<WatchId>) {
        let answers = matches!(self.hosts[host].disk.state.source.contact, Contact::Answers { .. });
        if watch.is_some() || !answers {
            self.tell(host, Event::SourceAnswered { watch }.into());
        }
        let Some(served) = self.serves(host) else { return };
        let Some(agent) = self.hosts[host].agent.as_mut() else { return };
        if agent.offered.as_ref() == Some(&served.id) {
            return;
        }
        match self.verify(host, &served) {
            Ok(Offer { terms, trust }) => {
                let terms = self.mistaken_terms(host, terms);
                self.hosts[host].agent.iter_mut().for_each(|agent| agent.offered = Some(served.id.clone()));
                if let Some(system) = self.truth.system(&terms.system) {
                    let is_signed = self.truth.is_signed(self.hosts[host].channel, &served.id);
                    if is_signed {
                        self.hosts[host].seen.allowed.insert(system);
                    }
                }
                let (release, system) = (terms.release.clone(), terms.system.clone());
                let event = Event::ReleaseVerified { release, system, resets: 0 };
                self.tell(host, Input { event, terms: Some(terms), trust: Some(trust) });
            }
            Err(kind) => {
                if self.makes(Mistake::ClockRemembered) {
                    let clock = self.hosts[host].machine.now(self.now).at;
                    let trust = &mut self.hosts[host].disk.trust;
                    trust.signed_ms = trust.signed_ms.max(clock);
                }
                let known = self.hosts[host].disk.state.source.refused.as_ref();
                if known.is_none_or(|known| known.kind != kind) {
                    let why = format!("{} is refused", served.id);
                    self.tell(host, Event::ReleaseRefused { kind, why }.into());
                }
            }
        }
    }

    /// The checks of a release and its entry, in the order of `trust.md`.
    fn verify(&self, host: usize, served: &Signed) -> Result<Offer, Refusal> {
        let it = &self.hosts[host];
        let trust = &it.disk.trust;
        if !self.truth.is_signed(it.channel, &served.id) && !self.makes(Mistake::UnsignedTaken) {
            return Err(Refusal::Trust);
        }
        let is_old = trust.floor.as_ref().is_some_and(|floor| {
            served.id.seq < floor.seq || (served.id.seq == floor.seq && served.id.digest != floor.digest)
        });
        if is_old {
            return Err(Refusal::Trust);
        }
        let time = it.machine.now(self.now).at.max(trust.signed_ms);
        if served.current.created_ms > time.plus(AHEAD_MAX) {
            return Err(Refusal::Clock);
        }
        if served.current.expires_ms <= time && !self.makes(Mistake::ExpiredTaken) {
            return Err(Refusal::Expired);
        }
        let terms = served.terms.get(host).and_then(Option::clone).ok_or(Refusal::Trust)?;
        let signed_ms = trust.signed_ms.max(served.current.created_ms);
        Ok(Offer { terms, trust: Trust { floor: Some(served.id.clone()), signed_ms } })
    }
}
