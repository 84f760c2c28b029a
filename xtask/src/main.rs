//! Every command that the README and CI name: `cargo xtask VERB`.
//!
//! One file per verb; each verb is a list of steps that are printed with the time they took. Programs are
//! started and files written only in [`outside`]. This crate depends on no other crate of the workspace
//! (`cargo xtask layers` checks it), so that it builds in seconds and cannot be broken by them.

mod outside;

mod hosts;
mod programs;
mod report;
mod say;
mod workspace;

mod bench;
mod ci;
mod clean_room;
mod demo;
mod dist_docs;
mod layers;
#[cfg(test)]
mod lessons;
mod setup;
mod simulation;
mod stalls;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Set up, test, show and measure nixfleet")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the test hosts need, and build their images
    Setup,
    /// Show updates that go well, go wrong and come back, on a real host
    Demo(demo::Args),
    /// Run every test, on real hosts too
    Test(test::Args),
    /// Measure, and print the tables of BENCHMARKS.md
    Bench(bench::Args),
    /// Check which crate depends on which
    Layers,
    /// Run what CI runs
    Ci,
    /// Write the man page and the shell completions
    DistDocs(dist_docs::Args),
    /// Run a command in a fresh Debian that holds only this checkout and the Rust toolchain
    CleanRoom(clean_room::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Setup => setup::run(),
        Verb::Demo(args) => demo::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Layers => layers::run(),
        Verb::Ci => ci::run(),
        Verb::DistDocs(args) => dist_docs::run(&args),
        Verb::CleanRoom(args) => clean_room::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::line(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
