//! `nixfleet release push`: a published release goes to the control plane, which verifies it and serves it from then on.

use std::sync::OnceLock;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nixfleet::numbers::Numbers;
use nixfleet::release::{open_alone, open_entry};
use nixfleet::remote::sending::{Documents, NotPushed};
use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, ReleaseId, RootVersion, Seq};
use nixfleet_core::wire::people::{PushOutcome, Pushed};
use nixfleet_core::wire::rollouts::RolloutView;
use nixfleet_trust::envelope::{Envelope, PayloadType};
use nixfleet_trust::json;
use nixfleet_trust::root::Root;

use super::{newest, seq, show};
use crate::cli::asking::{AskArgs, Asking, asking, complain};
use crate::cli::folder::Folder;
use crate::cli::now;
use crate::cli::rollout::{state, wave};
use crate::cli::root::show::differences;
use crate::cli::ui::{self, Complaint, Done, Output};

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The channel
    #[arg(long)]
    channel: ChannelName,
    /// Which release [default: the one that is published]
    #[arg(long, value_name = "N", value_parser = seq)]
    seq: Option<Seq>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// How it is told what became of it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
}

/// How far a push is. There is one in a process.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

pub(crate) fn push(folder: &Folder, args: &PushArgs) -> Done {
    let PushArgs { channel, seq, yes, output, ask } = args;
    let seq = which(folder, channel, *seq)?;
    let contents = contents(folder, channel, seq)?;
    let documents = Documents::of(folder.served(), channel, seq, |_| {
        if let Some(bar) = BAR.get() {
            bar.inc(1);
        }
    })?;
    let digest = open_alone(folder.served(), channel, seq)?.0.digest();
    let release = ReleaseId { channel: channel.clone(), seq, digest };
    let numbers = folder.numbers(channel, now()?)?;
    asking(ask, async |server| {
        ui::say_all(&contents);
        tell_roots(folder, &server).await?;
        ui::say_all(superseded(&server, &release, &numbers).await?);
        ui::confirm(&format!("push release {channel}/{seq} to {}?", server.remote().server()), *yes)?;
        let bar = BAR.get_or_init(|| bar(documents.count()));
        let pushed = server.remote().push(documents).await;
        bar.finish_and_clear();
        match pushed {
            Ok(pushed) => tell(&pushed, *output),
            Err(NotPushed::Document(error)) => Err(error.into()),
            Err(NotPushed::Remote(error)) => Err(complain(&error)),
        }
    })
}

/// The release that is meant: the published one, unless a number is given.
fn which(folder: &Folder, channel: &ChannelName, seq: Option<Seq>) -> Result<Seq, Complaint> {
    match (seq, folder.served().latest(channel)?) {
        (Some(seq), _) => newest(folder, channel, Some(seq)),
        (None, Some(latest)) => Ok(latest),
        (None, None) => {
            newest(folder, channel, None)?;
            Err(Complaint::refused(format!("no release of channel {channel} is published")).hint(format!(
                "`nixfleet release sign --channel {channel}` signs one, and publishes it then"
            )))
        }
    }
}

/// What the release says, and how many hosts are in each wave. Entries are read one by one, however many there are.
fn contents(folder: &Folder, channel: &ChannelName, seq: Seq) -> Result<Vec<String>, Complaint> {
    let served = folder.served();
    let (envelope, release) = open_alone(served, channel, seq)?;
    let root = folder.trust(None, now()?).ok();
    let mut waves = Vec::new();
    for host in served.hosts(channel, seq)? {
        waves.push(open_entry(served, channel, seq, &host)?.wave);
    }
    let mut lines = vec![format!("release {channel}/{seq} of fleet {}", release.fleet)];
    lines.extend(show::summary(&release, &envelope, root.as_ref().map(|trust| &**trust.root())));
    lines.extend(show::waves(&release, waves));
    Ok(lines)
}

/// Says which root comes into force there with the release, and what is another in it: it counts for all channels.
async fn tell_roots(folder: &Folder, server: &Asking) -> Done {
    let mut versions: Vec<RootVersion> = folder.served().roots()?.into_keys().collect();
    let Some(newest) = versions.last().copied() else { return Ok(()) };
    while let Some(version) = versions.pop() {
        let place = format!("/{}", layout::root(version.get()));
        if server.find::<serde_json::Value>(&place).await?.is_none() {
            continue;
        }
        if version < newest {
            let (old, new) = (root(folder, version)?, root(folder, newest)?);
            let ended: Vec<String> = old
                .channels
                .keys()
                .filter(|channel| !new.channels.contains_key(*channel))
                .map(|channel| format!(", ends channel {channel}"))
                .collect();
            ui::say(&format!("root        {version} to {newest}{}", ended.concat()));
            differences(&old, &new);
        }
        return Ok(());
    }
    ui::say(&format!("root        {newest}, and none of ours is there yet"));
    Ok(())
}

/// A root of the folder. The control plane verifies it; here it is only shown.
fn root(folder: &Folder, version: RootVersion) -> Result<Root, Complaint> {
    let envelope = Envelope::read(&folder.served().root(version)?, PayloadType::Root)?;
    Ok(json::read(envelope.payload())?)
}

/// What becomes of the rollout that the control plane is at.
async fn superseded(
    server: &Asking,
    release: &ReleaseId,
    numbers: &Numbers,
) -> Result<Option<String>, Complaint> {
    let Some(rollout) = server.find::<RolloutView>(&format!("/v1/rollouts/{}", release.channel)).await?
    else {
        return Ok(None);
    };
    let stands = format!(
        "rollout {} ({}, wave {}, {} of {} done)",
        rollout.rollout,
        state(&rollout).0,
        wave(&rollout),
        rollout.hosts.done,
        ui::hosts(rollout.hosts.total)
    );
    let ends =
        format!("ends        {stands}: this release takes its place, and goes on from its own first wave");
    Ok(Some(if rollout.release == *release {
        format!("there       {stands} already")
    } else if rollout.seq < release.seq || numbers.is_set_back(rollout.seq, rollout.opened_ms) {
        ends
    } else if rollout.seq == release.seq {
        format!("there       {stands}, which is another release of the same number")
    } else {
        format!("there       {stands}, which is newer")
    }))
}

/// It is drawn on a terminal only.
fn bar(documents: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos} of {len}");
    let bar = ProgressBar::new(documents as u64).with_message("documents");
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

fn tell(pushed: &Pushed, output: Output) -> Done {
    if output == Output::Json {
        return ui::json(pushed);
    }
    let Some(release) = &pushed.release else {
        ui::say("the roots are known there now; there was no release");
        return Ok(());
    };
    ui::data(&format!("{}/{}", release.channel, release.seq));
    match pushed.outcome {
        PushOutcome::Taken => ui::say("it is served from now on; `nixfleet status` shows how far it is"),
        PushOutcome::KnownBefore | PushOutcome::RootsOnly => ui::say("it was there already"),
    }
    Ok(())
}
