//! `cargo xtask dist-docs`: the man page and the shell completions, written by the agent itself so that they
//! cannot say anything else than its command line.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{outside::Run, programs, report::Report, say, workspace};

/// The shells that get completions.
const SHELLS: [&str; 3] = ["bash", "fish", "zsh"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder to write to [default: dist-docs in the target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let out = match &args.out {
        Some(out) => std::path::absolute(out).context("cannot name the current folder")?,
        None => workspace::target().join("dist-docs"),
    };
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut report = Report::default();
    report.step("build the agent", || programs::build(&["nixfleet-agent"]))?;
    let generate = || Run::new(programs::built("nixfleet-agent")).arg("generate");
    report.step("man page", || generate().args(["man", "--out"]).arg(&out).go())?;
    report.step("completions", || {
        SHELLS.iter().try_for_each(|shell| generate().args(["completions", shell, "--out"]).arg(&out).go())
    })?;
    say::data(&out.display().to_string());
    Ok(())
}
