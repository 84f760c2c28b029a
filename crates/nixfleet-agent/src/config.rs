//! What this agent is told by its host: whom to trust, what to follow, who it is.
//!
//! One file and one flag for each of its keys; a flag wins. Three stages, each of which finds all faults at once: the text
//! becomes values with their places ([`written`]), values become settings with types ([`parsed`]), and settings become a
//! [`Config`] with nothing missing. [`keys`] is the one table of keys. [`ready`] reads the files that a configuration
//! names.
//!
//! Whoever can write this file, or the root document that it names, decides what runs on the host. So both are refused
//! if anybody but root (and the user that the agent runs as) could have written them.

pub mod keys;
pub mod parsed;
pub mod ready;
pub mod written;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_sys::fs::{self, FsError};

use crate::activation::host::STATE_DIR;
use crate::source::place::Place;
use keys::Key;
use nixfleet_core::host::world::Reboots;
use parsed::{Parsed, parse};
use ready::ServerChoice;
use written::{Fault, Written};

/// Where the file usually is.
pub const CONFIG_FILE: &str = "/etc/nixfleet/agent.toml";
/// The environment of the shipped unit: the credentials of caches, and the way out.
pub const ENVIRONMENT_FILE: &str = "/etc/nixfleet/agent.env";
/// The largest file that is read, in bytes; one with every key has some 500.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The root document, if the configuration does not name one.
const ROOT_FILE: &str = "/etc/nixfleet/root.json";
/// The host's key, if the configuration does not name one: the one that its SSH server has anyway.
const HOST_KEY_FILE: &str = "/etc/ssh/ssh_host_ed25519_key.pub";
/// The pause between two looks, if the configuration does not say.
pub const POLL: Duration = Duration::from_mins(1);

/// The configuration of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file with the root document that the fleet began with for this host.
    pub root: PathBuf,
    /// Where releases come from.
    pub source: Place,
    /// How a web server proves who it is.
    pub server: ServerChoice,
    /// The channel that is followed.
    pub channel: ChannelName,
    /// The host's name in its fleet.
    pub host: HostName,
    /// The file with the public half of the host's key.
    pub host_key: PathBuf,
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// The pause between two looks at the source.
    pub poll: Duration,
    /// Whether the host may restart.
    pub reboots: Reboots,
}

/// Which file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFile {
    /// One that a person named; it must be there.
    Named(PathBuf),
    /// The usual one; without it, flags have to say everything.
    Usual,
}

impl ConfigFile {
    /// Its path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Named(path) => path,
            Self::Usual => Path::new(CONFIG_FILE),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigRefused {
    /// The file cannot be read, or not trusted.
    #[error(transparent)]
    File(FsError),
    /// It is not text.
    #[error("`{}` is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// Something in it is wrong.
    #[error("{}", Listed(.0, .1))]
    Faults(PathBuf, Vec<Fault>),
}

impl ConfigRefused {
    /// Whether only a person, or another system, changes it: a file that cannot be read yet may be there in a moment (a
    /// folder that is mounted late), one that others can write, or that means nothing, stays so.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::File(error) => error.is_untrusted(),
            Self::NotText(_) | Self::Faults(..) => true,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File(error) if error.is_untrusted() => {
                "it decides what runs on this host: make it root's, and writable by root only (`chown root`, `chmod go-w`)"
            }
            Self::File(error) if error.is_not_found() => {
                "write the file, or name another with --config, or give every key as a flag"
            }
            Self::File(_) | Self::NotText(_) => "look at the file",
            Self::Faults(..) => "`nixfleet-agent check --help` lists the keys",
        }
    }
}

/// Faults with their places, one to a line.
struct Listed<'a>(&'a Path, &'a [Fault]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, faults) = self;
        match faults {
            [one] => write!(f, "{}", one.shown(path)),
            many => {
                write!(f, "the configuration has {} faults", many.len())?;
                many.iter().try_for_each(|fault| write!(f, "\n  {}", fault.shown(path)))
            }
        }
    }
}

