//! Boot, reboot, kill, cut, fill: what a host can be put through.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixfleet_testbed::{Entry, Flavour, Host, Net, System};

use crate::{is_boot_default, is_current, needs_hosts, switch};

const SOON: Duration = Duration::from_mins(1);

#[test]
fn a_host_runs_systemd_as_pid_1_and_real_nix_on_the_base_system() -> Result<()> {
    needs_hosts!();
    for (flavour, nix) in [(Flavour::Trixie, "2.26"), (Flavour::Bookworm, "2.8")] {
        let host = Host::boot(flavour)?;
        ensure!(host.run(&["cat", "/proc/1/comm"])?.text() == "systemd");
        ensure!(host.run(&["nix", "--version"])?.text().contains(nix));
        ensure!(is_current(&host, System::Base) && is_boot_default(&host, System::Base));
        ensure!(host.booted_system() == host.current_system());
        ensure!(host.profile_system().as_deref() == Some(host.system(System::Base)));
        let fragment = host.run(&["systemctl", "show", "-p", "FragmentPath", "--value", "demo-a.service"])?;
        ensure!(fragment.text() == "/etc/systemd/system/demo-a.service", "{fragment}");
        ensure!(host.run(&["curl", "-fsS", "http://127.0.0.1:8000/health"])?.text() == "ok 1");
        ensure!(host.run(&["systemctl", "is-system-running", "--wait"])?.text() == "running");
        ensure!(host.exists("/run/current-system/sw/bin/nixfleet-agent"));
    }
    Ok(())
}

#[test]
fn a_reboot_keeps_the_disk_and_renews_run_and_the_boot_id() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    let boot_id = host.read_file("/proc/sys/kernel/random/boot_id")?;
    host.write_file("/var/lib/kept", "kept")?;
    host.write_file("/run/lost", "lost")?;
    host.reboot()?;
    ensure!(host.read_file("/var/lib/kept")? == "kept");
    ensure!(!host.exists("/run/lost"));
    // The kernel's own id is the machine's; nspawn gives each boot one of its own.
    let boots = host.read_file("/var/log/boots.log")?;
    ensure!(boots.lines().count() == 2, "{boots}");
    ensure!(host.read_file("/proc/sys/kernel/random/boot_id")? != boot_id);
    Ok(())
}

#[test]
fn a_reboot_that_something_inside_asked_for_is_followed() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Bookworm)?;
    // It may be killed by what it has asked for, so its end says nothing; that there is a reboot does.
    let _ = host.run(&["systemd-run", "--on-active=0.1", "systemctl", "reboot"])?;
    host.await_reboot()?;
    ensure!(host.boots() == 2);
    Ok(())
}

#[test]
fn a_boot_lands_on_what_the_boot_loader_says() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    let (code, words) = switch(&host, System::Good, "boot")?;
    ensure!(code == 0, "{words}");
    ensure!(is_current(&host, System::Base) && is_boot_default(&host, System::Good));
    host.reboot()?;
    ensure!(is_current(&host, System::Good) && host.booted_system() == host.current_system());
    ensure!(host.run(&["curl", "-fsS", "http://127.0.0.1:8000/health"])?.text() == "ok 2");
    // A trial leaves the default alone, so a power cut takes it back.
    ensure!(switch(&host, System::Good3, "test")?.0 == 0);
    ensure!(is_current(&host, System::Good3) && is_boot_default(&host, System::Good));
    host.kill()?;
    host.start()?;
    ensure!(is_current(&host, System::Good));
    Ok(())
}

#[test]
fn a_killed_host_is_gone_at_once_and_starts_again_from_its_disk() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    let running = host.spawn(&["sh", "-c", "touch /run/entered; exec sleep 1000"])?;
    host.wait_until("the program to have entered the host", SOON, |host| host.exists("/run/entered"))?;
    host.write_file("/var/lib/kept", "kept")?;
    host.kill()?;
    ensure!(!host.is_running() && host.leader().is_none());
    ensure!(running.wait(SOON)?.code == 137);
    ensure!(host.run(&["true"]).is_err(), "a dead host ran a program");
    ensure!(host.read_file("/var/lib/kept")? == "kept", "the disk is readable while the host is down");
    host.start()?;
    ensure!(host.read_file("/var/lib/kept")? == "kept");
    Ok(())
}

#[test]
fn a_host_that_powers_off_stays_down_until_it_is_started() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    let _ = host.run(&["systemctl", "poweroff"])?;
    host.await_down()?;
    host.start()?;
    ensure!(host.boots() == 2);
    Ok(())
}

#[test]
fn a_cut_network_keeps_the_cache_away_until_it_is_restored() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    let url = format!("{}/nix-cache-info", host.cache()?.url());
    let fetch = ["curl", "-fsS", "--max-time", "2", &url];
    host.wait_until("the cache", SOON, |host| host.run(&fetch).is_ok_and(|o| o.ok()))?;
    host.cut_network()?;
    ensure!(!host.run(&fetch)?.ok());
    ensure!(host.run(&["curl", "-fsS", "http://127.0.0.1:8000/health"])?.ok(), "its own loopback stays");
    host.reboot()?;
    ensure!(!host.run(&fetch)?.ok(), "a reboot does not mend a cut cable");
    host.restore_network()?;
    host.wait_until("the network to be back", SOON, |host| host.run(&fetch).is_ok_and(|o| o.ok()))
}

