//! Private keys in memory, from the text of a key file.
//!
//! Written is one form, an OpenSSH private key without a passphrase, which `ssh-keygen` and `ssh-add` take too. Read are
//! that one and PKCS#8 PEM (`BEGIN PRIVATE KEY`), as openssl writes it. A key with a passphrase belongs into an
//! `ssh-agent`, and a key in a token stays there; both can sign all the same (see [`super::agent`]).

use std::fmt;

use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::{SignFailed, Signer};
use crate::key::{KeyType, Kind, PublicKey, ed25519_point, p256_point};
use crate::signature::Signature;
use crate::wire::{Reader, WireError, put_string};

/// What is read, in words; every refusal ends with it.
pub const PRIVATE_KEY_FORMS: &str = "taken are: an OpenSSH private key without a passphrase, or PKCS#8 PEM that \
     begins with `-----BEGIN PRIVATE KEY-----`; either with an Ed25519 or P-256 key";

const OPENSSH_BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const OPENSSH_END: &str = "-----END OPENSSH PRIVATE KEY-----";
const PKCS8_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PKCS8_END: &str = "-----END PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// The block that OpenSSH pads the private part to when it is not encrypted.
const BLOCK: usize = 8;

/// A private key. It does not show itself, and what it was read from is wiped.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.id())
    }
}

/// Why a text is not a private key that is taken here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; {PRIVATE_KEY_FORMS}")]
pub struct PrivateKeyRefused(pub PrivateKeyFault);

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyFault {
    /// It has a passphrase.
    #[error("this key has a passphrase: load it into ssh-agent with `ssh-add` and sign through that")]
    Encrypted,
    /// It is only a reference to a token.
    #[error(
        "this key stays in its token: load it into ssh-agent with `ssh-add`, or use `ssh-keygen -Y sign`"
    )]
    InToken,
    /// It is the other half.
    #[error("this is a public key")]
    PublicKey,
    /// A form that openssl can turn into one that is read.
    #[error("this key is in an old form of openssl's: `openssl pkcs8 -topk8 -nocrypt` makes another of it")]
    OldPem,
    /// Nothing that is known.
    #[error("this is not a private key in a form that is known here")]
    UnknownForm,
    /// A key of a kind that is not taken.
    #[error("this is a key of type `{0}`")]
    OtherType(String),
    /// More keys than one in a file.
    #[error("there are {0} keys in it, and one is wanted")]
    ManyKeys(u32),
    /// The base64 is damaged.
    #[error("the key's base64 is damaged")]
    NotBase64,
    /// The fields are damaged.
    #[error("the key is damaged: {0}")]
    Wire(WireError),
    /// Its parts do not fit together.
    #[error("the key is damaged: its parts do not belong together")]
    Inconsistent,
}

/// Randomness could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no randomness")]
pub struct NoRandomness;

impl PrivateKey {
    /// A new Ed25519 key.
    pub fn generate() -> Result<Self, NoRandomness> {
        Ed25519KeyPair::generate().map(Self::ed25519).map_err(|_| NoRandomness)
    }

