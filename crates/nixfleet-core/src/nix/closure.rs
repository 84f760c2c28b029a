//! What a closure contains: the lines that a release signs the digest of.

use std::fmt;

use sha2::{Digest, Sha256};

use super::nar_hash::NarHash;
use crate::ids::{ClosureDigest, StorePath};

/// A path of a closure with what a release signs of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contents {
    /// The path.
    pub path: StorePath,
    /// The SHA-256 of its contents.
    pub nar_hash: NarHash,
    /// Its unpacked size.
    pub nar_size: u64,
}

impl fmt::Display for Contents {
    /// The line that is hashed, without its newline: `path narHash narSize`, the hash in Nix's base32.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, nar_hash, nar_size } = self;
        write!(f, "{path} {nar_hash} {nar_size}")
    }
}

/// SHA-256 over the `path narHash narSize` lines of a closure, sorted by path.
pub fn closure_digest(mut contents: Vec<Contents>) -> ClosureDigest {
    contents.sort_by(|a, b| a.path.cmp(&b.path));
    digest_of_lines(contents.iter().map(ToString::to_string))
}

/// The same digest of lines that are made and sorted already, for those who have many closures with common paths.
pub fn digest_of_lines(lines: impl IntoIterator<Item = impl AsRef<str>>) -> ClosureDigest {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line.as_ref());
        hash.update("\n");
    }
    ClosureDigest::from_sha256(&hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(hash: char, size: u64) -> Contents {
        Contents {
            path: format!("/nix/store/{}-x", hash.to_string().repeat(32)).parse().expect("well-formed"),
            nar_hash: NarHash::from_sha256([7; 32]),
            nar_size: size,
        }
    }

    /// Made with coreutils: two such lines through `sha256sum`.
    #[test]
    fn the_digest_is_that_of_the_sorted_lines() {
        let line = contents('a', 5).to_string();
        assert_eq!(
            line,
            "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x \
             sha256:01q70w3hf1q70w3hf1q70w3hf1q70w3hf1q70w3hf1q70w3hf1q7 5"
        );
        let (one, two) = (contents('a', 5), contents('b', 6));
        let digest = closure_digest(vec![one.clone(), two.clone()]);
        assert_eq!(digest, closure_digest(vec![two.clone(), one.clone()]));
        assert_ne!(digest, closure_digest(vec![one.clone()]));
        assert_eq!(digest.to_string(), DIGEST);
        assert_eq!(digest, digest_of_lines([one.to_string(), two.to_string()]));
    }

    const DIGEST: &str = "sha256:c3475e051ab3fb75cf937ff98e2cfdb65fae805eaee50b1ac22308ceceac6a13";
}
