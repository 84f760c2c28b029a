//! Roots: the first one, which a host's configuration gives it, and each next one.

use nixfleet_core::model::names::{ChannelName, FleetId, RootVersion};

use super::Verified;
use crate::attack::{Attack, ReplayOf};
use crate::clock::{Time, TooNew};
use crate::envelope::{Envelope, EnvelopeFault, PayloadType};
use crate::json::{self, JsonError};
use crate::root::{RoleName, Root, RootFault};
use crate::threshold::{NotEnoughSignatures, Signatures};

/// Why a root is refused.
#[derive(Debug, thiserror::Error)]
pub enum RootRefused {
    /// It cannot be read.
    #[error("the root cannot be read")]
    Envelope(#[source] EnvelopeFault),
    /// Too few keys of the root in force have signed it.
    #[error("too few keys of the root in force have signed the next one")]
    ThresholdOfOld(#[source] NotEnoughSignatures),
    /// Signed, and still not a root.
    #[error("the root's contents cannot be read")]
    Payload(#[source] JsonError),
    /// It is another fleet's.
    #[error("the root is for fleet {found}, and this is {wanted}")]
    OtherFleet {
        /// What it says.
        found: FleetId,
        /// Where we are.
        wanted: FleetId,
    },
    /// It is the one in force.
    #[error("root {0} is in force already")]
    InForceAlready(RootVersion),
    /// It is older than the one in force.
    #[error("the root has version {found}, and {in_force} is in force")]
    Older {
        /// What it says.
        found: RootVersion,
        /// What is in force.
        in_force: RootVersion,
    },
    /// The version in force with other contents.
    #[error("there are two different roots with version {0}")]
    SameVersionOtherContents(RootVersion),
    /// It is not the next one. Roots are taken one by one, since each is vouched for by the one before it.
    #[error("the root has version {found}, and the one after {in_force} is wanted")]
    NotTheNext {
        /// What it says.
        found: RootVersion,
        /// What is in force.
        in_force: RootVersion,
    },
    /// It counts fewer resets of a channel than the one before it.
    #[error("the root counts {found} resets of channel {channel}, and the one in force {in_force}")]
    FewerResets {
        /// Which channel.
        channel: ChannelName,
        /// What it says.
        found: u32,
        /// What the one in force says.
        in_force: u32,
    },
    /// It makes no sense.
    #[error("the root makes no sense: {}", list(.0))]
    Faults(Vec<RootFault>),
    /// Too few of its own keys have signed it.
    #[error("too few of the root's own keys have signed it")]
    ThresholdOfNew(#[source] NotEnoughSignatures),
    /// It was made in the future.
    #[error("the root is from the future")]
    FromTheFuture(#[source] TooNew),
}

fn list(faults: &[RootFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl RootRefused {
    /// What somebody may be trying.
    pub fn attack(&self) -> Option<Attack> {
        match self {
            Self::Envelope(fault) => fault.attack(),
            Self::ThresholdOfOld(few) | Self::ThresholdOfNew(few) => Some(few.attack()),
            Self::OtherFleet { .. } => Some(Attack::Replay(ReplayOf::OtherFleet)),
            Self::Older { .. } | Self::FewerResets { .. } => Some(Attack::Rollback),
            Self::SameVersionOtherContents(_) => Some(Attack::Equivocation),
            Self::NotTheNext { .. } => Some(Attack::FastForward),
            Self::FromTheFuture(too_new) => too_new.attack(),
            Self::Payload(_) | Self::InForceAlready(_) | Self::Faults(_) => None,
        }
    }
}

/// The root that a host's configuration gives it, believed because it stands there.
///
/// It must still be signed by its own threshold, so that a mistake is found where it was made. It may have expired:
/// whether anything may be started is decided when a release is checked.
pub fn first_root(envelope: &[u8]) -> Result<Verified<Root>, RootRefused> {
    let envelope = Envelope::read(envelope, PayloadType::Root).map_err(RootRefused::Envelope)?;
    let root: Root = json::read(envelope.payload()).map_err(RootRefused::Payload)?;
    sound(&envelope, root)
}

/// The root after `in_force`: signed by a threshold of the old root's keys *and* of its own.
///
/// `time` is `None` for a root that was accepted before and is read again from the host's state. A root in the middle of
/// a chain may have expired.
pub fn next_root(
    in_force: &Verified<Root>,
    envelope: &[u8],
    time: Option<Time>,
) -> Result<Verified<Root>, RootRefused> {
    let envelope = Envelope::read(envelope, PayloadType::Root).map_err(RootRefused::Envelope)?;
    Signatures::count(&envelope, RoleName::Root, &in_force.root, &in_force.keys)
        .demand()
        .map_err(RootRefused::ThresholdOfOld)?;
    let root: Root = json::read(envelope.payload()).map_err(RootRefused::Payload)?;
    succeeds(in_force, &envelope, &root)?;
    if let Some(time) = time {
        time.admit(root.created_ms).map_err(RootRefused::FromTheFuture)?;
    }
    sound(&envelope, root)
}

/// Fleet, version and resets.
fn succeeds(in_force: &Verified<Root>, envelope: &Envelope, root: &Root) -> Result<(), RootRefused> {
    if root.fleet != in_force.fleet {
        return Err(RootRefused::OtherFleet { found: root.fleet.clone(), wanted: in_force.fleet.clone() });
    }
    let (found, current) = (root.version, in_force.version);
    if found < current {
        return Err(RootRefused::Older { found, in_force: current });
    }
    if found == current {
        return Err(if envelope.digest() == in_force.digest() {
            RootRefused::InForceAlready(current)
        } else {
            RootRefused::SameVersionOtherContents(current)
        });
    }
    if Some(found) != current.next() {
        return Err(RootRefused::NotTheNext { found, in_force: current });
    }
    for (channel, rules) in &root.channels {
        let before = in_force.channels.get(channel).map_or(0, |rules| rules.resets);
        if rules.resets < before {
            let (channel, found) = (channel.clone(), rules.resets);
            return Err(RootRefused::FewerResets { channel, found, in_force: before });
        }
    }
    Ok(())
}

/// That it makes sense, and that its own keys have signed it.
fn sound(envelope: &Envelope, root: Root) -> Result<Verified<Root>, RootRefused> {
    let faults = root.faults();
    if !faults.is_empty() {
        return Err(RootRefused::Faults(faults));
    }
    Signatures::count(envelope, RoleName::Root, &root.root, &root.keys)
        .demand()
        .map_err(RootRefused::ThresholdOfNew)?;
    Ok(Verified::after_all_checks(root, envelope.digest()))
}
