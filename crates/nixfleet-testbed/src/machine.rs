//! What a [`Host`] and a [`Vm`] have in common: programs run in it, files read from it. Checks are written once, on this.
//!
//! [`Host`]: crate::Host
//! [`Vm`]: crate::Vm

use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::files::Entry;
use crate::image::Image;
use crate::spawn::Output;
use crate::systems::System;
use crate::wait::wait_until;

/// What `run` allows.
const RUN_LIMIT: Duration = Duration::from_mins(1);
/// What fetching a system allows.
const FETCH_LIMIT: Duration = Duration::from_mins(8);

/// A running machine under test.
pub trait Machine {
    /// What it boots from.
    fn image(&self) -> &Image;

    /// Runs a program for at most `limit`; then it is killed and [`Output::timed_out`] is set.
    fn run_for(&self, limit: Duration, argv: &[&str]) -> Result<Output>;

    /// The contents of a file.
    fn read_file(&self, path: &str) -> Result<String>;

    /// Replaces the contents of a small file (at most 100 KB), making its folders.
    fn write_file(&self, path: &str, contents: &str) -> Result<()>;

    /// What is there, without following a link at the end.
    fn entry(&self, path: &str) -> Result<Entry>;

    /// Whether something is there, through links.
    fn exists(&self, path: &str) -> bool;

    /// The binary cache that it fetches from.
    fn cache(&self) -> Result<Cache<'_>>;

    /// The store path of a system.
    fn system(&self, system: System) -> &str {
        self.image().system(system)
    }

    /// Runs a program for at most a minute. The path is as on NixOS; there is no shell.
    fn run(&self, argv: &[&str]) -> Result<Output> {
        self.run_for(RUN_LIMIT, argv)
    }

    /// Runs a line of shell for at most a minute.
    fn sh(&self, script: &str) -> Result<Output> {
        self.run(&["/bin/sh", "-c", script])
    }

    /// Where a link points; nothing if it is no link.
    fn read_link(&self, path: &str) -> Option<String> {
        match self.entry(path) {
            Ok(Entry::Link(target)) => Some(target.to_string_lossy().into_owned()),
            _ => None,
        }
    }

    /// The journal of a unit over all boots, without times, with all that was said until now: a unit has ended before its last line is
    /// taken in.
    fn journal(&self, unit: &str) -> Result<String> {
        self.run(&["journalctl", "--sync"])?;
        Ok(self.run(&["journalctl", "--no-pager", "--quiet", "-o", "cat", "-u", unit])?.success()?.stdout)
    }

    /// The system behind `/run/current-system`.
    fn current_system(&self) -> Option<String> {
        self.read_link("/run/current-system")
    }

    /// The system behind `/run/booted-system`.
    fn booted_system(&self) -> Option<String> {
        self.read_link("/run/booted-system")
    }

    /// The system that the boot loader would boot.
    fn boot_default(&self) -> Option<String> {
        Some(self.read_file("/boot/default").ok()?.trim().to_owned())
    }

    /// The system that the system profile points to, through its generation link.
    fn profile_system(&self) -> Option<String> {
        self.read_link(&format!("/nix/var/nix/profiles/{}", self.read_link("/nix/var/nix/profiles/system")?))
    }

    /// The command lines of all its processes, by process id.
    fn processes(&self) -> Result<Vec<(u32, String)>> {
        let output = self.run(&["ps", "-eo", "pid=,args="])?.success()?;
        let line = |line: &str| {
            let (pid, args) = line.trim().split_once(' ')?;
            Some((pid.parse().ok()?, args.to_owned()))
        };
        Ok(output.stdout.lines().filter_map(line).collect())
    }

    /// Its loaded units with their active state (`active`, `failed`, …), by name.
    fn units(&self) -> Result<Vec<(String, String)>> {
        let argv = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager", "--full"];
        let output = self.run(&argv)?.success()?;
        let unit = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
        };
        Ok(output.stdout.lines().filter_map(unit).collect())
    }

    /// The active state of one unit (`inactive` also if there is no such unit).
    fn unit_state(&self, unit: &str) -> Result<String> {
        Ok(self.run(&["systemctl", "show", "--property=ActiveState", "--value", unit])?.text().to_owned())
    }

    /// Fetches a path from the cache with its signatures checked, and roots it at `/testbed/roots/<name>`.
    fn fetch(&self, path: &str) -> Result<()> {
        let root = format!("/testbed/roots/{}", path.rsplit('/').next().unwrap_or(path));
        let argv = ["nix-store", "--realise", path, "--add-root", &root, "--indirect"];
        self.run_for(FETCH_LIMIT, &argv)?.success()?;
        Ok(())
    }

    /// Waits until `condition` holds on this machine.
    fn wait_until(&self, what: &str, limit: Duration, mut condition: impl FnMut(&Self) -> bool) -> Result<()>
    where
        Self: Sized,
    {
        wait_until(what, limit, || condition(self).then_some(()))
    }
}
