//! `run`: the agent as a service. It takes up what was cut off, finishes after a reboot, and otherwise sleeps.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nixfleet_agent::activation::recovery;
use nixfleet_agent::activation::types::{Failure, Observer};
use nixfleet_core::activation::outcome::Step;
use nixfleet_sys::watch::FolderWatch;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::{activate::ready, ui};
use nixfleet_agent::activation::ActivationBackend;
use nixfleet_agent::tools::progress::Progress;

/// The net under the folder watch: an agent that died without writing a line wakes nobody.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A living activation writes lines in quick succession; looking once after them is enough.
const SETTLE: Duration = Duration::from_secs(1);

/// Tells systemd's journal, one line each.
struct Journalled;

impl Observer for Journalled {
    fn step(&self, step: Step) {
        ui::say(&format!("step: {step}"));
    }
    fn fetched(&self, _progress: Progress) {}
    fn remark(&self, text: &str) {
        ui::say(text);
    }
}

pub(crate) async fn run<B: ActivationBackend>(state: &Path) -> ExitCode {
    let backend: B = match ready(state) {
        Ok(backend) => backend,
        Err(code) => return code,
    };
    let observer: Arc<dyn Observer> = Arc::new(Journalled);
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return ui::refuse(1, "cannot listen for signals", None);
    };
    // Without systemd around us there is nobody to notify.
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status("watching")]);
    let mut watch = nixfleet_sys::fs::make_dir(&backend.host().state)
        .ok()
        .and_then(|()| FolderWatch::new(&[&backend.host().state]).ok());
    let mut first = true;
    loop {
        let needed = std::mem::take(&mut first) || recovery::is_needed(&backend);
        tokio::select! {
            // Cut off anywhere, the journal says where to go on; the switch itself is not ours to end.
            () = look(&backend, &observer), if needed => {}
            () = std::future::ready(()), if !needed => {}
            _ = term.recv() => return ExitCode::SUCCESS,
            _ = int.recv() => return ExitCode::SUCCESS,
        }
        tokio::select! {
            // A lost wake-up is only a later round.
            () = changed(&mut watch) => {}
            _ = term.recv() => return ExitCode::SUCCESS,
            _ = int.recv() => return ExitCode::SUCCESS,
        }
    }
}

async fn look(backend: &impl ActivationBackend, observer: &Arc<dyn Observer>) {
    match recovery::recover(backend, observer).await {
        Ok(Some(outcome)) => ui::say(&format!("{}: {}", outcome.verdict, outcome.target)),
        Ok(None) | Err(Failure::Busy { .. }) => {}
        Err(failure) => ui::say(&format!("error: {failure}")),
    }
}

async fn changed(watch: &mut Option<FolderWatch>) {
    match watch {
        Some(folders) => {
            if let Ok(Err(_)) = timeout(LOOK_EVERY, folders.changed()).await {
                *watch = None;
            }
            sleep(SETTLE).await;
        }
        None => sleep(LOOK_EVERY).await,
    }
}
