//! From values with places to typed ones: every fault is noted, and reading goes on.
//!
//! A function here answers `None` when it has noted a fault, so that a caller never notes it again; what else can be
//! read is read all the same.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use nixfleet_core::model::names::EXACT_MAX;
use nixfleet_core::model::time::{Secs, UnixMs};

use super::faults::Faults;
use super::suggest::did_you_mean;
use crate::spanned::{Field, Node, Span, Value};

/// The fields of one object: each is asked for once, and what nobody asked for is a fault.
pub(super) struct Fields<'a> {
    span: Span,
    what: &'static str,
    all: &'a [Field],
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of `node`, which is called `what` in messages.
    pub(super) fn of(node: &'a Node, what: &'static str, faults: &mut Faults) -> Option<Self> {
        let all = object(node, what, faults)?;
        Some(Self { span: node.span, what, all, asked: Vec::new() })
    }

    /// A field that may be missing.
    pub(super) fn optional(&mut self, name: &'static str) -> Option<&'a Node> {
        self.asked.push(name);
        self.all.iter().find(|field| field.name == name).map(|field| &field.node)
    }

    /// A field that must be there.
    pub(super) fn required(&mut self, name: &'static str, faults: &mut Faults) -> Option<&'a Node> {
        let found = self.optional(name);
        if found.is_none() {
            faults.add(self.opening(), format!("{} has no `{name}`", self.what));
        }
        found
    }

    /// The object's place.
    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Only its opening brace: marking all of it would mark the whole file.
    pub(super) fn opening(&self) -> Span {
        Span { from: self.span.from, to: self.span.from + 1 }
    }

    /// Notes every field that nobody asked for.
    pub(super) fn end(self, faults: &mut Faults) {
        for field in self.all.iter().filter(|field| !self.asked.contains(&field.name.as_str())) {
            let known = self.asked.join("`, `");
            let hint = did_you_mean(&field.name, self.asked.iter().copied())
                .unwrap_or_else(|| format!("known are `{known}`"));
            let name = shown(&field.name);
            faults.add_with_hint(field.at, format!("{} has no field `{name}`", self.what), Some(hint));
        }
    }
}

/// The fields of an object whose names are free; a name that stands twice is noted.
pub(super) fn object<'a>(node: &'a Node, what: &str, faults: &mut Faults) -> Option<&'a [Field]> {
    let Value::Object(fields) = &node.value else {
        faults.add(node.span, format!("{what} must be an object, and this is {}", node.value.kind()));
        return None;
    };
    let mut seen = std::collections::BTreeSet::new();
    for field in fields {
        if !seen.insert(&field.name) {
            faults.add(field.at, format!("`{}` stands twice in this object", shown(&field.name)));
        }
    }
    Some(fields)
}

/// The values of a list.
pub(super) fn list<'a>(node: &'a Node, what: &str, faults: &mut Faults) -> Option<&'a [Node]> {
    match &node.value {
        Value::List(nodes) => Some(nodes),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Object(_)) => {
            faults.add(node.span, format!("{what} must be a list, and this is {}", other.kind()));
            None
        }
    }
}

/// A text.
pub(super) fn text<'a>(node: &'a Node, what: &str, faults: &mut Faults) -> Option<&'a str> {
    match &node.value {
        Value::Text(text) => Some(text),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Object(_)) => {
            faults.add(node.span, format!("{what} must be a text, and this is {}", other.kind()));
            None
        }
    }
}

/// A text of a kind that reads itself; its own words say what is wrong.
pub(super) fn parsed<T: FromStr<Err: Display>>(node: &Node, what: &str, faults: &mut Faults) -> Option<T> {
    let text = text(node, what, faults)?;
    text.parse().map_err(|error: T::Err| faults.add(node.span, error.to_string())).ok()
}

/// The name of a field, of a kind that reads itself.
pub(super) fn named<T: FromStr<Err: Display>>(field: &Field, faults: &mut Faults) -> Option<T> {
    field.name.parse().map_err(|error: T::Err| faults.add(field.at, error.to_string())).ok()
}

