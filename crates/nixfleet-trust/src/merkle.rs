//! The Merkle tree over a release's entries, hashed as in RFC 6962: leaves and inner nodes begin with different bytes,
//! so that no inner node passes for an entry. Proofs are checked as in RFC 9162, section 2.1.3.2.

use aws_lc_rs::digest;
use nixfleet_core::model::names::Sha256;

/// A node of the tree.
pub(crate) type Hash = [u8; 32];

/// The longest proof: a tree of 2^32 leaves has no longer one.
pub(crate) const PROOF_DEPTH_MAX: usize = 32;

const LEAF: u8 = 0;
const NODE: u8 = 1;

pub(crate) fn leaf_hash(bytes: &[u8]) -> Hash {
    hash(&[&[LEAF], bytes])
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[NODE], left, right])
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A tree with all of its nodes: about 64 bytes for each leaf.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    /// The leaves, then each level above, up to the root alone.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over `leaves`; `None` if there are none.
    pub(crate) fn new(leaves: Vec<Hash>) -> Option<Self> {
        if leaves.is_empty() {
            return None;
        }
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            // A node without a sibling goes up as it is. That is the RFC's tree, whose left part is always the
            // largest complete one.
            let above = below
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => node_hash(left, right),
                    rest => rest[0],
                })
                .collect();
            levels.push(above);
        }
        Some(Self { levels })
    }

    pub(crate) fn root(&self) -> Sha256 {
        let top = self.levels.last().expect("a tree has a level");
        Sha256::new(top[0])
    }

    /// The proof that leaf `index` is in the tree; `None` if there is no such leaf.
    pub(crate) fn proof(&self, index: u32) -> Option<Proof> {
        let mut at = usize::try_from(index).ok()?;
        if at >= self.levels[0].len() {
            return None;
        }
        let mut path = Vec::new();
        for level in &self.levels {
            path.extend(level.get(at ^ 1));
            at /= 2;
        }
        Some(Proof { index, path })
    }
}

/// That a leaf is in a tree: its place, and the nodes beside its way to the root, from below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    index: u32,
    path: Vec<Hash>,
}

impl Proof {
    /// From the concatenated nodes; `None` if that is no whole number of them, or too many.
    pub(crate) fn from_path(index: u32, bytes: &[u8]) -> Option<Self> {
        let (nodes, rest) = bytes.as_chunks::<32>();
        let fits = rest.is_empty() && nodes.len() <= PROOF_DEPTH_MAX;
        fits.then(|| Self { index, path: nodes.to_vec() })
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn path_bytes(&self) -> Vec<u8> {
        self.path.concat()
    }

    /// Whether it proves that `leaf` is in the tree of `size` leaves with the root `root`.
    pub(crate) fn proves(&self, leaf: &Hash, size: u32, root: &Sha256) -> bool {
        let Some(mut last) = size.checked_sub(1).filter(|last| self.index <= *last) else { return false };
        let (mut at, mut node) = (self.index, *leaf);
        for beside in &self.path {
            if last == 0 {
                return false;
            }
            if at & 1 == 1 || at == last {
                node = node_hash(beside, &node);
                // On the right edge, levels at which the node had no sibling are passed over.
                while at & 1 == 0 && at != 0 {
                    at >>= 1;
                    last >>= 1;
                }
            } else {
                node = node_hash(&node, beside);
            }
            at >>= 1;
            last >>= 1;
        }
        last == 0 && node == *root.bytes()
    }
}

#[cfg(test)]
mod tests;
