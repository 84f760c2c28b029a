//! The stand-in switch program against the tables of facts/switch.md.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixfleet_testbed::{Flavour, Host, System, wait_until};

use crate::{is_boot_default, is_current, needs_hosts, state, switch, switch_again};

const SOON: Duration = Duration::from_mins(1);
const ACTIONS: [&str; 5] = ["check", "dry-activate", "boot", "test", "switch"];

/// The phases of the last run in /var/log/switch-runs.log.
fn phases(host: &Host) -> Result<Vec<String>> {
    let log = host.read_file("/var/log/switch-runs.log")?;
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.splitn(5, ' ').collect()).collect();
    let last = lines.last().context("no run")?[1].to_owned();
    Ok(lines.iter().filter(|line| line[1] == last).map(|line| line[4].to_owned()).collect())
}

fn position(phases: &[String], start: &str) -> Result<usize> {
    phases
        .iter()
        .position(|phase| phase.starts_with(start))
        .with_context(|| format!("no {start} in {phases:?}"))
}

/// Starts a switch in the background as a unit of its own, as an agent does.
fn fire(host: &Host, system: System, unit: &str) -> Result<()> {
    let path = host.system(system);
    host.fetch(path)?;
    host.run(&["nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", path])?.success()?;
    let program = format!("{path}/bin/switch-to-configuration");
    host.run(&[
        "systemd-run",
        "--no-block",
        "--unit",
        unit,
        "--service-type=exec",
        "--",
        &program,
        "switch",
    ])?
    .success()?;
    Ok(())
}

/// Waits until the last switch is inside its `activate`.
fn await_activate(host: &Host) -> Result<()> {
    host.wait_until("activate to begin", SOON, |host| {
        phases(host).is_ok_and(|phases| phases.last().is_some_and(|phase| phase == "activate begin"))
    })
}

#[test]
fn a_switch_goes_in_the_order_of_the_real_one() -> Result<()> {
    needs_hosts!();
    for flavour in Flavour::ALL {
        let host = Host::boot(*flavour)?;
        let (code, words) = switch(&host, System::Good, "switch")?;
        ensure!(code == 0, "{words}");
        let phases = phases(&host)?;
        let order = [
            "locked",
            "precheck",
            "bootloader",
            "stop ",
            "activate begin",
            "activate end",
            "daemon-reload",
            "reload ",
            "restart ",
            "start ",
            "settle",
            "end code=0",
        ];
        let positions = order.iter().map(|start| position(&phases, start)).collect::<Result<Vec<_>>>()?;
        ensure!(positions.is_sorted(), "{phases:?}");
        ensure!(
            phases[position(&phases, "activate end")?].ends_with(host.system(System::Good)),
            "flip is in activate"
        );
        for line in [
            "stopping the following units: demo-a.service, demo-b.service, demo-old.service, web.service",
            "NOT restarting the following changed units: demo-n.service",
            "reloading the following units: demo-l.service",
            "restarting the following units: demo-r.service",
            "starting the following units: demo-a.service, demo-b.service, web.service",
        ] {
            ensure!(words.lines().any(|said| said == line), "no `{line}` in {words}");
        }
        ensure!(
            state(&host, "demo-old.service") == "inactive" && state(&host, "demo-new.service") == "active"
        );
        // The new unit's stop command ran at the restart, the old one's at the stop.
        let units = host.read_file("/var/log/units.log")?;
        ensure!(units.contains("stop demo-a 1") && units.contains("stop demo-r 2"), "{units}");
        // What is said to the journal is taken in some time later.
        host.run(&["journalctl", "--sync"])?.success()?;
        let journal = host.run(&["journalctl", "-t", "nixos", "-o", "cat"])?;
        ensure!(journal.stdout.contains("finished switching to system configuration"), "{journal}");
    }
    Ok(())
}

#[test]
fn each_action_changes_only_what_the_table_says() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    for action in ["check", "dry-activate"] {
        let (code, words) = switch(&host, System::Good, action)?;
        ensure!(code == 0, "{action}: {words}");
        ensure!(is_current(&host, System::Base) && is_boot_default(&host, System::Base));
        ensure!(state(&host, "demo-new.service") == "inactive");
        ensure!(words.contains("would stop the following units: ") == (action == "dry-activate"), "{words}");
    }
    ensure!(switch_again(&host, System::Good, "test")?.0 == 0);
    ensure!(is_current(&host, System::Good) && is_boot_default(&host, System::Base));
    ensure!(switch_again(&host, System::Good, "boot")?.0 == 0);
    ensure!(is_boot_default(&host, System::Good));
    let (code, words) = switch_again(&host, System::Good, "bogus")?;
    ensure!(code == 1 && words.starts_with("Usage:"), "{code} {words}");
    Ok(())
}

