//! The one way to replace a file: synced and renamed, or not written at all.
//!
//! After [`write_atomic`] or [`link_atomic`] returns, a reader and a power cut see the new contents; before, the old.
//! [`Lock`] is an advisory lock that the kernel drops with its holder, so no lock outlives a crash.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, statvfs};

mod lock;

pub use lock::{Lock, flock_holders, is_locked, named_holder, proc_locks};

/// The action of [`read_guarded`] that fails when others could have written the file.
const TRUST: &str = "trust";

/// What could not be done to which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{path}`")]
pub struct FsError {
    /// What was attempted: "read", "replace", ...
    pub action: &'static str,
    /// The path.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl FsError {
    /// Whether the cause was a full disk or quota.
    pub fn is_no_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the same may work later although nobody touches the file: the disk is full, read-only for now, or failing.
    pub fn may_pass(&self) -> bool {
        self.is_no_space()
            || self.source.kind() == io::ErrorKind::ReadOnlyFilesystem
            || self.source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
    }

    /// Whether we may not.
    pub fn is_not_permitted(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }

    /// Whether others than root and we could have written it, as [`read_guarded`] finds: only a person changes that.
    pub fn is_untrusted(&self) -> bool {
        self.action == TRUST
    }

    /// Whether there was no such file.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FsError {
    let path = path.to_owned();
    move |source| FsError { action, path, source }
}

/// Makes `path` and its parents, readable by root only where it makes them.
pub fn make_dir(path: &Path) -> Result<(), FsError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("make the folder", path))
}

/// Makes `path` and its parents, readable by everybody where it makes them: for what is served.
pub fn make_public_dir(path: &Path) -> Result<(), FsError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(failed("make the folder", path))
}

/// Many new files that appear at once or not at all: written below a folder beside the final one, synced together, and
/// renamed.
///
/// One sync for all of them costs less than one for each: 100,000 files take seconds instead of minutes. A folder that
/// was not published is removed when this is dropped; one that a crash left has a name that begins with a dot.
#[derive(Debug)]
pub struct NewFolder {
    fresh: PathBuf,
    path: PathBuf,
}

impl NewFolder {
    /// Begins the folder `path`, whose parent is there.
    pub fn begin(path: &Path) -> Result<Self, FsError> {
        let fresh = beside(path);
        let _ = std::fs::remove_dir_all(&fresh);
        make_public_dir(&fresh)?;
        Ok(Self { fresh, path: path.to_owned() })
    }

    /// Makes a folder below it.
    pub fn make_dir(&self, below: &str) -> Result<(), FsError> {
        make_public_dir(&self.fresh.join(below))
    }

    /// Writes a new file below it, readable by everybody, not synced yet.
    pub fn write(&self, below: &str, bytes: &[u8]) -> Result<(), FsError> {
        let path = self.fresh.join(below);
        let options = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
        options.and_then(|mut file| file.write_all(bytes)).map_err(failed("write", &path))
    }

    /// Syncs everything and gives the folder its name; refuses if there is one of that name.
    pub fn publish(self) -> Result<(), FsError> {
        sync_file_system(&self.fresh)?;
        // A folder is never renamed over one that has something in it.
        std::fs::rename(&self.fresh, &self.path).map_err(failed("make the folder", &self.path))?;
        sync_parent(&self.path).map_err(failed("sync the folder of", &self.path))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // Gone already if it was published.
        let _ = std::fs::remove_dir_all(&self.fresh);
    }
}

/// The names in the folder, sorted; names that are not UTF-8 are left out, since nothing of ours has one. No folder, no
/// names.
pub fn names_in(path: &Path) -> Result<Vec<String>, FsError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("list", path)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed("list", path))?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Replaces the file with `bytes`, mode 0600: new file, fsync, rename, fsync of the folder.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    write_atomic_mode(path, bytes, 0o600)
}

/// Like [`write_atomic`], with a mode.
pub fn write_atomic_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let fresh = beside(path);
    let written = write_new(&fresh, bytes, mode).and_then(|()| std::fs::rename(&fresh, path));
    finish(&fresh, path, written)
}

/// Makes an empty file that only its owner can read, for another program to fill; an error if there is one of that name.
pub fn make_private_file(path: &Path) -> Result<File, FsError> {
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    options.map_err(failed("make the file", path))
}

/// Who owns a file: a user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
}

