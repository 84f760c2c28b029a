//! Runs the hooks before and after a reboot, one row at a time.

use nixfleet_core::host::Event;
use nixfleet_core::host::event::HookRun;
use nixfleet_core::model::schedule::Hook;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::hooks;
use crate::programs::Holder;
use crate::runtime::input::Input;

/// The row that runs.
#[derive(Debug)]
pub struct Hooks {
    holder: Holder,
    inputs: mpsc::Sender<Input>,
    running: Option<AbortHandle>,
}

impl Hooks {
    /// None runs yet.
    pub fn new(holder: Holder, inputs: mpsc::Sender<Input>) -> Self {
        Self { holder, inputs, running: None }
    }

    /// Runs these, in place of any that run: those are of a run that nobody waits for any more.
    pub fn run(&mut self, run: HookRun, row: Vec<Hook>) {
        if let Some(before) = self.running.take() {
            before.abort();
        }
        let (holder, inputs) = (self.holder.clone(), self.inputs.clone());
        let running = tokio::spawn(async move {
            let told = match hooks::run(&holder, &row).await {
                Ok(()) => Event::HooksRan { run },
                Err(fault) => Event::HookFailed { run, why: fault.to_string() },
            };
            // Closed: the reducer is gone.
            let _ = inputs.send(Input::Told(told)).await;
        });
        self.running = Some(running.abort_handle());
    }
}
