//! The attacks by their names in TUF and Uptane: what a refusal may mean.

use std::fmt;

/// What somebody may be trying. A refusal names it so that an operator can look it up; it is never certain, since a
/// broken mirror or a mistaken operator can look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attack {
    /// Software that the fleet's keys did not sign.
    ArbitrarySoftware,
    /// Bytes that were signed, and changed afterwards.
    Tampering,
    /// An older document in the place of a newer one.
    Rollback,
    /// A number or a time so high that later documents would be refused.
    FastForward,
    /// An old document that is served for ever, so that the host never learns of newer ones.
    Freeze,
    /// Parts of different releases served together.
    MixAndMatch,
    /// A genuine document that is meant for somebody else.
    Replay(ReplayOf),
    /// A document without an end.
    EndlessData,
    /// Two documents with the same number.
    Equivocation,
    /// Something signed with a key that is not trusted any more.
    StolenKey,
    /// Other contents under the right store path.
    StolenCacheKey,
    /// Local state that was changed or torn.
    AlteredState,
}

/// Whom a replayed document was meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplayOf {
    /// Another host, or a host with another key.
    OtherHost,
    /// Another channel.
    OtherChannel,
    /// Another fleet.
    OtherFleet,
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ArbitrarySoftware => "arbitrary software",
            Self::Tampering => "tampering",
            Self::Rollback => "rollback",
            Self::FastForward => "fast-forward",
            Self::Freeze => "freeze",
            Self::MixAndMatch => "mix-and-match",
            Self::Replay(ReplayOf::OtherHost) => "replay of another host's document",
            Self::Replay(ReplayOf::OtherChannel) => "replay of another channel's document",
            Self::Replay(ReplayOf::OtherFleet) => "replay of another fleet's document",
            Self::EndlessData => "endless data",
            Self::Equivocation => "equivocation",
            Self::StolenKey => "use of a key that is not trusted any more",
            Self::StolenCacheKey => "use of a stolen cache key",
            Self::AlteredState => "altered local state",
        })
    }
}
