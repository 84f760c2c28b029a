//! Puts the agent together: reads what was saved, looks at the host, starts the workers, and runs the loop.
//!
//! Everything that cannot be read stops it here, before anything is begun: it is never taken for a fresh host.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nixfleet_core::host::retry::seed_of;
use nixfleet_core::host::world::{Setup, SourceKind};
use nixfleet_sys::clock;
use nixfleet_sys::fs::{self, FsError, Lock};
use nixfleet_trust::trust::{Trust, TrustUnreadable};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::applier::{Applier, Workers};
use super::desk::HostDesk;
use super::follow::Following;
use super::handover::{Handover, Successor};
use super::input::INPUTS_MAX;
use super::net::Net;
use super::outbox::{Found, Limits, Outbox, OutboxError, Receiver};
use super::recovery::{CannotStart, agent_started};
use super::reducer::Reducer;
use super::state_file::{StateFile, StateFileError};
use super::told::Told;
use super::workers::hooks::Hooks;
use super::workers::jobs::Jobs;
use super::workers::link::{Link, REPORTED_WITHIN};
use super::workers::probes::Probes;
use super::workers::reboot::Reboot;
use super::workers::staging::Staging;
use super::workers::{source, system};
use super::{notify, requests};
use crate::activation::ActivationBackend;
use crate::activation::host::HostPaths;
use crate::activation::journal::JournalError;
use crate::activation::types::{Observer, Weight};
use crate::programs::Holder;
use crate::source::Following as Source;
use crate::source::look::root_terms;
use crate::source::place::Place;
use crate::tools::MissingTools;

