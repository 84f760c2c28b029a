//! The command line. stdout is data, stderr is conversation; exit 1 refused, 2 usage.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use nixfleet_control_plane::config::ready::now;
use nixfleet_control_plane::config::{CONFIG_BYTES_MAX, CONFIG_FILE, Config};
use nixfleet_control_plane::server::Server;
use nixfleet_control_plane::store::tokens::{Made, Role};
use nixfleet_control_plane::store::{Store, backup};
use nixfleet_control_plane::{certificate, say};
use nixfleet_sys::fs;
use tokio::signal::unix::{SignalKind, signal};

/// Serves signed releases, decides who moves when, and records what happened
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the server until SIGTERM
    Run,
    /// Read the configuration and the files that it names, and say what is wrong
    Check,
    /// Make a key and a certificate where the configuration wants them, and print the pin for agents
    Certificate {
        /// Names and addresses of this server
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Make, list and remove tokens for people
    #[command(subcommand)]
    Token(TokenVerb),
    /// Copy the database into a new file while the server runs (SQLite)
    Backup {
        /// The new file
        to: PathBuf,
    },
    /// Put a backup in the place of the database while no server runs (SQLite)
    Restore {
        /// The backup
        from: PathBuf,
    },
    /// Make everything that is derived from the event log again; of SQLite, while no server runs
    Rebuild,
    /// Write the manual page or a shell's completions
    #[command(hide = true)]
    Generate {
        /// Which
        what: Generated,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Generated {
    Man,
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Subcommand)]
enum TokenVerb {
    /// Make a token and print it, once
    Add {
        /// Its name, by which its acts are recorded
        name: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: RoleArg,
    },
    /// List the tokens
    List,
    /// Remove a token; it is refused from then on
    Remove {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    Viewer,
    Operator,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Operator => Self::Operator,
        }
    }
}

/// What ends a verb: it was said already.
struct Refused;

pub(crate) fn main() -> ExitCode {
    let Cli { config, verb } = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::error("cannot start", &error);
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(go(&config, verb)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refused) => ExitCode::FAILURE,
    }
}

async fn go(config: &Path, verb: Verb) -> Result<(), Refused> {
    // It needs no configuration.
    if let Verb::Generate { what } = verb {
        return generate(what);
    }
    let config = read(config)?;
    match verb {
        Verb::Generate { what } => generate(what),
        Verb::Run => run(&config).await,
        Verb::Check => check(&config).await,
        Verb::Certificate { names } => {
            let pin = certificate::make(&config, names).map_err(refused("no certificate was made"))?;
            print(&pin.to_string());
            Ok(())
        }
        Verb::Token(verb) => token(&config, verb).await,
        Verb::Backup { to } => {
            let store = open(&config).await?;
            store.backup(&to).await.map_err(refused("cannot make the backup"))
        }
        Verb::Restore { from } => {
            backup::restore(&config.database, &from).await.map_err(refused("cannot restore"))
        }
        Verb::Rebuild => {
            let _held = backup::hold(&config.database).map_err(refused("cannot rebuild"))?;
            let store = Store::open(&config.database).await.map_err(refused("cannot open the database"))?;
            let count = store.rebuild(now()).await.map_err(refused("cannot rebuild"))?;
            print(&format!("{count} events folded"));
            Ok(())
        }
    }
}

fn generate(what: Generated) -> Result<(), Refused> {
    let (mut command, mut out) = (Cli::command(), std::io::stdout());
    let shell = match what {
        Generated::Man => {
            let page = clap_mangen::Man::new(command).render(&mut out);
            return page.map_err(refused("cannot write the manual page"));
        }
        Generated::Bash => Shell::Bash,
        Generated::Zsh => Shell::Zsh,
        Generated::Fish => Shell::Fish,
    };
    clap_complete::generate(shell, &mut command, "nixfleet-control-plane", &mut out);
    Ok(())
}

fn read(path: &Path) -> Result<Config, Refused> {
    let bytes = fs::read_bounded(path, CONFIG_BYTES_MAX).map_err(refused("no configuration"))?;
    Config::read(&String::from_utf8_lossy(&bytes)).map_err(|faults| {
        for fault in &faults {
            say::line(&format!("error: {}", fault.shown(path)));
        }
        Refused
    })
}

/// Opens the database as it is: a server of an older program may be serving it.
async fn open(config: &Config) -> Result<Store, Refused> {
    Store::open_as_it_is(&config.database).await.map_err(refused("cannot open the database"))
}

async fn run(config: &Config) -> Result<(), Refused> {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        say::line("error: cannot listen for signals");
        return Err(Refused);
    };
    let (server, ender) = Server::start(config).await.map_err(refused("cannot start"))?;
    // Not what was asked for: port 0 is any free one.
    let at = server.address().map_err(refused("it is not known where it listens"))?;
    say::line(&format!("serving at {at}, keeping in {}", config.database));
    // Nobody there to be told is no error.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let serving = tokio::spawn(server.run());
    tokio::select! {
        // Safe to cancel: a signal that came stays noted.
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    say::line("ending: answering what is being asked");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    ender.end();
    serving.await.map_err(refused("the server did not end in order"))
}

async fn check(config: &Config) -> Result<(), Refused> {
    config.first_root().map_err(refused("the root"))?;
    config.identity().map_err(refused("the certificate"))?;
    let store = open(config).await?;
    store.answers().await.map_err(refused("the database"))?;
    print("ok");
    Ok(())
}

async fn token(config: &Config, verb: TokenVerb) -> Result<(), Refused> {
    let store = open(config).await?;
    match verb {
        TokenVerb::Add { name, role } => {
            match store.make_token(&name, role.into(), now()).await.map_err(refused("cannot make a token"))? {
                Made::Token(token) => {
                    say::line("it is shown this once, and kept nowhere:");
                    print(&token);
                    Ok(())
                }
                Made::NameTaken => {
                    say::line(&format!("error: there is a token called `{name}`\n\nhint: remove it first"));
                    Err(Refused)
                }
            }
        }
        TokenVerb::List => {
            for person in store.people().await.map_err(refused("cannot list tokens"))? {
                print(&format!("{}\t{}", person.name, person.role));
            }
            Ok(())
        }
        TokenVerb::Remove { name } => {
            if store.remove_token(&name, now()).await.map_err(refused("cannot remove a token"))? {
                return Ok(());
            }
            say::line(&format!("error: there is no token called `{name}`"));
            Err(Refused)
        }
    }
}

fn refused<E: std::error::Error + 'static>(what: &'static str) -> impl FnOnce(E) -> Refused {
    move |error| {
        say::error(what, &error);
        Refused
    }
}

/// Data, to stdout. A closed pipe is no error: nobody wants more.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
