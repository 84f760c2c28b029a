//! `nixfleet release push`: a published release goes to the control plane, which verifies it and serves it from then on.

use std::sync::OnceLock;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nixfleet::remote::sending::{Documents, NotPushed};
use nixfleet_core::model::names::{ChannelName, Seq};
use nixfleet_core::wire::people::{PushOutcome, Pushed};

use super::{newest, seq};
use crate::cli::asking::{AskArgs, asking, complain};
use crate::cli::folder::Folder;
use crate::cli::ui::{self, Complaint, Done, Output};

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The channel
    #[arg(long)]
    channel: ChannelName,
    /// Which release [default: the one that is published]
    #[arg(long, value_name = "N", value_parser = seq)]
    seq: Option<Seq>,
    /// How it is told what became of it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
}

/// How far a push is. There is one in a process.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

pub(crate) fn push(folder: &Folder, args: &PushArgs) -> Done {
    let PushArgs { channel, seq, output, ask } = args;
    let seq = match (seq, folder.served().latest(channel)?) {
        (Some(seq), _) => newest(folder, channel, Some(*seq))?,
        (None, Some(latest)) => latest,
        (None, None) => {
            newest(folder, channel, None)?;
            return Err(Complaint::refused(format!("no release of channel {channel} is published")).hint(
                format!("`nixfleet release sign --channel {channel}` signs one, and publishes it then"),
            ));
        }
    };
    let documents = Documents::of(folder.served(), channel, seq, |_| {
        if let Some(bar) = BAR.get() {
            bar.inc(1);
        }
    })?;
    let bar = BAR.get_or_init(|| bar(documents.count()));
    asking(ask, async |server| {
        let pushed = server.remote().push(documents).await;
        bar.finish_and_clear();
        match pushed {
            Ok(pushed) => tell(&pushed, *output),
            Err(NotPushed::Document(error)) => Err(error.into()),
            Err(NotPushed::Remote(error)) => Err(complain(&error)),
        }
    })
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
