//! Steps with the time each took, and what was left out.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::say;

/// What a verb did so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    steps: Vec<(String, Duration)>,
    left_out: Vec<String>,
}

impl Report {
    /// Runs one step under its name; an error names the step.
    pub(crate) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        say::line(&format!("==> {name}"));
        let began = Instant::now();
        let outcome = work();
        let took = began.elapsed();
        let ended = if outcome.is_ok() { "done" } else { "FAILED" };
        say::line(&format!("    {name}: {ended} in {}", seconds(took)));
        self.steps.push((name.to_owned(), took));
        outcome.with_context(|| name.to_owned())
    }

    /// Notes something that was not run, and why; said at once and again at the end.
    pub(crate) fn left_out(&mut self, what: impl Into<String>) {
        let what = what.into();
        say::line(&format!("LEFT OUT: {what}"));
        self.note(what);
    }

    /// The same for what has been said already.
    pub(crate) fn note(&mut self, what: String) {
        if !self.left_out.contains(&what) {
            self.left_out.push(what);
        }
    }

    /// Everything that was left out.
    pub(crate) fn all_left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Prints the closing table.
    pub(crate) fn close(&self) {
        say::line(&self.table());
    }

    fn table(&self) -> String {
        let mut text = String::from("\nwhere the time went\n");
        for (name, took) in &self.steps {
            writeln!(text, "  {:>8}  {name}", seconds(*took)).expect("a string takes everything");
        }
        let total = self.steps.iter().map(|(_, took)| *took).sum();
        writeln!(text, "  {:>8}  in all", seconds(total)).expect("a string takes everything");
        for what in &self.left_out {
            writeln!(text, "LEFT OUT: {what}").expect("a string takes everything");
        }
        text
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_is_timed_and_named_in_its_error() {
        let mut report = Report::default();
        let error = report.step("tests", || -> Result<()> { anyhow::bail!("two failed") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "tests: two failed");
        assert_eq!(report.steps.len(), 1);
    }

    #[test]
    fn the_closing_table_says_what_was_left_out_once() {
        let mut report = Report::default();
        report.note("hosts: not root".to_owned());
        report.note("hosts: not root".to_owned());
        assert_eq!(report.table().matches("LEFT OUT: hosts: not root").count(), 1);
    }
}
