//! When a host may act: windows in a named time zone, and reboots.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::names::printable;
use super::time::Secs;

/// A span of every day, or of some days of the week, in a named time zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The days on which it opens; empty means every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Weekday>,
    /// When it opens.
    pub from: TimeOfDay,
    /// When it closes: on the next day if it is not after `from`.
    pub until: TimeOfDay,
    /// The zone in which both are read.
    pub zone: ZoneName,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// A time of the day, `HH:MM` on a 24-hour clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay {
    hour: u8,
    minute: u8,
}

/// Why a text is not a time of the day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time of the day: it is HH:MM, 00:00 to 23:59")]
pub struct NotATimeOfDay(String);

impl TimeOfDay {
    /// 0 to 23.
    pub fn hour(self) -> u8 {
        self.hour
    }

    /// 0 to 59.
    pub fn minute(self) -> u8 {
        self.minute
    }
}

impl FromStr for TimeOfDay {
    type Err = NotATimeOfDay;
    fn from_str(text: &str) -> Result<Self, NotATimeOfDay> {
        let refused = || NotATimeOfDay(printable(text));
        let [h1, h2, b':', m1, m2] = text.as_bytes() else { return Err(refused()) };
        let two = |tens: u8, ones: u8| {
            (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| (tens - b'0') * 10 + (ones - b'0'))
        };
        match (two(*h1, *h2), two(*m1, *m2)) {
            (Some(hour @ 0..=23), Some(minute @ 0..=59)) => Ok(Self { hour, minute }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = NotATimeOfDay;
    fn try_from(text: String) -> Result<Self, NotATimeOfDay> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}

/// The name of a time zone in the IANA database, such as `Europe/Berlin` or `UTC`.
///
/// Only the form is checked: whether a host knows the zone is the host's to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ZoneName(String);

/// Why a text is not the name of a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a time zone: give one such as Europe/Berlin or UTC")]
pub struct NotAZoneName(String);

impl ZoneName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ZoneName {
    type Err = NotAZoneName;
    fn from_str(text: &str) -> Result<Self, NotAZoneName> {
        // The database's own rule: parts of letters, digits, `_`, `+` and `-`, beginning with a letter. No part can
        // be `..`, so that the name may be looked up as a file.
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
        };
        let good = text.len() <= 64 && text.split('/').all(part);
        if good { Ok(Self(text.to_owned())) } else { Err(NotAZoneName(printable(text))) }
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ZoneName {
    type Error = NotAZoneName;
    fn try_from(text: String) -> Result<Self, NotAZoneName> {
        text.parse()
    }
}

impl From<ZoneName> for String {
    fn from(zone: ZoneName) -> Self {
        zone.0
    }
}

/// Whether a host restarts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RebootMode {
    /// A person restarts it; until then it reports that a reboot is needed.
    #[default]
    Never,
    /// When kernel, initrd, modules or systemd differ from the booted ones.
    WhenNeeded,
    /// After every release.
    Always,
}

/// How and when hosts restart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebootPolicy {
    /// Whether they do; an entry may say otherwise for its host.
    pub mode: RebootMode,
    /// When they may; empty means at any time that the policy's own windows allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// How long before it people who are logged in are warned.
    pub warn_secs: Secs,
    /// Run in this order before it, e.g. to drain the host. One that fails keeps the host from restarting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Hook>,
    /// Run in this order when the host is back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Hook>,
}

/// A program that a host runs at a certain point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The program's absolute path, and its arguments.
    pub argv: Vec<String>,
    /// Its whole process group is ended after this long, and it counts as failed.
    pub deadline_secs: Secs,
}