/// How long the lock is waited for: a person who asks whether an agent follows has it for an instant, another agent for longer.
const LOCK_WITHIN: Duration = Duration::from_millis(500);
/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What an agent is to do, by its configuration.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Who it is, and what it follows.
    pub setup: Setup,
    /// Where releases come from.
    pub source: Source,
    /// The root that the configuration names, as it is in its file.
    pub root: Vec<u8>,
    /// The files that all of this was read from.
    pub told: Told,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// Another one runs.
    #[error("another agent follows a source on this host already")]
    Another,
    /// The state folder or the lock.
    #[error(transparent)]
    File(#[from] FsError),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// It cannot be said what is trusted.
    #[error("this host cannot say what it trusts")]
    Trust(#[source] TrustUnreadable),
    /// The log cannot be used.
    #[error("the log of this host's events cannot be used")]
    Log(#[source] OutboxError),
    /// It cannot be said where the host stands.
    #[error(transparent)]
    Host(#[from] CannotStart),
    /// A program is missing.
    #[error(transparent)]
    Tools(#[from] MissingTools),
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl NotStarted {
    /// Whether starting again does not help: what is there means nothing, or is a newer program's, or the file is none. One
    /// that cannot be read now may be readable in a moment.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::State(error) => error.is_lasting(),
            Self::Log(OutboxError::File(error)) => !error.may_pass(),
            Self::Trust(_)
            | Self::Log(OutboxError::Newer { .. } | OutboxError::OutOfOrder { .. })
            | Self::Host(CannotStart::Journal(JournalError::Damaged { .. } | JournalError::Newer { .. })) => {
                true
            }
            Self::Host(CannotStart::Boot(_) | CannotStart::Journal(JournalError::File(_)))
            | Self::Another
            | Self::File(_)
            | Self::Tools(_)
            | Self::Thread(_) => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Another => "`systemctl status nixfleet-agent` shows it",
            Self::State(StateFileError::File(error)) | Self::Log(OutboxError::File(error))
                if error.may_pass() =>
            {
                "nothing is switched until it can be read and written; the agent starts again by itself until then"
            }
            Self::Host(CannotStart::Journal(error)) => error.hint(),
            Self::State(error) => error.hint(),
            Self::Trust(_) => "look at the root in the configuration; nothing is switched until it is right",
            Self::Log(_) => "nothing is switched until a person has looked at it",
            Self::File(_) | Self::Host(_) | Self::Tools(_) | Self::Thread(_) => {
                "nothing is switched until this is put right"
            }
        }
    }
}

/// How the loop ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The running system carries this agent, and it is to go on.
    HandedOver(Successor),
    /// Every worker is gone: a mistake of ours.
    WorkersGone,
}

/// Follows the source until it is dropped, or makes way for another agent.
pub async fn run<B: ActivationBackend + Send + 'static>(
    backend: Arc<B>,
    orders: Orders,
    voice: Arc<dyn Observer>,
) -> Result<Ended, NotStarted> {
    let host = backend.host().clone();
    fs::make_dir(&host.state)?;
    let _only = take_lock(&host.agent_lock()).await?;
    if fs::is_in_memory(&host.state) {
        let why = format!(
            "error: {} is in memory: after a reboot this host knows nothing of what it accepted, and takes an older \
             release for a newer one; make it persistent, or set `state-dir` to a folder that is",
            host.state.display()
        );
        voice.remark(Weight::Error, &why);
    }
    let file = StateFile::in_folder(&host.state);
    let saved = file.read()?.unwrap_or_default();
    let Orders { setup, mut source, root, told } = orders;
    let net = Net::begin((source.random)());
    source.look_at = Arc::new(move |time| net.near(time));
    let trust = match saved.trust.clone() {
        None => Trust::begin(&root),
        Some(saved) => Trust::resume(&root, saved),
    };
    let trust = trust.map_err(NotStarted::Trust)?;
    let outbox = open_outbox(&host, &setup, saved.host.seq, &*voice)?;
    let seed = seed_of(&setup.host);
    let (first, boot) = agent_started(&*backend, (setup, root_terms(&trust)), &saved.host).await?;
    file.keep_reserve();

    let (inputs, taken) = mpsc::channel(INPUTS_MAX);
    let (newest, saved_newest) = watch::channel(saved.host.seq);
    let asks = source::start((source.clone(), trust), inputs.clone());
    if let Place::ControlPlane(address) = &source.place {
        let to_look = asks.clone();
        let link = Link {
            address: address.clone(),
            speaking: source.speaking(),
            inputs: inputs.clone(),
            newest: saved_newest,
            reported_within: REPORTED_WITHIN,
            clock: clock::unix_ms,
            random: Arc::clone(&source.random),
            look: Arc::new(move || to_look.look()),
            voice: Arc::clone(&voice),
        };
        link.start();
    }
    let thread = NotStarted::Thread;
    let workers = Workers {
        jobs: Jobs::start(Arc::clone(&backend), Arc::clone(&voice), inputs.clone()).map_err(thread)?,
        staging: Staging::start(Arc::clone(&backend), Arc::clone(&voice), inputs.clone()).map_err(thread)?,
        probes: Probes::new(Arc::clone(&backend), inputs.clone()),
        asks,
        hooks: Hooks::new(Holder::of(&*backend), inputs.clone()),
        reboot: Reboot::new(backend.tools()?.clone(), inputs.clone()),
    };
    tokio::spawn(system::watch(host.clone(), inputs.clone(), net));
    tokio::spawn(requests::watch((host.state.clone(), net), inputs.clone(), Arc::clone(&voice)));
    let applier = Applier::new((Arc::clone(&backend), boot.clone()), workers, inputs);
    let desk = HostDesk::new((file, outbox), host, applier, Arc::clone(&voice), newest);
    let reducer = Reducer::new(saved, seed, desk);
    notify::ready();
    let handover = Handover::of(backend.host(), told);
    Ok(Following::new((backend, voice), (reducer, handover), taken, (boot, net)).run(first).await)
}

/// The lock of whoever follows.
async fn take_lock(path: &Path) -> Result<Lock, NotStarted> {
    let until = Instant::now() + LOCK_WITHIN;
    loop {
        match Lock::try_take(path)? {
            Some(lock) => return Ok(lock),
            None if Instant::now() >= until => return Err(NotStarted::Another),
            None => sleep(LOCK_PAUSE).await,
        }
    }
}

/// The outbox of this host; what was found in it that should not be there is told.
fn open_outbox(
    host: &HostPaths,
    setup: &Setup,
    saved: u64,
    voice: &dyn Observer,
) -> Result<Outbox, NotStarted> {
    let receiver = match setup.source {
        SourceKind::Static => Receiver::Nobody,
        SourceKind::ControlPlane => Receiver::Acknowledges,
    };
    let opened = Outbox::open(&host.outbox(), saved, Limits::of(receiver));
    let (outbox, Found { damaged_lines, unsaved, missing }) = opened.map_err(NotStarted::Log)?;
    if damaged_lines > 0 {
        let why = format!("error: {damaged_lines} lines of the outbox were altered on the disk and are lost");
        voice.remark(Weight::Error, &why);
    }
    if unsaved > 0 {
        let what =
            format!("{unsaved} events were written and not saved before a crash; they are taken again");
        voice.remark(Weight::Note, &what);
    }
    if missing > 0 {
        let why = format!("error: the newest {missing} records before the saved state are not in the outbox");
        voice.remark(Weight::Error, &why);
    }
    Ok(outbox)
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_disk_that_fails_for_a_while_is_waited_out_and_what_is_damaged_is_a_persons() {
        let file = |errno: Errno| {
            let source = io::Error::from_raw_os_error(errno.raw_os_error());
            FsError { action: "open", path: "/var/lib/nixfleet/outbox.jsonl".into(), source }
        };
        for passes in [Errno::ROFS, Errno::NOSPC, Errno::IO] {
            let of_log = NotStarted::Log(OutboxError::File(file(passes)));
            let of_state = NotStarted::State(StateFileError::File(file(passes)));
            assert!(!of_log.is_lasting() && of_log.hint().contains("by itself"), "{passes}");
            assert!(!of_state.is_lasting() && of_state.hint().contains("by itself"), "{passes}");
        }
        assert!(NotStarted::State(StateFileError::File(file(Errno::ISDIR))).is_lasting());
        let path = || "/var/lib/nixfleet/journal.jsonl".into();
        let newer = NotStarted::Host(CannotStart::Journal(JournalError::Newer { path: path(), version: 9 }));
        assert!(newer.is_lasting() && newer.hint().contains("the agent that wrote it"));
        let damaged = JournalError::Damaged { path: path(), line: 1 };
        let damaged = NotStarted::Host(CannotStart::Journal(damaged));
        assert!(damaged.is_lasting() && damaged.hint().contains("person"));
        assert!(NotStarted::Log(OutboxError::OutOfOrder { got: 3, after: 7 }).is_lasting());
    }
}
