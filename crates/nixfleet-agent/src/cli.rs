//! The verbs, their arguments and their exit codes. stdout is data, stderr is conversation.
//!
//! Exit codes: 0 converged, 1 refused or failed (unchanged), 2 usage, 4 live but units failed, 5 reverted,
//! 6 deferred to a reboot, 7 the revert failed, 8 configuration or state that cannot be read, 70 our own mistake. The verbs
//! that units run (`run-recorded`, `record-end`, `deadman`, `darwin-run`), and `leash`, which runs other people's programs,
//! are hidden: they do nothing that a person needs.

mod activate;
#[cfg(feature = "failpoints")]
mod attempts;
mod check;
mod daemon;
mod dry_run;
mod followed;
mod inside;
mod orders;
mod priority;
mod refusal;
mod show;
mod ui;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use nixfleet_agent::activation::deadman::Deadline;
use nixfleet_agent::activation::host::STATE_DIR;
use nixfleet_agent::activation::{ActivationBackend, DefaultBackend};
use nixfleet_agent::config::{ConfigFile, state_dir_in};
use nixfleet_sys::text::{chain, first_paragraph};
use refusal::{Done, Kind, Refusal};

/// Activate signed NixOS systems so that nothing can leave this host broken
#[derive(Debug, Parser)]
#[command(name = "nixfleet-agent", version, max_term_width = 100)]
struct Cli {
    /// Keep state in this folder; on a host with an ephemeral root it must be persistent [default: what the
    /// configuration says, or /var/lib/nixfleet]
    #[arg(long, global = true, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch, verify and switch to a system; revert by itself if it is not well
    Activate(ActivateArgs),
    /// Make the system on trial the boot default, if its probes pass
    Confirm(JsonArg),
    /// Go back to the system that ran before
    Rollback(JsonArg),
    /// Show what runs, what is on trial and what is waited for
    Status(JsonArg),
    /// List the activations of this host, newest last
    History(JsonArg),
    /// Show what an activation printed
    Logs(LogsArgs),
    /// Look whether this host can follow its releases, and say what to mend
    Check(CheckArgs),
    /// Follow the releases that the configuration names; without one, watch over activations on this host
    Run(RunArgs),
    /// Finish or revert an activation that was cut off, then exit
    Recover(JsonArg),
    /// Keep the host where it is, whatever is released
    Hold(HoldArgs),
    /// Let a host go that was held
    Unhold(ByArg),
    /// Try what failed again, without waiting for a newer release
    Retry(ByArg),
    /// Write the manual page or a shell's completions
    #[command(hide = true)]
    Generate(GenerateArgs),
    /// Run a switch program and record how it ended
    #[command(hide = true)]
    RunRecorded { marks: PathBuf, file: PathBuf, program: PathBuf, action: String },
    /// Record how a run ended; systemd calls it
    #[command(hide = true)]
    RecordEnd { marks: PathBuf, file: PathBuf },
    /// Revert an activation that nobody confirmed; its timer calls it
    #[command(hide = true)]
    Deadman {
        id: String,
        /// The host was booted into what nobody has confirmed
        #[arg(long)]
        next_boot: bool,
        #[arg(long, requires = "armed_file")]
        wait_until_ms: Option<u64>,
        /// Gone when it was disarmed
        #[arg(long)]
        armed_file: Option<PathBuf>,
    },
    /// Run a program and end all that it started when its caller is gone; probes and hooks are run by it
    #[command(hide = true)]
    Leash {
        #[arg(required = true, last = true)]
        argv: Vec<std::ffi::OsString>,
    },
    /// The detached process of a run on Darwin
    #[command(hide = true)]
    DarwinRun(DarwinRunArgs),
    /// Do one thing that the reducer asks for, in this test build
    #[cfg(feature = "failpoints")]
    #[command(hide = true, subcommand)]
    Attempt(attempts::Attempt),
    /// List the crash points of this test build
    #[cfg(feature = "failpoints")]
    #[command(hide = true)]
    Failpoints,
}

