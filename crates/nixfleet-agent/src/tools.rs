//! The outside programs of a host: Nix, systemd, the journal and (on macOS) `sysctl`, one file each; and [`bus`], which
//! asks the service manager itself before a program of systemd is started for it.
//!
//! Every file has builders that return a [`Cmd`] as data, and parsers that take recorded bytes; running them is one
//! thin `async fn` of [`Tools`] per question. The parsers are strict: what they do not understand is an error that
//! shows it, never a guess, and they are tested on outputs recorded from Nix 2.8 and 2.26 and systemd 252 and 257
//! (`tests/fixtures/tools`). Nothing here decides; `crate::activation` does.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nixfleet_core::nix::NotUnderstood;
use nixfleet_sys::exec::{Cmd, ExecError};

pub mod bus;
pub mod journal;
pub mod logind;
pub mod nix;
pub mod nix_env;
pub mod nix_store;
pub mod progress;
pub mod sysctl;
pub mod systemd;
pub mod unit_now;
pub mod unit_reasons;
pub mod units;

mod lines;

/// Where the programs are looked for, in this order.
///
/// The running system first, so that Nix and systemd are those that the host itself uses.
pub const SEARCH_PATH: [&str; 5] =
    ["/run/current-system/sw/bin", "/nix/var/nix/profiles/default/bin", "/usr/bin", "/bin", "/usr/sbin"];

/// The only variables of ours that a tool gets to see: where to find certificates, the way out, and the locale data. Nix
/// gets [`CREDENTIALS_KEPT`] and [`CREDENTIALS_PREFIX`] beside them.
pub const ENVIRONMENT_KEPT: [&str; 12] = [
    "HOME",
    "NIX_SSL_CERT_FILE",
    "SSL_CERT_FILE",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "LOCALE_ARCHIVE",
];

/// What Nix alone gets to see, for caches that are not public (`ssh-ng://`).
pub const CREDENTIALS_KEPT: [&str; 1] = ["NIX_SSHOPTS"];
/// How all variables begin that tell Nix who it is to an object store (`s3://`).
pub const CREDENTIALS_PREFIX: &str = "AWS_";

const JOURNALCTL: &str = "journalctl";

/// The programs by their absolute paths, and the settings that every Nix command is given.
///
/// The folder of each is resolved when it is found: `/run/current-system` changes under our feet in every switch. The
/// file name itself is never resolved, because `nix-store` is a link to `nix` that looks at its own name. Nothing keeps
/// the system in which they were found from collection, once another one runs and is the boot default: a program that is
/// gone is looked for anew whenever it is to be run ([`Tools::here`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// `nix-store`.
    pub nix_store: PathBuf,
    /// `nix-env`.
    pub nix_env: PathBuf,
    /// `nix`.
    pub nix: PathBuf,
    /// `systemctl`.
    pub systemctl: PathBuf,
    /// `systemd-run`.
    pub systemd_run: PathBuf,
    /// `journalctl`.
    pub journalctl: PathBuf,
    /// `busctl`, which comes with systemd.
    pub busctl: PathBuf,
    /// Where a program that is gone is looked for.
    pub search: Vec<PathBuf>,
    /// The socket of the service manager, which is asked before `systemctl` and `systemd-run` are started.
    pub manager: PathBuf,
    /// Settings handed to every Nix command as `--option NAME VALUE`; [`Tools::find`] leaves them empty.
    pub nix_options: Vec<(String, String)>,
}

/// The programs that are not there, all of them, and where they were looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct MissingTools {
    /// The names of the programs.
    pub names: Vec<&'static str>,
    /// The folders.
    pub looked_in: Vec<PathBuf>,
}

impl MissingTools {
    /// Those of Nix, and those of systemd, each if there are any.
    pub fn by_package(self) -> (Option<Self>, Option<Self>) {
        let Self { names, looked_in } = self;
        let (nix, systemd): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_of_nix(name));
        let one = |names: Vec<_>| (!names.is_empty()).then(|| Self { names, looked_in: looked_in.clone() });
        (one(nix), one(systemd))
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        let nix = self.names.iter().any(|name| is_of_nix(name));
        let systemd = self.names.iter().any(|name| !is_of_nix(name));
        let mut packages = Vec::new();
        if nix {
            packages.push("Nix (`nix.enable = true`, or the package `nix-bin`)");
        }
        if systemd {
            packages.push("systemd");
        }
        format!("install {}; on NixOS all of them are in /run/current-system/sw/bin", packages.join(" and "))
    }
}

impl fmt::Display for MissingTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folders: Vec<_> = self.looked_in.iter().map(|folder| folder.display().to_string()).collect();
        write!(f, "cannot find {} in {}", self.names.join(", "), folders.join(", "))
    }
}

/// Why a tool gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It did not run to its end, or ended in a way that has no meaning of its own.
    #[error(transparent)]
    Exec(ExecError),
    /// It ended well and said something we do not understand.
    #[error("`{line}` printed what this agent does not understand")]
    NotUnderstood {
        /// The whole line.
        line: String,
        /// Where and what.
        source: NotUnderstood,
    },
}

