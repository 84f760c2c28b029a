//! Which numbers of a channel's releases count, and which one comes next.
//!
//! Numbers only go up, and none means two things. The one exception is the owner's: a root may set a channel back, after
//! somebody with a stolen key signed the highest number that there is. From then on those releases count that were made since and
//! that no foreign key alone has signed; what lies in the folder from before keeps its number and is no longer in the way.

use nixfleet_core::model::names::{ChannelName, Seq};
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::root::{RoleName, Root};
use nixfleet_trust::threshold::Signatures;

use crate::release::{NotOpened, open_alone};
use crate::served::Served;

/// The numbers of a channel's releases in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// Whether each counts, lowest first.
    taken: Vec<(Seq, bool)>,
    /// No host takes a lower one.
    floor: Seq,
    /// When the channel was last set back.
    set_back: Option<UnixMs>,
}

impl Numbers {
    /// Those in `served`, by this root, of a channel that was last set back at that time, if it ever was.
    pub fn of(
        served: &Served,
        channel: &ChannelName,
        root: Option<&Root>,
        set_back: Option<UnixMs>,
    ) -> Result<Self, NotOpened> {
        let counts = |seq| match (root, set_back) {
            (Some(root), Some(since)) => is_of_now(served, channel, seq, (root, since)),
            _ => Ok(true),
        };
        let seqs = served.seqs(channel).map_err(NotOpened::Served)?;
        let taken = seqs.into_iter().map(|seq| Ok((seq, counts(seq)?))).collect::<Result<_, NotOpened>>()?;
        let rules = root.and_then(|root| root.channels.get(channel));
        Ok(Self { taken, floor: rules.map_or(Seq::ZERO, |rules| rules.seq_floor), set_back })
    }

    /// Whether there is a release with this number.
    pub fn is_taken(&self, seq: Seq) -> bool {
        self.taken.iter().any(|(taken, _)| *taken == seq)
    }

    /// Whether there is one, and it is not from before the channel was set back.
    pub fn counts(&self, seq: Seq) -> bool {
        self.taken.contains(&(seq, true))
    }

    /// Whether a release that was followed at `opened` is from before the channel was set back. It need not be in the folder: who
    /// stole a key pushes elsewhere.
    pub fn is_set_back(&self, seq: Seq, opened: UnixMs) -> bool {
        self.set_back.is_some_and(|at| opened < at) && !self.counts(seq)
    }

    /// The highest that counts.
    pub fn newest(&self) -> Option<Seq> {
        self.taken.iter().rev().find_map(|(seq, counts)| counts.then_some(*seq))
    }

    /// The lowest that hosts take.
    pub fn floor(&self) -> Seq {
        self.floor
    }

    /// The number of the next release; `None` if there is no number left.
    pub fn next(&self) -> Option<Seq> {
        let mut next = self.newest().unwrap_or(Seq::ZERO).next()?.max(self.floor);
        while self.is_taken(next) {
            next = next.next()?;
        }
        Some(next)
    }
}

/// Whether a release was made since then, and is unsigned or signed by a key that counts.
fn is_of_now(
    served: &Served,
    channel: &ChannelName,
    seq: Seq,
    (root, since): (&Root, UnixMs),
) -> Result<bool, NotOpened> {
    let (envelope, release) = open_alone(served, channel, seq)?;
    let signed = |rules: &nixfleet_trust::root::ChannelRules| {
        let role = RoleName::Release(channel.clone());
        !Signatures::count(&envelope, role, &rules.release, &root.keys).good.is_empty()
    };
    let is_ours = envelope.signatures().is_empty() || root.channels.get(channel).is_some_and(signed);
    Ok(release.created_ms >= since && is_ours)
}
