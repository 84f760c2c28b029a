//! The systems there are to activate, one per knob; built by `assets/systems.nix`.

/// A NixOS-shaped system in the binary cache. Only [`System::Base`] is in a new host's store, booted.
///
/// Unless its sentence says otherwise, a system has the units of [`System::Good`] and ends its switch with 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum System {
    /// Version 1, which every host boots: demo-a, -b, -r, -l, -n, -old, web on port 8000, the agent.
    Base,
    /// Version 2: demo-a, -b and web stop and start, -r restarts, -l reloads, -n is left, -old goes, -new comes.
    Good,
    /// Version 3: as `Good` with other versions again.
    Good3,
    /// The system that `FlipsToThird` flips to; the units of `Base`.
    Third,
    /// No change: the units of `Base` under another store path.
    Twin,
    /// `Base` without demo-old.
    RemovedUnit,
    /// demo-b, changed, fails at its start: exit 4.
    UnitFails,
    /// demo-fail, new, fails at its start: exit 4.
    NewUnitFails,
    /// demo-slow needs 5 s to be up; the switch waits for it.
    UnitSlow,
    /// demo-late fails 4 s after the switch that started it: exit 0, and later a failed unit.
    UnitFailsLate,
    /// `Base` and hand-started.service, which nothing starts but a person.
    HandStarted,
    /// As `HandStarted`, but that unit fails: exit 4, and a rollback does not bring it back.
    HandStartedFails,
    /// `activate` sleeps for ever, before the flip.
    Hangs,
    /// `activate` sleeps 12 s, and on while /run/hold-activate is there, then flips.
    Slow,
    /// The pre-switch check refuses: exit 1, nothing changed.
    PrecheckFails,
    /// The boot loader installer fails: exit 1 for `switch` and `boot`; `test` is well.
    BootloaderFails,
    /// Dies with exit 1 after the flip, before daemon-reload; units stay down.
    Exits1AfterFlip,
    /// A snippet of `activate` fails, the flip happens: exit 2.
    ActivateFailsAfterFlip,
    /// `activate` dies after /etc moved and before the flip: exit 2, units new, link old.
    ActivateFailsBeforeFlip,
    /// `activate` points the system profile to generation 1.
    RepointsProfile,
    /// `activate` makes /run/current-system point to `Third`.
    FlipsToThird,
    /// The agent's unit differs and may be restarted.
    RestartsAgent,
    /// The agent is replaced by one that exits 1 at once; its unit is restarted.
    AgentBroken,
    /// The agent is replaced by a good one; its unit is left as it runs.
    AgentNewer,
    /// The agent is replaced by one that exits 1 at once; its unit is left as it runs.
    AgentBrokenKept,
    /// The agent is replaced by one that never becomes ready (10 s limit); its unit is restarted.
    AgentHangs,
    /// No agent unit any more (X-StopOnRemoval=false: it keeps running).
    AgentRemoved,
    /// system.conf differs: PID 1 re-executes itself.
    Reexecs,
    /// `activate` takes every link but lo down, and network-setup no longer brings them up.
    BreaksNetwork,
    /// Another kernel, initrd and modules.
    OtherKernel,
    /// Another kernel, and an agent that exits 1 at once.
    KernelAgentBroken,
    /// Another systemd: PID 1 re-executes itself.
    OtherSystemd,
    /// Another dbus.
    OtherDbus,
    /// `switch-inhibitors` differs in one key: `switch` and `test` exit 1, `boot` works.
    OtherInhibitor,
    /// `switch-inhibitors` in the older list format.
    ListInhibitors,
    /// Neither `switch-inhibitors` nor `reboot-triggers`, as before 26.05.
    NoInhibitors,
    /// `init-interface-version` differs: exit 100 for `switch` (boot loader done) and `test`.
    OtherInit,
    /// `activate` prints 20 MB on each stream, a line of 3 MB, and bytes that are not UTF-8.
    Floods,
    /// /run/current-system is gone for 0.2 s before it is made anew.
    UnlinksFirst,
    /// A store path without bin/switch-to-configuration.
    NotASystem,
    /// Its file `system` says aarch64-linux.
    WrongArchitecture,
    /// web answers 404 to /health.
    Probe404,
    /// web is up and nobody listens on port 8000.
    ProbeSilent,
    /// The reader of its stderr goes away during `activate`: exit 101, half done.
    BrokenPipe,
    /// The switch dies by SIGKILL before the flip.
    KilledBeforeFlip,
    /// The switch dies by SIGKILL after the flip.
    KilledAfterFlip,
    /// Darwin-shaped, and nothing wrong with it: `activate` moves /etc/static, then flips as its last act.
    DarwinGood,
    /// Darwin-shaped; a step of `activate` fails after /etc/static moved and before the flip: exit 1.
    DarwinFails,
    /// Darwin-shaped; `activate` sleeps for ever after /etc/static moved and before the flip.
    DarwinHangs,
    /// Darwin-shaped; `activate` sleeps as that of `Slow` before the flip.
    DarwinSlow,
    /// Darwin-shaped; `activate` prints 40 MB on each stream, a line of 3 MB, and bytes that are not UTF-8.
    DarwinFloods,
    /// Darwin-shaped; `activate` points the system profile to generation 1.
    DarwinRepoints,
    /// Darwin-shaped; `activate` makes /run/current-system point to `Third`.
    DarwinThird,
    /// 1,100 store paths more, and 20 units big-0 to big-19 beside those of `Base`.
    BigA,
    /// `BigA` with all 20 big units changed.
    BigB,
    /// The agent is replaced by one that is older than the host's state: each of its processes finds the state in a format
    /// that is newer than it knows; its unit is left as it runs.
    AgentOlder,
}

