//! `cargo xtask bench`: the agent against the three bare commands, interleaved in one run on one host. Markdown on
//! stdout, nothing else.
//!
//! What is measured: wall time inside the host of an activation of an already fetched closure of 1,100 paths with 20
//! changed units, back and forth between two such systems; from the end of the switch program to our verdict on it; a
//! no-change activation; the idle agent's memory, the binary's size and how closed its unit is; and what [`following`] and
//! [`release_build`] say.
//!
//! Names as arguments choose: `activation`, `following`, `release-build`.
#![allow(clippy::print_stdout, reason = "tables are the result")]

mod following;
mod release_build;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixfleet_testbed::{Flavour, Host, System};

const AGENT: &str = "/run/current-system/sw/bin/nixfleet-agent";
const SHIPPED_UNIT: &str = include_str!("../../../../../dist/nixfleet-agent.service");
const LIMIT: Duration = Duration::from_mins(3);
/// Generations kept between two runs, in the words of `nix-env`.
const GENERATIONS: &str = "+5";
/// Pairs of runs: with 9 the ratio of the same two programs differed by 0.08 from one run to the next.
const PAIRS: usize = 15;

/// What can be measured, by its name.
type Benchmark = (&'static str, fn() -> Result<()>);

/// In the order of the tables.
const BENCHMARKS: [Benchmark; 3] = [
    ("activation", activation),
    ("following", following::following),
    ("release-build", release_build::release_build),
];

fn main() -> Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let known = BENCHMARKS.map(|(name, _)| name);
    ensure!(
        names.iter().all(|name| known.contains(&name.as_str())),
        "there are the benchmarks {}, not {names:?}",
        known.join(", ")
    );
    for (name, measure) in BENCHMARKS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            measure()?;
        }
    }
    Ok(())
}

