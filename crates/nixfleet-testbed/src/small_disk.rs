//! A file system of its own, small enough to be filled in no time: for a server whose disk is to be full.
//!
//! It is mounted in a mount namespace that a process of ours holds, so nothing of it is left on the machine, however the test ends.
//! Whoever is to see it is started in that namespace.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::run_dir::RunDir;
use crate::spawn::{self, Running};
use crate::wait::wait_until;

/// A generous limit for a mount.
const LIMIT: Duration = Duration::from_mins(1);

/// Mounts and stays. Arguments: where, and the size in MiB.
const HOLD: &str =
    r#"mount -t tmpfs -o "size=$2m,mode=0700" tmpfs "$1" && echo mounted && exec sleep infinity"#;

/// The file system; it is gone with this.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Running,
    folder: RunDir,
}

impl SmallDisk {
    /// One of so many MiB.
    pub fn of_mib(mib: u32) -> Result<Self> {
        let folder = RunDir::new("disk")?;
        let at = folder.path.join("disk");
        fs::create_dir_all(&at).context("make the place of the disk")?;
        let size = mib.to_string();
        let unshared = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation", "private"];
        let mut argv: Vec<&OsStr> = unshared.iter().map(OsStr::new).collect();
        argv.extend(["bash", "-c", HOLD, "bash"].map(OsStr::new));
        argv.extend([at.as_os_str(), OsStr::new(&size)]);
        let disk = Self { holder: spawn::start(&argv)?, folder };
        let mounted = wait_until("the disk to be mounted", LIMIT, || {
            disk.holder.stdout_so_far().contains("mounted").then_some(())
        });
        mounted.with_context(|| disk.holder.stderr_so_far())?;
        Ok(disk)
    }

    /// Where it is, for whoever is in [`SmallDisk::namespace`].
    pub fn at(&self) -> PathBuf {
        self.folder.path.join("disk")
    }

    /// The mount namespace in which it is: `nsenter --mount=<this> program`.
    pub fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/mnt", self.holder.pid()).into()
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<()> {
        fill(&self.filler()?)
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.filler()?).context("remove the filler")
    }

    fn filler(&self) -> Result<PathBuf> {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        let at = self.at().join("filler");
        Ok(root.join(at.strip_prefix("/").context("not an absolute path")?))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.holder.kill();
        let _ = fs::remove_dir_all(&self.folder.path);
    }
}

/// Makes a file that takes all the room there is.
pub(crate) fn fill(filler: &Path) -> Result<()> {
    let mut file = File::create(filler).context("make the filler")?;
    for size in [1 << 20, 64 << 10, 4 << 10, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    Ok(())
}
