//! Whether enough different keys have signed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::attack::Attack;
use crate::envelope::Envelope;
use crate::key::{KeyId, PublicKey};
use crate::root::{Role, RoleName};
use crate::signature::SignatureFault;

/// How far the signatures on an envelope reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatures {
    /// For which role they were counted.
    pub role: RoleName,
    /// How many the role wants.
    pub threshold: u32,
    /// Keys of the role that have signed.
    pub good: BTreeSet<KeyId>,
    /// Keys of the role whose signature is there and no good, with the reason.
    pub bad: BTreeMap<KeyId, SignatureFault>,
    /// Keys that have a signature here and are not in the role. They are left alone: after a rotation a document has
    /// signatures by keys that a host does not know yet, or any more.
    pub foreign: BTreeSet<KeyId>,
    /// Keys of the role that have not signed.
    pub missing: BTreeSet<KeyId>,
}

impl Signatures {
    /// Counts the signatures on `envelope` by keys of `role`.
    ///
    /// What is counted is keys by their point, and not names: the same private key never counts twice, even if a root
    /// that calls it by two names came this far (lesson 19).
    pub fn count(
        envelope: &Envelope,
        name: RoleName,
        role: &Role,
        keys: &BTreeMap<KeyId, PublicKey>,
    ) -> Self {
        let message = envelope.to_sign();
        let mut counted = Self {
            role: name,
            threshold: role.threshold,
            good: BTreeSet::new(),
            bad: BTreeMap::new(),
            foreign: BTreeSet::new(),
            missing: BTreeSet::new(),
        };
        let mut points = BTreeSet::new();
        for (id, signature) in envelope.signatures() {
            let Some(key) = keys.get(id).filter(|_| role.keys.contains(id)) else {
                counted.foreign.insert(id.clone());
                continue;
            };
            match signature.verify(key, &message) {
                Ok(()) if points.insert(key.point()) => {
                    counted.good.insert(id.clone());
                }
                Ok(()) => {}
                Err(fault) => {
                    counted.bad.insert(id.clone(), fault);
                }
            }
        }
        let unsigned = role.keys.iter().filter(|id| !envelope.signatures().contains_key(id));
        counted.missing = unsigned.cloned().collect();
        counted
    }

    /// Whether they are enough. A threshold of 0 never is (lesson 19).
    pub fn are_enough(&self) -> bool {
        let wanted = usize::try_from(self.threshold).unwrap_or(usize::MAX);
        wanted >= 1 && self.good.len() >= wanted
    }

    pub(crate) fn demand(self) -> Result<Self, NotEnoughSignatures> {
        if self.are_enough() { Ok(self) } else { Err(NotEnoughSignatures(Box::new(self))) }
    }
}

/// Fewer different keys of a role have signed than it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NotEnoughSignatures(pub Box<Signatures>);

impl NotEnoughSignatures {
    /// A signature that does not fit means changed bytes; none at all means somebody else's document.
    pub fn attack(&self) -> Attack {
        if self.0.bad.is_empty() { Attack::ArbitrarySoftware } else { Attack::Tampering }
    }
}

impl fmt::Display for NotEnoughSignatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Signatures { role, threshold, good, bad, foreign, missing } = &*self.0;
        write!(f, "role {role} wants {threshold} signatures and {} are good", good.len())?;
        for (key, fault) in bad {
            write!(f, "; the one by {key} is not: {fault}")?;
        }
        if !foreign.is_empty() {
            write!(f, "; {} are by keys outside the role", foreign.len())?;
        }
        if !missing.is_empty() {
            write!(f, "; {} keys of the role have not signed", missing.len())?;
        }
        Ok(())
    }
}
