//! What is around the agent: its folders, Nix, the service manager.

use std::path::Path;
use std::time::Duration;

use nixfleet_sys::fs;
use tokio::time::timeout;

use super::{About, Finding};
use crate::activation::backend::NotStarted;
use crate::activation::host::HostPaths;
use crate::activation::realise::has;
use crate::activation::{ActivationBackend, journal};
use crate::tools::MissingTools;
use crate::tools::nix::NixSettings;
use nixfleet_sys::text::chain;

/// How long a cache may take to answer: Nix asks five times.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// The folder of a file that decides whom to trust: whoever can write it can put another file there.
pub(super) fn folder_of(file: &Path) -> Option<Finding> {
    let folder = file.parent()?;
    let who = fs::others_who_write(&std::fs::metadata(folder).ok()?)?;
    // The sticky bit keeps others from replacing what is root's; the Nix store is such a folder.
    if is_sticky(folder) {
        return None;
    }
    let what = format!("{} can be replaced by others: of its folder, {who}", file.display());
    Some(Finding::problem(About::Config, what, format!("`chown root {0}; chmod go-w {0}`", folder.display())))
}

/// The environment of the agent's unit: it has the credentials of caches, and whoever writes it decides what a process of
/// root's begins with. Nothing if it is not there.
pub(super) fn environment(file: &Path) -> Option<Finding> {
    let meta = std::fs::metadata(file).ok()?;
    let who = fs::others_who_write(&meta).or_else(|| fs::others_who_read(&meta))?;
    let shown = file.display();
    let what =
        format!("{shown} is for root alone, as it may hold the credentials of caches, and it is not: {who}");
    let fix = format!(
        "`chown root {shown}; chmod 0600 {shown}`; if somebody may have read credentials in it, replace them"
    );
    Some(Finding::problem(About::Config, what, fix))
}

fn is_sticky(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder).is_ok_and(|meta| meta.mode() & 0o1000 != 0)
}

/// The state folder: who can write it, and whether it outlives a reboot.
pub(super) fn state(folder: &Path) -> Vec<Finding> {
    let about = About::State;
    let shown = folder.display();
    let mut findings = Vec::new();
    match std::fs::metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            findings.push(Finding::good(about, format!("{shown} is not there yet; the agent makes it")));
        }
        Err(error) => {
            let what = format!("{shown} cannot be looked at: {error}");
            findings.push(Finding::problem(about, what, "run the check as root"));
        }
        Ok(meta) if !meta.is_dir() => {
            let what = format!("{shown} is not a folder");
            findings.push(Finding::problem(about, what, "move it away, or set `state-dir`"));
        }
        Ok(meta) => match fs::others_who_write(&meta) {
            Some(who) => {
                let what = format!("{shown} can be changed by others: {who}");
                findings.push(Finding::problem(
                    about,
                    what,
                    format!("`chown root {shown}; chmod 0700 {shown}`"),
                ));
            }
            None if fs::is_read_only(folder) => {
                let what = format!("{shown} is on a file system that is mounted read-only");
                let fix = "mount it for writing; the agent goes on by itself then";
                findings.push(Finding::problem(about, what, fix));
            }
            None => findings.push(Finding::good(about, format!("{shown} is the agent's own"))),
        },
    }
    if let Err(error) = journal::history(&HostPaths::with_state(folder).journal()) {
        findings.push(Finding::problem(about, chain(&error), error.hint()));
    }
    if nearest(folder).is_some_and(fs::is_in_memory) {
        let what =
            format!("{shown} is in memory: after a reboot nothing is known of what was accepted before");
        let fix = "make it persistent, or set `state-dir` to a folder that is";
        findings.push(Finding::problem(about, what, fix));
    }
    findings
}

/// The folder itself, or the nearest above it that exists.
fn nearest(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|folder| folder.exists())
}

