//! One host for a long time: release after release, good ones and bad ones by chance, and in the first half of them whoever
//! carries them out dies at moments of chance. In the end state, history, generations and links agree, nothing has piled up,
//! and the memory of the agent has not grown.
//!
//! A dozen releases in an ordinary run; two hundred with `NIXFLEET_SOAK` (`cargo xtask test --soak`), or as many as it says.
//! The seed is printed; `NIXFLEET_SOAK_SEED` gives it again, and the same one chooses the same releases and blows, though not
//! the same instants.

#![allow(clippy::print_stdout, reason = "what happened in a long run is for whoever reads its output")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, UNIX_EPOCH};

use nixfleet_testbed::{Flavour, Host, System, fleet};
use serde_json::{Value, json};

use crate::common::{AGENT, LIMIT, assert_rests_on_path, fires, history, host, hosts_run};
use crate::crashes::{self, Blow};
use crate::deaths::{REPORTS, records};
use crate::fleet::{Fleet, Saying};
use crate::followed::{UNIT, follow_on, ship, web};

/// In an ordinary run.
const RELEASES: u64 = 12;
/// A busy machine has fewer blows in an ordinary run.
const STRUCK_FOR: Duration = Duration::from_mins(1);
/// In a soak, unless it is told how many.
const RELEASES_OF_A_SOAK: u64 = 200;
/// The latest instant of a blow after its release was published: an activation is over by then.
const BLOW_WITHIN_MS: u64 = 3_000;
/// What the memory of an agent may differ by between two halves of a run, beside what its log takes: the allocator keeps what
/// a large closure took, and the activation journal, of at most a MiB, is remembered without its lines.
const MEMORY_SLACK_KIB: u64 = 512;
/// How many more of a kind there may be at one time than at another: a host that went back keeps its target too.
const NAMES_SLACK: usize = 1;
/// How many more descriptors of a kind the agent may have open at one time than at another: a watch is closed by a thread of
/// its own, a program that answered is still ending. What each release leaves open is five and more of a kind.
const DESCRIPTORS_SLACK: usize = 1;
/// What a timer of the kernel is, among descriptors. Whoever waits for an instant that is near has none, so that their number
/// at one time says nothing of it at another: at rest they were seen to be two to five.
const TIMER: &str = "anon_inode:[timerfd]";
const TIMERS_MAX: usize = 8;
/// Releases after which an agent has done all that it ever does.
const WARM_AFTER: usize = 3;
/// The numbers of an ordinary run, which is the same each time; a soak has others each time.
const SEED: u64 = 20_261_129;
/// Where anything could pile up.
const FOLDERS: &str = "/var/lib/nixfleet /run/nixfleet /nix/var/nix/gcroots /etc/systemd/system.control /run/systemd/transient /run/systemd/system";

/// Systems that a host can be on.
const GOOD: [System; 5] = [System::Good, System::Good3, System::Twin, System::RemovedUnit, System::Third];
/// Systems that no host stays on, each for another reason.
const BAD: [System; 8] = [
    System::Probe404,
    System::ProbeSilent,
    System::UnitFails,
    System::NewUnitFails,
    System::BootloaderFails,
    System::ActivateFailsAfterFlip,
    System::PrecheckFails,
    System::Exits1AfterFlip,
];

#[test]
fn soak_many_releases_in_a_row_leave_nothing_behind() {
    let soaks = std::env::var("NIXFLEET_SOAK").ok();
    if !hosts_run() {
        return;
    }
    let chance = || UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos().into();
    let by_default = if soaks.is_some() { chance() } else { SEED };
    let releases = soaks.map_or(RELEASES, |text| match text.parse() {
        Ok(many) if many > 1 => many,
        Ok(_) | Err(_) => RELEASES_OF_A_SOAK,
    });
    let seed = std::env::var("NIXFLEET_SOAK_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(by_default);
    println!("{releases} releases, NIXFLEET_SOAK_SEED={seed}");
    let mut long = Long::new(seed);
    let begun = Instant::now();
    for seq in 1..=releases {
        let goes_on = releases > RELEASES || begun.elapsed() < STRUCK_FOR;
        long.release(seq, seq <= releases / 2 && goes_on);
    }
    println!("memory, KiB: {:?}", long.memory);
    long.assert_all_agrees();
    long.assert_nothing_piled_up();
    long.assert_memory_is_flat();
}

/// Numbers by chance, the same ones for the same seed: `SplitMix64`.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let place = usize::try_from(self.below(all.len() as u64)).expect("small");
        all[place]
    }
}

