//! Releases: the newest of a channel, and the one that a host holds already.

use nixfleet_core::model::faults::ReleaseFault;
use nixfleet_core::model::names::{ChannelName, FleetId, ReleaseId, RootVersion, Seq, Sha256};
use nixfleet_core::model::release::Release;
use nixfleet_core::model::time::UnixMs;

use super::Verified;
use crate::attack::{Attack, ReplayOf};
use crate::clock::{Time, TooNew};
use crate::envelope::{Envelope, EnvelopeFault, PayloadType};
use crate::floor::Floor;
use crate::json::{self, JsonError};
use crate::root::{ChannelRules, RoleName, Root};
use crate::threshold::{NotEnoughSignatures, Signatures};

/// Why a release is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseRefused {
    /// This host has accepted a newer root than the one it can vouch for now.
    #[error(
        "root {seen} was accepted here before, and only {in_force} can be vouched for: the roots after it are needed first"
    )]
    RootBehind {
        /// What can be vouched for.
        in_force: RootVersion,
        /// What was accepted.
        seen: RootVersion,
    },
    /// The root knows no such channel.
    #[error("root {root} has no channel {channel}")]
    ChannelNotInRoot {
        /// The channel.
        channel: ChannelName,
        /// The root in force.
        root: RootVersion,
    },
    /// It cannot be read.
    #[error("the release cannot be read")]
    Envelope(#[source] EnvelopeFault),
    /// Too few keys of the channel have signed it.
    #[error("too few keys have signed the release")]
    Threshold(#[source] NotEnoughSignatures),
    /// Signed, and still not a release that this program understands.
    #[error("the release's contents cannot be read; a newer agent may be needed")]
    Payload(#[source] JsonError),
    /// It is another fleet's.
    #[error("the release is for fleet {found}, and this is {wanted}")]
    OtherFleet {
        /// What it says.
        found: FleetId,
        /// Where we are.
        wanted: FleetId,
    },
    /// It is another channel's.
    #[error("the release is for channel {found}, and this is {wanted}")]
    OtherChannel {
        /// What it says.
        found: ChannelName,
        /// What is followed here.
        wanted: ChannelName,
    },
    /// It is older than one that was seen.
    #[error("the release has number {found}, and {floor} is the lowest that is accepted here")]
    Older {
        /// What it says.
        found: Seq,
        /// The floor.
        floor: Seq,
    },
    /// Two releases have the same number.
    #[error("release {seq} is {found}, and an earlier one with that number was {seen}")]
    SameNumberOtherContents {
        /// Their number.
        seq: Seq,
        /// The digest of this one.
        found: Sha256,
        /// The digest of the other.
        seen: Sha256,
    },
    /// It is not the one that is held here.
    #[error("the release is not the one that is followed here")]
    NotHeld,
    /// It was made in the future.
    #[error("the release is from the future")]
    FromTheFuture(#[source] TooNew),
    /// It was made before the owner of the fleet drew a line.
    #[error("the release was made at {created}, and the root refuses what was made before {not_before}")]
    BeforeTheLine {
        /// When it was made, in milliseconds since 1970.
        created: UnixMs,
        /// Where the line is.
        not_before: UnixMs,
    },
    /// It makes no sense.
    #[error("the release makes no sense: {}", list(.0))]
    Faults(Vec<ReleaseFault>),
    /// It, or the root, has expired.
    #[error(transparent)]
    Expired(Expired),
}

fn list(faults: &[ReleaseFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A document has expired, and nothing new is started because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {document} expired {} s ago", now.ms_since(*.at) / 1000)]
pub struct Expired {
    /// Which one.
    pub document: Document,
    /// When.
    pub at: UnixMs,
    /// What time it is.
    pub now: UnixMs,
}

/// A document that can expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// The root in force.
    Root,
    /// The release.
    Release,
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Release => "release",
        })
    }
}

impl ReleaseRefused {
    /// What somebody may be trying.
    pub fn attack(&self) -> Option<Attack> {
        match self {
            Self::Envelope(fault) => fault.attack(),
            Self::Threshold(few) => Some(few.attack()),
            Self::OtherFleet { .. } => Some(Attack::Replay(ReplayOf::OtherFleet)),
            Self::OtherChannel { .. } => Some(Attack::Replay(ReplayOf::OtherChannel)),
            Self::Older { .. } => Some(Attack::Rollback),
            Self::SameNumberOtherContents { .. } => Some(Attack::Equivocation),
            Self::NotHeld => Some(Attack::AlteredState),
            Self::FromTheFuture(too_new) => too_new.attack(),
            Self::BeforeTheLine { .. } => Some(Attack::StolenKey),
            Self::Expired(_) => Some(Attack::Freeze),
            Self::RootBehind { .. } | Self::ChannelNotInRoot { .. } | Self::Payload(_) | Self::Faults(_) => {
                None
            }
        }
    }
}

/// What a release is measured by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure<'a> {
    pub(crate) root: &'a Verified<Root>,
    pub(crate) channel: &'a ChannelName,
    pub(crate) rules: &'a ChannelRules,
    pub(crate) floor: Floor,
    pub(crate) time: Time,
}

