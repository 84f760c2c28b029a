//! Clients that take their time: each limit is shortened alone, and ends those it is for. The others are longer than
//! any of these tests.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_control_plane::room::OF_A_HOST_MAX;
use nixfleet_control_plane::serve::Limits;
use nixfleet_control_plane::server::Means;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fleet::{Fleet, Host, host_name};
use crate::running::{CONNECTIONS_MAX, Running};
use crate::wire::{Then, ask};

/// The limit that is looked at.
const SHORT: Duration = Duration::from_millis(500);
/// Far longer than that, and shorter than any limit that is not looked at.
const SOON: Duration = Duration::from_mins(1);
const NEVER: Duration = Duration::from_mins(10);
/// The limits that are not looked at.
const LONG: Limits = Limits { handshake: NEVER, head: NEVER, body: NEVER };

async fn serving(fleet: &Fleet, limits: Limits, connections_max: u32) -> Running {
    Running::start_as(fleet, None, Means { limits, ..Means::default() }, connections_max).await
}

async fn connected(running: &Running) -> TcpStream {
    TcpStream::connect(("127.0.0.1", running.address.port())).await.expect("it listens")
}

async fn secured(running: &Running) -> TlsStream<TcpStream> {
    let (stream, name) = (connected(running).await, ServerName::try_from("localhost").expect("a name"));
    TlsConnector::from(Arc::new(running.tls(None))).connect(name, stream).await.expect("TLS")
}

/// Reads until the other side ends the connection, which it must do soon.
async fn until_let_go(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut got = Vec::new();
    let read = timeout(SOON, async {
        // An end without a word is one too.
        while matches!(stream.read_buf(&mut got).await, Ok(1..)) {}
    });
    assert!(read.await.is_ok(), "it is not let go: {}", String::from_utf8_lossy(&got));
    got
}

#[tokio::test]
async fn who_is_silent_where_the_handshake_should_be_is_let_go() {
    let limits = Limits { handshake: SHORT, ..LONG };
    let running = serving(&Fleet::of(&["web-1"]), limits, CONNECTIONS_MAX).await;
    assert_eq!(until_let_go(&mut connected(&running).await).await, b"");
    let mut half = connected(&running).await;
    // The beginning of a record, and nothing of what it announces.
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.expect("it is there");
    until_let_go(&mut half).await;
}

#[tokio::test]
async fn who_does_not_end_the_head_of_a_request_is_let_go() {
    let limits = Limits { head: SHORT, ..LONG };
    let running = serving(&Fleet::of(&["web-1"]), limits, CONNECTIONS_MAX).await;
    let mut slow = secured(&running).await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc").await.expect("it is there");
    let said = until_let_go(&mut slow).await;
    assert!(!said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_and_its_room_is_free_for_the_same_host() {
    let fleet = Fleet::of(&["web-1"]);
    // The good requests of this test have to keep it, too.
    let limits = Limits { body: 4 * SHORT, ..LONG };
    let running = serving(&fleet, limits, CONNECTIONS_MAX).await;
    running.push(&fleet.release(1)).await;
    let keys = &fleet.hosts[&host_name("web-1")];
    let (tls, port) = (Arc::new(running.tls(Some(keys))), running.address.port());
    let slow = b"POST /v1/agent/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"records\":";
    // More than one host may send at the same time.
    for turn in 0..OF_A_HOST_MAX + 2 {
        let answer = ask(&tls, port, slow, Then::Waits).await.expect("an answer");
        assert_eq!(answer.status, 408, "{turn}: {}", answer.text);
    }
    let host = Host::started("web-1");
    assert_eq!(running.host(keys).report(&host.log).await.next, host.state.seq + 1);
}

#[tokio::test]
async fn a_connection_above_the_number_that_there_may_be_waits_and_is_served_when_another_one_ends() {
    let running = serving(&Fleet::of(&["web-1"]), LONG, 2).await;
    let (first, _second) = (secured(&running).await, secured(&running).await);
    let (tls, port) = (Arc::new(running.tls(None)), running.address.port());
    let get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let third = tokio::spawn(async move { ask(&tls, port, get, Then::Waits).await });
    // However long: nobody makes room for it.
    sleep(SHORT).await;
    assert!(!third.is_finished(), "it is not served beside the others");
    drop(first);
    let answer = timeout(SOON, third).await.expect("it is served").expect("no panic").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text);
}
