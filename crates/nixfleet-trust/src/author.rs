//! The other direction: from contents to envelopes that a host will accept once they are signed.
//!
//! Everything that a host would refuse is refused here first, all of it at once. Entries are assembled into a Merkle tree
//! and are final; roots and releases leave here without signatures.

use std::collections::BTreeMap;

use nixfleet_core::model::faults::{EntryFault, ReleaseFault};
use nixfleet_core::model::names::{HostName, Sha256};
use nixfleet_core::model::policy::Policy;
use nixfleet_core::model::release::{Entry, Release};

use crate::envelope::{ENVELOPE_SIZE_MAX, EntryEnvelope, Envelope, PayloadType, entry_leaf};
use crate::key::{KeyFault, PublicKey};
use crate::merkle::{PROOF_DEPTH_MAX, Tree};
use crate::root::{Root, RootFault};

/// What may be added to an envelope's size later: 32 OpenSSH signatures in base64.
const ROOM_FOR_SIGNATURES: usize = 16 * 1024;
const UNSIGNED_SIZE_MAX: usize = ENVELOPE_SIZE_MAX - ROOM_FOR_SIGNATURES;

/// Why no envelope was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthored<F: std::fmt::Display + std::fmt::Debug> {
    /// A host would refuse the contents.
    #[error("it makes no sense: {}", list(.0))]
    Faults(Vec<F>),
    /// A host would not read it.
    #[error("it has {0} bytes before it is signed, and {UNSIGNED_SIZE_MAX} are allowed")]
    TooLarge(usize),
}

fn list<F: std::fmt::Display>(faults: &[F]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The envelope of `root`, to be signed.
pub fn root(root: &Root) -> Result<Envelope, NotAuthored<RootFault>> {
    sealed(PayloadType::Root, root, root.faults())
}

/// The envelope of `release`, to be signed.
pub fn release(release: &Release) -> Result<Envelope, NotAuthored<ReleaseFault>> {
    sealed(PayloadType::Release, release, release.faults())
}

fn sealed<F: std::fmt::Display + std::fmt::Debug>(
    kind: PayloadType,
    contents: &impl serde::Serialize,
    faults: Vec<F>,
) -> Result<Envelope, NotAuthored<F>> {
    if !faults.is_empty() {
        return Err(NotAuthored::Faults(faults));
    }
    let envelope = Envelope::unsigned(kind, json(contents));
    let size = envelope.to_bytes().len();
    if size > UNSIGNED_SIZE_MAX {
        return Err(NotAuthored::TooLarge(size));
    }
    Ok(envelope)
}

fn json(contents: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(contents).expect("the model's types are always JSON")
}

/// The entries of a release, as a tree.
#[derive(Debug, Clone)]
pub struct Assembly {
    hosts: Vec<(HostName, Vec<u8>)>,
    tree: Tree,
}

/// One thing that is wrong with the entries of a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyFault {
    /// There are none.
    #[error("there are no hosts")]
    NoHosts,
    /// More than a tree can have.
    #[error("there are {0} hosts, and 4,294,967,295 are allowed")]
    TooMany(usize),
    /// Which of the two should it run?
    #[error("host {0} stands there twice")]
    HostTwice(HostName),
    /// One could act as the other (lesson 20).
    #[error("hosts {first} and {second} have the same key")]
    KeyOfTwoHosts {
        /// One host.
        first: HostName,
        /// The other.
        second: HostName,
    },
    /// A key that cannot be read.
    #[error("a key of host {host}: {fault}")]
    Key {
        /// The host.
        host: HostName,
        /// What is wrong with it.
        fault: KeyFault,
    },
    /// Anything else that is wrong with an entry.
    #[error("host {host}: {fault}")]
    Entry {
        /// The host.
        host: HostName,
        /// What is wrong with it.
        fault: EntryFault,
    },
    /// Nothing that a host would read.
    #[error("the entry of host {host} has {size} bytes, and {ENVELOPE_SIZE_MAX} are allowed")]
    TooLarge {
        /// The host.
        host: HostName,
        /// How many.
        size: usize,
    },
}

impl Assembly {
    /// Assembles `entries`, in any order, for a release with `policy`; finds every fault at once.
    pub fn new(mut entries: Vec<Entry>, policy: &Policy) -> Result<Self, Vec<AssemblyFault>> {
        entries.sort_by(|a, b| a.host.cmp(&b.host));
        let mut faults = faults_of(&entries, policy);
        let mut hosts = Vec::with_capacity(entries.len());
        for entry in entries {
            let payload = json(&entry);
            let size = payload.len().div_ceil(3) * 4 + PROOF_DEPTH_MAX.div_ceil(3) * 128 + 200;
            if size > ENVELOPE_SIZE_MAX {
                faults.push(AssemblyFault::TooLarge { host: entry.host.clone(), size });
            }
            hosts.push((entry.host, payload));
        }
        if u32::try_from(hosts.len()).is_err() {
            faults.push(AssemblyFault::TooMany(hosts.len()));
        }
        let tree = Tree::new(hosts.iter().map(|(_, payload)| entry_leaf(payload)).collect());
        match tree {
            Some(tree) if faults.is_empty() => Ok(Self { hosts, tree }),
            Some(_) => Err(faults),
            None => Err(vec![AssemblyFault::NoHosts]),
        }
    }

    /// How many hosts there are: the release's `hosts`.
    pub fn hosts(&self) -> u32 {
        u32::try_from(self.hosts.len()).expect("checked when it was assembled")
    }

    /// The root of the tree: the release's `entries_root`.
    pub fn entries_root(&self) -> Sha256 {
        self.tree.root()
    }

    /// Every host with its entry's envelope, in the order of their names.
    pub fn envelopes(&self) -> impl Iterator<Item = (&HostName, EntryEnvelope)> {
        (0u32..).zip(&self.hosts).map(|(index, (host, payload))| {
            let proof = self.tree.proof(index).expect("every host has a leaf");
            (host, EntryEnvelope::new(payload.clone(), proof))
        })
    }
}

/// `entries` are in the order of their hosts.
fn faults_of(entries: &[Entry], policy: &Policy) -> Vec<AssemblyFault> {
    let mut faults = Vec::new();
    for pair in entries.windows(2) {
        if pair[0].host == pair[1].host {
            faults.push(AssemblyFault::HostTwice(pair[0].host.clone()));
        }
    }
    let mut owners: BTreeMap<PublicKey, &HostName> = BTreeMap::new();
    for entry in entries {
        let host = &entry.host;
        let of_host = |fault| AssemblyFault::Entry { host: host.clone(), fault };
        faults.extend(entry.faults(policy).into_iter().map(of_host));
        for key in &entry.keys {
            match PublicKey::of_host(key) {
                Ok(key) => match owners.insert(key, host) {
                    Some(first) if first != host => {
                        let (first, second) = (first.clone(), host.clone());
                        faults.push(AssemblyFault::KeyOfTwoHosts { first, second });
                    }
                    Some(_) | None => {}
                },
                Err(refused) => faults.push(AssemblyFault::Key { host: host.clone(), fault: refused.0 }),
            }
        }
    }
    faults
}
