//! What is wrong with a fleet description: where, what, and what to do about it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::spanned::{Lines, Span};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where.
    pub span: Span,
    /// What.
    pub what: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

/// A fault with its place as people count, for `-o json`; version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlacedFault {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What.
    pub fault: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Collects faults while a description is read.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// One more.
    pub fn add(&mut self, span: Span, what: impl Into<String>) {
        self.0.push(Fault { span, what: what.into(), hint: None });
    }

    /// One more, with what to do about it.
    pub fn add_with_hint(&mut self, span: Span, what: impl Into<String>, hint: Option<String>) {
        self.0.push(Fault { span, what: what.into(), hint });
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// All of them in the order of their places, each once.
    pub fn sorted(mut self) -> Vec<Fault> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

/// The longest part of a line that is shown, in characters; JSON from a program is often one long line.
const SHOWN_MAX: usize = 100;
/// The most faults that are shown with their lines: more than that is one mistake made many times.
pub const FAULTS_SHOWN_MAX: usize = 50;

/// The faults of `file` for a person: each with its line and a mark below it.
pub fn render(file: &str, text: &str, faults: &[Fault]) -> String {
    let lines = Lines::new(text);
    let mut out = String::new();
    for fault in faults.iter().take(FAULTS_SHOWN_MAX) {
        let Fault { span, what, hint } = fault;
        let position = lines.position(*span);
        let (shown, skipped) = excerpt(lines.line(*span), position.column);
        let marks = marks(&shown, *span, position.column - skipped);
        let gutter = " ".repeat(position.line.to_string().len());
        let indent = " ".repeat(position.column - 1 - skipped);
        let _ = writeln!(out, "{file}:{position}: {what}");
        let _ = writeln!(out, "{gutter} |\n{} | {shown}\n{gutter} | {indent}{marks}", position.line);
        if let Some(hint) = hint {
            let _ = writeln!(out, "{gutter} = hint: {hint}");
        }
    }
    if let Some(more @ 1..) = faults.len().checked_sub(FAULTS_SHOWN_MAX) {
        let _ = writeln!(out, "and {more} more; `-o json` lists all of them. The most frequent of all:");
        out.push_str(&most_frequent(faults));
    }
    out
}

/// The faults for a program.
pub fn placed(text: &str, faults: &[Fault]) -> Vec<PlacedFault> {
    let lines = Lines::new(text);
    let place = |fault: &Fault| {
        let position = lines.position(fault.span);
        PlacedFault {
            line: position.line,
            column: position.column,
            fault: fault.what.clone(),
            hint: fault.hint.clone(),
        }
    };
    faults.iter().map(place).collect()
}

/// The part of the line around the column, and how many characters are left out in front of it.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    let skipped = if column > SHOWN_MAX { column - SHOWN_MAX / 2 } else { 0 };
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    (line.chars().skip(skipped).take(SHOWN_MAX).map(visible).collect(), skipped)
}

fn marks(shown: &str, span: Span, column: usize) -> String {
    let room = shown.chars().count().saturating_sub(column - 1).max(1);
    let length = usize::try_from(span.to.saturating_sub(span.from)).unwrap_or(1);
    "^".repeat(length.clamp(1, room))
}

/// The three texts that occur most often, with their counts.
fn most_frequent(faults: &[Fault]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for fault in faults {
        *counts.entry(&fault.what).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().take(3).fold(String::new(), |out, (what, count)| format!("{out}  {count} times: {what}\n"))
}
