//! The last act: three hosts follow a control plane, which stops a rollout by itself when the canary fails.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nixfleet_testbed::control_plane::ControlPlane;
use nixfleet_testbed::fleet::StaticFleet;
use nixfleet_testbed::{Flavour, System};
use serde_json::Value;

use crate::{LIMIT, show, stands};

/// Between two looks at a rollout.
const PAUSE: Duration = Duration::from_millis(300);

pub(crate) fn led() -> Result<()> {
    let fleet =
        StaticFleet::boot(Flavour::Trixie, &program("NIXFLEET_CLI_BIN")?, &["canary", "web-1", "web-2"])?;
    let control_plane = ControlPlane::start(&fleet, &program("NIXFLEET_CONTROL_PLANE_BIN")?)?;
    fleet.hosts().iter().try_for_each(|host| control_plane.lead(&fleet, host))?;
    println!("   three hosts follow a control plane, which has no key: first the canary, then the rest");

    release(&fleet, System::Good, "release 1: a good one")?;
    until(&control_plane, &fleet, 1, |rollout| !rollout["converged_ms"].is_null())?;

    release(&fleet, System::Probe404, "release 2: its web service answers 404")?;
    until(&control_plane, &fleet, 2, |rollout| rollout["status"]["status"] == "halted")?;
    for verb in [["rollout", "show", "stable"].as_slice(), &["why", "web-1"]] {
        println!("   $ nixfleet {}", verb.join(" "));
        show(&control_plane.ask(&fleet, verb)?.stdout);
    }
    stands(fleet.host("canary"), System::Good, System::Good)?;

    release(&fleet, System::Good3, "release 3: the fix")?;
    until(&control_plane, &fleet, 3, |rollout| !rollout["converged_ms"].is_null())?;
    for host in fleet.hosts() {
        println!("   {}:", host.name());
        stands(host, System::Good3, System::Good3)?;
        let log = host.read_file("/var/log/switch-runs.log").unwrap_or_default();
        let touched = log.contains(host.system(System::Probe404));
        ensure!(touched == (host.name() == "canary"), "only the canary should have run release 2");
    }
    println!(
        "   why: the canary's failure halted the rollout and put its system into quarantine; nobody else was asked"
    );
    Ok(())
}

fn program(variable: &str) -> Result<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("`cargo xtask demo` sets {variable}"))
}

fn release(fleet: &StaticFleet, system: System, title: &str) -> Result<()> {
    println!("\n   {title}");
    fleet.describe(&fleet.canary_first(system, Duration::ZERO)?)?;
    fleet.release("demo")
}

/// Shows `nixfleet status --watch` line by line, until the rollout of this release is as it shall become.
fn until(
    control_plane: &ControlPlane,
    fleet: &StaticFleet,
    seq: u64,
    is_there: impl Fn(&Value) -> bool,
) -> Result<()> {
    println!("   $ nixfleet status --watch");
    let watching = control_plane.watch(fleet, &["status", "--watch"])?;
    let (since, mut shown) = (Instant::now(), 0);
    loop {
        // A release that no plan has taken up yet has no rollout for a moment.
        let rollout = control_plane.get(fleet, "/v1/rollouts/stable").unwrap_or_default();
        let is_over = rollout["seq"] == seq && is_there(&rollout);
        shown = show_from(&watching.stdout_so_far(), shown);
        if is_over {
            return Ok(());
        }
        if since.elapsed() > LIMIT {
            bail!("release {seq} did not get there in {LIMIT:?}: {rollout:#}\n{}", control_plane.said());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Shows whole lines that were not shown yet, and returns how much was shown in all.
fn show_from(text: &str, shown: usize) -> usize {
    let new = text.get(shown..).unwrap_or_default();
    let whole = new.rfind('\n').map_or(0, |end| end + 1);
    show(&new[..whole]);
    shown + whole
}
