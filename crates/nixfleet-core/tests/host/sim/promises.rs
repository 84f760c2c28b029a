//! What a [`Sim`] looks at after every event. `nixfleet-sim` asks nearly the same of every host of a fleet, and says why it stands
//! twice (`src/promises/host.rs` there).

use nixfleet_core::host::waiting::RestartBy;

use super::*;

impl Sim {
    /// What must be true after every event.
    pub(super) fn check(&self, was: StateName, (seq, logged): (u64, usize)) {
        let (host, state) = (&self.host, &self.host.state);
        let new = &host.log[logged..];
        assert_eq!(state.seq, seq + new.len() as u64, "the number counts the reports");
        for (record, number) in new.iter().zip(seq + 1..) {
            assert_eq!(record.seq, number);
            let begins = match &record.fact {
                Event::WentAhead { release, .. } => Some(release),
                Event::RebootBegan { release } if self.finishes() => Some(release),
                _ => None,
            };
            let vouched = begins.is_none_or(|release| self.vouched.contains(release));
            assert!(vouched, "the root in force does not vouch for what is begun");
        }
        if let Some(wake_at) = host.wake_at {
            assert!(wake_at > host.now.at, "it would be woken at once, for ever: {:?}", host.waiting());
        }
        match &state.phase {
            Phase::Converged => {
                if let Some(done) = &state.settled {
                    assert_eq!(
                        (&done.terms.system, state.world.current.as_ref()),
                        (&self.current, Some(&self.current))
                    );
                    if was != StateName::Converged {
                        self.check_proven(&done.terms);
                    }
                }
            }
            Phase::Reverted(reverted) => assert_eq!(reverted.to, self.current, "it runs what it was before"),
            Phase::Staging(_)
            | Phase::Staged(_)
            | Phase::Activating(_)
            | Phase::AwaitingReboot(_)
            | Phase::Confirming(_)
            | Phase::Soaking(_)
            | Phase::Reverting(_)
            | Phase::Failed(_) => {}
        }
        assert!(self.has_a_way_out(), "{} waits for {} in vain", host.name(), host.waiting());
        assert!(!host.waiting().to_string().is_empty());
        if host.waiting() == WaitingOn::PersonToReboot {
            assert_eq!(state.restart_by(), Some(RestartBy::APerson), "those who wait for it are told so");
        }
    }

    /// Whether a reboot is to bring a target, and not to bring what runs anew.
    fn finishes(&self) -> bool {
        let Phase::AwaitingReboot(at) = &self.host.state.phase else { return false };
        matches!(at.cause, RebootCause::Deferred { .. })
    }

    /// Every probe that decides was seen to pass since the system last changed.
    fn check_proven(&self, terms: &Terms) {
        let (mut asked, enforced) =
            (false, terms.probes.iter().filter(|probe| probe.mode == ProbeMode::Enforce));
        for spec in enforced {
            let probe = ProbeRef::Declared(spec.name.clone());
            assert!(self.passed.contains(&probe), "{probe} did not pass");
            asked = true;
        }
        let units = "built-in:units".parse().unwrap();
        assert!(asked || self.passed.contains(&units), "the units were not looked at");
    }

    /// Whether something will lead out of where it is: what was asked for, a time, or somebody outside who is named.
    fn has_a_way_out(&self) -> bool {
        let (state, woken) = (&self.host.state, self.host.wake_at.is_some());
        let job =
            || state.activation_in_flight().is_some_and(|id| self.jobs.iter().any(|job| job.id() == id));
        match self.host.waiting() {
            WaitingOn::AgentStart
            | WaitingOn::NewerRelease
            | WaitingOn::Hold { .. }
            | WaitingOn::ReleaseExpired { .. }
            | WaitingOn::RootExpired { .. }
            | WaitingOn::VerifiedAnew { .. }
            | WaitingOn::Approval { .. }
            | WaitingOn::Order
            | WaitingOn::RebootOrder
            | WaitingOn::WindowNeverOpens { .. }
            | WaitingOn::PersonToReboot => true,
            WaitingOn::NewerReleaseOrRetry => match &state.phase {
                Phase::Failed(failed) => {
                    !matches!(failed.at, FailedAt::Revert { back: Back::Uncommitted, .. })
                }
                _ => true,
            },
            WaitingOn::RunningSystemUnknown => self.look,
            WaitingOn::Fetch { .. } => self.staging.is_some(),
            WaitingOn::Wave { .. }
            | WaitingOn::Clock { .. }
            | WaitingOn::Window { .. }
            | WaitingOn::Soak { .. }
            | WaitingOn::RebootAgain { .. }
            | WaitingOn::Retry { .. }
            | WaitingOn::Reboot => woken,
            WaitingOn::Activation { .. } | WaitingOn::WayBack { .. } => job(),
            WaitingOn::Commit => job() || woken,
            WaitingOn::Proof { .. } => woken || self.probes.is_some(),
            WaitingOn::Hooks => !self.hooks.is_empty(),
        }
    }
}
