//! Makes way for the agent that the running system carries, and for one that reads what it is told anew.
//!
//! A switch leaves the agent's unit alone (`restartIfChanged = false`), since it must not be restarted in the middle of its
//! own work. So after a switch the old process goes on, with the program and the configuration that it began with, until it
//! is safe to end: nothing is under way that it carries out. Then it ends well and the service manager starts the new one,
//! which goes on from the state file. On trial that comes *before* the commit: a new agent that does not come up, or cannot
//! read what the old one left or what it is told, never confirms anything, and the previous system comes back with its own
//! agent and configuration.
//!
//! It is done once for each pair (program and files), boot *and flight*, which a file in `/run` remembers: a unit that does
//! not name the running system's agent must not end up in a circle, and an agent that did not come up in one flight proves
//! nothing about the next. Off trial, files that the next agent could not read are left unread: whoever runs goes on, and
//! says so. If they were so before a trial began, they are none of its own, and it does not fall for them.

use std::fmt;
use std::path::{Path, PathBuf};

use nixfleet_core::host::HostState;
use nixfleet_core::host::phase::{Confirmer, Phase, Reboot};
use nixfleet_sys::fs;

use super::notify;
use super::told::Told;
use crate::activation::host::HostPaths;

/// The agent of a system.
const PROGRAM: &str = "sw/bin/nixfleet-agent";
/// Two paths, two digests and a name.
const BYTES_MAX: u64 = 8 << 10;

/// Who may have to make way.
#[derive(Debug, Clone)]
pub struct Handover {
    own: PathBuf,
    told: Told,
    current_system: PathBuf,
    remembered: PathBuf,
    /// The digest of files that were looked at off trial and were of no use, which is said once.
    useless: Option<String>,
}

/// Whether it is time to make way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// It is not.
    No,
    /// For this one.
    Now(Successor),
    /// There is something new to read, and no agent could: said once.
    Unreadable,
}

/// For whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Successor {
    /// Another program.
    Program(PathBuf),
    /// The same one, which reads what it is told anew.
    Reader,
}

impl fmt::Display for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(path) => write!(f, "{}", path.display()),
            Self::Reader => f.write_str("an agent that reads the changed configuration"),
        }
    }
}

impl Handover {
    /// For this process, which was `told` this; nothing when no service manager would start another.
    pub fn of(host: &HostPaths, told: Told) -> Option<Self> {
        if !notify::is_a_unit() {
            return None;
        }
        Some(Self {
            own: fs::resolve(&std::env::current_exe().ok()?).ok()?,
            told,
            current_system: host.current_system.clone(),
            remembered: host.lock.with_file_name("handed-over"),
            useless: None,
        })
    }

    /// Whether there is a successor and this is the moment. One that is told of is remembered.
    pub fn due(&mut self, state: &HostState) -> Due {
        if !may_end(&state.phase) {
            return Due::No;
        }
        let flight = state.activation_in_flight().map(ToString::to_string);
        let program = fs::resolve(&self.current_system.join(PROGRAM)).ok();
        let now = self.told.now();
        let was_useless = self.useless.as_ref() == Some(&now);
        let successor = match program.filter(|other| *other != self.own) {
            Some(other) => Successor::Program(other),
            None if now == self.told.then() => return Due::No,
            // On trial they are part of what is tried. Before the reboot into a target they are not yet: nobody reverts them.
            None if is_tried(&state.phase) && !was_useless => Successor::Reader,
            // Asked again of those that were useless: a file that they name may have come.
            None if self.told.is_usable() => Successor::Reader,
            None if was_useless => return Due::No,
            None => {
                self.useless = Some(now);
                return Due::Unreadable;
            }
        };
        if self.remember(&successor, &now, flight.as_deref()) { Due::Now(successor) } else { Due::No }
    }

    /// Notes that this hand-over was made; `false` if it was before, or cannot be noted: it would be made again and again.
    fn remember(&self, successor: &Successor, now: &str, flight: Option<&str>) -> bool {
        let other = match successor {
            Successor::Program(other) => other,
            Successor::Reader => &self.own,
        };
        let pair = pair((&self.own, &self.told.then()), (other, now));
        let before = fs::read_bounded(&self.remembered, BYTES_MAX).unwrap_or_default();
        let before = String::from_utf8_lossy(&before);
        let same_flight = flight.is_none_or(|flight| before.lines().last() == Some(flight));
        if before.starts_with(&pair) && same_flight {
            return false;
        }
        let note = format!("{pair}{}\n", flight.unwrap_or("none"));
        fs::write_atomic(&self.remembered, note.as_bytes()).is_ok()
    }
}

fn pair(own: (&Path, &str), other: (&Path, &str)) -> String {
    let line = |(program, told): (&Path, &str)| format!("{} {told}\n", program.display());
    line(own) + &line(other)
}

