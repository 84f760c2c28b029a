//! A host: boot it, run programs in it, break it, and be sure that nothing of it stays.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::fault::{Fault, FaultServer};
use crate::files::{Entry, Root};
use crate::image::{Flavour, Image};
use crate::keeper::Keeper;
use crate::machine::Machine;
use crate::net::{Net, Place};
use crate::run_dir::RunDir;
use crate::spawn::{self, Output, Running};
use crate::systems::System;
use crate::wait::wait_until;

/// A boot takes about a second; 30 at once on two cores take longer.
const BOOT_LIMIT: Duration = Duration::from_mins(2);
/// What `run` allows.
const RUN_LIMIT: Duration = Duration::from_mins(1);
/// As on NixOS, with Debian's folders behind.
const HOST_PATH: &str = "PATH=/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a program of ours finds in its environment, and nothing else.
pub(crate) const ENVIRONMENT: [&str; 6] =
    ["/usr/bin/env", "-i", HOST_PATH, "HOME=/root", "USER=root", "LANG=C.UTF-8"];
/// Enters a cgroup of its own, as a login session would, then becomes the program.
pub(crate) const ENTER: &str =
    "c=/sys/fs/cgroup/testbed.scope; [ -d $c ] || mkdir $c; echo 0 > $c/cgroup.procs; exec \"$@\"";

/// What a host is to be; see [`Host::builder`].
#[derive(Debug)]
pub struct HostBuilder {
    flavour: Flavour,
    name: String,
    disk_limit: u64,
    boot_limit: u64,
    real_syncs: bool,
    binds: Vec<(PathBuf, PathBuf)>,
    net: Option<Arc<Net>>,
}

impl HostBuilder {
    /// Its host name (`host` if not given); two hosts may share one.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Its disk holds at most this many bytes on top of the image (in memory, so keep it small).
    #[must_use]
    pub fn disk_limit(mut self, bytes: u64) -> Self {
        self.disk_limit = bytes;
        self
    }

    /// `/boot` is a file system of its own of this many bytes (one kernel and initrd are 96 KiB).
    #[must_use]
    pub fn boot_limit(mut self, bytes: u64) -> Self {
        self.boot_limit = bytes;
        self
    }

    /// What its programs sync is written to the machine's disk, as where times are measured. Without it a sync costs nothing:
    /// no host of this kind loses unwritten pages, and many of them at once would wait for one another's.
    #[must_use]
    pub fn real_syncs(mut self) -> Self {
        self.real_syncs = true;
        self
    }

    /// A folder or file of the machine that the host sees, writable, at `inside`.
    #[must_use]
    pub fn bind(mut self, outside: &Path, inside: &Path) -> Self {
        self.binds.push((outside.to_owned(), inside.to_owned()));
        self
    }

    /// Joins a network of several hosts, in place of one of its own with nothing but a cache.
    #[must_use]
    pub fn net(mut self, net: &Arc<Net>) -> Self {
        self.net = Some(Arc::clone(net));
        self
    }

    /// Makes the host and boots it; returns when its units have settled.
    pub fn boot(self) -> Result<Host> {
        let host = self.make()?;
        host.start()?;
        Ok(host)
    }

    /// Makes the host's disk and network without booting it.
    pub fn make(self) -> Result<Host> {
        let image = Image::get(self.flavour)?;
        crate::sweep::sweep_once();
        let run = RunDir::new(&self.name)?;
        let place = self.net.as_ref().map_or_else(Place::alone, |net| net.place());
        crate::files::put(&run.path.join("env"), self.env(&image, &run, &place).as_bytes(), 0o644)?;
        let keeper = Keeper::start(&image.keeper_script(), "keep", &run)?;
        Ok(Host {
            faults: Mutex::new(None),
            keeper,
            image,
            name: self.name,
            address: place.address,
            known_boot: AtomicU64::new(0),
            disk_limited: self.disk_limit > 0,
            net: self.net,
            run,
        })
    }

    fn env(&self, image: &Image, run: &RunDir, place: &Place) -> String {
        let binds: Vec<_> = self
            .binds
            .iter()
            .map(|(from, to)| format!("--bind={}:{}", from.display(), to.display()))
            .collect();
        format!(
            "{}name='{}'\ndisk_limit={}\nboot_limit={}\nreal_syncs={}\nbinds='{}'\n",
            keeper_env(image, run, place),
            self.name,
            self.disk_limit,
            self.boot_limit,
            u8::from(self.real_syncs),
            binds.join(" "),
        )
    }
}