impl Owner {
    fn of(meta: &Metadata) -> Self {
        Self { user: meta.uid(), group: meta.gid() }
    }
}

/// Who owns what is at `path`; a link there is looked at itself, and not followed.
pub fn owner(path: &Path) -> Result<Owner, FsError> {
    let meta = std::fs::symlink_metadata(path).map_err(failed("look at", path))?;
    Ok(Owner::of(&meta))
}

/// Gives the open file, which was made or found at `path`, to this owner, unless it is theirs. Only root can give files away.
///
/// Its name is not asked: whoever owns the folder may have put a link to another file in its place, or the other file
/// itself, which is refused since it has two names then.
pub fn give_to(file: &File, path: &Path, to: Owner) -> Result<(), FsError> {
    let meta = file.metadata().map_err(failed("look at", path))?;
    if Owner::of(&meta) == to {
        return Ok(());
    }
    if !meta.is_file() || meta.nlink() > 1 {
        let why = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file of one name");
        return Err(failed("give away", path)(why));
    }
    fchown(file, Some(to.user), Some(to.group)).map_err(failed("give away", path))
}

/// Points the link at `target` by making a new one and renaming it: there is no instant without a link.
pub fn link_atomic(target: &Path, link: &Path) -> Result<(), FsError> {
    let fresh = beside(link);
    let _ = std::fs::remove_file(&fresh);
    let made = std::os::unix::fs::symlink(target, &fresh).and_then(|()| std::fs::rename(&fresh, link));
    finish(&fresh, link, made)
}

/// Removes the file or link; that it is not there is success.
pub fn remove(path: &Path) -> Result<(), FsError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a file, or a folder with all that is in it; that it is not there is success.
pub fn remove_tree(path: &Path) -> Result<(), FsError> {
    let gone = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    match gone {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The contents of a file of at most `bytes_max` bytes; a larger one is an error, as nothing of ours is that large.
pub fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FsError> {
    let file = File::open(path).map_err(failed("read", path))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > bytes_max {
        let why = io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {bytes_max} bytes"));
        return Err(failed("read", path)(why));
    }
    Ok(bytes)
}

/// The contents of a file of at most `bytes_max` bytes, or the first `bytes_max + 1` of a larger one: whoever reads a
/// foreign document sees by the length that it is too large. Only a regular file is read: a pipe or a device, which
/// could be waited for for ever, is an error.
pub fn read_start(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FsError> {
    let (file, _) = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(bytes)
}

/// Like [`read_bounded`], for a file that decides whom this host trusts: an error if anybody but root and the user that
/// we run as could have written it. Links are followed; what counts is the file at their end, which is the one read.
pub fn read_guarded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FsError> {
    let (file, meta) = open_regular(path)?;
    if let Some(who) = others_who_write(&meta) {
        let why = io::Error::new(io::ErrorKind::PermissionDenied, who.to_string());
        return Err(failed(TRUST, path)(why));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > bytes_max {
        let why = io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {bytes_max} bytes"));
        return Err(failed("read", path)(why));
    }
    Ok(bytes)
}

/// What others can do with a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Can {
    /// Read it.
    Read,
    /// Write it.
    Write,
}

impl Can {
    /// Its bit among those for everybody.
    fn bit(self) -> u32 {
        match self {
            Self::Read => 0o4,
            Self::Write => 0o2,
        }
    }
}

impl std::fmt::Display for Can {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Who else can read or write a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// It belongs to this user, who is neither root nor we.
    Owner(u32),
    /// Its group can.
    Group(Can),
    /// Everybody can.
    Everybody(Can),
}

impl std::fmt::Display for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Owner(user) => write!(f, "it belongs to user {user}"),
            Self::Group(can) => write!(f, "its group can {can} it"),
            Self::Everybody(can) => write!(f, "everybody can {can} it"),
        }
    }
}

/// Who can write a file or folder beside root and the user that we run as; the widest circle of them.
pub fn others_who_write(meta: &std::fs::Metadata) -> Option<Others> {
    others(meta, Can::Write)
}

/// Who can read a file beside root and the user that we run as; the widest circle of them.
pub fn others_who_read(meta: &std::fs::Metadata) -> Option<Others> {
    others(meta, Can::Read)
}

fn others(meta: &std::fs::Metadata, can: Can) -> Option<Others> {
    let (owner, mode) = (meta.uid(), meta.mode());
    if mode & can.bit() != 0 {
        Some(Others::Everybody(can))
    } else if mode & (can.bit() << 3) != 0 {
        Some(Others::Group(can))
    } else if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        Some(Others::Owner(owner))
    } else {
        None
    }
}

