//! `nixfleet release verify`: what a host would say, for somebody who has only the folder and the root.

use std::path::PathBuf;

use clap::Args;
use nixfleet_core::model::names::{ChannelName, Seq};
use nixfleet_core::model::time::Date;
use nixfleet_sys::text::chain;
use nixfleet_trust::check::entry;

use super::{newest, seq, tell_fork};
use crate::cli::folder::Folder;
use crate::cli::now;
use crate::cli::ui::{self, Complaint, Done};

#[derive(Debug, Args)]
pub(crate) struct ReleaseVerifyArgs {
    /// The channel
    #[arg(long)]
    channel: ChannelName,
    /// Which release [default: the one that is published]
    #[arg(long, value_name = "N", value_parser = seq)]
    seq: Option<Seq>,
    /// Begin with this root instead of the oldest that is served, as a host does that was given it
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

pub(super) fn verify(folder: &Folder, args: &ReleaseVerifyArgs) -> Done {
    let now = now()?;
    let (channel, served) = (&args.channel, folder.served());
    let trust = folder.trust(args.root.as_deref(), now)?;
    let seq = match (args.seq, served.latest(channel)?) {
        (Some(seq), _) => newest(folder, channel, Some(seq))?,
        (None, Some(latest)) => latest,
        (None, None) => {
            return Err(Complaint::refused(format!("channel {channel} has no published release"))
                .hint("`nixfleet release sign` publishes one; `--seq` checks one that is not published"));
        }
    };
    let bytes = served.release(channel, seq)?;
    let release = trust.accept_release(channel, &bytes, now)?.release;
    tell_fork(folder, &trust, (channel, seq), &bytes, now)?;
    if release.seq != seq {
        return Err(Complaint::refused(format!(
            "in the place of release {channel}/{seq} stands {}",
            release.id()
        )));
    }
    let hosts = served.hosts(channel, seq)?;
    for host in &hosts {
        let entry = entry::entry(&release, &served.entry(channel, seq, host)?)
            .map_err(|refused| Complaint::refused(format!("host {host}: {}", chain(&refused))))?;
        if entry.host != *host {
            return Err(Complaint::refused(format!("in the place of host {host} stands {}", entry.host)));
        }
    }
    if hosts.len() != usize::try_from(release.hosts).unwrap_or(usize::MAX) {
        return Err(Complaint::refused(format!(
            "release {channel}/{seq} is for {} hosts, and {} entries are there",
            release.hosts,
            hosts.len()
        )));
    }
    ui::say(&format!(
        "release {channel}/{seq} with {} is good by root {}, until {}",
        ui::hosts(hosts.len()),
        trust.root().version,
        Date(release.expires_ms)
    ));
    ui::data(&release.digest().to_string());
    Ok(())
}
