//! `nixfleet root`: which keys the fleet trusts, and for what.
//!
//! A change makes the next root, which is kept in the fleet folder until enough keys have signed it, one at a time. Then
//! it is served, and hosts take it up.

pub(crate) mod show;

mod edit;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use nixfleet::authority::{NextRoot, Whose};
use nixfleet_core::model::names::{ChannelName, FleetId, Seq};
use nixfleet_core::model::time::{Date, UnixMs};
use nixfleet_trust::check::root::{first_root, next_root};
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::root::{RoleName, Root};
use nixfleet_trust::trust::Trust;

use super::folder::Folder;
use super::sign::{Chosen, SignArgs, write_bytes};
use super::ui::{self, Complaint, Done, Output};
use super::{now, span, time};

#[derive(Debug, Subcommand)]
pub(crate) enum RootVerb {
    /// Begin the first root of a fleet
    New(NewArgs),
    /// Show the root in force, and the next one if there is one
    Show(ShowArgs),
    /// Let a key sign for a role
    AddKey(AddKeyArgs),
    /// Take a key out of a role, or out of all of them
    RemoveKey(RemoveKeyArgs),
    /// Put a new key in the place of an old one, in every role that it is in
    Rotate(RotateArgs),
    /// Say how many different keys of a role must sign
    Threshold(ThresholdArgs),
    /// Add or change a channel: its floor, the earliest releases that are taken, a reset
    Channel(ChannelArgs),
    /// Take a channel away: its hosts accept no release any more
    RemoveChannel(RemoveChannelArgs),
    /// Give the root a new time to expire
    Renew(RenewArgs),
    /// Sign the next root; it is put in force when enough keys have signed
    Sign(SignArgs),
    /// Check the chain of roots that is served
    Verify(VerifyArgs),
    /// Drop the next root
    Discard,
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The fleet's id, which every signed document carries for ever
    #[arg(long)]
    fleet_id: FleetId,
    /// A public key that signs roots (repeatable)
    #[arg(long = "root-key", value_name = "FILE", required = true)]
    root_keys: Vec<PathBuf>,
    /// How many of these must sign
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: u32,
    /// When it expires
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "2y")]
    expires_in: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Show the root in this file instead, which must be signed by its own keys
    file: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AddKeyArgs {
    /// The public key
    file: PathBuf,
    /// `root`, or `release/CHANNEL` (repeatable)
    #[arg(long = "role", required = true, value_name = "ROLE", value_parser = role)]
    roles: Vec<Role>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveKeyArgs {
    /// Its fingerprint, or a file with it
    key: String,
    /// Only out of these roles: `root`, or `release/CHANNEL` (repeatable)
    #[arg(long = "role", value_name = "ROLE", value_parser = role)]
    roles: Vec<Role>,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// The old key's fingerprint, or a file with it
    old: String,
    /// The new public key
    new: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ThresholdArgs {
    /// `root`, or `release/CHANNEL`
    #[arg(value_parser = role)]
    role: Role,
    /// How many
    threshold: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelArgs {
    /// The channel; a new one needs `--release-key`
    channel: ChannelName,
    /// A public key that signs its releases, besides those that are there (repeatable)
    #[arg(long = "release-key", value_name = "FILE")]
    release_keys: Vec<PathBuf>,
    /// How many different keys must sign
    #[arg(long, value_name = "N")]
    threshold: Option<u32>,
    /// No host takes a release with a lower number
    #[arg(long, value_name = "N", value_parser = seq)]
    seq_floor: Option<Seq>,
    /// Refuse releases that were made earlier: the answer to a stolen key
    #[arg(long, value_name = "WHEN", value_parser = time)]
    not_before: Option<UnixMs>,
    /// Let hosts forget the highest number that they have seen: the way back after a stolen key signed the highest there is. Take
    /// that key away in the same root, or say `--not-before` with it, or a host that looks before your next release is there takes
    /// the highest number once more. Then sign the root, and build and sign the release
    #[arg(long)]
    reset_floor: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveChannelArgs {
    channel: ChannelName,
}

#[derive(Debug, Args)]
pub(crate) struct RenewArgs {
    /// From now
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "2y")]
    expires_in: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Begin with this root instead of the oldest that is served, as a host does that was given it
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

/// A role on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    Root,
    Release(ChannelName),
}

fn role(text: &str) -> Result<Role, String> {
    if text == "root" {
        return Ok(Role::Root);
    }
    let channel = text.strip_prefix("release/").ok_or("a role is `root` or `release/CHANNEL`")?;
    channel.parse().map(Role::Release).map_err(|error| format!("{error}"))
}

fn seq(text: &str) -> Result<Seq, String> {
    let number = text.parse().map_err(|_| "it is a whole number".to_owned())?;
    Seq::new(number).map_err(|error| error.to_string())
}

pub(crate) fn root(folder: &Folder, verb: RootVerb) -> Done {
    match verb {
        RootVerb::New(args) => edit::new(folder, &args),
        RootVerb::Show(args) => show::show(folder, &args),
        RootVerb::AddKey(args) => edit::change(folder, |root| edit::add_key(root, &args)),
        RootVerb::RemoveKey(args) => edit::change(folder, |root| edit::remove_key(root, &args)),
        RootVerb::Rotate(args) => edit::change(folder, |root| edit::rotate(root, &args)),
        RootVerb::Threshold(args) => edit::change(folder, |root| edit::threshold(root, &args)),
        RootVerb::Channel(args) => edit::change(folder, |root| edit::channel(root, &args)),
        RootVerb::RemoveChannel(args) => {
            edit::change(folder, |root| edit::remove_channel(root, &args.channel))
        }
        RootVerb::Renew(args) => edit::renew(folder, &args),
        RootVerb::Sign(args) => sign(folder, &args),
        RootVerb::Verify(args) => verify(folder, &args),
        RootVerb::Discard => discard(folder),
    }
}

/// The root in force; `None` before the first.
fn in_force(folder: &Folder, now: UnixMs) -> Result<Option<Trust>, Complaint> {
    if folder.served().roots()?.is_empty() { Ok(None) } else { folder.trust(None, now).map(Some) }
}

/// The changes that wait for signatures; `None` if there are none.
///
/// A next root that is in force already is what a crash leaves between serving it and dropping the file.
fn pending(folder: &Folder, in_force: Option<&Trust>) -> Result<Option<NextRoot>, Complaint> {
    let Some(next) = folder.pending().load()? else { return Ok(None) };
    let Some(root) = in_force.map(Trust::root) else { return Ok(Some(next)) };
    if next.envelope.digest() == root.digest() {
        folder.pending().drop()?;
        return Ok(None);
    }
    if Some(next.root.version) == root.version.next() {
        return Ok(Some(next));
    }
    Err(Complaint::refused(format!(
        "the next root has version {}, and {} is in force",
        next.root.version, root.version
    ))
    .hint("somebody else was faster: `nixfleet root discard`, then make the changes again"))
}

fn next(folder: &Folder, in_force: Option<&Trust>) -> Result<NextRoot, Complaint> {
    pending(folder, in_force)?.ok_or_else(|| {
        Complaint::refused("there is no next root to sign")
            .hint("`nixfleet root add-key`, `rotate`, `channel` and `renew` make one")
    })
}

fn sign(folder: &Folder, args: &SignArgs) -> Done {
    let now = now()?;
    let trust = in_force(folder, now)?;
    let old = trust.as_ref().map(|trust| &**trust.root());
    let next = next(folder, trust.as_ref())?;
    let in_role = |key: &PublicKey| {
        let of = |root: &Root| root.root.keys.contains(&key.id());
        of(&next.root) || old.is_some_and(of)
    };
    let signer = match args.choose(in_role)? {
        Chosen::Bytes(path) => return write_bytes(&path, &next.envelope, "root sign"),
        Chosen::Signer(signer) => signer,
    };
    if !in_role(signer.public_key()) {
        return Err(Complaint::refused(format!("{} signs no roots of this fleet", signer.public_key().id()))
            .hint("`nixfleet root show` lists the keys that do"));
    }
    show::changes(old, &next.root);
    ui::confirm(&format!("sign root {} of fleet {}?", next.root.version, next.root.fleet), args.yes)?;
    let envelope = nixfleet_trust::sign::add(&next.envelope, &*signer)?;
    let held = folder.served().lock()?;
    folder.pending().keep_signed(&envelope)?;
    let next = NextRoot { envelope, ..next };
    put_in_force(folder, &held, trust.as_ref(), &next, now)
}

/// Serves the next root if enough keys have signed it, and says who is missing if not.
fn put_in_force(
    folder: &Folder,
    held: &nixfleet::served::Writing,
    trust: Option<&Trust>,
    next: &NextRoot,
    now: UnixMs,
) -> Done {
    let old = trust.map(|trust| &**trust.root());
    let lacking: Vec<String> = next
        .signatures(old)
        .into_iter()
        .filter(|(_, counted)| !counted.are_enough())
        .map(|(whose, counted)| {
            let whose = match whose {
                Whose::InForce(version) => format!("keys of root {version}, which is in force"),
                Whose::Own => "its own keys".to_owned(),
            };
            format!("{} of {} {whose}", counted.good.len(), counted.threshold)
        })
        .collect();
    if !lacking.is_empty() {
        ui::say(&format!(
            "root {} is signed by {}; it is not in force yet",
            next.root.version,
            lacking.join(" and ")
        ));
        return Ok(());
    }
    let bytes = next.envelope.to_bytes();
    // As a host will see it.
    match trust {
        Some(trust) => drop(next_root(trust.root(), &bytes, Some(trust.time(now)))?),
        None => drop(first_root(&bytes)?),
    }
    folder.served().put_root(held, next.root.version, &next.envelope)?;
    folder.pending().drop()?;
    ui::say(&format!("root {} is in force", next.root.version));
    ui::data(
        &folder
            .served()
            .folder()
            .join(nixfleet_core::model::layout::root(next.root.version.get()))
            .display()
            .to_string(),
    );
    Ok(())
}

fn verify(folder: &Folder, args: &VerifyArgs) -> Done {
    let now = now()?;
    let trust = folder.trust(args.root.as_deref(), now)?;
    let root = trust.root();
    let newest = folder.served().roots()?.keys().next_back().copied();
    if let Some(newest) = newest.filter(|newest| *newest > root.version) {
        return Err(Complaint::refused(format!(
            "root {newest} is served, and the chain ends at root {}",
            root.version
        )));
    }
    if root.expires_ms <= now {
        return Err(Complaint::refused(format!(
            "root {} expired on {}",
            root.version,
            Date(root.expires_ms)
        ))
        .hint("`nixfleet root renew`, then `nixfleet root sign`"));
    }
    ui::say(&format!(
        "root {} of fleet {} is good until {}",
        root.version,
        root.fleet,
        Date(root.expires_ms)
    ));
    Ok(())
}

fn discard(folder: &Folder) -> Done {
    let next = folder.pending().load()?.ok_or_else(|| Complaint::refused("there is no next root to drop"))?;
    folder.pending().drop()?;
    ui::say(&format!("dropped the next root, version {}", next.root.version));
    Ok(())
}

/// A role's name, as on the command line.
fn role_name(role: &Role) -> RoleName {
    match role {
        Role::Root => RoleName::Root,
        Role::Release(channel) => RoleName::Release(channel.clone()),
    }
}