impl Verb {
    /// Whether a script reads what it prints.
    fn is_json(&self) -> bool {
        match self {
            Self::Activate(ActivateArgs { json, .. })
            | Self::Confirm(json)
            | Self::Rollback(json)
            | Self::Recover(json)
            | Self::Status(json)
            | Self::History(json)
            | Self::Logs(LogsArgs { json, .. })
            | Self::Check(CheckArgs { json, .. }) => json.json,
            Self::Run(_)
            | Self::Hold(_)
            | Self::Unhold(_)
            | Self::Retry(_)
            | Self::Generate(_)
            | Self::RunRecorded { .. }
            | Self::RecordEnd { .. }
            | Self::Deadman { .. }
            | Self::Leash { .. }
            | Self::DarwinRun(_) => false,
            #[cfg(feature = "failpoints")]
            Self::Attempt(_) | Self::Failpoints => false,
        }
    }
}

#[derive(Debug, Args)]
struct JsonArg {
    /// Print JSON (version 1) on stdout; what is refused is an object with `error` in it (`kind`, `code`, `message`, `hint`)
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    config: check::ConfigArgs,
}

#[derive(Debug, Args)]
struct ByArg {
    /// Say who asks; without it, the person who called sudo or logged in
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Debug, Args)]
struct HoldArgs {
    /// Why, for whoever finds the host held
    why: String,
    /// Let it go by itself after this time
    #[arg(long = "for", value_name = "TIME", value_parser = long_duration)]
    span: Option<Duration>,
    #[command(flatten)]
    by: ByArg,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    config: check::ConfigArgs,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Debug, Args)]
struct LogsArgs {
    /// The activation's id, as `history` shows it
    id: String,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Debug, Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch on the command line, and made an enum at once"
)]
struct ActivateArgs {
    /// The system: /nix/store/<hash>-nixos-system-<name>
    path: String,
    /// Leave it on trial until `confirm`, which asks the probes; without it the previous system comes back in time
    #[arg(long, conflicts_with = "immediately")]
    trial: bool,
    /// Make it the boot default at once; nothing is on trial
    #[arg(long)]
    immediately: bool,
    #[arg(long = "probe", value_name = "PROBE", conflicts_with = "immediately", help = PROBE_HELP)]
    probes: Vec<String>,
    /// Believe the servers of https probes by the certificate authorities in this file (PEM) alone
    #[arg(long, value_name = "FILE", requires = "probes")]
    probe_ca_file: Option<PathBuf>,
    /// Follow the redirects of http(s) probes, a few in a row and never to http; without it a redirect is a failure
    #[arg(long, requires = "probes")]
    probe_follow_redirects: bool,
    /// From the switch to the confirmation; then it is reverted
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = duration)]
    confirm_within: Duration,
    /// How long the probes must keep passing; `confirm` asks them once
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    #[arg(conflicts_with_all = ["immediately", "trial"])]
    observe_for: Duration,
    /// Keep the system even if units are worse off (exit 4) instead of reverting
    #[arg(long)]
    keep_failed_units: bool,
    /// Accept paths without a trusted signature, for systems built on this very host
    #[arg(long)]
    allow_unsigned: bool,
    /// Switch kernel, systemd and dbus live as NixOS does; only the closure's own inhibitors defer
    #[arg(long)]
    closure_inhibitors_only: bool,
    /// Refuse a closure with another digest: sha256:<64 hex>
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    /// How long a download may stand still; a slow one may take as long as it needs
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    stall: Duration,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    what: Generated,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Generated {
    Man,
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
struct DarwinRunArgs {
    #[arg(long)]
    action: String,
    #[arg(long)]
    limit_secs: u64,
    #[arg(long)]
    end_file: PathBuf,
    #[arg(long)]
    output: PathBuf,
    program: PathBuf,
}

/// A time from a second to a day, in the words of `humantime`.
fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write 60s or 5m"))?;
    if time <= Duration::from_hours(24) { Ok(time) } else { Err("at most 24h".to_owned()) }
}

/// A time of a minute or more, as long as a person may plan.
fn long_duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write 2h or 3days"))?;
    let range = Duration::from_mins(1)..=Duration::from_hours(24 * 366);
    if range.contains(&time) { Ok(time) } else { Err("between 1min and 366days".to_owned()) }
}

