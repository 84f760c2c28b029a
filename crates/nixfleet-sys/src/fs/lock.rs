//! Advisory locks: taken without waiting, dropped by the kernel with their holder, and told of in `/proc/locks`.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};

use super::{FsError, Owner, failed, flags, give_to, make_dir, read_bounded};

/// An exclusive advisory lock, held until dropped or until the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock at once, or says `None` when somebody else holds it. A link at `path` is an error, as whoever owns the
    /// folder could lead us to any file by it; a pipe is not waited for.
    pub fn try_take(path: &Path) -> Result<Option<Self>, FsError> {
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .open(path)
            .map_err(failed("open the lock", path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(failed("take the lock", path)(e.into())),
        }
    }

    /// Writes our process id into the file, for [`named_holder`]; whoever cannot has a lock all the same.
    pub fn name_holder(&self) {
        let id = format!("{:<10}", std::process::id());
        let _ = rustix::io::pwrite(&self.file, id.as_bytes(), 0);
    }

    /// Gives the locked file, which is at `path`, to this owner, as [`give_to`] does.
    pub fn give_to(&self, path: &Path, to: Owner) -> Result<(), FsError> {
        give_to(&self.file, path, to)
    }

    /// The locked file, to be handed to a child: locked until the last process that has it is gone.
    pub fn into_file(self) -> File {
        self.file
    }
}

/// Whether somebody holds a lock on the file; no file, no lock. Does not make the file.
///
/// For the instant of asking, somebody who takes the lock finds it taken.
pub fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK))
}

/// Who wrote its process id into the file that is locked now, where the kernel does not tell (macOS); `None` when it
/// is not locked. Between taking and naming, the id is that of the holder before: whoever acts on it asks twice.
pub fn named_holder(path: &Path) -> Option<i32> {
    /// As [`Lock::name_holder`] writes it.
    const BYTES_MAX: u64 = 16;
    let bytes = read_bounded(path, BYTES_MAX).ok().filter(|_| is_locked(path))?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok().filter(|pid| *pid > 0)
}

/// What `/proc/locks` says, for [`flock_holders`]; empty where it cannot be read. A lock may be in it more than once.
///
/// The kernel holds the list still for one read alone, which gives a page at most (some 70 locks, however large the buffer),
/// and goes on by position: where a lock is taken or given back in between, another one is shown twice or not at all. So
/// the buffer is larger than a page, and a list of several is read again.
pub fn proc_locks() -> String {
    locks_in(|| File::open("/proc/locks"))
}

pub(super) fn locks_in<R: Read>(open: impl Fn() -> io::Result<R>) -> String {
    /// A lock that is there all the time would have to be missed by each of them.
    const READINGS_MAX: u32 = 3;
    let mut text = Vec::new();
    for _ in 0..READINGS_MAX {
        let pages = open().and_then(|list| append_pages(list, &mut text));
        if !matches!(pages, Ok(2..)) {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Appends all that there is to read, and returns in how many reads it came.
fn append_pages(mut list: impl Read, text: &mut Vec<u8>) -> io::Result<u32> {
    /// The largest page that a kernel of Linux has.
    const PAGE_BYTES_MAX: usize = 64 << 10;
    let mut page = vec![0; PAGE_BYTES_MAX];
    let mut pages = 0;
    loop {
        match list.read(&mut page) {
            Ok(0) => return Ok(pages),
            Ok(got) => {
                text.extend_from_slice(&page[..got]);
                pages += 1;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Process ids that hold an exclusive `flock` on the file that these metadata are of, from the text of `/proc/locks`
/// ([`proc_locks`]), each once; touches no lock.
///
/// The number of a file means something on its own disk only, so the disk is compared as well; on btrfs and overlayfs the
/// kernel names another one there than in the metadata, and nobody is found. A process in another pid namespace reads as 0
/// there and is left out of nothing: 0 is returned as a holder.
pub fn flock_holders(proc_locks: &str, file: &Metadata) -> Vec<i32> {
    holders_of(proc_locks, (file.dev(), file.ino()))
}

pub(super) fn holders_of(proc_locks: &str, file: (u64, u64)) -> Vec<i32> {
    let mut holders = Vec::new();
    for holder in proc_locks.lines().filter_map(|line| flock_holder(line, file)) {
        // Where a lock is in the text twice, its holder is one all the same.
        if !holders.contains(&holder) {
            holders.push(holder);
        }
    }
    holders
}

fn flock_holder(line: &str, (device, inode): (u64, u64)) -> Option<i32> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    // `1: FLOCK  ADVISORY  WRITE 1234 00:2e:567 0 EOF`; a waiter has `->` in the second place and holds nothing.
    let [_, "FLOCK", _, "WRITE", pid, held, ..] = words.as_slice() else { return None };
    let mut numbers = held.split(':');
    let mut hex = || u32::from_str_radix(numbers.next()?, 16).ok();
    let on = device_of(hex()?, hex()?);
    let is = numbers.next()?.parse::<u64>().ok()?;
    if (on, is) == (device, inode) { pid.parse().ok() } else { None }
}

/// The number of a disk as Linux's metadata have it: the lower bits of both numbers first, then the higher ones.
pub(super) fn device_of(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
}
