//! Measures a release of a large fleet: `cargo xtask bench release`, or for another size
//! `cargo run --release -p nixfleet --example scale HOSTS`.
//!
//! Prints a Markdown table: from the text of the description to a release on the disk, one thread, one process. The
//! description and the closures are made beforehand, and the peak of memory is set back after that. The numbers to hold
//! are in the design: 100,000 hosts in 10 s and 500 MB.

#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use nixfleet::fleet::{self, Fleet, Host};
use nixfleet::nix::Closures;
use nixfleet::release::{Built, Terms, assemble, open};
use nixfleet::served::Served;
use nixfleet_core::ids::StorePath;
use nixfleet_core::model::names::{ChannelName, HostName, Seq};
use nixfleet_core::model::release::Closure;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::nix::closure::Contents;
use nixfleet_core::nix::nar_hash::NarHash;
use nixfleet_core::nix::path_info::PathInfo;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// As many hosts as the design is made for.
const HOSTS: usize = 100_000;
/// Paths that all closures have in common, as a small NixOS system has.
const COMMON_PATHS: usize = 600;
/// Different systems; hosts that are alike share one.
const SYSTEMS: usize = 1_000;
/// How often all of it is done: the median counts of times, and the most of memory.
const TIMES: usize = 3;

fn main() -> Result<()> {
    let hosts = std::env::args().nth(1).map_or(Ok(HOSTS), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("nixfleet-scale-{}", std::process::id()));
    let mut rows = Rows::default();
    for _ in 0..TIMES {
        let done = measure(hosts, &Served::new(&folder), &mut rows);
        nixfleet_sys::fs::remove_tree(&folder)?;
        done?;
    }
    println!(
        "| a release of {hosts} hosts with {SYSTEMS} systems | s | processor, s | peak of memory by then, MB |"
    );
    println!("|---|---|---|---|");
    for (part, took) in &mut rows.0 {
        let (wall, cpu) = (median(took, |took| took.wall), median(took, |took| took.cpu));
        let peak = took.iter().map(|took| took.peak_bytes).max().unwrap_or(0);
        println!(
            "| {part} | {:.1} | {:.1} | {} |",
            wall.as_secs_f64(),
            cpu.as_secs_f64(),
            peak.div_ceil(1_000_000)
        );
    }
    Ok(())
}

