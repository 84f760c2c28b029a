//! The worker: looks, says what it saw, sleeps. Its only memory is what it trusts and what it said last.
//!
//! Each look says exactly one of [`Said::Answered`] and [`Said::Failed`]. Before it come, if there is anything new, what
//! is trusted from now on, a refusal, or an offer; what was said before is not said again. It ends when the reducer is
//! gone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nixfleet_core::host::event::Refusal;
use nixfleet_core::host::pause::{Urgency, after_answer, after_failures, as_asked};
use nixfleet_core::host::probing::WatchId;
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::timer::sleep_until;
use nixfleet_trust::trust::Trust;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, timeout};

use super::documents::{Connection, Documents, NoAnswer};
use super::folder::Folder;
use super::look::{Found, Looker, Moved, Offer, Settled, look};
use super::place::Place;
use super::refused::Refused;
use super::web::identity::ClientIdentity;
use super::web::tls::ServerTrust;
use super::web::{Limits, Proxies, Speaking, Web};

/// How long one look may take, whatever the source does: four documents at their limits.
const LOOK_WITHIN: Duration = Duration::from_mins(2);

/// What the reducer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Look now, over a fresh connection, again and again until the source answers. A newer one takes its place.
    Now(WatchId),
    /// Look again.
    Again,
}

/// What the worker says.
#[derive(Debug)]
pub enum Said {
    /// The source answered.
    Answered {
        /// The watch that had asked for a fresh connection.
        watch: Option<WatchId>,
    },
    /// It did not.
    Failed {
        /// What was seen, for people.
        why: String,
    },
    /// Something that it served was refused.
    Refused {
        /// In which way.
        kind: Refusal,
        /// What was seen, for people.
        why: String,
    },
    /// A newer root or floor was accepted, and it brings nothing for this host to run: to be saved.
    Moved {
        /// What to trust from now on.
        to: Box<Moved>,
    },
    /// A release and this host's entry in it passed every check.
    Offered(Box<Offer>),
}

/// What to follow, and for whom.
#[derive(Clone)]
pub struct Following {
    /// Where releases come from.
    pub place: Place,
    /// How a web server proves who it is.
    pub server: ServerTrust,
    /// How this host proves who it is to a control plane.
    pub identity: Option<Arc<ClientIdentity>>,
    /// Whether proxies are used.
    pub proxies: Proxies,
    /// Limits of a web server.
    pub limits: Limits,
    /// For whom.
    pub looker: Looker,
    /// The pause between two looks; each is spread by a fifth to both sides.
    pub poll: Duration,
    /// The host's clock.
    pub clock: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    /// Any number, each time another.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// When to look instead of at that time, if nothing is wrong: a host that wakes for something else looks then.
    pub look_at: Arc<dyn Fn(Instant) -> Instant + Send + Sync>,
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, server, identity, proxies, limits, looker, poll, clock: _, random: _, look_at: _ } =
            self;
        f.debug_struct("Following")
            .field("place", place)
            .field("server", server)
            .field("identity", identity)
            .field("proxies", proxies)
            .field("limits", limits)
            .field("looker", looker)
            .field("poll", poll)
            .finish_non_exhaustive()
    }
}

impl Following {
    /// Looks once, and says what was found; for a check of a configuration.
    pub async fn look_once(&self, trust: &Trust) -> Found {
        let trust = &mut trust.clone();
        let clock = (self.clock)();
        match &self.place {
            Place::Folder(path) => {
                let mut folder = Folder::new(path, &self.looker);
                bounded(&mut folder, self, trust, None, clock).await
            }
            Place::Web(address) | Place::ControlPlane(address) => {
                let mut web = self.web(address.clone());
                bounded(&mut web, self, trust, None, clock).await
            }
        }
    }

    /// How this host speaks to its server.
    pub(crate) fn speaking(&self) -> Speaking {
        Speaking { trust: self.server.clone(), identity: self.identity.clone(), proxies: self.proxies }
    }

    fn web(&self, address: super::place::WebAddress) -> Web {
        Web::new(address, self.speaking(), self.limits)
    }
}

/// Follows a source until the reducer is gone: until `asks` is closed, or nobody takes what is said.
///
/// `asks` should hold a few; `said` is waited for when it is full, and nothing is lost.
pub async fn follow(following: Following, trust: Trust, asks: Receiver<Ask>, said: Sender<Said>) {
    match following.place.clone() {
        Place::Folder(path) => {
            let folder = Folder::new(&path, &following.looker);
            Worker::new(following, trust, folder, asks, said).run().await;
        }
        Place::Web(address) | Place::ControlPlane(address) => {
            let web = following.web(address);
            Worker::new(following, trust, web, asks, said).run().await;
        }
    }
}

async fn bounded(
    source: &mut impl Documents,
    following: &Following,
    trust: &mut Trust,
    settled: Option<&Settled>,
    clock: UnixMs,
) -> Found {
    let look = look(source, &following.looker, trust, settled, clock);
    timeout(LOOK_WITHIN, look).await.unwrap_or_else(|_| {
        let at = following.place.to_string();
        Found::Nothing(NoAnswer::TooSlow { at, secs: LOOK_WITHIN.as_secs() })
    })
}

/// The reducer is gone, so there is nothing to do any more.
struct ReducerGone;

/// What was said last of what the source serves.
enum LastWord {
    Nothing,
    Refused(Refused),
    Offered,
}

/// How a pause ended.
enum Woken {
    /// It is time, or there is news.
    Look,
    /// Somebody asks.
    Asked(Ask),
}

