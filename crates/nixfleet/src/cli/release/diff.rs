//! `nixfleet release diff`: what a release changes, for whoever is to sign it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use nixfleet::diff::{Diff, Packages, Step, UnitChange, UnitChanges, diff, systems};
use nixfleet::nix::{Closures, Nix};
use nixfleet::numbers::Numbers;
use nixfleet::release::{Opened, open};
use nixfleet::served::Served;
use nixfleet_core::activation::inhibit::Inhibitor;
use nixfleet_core::ids::StorePath;
use nixfleet_core::model::names::{ChannelName, HostName, Seq, Sha256};
use nixfleet_trust::root::Root;

use super::{newest, seq, signed};
use crate::cli::folder::Folder;
use crate::cli::now;
use crate::cli::ui::{self, Complaint, Done, Output};

#[derive(Debug, Args)]
pub(crate) struct ReleaseDiffArgs {
    /// The channel
    #[arg(long)]
    channel: ChannelName,
    /// Which release [default: the newest, signed or not]
    #[arg(long, value_name = "N", value_parser = seq)]
    seq: Option<Seq>,
    /// Against which one [default: the newest before it that enough keys have signed]
    #[arg(long, value_name = "N", value_parser = seq)]
    against: Option<Seq>,
    /// Go by this root instead of the oldest that is served
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Ask this store too for closures that are not on this machine, such as a binary cache (repeatable)
    #[arg(long, value_name = "STORE-URL")]
    from: Vec<String>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

pub(super) fn show(folder: &Folder, args: &ReleaseDiffArgs) -> Done {
    let seq = newest(folder, &args.channel, args.seq)?;
    let new = open(folder.served(), &args.channel, seq)?;
    let old = if let Some(against) = args.against {
        Some(newest(folder, &args.channel, Some(against))?)
    } else {
        let (now, first) = (now()?, args.root.as_deref());
        let numbers = folder.numbers_by(first, &args.channel, now)?;
        before(folder.served(), folder.trust(first, now)?.root(), &numbers, &new)?
    };
    let old = old.map(|old| open(folder.served(), &args.channel, old)).transpose()?;
    let found = compare(old.as_ref(), &new, &args.from)?;
    match args.output {
        Output::Json => ui::json(&found),
        Output::Name => {
            ui::lines(found.steps.iter().flat_map(|step| step.hosts.iter().map(HostName::as_str)));
            Ok(())
        }
        Output::Table => {
            ui::lines(words(&found));
            Ok(())
        }
    }
}

/// The release to compare `new` with: the newest before it that enough keys have signed. What is unsigned counts for nothing here,
/// neither a release, nor `latest`, nor what `new` itself says of the one before it: who has no key can write all of these. Where
/// they say something else, that is said.
pub(super) fn before(
    served: &Served,
    root: &Root,
    numbers: &Numbers,
    new: &Opened,
) -> Result<Option<Seq>, Complaint> {
    let (channel, seq) = (&new.release.channel, new.release.seq);
    let found = newest_signed(served, root, numbers, new)?;
    let compared = match &found {
        Some((given, _)) => format!("it is compared with {channel}/{given}"),
        None => "it is compared with nothing, and all of it is shown as new".to_owned(),
    };
    if let Some(latest) = served.latest(channel)?
        && signed(served, root, channel, latest).is_none()
    {
        let which = if latest == seq { ", the very one that is shown here" } else { "" };
        ui::say(&format!(
            "warning: hosts are pointed to release {channel}/{latest}{which}, and not enough keys of root {} have signed it. \
             Unless the root changed its keys since, somebody without a key wrote to `{}`: {compared}",
            root.version,
            served.folder().display()
        ));
    }
    let Some((given, digest)) = found else {
        if let Some(named) = new.release.previous {
            ui::say(&format!(
                "warning: it names {named} as the release before it, and no release of channel {channel} before it is here \
                 that enough keys have signed: {compared}"
            ));
        }
        return Ok(None);
    };
    if new.release.previous != Some(digest) {
        let named = new.release.previous.map_or_else(|| "none".to_owned(), |named| named.to_string());
        ui::say(&format!(
            "warning: the newest signed release before it is {channel}/{given} ({digest}), and it names {named} as the one \
             before it. Unless it was built before {channel}/{given} was published, somebody shows two histories: find out who \
             made it; {compared}"
        ));
    }
    Ok(Some(given))
}

/// The highest number below `new` that is signed and counts. Before the first release of a channel that was set back, that is the
/// newest made of those from before, whatever its number.
fn newest_signed(
    served: &Served,
    root: &Root,
    numbers: &Numbers,
    new: &Opened,
) -> Result<Option<(Seq, Sha256)>, Complaint> {
    let (channel, seq) = (&new.release.channel, new.release.seq);
    let seqs = served.seqs(channel)?;
    let below = seqs.iter().rev().filter(|one| **one < seq && numbers.counts(**one));
    for one in below {
        if let Some((_, digest)) = signed(served, root, channel, *one) {
            return Ok(Some((*one, digest)));
        }
    }
    let set_back = seqs.into_iter().filter(|one| *one != seq && !numbers.counts(*one));
    let made =
        |one| signed(served, root, channel, one).map(|(release, digest)| (release.created_ms, one, digest));
    Ok(set_back
        .filter_map(made)
        .max_by_key(|(made, one, _)| (*made, *one))
        .map(|(_, one, digest)| (one, digest)))
}

/// Compares, with as much of the closures as can be had: none where there is no Nix.
pub(super) fn compare(old: Option<&Opened>, new: &Opened, from: &[String]) -> Result<Diff, Complaint> {
    let wanted: Vec<StorePath> = systems(old, new).into_iter().cloned().collect();
    let closures = match Nix::find() {
        Ok(nix) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(nix.known_closures(&wanted, from))?
        }
        Err(_) => Closures::new(Vec::new())?,
    };
    Ok(diff(old, new, &closures))
}

