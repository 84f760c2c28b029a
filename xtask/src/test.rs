//! `cargo xtask test`: every test, those on real hosts too.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    hosts::Hosts, outside::Run, programs, report::Report, say, setup, simulation, stalls::Stalls, workspace,
};

/// Begins a line by which a test says what it did not do.
const LEFT_OUT: &str = "LEFT OUT:";
/// The seed of all properties in CI: what fails there fails anywhere, with the same command. Elsewhere each run has seeds of its
/// own, which is how a property finds what nobody thought of.
const CI_SEED: &str = "20260301";
/// Begins the name of every test that cuts a virtual machine's power; they run only with `--power`.
const POWER: &str = "power";
/// Begins what runs in full only with `--soak`.
const SOAK: &str = "soak";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Cut the power of virtual machines too, and set their clocks (some fifteen minutes more)
    #[arg(long)]
    power: bool,
    /// Strike a following agent with every blow at every point, and follow 200 releases in a row (an hour more)
    #[arg(long)]
    soak: bool,
    /// Have processes of the tests stand still by chance, for as long as five seconds: what fails then could fail anywhere
    #[arg(long)]
    stalls: bool,
    #[command(flatten)]
    simulation: simulation::Args,
    /// Which tests to run, as `cargo nextest run` takes it; leaves the doc tests out
    #[arg(last = true, allow_hyphen_values = true, value_name = "FILTER")]
    filter: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.simulation.sim {
        return simulation::run(&args.simulation);
    }
    let mut report = Report::default();
    let outcome = all(args, &mut report);
    report.close();
    outcome?;
    refuse_gaps(&report, workspace::is_ci())?;
    say::line(if report.all_left_out().is_empty() {
        "all tests passed, nothing was left out"
    } else {
        "all tests that ran passed; LEFT OUT lines above say what did not run"
    });
    Ok(())
}

fn all(args: &Args, report: &mut Report) -> Result<()> {
    // This order: the last build of the agent is the plain one, as `CARGO_BIN_EXE_…` has to be.
    let failpoints = report.step("build the agent with crash points", programs::build_failpoints_agent)?;
    let plain = report.step("build everything else", || {
        let all = ["build", "--locked", "--workspace", "--bins", "--tests", "--example", programs::SKEWED];
        Run::cargo().args(all).go()?;
        programs::keep(&programs::built("nixfleet"), "nixfleet")?;
        programs::keep(&programs::built("examples").join(programs::SKEWED), programs::SKEWED)?;
        programs::keep(&programs::built("nixfleet-control-plane"), "nixfleet-control-plane")?;
        programs::keep(&programs::built("nixfleet-agent"), programs::PLAIN)
    })?;
    let hosts = setup::prepare(report, &failpoints)?;
    let mut env = vec![
        ("NIXFLEET_AGENT_BIN", failpoints.into_os_string()),
        ("NIXFLEET_AGENT_PLAIN_BIN", plain.into_os_string()),
        ("NIXFLEET_CLI_BIN", programs::kept("nixfleet").into_os_string()),
        ("NIXFLEET_CONTROL_PLANE_BIN", programs::kept("nixfleet-control-plane").into_os_string()),
        ("NIXFLEET_SKEWED_BIN", programs::kept(programs::SKEWED).into_os_string()),
    ];
    if workspace::is_ci() && std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        env.push(("PROPTEST_RNG_SEED", CI_SEED.into()));
    }
    if let Hosts::Impossible(why) = &hosts {
        report.left_out(format!("tests on hosts: {why}"));
        if workspace::is_ci() {
            bail!("in CI nothing may be left out: {why}");
        }
        // Tests that need a host read this, say what they leave out, and pass.
        env.push(("NIXFLEET_HOSTS_IMPOSSIBLE", why.into()));
    }
    if args.power {
        env.push(("NIXFLEET_POWER", "1".into()));
    } else {
        report.left_out(format!("{POWER} cuts of virtual machines: ask for them with --power"));
    }

    if args.soak {
        env.push(("NIXFLEET_SOAK", "1".into()));
    } else {
        report.left_out(format!("{SOAK} of 200 releases and every blow: ask for it with --soak"));
    }

    let tests = report.step("tests", || {
        let _stalls = args.stalls.then(Stalls::begin);
        tests(&args.filter, &env)
    });
    for what in tests.as_ref().into_iter().flatten() {
        report.note(what.clone());
    }
    if !args.filter.is_empty() {
        report.left_out("doc tests and simulated fleets: a filter was given");
        return tests.map(drop);
    }
    let simulated = report.step("simulated fleets", || simulation::run(&args.simulation));
    let docs =
        report.step("doc tests", || Run::cargo().args(["test", "--locked", "--workspace", "--doc"]).go());
    tests.and(simulated).and(docs)
}

