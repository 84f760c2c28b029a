//! What a host trusts: the root in force, how far each channel has come, and the newest signed time.
//!
//! A [`Trust`] never changes; what is accepted gives the next one, to be **saved before anything is done** because of what
//! was accepted. Nothing but a root of the fleet's owner lowers a floor (see [`crate::root::ChannelRules::resets`]).
//!
//! What is saved is believed for how far the host has come, and not for who may sign: the roots that were accepted are
//! kept, and each time they are verified again from the one in the configuration. So whoever can write the state file and
//! not the configuration can lower a floor, and cannot bring software that the fleet did not sign.

use std::collections::BTreeMap;

use nixfleet_core::model::names::{ChannelName, FleetId, RootVersion, Sha256};
use nixfleet_core::model::release::Release;
use nixfleet_core::model::time::UnixMs;
use serde::{Deserialize, Serialize};

use crate::attack::{Attack, ReplayOf};
use crate::check::Verified;
use crate::check::release::{self, Expired, Measure, ReleaseRefused, Succession};
use crate::check::root::{RootRefused, first_root, next_root};
use crate::clock::Time;
use crate::envelope::digest_of;
use crate::floor::Floor;
use crate::json::{self, JsonError};
use crate::root::Root;

/// The version of [`SavedTrust`] that this program writes; it reads this one and every older one.
pub const SAVED_FORMAT: u32 = 1;

/// What a host trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    root: Verified<Root>,
    /// The envelopes of the roots after the configured one, up to `root`.
    roots: Vec<String>,
    /// The newest root that was ever accepted here; newer than `root` if the configuration went back to an older root.
    newest_root: RootVersion,
    /// One for each channel of `root`, and those of channels that older roots had: a channel that comes back goes on
    /// where it was.
    floors: BTreeMap<ChannelName, Floor>,
    newest_signed: UnixMs,
}

