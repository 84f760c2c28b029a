//! A host that follows a folder: how soon it switches after a release was put there, and what it costs while nothing happens.

use std::collections::BTreeMap;
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
    let fleet = StaticFleet::boot_with_real_syncs(Flavour::Trixie, Path::new(&cli), &["canary"])?;
    let host = fleet.host("canary");
    fleet.follow(host, FOLDER)?;
    for system in [System::Good, System::Good3] {
        host.fetch(host.system(system))?;
    }
    let (mut soon, mut parts) = (Vec::new(), BTreeMap::new());
    for seq in 1..=RELEASES {
        soon.push(fired_after(&fleet, host, seq, &mut parts)?);
    }
    let worst = soon.iter().copied().max().unwrap_or(0);
    println!(
        "| from a changed folder to the switch, closure present | median, ms | worst, ms |\n|---|---|---|"
    );
    println!(
        "| release and entry verified, staged, deadman armed, fired | {} | {worst} |\n",
        median(&mut soon)
    );
    println!("| where these go | median, ms |\n|---|---|");
    for ((_, part), times) in &mut parts {
        println!("| {part} | {} |", median(times));
    }
    println!();
    idle(host)
}

/// What is written down on the way, in its order: where it is found, and what was done before it.
const MARKS: [(Mark, &str); 8] = [
    (Mark::Record("release-verified"), "the folder comes to rest, release and entry are read and verified"),
    (Mark::Record("target-staged"), "the offer is saved; the closure is looked at, hashed and rooted"),
    (Mark::Record("local-activation-started"), "that it is staged, and the turn to go, are saved"),
    (Mark::Line("began"), "check: the closure's signatures, the units, the lock, the first line"),
    (Mark::Line("realising"), "the line before the closure is looked for"),
    (Mark::Line("setting-profile"), "realise: it is there, as it was seen"),
    (Mark::Line("arming-deadman"), "the line before the profile is set"),
    (Mark::Line("firing"), "the profile is set, the deadman armed"),
];

