//! A line between real hosts and their control plane that does what no good line does: requests arrive twice, again later, late
//! or behind newer ones; answers are lost, or come once more.
//!
//! Inside TLS nobody on the way can do that who has no key. This one has all of them: the control plane's, so hosts take it for
//! their control plane, and each host's, so the control plane takes it for that host, whose requests it passes on and no
//! other's. Agents and server are the real ones and know nothing of it.
//!
//! It does not show what a line without keys can do, which is to cut and to delay connections (`steered.rs`), nor a thief who makes
//! up answers (`nixfleet-sim`): nothing is altered here, and each answer was once given to the host that gets it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use nixfleet_testbed::control_plane::ControlPlane;
use nixfleet_testbed::fleet::StaticFleet;
use nixfleet_testbed::wait_until;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::identities;

/// Where it listens, at the hub of the network.
pub(crate) const PORT: u16 = 9_443;
/// How long something that is waited for may take to notice that this ends.
const TICK: Duration = Duration::from_millis(50);
/// Longer than any poll.
const ANSWER_LIMIT: Duration = Duration::from_mins(2);
/// What a request or an answer may have.
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 4 << 20;

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mischief {
    /// Nothing.
    Nothing,
    /// It arrives on two connections at the same time.
    Twice,
    /// It is answered, and arrives once more some seconds later, behind newer ones.
    AgainLater,
    /// It arrives late.
    Late,
    /// The connection breaks at once, and the request arrives some seconds later: those that the host makes meanwhile come first.
    Overtaken,
    /// It arrives, and the connection breaks before the answer.
    AnswerLost,
    /// It does not arrive; what the same host was answered the last time is its answer.
    AnswerTwice,
}

use Mischief::{AgainLater, AnswerLost, AnswerTwice, Late, Nothing, Overtaken, Twice};

/// What a request is about: what may be done to it depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// What a host reports.
    Report,
    /// What it is asked for.
    Orders,
    /// A signed document. None is kept from the host: it may go back from a trial without them, and rightly.
    Document,
}

impl About {
    fn deck(self) -> &'static [Mischief] {
        match self {
            Self::Report => &[Nothing, Twice, AgainLater, Late, Overtaken, AnswerLost],
            Self::Orders => &[Nothing, Nothing, Twice, Late, AnswerLost, AnswerTwice],
            Self::Document => &[Nothing, Twice, Late],
        }
    }
}

/// The line; it ends with this.
pub(crate) struct Unruly {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    to: SocketAddr,
    tls: Arc<ServerConfig>,
    /// By public key.
    hosts: BTreeMap<Vec<u8>, Arc<Peer>>,
    deals: Mutex<Deals>,
    /// What arrives later.
    under_way: AtomicU64,
    behaves: AtomicBool,
    stop: AtomicBool,
}

/// A host, as this one passes itself off for it.
struct Peer {
    tls: Arc<ClientConfig>,
    /// The last orders that came.
    orders: Mutex<Option<Vec<u8>>>,
}

/// Each deck is dealt out to its end before it is shuffled again, so that nothing is left out by chance.
struct Deals {
    chance: u64,
    decks: BTreeMap<About, Vec<Mischief>>,
    dealt: BTreeMap<(About, Mischief), u32>,
}

impl Deals {
    fn next(&mut self, below: u64) -> u64 {
        // Xorshift: what is done to which request is the same for the same seed and the same order of requests.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % below
    }

    fn deal(&mut self, about: About) -> Mischief {
        let mut deck = self.decks.remove(&about).unwrap_or_default();
        if deck.is_empty() {
            deck = about.deck().to_vec();
        }
        let at = usize::try_from(self.next(deck.len() as u64)).unwrap_or(0);
        let mischief = deck.swap_remove(at);
        self.decks.insert(about, deck);
        *self.dealt.entry((about, mischief)).or_default() += 1;
        mischief
    }
}

