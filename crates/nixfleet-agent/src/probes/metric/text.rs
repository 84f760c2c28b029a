//! The text format of Prometheus metrics, read strictly: a line that is none of its forms is an error.
//!
//! `name{label="value",…} number [time]`, comments that begin with `#`, and empty lines. An exemplar of `OpenMetrics`
//! after the number is passed over. Names are the classic ones; quoted names are sent to those who ask for them, and we
//! do not. Reading takes time in proportion to the text and allocates only for escaped label values.

use std::borrow::Cow;
use std::str::FromStr;

/// A line; the longest label sets that are met have some kilobytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Labels of one sample; the largest exporters stay below 30.
const LABELS_MAX: usize = 128;

/// One number of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// The metric.
    pub name: &'a str,
    /// Its labels in the page's order; no name comes twice.
    pub labels: Labels<'a>,
    /// Its value; may be infinite or not a number.
    pub value: f64,
}

/// Names and values of labels.
pub type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// Which samples are meant: those of this name that have all of these labels, and perhaps others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    name: String,
    labels: Vec<(String, String)>,
}

/// Why a text does not say which sample is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the metric is not written as NAME or NAME{{LABEL=\"VALUE\"}}")]
pub struct NotASelector;

/// Why a text is no page of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no page of metrics: line {line}: {why}")]
pub struct NotMetrics {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: &'static str,
}

impl FromStr for Selector {
    type Err = NotASelector;
    fn from_str(text: &str) -> Result<Self, NotASelector> {
        let mut at = Cursor(text);
        let read = at.name().and_then(|name| Ok((name, at.labels()?)));
        match read {
            Ok((name, labels)) if at.0.is_empty() && text.len() <= LINE_BYTES_MAX => Ok(Self {
                name: name.to_owned(),
                labels: labels
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into_owned()))
                    .collect(),
            }),
            Ok(_) | Err(_) => Err(NotASelector),
        }
    }
}

impl Selector {
    /// Whether the sample is meant.
    pub fn matches(&self, sample: &Sample<'_>) -> bool {
        let has = |name: &str, value: &str| sample.labels.iter().any(|(n, v)| *n == name && v == value);
        self.name == sample.name && self.labels.iter().all(|(name, value)| has(name, value))
    }
}

/// The samples of a page in its order; nothing comes after an error.
pub fn samples(page: &str) -> impl Iterator<Item = Result<Sample<'_>, NotMetrics>> {
    let mut broken = false;
    let read = |(number, line)| sample(line).map_err(|why| NotMetrics { line: number + 1, why }).transpose();
    page.split('\n').enumerate().filter_map(read).take_while(move |read| {
        let goes_on = !broken;
        broken |= read.is_err();
        goes_on
    })
}

/// The sample in a line; `None` in an empty one and in a comment.
fn sample(line: &str) -> Result<Option<Sample<'_>>, &'static str> {
    if line.len() > LINE_BYTES_MAX {
        return Err("it is too long");
    }
    let mut at = Cursor(line);
    at.blanks();
    if at.0.is_empty() || at.0.starts_with('#') {
        return Ok(None);
    }
    let name = at.name()?;
    let gap = at.blanks();
    if gap == 0 && !at.0.starts_with('{') {
        return Err("there is no value behind the name");
    }
    let labels = at.labels()?;
    at.blanks();
    let value = number(at.word()).ok_or("the value is not a number")?;
    at.blanks();
    if !at.0.is_empty() && !at.0.starts_with('#') {
        // When it was measured, which nobody here asks for.
        number(at.word()).ok_or("the time is not a number")?;
        at.blanks();
    }
    match at.0.chars().next() {
        None | Some('#') => Ok(Some(Sample { name, labels, value })),
        Some(_) => Err("something stands behind the value and the time"),
    }
}

/// A number as Go writes it, which Rust reads more widely than is good here.
fn number(word: &str) -> Option<f64> {
    match word {
        "NaN" => Some(f64::NAN),
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        digits => {
            let plain = digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            digits.parse().ok().filter(|_| plain)
        }
    }
}

/// What is left of a line.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !wanted(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn blanks(&mut self) -> usize {
        self.take_while(|c| c == ' ' || c == '\t').len()
    }

    fn word(&mut self) -> &'a str {
        self.take_while(|c| c != ' ' && c != '\t')
    }

    fn eat(&mut self, wanted: char) -> bool {
        let rest = self.0.strip_prefix(wanted);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// The name of a metric.
    fn name(&mut self) -> Result<&'a str, &'static str> {
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let good = name.starts_with(|c: char| !c.is_ascii_digit());
        if good { Ok(name) } else { Err("it does not begin with the name of a metric") }
    }

    /// The labels in braces; none if there are no braces.
    fn labels(&mut self) -> Result<Labels<'a>, &'static str> {
        let mut labels = Labels::new();
        if !self.eat('{') {
            return Ok(labels);
        }
        loop {
            self.blanks();
            if self.eat('}') {
                return Ok(labels);
            }
            let (name, value) = self.label()?;
            if labels.len() >= LABELS_MAX {
                return Err("it has too many labels");
            }
            if labels.iter().any(|(known, _)| *known == name) {
                return Err("it has a label twice");
            }
            labels.push((name, value));
            self.blanks();
            if !self.eat(',') && !self.0.starts_with('}') {
                return Err("the labels do not end");
            }
        }
    }

    fn label(&mut self) -> Result<(&'a str, Cow<'a, str>), &'static str> {
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if !name.starts_with(|c: char| !c.is_ascii_digit()) {
            return Err("a label has no name");
        }
        self.blanks();
        if !self.eat('=') {
            return Err("a label has no value");
        }
        self.blanks();
        Ok((name, self.quoted()?))
    }

    /// A text in quotes, in which `\\`, `\"` and `\n` stand for themselves unquoted.
    fn quoted(&mut self) -> Result<Cow<'a, str>, &'static str> {
        if !self.eat('"') {
            return Err("the value of a label is not in quotes");
        }
        let mut text = Cow::Borrowed(self.take_while(|c| c != '"' && c != '\\'));
        loop {
            if self.eat('"') {
                return Ok(text);
            }
            if !self.eat('\\') {
                return Err("the value of a label does not end");
            }
            let escaped = match self.0.chars().next() {
                Some('n') => '\n',
                Some(same @ ('\\' | '"')) => same,
                Some(_) | None => return Err("a value has an escape that is not known"),
            };
            self.0 = &self.0[1..];
            let text = text.to_mut();
            text.push(escaped);
            text.push_str(self.take_while(|c| c != '"' && c != '\\'));
        }
    }
}

#[cfg(test)]
mod tests;