/// What there is on a host that could pile up.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Traces {
    /// Names of files, and of our units and timers, with the numbers and hashes taken out of them.
    names: BTreeMap<String, usize>,
    /// What the agent has open, by what it is.
    descriptors: BTreeMap<String, usize>,
}

/// A host, and what became of its releases.
struct Long {
    host: Host,
    fleet: Fleet,
    chance: Chance,
    /// The systems on which a release converged, in their order.
    converged: Vec<String>,
    /// What was offered, so what a generation may be.
    offered: BTreeSet<String>,
    /// The traces after a release that came to rest undisturbed, and the agent's memory then, in KiB.
    first_traces: Option<Traces>,
    memory: Vec<Memory>,
}

/// What an agent takes, in KiB.
#[derive(Debug, Clone, Copy)]
struct Memory {
    /// Of its own; pages of its program come and go as the kernel likes.
    own: u64,
    /// Its log of reports, which it keeps, up to a limit.
    log: u64,
}

/// What an agent took more in the later half of its samples than in the earlier one, in KiB: medians, so that no single
/// sample counts.
struct Grown {
    own: u64,
    log: u64,
}

impl Grown {
    /// In the longest stretch in which the log only grew. When it is full it is cut to its half, and what it took before, and the
    /// copy, stay with the allocator.
    fn of(samples: &[Memory]) -> Self {
        let stretches = samples.chunk_by(|one, next| one.log <= next.log);
        let longest = stretches.max_by_key(|stretch| stretch.len()).expect("there are samples");
        let (early, late) = longest.split_at(longest.len() / 2);
        let median = |some: &[Memory], kind: fn(&Memory) -> u64| {
            let mut sorted: Vec<u64> = some.iter().map(kind).collect();
            sorted.sort_unstable();
            sorted.get(sorted.len() / 2).copied().unwrap_or(0)
        };
        let grown = |kind| median(late, kind).saturating_sub(median(early, kind));
        Self { own: grown(|memory| memory.own), log: grown(|memory| memory.log) }
    }
}

/// Whether an agent takes no more than what its log explains: three times what the log grew by, for the lines, the lists that they
/// are in, and what is remembered of the activation journal.
///
/// Between the medians of a soak of 210 lay 50 releases, 225 KiB of log and 780 KiB of memory (seed 31), of 1,190 that are allowed.
/// So what is seen is a release that leaves some 8 KiB behind for good; an ordinary run is too short for that.
fn is_flat(samples: &[Memory]) -> bool {
    let Grown { own, log } = Grown::of(samples);
    own <= 3 * log + MEMORY_SLACK_KIB
}

#[test]
fn a_soak_sees_what_each_release_leaves_in_memory_and_not_its_log() {
    // As measured: 5 KiB of log a release, and 17 of memory, of which the most are taken early.
    let soak = |left_behind: u64| -> Vec<Memory> {
        let sample = |n: u64| Memory { own: 5_000 + (17 + left_behind) * n, log: 500 + 5 * n };
        (0..100).map(sample).collect()
    };
    assert!(is_flat(&soak(0)));
    assert!(!is_flat(&soak(10)));
    let mut cut = soak(0);
    for late in &mut cut[60..] {
        (late.own, late.log) = (late.own + 1_500, late.log / 2);
    }
    assert!(is_flat(&cut), "what a cut costs is no leak");
}

impl Long {
    fn new(seed: u64) -> Self {
        let (host, fleet) = follow_on(host(Flavour::Trixie));
        let base = host.current_system().expect("a system runs");
        Self {
            host,
            fleet,
            chance: Chance(seed),
            converged: Vec::new(),
            offered: BTreeSet::from([base]),
            first_traces: None,
            memory: Vec::new(),
        }
    }