    /// A new P-256 key, for signers that do not take Ed25519.
    pub fn generate_p256() -> Result<Self, NoRandomness> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Self::p256).map_err(|_| NoRandomness)
    }

    /// The key in the text of a key file.
    pub fn read(text: &str) -> Result<Self, PrivateKeyRefused> {
        let text = text.trim();
        let read = if let Some(body) = text.strip_prefix(OPENSSH_BEGIN) {
            decode(body, OPENSSH_END).and_then(|bytes| read_openssh(&bytes))
        } else if let Some(body) = text.strip_prefix(PKCS8_BEGIN) {
            decode(body, PKCS8_END).and_then(|bytes| read_pkcs8(&bytes))
        } else {
            Err(other_form(text))
        };
        read.map_err(PrivateKeyRefused)
    }

    /// The text of a key file: an OpenSSH private key without a passphrase, to be kept with mode 0600.
    pub fn to_openssh(&self, comment: &str) -> Result<Zeroizing<String>, NoRandomness> {
        let mut check = [0; 4];
        fill(&mut check).map_err(|_| NoRandomness)?;
        let private = self.private_part(check, comment).ok_or(NoRandomness)?;
        let mut out = Zeroizing::new(MAGIC.to_vec());
        put_string(&mut out, b"none");
        put_string(&mut out, b"none");
        put_string(&mut out, b"");
        out.extend_from_slice(&1u32.to_be_bytes());
        put_string(&mut out, &self.public.blob());
        put_string(&mut out, &private);
        let base64 = Zeroizing::new(BASE64.encode(&out));
        let mut text = Zeroizing::new(String::with_capacity(base64.len() + 100));
        text.push_str(OPENSSH_BEGIN);
        for line in base64.as_bytes().chunks(70) {
            text.push('\n');
            text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        }
        text.push('\n');
        text.push_str(OPENSSH_END);
        text.push('\n');
        Ok(text)
    }

    /// The key as PKCS#8 DER, for TLS.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, NoRandomness> {
        let der = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Pair::P256(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
        };
        der.map(Zeroizing::new).map_err(|_| NoRandomness)
    }

    /// `None` if the library does not give the private half away.
    fn private_part(&self, check: [u8; 4], comment: &str) -> Option<Zeroizing<Vec<u8>>> {
        // Room for all, so that no copy is left behind when it grows.
        let mut out = Zeroizing::new(Vec::with_capacity(400 + comment.len()));
        out.extend_from_slice(&check);
        out.extend_from_slice(&check);
        put_string(&mut out, self.public.key_type().ssh_name().as_bytes());
        match &self.pair {
            Pair::Ed25519(pair) => {
                let seed = pair.seed().ok()?.as_be_bytes().ok()?;
                put_string(&mut out, self.public.point());
                let both = Zeroizing::new([seed.as_ref(), self.public.point()].concat());
                put_string(&mut out, &both);
            }
            Pair::P256(pair) => {
                let number = pair.private_key().as_be_bytes().ok()?;
                put_string(&mut out, b"nistp256");
                put_string(&mut out, self.public.point());
                put_mpint(&mut out, number.as_ref());
            }
        }
        put_string(&mut out, comment.as_bytes());
        for pad in 1.. {
            if out.len().is_multiple_of(BLOCK) {
                break;
            }
            out.push(pad);
        }
        Some(out)
    }

    fn ed25519(pair: Ed25519KeyPair) -> Self {
        let point = pair.public_key().as_ref().try_into().expect("an Ed25519 point has 32 bytes");
        Self { public: PublicKey(Kind::Ed25519(point)), pair: Pair::Ed25519(pair) }
    }

    fn p256(pair: EcdsaKeyPair) -> Self {
        let point = pair.public_key().as_ref().try_into().expect("a P-256 point has 65 bytes");
        Self { public: PublicKey(Kind::P256(point)), pair: Pair::P256(pair) }
    }
}

impl Signer for PrivateKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignFailed> {
        let failed = |cause| SignFailed { signer: format!("the key {}", self.public.id()), cause };
        let made = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(message),
            Pair::P256(pair) => {
                pair.sign(&SystemRandom::new(), message).map_err(|_| failed(Box::new(NoRandomness)))?
            }
        };
        Signature::read(made.as_ref(), &self.public).map_err(|fault| failed(Box::new(fault)))
    }
}

fn decode(body: &str, end: &str) -> Result<Zeroizing<Vec<u8>>, PrivateKeyFault> {
    let body = body.strip_suffix(end).ok_or(PrivateKeyFault::NotBase64)?;
    let mut base64 = Zeroizing::new(Vec::with_capacity(body.len()));
    base64.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    BASE64.decode(&base64).map(Zeroizing::new).map_err(|_| PrivateKeyFault::NotBase64)
}

fn other_form(text: &str) -> PrivateKeyFault {
    if text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        PrivateKeyFault::Encrypted
    } else if PublicKey::read(text).is_ok() {
        PrivateKeyFault::PublicKey
    } else if text.starts_with("-----BEGIN ") && text.contains(" PRIVATE KEY-----") {
        PrivateKeyFault::OldPem
    } else {
        PrivateKeyFault::UnknownForm
    }
}

fn read_pkcs8(der: &[u8]) -> Result<PrivateKey, PrivateKeyFault> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
        Ok(PrivateKey::ed25519(pair))
    } else if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
        Ok(PrivateKey::p256(pair))
    } else {
        Err(PrivateKeyFault::OtherType("neither Ed25519 nor P-256".to_owned()))
    }
}