#[test]
fn a_held_lock_stops_every_action_with_11() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    host.fetch(host.system(System::Good))?;
    let lock = "/run/nixos/switch-to-configuration.lock";
    host.write_file(lock, "")?;
    for how in ["-x", "-s"] {
        let holder = host.spawn(&["flock", how, lock, "sleep", "1000"])?;
        host.wait_until("the lock to be held", SOON, |host| {
            host.run(&["flock", "-n", "-x", lock, "true"]).is_ok_and(|output| output.code == 1)
        })?;
        for action in ACTIONS {
            let (code, words) = switch_again(&host, System::Good, action)?;
            ensure!(code == 11 && words.trim() == "Could not acquire lock", "{action}: {code} {words}");
        }
        drop(holder);
        host.wait_until("the lock to be free", SOON, |host| {
            host.run(&["flock", "-n", "-x", lock, "true"]).is_ok_and(|output| output.ok())
        })?;
    }
    ensure!(switch_again(&host, System::Good, "check")?.0 == 0);
    Ok(())
}

#[test]
fn the_lock_is_seen_in_proc_locks_and_not_inherited_by_activate() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    fire(&host, System::Hangs, "hangs")?;
    await_activate(&host)?;
    ensure!(host.read_file("/proc/locks")?.contains("FLOCK  ADVISORY  WRITE"));
    host.run(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "hangs.service"])?.success()?;
    let free = ["flock", "-n", "-x", "/run/nixos/switch-to-configuration.lock", "true"];
    host.wait_until("the lock to be free", SOON, |host| host.run(&free).is_ok_and(|output| output.ok()))
}

#[test]
fn lists_are_left_by_a_killed_switch_and_heal_the_next() -> Result<()> {
    needs_hosts!();
    // On to the same units, and back. The switch that is killed is in its `activate` for as long as need be.
    for again in [System::Good, System::Base] {
        let host = Host::boot(Flavour::Bookworm)?;
        fire(&host, System::Hangs, "hangs")?;
        await_activate(&host)?;
        let start_list = host.read_file("/run/nixos/start-list")?;
        ensure!(
            start_list.contains("demo-a.service") && start_list.contains("multi-user.target"),
            "{start_list}"
        );
        ensure!(host.read_file("/run/nixos/restart-list")? == "demo-r.service\n");
        ensure!(host.read_file("/run/nixos/reload-list")? == "demo-l.service\n");
        host.run(&["systemctl", "kill", "--signal=KILL", "hangs.service"])?.success()?;
        host.wait_until("the unit to be gone", SOON, |host| state(host, "hangs.service") != "active")?;
        ensure!(state(&host, "demo-a.service") == "inactive" && is_current(&host, System::Base));
        let (code, words) = switch(&host, again, "switch")?;
        ensure!(code == 0, "{words}");
        ensure!(is_current(&host, again) && state(&host, "demo-a.service") == "active");
        ensure!(!host.exists("/run/nixos/start-list") && !host.exists("/run/nixos/restart-list"));
    }
    Ok(())
}

/// The process id of the one `activate`, once it sleeps.
fn sleeping_activate(host: &Host) -> Option<String> {
    let found = host.run(&["pgrep", "-f", "nixos-system-.*/activate"]).ok()?.success().ok()?;
    // While it forks there are two, which together are no one's id: it is looked for again.
    let pid = found.text().to_owned();
    let sleeps = host.run(&["pgrep", "-P", &pid, "-x", "sleep"]).is_ok_and(|output| output.ok());
    sleeps.then_some(pid)
}