/// The most hosts that are named in one line.
const NAMES_MAX: usize = 5;

/// The comparison for a person.
pub(super) fn words(diff: &Diff) -> Vec<String> {
    let Diff { added, removed, other_contents, entries, rules, unchanged, steps } = diff;
    let mut out = Vec::new();
    let moving: usize = steps.iter().map(|step| step.hosts.len()).sum();
    let (gets, keeps) = (
        if moving == 1 { "gets" } else { "get" },
        if *unchanged == 1 { "keeps its own" } else { "keep theirs" },
    );
    out.push(format!("{} {gets} another system, {unchanged} {keeps}", ui::hosts(moving)));
    if !added.is_empty() {
        out.push(format!("+ hosts       {}", names(added)));
    }
    if !removed.is_empty() {
        out.push(format!("- hosts       {}", names(removed)));
    }
    if !other_contents.is_empty() {
        out.push(format!(
            "! contents    not those that are known under the same store path (forged, or built twice with different \
             results): {}",
            names(other_contents)
        ));
    }
    let mut by_fields: BTreeMap<String, Vec<HostName>> = BTreeMap::new();
    for change in entries {
        by_fields.entry(change.fields.join(", ")).or_default().push(change.host.clone());
    }
    out.extend(by_fields.iter().map(|(fields, hosts)| format!("~ {fields:<11} {}", names(hosts))));
    let value =
        |value: &Option<serde_json::Value>| value.as_ref().map_or("none".to_owned(), ToString::to_string);
    out.extend(
        rules.iter().map(|rule| format!("~ {}: {} -> {}", rule.place, value(&rule.old), value(&rule.new))),
    );
    out.extend(package_words(steps));
    out.extend(unit_words(steps));
    out.extend(reboot_words(steps));
    out.extend(size_words(steps));
    out
}

fn names(hosts: &[HostName]) -> String {
    let shown: Vec<&str> = hosts.iter().take(NAMES_MAX).map(HostName::as_str).collect();
    match hosts.len().checked_sub(NAMES_MAX) {
        Some(more @ 1..) => format!("{} and {more} more", shown.join(", ")),
        Some(0) | None => shown.join(", "),
    }
}

