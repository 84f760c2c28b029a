//! `activate --dry-run`: what would be fetched, which packages and units change, and whether a reboot is needed.
//!
//! Nothing is switched, rooted or written. A system that an activation would refuse is refused here, before its own switch
//! program is asked what it would do: that runs as root. Packages of a system that is not here yet are asked of the
//! substituters; its units are in files that are not here, so they are said to be unknown instead of guessed.

use std::process::ExitCode;
use std::time::Duration;

use nixfleet_agent::activation::ActivationBackend;
use nixfleet_agent::activation::host::system_text;
use nixfleet_agent::activation::pipeline::{is_a_system, refused};
use nixfleet_agent::activation::realise::{Signed, look, not_asked};
use nixfleet_agent::activation::types::{ActivationTarget, Failure};
use nixfleet_agent::tools::Tools;
use nixfleet_agent::tools::nix::Reach;
use nixfleet_agent::tools::nix_store::FetchPlan;
use nixfleet_core::activation::inhibit::{InhibitPolicy, Inhibitor, inhibitors, parse_inhibitors};
use nixfleet_core::activation::packages::{PackageChange, package_changes};
use nixfleet_core::activation::platform::Platform;
use nixfleet_core::ids::StorePath;
use nixfleet_sys::exec::{Cmd, Ended, Finished};
use nixfleet_sys::text::{chain, last_lines};
use serde::Serialize;

use super::refusal::{Done, Refusal};
use super::ui;

/// What `--dry-run --json` prints; version 1. Of a system that is refused it prints the outcome, as an activation does.
#[derive(Serialize)]
struct Plan {
    version: u32,
    target: StorePath,
    running: Option<StorePath>,
    present: bool,
    fetch_paths: usize,
    download_bytes: u64,
    unpacked_bytes: u64,
    packages: Vec<PackageChange>,
    rebuilt: usize,
    /// The switch program's own lines; `None` when they are not known.
    units: Option<Vec<String>>,
    /// Why they are not.
    units_unknown: Option<String>,
    /// What keeps it from being done live.
    inhibitors: Option<Vec<Inhibitor>>,
}

pub(crate) async fn dry_run<B: ActivationBackend>(
    backend: &B,
    target: &ActivationTarget,
    as_json: bool,
) -> Done {
    let tools = backend.tools().map_err(|missing| Refusal::from(&missing))?;
    Ok(match plan(backend, tools, target).await {
        Ok(plan) if as_json => {
            ui::json(&plan);
            ExitCode::SUCCESS
        }
        Ok(plan) => {
            print(&plan);
            ExitCode::SUCCESS
        }
        Err(failure) => ui::outcome(&refused(backend, target, failure), as_json),
    })
}

