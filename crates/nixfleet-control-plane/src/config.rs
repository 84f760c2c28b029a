//! What this server is told by its owner: where it listens, who it is, what fleet it serves, where it keeps things.
//!
//! One TOML file. Three stages, each of which finds all faults at once: the text becomes values with their places
//! ([`written`]), values become settings with types, and settings become a [`Config`] with nothing missing. [`ready`]
//! reads the files that a configuration names. There is no key that could sign anything among them.

pub mod ready;
pub mod written;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use written::{Fault, What, Written};

/// Where the file usually is.
pub const CONFIG_FILE: &str = "/etc/nixfleet/control-plane.toml";
/// The largest configuration that is read, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 64 * 1024;
/// The database when the configuration names none.
const DATABASE: &str = "sqlite:/var/lib/nixfleet-control-plane/control-plane.db";
/// How long events are kept when the configuration does not say: a quarter.
const KEEP_EVENTS_DAYS: u64 = 90;
/// Connections at the same time when the configuration does not say. One that waits takes some 27 KB with the kernel's
/// part, so this is 2.7 GB at most; the number that the service may open bounds it too.
const CONNECTIONS_MAX: u32 = 100_000;

/// A key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The address to listen at.
    Listen,
    /// The server's certificate chain, PEM.
    Certificate,
    /// Its private key, PEM.
    CertificateKey,
    /// The first root document of the fleet.
    Root,
    /// The database.
    Database,
    /// A folder of releases to watch.
    Releases,
    /// For how many days events are kept.
    KeepEventsDays,
    /// How many connections there may be at the same time.
    ConnectionsMax,
}

impl Key {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Listen,
        Self::Certificate,
        Self::CertificateKey,
        Self::Root,
        Self::Database,
        Self::Releases,
        Self::KeepEventsDays,
        Self::ConnectionsMax,
    ];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Certificate => "certificate",
            Self::CertificateKey => "certificate-key",
            Self::Root => "root",
            Self::Database => "database",
            Self::Releases => "releases",
            Self::KeepEventsDays => "keep-events-days",
            Self::ConnectionsMax => "connections-max",
        }
    }

    /// How it may be written.
    pub fn example(self) -> &'static str {
        match self {
            Self::Listen => r#"listen = "[::]:8443""#,
            Self::Certificate => r#"certificate = "/etc/nixfleet/server.pem""#,
            Self::CertificateKey => r#"certificate-key = "/etc/nixfleet/server.key""#,
            Self::Root => r#"root = "/etc/nixfleet/root.json""#,
            Self::Database => r#"database = "sqlite:/var/lib/nixfleet-control-plane/control-plane.db""#,
            Self::Releases => r#"releases = "/srv/releases""#,
            Self::KeepEventsDays => r#"keep-events-days = "90""#,
            Self::ConnectionsMax => r#"connections-max = "100000""#,
        }
    }
}

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen at.
    pub listen: SocketAddr,
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub certificate_key: PathBuf,
    /// The first root document of the fleet.
    pub root: PathBuf,
    /// Where things are kept.
    pub database: Database,
    /// A folder of releases to watch; `None` if releases are only pushed.
    pub releases: Option<PathBuf>,
    /// How long events are kept.
    pub keep_events: Duration,
    /// How many connections there may be at the same time.
    pub connections_max: u32,
}

/// Where things are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// One file, for one process.
    Sqlite(PathBuf),
    /// A server, for any number of replicas. The address may hold a password, so it is never printed.
    Postgres(String),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Database {
    /// Without what may be secret in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(_) => f.write_str("postgres"),
        }
    }
}

impl FromStr for Database {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            return match Path::new(path) {
                path if path.is_absolute() => Ok(Self::Sqlite(path.to_owned())),
                _ => Err("after `sqlite:` comes an absolute path"),
            };
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err("it begins neither with `sqlite:` nor with `postgres://`")
    }
}

impl Config {
    /// The configuration in `text`, or everything that is wrong with it.
    pub fn read(text: &str) -> Result<Self, Vec<Fault>> {
        let (written, faults) = written::read(text);
        Parsed::of(written, faults).whole()
    }
}

/// Settings with types; what is missing is `None`.
struct Parsed {
    listen: Option<SocketAddr>,
    certificate: Option<PathBuf>,
    certificate_key: Option<PathBuf>,
    root: Option<PathBuf>,
    database: Option<Database>,
    releases: Option<PathBuf>,
    keep_events: Duration,
    connections_max: u32,
    /// Keys that were given, well or badly: what was given badly is not also missing.
    given: Vec<Key>,
    faults: Vec<Fault>,
}

