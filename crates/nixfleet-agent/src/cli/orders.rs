//! From the configuration to what the agent is to do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nixfleet_agent::config::ready::NotReady;
use nixfleet_agent::config::{CONFIG_FILE, Config, ConfigRefused, ENVIRONMENT_FILE};
use nixfleet_agent::runtime::rescue::Trouble;
use nixfleet_agent::runtime::start::Orders;
use nixfleet_agent::runtime::state_file::StateFile;
use nixfleet_agent::runtime::told::Told;
use nixfleet_core::host::world::Setup;
use nixfleet_sys::fs;
use nixfleet_sys::text::chain;
use nixfleet_trust::envelope::ENVELOPE_SIZE_MAX;

use super::check::ConfigArgs;
use super::{UNREADABLE, ui};

/// What the service manager reads at a start: the agent's own unit in a system (flags, sandbox), and the environment that
/// the shipped unit names.
const UNIT: [&str; 2] = ["/run/current-system/etc/systemd/system/nixfleet-agent.service", ENVIRONMENT_FILE];

/// Why there are no orders.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoOrders {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigRefused),
    /// A file that it names.
    #[error(transparent)]
    Ready(#[from] NotReady),
}

impl NoOrders {
    fn is_lasting(&self) -> bool {
        match self {
            Self::Config(refused) => refused.is_lasting(),
            Self::Ready(not_ready) => not_ready.is_lasting(),
        }
    }

    /// What it means for an activation that is not over.
    pub(super) fn trouble(&self) -> Trouble {
        if self.is_lasting() { Trouble::Lasting { why: chain(self) } } else { Trouble::Passing }
    }

    /// Tells people; the code says whether starting again may help.
    pub(super) fn refuse(&self) -> ExitCode {
        let hint = match self {
            Self::Config(refused) => refused.hint(),
            Self::Ready(_) => "`nixfleet-agent check` says more",
        };
        ui::refuse(if self.is_lasting() { UNREADABLE } else { 1 }, &chain(self), Some(hint))
    }
}

/// What the agent is to do, and where it keeps its state; nothing if nobody named a configuration and the usual one is not
/// there.
pub(super) fn read(
    args: &ConfigArgs,
    state_dir: Option<&PathBuf>,
) -> Result<Option<(Orders, PathBuf)>, NoOrders> {
    if says_nothing(args) {
        return Ok(None);
    }
    // Each file is noted before it is read.
    let told = told(args, state_dir).with(args.file().path());
    let told = UNIT.iter().fold(told, |told, file| told.with(Path::new(file)));
    let (_, config) = args.clone().load(state_dir);
    let config = config?;
    let told = config.files().iter().fold(told, |told, file| told.with(file));
    Ok(Some((orders(&config, told)?, config.state_dir)))
}

/// Whether nobody has said what to follow (yet).
pub(super) fn says_nothing(args: &ConfigArgs) -> bool {
    args.say_nothing() && !Path::new(CONFIG_FILE).exists()
}

fn told(args: &ConfigArgs, state_dir: Option<&PathBuf>) -> Told {
    let (args, state_dir) = (args.clone(), state_dir.cloned());
    Told::new(move || {
        !says_nothing(&args) && args.clone().load(state_dir.as_ref()).1.is_ok_and(|it| is_usable(&it))
    })
}

/// Whether an agent that begins now would follow by this configuration.
fn is_usable(config: &Config) -> bool {
    let Ok(saved) = StateFile::in_folder(&config.state_dir).read() else { return false };
    config.trust(saved.and_then(|saved| saved.trust)).is_ok() && config.following().is_ok()
}

fn orders(config: &Config, told: Told) -> Result<Orders, NotReady> {
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
        told,
    })
}
