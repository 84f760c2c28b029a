//! The one place that looks at the host when the agent starts: what runs, and what the activation journal says of the
//! activation that the saved state has in flight. It makes [`Event::AgentStarted`], from which the machine goes on.

use nixfleet_core::activation::record::Activation;
use nixfleet_core::host::trusted::RootTerms;
use nixfleet_core::host::world::{JournalSays, Said, Setup, World};
use nixfleet_core::host::{Event, HostState};
use nixfleet_core::ids::{ActivationId, BootId};

use crate::activation::ActivationBackend;
use crate::activation::host::BootUnknown;
use crate::activation::journal::{JournalError, history};

/// Why the agent cannot say where the host stands. Nothing is started then.
#[derive(Debug, thiserror::Error)]
pub enum CannotStart {
    /// This boot cannot be told from another.
    #[error(transparent)]
    Boot(#[from] BootUnknown),
    /// The activation journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The first event of a process, under the root in force.
pub async fn agent_started<B: ActivationBackend>(
    backend: &B,
    (setup, root): (Setup, RootTerms),
    state: &HostState,
) -> Result<(Event, BootId), CannotStart> {
    let boot = backend.boot_id().await?;
    if state.world.boot.as_ref() != Some(&boot) {
        backend.await_boot().await;
    }
    let known = history(&backend.host().journal())?;
    let journal = state.activation_in_flight().map(|id| says(&known, id));
    let world = look(backend, &boot);
    Ok((Event::AgentStarted { setup, world, journal, root: Some(root) }, boot))
}

fn says(known: &[Activation], id: &ActivationId) -> JournalSays {
    let said = match known.iter().rfind(|activation| activation.id == *id) {
        None => Said::Nothing,
        Some(activation) if activation.is_pending() => Said::Pending(activation.reached.step()),
        Some(_) => Said::Ended,
    };
    JournalSays { id: id.clone(), said }
}

/// What runs now. Reads a few links, which takes less than a millisecond.
pub fn look<B: ActivationBackend>(backend: &B, boot: &BootId) -> World {
    let host = backend.host();
    let (booted, current) = (host.booted(), host.current());
    let reboot_needed = crate::reboot::needed(host);
    World { boot: Some(boot.clone()), booted, current, profile: host.profile_system(), reboot_needed }
}