/// For each thing that steps say, the number of hosts that it is about.
fn counted<T: Ord>(steps: &[Step], said: impl Fn(&Step) -> Vec<T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for step in steps {
        for one in said(step) {
            *counts.entry(one).or_default() += step.hosts.len();
        }
    }
    counts
}

/// How many hosts the answer is not known for.
fn unknown(steps: &[Step], is_unknown: impl Fn(&Step) -> bool) -> usize {
    steps.iter().filter(|step| is_unknown(step)).map(|step| step.hosts.len()).sum()
}

fn package_words(steps: &[Step]) -> Vec<String> {
    let updates: Vec<Step> = steps.iter().filter(|step| step.old.is_some()).cloned().collect();
    let said = |step: &Step| match &step.packages {
        Some(Packages { changed, rebuilt: _ }) => changed.iter().map(ToString::to_string).collect(),
        None => Vec::new(),
    };
    let mut out: Vec<String> = counted(&updates, said)
        .into_iter()
        .map(|(change, count)| format!("package       {change} ({})", ui::hosts(count)))
        .collect();
    let rebuilt =
        updates.iter().filter_map(|step| step.packages.as_ref()).map(|p| p.rebuilt).max().unwrap_or(0);
    if rebuilt > 0 {
        out.push(format!("rebuilt       up to {rebuilt} packages in the same version"));
    }
    let missing = unknown(steps, |step| step.packages.is_none());
    if missing > 0 {
        out.push(format!(
            "package       unknown for {}: a closure is not on this machine (ask a cache with `--from`)",
            ui::hosts(missing)
        ));
    }
    out
}

fn unit_words(steps: &[Step]) -> Vec<String> {
    let said = |step: &Step| match &step.units {
        Some(UnitChanges(units)) => units.iter().map(|(unit, change)| (*change, unit.clone())).collect(),
        None => Vec::new(),
    };
    let word = |change| match change {
        UnitChange::Added => "added",
        UnitChange::Removed => "removed",
        UnitChange::Changed => "changed",
    };
    let mut out: Vec<String> = counted(steps, said)
        .into_iter()
        .map(|((change, unit), count)| {
            format!("unit          {unit} {} ({})", word(change), ui::hosts(count))
        })
        .collect();
    let missing = unknown(steps, |step| step.old.is_some() && step.units.is_none());
    if missing > 0 {
        out.push(format!(
            "unit          unknown for {}: a system is not on this machine",
            ui::hosts(missing)
        ));
    }
    out
}

fn reboot_words(steps: &[Step]) -> Vec<String> {
    let said = |step: &Step| step.reboot.iter().flatten().map(Inhibitor::to_string).collect();
    let mut out: Vec<String> = counted(steps, said)
        .into_iter()
        .map(|(part, count)| format!("reboot        needed for {part} ({})", ui::hosts(count)))
        .collect();
    let missing = unknown(steps, |step| step.old.is_some() && step.reboot.is_none());
    if missing > 0 {
        out.push(format!(
            "reboot        unknown for {}: a system is not on this machine",
            ui::hosts(missing)
        ));
    } else if out.is_empty() && steps.iter().any(|step| step.old.is_some()) {
        out.push("reboot        not needed".to_owned());
    }
    out
}

/// The sizes of distinct closures, old and new, smallest and largest.
fn size_words(steps: &[Step]) -> Option<String> {
    let range = |sizes: BTreeSet<u64>| match (sizes.first(), sizes.last()) {
        (Some(least), Some(most)) if least != most => {
            format!("{} to {}", ui::bytes(*least), ui::bytes(*most))
        }
        (Some(only), _) => ui::bytes(*only),
        (None, _) => "none".to_owned(),
    };
    if steps.is_empty() {
        return None;
    }
    let old = range(steps.iter().filter_map(|step| step.old_bytes).collect());
    let new = range(steps.iter().map(|step| step.new_bytes).collect());
    Some(format!("closure       {old} -> {new}"))
}
