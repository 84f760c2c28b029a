//! What a root says, and what a next one changes.

use nixfleet::authority::{NextRoot, Whose};
use nixfleet_core::model::time::Date;
use nixfleet_sys::fs;
use nixfleet_trust::check::root::first_root;
use nixfleet_trust::envelope::ENVELOPE_SIZE_MAX;
use nixfleet_trust::key::KeyId;
use nixfleet_trust::root::{ChannelRules, Role, Root};
use serde::Serialize;

use super::{ShowArgs, in_force, pending};
use crate::cli::folder::Folder;
use crate::cli::now;
use crate::cli::ui::{self, Complaint, Done, Output};

/// What `root show -o json` prints; version 1.
#[derive(Serialize)]
struct Shown<'a> {
    in_force: Option<&'a Root>,
    next: Option<Next<'a>>,
}

#[derive(Serialize)]
struct Next<'a> {
    root: &'a Root,
    signed_by: Vec<&'a KeyId>,
    enough: bool,
}

pub(super) fn show(folder: &Folder, args: &ShowArgs) -> Done {
    if let Some(file) = &args.file {
        let root = first_root(&fs::read_bounded(file, ENVELOPE_SIZE_MAX as u64)?)?;
        return print(Some(&root), "as the file says", None, args.output);
    }
    let now = now()?;
    let trust = in_force(folder, now)?;
    let old = trust.as_ref().map(|trust| &**trust.root());
    let next = pending(folder, trust.as_ref())?;
    if old.is_none() && next.is_none() {
        return Err(Complaint::refused("there is no root here")
            .hint("`nixfleet init` or `nixfleet root new` makes one"));
    }
    print(old, "in force", next.as_ref(), args.output)
}

fn print(old: Option<&Root>, state: &str, next: Option<&NextRoot>, output: Output) -> Done {
    match output {
        Output::Json => {
            let next = next.map(|next| Next {
                root: &next.root,
                signed_by: next.envelope.signatures().keys().collect(),
                enough: next.signatures(old).iter().all(|(_, counted)| counted.are_enough()),
            });
            ui::json(&Shown { in_force: old, next })
        }
        Output::Name => {
            let root = old.or(next.map(|next| &next.root));
            ui::lines(root.into_iter().flat_map(|root| root.keys.keys().map(KeyId::as_str)));
            Ok(())
        }
        Output::Table => {
            if let Some(root) = old {
                ui::data(&head(root, state));
                table(root);
            }
            if let Some(next) = next {
                ui::data(&head(&next.root, "next, not in force"));
                table(&next.root);
                ui::lines(signatures(next, old));
            }
            Ok(())
        }
    }
}

fn head(root: &Root, state: &str) -> String {
    format!(
        "root {} of fleet {} ({state}), made {}, expires {}",
        root.version,
        root.fleet,
        Date(root.created_ms),
        Date(root.expires_ms)
    )
}

fn table(root: &Root) {
    let mut rows = Vec::new();
    for (name, role) in root.roles() {
        for (place, id) in role.keys.iter().enumerate() {
            let kind = root.keys.get(id).map_or("missing", |key| key.key_type().ssh_name());
            let (name, threshold) = match place {
                0 => (name.to_string(), format!("{} of {}", role.threshold, role.keys.len())),
                _ => (String::new(), String::new()),
            };
            rows.push(vec![name, threshold, id.to_string(), kind.to_owned()]);
        }
    }
    ui::table(&["ROLE", "NEEDS", "KEY", "TYPE"], &rows);
    for (channel, rules) in &root.channels {
        let mut said = Vec::new();
        if rules.seq_floor.get() > 0 {
            said.push(format!("no release below {}", rules.seq_floor));
        }
        if rules.not_before_ms.get() > 0 {
            said.push(format!("none made before {}", Date(rules.not_before_ms)));
        }
        if rules.resets > 0 {
            said.push(format!("floors set back {} times", rules.resets));
        }
        if !said.is_empty() {
            ui::data(&format!("channel {channel}: {}", said.join(", ")));
        }
    }
}

fn signatures(next: &NextRoot, old: Option<&Root>) -> Vec<String> {
    let line = |(whose, counted): (Whose, nixfleet_trust::threshold::Signatures)| {
        let whose = match whose {
            Whose::InForce(version) => format!("keys of root {version}"),
            Whose::Own => "its own keys".to_owned(),
        };
        format!("signed by {} of {} {whose}", counted.good.len(), counted.threshold)
    };
    next.signatures(old).into_iter().map(line).collect()
}

/// Says on stderr what `next` changes: what a person wants to see before signing.
pub(super) fn changes(old: Option<&Root>, next: &Root) {
    ui::say(&head(next, "next"));
    let Some(old) = old else {
        for (name, role) in next.roles() {
            ui::say(&format!("  {name}: {} of {}", role.threshold, keys(role)));
        }
        return;
    };
    differences(old, next);
}

/// Says on stderr what is another in `next` than in `old`.
pub(crate) fn differences(old: &Root, next: &Root) {
    for id in next.keys.keys().filter(|id| !old.keys.contains_key(*id)) {
        ui::say(&format!("  + key {id}"));
    }
    for id in old.keys.keys().filter(|id| !next.keys.contains_key(*id)) {
        ui::say(&format!("  - key {id}"));
    }
    role_change("root", Some(&old.root), Some(&next.root));
    for (channel, rules) in &next.channels {
        let before = old.channels.get(channel);
        role_change(&format!("release/{channel}"), before.map(|rules| &rules.release), Some(&rules.release));
        rule_changes(&channel.to_string(), before, rules);
    }
    for (channel, rules) in old.channels.iter().filter(|(channel, _)| !next.channels.contains_key(*channel)) {
        role_change(&format!("release/{channel}"), Some(&rules.release), None);
    }
    if old.expires_ms != next.expires_ms {
        ui::say(&format!("  ~ expires {} -> {}", Date(old.expires_ms), Date(next.expires_ms)));
    }
}

fn keys(role: &Role) -> String {
    role.keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn role_change(name: &str, old: Option<&Role>, new: Option<&Role>) {
    let said = |role: Option<&Role>| match role {
        Some(role) => format!("{} of [{}]", role.threshold, keys(role)),
        None => "nothing".to_owned(),
    };
    if old != new {
        ui::say(&format!("  ~ {name}: {} -> {}", said(old), said(new)));
    }
}

fn rule_changes(channel: &str, old: Option<&ChannelRules>, new: &ChannelRules) {
    let Some(old) = old else { return };
    if old.seq_floor != new.seq_floor {
        ui::say(&format!("  ~ {channel}: no release below {} -> {}", old.seq_floor, new.seq_floor));
    }
    if old.not_before_ms != new.not_before_ms {
        let (was, is) = (Date(old.not_before_ms), Date(new.not_before_ms));
        ui::say(&format!("  ~ {channel}: no release made before {was} -> {is}"));
    }
    if old.resets != new.resets {
        ui::say(&format!(
            "  ~ {channel}: hosts forget their floors (reset {} -> {})",
            old.resets, new.resets
        ));
    }
}
