//! From the configuration to what the agent is to do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nixfleet_agent::activation::profile::describe;
use nixfleet_agent::config::ready::NotReady;
use nixfleet_agent::config::written::Written;
use nixfleet_agent::config::{self, Config, ConfigFile};
use nixfleet_agent::runtime::start::Orders;
use nixfleet_core::host::world::{Setup, SourceKind};
use nixfleet_sys::fs;
use nixfleet_trust::envelope::ENVELOPE_SIZE_MAX;

use super::{UNREADABLE, ui};

/// Which file is read.
pub(super) fn file(named: Option<&Path>) -> ConfigFile {
    named.map_or(ConfigFile::Usual, |path| ConfigFile::Named(path.to_owned()))
}

/// The state folder: the one that was asked for, or that the usual configuration names. A configuration that cannot be read
/// names none, and is told by whoever needs it.
pub(super) fn state_dir(asked: Option<PathBuf>, named: Option<&Path>) -> Option<PathBuf> {
    asked.or_else(|| config::state_dir_in(&file(named)).ok().flatten())
}

/// What the agent is to do; nothing if nobody named a configuration and the usual one is not there.
pub(super) fn read(named: Option<&Path>) -> Result<Option<Orders>, ExitCode> {
    let file = file(named);
    if file == ConfigFile::Usual && !file.path().exists() {
        return Ok(None);
    }
    let name = rustix::system::uname();
    let kernel_name = name.nodename().to_string_lossy();
    let loaded = config::load(&file, &Written::default(), &kernel_name);
    let config =
        loaded.map_err(|refused| ui::refuse(UNREADABLE, &describe(&refused), Some(refused.hint())))?;
    orders(&config).map(Some).map_err(|not_ready| {
        ui::refuse(UNREADABLE, &describe(&not_ready), Some("look at the files that the configuration names"))
    })
}

fn orders(config: &Config) -> Result<Orders, NotReady> {
    let size = u64::try_from(ENVELOPE_SIZE_MAX).unwrap_or(u64::MAX);
    Ok(Orders {
        setup: Setup {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            host: config.host.clone(),
            channel: config.channel.clone(),
            source: SourceKind::Static,
        },
        source: config.following()?,
        root: fs::read_guarded(&config.root, size).map_err(NotReady::File)?,
        reboots: config.reboots,
    })
}
