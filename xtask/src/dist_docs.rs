//! `cargo xtask dist-docs`: the man page and the shell completions, written by the agent itself so that they
//! cannot say anything else than its command line.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    outside::{self, Run},
    programs,
    report::Report,
    say, workspace,
};

/// What the agent generates, and the file name that packagers expect.
const DOCUMENTS: [(&str, &str); 4] = [
    ("man", "nixfleet-agent.1"),
    ("bash", "nixfleet-agent.bash"),
    ("zsh", "_nixfleet-agent"),
    ("fish", "nixfleet-agent.fish"),
];

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
    for (what, name) in DOCUMENTS {
        let text = Run::new(programs::built("nixfleet-agent")).args(["generate", what]).stdout()?;
        if text.trim().is_empty() {
            bail!("`nixfleet-agent generate {what}` printed nothing");
        }
        outside::write(&out.join(name), &text)?;
    }
    say::data(&out.display().to_string());
    Ok(())
}
