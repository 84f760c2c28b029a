//! `nixfleet release build` for many hosts, against the same commands of Nix by hand: as many at a time, asked for the same
//! things, on one host.
//!
//! Every host has a closure of its own: a system and its configuration, beside packages that all have. They are small, as
//! is the flake that builds them, so Nix has as little to do as it can have: a real fleet's share of it is larger.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nixfleet_testbed::fleet::CHANNEL;
use nixfleet_testbed::{Flavour, Host};
use serde_json::{Value, json};

use crate::median;

const HOSTS: usize = 1_000;
/// Packages that are in every closure.
const PACKAGES: usize = 20;
/// Pairs of runs that build: one is 2,000 commands and takes minutes, and what runs differ by is small beside that.
const PAIRS_BUILT: u32 = 1;
/// Pairs of runs that fetch, which take seconds.
const PAIRS_FETCHED: u32 = 5;
/// What `release build` runs at a time unless it is told otherwise.
const JOBS: &str = "4";
/// What it asks one command to fetch.
const PATHS_PER_FETCH: usize = 100;
/// One run of all commands: about a minute and a half on two cores.
const LIMIT: Duration = Duration::from_mins(20);
/// How often a run is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const CLI: &str = "/testbed/nixfleet";
const FOLDER: &str = "/root/fleet";
const FLAKE: &str = "/root/flake";
/// Links to what was had by hand, which keep it as the fleet folder's keep the others.
const BY_HAND: &str = "/root/by-hand";
/// Where systems are fetched from: a folder, which answers sooner than any server.
const CACHE: &str = "/root/cache";
/// What Nix remembers of flakes and caches.
const REMEMBERED: &str = "/root/.cache/nix";
/// The process of the run that is watched.
const PID: &str = "/run/release-build.pid";
const NIX: &str = "nix --extra-experimental-features 'nix-command flakes'";

/// `salt` makes systems that no run before has built.
fn flake(salt: u32) -> String {
    format!(
        r#"{{
  outputs = {{ self }}:
    let
      numbers = builtins.genList toString;
      make = name: text: derivation {{
        inherit name;
        system = "x86_64-linux";
        builder = "/bin/sh";
        args = [ "-c" "echo '${{text}}' > $out" ];
      }};
      packages = map (n: make "package-${{n}}-1" n) (numbers {PACKAGES});
      system = n: make "nixos-system-host-${{n}}-{salt}" "${{make "etc-${{n}}-{salt}" n}} ${{toString packages}}";
    in builtins.listToAttrs (map (n: {{ name = "system-${{n}}"; value = system n; }}) (numbers {HOSTS}));
}}
"#
    )
}

/// How long one way of doing it took.
#[derive(Default)]
struct Times {
    ours: Vec<u32>,
    by_hand: Vec<u32>,
    /// Of ours: while no command of Nix ran.
    without_nix: Vec<u32>,
    /// Of ours: processor time of the command line, and of what it ran.
    own_cpu: Vec<u32>,
    nix_cpu: Vec<u32>,
}

pub(crate) fn release_build() -> Result<()> {
    let office = Office::open()?;
    office.build_packages()?;
    let (mut built, mut fetched, mut present) = (Times::default(), Times::default(), Times::default());
    let mut paths = Vec::new();
    for pair in 1..=PAIRS_BUILT {
        office.flake(2 * pair)?;
        office.describe(|number| format!("path:{FLAKE}#system-{number}"))?;
        office.ours(&mut built)?;
        office.flake(2 * pair + 1)?;
        paths = office.build_by_hand(&mut built)?;
    }
    office.fill_cache(&paths)?;
    office.describe(|number| paths[number].clone())?;
    for _ in 0..PAIRS_FETCHED {
        office.forget()?;
        office.ours(&mut fetched)?;
        office.ours(&mut present)?;
        office.forget()?;
        office.fetch_by_hand(&mut fetched)?;
        office.fetch_by_hand(&mut present)?;
    }
    print(&mut [built, fetched, present]);
    Ok(())
}

fn print(columns: &mut [Times; 3]) {
    println!(
        "| a release for {HOSTS} hosts, a closure for each | built from a flake | fetched from a cache | there already |"
    );
    println!("|---|---|---|---|");
    let mut row = |what: &str, of: &dyn Fn(&mut Times) -> String| {
        let cells: Vec<String> = columns.iter_mut().map(of).collect();
        println!("| {what} | {} |", cells.join(" | "));
    };
    row("`nixfleet release build`, s", &|times| seconds(median(&mut times.ours)));
    row("the same commands of Nix by hand, s", &|times| seconds(median(&mut times.by_hand)));
    row("of ours, while no command of Nix ran, s", &|times| seconds(median(&mut times.without_nix)));
    row("share of ours in which Nix ran", &|times| {
        let without_nix = f64::from(median(&mut times.without_nix)) / f64::from(median(&mut times.ours));
        format!("{:.1} %", 100.0 * (1.0 - without_nix))
    });
    row("processor: Nix, s", &|times| seconds(median(&mut times.nix_cpu)));
    row("processor: `nixfleet` itself, s", &|times| seconds(median(&mut times.own_cpu)));
    println!();
}

