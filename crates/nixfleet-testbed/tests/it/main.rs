//! The testbed on trial: hosts, the stand-in against facts/switch.md, the cache against facts/nix.md, cleanliness.
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

use std::time::Duration;

use anyhow::{Result, ensure};
use nixfleet_testbed::{Host, System};

mod cache;
mod cleanliness;
mod hosts;
mod knobs;
mod switching;
mod vm;

/// What one switch may take: some seconds, and many times that on a busy machine.
const SWITCH_LIMIT: Duration = Duration::from_mins(5);

/// Leaves the test if hosts cannot be had here; in CI that is a failure.
macro_rules! needs_hosts {
    () => {
        if let Err(why) = nixfleet_testbed::available() {
            assert!(std::env::var_os("CI").is_none(), "hosts cannot be had: {why}");
            eprintln!("left out {}: {why}", module_path!());
            return Ok(());
        }
    };
}
pub(crate) use needs_hosts;

/// Leaves the test unless power cuts were asked for: a virtual machine takes minutes.
macro_rules! needs_power {
    () => {
        if std::env::var_os("NIXFLEET_POWER").is_none() {
            return Ok(());
        }
    };
}
pub(crate) use needs_power;

/// Fetches a system, makes it the profile and runs its switch program; the exit code and what it said on stderr.
pub(crate) fn switch(host: &Host, system: System, action: &str) -> Result<(i32, String)> {
    let path = host.system(system);
    host.fetch(path)?;
    host.run(&["nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", path])?.success()?;
    switch_again(host, system, action)
}

/// Runs a switch program of a system that is there already.
pub(crate) fn switch_again(host: &Host, system: System, action: &str) -> Result<(i32, String)> {
    let program = format!("{}/bin/switch-to-configuration", host.system(system));
    let output = host.run_for(SWITCH_LIMIT, &[&program, action])?;
    ensure!(!output.timed_out, "{output}");
    Ok((output.code, output.stderr))
}

/// Which system `/run/current-system` names.
pub(crate) fn is_current(host: &Host, system: System) -> bool {
    host.current_system().as_deref() == Some(host.system(system))
}

/// Which system would be booted.
pub(crate) fn is_boot_default(host: &Host, system: System) -> bool {
    host.boot_default().as_deref() == Some(host.system(system))
}

/// The active state of a unit, for comparing in one line.
pub(crate) fn state(host: &Host, unit: &str) -> String {
    host.unit_state(unit).unwrap_or_else(|error| format!("{error:#}"))
}
