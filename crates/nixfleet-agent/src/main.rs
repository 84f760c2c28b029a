//! The agent's command line: one host, without a control plane.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
