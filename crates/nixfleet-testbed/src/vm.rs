//! A virtual machine: a host with a kernel, a clock and a disk of its own, whose power can be cut.
//!
//! It is made of the same root and layer as every [`Host`](crate::Host): the same systems, the same stage 2, the same
//! signed cache over HTTP at the same address. It costs 300 MB of memory and twenty seconds of a processor for each
//! boot, so it is for what a container cannot show: unwritten pages that are lost (see [`Unflushed`]), and a clock that
//! jumps.
//!
//! A keeper owns qemu as it owns nspawn. The disk is served by threads of this process, so nothing of it outlives us.
//!
//! Limits: programs run one after another, their output arrives when they have ended, and files are read by running
//! programs, so only while the machine is up. Its network has the cache and nothing else.

use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::fault::FaultServer;
use crate::files::Entry;
use crate::host::{ENTER, ENVIRONMENT, keeper_env};
use crate::image::{Flavour, Image};
use crate::keeper::Keeper;
use crate::machine::Machine;
use crate::net::Place;
use crate::run_dir::RunDir;
use crate::spawn::Output;
use crate::wait::wait_until;

use console::Console;
use disk::Disk;
pub use disk::{Cut, Unflushed};
use image::VmImage;

mod console;
mod disk;
mod image;
mod nbd;

/// A boot takes some 15 s alone on two processors, and a minute where others want them.
const BOOT_LIMIT: Duration = Duration::from_mins(5);
/// qemu connects as soon as it has been started, which a loaded machine does when it comes to it.
const CONNECT_LIMIT: Duration = Duration::from_mins(2);
/// Reading or writing one small file.
const FILE_LIMIT: Duration = Duration::from_mins(1);

/// Between two questions about a condition.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Waits for systemd to be there, without asking it every moment: each question costs half a second of a processor.
const AWAIT_UP: &str =
    "until [ -S /run/systemd/private ]; do sleep 0.2; done; exec systemctl is-system-running --wait";
/// One word about what is there, and where it points.
const WHAT_IS_THERE: &str = r#"
if [ -L "$1" ]; then echo link; readlink -n -- "$1"
elif [ -d "$1" ]; then echo folder; elif [ -e "$1" ]; then echo file; else echo absent; fi"#;

/// What a machine's clock says when it starts. It runs on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The right time.
    Right,
    /// This time in UTC, as `2030-01-01T00:00:00`.
    At(&'static str),
}

/// What a virtual machine is to be; see [`Vm::builder`].
#[derive(Debug)]
pub struct VmBuilder {
    flavour: Flavour,
    name: String,
    clock: Clock,
}

impl VmBuilder {
    /// What its folder is called (`vm` if not given).
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// What its clock says at the first start.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Makes the machine and boots it; returns when its units have settled.
    pub fn boot(self) -> Result<Vm> {
        let vm = Vm::make(self.flavour, &self.name)?;
        vm.start(self.clock)?;
        Ok(vm)
    }
}

/// Makes what virtual machines of a flavour start from, if it is missing, and says what it does.
pub fn prepare_vm(flavour: Flavour, say: &mut dyn FnMut(&str)) -> Result<()> {
    image::get(flavour, say).map(drop)
}

/// A running (or stopped) virtual machine. Dropping it removes everything of it.
#[derive(Debug)]
pub struct Vm {
    // Dropped in this order: what uses the keeper, the keeper (and qemu with it), then the threads end by themselves.
    faults: Mutex<Option<FaultServer>>,
    boot: Mutex<Option<Boot>>,
    keeper: Keeper,
    disk: Arc<Mutex<Disk>>,
    disk_socket: UnixListener,
    port_socket: UnixListener,
    image: VmImage,
    run: RunDir,
}

/// What belongs to one start of the machine.
#[derive(Debug)]
struct Boot {
    console: Console,
    disk: JoinHandle<std::io::Result<()>>,
}