fn activation() -> Result<()> {
    let host = Host::builder(Flavour::Trixie).real_syncs().boot()?;
    let (a, b) = (host.system(System::BigA).to_owned(), host.system(System::BigB).to_owned());
    host.fetch(&a)?;
    host.fetch(&b)?;
    bare(&host, &a)?;
    let (mut ours, mut theirs, mut steps) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut verdicts = Vec::new();
    for _ in 0..PAIRS {
        theirs.push(bare(&host, &b)?);
        ours.push(agent(&host, &a, &mut steps)?);
        verdicts.push(verdict(&host)?);
        theirs.push(bare(&host, &b)?);
        bare(&host, &a)?;
        ours.push(agent(&host, &b, &mut steps)?);
        verdicts.push(verdict(&host)?);
        bare(&host, &a)?;
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!("| already fetched closure, 1,100 paths, 20 units changed | median, ms |\n|---|---|");
    println!("| three bare commands | {theirs} |\n| `nixfleet-agent activate` | {ours} |");
    println!("| ratio | {:.2} |\n", f64::from(ours) / f64::from(theirs));
    table("where ours goes", &mut steps);
    let mut after_unit: Vec<u32> = verdicts.iter().map(|verdict| verdict.after_unit).collect();
    let mut after_program: Vec<u32> = verdicts.iter().map(|verdict| verdict.after_program).collect();
    println!("| how soon we judge | median, ms | worst, ms |\n|---|---|---|");
    let worst = |sorted: &[u32]| sorted.last().copied().unwrap_or(0);
    println!("| after the switch's unit ended | {} | {} |", median(&mut after_unit), worst(&after_unit));
    println!("| after its program ended | {} | {} |\n", median(&mut after_program), worst(&after_program));
    no_change(&host, &a)?;
    footprint(&host)
}

/// How soon the newest switch was judged, in milliseconds.
struct Verdict {
    /// From the end of the switch program, by its own log.
    after_program: u32,
    /// From the end of its unit, as the service manager tells it; the unit ends when the record is written.
    after_unit: u32,
}

/// The journal's line `confirming` is written as soon as the switch has been judged.
fn verdict(host: &Host) -> Result<Verdict> {
    let journal = host.read_file("/var/lib/nixfleet/journal.jsonl")?;
    let newest = |line: &str| -> Result<serde_json::Value> {
        let found = journal.lines().rfind(|text| text.contains(line)).context("a line in the journal")?;
        Ok(serde_json::from_str::<serde_json::Value>(found)?["entry"].take())
    };
    let judged_ms = newest("\"confirming\"")?["at_ms"].as_u64().context("a time")?;
    let log = host.read_file("/var/log/switch-runs.log")?;
    let ended = log.lines().rfind(|line| line.contains(" test ") && line.contains(" end code="));
    let ended_us: u64 =
        ended.and_then(|line| line.rsplit_once("at=")).context("an end in the log")?.1.parse()?;
    let fired = newest("\"run\":\"switch\"")?;
    let unit = format!("--unit={}", fired["unit"].as_str().context("a unit")?);
    let told = host.run(&["journalctl", "--quiet", "-o", "json", "--grep=Deactivated", &unit])?.success()?;
    let told: serde_json::Value = serde_json::from_str(told.text())?;
    let unit_us: u64 = told["_SOURCE_REALTIME_TIMESTAMP"].as_str().context("a time")?.parse()?;
    let after = |us: u64| u32::try_from(judged_ms.saturating_sub(us / 1000)).context("a short time");
    Ok(Verdict { after_program: after(ended_us)?, after_unit: after(unit_us)? })
}

fn no_change(host: &Host, system: &str) -> Result<()> {
    let (mut runs, mut steps) = (Vec::new(), BTreeMap::new());
    for _ in 0..PAIRS {
        runs.push(agent(host, system, &mut steps)?);
    }
    println!(
        "| no change | median, ms |\n|---|---|\n| `nixfleet-agent activate` | {} |\n",
        median(&mut runs)
    );
    table("where it goes", &mut steps);
    Ok(())
}

fn footprint(host: &Host) -> Result<()> {
    let rss = host.sh("grep VmRSS /proc/$(systemctl show -p MainPID --value nixfleet-agent)/status")?;
    let size = host.sh(&format!("stat -L -c %s {AGENT}"))?;
    println!("| idle agent | value |\n|---|---|");
    println!("| resident memory | {} |", rss.stdout.trim().trim_start_matches("VmRSS:").trim());
    println!("| size of the binary | {} bytes |", size.stdout.trim());
    println!(
        "| `systemd-analyze security` of the shipped unit, from 0 (closed) to 10 | {} |\n",
        exposure(host)?
    );
    Ok(())
}

/// What systemd says of the shipped unit, which needs not run for that.
fn exposure(host: &Host) -> Result<String> {
    let unit = "/root/nixfleet-agent.service";
    host.write_file(unit, SHIPPED_UNIT)?;
    let said = host.run(&["systemd-analyze", "security", "--no-pager", "--offline=true", unit])?.success()?;
    let line = said.stdout.lines().find(|line| line.contains("Overall exposure level"));
    let level = line.and_then(|line| line.split_ascii_whitespace().find(|word| word.parse::<f64>().is_ok()));
    Ok(level.with_context(|| said.to_string())?.to_owned())
}

fn table(title: &str, steps: &mut BTreeMap<String, Vec<u32>>) {
    println!("| {title} | median, ms |\n|---|---|");
    for (step, times) in steps {
        println!("| {step} | {} |", median(times));
    }
    println!();
}

/// The three commands that a person would type, timed inside the host.
fn bare(host: &Host, system: &str) -> Result<u32> {
    let script = format!(
        "s=$(date +%s%N); nix-store --realise {system} >/dev/null 2>&1 && \
         nix-env -p /nix/var/nix/profiles/system --set {system} && \
         {system}/bin/switch-to-configuration switch >/dev/null 2>&1; e=$(date +%s%N); echo $(( (e - s) / 1000000 ))"
    );
    let ms = host.run_for(LIMIT, &["/bin/bash", "-c", &script])?;
    forget_generations(host)?;
    ms.text().parse().context("a number of milliseconds")
}

/// As on a host with a limit of boot entries: their number is the same for every run that is measured.
fn forget_generations(host: &Host) -> Result<()> {
    let profile = "/nix/var/nix/profiles/system";
    host.run(&["nix-env", "--profile", profile, "--delete-generations", GENERATIONS])?.success()?;
    Ok(())
}

fn agent(host: &Host, system: &str, steps: &mut BTreeMap<String, Vec<u32>>) -> Result<u32> {
    let script = format!(
        "s=$(date +%s%N); {AGENT} activate --json {system} 2>/dev/null || exit 1; e=$(date +%s%N); \
         echo $(( (e - s) / 1000000 ))"
    );
    let output = host.run_for(LIMIT, &["/bin/bash", "-c", &script])?.success()?;
    let (json, ms) = output.stdout.trim().rsplit_once('\n').context("an outcome and a time")?;
    let outcome: serde_json::Value = serde_json::from_str(json)?;
    for step in outcome["steps"].as_array().into_iter().flatten() {
        let (Some(name), Some(ms)) = (step["step"].as_str(), step["ms"].as_u64()) else { continue };
        steps.entry(name.to_owned()).or_default().push(u32::try_from(ms)?);
    }
    forget_generations(host)?;
    ms.trim().parse().context("a number of milliseconds")
}

fn median(times: &mut [u32]) -> u32 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}
