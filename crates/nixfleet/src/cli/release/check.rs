//! `nixfleet check`: the faults of a description, or what it says.

use clap::Args;
use serde::Serialize;

use crate::cli::folder::Folder;
use crate::cli::ui::{self, Done, Output};

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// A host as `check -o json` prints it; version 1.
#[derive(Serialize)]
struct Shown {
    host: String,
    channel: String,
    tags: Vec<String>,
    system: String,
    pinned: bool,
}

pub(crate) fn check(folder: &Folder, args: &CheckArgs) -> Done {
    let fleet = folder.fleet(args.output)?;
    let now = crate::cli::now()?;
    let hosts: Vec<Shown> = fleet
        .hosts
        .iter()
        .map(|(name, host)| Shown {
            host: name.to_string(),
            channel: host.channel.to_string(),
            tags: host.tags.iter().map(ToString::to_string).collect(),
            system: host.system_at(now).to_string(),
            pinned: host.pin.as_ref().is_some_and(|pin| pin.holds_at(now)),
        })
        .collect();
    match args.output {
        Output::Name => ui::lines(hosts.iter().map(|host| &host.host)),
        Output::Table => {
            let row = |host: &Shown| {
                let system =
                    if host.pinned { format!("{} (pinned)", host.system) } else { host.system.clone() };
                vec![host.host.clone(), host.channel.clone(), host.tags.join(","), system]
            };
            ui::table(&["HOST", "CHANNEL", "TAGS", "SYSTEM"], &hosts.iter().map(row).collect::<Vec<_>>());
        }
        Output::Json => {
            #[derive(Serialize)]
            struct Fleet {
                fleet: String,
                hosts: Vec<Shown>,
            }
            ui::json(&Fleet { fleet: fleet.fleet.to_string(), hosts })?;
        }
    }
    Ok(())
}
