//! Shell completions and manual pages, from the command line itself so that they cannot say anything else.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::ui::Done;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder, which is there already
    folder: PathBuf,
}

pub(crate) fn completions<C: CommandFactory>(args: &CompletionsArgs) {
    clap_complete::generate(args.shell, &mut C::command(), "nixfleet", &mut std::io::stdout());
}

/// A page for the program and one for each verb: `nixfleet.1`, `nixfleet-release-build.1`, …
pub(crate) fn man<C: CommandFactory>(args: &ManArgs) -> Done {
    clap_mangen::generate_to(C::command(), &args.folder)?;
    Ok(())
}
