//! Both sides of a TLS connection whose keys a test has: to be a host before its control plane, and the control plane before
//! its hosts.

use std::collections::BTreeSet;
use std::sync::Arc;

use data_encoding::BASE64;
use nixfleet_sys::pin::{Pin, trusting};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};

/// What an Ed25519 key of 32 bytes has before it as PKCS#8.
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// What an OpenSSH private key begins with.
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// The public key of a host, and how it speaks to the server with this pin. `private` is an OpenSSH private key without a
/// passphrase.
pub(crate) fn of_host(name: &str, private: &str, pin: &str) -> (Vec<u8>, ClientConfig) {
    let der = PrivatePkcs8KeyDer::from([&PKCS8_ED25519[..], &seed(private)].concat());
    let pair = KeyPair::try_from(&der).expect("a key");
    let certificate = CertificateParams::new(vec![name.to_owned()]).expect("a name").self_signed(&pair);
    let certificate = certificate.expect("it signs").der().clone();
    let pin: Pin = pin.parse().expect("a pin");
    let tls = trusting(BTreeSet::from([pin]))
        .with_client_auth_cert(vec![certificate], PrivateKeyDer::Pkcs8(der))
        .expect("a pair");
    (pair.subject_public_key_info(), tls)
}

/// The 32 bytes of which an Ed25519 key is made.
fn seed(private: &str) -> Vec<u8> {
    let base64: String = private.lines().filter(|line| !line.starts_with("-----")).collect();
    let bytes = BASE64.decode(base64.as_bytes()).expect("base64");
    let mut outer = bytes.strip_prefix(MAGIC).expect("an OpenSSH key");
    let (_cipher, _kdf, _options) = (field(&mut outer), field(&mut outer), field(&mut outer));
    let _count = outer.split_off(..4);
    let _public = field(&mut outer);
    let mut inner = field(&mut outer);
    let _checks = inner.split_off(..8);
    assert_eq!(field(&mut inner), b"ssh-ed25519", "as `nixfleet keys new` makes them");
    let _point = field(&mut inner);
    field(&mut inner)[..32].to_vec()
}

/// The next field: its length in four bytes, and so many bytes.
fn field<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = rest.split_off(..4).expect("a length").try_into().expect("four bytes");
    rest.split_off(..u32::from_be_bytes(length) as usize).expect("a field")
}

/// How a server speaks that has this certificate and key, PEM, and takes any client that has the private half of its key.
pub(crate) fn of_server(pem: &str) -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes());
    let chain: Result<Vec<CertificateDer<'static>>, _> = chain.collect();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
    let provider = Arc::new(aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the version that both ends speak")
        .with_client_cert_verifier(Arc::new(AnyKey(provider)))
        .with_single_cert(chain.expect("certificates"), key)
        .expect("a pair")
}

/// The public key in a certificate, as [`of_host`] gives it; empty if there is none.
pub(crate) fn key_of(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.map(|parsed| parsed.subject_public_key_info().to_vec()).unwrap_or_default()
}

#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
