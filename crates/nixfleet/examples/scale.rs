//! Measures a release of a large fleet: `cargo run --release -p nixfleet --example scale [HOSTS]`.
//!
//! Prints a line for each part: from the text of the description to a release on the disk, one thread, one process.
//! The description and the closures are made beforehand, and the peak of memory is set back after that. The numbers to
//! hold are in the design: 100,000 hosts in 10 s and 500 MB.

#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use nixfleet::fleet;
use nixfleet::nix::Closures;
use nixfleet::release::{Built, Terms, assemble, open};
use nixfleet::served::Served;
use nixfleet_core::ids::StorePath;
use nixfleet_core::model::names::{ChannelName, HostName, Seq};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::nix::closure::Contents;
use nixfleet_core::nix::nar_hash::NarHash;
use nixfleet_core::nix::path_info::PathInfo;
use nixfleet_trust::sign::Signer;
use nixfleet_trust::sign::private_key::PrivateKey;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// As many hosts as the design is made for.
const HOSTS: usize = 100_000;
/// Paths that all closures have in common, as a small NixOS system has.
const COMMON_PATHS: usize = 600;
/// Different systems; hosts that are alike share one.
const SYSTEMS: usize = 1_000;

fn main() -> Result<()> {
    let hosts = std::env::args().nth(1).map_or(Ok(HOSTS), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("nixfleet-scale-{}", std::process::id()));
    let done = measure(hosts, &Served::new(&folder));
    nixfleet_sys::fs::remove_tree(&folder)?;
    done
}

fn measure(hosts: usize, served: &Served) -> Result<()> {
    let text = description(hosts)?;
    let infos = infos()?;
    forget_peak()?;
    let channel: ChannelName = "stable".parse()?;
    let (all, cpu) = (Instant::now(), cpu_ms()?);

    let fleet =
        timed("read the description", || Ok(fleet::read(&text).map_err(|faults| format!("{faults:?}"))?))?;
    drop(text);
    let closures = timed("digest the closures", || {
        let closures = Closures::new(infos)?;
        let one = |number| Ok((system(number)?, closures.of(&system(number)?)?));
        (0..SYSTEMS).map(one).collect::<Result<BTreeMap<_, _>>>()
    })?;
    let built: BTreeMap<HostName, Built> = fleet
        .hosts
        .iter()
        .map(|(name, host)| {
            let system: StorePath = host.system.to_string().parse()?;
            let closure = closures[&system].clone();
            Ok((name.clone(), Built { system, closure }))
        })
        .collect::<Result<_>>()?;
    let created = UnixMs::new(nixfleet_sys::clock::unix_ms())?;
    let terms = Terms {
        seq: Seq::new(1)?,
        created,
        expires: UnixMs::new(created.get() + 86_400_000)?,
        revision: "none".parse()?,
        previous: None,
    };
    let assembled = timed("assemble and hash", || Ok(assemble(&fleet, &channel, &built, terms)?))?;
    drop((fleet, built));
    timed("write", || {
        let held = served.lock()?;
        Ok(served.put_release(
            &held,
            (&channel, assembled.release.seq),
            &assembled.envelope,
            &assembled.entries,
        )?)
    })?;
    say("in all", all.elapsed(), cpu_ms()? - cpu);
    println!("peak of memory {} MB", peak_mb()?);
    drop(assembled);
    let opened =
        timed("read back and prove, as before signing", || Ok(open(served, &channel, Seq::new(1)?)?))?;
    assert_eq!(opened.entries.len(), hosts, "all of them come back");
    println!("peak of memory then {} MB", peak_mb()?);
    Ok(())
}

fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (started, cpu) = (Instant::now(), cpu_ms()?);
    let done = work()?;
    say(what, started.elapsed(), cpu_ms()? - cpu);
    Ok(done)
}

fn say(what: &str, took: Duration, cpu_ms: u64) {
    println!("{what} {} ms, processor {cpu_ms} ms", took.as_millis());
}

/// Processor time of this process so far, in ms: on a busy machine it says more than a clock.
fn cpu_ms() -> Result<u64> {
    /// The kernel counts in hundredths of a second on every machine of ours.
    const TICK_MS: u64 = 10;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // After the name, which may have spaces: the 12th and 13th are user and system time.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<std::result::Result<u64, _>>()? * TICK_MS)
}

/// What was needed to make the description does not count: the kernel sets the peak back to what is used now.
fn forget_peak() -> Result<()> {
    use std::io::Write as _;
    Ok(std::fs::OpenOptions::new().write(true).open("/proc/self/clear_refs")?.write_all(b"5")?)
}

fn peak_mb() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? / 1024)
}

fn description(hosts: usize) -> Result<String> {
    let mut text = String::from(
        r#"{"fleet":"scale","channels":{"stable":{"policy":{"waves":[
{"name":"canary","hosts":{"tag":"canary"},"soak":"10m"},{"name":"some","take":"10%","soak":"1h"},{"name":"rest","soak":"0s"}],
"max_in_flight":[{"hosts":"all","limit":"20%"}]}}},"hosts":{"#,
    );
    for number in 0..hosts {
        let key = String::from(PrivateKey::generate()?.public_key().clone());
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
