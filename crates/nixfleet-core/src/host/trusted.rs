//! What a host acts upon of the root of trust in force. Who may sign is for `nixfleet-trust` alone; here is only what the
//! root forbids to begin.

use serde::{Deserialize, Serialize};

use super::phase::Phase;
use super::state::HostState;
use crate::model::names::{ReleaseId, RootVersion};
use crate::model::time::UnixMs;

/// What a root says to a host, whatever it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootTerms {
    /// Its number.
    pub version: RootVersion,
    /// When it was made.
    pub created_ms: UnixMs,
    /// From here on nothing new is started because of it.
    pub expires_ms: UnixMs,
}

/// The root in force on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InForce {
    /// What it says.
    pub terms: RootTerms,
    /// The releases that passed every check under this root, and not only under one before it: a newer root may have taken a key
    /// away, drawn a line, or ended a channel. Of these the newest one and the one that the host is busy with, so two at most.
    pub vouched: Vec<ReleaseId>,
}

impl InForce {
    fn begin(terms: RootTerms) -> Self {
        Self { terms, vouched: Vec::new() }
    }

    /// Whether it vouches for `release`.
    pub fn vouches_for(&self, release: &ReleaseId) -> bool {
        self.vouched.contains(release)
    }
}

/// Puts `root` in force, with which a process began: what another one vouched for is to be verified again. It may be an older
/// one, as after a way back to a system whose configuration has that.
pub(super) fn began_under(have: &mut Option<InForce>, root: RootTerms) {
    if have.as_ref().is_none_or(|have| have.terms != root) {
        *have = Some(InForce::begin(root));
    }
}

/// Puts `root` in force, which was accepted, unless that was told before.
pub(super) fn accepted(have: &mut Option<InForce>, root: RootTerms) {
    if have.as_ref().is_none_or(|have| have.terms.version < root.version) {
        *have = Some(InForce::begin(root));
    }
}

/// Takes note that `release`, the newest one, passed every check under the root in force. That of one which is known changes
/// nothing, whatever the host is busy with by now: each start of the agent verifies it again, and that is no report.
pub(super) fn verified(state: &mut HostState, release: &ReleaseId) {
    let busy_with = busy_with(&state.phase).cloned();
    if let Some(root) = state.root.as_mut().filter(|root| !root.vouches_for(release)) {
        root.vouched.retain(|known| Some(known) == busy_with.as_ref());
        root.vouched.push(release.clone());
    }
}

/// Forgets what was vouched for, as another channel is followed from now on.
pub(super) fn forget(root: &mut Option<InForce>) {
    if let Some(root) = root {
        root.vouched.clear();
    }
}

fn busy_with(phase: &Phase) -> Option<&ReleaseId> {
    phase.target().map(|target| &target.release)
}