/// Something with a time that an agent writes down.
#[derive(Debug, Clone, Copy)]
enum Mark {
    /// A report.
    Record(&'static str),
    /// A line of the activation journal.
    Line(&'static str),
}

/// When the newest of each mark was written, in milliseconds since 1970.
fn marks(host: &Host) -> Result<Vec<u64>> {
    let parse = |text: &str| -> Vec<serde_json::Value> {
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let reports = parse(&host.read_file("/var/lib/nixfleet/outbox.jsonl")?);
    let journal = parse(&host.read_file("/var/lib/nixfleet/journal.jsonl")?);
    let is_switch = |entry: &serde_json::Value| entry["run"].is_null() || entry["run"] == "switch";
    let newest = |mark| match mark {
        Mark::Record(event) => reports
            .iter()
            .rfind(|line| line["entry"]["record"]["fact"]["event"] == event)
            .and_then(|line| line["entry"]["record"]["at_ms"].as_u64()),
        Mark::Line(name) => journal
            .iter()
            .rfind(|line| line["entry"]["line"] == name && is_switch(&line["entry"]))
            .and_then(|line| line["entry"]["at_ms"].as_u64()),
    };
    MARKS.iter().map(|(mark, _)| newest(*mark).with_context(|| format!("no {mark:?}"))).collect()
}

/// Puts release `seq` into the folder, and returns how many milliseconds after its last document the switch was fired.
fn fired_after(
    fleet: &StaticFleet,
    host: &Host,
    seq: u64,
    parts: &mut BTreeMap<(usize, &'static str), Vec<u32>>,
) -> Result<u32> {
    let system = if seq.is_multiple_of(2) { System::Good3 } else { System::Good };
    fleet.describe(&fleet.canary_first(system, Duration::ZERO)?)?;
    fleet.release("bench")?;
    let latest = put(host, &fleet.served(), Path::new(FOLDER))?;
    ensure!(latest.len() == 1, "one channel has one newest release: {latest:?}");
    for (fresh, path) in &latest {
        host.run(&["mv", fresh, path])?.success()?;
    }
    // When it got its name: it was written before.
    let published = host.run(&["stat", "-c", "%.3Z", &latest[0].1])?.success()?;
    let published_ms: u64 = published.text().replace('.', "").parse().context("a time")?;
    await_state(host, "converged", &format!("{CHANNEL}/{seq}"), LIMIT)?;
    let marks = marks(host)?;
    let short = |ms: u64| u32::try_from(ms).context("a short time");
    let mut before = published_ms;
    for (number, (at, (_, part))) in marks.iter().zip(MARKS).enumerate() {
        parts.entry((number, part)).or_default().push(short(at.saturating_sub(before))?);
        before = *at;
    }
    short(before.checked_sub(published_ms).context("fired before it was there")?)
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
    let pid = host.run(&["systemctl", "show", "-P", "MainPID", UNIT])?.success()?.text().to_owned();
    let before = Taken::by(host, &pid)?;
    let woken = Woken::watch(host, &pid)?;
    let after = Taken::by(host, &pid)?;
    let minutes = u64::from(IDLE_MINUTES);
    println!("| an agent that follows and has nothing to do, {minutes} min | value |\n|---|---|");
    println!("| resident memory | {} kB |", after.rss_kib);
    println!(
        "| instants at which any of its threads wakes, a minute | {} |",
        woken.instants.div_ceil(minutes)
    );
    for (thread, sleeps) in &woken.sleeps {
        println!("| how often thread `{thread}` goes to sleep, a minute | {} |", sleeps.div_ceil(minutes));
    }
    println!("| processor | {} ms a minute |\n", (after.cpu_ms - before.cpu_ms).div_ceil(minutes));
    Ok(())
}

/// What an agent has taken since it began.
struct Taken {
    cpu_ms: u64,
    rss_kib: u64,
}

impl Taken {
    fn by(host: &Host, pid: &str) -> Result<Self> {
        /// The kernel counts in hundredths of a second on every machine of ours.
        const TICK_MS: u64 = 10;
        let status = host.read_file(&format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its memory")?;
        let stat = host.read_file(&format!("/proc/{pid}/stat"))?;
        // After the name, which may have spaces: the 12th and 13th are user and system time.
        let (_, fields) = stat.rsplit_once(')').context("a name")?;
        let ticks =
            fields.split_ascii_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok());
        Ok(Self {
            cpu_ms: ticks.sum::<u64>() * TICK_MS,
            rss_kib: rss.trim().trim_end_matches(" kB").parse().context("a size")?,
        })
    }
}

/// How an agent was woken while it was watched.
#[derive(Default)]
struct Woken {
    /// Samples in which a thread had run, those in a row as one.
    instants: u64,
    /// How often each thread went to sleep; of one that ended, what was seen.
    sleeps: BTreeMap<String, u64>,
}

/// Between two samples.
const SAMPLE_MS: u64 = 200;

impl Woken {
    /// Looks again and again what the kernel has counted for each thread: a line `sample` each time, then one
    /// for each thread if any has run.
    fn watch(host: &Host, pid: &str) -> Result<Self> {
        let samples = u64::from(IDLE_MINUTES) * 60_000 / SAMPLE_MS;
        let script = format!(
            "last=; for i in $(seq {samples}); do echo sample; \
             now=$(for t in /proc/{pid}/task/*; do \
             echo \"${{t##*/}} $(cat $t/comm) $(grep ^voluntary $t/status)\"; done 2>/dev/null); \
             [ \"$now\" = \"$last\" ] || echo \"$now\"; last=$now; sleep 0.{SAMPLE_MS}; done"
        );
        // The loop's own work comes on top of its pauses.
        let limit = Duration::from_mins(IDLE_MINUTES.into()) * 3;
        let said = host.run_for(limit, &["/bin/bash", "-c", &script])?.success()?.stdout;
        let mut woken = Self::default();
        let (mut known, mut has_run, mut is_first) = (BTreeMap::new(), false, true);
        for sample in said.split("sample\n").skip(1) {
            let ran = woken.take(sample, &mut known) && !is_first;
            woken.instants += u64::from(ran && !has_run);
            (has_run, is_first) = (ran, false);
        }
        Ok(woken)
    }

    /// Takes in one sample; whether any thread had run since the one before.
    fn take(&mut self, sample: &str, known: &mut BTreeMap<String, u64>) -> bool {
        let is_first = known.is_empty();
        let mut ran = false;
        for line in sample.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [thread, name @ .., _, count] = words.as_slice() else {
                continue;
            };
            let Ok(count) = count.parse::<u64>() else { continue };
            let before = known.insert((*thread).to_owned(), count);
            ran |= before != Some(count);
            if !is_first {
                *self.sleeps.entry(name.join(" ")).or_default() += count - before.unwrap_or(0);
            }
        }
        ran
    }
}
