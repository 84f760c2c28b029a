//! `cargo xtask dist-docs`: the man pages and the shell completions, written by the programs themselves so that they
//! cannot say anything else than their command lines.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    outside::{self, Run},
    programs,
    report::Report,
    say, workspace,
};

/// What is printed by which program when it is called how, and the file name that packagers expect.
const DOCUMENTS: [(&str, [&str; 2], &str); 11] = [
    ("nixfleet-agent", ["generate", "man"], "nixfleet-agent.1"),
    ("nixfleet-agent", ["generate", "bash"], "nixfleet-agent.bash"),
    ("nixfleet-agent", ["generate", "zsh"], "_nixfleet-agent"),
    ("nixfleet-agent", ["generate", "fish"], "nixfleet-agent.fish"),
    ("nixfleet-control-plane", ["generate", "man"], "nixfleet-control-plane.1"),
    ("nixfleet-control-plane", ["generate", "bash"], "nixfleet-control-plane.bash"),
    ("nixfleet-control-plane", ["generate", "zsh"], "_nixfleet-control-plane"),
    ("nixfleet-control-plane", ["generate", "fish"], "nixfleet-control-plane.fish"),
    ("nixfleet", ["completions", "bash"], "nixfleet.bash"),
    ("nixfleet", ["completions", "zsh"], "_nixfleet"),
    ("nixfleet", ["completions", "fish"], "nixfleet.fish"),
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
    report.step("build the programs", || {
        programs::build(&["nixfleet-agent", "nixfleet-control-plane", "nixfleet"])
    })?;
    // A page for each verb: nixfleet.1, nixfleet-release-build.1, …
    Run::new(programs::built("nixfleet")).arg("man").arg(&out).go()?;
    for (program, words, name) in DOCUMENTS {
        let text = Run::new(programs::built(program)).args(words).stdout()?;
        if text.trim().is_empty() {
            bail!("`{program} {}` printed nothing", words.join(" "));
        }
        outside::write(&out.join(name), &text)?;
    }
    say::data(&out.display().to_string());
    Ok(())
}
