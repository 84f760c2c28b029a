//! Requests byte by byte over TLS, for what no client library would send.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::running::SOON;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// All of it as text, for what must not be in it.
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let (head, body) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 4..]);
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
        if status == 100 {
            return Self::read(body);
        }
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        };
        let headers: Vec<_> = lines.filter_map(header).collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: Option<usize> = length.and_then(|(_, value)| value.parse().ok());
        let body = body[..length.unwrap_or(body.len()).min(body.len())].to_vec();
        Some(Self { status, headers, body, text })
    }

    /// Whether the head is here and says that no end is to be waited for.
    fn is_endless(bytes: &[u8]) -> bool {
        Self::read(bytes).is_some_and(|answer| {
            answer.header("content-type").is_some_and(|kind| kind == "text/event-stream")
        })
    }
}

/// Whether anything more follows what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It waits for the answer.
    Waits,
    /// It says that nothing more comes, in the middle of a request.
    BreaksOff,
}

/// Sends `bytes` on a connection of its own. `None` when the other side ended without an answer.
pub(crate) async fn ask(tls: &Arc<ClientConfig>, port: u16, bytes: &[u8], then: Then) -> Option<Answer> {
    let asked = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.expect("TLS");
        // Who is refused early may be cut off while it still sends.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        if then == Then::BreaksOff {
            let _ = stream.shutdown().await;
        }
        let mut got = Vec::new();
        while !Answer::is_endless(&got) {
            match stream.read_buf(&mut got).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        got
    };
    let got = timeout(SOON, asked).await.unwrap_or_else(|_| {
        panic!("no end within {SOON:?} of the answer to {}", String::from_utf8_lossy(bytes))
    });
    Answer::read(&got)
}