impl Vm {
    /// A machine to be made.
    pub fn builder(flavour: Flavour) -> VmBuilder {
        VmBuilder { flavour, name: image::NAME.to_owned(), clock: Clock::Right }
    }

    /// A booted machine with nothing special.
    pub fn boot(flavour: Flavour) -> Result<Self> {
        Self::builder(flavour).boot()
    }

    fn make(flavour: Flavour, name: &str) -> Result<Self> {
        let image = image::get(flavour, &mut |_| {})?;
        crate::sweep::sweep_once();
        let run = RunDir::new(name)?;
        let env = format!(
            "{}name='{name}'\nkernel='{}'\ninitrd='{}'\n",
            keeper_env(&image.image, &run, &Place::alone()),
            image.kernel.display(),
            image.initrd.display(),
        );
        crate::files::put(&run.path.join("env"), env.as_bytes(), 0o644)?;
        let disk = Disk::new(&image.disk, &run.path.join("platter"))?;
        let (disk_socket, port_socket) = (listen(&run, "disk.sock")?, listen(&run, "port.sock")?);
        let keeper = Keeper::start(&image.image.keeper_script(), "machine", &run)?;
        Ok(Self {
            faults: Mutex::new(None),
            boot: Mutex::new(None),
            keeper,
            disk: Arc::new(Mutex::new(disk)),
            disk_socket,
            port_socket,
            image,
            run,
        })
    }

    /// Boots it from its disk, with its clock set; returns when its units have settled.
    pub fn start(&self, clock: Clock) -> Result<()> {
        self.keeper.boot(match clock {
            Clock::Right => "utc",
            Clock::At(time) => time,
        })?;
        let stream = self.accept(&self.disk_socket, "disk")?;
        let disk = Arc::clone(&self.disk);
        let disk = std::thread::spawn(move || nbd::serve(stream, &disk));
        let console = Console::new(self.accept(&self.port_socket, "console")?);
        *self.booted() = Some(Boot { console, disk });
        self.await_up()
    }

    /// Waits until its units have settled: `systemctl is-system-running` says running or degraded.
    fn await_up(&self) -> Result<()> {
        let until = Instant::now() + BOOT_LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = self.run_for(left, &["/bin/sh", "-c", AWAIT_UP]).with_context(|| self.console())?;
            if matches!(answer.text(), "running" | "degraded") {
                return Ok(());
            }
            if left.is_zero() {
                bail!("the machine did not come up in {BOOT_LIMIT:?}: {answer}\n{}", self.console());
            }
        }
    }

    /// Whether it is running (or on its way up).
    pub fn is_running(&self) -> bool {
        let seen = self.keeper.seen();
        seen.nspawn.is_some() || seen.starting
    }

    /// Cuts its power at this instant: SIGKILL to qemu, and what the disk had not flushed goes this way.
    pub fn cut_power(&self, unflushed: Unflushed) -> Result<Cut> {
        self.keeper.kill_host()?;
        self.ended()?;
        self.disk().cut(unflushed).context("cut the disk's power")
    }

    /// Switches it off as a person would, and starts it again; the disk keeps everything.
    pub fn restart(&self, clock: Clock) -> Result<()> {
        // It ends by being killed in the shutdown, or not at all.
        let _ = self.run(&["systemctl", "poweroff"]);
        let down = |seen: &crate::keeper::Seen| (seen.nspawn.is_none() && !seen.starting).then_some(());
        self.keeper.wait("the machine to be off", BOOT_LIMIT, down)?;
        self.ended()?;
        self.start(clock)
    }

    /// Waits for the threads of a boot whose qemu is gone: what it had sent has then arrived.
    fn ended(&self) -> Result<()> {
        let Some(boot) = self.booted().take() else { return Ok(()) };
        drop(boot.console);
        let served = boot.disk.join();
        served.map_err(|_| anyhow::anyhow!("the disk's thread panicked"))?.context("serve the disk")
    }

    /// The network namespace in which whatever listens at 127.0.0.1 is what the machine reaches at its gateway.
    pub fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.keeper.pid()).into()
    }

    /// Seconds since its boot, by the clock that nobody can set.
    pub fn uptime(&self) -> Result<Duration> {
        let text = self.read_file("/proc/uptime")?;
        let seconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
        Ok(Duration::from_secs_f64(seconds.with_context(|| format!("`{text}` is no uptime"))?))
    }

    /// Ends the machine and removes everything of it, as dropping it does.
    pub fn destroy(self) {}

    fn console(&self) -> String {
        format!("the end of its console:\n{}", self.keeper.console())
    }

    fn booted(&self) -> MutexGuard<'_, Option<Boot>> {
        self.boot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, socket: &UnixListener, what: &str) -> Result<UnixStream> {
        let stream =
            wait_until(&format!("qemu to ask for its {what}"), CONNECT_LIMIT, || socket.accept().ok());
        let (stream, _) = stream.with_context(|| self.console())?;
        stream.set_nonblocking(false).context("wait for qemu's requests")?;
        Ok(stream)
    }
}

