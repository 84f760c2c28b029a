//! Whether this machine can run test hosts.

use std::os::unix::fs::MetadataExt as _;

use crate::outside::Run;

/// Whether test hosts can run here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    Ready,
    /// With the reason, for a person.
    Impossible(String),
}

/// Asks everything that no package can change.
pub(crate) fn look() -> Hosts {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Hosts::Impossible("test hosts need Linux on x86_64".to_owned());
    }
    if !is_root() {
        return Hosts::Impossible("test hosts need root (run this as root or with sudo)".to_owned());
    }
    if !Run::new("unshare").args(["--mount", "--propagation", "private", "true"]).works() {
        return Hosts::Impossible(
            "test hosts need mount namespaces, which this container forbids".to_owned(),
        );
    }
    Hosts::Ready
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    // The owner of our own entry in /proc is our effective user.
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}
