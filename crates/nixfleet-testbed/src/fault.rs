//! A web server for what no honest server does: silence in the middle, endless data, a trickle.
//!
//! It runs in this process with its socket in the network namespace of a host's hub, so it ends with the test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a server that is being dropped may take to notice.
const TICK: Duration = Duration::from_millis(20);

/// What the server does with archives; narinfos are served as they should be, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Accepts the connection and never says a word, to any request.
    Silent,
    /// Sends half of an archive and then nothing, with the connection open.
    Stall,
    /// Sends half of an archive and closes the connection.
    CutShort,
    /// Sends an archive that never ends (its narinfo says it is not compressed; that field is not signed).
    Endless,
    /// Sends archives at this rate.
    Slow {
        /// Bytes in a second.
        bytes_per_second: u64,
    },
    /// Answers this status to every request.
    Status(u16),
    /// Answers this status to requests for archives only.
    ArchiveStatus(u16),
}

/// A running server; dropping it closes its socket and its connections.
#[derive(Debug)]
pub struct FaultServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    fault: Fault,
    stop: AtomicBool,
    requests: AtomicU64,
}

impl FaultServer {
    /// Serves `folder` on `port` in a network namespace, misbehaving in this way.
    pub fn start(namespace: &Path, port: u16, folder: &Path, fault: Fault) -> Result<Self> {
        let namespace = File::open(namespace).with_context(|| format!("open {}", namespace.display()))?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            fault,
            stop: AtomicBool::new(false),
            requests: AtomicU64::new(0),
        });
        let for_thread = Arc::clone(&shared);
        let (bound, is_bound) = channel();
        let thread = std::thread::spawn(move || listen(&namespace, port, &for_thread, &bound));
        is_bound.recv().context("the fault server's thread is gone")??;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Requests seen so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(namespace: &File, port: u16, shared: &Arc<Shared>, bound: &Sender<Result<()>>) {
    // Only this thread moves; it ends with the server.
    let listener = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .context("enter the network namespace")
        .and_then(|()| TcpListener::bind(("0.0.0.0", port)).context("listen"))
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener).context("set up the socket"));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            let _ = bound.send(Err(error));
            return;
        }
    };
    let _ = bound.send(Ok(()));
    let mut connections = Vec::new();
    while !shared.stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                connections.push(std::thread::spawn(move || answer(stream, &shared)));
            }
            Err(_) => std::thread::sleep(TICK),
        }
    }
    drop(listener);
    for connection in connections {
        let _ = connection.join();
    }
}

/// Answers one request; an error means that the other side is gone, which is its right.
fn answer(stream: TcpStream, shared: &Shared) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = stream.set_write_timeout(Some(TICK));
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let Some(path) = request(&stream) else { return };
    let mut out = Paced { stream, shared };
    let _ = respond(&mut out, path.trim_start_matches('/'), shared);
}

/// The path of a request, its headers read and forgotten.
fn request(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream.try_clone().ok()?.take(64 << 10)).lines().map_while(Result::ok);
    let first = lines.next()?;
    lines.find(String::is_empty)?;
    first.split(' ').nth(1).map(str::to_owned)
}

fn respond(out: &mut Paced<'_>, path: &str, shared: &Shared) -> std::io::Result<()> {
    let archive = path.starts_with("nar/");
    match shared.fault {
        Fault::Silent => return out.wait_for_end(),
        Fault::Status(status) => return head(out, status, Some(0)),
        Fault::ArchiveStatus(status) if archive => return head(out, status, Some(0)),
        Fault::Endless if archive => return endless(out),
        _ => {}
    }
    let Ok(mut body) = fs::read(shared.folder.join(path)) else { return head(out, 404, Some(0)) };
    if shared.fault == Fault::Endless && path.ends_with(".narinfo") {
        body = uncompressed(&body);
    }
    head(out, 200, Some(body.len()))?;
    let half = body.len() / 2;
    match shared.fault {
        Fault::Stall if archive => {
            out.write_all(&body[..half])?;
            out.wait_for_end()
        }
        Fault::CutShort if archive => out.write_all(&body[..half]),
        Fault::Slow { bytes_per_second } if archive => slow(out, &body, bytes_per_second),
        _ => out.write_all(&body),
    }
}

fn head(out: &mut Paced<'_>, status: u16, length: Option<usize>) -> std::io::Result<()> {
    let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
    out.write_all(format!("HTTP/1.1 {status} x\r\n{length}Connection: close\r\n\r\n").as_bytes())
}

/// A well-formed archive of one file of 2^60 bytes.
fn endless(out: &mut Paced<'_>) -> std::io::Result<()> {
    head(out, 200, None)?;
    let mut start = Vec::new();
    for word in ["nix-archive-1", "(", "type", "regular", "contents"] {
        start.extend_from_slice(&(word.len() as u64).to_le_bytes());
        start.extend_from_slice(word.as_bytes());
        start.resize(start.len().next_multiple_of(8), 0);
    }
    start.extend_from_slice(&(1_u64 << 60).to_le_bytes());
    out.write_all(&start)?;
    let block = vec![0; 64 << 10];
    loop {
        out.write_all(&block)?;
    }
}

fn slow(out: &mut Paced<'_>, body: &[u8], bytes_per_second: u64) -> std::io::Result<()> {
    // Twenty pieces a second, at least a byte each.
    let piece = usize::try_from(bytes_per_second / 20).unwrap_or(usize::MAX).max(1);
    for piece in body.chunks(piece) {
        out.write_all(piece)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A narinfo that says its archive is not compressed.
fn uncompressed(narinfo: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(narinfo);
    let line = |line: &str| {
        if line.starts_with("Compression:") { "Compression: none".into() } else { line.to_owned() }
    };
    text.lines().map(line).map(|line| line + "\n").collect::<String>().into_bytes()
}

/// A connection whose writes give up when the server is stopped.
struct Paced<'a> {
    stream: TcpStream,
    shared: &'a Shared,
}

impl Paced<'_> {
    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    /// Keeps the connection open until the other side or this server ends.
    fn wait_for_end(&mut self) -> std::io::Result<()> {
        self.stream.set_read_timeout(Some(TICK))?;
        while !self.stopped() {
            match self.stream.read(&mut [0; 64]) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        loop {
            if self.stopped() {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            match self.stream.write(bytes) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}