/// A running (or stopped) host. Dropping it removes everything of it.
#[derive(Debug)]
pub struct Host {
    // Dropped in this order: what uses the keeper, the keeper, its folder.
    faults: Mutex<Option<FaultServer>>,
    keeper: Keeper,
    image: Arc<Image>,
    name: String,
    address: String,
    /// The last boot that was seen to be up.
    known_boot: AtomicU64,
    disk_limited: bool,
    net: Option<Arc<Net>>,
    run: RunDir,
}

impl Host {
    /// A host to be made.
    pub fn builder(flavour: Flavour) -> HostBuilder {
        HostBuilder {
            flavour,
            name: "host".to_owned(),
            disk_limit: 0,
            boot_limit: 0,
            real_syncs: false,
            binds: Vec::new(),
            net: None,
        }
    }

    /// A booted host with nothing special.
    pub fn boot(flavour: Flavour) -> Result<Self> {
        Self::builder(flavour).boot()
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on its network, without the prefix.
    pub fn address(&self) -> &str {
        self.address.split('/').next().unwrap_or_default()
    }

    /// What it boots from.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The store path of a system.
    pub fn system(&self, system: System) -> &str {
        self.image.system(system)
    }

    /// Boots it from its disk; returns when its units have settled.
    pub fn start(&self) -> Result<()> {
        self.keeper.boot("")?;
        self.await_up()
    }

    /// Whether it is running (or on its way up).
    pub fn is_running(&self) -> bool {
        let seen = self.keeper.seen();
        seen.nspawn.is_some() || seen.starting
    }

    /// How many times it has been started.
    pub fn boots(&self) -> u64 {
        self.keeper.seen().boots
    }

    /// Runs a program for at most a minute. The path is as on NixOS; there is no shell.
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        self.run_for(RUN_LIMIT, argv)
    }

    /// Runs a program for at most `limit`; then it is killed and [`Output::timed_out`] is set.
    pub fn run_for(&self, limit: Duration, argv: &[&str]) -> Result<Output> {
        self.spawn(argv)?.wait(limit)
    }

    /// Runs a line of shell for at most a minute.
    pub fn sh(&self, script: &str) -> Result<Output> {
        self.run(&["/bin/sh", "-c", script])
    }

    /// Starts a program in the background; it is killed when the [`Running`] is dropped.
    pub fn spawn(&self, argv: &[&str]) -> Result<Running> {
        start_in(self.leader().context("the host is down")?, argv)
    }

    /// Runs a program with the terminal of this process; its exit code.
    pub fn run_interactive(&self, argv: &[&str]) -> Result<i32> {
        let leader = self.leader().context("the host is down")?;
        spawn::run_interactive(&enter(leader, argv).iter().map(OsStr::new).collect::<Vec<_>>())
    }

    /// Reboots it by `systemctl reboot` and waits until it is up again.
    pub fn reboot(&self) -> Result<()> {
        let boots = self.boots();
        // It ends by being killed in the shutdown, so its end says nothing.
        let _ = self.run(&["systemctl", "reboot"])?;
        let started = |seen: &crate::keeper::Seen| (seen.boots > boots).then_some(());
        self.keeper.wait("the reboot", BOOT_LIMIT, started)?;
        self.await_up()
    }

    /// Waits for a reboot that something inside asked for, and until it is up again.
    ///
    /// Counts from the last boot that this handle has seen to be up, so a reboot that came earlier is not missed.
    pub fn await_reboot(&self) -> Result<()> {
        let known = self.known_boot.load(Ordering::SeqCst);
        self.keeper.wait("a reboot from inside", BOOT_LIMIT, |seen| (seen.boots > known).then_some(()))?;
        self.await_up()
    }

    /// Waits until it has powered itself off.
    pub fn await_down(&self) -> Result<()> {
        let down = |seen: &crate::keeper::Seen| (seen.nspawn.is_none() && !seen.starting).then_some(());
        self.keeper.wait("the host to be down", BOOT_LIMIT, down)
    }

    /// Ends every process of the host by SIGKILL at this instant; the disk stays (with the page cache).
    pub fn kill(&self) -> Result<()> {
        self.keeper.kill_host()
    }

