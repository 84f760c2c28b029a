//! From the configuration to what the agent is to do.

use std::path::PathBuf;
use std::process::ExitCode;

use nixfleet_agent::config::ready::NotReady;
use nixfleet_agent::config::{CONFIG_FILE, Config};
use nixfleet_agent::runtime::start::Orders;
use nixfleet_core::host::world::Setup;
use nixfleet_sys::fs;
use nixfleet_sys::text::chain;
use nixfleet_trust::envelope::ENVELOPE_SIZE_MAX;

use super::check::ConfigArgs;
use super::{UNREADABLE, ui};

/// What the agent is to do, and where it keeps its state; nothing if nobody named a configuration and the usual one is not
/// there.
pub(super) fn read(
    args: ConfigArgs,
    state_dir: Option<&PathBuf>,
) -> Result<Option<(Orders, PathBuf)>, ExitCode> {
    if args.say_nothing() && !std::path::Path::new(CONFIG_FILE).exists() {
        return Ok(None);
    }
    let (_, loaded) = args.load(state_dir);
    let config = loaded.map_err(|refused| ui::refuse(UNREADABLE, &chain(&refused), Some(refused.hint())))?;
    match orders(&config) {
        Ok(orders) => Ok(Some((orders, config.state_dir))),
        Err(not_ready) => {
            let hint = "`nixfleet-agent check` says more";
            Err(ui::refuse(UNREADABLE, &chain(&not_ready), Some(hint)))
        }
    }
}

fn orders(config: &Config) -> Result<Orders, NotReady> {
    let size = u64::try_from(ENVELOPE_SIZE_MAX).unwrap_or(u64::MAX);
    Ok(Orders {
        setup: Setup {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            host: config.host.clone(),
            channel: config.channel.clone(),
            source: config.source.kind(),
            reboots: config.reboots,
        },
        source: config.following()?,
        root: fs::read_guarded(&config.root, size).map_err(NotReady::File)?,
    })
}
