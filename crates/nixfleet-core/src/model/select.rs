//! Which hosts, and how many of them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::names::{HostName, Tag, printable};

/// Which hosts are meant. `not`, `all-of` and `any-of` nest; JSON depth is bounded where documents are read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// Every host.
    All,
    /// Hosts with this tag.
    Tag(Tag),
    /// This host.
    Host(HostName),
    /// Hosts that the inner one does not mean.
    Not(Box<Selector>),
    /// Hosts that every inner one means; all hosts if there is none.
    AllOf(Vec<Selector>),
    /// Hosts that at least one inner one means; no host if there is none.
    AnyOf(Vec<Selector>),
}

impl Selector {
    /// Whether the host `name` with `tags` is meant.
    pub fn means(&self, name: &HostName, tags: &BTreeSet<Tag>) -> bool {
        match self {
            Self::All => true,
            Self::Tag(tag) => tags.contains(tag),
            Self::Host(host) => host == name,
            Self::Not(inner) => !inner.means(name, tags),
            Self::AllOf(inner) => inner.iter().all(|one| one.means(name, tags)),
            Self::AnyOf(inner) => inner.iter().any(|one| one.means(name, tags)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, word: &str, inner: &[Self]| {
            write!(f, "{word}(")?;
            for (n, one) in inner.iter().enumerate() {
                write!(f, "{}{one}", if n == 0 { "" } else { ", " })?;
            }
            f.write_str(")")
        };
        match self {
            Self::All => f.write_str("all"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Host(host) => write!(f, "host {host}"),
            Self::Not(inner) => write!(f, "not({inner})"),
            Self::AllOf(inner) => list(f, "all-of", inner),
            Self::AnyOf(inner) => list(f, "any-of", inner),
        }
    }
}

/// How many of a group: `5`, or `"20%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "AmountText", into = "AmountText")]
pub enum Amount {
    /// So many.
    Count(u32),
    /// A share of the group, 0 to 100.
    Percent(u8),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum AmountText {
    Count(u32),
    Percent(String),
}

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount: it is a whole number, or 0 to 100 followed by `%`")]
pub struct NotAnAmount(String);

impl Amount {
    /// How many that is of `group` hosts: a share is rounded down, but a share above 0 is at least one host.
    pub fn of(self, group: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(0) => 0,
            Self::Percent(percent) => {
                let share = u64::from(group) * u64::from(percent) / 100;
                u32::try_from(share).expect("at most 100 % of a u32").max(1)
            }
        }
    }
}

impl FromStr for Amount {
    type Err = NotAnAmount;
    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        let refused = || NotAnAmount(printable(text));
        // `parse` takes a leading `+`.
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(refused());
        }
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                Ok(_) | Err(_) => Err(refused()),
            },
            None => text.parse().map(Self::Count).map_err(|_| refused()),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl TryFrom<AmountText> for Amount {
    type Error = NotAnAmount;
    fn try_from(text: AmountText) -> Result<Self, NotAnAmount> {
        match text {
            AmountText::Count(count) => Ok(Self::Count(count)),
            AmountText::Percent(text) if text.ends_with('%') => text.parse(),
            AmountText::Percent(text) => Err(NotAnAmount(printable(&text))),
        }
    }
}

impl From<Amount> for AmountText {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Count(count) => Self::Count(count),
            Amount::Percent(_) => Self::Percent(amount.to_string()),
        }
    }
}
