//! Restarts the host, and tells the reducer if it may not.

use nixfleet_core::host::Event;
use nixfleet_core::model::time::Secs;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::reboot;
use crate::runtime::input::Input;
use crate::tools::Tools;

/// The restart that is under way.
#[derive(Debug)]
pub struct Reboot {
    tools: Tools,
    inputs: mpsc::Sender<Input>,
    running: Option<AbortHandle>,
}

impl Reboot {
    /// None is under way yet.
    pub fn new(tools: Tools, inputs: mpsc::Sender<Input>) -> Self {
        Self { tools, inputs, running: None }
    }

    /// Orders it, in place of one that is under way: logind knows of one time at most, and takes the newer.
    pub fn order(&mut self, warn: Secs) {
        if let Some(before) = self.running.take() {
            before.abort();
        }
        let (tools, inputs) = (self.tools.clone(), self.inputs.clone());
        let running = tokio::spawn(async move {
            if let Err(refused) = reboot::order(&tools, warn).await {
                let told = Event::RebootRefused { why: refused.to_string() };
                // Closed: the reducer is gone.
                let _ = inputs.send(Input::Told(told)).await;
            }
        });
        self.running = Some(running.abort_handle());
    }
}
