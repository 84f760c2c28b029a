//! Makes way for the agent that the running system carries.
//!
//! A switch leaves the agent's unit alone (`restartIfChanged = false`), since it must not be restarted in the middle of its
//! own work. So after a switch the old program goes on, until it is safe to end: nothing is under way that this process
//! carries out. Then it ends well and the service manager starts the new one, which goes on from the state file. On trial
//! that comes *before* the commit: a new agent that does not come up, or cannot read what the old one left, never confirms
//! anything, and the deadman brings the previous system back with its own agent.
//!
//! It is done once for each pair of programs and boot, which a file in `/run` remembers: a unit that does not name the
//! running system's agent must not end up in a circle.

use std::path::{Path, PathBuf};

use nixfleet_core::host::HostState;
use nixfleet_core::host::phase::{Confirmer, Phase, Reboot};
use nixfleet_sys::fs;

use crate::activation::host::HostPaths;

/// The agent of a system.
const PROGRAM: &str = "sw/bin/nixfleet-agent";
/// A pair of paths.
const BYTES_MAX: u64 = 8 << 10;

/// Who may have to make way.
#[derive(Debug, Clone)]
pub struct Handover {
    own: PathBuf,
    current_system: PathBuf,
    remembered: PathBuf,
}

impl Handover {
    /// For this process; nothing when no service manager would start another.
    pub fn of(host: &HostPaths) -> Option<Self> {
        std::env::var_os("INVOCATION_ID")?;
        Some(Self {
            own: fs::resolve(&std::env::current_exe().ok()?).ok()?,
            current_system: host.current_system.clone(),
            remembered: host.lock.with_file_name("handed-over"),
        })
    }

    /// The other program, if the running system carries one and this is the moment. It is remembered.
    pub fn due(&self, state: &HostState) -> Option<PathBuf> {
        if !may_end(&state.phase) {
            return None;
        }
        let other =
            fs::resolve(&self.current_system.join(PROGRAM)).ok().filter(|other| *other != self.own)?;
        let pair = pair(&self.own, &other);
        let before = fs::read_bounded(&self.remembered, BYTES_MAX).unwrap_or_default();
        if before == pair {
            return None;
        }
        // Not remembered, it would be done again and again.
        fs::write_atomic(&self.remembered, &pair).ok().map(|()| other)
    }
}

fn pair(own: &Path, other: &Path) -> Vec<u8> {
    format!("{}\n{}\n", own.display(), other.display()).into_bytes()
}

/// Whether nothing is under way that this process carries out, or that would begin anew at a high price.
fn may_end(phase: &Phase) -> bool {
    match phase {
        Phase::Converged | Phase::Staged(_) | Phase::Soaking(_) | Phase::Reverted(_) | Phase::Failed(_) => {
            true
        }
        Phase::Confirming(at) => match at.by {
            Confirmer::Machine { .. } => true,
            Confirmer::Activation | Confirmer::Committing { .. } => false,
        },
        Phase::AwaitingReboot(at) => match at.reboot {
            Reboot::Waiting { .. } => true,
            Reboot::Draining { .. } | Reboot::Ordered { .. } => false,
        },
        Phase::Staging(_) | Phase::Activating(_) | Phase::Reverting(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_makes_way_once_for_another_program_and_never_for_itself() {
        let dir = tempfile::tempdir().expect("a folder");
        let system = dir.path().join("system");
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        fs::make_dir(&system.join("sw/bin")).expect("made");
        for program in [&old, &new] {
            fs::write_atomic(program, b"").expect("written");
        }
        let own = fs::resolve(&old).expect("there");
        let remembered = dir.path().join("handed-over");
        let handover = Handover { own, current_system: system.clone(), remembered };
        let state = HostState::fresh();
        assert_eq!(handover.due(&state), None, "a system without an agent");
        fs::link_atomic(&old, &system.join(PROGRAM)).expect("linked");
        assert_eq!(handover.due(&state), None, "the same agent");
        fs::link_atomic(&new, &system.join(PROGRAM)).expect("linked");
        assert_eq!(handover.due(&state), Some(fs::resolve(&new).expect("there")));
        assert_eq!(handover.due(&state), None, "once is enough");
    }
}
