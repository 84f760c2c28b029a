//! The folder of one running host, and who owns it.
//!
//! `run/<pid>-<n>-<name>` below [`crate::cache_dir`] holds the host's disk. Its owner holds a lock on the file
//! `owner` in it; when that lock is free the owner is dead and the folder may be swept.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::image::cache_dir;

/// What the names of our cgroups begin with; a sweep looks for it.
pub(crate) const CGROUP_PREFIX: &str = "nixfleet-testbed-";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A folder of this process, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct RunDir {
    pub(crate) path: PathBuf,
    /// Unique on this machine while the process lives; also the name of the cgroup.
    pub(crate) id: String,
    _owner: File,
}

impl RunDir {
    pub(crate) fn new(name: &str) -> Result<Self> {
        check_name(name)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}-{name}", std::process::id());
        let path = run_root().join(&id);
        // Held while the folder exists without an owner, so that a sweep does not take it for an orphan.
        let _making = lock(&run_root().join(".making"), FlockOperation::LockExclusive)?;
        // A process of the same number before the last sweep may have left one.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        let owner = lock(&path.join("owner"), FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, id, _owner: owner })
    }

    /// The cgroup that all processes of the host are in, below the top.
    pub(crate) fn cgroup(&self) -> String {
        format!("{CGROUP_PREFIX}{}", self.id)
    }
}

/// Where the folders of all running hosts are.
pub(crate) fn run_root() -> PathBuf {
    cache_dir().join("run")
}

/// Opens (and makes, with its folder) a file and locks it; the lock lives as long as the file.
pub(crate) fn lock(path: &Path, operation: FlockOperation) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    flock(&file, operation).with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// Host names go into paths, cgroups and host names: only what all of them take.
fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 32 || !name.chars().all(fine) || name.starts_with('-') {
        bail!("`{name}` is no host name: 1 to 32 of a-z, 0-9 and -");
    }
    Ok(())
}
