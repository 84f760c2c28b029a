//! The watch of Linux: the kernel tells.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use tokio::io::unix::AsyncFd;

/// A watch on one or more folders.
#[derive(Debug)]
pub struct FolderWatch {
    fd: AsyncFd<OwnedFd>,
}

impl FolderWatch {
    /// Watches the folders for names made, moved in or removed, and for files closed after writing.
    pub fn new(folders: &[&Path]) -> io::Result<Self> {
        let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ONLYDIR;
        for folder in folders {
            add_watch(&fd, *folder, what)?;
        }
        // `register` asks, in an unsafe block, that the descriptor stays the same open one: an `OwnedFd` that is
        // moved in and never handed out is just that, and this workspace has no unsafe code.
        #[expect(
            deprecated,
            reason = "its replacement is unsafe; what it must be promised holds for an OwnedFd"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd })
    }

    /// Waits until something changed, and forgets all events up to now. Cancel-safe: an event not taken stays.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut ready = self.fd.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.fd.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(_) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(e) => return Err(e.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}
