//! Public keys: which kinds there are, how they are written, and what they are called.
//!
//! Read are exactly two forms (lesson 23), both of which every tool in use can write:
//! - one line of OpenSSH's: `ssh-ed25519 AAAA… comment`; also `ecdsa-sha2-nistp256` and both `sk-` kinds;
//! - PEM with `BEGIN PUBLIC KEY` (SPKI), as openssl, PKCS#11 tools and cloud key stores write it.
//!
//! In documents a key is the OpenSSH line without a comment. Its id is the fingerprint that `ssh-keygen -l` prints, so
//! that people can compare it with what they hold.

mod spki;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{digest, signature as aws};
use data_encoding::{BASE64, BASE64_NOPAD};
use nixfleet_core::model::names::HostKey;
use serde::{Deserialize, Serialize};

use crate::wire::{Reader, WireError, put_string};

/// What is read, in words; every refusal of a key ends with it.
pub const KEY_FORMS: &str = "taken are: one line of OpenSSH's with an ssh-ed25519, ecdsa-sha2-nistp256, \
     sk-ssh-ed25519@openssh.com or sk-ecdsa-sha2-nistp256@openssh.com key, or PEM that begins with \
     `-----BEGIN PUBLIC KEY-----` and has an Ed25519 or P-256 key";

/// A public key whose form has been checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub(crate) Kind);

/// What kind of key it is, with its point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Ed25519([u8; 32]),
    /// Uncompressed: 4, x, y.
    P256([u8; 65]),
    SkEd25519 {
        point: [u8; 32],
        application: String,
    },
    SkP256 {
        point: [u8; 65],
        application: String,
    },
}

/// The kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// Ed25519.
    Ed25519,
    /// ECDSA over P-256 with SHA-256.
    P256,
    /// Ed25519 in a FIDO2 token, which is touched for every signature.
    SkEd25519,
    /// ECDSA over P-256 in a FIDO2 token, which is touched for every signature.
    SkP256,
}

impl KeyType {
    /// OpenSSH's name for it.
    pub fn ssh_name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::P256 => "ecdsa-sha2-nistp256",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    pub(crate) fn from_ssh_name(name: &str) -> Option<Self> {
        [Self::Ed25519, Self::P256, Self::SkEd25519, Self::SkP256]
            .into_iter()
            .find(|kind| kind.ssh_name() == name)
    }
}

/// Why a text is not a public key that is taken here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; {KEY_FORMS}")]
pub struct KeyRefused(pub KeyFault);

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Somebody gave away the wrong half.
    #[error("this is a private key; the public one is wanted, and this one may have to be replaced now")]
    PrivateKey,
    /// A key of a kind that is not taken.
    #[error("this is a key of type `{0}`")]
    OtherType(String),
    /// A certificate and not a key.
    #[error("this is a certificate and not a public key")]
    Certificate,
    /// What `nix key` writes.
    #[error("this is a key for a Nix cache")]
    NixCacheKey,
    /// Nothing that is known.
    #[error("this is not a public key in a form that is known here")]
    UnknownForm,
    /// The base64 is damaged.
    #[error("the key's base64 is damaged")]
    NotBase64,
    /// The fields of the key are damaged.
    #[error("the key is damaged: {0}")]
    Wire(WireError),
    /// The line says one type and the key in it another.
    #[error("the line says `{line}` and the key in it is of type `{key}`")]
    TwoTypes {
        /// What stands before the base64.
        line: String,
        /// What the base64 says.
        key: String,
    },
    /// A point of another length.
    #[error("the key's point is {0} bytes long")]
    PointLength(usize),
    /// Not a point of the curve, or not in its one encoding.
    #[error("the key is not a point of its curve in the usual encoding")]
    NotAPoint,
    /// Everybody can sign for such a key.
    #[error("the key is one of the few weak points of its curve, for which everybody can sign")]
    WeakPoint,
    /// A token's key that was not made for SSH.
    #[error("the token's key was made for the application `{0}`, and SSH keys begin with `ssh:`")]
    Application(String),
    /// A document has keys in exactly one form.
    #[error("in a document a key is an OpenSSH line without a comment")]
    NotCanonical,
    /// Whether it is in the right hands is not asked when it signs.
    #[error("a host's key cannot be one that wants a touch")]
    HostKeyWantsTouch,
}

impl PublicKey {
    /// The key in `text`, in one of the two forms.
    pub fn read(text: &str) -> Result<Self, KeyRefused> {
        let text = text.trim();
        let read = if let Some(label) = text.strip_prefix("-----BEGIN ") {
            spki::read_pem(label)
        } else {
            read_line(text)
        };
        read.map_err(KeyRefused)
    }

