//! Watches for what somebody else does to the host: a person's switch or rollback, the deadman, a reboot's links.
//!
//! It only says "look again": the reducer looks when it takes that in, so what it sees is not older than what it was told
//! before. Woken by the link's folder and by the activation journal's; a slow poll is the net under both.

use std::path::Path;
use std::time::Duration;

use nixfleet_sys::watch::FolderWatch;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::activation::host::HostPaths;
use crate::runtime::input::Input;

/// The net under the watch: an agent that died without writing a line wakes nobody.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A living activation writes lines in quick succession; looking once after them is enough.
const SETTLE: Duration = Duration::from_secs(1);

/// Watches for as long as the reducer lives.
pub async fn watch(host: HostPaths, inputs: mpsc::Sender<Input>) {
    let mut watch = begin(&host);
    // Closed: the reducer is gone.
    while inputs.send(Input::LookAgain).await.is_ok() {
        if let Some(folders) = &mut watch {
            if let Ok(Err(_)) = timeout(LOOK_EVERY, folders.changed()).await {
                watch = None;
            }
            sleep(SETTLE).await;
        } else {
            sleep(LOOK_EVERY).await;
            watch = begin(&host);
        }
    }
}

fn begin(host: &HostPaths) -> Option<FolderWatch> {
    let links = host.current_system.parent().unwrap_or(Path::new("/"));
    FolderWatch::new(&[links, &host.state]).ok()
}
