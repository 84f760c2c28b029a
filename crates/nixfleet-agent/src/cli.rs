//! The verbs, their arguments and their exit codes. stdout is data, stderr is conversation.
//!
//! Exit codes: 0 converged, 1 refused or failed (unchanged), 2 usage, 4 live but units failed, 5 reverted,
//! 6 deferred to a reboot, 7 the revert failed. The verbs that units run (`run-recorded`, `record-end`, `deadman`,
//! `darwin-run`) are hidden: they do nothing that a person needs.

mod activate;
mod daemon;
mod dry_run;
mod inside;
mod show;
mod ui;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use nixfleet_agent::activation::host::STATE_DIR;
use nixfleet_agent::activation::recovery::Deadline;
use nixfleet_agent::activation::{ActivationBackend, DefaultBackend};

/// Activate signed NixOS systems so that nothing can leave this host broken
#[derive(Debug, Parser)]
#[command(name = "nixfleet-agent", version, max_term_width = 100)]
struct Cli {
    /// Keep state in this folder; on a host with an ephemeral root it must be persistent
    #[arg(long, global = true, default_value = STATE_DIR, value_name = "FOLDER")]
    state_dir: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch, verify and switch to a system; revert by itself if it is not well
    Activate(ActivateArgs),
    /// Make the system on trial the boot default
    Confirm(JsonArg),
    /// Go back to the system that ran before
    Rollback(JsonArg),
    /// Show what runs, what is on trial and what is waited for
    Status(JsonArg),
    /// List the activations of this host, newest last
    History(JsonArg),
    /// Show what an activation printed
    Logs(LogsArgs),
    /// Watch over activations: finish after a reboot, take up what was cut off
    Run,
    /// Finish or revert an activation that was cut off, then exit
    Recover(JsonArg),
    /// Write the manual page or a shell's completions
    #[command(hide = true)]
    Generate(GenerateArgs),
    /// Run a switch program and record how it ended
    #[command(hide = true)]
    RunRecorded { file: PathBuf, program: PathBuf, action: String },
    /// Record how a run ended; systemd calls it
    #[command(hide = true)]
    RecordEnd { file: PathBuf },
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
    /// The detached process of a run on Darwin
    #[command(hide = true)]
    DarwinRun(DarwinRunArgs),
    /// List the crash points of this test build
    #[cfg(feature = "failpoints")]
    #[command(hide = true)]
    Failpoints,
}

#[derive(Debug, Args)]
struct JsonArg {
    /// Print JSON (version 1) on stdout
    #[arg(long)]
    json: bool,
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
    /// Leave it on trial until `confirm`; without it the previous system comes back in time
    #[arg(long, conflicts_with = "immediately")]
    trial: bool,
    /// Make it the boot default at once; nothing is on trial
    #[arg(long)]
    immediately: bool,
    #[arg(long = "probe", value_name = "PROBE", help = PROBE_HELP)]
    probes: Vec<String>,
    /// From the switch to the confirmation; then it is reverted
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = duration)]
    confirm_within: Duration,
    /// How long the probes must keep passing
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
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

/// The forms of a probe, as `probes::parse` reads them.
const PROBE_HELP: &str =
    "What must pass: tcp:HOST:PORT, http://HOST[:PORT]/PATH, exec:/PROGRAM or unit:NAME (repeatable)";

/// Refused because of how it was called.
const USAGE: u8 = 2;

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return ui::refuse(1, &format!("cannot start: {error}"), None),
    };
    #[cfg(feature = "failpoints")]
    if nixfleet_agent::failpoint::wants_darwin() {
        return runtime.block_on(dispatch::<nixfleet_agent::activation::darwin::DarwinBackend>(cli));
    }
    runtime.block_on(dispatch::<DefaultBackend>(cli))
}

async fn dispatch<B: ActivationBackend>(cli: Cli) -> ExitCode {
    let state = cli.state_dir;
    if !state.is_absolute() {
        return ui::refuse(USAGE, "--state-dir must be an absolute path", None);
    }
    match cli.verb {
        Verb::Activate(args) => activate::activate::<B>(&state, args).await,
        Verb::Confirm(json) => activate::confirm::<B>(&state, json.json).await,
        Verb::Rollback(json) => activate::rollback::<B>(&state, json.json).await,
        Verb::Recover(json) => activate::recover::<B>(&state, json.json).await,
        Verb::Status(json) => show::status(&state, json.json),
        Verb::History(json) => show::history(&state, json.json),
        Verb::Logs(args) => show::logs::<B>(&state, &args.id, args.json.json).await,
        Verb::Run => daemon::run::<B>(&state).await,
        Verb::Generate(args) => generate(args.what),
        Verb::RunRecorded { file, program, action } => inside::run_recorded(&file, &program, action),
        Verb::RecordEnd { file } => inside::record_end(&file),
        Verb::Deadman { id, next_boot, wait_until_ms, armed_file } => {
            let deadline = if next_boot { Deadline::Passed } else { Deadline::AsWritten };
            inside::deadman::<B>(&state, (&id, deadline), wait_until_ms.zip(armed_file)).await
        }
        Verb::DarwinRun(args) => inside::darwin_run(args).await,
        #[cfg(feature = "failpoints")]
        Verb::Failpoints => {
            for name in nixfleet_agent::failpoint::ALL {
                ui::data(name);
            }
            ExitCode::SUCCESS
        }
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
    fn a_time_is_read_and_an_endless_one_refused() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").is_err() && duration("25h").is_err());
    }
}
