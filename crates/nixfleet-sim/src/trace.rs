//! The last lines of a run, for people. A run is first made without them, and made again with them when it failed.

use std::collections::VecDeque;

/// Lines that are kept.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: VecDeque<String>,
    max: usize,
}

impl Trace {
    /// Keeps nothing.
    pub(crate) fn off() -> Self {
        Self::default()
    }

    /// Keeps the last `max` lines.
    pub(crate) fn last(max: usize) -> Self {
        Self { lines: VecDeque::new(), max }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.max > 0
    }

    pub(crate) fn line(&mut self, at_ms: u64, who: &str, what: &str) {
        if self.lines.len() == self.max {
            self.lines.pop_front();
        }
        let (secs, ms) = (at_ms / 1_000, at_ms % 1_000);
        let (hours, minutes, secs) = (secs / 3_600, secs / 60 % 60, secs % 60);
        self.lines.push_back(format!("{hours:>3}:{minutes:02}:{secs:02}.{ms:03} {who:<6} {what}"));
    }

    /// What was kept, oldest first.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