/// The forms of a probe, as `probes::parse` reads them.
const PROBE_HELP: &str =
    "What must pass: tcp:HOST:PORT, http[s]://HOST[:PORT]/PATH, exec:/PROGRAM or unit:NAME (repeatable)";

/// Refused or failed; nothing was changed.
const REFUSED: u8 = 1;
/// Refused because of how it was called.
const USAGE: u8 = 2;
/// The configuration or the state cannot be read: starting again does not help, a person must look.
const UNREADABLE: u8 = 8;

pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    let as_json = cli.verb.is_json();
    act(cli).unwrap_or_else(|refusal| refusal.show(as_json))
}

/// What clap has to say: help and version, or what is wrong with the command line. In the words of clap, but a script that
/// asked for JSON gets it here, too.
fn not_understood(error: &clap::Error) -> ExitCode {
    let asked = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
    if error.use_stderr() && asked {
        ui::json(&Refusal::usage(in_a_line(error)).versioned());
    }
    // Nobody may be there to read it, which changes nothing.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

/// The first paragraph of what clap says is what is wrong.
fn in_a_line(error: &clap::Error) -> String {
    first_paragraph(&error.render().to_string()).trim_start_matches("error: ").to_owned()
}

fn act(cli: Cli) -> Done {
    let runtime = nixfleet_agent::runtime::one_thread();
    let runtime = runtime.map_err(|error| Refusal::new(Kind::Internal, format!("cannot start: {error}")))?;
    #[cfg(feature = "failpoints")]
    if nixfleet_agent::failpoint::wants_darwin() {
        return runtime.block_on(dispatch::<nixfleet_agent::activation::darwin::DarwinBackend>(cli));
    }
    runtime.block_on(dispatch::<DefaultBackend>(cli))
}

async fn dispatch<B: ActivationBackend + Send + 'static>(cli: Cli) -> Done {
    if cli.state_dir.as_ref().is_some_and(|state| !state.is_absolute()) {
        return Err(Refusal::usage("--state-dir must be an absolute path"));
    }
    let state = state_dir(cli.state_dir.clone(), &cli.verb)?;
    Ok(match cli.verb {
        Verb::Activate(args) => activate::activate::<B>(&state, args).await?,
        Verb::Confirm(json) => activate::confirm::<B>(&state, json.json).await?,
        Verb::Rollback(json) => activate::rollback::<B>(&state, json.json).await?,
        Verb::Recover(json) => activate::recover::<B>(&state, json.json).await?,
        Verb::Status(json) => show::status(&state, json.json)?,
        Verb::History(json) => show::history(&state, json.json)?,
        Verb::Logs(args) => show::logs::<B>(&state, &args.id, args.json.json).await?,
        Verb::Hold(args) => followed::hold(&state, args).await?,
        Verb::Unhold(by) => followed::unhold(&state, by).await?,
        Verb::Retry(by) => followed::retry(&state, by).await?,
        Verb::Check(args) => check::run::<B>(args.config, cli.state_dir.as_ref(), args.json.json).await,
        Verb::Run(args) => daemon::run::<B>(args.config, cli.state_dir.as_ref(), &state).await,
        Verb::Generate(args) => generate(args.what),
        Verb::RunRecorded { marks, file, program, action } => {
            inside::run_recorded((marks, &file), &program, action)
        }
        Verb::RecordEnd { marks, file } => inside::record_end(marks, &file),
        Verb::Deadman { id, next_boot, wait_until_ms, armed_file } => {
            let deadline = if next_boot { Deadline::Passed } else { Deadline::AsWritten };
            inside::deadman::<B>(&state, (&id, deadline), wait_until_ms.zip(armed_file)).await
        }
        Verb::Leash { argv } => inside::leash(argv).await,
        Verb::DarwinRun(args) => inside::darwin_run(args).await,
        #[cfg(feature = "failpoints")]
        Verb::Attempt(attempt) => attempts::attempt::<B>(&state, attempt).await,
        #[cfg(feature = "failpoints")]
        Verb::Failpoints => {
            for name in nixfleet_agent::failpoint::ALL {
                ui::data(name);
            }
            ExitCode::SUCCESS
        }
    })
}

