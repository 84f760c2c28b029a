//! `cargo xtask bench`: runs the benchmarks, most of them on real hosts, and keeps BENCHMARKS.md true.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

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
/// Agents of the benchmark of load, and of a large one.
const AGENTS: u32 = 10_000;
const AGENTS_LARGE: u32 = 100_000;

/// In the order of their tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Benchmark {
    /// On a test host: an activation against the three commands that a person would type; the idle agent
    Activation,
    /// On a test host: from a changed folder to the switch; an agent that has nothing to do
    Following,
    /// On a test host: `nixfleet release build` for 1,000 hosts against the same commands of Nix by hand
    ReleaseBuild,
    /// What a host fetches for a release, and how long it verifies that
    Documents,
    /// A release of 100,000 synthetic entries: assembled, hashed, written
    Release,
    /// Plans for 100,000 hosts
    Planner,
    /// A control plane under simulated agents; takes some minutes, and open files by the ten thousand
    Load,
}

impl Benchmark {
    /// Whether it is one of the testbed's, which need a host.
    fn is_on_hosts(self) -> bool {
        match self {
            Self::Activation | Self::Following | Self::ReleaseBuild => true,
            Self::Documents | Self::Release | Self::Planner | Self::Load => false,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().expect("none is hidden").get_name().to_owned()
    }
}

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
    /// The benchmarks to run [default: all but load; with --write all]
    #[arg(value_name = "NAME")]
    names: Vec<Benchmark>,
}

impl Args {
    /// The benchmarks to run, each once, in the order of their tables.
    fn wanted(&self) -> Result<Vec<Benchmark>> {
        if self.write && !self.names.is_empty() {
            bail!("`--write` replaces all tables, so it runs all benchmarks: leave the names out");
        }
        let is_wanted = |one: &Benchmark| match self.names.as_slice() {
            [] => self.write || *one != Benchmark::Load,
            names => names.contains(one),
        };
        Ok(Benchmark::value_variants().iter().copied().filter(is_wanted).collect())
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (on_hosts, alone): (Vec<_>, Vec<_>) = args.wanted()?.into_iter().partition(|one| one.is_on_hosts());
    let mut report = Report::default();
    let mut tables = Vec::new();
    if !on_hosts.is_empty() {
        tables.push(benchmarks_on_hosts(&mut report, &on_hosts)?);
    }
    for one in alone {
        tables.push(match one {
            Benchmark::Documents => report.step("documents", documents)?,
            Benchmark::Release => release(&mut report)?,
            Benchmark::Planner => report.step("planner", planner)?,
            Benchmark::Load => {
                load(&mut report, args.agents.unwrap_or(if args.large { AGENTS_LARGE } else { AGENTS }))?
            }
            on_host @ (Benchmark::Activation | Benchmark::Following | Benchmark::ReleaseBuild) => {
                benchmarks_on_hosts(&mut report, &[on_host])?
            }
        });
    }
    // Each is a document of its own, and a table ends where the next line is empty.
    let tables = tables.iter().map(|table| table.trim()).collect::<Vec<_>>().join("\n\n");
    say::data(&tables);
    if args.write {
        let path = workspace::root().join("BENCHMARKS.md");
        let old = fs::read_to_string(&path).context("cannot read BENCHMARKS.md")?;
        let new = replace_region(&old, &format!("{}\n{tables}", machine()))?;
        outside::write(&path, &new)?;
        say::line("BENCHMARKS.md is written");
    }
    report.close();
    Ok(())
}

fn benchmarks_on_hosts(report: &mut Report, wanted: &[Benchmark]) -> Result<String> {
    report.step("build the testbed", || programs::build(&["testbed"]))?;
    let agent = report.step("build the agent", programs::build_release_agent)?;
    let cli = report.step("build the command line", || command_line(wanted))?;
    if let Hosts::Impossible(why) = setup::prepare(report, &agent)? {
        bail!("the benchmarks need a test host: {why}");
    }
    report.step("benchmarks", || {
        Run::cargo()
            .args(["run", "--locked", "--release", "-p", "nixfleet-testbed", "--bin", "bench", "--"])
            .args(wanted.iter().map(|one| one.name()))
            .env("NIXFLEET_AGENT_BIN", &agent)
            .env("NIXFLEET_CLI_BIN", &cli)
            .stdout()
    })
}

/// The crate of the command line as it is shipped.
const CLI: [&str; 5] = ["build", "--locked", "--release", "-p", "nixfleet"];

/// The command line: as it is shipped where it is measured, else what is built sooner.
fn command_line(wanted: &[Benchmark]) -> Result<PathBuf> {
    if !wanted.contains(&Benchmark::ReleaseBuild) {
        programs::build(&["nixfleet"])?;
        return programs::keep(&programs::built("nixfleet"), "nixfleet");
    }
    Run::cargo().args(CLI).args(["--bin", "nixfleet"]).go()?;
    programs::keep(&workspace::target().join("release/nixfleet"), "nixfleet-shipped")
}

/// A release and an entry of fleets of 10, 1,000 and 100,000 hosts.
fn documents() -> Result<String> {
    Run::cargo()
        .args(["run", "--locked", "--release", "-p", "nixfleet-trust", "--example", "documents"])
        .stdout()
}

/// A release of 100,000 hosts, from the text of the description to the last file.
fn release(report: &mut Report) -> Result<String> {
    let build = || Run::cargo().args(CLI).args(["--example", "scale"]).go();
    report.step("build the parts of a large release", build)?;
    // On the disk of the checkout: a folder for temporary files may be one in memory.
    let here = workspace::target();
    let run = || Run::new(here.join("release/examples/scale")).env("TMPDIR", &here).stdout();
    report.step("release", run)
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
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        args: Args,
    }

