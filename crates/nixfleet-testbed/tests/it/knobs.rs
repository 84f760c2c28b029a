//! Every knob does what its sentence says.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nixfleet_testbed::System as S;
use nixfleet_testbed::{Flavour, Host, System};

use crate::{is_boot_default, is_current, needs_hosts, state, switch};

/// What one switch to a system ends with.
struct Ends {
    system: System,
    code: i32,
    /// What /run/current-system names afterwards.
    current: System,
    /// What would be booted.
    default: System,
    /// Something it says on stderr.
    says: &'static str,
}

const fn ends(system: System, code: i32, current: System, default: System, says: &'static str) -> Ends {
    Ends { system, code, current, default, says }
}

/// A system that ends well.
const fn well(system: System) -> Ends {
    ends(system, 0, system, system, "")
}

#[test]
fn every_switch_ends_as_its_knob_says() -> Result<()> {
    needs_hosts!();
    let table = [
        well(S::Good),
        well(S::Good3),
        well(S::Third),
        well(S::Twin),
        well(S::RemovedUnit),
        well(S::AgentRemoved),
        well(S::AgentNewer),
        well(S::AgentBrokenKept),
        well(S::UnitSlow),
        well(S::Reexecs),
        well(S::OtherKernel),
        well(S::OtherSystemd),
        well(S::OtherDbus),
        well(S::ListInhibitors),
        well(S::NoInhibitors),
        well(S::Floods),
        well(S::UnlinksFirst),
        well(S::Probe404),
        well(S::ProbeSilent),
        well(S::WrongArchitecture),
        well(S::RestartsAgent),
        well(S::BigA),
        well(S::BigB),
        well(S::BreaksNetwork),
        well(S::RepointsProfile),
        well(S::AgentOlder),
        ends(S::UnitFails, 4, S::UnitFails, S::UnitFails, "Failed to start demo-b.service"),
        ends(S::NewUnitFails, 4, S::NewUnitFails, S::NewUnitFails, "units failed: demo-fail.service"),
        ends(S::PrecheckFails, 1, S::Base, S::Base, "Pre-switch checks failed"),
        ends(S::BootloaderFails, 1, S::Base, S::Base, "Failed to install bootloader"),
        ends(S::Exits1AfterFlip, 1, S::Exits1AfterFlip, S::Exits1AfterFlip, "timeout after 180s"),
        ends(
            S::ActivateFailsAfterFlip,
            2,
            S::ActivateFailsAfterFlip,
            S::ActivateFailsAfterFlip,
            "run activate script",
        ),
        ends(S::ActivateFailsBeforeFlip, 2, S::Base, S::ActivateFailsBeforeFlip, "run activate script"),
        ends(S::FlipsToThird, 0, S::Third, S::FlipsToThird, ""),
        ends(S::OtherInhibitor, 1, S::Base, S::Base, "Pre-switch checks failed"),
        ends(S::OtherInit, 100, S::Base, S::OtherInit, "incompatible with the current configuration"),
        ends(S::BrokenPipe, 101, S::BrokenPipe, S::BrokenPipe, ""),
        ends(S::KilledBeforeFlip, 137, S::Base, S::KilledBeforeFlip, "activating"),
        ends(S::KilledAfterFlip, 137, S::KilledAfterFlip, S::KilledAfterFlip, "activating"),
        ends(S::AgentBroken, 4, S::AgentBroken, S::AgentBroken, "nixfleet-agent.service"),
    ];
    let queue = std::sync::Mutex::new(table.iter());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let Some(row) = queue.lock().expect("nobody panics with it").next() else {
                            return Ok(());
                        };
                        check(row).with_context(|| format!("{:?}", row.system))?;
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a row does not panic"))
    })
}

fn check(row: &Ends) -> Result<()> {
    let host = Host::builder(Flavour::Trixie).boot()?;
    let (code, words) = switch(&host, row.system, "switch")?;
    let shown: String = words.chars().take(2_000).collect();
    ensure!(code == row.code, "ended with {code}: {shown}");
    ensure!(words.contains(row.says), "does not say `{}`: {shown}", row.says);
    ensure!(is_current(&host, row.current), "current is {:?}", host.current_system());
    ensure!(is_boot_default(&host, row.default), "default is {:?}", host.boot_default());
    after(&host, row.system)
}