impl Tools {
    /// Those that are kept in `place`, or that `find` finds. Only what was found is kept: what is missing now may be there in a
    /// moment.
    pub fn kept_in(
        place: &OnceLock<Self>,
        find: impl FnOnce() -> Result<Self, MissingTools>,
    ) -> Result<&Self, MissingTools> {
        match place.get() {
            Some(tools) => Ok(tools),
            None => find().map(|found| place.get_or_init(|| found)),
        }
    }

    /// The tools from the first folder that has each; an error names all that are missing.
    pub fn find(search: &[&Path]) -> Result<Self, MissingTools> {
        Self::find_those(search, |_| true)
    }

    /// The tools with the names that are `wanted`; the paths of others may stay empty, and cannot be run.
    fn find_those(search: &[&Path], wanted: impl Fn(&str) -> bool) -> Result<Self, MissingTools> {
        // The folder is resolved, the name is not: see the type.
        let folders = resolved(search);
        let mut missing = Vec::new();
        let mut look = |name: &'static str| {
            first_of(&folders, name).unwrap_or_else(|| {
                missing.push(name);
                PathBuf::new()
            })
        };
        let tools = Self {
            nix_store: look("nix-store"),
            nix_env: look("nix-env"),
            nix: look("nix"),
            systemctl: look("systemctl"),
            systemd_run: look("systemd-run"),
            journalctl: look(JOURNALCTL),
            busctl: look("busctl"),
            search: search.iter().map(|folder| folder.to_path_buf()).collect(),
            manager: PathBuf::from(bus::SOCKET),
            nix_options: Vec::new(),
        };
        missing.retain(|name| wanted(name));
        if missing.is_empty() {
            Ok(tools)
        } else {
            let looked_in = search.iter().map(|folder| folder.to_path_buf()).collect();
            Err(MissingTools { names: missing, looked_in })
        }
    }

    /// Nix alone in [`SEARCH_PATH`], for platforms without systemd.
    pub fn find_nix_here() -> Result<Self, MissingTools> {
        Self::find_those(&SEARCH_PATH.map(Path::new), is_of_nix)
    }

    /// What reads the journal in [`SEARCH_PATH`]: what a switch printed can be read without Nix.
    pub fn find_journal_here() -> Result<Self, MissingTools> {
        Self::find_those(&SEARCH_PATH.map(Path::new), |name| name == JOURNALCTL)
    }

    /// The tools in [`SEARCH_PATH`].
    pub fn find_here() -> Result<Self, MissingTools> {
        Self::find(&SEARCH_PATH.map(Path::new))
    }

    /// The same tools with one more setting for every Nix command.
    #[must_use]
    pub fn with_nix_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.nix_options.push((name.into(), value.into()));
        self
    }

    /// The program where it was found, or, if it is gone from there, where one of its name is now. One that is nowhere
    /// (`/run/current-system` leads nowhere for an instant in some switches) is the old path, whose start then fails, and
    /// that is asked again.
    pub fn here(&self, program: &Path) -> PathBuf {
        let found = || first_of(&resolved(&self.search), program.file_name()?);
        if is_program(program) { program.to_owned() } else { found().unwrap_or_else(|| program.to_owned()) }
    }

    /// A program of Nix: with what caches want to see, and with a path on which it finds `ssh`.
    fn nix_command(&self, program: &Path) -> Cmd {
        let command = self.command(program).env("PATH", SEARCH_PATH.join(":"));
        let credentials = std::env::vars_os().filter(|(key, _)| is_credential(key));
        credentials.fold(command, |command, (key, value)| command.env(key, value))
    }

    /// A program of ours, wherever it is now.
    fn command(&self, program: &Path) -> Cmd {
        bare(&self.here(program))
    }

    /// The settings, as arguments; they come after the sub-command, where all versions take them.
    fn nix_option_args(&self) -> Vec<String> {
        let one = |(name, value): &(String, String)| ["--option".to_owned(), name.clone(), value.clone()];
        self.nix_options.iter().flat_map(one).collect()
    }
}

/// Whether the program comes with Nix; all others come with systemd.
fn is_of_nix(name: &str) -> bool {
    name.starts_with("nix")
}

fn is_credential(key: &OsStr) -> bool {
    key.to_str().is_some_and(|key| CREDENTIALS_KEPT.contains(&key) || key.starts_with(CREDENTIALS_PREFIX))
}

/// A program with the environment that all tools get: ours in part, and no colour.
fn bare(program: &Path) -> Cmd {
    Cmd::new(program)
        .env_from_ours(&ENVIRONMENT_KEPT)
        .env("NO_COLOR", "1")
        .env("TERM", "dumb")
        .env("SYSTEMD_COLORS", "0")
}

/// Where the folders really are; one that leads nowhere is left out.
fn resolved<P: AsRef<Path>>(folders: &[P]) -> Vec<PathBuf> {
    folders.iter().filter_map(|folder| folder.as_ref().canonicalize().ok()).collect()
}

/// The program of this name in the first folder that has it.
fn first_of(folders: &[PathBuf], name: impl AsRef<Path>) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(&name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod real;
#[cfg(test)]
pub(crate) mod tests;
