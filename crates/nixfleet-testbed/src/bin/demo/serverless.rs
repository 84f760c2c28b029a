//! Three hosts follow signed releases from a web server; there is no control plane.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixfleet_testbed::fleet::{StaticFleet, await_state};
use nixfleet_testbed::{Flavour, Host, System};

use crate::{AGENT, LIMIT, show, stands};

/// The second wave opens so long after a release was made: longer than the canary needs to fail.
const OPENS_AFTER: Duration = Duration::from_secs(45);

pub(crate) fn serverless() -> Result<()> {
    let cli = std::env::var_os("NIXFLEET_CLI_BIN").context("`cargo xtask demo` sets NIXFLEET_CLI_BIN")?;
    let fleet = StaticFleet::boot(Flavour::Trixie, Path::new(&cli), &["canary", "web-1", "web-2"])?;
    println!(
        "   three hosts follow a folder on a web server; an office signs releases and copies them there"
    );

    release(&fleet, System::Good, Duration::ZERO, "release 1: a good one, for all at once")?;
    all(&fleet, "stable/1", System::Good)?;

    let title = format!("release 2: its web service answers 404; the second wave opens in {OPENS_AFTER:?}");
    release(&fleet, System::Probe404, OPENS_AFTER, &title)?;
    let canary = fleet.host("canary");
    await_state(canary, "reverted", "stable/2", LIMIT)?;
    tell(canary)?;
    stands(canary, System::Good, System::Good)?;

    release(&fleet, System::Good3, Duration::ZERO, "release 3: the fix, before the second wave has opened")?;
    all(&fleet, "stable/3", System::Good3)?;
    for host in fleet.hosts() {
        let log = host.read_file("/var/log/switch-runs.log").unwrap_or_default();
        let touched = log.contains(host.system(System::Probe404));
        ensure!(touched == (host.name() == "canary"), "only the canary should have run release 2");
    }
    println!("   why: the canary's own probes failed, so it went back; the others never saw release 2 run");
    Ok(())
}

fn release(fleet: &StaticFleet, system: System, opens_after: Duration, title: &str) -> Result<()> {
    println!("\n   {title}");
    fleet.describe(&fleet.canary_first(system, opens_after)?)?;
    println!(
        "   $ nixfleet release build --channel stable && nixfleet release sign --channel stable --key …"
    );
    fleet.release("demo")
}

/// Waits until every host has it, and shows what one of them says.
fn all(fleet: &StaticFleet, release: &str, system: System) -> Result<()> {
    for host in fleet.hosts() {
        await_state(host, "converged", release, LIMIT)?;
        println!("   {}:", host.name());
        stands(host, system, system)?;
    }
    tell(&fleet.hosts()[0])
}

fn tell(host: &Host) -> Result<()> {
    println!("   {} $ nixfleet-agent status", host.name());
    show(&host.run(&[AGENT, "status"])?.stdout);
    Ok(())
}
