//! The deadman of the next boot: a timer on disk, for a target that only a reboot brings.
//!
//! A transient timer does not outlive this boot, and the target's own agent may be broken. So a timer and its service
//! are written to the folder that systemd keeps for settings made at run time; NixOS does not manage it, and no switch
//! removes it. They run the agent of the system from before. Where `/etc` cannot be written (an immutable overlay)
//! or does not outlive the boot (a root in memory) there is no such deadman, and the outcome says so.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_core::ids::ActivationId;
use nixfleet_sys::fs::{self, FsError};

use crate::tools::systemd::CommandLine;

/// Persistent settings made through the service manager (`systemd.unit(5)`, "Unit File Load Path").
const FOLDER: &str = "/etc/systemd/system.control";
/// What starts the timer at boot.
const WANTS: &str = "timers.target.wants";
const PREFIX: &str = "nixfleet-next-boot-";

/// The files of these deadmen in one folder.
#[derive(Debug)]
pub struct NextBoot {
    folder: PathBuf,
}

impl Default for NextBoot {
    fn default() -> Self {
        Self { folder: FOLDER.into() }
    }
}

impl NextBoot {
    /// Writes the units: `run` is started so long after the next boot has begun. The timer is wanted last, so that
    /// half of them is nothing at all.
    pub fn arm(&self, id: &ActivationId, run: &CommandLine, after: Duration) -> Result<(), FsError> {
        let (service, timer) = (unit(id, "service"), unit(id, "timer"));
        let what = format!("[Unit]\nDescription=Revert {id} if nobody has confirmed it");
        let secs = after.as_secs();
        fs::make_dir(&self.wants())?;
        if fs::is_in_memory(&self.folder) {
            // What is worse than no deadman is one that is said to be armed and is gone with the boot.
            self.disarm(id);
            let source = io::Error::other("it is in memory, and gone after the reboot");
            return Err(FsError {
                action: "keep the deadman of the next boot in",
                path: self.folder.clone(),
                source,
            });
        }
        self.write(&service, &format!("{what}\n\n[Service]\nType=exec\nExecStart={run}\n"))?;
        self.write(&timer, &format!("{what}\n\n[Timer]\nOnStartupSec={secs}s\nAccuracySec=1s\n"))?;
        fs::link_atomic(&Path::new("..").join(&timer), &self.wants().join(&timer))
    }

    /// The timer of an activation, if it has one.
    pub fn timer(&self, id: &ActivationId) -> Option<String> {
        let timer = unit(id, "timer");
        self.folder.join(&timer).exists().then_some(timer)
    }

    /// Removes the units of an activation, the wish first.
    pub fn disarm(&self, id: &ActivationId) {
        let timer = unit(id, "timer");
        for file in
            [self.wants().join(&timer), self.folder.join(&timer), self.folder.join(unit(id, "service"))]
        {
            // What cannot be removed now is found again at the next start.
            let _ = fs::remove(&file);
        }
        // Both only if nothing else is in them.
        let _ = std::fs::remove_dir(self.wants());
        let _ = std::fs::remove_dir(&self.folder);
    }

    /// The activations that have one.
    pub fn armed(&self) -> Vec<ActivationId> {
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let ids = files.filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            name.strip_prefix(PREFIX)?.strip_suffix(".timer")?.parse().ok()
        });
        ids.collect()
    }

    fn wants(&self) -> PathBuf {
        self.folder.join(WANTS)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), FsError> {
        fs::write_atomic_mode(&self.folder.join(name), text.as_bytes(), 0o644)
    }
}

fn unit(id: &ActivationId, kind: &str) -> String {
    format!("{PREFIX}{id}.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_armed_is_found_and_disarming_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let units = NextBoot { folder: dir.path().join("system.control") };
        let (id, run) = (ActivationId::new(1, 1), CommandLine::new(Path::new("/agent")).expect("plain"));
        assert_eq!((units.armed(), units.timer(&id)), (vec![], None));
        units.disarm(&id);
        units.arm(&id, &run, Duration::from_secs(80)).expect("written");
        units.arm(&id, &run, Duration::from_secs(80)).expect("written twice");
        assert_eq!(units.armed(), std::slice::from_ref(&id));
        let wanted = units.wants().join(unit(&id, "timer"));
        let timer = std::fs::read_to_string(wanted).expect("the link leads to it");
        assert!(timer.contains("OnStartupSec=80s"), "{timer}");
        assert_eq!(units.timer(&id), Some(unit(&id, "timer")));
        units.disarm(&id);
        assert!(units.armed().is_empty() && !units.folder.exists());
    }

    #[test]
    fn a_folder_that_does_not_outlive_the_boot_is_refused_and_left_as_it_was() {
        let memory = Path::new("/dev/shm");
        if !fs::is_in_memory(memory) {
            return;
        }
        let dir = tempfile::tempdir_in(memory).expect("a folder");
        let units = NextBoot { folder: dir.path().join("system.control") };
        let (id, run) = (ActivationId::new(1, 1), CommandLine::new(Path::new("/agent")).expect("plain"));
        let refused = units.arm(&id, &run, Duration::from_secs(80)).expect_err("it would be gone");
        assert!(refused.to_string().contains("next boot"), "{refused}");
        assert!(units.armed().is_empty() && !units.folder.exists());
    }

    #[test]
    fn settings_of_others_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let units = NextBoot { folder: dir.path().join("system.control") };
        let (id, run) = (ActivationId::new(1, 1), CommandLine::new(Path::new("/agent")).expect("plain"));
        units.arm(&id, &run, Duration::from_secs(80)).expect("written");
        let theirs = units.folder.join("sshd.service.d");
        std::fs::create_dir(&theirs).expect("made");
        units.disarm(&id);
        assert!(theirs.exists() && units.armed().is_empty());
    }
}
