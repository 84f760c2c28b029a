//! The mark of what was verified.

use std::ops::Deref;

use nixfleet_core::model::names::Sha256;

/// A `T` that came through every check for it.
///
/// There is no other way to have one: the constructor is private to the checks, and it cannot be deserialised.
///
/// ```compile_fail,E0451
/// use nixfleet_core::model::names::Sha256;
/// let forged = nixfleet_trust::check::Verified { value: 7, digest: Sha256::new([0; 32]) };
/// ```
/// ```compile_fail,E0624
/// use nixfleet_core::model::names::Sha256;
/// let forged = nixfleet_trust::check::Verified::after_all_checks(7, Sha256::new([0; 32]));
/// ```
/// ```compile_fail,E0277
/// use nixfleet_core::model::release::Release;
/// let forged: nixfleet_trust::check::Verified<Release> = serde_json::from_str("{}").unwrap();
/// ```
/// ```compile_fail,E0594
/// # fn change(release: &mut nixfleet_trust::check::Verified<nixfleet_core::model::release::Release>) {
/// release.hosts = 7;
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    digest: Sha256,
}

impl<T> Verified<T> {
    /// To be called after the last check, and nowhere else.
    pub(super) fn after_all_checks(value: T, digest: Sha256) -> Self {
        Self { value, digest }
    }

    /// SHA-256 over the signed bytes.
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// The value without the mark.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}
