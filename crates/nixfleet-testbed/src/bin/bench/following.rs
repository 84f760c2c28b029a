//! A host that follows a folder: how soon it switches after a release was put there, and what it costs while nothing happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixfleet_testbed::fleet::{CHANNEL, StaticFleet, await_state};
use nixfleet_testbed::{Flavour, Host, System};

use crate::{LIMIT, median};

const UNIT: &str = "nixfleet-agent.service";
const CONFIG: &str = "/etc/nixfleet/agent.toml";
/// Where the host looks for releases.
const FOLDER: &str = "/srv/releases";
/// Releases that are timed: enough for a median that one slow one does not move.
const RELEASES: u64 = 9;
/// What an agent does after a start is over by then.
const CALM_AFTER: Duration = Duration::from_secs(75);
/// How long an agent is watched that has nothing to do.
const IDLE_MINUTES: u32 = 3;

pub(crate) fn following() -> Result<()> {
    let cli = std::env::var_os("NIXFLEET_CLI_BIN").context("`cargo xtask bench` sets NIXFLEET_CLI_BIN")?;
    let fleet = StaticFleet::boot(Flavour::Trixie, Path::new(&cli), &["canary"])?;
    let host = fleet.host("canary");
    fleet.follow(host, FOLDER)?;
    for system in [System::Good, System::Good3] {
        host.fetch(host.system(system))?;
    }
    let mut soon = Vec::new();
    for seq in 1..=RELEASES {
        soon.push(fired_after(&fleet, host, seq)?);
    }
    let worst = soon.iter().copied().max().unwrap_or(0);
    println!(
        "| from a changed folder to the switch, closure present | median, ms | worst, ms |\n|---|---|---|"
    );
    println!(
        "| release and entry verified, staged, deadman armed, fired | {} | {worst} |\n",
        median(&mut soon)
    );
    idle(host)
}

/// Puts release `seq` into the folder, and returns how many milliseconds after its last document the switch was fired.
fn fired_after(fleet: &StaticFleet, host: &Host, seq: u64) -> Result<u32> {
    let system = if seq.is_multiple_of(2) { System::Good3 } else { System::Good };
    fleet.describe(&fleet.canary_first(system, Duration::ZERO)?)?;
    fleet.release("bench")?;
    let latest = put(host, &fleet.served(), Path::new(FOLDER))?;
    ensure!(latest.len() == 1, "one channel has one newest release: {latest:?}");
    for (fresh, path) in &latest {
        host.run(&["mv", fresh, path])?.success()?;
    }
    let published = host.run(&["date", "+%s%3N", "-r", &latest[0].1])?.success()?;
    let published_ms: u64 = published.text().parse().context("a time")?;
    await_state(host, "converged", &format!("{CHANNEL}/{seq}"), LIMIT)?;
    let journal = host.read_file("/var/lib/nixfleet/journal.jsonl")?;
    let fired = journal.lines().rfind(|line| line.contains("\"run\":\"switch\"")).context("a switch")?;
    let fired: serde_json::Value = serde_json::from_str(fired)?;
    let fired_ms = fired["entry"]["at_ms"].as_u64().context("a time")?;
    u32::try_from(fired_ms.checked_sub(published_ms).context("fired before it was there")?)
        .context("a short time")
}

/// Copies a folder into a host. What is called `latest` is only put beside its place, and returned: from where to where.
fn put(host: &Host, from: &Path, to: &Path) -> Result<Vec<(String, String)>> {
    let mut latest = Vec::new();
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let target: PathBuf = to.join(&name);
        if path.is_dir() {
            latest.extend(put(host, &path, &target)?);
        } else if name == "latest" {
            let fresh = to.join(".latest").display().to_string();
            host.write_file(&fresh, &fs::read_to_string(&path)?)?;
            latest.push((fresh, target.display().to_string()));
        } else {
            let target = target.display().to_string();
            if !host.exists(&target) {
                host.write_file(&target, &fs::read_to_string(&path)?)?;
            }
        }
    }
    Ok(latest)
}

/// What an agent with its ordinary settings takes while there is nothing to do.
fn idle(host: &Host) -> Result<()> {
    let config = host.read_file(CONFIG)?;
    let usual: Vec<&str> = config.lines().filter(|line| !line.starts_with("poll")).collect();
    host.write_file(CONFIG, &(usual.join("\n") + "\n"))?;
    host.run(&["systemctl", "restart", UNIT])?.success()?;
    sleep(CALM_AFTER);
    let before = Taken::by(host)?;
    sleep(Duration::from_mins(IDLE_MINUTES.into()));
    let after = Taken::by(host)?;
    let minutes = u64::from(IDLE_MINUTES);
    println!("| an agent that follows and has nothing to do, {minutes} min | value |\n|---|---|");
    println!("| resident memory | {} kB |", after.rss_kib);
    println!(
        "| switches of its threads to sleep, a minute | {} |",
        (after.sleeps - before.sleeps).div_ceil(minutes)
    );
    println!("| processor | {} ms a minute |\n", (after.cpu_ms - before.cpu_ms).div_ceil(minutes));
    Ok(())
}

/// What an agent has taken since it began.
struct Taken {
    /// Over all of its threads.
    sleeps: u64,
    cpu_ms: u64,
    rss_kib: u64,
}

impl Taken {
    fn by(host: &Host) -> Result<Self> {
        /// The kernel counts in hundredths of a second on every machine of ours.
        const TICK_MS: u64 = 10;
        let pid = host.run(&["systemctl", "show", "-P", "MainPID", UNIT])?.success()?.text().to_owned();
        let statuses = host.sh(&format!("cat /proc/{pid}/task/*/status"))?.success()?.stdout;
        let numbers = |name: &'static str| {
            let values = statuses.lines().filter_map(move |line| line.strip_prefix(name));
            values.filter_map(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok())
        };
        let stat = host.read_file(&format!("/proc/{pid}/stat"))?;
        // After the name, which may have spaces: the 12th and 13th are user and system time.
        let (_, fields) = stat.rsplit_once(')').context("a name")?;
        let ticks =
            fields.split_ascii_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok());
        Ok(Self {
            sleeps: numbers("voluntary_ctxt_switches:").sum(),
            cpu_ms: ticks.sum::<u64>() * TICK_MS,
            rss_kib: numbers("VmRSS:").next().context("its memory")?,
        })
    }
}
