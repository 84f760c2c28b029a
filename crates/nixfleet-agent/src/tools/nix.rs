//! `nix`: what a path is, whether somebody trusted signed it, and what the host's settings are.
//!
//! The only documented interface that tells of signatures (of local closures [`super::nix_store::serve`] tells sooner). All of it is called experimental upstream and its JSON has had five
//! shapes (see [`nixfleet_core::nix::path_info`]); each is read strictly, and a sixth is an error.

use std::time::Duration;

use nixfleet_core::ids::StorePath;
use nixfleet_core::nix::NotUnderstood;
use nixfleet_core::nix::path_info::{PathInfos, parse_path_info};
use nixfleet_sys::exec::{Cmd, Ended, ExecError, Finished};
use serde_json::{Map, Value};

use super::nix_store::{PATHS_PER_CALL, understood, with_words};
use super::progress::{NixListener, NixWords};
use super::{ToolError, Tools};

mod settings;
mod signatures;

pub use settings::{NixSettings, TrustedKey, parse_settings};
pub use signatures::all_signed;

/// Whose word is asked for: the paths named, or all that they refer to as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only the paths themselves.
    Paths,
    /// Their closures.
    Closures,
}

/// The verdict of `nix store verify` over a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an untrusted closure must not be switched to"]
pub enum Verified {
    /// Each path is signed by a key that this host trusts, or is named by its contents.
    Trusted,
    /// These are not; everything else is.
    Untrusted(Vec<StorePath>),
    /// Something else is wrong, perhaps beside that.
    Broken {
        /// Paths that were modified.
        corrupt: Vec<StorePath>,
        /// Paths that nobody trusted has signed.
        untrusted: Vec<StorePath>,
        /// Whether some path could not be looked at.
        incomplete: bool,
        /// What Nix said.
        words: String,
    },
}

/// `nix` with a sub-command; the feature flag is needed wherever the host has not set it.
fn nix(tools: &Tools, command: &[&str]) -> Cmd {
    tools
        .nix_command(&tools.nix)
        .args(["--extra-experimental-features", "nix-command"])
        .args(command)
        .args(tools.nix_option_args())
        .deadline(Duration::from_mins(10))
}

/// `nix path-info --json`: of the local store, or of the store (a substituter's URL) given.
pub fn path_info(tools: &Tools, paths: &[StorePath], reach: Reach, store: Option<&str>) -> Cmd {
    let cmd = with_reach(nix(tools, &["path-info", "--json"]), reach);
    let cmd = match store {
        Some(url) => cmd.args(["--store", url, "--option", "narinfo-cache-negative-ttl", "0"]),
        None => cmd,
    };
    cmd.args(paths.iter().map(StorePath::as_str))
}

const VERIFY: &[&str] = &["store", "verify", "--no-contents", "--sigs-needed", "1"];

/// `nix store verify --no-contents --sigs-needed 1`: asks for a signature even where this host built the path.
pub fn verify(tools: &Tools, paths: &[StorePath], reach: Reach, store: Option<&str>) -> Cmd {
    let cmd = with_reach(nix(tools, VERIFY), reach).args(["--log-format", "internal-json"]);
    let cmd = match store {
        Some(url) => cmd.args(["--store", url]),
        None => cmd,
    };
    cmd.args(paths.iter().map(StorePath::as_str))
}

/// `nix store copy-sigs`: adds the signatures that a substituter has for these valid paths and their closures.
pub fn copy_sigs(tools: &Tools, substituter: &str, paths: &[StorePath]) -> Cmd {
    nix(tools, &["store", "copy-sigs", "--recursive", "--substituter", substituter])
        .args(paths.iter().map(StorePath::as_str))
}

/// The settings as JSON, under the name that 2.20 and newer know.
pub fn config_show(tools: &Tools) -> Cmd {
    nix(tools, &["config", "show", "--json"])
}

/// The settings as JSON, under the name that versions before 2.20 know.
pub fn show_config(tools: &Tools) -> Cmd {
    nix(tools, &["show-config", "--json"])
}

fn with_reach(cmd: Cmd, reach: Reach) -> Cmd {
    match reach {
        Reach::Paths => cmd,
        Reach::Closures => cmd.arg("--recursive"),
    }
}