/// What is to be seen of some knobs besides.
fn after(host: &Host, system: System) -> Result<()> {
    let health = || host.run(&["curl", "-fsS", "--max-time", "50", "http://127.0.0.1:8000/health"]);
    match system {
        System::RepointsProfile => {
            ensure!(host.profile_system().as_deref() == Some(host.system(System::Base)));
        }
        System::BreaksNetwork => {
            ensure!(host.run(&["ip", "-br", "link", "show", "eth0"])?.text().contains("DOWN"));
            let url = format!("{}/nix-cache-info", host.cache()?.url());
            let reach = |host: &Host| host.run(&["curl", "-fsS", "--max-time", "1", &url]);
            ensure!(!reach(host)?.ok());
            ensure!(crate::switch_again(host, System::Base, "test")?.0 == 0);
            host.wait_until("the network", Duration::from_mins(1), |host| reach(host).is_ok_and(|o| o.ok()))?;
        }
        System::Probe404 => {
            host.wait_until("it says no", Duration::from_mins(1), |_| health().is_ok_and(|o| o.code == 22))?;
        }
        System::ProbeSilent => ensure!(health()?.code == 7),
        System::AgentRemoved => ensure!(state(host, "nixfleet-agent.service") == "active"),
        System::WrongArchitecture => {
            ensure!(host.read_file("/run/current-system/system")? == "aarch64-linux");
        }
        System::Reexecs | System::OtherSystemd => {
            ensure!(host.read_file("/var/log/switch-runs.log")?.contains(" reexec\n"));
        }
        System::BigA => {
            let paths = host.run(&["nix-store", "-qR", "/run/current-system"])?.stdout.lines().count();
            ensure!(paths > 1_000, "{paths} paths");
            ensure!(switch(host, System::BigB, "switch")?.0 == 0);
            let log = host.read_file("/var/log/switch-runs.log")?;
            let stop = log.lines().rfind(|line| line.contains(" stop ")).context("no stop")?;
            ensure!(stop.matches("big-").count() >= 20, "{stop}");
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn the_boot_action_is_held_up_neither_by_inhibitors_nor_by_another_init() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    for system in [System::OtherInhibitor, System::OtherInit, System::OtherKernel] {
        let (code, words) = switch(&host, system, "boot")?;
        ensure!(code == 0 && is_boot_default(&host, system), "{system:?}: {words}");
        host.reboot()?;
        ensure!(is_current(&host, system));
    }
    Ok(())
}

#[test]
fn a_hanging_and_a_slow_switch_take_their_time() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    host.fetch(host.system(System::Hangs))?;
    let program = format!("{}/bin/switch-to-configuration", host.system(System::Hangs));
    let hung = host.run_for(Duration::from_secs(3), &[&program, "test"])?;
    ensure!(hung.timed_out && is_current(&host, System::Base), "{hung}");
    // It was told to end, and holds the lock until it has. It may not even have come to making the folder.
    let free = "mkdir -p /run/nixos && flock -n -x /run/nixos/switch-to-configuration.lock true";
    host.wait_until("the lock to be free", Duration::from_mins(1), |host| {
        host.sh(free).is_ok_and(|output| output.ok())
    })?;
    let begun = Instant::now();
    ensure!(switch(&host, System::Slow, "switch")?.0 == 0);
    ensure!(begun.elapsed() >= Duration::from_secs(6));
    Ok(())
}

#[test]
fn what_is_no_system_has_no_switch_program() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    let path = host.system(System::NotASystem);
    host.fetch(path)?;
    ensure!(host.exists(path) && !host.exists(&format!("{path}/bin/switch-to-configuration")));
    Ok(())
}

#[test]
fn a_system_looks_like_nixos_to_whoever_reads_it() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Bookworm)?;
    let base = host.system(System::Base);
    for name in [
        "activate",
        "dry-activate",
        "bin/switch-to-configuration",
        "etc/systemd/system/demo-a.service",
        "firmware",
        "init",
        "init-interface-version",
        "initrd",
        "kernel",
        "kernel-modules",
        "kernel-params",
        "nixos-version",
        "reboot-triggers",
        "sw/bin/dbus-daemon",
        "sw/bin/nixfleet-agent",
        "sw/lib/systemd/systemd",
        "switch-inhibitors",
        "system",
        "systemd",
    ] {
        ensure!(host.exists(&format!("{base}/{name}")), "no {name}");
    }
    let kernel = host.read_link(&format!("{base}/kernel")).context("kernel is a link")?;
    ensure!(kernel.ends_with("-linux-6.12.1/bzImage"), "{kernel}");
    let other = host.system(System::OtherKernel);
    host.fetch(other)?;
    ensure!(host.read_link(&format!("{other}/kernel")).context("a link")? != kernel);
    Ok(())
}
