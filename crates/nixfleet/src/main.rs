//! The operator's command line of a fleet.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