impl Machine for Vm {
    fn image(&self) -> &Image {
        &self.image.image
    }

    /// There is no shell, and no more than [`Output`] says is kept of what it prints.
    fn run_for(&self, limit: Duration, argv: &[&str]) -> Result<Output> {
        let entering = ["/bin/sh", "-c", ENTER, "sh"];
        let words: Vec<&str> = entering.iter().chain(&ENVIRONMENT).chain(argv).copied().collect();
        let mut booted = self.booted();
        let boot = booted.as_mut().context("the virtual machine is down")?;
        boot.console.run(&words, limit)
    }

    fn read_file(&self, path: &str) -> Result<String> {
        Ok(self.run_for(FILE_LIMIT, &["cat", "--", path])?.success()?.stdout)
    }

    fn write_file(&self, path: &str, contents: &str) -> Result<()> {
        let script = r#"mkdir -p -- "$(dirname -- "$1")" && printf %s "$2" > "$1""#;
        self.run_for(FILE_LIMIT, &["/bin/sh", "-c", script, "sh", path, contents])?.success().map(drop)
    }

    fn entry(&self, path: &str) -> Result<Entry> {
        let output = self.run_for(FILE_LIMIT, &["/bin/sh", "-c", WHAT_IS_THERE, "sh", path])?.success()?;
        let (kind, target) = output.stdout.split_once('\n').unwrap_or((&output.stdout, ""));
        Ok(match kind {
            "link" => Entry::Link(target.into()),
            "folder" => Entry::Folder,
            "file" => Entry::File,
            "absent" => Entry::Absent,
            _ => bail!("`{kind}` is no kind of entry"),
        })
    }

    fn exists(&self, path: &str) -> bool {
        self.run_for(FILE_LIMIT, &["test", "-e", path]).is_ok_and(|output| output.ok())
    }

    /// Asks twice a second: each question is a program, and takes time from what is waited for.
    fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        wait_until(what, limit, || {
            let holds = condition(self);
            if !holds {
                std::thread::sleep(ASK_EVERY);
            }
            holds.then_some(())
        })
    }

    fn cache(&self) -> Result<Cache<'_>> {
        Ok(Cache::new(&self.keeper, &self.run, &self.image.image, &self.faults))
    }
}

/// A socket in the machine's folder, by a short name: the folder's own may be longer than a socket's may be.
fn listen(run: &RunDir, name: &str) -> Result<UnixListener> {
    let folder = std::fs::File::open(&run.path).with_context(|| format!("open {}", run.path.display()))?;
    let socket = UnixListener::bind(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
        .with_context(|| format!("listen on {name} in {}", run.path.display()))?;
    socket.set_nonblocking(true).context("listen without waiting")?;
    Ok(socket)
}
