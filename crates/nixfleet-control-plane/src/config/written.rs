//! The first stage: a text becomes values with their places, and whatever is no value of ours becomes a fault.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use nixfleet_sys::text::{Place, nearest, one_line};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::Key;

/// The most characters of a foreign text that a fault repeats.
const SHOWN_MAX: usize = 100;

/// What is written, by key.
#[derive(Debug, Default)]
pub struct Written(BTreeMap<Key, Located>);

/// A value with its place.
#[derive(Debug)]
pub struct Located {
    /// The value.
    pub text: String,
    /// Where it stands.
    pub at: Place,
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Fault {
    /// Where; `None` when it is about what is not there.
    pub at: Option<Place>,
    /// What.
    pub what: What,
}

/// What is wrong.
#[derive(Debug)]
pub enum What {
    /// The file is not TOML.
    Syntax(String),
    /// No key is called so.
    UnknownKey {
        /// Its name.
        name: String,
        /// The key that may be meant.
        meant: Option<Key>,
    },
    /// Something else than a text.
    OtherShape {
        /// The key.
        key: Key,
        /// What there is.
        found: &'static str,
    },
    /// A value that does not do.
    Value {
        /// The key.
        key: Key,
        /// Why.
        why: String,
    },
    /// A key that must be there.
    Missing(Key),
}

impl Written {
    /// The keys that were given.
    pub fn keys(&self) -> Vec<Key> {
        self.0.keys().copied().collect()
    }

    /// The value of `key`, taken out.
    pub fn take(&mut self, key: Key) -> Option<Located> {
        self.0.remove(&key)
    }
}

impl Fault {
    /// That `key` is not there.
    pub fn missing(key: Key) -> Self {
        Self { at: None, what: What::Missing(key) }
    }

    /// The fault with its place in `file`, in one line.
    pub fn shown(&self, file: &Path) -> String {
        match self.at {
            Some(place) => format!("{}:{place}: {}", file.display(), self.what),
            None => self.what.to_string(),
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
                write!(f, "`{}` is a text, and here is {found}; write {}", key.name(), key.example())
            }
            Self::Value { key, why } => write!(f, "`{}`: {why}", key.name()),
            Self::Missing(key) => write!(f, "`{}` is missing: write {}", key.name(), key.example()),
        }
    }
}

/// What is written in `text`, and everything that is wrong with it.
pub fn read(text: &str) -> (Written, Vec<Fault>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut faults: Vec<Fault> = errors
        .iter()
        .map(|error| {
            let at = Place::of(text, error.span().map_or(0, |span| span.start));
            Fault { at: Some(at), what: What::Syntax(shown(error.message())) }
        })
        .collect();
    let mut written = Written::default();
    let mut pairs: Vec<_> = table.get_ref().iter().collect();
    pairs.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in pairs {
        match known(text, name).and_then(|key| Ok((key, one(text, key, value)?))) {
            Ok((key, located)) => drop(written.0.insert(key, located)),
            Err(fault) => faults.push(fault),
        }
    }
    (written, faults)
}

fn known(text: &str, name: &Spanned<DeString<'_>>) -> Result<Key, Fault> {
    let wanted = name.get_ref().as_ref();
    let named = |name: &str| Key::ALL.into_iter().find(|key| key.name() == name);
    named(wanted).ok_or_else(|| {
        let meant = nearest(wanted, Key::ALL.into_iter().map(Key::name)).and_then(named);
        let what = What::UnknownKey { name: shown(wanted), meant };
        Fault { at: Some(Place::of(text, name.span().start)), what }
    })
}

fn one(text: &str, key: Key, value: &Spanned<DeValue<'_>>) -> Result<Located, Fault> {
    let at = Place::of(text, value.span().start);
    let found = match value.get_ref() {
        DeValue::String(text) => return Ok(Located { text: text.to_string(), at }),
        // A number is as clear as its text.
        DeValue::Integer(number) => return Ok(Located { text: number.as_str().to_owned(), at }),
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Err(Fault { at: Some(at), what: What::OtherShape { key, found } })
}

fn shown(text: &str) -> String {
    one_line(text, SHOWN_MAX)
}
