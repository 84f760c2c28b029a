//! What a release changes against another one: what a person wants to see before signing.
//!
//! Systems are compared once for each pair of old and new, however many hosts make that step. Packages come from the names
//! in both closures; units and what needs a reboot come from the files of the systems, and are unknown where these are
//! not on this machine. What is unknown is said to be unknown, and never left out.

mod systems;

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::activation::inhibit::Inhibitor;
use nixfleet_core::activation::packages::PackageChange;
use nixfleet_core::ids::{ClosureDigest, StorePath};
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::release::{Entry, Release};
use serde::Serialize;
use serde_json::Value;

use crate::nix::Closures;
use crate::release::Opened;

pub use systems::{UnitChange, UnitChanges};

/// What changes from one release to another.
#[derive(Debug, Clone, Serialize)]
pub struct Diff {
    /// Hosts that are new.
    pub added: Vec<HostName>,
    /// Hosts that are gone.
    pub removed: Vec<HostName>,
    /// Hosts whose system has other contents than are known under the same path.
    pub other_contents: Vec<HostName>,
    /// Hosts whose entry differs in something other than the system and the wave.
    pub entries: Vec<EntryChange>,
    /// What of the release itself differs, by its place in the document.
    pub rules: Vec<RuleChange>,
    /// Hosts that keep their system.
    pub unchanged: usize,
    /// What the others do, by the step that they make; of a new host, the step is from nothing.
    pub steps: Vec<Step>,
}

/// What differs in an entry, beside the system and the wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryChange {
    /// The host.
    pub host: HostName,
    /// Which fields.
    pub fields: Vec<&'static str>,
}

/// A value of the release that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleChange {
    /// Where it stands, such as `policy.waves[0].soak_secs`.
    pub place: String,
    /// What it was; `None` if it was not there.
    pub old: Option<Value>,
    /// What it is; `None` if it is gone.
    pub new: Option<Value>,
}

/// A step from one system to another, with all hosts that make it.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Where from; `None` for new hosts.
    pub old: Option<StorePath>,
    /// Where to.
    pub new: StorePath,
    /// Who.
    pub hosts: Vec<HostName>,
    /// The size of the old closure, unpacked.
    pub old_bytes: Option<u64>,
    /// The size of the new one.
    pub new_bytes: u64,
    /// What changes of the packages; `None` if a closure is not known here.
    pub packages: Option<Packages>,
    /// What changes of the units; `None` if a system is not on this machine.
    pub units: Option<UnitChanges>,
    /// What only a reboot brings; `None` if a system is not on this machine.
    pub reboot: Option<Vec<Inhibitor>>,
}

/// What changes of the packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packages {
    /// Added, removed, or in other versions.
    pub changed: Vec<PackageChange>,
    /// The same version built anew.
    pub rebuilt: usize,
}

/// Which systems a comparison is about: those whose closures are needed.
pub fn systems<'a>(old: Option<&'a Opened>, new: &'a Opened) -> BTreeSet<&'a StorePath> {
    let before = |host: &HostName| old.and_then(|old| old.entries.get(host)).map(|entry| &entry.system);
    let moving = new.entries.values().filter(|entry| before(&entry.host) != Some(&entry.system));
    moving.flat_map(|entry| before(&entry.host).into_iter().chain([&entry.system])).collect()
}

/// What `new` changes against `old` (nothing, for the first release). `closures` has those of [`systems`] that are known.
pub fn diff(old: Option<&Opened>, new: &Opened, closures: &Closures) -> Diff {
    let none = BTreeMap::new();
    let before = old.map_or(&none, |old| &old.entries);
    let mut steps: BTreeMap<(Option<&StorePath>, &StorePath), Vec<&Entry>> = BTreeMap::new();
    let mut entries = Vec::new();
    for entry in new.entries.values() {
        let was = before.get(&entry.host);
        entries.extend(was.and_then(|was| entry_change(was, entry)));
        let from = was.map(|was| &was.system);
        if from != Some(&entry.system) {
            steps.entry((from, &entry.system)).or_default().push(entry);
        }
    }
    let only = |some: &BTreeMap<HostName, Entry>, other: &BTreeMap<HostName, Entry>| {
        some.keys().filter(|host| !other.contains_key(*host)).cloned().collect()
    };
    let moving: usize = steps.values().map(Vec::len).sum();
    Diff {
        added: only(&new.entries, before),
        removed: only(before, &new.entries),
        other_contents: other_contents(before, &new.entries, closures),
        entries,
        rules: rule_changes(old.map(|old| &old.release), &new.release),
        unchanged: new.entries.len() - moving,
        steps: steps
            .into_iter()
            .map(|((from, to), hosts)| step(from, to, &hosts, before, closures))
            .collect(),
    }
}