#[test]
fn an_orphaned_activate_flips_the_link_back_after_a_rollback() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    // Outside any unit, so that only the program dies. What it leaves must need nobody who reads.
    host.fetch(host.system(System::Hangs))?;
    let program = format!("{}/bin/switch-to-configuration", host.system(System::Hangs));
    let running = host.spawn(&["/bin/sh", "-c", "exec \"$0\" test > /dev/null 2>&1", &program])?;
    let orphan = wait_until("activate to sleep", SOON, || sleeping_activate(&host))?;
    host.sh("pkill -KILL -f 'switch-to-configuration-ng test'")?;
    ensure!(running.wait(SOON)?.code == 137);
    ensure!(switch_again(&host, System::Base, "test")?.0 == 0, "the lock is free");
    ensure!(is_current(&host, System::Base) && state(&host, "demo-a.service") == "active");
    // Only now does it go on, so that it is late also on a busy machine.
    host.run(&["pkill", "-P", &orphan, "-x", "sleep"])?.success()?;
    host.wait_until("the late flip", SOON, |host| is_current(host, System::Hangs))
}

#[test]
fn sigterm_has_no_handler() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    host.fetch(host.system(System::Hangs))?;
    let program = format!("{}/bin/switch-to-configuration", host.system(System::Hangs));
    let running = host.spawn(&[&program, "test"])?;
    await_activate(&host)?;
    host.sh("pkill -TERM -f 'switch-to-configuration-ng test'")?;
    ensure!(running.wait(SOON)?.code == 143);
    Ok(())
}

#[test]
fn closed_streams_are_harmless_and_a_broken_pipe_is_101() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    host.fetch(host.system(System::Good))?;
    let program = format!("{}/bin/switch-to-configuration", host.system(System::Good));
    let closed = host.sh(&format!("{program} test >&- 2>&-; echo code=$?"))?;
    ensure!(closed.text() == "code=0", "{closed}");
    switch_again(&host, System::Base, "test")?;
    // It begins when its reader is gone.
    let waits = "until [ -e /run/gone ]; do sleep 0.1; done";
    let runs = format!("{waits}; {program} test 2>&1; echo code=$? > /root/code");
    host.sh(&format!("({runs}) | {{ exec <&-; touch /run/gone; }}"))?;
    host.wait_until("its end", SOON, |host| host.exists("/root/code"))?;
    let code = host.read_file("/root/code")?;
    ensure!(code == "code=101\n" || code == "code=141\n", "{code}");
    Ok(())
}

#[test]
fn a_late_or_unrelated_failure_counts_as_in_the_real_one() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    // It fails when it is told to, since nobody knows how long the switch takes.
    let fails = "until [ -e /run/fail-now ]; do sleep 0.1; done; exit 7";
    let drop_in = format!("[Service]\nExecStart=\nExecStart=/bin/sh -c '{fails}'\n");
    host.write_file("/run/systemd/system/demo-late.service.d/late.conf", &drop_in)?;
    let (code, words) = switch(&host, System::UnitFailsLate, "switch")?;
    ensure!(code == 0, "fails after the end: {words}");
    host.write_file("/run/fail-now", "")?;
    host.wait_until("the late failure", SOON, |host| state(host, "demo-late.service") == "failed")?;
    // Forgotten by the next run, which starts it again through multi-user.target.
    let (code, words) = switch_again(&host, System::Base, "switch")?;
    ensure!(code == 0 && state(&host, "demo-late.service") != "failed", "{words}");
    let restarts = ["--property=Restart=always", "--property=RestartSec=600"];
    let unrelated = [&["systemd-run", "--unit=unrelated"], &restarts[..], &["sh", "-c", "exit 5"]].concat();
    host.run(&unrelated)?.success()?;
    host.wait_until("it has failed and is to be restarted", SOON, |host| {
        let shown = host.run(&["systemctl", "show", "-P", "SubState", "unrelated.service"]);
        shown.is_ok_and(|output| output.text() == "auto-restart")
    })?;
    let (code, words) = switch_again(&host, System::Base, "switch")?;
    ensure!(code == 4 && words.contains("unrelated.service"), "{code} {words}");
    Ok(())
}

#[test]
fn a_rollback_with_0_does_not_bring_a_hand_started_unit_back() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    ensure!(switch(&host, System::HandStarted, "switch")?.0 == 0);
    ensure!(state(&host, "hand-started.service") == "inactive", "nothing starts it");
    host.run(&["systemctl", "start", "hand-started.service"])?.success()?;
    let (code, words) = switch(&host, System::HandStartedFails, "switch")?;
    ensure!(code == 4 && state(&host, "hand-started.service") == "failed", "{words}");
    ensure!(switch_again(&host, System::HandStarted, "switch")?.0 == 0);
    ensure!(state(&host, "hand-started.service") == "inactive");
    Ok(())
}