impl Unruly {
    /// Listens in the network of the fleet, before its control plane.
    pub(crate) fn start(fleet: &StaticFleet, control_plane: &ControlPlane, seed: u64) -> Self {
        let host = |host: &nixfleet_testbed::Host| {
            let private = fleet.private_key_of(host).expect("a key");
            let (key, tls) = identities::of_host(host.name(), &private, control_plane.pin());
            (key, Arc::new(Peer { tls: Arc::new(tls), orders: Mutex::new(None) }))
        };
        let decks = Deals { chance: seed.max(1), decks: BTreeMap::new(), dealt: BTreeMap::new() };
        let shared = Arc::new(Shared {
            to: control_plane.address().parse().expect("an address"),
            tls: Arc::new(identities::of_server(&control_plane.identity().expect("a certificate"))),
            hosts: fleet.hosts().iter().map(host).collect(),
            deals: Mutex::new(decks),
            under_way: AtomicU64::new(0),
            behaves: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let namespace = File::open(fleet.net().namespace()).expect("the network of the fleet");
        let at = (fleet.net().gateway(), PORT);
        let (bound, is_bound) = channel();
        let for_thread = Arc::clone(&shared);
        let thread = spawn(move || {
            // Only this thread moves, with those that it starts.
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("it enters");
            let listener = TcpListener::bind(at).expect("it listens");
            listener.set_nonblocking(true).expect("a socket");
            bound.send(()).expect("somebody waits");
            for_thread.listen(&listener);
        });
        is_bound.recv().expect("it listens");
        Self { shared, thread: Some(thread) }
    }

    /// From now on it does nothing to anything. Returns when all that was to arrive later has arrived, with how often what was
    /// done to what.
    pub(crate) fn behave(&self) -> BTreeMap<String, u32> {
        self.shared.behaves.store(true, Ordering::SeqCst);
        let arrived = || (self.shared.under_way.load(Ordering::SeqCst) == 0).then_some(());
        wait_until("what was held back to arrive", ANSWER_LIMIT, arrived).expect("it arrives");
        let deals = self.shared.deals();
        deals.dealt.iter().map(|((about, what), times)| (format!("{about:?} {what:?}"), *times)).collect()
    }

    /// All that it can do to anything, in the words of [`Unruly::behave`].
    pub(crate) fn repertoire() -> Vec<String> {
        let all = [About::Report, About::Orders, About::Document];
        all.iter()
            .flat_map(|about| about.deck().iter().map(move |what| format!("{about:?} {what:?}")))
            .collect()
    }
}

impl Drop for Unruly {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn deals(&self) -> MutexGuard<'_, Deals> {
        self.deals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        let mut connections = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let shared = Arc::clone(self);
                    // An error is the host's end of the connection, which is its right.
                    connections.push(spawn(move || drop(shared.serve(stream))));
                }
                Err(_) => sleep(TICK),
            }
        }
        for connection in connections {
            let _ = connection.join();
        }
    }

    /// Passes on what comes on a connection, until it breaks or is broken.
    fn serve(self: &Arc<Self>, stream: TcpStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(TICK))?;
        let session = ServerConnection::new(Arc::clone(&self.tls)).map_err(Error::other)?;
        let mut line = Line { stream: StreamOwned::new(session, stream), shared: self };
        // The handshake.
        line.flush()?;
        let mut host = None;
        while let Some(request) = Message::read(&mut line)? {
            let known = host.get_or_insert_with(|| {
                let chain = line.stream.conn.peer_certificates().unwrap_or_default();
                self.hosts.get(&chain.first().map(identities::key_of).unwrap_or_default()).cloned()
            });
            let Some(peer) = known else { return Err(ErrorKind::PermissionDenied.into()) };
            let Some(answer) = self.pass(peer, &request)? else { return Ok(()) };
            line.write_all(&answer)?;
            line.flush()?;
        }
        Ok(())
    }

    /// Does something to a request, and gives the answer; nothing if there is to be none.
    fn pass(self: &Arc<Self>, peer: &Arc<Peer>, request: &Message) -> Result<Option<Vec<u8>>> {
        let about = request.about();
        if self.behaves.load(Ordering::SeqCst) {
            return self.ask(peer, request).map(Some);
        }
        let (what, soon, later) = {
            let mut deals = self.deals();
            let what = deals.deal(about);
            (what, Duration::from_millis(deals.next(1_000)), Duration::from_millis(500 + deals.next(3_500)))
        };
        match what {
            Nothing => {}
            Twice => self.arrives_after(Duration::ZERO, peer, request),
            Late => self.rest(soon),
            AgainLater => {
                let answer = self.ask(peer, request)?;
                self.arrives_after(later, peer, request);
                return Ok(Some(answer));
            }
            Overtaken => {
                self.arrives_after(later, peer, request);
                return Ok(None);
            }
            AnswerLost => {
                self.ask(peer, request)?;
                return Ok(None);
            }
            AnswerTwice => {
                if let Some(before) = peer.orders().clone() {
                    return Ok(Some(before));
                }
            }
        }
        self.ask(peer, request).map(Some)
    }

    /// Has a copy arrive after a while, of which nobody sees the answer.
    fn arrives_after(self: &Arc<Self>, pause: Duration, peer: &Arc<Peer>, request: &Message) {
        let (shared, peer, request) = (Arc::clone(self), Arc::clone(peer), request.clone());
        // A copy of a poll is answered when there is something; nobody waits for that.
        let counts = u64::from(request.about() == About::Report);
        self.under_way.fetch_add(counts, Ordering::SeqCst);
        spawn(move || {
            shared.rest(pause);
            let _ = shared.ask(&peer, &request);
            shared.under_way.fetch_sub(counts, Ordering::SeqCst);
        });
    }

    /// What the control plane answers that host.
    fn ask(&self, peer: &Peer, request: &Message) -> Result<Vec<u8>> {
        let stream = TcpStream::connect_timeout(&self.to, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(TICK))?;
        let name = ServerName::IpAddress(self.to.ip().into());
        let session = ClientConnection::new(Arc::clone(&peer.tls), name).map_err(Error::other)?;
        let mut line = Line { stream: StreamOwned::new(session, stream), shared: self };
        line.write_all(&request.bytes())?;
        line.flush()?;
        let answer = Message::read(&mut line)?.ok_or(ErrorKind::UnexpectedEof)?;
        if request.about() == About::Orders && answer.head.starts_with("HTTP/1.1 200") {
            *peer.orders() = Some(answer.bytes());
        }
        Ok(answer.bytes())
    }

    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stop.load(Ordering::SeqCst) {
            sleep(TICK.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

impl Peer {
    fn orders(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request or an answer.
#[derive(Debug, Clone)]
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    /// The next one; nothing at the end of the connection.
    fn read(line: &mut impl Read) -> Result<Option<Self>> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if line.read(&mut byte)? == 0 {
                return if head.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            head.push(byte[0]);
            if head.len() > HEAD_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        let head = String::from_utf8(head).map_err(Error::other)?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let length: usize = length.unwrap_or(0);
        if length > BODY_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length];
        line.read_exact(&mut body)?;
        Ok(Some(Self { head, body }))
    }

    fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.body].concat()
    }

    fn about(&self) -> About {
        if self.head.starts_with("POST ") {
            About::Report
        } else if self.head.starts_with("GET /v1/agent/orders") {
            About::Orders
        } else {
            About::Document
        }
    }
}

/// A connection whose reading gives up when the line ends, or after longer than any answer takes.
struct Line<'a, S> {
    stream: S,
    shared: &'a Shared,
}

impl<S: Read> Read for Line<'_, S> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let begun = Instant::now();
        loop {
            match self.stream.read(bytes) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                other => return other,
            }
            if self.shared.stop.load(Ordering::SeqCst) || begun.elapsed() > ANSWER_LIMIT {
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

impl<S: Write> Write for Line<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.again(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> Result<()> {
        self.again(Write::flush)
    }
}

impl<S: Write> Line<'_, S> {
    /// Writing waits for the handshake, which reads.
    fn again<T>(&mut self, mut write: impl FnMut(&mut S) -> Result<T>) -> Result<T> {
        loop {
            match write(&mut self.stream) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                other => return other,
            }
            if self.shared.stop.load(Ordering::SeqCst) {
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
    }
}
