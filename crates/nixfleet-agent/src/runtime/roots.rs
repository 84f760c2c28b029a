//! Keeps the systems that the state wants from collection, beside what runs and what an activation keeps by itself: a
//! staged target, and the system that a committed one may still be reverted to.
//!
//! One link for each, named by the store path, in a folder of its own, so that the sweep after an activation does not take
//! them for its leftovers. A root that cannot be made is told and does not stop anything: the way back is also a generation
//! of the profile.

use std::collections::BTreeSet;
use std::ffi::OsString;

use nixfleet_core::ids::StorePath;
use nixfleet_sys::fs::{self, FsError};

use crate::activation::host::HostPaths;

/// Makes what is missing and removes what is not wanted any more.
pub fn keep(host: &HostPaths, wanted: &[&StorePath]) -> Result<(), FsError> {
    let folder = host.wanted_roots();
    let links: BTreeSet<_> = wanted.iter().map(|system| host.wanted_root(system)).collect();
    for system in wanted {
        let link = host.wanted_root(system);
        if fs::read_link(&link).ok().as_deref() != Some(system.as_path()) {
            fs::make_dir(&folder)?;
            fs::link_atomic(system.as_path(), &link)?;
        }
    }
    let there: Vec<OsString> =
        std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    for link in there.into_iter().map(|name| folder.join(name)).filter(|link| !links.contains(link)) {
        fs::remove(&link)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(name: &str) -> StorePath {
        format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-{name}")
            .parse()
            .expect("well-formed")
    }

    #[test]
    fn there_is_a_root_for_what_is_wanted_and_for_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = HostPaths { roots: dir.path().join("nixfleet"), ..HostPaths::default() };
        let kept = || {
            let entries = std::fs::read_dir(host.wanted_roots()).expect("a folder").flatten();
            let mut targets: Vec<_> =
                entries.map(|entry| fs::read_link(&entry.path()).expect("a link")).collect();
            targets.sort();
            targets
        };
        let (a, b, c) = (system("a"), system("b"), system("c"));
        keep(&host, &[&a, &b]).expect("kept");
        assert_eq!(kept(), [a.as_path(), b.as_path()]);
        keep(&host, &[&b, &c, &c]).expect("kept");
        assert_eq!(kept(), [b.as_path(), c.as_path()]);
        keep(&host, &[]).expect("kept");
        assert!(kept().is_empty());
    }

    #[test]
    fn a_host_that_wants_nothing_needs_no_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = HostPaths { roots: dir.path().join("none/nixfleet"), ..HostPaths::default() };
        keep(&host, &[]).expect("nothing to do");
        assert!(!host.wanted_roots().exists());
    }
}
