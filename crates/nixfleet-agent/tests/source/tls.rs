//! Servers that prove who they are, and servers that pretend.

use std::sync::Arc;

use nixfleet_agent::source::documents::{Documents, Got, NoAnswer, Wanted};
use nixfleet_agent::source::web::tls::{Pin, ServerTrust};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use reqwest::Certificate;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::fleet::fleet;
use crate::server::{Manners, Server};
use crate::shelf::Shelf;
use crate::web::web;

struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("randomness");
    let certificate = params.self_signed(&key).expect("signed");
    Authority { certificate, issuer: Issuer::new(params, key) }
}

impl Authority {
    fn trusted(&self) -> ServerTrust {
        let certificate = Certificate::from_pem(self.certificate.pem().as_bytes()).expect("PEM");
        ServerTrust::Only(vec![certificate])
    }
}

/// A server with a certificate by `authority` for `name`, and the pin of its key.
async fn server(authority: &Authority, name: &str, expired: bool) -> (Server, Pin) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    if expired {
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    }
    let key = KeyPair::generate().expect("randomness");
    let certificate = params.signed_by(&key, &authority.issuer).expect("signed");
    let pin = Pin::of(&key.subject_public_key_info());
    let chain = vec![CertificateDer::from(certificate)];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they fit");
    let tls = TlsAcceptor::from(Arc::new(config));
    let shelf = Shelf::up_to(&fleet(), 1);
    (Server::start_on("127.0.0.1:0", shelf, Manners::Good, Some(tls)).await, pin)
}

async fn asked(server: &Server, trust: ServerTrust) -> Result<Got, NoAnswer> {
    let wanted = Wanted { path: "channels/stable/latest", bytes_max: 21, known: None };
    web(&server.url().replace("http://", "https://"), trust).get(wanted).await
}

#[tokio::test]
async fn a_server_by_our_own_authority_is_believed_and_one_by_another_is_not() {
    let (ours, other) = (authority(), authority());
    let (server, _) = server(&ours, "127.0.0.1", false).await;
    assert!(asked(&server, ours.trusted()).await.is_ok());
    for trust in [other.trusted(), ServerTrust::Host] {
        let said = asked(&server, trust).await.expect_err("a stranger").to_string();
        assert!(said.contains("certificate"), "{said}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_the_servers_and_a_certificate_that_has_expired_are_told() {
    let ours = authority();
    let (elsewhere, _) = server(&ours, "127.0.0.2", false).await;
    let said = asked(&elsewhere, ours.trusted()).await.expect_err("another name").to_string();
    assert!(said.contains("not valid for"), "{said}");
    let (old, _) = server(&ours, "127.0.0.1", true).await;
    let said = asked(&old, ours.trusted()).await.expect_err("expired").to_string();
    assert!(said.contains("expired"), "{said}");
}

#[tokio::test]
async fn a_pinned_key_counts_alone_and_another_key_is_named() {
    let ours = authority();
    let (server, pin) = server(&ours, "another.example", true).await;
    let pinned = |pin| ServerTrust::Pinned([pin].into());
    assert!(asked(&server, pinned(pin)).await.is_ok(), "neither name nor date matter");
    let said = asked(&server, pinned(Pin::of(b"another key"))).await.expect_err("another key").to_string();
    assert!(said.contains(&pin.to_string()), "it says which key it saw: {said}");
}

#[tokio::test]
async fn a_server_without_tls_is_not_taken_for_one_with_it() {
    let server = Server::start(Shelf::up_to(&fleet(), 1), Manners::Good).await;
    assert!(asked(&server, ServerTrust::Host).await.is_err());
}