/// The configuration in `file` with `flags` over it, on a host that the kernel calls `kernel_name`.
pub fn load(file: &ConfigFile, flags: &Written, kernel_name: &str) -> Result<Config, ConfigRefused> {
    let text = read(file)?;
    let (written, mut faults) = written::read(text.as_deref().unwrap_or_default());
    // What could not be read at all is not reported as missing too.
    let whole = faults.iter().all(|fault| !matches!(fault.what, written::What::Syntax(_)));
    let (in_file, more) = parse(&written);
    faults.extend(more);
    let (in_flags, more) = parse(flags);
    faults.extend(more);
    let known: Vec<Key> = written.keys().chain(flags.keys()).collect();
    let (config, missing) = resolve(in_flags.over(in_file), kernel_name);
    // Nor is what was written and was wrong.
    faults.extend(
        missing.into_iter().filter(|fault| whole && fault.key().is_none_or(|key| !known.contains(&key))),
    );
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        Some(_) | None => {
            faults.sort_by_key(|fault| fault.at);
            Err(ConfigRefused::Faults(file.path().to_owned(), faults))
        }
    }
}

/// The state folder that `file` names, if there is such a file; what else is wrong in it does not matter here.
pub fn state_dir_in(file: &ConfigFile) -> Result<Option<PathBuf>, ConfigRefused> {
    let text = read(file)?;
    let (written, _) = written::read(text.as_deref().unwrap_or_default());
    Ok(parse(&written).0.state_dir)
}

/// The text of the file; `None` only if the usual one is not there.
fn read(file: &ConfigFile) -> Result<Option<String>, ConfigRefused> {
    match (fs::read_guarded(file.path(), FILE_BYTES_MAX), file) {
        (Ok(bytes), _) => {
            String::from_utf8(bytes).map(Some).map_err(|_| ConfigRefused::NotText(file.path().to_owned()))
        }
        (Err(error), ConfigFile::Usual) if error.is_not_found() => Ok(None),
        (Err(error), ConfigFile::Usual | ConfigFile::Named(_)) => Err(ConfigRefused::File(error)),
    }
}

/// The third stage: what is not said has its default, what has none is missing, and what excludes each other is told.
/// `None` if something is missing.
fn resolve(parsed: Parsed, kernel_name: &str) -> (Option<Config>, Vec<Fault>) {
    let Parsed { root, source, channel, host, host_key, state_dir, poll, ca_file, pins, reboots } = parsed;
    let mut faults = Vec::new();
    let mut missing = |key: Key| faults.push(Fault::missing(key));
    if source.is_none() {
        missing(Key::Source);
    }
    if channel.is_none() {
        missing(Key::Channel);
    }
    let host = host.or_else(|| {
        let named = kernel_name.parse();
        named.map_err(|error| faults.push(Fault::kernel_name(&error))).ok()
    });
    let server = match (ca_file, pins) {
        (Some(_), Some(_)) => {
            faults.push(Fault::both(Key::CaFile, Key::Pins));
            ServerChoice::Host
        }
        (Some(file), None) => ServerChoice::CaFile(file),
        (None, Some(pins)) => ServerChoice::Pins(pins),
        (None, None) => ServerChoice::Host,
    };
    let proves = match &source {
        Some(Place::Web(address) | Place::ControlPlane(address)) => address.is_https(),
        Some(Place::Folder(_)) | None => false,
    };
    if source.is_some() && !proves {
        let useless = match &server {
            ServerChoice::Host => None,
            ServerChoice::CaFile(_) => Some(Key::CaFile),
            ServerChoice::Pins(_) => Some(Key::Pins),
        };
        faults.extend(useless.map(Fault::only_with_https));
    }
    let (Some(source), Some(channel), Some(host)) = (source, channel, host) else { return (None, faults) };
    let config = Config {
        root: root.unwrap_or_else(|| ROOT_FILE.into()),
        source,
        server,
        channel,
        host,
        host_key: host_key.unwrap_or_else(|| HOST_KEY_FILE.into()),
        state_dir: state_dir.unwrap_or_else(|| STATE_DIR.into()),
        poll: poll.unwrap_or(POLL),
        reboots: reboots.unwrap_or_default(),
    };
    (Some(config), faults)
}

#[cfg(test)]
mod tests;
