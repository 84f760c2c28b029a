//! A small web server with manners to choose. It serves a shelf, remembers what it was asked, and ends with the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::shelf::Shelf;

/// The most requests on one connection, and the most bytes of a head.
const REQUESTS_MAX: usize = 100;
const HEAD_MAX: usize = 8192;

/// How a server behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Manners {
    /// It serves its shelf.
    Good,
    /// It serves its shelf with entity tags, and says when something is the same.
    Tagging,
    /// It says that everything is the same, asked or not.
    AlwaysTheSame,
    /// It answers everything with a login page.
    LoginPage,
    /// It answers the roots with a page and a good status, as sites do that are one program.
    PageForMissing,
    /// It never stops sending.
    Endless,
    /// It sends a byte now and then.
    Dripping,
    /// It promises more than it sends, and hangs up.
    CutOff,
    /// It takes the request and says nothing.
    Silent,
    /// It hangs up.
    HangsUp,
    /// It says something that is not HTTP.
    Noise,
    /// It has this status for everything.
    Status(u16),
    /// It is busy, and wants not to be asked again for so many seconds.
    Busy(u64),
    /// It sends everybody there; the path is added.
    Redirects(String),
    /// It sends everybody to the same path with something in front, and serves that.
    RedirectsInside,
    /// It serves its shelf, and has status 403 for what is not there.
    ForbidsMissing,
}

/// One request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) connection: usize,
    pub(crate) status: u16,
}

#[derive(Debug)]
struct Shared {
    shelf: Mutex<Shelf>,
    manners: Mutex<Manners>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

/// A server; it ends when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds it")
}

impl Server {
    pub(crate) async fn start(shelf: Shelf, manners: Manners) -> Self {
        Self::start_on("127.0.0.1:0", shelf, manners, None).await
    }

    pub(crate) async fn start_on(at: &str, shelf: Shelf, manners: Manners, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(at).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            shelf: Mutex::new(shelf),
            manners: Mutex::new(manners),
            seen: Mutex::new(Vec::new()),
            connections: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared), tls));
        Self { address, shared, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(crate) fn behave(&self, manners: Manners) {
        *lock(&self.shared.manners) = manners;
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Shelf)) {
        change(&mut lock(&self.shared.shelf));
    }

    /// What it was asked since this was last called.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.shared.seen))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    // The tasks of connections end with the set, and so with the server.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        connections.spawn(async move {
            let number = shared.connections.fetch_add(1, Ordering::SeqCst);
            match tls {
                None => serve(stream, &shared, number).await,
                Some(tls) => {
                    // Whoever does not like the certificate hangs up.
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, &shared, number).await;
                    }
                }
            }
        });
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared, connection: usize) {
    for _ in 0..REQUESTS_MAX {
        let Some((target, headers)) = request(&mut stream).await else { return };
        let manners = lock(&shared.manners).clone();
        // A proxy is asked for the whole address.
        let path = target
            .split_once("://")
            .map_or(target.as_str(), |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
        let document = lock(&shared.shelf).0.get(path.trim_start_matches('/')).cloned();
        let answer = answer(&manners, path, &headers, document);
        lock(&shared.seen).push(Seen { target, headers, connection, status: answer.status });
        if stream.write_all(&answer.bytes).await.is_err() {
            return;
        }
        match answer.then {
            Then::Next => {}
            Then::HangUp => return,
            Then::Wait => tokio::time::sleep(Duration::from_mins(1)).await,
            Then::Flood => while stream.write_all(&[b'7'; 4096]).await.is_ok() {},
            Then::Drip => {
                while stream.write_all(b"7").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, BTreeMap<String, String>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_MAX {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).ok()?;
    let mut lines = text.lines();
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some((target, headers))
}

struct Answer {
    status: u16,
    bytes: Vec<u8>,
    then: Then,
}

enum Then {
    Next,
    HangUp,
    Wait,
    Flood,
    Drip,
}

fn whole(status: u16, headers: &str, body: &[u8]) -> Answer {
    let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    Answer { status, bytes: [head.as_bytes(), body].concat(), then: Then::Next }
}

fn part(head: &str, then: Then) -> Answer {
    Answer { status: 200, bytes: head.as_bytes().to_vec(), then }
}

const PAGE: &[u8] = b"<!doctype html><title>Welcome to the hotel</title>";
const HTML: &str = "content-type: text/html; charset=utf-8\r\n";

fn answer(
    manners: &Manners,
    path: &str,
    headers: &BTreeMap<String, String>,
    document: Option<Vec<u8>>,
) -> Answer {
    let missing = || whole(404, HTML, b"<h1>not here</h1>");
    let plain = |document: Option<Vec<u8>>| document.map_or_else(missing, |body| whole(200, "", &body));
    match manners {
        Manners::Good => plain(document),
        Manners::Tagging => document.map_or_else(missing, |body| {
            let tag = format!("\"{}\"", crate::fleet::hex_digest(&body));
            if headers.get("if-none-match") == Some(&tag) {
                Answer { status: 304, bytes: b"HTTP/1.1 304 Same\r\n\r\n".to_vec(), then: Then::Next }
            } else {
                whole(200, &format!("etag: {tag}\r\n"), &body)
            }
        }),
        Manners::AlwaysTheSame => {
            Answer { status: 304, bytes: b"HTTP/1.1 304 Same\r\n\r\n".to_vec(), then: Then::Next }
        }
        Manners::LoginPage => whole(200, HTML, PAGE),
        Manners::PageForMissing => {
            document.map_or_else(|| whole(200, HTML, PAGE), |body| whole(200, "", &body))
        }
        Manners::Endless => part("HTTP/1.1 200 Said\r\n\r\n", Then::Flood),
        Manners::Dripping => part("HTTP/1.1 200 Said\r\ncontent-length: 1000\r\n\r\n", Then::Drip),
        Manners::CutOff => part("HTTP/1.1 200 Said\r\ncontent-length: 1000\r\n\r\n4", Then::HangUp),
        Manners::Silent => part("", Then::Wait),
        Manners::HangsUp => part("", Then::HangUp),
        Manners::Noise => part("220 mail.example ESMTP\r\n", Then::HangUp),
        Manners::Status(status) => whole(*status, "", b"no"),
        Manners::Busy(secs) => whole(503, &format!("retry-after: {secs}\r\n"), b"later"),
        Manners::Redirects(to) => whole(302, &format!("location: {to}{path}\r\n"), b""),
        Manners::RedirectsInside => match path.strip_prefix("/inside") {
            Some(_) => whole(200, "", b"1\n"),
            None => whole(301, &format!("location: /inside{path}\r\n"), b""),
        },
        Manners::ForbidsMissing => {
            document.map_or_else(|| whole(403, "", b"no"), |body| whole(200, "", &body))
        }
    }
}
