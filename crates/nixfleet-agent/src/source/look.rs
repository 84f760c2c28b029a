//! One look at a source: from what it serves to what that means for this host. Saves nothing and waits for nobody else.
//!
//! `latest` is read first and written last, so whatever it names is there already, with the root that vouches for it.
//! Then come the roots, each vouched for by the one before it, then the release, then this host's entry. What was accepted
//! on the way counts even if what comes after it is refused: a root or a floor that was signed stays signed.

use nixfleet_core::host::Terms;
use nixfleet_core::host::trusted::RootTerms;
use nixfleet_core::model::layout::{self, LATEST_LEN_MAX};
use nixfleet_core::model::names::{ChannelName, RootVersion, Seq};
use nixfleet_core::model::release::Release;
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::check::Verified;
use nixfleet_trust::check::entry::{HostIdentity, own_entry};
use nixfleet_trust::envelope::ENVELOPE_SIZE_MAX;
use nixfleet_trust::trust::{SavedTrust, Trust};

use super::documents::{Documents, Got, NoAnswer, Version, Wanted};
use super::refused::{Misplaced, Refused};

/// The most roots that one look goes through; whoever is further behind goes on with the next look. A fleet makes some
/// two roots a year.
const ROOTS_MAX: usize = 64;
/// What some stores answer for a document that is not there, when they do not let strangers list their names.
const FORBIDDEN: u16 = 403;

/// What to trust from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// To be saved first.
    pub trust: SavedTrust,
    /// What the root in force says to this host.
    pub root: RootTerms,
}

impl Moved {
    /// All that there is to say of `trust`.
    pub fn to(trust: &Trust) -> Self {
        Self { trust: trust.to_saved(), root: root_terms(trust) }
    }
}

/// What the root in force says to a host.
pub fn root_terms(trust: &Trust) -> RootTerms {
    let root = trust.root();
    RootTerms { version: root.version, created_ms: root.created_ms, expires_ms: root.expires_ms }
}

/// What passed every check: what a release says to this host, and what to trust from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the trust in it must be saved before anything is done because of the terms"]
pub struct Offer {
    /// To be saved first.
    pub moved: Moved,
    /// What the release says to this host.
    pub terms: Terms,
}

/// For whom is looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looker {
    /// The channel that is followed.
    pub channel: ChannelName,
    /// Who this host is.
    pub me: HostIdentity,
}

/// A look that ended in an offer, so that the next one need not go through all of it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    seq: Seq,
    /// The root under which it was verified.
    root: RootVersion,
    version: Option<Version>,
    /// From here on the release is stale, and that must be said.
    fresh_until: UnixMs,
}

impl Settled {
    /// The number of the release that was offered.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Whether both are the same release, verified under the same root.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.seq, self.root) == (other.seq, other.root)
    }

    /// The same, so that `latest` is asked for as a whole.
    #[must_use]
    pub fn without_version(self) -> Self {
        Self { version: None, ..self }
    }
}

/// What came of a look.
#[derive(Debug)]
pub enum Found {
    /// The source did not answer, or not as a source does.
    Nothing(NoAnswer),
    /// What was found at the look before.
    Same,
    /// Something that is refused.
    Refused(Refused),
    /// The release that this host shall run.
    Release(Box<Offer>, Settled),
}

/// Looks once. `settled` is what the look before ended in, if that was an offer.
///
/// What was accepted on the way is in `trust` at once, so that a look that is cut off has not been in vain: whoever is many
/// roots behind, over a slow line, comes further each time.
pub async fn look(
    source: &mut impl Documents,
    looker: &Looker,
    trust: &mut Trust,
    settled: Option<&Settled>,
    clock: UnixMs,
) -> Found {
    let mut run = Run { source, looker, trust, clock };
    run.all(settled).await.unwrap_or_else(|stop| match stop {
        Stop::Nothing(why) => Found::Nothing(why),
        Stop::Refused(refused) => Found::Refused(refused),
    })
}

/// Why a look ends early.
enum Stop {
    Nothing(NoAnswer),
    Refused(Refused),
}

impl From<NoAnswer> for Stop {
    fn from(why: NoAnswer) -> Self {
        Self::Nothing(why)
    }
}

struct Run<'a, S> {
    source: &'a mut S,
    looker: &'a Looker,
    trust: &'a mut Trust,
    clock: UnixMs,
}