fn seconds(ms: u32) -> String {
    format!("{:.2}", f64::from(ms) / 1_000.0)
}

/// Where releases are made.
struct Office(Host);

impl Office {
    fn open() -> Result<Self> {
        let cli =
            std::env::var_os("NIXFLEET_CLI_BIN").context("`cargo xtask bench` sets NIXFLEET_CLI_BIN")?;
        let host = Host::builder(Flavour::Trixie).real_syncs().bind(cli.as_ref(), CLI.as_ref()).boot()?;
        host.run(&[CLI, "init", FOLDER, "--fleet-id", "acme"])?.success()?;
        host.run(&[
            "nix-store",
            "--generate-binary-cache-key",
            "bench-1",
            "/root/cache.sec",
            "/root/cache.pub",
        ])?
        .success()?;
        let key = host.read_file("/root/cache.pub")?;
        let settings = format!(
            "sandbox = false\nbuild-users-group =\nsubstituters = file://{CACHE}\ntrusted-public-keys = {key}\n"
        );
        host.write_file("/etc/nix/nix.conf", &settings)?;
        // So that the folder is a cache, which has nothing yet.
        host.write_file(&format!("{CACHE}/nix-cache-info"), "StoreDir: /nix/store\n")?;
        host.run(&["mkdir", "-p", BY_HAND])?.success()?;
        Ok(Self(host))
    }

    /// Has what all systems have in common in the store, so that nobody has to build it within a time.
    fn build_packages(&self) -> Result<()> {
        self.flake(0)?;
        let script = format!("{NIX} build --out-link {BY_HAND}/packages -- path:{FLAKE}#system-0");
        self.0.run_for(LIMIT, &["/bin/bash", "-c", &script])?.success()?;
        Ok(())
    }

    fn flake(&self, salt: u32) -> Result<()> {
        self.0.write_file(&format!("{FLAKE}/flake.nix"), &flake(salt))
    }

    /// A description in which each host has a system of its own.
    fn describe(&self, system: impl Fn(usize) -> String) -> Result<()> {
        let host = |number| {
            // The last characters of the text of a public key; nobody has its private half.
            let key = format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA{number:042}");
            (format!("host-{number}"), json!({ "channel": CHANNEL, "system": system(number), "key": key }))
        };
        let hosts: serde_json::Map<String, Value> = (0..HOSTS).map(host).collect();
        let waves =
            json!([{ "name": "first", "take": "10%", "soak": "1h" }, { "name": "rest", "soak": "0s" }]);
        let fleet = json!({
            "fleet": "acme", "channels": { CHANNEL: { "policy": { "waves": waves } } }, "hosts": hosts,
        });
        self.0.write_file(&format!("{FOLDER}/fleet.json"), &fleet.to_string())
    }

    /// Builds the release that is described, and looks on.
    fn ours(&self, times: &mut Times) -> Result<()> {
        self.0.run(&["rm", "-f", PID])?.success()?;
        let script = format!(
            "s=$(date +%s%N); {CLI} -C {FOLDER} release build --channel {CHANNEL} & echo $! > {PID}; \
             wait $! || exit 1; e=$(date +%s%N); echo $(( (e - s) / 1000000 ))"
        );
        let mut running = self.0.spawn(&["/bin/bash", "-c", &script])?;
        let until = Instant::now() + LIMIT;
        let (mut last, mut with_nix, mut before) = (None, Duration::ZERO, Instant::now());
        while !running.ended() && Instant::now() < until {
            let (now, taken) = (Instant::now(), self.taken());
            if taken.as_ref().is_some_and(|taken| taken.runs_nix) {
                with_nix += now - before;
            }
            (last, before) = (taken.or(last), now);
            sleep(LOOK_EVERY);
        }
        let said = running.wait(Duration::ZERO)?.success()?;
        let (_, ms) = said.stdout.trim().rsplit_once('\n').context("a folder and a time")?;
        let ms = ms.parse::<u32>().context("a number of milliseconds")?;
        let last = last.context("it was over before anybody looked")?;
        times.ours.push(ms);
        // What nobody saw counts as ours.
        times.without_nix.push(ms.saturating_sub(u32::try_from(with_nix.as_millis())?));
        times.own_cpu.push(last.own_ms);
        times.nix_cpu.push(last.nix_ms);
        Ok(())
    }