impl System {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Base,
        Self::Good,
        Self::Good3,
        Self::Third,
        Self::Twin,
        Self::RemovedUnit,
        Self::UnitFails,
        Self::NewUnitFails,
        Self::UnitSlow,
        Self::UnitFailsLate,
        Self::HandStarted,
        Self::HandStartedFails,
        Self::Hangs,
        Self::Slow,
        Self::PrecheckFails,
        Self::BootloaderFails,
        Self::Exits1AfterFlip,
        Self::ActivateFailsAfterFlip,
        Self::ActivateFailsBeforeFlip,
        Self::RepointsProfile,
        Self::FlipsToThird,
        Self::RestartsAgent,
        Self::AgentBroken,
        Self::AgentNewer,
        Self::AgentBrokenKept,
        Self::AgentHangs,
        Self::AgentRemoved,
        Self::Reexecs,
        Self::BreaksNetwork,
        Self::OtherKernel,
        Self::KernelAgentBroken,
        Self::OtherSystemd,
        Self::OtherDbus,
        Self::OtherInhibitor,
        Self::ListInhibitors,
        Self::NoInhibitors,
        Self::OtherInit,
        Self::Floods,
        Self::UnlinksFirst,
        Self::NotASystem,
        Self::WrongArchitecture,
        Self::Probe404,
        Self::ProbeSilent,
        Self::BrokenPipe,
        Self::KilledBeforeFlip,
        Self::KilledAfterFlip,
        Self::DarwinGood,
        Self::DarwinFails,
        Self::DarwinHangs,
        Self::DarwinSlow,
        Self::DarwinFloods,
        Self::DarwinRepoints,
        Self::DarwinThird,
        Self::BigA,
        Self::BigB,
        Self::AgentOlder,
    ];

    /// Its name in `systems.nix`, also the label in its `nixos-version` (`25.11.<name>`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Good => "good",
            Self::Good3 => "good3",
            Self::Third => "third",
            Self::Twin => "twin",
            Self::RemovedUnit => "removed-unit",
            Self::UnitFails => "unit-fails",
            Self::NewUnitFails => "new-unit-fails",
            Self::UnitSlow => "unit-slow",
            Self::UnitFailsLate => "unit-fails-late",
            Self::HandStarted => "hand-started",
            Self::HandStartedFails => "hand-started-fails",
            Self::Hangs => "hangs",
            Self::Slow => "slow",
            Self::PrecheckFails => "precheck-fails",
            Self::BootloaderFails => "bootloader-fails",
            Self::Exits1AfterFlip => "exits-1-after-flip",
            Self::ActivateFailsAfterFlip => "activate-fails-after-flip",
            Self::ActivateFailsBeforeFlip => "activate-fails-before-flip",
            Self::RepointsProfile => "repoints-profile",
            Self::FlipsToThird => "flips-to-third",
            Self::RestartsAgent => "restarts-agent",
            Self::AgentBroken => "agent-broken",
            Self::AgentNewer => "agent-newer",
            Self::AgentBrokenKept => "agent-broken-kept",
            Self::AgentHangs => "agent-hangs",
            Self::AgentRemoved => "agent-removed",
            Self::Reexecs => "reexecs",
            Self::BreaksNetwork => "breaks-network",
            Self::OtherKernel => "other-kernel",
            Self::KernelAgentBroken => "kernel-agent-broken",
            Self::OtherSystemd => "other-systemd",
            Self::OtherDbus => "other-dbus",
            Self::OtherInhibitor => "other-inhibitor",
            Self::ListInhibitors => "list-inhibitors",
            Self::NoInhibitors => "no-inhibitors",
            Self::OtherInit => "other-init",
            Self::Floods => "floods",
            Self::UnlinksFirst => "unlinks-first",
            Self::NotASystem => "not-a-system",
            Self::WrongArchitecture => "wrong-architecture",
            Self::Probe404 => "probe-404",
            Self::ProbeSilent => "probe-silent",
            Self::BrokenPipe => "broken-pipe",
            Self::KilledBeforeFlip => "killed-before-flip",
            Self::KilledAfterFlip => "killed-after-flip",
            Self::DarwinGood => "darwin-good",
            Self::DarwinFails => "darwin-fails",
            Self::DarwinHangs => "darwin-hangs",
            Self::DarwinSlow => "darwin-slow",
            Self::DarwinFloods => "darwin-floods",
            Self::DarwinRepoints => "darwin-repoints",
            Self::DarwinThird => "darwin-third",
            Self::BigA => "big-a",
            Self::BigB => "big-b",
            Self::AgentOlder => "agent-older",
        }
    }

    /// One sentence on what it does.
    pub fn about(self) -> &'static str {
        match self {
            Self::Base => {
                "Version 1, which every host boots: demo-a, -b, -r, -l, -n, -old, web on port 8000, the agent."
            }
            Self::Good => {
                "Version 2: demo-a, -b and web stop and start, -r restarts, -l reloads, -n is left, -old goes, -new comes."
            }
            Self::Good3 => "Version 3: as Good with other versions again.",
            Self::Third => "The system that FlipsToThird flips to; the units of Base.",
            Self::Twin => "No change: the units of Base under another store path.",
            Self::RemovedUnit => "Base without demo-old.",
            Self::UnitFails => "demo-b, changed, fails at its start: exit 4.",
            Self::NewUnitFails => "demo-fail, new, fails at its start: exit 4.",
            Self::UnitSlow => "demo-slow needs 5 s to be up; the switch waits for it.",
            Self::UnitFailsLate => {
                "demo-late fails 4 s after the switch that started it: exit 0, and later a failed unit."
            }
            Self::HandStarted => "Base and hand-started.service, which nothing starts but a person.",
            Self::HandStartedFails => {
                "As HandStarted, but that unit fails: exit 4, and a rollback does not bring it back."
            }
            Self::Hangs => "activate sleeps for ever, before the flip.",
            Self::Slow => "activate sleeps 12 s, and on while /run/hold-activate is there, then flips.",
            Self::PrecheckFails => "The pre-switch check refuses: exit 1, nothing changed.",
            Self::BootloaderFails => {
                "The boot loader installer fails: exit 1 for switch and boot; test is well."
            }
            Self::Exits1AfterFlip => {
                "Dies with exit 1 after the flip, before daemon-reload; units stay down."
            }
            Self::ActivateFailsAfterFlip => "A snippet of activate fails, the flip happens: exit 2.",
            Self::ActivateFailsBeforeFlip => {
                "activate dies after /etc moved and before the flip: exit 2, units new, link old."
            }
            Self::RepointsProfile => "activate points the system profile to generation 1.",
            Self::FlipsToThird => "activate makes /run/current-system point to Third.",
            Self::RestartsAgent => "The agent's unit differs and may be restarted.",
            Self::AgentBroken => "The agent is replaced by one that exits 1 at once; its unit is restarted.",
            Self::AgentNewer => "The agent is replaced by a good one; its unit is left as it runs.",
            Self::AgentBrokenKept => {
                "The agent is replaced by one that exits 1 at once; its unit is left as it runs."
            }
            Self::AgentHangs => {
                "The agent is replaced by one that never becomes ready (10 s limit); its unit is restarted."
            }
            Self::AgentRemoved => "No agent unit any more (X-StopOnRemoval=false: it keeps running).",
            Self::Reexecs => "system.conf differs: PID 1 re-executes itself.",
            Self::BreaksNetwork => {
                "activate takes every link but lo down, and network-setup no longer brings them up."
            }
            Self::OtherKernel => "Another kernel, initrd and modules.",
            Self::KernelAgentBroken => "Another kernel, and an agent that exits 1 at once.",
            Self::OtherSystemd => "Another systemd: PID 1 re-executes itself.",
            Self::OtherDbus => "Another dbus.",
            Self::OtherInhibitor => {
                "switch-inhibitors differs in one key: switch and test exit 1, boot works."
            }
            Self::ListInhibitors => "switch-inhibitors in the older list format.",
            Self::NoInhibitors => "Neither switch-inhibitors nor reboot-triggers, as before 26.05.",
            Self::OtherInit => {
                "init-interface-version differs: exit 100 for switch (boot loader done) and test."
            }
            Self::Floods => {
                "activate prints 20 MB on each stream, a line of 3 MB, and bytes that are not UTF-8."
            }
            Self::UnlinksFirst => "/run/current-system is gone for 0.2 s before it is made anew.",
            Self::NotASystem => "A store path without bin/switch-to-configuration.",
            Self::WrongArchitecture => "Its file system says aarch64-linux.",
            Self::Probe404 => "web answers 404 to /health.",
            Self::ProbeSilent => "web is up and nobody listens on port 8000.",
            Self::BrokenPipe => "The reader of its stderr goes away during activate: exit 101, half done.",
            Self::KilledBeforeFlip => "The switch dies by SIGKILL before the flip.",
            Self::KilledAfterFlip => "The switch dies by SIGKILL after the flip.",
            Self::DarwinGood => {
                "Darwin-shaped, and nothing wrong with it: activate moves /etc/static, then flips as its last act."
            }
            Self::DarwinFails => {
                "Darwin-shaped; a step of activate fails after /etc/static moved and before the flip: exit 1."
            }
            Self::DarwinHangs => {
                "Darwin-shaped; activate sleeps for ever after /etc/static moved and before the flip."
            }
            Self::DarwinSlow => "Darwin-shaped; activate sleeps as that of Slow before the flip.",
            Self::DarwinFloods => {
                "Darwin-shaped; activate prints 40 MB on each stream, a line of 3 MB, and bytes that are not UTF-8."
            }
            Self::DarwinRepoints => "Darwin-shaped; activate points the system profile to generation 1.",
            Self::DarwinThird => "Darwin-shaped; activate makes /run/current-system point to Third.",
            Self::BigA => "1,100 store paths more, and 20 units big-0 to big-19 beside those of Base.",
            Self::BigB => "BigA with all 20 big units changed.",
            Self::AgentOlder => {
                "The agent is replaced by one that is older than the host's state; its unit is left as it runs."
            }
        }
    }
}