    /// One release, from its publication until the host rests.
    fn release(&mut self, seq: u64, is_struck: bool) {
        let is_good = self.chance.below(10) < 6;
        let system = self.chance.one_of(if is_good { &GOOD[..] } else { &BAD[..] });
        let (previous, target) =
            (self.host.current_system().expect("a system runs"), self.host.system(system).to_owned());
        self.offered.insert(target.clone());
        let fired = fires(&self.host, &target);
        let saying = Saying { probes: json!([web()]), ..Saying::default() };
        self.fleet.publish(&self.host, seq, &target, &saying);
        let blow = is_struck.then(|| self.strike());
        let ended = self.await_rest(seq);
        let state = ended["state"].as_str().unwrap_or_default().to_owned();
        let fired = fires(&self.host, &target) - fired;
        println!("{seq}: {system:?}, {blow:?}: {state}, fired {fired} times");
        self.assert_one_end(&state, (is_good, is_struck), (&previous, &target), &ended);
        if state == "converged" && previous != target {
            self.converged.push(target);
        }
        if !is_struck {
            let traces = self.traces();
            self.first_traces.get_or_insert(traces);
            self.memory.push(self.memory());
        }
    }

    /// A bad one never stays, a good one does unless somebody's blow made the host boot in the middle of its trial.
    fn assert_one_end(
        &self,
        state: &str,
        (is_good, is_struck): (bool, bool),
        (previous, target): (&str, &str),
        ended: &Value,
    ) {
        let may_end = match (is_good, is_struck) {
            (true, false) => &["converged"][..],
            (true, true) => &["converged", "reverted"],
            (false, _) => &["reverted", "failed"],
        };
        assert!(may_end.contains(&state), "{ended:#}\n{}", self.told());
        if state == "failed" {
            assert_ne!(ended["failure"]["failure"]["kind"], "internal", "{ended:#}\n{}", self.told());
        }
        assert_rests_on_path(&self.host, if state == "converged" { target } else { previous });
    }

    /// At an instant of chance.
    fn strike(&mut self) -> (Blow, u64) {
        let at_ms = self.chance.below(BLOW_WITHIN_MS);
        let blow = match self.chance.below(10) {
            0..6 => Blow::KillAgent,
            6..8 => Blow::StopUnit,
            8 => Blow::Reboot,
            _ => Blow::KillHost,
        };
        std::thread::sleep(Duration::from_millis(at_ms));
        crashes::strike(&self.host, UNIT, blow);
        match blow {
            Blow::KillAgent => {}
            Blow::StopUnit => {
                self.host.run(&["systemctl", "start", UNIT]).expect("it runs");
            }
            Blow::Reboot | Blow::KillHost => {
                ship(&self.host);
                self.host.run(&["systemctl", "restart", UNIT]).expect("it runs");
            }
        }
        (blow, at_ms)
    }

    fn await_rest(&self, seq: u64) -> Value {
        let release = format!("stable/{seq}");
        let mut last = Value::Null;
        let rests = self.host.wait_until(&format!("rest with {release}"), LIMIT, |host| {
            last = fleet::status(host);
            let waits = last["waiting"]["on"].as_str().unwrap_or_default();
            if last["release"] == release && waits == "retry" {
                // The pauses grow with each try, and are tested elsewhere.
                let _ = host.run(&[AGENT, "retry", "--by", "the test"]);
            }
            last["release"] == release && ["newer-release", "newer-release-or-retry"].contains(&waits)
        });
        assert!(rests.is_ok(), "{release}: {last:#}\n{}", self.told());
        last
    }

    /// State, history, generations, links and reports tell the same story.
    fn assert_all_agrees(&self) {
        let current = self.host.current_system().expect("a system runs");
        let history = history(&self.host);
        assert!(history.iter().all(|one| !one["outcome"].is_null()), "{history:?}");
        let told: Vec<&str> = history
            .iter()
            .filter(|one| one["outcome"]["verdict"] == "converged")
            .filter_map(|one| one["target"].as_str())
            .collect();
        // The oldest are dropped from the history.
        let newest = &self.converged[self.converged.len().saturating_sub(told.len())..];
        assert_eq!(told, newest, "the history tells of each release that converged");
        assert!(newest.last().is_none_or(|last| *last == current), "the last one runs");

        let generations = self.host.generations().expect("a list");
        let newest = generations.values().next_back();
        assert!(generations.values().any(|system| *system == current), "{generations:?}");
        assert!(generations.values().all(|system| self.offered.contains(system)), "{generations:?}");
        assert!(newest.is_some(), "{generations:?}");

        let (mut seen, mut last) = (Vec::new(), Value::Null);
        let same = self.host.wait_until("the reports go as far as the state", LIMIT, |host| {
            seen = records(host);
            last = fleet::status(host)["seq"].clone();
            seen.last().is_some_and(|record| record["seq"] == last)
        });
        assert!(same.is_ok(), "{:?}, and the state is at {last}", seen.last());
        let numbers: Vec<u64> = seen.iter().filter_map(|record| record["seq"].as_u64()).collect();
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
    }

