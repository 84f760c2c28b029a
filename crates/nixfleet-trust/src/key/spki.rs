//! Keys as `SubjectPublicKeyInfo`: the form of PEM files and of TLS certificates.
//!
//! Both kinds of keys have exactly one DER encoding each, a fixed beginning and the point, so nothing is parsed.

use data_encoding::BASE64;

use super::{KeyFault, Kind, PublicKey, ed25519_point, p256_point, printable};

/// SEQUENCE { SEQUENCE { 1.3.101.112 }, BIT STRING of 32 bytes }.
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// SEQUENCE { SEQUENCE { 1.2.840.10045.2.1, 1.2.840.10045.3.1.7 }, BIT STRING of 65 bytes }.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

pub(super) fn ed25519_der(point: &[u8; 32]) -> Vec<u8> {
    [&ED25519[..], point].concat()
}

pub(super) fn p256_der(point: &[u8; 65]) -> Vec<u8> {
    [&P256[..], point].concat()
}

pub(super) fn read_der(der: &[u8]) -> Result<PublicKey, KeyFault> {
    if let Some(point) = der.strip_prefix(&ED25519) {
        Ok(PublicKey(Kind::Ed25519(ed25519_point(point)?)))
    } else if let Some(point) = der.strip_prefix(&P256) {
        Ok(PublicKey(Kind::P256(p256_point(point)?)))
    } else {
        Err(KeyFault::OtherType("neither Ed25519 nor P-256 with an uncompressed point".to_owned()))
    }
}

/// What follows `-----BEGIN `.
pub(super) fn read_pem(after_begin: &str) -> Result<PublicKey, KeyFault> {
    let (label, rest) = after_begin.split_once("-----").ok_or(KeyFault::UnknownForm)?;
    if label != "PUBLIC KEY" {
        return Err(other_label(label));
    }
    let body = rest.strip_suffix("-----END PUBLIC KEY-----").ok_or(KeyFault::NotBase64)?;
    let base64: String = body.split_ascii_whitespace().collect();
    read_der(&BASE64.decode(base64.as_bytes()).map_err(|_| KeyFault::NotBase64)?)
}

fn other_label(label: &str) -> KeyFault {
    if label.ends_with("PRIVATE KEY") {
        KeyFault::PrivateKey
    } else if label.ends_with("CERTIFICATE") {
        KeyFault::Certificate
    } else if label.ends_with("PUBLIC KEY") {
        KeyFault::OtherType(printable(label))
    } else {
        KeyFault::UnknownForm
    }
}
