//! `nixfleet release list`: the releases of one channel, or of all.

use clap::Args;
use nixfleet::numbers::Numbers;
use nixfleet::release::open_alone;
use nixfleet_core::model::names::{ChannelName, Seq};
use nixfleet_core::model::time::{Date, UnixMs};
use serde::Serialize;

use crate::cli::folder::Folder;
use crate::cli::now;
use crate::cli::ui::{self, Complaint, Done, Output};

#[derive(Debug, Args)]
pub(crate) struct ReleaseListArgs {
    /// The channel [default: all of them]
    #[arg(long)]
    channel: Option<ChannelName>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// A release as `release list -o json` prints it; version 1.
#[derive(Debug, Serialize)]
struct Listed {
    channel: ChannelName,
    seq: Seq,
    state: State,
    revision: String,
    created_ms: UnixMs,
    expires_ms: UnixMs,
    hosts: u32,
    signatures: usize,
    digest: String,
}

/// How a release stands to the one that hosts are given.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// Hosts are given this one.
    Published,
    /// A newer one is published.
    Superseded,
    /// Newer than the published one.
    Unpublished,
    /// From before the channel was set back.
    SetBack,
}

impl State {
    pub(super) fn of(seq: Seq, latest: Option<Seq>, numbers: &Numbers) -> Self {
        match latest {
            Some(latest) if latest == seq => Self::Published,
            Some(_) | None if !numbers.counts(seq) => Self::SetBack,
            Some(latest) if latest > seq => Self::Superseded,
            Some(_) | None => Self::Unpublished,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Superseded => "superseded",
            Self::Unpublished => "not published",
            Self::SetBack => "set back",
        }
    }
}

pub(super) fn list(folder: &Folder, args: &ReleaseListArgs) -> Done {
    let channels = match &args.channel {
        Some(channel) => vec![channel.clone()],
        None => folder.served().channels()?,
    };
    let mut listed = Vec::new();
    for channel in channels {
        listed.extend(of_channel(folder, &channel)?);
    }
    match args.output {
        Output::Name => ui::lines(listed.iter().map(|one| format!("{}/{}", one.channel, one.seq))),
        Output::Table => {
            let row = |one: &Listed| {
                vec![
                    format!("{}/{}", one.channel, one.seq),
                    one.state.word().to_owned(),
                    one.revision.clone(),
                    Date(one.created_ms).to_string(),
                    one.hosts.to_string(),
                    one.signatures.to_string(),
                ]
            };
            let headings = ["RELEASE", "STATE", "REVISION", "MADE", "HOSTS", "SIGNATURES"];
            ui::table(&headings, &listed.iter().map(row).collect::<Vec<_>>());
        }
        Output::Json => {
            #[derive(Serialize)]
            struct Releases {
                releases: Vec<Listed>,
            }
            ui::json(&Releases { releases: listed })?;
        }
    }
    Ok(())
}

fn of_channel(folder: &Folder, channel: &ChannelName) -> Result<Vec<Listed>, Complaint> {
    let (latest, numbers) = (folder.served().latest(channel)?, folder.numbers(channel, now()?)?);
    let one = |seq| {
        let (envelope, release) = open_alone(folder.served(), channel, seq)?;
        Ok(Listed {
            channel: channel.clone(),
            seq,
            state: State::of(seq, latest, &numbers),
            revision: release.revision.to_string(),
            created_ms: release.created_ms,
            expires_ms: release.expires_ms,
            hosts: release.hosts,
            signatures: envelope.signatures().len(),
            digest: envelope.digest().to_string(),
        })
    };
    folder.served().seqs(channel)?.into_iter().map(one).collect()
}
