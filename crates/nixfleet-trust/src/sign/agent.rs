//! The two questions that an `ssh-agent` is asked, and its answers, as bytes.
//!
//! Each message is a length of four bytes and a body. The caller writes what is made here to the socket, reads four bytes
//! ([`body_length`]), and then so many more. The agent is asked for OpenSSH signatures in our namespace and never for a
//! signature over bytes of our choice, so that nothing it signs for us means anything elsewhere; keys in tokens work
//! because of that too.

use crate::key::PublicKey;
use crate::signature::{Signature, SignatureFault, ssh};
use crate::wire::{Reader, WireError, put_string};

/// The longest answer that is read: the limit of OpenSSH's own programs.
pub const ANSWER_LEN_MAX: u32 = 256 * 1024;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Why an answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentFault {
    /// It says no.
    #[error("the agent refused: it does not have the key, or its user said no")]
    Refused,
    /// It answers something else.
    #[error("the agent answered with a message of type {found}, and {wanted} was expected")]
    OtherAnswer {
        /// What came.
        found: u8,
        /// What should have come.
        wanted: u8,
    },
    /// It says too much.
    #[error("the agent's answer has {0} bytes, and {ANSWER_LEN_MAX} are allowed")]
    TooLong(u32),
    /// Its answer is damaged.
    #[error("the agent's answer is damaged: {0}")]
    Wire(WireError),
    /// The signature in it is in no form that is known.
    #[error("the agent's signature cannot be used: {0}")]
    Signature(SignatureFault),
}

/// A key that an agent holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentKey {
    /// The key.
    pub key: PublicKey,
    /// What its owner calls it.
    pub comment: String,
}

/// The length of the body that follows the four bytes `header`.
pub fn body_length(header: [u8; 4]) -> Result<usize, AgentFault> {
    let length = u32::from_be_bytes(header);
    if length > ANSWER_LEN_MAX {
        return Err(AgentFault::TooLong(length));
    }
    Ok(usize::try_from(length).expect("256 KiB fit"))
}

/// Asks which keys there are.
pub fn request_identities() -> Vec<u8> {
    framed(&[REQUEST_IDENTITIES])
}

/// The keys of a kind that can sign here, from the answer's body. Others are passed over.
pub fn read_identities(body: &[u8]) -> Result<Vec<AgentKey>, AgentFault> {
    let mut reader = answer(body, IDENTITIES_ANSWER)?;
    let count = reader.u32().map_err(AgentFault::Wire)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let blob = reader.string().map_err(AgentFault::Wire)?;
        let comment = reader.string().map_err(AgentFault::Wire)?;
        if let Ok(key) = PublicKey::from_blob(blob) {
            keys.push(AgentKey { key, comment: String::from_utf8_lossy(comment).into_owned() });
        }
    }
    reader.end().map_err(AgentFault::Wire)?;
    Ok(keys)
}

/// Asks for a signature by `key` over `message`.
pub fn request_signature(key: &PublicKey, message: &[u8]) -> Vec<u8> {
    let mut body = vec![SIGN_REQUEST];
    put_string(&mut body, &key.blob());
    put_string(&mut body, &ssh::signed_bytes(b"", HASH, message));
    // No flags: they choose between hashes for RSA.
    body.extend_from_slice(&[0; 4]);
    framed(&body)
}

/// The signature from the answer's body.
pub fn read_signature(body: &[u8], key: &PublicKey) -> Result<Signature, AgentFault> {
    let mut reader = answer(body, SIGN_RESPONSE)?;
    let inner = reader.string().map_err(AgentFault::Wire)?;
    reader.end().map_err(AgentFault::Wire)?;
    Signature::read(&ssh::wrap(key, HASH, inner), key).map_err(AgentFault::Signature)
}

/// What `ssh-keygen -Y sign` uses by itself.
const HASH: ssh::Hash = ssh::Hash::Sha512;

fn answer(body: &[u8], wanted: u8) -> Result<Reader<'_>, AgentFault> {
    let mut reader = Reader::new(body);
    match reader.byte().map_err(AgentFault::Wire)? {
        found if found == wanted => Ok(reader),
        FAILURE => Err(AgentFault::Refused),
        found => Err(AgentFault::OtherAnswer { found, wanted }),
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 4);
    put_string(&mut out, body);
    out
}