    fn read(words: &[&str]) -> Result<Args, String> {
        let words = std::iter::once("bench").chain(words.iter().copied());
        Words::try_parse_from(words).map(|words| words.args).map_err(|error| error.to_string())
    }

    fn wanted(words: &[&str]) -> Vec<String> {
        let args = read(words).expect("known words");
        args.wanted().expect("they go together").into_iter().map(Benchmark::name).collect()
    }

    #[test]
    fn a_name_that_is_no_benchmark_is_refused_with_those_that_are() {
        for unknown in ["planer", "Planner", "", "all"] {
            let said = read(&["documents", unknown]).expect_err("no such benchmark");
            for one in Benchmark::value_variants() {
                assert!(said.contains(&one.name()), "{unknown}: {said}");
            }
        }
        assert!(read(&["release-biuld"]).expect_err("no such benchmark").contains("'release-build'"));
    }

    #[test]
    fn the_testbed_has_the_benchmarks_that_need_a_host_and_no_others() {
        let source = include_str!("../../crates/nixfleet-testbed/src/bin/bench/main.rs");
        let table = source.split("const BENCHMARKS").nth(1).and_then(|rest| rest.split("];").next());
        let names: Vec<&str> = table.expect("it lists them").split('"').skip(1).step_by(2).collect();
        let ours = Benchmark::value_variants().iter().filter(|one| one.is_on_hosts());
        assert_eq!(names, ours.map(|one| one.name()).collect::<Vec<_>>());
    }

    #[test]
    fn without_names_all_run_but_load_and_with_write_all() {
        let all = ["activation", "following", "release-build", "documents", "release", "planner", "load"];
        assert_eq!(wanted(&[]), all[..6]);
        assert_eq!(wanted(&["--write"]), all);
        assert_eq!(wanted(&["load", "documents", "load"]), ["documents", "load"]);
        let both = read(&["--write", "documents"]).expect("known words");
        assert!(both.wanted().is_err(), "tables of others would be lost");
    }

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
