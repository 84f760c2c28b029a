//! Connections: taken, bounded, and ended. Everything that a client could do slowly has a limit, and a client that
//! vanished is noticed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use nixfleet_core::model::names::HostName;
use nixfleet_trust::key::{KeyId, PublicKey};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use crate::say;
use crate::store::board::Released;
use crate::store::{Store, StoreError};

/// What a client may take its time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The handshake of TLS: three round trips over the slowest line, with retries.
    pub handshake: Duration,
    /// From one request to the head of the next. An agent comes at once; a browser's idle connection may go.
    pub head: Duration,
    /// The body of a request: 1 MiB at 300 kbit/s.
    pub body: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(15),
            head: Duration::from_secs(90),
            body: Duration::from_secs(30),
        }
    }
}

/// Threads that shake hands. A handshake takes 0.35 ms of a core (`facts/stack.md`), and after a restart a whole fleet wants one:
/// among the other tasks, everybody who is connected already, and whoever takes connections, would wait behind thousands of
/// them. Threads share the cores fairly.
const HANDSHAKE_THREADS: usize = 2;
/// Connections that the kernel keeps until they are taken, or its own limit (`net.core.somaxconn`). What it has no room for waits
/// for seconds, and then believes to be connected.
const BACKLOG: u32 = 65_535;
/// The largest head, and how much is read ahead.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// A peer that does not acknowledge for so long is gone: a host that was cut off, or switched off without a word.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_mins(2);
/// Silence before the kernel asks whether the peer is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);
/// How long what is being answered may take after the end was announced.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);
/// After an error of `accept`: the process has no file descriptors left, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The key that it has proven to have.
    pub shown: Option<Arc<Shown>>,
}

/// A key that was proven, and whose it was found to be: that is asked once for each connection and release.
#[derive(Debug)]
pub struct Shown {
    /// The key.
    pub key: KeyId,
    host: Mutex<Option<(Released, HostName)>>,
}

impl Shown {
    fn new(key: KeyId) -> Self {
        Self { key, host: Mutex::default() }
    }

    /// The host that has this key by a release that is served. What was found counts until there is another release, so a host
    /// that is not named any more is gone at once, and with several replicas within a moment.
    pub async fn host(&self, store: &Store) -> Result<Option<HostName>, StoreError> {
        // Before the question: what is taken in meanwhile makes the answer void.
        let released = store.board().released();
        let known = self.host.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let (Some(released), Some((then, host))) = (released, known)
            && released == then
        {
            return Ok(Some(host));
        }
        let host = store.host_of_key(&self.key).await?;
        let found = released.zip(host.clone());
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(host)
    }
}

/// What the accept loop needs.
#[derive(Debug)]
pub struct Serving {
    /// How TLS is spoken.
    pub tls: Arc<rustls::ServerConfig>,
    /// Who shakes hands.
    pub handshakes: Handshakes,
    /// How many connections there may be.
    pub connections_max: u32,
    /// What they may take their time for.
    pub limits: Limits,
    /// Becomes true when no more are taken, and those that there are end after what they answer.
    pub ending: watch::Receiver<bool>,
}

/// Listens at an address.
pub fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As every listener does: what is left of connections of the process before does not keep us from it.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// Serves until the end is announced and everybody has an answer, or some time after it.
pub async fn serve(listener: TcpListener, router: Router, serving: Serving) {
    let Serving { tls, handshakes, connections_max, limits, mut ending } = serving;
    let connections = Arc::new(Semaphore::new(connections_max as usize));
    let (acceptor, ours) = (TlsAcceptor::from(tls), Handle::current());
    loop {
        let permit = tokio::select! {
            // Safe to cancel: a permit not taken stays. The semaphore is never closed.
            permit = Arc::clone(&connections).acquire_owned() => permit,
            // Safe to cancel. Closed means that whoever could announce the end is gone, which is an end.
            _ = ending.wait_for(|ending| *ending) => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            // Safe to cancel: a connection not taken stays in the kernel's queue.
            accepted = listener.accept() => accepted,
            // Safe to cancel, as above.
            _ = ending.wait_for(|ending| *ending) => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                say::error_again("no connection can be taken", &error);
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = Connection {
            address,
            router: router.clone(),
            head_within: limits.head,
            ending: ending.clone(),
            _permit: permit,
        };
        let (acceptor, ours) = (acceptor.clone(), ours.clone());
        handshakes.spawn(async move {
            if let Some(stream) = handshake(&acceptor, stream, limits.handshake).await {
                ours.spawn(connection.run(stream));
            }
        });
    }
    drop(listener);
    // Who has not shaken hands by now has asked for nothing.
    drop(handshakes);
    // All permits back means that all connections are gone.
    let _ = timeout(DRAIN_WITHIN, connections.acquire_many(connections_max)).await;
}

/// The threads that shake hands; those that are being shaken end when this is dropped.
#[derive(Debug)]
pub struct Handshakes(Option<Runtime>);

impl Handshakes {
    /// Starts them.
    pub fn begin() -> std::io::Result<Self> {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(HANDSHAKE_THREADS)
            .thread_name("handshakes")
            .enable_time()
            .build()?;
        Ok(Self(Some(threads)))
    }

    fn spawn(&self, handshake: impl Future<Output = ()> + Send + 'static) {
        if let Some(threads) = &self.0 {
            drop(threads.spawn(handshake));
        }
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        // Not by waiting for them, which a task must not do.
        if let Some(threads) = self.0.take() {
            threads.shutdown_background();
        }
    }
}

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream, within: Duration) -> Option<Stream> {
    // Best effort: a kernel that cannot do one of them still has the other limits.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEPALIVE_AFTER);
    let user_timeout = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    let _ = sockopt::set_tcp_user_timeout(&stream, user_timeout);
    timeout(within, acceptor.accept(stream)).await.ok()?.ok()
}

struct Connection {
    address: SocketAddr,
    router: Router,
    head_within: Duration,
    ending: watch::Receiver<bool>,
    /// Given back when it ends.
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(mut self, stream: Stream) {
        let key = stream.get_ref().1.peer_certificates().and_then(|chain| crate::tls::key_of(chain.first()?));
        let shown = key.map(|key: PublicKey| Arc::new(Shown::new(key.id())));
        let peer = Peer { address: self.address, shown };
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let mut router = router.clone();
            async move { Ok::<_, Infallible>(answer(&mut router, request.map(Body::new)).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_within)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut served = std::pin::pin!(served);
        tokio::select! {
            // Not cancelled but polled again below. An error is the peer's: it went away, or does not speak HTTP.
            _ = served.as_mut() => return,
            // Closed is an end, too.
            _ = self.ending.wait_for(|ending| *ending) => served.as_mut().graceful_shutdown(),
        }
        let _ = timeout(DRAIN_WITHIN, served).await;
    }
}

async fn answer(router: &mut Router, request: hyper::Request<Body>) -> axum::response::Response {
    // A router is always ready, and answers every request.
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
