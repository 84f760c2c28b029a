//! Changes to a root, each on the next one: made from the root in force, or from changes that are there already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nixfleet::authority::NextRoot;
use nixfleet::fleet::suggest::did_you_mean;
use nixfleet::signers;
use nixfleet_core::model::names::{ChannelName, RootVersion, Seq};
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::key::{KeyId, PublicKey};
use nixfleet_trust::root::{self, ChannelRules, Root};

use super::{
    AddKeyArgs, ChannelArgs, NewArgs, RemoveKeyArgs, RenewArgs, Role, RotateArgs, ThresholdArgs, in_force,
    pending, role_name, show,
};
use crate::cli::folder::Folder;
use crate::cli::ui::{self, Complaint, Done};
use crate::cli::{later, now};

pub(super) fn new(folder: &Folder, args: &NewArgs) -> Done {
    if !folder.served().roots()?.is_empty() {
        return Err(Complaint::refused("this fleet has a root already")
            .hint("`nixfleet root renew` makes the next one"));
    }
    if folder.pending().load()?.is_some() {
        return Err(Complaint::refused("a first root is being signed already")
            .hint("`nixfleet root sign` goes on, `nixfleet root discard` drops it"));
    }
    let now = now()?;
    let mut keys: BTreeMap<KeyId, PublicKey> = BTreeMap::new();
    for path in &args.root_keys {
        let key = signers::public_key(path)?;
        keys.insert(key.id(), key);
    }
    let root = Root {
        fleet: args.fleet_id.clone(),
        version: RootVersion::FIRST,
        created_ms: now,
        expires_ms: later(now, args.expires_in)?,
        root: root::Role { keys: keys.keys().cloned().collect(), threshold: args.threshold },
        keys,
        channels: BTreeMap::new(),
        info: BTreeMap::new(),
    };
    keep(folder, None, root)
}

/// Applies one change to the next root.
pub(super) fn change(folder: &Folder, change: impl FnOnce(&mut Root) -> Done) -> Done {
    let now = now()?;
    let trust = in_force(folder, now)?;
    let old = trust.as_ref().map(|trust| trust.root().clone().into_inner());
    let mut root = match (pending(folder, trust.as_ref())?, &old) {
        (Some(NextRoot { root, .. }), _) => root,
        (None, Some(old)) => successor(old)?,
        (None, None) => {
            return Err(
                Complaint::refused("this fleet has no root yet").hint("`nixfleet root new` begins one")
            );
        }
    };
    // A host refuses what was made after its own time, and what is signed later may be made later.
    root.created_ms = now;
    change(&mut root)?;
    drop_idle_keys(&mut root);
    keep(folder, old.as_ref(), root)
}

fn successor(old: &Root) -> Result<Root, Complaint> {
    let version =
        old.version.next().ok_or_else(|| Complaint::refused("there is no version after this one"))?;
    Ok(Root { version, ..old.clone() })
}

fn keep(folder: &Folder, old: Option<&Root>, root: Root) -> Done {
    let pending = folder.pending();
    let had_signatures = pending.load()?.is_some_and(|next| !next.envelope.signatures().is_empty());
    let next = pending.keep(root)?;
    if had_signatures {
        ui::say("the signatures that it had were for something else and are dropped");
    }
    show::changes(old, &next.root);
    ui::say(&format!("root {} waits for signatures: `nixfleet root sign`", next.root.version));
    ui::data(&pending.path().display().to_string());
    Ok(())
}

/// A key without a role is a fault; one that lost its last role goes.
fn drop_idle_keys(root: &mut Root) {
    let used: BTreeSet<KeyId> = root.roles().flat_map(|(_, role)| role.keys.clone()).collect();
    root.keys.retain(|id, _| used.contains(id));
}

fn role_of<'a>(root: &'a mut Root, role: &Role) -> Result<&'a mut root::Role, Complaint> {
    match role {
        Role::Root => Ok(&mut root.root),
        Role::Release(channel) => Ok(&mut channel_of(root, channel)?.release),
    }
}