#[test]
fn a_full_disk_refuses_until_it_is_freed() -> Result<()> {
    needs_hosts!();
    let host = Host::builder(Flavour::Trixie).disk_limit(200 << 20).boot()?;
    host.fill_disk()?;
    let write = ["dd", "if=/dev/zero", "of=/var/lib/new", "bs=64k", "count=1"];
    let refused = host.run(&write)?;
    ensure!(!refused.ok() && refused.stderr.contains("No space left"), "{refused}");
    host.free_disk()?;
    host.run(&write)?.success()?;
    Ok(())
}

#[test]
fn a_full_boot_folder_fails_the_boot_loader_and_keeps_the_old_default() -> Result<()> {
    needs_hosts!();
    let host = Host::builder(Flavour::Trixie).boot_limit(160 << 10).boot()?;
    let (code, words) = switch(&host, System::OtherKernel, "boot")?;
    ensure!(code == 1 && words.contains("No space left"), "{code} {words}");
    ensure!(is_boot_default(&host, System::Base));
    let entries = host.run(&["find", "/boot"])?;
    ensure!(!entries.stdout.contains("6.12.9-bzImage.efi"), "half a kernel stayed: {entries}");
    Ok(())
}

#[test]
fn a_program_is_bounded_in_time_and_in_output() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Bookworm)?;
    let late = host.run_for(Duration::from_millis(300), &["sleep", "1000"])?;
    ensure!(late.timed_out && late.elapsed < SOON, "{late}");
    host.wait_until("the sleeper to be dead", SOON, |host| {
        host.processes().is_ok_and(|all| all.iter().all(|(_, line)| line != "sleep 1000"))
    })?;
    let flood = host.run(&["sh", "-c", "yes | head -c 40000000"])?.success()?;
    ensure!(flood.stdout.len() == 16 << 20);
    ensure!(host.run(&["sh", "-c", "echo a; echo b >&2; exit 7"])?.code == 7);
    Ok(())
}

#[test]
fn files_are_seen_from_outside_as_the_host_sees_them() -> Result<()> {
    needs_hosts!();
    let host = Host::boot(Flavour::Trixie)?;
    // /etc/os-release is a chain of absolute links; followed outside it would be the machine's own.
    ensure!(host.read_file("/etc/os-release")?.contains("ID=nixos"));
    ensure!(host.read_link("/etc/os-release").as_deref() == Some("/etc/static/os-release"));
    ensure!(host.entry("/nix/store")? == Entry::Folder && host.entry("/nowhere/at/all")? == Entry::Absent);
    host.write_file("/var/lib/a/b/c", "text")?;
    ensure!(host.run(&["cat", "/var/lib/a/b/c"])?.text() == "text");
    ensure!(host.journal("demo-a.service")?.contains("Started"));
    let units = host.units()?;
    ensure!(units.iter().any(|(unit, state)| unit == "demo-a.service" && state == "active"));
    Ok(())
}

#[test]
fn hosts_of_one_network_reach_each_other_and_the_cache() -> Result<()> {
    needs_hosts!();
    let net = Net::new(Flavour::Trixie)?;
    let one = Host::builder(Flavour::Trixie).name("one").net(&net).boot()?;
    let two = Host::builder(Flavour::Trixie).name("two").net(&net).boot()?;
    let url = format!("http://{}:8000/health", two.address());
    let fetch = ["curl", "-fsS", "--max-time", "2", &url];
    one.wait_until("the other host", SOON, |one| one.run(&fetch).is_ok_and(|o| o.text() == "ok 1"))?;
    two.cut_network()?;
    ensure!(!one.run(&fetch)?.ok());
    one.fetch(one.system(System::Good)).context("the other host's cut is its own")?;
    two.restore_network()?;
    one.wait_until("the other host", SOON, |one| one.run(&fetch).is_ok_and(|o| o.ok()))
}

#[test]
fn thirty_hosts_run_at_once() -> Result<()> {
    needs_hosts!();
    let boot = |n: u32| Host::builder(Flavour::Trixie).name(&format!("many-{n}")).boot();
    // Six at a time: more starts at once only wait for the two processors.
    let mut hosts = Vec::new();
    for group in 0..5 {
        let group: Vec<Host> = std::thread::scope(|scope| {
            let booting: Vec<_> = (0..6).map(|n| scope.spawn(move || boot(group * 6 + n))).collect();
            booting.into_iter().map(|host| host.join().expect("a boot does not panic")).collect::<Result<_>>()
        })?;
        hosts.extend(group);
    }
    ensure!(hosts.len() == 30);
    for host in &hosts {
        ensure!(host.run(&["hostname"])?.text() == host.name());
        ensure!(host.run(&["systemctl", "is-system-running", "--wait"])?.text() == "running");
    }
    Ok(())
}
