//! One connection of an agent: TLS with the host's key, HTTP/1.1, one request at a time, everything with a limit.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Connecting, with the handshake: what an agent gives it.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// One answer: the longest poll and what an agent gives it beyond that.
const ANSWER_WITHIN: Duration = Duration::from_secs(85);
/// Connections from one source address; the kernel has some 28,000 ports for each.
const PORTS_OF_AN_ADDRESS: usize = 20_000;

/// Why there was no answer that could be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NoUse {
    /// No connection was to be had.
    Connect,
    /// The handshake failed.
    Handshake,
    /// It took longer than an agent waits.
    TooSlow,
    /// The connection ended instead of an answer.
    Cut,
    /// The server refused with this status.
    Status(u16),
    /// What came is not what was promised.
    Unreadable,
}

/// From where, to where, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) from: Ipv4Addr,
    pub(crate) to: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
}

/// The source address of the connections of agent number `at`.
pub(crate) fn source(at: usize) -> Ipv4Addr {
    // Two connections for each agent.
    let block = u8::try_from(2 * at / PORTS_OF_AN_ADDRESS).unwrap_or(250);
    Ipv4Addr::new(127, 0, 1, block + 1)
}

/// An open connection; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    sender: SendRequest<Full<Bytes>>,
    driving: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Way {
    /// A connection without TLS.
    pub(crate) async fn tcp(&self) -> Result<TcpStream, NoUse> {
        let connect = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((self.from, 0).into())?;
            socket.connect(self.to).await
        };
        let stream = timeout(CONNECT_WITHIN, connect).await.map_err(|_| NoUse::TooSlow)?;
        let stream = stream.map_err(|_| NoUse::Connect)?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// The same way, for whom the server does not know from before.
    pub(crate) fn afresh(&self) -> Self {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.resumption = Resumption::disabled();
        Self { tls: Arc::new(tls), ..self.clone() }
    }

    /// A connection over which one may ask.
    pub(crate) async fn open(&self) -> Result<Line, NoUse> {
        let stream = self.tcp().await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let shaking = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        let stream = timeout(CONNECT_WITHIN, shaking).await.map_err(|_| NoUse::TooSlow)?;
        let stream = TokioIo::new(stream.map_err(|_| NoUse::Handshake)?);
        let (sender, connection) = http1::handshake(stream).await.map_err(|_| NoUse::Handshake)?;
        let driving = tokio::spawn(async move { drop(connection.await) });
        Ok(Line { sender, driving })
    }
}

impl Line {
    /// Asks, and reads the answer as what it should be.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, NoUse> {
        let (status, bytes) = self.raw(method, path, "application/json", None, body).await?;
        match status {
            StatusCode::OK => serde_json::from_slice(&bytes).map_err(|_| NoUse::Unreadable),
            status => Err(NoUse::Status(status.as_u16())),
        }
    }

    /// Asks, and brings status and body.
    pub(crate) async fn raw(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), NoUse> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, kind);
        let request = match token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        let request = request.body(Full::new(Bytes::from(body))).expect("a sound request");
        let answer = async {
            self.sender.ready().await.map_err(|_| NoUse::Cut)?;
            let response = self.sender.send_request(request).await.map_err(|_| NoUse::Cut)?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|_| NoUse::Cut)?;
            Ok((status, body.to_bytes()))
        };
        timeout(ANSWER_WITHIN, answer).await.map_err(|_| NoUse::TooSlow)?
    }
}