/// Whether nothing is under way that this process carries out, or that would begin anew at a high price.
fn is_tried(phase: &Phase) -> bool {
    matches!(phase, Phase::Confirming(_))
}

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
    use crate::runtime::reducer::tests::disk::{system, terms};
    use nixfleet_core::host::UpMs;
    use nixfleet_core::host::phase::{
        AwaitingReboot, Confirming, Flight, Hooks, Reboot, RebootCause, Rebooted, SourceNeed,
    };
    use nixfleet_core::host::probing::{Watch, WatchId};
    use nixfleet_core::ids::ActivationId;

    /// A host whose system carries the program `new` next to the one that runs. Its configuration can be used while a key is there.
    struct Scene {
        dir: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            fs::make_dir(&dir.path().join("system/sw/bin")).expect("made");
            for file in ["old", "new", "agent.toml", "key"] {
                fs::write_atomic(&dir.path().join(file), b"").expect("written");
            }
            Self { dir }
        }

        fn without_its_key() -> Self {
            let scene = Self::new();
            fs::remove(&scene.at("key")).expect("removed");
            scene
        }

        fn at(&self, file: &str) -> PathBuf {
            fs::resolve(self.dir.path()).expect("there").join(file)
        }

        fn carries(&self, program: &str) {
            fs::link_atomic(&self.at(program), &self.at("system").join(PROGRAM)).expect("linked");
        }

        /// A process that begins now.
        fn begins(&self, program: &str) -> Handover {
            let key = self.at("key");
            Handover {
                own: self.at(program),
                told: Told::new(move || key.exists()).with(&self.at("agent.toml")),
                current_system: self.at("system"),
                remembered: self.at("handed-over"),
                useless: None,
            }
        }

        fn configures(&self, text: &str) {
            fs::write_atomic(&self.at("agent.toml"), text.as_bytes()).expect("written");
        }
    }

    fn on_trial(flight: u32) -> HostState {
        let mut state = HostState::fresh();
        let target = Box::new(terms(u64::from(flight)));
        state.phase = Phase::Confirming(Confirming {
            by: Confirmer::Machine { until_up_ms: UpMs(1), commit_from_up_ms: UpMs(0) },
            watch: Watch::begin(WatchId(1), &target),
            rebooted: Rebooted::No,
            hooks: Hooks::NotDue,
            flight: Flight {
                target,
                attempt: 1,
                id: ActivationId::new(1, flight),
                previous: system("previous"),
                source: SourceNeed::NotNeeded,
            },
        });
        state
    }

    /// The same release, before the reboot into it.
    fn before_its_reboot(flight: u32) -> HostState {
        let mut state = on_trial(flight);
        let Phase::Confirming(Confirming { flight, .. }) = state.phase else { panic!("on trial") };
        state.phase = Phase::AwaitingReboot(AwaitingReboot {
            cause: RebootCause::Deferred { flight, inhibitors: Vec::new() },
            reboot: Reboot::Waiting { trouble: None, hooks: Hooks::NotDue },
        });
        state
    }

    #[test]
    fn a_configuration_that_a_person_damaged_before_a_reboot_is_not_tried_by_it() {
        let host = Scene::without_its_key();
        host.carries("old");
        let mut handover = host.begins("old");
        host.configures("damaged");
        assert_eq!(handover.due(&before_its_reboot(5)), Due::Unreadable, "nobody would revert it");
    }

    #[test]
    fn it_makes_way_once_for_another_program_and_never_for_itself() {
        let (host, state) = (Scene::new(), HostState::fresh());
        let mut handover = host.begins("old");
        assert_eq!(handover.due(&state), Due::No, "a system without an agent");
        host.carries("old");
        assert_eq!(handover.due(&state), Due::No, "the same agent");
        host.carries("new");
        assert_eq!(handover.due(&state), Due::Now(Successor::Program(host.at("new"))));
        assert_eq!(handover.due(&state), Due::No, "once is enough");
    }

    #[test]
    fn an_agent_that_did_not_come_up_in_one_flight_has_to_come_up_in_the_next() {
        let host = Scene::new();
        host.carries("new");
        let to_new = || Due::Now(Successor::Program(host.at("new")));
        assert_eq!(host.begins("old").due(&on_trial(5)), to_new());
        // The unit does not name the running system's agent: the old one was started again.
        assert_eq!(host.begins("old").due(&on_trial(5)), Due::No, "no circle");
        assert_eq!(host.begins("old").due(&on_trial(6)), to_new(), "the same agent in another release");
        assert_eq!(host.begins("old").due(&on_trial(6)), Due::No);
        assert_eq!(host.begins("old").due(&HostState::fresh()), Due::No, "nor a circle after it");
    }

    #[test]
    fn a_changed_configuration_is_read_by_a_successor_and_once() {
        let (host, state) = (Scene::new(), HostState::fresh());
        host.carries("old");
        let mut handover = host.begins("old");
        assert_eq!(handover.due(&state), Due::No);
        host.configures("another source");
        assert_eq!(handover.due(&state), Due::Now(Successor::Reader));
        assert_eq!(host.begins("old").due(&state), Due::No, "whoever began after it has read it");
    }

    #[test]
    fn a_configuration_that_came_with_a_trial_and_that_nobody_can_read_is_part_of_what_is_tried() {
        let host = Scene::without_its_key();
        host.carries("old");
        let mut handover = host.begins("old");
        host.configures("damaged");
        assert_eq!(handover.due(&on_trial(5)), Due::Now(Successor::Reader));
    }

    #[test]
    fn a_configuration_that_a_person_damaged_is_told_once_and_fails_no_trial() {
        let host = Scene::without_its_key();
        host.carries("old");
        let mut handover = host.begins("old");
        host.configures("damaged");
        assert_eq!(handover.due(&HostState::fresh()), Due::Unreadable);
        assert_eq!(handover.due(&HostState::fresh()), Due::No, "whoever runs goes on");
        assert_eq!(handover.due(&on_trial(5)), Due::No, "it was so before");
        host.configures("damaged in another way");
        assert_eq!(handover.due(&on_trial(5)), Due::Now(Successor::Reader), "this came with the trial");
    }

    #[test]
    fn a_configuration_of_which_something_came_later_is_read_when_it_is_there() {
        let host = Scene::without_its_key();
        host.carries("old");
        let mut handover = host.begins("old");
        host.configures("with a key");
        assert_eq!(handover.due(&HostState::fresh()), Due::Unreadable);
        assert_eq!(handover.due(&HostState::fresh()), Due::No);
        fs::write_atomic(&host.at("key"), b"").expect("written");
        assert_eq!(handover.due(&HostState::fresh()), Due::Now(Successor::Reader));
    }
}
