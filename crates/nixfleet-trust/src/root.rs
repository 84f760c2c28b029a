//! The root: which keys a fleet trusts, and for what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nixfleet_core::model::names::{ChannelName, FleetId, RootVersion, Seq};
use nixfleet_core::model::time::UnixMs;
use serde::{Deserialize, Serialize};

use crate::key::{KeyId, PublicKey};

/// The most keys that a root may name: with more, nobody could say any longer who may sign.
pub const ROOT_KEYS_MAX: usize = 64;

/// Which keys a fleet trusts from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// The fleet.
    pub fleet: FleetId,
    /// Its number, from 1; the next root has the next number.
    pub version: RootVersion,
    /// When it was made.
    pub created_ms: UnixMs,
    /// From here on nothing new is started because of it; what runs goes on.
    pub expires_ms: UnixMs,
    /// Every key, by its fingerprint.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// Who signs the next root.
    pub root: Role,
    /// The channels, and who signs their releases.
    pub channels: BTreeMap<ChannelName, ChannelRules>,
    /// Free text that no host has to understand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub info: BTreeMap<String, String>,
}

/// Whose signatures are needed, and how many of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// The keys that count.
    pub keys: Vec<KeyId>,
    /// So many different ones must have signed.
    pub threshold: u32,
}

/// What holds for the releases of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelRules {
    /// Who signs its releases.
    pub release: Role,
    /// No host takes a release with a lower number.
    pub seq_floor: Seq,
    /// How many times the owner has set the hosts' floors back to `seq_floor`.
    ///
    /// A host that has seen fewer forgets the highest number it saw on this channel and the newest signed time, and goes
    /// by this root alone. It is the way back after a fast-forward: somebody with a stolen key signed the highest
    /// number there is. `seq_floor` alone can only raise floors, so that a root made for another purpose lowers none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resets: u32,
    /// Releases made earlier are refused: the answer to a stolen key.
    #[serde(default = "epoch", skip_serializing_if = "is_epoch")]
    pub not_before_ms: UnixMs,
}

// The signatures are serde's.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn epoch() -> UnixMs {
    UnixMs::EPOCH
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_epoch(at: &UnixMs) -> bool {
    *at == UnixMs::EPOCH
}

/// A role, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleName {
    /// Who signs roots.
    Root,
    /// Who signs the releases of a channel.
    Release(ChannelName),
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Release(channel) => write!(f, "release/{channel}"),
        }
    }
}

/// One thing that is wrong with a root, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootFault {
    /// It ends before it begins.
    #[error("it expires before it was made")]
    ExpiresBeforeCreated,
    /// Too many keys.
    #[error("it names {0} keys, and {ROOT_KEYS_MAX} are allowed")]
    TooManyKeys(usize),
    /// A key under another's fingerprint.
    #[error("the key called {called} is {is}")]
    KeyIdIsNotTheKeys {
        /// What the root says.
        called: KeyId,
        /// What it is.
        is: KeyId,
    },
    /// One private key under two names would count twice.
    #[error("{first} and {second} are the same key")]
    SameKeyTwice {
        /// One name.
        first: KeyId,
        /// The other.
        second: KeyId,
    },
    /// A key without a purpose.
    #[error("{0} is in no role")]
    KeyWithoutRole(KeyId),
    /// Anybody could sign.
    #[error("role {0} has the threshold 0")]
    ThresholdZero(RoleName),
    /// Nobody could sign.
    #[error("role {role} wants {threshold} signatures and has {keys} keys")]
    ThresholdOutOfReach {
        /// The role.
        role: RoleName,
        /// What it wants.
        threshold: u32,
        /// What it has.
        keys: usize,
    },
    /// A role with a key that is not there.
    #[error("role {role} names {key}, which is not among the keys")]
    KeyMissing {
        /// The role.
        role: RoleName,
        /// The key.
        key: KeyId,
    },
    /// A role that names a key twice.
    #[error("role {role} names {key} twice")]
    KeyTwiceInRole {
        /// The role.
        role: RoleName,
        /// The key.
        key: KeyId,
    },
}

impl Root {
    /// Everything that is wrong with it, at once.
    pub fn faults(&self) -> Vec<RootFault> {
        let mut faults = Vec::new();
        if self.expires_ms <= self.created_ms {
            faults.push(RootFault::ExpiresBeforeCreated);
        }
        self.key_faults(&mut faults);
        let mut in_roles = BTreeSet::new();
        for (name, role) in self.roles() {
            self.role_faults(&name, role, &mut faults);
            in_roles.extend(&role.keys);
        }
        let idle = self.keys.keys().filter(|key| !in_roles.contains(key));
        faults.extend(idle.cloned().map(RootFault::KeyWithoutRole));
        faults
    }

    /// Its roles by name.
    pub fn roles(&self) -> impl Iterator<Item = (RoleName, &Role)> {
        let releases =
            self.channels.iter().map(|(channel, rules)| (RoleName::Release(channel.clone()), &rules.release));
        std::iter::once((RoleName::Root, &self.root)).chain(releases)
    }

    fn key_faults(&self, faults: &mut Vec<RootFault>) {
        if self.keys.len() > ROOT_KEYS_MAX {
            faults.push(RootFault::TooManyKeys(self.keys.len()));
        }
        let mut points: BTreeMap<&[u8], &KeyId> = BTreeMap::new();
        for (called, key) in &self.keys {
            let is = key.id();
            if is != *called {
                faults.push(RootFault::KeyIdIsNotTheKeys { called: called.clone(), is });
            }
            if let Some(first) = points.insert(key.point(), called) {
                faults.push(RootFault::SameKeyTwice { first: first.clone(), second: called.clone() });
            }
        }
    }

    fn role_faults(&self, name: &RoleName, role: &Role, faults: &mut Vec<RootFault>) {
        if role.threshold == 0 {
            faults.push(RootFault::ThresholdZero(name.clone()));
        }
        let mut seen = BTreeSet::new();
        for key in &role.keys {
            if !seen.insert(key) {
                faults.push(RootFault::KeyTwiceInRole { role: name.clone(), key: key.clone() });
            }
            if !self.keys.contains_key(key) {
                faults.push(RootFault::KeyMissing { role: name.clone(), key: key.clone() });
            }
        }
        let (threshold, keys) = (role.threshold, seen.len());
        if usize::try_from(threshold).is_ok_and(|wanted| wanted > keys) {
            faults.push(RootFault::ThresholdOutOfReach { role: name.clone(), threshold, keys });
        }
    }
}