/// The state folder: the flag's, the configuration's, or the usual one. Verbs that units run are told by a flag; they and
/// `check` do not stumble over a configuration that cannot be read.
fn state_dir(flag: Option<PathBuf>, verb: &Verb) -> Result<PathBuf, Refusal> {
    let asks = match verb {
        Verb::Activate(_)
        | Verb::Confirm(_)
        | Verb::Rollback(_)
        | Verb::Status(_)
        | Verb::History(_)
        | Verb::Logs(_)
        | Verb::Hold(_)
        | Verb::Unhold(_)
        | Verb::Retry(_)
        | Verb::Recover(_) => true,
        // These read the whole configuration, and tell more of what is wrong with it.
        Verb::Check(_)
        | Verb::Run(_)
        | Verb::Leash { .. }
        | Verb::RunRecorded { .. }
        | Verb::Generate(_)
        | Verb::RecordEnd { .. }
        | Verb::Deadman { .. }
        | Verb::DarwinRun(_) => false,
        #[cfg(feature = "failpoints")]
        Verb::Failpoints | Verb::Attempt(_) => false,
    };
    let usual = || PathBuf::from(STATE_DIR);
    match flag {
        Some(folder) => Ok(folder),
        None if asks => match state_dir_in(&ConfigFile::Usual) {
            Ok(named) => Ok(named.unwrap_or_else(usual)),
            Err(refused) => {
                let why = format!("the configuration does not say where state is kept: {}", chain(&refused));
                Err(Refusal::new(Kind::Configuration, why).hint("mend it, or give --state-dir"))
            }
        },
        None => Ok(usual()),
    }
}

fn generate(what: Generated) -> ExitCode {
    use clap_complete::{Shell, generate};
    let mut command = Cli::command();
    let mut out = std::io::stdout();
    match what {
        Generated::Man => {
            if let Err(error) = clap_mangen::Man::new(command).render(&mut out) {
                return ui::refuse(1, &format!("cannot write the manual page: {error}"), None);
            }
        }
        Generated::Bash => generate(Shell::Bash, &mut command, "nixfleet-agent", &mut out),
        Generated::Zsh => generate(Shell::Zsh, &mut command, "nixfleet-agent", &mut out),
        Generated::Fish => generate(Shell::Fish, &mut command, "nixfleet-agent", &mut out),
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let activate = |flags: &[&str]| {
            let path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-a";
            Cli::try_parse_from([&["nixfleet-agent", "activate", path], flags].concat())
                .map(|_| ())
                .map_err(|error| error.kind())
        };
        let refused = Err(clap::error::ErrorKind::ArgumentConflict);
        assert_eq!(activate(&["--immediately", "--probe", "tcp:localhost:1"]), refused);
        assert_eq!(activate(&["--immediately", "--observe-for", "5s"]), refused);
        assert_eq!(activate(&["--trial", "--observe-for", "5s"]), refused);
        assert_eq!(activate(&["--trial", "--probe", "tcp:localhost:1"]), Ok(()));
        assert_eq!(activate(&["--observe-for", "5s", "--probe", "tcp:localhost:1"]), Ok(()));
        assert_eq!(activate(&["--immediately"]), Ok(()), "a default is nobody's wish");
    }

    #[test]
    fn what_the_parser_refuses_is_a_line() {
        let refused = |words: &[&str]| {
            let error = Cli::try_parse_from([&["nixfleet-agent"], words].concat()).expect_err("refused");
            in_a_line(&error)
        };
        assert_eq!(
            refused(&["activate", "--json"]),
            "the following required arguments were not provided: <PATH>"
        );
        assert!(refused(&["logs", "--jason", "x"]).starts_with("unexpected argument '--jason' found"));
    }

    #[test]
    fn a_hold_may_last_for_weeks_and_not_for_ever() {
        assert_eq!(long_duration("3weeks"), Ok(Duration::from_hours(21 * 24)));
        assert!(long_duration("5s").is_err() && long_duration("10years").is_err());
    }

    #[test]
    fn a_time_is_read_and_an_endless_one_refused() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").is_err() && duration("25h").is_err());
    }
}
