//! Two systems: their packages, units, and what of them only a reboot brings.

use std::collections::BTreeMap;
use std::path::Path;

use nixfleet_core::activation::inhibit::{InhibitPolicy, Inhibitor, Parts, inhibitors, parse_inhibitors};
use nixfleet_core::activation::packages::package_changes;
use nixfleet_core::activation::units::counts;
use nixfleet_core::ids::{STORE_DIR, StorePath};
use nixfleet_sys::fs;
use serde::Serialize;

use super::Packages;
use crate::nix::Closures;

/// What changes of the units.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct UnitChanges(pub BTreeMap<String, UnitChange>);

/// What happens to a unit's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It says something else.
    Changed,
}

/// What changes of the packages; `None` if a closure is not known.
pub(super) fn packages(from: Option<&StorePath>, to: &StorePath, closures: &Closures) -> Option<Packages> {
    let old = match from {
        Some(from) => closures.paths_of(from).ok()?,
        None => Vec::new(),
    };
    let (changed, rebuilt) = package_changes(old, closures.paths_of(to).ok()?);
    Some(Packages { changed, rebuilt })
}

/// Where a system has its units.
const UNITS: &str = "etc/systemd/system";
/// The largest unit file that is compared: a generated one has some kilobytes.
const UNIT_BYTES_MAX: u64 = 1 << 20;

/// What changes of the units; `None` if a system is not on this machine, or is not one of systemd's.
pub(super) fn units(from: &StorePath, to: &StorePath) -> Option<UnitChanges> {
    Some(changes(&unit_files(&from.join(UNITS))?, &unit_files(&to.join(UNITS))?))
}

fn changes(old: &BTreeMap<String, Vec<u8>>, new: &BTreeMap<String, Vec<u8>>) -> UnitChanges {
    let mut out = BTreeMap::new();
    for (unit, text) in new {
        match old.get(unit) {
            None => out.insert(unit.clone(), UnitChange::Added),
            Some(was) if was != text => out.insert(unit.clone(), UnitChange::Changed),
            Some(_) => None,
        };
    }
    let gone = old.keys().filter(|unit| !new.contains_key(*unit));
    out.extend(gone.map(|unit| (unit.clone(), UnitChange::Removed)));
    UnitChanges(out)
}

/// The texts of the units in the folder, each with those of its drop-ins.
fn unit_files(folder: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    if !folder.is_dir() {
        return None;
    }
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for name in fs::names_in(folder).ok()? {
        let path = folder.join(&name);
        if let Some(unit) = name.strip_suffix(".d").filter(|unit| counts(unit)) {
            let text = files.entry(unit.to_owned()).or_default();
            for drop_in in fs::names_in(&path).ok()? {
                text.extend(drop_in.as_bytes());
                text.extend(contents(&path.join(&drop_in)));
            }
        } else if counts(&name) {
            // In front of its drop-ins, whichever came first.
            let mut text = contents(&path);
            text.append(files.entry(name.clone()).or_default());
            files.insert(name, text);
        }
    }
    Some(files)
}

/// A file's contents, or where a link points that leads nowhere (a masked unit).
fn contents(path: &Path) -> Vec<u8> {
    fs::read_bounded(path, UNIT_BYTES_MAX).unwrap_or_else(|_| {
        fs::read_link(path)
            .map(|target| target.to_string_lossy().into_owned().into_bytes())
            .unwrap_or_default()
    })
}

/// The parts of a system that a running host cannot replace, each with the files that tell one version from another.
const PARTS: [(&str, &[&str]); 5] = [
    ("kernel", &["kernel"]),
    ("kernel modules", &["kernel-modules"]),
    ("initrd", &["initrd"]),
    ("systemd", &["systemd", "sw/lib/systemd/systemd"]),
    ("dbus", &["sw/bin/dbus-daemon", "sw/bin/dbus-broker-launch"]),
];
/// The largest list of inhibitors that is read.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// What only a reboot brings; `None` if a system is not on this machine.
pub(super) fn reboot(from: &StorePath, to: &StorePath) -> Option<Vec<Inhibitor>> {
    if !from.as_path().exists() || !to.as_path().exists() {
        return None;
    }
    let own = |system: &StorePath| {
        let bytes = fs::read_bounded(&system.join("switch-inhibitors"), LIST_BYTES_MAX).unwrap_or_default();
        parse_inhibitors(&String::from_utf8_lossy(&bytes))
    };
    let found = inhibitors(InhibitPolicy::BuiltIn, (&parts(from), &parts(to)), (&own(from), &own(to)));
    Some(found.into_iter().map(legible).collect())
}

/// Without the hashes of store paths, where the names alone tell the two apart.
fn legible(Inhibitor { key, old, new }: Inhibitor) -> Inhibitor {
    let name =
        |base: &str| format!("{STORE_DIR}/{base}").parse().map(|path: StorePath| path.name().to_owned());
    match (name(&old), name(&new)) {
        (Ok(was), Ok(is)) if was != is => Inhibitor { key, old: was, new: is },
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Inhibitor { key, old, new },
    }
}

fn parts(system: &StorePath) -> Parts {
    let part = |files: &[&str]| files.iter().find_map(|file| fs::resolve(&system.join(file)).ok());
    // The store path says which version it is; where there is none, the whole path does.
    let name = |path: &Path| {
        StorePath::containing(path)
            .map_or_else(|_| path.display().to_string(), |inside| inside.base().to_owned())
    };
    let found = PARTS.iter().filter_map(|(key, files)| Some(((*key).to_owned(), name(&part(files)?))));
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(path: &Path, text: &str) {
        fs::write_atomic(path, text.as_bytes()).expect("written");
    }

    #[test]
    fn units_are_compared_with_their_drop_ins_and_masked_ones_by_their_link() {
        let dir = tempfile::tempdir().expect("a folder");
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        for (folder, web) in [(&old, "one"), (&new, "two")] {
            fs::make_dir(&folder.join("web.service.d")).expect("made");
            write(&folder.join("web.service"), "the same");
            write(&folder.join("web.service.d/limits.conf"), web);
            write(&folder.join("same.timer"), "the same");
            // Wants are links to units, and say nothing of their own.
            fs::make_dir(&folder.join("multi-user.target.wants")).expect("made");
        }
        write(&old.join("gone.socket"), "x");
        write(&old.join("masked.service"), "x");
        symlink("/dev/null", new.join("masked.service")).expect("linked");
        write(&new.join("fresh.service"), "x");
        let found = changes(&unit_files(&old).expect("a folder"), &unit_files(&new).expect("a folder"));
        let said: Vec<_> = found.0.iter().map(|(unit, change)| (unit.as_str(), *change)).collect();
        assert_eq!(
            said,
            [
                ("fresh.service", UnitChange::Added),
                ("gone.socket", UnitChange::Removed),
                ("masked.service", UnitChange::Changed),
                ("web.service", UnitChange::Changed),
            ]
        );
        assert_eq!(unit_files(&dir.path().join("none")), None);
    }
}
