//! Runs the probes of one watch, and tells the reducer what they find.

use std::sync::Arc;

use nixfleet_core::activation::outcome::Verdict;
use nixfleet_core::activation::record::Activation;
use nixfleet_core::host::Event;
use nixfleet_core::host::effect::ProbeOrder;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::activation::ActivationBackend;
use crate::activation::deadman::{PATIENCE_BOOTING, boot_is_over};
use crate::activation::host::HostPaths;
use crate::activation::journal::history;
use crate::probes::units::Since;
use crate::probes::{self, Baseline};
use crate::runtime::input::Input;

/// How many reports may wait. The probes wait for room, so that what is taken next is the newest there is.
const REPORTS_MAX: usize = 4;

/// The watch that runs.
#[derive(Debug)]
pub struct Probes<B> {
    backend: Arc<B>,
    inputs: mpsc::Sender<Input>,
    running: Option<AbortHandle>,
}

impl<B: ActivationBackend + Send + 'static> Probes<B> {
    /// None runs yet.
    pub fn new(backend: Arc<B>, inputs: mpsc::Sender<Input>) -> Self {
        Self { backend, inputs, running: None }
    }

    /// Runs these, in place of any that run.
    pub fn start(&mut self, order: ProbeOrder) {
        self.stop();
        let (backend, inputs) = (Arc::clone(&self.backend), self.inputs.clone());
        let watch = tokio::spawn(async move {
            // A boot starts us beside the services that are asked, and none of them is to blame for coming up after us.
            boot_is_over(&*backend, PATIENCE_BOOTING).await;
            let baseline = baseline(&*backend).await;
            let (said, mut reports) = mpsc::channel(REPORTS_MAX);
            // Ends with this task, and the programs with it.
            let _running = probes::start(&backend, order, &baseline, &said);
            while let Some(report) = reports.recv().await {
                // Closed: the reducer is gone.
                if inputs.send(Input::Told(Event::ProbeReported(report))).await.is_err() {
                    return;
                }
            }
        });
        self.running = Some(watch.abort_handle());
    }

    /// Ends those that run.
    pub fn stop(&mut self) {
        if let Some(watch) = self.running.take() {
            watch.abort();
        }
    }
}

/// What the units are compared with: as they were before the switch that brought what runs. Where no switch of ours did,
/// as they are now.
async fn baseline<B: ActivationBackend>(backend: &B) -> Baseline {
    let host = backend.host();
    let since = if host.booted() == host.current() { Since::Boot } else { Since::Switch };
    match brought(host).and_then(|activation| activation.units_before) {
        Some(units) => Baseline { units, since },
        None => Baseline { units: backend.units().await.unwrap_or_default(), since },
    }
}

/// The activation that brought what runs.
fn brought(host: &HostPaths) -> Option<Activation> {
    let current = host.current()?;
    // A journal that cannot be read stops activations; here it only means that there is nothing to compare with.
    let known = history(&host.journal()).ok()?;
    let live = |activation: &Activation| match &activation.outcome {
        None => true,
        Some(outcome) => match &outcome.verdict {
            Verdict::Converged | Verdict::LiveWithFailedUnits { .. } => true,
            Verdict::OnTrial { .. }
            | Verdict::DeferredPendingReboot { .. }
            | Verdict::SignatureMismatch { .. }
            | Verdict::Failed { .. }
            | Verdict::Reverted { .. }
            | Verdict::RevertFailed { .. } => false,
        },
    };
    known.into_iter().rfind(|activation| activation.began.target == current && live(activation))
}
