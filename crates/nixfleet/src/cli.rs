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

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::text::first_paragraph;

use folder::Folder;
use ui::{Complaint, Done, Output, Readers};

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
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return not_understood(&error),
    };
    let readers = readers(&matches);
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => act(cli).map_or_else(|complaint| complaint.show(readers), |()| ExitCode::SUCCESS),
        Err(error) => not_understood(&error),
    }
}

/// Who reads the answer, by the `--output` of whichever verb was called.
fn readers(matches: &ArgMatches) -> Readers {
    let verb = std::iter::successors(Some(matches), |matches| matches.subcommand().map(|(_, verb)| verb));
    let asked = verb.last().and_then(|verb| verb.try_get_one::<Output>("output").ok().flatten());
    if asked == Some(&Output::Json) { Readers::Programs } else { Readers::People }
}

/// What clap has to say: help and version, or what is wrong with the command line. In the words of clap, but a program that
/// asked for JSON gets it here, too.
fn not_understood(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    let words: Vec<OsString> = std::env::args_os().take_while(|word| word != "--").collect();
    let one = |word: &OsString| ["-ojson", "-o=json", "--output=json"].iter().any(|it| word == it);
    let two = |pair: &[OsString]| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json";
    if !words.iter().any(one) && !words.windows(2).any(two) {
        error.exit();
    }
    // In the words of clap, for people.
    let _ = error.print();
    Complaint::usage(in_a_line(error)).show_to_programs()
}

/// The first paragraph of what clap says is what is wrong.
fn in_a_line(error: &clap::Error) -> String {
    first_paragraph(&error.render().to_string()).trim_start_matches("error: ").to_owned()
}

fn act(Cli { places, verb }: Cli) -> Done {
    let folder = Folder::new(places);
    match verb {
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

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn whoever_asks_for_json_is_known_whatever_the_verb_is() {
        let asked = |words: &[&str]| {
            let words = [&["nixfleet"], words].concat();
            readers(&Cli::command().try_get_matches_from(words).expect("it is understood"))
        };
        assert_eq!(asked(&["hosts", "-o", "json"]), Readers::Programs);
        assert_eq!(asked(&["release", "show", "--channel", "a", "--output=json"]), Readers::Programs);
        assert_eq!(asked(&["hosts", "-o", "name"]), Readers::People);
        assert_eq!(asked(&["hosts"]), Readers::People);
        assert_eq!(asked(&["release", "verify", "--channel", "a"]), Readers::People, "it has no such option");
    }

    #[test]
    fn what_the_parser_refuses_is_a_line() {
        let error = Cli::try_parse_from(["nixfleet", "host"]).expect_err("refused");
        assert!(in_a_line(&error).starts_with("the following required arguments were not provided: <"));
    }

    #[test]
    fn a_span_is_read_and_an_empty_one_refused() {
        assert_eq!(span("1h 30m"), Ok(Duration::from_mins(90)));
        assert!(span("0s").is_err() && span("soon").is_err() && span("1ms").is_err());
    }
}
