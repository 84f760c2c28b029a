//! What virtual machines start from, made once and kept: a kernel (`kernel-*`, taken out of Debian's package) and, for
//! each prepared layer, a disk (`disk-*`).
//!
//! A kernel stays until what it is made with changes or the cache is removed; a newer package alone is no reason to
//! fetch 27 MB. The disk's key names it, with everything else that goes into the disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::FlockOperation;

use crate::image::{Flavour, Image, cache_dir, digest, prune, remove};
use crate::net::Place;
use crate::run_dir::lock;
use crate::spawn;

use super::console::STREAM_BYTES_MAX;

/// Fetching takes a second or two and unpacking three; a slow mirror may take minutes.
const KERNEL_LIMIT: Duration = Duration::from_mins(10);
/// Making a disk takes about 3 s.
const DISK_LIMIT: Duration = Duration::from_mins(5);
/// What a machine's disk holds, the image's 320 MB included; it is sparse.
const DISK_SIZE: &str = "1G";
/// Disks kept per flavour, the one in use included (about 320 MB each).
const DISKS_KEPT: usize = 2;
/// The host name of every virtual machine.
pub(super) const NAME: &str = "vm";

const KERNEL_ASSETS: &[(&str, &str)] = &[
    ("vm-kernel.sh", include_str!("../../assets/vm-kernel.sh")),
    ("vm-init.sh", include_str!("../../assets/vm-init.sh")),
];
const DISK_ASSETS: &[(&str, &str)] = &[
    ("vm-image.sh", include_str!("../../assets/vm-image.sh")),
    ("vm-console.sh", include_str!("../../assets/vm-console.sh")),
];

/// A kernel and a disk, ready to be started from; and the image that they are made of.
#[derive(Debug)]
pub(super) struct VmImage {
    pub(super) image: Arc<Image>,
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    pub(super) disk: PathBuf,
    /// Keeps others from pruning it.
    _in_use: File,
}

/// What machines of a flavour start from; made if it is not there (ten seconds the first time).
pub(super) fn get(flavour: Flavour, say: &mut dyn FnMut(&str)) -> Result<VmImage> {
    // Threads of this process take turns as well: a lock on a file is between processes only if each opens its own.
    static MAKING: Mutex<()> = Mutex::new(());
    let _turn = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let image = Image::get(flavour)?;
    let _building =
        lock(&cache_dir().join(format!("lock-vm-{}", flavour.name())), FlockOperation::LockExclusive)?;
    let kernel = kernel(&image, say)?;
    let disk = disk(&image, &kernel, say)?;
    let in_use = lock(&disk.join("in-use"), FlockOperation::LockShared)?;
    prune(&format!("disk-{}-", flavour.name()), &disk, DISKS_KEPT);
    Ok(VmImage {
        image,
        kernel: kernel.join("vmlinuz"),
        initrd: kernel.join("initrd"),
        disk: disk.join("disk"),
        _in_use: in_use,
    })
}

/// The folder with `vmlinuz`, `initrd` and `package`, the name of the package that they came from.
fn kernel(image: &Image, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let busybox = fs::metadata(image.root().join("bin/busybox")).context("the root's busybox")?.len();
    let key = digest(&format!("{busybox}\n{}", text(KERNEL_ASSETS)))?;
    let folder = cache_dir().join(format!("kernel-{key}"));
    if folder.exists() {
        return Ok(folder);
    }
    say("fetching a kernel for virtual machines (it is not installed)");
    let half = half(&folder)?;
    let assets = assets(&half, KERNEL_ASSETS)?;
    let script = assets.join("vm-kernel.sh");
    let texts = [&script, &image.root().to_path_buf(), &half, &assets]
        .map(|path| path.to_string_lossy().into_owned());
    let argv: Vec<&str> = std::iter::once("bash").chain(texts.iter().map(String::as_str)).collect();
    spawn::run(&argv, KERNEL_LIMIT)?.success().context("make the kernel of virtual machines")?;
    whole(&half, &folder)
}

/// The folder with `disk`.
fn disk(image: &Image, kernel: &Path, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let package = fs::read_to_string(kernel.join("package")).context("which kernel this is")?;
    let prepared = image.layer();
    let key = digest(&format!("{}\n{package}{DISK_SIZE}\n{}", prepared.display(), text(DISK_ASSETS)))?;
    let folder = cache_dir().join(format!("disk-{}-{key}", image.flavour().name()));
    if folder.exists() {
        return Ok(folder);
    }
    say(&format!("{}: making the disk of virtual machines", image.flavour().name()));
    let half = half(&folder)?;
    let assets = assets(&half, DISK_ASSETS)?;
    let paths = [&assets.join("vm-image.sh"), &image.root().to_path_buf(), &prepared, &half, &assets];
    let place = Place::alone();
    let bytes_max = STREAM_BYTES_MAX.to_string();
    let mut argv: Vec<String> =
        ["unshare", "--mount", "--propagation", "private", "bash"].map(str::to_owned).to_vec();
    argv.extend(paths.map(|path| path.to_string_lossy().into_owned()));
    argv.extend([NAME.to_owned(), place.address, place.gateway, DISK_SIZE.to_owned(), bytes_max]);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    spawn::run(&argv, DISK_LIMIT)?.success().context("make the disk of virtual machines")?;
    whole(&half, &folder)
}

fn text(assets: &[(&str, &str)]) -> String {
    assets.iter().flat_map(|(name, content)| [*name, "\n", *content]).collect()
}

/// An empty folder in which something is made that takes its name when it is whole.
fn half(folder: &Path) -> Result<PathBuf> {
    let half = folder.with_extension("half");
    remove(&half)?;
    fs::create_dir_all(&half).with_context(|| format!("make {}", half.display()))?;
    Ok(half)
}

fn whole(half: &Path, folder: &Path) -> Result<PathBuf> {
    fs::rename(half, folder).with_context(|| format!("move {} to its place", half.display()))?;
    Ok(folder.to_owned())
}

fn assets(half: &Path, files: &[(&str, &str)]) -> Result<PathBuf> {
    let assets = half.join("assets");
    fs::create_dir_all(&assets).with_context(|| format!("make {}", assets.display()))?;
    for (name, content) in files {
        crate::files::put(&assets.join(name), content.as_bytes(), 0o755)?;
    }
    Ok(assets)
}
