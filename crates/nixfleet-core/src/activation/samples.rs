//! Values for the tests of this module.

use super::events::CommitPolicy;
use super::inhibit::InhibitPolicy;
use super::record::{Began, ConfirmBy, OnFailedUnits, Purpose, Unsigned};
use crate::ids::StorePath;

pub(super) fn system(name: &str) -> StorePath {
    format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-{name}").parse().expect("well-formed")
}

/// An ordinary activation of `target` on a host that runs `previous`.
pub(super) fn began(previous: &str, target: &str, purpose: Purpose) -> Began {
    Began {
        target: system(target),
        previous: system(previous),
        previous_generation: None,
        commit: CommitPolicy::AfterConfirm,
        confirm_by: ConfirmBy::Probes,
        confirm_within_secs: 60,
        observe_secs: 0,
        probes: vec![],
        inhibit: InhibitPolicy::BuiltIn,
        on_failed_units: OnFailedUnits::Revert,
        unsigned: Unsigned::Refuse,
        digest: None,
        rescue: String::new(),
        purpose,
    }
}