/// What each part took each time, in the order of the parts.
#[derive(Default)]
struct Rows(Vec<(&'static str, Vec<Took>)>);

struct Took {
    wall: Duration,
    cpu: Duration,
    /// The most memory that was resident until the end of the part.
    peak_bytes: u64,
}

/// When a part began.
struct Begun(Instant, Duration);

impl Begun {
    fn now() -> Result<Self> {
        Ok(Self(Instant::now(), cpu()?))
    }

    fn took(self) -> Result<Took> {
        Ok(Took { wall: self.0.elapsed(), cpu: cpu()?.saturating_sub(self.1), peak_bytes: peak_bytes()? })
    }
}

impl Rows {
    fn add(&mut self, part: &'static str, took: Took) {
        match self.0.iter_mut().find(|(name, _)| *name == part) {
            Some((_, all)) => all.push(took),
            None => self.0.push((part, vec![took])),
        }
    }

    fn timed<T>(&mut self, part: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Begun::now()?;
        let done = work()?;
        self.add(part, begun.took()?);
        Ok(done)
    }
}

fn median(took: &mut [Took], of: impl Fn(&Took) -> Duration) -> Duration {
    took.sort_by_key(&of);
    of(&took[took.len() / 2])
}

fn measure(hosts: usize, served: &Served, rows: &mut Rows) -> Result<()> {
    let text = description(hosts)?;
    let infos = infos()?;
    forget_peak()?;
    let channel: ChannelName = "stable".parse()?;
    let all = Begun::now()?;

    let fleet = rows.timed("the description is read", || {
        Ok(fleet::read(&text).map_err(|faults| format!("{faults:?}"))?)
    })?;
    drop(text);
    let closures = rows.timed("the closures' digests", || {
        let closures = Closures::new(infos)?;
        let one = |number| Ok((system(number)?, closures.of(&system(number)?)?));
        (0..SYSTEMS).map(one).collect::<Result<BTreeMap<_, _>>>()
    })?;
    let built = built(&fleet, &closures)?;
    let terms = terms()?;
    let assembled =
        rows.timed("entries assembled and hashed", || Ok(assemble(&fleet, &channel, &built, terms)?))?;
    drop((fleet, built));
    let seq = assembled.release.seq;
    rows.timed("written", || {
        let held = served.lock()?;
        Ok(served.put_release(&held, (&channel, seq), &assembled.envelope, &assembled.entries)?)
    })?;
    rows.add("in all", all.took()?);
    drop(assembled);
    let opened =
        rows.timed("read back and proven, as before a signature", || Ok(open(served, &channel, seq)?))?;
    assert_eq!(opened.entries.len(), hosts, "all of them come back");
    Ok(())
}

fn built(fleet: &Fleet, closures: &BTreeMap<StorePath, Closure>) -> Result<BTreeMap<HostName, Built>> {
    let one = |(name, host): (&HostName, &Host)| {
        let system: StorePath = host.system.to_string().parse()?;
        let closure = closures[&system].clone();
        Ok((name.clone(), Built { system, closure }))
    };
    fleet.hosts.iter().map(one).collect()
}

fn terms() -> Result<Terms> {
    let created = UnixMs::new(nixfleet_sys::clock::unix_ms())?;
    Ok(Terms {
        seq: Seq::new(1)?,
        created,
        expires: UnixMs::new(created.get() + 86_400_000)?,
        revision: "none".parse()?,
        previous: None,
    })
}

/// Processor time of this process so far: on a busy machine it says more than a clock.
fn cpu() -> Result<Duration> {
    /// The kernel counts in hundredths of a second on every machine of ours.
    const TICK_MS: u64 = 10;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // After the name, which may have spaces: the 12th and 13th are user and system time.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(ticks.sum::<std::result::Result<u64, _>>()? * TICK_MS))
}

/// What was needed to make the description does not count: the kernel sets the peak back to what is used now.
fn forget_peak() -> Result<()> {
    use std::io::Write as _;
    Ok(std::fs::OpenOptions::new().write(true).open("/proc/self/clear_refs")?.write_all(b"5")?)
}

fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}

fn description(hosts: usize) -> Result<String> {
    let mut text = String::from(
        r#"{"fleet":"scale","channels":{"stable":{"policy":{"waves":[
{"name":"canary","hosts":{"tag":"canary"},"soak":"10m"},{"name":"some","take":"10%","soak":"1h"},{"name":"rest","soak":"0s"}],
"max_in_flight":[{"hosts":"all","limit":"20%"}]}}},"hosts":{"#,
    );
    for number in 0..hosts {
        // The end of the text of a public key; nobody has its private half.
        let key = format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA{number:042}");
        let tag = if number % 1_000 == 0 { "canary" } else { "ordinary" };
        let comma = if number == 0 { "" } else { "," };
        write!(
            text,
            "{comma}\n\"host-{number}\":{{\"channel\":\"stable\",\"tags\":[\"web\",\"{tag}\"],\"key\":\"{key}\",\"system\":\"{}\",\
             \"probes\":[{{\"name\":\"web\",\"kind\":{{\"tcp\":{{\"address\":\"localhost:80\"}}}}}}]}}",
            system(number % SYSTEMS)?
        )?;
    }
    text.push_str("}}");
    Ok(text)
}

fn system(number: usize) -> Result<StorePath> {
    path(number, "nixos-system")
}

fn path(number: usize, name: &str) -> Result<StorePath> {
    Ok(format!("/nix/store/{number:032}-{name}-1").parse()?)
}

fn infos() -> Result<Vec<PathInfo>> {
    let common = (0..COMMON_PATHS).map(|number| path(number, "package")).collect::<Result<Vec<_>>>()?;
    let info = |path: StorePath, references: Vec<StorePath>| {
        let Contents { path, nar_hash, nar_size } =
            Contents { path, nar_hash: NarHash::from_sha256([7; 32]), nar_size: 1_000_000 };
        PathInfo {
            path,
            nar_hash,
            nar_size,
            download_size: None,
            references,
            signatures: Vec::new(),
            content_address: None,
            ultimate: false,
        }
    };
    let mut infos: Vec<PathInfo> = common.iter().map(|path| info(path.clone(), Vec::new())).collect();
    for number in 0..SYSTEMS {
        infos.push(info(system(number)?, common.clone()));
    }
    Ok(infos)
}
