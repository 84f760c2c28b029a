//! Which hosts the groups of a policy mean, asked of each host once.
//!
//! Budgets and edges name their groups by selectors, and all of them ask again and again. So each selector gets a number
//! and each host one bit for it. Groups that budgets of the whole fleet count have the same low numbers in all channels.

use std::collections::HashMap;

use crate::model::policy::{Policy, Scope};
use crate::model::select::Selector;
use crate::rollout::hosts::Hosts;
use crate::rollout::snapshot::Snapshot;

/// The number of a group: one of the fleet, if it is below [`Groups::of_fleet`].
pub(super) type Group = usize;

const BITS: usize = u64::BITS as usize;

/// The groups that some budget of the whole fleet counts, by number.
pub(super) fn of_fleet(snapshot: &Snapshot) -> Vec<&Selector> {
    let mut out = Numbered::default();
    let budgets = snapshot.channels.values().flat_map(|channel| &channel.current.policy.max_in_flight);
    for budget in budgets.filter(|budget| budget.scope == Scope::Fleet) {
        out.number(&budget.hosts);
    }
    out.selectors
}

#[derive(Default)]
struct Numbered<'a> {
    selectors: Vec<&'a Selector>,
    numbers: HashMap<&'a Selector, Group>,
}

impl<'a> Numbered<'a> {
    fn number(&mut self, selector: &'a Selector) -> Group {
        let next = self.selectors.len();
        let number = *self.numbers.entry(selector).or_insert(next);
        if number == next {
            self.selectors.push(selector);
        }
        number
    }
}

/// The groups of a channel and of the fleet, over the hosts of the channel.
pub(super) struct Groups {
    /// How many there are.
    count: usize,
    /// How many of these are of the fleet.
    pub(super) of_fleet: usize,
    /// The group of each budget of the policy.
    pub(super) budgets: Vec<Group>,
    /// The groups of each edge of the policy: who waits, and for whom.
    pub(super) edges: Vec<(Group, Group)>,
    /// So many words for each host.
    words: usize,
    bits: Vec<u64>,
}

impl Groups {
    /// Asks every selector about every host.
    pub(super) fn new(policy: &Policy, hosts: &Hosts, fleet: &[&Selector]) -> Self {
        let mut known = Numbered::default();
        for selector in fleet {
            known.number(selector);
        }
        let budgets = policy.max_in_flight.iter().map(|budget| known.number(&budget.hosts)).collect();
        let edges = policy.edges.iter().map(|edge| (known.number(&edge.hosts), known.number(&edge.after)));
        let edges = edges.collect();
        let words = known.selectors.len().div_ceil(BITS);
        let mut bits = Vec::with_capacity(words * hosts.len());
        for (name, host) in hosts {
            for some in known.selectors.chunks(BITS) {
                let means = |word: u64, (bit, selector): (usize, &&Selector)| {
                    word | u64::from(selector.means(name, &host.placed.tags)) << bit
                };
                bits.push(some.iter().enumerate().fold(0, means));
            }
        }
        Self { count: known.selectors.len(), of_fleet: fleet.len(), budgets, edges, words, bits }
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether the group means the host at `place`.
    pub(super) fn means(&self, group: Group, place: usize) -> bool {
        let word = self.bits.get(place * self.words + group / BITS).copied().unwrap_or(0);
        word >> (group % BITS) & 1 == 1
    }

    /// All groups that mean the host at `place`.
    pub(super) fn of(&self, place: usize) -> impl Iterator<Item = Group> {
        let words = self.bits.iter().skip(place * self.words).take(self.words);
        words.enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(at * BITS + bit)
            })
        })
    }
}
