//! Staging: everything of an activation that changes nothing. The target is fetched, verified, rooted and looked at; when
//! its turn comes, the pipeline finds it there and has only to switch.
//!
//! It takes no lock: a fetch may last for hours, and a person who needs the way back must not wait for it. So it keeps a
//! list of its own of what is not synced yet (see [`super::unsynced`]). Called by the runtime's worker, which drops the
//! future when another staging takes its place; the fetch ends with it.

use std::sync::Arc;

use nixfleet_core::activation::outcome::Failure;
use nixfleet_core::activation::record::Unsigned;
use nixfleet_core::host::effect::StageOrder;

use super::backend::ActivationBackend;
use super::pipeline::is_a_system;
use super::realise::{Order, realise, seen};
use super::types::Observer;
use crate::tools::nix_store::REALISE_STALL;

/// Fetches and checks the target and keeps it from collection. Whatever goes wrong, nothing is changed but the store.
pub async fn stage<B: ActivationBackend>(
    backend: &B,
    order: &StageOrder,
    observer: &Arc<dyn Observer>,
) -> Result<(), Failure> {
    let StageOrder { release: _, system, closure: signed } = order;
    let tools = backend.tools().map_err(|missing| Failure::Internal { what: missing.to_string() })?;
    let host = backend.host();
    let keys = async { tools.nix_settings().await.unwrap_or_default().trusted_keys };
    let seen = seen(tools, system, keys).await;
    let fetch = Order {
        system,
        seen: &seen,
        host,
        root: &host.wanted_root(system),
        unsynced: &host.unsynced_staging(),
        unsigned: Unsigned::Refuse,
        digest: Some(&signed.digest),
        stall: REALISE_STALL,
        architecture: backend.architecture(),
        observer: &**observer,
    };
    realise(tools, &fetch).await?;
    is_a_system(backend, system)
}
