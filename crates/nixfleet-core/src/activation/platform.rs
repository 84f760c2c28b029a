//! The two kinds of host, and what of their difference decides an activation.
//!
//! What is done differently is in the agent's backends. Here is what the same sight *means*: an exit code, a link that
//! did not move, a host that was restarted. Asked by `judge`, `resume` and the agent's pipeline.

use super::end::RunEnd;
use super::events::CommitPolicy;

/// What kind of host it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// `switch-to-configuration`, whose codes have meanings of their own; the boot loader names what is booted, and a
    /// boot runs all of its activation (`facts/switch.md`).
    NixOs,
    /// `activate`, which ends with 0 or has failed somewhere on its way, and sets the link as its last act; the system
    /// *profile* names what is booted, and a boot makes the links of that system and runs nothing else of its
    /// activation (`facts/nixos.md` D8).
    NixDarwin,
}

/// When the profile is pointed at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileSet {
    /// Before the switch is fired.
    BeforeTheFire,
    /// At the commit: until then it names what a reboot on trial is to bring.
    AtTheCommit,
}

impl Platform {
    /// When an activation under this policy sets the profile.
    ///
    /// NixOS's switch reads the generation number from it, so there it comes first. On Darwin it is what a boot entry
    /// is on NixOS, and is written when a boot entry would be.
    pub fn profile_set(self, commit: CommitPolicy) -> ProfileSet {
        match (self, commit) {
            (Self::NixDarwin, CommitPolicy::AfterConfirm) => ProfileSet::AtTheCommit,
            (Self::NixDarwin, CommitPolicy::Immediately) | (Self::NixOs, _) => ProfileSet::BeforeTheFire,
        }
    }

    /// Whether the end of a way back is a good one, if the link says so too.
    ///
    /// 4 is NixOS's word for "some unit failed": which one is looked at afterwards.
    pub fn came_back(self, end: RunEnd) -> bool {
        match (self, end) {
            (_, RunEnd::Exited { code: 0 }) | (Self::NixOs, RunEnd::Exited { code: 4 }) => true,
            (Self::NixOs | Self::NixDarwin, RunEnd::Exited { .. })
            | (_, RunEnd::Killed { .. } | RunEnd::TimedOut | RunEnd::Unknown) => false,
        }
    }

    /// Whether a closure's own `switch-inhibitors` are asked; nix-darwin knows none, and has no way to defer.
    pub fn defers(self) -> bool {
        match self {
            Self::NixOs => true,
            Self::NixDarwin => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trial_on_darwin_leaves_the_profile_for_the_commit() {
        for (platform, commit, when) in [
            (Platform::NixOs, CommitPolicy::AfterConfirm, ProfileSet::BeforeTheFire),
            (Platform::NixOs, CommitPolicy::Immediately, ProfileSet::BeforeTheFire),
            (Platform::NixDarwin, CommitPolicy::AfterConfirm, ProfileSet::AtTheCommit),
            (Platform::NixDarwin, CommitPolicy::Immediately, ProfileSet::BeforeTheFire),
        ] {
            assert_eq!(platform.profile_set(commit), when, "{platform:?} {commit:?}");
        }
    }

    #[test]
    fn a_code_4_is_only_a_way_back_where_it_is_about_units() {
        assert!(Platform::NixOs.came_back(RunEnd::Exited { code: 4 }));
        assert!(!Platform::NixDarwin.came_back(RunEnd::Exited { code: 4 }));
        for platform in [Platform::NixOs, Platform::NixDarwin] {
            assert!(platform.came_back(RunEnd::Exited { code: 0 }));
            for end in [RunEnd::Exited { code: 1 }, RunEnd::Unknown, RunEnd::TimedOut] {
                assert!(!platform.came_back(end), "{end}");
            }
        }
    }
}
