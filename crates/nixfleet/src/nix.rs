//! Nix on the operator's machine: build or fetch systems, look at their closures, copy them to a cache.
//!
//! Each command is an argument vector with a deadline. Questions are asked for many paths at once, since every start of
//! Nix costs 20 ms whatever it is asked: the closures of all hosts come from one `nix path-info`, and are told apart here.

mod build;
mod closures;
mod copied;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_core::ids::StorePath;
use nixfleet_core::nix::NotUnderstood;
use nixfleet_core::nix::path_info::{PathInfos, parse_path_info};
use nixfleet_sys::exec::{Cmd, ExecError, Finished};

pub use build::{BuildFailed, BuildOptions};
pub use closures::{Closures, NotInClosures};
pub use copied::{CopiedWhole, NotLooked, is_in_git, refuse_copied_keys};

/// Paths in one argument vector: 1,000 of at most 256 bytes are an eighth of what Linux takes.
const PATHS_PER_CALL: usize = 1_000;
/// A question to the local store or to a cache.
const QUERY_DEADLINE: Duration = Duration::from_mins(30);
/// A copy of everything to a cache.
const COPY_DEADLINE: Duration = Duration::from_hours(12);
/// What `path-info` may print: 300,000 paths with 30 references each are about 800 MB.
const PATH_INFO_BYTES_MAX: usize = 1 << 30;

/// What Nix gets of our environment: its settings, the way out, and what its fetchers (git, ssh) need; and beside these
/// [`CREDENTIALS_PREFIX`].
const ENVIRONMENT_KEPT: [&str; 31] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "NIX_PATH",
    "NIX_CONFIG",
    "NIX_CONF_DIR",
    "NIX_USER_CONF_FILES",
    "NIX_REMOTE",
    "NIX_SSHOPTS",
    "NIX_SSL_CERT_FILE",
    "SSL_CERT_FILE",
    "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND",
    "NIXPKGS_ALLOW_UNFREE",
    "LOCALE_ARCHIVE",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];
/// How all variables begin that tell Nix who it is to an object store (`s3://`), as the agent hands them on.
const CREDENTIALS_PREFIX: &str = "AWS_";

/// Nix's programs.
#[derive(Debug, Clone)]
pub struct Nix {
    nix: PathBuf,
    nix_store: PathBuf,
}

/// Nix is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot find {} in PATH", .0.join(" and "))]
pub struct NoNix(pub Vec<&'static str>);

/// Why Nix gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    /// It did not end well.
    #[error(transparent)]
    Exec(ExecError),
    /// It ended well and said something else than we know.
    #[error("`{line}` printed what is not understood here")]
    NotUnderstood {
        /// The whole line.
        line: String,
        /// Where and what.
        source: NotUnderstood,
    },
    /// It told of a path and not of one that this refers to.
    #[error(transparent)]
    Incomplete(NotInClosures),
    /// Some paths are not there.
    #[error("{} paths are not in {store}, for example {}", .paths.len(), .paths[0])]
    Missing {
        /// Which store.
        store: String,
        /// Which paths; at least one.
        paths: Vec<StorePath>,
    },
}

/// The program of that name in PATH, by its absolute path.
pub fn program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return std::path::absolute(name).ok().filter(|path| is_program(path));
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
}

impl Nix {
    /// The programs in PATH.
    pub fn find() -> Result<Self, NoNix> {
        match (program("nix"), program("nix-store")) {
            (Some(nix), Some(nix_store)) => Ok(Self { nix, nix_store }),
            (nix, nix_store) => {
                let missing = [("nix", nix), ("nix-store", nix_store)];
                Err(NoNix(
                    missing.into_iter().filter(|(_, path)| path.is_none()).map(|(name, _)| name).collect(),
                ))
            }
        }
    }

    fn command(&self, words: &[&str]) -> Cmd {
        // Flakes too: an installable may be one, and on a host that has them off this is the only way in.
        bare(&self.nix).args(["--extra-experimental-features", "nix-command flakes"]).args(words)
    }

