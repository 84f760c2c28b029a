//! `nixfleet release show`: what a release says, for people and for programs.

use std::collections::BTreeMap;

use clap::Args;
use nixfleet::release::{Opened, open};
use nixfleet_core::model::names::{ChannelName, HostName, Seq};
use nixfleet_core::model::policy::WaveIndex;
use nixfleet_core::model::release::{Entry, Release};
use nixfleet_core::model::time::Date;
use nixfleet_trust::envelope::Envelope;
use nixfleet_trust::key::KeyId;
use nixfleet_trust::root::{RoleName, Root};
use nixfleet_trust::threshold::Signatures;
use serde::Serialize;

use super::list::State;
use super::{newest, seq};
use crate::cli::folder::Folder;
use crate::cli::now;
use crate::cli::ui::{self, Done, Output};

#[derive(Debug, Args)]
pub(crate) struct ReleaseShowArgs {
    /// The channel
    #[arg(long)]
    channel: ChannelName,
    /// Which release [default: the newest, signed or not]
    #[arg(long, value_name = "N", value_parser = seq)]
    seq: Option<Seq>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What `release show -o json` and `release build -o json` print; version 1.
#[derive(Serialize)]
struct Shown<'a> {
    release: &'a Release,
    digest: String,
    signed_by: Vec<&'a KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<&'a Entry>>,
}

pub(super) fn show(folder: &Folder, args: &ReleaseShowArgs) -> Done {
    let seq = newest(folder, &args.channel, args.seq)?;
    let Opened { release, envelope, entries } = open(folder.served(), &args.channel, seq)?;
    match args.output {
        Output::Json => json(&release, &envelope, Some(&entries)),
        Output::Name => {
            ui::lines(entries.keys().map(HostName::as_str));
            Ok(())
        }
        Output::Table => {
            let numbers = folder.numbers(&args.channel, now()?)?;
            let state = State::of(seq, folder.served().latest(&args.channel)?, &numbers).word();
            ui::data(&format!("release {}/{seq} of fleet {} ({state})", release.channel, release.fleet));
            let root = folder.trust(None, now()?).ok();
            ui::lines(summary(&release, &envelope, root.as_ref().map(|trust| &**trust.root())));
            let rows: Vec<_> = entries.values().map(|entry| row(&release, entry)).collect();
            ui::table(&["HOST", "WAVE", "SYSTEM", "FETCH", "UNPACKED"], &rows);
            Ok(())
        }
    }
}

pub(super) fn json(
    release: &Release,
    envelope: &Envelope,
    entries: Option<&BTreeMap<HostName, Entry>>,
) -> Done {
    ui::json(&Shown {
        release,
        digest: envelope.digest().to_string(),
        signed_by: envelope.signatures().keys().collect(),
        entries: entries.map(|entries| entries.values().collect()),
    })
}

fn row(release: &Release, entry: &Entry) -> Vec<String> {
    let wave =
        release.policy.wave(entry.wave).map_or_else(|| entry.wave.to_string(), |wave| wave.name.to_string());
    vec![
        entry.host.to_string(),
        wave,
        entry.system.base().to_owned(),
        ui::bytes(entry.closure.fetch_bytes),
        ui::bytes(entry.closure.unpacked_bytes),
    ]
}

/// What a person wants to know of a release at a glance.
pub(super) fn summary(release: &Release, envelope: &Envelope, root: Option<&Root>) -> Vec<String> {
    let signed = match root.and_then(|root| Some((root, root.channels.get(&release.channel)?))) {
        Some((root, rules)) => {
            let role = RoleName::Release(release.channel.clone());
            let counted = Signatures::count(envelope, role, &rules.release, &root.keys);
            format!("{} of {} needed", counted.good.len(), counted.threshold)
        }
        None => format!("{}, which no root here can judge", envelope.signatures().len()),
    };
    let previous = release.previous.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
    vec![
        format!("revision    {}", release.revision),
        format!("made        {}, expires {}", Date(release.created_ms), Date(release.expires_ms)),
        format!("hosts       {}", release.hosts),
        format!("digest      {}", envelope.digest()),
        format!("previous    {previous}"),
        format!("signatures  {signed}"),
    ]
}

/// The waves with their numbers of hosts; `members` is each host's wave.
pub(super) fn waves(release: &Release, members: impl IntoIterator<Item = WaveIndex>) -> Vec<String> {
    let mut counts: BTreeMap<WaveIndex, usize> = BTreeMap::new();
    for wave in members {
        *counts.entry(wave).or_default() += 1;
    }
    let line = |(index, wave): (u16, &nixfleet_core::model::policy::Wave)| {
        let count = counts.get(&WaveIndex(index)).copied().unwrap_or(0);
        format!(
            "wave        {}: {}, opens {} at the earliest, watched for {}",
            wave.name,
            ui::hosts(count),
            Date(wave.opens_at(release.created_ms)),
            humantime::format_duration(wave.soak_secs.duration())
        )
    };
    (0u16..).zip(&release.policy.waves).map(line).collect()
}
