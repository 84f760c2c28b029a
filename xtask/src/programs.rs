//! Builds the programs that other verbs run.
//!
//! Always with `--workspace`, also for a single program: cargo then settles the features of the dependencies as
//! it does for the test build, and they are compiled once for all verbs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{outside::Run, workspace};

/// The agent with crash points compiled in; where the tests find it.
pub(crate) const FAILPOINTS: &str = "nixfleet-agent-failpoints";
/// The agent as it is shipped, but unoptimised; where the tests find it.
pub(crate) const PLAIN: &str = "nixfleet-agent-plain";

/// The control plane whose clock is wrong, an example.
pub(crate) const SKEWED: &str = "skewed";

/// Builds programs of the workspace in the development profile.
pub(crate) fn build(names: &[&str]) -> Result<()> {
    Run::cargo()
        .args(["build", "--locked", "--workspace"])
        .args(names.iter().flat_map(|name| ["--bin", *name]))
        .go()
}

/// Builds the agent with crash points and keeps it aside, since the next build replaces it.
pub(crate) fn build_failpoints_agent() -> Result<PathBuf> {
    Run::cargo()
        .args(["build", "--locked", "--workspace", "--bin", "nixfleet-agent"])
        .args(["--features", "nixfleet-agent/failpoints"])
        .go()?;
    keep(&built("nixfleet-agent"), FAILPOINTS)
}

/// Builds the agent as it is shipped.
pub(crate) fn build_release_agent() -> Result<PathBuf> {
    Run::cargo().args(["build", "--locked", "--release", "-p", "nixfleet-agent"]).go()?;
    Ok(workspace::target().join("release/nixfleet-agent"))
}

/// Where the development build of a program is.
pub(crate) fn built(name: &str) -> PathBuf {
    workspace::target().join("debug").join(name)
}

/// Where [`keep`] puts a program of that name.
pub(crate) fn kept(name: &str) -> PathBuf {
    workspace::target().join("testbed").join(name)
}

/// Copies a program to `target/testbed/NAME`.
pub(crate) fn keep(program: &Path, name: &str) -> Result<PathBuf> {
    let dir = workspace::target().join("testbed");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let kept = kept(name);
    // By way of a new file: the old one may be running on a host.
    let fresh = dir.join(format!("{name}.new"));
    fs::copy(program, &fresh).with_context(|| format!("cannot copy {}", program.display()))?;
    fs::rename(&fresh, &kept).with_context(|| format!("cannot make {}", kept.display()))?;
    Ok(kept)
}
