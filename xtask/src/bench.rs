//! `cargo xtask bench`: runs the benchmarks, most of them on real hosts, and keeps BENCHMARKS.md true.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::{
    hosts::Hosts,
    outside::{self, Run},
    programs,
    report::Report,
    say, setup, workspace,
};

/// What is between these two lines of BENCHMARKS.md is written by `--write` and by nobody else.
const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";
/// The benchmarks that need no host.
const PLANNER: &str = "planner";
const LOAD: &str = "load";
/// Agents of the benchmark of load, and of a large one.
const AGENTS: u32 = 10_000;
const AGENTS_LARGE: u32 = 100_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Put the tables into BENCHMARKS.md, with this machine's description
    #[arg(long)]
    write: bool,
    /// In the benchmark of load, 100,000 agents instead of 10,000, or as many as the limit of open files allows
    #[arg(long, conflicts_with = "agents")]
    large: bool,
    /// In the benchmark of load, so many agents
    #[arg(long, value_name = "N")]
    agents: Option<u32>,
    /// The benchmarks to run: activation, following, or planner and load, which need no test host
    /// [default: all but load, which takes some minutes and open files by the ten thousand]
    names: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.write && !args.names.is_empty() {
        bail!("`--write` replaces all tables, so it runs all benchmarks: leave the names out");
    }
    let mut report = Report::default();
    let wants_planner = args.names.is_empty() || args.names.iter().any(|name| name == PLANNER);
    let wants_load = args.names.iter().any(|name| name == LOAD);
    let on_hosts: Vec<&String> =
        args.names.iter().filter(|name| ![PLANNER, LOAD].contains(&name.as_str())).collect();
    let mut tables = Vec::new();
    if args.names.is_empty() || !on_hosts.is_empty() {
        tables.push(benchmarks_on_hosts(&mut report, &on_hosts)?);
    }
    if wants_planner {
        tables.push(report.step("planner", planner)?);
    }
    if wants_load {
        let agents = args.agents.unwrap_or(if args.large { AGENTS_LARGE } else { AGENTS });
        tables.push(load(&mut report, agents)?);
    }
    let tables = tables.join("\n");
    say::data(tables.trim_end());
    if args.write {
        let path = workspace::root().join("BENCHMARKS.md");
        let old = fs::read_to_string(&path).context("cannot read BENCHMARKS.md")?;
        let new = replace_region(&old, &format!("{}\n{}", machine(), tables.trim()))?;
        outside::write(&path, &new)?;
        say::line("BENCHMARKS.md is written");
    }
    report.close();
    Ok(())
}

fn benchmarks_on_hosts(report: &mut Report, names: &[&String]) -> Result<String> {
    report.step("build the testbed and the command line", || programs::build(&["testbed", "nixfleet"]))?;
    let cli = programs::keep(&programs::built("nixfleet"), "nixfleet")?;
    let agent = report.step("build the agent", programs::build_release_agent)?;
    if let Hosts::Impossible(why) = setup::prepare(report, &agent)? {
        bail!("the benchmarks need a test host: {why}");
    }
    report.step("benchmarks", || {
        Run::cargo()
            .args(["run", "--locked", "--release", "-p", "nixfleet-testbed", "--bin", "bench", "--"])
            .args(names)
            .env("NIXFLEET_AGENT_BIN", &agent)
            .env("NIXFLEET_CLI_BIN", &cli)
            .stdout()
    })
}

/// 100,000 hosts in 100 channels, in each state of a rollout.
fn planner() -> Result<String> {
    Run::cargo()
        .args(["run", "--locked", "--release", "-p", "nixfleet-core", "--example", "plan_scale"])
        .stdout()
}

/// A control plane, as it is shipped, and a fleet of simulated agents that hold their connections to it.
fn load(report: &mut Report, agents: u32) -> Result<String> {
    let what = ["build", "--locked", "--release", "-p", "nixfleet-control-plane"];
    report.step("build the control plane and its fleet", || {
        Run::cargo().args(what).args(["--bin", "nixfleet-control-plane", "--example", "load"]).go()
    })?;
    let built = workspace::target().join("release");
    report.step("load", || {
        Run::new(built.join("examples/load"))
            .arg("--program")
            .arg(built.join("nixfleet-control-plane"))
            .args(["--agents", &agents.to_string()])
            .stdout()
    })
}

/// This machine, as far as it matters for reading the numbers.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    describe(&read("/proc/cpuinfo"), &read("/proc/meminfo"), kernel.trim())
}

fn describe(cpuinfo: &str, meminfo: &str, kernel: &str) -> String {
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let model = field(cpuinfo, "model name").unwrap_or("unknown");
    let memory_kib: u64 =
        field(meminfo, "MemTotal").and_then(|text| text.trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    format!(
        "| machine | |\n|---|---|\n| processor | {model}, {cores} cores |\n| memory | {} MiB |\n| kernel | {kernel} |\n| command | `cargo xtask bench --write` |\n",
        memory_kib / 1024
    )
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn replace_region(document: &str, region: &str) -> Result<String> {
    let (before, rest) =
        document.split_once(BEGIN).with_context(|| format!("no `{BEGIN}` in the document"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no `{END}` after `{BEGIN}`"))?;
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", region.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_region_between_the_marks_changes() {
        let old = "# B\n<!-- bench:begin -->\nold\n<!-- bench:end -->\ntail\n";
        let new = replace_region(old, "a table\n").expect("both marks are there");
        assert_eq!(new, "# B\n<!-- bench:begin -->\na table\n<!-- bench:end -->\ntail\n");
        assert_eq!(replace_region(&new, "a table").expect("both marks are there"), new);
    }

    #[test]
    fn a_document_without_both_marks_in_order_is_refused() {
        for bad in ["", "<!-- bench:begin -->", "<!-- bench:end --> <!-- bench:begin -->"] {
            assert!(replace_region(bad, "x").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_committed_document_has_the_marks() {
        let committed = include_str!("../../BENCHMARKS.md");
        assert!(replace_region(committed, "x").is_ok());
    }

    #[test]
    fn the_machine_is_described_from_proc() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.1GHz\n\nprocessor\t: 1\nmodel name\t: Some CPU @ 2.1GHz\n";
        let text = describe(cpuinfo, "MemTotal:       24680084 kB\nMemFree: 1 kB\n", "6.1.0");
        assert!(text.contains("| Some CPU @ 2.1GHz, 2 cores |"), "{text}");
        assert!(text.contains("| 24101 MiB |"), "{text}");
    }
}
