//! What Nix says of store paths, read strictly, and the digest of a closure that is made of it.
//!
//! Here, because two have to come to the same digest: the command line signs it, and the agent compares it with what it
//! fetched. Pure: bytes in, values out; whoever runs Nix is elsewhere.

pub mod closure;
pub mod nar_hash;
pub mod path_info;

/// What a strict parser stumbled over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}, at: `{at}`")]
pub struct NotUnderstood {
    /// What is wrong.
    pub why: &'static str,
    /// The place, printable and cut to 200 characters.
    pub at: String,
}

impl NotUnderstood {
    /// The refusal of `at` because of `why`.
    pub fn new(why: &'static str, at: &str) -> Self {
        Self { why, at: at.chars().filter(|c| !c.is_control()).take(200).collect() }
    }
}
