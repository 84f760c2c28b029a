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
use nixfleet_core::model::names::{ChannelName, Seq};

use super::folder::Folder;
use super::now;
use super::ui::{Complaint, Done};

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
