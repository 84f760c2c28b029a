//! What the operator's command line is made of: the fleet description, releases made of it, and the folder that is
//! served to hosts.
//!
//! - [`fleet`] reads `fleet.json` strictly, with [`spanned`] for the places of faults;
//! - [`waves`] says which host goes first;
//! - [`nix`] builds systems and looks at their closures;
//! - [`release`] puts a release together, and reads one back;
//! - [`diff`] says what a release changes;
//! - [`numbers`] says which releases count, and which number comes next;
//! - [`served`] is the folder, written so that a reader never sees half a release;
//! - [`signers`] signs: key files, `ssh-agent`, signature files and command hooks;
//! - [`remote`] asks a control plane;
//! - [`authority`] is the fleet's root: the one in force, and the next one while it collects signatures.
//!
//! Decisions about trust are `nixfleet-trust`'s; nothing here verifies a signature by itself. The verbs are in the binary.

pub mod authority;
pub mod diff;
pub mod fleet;
pub mod nix;
pub mod numbers;
pub mod release;
pub mod remote;
pub mod served;
pub mod signers;
pub mod spanned;
pub mod waves;