    /// The key of a DER `SubjectPublicKeyInfo`, as it stands in a TLS certificate.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyRefused> {
        spki::read_der(der).map_err(KeyRefused)
    }

    /// The key of a host.
    pub fn of_host(key: &HostKey) -> Result<Self, KeyRefused> {
        let read = Self::try_from(key.as_str().to_owned())?;
        match read.key_type() {
            KeyType::Ed25519 | KeyType::P256 => Ok(read),
            KeyType::SkEd25519 | KeyType::SkP256 => Err(KeyRefused(KeyFault::HostKeyWantsTouch)),
        }
    }

    /// The key as a DER `SubjectPublicKeyInfo`; `None` for keys in tokens, which have no such form.
    pub fn spki(&self) -> Option<Vec<u8>> {
        match &self.0 {
            Kind::Ed25519(point) => Some(spki::ed25519_der(point)),
            Kind::P256(point) => Some(spki::p256_der(point)),
            Kind::SkEd25519 { .. } | Kind::SkP256 { .. } => None,
        }
    }

    /// What kind of key it is.
    pub fn key_type(&self) -> KeyType {
        match &self.0 {
            Kind::Ed25519(_) => KeyType::Ed25519,
            Kind::P256(_) => KeyType::P256,
            Kind::SkEd25519 { .. } => KeyType::SkEd25519,
            Kind::SkP256 { .. } => KeyType::SkP256,
        }
    }

    /// The fingerprint that `ssh-keygen -l` prints.
    pub fn id(&self) -> KeyId {
        let hash = digest::digest(&digest::SHA256, &self.blob());
        KeyId(format!("{KEY_ID_PREFIX}{}", BASE64_NOPAD.encode(hash.as_ref())))
    }

    /// The key in OpenSSH's binary form.
    pub fn blob(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(140);
        put_string(&mut out, self.key_type().ssh_name().as_bytes());
        match &self.0 {
            Kind::Ed25519(point) => put_string(&mut out, point),
            Kind::P256(point) => {
                put_string(&mut out, CURVE);
                put_string(&mut out, point);
            }
            Kind::SkEd25519 { point, application } => {
                put_string(&mut out, point);
                put_string(&mut out, application.as_bytes());
            }
            Kind::SkP256 { point, application } => {
                put_string(&mut out, CURVE);
                put_string(&mut out, point);
                put_string(&mut out, application.as_bytes());
            }
        }
        out
    }

    /// The key in OpenSSH's binary form, read.
    pub fn from_blob(blob: &[u8]) -> Result<Self, KeyRefused> {
        read_blob(blob).map_err(KeyRefused)
    }

    /// The point alone: two keys with the same one have the same private key, whatever they are called.
    pub(crate) fn point(&self) -> &[u8] {
        match &self.0 {
            Kind::Ed25519(point) | Kind::SkEd25519 { point, .. } => point,
            Kind::P256(point) | Kind::SkP256 { point, .. } => point,
        }
    }
}

const CURVE: &[u8] = b"nistp256";

fn read_line(text: &str) -> Result<PublicKey, KeyFault> {
    let mut words = text.split_ascii_whitespace();
    let (name, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if KeyType::from_ssh_name(name).is_none() {
        return Err(other_form(text, name, base64));
    }
    let blob = BASE64.decode(base64.as_bytes()).map_err(|_| KeyFault::NotBase64)?;
    let key = read_blob(&blob)?;
    let found = key.key_type().ssh_name();
    if found == name {
        Ok(key)
    } else {
        Err(KeyFault::TwoTypes { line: name.to_owned(), key: found.to_owned() })
    }
}

/// What `text` is, since it is not an OpenSSH line of a known type.
fn other_form(text: &str, name: &str, base64: &str) -> KeyFault {
    let one_line = !text.contains('\n');
    if name.contains("-cert-v01@") {
        KeyFault::Certificate
    } else if ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| name.starts_with(prefix)) {
        KeyFault::OtherType(printable(name))
    } else if name.starts_with("AGE-SECRET-KEY-") {
        KeyFault::PrivateKey
    } else if one_line && base64.is_empty() && is_nix_key(name) {
        KeyFault::NixCacheKey
    } else {
        KeyFault::UnknownForm
    }
}

