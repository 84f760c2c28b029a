//! Many connections at once: those that come before anybody takes them, and those that say nothing.

use std::net::SocketAddr;
use std::time::Duration;

use nixfleet_control_plane::serve::{Limits, listen};
use nixfleet_control_plane::server::Means;
use reqwest::StatusCode;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fleet::Fleet;
use crate::running::{CONNECTIONS_MAX, Running};

/// More than a listener of the standard library has room for, which is 128.
const AT_ONCE: usize = 600;
/// More than the handshakes that were once gone on with at the same time, 1,024.
const SILENT: usize = 1_100;
/// A test that hangs is ended.
const HUNG_AFTER: Duration = Duration::from_mins(1);

async fn connected(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(TcpStream::connect(to).await.expect("a connection"));
    }
    connections
}

/// The kernel tells a client that it is connected, and forgets it where its queue is full: what is not there without the client's
/// saying a word was forgotten.
#[tokio::test]
async fn who_comes_before_the_server_takes_connections_is_kept_until_it_does() {
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a listener");
    let clients = connected(listener.local_addr().expect("an address"), AT_ONCE).await;
    let all = async {
        for _ in 0..AT_ONCE {
            listener.accept().await.expect("a connection");
        }
    };
    timeout(HUNG_AFTER, all).await.expect("all of them were kept");
    drop(clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_say_nothing_keep_nobody_from_being_answered() {
    let limits = Limits { handshake: HUNG_AFTER, ..Limits::default() };
    let means = Means { limits, ..Means::default() };
    let running = Running::start_as(&Fleet::of(&["web-1"]), None, means, CONNECTIONS_MAX).await;
    let silent = connected(running.address, SILENT).await;
    // Whether the database answers in time is another matter.
    let (status, _) = running.anybody().get("/healthz").await;
    assert_eq!(status, StatusCode::OK);
    // The first of them is closed after so long, and whoever waits behind it is answered after that.
    let read = silent[0].try_read(&mut [0]);
    assert!(matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{read:?}");
}
