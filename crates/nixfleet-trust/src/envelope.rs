//! Envelopes: a payload's exact bytes, and what vouches for them.
//!
//! A root or release is a DSSE envelope: what is signed is the *pre-authentication encoding* of the payload's type and
//! bytes, so no canonical JSON is needed, and a signature for one type of document is none for another. An entry is
//! the same with a Merkle proof in the place of signatures; its leaf is over the same encoding.
//!
//! An envelope has exactly one form on disk, the one that `to_bytes` writes, and reading refuses every other. So a
//! payload with its signatures has one file, whoever collected them and in which order.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use data_encoding::BASE64;
use nixfleet_core::model::names::Sha256;
use serde::{Deserialize, Serialize};

use crate::attack::Attack;
use crate::json::{self, JsonError};
use crate::key::{KeyId, PublicKey};
use crate::merkle::{Hash, PROOF_DEPTH_MAX, Proof};
use crate::signature::{Signature, SignatureFault};

/// The largest envelope that is looked at, in bytes, whatever is in it. A release has about 1.5 KB and a root with ten
/// keys about 3 KB; whoever fetches one stops here (endless data).
pub const ENVELOPE_SIZE_MAX: usize = 64 * 1024;

/// The most signatures that are looked at: each costs some 0.1 ms.
pub const SIGNATURES_MAX: usize = 32;

/// What kind of document a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PayloadType {
    /// A root.
    #[serde(rename = "application/vnd.nixfleet.root.v1+json")]
    Root,
    /// A release.
    #[serde(rename = "application/vnd.nixfleet.release.v1+json")]
    Release,
    /// An entry.
    #[serde(rename = "application/vnd.nixfleet.entry.v1+json")]
    Entry,
}

impl PayloadType {
    /// The media type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "application/vnd.nixfleet.root.v1+json",
            Self::Release => "application/vnd.nixfleet.release.v1+json",
            Self::Entry => "application/vnd.nixfleet.entry.v1+json",
        }
    }
}

/// Why bytes are not an envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeFault {
    /// They are too many.
    #[error("it has {size} bytes, and {ENVELOPE_SIZE_MAX} are allowed")]
    TooLarge {
        /// How many.
        size: usize,
    },
    /// They are not the JSON of an envelope.
    #[error("it is not an envelope")]
    Json(#[source] JsonError),
    /// It is another kind of document.
    #[error("it is of type `{}`, and `{}` is wanted", .found.as_str(), .wanted.as_str())]
    OtherType {
        /// What it says.
        found: PayloadType,
        /// What was asked for.
        wanted: PayloadType,
    },
    /// The payload's base64 is damaged.
    #[error("its payload is not base64")]
    PayloadNotBase64,
    /// A signature is in no form of documents.
    #[error("its signature by {key}: {fault}")]
    Signature {
        /// By whom it claims to be.
        key: KeyId,
        /// What is wrong.
        fault: SignatureFault,
    },
    /// There are too many signatures.
    #[error("it has {0} signatures, and {SIGNATURES_MAX} are allowed")]
    TooManySignatures(usize),
    /// One key stands twice.
    #[error("it has two signatures by {0}")]
    KeyTwice(KeyId),
    /// The proof is damaged or too long.
    #[error("its proof is not base64 of at most {PROOF_DEPTH_MAX} hashes")]
    Proof,
    /// It says what an envelope says, in other bytes.
    #[error(
        "it is not in the one form that envelopes have: compact, with the signatures in the order of their keys"
    )]
    OtherForm,
}

/// A document with its signatures; nothing is known about their worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: PayloadType,
    payload: Vec<u8>,
    signatures: BTreeMap<KeyId, Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeJson {
    #[serde(rename = "payloadType")]
    payload_type: PayloadType,
    payload: String,
    signatures: Vec<SignatureJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureJson {
    keyid: KeyId,
    sig: String,
}

impl Envelope {
    /// An envelope without signatures.
    pub(crate) fn unsigned(payload_type: PayloadType, payload: Vec<u8>) -> Self {
        Self { payload_type, payload, signatures: BTreeMap::new() }
    }

    /// Reads an envelope around a document of type `wanted`.
    pub fn read(bytes: &[u8], wanted: PayloadType) -> Result<Self, EnvelopeFault> {
        let json: EnvelopeJson = read_json(bytes)?;
        if json.payload_type != wanted {
            return Err(EnvelopeFault::OtherType { found: json.payload_type, wanted });
        }
        if json.signatures.len() > SIGNATURES_MAX {
            return Err(EnvelopeFault::TooManySignatures(json.signatures.len()));
        }
        let mut envelope = Self::unsigned(wanted, payload(&json.payload)?);
        for SignatureJson { keyid, sig } in json.signatures {
            let signature =
                signature(&sig).map_err(|fault| EnvelopeFault::Signature { key: keyid.clone(), fault })?;
            if envelope.signatures.insert(keyid.clone(), signature).is_some() {
                return Err(EnvelopeFault::KeyTwice(keyid));
            }
        }
        if envelope.to_bytes() == bytes { Ok(envelope) } else { Err(EnvelopeFault::OtherForm) }
    }

    /// The envelope's one form on disk, ending with a newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { payload_type, payload, signatures } = self;
        let signatures = signatures
            .iter()
            .map(|(keyid, signature)| SignatureJson {
                keyid: keyid.clone(),
                sig: BASE64.encode(signature.bytes()),
            })
            .collect();
        write_json(&EnvelopeJson { payload_type: *payload_type, payload: BASE64.encode(payload), signatures })
    }

    /// What a signer signs.
    pub fn to_sign(&self) -> Vec<u8> {
        pre_authentication(self.payload_type, &self.payload)
    }

    /// The payload's bytes. They are anybody's until a threshold is verified.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What kind of document it is.
    pub fn payload_type(&self) -> PayloadType {
        self.payload_type
    }

    /// SHA-256 over the payload's bytes: what a document is called by others. It does not change with signatures.
    pub fn digest(&self) -> Sha256 {
        digest_of(&self.payload)
    }

    /// The signatures by the keys that they claim to be by.
    pub fn signatures(&self) -> &BTreeMap<KeyId, Signature> {
        &self.signatures
    }

    /// The same envelope with one more signature, or another one by the same key, once it has been verified.
    pub fn with_signature(&self, key: &PublicKey, signature: Signature) -> Result<Self, AddRefused> {
        signature.verify(key, &self.to_sign()).map_err(|fault| AddRefused::Bad { key: key.id(), fault })?;
        let mut next = self.clone();
        next.signatures.insert(key.id(), signature);
        let size = next.to_bytes().len();
        if next.signatures.len() > SIGNATURES_MAX || size > ENVELOPE_SIZE_MAX {
            return Err(AddRefused::TooMany { signatures: next.signatures.len(), size });
        }
        Ok(next)
    }
}