fn step(
    from: Option<&StorePath>,
    to: &StorePath,
    entries: &[&Entry],
    before: &BTreeMap<HostName, Entry>,
    closures: &Closures,
) -> Step {
    let was = entries.first().and_then(|entry| before.get(&entry.host));
    Step {
        old: from.cloned(),
        new: to.clone(),
        hosts: entries.iter().map(|entry| entry.host.clone()).collect(),
        old_bytes: was.map(|was| was.closure.unpacked_bytes),
        new_bytes: entries.first().map_or(0, |entry| entry.closure.unpacked_bytes),
        packages: systems::packages(from, to, closures),
        units: from.and_then(|from| systems::units(from, to)),
        reboot: from.and_then(|from| systems::reboot(from, to)),
    }
}

/// The hosts whose system has other contents than are known under its path: from this machine's store, from the release
/// before, or from the host before it in this one. It is a forgery, or was built twice with different results.
fn other_contents(
    before: &BTreeMap<HostName, Entry>,
    new: &BTreeMap<HostName, Entry>,
    closures: &Closures,
) -> Vec<HostName> {
    let mut known: BTreeMap<&StorePath, ClosureDigest> = BTreeMap::new();
    for system in new.values().map(|entry| &entry.system).collect::<BTreeSet<_>>() {
        known.extend(closures.of(system).ok().map(|here| (system, here.digest)));
    }
    let mut others = Vec::new();
    for (entry, is_new) in before.values().map(|was| (was, false)).chain(new.values().map(|is| (is, true))) {
        let digest = &entry.closure.digest;
        let first = known.entry(&entry.system).or_insert_with(|| digest.clone());
        others.extend((is_new && first != digest).then(|| entry.host.clone()));
    }
    others
}

/// The fields apart from system, closure and wave; a new field of an entry breaks the build here.
fn entry_change(was: &Entry, is: &Entry) -> Option<EntryChange> {
    let Entry { host, keys, tags, wave: _, system: _, closure: _, probes, reboot } = is;
    let differing = [
        ("keys", *keys != was.keys),
        ("tags", *tags != was.tags),
        ("probes", *probes != was.probes),
        ("reboot", *reboot != was.reboot),
    ];
    let fields: Vec<_> =
        differing.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    (!fields.is_empty()).then(|| EntryChange { host: host.clone(), fields })
}

/// What differs in the policy and in the free text; number, times and digests differ each time. Of a first release, all of it.
fn rule_changes(old: Option<&Release>, new: &Release) -> Vec<RuleChange> {
    let json = |release: &Release| {
        let fields = [
            ("policy", serde_json::to_value(&release.policy)),
            ("info", serde_json::to_value(&release.info)),
        ];
        let fields = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.expect("the model is always JSON")));
        Value::Object(fields.collect())
    };
    let none = || serde_json::json!({ "policy": {}, "info": {} });
    let mut out = Vec::new();
    compare("", Some(&old.map_or_else(none, json)), Some(&json(new)), &mut out);
    out
}

fn compare(place: &str, old: Option<&Value>, new: Option<&Value>, out: &mut Vec<RuleChange>) {
    match (old, new) {
        (Some(Value::Object(was)), Some(Value::Object(is))) => {
            let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            for name in names {
                let (was, is) = (was.get(name), is.get(name));
                let name = word(name);
                let inner = if place.is_empty() { name } else { format!("{place}.{name}") };
                compare(&inner, was, is, out);
            }
        }
        (Some(Value::Array(was)), Some(Value::Array(is))) => {
            for at in 0..was.len().max(is.len()) {
                compare(&format!("{place}[{at}]"), was.get(at), is.get(at), out);
            }
        }
        (was, is) if was == is => {}
        (was, is) => {
            out.push(RuleChange { place: place.to_owned(), old: was.cloned(), new: is.cloned() });
        }
    }
}

/// A name as it is, or in quotes if it could be taken for something else than a name.
fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { Value::from(name).to_string() }
}

#[cfg(test)]
mod tests;
