//! The outbox of a host as the agent keeps it (`runtime/outbox.rs` there), counted in records instead of bytes.

use std::collections::VecDeque;

use nixfleet_core::host::event::Weight;
use nixfleet_core::host::follow::RECORD_FORMAT;
use nixfleet_core::host::{Event, Record};

/// What is reported, on disk.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    records: VecDeque<Record>,
    /// Up to there the receiver has everything.
    pub(crate) acknowledged: u64,
    newest: u64,
}

impl Outbox {
    pub(crate) fn append(&mut self, records: &[Record], max: usize) {
        self.records.extend(records.iter().cloned());
        self.newest = self.records.back().map_or(self.newest, |record| record.seq);
        if self.records.len() > max {
            self.tidy(max / 2);
        }
    }

    /// What was acknowledged goes first, then progress; a verdict that nobody has never goes.
    fn tidy(&mut self, keep: usize) {
        let acknowledged = self.acknowledged;
        let mut over = self.records.len().saturating_sub(keep);
        for goes in [true, false] {
            self.records.retain(|record| {
                let told = record.seq <= acknowledged;
                let may_go = if goes { told } else { !told && record.fact.weight() == Weight::Progress };
                let stays = over == 0 || !may_go;
                over -= usize::from(!stays);
                stays
            });
        }
    }

    /// What a crash left behind the saved state was neither acted upon nor sent.
    pub(crate) fn drop_after(&mut self, saved: u64) {
        while self.records.back().is_some_and(|record| record.seq > saved) {
            self.records.pop_back();
        }
        self.newest = saved;
        self.acknowledged = self.acknowledged.min(saved);
    }

    /// The oldest that nobody acknowledged; where some are gone, one that says so.
    pub(crate) fn unsent(&self, max: usize) -> Vec<Record> {
        let mut out = Vec::new();
        let mut before = self.acknowledged;
        let from = self.records.partition_point(|record| record.seq <= before);
        for record in self.records.range(from..).take(max) {
            if record.seq > before + 1 {
                out.push(lost(before + 1, record.seq - 1, record));
            }
            before = record.seq;
            out.push(record.clone());
        }
        if out.len() < max && before < self.newest {
            let near = self.records.back();
            out.extend(near.map(|near| lost(before + 1, self.newest, near)));
        }
        out
    }

    /// Whether reports are gone that the receiver does not have, and no later one tells the state.
    pub(crate) fn owes_state(&self) -> bool {
        let tells = |record: &&Record| matches!(record.fact, Event::StateTold { .. });
        let told = self.records.iter().rev().find(tells).map_or(0, |record| record.seq);
        let from = self.acknowledged.max(told);
        let there = self.records.len() - self.records.partition_point(|record| record.seq <= from);
        (there as u64) < self.newest.saturating_sub(from)
    }

    /// The receiver has everything below `next`, and nothing from it on.
    pub(crate) fn received(&mut self, next: u64) {
        self.acknowledged = next.saturating_sub(1).min(self.newest);
    }

    /// From here on every record is kept.
    pub(crate) fn whole_from(&self) -> u64 {
        let mut from = self.newest + 1;
        for record in self.records.iter().rev() {
            if record.seq + 1 != from {
                break;
            }
            from = record.seq;
        }
        from
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn verdicts_unsent(&self) -> usize {
        let unsent = self.records.iter().filter(|record| record.seq > self.acknowledged);
        unsent.filter(|record| record.fact.weight() == Weight::Verdict).count()
    }
}

fn lost(from: u64, to: u64, near: &Record) -> Record {
    let fact = Event::ReportsLost { from };
    Record { v: RECORD_FORMAT, seq: to, at_ms: near.at_ms, up_ms: near.up_ms, fact }
}
