//! When windows are open: by the host's wall clock in their zone, as people read them.
//!
//! A window is open whenever the wall clock there reads a time in it. So on the day on which clocks go forward, one from
//! 02:30 to 04:00 opens at 03:00, and one from 02:00 to 03:00 does not open at all; on the day on which they go back, one
//! from 02:00 to 03:00 is open for two hours. A window over midnight belongs to the day on which it opens.
//!
//! The rules of the zones are part of this program (`jiff` with its bundled database: 0.45 MB, no I/O), so all hosts that
//! run one release agree on them, whatever `/etc/zoneinfo` says. They are as old as the program; the control plane never
//! computes a host's windows, it is told what the host decided (see [`super::event::Event::WentAhead`]).

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use crate::model::schedule::{TimeOfDay, Weekday, Window, ZoneName};
use crate::model::time::UnixMs;

/// How far ahead an opening is looked for, in days: a weekly window whose one day is skipped by a change of the clock
/// comes again after two weeks.
const AHEAD_DAYS: usize = 16;

/// Where a set of windows stands at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// One is open, and so it goes on until then; `None` if no end is in sight.
    Open {
        /// When all are closed.
        until: Option<UnixMs>,
    },
    /// All are closed until then.
    Opens {
        /// When the first opens.
        at: UnixMs,
    },
}

/// Why no window will open. It is for a person to put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NeverOpens {
    /// This program does not know the zone; another window might still open, and none does.
    UnknownZone {
        /// Its name.
        zone: ZoneName,
    },
    /// The host's clock is outside of the calendar's years.
    OutsideCalendar {
        /// What it says.
        at: UnixMs,
    },
    /// Every opening falls into hours that the clocks skip.
    AlwaysSkipped,
}

impl fmt::Display for NeverOpens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownZone { zone } => write!(f, "the time zone {zone} is not known"),
            Self::OutsideCalendar { at } => write!(f, "the clock says {at} ms since 1970, which is no date"),
            Self::AlwaysSkipped => f.write_str("every opening falls into hours that the clocks skip"),
        }
    }
}

/// Whether this program knows the zone. A window in one that nobody knows never opens.
pub fn knows(zone: &ZoneName) -> bool {
    self::zone(zone).is_some()
}

/// Whether one of `windows` is open at `now`, and when that changes. No windows at all are always open.
pub fn opening(windows: &[Window], now: UnixMs) -> Result<Opening, NeverOpens> {
    if windows.is_empty() {
        return Ok(Opening::Open { until: None });
    }
    let at = i64::try_from(now.get()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let at = at.ok_or(NeverOpens::OutsideCalendar { at: now })?;
    let known: Vec<Zoned<'_>> = windows.iter().filter_map(Zoned::find).collect();
    let changes = changes(&known, at);
    if is_open(&known, at) {
        let until = changes.into_iter().find(|change| !is_open(&known, *change));
        return Ok(Opening::Open { until: until.map(unix_ms) });
    }
    match changes.into_iter().find(|change| is_open(&known, *change)) {
        Some(opens) => Ok(Opening::Opens { at: unix_ms(opens) }),
        None => Err(why_never(windows)),
    }
}

fn why_never(windows: &[Window]) -> NeverOpens {
    let unknown = windows.iter().find(|window| zone(&window.zone).is_none());
    unknown.map_or(NeverOpens::AlwaysSkipped, |window| NeverOpens::UnknownZone { zone: window.zone.clone() })
}

/// A window with the rules of its zone.
struct Zoned<'a> {
    window: &'a Window,
    zone: TimeZone,
}

fn zone(name: &ZoneName) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name.as_str()).ok()
}

impl<'a> Zoned<'a> {
    fn find(window: &'a Window) -> Option<Self> {
        zone(&window.zone).map(|zone| Self { window, zone })
    }

    /// What the wall clock reads decides; nothing else does.
    fn is_open(&self, at: Timestamp) -> bool {
        let Window { days, from, until, zone: _ } = self.window;
        let opens_on = |date: Option<Date>| {
            date.is_some_and(|date| days.is_empty() || days.iter().any(|day| weekday(*day) == date.weekday()))
        };
        let reads = self.zone.to_datetime(at);
        let (today, yesterday) = (Some(reads.date()), reads.date().yesterday().ok());
        let (from, until, time) = (time_of(*from), time_of(*until), reads.time());
        if from < until {
            opens_on(today) && from <= time && time < until
        } else {
            (opens_on(today) && from <= time) || (opens_on(yesterday) && time < until)
        }
    }

    /// Every moment after `at` at which the answer may change: where the wall clock comes to read one of the two
    /// times, and where it jumps.
    fn changes(&self, at: Timestamp) -> Vec<Timestamp> {
        let first = self.zone.to_datetime(at).date();
        let days = std::iter::successors(Some(first), |day| day.tomorrow().ok()).take(AHEAD_DAYS);
        let mut out = Vec::new();
        for day in days {
            for time in [time_of(self.window.from), time_of(self.window.until)] {
                let moment = self.zone.to_ambiguous_timestamp(day.to_datetime(time));
                // In a fold both count; in a gap both lie beside it, and the jump itself is among the changes.
                out.extend(moment.earlier());
                out.extend(moment.later());
            }
        }
        let last = out.iter().max().copied();
        let jumps = self.zone.following(at).map(|jump| jump.timestamp());
        out.extend(jumps.take_while(|jump| last.is_some_and(|last| *jump <= last)));
        out.retain(|change| *change > at);
        out
    }
}

fn is_open(windows: &[Zoned<'_>], at: Timestamp) -> bool {
    windows.iter().any(|window| window.is_open(at))
}

fn changes(windows: &[Zoned<'_>], at: Timestamp) -> Vec<Timestamp> {
    let mut out: Vec<Timestamp> = windows.iter().flat_map(|window| window.changes(at)).collect();
    out.sort_unstable();
    out.dedup();
    out
}

fn time_of(time: TimeOfDay) -> Time {
    let part = |part: u8| i8::try_from(part).expect("hours and minutes are below 60");
    Time::new(part(time.hour()), part(time.minute()), 0, 0)
        .expect("a time of the day is checked when it is read")
}

fn weekday(day: Weekday) -> jiff::civil::Weekday {
    match day {
        Weekday::Mon => jiff::civil::Weekday::Monday,
        Weekday::Tue => jiff::civil::Weekday::Tuesday,
        Weekday::Wed => jiff::civil::Weekday::Wednesday,
        Weekday::Thu => jiff::civil::Weekday::Thursday,
        Weekday::Fri => jiff::civil::Weekday::Friday,
        Weekday::Sat => jiff::civil::Weekday::Saturday,
        Weekday::Sun => jiff::civil::Weekday::Sunday,
    }
}

fn unix_ms(at: Timestamp) -> UnixMs {
    let ms = u64::try_from(at.as_millisecond()).expect("later than a time that is after 1970");
    UnixMs::new(ms).expect("the calendar ends before the year 10000")
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
