//! Passes connections from one network namespace into another, as they are: so that a virtual machine, which has a network of its
//! own, reaches a server in the network of a fleet.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long the end of this may take to be noticed.
const TICK: Duration = Duration::from_millis(50);

/// An end of the way: an address in a network namespace.
pub(crate) type End = (PathBuf, SocketAddr);

/// The way; it takes no more connections after this is dropped. Those that are open end with either of their ends.
pub(crate) struct Relay {
    stop: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Relay {
    /// Whoever connects to `from` is connected to `to`.
    pub(crate) fn start(from: End, to: End) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (accepted, to_connect) = channel();
        let (bound, is_bound) = channel();
        let (connecting, stopped) = (to, Arc::clone(&stop));
        spawn(move || connect(&connecting, &to_connect));
        let listening = spawn(move || {
            enter(&from.0);
            let listener = TcpListener::bind(from.1).expect("it listens");
            listener.set_nonblocking(true).expect("a socket");
            bound.send(()).expect("somebody waits");
            accept(&listener, &accepted, &stopped);
        });
        is_bound.recv().expect("it listens");
        Self { stop, listening: Some(listening) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

/// Moves this thread, and those that it starts from now on.
fn enter(namespace: &PathBuf) {
    let namespace = File::open(namespace).expect("the network");
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("it enters");
}

fn accept(listener: &TcpListener, accepted: &Sender<TcpStream>, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => accepted.send(stream).expect("it is there as long as we are"),
            Err(_) => sleep(TICK),
        }
    }
}

/// Ends when nothing is accepted any more.
fn connect((namespace, address): &End, accepted: &Receiver<TcpStream>) {
    enter(namespace);
    while let Ok(near) = accepted.recv() {
        // Nobody there: the near end sees its connection end, as it would without us.
        let Ok(far) = TcpStream::connect(address) else { continue };
        if near.set_nonblocking(false).is_ok() {
            let _ = both_ways(near, far);
        }
    }
}

fn both_ways(near: TcpStream, far: TcpStream) -> io::Result<()> {
    let (back, forth) = ((far.try_clone()?, near.try_clone()?), (near, far));
    for (mut from, mut to) in [back, forth] {
        spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
    Ok(())
}