/// Every value of a list, as far as each can be read; `None` if one cannot.
pub(super) fn each<'a, T>(
    node: &'a Node,
    what: &str,
    faults: &mut Faults,
    mut read: impl FnMut(&'a Node, &mut Faults) -> Option<T>,
) -> Option<Vec<T>> {
    let nodes = list(node, what, faults)?;
    let read: Vec<Option<T>> = nodes.iter().map(|node| read(node, faults)).collect();
    read.into_iter().collect()
}

/// A whole number from 0 to `most`.
pub(super) fn whole(node: &Node, what: &str, most: u64, faults: &mut Faults) -> Option<u64> {
    let number = match &node.value {
        Value::Number(text) => text.parse().ok().filter(|number| *number <= most),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => None,
    };
    if number.is_none() {
        faults.add(node.span, format!("{what} must be a whole number from 0 to {most}"));
    }
    number
}

/// A whole number of 32 bits.
pub(super) fn whole32(node: &Node, what: &str, faults: &mut Faults) -> Option<u32> {
    whole(node, what, u64::from(u32::MAX), faults).and_then(|number| u32::try_from(number).ok())
}

/// One of some words, each with its meaning.
pub(super) fn one_of<T: Copy>(
    node: &Node,
    what: &str,
    words: &[(&'static str, T)],
    faults: &mut Faults,
) -> Option<T> {
    let got = text(node, what, faults)?;
    let found = words.iter().find(|(word, _)| *word == got).map(|(_, meaning)| *meaning);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = did_you_mean(got, known.iter().copied())
            .unwrap_or_else(|| format!("it is one of `{}`", known.join("`, `")));
        faults.add_with_hint(node.span, format!("{what} cannot be `{}`", shown(got)), Some(hint));
    }
    found
}

/// A span of whole seconds, written with its units: `90s`, `5m`, `1h 30m`, `3d`.
pub(super) fn secs(node: &Node, what: &str, faults: &mut Faults) -> Option<Secs> {
    let read = match &node.value {
        Value::Text(text) => read_secs(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => None,
    };
    if read.is_none() {
        let hint = Some("write it with its unit: \"90s\", \"5m\", \"1h 30m\", \"3d\"".to_owned());
        faults.add_with_hint(node.span, format!("{what} must be a time in whole seconds"), hint);
    }
    read
}

/// A span of whole seconds in words.
pub fn read_secs(text: &str) -> Option<Secs> {
    let span = humantime::parse_duration(text).ok()?;
    let whole = span == Duration::from_secs(span.as_secs());
    u32::try_from(span.as_secs()).ok().filter(|_| whole).map(Secs)
}

/// A point in time: RFC 3339, or a day, which begins at midnight UTC.
pub(super) fn at(node: &Node, what: &str, faults: &mut Faults) -> Option<UnixMs> {
    let text = text(node, what, faults)?;
    let read = read_time(text);
    if read.is_none() {
        let hint = Some("write 2027-01-31 or 2027-01-31T18:00:00Z".to_owned());
        faults.add_with_hint(node.span, format!("{what} is no point in time: `{}`", shown(text)), hint);
    }
    read
}

/// A point in time in words: RFC 3339, or a day, which begins at midnight UTC.
pub fn read_time(text: &str) -> Option<UnixMs> {
    let stamp = match text.parse::<jiff::Timestamp>() {
        Ok(stamp) => stamp,
        Err(_) => text
            .parse::<jiff::civil::Date>()
            .ok()?
            .to_zoned_datetime(jiff::tz::TimeZone::UTC)
            .ok()?
            .timestamp(),
    };
    u64::try_from(stamp.as_millisecond())
        .ok()
        .filter(|ms| *ms <= EXACT_MAX)
        .and_then(|ms| UnixMs::new(ms).ok())
}

/// What a message may show of a text from outside: at most 100 printable characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
