//! `attempt`, in the test build only: one effect of the reducer by hand, so that a test on a real host sees it alone.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use nixfleet_agent::activation::ActivationBackend;
use nixfleet_agent::programs::Holder;
use nixfleet_agent::{hooks, probes, reboot};
use nixfleet_core::host::effect::ProbeOrder;
use nixfleet_core::host::probing::{BuiltIn, WatchId};
use nixfleet_core::model::probe::ProbeSpec;
use nixfleet_core::model::schedule::Hook;
use nixfleet_core::model::time::Secs;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::channel;

use super::{USAGE, activate::ready, ui};

#[derive(Debug, Subcommand)]
pub(crate) enum Attempt {
    /// Run probes (a JSON list) and the built-in one until it is killed; each report is a line of JSON
    Probes { specs: String },
    /// Run hooks (a JSON list)
    Hooks { hooks: String },
    /// Restart the host
    Reboot { warn_secs: u32 },
    /// List what only a reboot brings
    RebootNeeded,
}

pub(crate) async fn attempt<B: ActivationBackend + Send + 'static>(
    state: &Path,
    attempt: Attempt,
) -> ExitCode {
    let backend: B = match ready(state) {
        Ok(backend) => backend,
        Err(refusal) => return refusal.tell(),
    };
    match attempt {
        Attempt::Probes { specs } => run_probes(backend, read(&specs)).await,
        Attempt::Hooks { hooks } => {
            ended(hooks::run(&Holder::of(&backend), &read::<Vec<Hook>>(&hooks)).await)
        }
        Attempt::Reboot { warn_secs } => match backend.tools() {
            Ok(tools) => ended(reboot::order(tools, Secs(warn_secs)).await),
            Err(missing) => ui::refuse(1, &missing.to_string(), None),
        },
        Attempt::RebootNeeded => {
            for part in reboot::needed(backend.host()) {
                ui::data(&part.to_string());
            }
            ExitCode::SUCCESS
        }
    }
}

fn read<T: DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).expect("a test writes what it means")
}

fn ended<E: std::fmt::Display>(ended: Result<(), E>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => ui::refuse(1, &why.to_string(), None),
    }
}

async fn run_probes<B: ActivationBackend + Send + 'static>(backend: B, declared: Vec<ProbeSpec>) -> ExitCode {
    let Some(units) = backend.units().await else { return ui::refuse(USAGE, "no units", None) };
    let baseline = probes::Baseline { units, since: probes::units::Since::Switch };
    let order = ProbeOrder { watch: WatchId(1), declared, built_in: vec![BuiltIn::Units] };
    let (said, mut heard) = channel(1);
    let _running = probes::start(&Arc::new(backend), order, &baseline, &said);
    while let Some(report) = heard.recv().await {
        ui::data(&serde_json::to_string(&report).expect("a report is JSON"));
    }
    ExitCode::SUCCESS
}