struct Worker<S> {
    following: Following,
    trust: Trust,
    /// What of the trust was said last.
    told: Trust,
    source: S,
    asks: Receiver<Ask>,
    said: Sender<Said>,
    settled: Option<Settled>,
    last_word: LastWord,
    /// The watch that waits for an answer over a fresh connection.
    watch: Option<WatchId>,
    /// How many looks in a row failed.
    failures: u32,
    /// For how long the source wants not to be asked, by its last answer.
    again_after: Option<Duration>,
}

impl<S: Documents> Worker<S> {
    fn new(following: Following, trust: Trust, source: S, asks: Receiver<Ask>, said: Sender<Said>) -> Self {
        Self {
            following,
            told: trust.clone(),
            trust,
            source,
            asks,
            said,
            settled: None,
            last_word: LastWord::Nothing,
            watch: None,
            failures: 0,
            again_after: None,
        }
    }

    async fn run(mut self) {
        while self.round().await.is_ok() {}
    }

    async fn round(&mut self) -> Result<(), ReducerGone> {
        let found = self.look().await?;
        self.tell(found).await?;
        self.sleep().await
    }

    /// One look; it begins anew, over a fresh connection, when a watch asks in the middle of it.
    async fn look(&mut self) -> Result<Found, ReducerGone> {
        loop {
            // After a failure too: the old connection may be what failed, and certificates are read again.
            let anew = self.watch.is_some() || self.failures > 0;
            self.source.begin(if anew { Connection::Fresh } else { Connection::Any });
            let clock = (self.following.clock)();
            // Over a fresh connection the whole document is asked for: that something on the way knows it is no proof.
            let settled = self.settled.clone().map(|settled| match self.watch {
                Some(_) => settled.without_version(),
                None => settled,
            });
            let look = bounded(&mut self.source, &self.following, &mut self.trust, settled.as_ref(), clock);
            tokio::select! {
                // Safe to cancel: what it accepted so far is kept.
                found = look => return Ok(found),
                // Safe to cancel: an ask is taken or stays. Closed means that the reducer is gone.
                ask = newer_watch(&mut self.asks) => self.watch = Some(ask?),
            }
        }
    }

    /// Says what a look brought, and remembers it.
    async fn tell(&mut self, found: Found) -> Result<(), ReducerGone> {
        self.again_after = None;
        match found {
            Found::Nothing(why) => {
                self.moved().await?;
                self.failures = self.failures.saturating_add(1);
                self.again_after = why.again_after();
                return self.say(Said::Failed { why: why.to_string() }).await;
            }
            Found::Same => self.moved().await?,
            Found::Refused(refused) => {
                self.moved().await?;
                self.settled = None;
                self.refused(refused).await?;
            }
            Found::Release(offer, settled) => {
                let moved = self.trust != self.told;
                self.told = self.trust.clone();
                let again = moved || !self.settled.as_ref().is_some_and(|before| before.is_like(&settled));
                self.settled = Some(settled);
                if again || !matches!(self.last_word, LastWord::Offered) {
                    self.last_word = LastWord::Offered;
                    self.say(Said::Offered(offer)).await?;
                }
            }
        }
        self.failures = 0;
        let watch = self.watch.take();
        self.say(Said::Answered { watch }).await
    }

    async fn moved(&mut self) -> Result<(), ReducerGone> {
        if self.trust == self.told {
            return Ok(());
        }
        self.told = self.trust.clone();
        self.say(Said::Moved { to: Box::new(Moved::to(&self.trust)) }).await
    }

    async fn refused(&mut self, refused: Refused) -> Result<(), ReducerGone> {
        if matches!(&self.last_word, LastWord::Refused(known) if known.is_like(&refused)) {
            return Ok(());
        }
        let (kind, why) = (refused.kind, refused.why.clone());
        self.last_word = LastWord::Refused(refused);
        self.say(Said::Refused { kind, why }).await
    }

    async fn say(&mut self, said: Said) -> Result<(), ReducerGone> {
        self.said.send(said).await.map_err(|_| ReducerGone)
    }

    async fn sleep(&mut self) -> Result<(), ReducerGone> {
        let random = (self.following.random)();
        let urgency = if self.watch.is_some() { Urgency::OnTrial } else { Urgency::Ordinary };
        let until = match (&self.following.place, self.failures) {
            // Nobody is spared by looking at a folder less often.
            (Place::Folder(_) | Place::Web(_) | Place::ControlPlane(_), 0) | (Place::Folder(_), _) => {
                (self.following.look_at)(Instant::now() + after_answer(self.following.poll, random))
            }
            (Place::Web(_) | Place::ControlPlane(_), failures) => {
                Instant::now()
                    + as_asked(after_failures(failures, urgency, random), self.again_after, urgency)
            }
        };
        let woken = tokio::select! {
            // Safe to cancel: an ask is taken or stays. Closed means that the reducer is gone.
            ask = self.asks.recv() => Woken::Asked(ask.ok_or(ReducerGone)?),
            // Safe to cancel: news not taken stays, and the next look sees it anyway.
            () = self.source.news() => Woken::Look,
            () = sleep_until(until) => Woken::Look,
        };
        match woken {
            Woken::Asked(Ask::Now(watch)) => self.watch = Some(watch),
            Woken::Asked(Ask::Again) | Woken::Look => {}
        }
        Ok(())
    }
}

/// The next watch that asks. An [`Ask::Again`] in the middle of a look is answered by that look.
async fn newer_watch(asks: &mut Receiver<Ask>) -> Result<WatchId, ReducerGone> {
    loop {
        match asks.recv().await.ok_or(ReducerGone)? {
            Ask::Now(watch) => return Ok(watch),
            Ask::Again => {}
        }
    }
}