/// Opened without waiting: the other end of a pipe may never come.
fn open_regular(path: &Path) -> Result<(File, std::fs::Metadata), FsError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags(OFlags::NONBLOCK))
        .open(path)
        .map_err(failed("read", path))?;
    let meta = file.metadata().map_err(failed("read", path))?;
    if meta.is_file() {
        return Ok((file, meta));
    }
    Err(failed("read", path)(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")))
}

fn flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).expect("flags of open(2)")
}

/// Where the link points, one step.
pub fn read_link(path: &Path) -> Result<PathBuf, FsError> {
    std::fs::read_link(path).map_err(failed("read the link", path))
}

/// Where the path ends after all links.
pub fn resolve(path: &Path) -> Result<PathBuf, FsError> {
    std::fs::canonicalize(path).map_err(failed("resolve", path))
}

/// Opens a file for appending, mode 0600, making it (and syncing its folder) where there is none.
pub fn open_append(path: &Path) -> Result<File, FsError> {
    let existed = path.exists();
    let file = OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))?;
    if !existed {
        sync_parent(path).map_err(failed("sync the folder of", path))?;
    }
    Ok(file)
}

/// Appends `bytes` in one write and syncs the data; an error may leave a torn tail, which readers cut.
pub fn append_synced(file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    file.write_all(bytes).and_then(|()| file.sync_data()).map_err(failed("append to", path))
}

/// Copies a program with its contents and mode 0700, synced before it takes its name.
pub fn copy_program(from: &Path, to: &Path) -> Result<(), FsError> {
    let bytes = std::fs::read(from).map_err(failed("read", from))?;
    write_atomic_mode(to, &bytes, 0o700)
}

/// Bytes that root can still write on the file system of `path`.
pub fn free_bytes(path: &Path) -> Result<u64, FsError> {
    Ok(space(path)?.free_bytes)
}

/// The room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that root can still write.
    pub free_bytes: u64,
    /// The smallest unit in which room is given away.
    pub block_bytes: u64,
}

/// The room on the file system of `path`.
pub fn space(path: &Path) -> Result<Space, FsError> {
    let stat = statvfs(path).map_err(|e| failed("ask for the free space of", path)(e.into()))?;
    Ok(Space { free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize), block_bytes: stat.f_frsize })
}

/// Whether both are on the same file system; a path that is not there is on none.
pub fn same_file_system(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    matches!((device(one), device(other)), (Some(one), Some(other)) if one == other)
}

/// Whether nothing can be written at `path` because of how its file system is mounted.
pub fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Whether what is at `path` is gone after a reboot, since its file system is in memory. Elsewhere than on Linux it is
/// never known to be.
pub fn is_in_memory(path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        /// From the kernel's `magic.h`; root file systems that are made at boot are of the second kind.
        const KINDS: [u64; 2] = [0x0102_1994, 0x8584_58f6];
        rustix::fs::statfs(path)
            .is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| KINDS.contains(&kind)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        false
    }
}

/// Writes everything of the file system of `path` to the disk, whoever wrote it. Takes as long as the disk needs.
pub fn sync_file_system(path: &Path) -> Result<(), FsError> {
    let folder = File::open(path).map_err(failed("open", path))?;
    sync_all_of(&folder).map_err(failed("sync the file system of", path))
}

#[cfg(target_os = "linux")]
fn sync_all_of(folder: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(folder)?)
}

/// Elsewhere there is no call for one file system: the folder's own, then all of them.
#[cfg(not(target_os = "linux"))]
fn sync_all_of(folder: &File) -> io::Result<()> {
    folder.sync_all()?;
    rustix::fs::sync();
    Ok(())
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new-{}", std::process::id()))
}

fn write_new(fresh: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let _ = std::fs::remove_file(fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(fresh)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn finish(fresh: &Path, path: &Path, done: io::Result<()>) -> Result<(), FsError> {
    done.and_then(|()| sync_parent(path)).map_err(|e| {
        // What is left of the attempt is ours alone; the old file stands.
        let _ = std::fs::remove_file(fresh);
        failed("replace", path)(e)
    })
}

/// Syncs the folder that holds `path`, so that a rename or a new name survives a power cut.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests;