impl Parsed {
    fn of(mut written: Written, mut faults: Vec<Fault>) -> Self {
        let given = written.keys();
        let mut take = Taking { written: &mut written, faults: &mut faults };
        let days = |text: &str| match text.parse() {
            Ok(days) if (1..=3_650).contains(&days) => Ok(days),
            Ok(_) | Err(_) => Err("it is not a number of days from 1 to 3650".to_owned()),
        };
        let connections = |text: &str| match text.parse() {
            Ok(count) if (1..=1_000_000).contains(&count) => Ok(count),
            Ok(_) | Err(_) => Err("it is not a number from 1 to 1000000".to_owned()),
        };
        let address = |text: &str| {
            text.parse().map_err(|_| "it is not an address and a port, such as `[::]:8443`".to_owned())
        };
        Self {
            listen: take.one(Key::Listen, address),
            certificate: take.one(Key::Certificate, absolute),
            certificate_key: take.one(Key::CertificateKey, absolute),
            root: take.one(Key::Root, absolute),
            database: take.one(Key::Database, |text| text.parse().map_err(str::to_owned)),
            releases: take.one(Key::Releases, absolute),
            keep_events: day(take.one(Key::KeepEventsDays, days).unwrap_or(KEEP_EVENTS_DAYS)),
            connections_max: take.one(Key::ConnectionsMax, connections).unwrap_or(CONNECTIONS_MAX),
            given,
            faults,
        }
    }

    fn whole(self) -> Result<Config, Vec<Fault>> {
        let Self {
            listen,
            certificate,
            certificate_key,
            root,
            database,
            releases,
            keep_events,
            connections_max,
            given,
            mut faults,
        } = self;
        let needed = [Key::Listen, Key::Certificate, Key::CertificateKey, Key::Root];
        faults.extend(needed.into_iter().filter(|key| !given.contains(key)).map(Fault::missing));
        let database = match database {
            Some(database) => Some(database),
            None if given.contains(&Key::Database) => None,
            None => DATABASE.parse().ok(),
        };
        match (listen, certificate, certificate_key, root, database) {
            (Some(listen), Some(certificate), Some(certificate_key), Some(root), Some(database))
                if faults.is_empty() =>
            {
                Ok(Config {
                    listen,
                    certificate,
                    certificate_key,
                    root,
                    database,
                    releases,
                    keep_events,
                    connections_max,
                })
            }
            _ => Err(faults),
        }
    }
}

struct Taking<'a> {
    written: &'a mut Written,
    faults: &'a mut Vec<Fault>,
}

impl Taking<'_> {
    fn one<T>(&mut self, key: Key, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let written::Located { text, at } = self.written.take(key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.faults.push(Fault { at: Some(at), what: What::Value { key, why } });
                None
            }
        }
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("it is not an absolute path".to_owned()) }
}

fn day(days: u64) -> Duration {
    Duration::from_hours(24 * days)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
listen = "[::1]:8443"
certificate = "/etc/nixfleet/server.pem"
certificate-key = "/etc/nixfleet/server.key"
root = "/etc/nixfleet/root.json"
"#;

    fn faults(text: &str) -> Vec<String> {
        let faults = Config::read(text).expect_err(text);
        faults.iter().map(|fault| fault.shown(Path::new("f.toml"))).collect()
    }

    #[test]
    fn a_short_file_is_enough_and_the_rest_has_defaults() {
        let config = Config::read(GOOD).expect("whole");
        assert_eq!(config.listen.port(), 8443);
        let file = PathBuf::from("/var/lib/nixfleet-control-plane/control-plane.db");
        assert_eq!(config.database, Database::Sqlite(file));
        assert_eq!((config.releases, config.connections_max), (None, 100_000));
        assert_eq!(config.keep_events.as_secs(), 90 * 86_400);
    }

    #[test]
    fn all_faults_are_told_at_once_with_their_places() {
        let text = "listen = \"8443\"\nrot = \"/r\"\ndatabase = \"mysql://x\"\nkeep-events-days = \"0\"\nreleases = [\"/a\"]\n";
        assert_eq!(
            faults(text),
            [
                "f.toml:2:1: there is no key `rot`; did you mean `root`?",
                "f.toml:5:12: `releases` is a text, and here is a list; write releases = \"/srv/releases\"",
                "f.toml:1:10: `listen`: it is not an address and a port, such as `[::]:8443`",
                "f.toml:3:12: `database`: it begins neither with `sqlite:` nor with `postgres://`",
                "f.toml:4:20: `keep-events-days`: it is not a number of days from 1 to 3650",
                "`certificate` is missing: write certificate = \"/etc/nixfleet/server.pem\"",
                "`certificate-key` is missing: write certificate-key = \"/etc/nixfleet/server.key\"",
                "`root` is missing: write root = \"/etc/nixfleet/root.json\"",
            ]
        );
    }

    #[test]
    fn the_password_of_a_database_is_never_printed() {
        let text = format!("{GOOD}database = \"postgres://fleet:hunter2@db/fleet\"\n");
        let config = Config::read(&text).expect("whole");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn every_example_is_a_line_that_is_taken() {
        let text: Vec<&str> = Key::ALL.into_iter().map(Key::example).collect();
        Config::read(&text.join("\n")).expect("whole");
    }
}
