//! Nothing stays: not after a panic, not after a killed test process, not after a killed keeper.
#![allow(clippy::disallowed_methods, reason = "starts a second test process to kill it")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixfleet_testbed::{Flavour, Host, cache_dir, sweep, wait_until};

use crate::needs_hosts;

const SOON: Duration = Duration::from_mins(2);

/// The folders of hosts that a process owns.
fn folders_of(pid: u32) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(cache_dir().join("run")) else { return Vec::new() };
    let prefix = format!("{pid}-");
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}

/// Processes of the machine whose command line names this folder, and those in the cgroup of this host.
fn processes_of(folder: &std::path::Path) -> Vec<String> {
    let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let cgroup = format!("nixfleet-testbed-{id}");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            (line.contains(&*folder.to_string_lossy()) || groups.contains(&cgroup)).then_some(line)
        })
        .collect()
}

fn mounted(folder: &std::path::Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.contains(&*folder.to_string_lossy())
}

/// Another process with a booted host of its own.
fn other_process() -> Result<(Child, PathBuf)> {
    let child = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["run", "trixie", "--", "sleep", "1000"])
        .stdin(Stdio::null())
        .spawn()
        .context("start testbed")?;
    let pid = child.id();
    let folder = wait_until("the other process's host to run its program", SOON, || {
        let folder = folders_of(pid).pop()?;
        processes_of(&folder).iter().any(|line| line.contains("sleep infinity")).then_some(folder)
    })?;
    Ok((child, folder))
}

#[test]
fn a_panic_leaves_nothing_behind() -> Result<()> {
    needs_hosts!();
    let host = Host::builder(Flavour::Trixie).name("panics").boot()?;
    let folder = folders_of(std::process::id())
        .into_iter()
        .find(|folder| folder.to_string_lossy().ends_with("-panics"))
        .context("the host's folder")?;
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _host = host;
        panic!("as a failed assertion does");
    }));
    ensure!(caught.is_err());
    ensure!(!folder.exists(), "{} stayed", folder.display());
    ensure!(!mounted(&folder));
    // A killed process is seen until whoever inherited it has noticed.
    wait_until("its processes to be gone", SOON, || processes_of(&folder).is_empty().then_some(()))
        .with_context(|| format!("left: {:?}", processes_of(&folder)))?;
    Ok(())
}

#[test]
fn a_killed_test_process_takes_its_hosts_along() -> Result<()> {
    needs_hosts!();
    let (mut child, folder) = other_process()?;
    child.kill()?;
    child.wait()?;
    wait_until("the dead process's host to be gone", SOON, || {
        (!folder.exists() && processes_of(&folder).is_empty()).then_some(())
    })
    .with_context(|| format!("left: {:?}", processes_of(&folder)))?;
    ensure!(!mounted(&folder));
    Ok(())
}

#[test]
fn a_killed_test_process_takes_its_virtual_machines_along() -> Result<()> {
    needs_hosts!();
    let mut child = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["vm", "trixie", "--", "sleep", "1000"])
        .stdin(Stdio::null())
        .spawn()
        .context("start testbed")?;
    let pid = child.id();
    let folder = wait_until("the other process's qemu", SOON, || {
        let folder = folders_of(pid).pop()?;
        processes_of(&folder).iter().any(|line| line.starts_with("qemu-system")).then_some(folder)
    })?;
    child.kill()?;
    child.wait()?;
    wait_until("the dead process's machine to be gone", SOON, || {
        (!folder.exists() && processes_of(&folder).is_empty()).then_some(())
    })
    .with_context(|| format!("left: {:?}", processes_of(&folder)))?;
    ensure!(!mounted(&folder));
    Ok(())
}

#[test]
fn a_sweep_removes_what_a_killed_keeper_left_and_spares_the_living() -> Result<()> {
    needs_hosts!();
    let mine = Host::builder(Flavour::Trixie).name("spared").boot()?;
    let (mut child, folder) = other_process()?;
    let keeper: i32 = std::fs::read_to_string(folder.join("keeper.pid"))?.trim().parse()?;
    // Other tests' processes sweep when they start; not while this is held.
    let making = std::fs::File::open(cache_dir().join("run/.making"))?;
    rustix::fs::flock(&making, rustix::fs::FlockOperation::LockExclusive)?;
    Command::new("kill").args(["-KILL", &keeper.to_string()]).status()?;
    child.kill()?;
    child.wait()?;
    ensure!(folder.exists(), "without its keeper nobody cleans up");
    drop(making);
    // Another test's process may sweep it first, at its own start; and what this one says of other folders is theirs.
    let swept = sweep();
    ensure!(!folder.exists(), "{swept:?}");
    wait_until("its processes to be gone", SOON, || processes_of(&folder).is_empty().then_some(()))?;
    ensure!(mine.run(&["true"])?.ok());
    Ok(())
}