fn read_openssh(bytes: &[u8]) -> Result<PrivateKey, PrivateKeyFault> {
    let wire = PrivateKeyFault::Wire;
    let mut outer = Reader::new(bytes.strip_prefix(MAGIC).ok_or(PrivateKeyFault::UnknownForm)?);
    let (cipher, kdf) = (outer.text().map_err(wire)?, outer.text().map_err(wire)?);
    let _options = outer.string().map_err(wire)?;
    let count = outer.u32().map_err(wire)?;
    let public = outer.string().map_err(wire)?;
    let private = outer.string().map_err(wire)?;
    outer.end().map_err(wire)?;
    if cipher != "none" || kdf != "none" {
        return Err(PrivateKeyFault::Encrypted);
    }
    if count != 1 {
        return Err(PrivateKeyFault::ManyKeys(count));
    }
    let key = read_private_part(private)?;
    if key.public.blob() == public { Ok(key) } else { Err(PrivateKeyFault::Inconsistent) }
}

fn read_private_part(bytes: &[u8]) -> Result<PrivateKey, PrivateKeyFault> {
    let wire = PrivateKeyFault::Wire;
    let mut reader = Reader::new(bytes);
    if reader.u32().map_err(wire)? != reader.u32().map_err(wire)? {
        return Err(PrivateKeyFault::Inconsistent);
    }
    let name = reader.text().map_err(wire)?;
    let key = match KeyType::from_ssh_name(name) {
        Some(KeyType::Ed25519) => {
            let (point, both) = (reader.string().map_err(wire)?, reader.string().map_err(wire)?);
            read_ed25519(point, both)?
        }
        Some(KeyType::P256) => {
            let _curve = reader.string().map_err(wire)?;
            let (point, number) = (reader.string().map_err(wire)?, reader.string().map_err(wire)?);
            read_p256(point, number)?
        }
        Some(KeyType::SkEd25519 | KeyType::SkP256) => return Err(PrivateKeyFault::InToken),
        None => return Err(PrivateKeyFault::OtherType(name.chars().take(60).collect())),
    };
    let _comment = reader.string().map_err(wire)?;
    for pad in 1u8..=u8::try_from(BLOCK).expect("8 is small") {
        match reader.byte() {
            Ok(found) if found == pad => {}
            Ok(_) => return Err(PrivateKeyFault::Inconsistent),
            Err(_) => break,
        }
    }
    reader.end().map_err(wire)?;
    Ok(key)
}

fn read_ed25519(point: &[u8], both: &[u8]) -> Result<PrivateKey, PrivateKeyFault> {
    let refused = PrivateKeyFault::Inconsistent;
    ed25519_point(point).map_err(|_| refused.clone())?;
    let (seed, again) = both.split_at_checked(32).ok_or(refused.clone())?;
    if point != again {
        return Err(refused);
    }
    Ed25519KeyPair::from_seed_and_public_key(seed, point).map(PrivateKey::ed25519).map_err(|_| refused)
}

fn read_p256(point: &[u8], number: &[u8]) -> Result<PrivateKey, PrivateKeyFault> {
    let refused = PrivateKeyFault::Inconsistent;
    p256_point(point).map_err(|_| refused.clone())?;
    let digits = number.strip_prefix(&[0]).unwrap_or(number);
    let mut fixed = Zeroizing::new([0; 32]);
    let start = fixed.len().checked_sub(digits.len()).ok_or(refused.clone())?;
    fixed[start..].copy_from_slice(digits);
    EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &*fixed, point)
        .map(PrivateKey::p256)
        .map_err(|_| refused)
}

/// A number of 32 bytes in its shortest encoding.
fn put_mpint(out: &mut Vec<u8>, number: &[u8]) {
    let start = number.iter().position(|&digit| digit != 0).unwrap_or(number.len());
    let digits = &number[start..];
    let padded = digits.first().is_some_and(|&first| first >= 0x80);
    let length = digits.len() + usize::from(padded);
    out.extend_from_slice(&u32::try_from(length).expect("at most 33").to_be_bytes());
    if padded {
        out.push(0);
    }
    out.extend_from_slice(digits);
}
