//! The verbs that change the host. Everything that can be refused is refused before anything is touched.

use std::path::Path;
use std::sync::Arc;

use nixfleet_agent::activation::journal::history;
use nixfleet_agent::activation::recovery::ByHand;
use nixfleet_agent::activation::rollback::{NoWayBack, rollback_target};
use nixfleet_agent::activation::types::{ActivationOutcome, ActivationTarget, Failure, Observer};
use nixfleet_agent::activation::{ActivationBackend, activate_with, recovery};
use nixfleet_agent::probes;
use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::activation::inhibit::InhibitPolicy;
use nixfleet_core::activation::record::{ConfirmBy, OnFailedUnits, Probe, Unsigned};
use nixfleet_core::ids::ActivationId;
use nixfleet_core::model::probe::Redirects;
use nixfleet_sys::clock;
use nixfleet_sys::text::chain;

use super::refusal::{Done, Kind, Refusal};
use super::watch::Watcher;
use super::{ActivateArgs, dry_run, ui};

/// A host that can be activated at all: root, what its platform needs, and Nix.
pub(crate) fn ready<B: ActivationBackend>(state: &Path) -> Result<B, Refusal> {
    if !rustix::process::geteuid().is_root() {
        let why = "this needs root: it decides what this host runs";
        return Err(Refusal::new(Kind::NeedsRoot, why).hint("run it with sudo"));
    }
    let backend = B::with_state(state);
    if let Some(why) = backend.unusable() {
        let hint = "run it on the host itself: nothing can be switched in a chroot, or in a container without a service manager of its own";
        return Err(Refusal::new(Kind::NoServiceManager, why).hint(hint));
    }
    match backend.tools() {
        Ok(_) => Ok(backend),
        Err(missing) => Err((&missing).into()),
    }
}

/// [`ready`], and what is done can be written down.
fn able<B: ActivationBackend>(state: &Path) -> Result<B, Refusal> {
    let backend: B = ready(state)?;
    if backend.host().is_read_only() {
        let why = format!("{} is on a file system that is mounted read-only", state.display());
        return Err(Refusal::new(Kind::State, why)
            .hint("mount it for writing: nothing is switched that cannot be written down"));
    }
    Ok(backend)
}

fn fresh_id() -> ActivationId {
    ActivationId::new(clock::unix_ms(), std::process::id())
}

pub(crate) async fn activate<B: ActivationBackend>(state: &Path, args: ActivateArgs) -> Done {
    let (as_json, dry) = (args.json.json, args.dry_run);
    let mut target = target(args).map_err(Refusal::usage)?;
    if dry {
        return dry_run::dry_run(&ready::<B>(state)?, &target, as_json).await;
    }
    let backend: B = able(state)?;
    let watcher = Arc::new(Watcher::new());
    target.observer = watcher.clone();
    let ended = activate_with(&backend, &target).await;
    watcher.end();
    let outcome = ended.map_err(|error| Refusal::of_activation(&error))?;
    Ok(ui::outcome(&outcome, as_json))
}

fn target(args: ActivateArgs) -> Result<ActivationTarget, String> {
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

/// What a verb has to say in the end.
enum Said {
    /// How it ended.
    Outcome(Box<ActivationOutcome>),
    /// Not confirmed, for that reason: the trial goes on.
    StillOnTrial(Box<ActivationOutcome>, Failure),
    /// Nothing is to be done, and that is well: as `--json` calls it, and for a person.
    Well(&'static str, &'static str),
    /// What was asked for cannot be: as `--json` calls it, and for a person.
    Nothing(&'static str, String),
}

impl Said {
    fn outcome(outcome: ActivationOutcome) -> Self {
        Self::Outcome(Box::new(outcome))
    }
}

pub(crate) async fn confirm<B: ActivationBackend>(state: &Path, as_json: bool) -> Done {
    with_watcher(state, as_json, async |backend: &B, observer| {
        Ok(match recovery::confirm_by_hand(backend, observer).await? {
            ByHand::Over(outcome) => Said::Outcome(outcome),
            ByHand::NotYet { trial, failure } => Said::StillOnTrial(trial, failure),
            ByHand::NothingOnTrial => Said::Nothing("nothing-on-trial", "nothing is on trial".to_owned()),
        })
    })
    .await
}

pub(crate) async fn recover<B: ActivationBackend>(state: &Path, as_json: bool) -> Done {
    with_watcher(state, as_json, async |backend: &B, observer| {
        let taken_up = recovery::recover(backend, observer).await?;
        Ok(taken_up.map_or(Said::Well("nothing-pending", "there is nothing to take up"), Said::outcome))
    })
    .await
}

/// A trial is reverted; otherwise the system that ran before the newest activation comes back.
pub(crate) async fn rollback<B: ActivationBackend>(state: &Path, as_json: bool) -> Done {
    with_watcher(state, as_json, async |backend: &B, observer| {
        if let Some(outcome) = recovery::revert_trial(backend, observer).await? {
            return Ok(Said::outcome(outcome));
        }
        let mut target = match rollback_target(backend, fresh_id()) {
            Ok(target) => target,
            Err(why @ NoWayBack::NotKnown { .. }) => {
                return Ok(Said::Nothing("no-way-back", why.to_string()));
            }
            Err(why @ (NoWayBack::NothingRuns | NoWayBack::History(_))) => return Err(why.into()),
        };
        target.observer = observer.clone();
        let ended = activate_with(backend, &target).await;
        ended.map(Said::outcome).map_err(|error| Refusal::of_activation(&error))
    })
    .await
}

async fn with_watcher<B: ActivationBackend>(
    state: &Path,
    as_json: bool,
    act: impl AsyncFn(&B, &Arc<dyn Observer>) -> Result<Said, Refusal>,
) -> Done {
    let backend: B = able(state)?;
    let watcher = Arc::new(Watcher::new());
    let observer: Arc<dyn Observer> = watcher.clone();
    let ended = act(&backend, &observer).await;
    watcher.end();
    let last = || {
        let known = history(&backend.host().journal()).unwrap_or_default();
        known.into_iter().rev().find_map(|activation| activation.outcome)
    };
    Ok(match ended? {
        Said::Outcome(outcome) => ui::outcome(&outcome, as_json),
        Said::StillOnTrial(trial, failure) => ui::not_confirmed(&trial, &failure, as_json),
        Said::Well(verdict, why) => ui::well(verdict, why, last().as_ref(), as_json),
        Said::Nothing(verdict, why) => ui::nothing(verdict, &why, last().as_ref(), as_json),
    })
}