/// `name-1:` and the base64 of 32 or 64 bytes.
fn is_nix_key(text: &str) -> bool {
    let Some((_, base64)) = text.rsplit_once(':') else { return false };
    BASE64.decode(base64.as_bytes()).is_ok_and(|bytes| matches!(bytes.len(), 32 | 64))
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

fn read_blob(blob: &[u8]) -> Result<PublicKey, KeyFault> {
    let mut reader = Reader::new(blob);
    let name = reader.text().map_err(KeyFault::Wire)?;
    let kind = KeyType::from_ssh_name(name).ok_or_else(|| KeyFault::OtherType(printable(name)))?;
    let read = match kind {
        KeyType::Ed25519 => Kind::Ed25519(ed25519_point(reader.string().map_err(KeyFault::Wire)?)?),
        KeyType::P256 => Kind::P256(p256_field(&mut reader)?),
        KeyType::SkEd25519 => {
            let point = ed25519_point(reader.string().map_err(KeyFault::Wire)?)?;
            Kind::SkEd25519 { point, application: application(&mut reader)? }
        }
        KeyType::SkP256 => {
            let point = p256_field(&mut reader)?;
            Kind::SkP256 { point, application: application(&mut reader)? }
        }
    };
    reader.end().map_err(KeyFault::Wire)?;
    Ok(PublicKey(read))
}

fn p256_field(reader: &mut Reader<'_>) -> Result<[u8; 65], KeyFault> {
    let curve = reader.string().map_err(KeyFault::Wire)?;
    if curve != CURVE {
        return Err(KeyFault::OtherType(printable(&String::from_utf8_lossy(curve))));
    }
    p256_point(reader.string().map_err(KeyFault::Wire)?)
}

fn application(reader: &mut Reader<'_>) -> Result<String, KeyFault> {
    let text = reader.text().map_err(KeyFault::Wire)?;
    if text.starts_with("ssh:") { Ok(text.to_owned()) } else { Err(KeyFault::Application(printable(text))) }
}

/// The point, if it is one of the curve in its uncompressed encoding.
pub(crate) fn p256_point(bytes: &[u8]) -> Result<[u8; 65], KeyFault> {
    let point: [u8; 65] = bytes.try_into().map_err(|_| KeyFault::PointLength(bytes.len()))?;
    if point[0] != 4 {
        return Err(KeyFault::NotAPoint);
    }
    match aws::ParsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, point) {
        Ok(_) => Ok(point),
        Err(_) => Err(KeyFault::NotAPoint),
    }
}

/// The y coordinates of the points of small order, without the sign bit. Their list is public knowledge; the test
/// `anybody_can_sign_for_a_weak_point` shows that each belongs here.
const ED25519_WEAK: [[u8; 32]; 5] = [
    [0; 32],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// The point, unless its y is not below the field's prime 2^255 - 19, or it is weak.
pub(crate) fn ed25519_point(bytes: &[u8]) -> Result<[u8; 32], KeyFault> {
    let point: [u8; 32] = bytes.try_into().map_err(|_| KeyFault::PointLength(bytes.len()))?;
    let mut y = point;
    y[31] &= 0x7f;
    if y[31] == 0x7f && y[1..31].iter().all(|&byte| byte == 0xff) && y[0] >= 0xed {
        return Err(KeyFault::NotAPoint);
    }
    if ED25519_WEAK.contains(&y) { Err(KeyFault::WeakPoint) } else { Ok(point) }
}

impl fmt::Display for PublicKey {
    /// The OpenSSH line without a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key_type().ssh_name(), BASE64.encode(&self.blob()))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyRefused;
    /// Only the form that `Display` writes: a document has one form for a key.
    fn try_from(text: String) -> Result<Self, KeyRefused> {
        let key = Self::read(&text)?;
        if key.to_string() == text { Ok(key) } else { Err(KeyRefused(KeyFault::NotCanonical)) }
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<PublicKey> for HostKey {
    type Error = KeyRefused;
    fn try_from(key: PublicKey) -> Result<Self, KeyRefused> {
        key.to_string().parse().map_err(|_| KeyRefused(KeyFault::HostKeyWantsTouch))
    }
}

/// The fingerprint of a key: `SHA256:` and 43 characters of base64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

const KEY_ID_PREFIX: &str = "SHA256:";

/// Why a text is not the fingerprint of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a key's fingerprint: it is `SHA256:` and 43 characters, as `ssh-keygen -l` prints it")]
pub struct NotAKeyId(String);

impl KeyId {
    /// The fingerprint as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = NotAKeyId;
    fn from_str(text: &str) -> Result<Self, NotAKeyId> {
        let hash =
            text.strip_prefix(KEY_ID_PREFIX).and_then(|rest| BASE64_NOPAD.decode(rest.as_bytes()).ok());
        match hash {
            Some(hash) if hash.len() == 32 => Ok(Self(text.to_owned())),
            Some(_) | None => Err(NotAKeyId(printable(text))),
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for KeyId {
    type Error = NotAKeyId;
    fn try_from(text: String) -> Result<Self, NotAKeyId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests;
