//! TLS: who we are, and which key the other side has.
//!
//! A client may show a certificate of any kind, signed by anybody: what counts is its public key, and that it has the
//! private half. Whether a verified release names that key is asked at each request, so that a host that is removed is
//! gone at once. Names and dates in it mean nothing: hosts that were off for a year come back (`trust.md`). TLS 1.3
//! only, since both ends are ours.

use std::sync::{Arc, PoisonError, RwLock};

use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::key::PublicKey;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use crate::config::ready::Identity;

/// The server's certificate and key, which may be replaced while it serves.
#[derive(Debug)]
pub struct Certificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    /// That of this identity; refused if the key is not the certificate's.
    pub fn new(identity: Identity) -> Result<Self, Error> {
        Ok(Self(RwLock::new(Arc::new(certified(identity)?))))
    }

    fn now(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in its place, for whoever connects from now on. Returns whether it is another; after an error the old one
    /// is still there.
    pub fn replace(&self, identity: Identity) -> Result<bool, Error> {
        if identity.chain == self.now().cert {
            return Ok(false);
        }
        let fresh = Arc::new(certified(identity)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(true)
    }

    /// When the server's own certificate ends, if it says so in a way that is understood.
    pub fn expires(&self) -> Option<UnixMs> {
        crate::certificate::expires(self.now().cert.first()?)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }
}

fn certified(Identity { chain, key }: Identity) -> Result<CertifiedKey, Error> {
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
}

/// The server's configuration.
pub fn server(certificate: Arc<Certificate>) -> Result<ServerConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyKey { provider: Arc::clone(&provider) });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // An agent that comes back need not prove itself again at full cost.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// The key in a certificate, if hosts may have such a one.
pub fn key_of(certificate: &CertificateDer<'_>) -> Option<PublicKey> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    PublicKey::from_spki(&parsed.subject_public_key_info()).ok()
}

/// Takes whoever has the private half of a key that a host may have.
#[derive(Debug)]
struct AnyKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyKey {
    fn client_auth_mandatory(&self) -> bool {
        // People come with a token.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match key_of(end_entity) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