/// Why a signature was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddRefused {
    /// It is no good.
    #[error("the signature by {key} was not added: {fault}")]
    Bad {
        /// By whom it should be.
        key: KeyId,
        /// What is wrong with it.
        fault: SignatureFault,
    },
    /// No host would read the result.
    #[error(
        "with {signatures} signatures the envelope has {size} bytes; {SIGNATURES_MAX} and {ENVELOPE_SIZE_MAX} are allowed"
    )]
    TooMany {
        /// How many there would be.
        signatures: usize,
        /// How large it would be.
        size: usize,
    },
}

/// An entry with its proof; nothing is known about its worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryEnvelope {
    payload: Vec<u8>,
    proof: Proof,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryJson {
    #[serde(rename = "payloadType")]
    payload_type: PayloadType,
    payload: String,
    proof: ProofJson,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofJson {
    index: u32,
    path: String,
}

impl EntryEnvelope {
    pub(crate) fn new(payload: Vec<u8>, proof: Proof) -> Self {
        Self { payload, proof }
    }

    /// Reads an entry's envelope.
    pub fn read(bytes: &[u8]) -> Result<Self, EnvelopeFault> {
        let json: EntryJson = read_json(bytes)?;
        match json.payload_type {
            PayloadType::Entry => {}
            found @ (PayloadType::Root | PayloadType::Release) => {
                return Err(EnvelopeFault::OtherType { found, wanted: PayloadType::Entry });
            }
        }
        let path = BASE64.decode(json.proof.path.as_bytes()).map_err(|_| EnvelopeFault::Proof)?;
        let proof = Proof::from_path(json.proof.index, &path).ok_or(EnvelopeFault::Proof)?;
        let envelope = Self { payload: payload(&json.payload)?, proof };
        if envelope.to_bytes() == bytes { Ok(envelope) } else { Err(EnvelopeFault::OtherForm) }
    }

    /// The envelope's one form on disk, ending with a newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { payload, proof } = self;
        write_json(&EntryJson {
            payload_type: PayloadType::Entry,
            payload: BASE64.encode(payload),
            proof: ProofJson { index: proof.index(), path: BASE64.encode(&proof.path_bytes()) },
        })
    }

    /// The entry's bytes. They are anybody's until the proof is verified.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(crate) fn proof(&self) -> &Proof {
        &self.proof
    }

    pub(crate) fn leaf(&self) -> Hash {
        entry_leaf(&self.payload)
    }
}

/// The Merkle leaf of an entry.
pub(crate) fn entry_leaf(payload: &[u8]) -> Hash {
    crate::merkle::leaf_hash(&pre_authentication(PayloadType::Entry, payload))
}

/// SHA-256 of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> Sha256 {
    let hash = digest::digest(&digest::SHA256, bytes);
    Sha256::new(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// DSSE's encoding of what is signed: lengths and contents of type and payload, so that neither can pass for part of
/// the other.
fn pre_authentication(payload_type: PayloadType, payload: &[u8]) -> Vec<u8> {
    let name = payload_type.as_str();
    let mut out = format!("DSSEv1 {} {name} {} ", name.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

fn read_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, EnvelopeFault> {
    if bytes.len() > ENVELOPE_SIZE_MAX {
        return Err(EnvelopeFault::TooLarge { size: bytes.len() });
    }
    json::read(bytes).map_err(EnvelopeFault::Json)
}

fn write_json<T: Serialize>(json: &T) -> Vec<u8> {
    let mut out = serde_json::to_vec(json).expect("texts and numbers are always JSON");
    out.push(b'\n');
    out
}

fn payload(base64: &str) -> Result<Vec<u8>, EnvelopeFault> {
    BASE64.decode(base64.as_bytes()).map_err(|_| EnvelopeFault::PayloadNotBase64)
}

fn signature(base64: &str) -> Result<Signature, SignatureFault> {
    let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| SignatureFault::UnknownForm)?;
    Signature::from_document(&bytes)
}

impl EnvelopeFault {
    /// What somebody may be trying.
    pub fn attack(&self) -> Option<Attack> {
        match self {
            Self::TooLarge { .. } | Self::TooManySignatures(_) => Some(Attack::EndlessData),
            Self::Json(_)
            | Self::OtherType { .. }
            | Self::PayloadNotBase64
            | Self::Signature { .. }
            | Self::KeyTwice(_)
            | Self::Proof
            | Self::OtherForm => None,
        }
    }
}