impl<S: Documents> Run<'_, S> {
    async fn all(&mut self, settled: Option<&Settled>) -> Result<Found, Stop> {
        let now = self.trust.time(self.clock).now();
        let settled = settled.filter(|settled| now < settled.fresh_until);
        let (seq, version) = self.latest(settled).await?;
        self.roots().await?;
        let root = self.trust.root().version;
        // A look that was cut off may have raised the floor above what was settled on.
        let floor = self.trust.floor(&self.looker.channel).map(|floor| floor.seq);
        let same = |settled: &Settled| settled.seq == seq && settled.root == root && floor == Some(seq);
        if settled.is_some_and(same) {
            return Ok(Found::Same);
        }
        let release = self.release(seq).await?;
        let terms = self.terms(seq, &release).await?;
        let fresh_until = release.expires_ms.min(self.trust.root().expires_ms);
        let offer = Offer { moved: Moved::to(self.trust), terms };
        Ok(Found::Release(Box::new(offer), Settled { seq, root, version, fresh_until }))
    }

    /// The number of the newest release.
    async fn latest(&mut self, settled: Option<&Settled>) -> Result<(Seq, Option<Version>), Stop> {
        let path = &layout::latest(&self.looker.channel);
        let known = settled.and_then(|settled| settled.version.as_ref());
        let got = self.source.get(Wanted { path, bytes_max: LATEST_LEN_MAX, known }).await?;
        match (got, settled) {
            (Got::Bytes { bytes, version }, _) => {
                let at = path.clone();
                let seq = layout::read_latest(&bytes).map_err(|why| NoAnswer::NotLatest { at, why })?;
                Ok((seq, version))
            }
            (Got::Same, Some(settled)) => Ok((settled.seq, settled.version.clone())),
            // Without a version that is known nobody can say that it is the same.
            (Got::Same | Got::Missing, _) => Err(NoAnswer::NothingPublished { at: path.clone() }.into()),
        }
    }

    /// Takes the roots after the one in force, as far as there are any.
    async fn roots(&mut self) -> Result<(), Stop> {
        for _ in 0..ROOTS_MAX {
            let Some(next) = self.trust.root().version.next() else { break };
            let path = layout::root(next.get());
            let bytes = match self.document(&path).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) | Err(NoAnswer::Status { status: FORBIDDEN, .. }) => break,
                Err(why) => return Err(why.into()),
            };
            let accepted = self.trust.accept_root(&bytes, self.clock);
            *self.trust = accepted.map_err(|refused| Stop::Refused(Refused::root(path, &refused)))?;
        }
        Ok(())
    }

    /// The release that `latest` names.
    async fn release(&mut self, seq: Seq) -> Result<Verified<Release>, Stop> {
        let path = layout::release(&self.looker.channel, seq);
        let Some(bytes) = self.document(&path).await? else {
            return Err(Stop::Refused(Refused::misplaced(path, &Misplaced::NoRelease { seq })));
        };
        let accepted = self.trust.accept_release(&self.looker.channel, &bytes, self.clock);
        let accepted = accepted.map_err(|refused| Stop::Refused(Refused::release(path.clone(), &refused)))?;
        let found = accepted.release.seq;
        if found != seq {
            let misplaced = Misplaced::OtherRelease { asked: seq, found };
            return Err(Stop::Refused(Refused::misplaced(path, &misplaced)));
        }
        *self.trust = accepted.trust;
        Ok(accepted.release)
    }

    /// What the release says to this host.
    async fn terms(&mut self, seq: Seq, release: &Verified<Release>) -> Result<Terms, Stop> {
        let Looker { channel, me } = self.looker;
        let path = layout::entry(channel, seq, &me.name);
        let Some(bytes) = self.document(&path).await? else {
            let missing = Misplaced::NoEntry { seq, host: me.name.clone() };
            return Err(Stop::Refused(Refused::misplaced(path, &missing)));
        };
        let own = own_entry(release, &bytes, me)
            .map_err(|refused| Stop::Refused(Refused::entry(path.clone(), &refused)))?;
        let terms = Terms::new(release.id(), release, &own.entry)
            .map_err(|refused| Stop::Refused(Refused::terms(path, &refused)))?;
        let resets = self.trust.floor(channel).map_or(0, |floor| floor.resets);
        Ok(terms.after_resets(resets))
    }

    /// A signed document; `None` if there is none.
    async fn document(&mut self, path: &str) -> Result<Option<Vec<u8>>, NoAnswer> {
        match self.source.get(Wanted { path, bytes_max: ENVELOPE_SIZE_MAX, known: None }).await? {
            Got::Bytes { bytes, version: _ } => Ok(Some(bytes)),
            Got::Same | Got::Missing => Ok(None),
        }
    }
}