/// What the tests said they left out.
fn tests(filter: &[String], env: &[(&str, OsString)]) -> Result<Vec<String>> {
    let with_env = |run: Run| env.iter().fold(run, |run, (name, value)| run.env(name, value));
    if !Run::cargo().args(["nextest", "--version"]).works() {
        if workspace::is_ci() {
            bail!("CI needs cargo-nextest: `cargo test` cannot say what was left out, nor end a hung test");
        }
        say::line(
            "    cargo-nextest is not installed: `cargo test` instead, without its time limits and places",
        );
        with_env(Run::cargo().args(["test", "--locked", "--workspace", "--all-targets"]).args(filter))
            .go()?;
        return Ok(vec!["what single tests left out is not known: install cargo-nextest".to_owned()]);
    }
    let profile = if workspace::is_ci() { "ci" } else { "default" };
    // The store of `.config/nextest.toml` is in the checkout, wherever the target folder is.
    let junit = workspace::root().join("target/nextest").join(profile).join("junit.xml");
    remove_if_there(&junit)?;
    let run =
        Run::cargo().args(["nextest", "run", "--locked", "--workspace", "--profile", profile]).args(filter);
    let outcome = with_env(run).go();
    // Also after a failure: what was left out is then half of the story.
    let text = fs::read_to_string(&junit).with_context(|| format!("no test report in {}", junit.display()));
    let left_out = text.map(|text| left_out_lines(&text));
    for what in left_out.iter().flatten() {
        say::line(&format!("{LEFT_OUT} {what}"));
    }
    outcome.and(left_out)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The `LEFT OUT:` lines in a `JUnit` report, which holds the output of every test.
fn left_out_lines(junit: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in junit.lines() {
        // The first line of an output stands behind the tag that opens it, the last before one that closes it.
        let Some((before, what)) = line.split_once(LEFT_OUT) else { continue };
        if !before.trim().is_empty() && !before.ends_with('>') {
            continue;
        }
        let what = what.split("</").next().unwrap_or(what).trim();
        let what =
            what.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
        let what = what.replace("&amp;", "&");
        if !lines.contains(&what) {
            lines.push(what);
        }
    }
    lines
}

/// In CI only what needs `--power` or `--soak` may be left out: a command of its own runs it.
fn refuse_gaps(report: &Report, ci: bool) -> Result<()> {
    let is_gap = |what: &&str| !what.starts_with(POWER) && !what.starts_with(SOAK);
    let gaps: Vec<&str> = report.all_left_out().iter().map(String::as_str).filter(is_gap).collect();
    if ci && !gaps.is_empty() {
        bail!("in CI nothing may be left out: {}", gaps.join("; "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_out_lines_are_read_from_the_output_of_passing_tests() {
        let lines = left_out_lines(include_str!("../fixtures/junit.xml"));
        assert_eq!(lines, ["host_reverts: no <container> & no root", "power_cut: ask for it"]);
    }

    #[test]
    fn ci_fails_on_any_gap_but_power_cuts_and_soaks() {
        let mut report = Report::default();
        assert!(refuse_gaps(&report, true).is_ok());
        report.note("soak of 200 releases and every blow: ask for it with --soak".to_owned());
        assert!(refuse_gaps(&report, true).is_ok());
        report.note("power cuts of virtual machines: ask for them with --power".to_owned());
        assert!(refuse_gaps(&report, true).is_ok());
        report.note("tests on hosts: not root".to_owned());
        assert!(refuse_gaps(&report, false).is_ok());
        assert!(refuse_gaps(&report, true).is_err());
    }
}
