//! Numbers to spread things by: pauses, so that a fleet does not ask in step. Never for keys or secrets.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Any number, each time another. The standard library keys its hash tables with what the kernel drew by chance.
pub fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_and_reach_all_quarters() {
        let quarters: std::collections::BTreeSet<u64> = (0..200).map(|_| number() >> 62).collect();
        assert_eq!(quarters.len(), 4);
    }
}
