//! `nixfleet-agent check`: whether this host could follow its releases, and what to do where it could not.
//!
//! Everything is looked at, whatever was found before it, so that one run tells all. Nothing is changed or saved. Each
//! [`Finding`] is about one thing, and one that is not good says how to mend it. `host` looks at what is around the agent,
//! `trust` at what it believes and at what its source serves.

mod host;
mod trust;

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::activation::ActivationBackend;
use crate::config::{Config, ConfigFile, ConfigRefused, ENVIRONMENT_FILE};
use nixfleet_sys::text::chain;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// The configuration itself.
    Config,
    /// The root document, and whether it knows the channel.
    Root,
    /// The host's key.
    HostKey,
    /// The state folder, and what is kept there.
    State,
    /// The host's clock.
    Clock,
    /// The release source.
    Source,
    /// The release that it serves for this host.
    Release,
    /// Nix and its settings.
    Nix,
    /// The system under the agent.
    System,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "config",
            Self::Root => "root",
            Self::HostKey => "host-key",
            Self::State => "state",
            Self::Clock => "clock",
            Self::Source => "source",
            Self::Release => "release",
            Self::Nix => "nix",
            Self::System => "system",
        })
    }
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// As it should be.
    Good,
    /// It works now, and somebody should look.
    Warning,
    /// It keeps this host from following its releases, or makes that unsafe.
    Problem,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub about: About,
    /// How it is.
    pub grade: Grade,
    /// What was seen.
    pub what: String,
    /// What to do; always there if it is not good.
    pub fix: Option<String>,
}

impl Finding {
    fn good(about: About, what: impl Into<String>) -> Self {
        Self { about, grade: Grade::Good, what: what.into(), fix: None }
    }
    fn warning(about: About, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { about, grade: Grade::Warning, what: what.into(), fix: Some(fix.into()) }
    }
    fn problem(about: About, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { about, grade: Grade::Problem, what: what.into(), fix: Some(fix.into()) }
    }
}

/// Whether nothing stands against following releases on this host.
pub fn is_good(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.grade != Grade::Problem)
}

/// Everything that can be found with this configuration, on this host. The state folder is the backend's: it is known also
/// where the configuration is wrong.
pub async fn check(
    file: &ConfigFile,
    config: &Result<Config, ConfigRefused>,
    backend: &impl ActivationBackend,
) -> Vec<Finding> {
    let mut findings = config_findings(file, config);
    findings.extend(host::environment(Path::new(ENVIRONMENT_FILE)));
    if let Ok(config) = config {
        findings.extend(trust::findings(config).await);
    }
    findings.extend(host::state(&backend.host().state));
    findings.extend(host::nix(backend).await);
    findings.extend(host::system(backend).await);
    findings.sort_by_key(|finding| finding.about);
    findings
}

fn config_findings(file: &ConfigFile, config: &Result<Config, ConfigRefused>) -> Vec<Finding> {
    let about = About::Config;
    match config {
        Ok(config) => {
            let mut findings = vec![Finding::good(about, summary(file, config))];
            findings.extend(host::folder_of(file.path()));
            findings
        }
        Err(refused @ ConfigRefused::Faults(path, faults)) => {
            faults.iter().map(|fault| Finding::problem(about, fault.shown(path), refused.hint())).collect()
        }
        Err(refused @ (ConfigRefused::File(_) | ConfigRefused::NotText(_))) => {
            vec![Finding::problem(about, chain(refused), refused.hint())]
        }
    }
}

fn summary(file: &ConfigFile, config: &Config) -> String {
    let Config { source, channel, host, .. } = config;
    let from = if file.path().exists() { file.path().display().to_string() } else { "the flags".to_owned() };
    format!("by {from}, {host} follows channel {channel} of {source}")
}

#[cfg(test)]
mod tests;
