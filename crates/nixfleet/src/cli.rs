//! The verbs, their arguments and their exit codes. stdout is data, stderr is conversation.
//!
//! Exit codes: 0 done; 1 refused or failed, and no host or document is left half done; 2 called in a way that has no
//! meaning; 3 something outside does not answer; 70 a mistake of ours.

mod acts;
mod asking;
mod events;
mod folder;
mod generate;
mod hosts;
mod init;
mod keys;
mod plan;
mod release;
mod rollout;
mod root;
mod sign;
mod status;
mod ui;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nixfleet_core::model::time::UnixMs;

use folder::Folder;

/// Release NixOS systems to a fleet, and see and steer how they go out
#[derive(Debug, Parser)]
#[command(name = "nixfleet", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    verb: Verb,
}

/// What a script can rely on.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused or failed, and no host or document is left half done (of \
                          several hosts, each is said for itself); 2 called in a way that has no meaning; 3 something \
                          outside does not answer; 70 a mistake of nixfleet. Data goes to standard output, everything \
                          else to standard error.";

/// Where things are.
#[derive(Debug, Args)]
struct Places {
    /// The fleet folder, with `fleet.json`, keys and what is served
    #[arg(short = 'C', long = "dir", global = true, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    /// The folder that is served to hosts [default: `served` in the fleet folder]
    #[arg(long, global = true, value_name = "FOLDER")]
    served: Option<PathBuf>,
    /// The fleet description; `-` is standard input [default: `fleet.json` in the fleet folder]
    #[arg(long = "fleet", global = true, value_name = "FILE")]
    description: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a fleet folder: keys, a signed root, an example description
    Init(init::InitArgs),
    /// Make and show keys
    #[command(subcommand)]
    Keys(keys::KeysVerb),
    /// Say which keys the fleet trusts
    #[command(subcommand)]
    Root(root::RootVerb),
    /// Build, sign, publish and check releases
    #[command(subcommand)]
    Release(release::ReleaseVerb),
    /// Check the fleet description and show what it says
    Check(release::check::CheckArgs),
    /// Show how far the fleet is
    Status(status::StatusArgs),
    /// Show what would move now, and why the rest would not
    Plan(plan::PlanArgs),
    /// List the hosts
    Hosts(hosts::HostsArgs),
    /// Show a host and what happened on it
    Host(hosts::HostArgs),
    /// Say why a host does not move
    Why(hosts::WhyArgs),
    /// See and steer rollouts
    #[command(subcommand)]
    Rollout(rollout::RolloutVerb),
    /// Have hosts try again what failed
    Retry(acts::ActArgs),
    /// Keep hosts where they are
    Hold(acts::HoldArgs),
    /// Let hosts go that were held
    Unhold(acts::ActArgs),
    /// Show what happened in the fleet
    Events(events::EventsArgs),
    /// Write a shell's completions to standard output
    Completions(generate::CompletionsArgs),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(generate::ManArgs),
}

/// The exit code for a mistake of ours, as `sysexits.h` has it.
const OUR_MISTAKE: i32 = 70;

pub(crate) fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        ui::say(&format!("error: this is a mistake of nixfleet, please report it: {panic}"));
        std::process::exit(OUR_MISTAKE);
    }));
    let Cli { places, verb } = Cli::parse();
    let folder = Folder::new(places);
    let done = match verb {
        Verb::Init(args) => init::init(&folder, args),
        Verb::Keys(verb) => keys::keys(verb),
        Verb::Root(verb) => root::root(&folder, verb),
        Verb::Release(verb) => release::release(&folder, verb),
        Verb::Check(args) => release::check::check(&folder, &args),
        Verb::Status(args) => status::status(&args),
        Verb::Plan(args) => plan::plan(&args),
        Verb::Hosts(args) => hosts::hosts(&args),
        Verb::Host(args) => hosts::host(&args),
        Verb::Why(args) => hosts::why(&args),
        Verb::Rollout(verb) => rollout::rollout(&verb),
        Verb::Retry(args) => acts::retry(&args),
        Verb::Hold(args) => acts::hold(&args),
        Verb::Unhold(args) => acts::unhold(&args),
        Verb::Events(args) => events::events(&args),
        Verb::Completions(args) => {
            generate::completions::<Cli>(&args);
            Ok(())
        }
        Verb::Man(args) => generate::man::<Cli>(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => complaint.show(),
    }
}

/// What time it is, asked once for a verb.
fn now() -> Result<UnixMs, ui::Complaint> {
    Ok(UnixMs::new(nixfleet_sys::clock::unix_ms())?)
}

/// A time in words that is at least a second.
fn span(text: &str) -> Result<Duration, String> {
    match nixfleet::fleet::read_secs(text) {
        Some(secs) if secs.0 > 0 => Ok(secs.duration()),
        Some(_) | None => Err("write it with its unit: 90s, 5m, 30d, 1y".to_owned()),
    }
}

/// `from` and `span` later.
fn later(from: UnixMs, span: Duration) -> Result<UnixMs, ui::Complaint> {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Ok(UnixMs::new(from.get().saturating_add(ms))?)
}

/// A point in time in words.
fn time(text: &str) -> Result<UnixMs, String> {
    nixfleet::fleet::read_time(text).ok_or_else(|| "write 2027-01-31 or 2027-01-31T18:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_span_is_read_and_an_empty_one_refused() {
        assert_eq!(span("1h 30m"), Ok(Duration::from_mins(90)));
        assert!(span("0s").is_err() && span("soon").is_err() && span("1ms").is_err());
    }
}
