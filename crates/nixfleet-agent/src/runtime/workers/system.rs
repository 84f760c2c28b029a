//! Watches for what somebody else does to the host: a person's switch or rollback, the deadman, a reboot's links.
//!
//! It only says "look again", or that something is unfinished: the reducer looks when it takes that in, so what it sees is not older than what it was told
//! before. Woken by the link's folder and by the activation journal's; a slow poll is the net under both, less slow while an
//! activation is not over, since an agent that dies in the middle of it writes no line and wakes nobody.

use std::path::Path;
use std::time::Duration;

use nixfleet_sys::timer::{sleep_until, timeout_at};
use nixfleet_sys::watch::FolderWatch;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::activation::host::HostPaths;
use crate::activation::unfinished::Unfinished;
use crate::runtime::input::Input;
use crate::runtime::net::Net;

/// How long whoever died in the middle of an activation may go unnoticed.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A living activation writes lines in quick succession; looking once after them is enough.
const SETTLE: Duration = Duration::from_secs(1);

/// Watches for as long as the reducer lives.
pub async fn watch(host: HostPaths, inputs: mpsc::Sender<Input>, net: Net) {
    let mut watch = begin(&host);
    let mut unfinished = Unfinished::new(host.clone());
    loop {
        let soon = Instant::now() + LOOK_EVERY;
        let (seen, until) =
            if unfinished.is_there() { (Input::TidyUp, soon) } else { (Input::LookAgain, net.next()) };
        // Closed: the reducer is gone.
        if inputs.send(seen).await.is_err() {
            return;
        }
        if let Some(folders) = &mut watch {
            match timeout_at(until, folders.changed()).await {
                Ok(Ok(())) => sleep(SETTLE).await,
                Ok(Err(_)) => watch = None,
                Err(_) => {}
            }
        } else {
            sleep_until(soon).await;
            watch = begin(&host);
        }
    }
}

fn begin(host: &HostPaths) -> Option<FolderWatch> {
    let links = host.current_system.parent().unwrap_or(Path::new("/"));
    FolderWatch::new(&[links, &host.state]).ok()
}
