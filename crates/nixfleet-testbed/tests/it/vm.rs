//! Virtual machines: what a power cut keeps and loses, whose the clock is, and that nothing stays.

use std::time::Duration;

use anyhow::{Result, ensure};
use nixfleet_testbed::{Clock, Entry, Flavour, Machine, System, Unflushed, Vm};

use crate::{needs_hosts, needs_power};

/// Writes a file and, for `sync`, waits until it and its name are on the disk.
fn write(vm: &Vm, path: &str, sync: bool) -> Result<()> {
    let sync = if sync { " conv=fsync && sync /var/lib" } else { "" };
    vm.sh(&format!("head -c 1000000 /dev/urandom | dd status=none of={path}{sync}"))?.success().map(drop)
}

#[test]
fn power_a_cut_keeps_what_was_synced_and_loses_what_was_not() -> Result<()> {
    needs_hosts!();
    needs_power!();
    let vm = Vm::boot(Flavour::Trixie)?;
    for unflushed in [Unflushed::Lost, Unflushed::Kept, Unflushed::Mixed { seed: 7 }] {
        // What is not synced stays where it is for an hour. On a busy machine the file system's next commit after five
        // seconds, and the writing back after half a minute, may come between any two lines.
        let stays = "mount -o remount,commit=3600 / && echo 360000 > /proc/sys/vm/dirty_expire_centisecs";
        vm.sh(stays)?.success()?;
        // Its name is committed with what is synced after it, its bytes are not written.
        write(&vm, "/var/lib/unsynced", false)?;
        write(&vm, "/var/lib/synced", true)?;
        let sum = vm.sh("sha256sum < /var/lib/synced")?.success()?.stdout;
        let boot_id = vm.read_file("/proc/sys/kernel/random/boot_id")?;
        write(&vm, "/var/lib/later", false)?;
        vm.cut_power(unflushed)?;
        ensure!(!vm.is_running() && vm.run(&["true"]).is_err());
        vm.start(Clock::Right)?;
        ensure!(vm.read_file("/proc/sys/kernel/random/boot_id")? != boot_id);
        ensure!(vm.sh("sha256sum < /var/lib/synced")?.success()?.stdout == sum, "{unflushed:?}");
        ensure!(vm.entry("/var/lib/later")? == Entry::Absent, "{unflushed:?}: nobody had synced its name");
        let left = vm.sh("wc -c < /var/lib/unsynced")?.success()?;
        ensure!(left.text() == "0", "{unflushed:?}: the name was committed and the bytes were not: {left}");
        vm.run(&["rm", "/var/lib/synced", "/var/lib/unsynced"])?.success()?;
        vm.run(&["sync"])?.success()?;
    }
    Ok(())
}

#[test]
fn power_a_machine_is_a_host_with_a_kernel_and_a_clock_of_its_own() -> Result<()> {
    needs_hosts!();
    needs_power!();
    let vm = Vm::builder(Flavour::Trixie).clock(Clock::At("2030-01-01T00:00:00")).boot()?;
    ensure!(vm.run(&["cat", "/proc/1/comm"])?.text() == "systemd");
    ensure!(vm.run(&["date", "+%Y"])?.text() == "2030");
    ensure!(vm.current_system().as_deref() == Some(vm.system(System::Base)));
    ensure!(vm.profile_system() == vm.current_system() && vm.boot_default() == vm.current_system());
    ensure!(vm.run(&["systemctl", "is-system-running"])?.text() == "running");
    vm.fetch(vm.system(System::Good))?;
    vm.cache()?.down()?;
    ensure!(vm.fetch(vm.system(System::Good3)).is_err());
    vm.write_file("/var/lib/made/by-hand", "one line\n")?;
    ensure!(vm.read_file("/var/lib/made/by-hand")? == "one line\n");
    ensure!(vm.entry("/var/lib/made")? == Entry::Folder && vm.exists("/var/lib/made/by-hand"));
    let output = vm.run_for(Duration::from_secs(2), &["sleep", "1000"])?;
    ensure!(output.timed_out && output.code == 137, "{output}");
    let output = vm.sh("echo out; echo err >&2; exit 7")?;
    ensure!((output.code, output.text(), output.stderr.trim()) == (7, "out", "err"), "{output}");
    let output = vm.sh("yes | head -c 20000000")?;
    ensure!(output.ok() && output.stdout.len() == 16 << 20, "a flood is cut off and harms nobody");
    vm.restart(Clock::Right)?;
    ensure!(vm.run(&["date", "+%Y"])?.text() != "2030");
    ensure!(vm.exists("/var/lib/made/by-hand"), "who is switched off loses nothing");
    Ok(())
}