/// Why a host cannot say what it trusts. It starts nothing new until a person has looked.
#[derive(Debug, thiserror::Error)]
pub enum TrustUnreadable {
    /// The root in the configuration is no good.
    #[error("the root in this host's configuration is refused")]
    Configured(#[source] RootRefused),
    /// There is a saved state, and it cannot be read. It is never taken for no state (lesson 17).
    #[error("the saved trust state cannot be read")]
    Saved(#[source] SavedUnreadable),
    /// The saved state is another fleet's.
    #[error("the saved trust state is of fleet {saved}, and the configuration names {configured}")]
    OtherFleet {
        /// Whose it is.
        saved: FleetId,
        /// Whose it should be.
        configured: FleetId,
    },
    /// A saved root does not follow from the configured one.
    #[error("root {version} in the saved trust state does not follow from the configured root")]
    SavedRoot {
        /// Its place in the chain.
        version: RootVersion,
        /// Why.
        #[source]
        refused: RootRefused,
    },
}

impl TrustUnreadable {
    /// What somebody may be trying.
    pub fn attack(&self) -> Option<Attack> {
        match self {
            Self::Configured(refused) => refused.attack(),
            Self::Saved(SavedUnreadable::Newer(_)) => None,
            Self::Saved(SavedUnreadable::Json(_) | SavedUnreadable::Altered) | Self::SavedRoot { .. } => {
                Some(Attack::AlteredState)
            }
            Self::OtherFleet { .. } => Some(Attack::Replay(ReplayOf::OtherFleet)),
        }
    }
}

/// A release that may be followed.
#[derive(Debug, Clone)]
#[must_use = "the trust in it must be saved before anything is done because of the release"]
pub struct Accepted {
    /// The release.
    pub release: Verified<Release>,
    /// How it stands to the one before it.
    pub succession: Succession,
    /// What to trust from now on: to be saved first.
    pub trust: Trust,
}

/// The release that a host follows already.
#[derive(Debug, Clone)]
pub struct Held {
    /// The release.
    pub release: Verified<Release>,
    /// What of it has expired. Then it is *stale*: what runs goes on, and nothing new starts.
    pub stale: Option<Expired>,
}

impl Trust {
    /// What a host trusts at its first start, with the root that its configuration gives it.
    pub fn begin(configured: &[u8]) -> Result<Self, TrustUnreadable> {
        let root = first_root(configured).map_err(TrustUnreadable::Configured)?;
        let floors =
            root.channels.iter().map(|(channel, rules)| (channel.clone(), Floor::of(rules))).collect();
        let (newest_root, newest_signed) = (root.version, root.created_ms);
        Ok(Self { root, roots: Vec::new(), newest_root, floors, newest_signed })
    }

    /// What a host trusts at a later start.
    ///
    /// If its configuration has a newer root by now, that one is in force. If it has an older one than the saved roots
    /// begin with, as after going back to an older system, the configured one is in force, and no release is accepted
    /// until the roots in between have been fetched again.
    pub fn resume(configured: &[u8], saved: SavedTrust) -> Result<Self, TrustUnreadable> {
        let mut trust = Self::begin(configured)?;
        let SavedTrust(Saved { format: _, fleet, newest_root, roots, floors, newest_signed_ms }) = saved;
        if fleet != trust.root.fleet {
            return Err(TrustUnreadable::OtherFleet { saved: fleet, configured: trust.root.fleet.clone() });
        }
        (trust.newest_root, trust.floors, trust.newest_signed) = (newest_root, floors, newest_signed_ms);
        trust.adopt(trust.root.clone());
        for SavedRoot { version, envelope } in roots {
            trust
                .replay(version, envelope)
                .map_err(|refused| TrustUnreadable::SavedRoot { version, refused })?;
        }
        Ok(trust)
    }

    /// [`Trust::begin`] or [`Trust::resume`], from the saved bytes. `None` means that the file does not exist, and
    /// nothing else: a file that is empty or torn is an error.
    pub fn open(configured: &[u8], saved: Option<&[u8]>) -> Result<Self, TrustUnreadable> {
        match saved {
            None => Self::begin(configured),
            Some(bytes) => {
                let saved = SavedTrust::from_bytes(bytes).map_err(TrustUnreadable::Saved)?;
                Self::resume(configured, saved)
            }
        }
    }

    /// The next root, at `clock`. The result is to be saved before it is used.
    pub fn accept_root(&self, envelope: &[u8], clock: UnixMs) -> Result<Self, RootRefused> {
        let root = next_root(&self.root, envelope, Some(self.time(clock)))?;
        let mut next = self.clone();
        let text = std::str::from_utf8(envelope).expect("what was read as JSON is UTF-8");
        next.roots.push(text.to_owned());
        next.adopt(root);
        Ok(next)
    }

    /// The release of `channel` in `envelope`, at `clock`, if something may be started because of it.
    pub fn accept_release(
        &self,
        channel: &ChannelName,
        envelope: &[u8],
        clock: UnixMs,
    ) -> Result<Accepted, ReleaseRefused> {
        let measure = self.measure(channel, clock)?;
        let release = release::release(&measure, envelope)?;
        let succession = Succession::of(&release, measure.floor);
        let mut trust = self.clone();
        let floor = Floor { seq: release.seq, digest: Some(release.digest()), resets: measure.floor.resets };
        trust.floors.insert(channel.clone(), floor);
        trust.newest_signed = trust.newest_signed.max(release.created_ms);
        Ok(Accepted { release, succession, trust })
    }

    /// The release in `envelope`, at `clock`, if it is the one of `channel` that was accepted last, even if it has
    /// expired since.
    pub fn held_release(
        &self,
        channel: &ChannelName,
        envelope: &[u8],
        clock: UnixMs,
    ) -> Result<Held, ReleaseRefused> {
        let (release, stale) = release::held(&self.measure(channel, clock)?, envelope)?;
        Ok(Held { release, stale })
    }

    /// The root in force.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// The newest root that was ever accepted here.
    pub fn newest_root(&self) -> RootVersion {
        self.newest_root
    }

    /// The lowest release of `channel` that is accepted; `None` if the root does not know it.
    pub fn floor(&self, channel: &ChannelName) -> Option<Floor> {
        self.root.channels.get(channel)?;
        self.floors.get(channel).copied()
    }

    /// What time it is if this host's clock says `clock`.
    pub fn time(&self, clock: UnixMs) -> Time {
        Time::new(clock, self.newest_signed)
    }

    /// What is to be saved.
    pub fn to_saved(&self) -> SavedTrust {
        let Self { root, roots, newest_root, floors, newest_signed } = self;
        // The envelopes after the configured root are consecutive, and the last is the root in force.
        let first = root.version.get() - u64::try_from(roots.len()).expect("a length is a u64") + 1;
        let versions = (first..).map(|number| RootVersion::new(number).expect("between two versions"));
        let roots = versions.zip(roots);
        SavedTrust(Saved {
            format: SAVED_FORMAT,
            fleet: root.fleet.clone(),
            newest_root: *newest_root,
            roots: roots
                .map(|(version, envelope)| SavedRoot { version, envelope: envelope.clone() })
                .collect(),
            floors: floors.clone(),
            newest_signed_ms: *newest_signed,
        })
    }

    /// Takes a saved root again: the next one is put in force, the same one is compared, others are passed over. Those
    /// are older than the configured one, or follow after a gap that `newest_root` remembers.
    fn replay(&mut self, version: RootVersion, envelope: String) -> Result<(), RootRefused> {
        if version == self.root.version {
            return match next_root(&self.root, envelope.as_bytes(), None) {
                Err(RootRefused::InForceAlready(_)) => Ok(()),
                Err(refused) => Err(refused),
                Ok(other) => Err(RootRefused::NotTheNext { found: other.version, in_force: version }),
            };
        }
        if Some(version) == self.root.version.next() {
            let root = next_root(&self.root, envelope.as_bytes(), None)?;
            self.roots.push(envelope);
            self.adopt(root);
        }
        Ok(())
    }

    fn measure<'a>(&'a self, channel: &'a ChannelName, clock: UnixMs) -> Result<Measure<'a>, ReleaseRefused> {
        let root = &self.root;
        if root.version < self.newest_root {
            return Err(ReleaseRefused::RootBehind { in_force: root.version, seen: self.newest_root });
        }
        let missing = || ReleaseRefused::ChannelNotInRoot { channel: channel.clone(), root: root.version };
        let rules = root.channels.get(channel).ok_or_else(missing)?;
        let floor = self.floor(channel).ok_or_else(missing)?;
        Ok(Measure { root, channel, rules, floor, time: self.time(clock) })
    }

    /// Puts `root` in force: floors rise to its own, or fall to them where it has reset a channel.
    ///
    /// A root that was accepted here before has had its effect, which is in the floors that were saved. It has none when
    /// it is gone through again, after a start or because the configuration went back.
    fn adopt(&mut self, root: Verified<Root>) {
        let is_new = root.version > self.newest_root;
        let mut reset = false;
        for (channel, rules) in &root.channels {
            let floor = self.floors.entry(channel.clone()).or_insert_with(|| Floor::of(rules));
            if is_new {
                reset |= rules.resets > floor.resets;
                *floor = floor.under(rules);
            }
        }
        if reset {
            // Whoever could sign the highest number could sign a time in the future too.
            self.newest_signed = root.created_ms;
        } else if is_new {
            self.newest_signed = self.newest_signed.max(root.created_ms);
        }
        self.newest_root = self.newest_root.max(root.version);
        self.root = root;
    }
}

/// A [`Trust`] as it is kept on disk, alone or as part of the host's state file.
///
/// It carries a checksum, so that a torn or altered file is found out, and nothing in it is trusted for who may sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WithSum", into = "WithSum")]
pub struct SavedTrust(Saved);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: u32,
    fleet: FleetId,
    newest_root: RootVersion,
    roots: Vec<SavedRoot>,
    floors: BTreeMap<ChannelName, Floor>,
    newest_signed_ms: UnixMs,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedRoot {
    version: RootVersion,
    envelope: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WithSum {
    trust: Saved,
    sum: Sha256,
}

/// Why a saved trust state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SavedUnreadable {
    /// It is torn, or something else.
    #[error("it is not the JSON of a trust state")]
    Json(#[source] JsonError),
    /// Its checksum does not fit.
    #[error("its checksum does not fit: it was altered")]
    Altered,
    /// A newer program wrote it.
    #[error(
        "it has format {0}, and {SAVED_FORMAT} is the newest that this agent knows: the agent was rolled back"
    )]
    Newer(u32),
}

impl SavedTrust {
    /// Reads what [`SavedTrust::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SavedUnreadable> {
        /// What every format will have, so that a newer one is told from a torn one.
        #[derive(Deserialize)]
        struct AnyFormat {
            trust: Format,
        }
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let AnyFormat { trust: Format { format } } = json::read(bytes).map_err(SavedUnreadable::Json)?;
        if format > SAVED_FORMAT {
            return Err(SavedUnreadable::Newer(format));
        }
        Self::try_from(json::read::<WithSum>(bytes).map_err(SavedUnreadable::Json)?)
    }

    /// The bytes of a file, ending with a newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = serde_json::to_vec(self).expect("texts and numbers are always JSON");
        out.push(b'\n');
        out
    }
}

impl Saved {
    fn sum(&self) -> Sha256 {
        digest_of(&serde_json::to_vec(self).expect("texts and numbers are always JSON"))
    }
}

impl TryFrom<WithSum> for SavedTrust {
    type Error = SavedUnreadable;
    fn try_from(WithSum { trust, sum }: WithSum) -> Result<Self, SavedUnreadable> {
        if trust.format > SAVED_FORMAT {
            Err(SavedUnreadable::Newer(trust.format))
        } else if trust.sum() != sum {
            Err(SavedUnreadable::Altered)
        } else {
            Ok(Self(trust))
        }
    }
}

impl From<SavedTrust> for WithSum {
    fn from(SavedTrust(trust): SavedTrust) -> Self {
        let sum = trust.sum();
        Self { trust, sum }
    }
}
