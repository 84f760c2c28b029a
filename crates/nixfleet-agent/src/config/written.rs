//! The first stage: from text to values with their places. Says nothing about what the values mean.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use nixfleet_core::model::names::NotAName;
use nixfleet_sys::text::{Place, one_line};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::keys::{Key, Shape};

/// The longest part of a foreign text that a fault repeats, in characters.
const SHOWN_MAX: usize = 80;

/// Where something was written; in the order in which faults are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// In the file.
    File(Place),
    /// On the command line.
    Flag(Key),
    /// Nowhere, and that is the fault.
    Nowhere,
}

/// A text with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The text.
    pub text: String,
    /// Where it was written.
    pub at: At,
}

/// Everything that was written, by key. A key with one text has one element.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written(BTreeMap<Key, Vec<Located>>);

impl Written {
    /// What the flags say; those that were not given are not in it.
    pub fn from_flags(flags: impl IntoIterator<Item = (Key, Vec<String>)>) -> Self {
        let located = |key: Key, texts: Vec<String>| {
            texts.into_iter().map(|text| Located { text, at: At::Flag(key) }).collect::<Vec<_>>()
        };
        let given = flags.into_iter().filter(|(_, texts)| !texts.is_empty());
        Self(given.map(|(key, texts)| (key, located(key, texts))).collect())
    }

    /// The keys that were written.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.0.keys().copied()
    }

    /// The text of a key.
    pub fn text(&self, key: Key) -> Option<&Located> {
        self.0.get(&key)?.first()
    }

    /// The texts of a key; `None` if it was not written.
    pub fn texts(&self, key: Key) -> Option<&[Located]> {
        self.0.get(&key).map(Vec::as_slice)
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub at: At,
    /// What.
    pub what: What,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is not TOML.
    Syntax(String),
    /// There is no such key.
    UnknownKey {
        /// What was written.
        name: String,
        /// What may have been meant.
        meant: Option<Key>,
    },
    /// Something else stands behind the key than should.
    OtherShape {
        /// The key.
        key: Key,
        /// What stands there.
        found: &'static str,
    },
    /// The value means nothing.
    Value {
        /// The key.
        key: Key,
        /// Why.
        why: String,
    },
    /// A key that has no default was not written.
    Missing(Key),
    /// The kernel's name for this host is no name in a fleet, and no other was written.
    KernelName(String),
    /// Only one of two keys counts.
    Both(Key, Key),
    /// A key that says how a server proves who it is, with a source that is not asked for proof.
    OnlyWithHttps(Key),
}

impl Fault {
    pub(super) fn missing(key: Key) -> Self {
        Self { at: At::Nowhere, what: What::Missing(key) }
    }
    pub(super) fn kernel_name(error: &NotAName) -> Self {
        Self { at: At::Nowhere, what: What::KernelName(error.to_string()) }
    }
    pub(super) fn both(one: Key, other: Key) -> Self {
        Self { at: At::Nowhere, what: What::Both(one, other) }
    }
    pub(super) fn only_with_https(key: Key) -> Self {
        Self { at: At::Nowhere, what: What::OnlyWithHttps(key) }
    }

    /// The key that it is about, if it is about what that key lacks.
    pub(super) fn key(&self) -> Option<Key> {
        match &self.what {
            What::Missing(key) => Some(*key),
            What::KernelName(_) => Some(Key::Host),
            What::Syntax(_)
            | What::UnknownKey { .. }
            | What::OtherShape { .. }
            | What::Value { .. }
            | What::Both(..)
            | What::OnlyWithHttps(_) => None,
        }
    }

    /// The fault with its place in `file`, in one line.
    pub fn shown(&self, file: &Path) -> String {
        match self.at {
            At::File(place) => format!("{}:{place}: {}", file.display(), self.what),
            At::Flag(key) => format!("{}: {}", key.flag(), self.what),
            At::Nowhere => self.what.to_string(),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => write!(f, "this is not TOML: {why}"),
            Self::UnknownKey { name, meant: Some(key) } => {
                write!(f, "there is no key `{name}`; did you mean `{}`?", key.name())
            }
            Self::UnknownKey { name, meant: None } => {
                let names: Vec<_> = Key::ALL.into_iter().map(Key::name).collect();
                write!(f, "there is no key `{name}`; there are {}", names.join(", "))
            }
            Self::OtherShape { key, found } => {
                let wanted = match key.shape() {
                    Shape::Text => "a text",
                    Shape::Texts => "a list of texts",
                };
                write!(f, "`{}` is {wanted}, and here is {found}; write {}", key.name(), key.example())
            }
            Self::Value { key, why } => write!(f, "`{}`: {why}", key.name()),
            Self::Missing(key) => {
                write!(f, "`{}` is missing: write {} or give {}", key.name(), key.example(), key.flag())
            }
            Self::KernelName(why) => {
                let key = Key::Host;
                write!(
                    f,
                    "`{}` is not set, and the kernel's name for this host does not do: {why}",
                    key.name()
                )
            }
            Self::Both(one, other) => {
                write!(
                    f,
                    "`{}` and `{}` exclude each other: a pinned key counts alone",
                    one.name(),
                    other.name()
                )
            }
            Self::OnlyWithHttps(key) => {
                write!(f, "`{}` does nothing: the source is not an https address", key.name())
            }
        }
    }
}

/// What is written in `text`, and everything that is wrong with it.
pub fn read(text: &str) -> (Written, Vec<Fault>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let at = |offset| At::File(Place::of(text, offset));
    let mut faults: Vec<Fault> = errors
        .iter()
        .map(|error| Fault {
            at: at(error.span().map_or(0, |span| span.start)),
            what: What::Syntax(shown(error.message())),
        })
        .collect();
    let mut written = Written::default();
    for (name, value) in table.get_ref() {
        let known = Key::named(name.get_ref()).ok_or_else(|| unknown(name, at));
        match known.and_then(|key| Ok((key, texts(key, value, at)?))) {
            Ok((key, texts)) => drop(written.0.insert(key, texts)),
            Err(fault) => faults.push(fault),
        }
    }
    (written, faults)
}

fn unknown(name: &Spanned<DeString<'_>>, at: impl Fn(usize) -> At) -> Fault {
    let at = at(name.span().start);
    let name = name.get_ref();
    Fault { at, what: What::UnknownKey { name: shown(name), meant: Key::like(name) } }
}

fn texts(key: Key, value: &Spanned<DeValue<'_>>, at: impl Fn(usize) -> At) -> Result<Vec<Located>, Fault> {
    let one = |value: &Spanned<DeValue<'_>>| {
        let at = at(value.span().start);
        match value.get_ref() {
            DeValue::String(text) => Ok(Located { text: text.to_string(), at }),
            other => Err(Fault { at, what: What::OtherShape { key, found: kind(other) } }),
        }
    };
    match (key.shape(), value.get_ref()) {
        (Shape::Texts, DeValue::Array(values)) => values.iter().map(one).collect(),
        (Shape::Texts, found) => {
            Err(Fault { at: at(value.span().start), what: What::OtherShape { key, found: kind(found) } })
        }
        (Shape::Text, _) => one(value).map(|text| vec![text]),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "one text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A foreign text as a fault may repeat it.
pub(super) fn shown(text: &str) -> String {
    one_line(text, SHOWN_MAX)
}