fn channel_of<'a>(root: &'a mut Root, channel: &ChannelName) -> Result<&'a mut ChannelRules, Complaint> {
    let known: Vec<String> = root.channels.keys().map(ToString::to_string).collect();
    root.channels.get_mut(channel).ok_or_else(|| {
        let complaint = Complaint::refused(format!("the root has no channel {channel}"));
        match did_you_mean(channel.as_str(), known.iter().map(String::as_str)) {
            Some(hint) => complaint.hint(hint),
            None => complaint.hint(format!("`nixfleet root channel {channel} --release-key FILE` adds it")),
        }
    })
}

pub(super) fn add_key(root: &mut Root, args: &AddKeyArgs) -> Done {
    let key = signers::public_key(&args.file)?;
    for role in &args.roles {
        add(role_of(root, role)?, &key);
    }
    root.keys.insert(key.id(), key);
    Ok(())
}

fn add(role: &mut root::Role, key: &PublicKey) {
    if !role.keys.contains(&key.id()) {
        role.keys.push(key.id());
    }
}

pub(super) fn remove_key(root: &mut Root, args: &RemoveKeyArgs) -> Done {
    let id = known_key(root, &args.key)?;
    let every = || {
        let channels = root.channels.keys().cloned().map(Role::Release);
        std::iter::once(Role::Root).chain(channels).collect()
    };
    let roles: Vec<Role> = if args.roles.is_empty() { every() } else { args.roles.clone() };
    for role in &roles {
        let found = role_of(root, role)?;
        let before = found.keys.len();
        found.keys.retain(|key| *key != id);
        if found.keys.len() == before && !args.roles.is_empty() {
            return Err(Complaint::refused(format!("{id} is not in role {}", role_name(role))));
        }
    }
    Ok(())
}

pub(super) fn rotate(root: &mut Root, args: &RotateArgs) -> Done {
    let old = known_key(root, &args.old)?;
    let new = signers::public_key(&args.new)?;
    let swap = |role: &mut root::Role| {
        if role.keys.contains(&old) {
            role.keys.retain(|key| *key != old);
            add(role, &new);
        }
    };
    swap(&mut root.root);
    root.channels.values_mut().for_each(|rules| swap(&mut rules.release));
    root.keys.insert(new.id(), new.clone());
    Ok(())
}

pub(super) fn threshold(root: &mut Root, args: &ThresholdArgs) -> Done {
    role_of(root, &args.role)?.threshold = args.threshold;
    Ok(())
}

pub(super) fn channel(root: &mut Root, args: &ChannelArgs) -> Done {
    let mut keys = Vec::new();
    for path in &args.release_keys {
        let key = signers::public_key(path)?;
        root.keys.insert(key.id(), key.clone());
        keys.push(key);
    }
    if !keys.is_empty() {
        root.channels.entry(args.channel.clone()).or_insert_with(|| ChannelRules {
            release: root::Role { keys: Vec::new(), threshold: 1 },
            seq_floor: Seq::ZERO,
            resets: 0,
            not_before_ms: UnixMs::EPOCH,
        });
    }
    let rules = channel_of(root, &args.channel)?;
    for key in &keys {
        add(&mut rules.release, key);
    }
    rules.release.threshold = args.threshold.unwrap_or(rules.release.threshold);
    rules.seq_floor = args.seq_floor.unwrap_or(rules.seq_floor);
    rules.not_before_ms = args.not_before.unwrap_or(rules.not_before_ms);
    if args.reset_floor {
        rules.resets += 1;
    }
    Ok(())
}

pub(super) fn remove_channel(root: &mut Root, channel: &ChannelName) -> Done {
    channel_of(root, channel)?;
    root.channels.remove(channel);
    Ok(())
}

pub(super) fn renew(folder: &Folder, args: &RenewArgs) -> Done {
    let expires = later(now()?, args.expires_in)?;
    change(folder, |root| {
        root.expires_ms = expires;
        Ok(())
    })
}

/// A key of the root, by its fingerprint or a file with it.
fn known_key(root: &Root, text: &str) -> Result<KeyId, Complaint> {
    if let Some(id) = root.keys.keys().find(|id| id.as_str() == text) {
        return Ok(id.clone());
    }
    let path = Path::new(text);
    if path.exists() {
        let id = signers::public_key(path)?.id();
        if root.keys.contains_key(&id) {
            return Ok(id);
        }
    }
    Err(Complaint::refused(format!("the root has no key {text}")).hint("`nixfleet root show` lists its keys"))
}
