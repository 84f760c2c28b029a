//! What must not be replaced under a running host, and what of a new system only a reboot brings.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One reason not to switch live: a named part whose value differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Inhibitor {
    /// The part: `kernel`, `systemd`, `dbus`, or a key of the closure's own `switch-inhibitors`.
    pub key: String,
    /// What runs now.
    pub old: String,
    /// What the target brings.
    pub new: String,
}

impl fmt::Display for Inhibitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)
    }
}

/// Which parts keep a switch from being done live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InhibitPolicy {
    /// A swap of dbus, systemd or the kernel, and what the closure itself names.
    #[default]
    BuiltIn,
    /// Only what the closure itself names, as NixOS does: it switches kernels live and reboots some day.
    ClosureOnly,
}

/// Parts of a system by name, each with the store path or text that tells one version from another.
pub type Parts = BTreeMap<String, String>;

/// Reads a closure's `switch-inhibitors`: a JSON object of strings, or the older plain list of store paths.
///
/// Both formats are in `facts/nixos.md` D3. A file in neither format inhibits by itself through the `unreadable` key,
/// whose value is its text: two different unreadable files differ, and equal ones do not.
pub fn parse_inhibitors(text: &str) -> Parts {
    if text.trim().is_empty() {
        return Parts::new();
    }
    if text.trim_start().starts_with('{') {
        return match parse_object(text) {
            Some(parts) => parts,
            None => Parts::from([("unreadable".to_owned(), text.trim().to_owned())]),
        };
    }
    let mut list: Vec<&str> = text.split_ascii_whitespace().collect();
    list.sort_unstable();
    Parts::from([("list".to_owned(), list.join(" "))])
}

fn parse_object(text: &str) -> Option<Parts> {
    serde_json::from_str::<Parts>(text).ok()
}

/// Keys in both with different values; a key that only one side has says nothing (NixOS's own rule).
pub fn differing(old: &Parts, new: &Parts) -> Vec<Inhibitor> {
    let both = old.iter().filter_map(|(key, was)| Some((key, was, new.get(key)?)));
    both.filter(|(_, was, is)| was != is)
        .map(|(key, was, is)| Inhibitor { key: key.clone(), old: was.clone(), new: is.clone() })
        .collect()
}

/// Everything that keeps the switch from being done live under the policy: built-in parts first, then the closure's.
pub fn inhibitors(
    policy: InhibitPolicy,
    built_in: (&Parts, &Parts),
    closures: (&Parts, &Parts),
) -> Vec<Inhibitor> {
    let mut out = match policy {
        InhibitPolicy::BuiltIn => differing(built_in.0, built_in.1),
        InhibitPolicy::ClosureOnly => Vec::new(),
    };
    out.extend(differing(closures.0, closures.1));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_on_both_sides_with_other_values_inhibit() {
        let old = parse_inhibitors(r#"{"dbus-implementation": "dbus", "gone": "x", "same": "1"}"#);
        let new = parse_inhibitors(r#"{"dbus-implementation": "broker", "fresh": "y", "same": "1"}"#);
        let said: Vec<String> = differing(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["dbus-implementation: dbus -> broker"]);
    }

    #[test]
    fn the_older_list_is_compared_as_a_set() {
        let old = parse_inhibitors("/nix/store/a\n/nix/store/b\n");
        assert_eq!(differing(&old, &parse_inhibitors("/nix/store/b\n/nix/store/a\n")), []);
        assert_eq!(differing(&old, &parse_inhibitors("/nix/store/b\n/nix/store/c\n")).len(), 1);
    }

    #[test]
    fn a_missing_or_empty_file_inhibits_nothing_and_rubbish_is_compared_as_it_stands() {
        let some = parse_inhibitors(r#"{"a": "1"}"#);
        assert_eq!(differing(&parse_inhibitors(""), &some), []);
        let (one, two) = (parse_inhibitors("{\"a\": [1]}"), parse_inhibitors("{\"a\": [2]}"));
        assert_eq!(differing(&one, &one), []);
        assert_eq!(differing(&one, &two).len(), 1);
    }

    #[test]
    fn policy_may_narrow_the_list_to_what_the_closure_names() {
        let kernel = |v: &str| Parts::from([("kernel".to_owned(), v.to_owned())]);
        let (old, new, none) = (kernel("6.12.1"), kernel("6.12.2"), Parts::new());
        assert_eq!(inhibitors(InhibitPolicy::BuiltIn, (&old, &new), (&none, &none)).len(), 1);
        assert_eq!(inhibitors(InhibitPolicy::ClosureOnly, (&old, &new), (&none, &none)), []);
    }
}
