//! `cargo xtask demo`: updates that go well, go wrong and come back, on a real host.

use anyhow::{Result, bail};

use crate::{hosts::Hosts, outside::Run, programs, report::Report, setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Handed to the demo program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut report = Report::default();
    report.step("build the testbed, the command line and the control plane", || {
        programs::build(&["testbed", "demo", "nixfleet", "nixfleet-control-plane"])
    })?;
    let agent = report.step("build the agent", programs::build_release_agent)?;
    if let Hosts::Impossible(why) = setup::prepare(&mut report, &agent)? {
        bail!("the demo needs a test host: {why}");
    }
    let outcome = report.step("demo", || {
        Run::new(programs::built("demo"))
            .env("NIXFLEET_AGENT_BIN", &agent)
            .env("NIXFLEET_CLI_BIN", programs::built("nixfleet"))
            .env("NIXFLEET_CONTROL_PLANE_BIN", programs::built("nixfleet-control-plane"))
            .args(&args.rest)
            .go()
    });
    report.close();
    outcome
}
