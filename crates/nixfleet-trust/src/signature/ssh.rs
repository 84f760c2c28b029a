//! OpenSSH signatures, as `PROTOCOL.sshsig` and `PROTOCOL.u2f` of OpenSSH describe them.

use aws_lc_rs::{digest, signature as aws};
use data_encoding::BASE64;

use super::{SignatureFault as Fault, ecdsa, primitive};
use crate::key::{KeyType, Kind, PublicKey};
use crate::wire::{Reader, put_string};

/// What the signatures are for: an OpenSSH signature that a person made for git or a file does not count here.
pub const NAMESPACE: &str = "nixfleet";

const MAGIC: &[u8; 6] = b"SSHSIG";
const VERSION: u32 = 1;
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// The flag of a token's signature that says that somebody touched it.
const USER_PRESENT: u8 = 1;

pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The bytes inside the armour; `None` if there is no armour.
pub(super) fn without_armour(bytes: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let Some(text) = std::str::from_utf8(bytes).ok().map(str::trim) else { return Ok(None) };
    let Some(rest) = text.strip_prefix(BEGIN) else { return Ok(None) };
    let body = rest.strip_suffix(END).ok_or(Fault::Armour)?;
    let base64: String = body.split_ascii_whitespace().collect();
    BASE64.decode(base64.as_bytes()).map(Some).map_err(|_| Fault::Armour)
}

/// The fields of an OpenSSH signature.
struct Fields<'a> {
    key: &'a [u8],
    namespace: &'a str,
    reserved: &'a [u8],
    hash: &'a str,
    signature: &'a [u8],
}

fn fields(blob: &[u8]) -> Result<Fields<'_>, Fault> {
    let mut reader = Reader::new(blob);
    reader.take(MAGIC.len()).map_err(Fault::Wire)?;
    let version = reader.u32().map_err(Fault::Wire)?;
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    let fields = Fields {
        key: reader.string().map_err(Fault::Wire)?,
        namespace: reader.text().map_err(Fault::Wire)?,
        reserved: reader.string().map_err(Fault::Wire)?,
        hash: reader.text().map_err(Fault::Wire)?,
        signature: reader.string().map_err(Fault::Wire)?,
    };
    reader.end().map_err(Fault::Wire)?;
    Ok(fields)
}

pub(super) fn claimed_key(blob: &[u8]) -> Result<&[u8], Fault> {
    Ok(fields(blob)?.key)
}

/// The whole signature around `signature`, which `key` made over [`signed_bytes`] without reserved ones.
#[cfg(feature = "sign")]
pub(crate) fn wrap(key: &PublicKey, hash: Hash, signature: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_be_bytes());
    put_string(&mut out, &key.blob());
    put_string(&mut out, NAMESPACE.as_bytes());
    put_string(&mut out, b"");
    put_string(&mut out, hash.name().as_bytes());
    put_string(&mut out, signature);
    out
}

pub(super) fn verify(blob: &[u8], key: &PublicKey, message: &[u8]) -> Result<(), Fault> {
    let fields = fields(blob)?;
    if fields.namespace != NAMESPACE {
        return Err(Fault::OtherNamespace(fields.namespace.chars().take(60).collect()));
    }
    if fields.key != key.blob() {
        return Err(Fault::OtherKey);
    }
    let hash = Hash::from_name(fields.hash)
        .ok_or_else(|| Fault::OtherHash(fields.hash.chars().take(60).collect()))?;
    let signed = signed_bytes(fields.reserved, hash, message);
    verify_inner(fields.signature, key, &signed)
}

/// The hashes that may be used over the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn from_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|hash| hash.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn of(self, message: &[u8]) -> digest::Digest {
        match self {
            Self::Sha256 => digest::digest(&digest::SHA256, message),
            Self::Sha512 => digest::digest(&digest::SHA512, message),
        }
    }
}

/// What the key really signs: never the message alone, so that no other protocol can be made to produce it.
pub(crate) fn signed_bytes(reserved: &[u8], hash: Hash, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(120);
    out.extend_from_slice(MAGIC);
    put_string(&mut out, NAMESPACE.as_bytes());
    put_string(&mut out, reserved);
    put_string(&mut out, hash.name().as_bytes());
    put_string(&mut out, hash.of(message).as_ref());
    out
}

/// `algorithm`, its bytes, and for tokens the flags and the counter.
fn verify_inner(signature: &[u8], key: &PublicKey, signed: &[u8]) -> Result<(), Fault> {
    let mut reader = Reader::new(signature);
    let algorithm = reader.text().map_err(Fault::Wire)?;
    if algorithm != key.key_type().ssh_name() {
        return Err(Fault::OtherAlgorithm(algorithm.chars().take(60).collect()));
    }
    let bytes = reader.string().map_err(Fault::Wire)?;
    let token = match key.key_type() {
        KeyType::Ed25519 | KeyType::P256 => None,
        KeyType::SkEd25519 | KeyType::SkP256 => {
            Some((reader.byte().map_err(Fault::Wire)?, reader.take(4).map_err(Fault::Wire)?))
        }
    };
    reader.end().map_err(Fault::Wire)?;
    match (&key.0, token) {
        (Kind::SkEd25519 { application, .. } | Kind::SkP256 { application, .. }, Some((flags, counter))) => {
            if flags & USER_PRESENT == 0 {
                return Err(Fault::NoTouch);
            }
            verify_bytes(bytes, key, &token_bytes(application, flags, counter, signed))
        }
        (_, _) => verify_bytes(bytes, key, signed),
    }
}

/// What a token signs, in the place of `signed`.
pub(crate) fn token_bytes(application: &str, flags: u8, counter: &[u8], signed: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(69);
    out.extend_from_slice(digest::digest(&digest::SHA256, application.as_bytes()).as_ref());
    out.push(flags);
    out.extend_from_slice(counter);
    out.extend_from_slice(digest::digest(&digest::SHA256, signed).as_ref());
    out
}

fn verify_bytes(bytes: &[u8], key: &PublicKey, signed: &[u8]) -> Result<(), Fault> {
    match &key.0 {
        Kind::Ed25519(point) | Kind::SkEd25519 { point, .. } => {
            primitive(&aws::ED25519, point, signed, bytes)
        }
        Kind::P256(point) | Kind::SkP256 { point, .. } => {
            let mut numbers = Reader::new(bytes);
            let r = numbers.string().map_err(Fault::Wire)?;
            let s = numbers.string().map_err(Fault::Wire)?;
            numbers.end().map_err(Fault::Wire)?;
            let raw = ecdsa::both(r, s).ok_or(Fault::Numbers)?;
            primitive(&aws::ECDSA_P256_SHA256_FIXED, point, signed, &raw)
        }
    }
}