async fn plan<B: ActivationBackend>(
    backend: &B,
    tools: &Tools,
    target: &ActivationTarget,
) -> Result<Plan, Failure> {
    let (running, system) = (backend.host().current(), &target.system);
    let present = tools.is_valid(system).await.unwrap_or(false);
    let fetch = if present { FetchPlan::default() } else { fetch_plan(tools, target).await? };
    let units = if present {
        would(backend, system, vetted(backend, tools, target).await?).await
    } else {
        Err("the system is not fetched yet".to_owned())
    };
    let new = if present {
        tools.requisites(system).await.unwrap_or_default()
    } else {
        remote_closure(tools, system).await
    };
    let old = match &running {
        Some(running) => tools.requisites(running).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let (packages, rebuilt) = package_changes(&old, &new);
    let kept = running.as_ref().filter(|_| present);
    let kept = kept.map(|running| kept_from_live(backend, target.inhibit, (running, system)));
    let (units, units_unknown) = units.map_or_else(|why| (None, Some(why)), |units| (Some(units), None));
    Ok(Plan {
        version: 1,
        target: system.clone(),
        running,
        present,
        fetch_paths: fetch.paths.len(),
        download_bytes: fetch.download_bytes,
        unpacked_bytes: fetch.unpacked_bytes,
        packages,
        rebuilt,
        units,
        units_unknown,
        inhibitors: kept,
    })
}

async fn fetch_plan(tools: &Tools, target: &ActivationTarget) -> Result<FetchPlan, Failure> {
    let plan = tools.dry_run(&target.system, target.stall).await;
    let plan = plan.map_err(|error| not_asked("cannot find out what would be fetched", &error))?;
    if plan.unknown.contains(&target.system) {
        let asked = tools.nix_settings().await.unwrap_or_default().substituters;
        return Err(Failure::NotInCache { paths: vec![target.system.clone()], asked });
    }
    Ok(plan)
}

/// Refuses what an activation would refuse.
async fn vetted<B: ActivationBackend>(
    backend: &B,
    tools: &Tools,
    target: &ActivationTarget,
) -> Result<Signed, Failure> {
    let rules = (target.unsigned, target.digest.as_ref());
    let signed = look(tools, &target.system, rules, backend.architecture()).await?;
    is_a_system(backend, &target.system)?;
    Ok(signed)
}

async fn remote_closure(tools: &Tools, target: &StorePath) -> Vec<StorePath> {
    let settings = tools.nix_settings().await.unwrap_or_default();
    for substituter in &settings.substituters {
        let asked = tools.path_info(std::slice::from_ref(target), Reach::Closures, Some(substituter)).await;
        if let Ok(found) = asked
            && !found.known.is_empty()
        {
            return found.known.into_iter().map(|path| path.path).collect();
        }
    }
    Vec::new()
}

fn kept_from_live<B: ActivationBackend>(
    backend: &B,
    policy: InhibitPolicy,
    (running, target): (&StorePath, &StorePath),
) -> Vec<Inhibitor> {
    if !backend.platform().defers() {
        return Vec::new();
    }
    let parts = |system| backend.inhibiting_parts(system);
    let own = |system| parse_inhibitors(&system_text(system, "switch-inhibitors"));
    inhibitors(policy, (&parts(running), &parts(target)), (&own(running), &own(target)))
}

/// What the system's own switch program says that it would do, or why that is not known.
async fn would<B: ActivationBackend>(
    backend: &B,
    target: &StorePath,
    signed: Signed,
) -> Result<Vec<String>, String> {
    match (signed, backend.platform()) {
        (Signed::Elsewhere, _) => {
            Err("no trusted key has signed it here, only at a substituter; an activation takes that over"
                .to_owned())
        }
        (Signed::Here, Platform::NixDarwin) => {
            Err("the system's own switch program does not tell".to_owned())
        }
        (Signed::Here, Platform::NixOs) => {
            let cmd = Cmd::new(target.join("bin/switch-to-configuration"))
                .arg("dry-activate")
                .env("PATH", "/run/current-system/sw/bin:/usr/bin:/bin:/usr/sbin")
                .deadline(Duration::from_mins(1));
            units(&cmd.run().await.map_err(|error| chain(&error))?)
        }
    }
}

/// Its lines, if it came to its end: cut off by a lock or by a check of its own, it has named only some or none.
fn units(finished: &Finished) -> Result<Vec<String>, String> {
    let said = &finished.stderr_tail;
    if finished.ended != Ended::Exited(0) {
        let words = last_lines(said, 1).concat();
        return Err(format!("the system's own switch program ended with {}: {words}", finished.ended));
    }
    Ok(said.lines().filter(|line| line.starts_with("would ")).map(str::to_owned).collect())
}

fn print(plan: &Plan) {
    let mib = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20);
    if plan.present {
        ui::data("fetch     nothing: it is in the store");
    } else {
        let sizes =
            format!("{} to download, {} unpacked", mib(plan.download_bytes), mib(plan.unpacked_bytes));
        ui::data(&format!("fetch     {} paths, {sizes}", plan.fetch_paths));
    }
    for change in &plan.packages {
        ui::data(&format!("package   {change}"));
    }
    ui::data(&format!("rebuilt   {} packages with the same version", plan.rebuilt));
    match &plan.units {
        Some(units) => units.iter().for_each(|line| ui::data(&format!("units     {line}"))),
        None => {
            ui::data(&format!("units     unknown: {}", plan.units_unknown.as_deref().unwrap_or_default()));
        }
    }
    match plan.inhibitors.as_deref() {
        Some([]) => ui::data("reboot    not needed for the switch"),
        Some(found) => found.iter().for_each(|part| ui::data(&format!("reboot    needed: {part}"))),
        None => ui::data("reboot    unknown until the system is fetched"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ran(script: &str) -> Finished {
        Cmd::new("/bin/sh").args(["-c", script]).run().await.expect("it runs")
    }

    #[tokio::test]
    async fn a_switch_program_that_was_cut_off_is_not_read_as_no_units() {
        let done = ran("echo 'would stop the following units: a.service' >&2; echo else >&2").await;
        assert_eq!(units(&done), Ok(vec!["would stop the following units: a.service".to_owned()]));
        let locked =
            units(&ran("echo 'Could not acquire lock' >&2; exit 11").await).expect_err("it is not known");
        assert!(locked.contains("exit status 11") && locked.ends_with("Could not acquire lock"), "{locked}");
        let killed = units(&ran("echo 'would stop a' >&2; kill -9 $$").await).expect_err("it is not known");
        assert!(killed.contains("signal 9"), "{killed}");
    }
}
