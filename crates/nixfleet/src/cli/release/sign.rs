//! `nixfleet release sign`: shows what is signed, signs, and publishes when enough keys have.

use std::path::PathBuf;

use clap::Args;
use nixfleet::release::{Opened, open};
use nixfleet::served::Writing;
use nixfleet_core::model::names::{ChannelName, Seq};
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::envelope::Envelope;
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::root::{Role, RoleName, Root};
use nixfleet_trust::threshold::Signatures;
use nixfleet_trust::trust::Trust;

use super::{diff, newest, seq, show, tell_fork};
use crate::cli::folder::Folder;
use crate::cli::now;
use crate::cli::sign::{Chosen, SignArgs, write_bytes};
use crate::cli::ui::{self, Complaint, Done};

// Which release, and by whose word; a doc comment would become a text of the command.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The channel
    #[arg(long)]
    channel: ChannelName,
    /// Which release [default: the newest]
    #[arg(long, value_name = "N", value_parser = seq)]
    seq: Option<Seq>,
    /// Go by this root instead of the oldest that is served
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseSignArgs {
    #[command(flatten)]
    which: Which,
    /// Ask this store too for closures that are not on this machine, to show what changes (repeatable)
    #[arg(long, value_name = "STORE-URL")]
    from: Vec<String>,
    #[command(flatten)]
    sign: SignArgs,
}

pub(super) fn sign(folder: &Folder, args: &ReleaseSignArgs) -> Done {
    let now = now()?;
    let (channel, served) = (&args.which.channel, folder.served());
    let trust = folder.trust(args.which.root.as_deref(), now)?;
    let root = trust.root();
    let role = role(root, channel)?;
    let seq = newest(folder, channel, args.which.seq)?;
    let opened = open(served, channel, seq)?;
    let counts = |key: &PublicKey| role.keys.contains(&key.id());
    let signer = match args.sign.choose(counts)? {
        Chosen::Bytes(path) => return write_bytes(&path, &opened.envelope, "release sign"),
        Chosen::Signer(signer) => signer,
    };
    let id = signer.public_key().id();
    if !counts(signer.public_key()) {
        return Err(Complaint::refused(format!("{id} signs no releases of channel {channel}"))
            .hint("`nixfleet root show` lists the keys that do"));
    }
    tell(folder, &opened, root, args)?;
    ui::confirm(&format!("sign release {channel}/{seq} with {id}?"), args.sign.yes)?;
    let held = served.lock()?;
    // Somebody may have signed while this person was reading.
    let (envelope, _) = nixfleet::release::open_alone(served, channel, seq)?;
    if envelope.digest() != opened.envelope.digest() {
        return Err(Complaint::refused(format!("release {channel}/{seq} is another one than a moment ago")));
    }
    let envelope = nixfleet_trust::sign::add(&envelope, &*signer)?;
    served.put_signatures(&held, channel, seq, &envelope)?;
    publish_if_enough(folder, &held, &trust, (channel, seq), &envelope, now)
}

/// What signing does at its end, for signatures that came by another way, or after a crash.
pub(super) fn publish(folder: &Folder, which: &Which) -> Done {
    let now = now()?;
    let trust = folder.trust(which.root.as_deref(), now)?;
    let seq = newest(folder, &which.channel, which.seq)?;
    let held = folder.served().lock()?;
    let opened = open(folder.served(), &which.channel, seq)?;
    publish_if_enough(folder, &held, &trust, (&which.channel, seq), &opened.envelope, now)
}

/// Gives the release to hosts if enough keys have signed it and every host would take it.
fn publish_if_enough(
    folder: &Folder,
    held: &Writing,
    trust: &Trust,
    (channel, seq): (&ChannelName, Seq),
    envelope: &Envelope,
    now: UnixMs,
) -> Done {
    let (served, root) = (folder.served(), trust.root());
    let counted = count(envelope, root, channel, role(root, channel)?);
    if !counted.are_enough() {
        let (good, threshold) = (counted.good.len(), counted.threshold);
        ui::say(&format!(
            "release {channel}/{seq} is signed by {good} of {threshold}; it is not published yet"
        ));
        return Ok(());
    }
    // As a host will see it, before any does.
    let bytes = envelope.to_bytes();
    drop(trust.accept_release(channel, &bytes, now)?);
    tell_fork(folder, trust, (channel, seq), &bytes, now)?;
    let newer = served.latest(channel)?.filter(|latest| *latest > seq);
    // One from before the channel was set back gives way to a lower number.
    if let Some(newer) = newer
        && folder.numbers(channel, now)?.counts(newer)
    {
        ui::say(&format!("release {channel}/{seq} is signed, and a newer one is published already"));
        return Ok(());
    }
    served.publish(held, channel, seq)?;
    ui::say(&format!("release {channel}/{seq} is published"));
    ui::data(&format!("{channel}/{seq}"));
    Ok(())
}

fn role<'a>(root: &'a Root, channel: &ChannelName) -> Result<&'a Role, Complaint> {
    root.channels.get(channel).map(|rules| &rules.release).ok_or_else(|| {
        Complaint::refused(format!("root {} has no channel {channel}", root.version))
            .hint(format!("`nixfleet root channel {channel} --release-key FILE` adds it"))
    })
}

fn count(envelope: &Envelope, root: &Root, channel: &ChannelName, role: &Role) -> Signatures {
    Signatures::count(envelope, RoleName::Release(channel.clone()), role, &root.keys)
}

/// On stderr: what is about to be signed, and what it changes.
fn tell(folder: &Folder, opened: &Opened, root: &Root, args: &ReleaseSignArgs) -> Done {
    let Opened { release, envelope, entries } = opened;
    ui::say(&format!("release {}/{} of fleet {}", release.channel, release.seq, release.fleet));
    ui::say_all(show::summary(release, envelope, Some(root)));
    ui::say_all(show::waves(release, entries.values().map(|entry| entry.wave)));
    let numbers = folder.numbers_by(args.which.root.as_deref(), &release.channel, now()?)?;
    let old = diff::before(folder.served(), root, &numbers, opened)?;
    ui::say(&match old {
        Some(old) => format!("against     {}/{old}, the newest signed before it:", release.channel),
        None => "against     nothing: no release before it is signed".to_owned(),
    });
    let old = old.map(|old| open(folder.served(), &release.channel, old)).transpose()?;
    ui::say_all(diff::words(&diff::compare(old.as_ref(), opened, &args.from)?));
    Ok(())
}
