//! Somebody else holds the control plane: serves what he likes, orders what he likes, and says of reports what he likes. He has no
//! key. What he can do is to delay.

use std::sync::Arc;

use nixfleet_core::model::names::ReleaseId;
use nixfleet_core::wire::{EventsTaken, Order, Then, Wish};

use crate::sim::{Happens, Sim};
use crate::truth::Signed;
use crate::wire::{Answer, Ask, Request};

impl Sim {
    /// He comes, or is thrown out; the owner's process is started anew then.
    pub(crate) fn thief(&mut self, comes: bool) {
        if comes == self.plane.thief || (comes && self.is_calm) {
            return;
        }
        self.note(None, || format!("the thief {}", if comes { "comes" } else { "is thrown out" }));
        self.plane.thief = comes;
        self.plane.was_tampered = true;
        if comes {
            self.counts.thieves += 1;
            let stays = self.story.rates.thief.unwrap_or(0);
            self.queue.push(self.now + stays, Happens::Thief(false));
        } else {
            // To take a machine back takes minutes, so nobody's poll misses it.
            self.stop_plane((120_000, 600_000));
        }
    }

    /// What the host is offered when it looks.
    pub(crate) fn serves(&mut self, host: usize) -> Option<Arc<Signed>> {
        let channel = self.hosts[host].channel;
        // He sits on the way to the web server now and then.
        let web = self.is_static(host);
        if !self.plane.thief || (web && !self.dice.chance(300)) {
            return if web { self.web.served[channel].clone() } else { self.plane.served[channel].clone() };
        }
        let signed = &self.truth.signed[channel];
        match self.dice.below(4) {
            // Old, and signed once.
            0 | 1 => signed.get(self.dice.index(signed.len().max(1))).cloned(),
            2 => {
                let seq = self.dice.pick(&[1, 2, 3, 1_000]);
                let known = self.forged.entry((channel, seq));
                let forged = known.or_insert_with(|| self.truth.forge(&self.story, channel, seq, self.now));
                Some(Arc::clone(forged))
            }
            // Another channel's.
            _ => self.truth.signed.iter().rev().find_map(|other| other.last().cloned()),
        }
    }

    pub(crate) fn thief_answers(&mut self, request: &Request) {
        let lie = self.dice.pick(&[0, 1, 2, 7, 5_000]);
        match &request.what {
            Ask::Events(records) => {
                let next = records.first().map_or(1, |first| first.seq) + lie;
                let then = if self.dice.chance(300) { Then::SendState } else { Then::GoOn };
                self.answer(request, Answer::Taken(EventsTaken { next, then }));
            }
            Ask::Hello { state, .. } => {
                let taken = EventsTaken { next: (state.seq + 1).saturating_sub(lie), then: Then::GoOn };
                self.answer(request, Answer::Taken(taken));
            }
            Ask::Poll { after } if self.dice.chance(120) => {
                let after = *after;
                self.hosts[request.host].seen.was_misled = true;
                let orders = (1..=self.dice.between(1, 3))
                    .map(|number| Order {
                        number: after + number * lie.max(1),
                        what: self.evil_wish(request.host),
                    })
                    .collect();
                self.answer(request, Answer::Orders(orders));
            }
            Ask::Poll { .. } => {
                let span = self.story.poll_for / 4;
                self.holds(request.clone(), span);
            }
        }
    }

    fn evil_wish(&mut self, host: usize) -> Wish {
        let release = self.some_release(host);
        match self.dice.below(12) {
            0..=2 => Wish::Go { release },
            3 | 4 => Wish::Reboot { release },
            5 => Wish::Withdraw { release },
            6..=8 => Wish::Revert { release },
            9 => Wish::Stage { release },
            10 => Wish::Retry { by: "the thief".to_owned() },
            _ => Wish::Hold { by: "the thief".to_owned(), why: "he likes to".to_owned(), until_ms: None },
        }
    }

    /// One that is known, or one that never was.
    fn some_release(&mut self, host: usize) -> ReleaseId {
        let channel = self.hosts[host].channel;
        let signed = &self.truth.signed[channel];
        let mut id = signed[self.dice.index(signed.len())].id.clone();
        if self.dice.chance(300) {
            id.seq = nixfleet_core::model::names::Seq::MAX;
        }
        id
    }
}