/// Nix: whether it is there, and whether it demands signatures.
pub(super) async fn nix(backend: &impl ActivationBackend) -> Vec<Finding> {
    let about = About::Nix;
    let tools = match backend.tools() {
        Ok(tools) => tools,
        Err(missing) => return missing.by_package().0.iter().map(|nix| not_there(about, nix)).collect(),
    };
    match tools.nix_settings().await {
        Ok(settings) => {
            let mut findings = nix_settings(&settings);
            if let Some(current) = backend.host().current() {
                for substituter in &settings.substituters {
                    let asked = timeout(ANSWERS_WITHIN, has(tools, substituter, &current)).await;
                    findings.push(cache(
                        substituter,
                        asked.ok().map(|asked| asked.map_err(|error| chain(&error))),
                    ));
                }
            }
            findings
        }
        Err(error) => {
            let what = format!("Nix does not tell its settings: {}", chain(&error));
            vec![Finding::problem(
                about,
                what,
                "run `nix config show` by hand; Nix 2.8 is the oldest that is known",
            )]
        }
    }
}

fn not_there(about: About, missing: &MissingTools) -> Finding {
    Finding::problem(about, missing.to_string(), missing.hint())
}

/// What is found of a cache that was asked for the running system; `None` if it did not answer in time. It need not have
/// that system.
pub(super) fn cache(substituter: &str, asked: Option<Result<bool, String>>) -> Finding {
    let why = match asked {
        Some(Ok(_)) => return Finding::good(About::Nix, format!("{substituter} answers")),
        Some(Err(why)) => why,
        None => format!("no answer within {} s", ANSWERS_WITHIN.as_secs()),
    };
    let fix = "see whether it is up and whether this check saw the agent's environment (`systemctl show -p Environment \
               nixfleet-agent`): a private cache wants its credentials there (`AWS_*`, `NIX_SSHOPTS`) or in Nix's `netrc-file`";
    Finding::warning(About::Nix, format!("{substituter} does not answer: {why}"), fix)
}

/// What is found of settings.
pub(super) fn nix_settings(settings: &NixSettings) -> Vec<Finding> {
    let NixSettings { substituters, trusted_keys, require_sigs, system: _, extra_platforms: _ } = settings;
    let about = About::Nix;
    let mut findings = Vec::new();
    if !require_sigs {
        let what = "`require-sigs` is off: Nix would take unsigned paths from a cache";
        findings.push(Finding::problem(about, what, "set `nix.settings.require-sigs = true`"));
    }
    if trusted_keys.is_empty() {
        let what = "no key of a cache is trusted, so nothing can be fetched";
        let fix = "add your cache's key to `nix.settings.trusted-public-keys`";
        findings.push(Finding::problem(about, what, fix));
    }
    if substituters.is_empty() {
        let what = "there is no substituter, so nothing can be fetched";
        findings.push(Finding::problem(about, what, "add your cache to `nix.settings.substituters`"));
    }
    if findings.is_empty() {
        let keys: Vec<&str> = trusted_keys.iter().map(|key| key.name.as_str()).collect();
        let (keys, caches) = (keys.join(", "), substituters.join(", "));
        findings
            .push(Finding::good(about, format!("signatures by {keys} are demanded; fetched from {caches}")));
    }
    findings
}

/// Whether the platform is what the agent needs, and whether we may use it.
pub(super) async fn system(backend: &impl ActivationBackend) -> Vec<Finding> {
    let about = About::System;
    let mut findings: Vec<Finding> = service_manager(backend).await.into_iter().collect();
    if !rustix::process::geteuid().is_root() {
        let what = "this check does not run as root, so it may see less than the agent";
        findings.push(Finding::warning(about, what, "run it with sudo"));
    }
    if backend.host().current().is_none() {
        let what = format!("{} does not lead to a system", backend.host().current_system.display());
        findings.push(Finding::problem(about, what, "the agent is for NixOS and nix-darwin; is this one?"));
    }
    if findings.is_empty() {
        findings.push(Finding::good(about, "the service manager answers, and the running system is found"));
    }
    findings
}

/// What keeps runs from being started.
async fn service_manager(backend: &impl ActivationBackend) -> Option<Finding> {
    let about = About::System;
    if let Some(why) = backend.unusable() {
        return Some(Finding::problem(about, why, "the agent needs a host with its own service manager"));
    }
    if let Err(missing) = backend.tools() {
        // Without those of Nix, those of systemd are not asked either.
        return missing.by_package().1.map(|systemd| not_there(about, &systemd));
    }
    let NotStarted { last_lines } = backend.can_fire().await.err()?;
    let fix =
        "see whether `systemctl is-system-running` answers, and whether this check runs on the host itself";
    Some(Finding::problem(about, last_lines.join(" "), fix))
}
