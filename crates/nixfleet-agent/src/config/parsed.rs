//! The second stage: from texts to settings with types, all faults at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_core::host::world::Reboots;
use nixfleet_core::model::names::{ChannelName, HostName};

use super::keys::Key;
use super::written::{Fault, Located, What, Written, shown};
use crate::source::place::Place;
use crate::source::web::tls::Pin;

/// The shortest pause between two looks: a fleet of 10,000 then makes some 2,000 requests a second.
const POLL_MIN: Duration = Duration::from_secs(10);
/// The longest: whoever looks less often than daily learns too late that a release has expired.
const POLL_MAX: Duration = Duration::from_hours(24);

/// What was written, as far as it was; with types.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// [`Key::Root`].
    pub root: Option<PathBuf>,
    /// [`Key::Source`].
    pub source: Option<Place>,
    /// [`Key::Channel`].
    pub channel: Option<ChannelName>,
    /// [`Key::Host`].
    pub host: Option<HostName>,
    /// [`Key::HostKey`].
    pub host_key: Option<PathBuf>,
    /// [`Key::StateDir`].
    pub state_dir: Option<PathBuf>,
    /// [`Key::Poll`].
    pub poll: Option<Duration>,
    /// [`Key::CaFile`].
    pub ca_file: Option<PathBuf>,
    /// [`Key::Pins`].
    pub pins: Option<BTreeSet<Pin>>,
    /// [`Key::Reboot`].
    pub reboots: Option<Reboots>,
}

impl Parsed {
    /// These settings, and those of `under` where these say nothing. A flag for one way in which a server proves who it
    /// is also takes the place of the other way in the file.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        let proof = self.ca_file.is_some() || self.pins.is_some();
        Self {
            root: self.root.or(under.root),
            source: self.source.or(under.source),
            channel: self.channel.or(under.channel),
            host: self.host.or(under.host),
            host_key: self.host_key.or(under.host_key),
            state_dir: self.state_dir.or(under.state_dir),
            poll: self.poll.or(under.poll),
            ca_file: if proof { self.ca_file } else { under.ca_file },
            pins: if proof { self.pins } else { under.pins },
            reboots: self.reboots.or(under.reboots),
        }
    }
}

/// What the texts mean, and everything that is wrong with them.
pub fn parse(written: &Written) -> (Parsed, Vec<Fault>) {
    let mut reader = Reader { written, faults: Vec::new() };
    let parsed = Parsed {
        root: reader.one(Key::Root, path),
        source: reader.one(Key::Source, |text| text.parse::<Place>().map_err(|error| error.to_string())),
        channel: reader
            .one(Key::Channel, |text| text.parse::<ChannelName>().map_err(|error| error.to_string())),
        host: reader.one(Key::Host, |text| text.parse::<HostName>().map_err(|error| error.to_string())),
        host_key: reader.one(Key::HostKey, path),
        state_dir: reader.one(Key::StateDir, path),
        poll: reader.one(Key::Poll, poll),
        ca_file: reader.one(Key::CaFile, path),
        pins: reader.pins(),
        reboots: reader.one(Key::Reboot, reboots),
    };
    (parsed, reader.faults)
}

struct Reader<'a> {
    written: &'a Written,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn one<T>(&mut self, key: Key, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let Located { text, at } = self.written.text(key)?;
        parse(text).map_err(|why| self.faults.push(Fault { at: *at, what: What::Value { key, why } })).ok()
    }

    fn pins(&mut self) -> Option<BTreeSet<Pin>> {
        let key = Key::Pins;
        let written = self.written.texts(key)?;
        let mut pins = BTreeSet::new();
        for Located { text, at } in written {
            match text.parse() {
                Ok(pin) => {
                    pins.insert(pin);
                }
                Err(error) => {
                    let why = format!("`{}`: {error}", shown(text));
                    self.faults.push(Fault { at: *at, what: What::Value { key, why } });
                }
            }
        }
        // With an empty list no server would be accepted; that nobody means.
        (!pins.is_empty()).then_some(pins)
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if path.is_absolute() && !text.contains('\0') {
        Ok(path.to_owned())
    } else {
        Err(format!("`{}` is not an absolute path", shown(text)))
    }
}

fn reboots(text: &str) -> Result<Reboots, String> {
    [Reboots::AsReleased, Reboots::Never]
        .into_iter()
        .find(|one| one.to_string() == text)
        .ok_or_else(|| format!("`{}` is neither `as-released` nor `never`", shown(text)))
}

fn poll(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text)
        .map_err(|_| format!("`{}` is not a time; write 60s or 5m", shown(text)))?;
    if (POLL_MIN..=POLL_MAX).contains(&pause) {
        Ok(pause)
    } else {
        Err(format!("`{}` is not between 10s and 24h", shown(text)))
    }
}
