//! `nixfleet release`: build, sign and publish what a channel shall run, and look at it.

pub(crate) mod check;

mod build;
mod diff;
mod list;
mod push;
mod show;
mod sign;
mod verify;
mod worktree;

use clap::Subcommand;
use nixfleet::release::open_alone;
use nixfleet::served::Served;
use nixfleet_core::model::names::{ChannelName, Seq, Sha256};
use nixfleet_core::model::release::Release;
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::check::release::Succession;
use nixfleet_trust::root::{RoleName, Root};
use nixfleet_trust::threshold::Signatures;
use nixfleet_trust::trust::Trust;

use super::folder::Folder;
use super::now;
use super::ui::{self, Complaint, Done};

#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseVerb {
    /// Build every host's system and write a release, to be signed
    Build(build::BuildArgs),
    /// Sign a release; it is published when enough keys have signed
    Sign(sign::ReleaseSignArgs),
    /// Publish a release that enough keys have signed already
    Publish(sign::Which),
    /// Bring a published release to the control plane
    Push(push::PushArgs),
    /// List the releases that are here, and which of them are published
    List(list::ReleaseListArgs),
    /// Show what a release says
    Show(show::ReleaseShowArgs),
    /// Show what a release changes: packages, units, reboots, hosts and rules
    Diff(diff::ReleaseDiffArgs),
    /// Check a release as a host does, and every entry in it
    Verify(verify::ReleaseVerifyArgs),
}

pub(crate) fn release(folder: &Folder, verb: ReleaseVerb) -> Done {
    match verb {
        ReleaseVerb::Build(args) => build::build(folder, &args),
        ReleaseVerb::Sign(args) => sign::sign(folder, &args),
        ReleaseVerb::Publish(args) => sign::publish(folder, &args),
        ReleaseVerb::Push(args) => push::push(folder, &args),
        ReleaseVerb::List(args) => list::list(folder, &args),
        ReleaseVerb::Show(args) => show::show(folder, &args),
        ReleaseVerb::Diff(args) => diff::show(folder, &args),
        ReleaseVerb::Verify(args) => verify::verify(folder, &args),
    }
}

/// Says so if a host that followed the release before this one would see a fork: it comes right after that one by its number,
/// and names another one as its predecessor. A host takes it all the same, since its signatures are good.
fn tell_fork(
    folder: &Folder,
    trust: &Trust,
    (channel, seq): (&ChannelName, Seq),
    envelope: &[u8],
    now: UnixMs,
) -> Done {
    let served = folder.served();
    let Some(before) = served.seqs(channel)?.into_iter().find(|before| before.next() == Some(seq)) else {
        return Ok(());
    };
    // At the time when it was made, since by now it may have expired.
    let Ok((first, made)) = open_alone(served, channel, before) else { return Ok(()) };
    let followed = trust.accept_release(channel, &first.to_bytes(), made.created_ms);
    let next = followed.and_then(|followed| followed.trust.accept_release(channel, envelope, now));
    if next.is_ok_and(|next| next.succession == Succession::Forked) {
        ui::say(&format!(
            "warning: release {channel}/{seq} names another release than {channel}/{before} as the one before it, and both \
             are signed: hosts may have been shown two histories"
        ));
    }
    Ok(())
}

/// A release that enough keys of the root have signed, with its digest. `None` for every other one, also for one that cannot be
/// read: whoever can write to the folder can put it there.
fn signed(served: &Served, root: &Root, channel: &ChannelName, seq: Seq) -> Option<(Release, Sha256)> {
    let role = &root.channels.get(channel)?.release;
    let (envelope, release) = open_alone(served, channel, seq).ok()?;
    let name = RoleName::Release(channel.clone());
    let enough = Signatures::count(&envelope, name, role, &root.keys).are_enough();
    (enough && release.fleet == root.fleet).then(|| (release, envelope.digest()))
}

/// The newest release of the channel that counts, published or not, unless a number is given.
fn newest(folder: &Folder, channel: &ChannelName, seq: Option<Seq>) -> Result<Seq, Complaint> {
    match seq {
        Some(seq) if folder.served().seqs(channel)?.contains(&seq) => Ok(seq),
        Some(seq) => Err(Complaint::refused(format!("channel {channel} has no release {seq}"))),
        None => folder.numbers(channel, now()?)?.newest().ok_or_else(|| {
            Complaint::refused(format!("channel {channel} has no release"))
                .hint(format!("`nixfleet release build --channel {channel}` makes one"))
        }),
    }
}

/// A number on the command line.
fn seq(text: &str) -> Result<Seq, String> {
    let number = text.parse().map_err(|_| "it is a whole number".to_owned())?;
    Seq::new(number).map_err(|error| error.to_string())
}
