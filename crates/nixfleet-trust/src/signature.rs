//! Signatures: their two forms in documents, the forms in which signers hand them over, and verification.
//!
//! In a document a signature is either *raw* (64 bytes: Ed25519's own, or P-256's r and s) or an *OpenSSH signature*
//! (`ssh-keygen -Y sign -n nixfleet`, the bytes without the armour), which is the only form for keys in tokens. Both
//! are over the same message, the envelope's pre-authentication encoding.

mod ecdsa;
pub(crate) mod ssh;

use aws_lc_rs::signature::{self as aws, VerificationAlgorithm};

use crate::key::{KeyFault, Kind, PublicKey};
use crate::wire::WireError;

pub use ssh::NAMESPACE;

/// The longest signature that is read. An OpenSSH signature by a token with a long application name has about 400
/// bytes.
pub const SIGNATURE_LEN_MAX: usize = 1024;

/// A signature in one of the two forms of documents; whether it is any good is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(Form);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    Raw([u8; 64]),
    Ssh(Vec<u8>),
}

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// It is in no form that is taken.
    #[error("it is neither a raw signature of 64 bytes, nor ECDSA's DER, nor an OpenSSH signature")]
    UnknownForm,
    /// It is longer than any signature.
    #[error("it is {0} bytes long, and no signature is longer than {SIGNATURE_LEN_MAX}")]
    TooLong(usize),
    /// The base64 of the armour is damaged.
    #[error("its armour is damaged")]
    Armour,
    /// The fields of an OpenSSH signature are damaged.
    #[error("it is a damaged OpenSSH signature: {0}")]
    Wire(WireError),
    /// A version of OpenSSH's format that is not known.
    #[error("it is an OpenSSH signature of version {0}, and version 1 is known")]
    Version(u32),
    /// A signature for another purpose.
    #[error(
        "it was made for the namespace `{0}`, and `{NAMESPACE}` is wanted: use `ssh-keygen -Y sign -n {NAMESPACE}`"
    )]
    OtherNamespace(String),
    /// A hash that is not taken.
    #[error("it uses the hash `{0}`, and sha256 or sha512 is wanted")]
    OtherHash(String),
    /// It names a key that is not taken.
    #[error("it was made with a key that is not taken: {0}")]
    Key(KeyFault),
    /// It names another key than the one it should be by.
    #[error("it was made with another key")]
    OtherKey,
    /// Its algorithm is not the key's.
    #[error("its algorithm `{0}` is not the key's")]
    OtherAlgorithm(String),
    /// ECDSA's numbers are damaged.
    #[error("its numbers are not in the one encoding that they have")]
    Numbers,
    /// A token's key made a raw signature.
    #[error("a key in a token makes OpenSSH signatures only")]
    RawByToken,
    /// Nobody touched the token.
    #[error("nobody touched the token, which is demanded of keys in tokens")]
    NoTouch,
    /// The arithmetic says no: other bytes, or another key.
    #[error("it does not fit the bytes and the key")]
    DoesNotVerify,
}

impl Signature {
    /// Reads what a signer hands over for `key`: raw, DER (for P-256), or OpenSSH's with or without armour.
    pub fn read(bytes: &[u8], key: &PublicKey) -> Result<Self, SignatureFault> {
        if bytes.len() > 2 * SIGNATURE_LEN_MAX {
            return Err(SignatureFault::TooLong(bytes.len()));
        }
        if let Some(blob) = ssh::without_armour(bytes)? {
            return Self::from_document(&blob);
        }
        match &key.0 {
            // DER may by chance have 64 bytes too, so it is tried first; as two numbers it would be refused anyway.
            Kind::P256(_) => match ecdsa::from_der(bytes) {
                Some(raw) => Ok(Self(Form::Raw(raw))),
                None => Self::from_document(bytes),
            },
            Kind::Ed25519(_) | Kind::SkEd25519 { .. } | Kind::SkP256 { .. } => Self::from_document(bytes),
        }
    }

    /// The key that an OpenSSH signature, with or without armour, says it was made with; `None` if it is another kind of
    /// signature. Whether it is true is for [`Signature::verify`] to say.
    pub fn claimed_key(bytes: &[u8]) -> Result<Option<PublicKey>, SignatureFault> {
        let blob = ssh::without_armour(bytes)?.unwrap_or_else(|| bytes.to_owned());
        if !ssh::is_one(&blob) {
            return Ok(None);
        }
        let key = ssh::claimed_key(&blob)?;
        PublicKey::from_blob(key).map(Some).map_err(|refused| SignatureFault::Key(refused.0))
    }

    /// Reads one of the two forms of documents.
    pub(crate) fn from_document(bytes: &[u8]) -> Result<Self, SignatureFault> {
        if bytes.len() > SIGNATURE_LEN_MAX {
            Err(SignatureFault::TooLong(bytes.len()))
        } else if ssh::is_one(bytes) {
            Ok(Self(Form::Ssh(bytes.to_owned())))
        } else if let Ok(raw) = bytes.try_into() {
            Ok(Self(Form::Raw(raw)))
        } else {
            Err(SignatureFault::UnknownForm)
        }
    }

    /// The bytes as they stand in a document.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Raw(raw) => raw,
            Form::Ssh(blob) => blob,
        }
    }

    /// Checks that `key` made this signature over `message`.
    pub fn verify(&self, key: &PublicKey, message: &[u8]) -> Result<(), SignatureFault> {
        match (&self.0, &key.0) {
            (Form::Raw(raw), Kind::Ed25519(point)) => primitive(&aws::ED25519, point, message, raw),
            (Form::Raw(raw), Kind::P256(point)) => {
                primitive(&aws::ECDSA_P256_SHA256_FIXED, point, message, raw)
            }
            (Form::Raw(_), Kind::SkEd25519 { .. } | Kind::SkP256 { .. }) => Err(SignatureFault::RawByToken),
            (Form::Ssh(blob), _) => ssh::verify(blob, key, message),
        }
    }
}

/// The primitive itself. ECDSA's s may be in either half (lesson 22): nothing here depends on a signature having one
/// form, since thresholds count keys and digests are over the signed bytes alone.
fn primitive(
    algorithm: &'static dyn VerificationAlgorithm,
    point: &[u8],
    message: &[u8],
    raw: &[u8],
) -> Result<(), SignatureFault> {
    algorithm.verify_sig(point, message, raw).map_err(|_| SignatureFault::DoesNotVerify)
}

#[cfg(test)]
mod tests;
