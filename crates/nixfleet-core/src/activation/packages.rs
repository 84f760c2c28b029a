//! Package differences between two closures, from the names of their store paths.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::StorePath;

/// One package that differs between two closures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    /// The package's name, without version and output.
    pub name: String,
    /// Versions in the old closure; empty for an added package, `""` for a path without a version.
    pub old: Vec<String>,
    /// Versions in the new closure; empty for a removed package.
    pub new: Vec<String>,
}

impl fmt::Display for PackageChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |versions: &[String]| match versions {
            [] => "none".to_owned(),
            [only] if only.is_empty() => "(no version)".to_owned(),
            many => many.join(", "),
        };
        write!(f, "{}: {} -> {}", self.name, list(&self.old), list(&self.new))
    }
}

/// A store path's name split where Nix splits it: the version begins at the first dash before a non-letter.
pub fn split_name(name: &str) -> (&str, &str) {
    let bytes = name.as_bytes();
    let dash = (0..bytes.len())
        .find(|i| bytes[*i] == b'-' && bytes.get(i + 1).is_some_and(|b| !b.is_ascii_alphabetic()));
    dash.map_or((name, ""), |dash| (&name[..dash], &name[dash + 1..]))
}

/// Packages whose set of versions differs, by name. The same versions under other store paths are a rebuild, and
/// are counted by the second value instead of listed.
pub fn package_changes<'a>(
    old: impl IntoIterator<Item = &'a StorePath>,
    new: impl IntoIterator<Item = &'a StorePath>,
) -> (Vec<PackageChange>, usize) {
    let (old, new) = (versions(old), versions(new));
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let none = BTreeMap::new();
    let mut changes = Vec::new();
    let mut rebuilt = 0;
    for name in names {
        let (was, is) = (old.get(name).unwrap_or(&none), new.get(name).unwrap_or(&none));
        if !was.keys().eq(is.keys()) {
            let list = |versions: &BTreeMap<&str, BTreeSet<&str>>| {
                versions.keys().map(|v| (*v).to_owned()).collect()
            };
            changes.push(PackageChange { name: name.to_owned(), old: list(was), new: list(is) });
        } else if was != is {
            rebuilt += 1;
        }
    }
    (changes, rebuilt)
}

/// By name, the versions, and by version the hashes that carry it.
type Versions<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<&'a str>>>;

fn versions<'a>(paths: impl IntoIterator<Item = &'a StorePath>) -> Versions<'a> {
    let mut out = Versions::new();
    for path in paths {
        let (name, version) = split_name(path.name());
        out.entry(name).or_default().entry(version).or_default().insert(path.hash());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(hash: char, name: &str) -> StorePath {
        format!("/nix/store/{}-{name}", hash.to_string().repeat(32)).parse().expect("well-formed")
    }

    #[test]
    fn names_split_where_nix_splits_them() {
        for (name, want) in [
            ("openssl-3.0.13", ("openssl", "3.0.13")),
            ("linux-6.12.1-modules", ("linux", "6.12.1-modules")),
            ("nixos-system-web-1-25.11", ("nixos-system-web", "1-25.11")),
            ("etc", ("etc", "")),
            ("x-", ("x-", "")),
        ] {
            assert_eq!(split_name(name), want);
        }
    }

    #[test]
    fn changes_are_listed_and_rebuilds_counted() {
        let old = [path('0', "openssl-3.0.13"), path('1', "bash-5.2"), path('2', "gone-1")];
        let new = [path('3', "openssl-3.0.14"), path('4', "bash-5.2"), path('5', "fresh-2")];
        let (changes, rebuilt) = package_changes(&old, &new);
        let said: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["fresh: none -> 2", "gone: 1 -> none", "openssl: 3.0.13 -> 3.0.14"]);
        assert_eq!(rebuilt, 1);
    }

    proptest! {
        #[test]
        fn a_closure_does_not_differ_from_itself(names in proptest::collection::vec("[a-z]{1,5}(-[0-9.]{1,4})?", 0..20)) {
            let paths: Vec<StorePath> = names.iter().map(|name| path('7', name)).collect();
            prop_assert_eq!(package_changes(&paths, &paths), (vec![], 0));
        }
    }
}