    /// Waits until the running boot has settled: `systemctl is-system-running` says running or degraded.
    pub fn await_up(&self) -> Result<()> {
        let until = Instant::now() + BOOT_LIMIT;
        loop {
            let seen = self.keeper.seen();
            if seen.nspawn.is_none() && !seen.starting {
                bail!(
                    "the host went down with {:?}; its console:\n{}",
                    seen.last_exit,
                    self.keeper.console()
                );
            }
            if self.settled(until)? {
                self.known_boot.fetch_max(seen.boots, Ordering::SeqCst);
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the host did not come up in {BOOT_LIMIT:?}; its console:\n{}", self.keeper.console());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks systemd, if there is one to ask.
    fn settled(&self, until: Instant) -> Result<bool> {
        let Some(leader) = self.leader() else { return Ok(false) };
        if !Path::new(&format!("/proc/{leader}/root/run/systemd/private")).exists() {
            return Ok(false);
        }
        let left = until.saturating_duration_since(Instant::now());
        // By the leader that was seen: a host that goes down meanwhile has not settled, and is asked again.
        let answer = start_in(leader, &["systemctl", "is-system-running", "--wait"])?.wait(left)?;
        Ok(matches!(answer.text(), "running" | "degraded"))
    }

    /// PID 1 of the host, as the machine outside sees it.
    pub fn leader(&self) -> Option<u32> {
        let nspawn = self.keeper.seen().nspawn?;
        let children = std::fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| is_pid_1(*pid))
    }

    /// Takes its link to the network down, from the other side, so that nothing inside can undo it.
    pub fn cut_network(&self) -> Result<()> {
        self.keeper.command("cut")
    }

    /// Lets everything vanish that it sends to the network's hub, where caches and servers are; what is sent to it arrives.
    ///
    /// It ends when something inside sets its link up anew, as the network's unit does when it is restarted.
    pub fn mute_network(&self) -> Result<()> {
        self.keeper.command("mute")
    }

    /// Lets everything vanish that the network's hub sends to it; what it sends arrives.
    pub fn deafen_network(&self) -> Result<()> {
        self.keeper.command("deafen")
    }

    /// Undoes [`Host::cut_network`], [`Host::mute_network`] and [`Host::deafen_network`].
    pub fn restore_network(&self) -> Result<()> {
        self.keeper.command("restore")
    }

    /// Fills the disk to the last byte; only for a host with a `disk_limit`.
    pub fn fill_disk(&self) -> Result<()> {
        if !self.disk_limited {
            bail!("only a host with a disk_limit can have its disk filled");
        }
        fill(&self.keeper.outside(&self.run.path.join("up/filler")))
    }

    /// Undoes [`Host::fill_disk`].
    pub fn free_disk(&self) -> Result<()> {
        std::fs::remove_file(self.keeper.outside(&self.run.path.join("up/filler"))).context("free the disk")
    }

    /// Fills `/boot` to the last byte; only for a host with a `boot_limit`.
    pub fn fill_boot(&self) -> Result<()> {
        fill(&self.keeper.outside(&self.run.path.join("merged/boot/filler")))
    }

    /// Undoes [`Host::fill_boot`].
    pub fn free_boot(&self) -> Result<()> {
        std::fs::remove_file(self.keeper.outside(&self.run.path.join("merged/boot/filler")))
            .context("free /boot")
    }

    /// The journal of a unit over all boots, without times.
    pub fn journal(&self, unit: &str) -> Result<String> {
        Machine::journal(self, unit)
    }

    /// The contents of a file; also while the host is down (then without /run).
    pub fn read_file(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.root()?.read(Path::new(path))?).into_owned())
    }

    /// Replaces the contents of a file, making its folders.
    pub fn write_file(&self, path: &str, contents: &str) -> Result<()> {
        self.root()?.write(Path::new(path), contents.as_bytes())
    }

    /// Whether something is there, through links.
    pub fn exists(&self, path: &str) -> bool {
        self.root().is_ok_and(|root| root.exists(Path::new(path)))
    }

    /// What is there, without following a link at the end.
    pub fn entry(&self, path: &str) -> Result<Entry> {
        self.root()?.entry(Path::new(path))
    }

    /// Where a link points; nothing if it is no link.
    pub fn read_link(&self, path: &str) -> Option<String> {
        Machine::read_link(self, path)
    }

    fn root(&self) -> Result<Root> {
        match self.leader() {
            Some(leader) => Root::open(Path::new(&format!("/proc/{leader}/root"))),
            None => Root::open(&self.keeper.outside(&self.run.path.join("merged"))),
        }
    }

    /// The system behind `/run/current-system`.
    pub fn current_system(&self) -> Option<String> {
        Machine::current_system(self)
    }

    /// The system behind `/run/booted-system`.
    pub fn booted_system(&self) -> Option<String> {
        Machine::booted_system(self)
    }

    /// The system that the boot loader would boot.
    pub fn boot_default(&self) -> Option<String> {
        Machine::boot_default(self)
    }

    /// The system that the system profile points to, through its generation link.
    pub fn profile_system(&self) -> Option<String> {
        Machine::profile_system(self)
    }