    /// What the run has taken so far; nothing if there is none.
    fn taken(&self) -> Option<Taken> {
        let pid = self.0.read_file(PID).ok()?;
        let pid = pid.trim();
        let children = self.0.read_file(&format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let stat = self.0.read_file(&format!("/proc/{pid}/stat")).ok()?;
        Taken::read(&stat, &children)
    }

    /// The same commands of Nix as a release of what the flake has makes; the paths of the systems.
    fn build_by_hand(&self, times: &mut Times) -> Result<Vec<String>> {
        let last = HOSTS - 1;
        times.by_hand.push(self.by_hand(&format!(
            "seq 0 {last} | xargs -P {JOBS} -I {{}} {NIX} build --json --out-link {BY_HAND}/built-{{}} -- \
             path:{FLAKE}#system-{{}} >/dev/null 2>&1 || exit 1; {NIX} path-info --json --recursive $(readlink {BY_HAND}/built-*) >/dev/null"
        ))?);
        let links: Vec<String> = (0..HOSTS).map(|number| format!("{BY_HAND}/built-{number}")).collect();
        let links: Vec<&str> = std::iter::once("readlink").chain(links.iter().map(String::as_str)).collect();
        Ok(self.0.run(&links)?.success()?.stdout.lines().map(str::to_owned).collect())
    }

    fn fetch_by_hand(&self, times: &mut Times) -> Result<()> {
        times.by_hand.push(self.by_hand(&format!(
            "ls {BY_HAND}/of | xargs -P {JOBS} -I {{}} sh -c 'exec nix-store --realise --option narinfo-cache-negative-ttl 0 \
             --indirect --add-root {BY_HAND}/fetched-{{}} $(cat {BY_HAND}/of/{{}})' >/dev/null 2>&1 || exit 1; \
             {NIX} path-info --json --recursive $(cat {BY_HAND}/of/*) >/dev/null"
        ))?);
        Ok(())
    }

    fn by_hand(&self, script: &str) -> Result<u32> {
        let script =
            format!("s=$(date +%s%N); {script} || exit 1; e=$(date +%s%N); echo $(( (e - s) / 1000000 ))");
        let said = self.0.run_for(LIMIT, &["/bin/bash", "-c", &script])?.success()?;
        said.text().parse().context("a number of milliseconds")
    }

    /// Puts the systems into the cache, and their paths into the lists that [`Office::fetch_by_hand`] goes by.
    fn fill_cache(&self, paths: &[String]) -> Result<()> {
        ensure!(paths.len() == HOSTS, "{} systems were built", paths.len());
        for (number, some) in paths.chunks(PATHS_PER_FETCH).enumerate() {
            self.0.write_file(&format!("{BY_HAND}/of/{number}"), &(some.join("\n") + "\n"))?;
        }
        let copy = format!(
            "{NIX} copy --to 'file://{CACHE}?compression=none&secret-key=/root/cache.sec' $(cat {BY_HAND}/of/*)"
        );
        self.0.run_for(LIMIT, &["/bin/bash", "-c", &copy])?.success()?;
        Ok(())
    }

    /// Takes all systems out of the store, and what Nix remembers of the cache.
    fn forget(&self) -> Result<()> {
        let script = format!(
            "rm -rf {FOLDER}/roots {BY_HAND}/built-* {BY_HAND}/fetched-* {REMEMBERED} && nix-store --gc"
        );
        self.0.run_for(LIMIT, &["/bin/bash", "-c", &script])?.success()?;
        Ok(())
    }
}

/// What a run has taken until a moment.
struct Taken {
    own_ms: u32,
    /// Of the commands that have ended.
    nix_ms: u32,
    runs_nix: bool,
}

impl Taken {
    /// Out of `/proc/PID/stat` and the list of children.
    fn read(stat: &str, children: &str) -> Option<Self> {
        /// The kernel counts in hundredths of a second on every machine of ours.
        const TICK_MS: u32 = 10;
        // After the name, which may have spaces: the 12th to 15th are user and system time, its own and of what it waited for.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks: Vec<u32> =
            fields.split_ascii_whitespace().skip(11).take(4).filter_map(|text| text.parse().ok()).collect();
        let [user, system, theirs_user, theirs_system] = ticks.as_slice() else { return None };
        Some(Self {
            own_ms: (user + system) * TICK_MS,
            nix_ms: (theirs_user + theirs_system) * TICK_MS,
            runs_nix: !children.trim().is_empty(),
        })
    }
}
