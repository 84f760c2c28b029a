//! The verbs that change the host. Everything that can be refused is refused before anything is touched.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use nixfleet_agent::activation::rollback::rollback_target;
use nixfleet_agent::activation::types::{ActivationOutcome, ActivationTarget, BusyWith, Failure, Observer};
use nixfleet_agent::activation::{ActivationBackend, activate_with, recovery};
use nixfleet_agent::probes;
use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::inhibit::InhibitPolicy;
use nixfleet_core::activation::record::{ConfirmBy, OnFailedUnits, Probe, Unsigned};
use nixfleet_core::ids::ActivationId;
use nixfleet_core::model::probe::Redirects;
use nixfleet_sys::clock;
use nixfleet_sys::text::chain;

use super::watch::Watcher;
use super::{ActivateArgs, USAGE, dry_run, ui};

/// A host that can be activated at all: root, what its platform needs, and Nix.
pub(crate) fn ready<B: ActivationBackend>(state: &Path) -> Result<B, ExitCode> {
    if !rustix::process::geteuid().is_root() {
        return Err(ui::refuse(1, "activating a system needs root", Some("run it with sudo")));
    }
    let backend = B::with_state(state);
    if let Some(why) = backend.unusable() {
        return Err(ui::refuse(1, &why, None));
    }
    if let Err(missing) = backend.tools() {
        return Err(ui::refuse(1, &missing.to_string(), Some(&missing.hint())));
    }
    Ok(backend)
}

fn fresh_id() -> ActivationId {
    ActivationId::new(clock::unix_ms(), std::process::id())
}

pub(crate) async fn activate<B: ActivationBackend>(state: &Path, args: ActivateArgs) -> ExitCode {
    let watcher = Arc::new(Watcher::new());
    let as_json = args.json.json;
    let dry = args.dry_run;
    let target = match target(args, watcher.clone()) {
        Ok(target) => target,
        Err(why) => {
            watcher.end();
            return ui::refuse(USAGE, &why, None);
        }
    };
    let backend: B = match ready(state) {
        Ok(backend) => backend,
        Err(code) => {
            watcher.end();
            return code;
        }
    };
    if dry {
        watcher.end();
        return dry_run::dry_run(&backend, &target, as_json).await;
    }
    let ended = activate_with(&backend, &target).await;
    watcher.end();
    done(ended.map(Some), as_json, "")
}

fn target(args: ActivateArgs, observer: Arc<dyn Observer>) -> Result<ActivationTarget, String> {
    let system = args.path.parse().map_err(|error: nixfleet_core::ids::NotAStorePath| error.to_string())?;
    let mut target = ActivationTarget::new(fresh_id(), system);
    target.probes = probes(&args)?;
    let digest = args.digest.map(|digest| digest.parse()).transpose();
    target.digest = digest.map_err(|error: nixfleet_core::ids::NotAClosureDigest| error.to_string())?;
    if args.confirm_within.as_secs() == 0 {
        return Err("--confirm-within must be a second at least".to_owned());
    }
    if args.observe_for >= args.confirm_within {
        return Err("--observe-for must be shorter than --confirm-within".to_owned());
    }
    (target.confirm_within, target.observe, target.stall) =
        (args.confirm_within, args.observe_for, args.stall);
    target.commit = if args.immediately { CommitPolicy::Immediately } else { CommitPolicy::AfterConfirm };
    target.confirm_by = if args.trial { ConfirmBy::Person } else { ConfirmBy::Probes };
    let keep = args.keep_failed_units || args.immediately;
    target.on_failed_units = if keep { OnFailedUnits::Keep } else { OnFailedUnits::Revert };
    target.unsigned = if args.allow_unsigned { Unsigned::Accept } else { Unsigned::Refuse };
    target.inhibit =
        if args.closure_inhibitors_only { InhibitPolicy::ClosureOnly } else { InhibitPolicy::BuiltIn };
    target.observer = observer;
    Ok(target)
}

