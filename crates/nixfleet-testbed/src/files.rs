//! Files of a host, read and written from outside, with links resolved as the host would resolve them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2, readlinkat, statat};

/// The root folder of a host (or of its disk, while it is down).
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

/// What a name in a folder of a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing there.
    Absent,
    /// A link, and where it points.
    Link(PathBuf),
    /// A folder.
    Folder,
    /// Anything else.
    File,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))?;
        Ok(Self(root))
    }

    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let mut file = File::from(self.open_in(path, OFlags::RDONLY, Mode::empty())?);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(|| format!("read {}", path.display()))?;
        Ok(bytes)
    }

    /// Replaces the contents of a file, made with its folders if it is not there.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.make_folders(path.parent().unwrap_or(Path::new("/")))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = File::from(self.open_in(path, flags, Mode::from_raw_mode(0o644))?);
        file.write_all(bytes).with_context(|| format!("write {}", path.display()))
    }

    pub(crate) fn entry(&self, path: &Path) -> Result<Entry> {
        let Ok((folder, name)) = self.parent(path) else { return Ok(Entry::Absent) };
        let Ok(stat) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(Entry::Absent) };
        Ok(match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::Symlink => {
                let target = readlinkat(&folder, name, Vec::new()).context("read a link")?;
                Entry::Link(OsStr::from_bytes(target.as_bytes()).into())
            }
            rustix::fs::FileType::Directory => Entry::Folder,
            _ => Entry::File,
        })
    }

    /// Whether the name leads to something, through links.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.open_in(path, OFlags::PATH, Mode::empty()).is_ok()
    }

    fn open_in(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, ResolveFlags::IN_ROOT)
            .with_context(|| format!("open {} of the host", path.display()))
    }

    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().context("a path without a last name")?;
        Ok((self.open_in(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?, name))
    }

    fn make_folders(&self, folder: &Path) -> Result<()> {
        if self.exists(folder) {
            return Ok(());
        }
        self.make_folders(folder.parent().context("no root folder")?)?;
        let (parent, name) = self.parent(folder)?;
        mkdirat(&parent, name, Mode::from_raw_mode(0o755))
            .with_context(|| format!("make {}", folder.display()))
    }
}

/// Writes a file of the machine with this mode.
pub(crate) fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode);
    let file =
        rustix::fs::openat(CWD, path, flags, mode).with_context(|| format!("open {}", path.display()))?;
    rustix::fs::fchmod(&file, mode).with_context(|| format!("set the mode of {}", path.display()))?;
    File::from(file).write_all(bytes).with_context(|| format!("write {}", path.display()))
}
