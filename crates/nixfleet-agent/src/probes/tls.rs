//! TLS around a connection: the one place that says whom a server is believed by (lesson 22).

use std::sync::Arc;

use nixfleet_core::model::names::Sha256;
use nixfleet_core::model::probe::TlsTrust;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::Digest;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The connection with TLS 1.2 or 1.3 around it; the server has shown that it is `host`, or has the pinned key.
pub(super) async fn wrap(
    stream: TcpStream,
    host: &str,
    trust: &TlsTrust,
) -> Result<TlsStream<TcpStream>, String> {
    let config = match trust {
        TlsTrust::SystemRoots => by_roots(system_roots().await?)?,
        TlsTrust::PinnedKey(key) => by_key(*key)?,
    };
    handshake(stream, host, config).await
}

async fn handshake(
    stream: TcpStream,
    host: &str,
    config: ClientConfig,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| "the host has no name that TLS knows")?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))
}

/// The host's certificate authorities, read anew for every question: a switch may have brought others.
async fn system_roots() -> Result<RootCertStore, String> {
    // Some 150 certificates from one file, or as many files.
    let read = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let read = read.map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    // One that cannot be read is believed by nobody, and does not spoil the others.
    let (added, _) = roots.add_parsable_certificates(read.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = read.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
    Err(format!("this host has no certificate authorities{why}"))
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

fn by_roots(roots: RootCertStore) -> Result<ClientConfig, String> {
    let builder = builder(Arc::new(aws_lc_rs::default_provider()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn by_key(key: Sha256) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = PinnedKey { key, provider: Arc::clone(&provider) };
    let builder = builder(provider)?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(builder.with_no_client_auth())
}

/// Believes the server that has this key, and asks neither for its name nor for its time: the key says it all.
#[derive(Debug)]
struct PinnedKey {
    key: Sha256,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        if sha2::Sha256::digest(key.as_ref()).as_slice() == self.key.bytes() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
