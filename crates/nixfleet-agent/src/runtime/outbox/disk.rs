//! The four things that an outbox does to its file, so that a test can cut the power within each.

use std::path::Path;

use nixfleet_sys::fs::{self, FsError};

use crate::{failpoint, framed};

/// Far above what an outbox grows to: anything larger is not ours.
const BYTES_MAX: u64 = 256 << 20;

/// Where the file is. Each call returns when what it did is on the disk.
pub trait Disk {
    /// The bytes of the file; none if there is no file.
    fn read(&self, path: &Path) -> Result<Vec<u8>, FsError>;
    /// Appends; after an error any part of the bytes may be there.
    fn append(&mut self, path: &Path, bytes: &[u8]) -> Result<(), FsError>;
    /// Cuts the file to this length, making it where there is none.
    fn cut(&mut self, path: &Path, bytes: u64) -> Result<(), FsError>;
    /// Replaces the file; after an error it is the old one or the new one, whole.
    fn replace(&mut self, path: &Path, bytes: &[u8]) -> Result<(), FsError>;
}

/// A real one. The file is opened for each call, so that nothing is ever written to one that was replaced; a sync costs
/// a hundred times as much.
#[derive(Debug, Clone, Copy)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path) -> Result<Vec<u8>, FsError> {
        match fs::read_bounded(path, BYTES_MAX) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            read => read,
        }
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) -> Result<(), FsError> {
        failpoint::hit("before-outbox-append");
        fs::append_synced(&mut fs::open_append(path)?, path, bytes)?;
        failpoint::hit("after-outbox-append");
        Ok(())
    }

    fn cut(&mut self, path: &Path, bytes: u64) -> Result<(), FsError> {
        failpoint::hit("before-outbox-cut");
        framed::cut(&fs::open_append(path)?, path, bytes)?;
        failpoint::hit("after-outbox-cut");
        Ok(())
    }

    fn replace(&mut self, path: &Path, bytes: &[u8]) -> Result<(), FsError> {
        failpoint::hit("before-outbox-replace");
        fs::write_atomic(path, bytes)?;
        failpoint::hit("after-outbox-replace");
        Ok(())
    }
}