/// The probes; what the switches for all of them say holds for each that it can mean something to.
fn probes(args: &ActivateArgs) -> Result<Vec<Probe>, String> {
    let ca_file = args.probe_ca_file.as_deref().map(ca_file).transpose()?;
    let redirects = if args.probe_follow_redirects { Redirects::Follow } else { Redirects::Refuse };
    let read: Result<Vec<_>, _> = args.probes.iter().map(|probe| probes::parse(probe)).collect();
    let read = read.map_err(|error| error.to_string())?;
    let is_https = |probe: &Probe| matches!(probe, Probe::Http { url, .. } if url.starts_with("https://"));
    if ca_file.is_some() && !read.iter().any(is_https) && redirects == Redirects::Refuse {
        return Err("--probe-ca-file does nothing: no --probe is an https:// address".to_owned());
    }
    let with_switches = |probe| match probe {
        Probe::Http { url, ca_file: _, redirects: _ } => {
            Probe::Http { url, ca_file: ca_file.clone(), redirects }
        }
        Probe::Tcp { .. } | Probe::Exec { .. } | Probe::Unit { .. } => probe,
    };
    Ok(read.into_iter().map(with_switches).collect())
}

/// The file under its whole name: whoever asks later does so from another folder.
fn ca_file(path: &Path) -> Result<String, String> {
    let refused = |why: &str| format!("--probe-ca-file `{}`: {why}", path.display());
    let whole = nixfleet_sys::fs::resolve(path).map_err(|error| refused(&chain(&error)))?;
    whole.into_os_string().into_string().map_err(|_| refused("its name is not UTF-8"))
}

pub(crate) async fn confirm<B: ActivationBackend>(state: &Path, as_json: bool) -> ExitCode {
    with_watcher(state, as_json, "nothing is on trial", async |backend: &B, observer| {
        recovery::confirm_by_hand(backend, observer).await.map_err(|failure| anyhow_of(&failure))
    })
    .await
}

pub(crate) async fn recover<B: ActivationBackend>(state: &Path, as_json: bool) -> ExitCode {
    with_watcher(state, as_json, "there is nothing to take up", async |backend: &B, observer| {
        recovery::recover(backend, observer).await.map_err(|failure| anyhow_of(&failure))
    })
    .await
}

/// A trial is reverted; otherwise the system that ran before the newest activation comes back.
pub(crate) async fn rollback<B: ActivationBackend>(state: &Path, as_json: bool) -> ExitCode {
    with_watcher(state, as_json, "there is nothing to go back to", async |backend: &B, observer| {
        if let Some(outcome) =
            recovery::revert_trial(backend, observer).await.map_err(|failure| anyhow_of(&failure))?
        {
            return Ok(Some(outcome));
        }
        let mut target = rollback_target(backend, fresh_id())?;
        target.observer = observer.clone();
        activate_with(backend, &target).await.map(Some)
    })
    .await
}

fn anyhow_of(failure: &Failure) -> anyhow::Error {
    anyhow::anyhow!("{failure}")
}

async fn with_watcher<B: ActivationBackend>(
    state: &Path,
    as_json: bool,
    nothing: &str,
    act: impl AsyncFn(&B, &Arc<dyn Observer>) -> anyhow::Result<Option<ActivationOutcome>>,
) -> ExitCode {
    let backend: B = match ready(state) {
        Ok(backend) => backend,
        Err(code) => return code,
    };
    let watcher = Arc::new(Watcher::new());
    let observer: Arc<dyn Observer> = watcher.clone();
    let ended = act(&backend, &observer).await;
    watcher.end();
    done(ended, as_json, nothing)
}

fn done(ended: anyhow::Result<Option<ActivationOutcome>>, as_json: bool, nothing: &str) -> ExitCode {
    match ended {
        Ok(Some(outcome)) => ui::outcome(&outcome, as_json),
        Ok(None) => {
            ui::say(nothing);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let busy = Failure::Busy { with: BusyWith::Activation }.to_string();
            let why = format!("{error:#}");
            let hint = why.contains(&busy).then_some("wait until it is over, or see `nixfleet-agent status`");
            ui::refuse(1, &why, hint)
        }
    }
}
