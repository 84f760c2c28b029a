//! A refusal in the words of the host machine: which kind, what was seen, and what somebody may be trying.

use nixfleet_core::host::event::Refusal;
use nixfleet_core::host::terms::NotTerms;
use nixfleet_core::model::names::{HostName, Seq};
use nixfleet_sys::text;
use nixfleet_trust::attack::Attack;
use nixfleet_trust::check::entry::EntryRefused;
use nixfleet_trust::check::release::ReleaseRefused;
use nixfleet_trust::check::root::RootRefused;

use nixfleet_sys::text::chain;

/// The longest text of a refusal, in characters. Parts of it may be from outside.
const WHY_CHARS_MAX: usize = 600;

/// Something that a source served, and that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In which way.
    pub kind: Refusal,
    /// What somebody may be trying. Never certain: a broken mirror can look the same.
    pub attack: Option<Attack>,
    /// The path of the document.
    pub document: String,
    /// What was seen, for people: the document, the reason, the attack.
    pub why: String,
}

/// What is wrong between documents, each of which may be good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// The release that `latest` names is not there.
    #[error(
        "`latest` names release {seq}, and there is no such document; it may be in the middle of being published"
    )]
    NoRelease {
        /// Its number.
        seq: Seq,
    },
    /// Another release lies where one should be.
    #[error("release {found} lies in the folder of release {asked}")]
    OtherRelease {
        /// What was asked for.
        asked: Seq,
        /// What was found.
        found: Seq,
    },
    /// The release says nothing to this host, or the source does not serve what it says.
    #[error(
        "release {seq} has no document for host {host}; it may be in the middle of being published, or the release may \
         not be for this host"
    )]
    NoEntry {
        /// The release.
        seq: Seq,
        /// Who we are.
        host: HostName,
    },
}

impl Refused {
    /// A root.
    pub fn root(document: String, refused: &RootRefused) -> Self {
        let kind = match refused {
            RootRefused::Envelope(_) if refused.attack().is_none() => Refusal::Unreadable,
            RootRefused::Payload(_) | RootRefused::Faults(_) => Refusal::Unreadable,
            RootRefused::FromTheFuture(_) => Refusal::Clock,
            RootRefused::Envelope(_)
            | RootRefused::ThresholdOfOld(_)
            | RootRefused::ThresholdOfNew(_)
            | RootRefused::OtherFleet { .. }
            | RootRefused::InForceAlready(_)
            | RootRefused::Older { .. }
            | RootRefused::SameVersionOtherContents(_)
            | RootRefused::NotTheNext { .. }
            | RootRefused::FewerResets { .. } => Refusal::Trust,
        };
        Self::new(document, kind, refused.attack(), refused)
    }

    /// A release.
    pub fn release(document: String, refused: &ReleaseRefused) -> Self {
        let kind = match refused {
            ReleaseRefused::Envelope(_) if refused.attack().is_none() => Refusal::Unreadable,
            ReleaseRefused::Payload(_) | ReleaseRefused::Faults(_) => Refusal::Unreadable,
            ReleaseRefused::FromTheFuture(_) => Refusal::Clock,
            ReleaseRefused::Expired(_) => Refusal::Expired,
            ReleaseRefused::Envelope(_)
            | ReleaseRefused::RootBehind { .. }
            | ReleaseRefused::ChannelNotInRoot { .. }
            | ReleaseRefused::Threshold(_)
            | ReleaseRefused::OtherFleet { .. }
            | ReleaseRefused::OtherChannel { .. }
            | ReleaseRefused::Older { .. }
            | ReleaseRefused::SameNumberOtherContents { .. }
            | ReleaseRefused::NotHeld
            | ReleaseRefused::BeforeTheLine { .. } => Refusal::Trust,
        };
        Self::new(document, kind, refused.attack(), refused)
    }

    /// An entry.
    pub fn entry(document: String, refused: &EntryRefused) -> Self {
        let kind = match refused {
            EntryRefused::Envelope(_) if refused.attack().is_none() => Refusal::Unreadable,
            EntryRefused::Payload(_) | EntryRefused::Key(_) | EntryRefused::Faults(_) => Refusal::Unreadable,
            EntryRefused::Envelope(_)
            | EntryRefused::NotInRelease(_)
            | EntryRefused::OtherHost { .. }
            | EntryRefused::OtherKey { .. } => Refusal::Trust,
        };
        Self::new(document, kind, refused.attack(), refused)
    }

    /// Documents that do not belong together.
    pub fn misplaced(document: String, misplaced: &Misplaced) -> Self {
        let (kind, attack) = match misplaced {
            Misplaced::NoRelease { .. } | Misplaced::NoEntry { .. } => (Refusal::Unreadable, None),
            Misplaced::OtherRelease { .. } => (Refusal::Trust, Some(Attack::MixAndMatch)),
        };
        Self::new(document, kind, attack, misplaced)
    }

    /// An entry and a release that make no terms, although both were checked.
    pub fn terms(document: String, refused: &NotTerms) -> Self {
        Self::new(document, Refusal::Unreadable, None, refused)
    }

    fn new(
        document: String,
        kind: Refusal,
        attack: Option<Attack>,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        let said = text::one_line(&chain(error), WHY_CHARS_MAX);
        let why = match attack {
            Some(attack) => format!("{document}: {said} (this is what an attack looks like: {attack})"),
            None => format!("{document}: {said}"),
        };
        Self { kind, attack, document, why }
    }

    /// Whether it is the same refusal as `other`; numbers of seconds in the texts may differ.
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { kind, attack, document, why: _ } = self;
        (kind, attack, document) == (&other.kind, &other.attack, &other.document)
    }
}
