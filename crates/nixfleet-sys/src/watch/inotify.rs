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
    /// There until it is dropped.
    fd: Option<AsyncFd<OwnedFd>>,
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
        Ok(Self { fd: Some(fd) })
    }

    /// Waits until something changed, and forgets all events up to now. Cancel-safe: an event not taken stays.
    pub async fn changed(&mut self) -> io::Result<()> {
        let Some(fd) = &self.fd else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut ready = fd.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(fd.get_ref(), &mut buffer);
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

impl Drop for FolderWatch {
    /// Nobody waits for the kernel to close it: that takes 10 to 20 ms (measured), since it waits until no processor can be
    /// telling it something.
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take().map(AsyncFd::into_inner) {
            // Without a thread it is closed here.
            let _ = std::thread::Builder::new().name("close-watch".to_owned()).spawn(move || drop(fd));
        }
    }
}
