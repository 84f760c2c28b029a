//! `nixfleet-sim`: runs seeds until one finds something. `cargo xtask test --sim` calls it.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use nixfleet_sim::{Counts, Faults, Finding, Mistake, Settings, run};

#[derive(Debug, Parser)]
#[command(name = "nixfleet-sim", about = "Run a simulated fleet, seed after seed, until one finds something")]
struct Cli {
    /// How many hosts the fleet has
    #[arg(long, default_value_t = 200)]
    hosts: u32,
    /// How many seeds are run
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this seed alone
    #[arg(long, conflicts_with_all = ["seeds", "from", "for_secs"])]
    seed: Option<u64>,
    /// Run seeds for so many seconds, however many that are
    #[arg(long, value_name = "SECONDS", conflicts_with = "seeds")]
    for_secs: Option<u64>,
    /// Let nothing go wrong
    #[arg(long)]
    calm: bool,
    /// Go on after a seed that finds something
    #[arg(long)]
    keep_going: bool,
    /// Put a mistake back, to see which seed finds it
    #[arg(long, value_parser = mistake)]
    mistake: Option<Mistake>,
    /// How many lines of a seed that finds something are shown
    #[arg(long, default_value_t = 80)]
    lines: usize,
    /// How many threads share the seeds
    #[arg(long, default_value_t = 2)]
    threads: u32,
}

/// What the threads share.
struct Shared {
    next: AtomicU64,
    stop: AtomicBool,
    sum: Mutex<(u64, Counts)>,
    findings: Mutex<Vec<Finding>>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let begun = Instant::now();
    let shared = Shared {
        next: AtomicU64::new(cli.seed.unwrap_or(cli.from)),
        stop: AtomicBool::new(false),
        sum: Mutex::default(),
        findings: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..cli.threads.max(1) {
            scope.spawn(|| work(&cli, &shared, begun));
        }
    });
    let mut findings = shared.findings.into_inner().unwrap_or_default();
    findings.sort_by_key(|finding| finding.seed);
    let (seeds, counts) = shared.sum.into_inner().unwrap_or_default();
    let mut out = std::io::stdout();
    for finding in &findings {
        let _ = writeln!(out, "{finding}\n");
    }
    let _ = writeln!(
        out,
        "{seeds} seeds of {} hosts in {:.1} s, {} found something; {counts:?}",
        cli.hosts,
        begun.elapsed().as_secs_f64(),
        findings.len()
    );
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(cli: &Cli, shared: &Shared, begun: Instant) {
    let faults = if cli.calm { Faults::None } else { Faults::All };
    let settings = Settings { hosts: cli.hosts, faults, mistake: cli.mistake };
    loop {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        let is_over = match (cli.seed, cli.for_secs) {
            (Some(only), _) => seed != only,
            (None, Some(secs)) => begun.elapsed() >= Duration::from_secs(secs),
            (None, None) => seed >= cli.from.saturating_add(cli.seeds),
        };
        if is_over || shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let (counts, finding) = match run(seed, settings, cli.lines) {
            Ok(counts) => (counts, None),
            Err(finding) => (Counts::default(), Some(finding)),
        };
        if let Ok(mut sum) = shared.sum.lock() {
            *sum = (sum.0 + 1, sum.1.plus(counts));
        }
        if let Some(finding) = finding {
            shared.stop.fetch_or(!cli.keep_going, Ordering::Relaxed);
            if let Ok(mut findings) = shared.findings.lock() {
                findings.push(*finding);
            }
        }
    }
}

fn mistake(name: &str) -> Result<Mistake, String> {
    let known = || Mistake::ALL.iter().map(|known| format!("{known:?}"));
    let found = Mistake::ALL.into_iter().find(|known| format!("{known:?}") == name);
    found.ok_or_else(|| {
        format!("there is no mistake `{name}`; there are {}", known().collect::<Vec<_>>().join(", "))
    })
}