/// The release in `envelope`, if a host may start something because of it.
pub(crate) fn release(measure: &Measure<'_>, envelope: &[u8]) -> Result<Verified<Release>, ReleaseRefused> {
    let genuine = genuine(measure, envelope)?;
    match expired(measure, &genuine) {
        Some(expired) => Err(ReleaseRefused::Expired(expired)),
        None => Ok(genuine),
    }
}

/// The release in `envelope`, if it is the one that was followed last. It may have expired since.
pub(crate) fn held(
    measure: &Measure<'_>,
    envelope: &[u8],
) -> Result<(Verified<Release>, Option<Expired>), ReleaseRefused> {
    let genuine = genuine(measure, envelope)?;
    if measure.floor.digest != Some(genuine.digest()) {
        return Err(ReleaseRefused::NotHeld);
    }
    let expired = expired(measure, &genuine);
    Ok((genuine, expired))
}

/// Everything but the expiry.
fn genuine(measure: &Measure<'_>, envelope: &[u8]) -> Result<Verified<Release>, ReleaseRefused> {
    let Measure { root, channel, rules, floor, time } = *measure;
    let envelope = Envelope::read(envelope, PayloadType::Release).map_err(ReleaseRefused::Envelope)?;
    Signatures::count(&envelope, RoleName::Release(channel.clone()), &rules.release, &root.keys)
        .demand()
        .map_err(ReleaseRefused::Threshold)?;
    let release: Release = json::read(envelope.payload()).map_err(ReleaseRefused::Payload)?;
    if release.fleet != root.fleet {
        return Err(ReleaseRefused::OtherFleet { found: release.fleet, wanted: root.fleet.clone() });
    }
    if release.channel != *channel {
        return Err(ReleaseRefused::OtherChannel { found: release.channel, wanted: channel.clone() });
    }
    number(&release, envelope.digest(), floor)?;
    time.admit(release.created_ms).map_err(ReleaseRefused::FromTheFuture)?;
    let (created, not_before) = (release.created_ms, rules.not_before_ms);
    if created < not_before {
        return Err(ReleaseRefused::BeforeTheLine { created, not_before });
    }
    let faults = release.faults();
    if !faults.is_empty() {
        return Err(ReleaseRefused::Faults(faults));
    }
    Ok(Verified::after_all_checks(release, envelope.digest()))
}

/// Numbers only go up, and the same number never means two things.
fn number(release: &Release, digest: Sha256, floor: Floor) -> Result<(), ReleaseRefused> {
    let seq = release.seq;
    if seq < floor.seq {
        return Err(ReleaseRefused::Older { found: seq, floor: floor.seq });
    }
    match floor.digest {
        Some(seen) if seq == floor.seq && seen != digest => {
            Err(ReleaseRefused::SameNumberOtherContents { seq, found: digest, seen })
        }
        Some(_) | None => Ok(()),
    }
}

fn expired(measure: &Measure<'_>, release: &Release) -> Option<Expired> {
    let now = measure.time.now();
    let over = |document, at: UnixMs| (at <= now).then_some(Expired { document, at, now });
    over(Document::Root, measure.root.expires_ms).or_else(|| over(Document::Release, release.expires_ms))
}

/// How a release stands to the one that was followed before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession {
    /// It is the same.
    Same,
    /// It comes right after it, and says so.
    Next,
    /// There are releases between them that were not seen here, or none was followed before.
    AfterGap,
    /// It comes right after it by its number, and names another one as its predecessor: somebody showed two histories.
    /// It is accepted, since its signatures and its number are good; the difference is evidence.
    Forked,
}

impl Succession {
    pub(crate) fn of(release: &Verified<Release>, floor: Floor) -> Self {
        let Some(seen) = floor.digest else { return Self::AfterGap };
        if release.seq == floor.seq {
            Self::Same
        } else if Some(release.seq) != floor.seq.next() {
            Self::AfterGap
        } else if release.previous == Some(seen) {
            Self::Next
        } else {
            Self::Forked
        }
    }
}

impl Verified<Release> {
    /// What it is called.
    pub fn id(&self) -> ReleaseId {
        ReleaseId { channel: self.channel.clone(), seq: self.seq, digest: self.digest() }
    }
}