    /// What the local store, or the one at `store`, says of the paths and of all that they refer to.
    pub async fn path_info(&self, paths: &[StorePath], store: Option<&str>) -> Result<PathInfos, NixError> {
        let mut all = PathInfos::default();
        for some in paths.chunks(PATHS_PER_CALL) {
            let cmd = self.command(&["path-info", "--json", "--recursive"]);
            let cmd = match store {
                Some(url) => cmd.args(["--store", url, "--option", "narinfo-cache-negative-ttl", "0"]),
                None => cmd,
            };
            let cmd = cmd
                .args(some.iter().map(StorePath::as_str))
                .stdout_bytes_max(PATH_INFO_BYTES_MAX)
                .deadline(QUERY_DEADLINE);
            let line = cmd.line();
            let finished = cmd.run().await.and_then(Finished::success).map_err(NixError::Exec)?;
            let PathInfos { known, missing } = parse_path_info(&finished.stdout)
                .map_err(|source| NixError::NotUnderstood { line, source })?;
            all.known.extend(known);
            all.missing.extend(missing);
        }
        if all.missing.is_empty() {
            return Ok(all);
        }
        Err(NixError::Missing { store: store.unwrap_or("the local store").to_owned(), paths: all.missing })
    }

    /// The closures of those systems that the local store or one of `stores` has; others are left out.
    pub async fn known_closures(
        &self,
        systems: &[StorePath],
        stores: &[String],
    ) -> Result<Closures, NixError> {
        let mut absent = self.invalid(systems).await?;
        let here: Vec<StorePath> = systems.iter().filter(|path| !absent.contains(path)).cloned().collect();
        let mut infos = if here.is_empty() { Vec::new() } else { self.path_info(&here, None).await?.known };
        for store in stores {
            let mut still_absent = Vec::new();
            for path in absent {
                match self.path_info(std::slice::from_ref(&path), Some(store)).await {
                    Ok(found) => infos.extend(found.known),
                    // Each store has some of them; what none has is unknown, and said to be.
                    Err(_) => still_absent.push(path),
                }
            }
            absent = still_absent;
        }
        Closures::new(infos).map_err(NixError::Incomplete)
    }

    /// Which of the paths are not valid in the local store.
    async fn invalid(&self, paths: &[StorePath]) -> Result<Vec<StorePath>, NixError> {
        let mut all = Vec::new();
        for some in paths.chunks(PATHS_PER_CALL) {
            let cmd = bare(&self.nix_store)
                .args(["--check-validity", "--print-invalid"])
                .args(some.iter().map(StorePath::as_str));
            let finished = cmd.run().await.and_then(Finished::success).map_err(NixError::Exec)?;
            all.extend(finished.stdout_text().lines().filter_map(|line| line.parse().ok()));
        }
        Ok(all)
    }

    /// Signs the paths and all that they refer to with the key of a cache in the file, in the local store.
    pub async fn sign(&self, paths: &[StorePath], key: &Path) -> Result<(), NixError> {
        for some in paths.chunks(PATHS_PER_CALL) {
            let cmd = self.command(&["store", "sign", "--recursive", "--key-file"]).arg(key);
            let cmd = cmd.args(some.iter().map(StorePath::as_str)).deadline(QUERY_DEADLINE);
            cmd.run().await.and_then(Finished::success).map_err(NixError::Exec)?;
        }
        Ok(())
    }

    /// Copies the paths and all that they refer to into the store at `to`.
    pub async fn copy(&self, paths: &[StorePath], to: &str) -> Result<(), NixError> {
        for some in paths.chunks(PATHS_PER_CALL) {
            let cmd = self.command(&["copy", "--to", to]).args(some.iter().map(StorePath::as_str));
            cmd.deadline(COPY_DEADLINE).run().await.and_then(Finished::success).map_err(NixError::Exec)?;
        }
        Ok(())
    }
}

fn bare(program: &Path) -> Cmd {
    let command = Cmd::new(program).env_from_ours(&ENVIRONMENT_KEPT).env("NO_COLOR", "1").env("TERM", "dumb");
    let credentials = std::env::vars_os().filter(|(key, _)| is_credential(key));
    credentials.fold(command, |command, (key, value)| command.env(key, value))
}

fn is_credential(key: &OsStr) -> bool {
    key.to_str().is_some_and(|key| key.starts_with(CREDENTIALS_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nix_is_handed_what_private_caches_and_ways_out_ask_for_and_nothing_that_changes_what_programs_are() {
        for key in ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"] {
            assert!(is_credential(key.as_ref()), "{key}");
        }
        for key in ["LD_PRELOAD", "NIX_STORE_DIR", "BASH_ENV", "MY_AWS_KEY", "NIXFLEET_TOKEN"] {
            assert!(!is_credential(key.as_ref()) && !ENVIRONMENT_KEPT.contains(&key), "{key}");
        }
        for key in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            let upper = key.to_uppercase();
            assert!(ENVIRONMENT_KEPT.contains(&key) && ENVIRONMENT_KEPT.contains(&upper.as_str()), "{key}");
        }
    }
}
