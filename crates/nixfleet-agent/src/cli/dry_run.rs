//! `activate --dry-run`: what would be fetched, which packages and units change, and whether a reboot is needed.
//!
//! Nothing is switched, rooted or written. Packages of a system that is not here yet are asked of the substituters;
//! its units are in files that are not here, so they are said to be unknown instead of guessed.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nixfleet_agent::activation::ActivationBackend;
use nixfleet_agent::activation::host::system_text;
use nixfleet_agent::activation::types::ActivationTarget;
use nixfleet_agent::tools::Tools;
use nixfleet_agent::tools::nix::Reach;
use nixfleet_core::activation::inhibit::{InhibitPolicy, Inhibitor, inhibitors, parse_inhibitors};
use nixfleet_core::activation::packages::{PackageChange, package_changes};
use nixfleet_core::ids::StorePath;
use nixfleet_sys::exec::Cmd;
use serde::Serialize;

use super::ui;

/// What `--dry-run --json` prints; version 1.
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
    /// The switch program's own lines; `None` when the system is not here yet, or has no program that tells (Darwin).
    units: Option<Vec<String>>,
    /// What keeps it from being done live.
    inhibitors: Option<Vec<Inhibitor>>,
}

pub(crate) async fn dry_run<B: ActivationBackend>(
    backend: &B,
    target: &ActivationTarget,
    as_json: bool,
) -> ExitCode {
    let tools = match backend.tools() {
        Ok(tools) => tools,
        Err(missing) => return ui::refuse(1, &missing.to_string(), Some(&missing.hint())),
    };
    match plan(backend, tools, &target.system, target.stall).await {
        Ok(plan) if as_json => {
            ui::json(&plan);
            ExitCode::SUCCESS
        }
        Ok(plan) => {
            print(&plan);
            ExitCode::SUCCESS
        }
        Err(why) => ui::refuse(1, &why, Some("copy it to a substituter with `nix copy --to URL PATH`")),
    }
}

async fn plan<B: ActivationBackend>(
    backend: &B,
    tools: &Tools,
    target: &StorePath,
    within: Duration,
) -> Result<Plan, String> {
    let running = backend.host().current();
    let present = tools.is_valid(target).await.unwrap_or(false);
    let fetch = if present {
        nixfleet_agent::tools::nix_store::FetchPlan::default()
    } else {
        tools.dry_run(target, within).await.map_err(|error| error.to_string())?
    };
    if fetch.unknown.contains(target) {
        return Err(format!("no substituter has {target}"));
    }
    let new = if present {
        tools.requisites(target).await.unwrap_or_default()
    } else {
        remote_closure(tools, target).await
    };
    let old = match &running {
        Some(running) => tools.requisites(running).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let (packages, rebuilt) = package_changes(&old, &new);
    let units = if present { would(target).await } else { None };
    let kept = running.as_ref().filter(|_| present).map(|running| kept_from_live(backend, running, target));
    Ok(Plan {
        version: 1,
        target: target.clone(),
        running,
        present,
        fetch_paths: fetch.paths.len(),
        download_bytes: fetch.download_bytes,
        unpacked_bytes: fetch.unpacked_bytes,
        packages,
        rebuilt,
        units,
        inhibitors: kept,
    })
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
    running: &StorePath,
    target: &StorePath,
) -> Vec<Inhibitor> {
    if !backend.platform().defers() {
        return Vec::new();
    }
    let parts = |system| backend.inhibiting_parts(system);
    let own = |system| parse_inhibitors(&system_text(system, "switch-inhibitors"));
    inhibitors(InhibitPolicy::BuiltIn, (&parts(running), &parts(target)), (&own(running), &own(target)))
}

/// What the system's own switch program says that it would do.
async fn would(target: &StorePath) -> Option<Vec<String>> {
    let program = target.join("bin/switch-to-configuration");
    let cmd = Cmd::new(Path::new(&program))
        .arg("dry-activate")
        .env("PATH", "/run/current-system/sw/bin:/usr/bin:/bin:/usr/sbin")
        .deadline(Duration::from_mins(1));
    let finished = cmd.run().await.ok()?;
    let lines = finished.stderr_tail.lines().filter(|line| line.starts_with("would "));
    Some(lines.map(str::to_owned).collect())
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
        None if plan.present => ui::data("units     unknown: the system's own switch program does not tell"),
        None => ui::data("units     unknown until the system is fetched"),
    }
    match plan.inhibitors.as_deref() {
        Some([]) => ui::data("reboot    not needed for the switch"),
        Some(found) => found.iter().for_each(|part| ui::data(&format!("reboot    needed: {part}"))),
        None => ui::data("reboot    unknown until the system is fetched"),
    }
}