/// The verdict from the exit bits and the paths reported; `None` if this ending is no verdict at all.
///
/// Bit 1 means modified, but 1 is also how every other error ends: without a path reported as modified it is no
/// verdict. The same holds for bit 2 and untrusted paths.
pub fn verdict(ended: Ended, words: &NixWords) -> Result<Option<Verified>, NotUnderstood> {
    let code = match ended {
        Ended::Exited(0) => return Ok(Some(Verified::Trusted)),
        Ended::Exited(code @ 1..=7) => code,
        Ended::Exited(_) | Ended::Signalled(_) => return Ok(None),
    };
    let corrupt = reported(&words.corrupted)?;
    let untrusted = reported(&words.untrusted)?;
    if (code & 1 != 0) == corrupt.is_empty() || (code & 2 != 0) == untrusted.is_empty() {
        return Ok(None);
    }
    Ok(Some(if code == 2 {
        Verified::Untrusted(untrusted)
    } else {
        Verified::Broken { corrupt, untrusted, incomplete: code & 4 != 0, words: words.text() }
    }))
}

fn reported(paths: &[String]) -> Result<Vec<StorePath>, NotUnderstood> {
    let mut found = paths
        .iter()
        .map(|path| super::lines::store_path(path, "a reported path is not a store path"))
        .collect::<Result<Vec<_>, _>>()?;
    found.sort();
    found.dedup();
    Ok(found)
}

impl Tools {
    /// What the local store, or the one at `store`, says of the paths.
    pub async fn path_info(
        &self,
        paths: &[StorePath],
        reach: Reach,
        store: Option<&str>,
    ) -> Result<PathInfos, ToolError> {
        let mut all = PathInfos::default();
        for some in paths.chunks(PATHS_PER_CALL) {
            let PathInfos { known, missing } =
                understood(path_info(self, some, reach, store), |text| parse_path_info(text.as_bytes()))
                    .await?;
            all.known.extend(known);
            all.missing.extend(missing);
        }
        Ok(all)
    }

    /// Whether each path is signed by a key that this host trusts.
    pub async fn verify(
        &self,
        path: &StorePath,
        reach: Reach,
        store: Option<&str>,
    ) -> Result<Verified, ToolError> {
        let cmd = verify(self, std::slice::from_ref(path), reach, store);
        let line = cmd.line();
        let mut listener = NixListener::new(|_| ());
        let finished = cmd.run_heard(&mut listener).await;
        let words = listener.into_words();
        let finished = finished.map_err(|error| ToolError::Exec(with_words(error, &words)))?;
        match verdict(finished.ended, &words) {
            Ok(Some(verdict)) => Ok(verdict),
            Ok(None) => Err(ToolError::Exec(ExecError::Failed {
                line,
                ended: finished.ended,
                elapsed: finished.elapsed,
                last_words: words.text(),
            })),
            Err(source) => Err(ToolError::NotUnderstood { line, source }),
        }
    }

    /// Adds the signatures that the substituter has for the closure of this valid path.
    pub async fn copy_sigs(&self, substituter: &str, path: &StorePath) -> Result<(), ToolError> {
        let cmd = copy_sigs(self, substituter, std::slice::from_ref(path));
        cmd.run().await.and_then(Finished::success).map_err(ToolError::Exec)?;
        Ok(())
    }

    /// The settings of Nix on this host that matter to us.
    pub async fn nix_settings(&self) -> Result<NixSettings, ToolError> {
        let parse = |text: &str| parse_settings(text.as_bytes());
        match understood(config_show(self), parse).await {
            // Before 2.20 there is no `nix config`.
            Err(ToolError::Exec(ExecError::Failed { last_words, .. }))
                if last_words.contains("is not a recognised command") =>
            {
                understood(show_config(self), parse).await
            }
            answer => answer,
        }
    }
}

/// The value as a JSON object.
fn object<'a>(value: &'a Value, why: &'static str) -> Result<&'a Map<String, Value>, NotUnderstood> {
    value.as_object().ok_or_else(|| NotUnderstood::new(why, &shown(value)))
}

/// The beginning of a value, for an error.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}

#[cfg(test)]
mod tests;
