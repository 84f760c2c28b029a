//! Making signatures: in memory here, elsewhere by those who do I/O.
//!
//! A [`Signer`] turns the bytes of [`Envelope::to_sign`] into a signature; [`add`] verifies what it made before it joins
//! the others. Signatures are added one at a time, by whoever holds a key, in any order: the envelope comes out the same.
//!
//! - [`private_key`]: keys from files, in memory.
//! - [`agent`]: what is said to an `ssh-agent`, as bytes; the socket belongs to the command line.
//! - A command hook gets the bytes on stdin and answers with anything that [`Signature::read`] takes; running it belongs
//!   to the command line too. So does `ssh-keygen -Y sign -n nixfleet`, whose output is taken the same way.

pub mod agent;
pub mod private_key;

use crate::envelope::{AddRefused, Envelope};
use crate::key::PublicKey;
use crate::signature::Signature;

/// Somebody who can sign.
pub trait Signer {
    /// The key that signs.
    fn public_key(&self) -> &PublicKey;

    /// A signature over `message`, in whichever form; it is verified by the caller.
    fn sign(&self, message: &[u8]) -> Result<Signature, SignFailed>;
}

/// A signer could not sign.
#[derive(Debug, thiserror::Error)]
#[error("{signer} did not sign")]
pub struct SignFailed {
    /// Who should have.
    pub signer: String,
    /// Why not.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

/// Why an envelope did not get one more signature.
#[derive(Debug, thiserror::Error)]
pub enum NotSigned {
    /// There is none.
    #[error(transparent)]
    Failed(SignFailed),
    /// There is one, and it is no good.
    #[error(transparent)]
    Refused(AddRefused),
}

/// `envelope` with a signature by `signer`, verified.
pub fn add(envelope: &Envelope, signer: &dyn Signer) -> Result<Envelope, NotSigned> {
    let signature = signer.sign(&envelope.to_sign()).map_err(NotSigned::Failed)?;
    envelope.with_signature(signer.public_key(), signature).map_err(NotSigned::Refused)
}
