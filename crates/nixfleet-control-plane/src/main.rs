//! The control plane: one process, one configuration file, no signing key.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
