use super::*;
use proptest::prelude::*;

/// RFC 6962, section 2.1, word for word; shares nothing with the tree but the hash function.
fn slow_root(leaves: &[Vec<u8>]) -> Hash {
    match leaves {
        [] => unreachable!("a tree has leaves"),
        [leaf] => sha256(&[&[0], leaf.as_slice()].concat()),
        _ => {
            let (left, right) = leaves.split_at(largest_power_below(leaves.len()));
            sha256(&[&[1], &slow_root(left)[..], &slow_root(right)].concat())
        }
    }
}

/// RFC 6962, section 2.1.1, word for word.
fn slow_path(index: usize, leaves: &[Vec<u8>]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = largest_power_below(leaves.len());
    let (left, right) = leaves.split_at(k);
    if index < k {
        [slow_path(index, left), vec![slow_root(right)]].concat()
    } else {
        [slow_path(index - k, right), vec![slow_root(left)]].concat()
    }
}

fn largest_power_below(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

fn sha256(bytes: &[u8]) -> Hash {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("32 bytes")
}

fn tree(leaves: &[Vec<u8>]) -> Tree {
    Tree::new(leaves.iter().map(|leaf| leaf_hash(leaf)).collect()).expect("there are leaves")
}

fn size(leaves: &[Vec<u8>]) -> u32 {
    u32::try_from(leaves.len()).expect("few")
}

/// The leaves that implementations of certificate transparency are commonly tested with, and the roots over the first
/// 1 to 8 of them.
const KNOWN: [(&[u8], &str); 8] = [
    (b"", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
    (b"\x00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
    (b"\x10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
    (b"\x20\x21", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    (b"\x30\x31", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
    (b"@ABC", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
    (b"PQRSTUVW", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
    (b"`abcdefghijklmno", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
];

#[test]
fn the_roots_are_those_of_certificate_transparency() {
    let mut leaves = Vec::new();
    for (leaf, root) in KNOWN {
        leaves.push(leaf.to_vec());
        assert_eq!(tree(&leaves).root().to_string(), format!("sha256:{root}"), "{} leaves", leaves.len());
    }
    assert_eq!(leaves.len(), 8);
}

#[test]
fn there_is_no_tree_without_leaves_and_no_proof_without_a_leaf() {
    assert!(Tree::new(Vec::new()).is_none());
    assert!(tree(&[b"a".to_vec()]).proof(1).is_none());
    let proof = tree(&[b"a".to_vec()]).proof(0).expect("it is there");
    assert_eq!(proof.path_bytes().len(), 0);
    assert!(!proof.proves(&leaf_hash(b"a"), 0, &tree(&[b"a".to_vec()]).root()), "a tree of no leaves");
}

#[test]
fn an_inner_node_does_not_pass_for_a_leaf() {
    // The classic second preimage: the two children of an inner node, given out as the contents of a leaf.
    let leaves: Vec<Vec<u8>> = (0..4u8).map(|n| vec![n]).collect();
    let root = tree(&leaves).root();
    let children = |from: usize| [leaf_hash(&leaves[from]), leaf_hash(&leaves[from + 1])].concat();
    let right = slow_root(&leaves[2..]);
    let forged = Proof::from_path(0, &right).expect("one node");
    assert!(!forged.proves(&leaf_hash(&children(0)), 2, &root));
    // It is the prefix that saves us: without it the same proof holds.
    assert!(forged.proves(&slow_root(&leaves[..2]), 2, &root));
}

#[test]
fn a_path_is_a_whole_number_of_nodes_and_not_too_many() {
    assert!(Proof::from_path(0, &[0; 31]).is_none());
    assert!(Proof::from_path(0, &[0; 32 * PROOF_DEPTH_MAX]).is_some());
    assert!(Proof::from_path(0, &[0; 32 * (PROOF_DEPTH_MAX + 1)]).is_none());
}

#[test]
fn the_largest_tree_has_proofs_that_can_be_read() {
    // No such tree is built: the indices alone are walked, with a path of 32 nodes.
    let proof = Proof::from_path(u32::MAX - 1, &[7; 32 * 32]).expect("32 nodes");
    assert!(!proof.proves(&[0; 32], u32::MAX, &Sha256::new([0; 32])));
}

fn leaves() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 1..70)
}

proptest! {
    #[test]
    fn the_tree_is_the_one_of_the_definition(leaves in leaves()) {
        let tree = tree(&leaves);
        prop_assert_eq!(*tree.root().bytes(), slow_root(&leaves));
        for index in 0..size(&leaves) {
            let proof = tree.proof(index).expect("there is such a leaf");
            let at = usize::try_from(index).expect("small");
            prop_assert_eq!(&proof.path, &slow_path(at, &leaves));
            prop_assert!(proof.proves(&leaf_hash(&leaves[at]), size(&leaves), &tree.root()));
        }
    }

    #[test]
    fn a_proof_holds_for_nothing_else(
        leaves in leaves(), pick in any::<prop::sample::Index>(), other in any::<u32>(), bit in 0usize..256,
    ) {
        let tree = tree(&leaves);
        let at = pick.index(leaves.len());
        let (index, leaf, size) = (u32::try_from(at).expect("small"), leaf_hash(&leaves[at]), size(&leaves));
        let proof = tree.proof(index).expect("there is such a leaf");
        let root = tree.root();

        // Another leaf, another root.
        let mut flipped = leaf;
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!proof.proves(&flipped, size, &root));
        let mut elsewhere = *root.bytes();
        elsewhere[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!proof.proves(&leaf, size, &Sha256::new(elsewhere)));

        // Another place in the tree: refused, unless the same leaf stands there with the same path.
        let moved = Proof { index: other, path: proof.path.clone() };
        if moved.proves(&leaf, size, &root) {
            let there = usize::try_from(other).expect("below the size");
            prop_assert_eq!(&leaves[there], &leaves[at]);
        }

        // Every node of the path counts, and so does their number.
        for node in 0..proof.path.len() {
            let mut path = proof.path.clone();
            path[node][bit / 8] ^= 1 << (bit % 8);
            let changed = Proof { index, path };
            prop_assert!(!changed.proves(&leaf, size, &root));
        }
        let mut longer = proof.clone();
        longer.path.push([0; 32]);
        prop_assert!(!longer.proves(&leaf, size, &root));
        if let Some((_, shorter)) = proof.path.split_last() {
            let shorter = Proof { index, path: shorter.to_vec() };
            prop_assert!(!shorter.proves(&leaf, size, &root));
        }
    }

    #[test]
    fn noise_proves_nothing(
        index in any::<u32>(), size in any::<u32>(), path in prop::collection::vec(any::<[u8; 32]>(), 0..=32),
        leaf in any::<[u8; 32]>(), root in any::<[u8; 32]>(),
    ) {
        let proof = Proof { index, path };
        prop_assert!(!proof.proves(&leaf, size, &Sha256::new(root)));
    }
}