    /// The generations of the system profile: each number with the store path that it points to.
    pub fn generations(&self) -> Result<BTreeMap<u64, String>> {
        let folder = "/nix/var/nix/profiles";
        let listed = self.run(&["ls", folder])?.success()?;
        let generation = |name: &str| {
            let number = name.strip_prefix("system-")?.strip_suffix("-link")?.parse().ok()?;
            Some((number, self.read_link(&format!("{folder}/{name}"))?))
        };
        Ok(listed.stdout.lines().filter_map(generation).collect())
    }

    /// The command lines of all its processes, by process id.
    pub fn processes(&self) -> Result<Vec<(u32, String)>> {
        Machine::processes(self)
    }

    /// Its loaded units with their active state (`active`, `failed`, …), by name.
    pub fn units(&self) -> Result<Vec<(String, String)>> {
        Machine::units(self)
    }

    /// The active state of one unit (`inactive` also if there is no such unit).
    pub fn unit_state(&self, unit: &str) -> Result<String> {
        Machine::unit_state(self, unit)
    }

    /// Fetches a path from the cache with its signatures checked, and roots it at `/testbed/roots/<name>`.
    pub fn fetch(&self, path: &str) -> Result<()> {
        Machine::fetch(self, path)
    }

    /// Puts a path and its closure into the store without any signature, as something careless would.
    pub fn import_unsigned(&self, path: &str) -> Result<()> {
        let url = format!("{}/testbed-unsigned", self.cache()?.url());
        let argv = [
            "nix",
            "--extra-experimental-features",
            "nix-command",
            "copy",
            "--no-check-sigs",
            "--from",
            &url,
            path,
        ];
        self.run_for(BOOT_LIMIT, &argv)?.success()?;
        Ok(())
    }

    /// The binary cache that this host fetches from (shared by all hosts of a [`Net`]).
    pub fn cache(&self) -> Result<Cache<'_>> {
        match &self.net {
            Some(net) => net.cache(),
            None => Ok(Cache::new(&self.keeper, &self.run, &self.image, &self.faults)),
        }
    }

    /// Puts a misbehaving server in the place of the cache.
    pub fn break_cache(&self, fault: Fault) -> Result<()> {
        self.cache()?.serve_fault(fault)
    }

    /// Ends the host and removes everything of it, as dropping it does.
    pub fn destroy(self) {}

    /// Waits until `condition` holds on this host.
    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        wait_until(what, limit, || condition(self).then_some(()))
    }
}

/// The primitives; the rest of [`Machine`] is made of them, and the methods of the same names above are it.
impl Machine for Host {
    fn image(&self) -> &Image {
        &self.image
    }

    fn run_for(&self, limit: Duration, argv: &[&str]) -> Result<Output> {
        Self::run_for(self, limit, argv)
    }

    fn read_file(&self, path: &str) -> Result<String> {
        Self::read_file(self, path)
    }

    fn write_file(&self, path: &str, contents: &str) -> Result<()> {
        Self::write_file(self, path, contents)
    }

    fn entry(&self, path: &str) -> Result<Entry> {
        Self::entry(self, path)
    }

    fn exists(&self, path: &str) -> bool {
        Self::exists(self, path)
    }

    fn cache(&self) -> Result<Cache<'_>> {
        Self::cache(self)
    }
}

fn enter(leader: u32, argv: &[&str]) -> Vec<String> {
    let leader = leader.to_string();
    let entering =
        ["nsenter", "-t", &leader, "-m", "-u", "-i", "-n", "-p", "-C", "--", "/bin/sh", "-c", ENTER, "sh"];
    entering.iter().chain(&ENVIRONMENT).chain(argv).map(|word| (*word).to_owned()).collect()
}

/// Starts a program in the host of this leader.
fn start_in(leader: u32, argv: &[&str]) -> Result<Running> {
    spawn::start(&enter(leader, argv).iter().map(OsStr::new).collect::<Vec<_>>())
}

/// Whether a process is PID 1 of a namespace below ours.
fn is_pid_1(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| {
        numbers.split_whitespace().count() > 1 && numbers.split_whitespace().next_back() == Some("1")
    })
}

/// Writes a file until there is no room left.
fn fill(path: &Path) -> Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path).with_context(|| format!("make {}", path.display()))?;
    for size in [1 << 20, 4096, 1] {
        let block = vec![b'f'; size];
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}

/// The settings that every kind of keeper needs.
pub(crate) fn keeper_env(image: &Image, run: &RunDir, place: &Place) -> String {
    format!(
        "root='{}'\nlayer='{}'\ncache='{}'\ncgroup='{}'\nnet_pid={}\nslot={}\naddress='{}'\ngateway='{}'\n",
        image.root().display(),
        image.layer().display(),
        image.cache().display(),
        run.cgroup(),
        place.net_pid,
        place.slot,
        place.address,
        place.gateway,
    )
}