    fn assert_nothing_piled_up(&self) {
        let first = self.first_traces.as_ref().expect("some releases were not disturbed");
        let mut last = self.traces();
        let same = self.host.wait_until("the traces are those of the beginning", LIMIT, |_| {
            last = self.traces();
            let known = |(name, count): (&String, &usize)| {
                first.names.get(name).is_some_and(|then| *count <= then + NAMES_SLACK)
            };
            let kept = |(kind, count): (&String, &usize)| {
                let then = first.descriptors.get(kind).copied().unwrap_or(0);
                *count <= if kind == TIMER { TIMERS_MAX } else { then + DESCRIPTORS_SLACK }
            };
            last.names.iter().all(known) && last.descriptors.iter().all(kept)
        });
        assert!(same.is_ok(), "at first {first:#?}\nat last {last:#?}");
    }

    /// But for the log of reports, which is bounded.
    fn assert_memory_is_flat(&self) {
        let warm = self.memory.get(WARM_AFTER..).filter(|warm| warm.len() > 2).expect("enough of them");
        let Grown { own, log } = Grown::of(warm);
        assert!(is_flat(warm), "it grows by {own}, its log by {log}: {:?}", self.memory);
    }

    fn traces(&self) -> Traces {
        let find = format!("find {FOLDERS} -mindepth 1 -printf '%p\\t%l\\n' 2>/dev/null");
        let files = self.host.sh(&find).expect("it runs").stdout;
        let units = self.host.units().expect("listed").into_iter().map(|(name, _)| name);
        let units = units.filter(|name| name.contains("nixfleet"));
        let names = counted(files.lines().filter_map(trace).chain(units.map(|name| without_numbers(&name))));
        let find = format!("find /proc/$(systemctl show -P MainPID {UNIT})/fd -type l -printf '%l\\n'");
        let open = self.host.sh(&find).expect("it runs").stdout;
        let descriptors = counted(open.lines().map(without_numbers));
        Traces { names, descriptors }
    }

    fn memory(&self) -> Memory {
        let own = format!("grep RssAnon /proc/$(systemctl show -P MainPID {UNIT})/status");
        let said = self.host.sh(&own).expect("it runs").stdout;
        let own = said.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok());
        let log = self.host.read_file(REPORTS).expect("there is one").len() / 1024;
        Memory { own: own.unwrap_or_else(|| panic!("{said}")), log: u64::try_from(log).expect("small") }
    }

    fn told(&self) -> String {
        let history = history(&self.host);
        let last = &history[history.len().saturating_sub(4)..];
        format!("{}\n{last:#?}", self.host.journal(UNIT).unwrap_or_default())
    }
}

/// What a file is, by its path and where it links to. The roots that Nix itself makes for the generations of a profile are looked
/// at with the generations.
fn trace(line: &str) -> Option<String> {
    let (path, leads_to) = line.split_once('\t')?;
    match path.strip_prefix("/nix/var/nix/gcroots/auto/") {
        Some(_) if leads_to.starts_with("/nix/var/nix/profiles/system-") => None,
        Some(_) => Some(format!("a root of {}", without_numbers(leads_to))),
        None => Some(without_numbers(path)),
    }
}

fn counted(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// A name by which two of a kind are the same: a system is a system, an activation is a number.
fn without_numbers(name: &str) -> String {
    let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
    if last.contains("-nixos-system-") {
        return format!("{folder}/a system");
    }
    let mut out = String::new();
    for letter in name.chars() {
        match letter {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            other => out.push(other),
        }
    }
    out
}
