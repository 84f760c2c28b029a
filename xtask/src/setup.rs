//! `cargo xtask setup`: installs what the test hosts need and builds their images. Called by the other verbs,
//! and does nothing when nothing is missing.

use std::{collections::BTreeSet, path::Path, thread::sleep, time::Duration};

use anyhow::{Result, bail};

use crate::{
    hosts::{self, Hosts},
    outside::Run,
    programs,
    report::Report,
    say,
};

/// How often apt is run before we give up: mirrors and networks have hiccups of a few seconds, and whoever else fetches the lists
/// has them for minutes (`DPkg::Lock::Timeout` does not wait for those).
const APT_ATTEMPTS: u32 = 6;
/// Pause after the first failed attempt; doubled each time, so about 155 s in all.
const APT_PAUSE: Duration = Duration::from_secs(5);

pub(crate) fn run() -> Result<()> {
    let mut report = Report::default();
    let agent = report.step("build the agent for the test hosts", || {
        programs::build(&["testbed"])?;
        programs::build_failpoints_agent()
    })?;
    let hosts = prepare(&mut report, &agent)?;
    report.close();
    match hosts {
        Hosts::Ready => Ok(()),
        Hosts::Impossible(why) => bail!("{why}"),
    }
}

/// Sets everything up for hosts that run `agent`. Needs `target/debug/testbed`.
///
/// # Errors
/// Something failed. That hosts are impossible here is an answer, not an error.
pub(crate) fn prepare(report: &mut Report, agent: &Path) -> Result<Hosts> {
    let testbed = programs::built("testbed");
    let wanted = parse_packages(&Run::new(&testbed).arg("packages").stdout()?);
    let missing = report.step("look for missing packages", || missing_packages(&wanted))?;
    if let Some(missing) = missing.filter(|missing| !missing.is_empty()) {
        if !hosts::is_root() {
            say::line(&format!(
                "missing packages; as root: apt-get update && apt-get install -y --no-install-recommends {}",
                missing.join(" ")
            ));
            return Ok(Hosts::Impossible("packages are missing and only root can install them".to_owned()));
        }
        say::line(&format!(
            "installing with apt, since the test hosts (systemd-nspawn, qemu) need them: {}",
            missing.join(" ")
        ));
        report.step("install packages", || install(&missing))?;
    }
    // Asked after apt has run: `unshare` and `systemd-nspawn` come from packages.
    if let Hosts::Impossible(why) = hosts::look() {
        return Ok(Hosts::Impossible(why));
    }
    if !Run::new("systemd-nspawn").arg("--version").works() {
        return Ok(Hosts::Impossible("test hosts need systemd-nspawn".to_owned()));
    }
    report.step("prepare the images of the test hosts", || {
        Run::new(&testbed).arg("prepare").env("NIXFLEET_AGENT_BIN", agent).go()
    })?;
    Ok(Hosts::Ready)
}

/// Installs Debian packages; the lists are fetched anew with each attempt, as they may be what was stale.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    let apt = || Run::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]);
    let mut pause = APT_PAUSE;
    for attempt in 1..=APT_ATTEMPTS {
        let outcome =
            apt().args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120", "update"]).go();
        let outcome = outcome.and_then(|()| {
            apt()
                .args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120", "install"])
                .args(["--no-install-recommends", "--"])
                .args(packages)
                .go()
        });
        match outcome {
            Ok(()) => return Ok(()),
            Err(error) if attempt == APT_ATTEMPTS => return Err(error),
            Err(error) => {
                say::line(&format!("    attempt {attempt} of {APT_ATTEMPTS}: {error:#}; again in {pause:?}"));
                sleep(pause);
                pause *= 2;
            }
        }
    }
    Ok(())
}

/// The wanted packages that are not installed; nothing when this machine has no dpkg to ask.
fn missing_packages(wanted: &[String]) -> Result<Option<Vec<String>>> {
    if !Run::new("dpkg-query").arg("--version").works() {
        say::line("    no dpkg here: not a Debian machine, so nothing is installed");
        return Ok(None);
    }
    // Ends with 1 when it does not know a package, which is what we want to find out.
    let known = Run::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n", "--"])
        .args(wanted)
        .stdout_whatever()?;
    Ok(Some(not_installed(wanted, &known)))
}

fn not_installed(wanted: &[String], known: &str) -> Vec<String> {
    let installed: BTreeSet<&str> =
        known.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::trim).collect();
    wanted.iter().filter(|name| !installed.contains(name.as_str())).cloned().collect()
}

fn parse_packages(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_removed_and_half_installed_packages_are_missing() {
        let wanted =
            parse_packages("mmdebstrap\nsystemd-container\n\n# for power cuts\nqemu-system-x86\nnftables\n");
        let known = "mmdebstrap installed\nsystemd-container config-files\nqemu-system-x86 half-installed\n";
        assert_eq!(not_installed(&wanted, known), ["systemd-container", "qemu-system-x86", "nftables"]);
    }

    #[test]
    fn nothing_is_missing_when_all_are_installed() {
        let wanted = parse_packages("a\nb\n");
        assert!(not_installed(&wanted, "b installed\na installed\n").is_empty());
    }
}
