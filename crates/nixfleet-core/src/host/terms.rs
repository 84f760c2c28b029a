//! What a verified release says to one host: its entry, and the part of the policy that a host acts upon.
//!
//! Made from what `nixfleet-trust` verified; the machine keeps it in its state, so that a host whose source is away, or
//! whose copy of the release is gone, still knows how to go on and how to go back.

use serde::{Deserialize, Serialize};

use crate::activation::events::CommitPolicy;
use crate::ids::StorePath;
use crate::model::names::{ReleaseId, WaveName};
use crate::model::policy::{Approval, OnFailure, WaveIndex};
use crate::model::probe::ProbeSpec;
use crate::model::release::{Closure, Entry, Release};
use crate::model::schedule::{RebootPolicy, Window};
use crate::model::time::{Secs, UnixMs};

/// What a release says to one host. The release's digest commits to all of it, by way of the Merkle root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The release.
    pub release: ReleaseId,
    /// How often the owner had set the channel's floor back when this was verified. Only numbers under the same count can
    /// be compared: after a reset a lower one may be the newer.
    #[serde(default, skip_serializing_if = "is_never")]
    pub resets: u32,
    /// The system that the host shall run.
    pub system: StorePath,
    /// What that system's closure must contain.
    pub closure: Closure,
    /// When the release was made.
    pub created_ms: UnixMs,
    /// From here on nothing new is started because of it.
    pub expires_ms: UnixMs,
    /// The host's wave.
    pub wave: WaveTerms,
    /// What a healthy host answers; where none is enforced, the built-in probes decide.
    pub probes: Vec<ProbeSpec>,
    /// What a failure after the commit does.
    pub on_failure: OnFailure,
    /// When the system becomes the boot default.
    pub commit: CommitPolicy,
    /// From the switch to the confirmation.
    pub confirm_within_secs: Secs,
    /// When the host may switch; empty means at any time.
    pub windows: Vec<Window>,
    /// How and when the host restarts; its mode is the entry's own, if it has one.
    pub reboot: RebootPolicy,
}

/// What a host has to know of its wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveTerms {
    /// Its place.
    pub index: WaveIndex,
    /// Its name, for people.
    pub name: WaveName,
    /// When it opens at the earliest.
    pub opens_at_ms: UnixMs,
    /// How long the host is watched after its activation.
    pub soak_secs: Secs,
    /// Whether a person must open it.
    pub approval: Approval,
}

/// Why a release and an entry do not make terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTerms {
    /// The id is another release's.
    #[error("release {id} is not the one that was given, which is {channel}/{seq}", channel = .given.0, seq = .given.1)]
    OtherRelease {
        /// The id.
        id: ReleaseId,
        /// The release's own channel and number.
        given: (crate::model::names::ChannelName, crate::model::names::Seq),
    },
    /// The entry is in a wave that the policy does not have.
    #[error("the entry is in wave {0}, which the release does not have")]
    NoSuchWave(WaveIndex),
}

impl Terms {
    /// What `release`, which `id` names, says to the host of `entry`.
    pub fn new(id: ReleaseId, release: &Release, entry: &Entry) -> Result<Self, NotTerms> {
        if id.channel != release.channel || id.seq != release.seq {
            return Err(NotTerms::OtherRelease { id, given: (release.channel.clone(), release.seq) });
        }
        let policy = &release.policy;
        let wave = policy.wave(entry.wave).ok_or(NotTerms::NoSuchWave(entry.wave))?;
        let mut reboot = policy.reboot.clone();
        reboot.mode = entry.reboot.unwrap_or(reboot.mode);
        Ok(Self {
            release: id,
            resets: 0,
            system: entry.system.clone(),
            closure: entry.closure.clone(),
            created_ms: release.created_ms,
            expires_ms: release.expires_ms,
            wave: WaveTerms {
                index: entry.wave,
                name: wave.name.clone(),
                opens_at_ms: wave.opens_at(release.created_ms),
                soak_secs: wave.soak_secs,
                approval: wave.approval,
            },
            probes: entry.probes.clone(),
            on_failure: policy.on_failure,
            commit: policy.commit,
            confirm_within_secs: policy.confirm_within_secs,
            windows: policy.windows.clone(),
            reboot,
        })
    }

    /// The same, verified after the channel's floor was set back so often.
    #[must_use]
    pub fn after_resets(self, resets: u32) -> Self {
        Self { resets, ..self }
    }

    /// Whether these come after `other`: another channel, a later reset of it, or a higher number. A release that was
    /// verified again after a reset is still the same one.
    pub fn come_after(&self, other: &Self) -> bool {
        let place = |terms: &Self| (terms.resets, terms.release.seq);
        let later = self.release.channel != other.release.channel || place(self) > place(other);
        later && self.release != other.release
    }

    /// When the host may restart: the reboot windows, or else those of the policy; empty means at any time.
    pub fn reboot_windows(&self) -> &[Window] {
        if self.reboot.windows.is_empty() { &self.windows } else { &self.reboot.windows }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
pub(super) fn is_never(resets: &u32) -> bool {
    *resets == 0
}
