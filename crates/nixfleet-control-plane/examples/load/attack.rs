//! Attacks on a server to which the whole fleet is connected: connections that are opened and say nothing, handshakes that
//! stop in the middle, heads and bodies that come a byte at a time. The fleet must not notice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;

use crate::stages::Bench;
use crate::wire::Way;

/// Attackers of each kind.
const OF_EACH: usize = 500;
/// How long they go on.
const LASTS: Duration = Duration::from_secs(10);
/// Between two bytes of the slow ones.
const BYTE_EVERY: Duration = Duration::from_millis(500);

/// What an attacker does with its connection.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Nothing at all.
    Silent,
    /// Says what begins a handshake, and no more.
    HalfAHandshake,
    /// Shakes hands, and sends the head of a request a byte at a time.
    SlowHead,
    /// Sends a head, and its body a byte at a time.
    SlowBody,
}

/// Attacks, and says how the server was meanwhile.
pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let before = bench.server.used()?;
    let polling = bench.world.waiting();
    bench.looking.take();
    let until = Instant::now() + LASTS;
    let mut attackers = JoinSet::new();
    for kind in [Kind::Silent, Kind::HalfAHandshake, Kind::SlowHead, Kind::SlowBody] {
        for _ in 0..OF_EACH {
            attackers.spawn(attack(bench.stranger.clone(), kind, until));
        }
    }
    let mut done = 0;
    while let Some(attacked) = attackers.join_next().await {
        attacked.context("an attacker panicked")?;
        done += 1;
    }
    ensure!(done == 4 * OF_EACH, "only {done} attackers attacked");
    bench.well(&format!("while {done} slow or silent connections attack"));
    let after = bench.server.used()?;
    let spent = after.processor_ms - before.processor_ms;
    let grown = after.resident.saturating_sub(before.resident) >> 10;
    bench
        .rows
        .push(("processor and memory for the attack".to_owned(), format!("{spent} ms, {grown} KiB more")));
    let left = bench.world.waiting();
    // Polls end and begin all the time; an agent that lost its connection pauses for a second at least.
    ensure!(
        left * 10 >= polling * 8,
        "of {polling} agents that polled before the attack, {left} do after it"
    );
    Ok(())
}

async fn attack(way: Way, kind: Kind, until: Instant) {
    // A connection that is refused or cut ends an attack early, as it should.
    let _ = tokio::time::timeout_at(until, connect_and_dawdle(way, kind)).await;
}

async fn connect_and_dawdle(way: Way, kind: Kind) -> Option<()> {
    let mut stream = way.tcp().await.ok()?;
    match kind {
        Kind::Silent => std::future::pending::<()>().await,
        Kind::HalfAHandshake => {
            // The record of a long greeting, of which the rest never comes.
            stream.write_all(&[0x16, 3, 1, 1, 0]).await.ok()?;
            std::future::pending::<()>().await;
        }
        Kind::SlowHead | Kind::SlowBody => {
            let name = rustls::pki_types::ServerName::try_from("localhost").ok()?;
            let mut stream = TlsConnector::from(way.tls).connect(name, stream).await.ok()?;
            let head =
                b"POST /v1/agent/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
            if matches!(kind, Kind::SlowBody) {
                stream.write_all(head).await.ok()?;
                stream.write_all(b"content-length: 100000\r\n\r\n").await.ok()?;
            }
            for byte in head.iter().cycle() {
                stream.write_all(&[*byte]).await.ok()?;
                stream.flush().await.ok()?;
                sleep(BYTE_EVERY).await;
            }
        }
    }
    Some(())
}
