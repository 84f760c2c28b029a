//! A server that is no control plane, or one that answers what no real one does yet: it answers by a script.

use std::sync::Arc;

use nixfleet_sys::exec::Cmd;
use nixfleet_sys::fs;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::control_plane::{Certified, certified};
use crate::support::{NIXFLEET, Said, said};

/// What it does with a request.
pub(crate) enum Answer {
    /// It answers with this status line's end, content type and body.
    Says(&'static str, &'static str, String),
    /// It is silent.
    Nothing,
    /// It goes away in the middle of the answer.
    BreaksOff,
}

/// A server with a script.
pub(crate) struct StandIn {
    dir: TempDir,
    pub(crate) port: u16,
    /// The pin of its key.
    pub(crate) pin: String,
}

impl StandIn {
    /// A server with a certificate for `name`, which answers a request for a method and path as `script` says.
    pub(crate) async fn start(name: &str, script: fn(&str) -> Answer) -> Self {
        let Certified { authority, certificate, key } = certified(&[name]);
        let dir = tempfile::tempdir().expect("a folder");
        fs::write_atomic(&dir.path().join("ca.pem"), authority.as_bytes()).expect("written");
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
        let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the default versions")
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), script));
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        Self { dir, port, pin: nixfleet_sys::pin::Pin::of(&spki).to_string() }
    }

    /// A verb that asks it, which has a few seconds.
    pub(crate) fn verb(&self, words: &[&str]) -> Cmd {
        self.asking(Cmd::new(NIXFLEET).args(words))
    }

    /// A program beside which [`StandIn::verb`] would find its server.
    pub(crate) fn beside(&self, argv: &[&str]) -> Cmd {
        self.asking(Cmd::new(argv[0]).args(&argv[1..]))
    }

    fn asking(&self, cmd: Cmd) -> Cmd {
        cmd.env("NIXFLEET_SERVER", format!("https://localhost:{}", self.port))
            .env("NIXFLEET_TOKEN", "secret")
            .env("NIXFLEET_CA", self.dir.path().join("ca.pem"))
    }

    pub(crate) async fn run(&self, words: &[&str]) -> Said {
        said(self.verb(words).run().await)
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, script: fn(&str) -> Answer) {
    while let Ok((stream, _)) = listener.accept().await {
        let tls = tls.clone();
        tokio::spawn(async move {
            let Ok(mut stream) = tls.accept(stream).await else { return };
            let mut asked = Vec::new();
            let mut piece = [0; 4096];
            while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => asked.extend_from_slice(&piece[..count]),
                }
            }
            let asked = String::from_utf8_lossy(&asked).into_owned();
            let line = asked.lines().next().unwrap_or_default();
            let line = line.rsplit_once(' ').map_or(line, |(line, _)| line);
            let (head, body) = match script(line) {
                Answer::Nothing => return std::future::pending().await,
                Answer::BreaksOff => {
                    ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n".to_owned(), "{".to_owned())
                }
                Answer::Says(status, kind, body) => {
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
                         connection: close\r\n\r\n"
                    );
                    (head, body)
                }
            };
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            let _ = stream.shutdown().await;
        });
    }
}
