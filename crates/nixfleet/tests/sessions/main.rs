//! Sessions with the built command line, each told as a sentence: what an operator does, and what comes of it.
//!
//! Nix is not needed here: closures come from a file (`--path-info`). Real Nix is in the testbed's `releases.rs`. Signers
//! are real: `ssh-keygen` and `ssh-agent` of OpenSSH.

mod builds;
mod descriptions;
mod folders;
mod online;
mod readers;
mod releases;
mod roots;
mod signing;
mod support;
