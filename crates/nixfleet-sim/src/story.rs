//! What a seed decides before anything happens: the fleet, its policies, and how much goes wrong.

use std::collections::BTreeSet;

use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::host::world::SourceKind;
use nixfleet_core::model::names::{ChannelName, HostName, Tag, WaveName};
use nixfleet_core::model::policy::{Approval, Budget, Edge, OnFailure, Policy, Scope, Wave, WaveIndex};
use nixfleet_core::model::probe::{ProbeKind, ProbeMode, ProbeSpec, TcpProbe};
use nixfleet_core::model::schedule::{Hook, RebootMode, RebootPolicy, Window};
use nixfleet_core::model::select::{Amount, Selector};
use nixfleet_core::model::time::Secs;

use crate::dice::Dice;
use crate::settings::{Faults, Settings};

/// 2026-03-02T12:00:00Z, a Monday: when every run begins.
pub(crate) const START_MS: u64 = 1_772_452_800_000;
pub(crate) const SECOND: u64 = 1_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;
/// How long a release is good, where nothing is said.
pub(crate) const GOOD_FOR: Secs = Secs(30 * 86_400);

/// The fleet and its world.
pub(crate) struct Story {
    pub(crate) channels: Vec<ChannelStory>,
    pub(crate) hosts: Vec<HostStory>,
    pub(crate) rates: Rates,
    /// From here on nothing goes wrong any more.
    pub(crate) calm_at: u64,
    /// How many releases come before that.
    pub(crate) releases: u64,
    /// Between two looks of a host at its source.
    pub(crate) look_every: u64,
    /// For how long a poll for orders is held.
    pub(crate) poll_for: u64,
    /// How long the control plane gathers news before it plans.
    pub(crate) plan_after: u64,
    /// How many processes the control plane has.
    pub(crate) replicas: usize,
    /// How many records an outbox holds before it is tidied.
    pub(crate) outbox_max: usize,
}

pub(crate) struct ChannelStory {
    pub(crate) name: ChannelName,
    pub(crate) policy: Policy,
    pub(crate) probes: Vec<ProbeSpec>,
    pub(crate) follows: Follows,
    /// How long a release is good before it is calm.
    pub(crate) good_for: Secs,
}

/// What the hosts of a channel follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// The control plane.
    TheControlPlane,
    /// A web server, and the control plane knows nothing of the channel.
    TheWebAlone,
    /// One host in five the web server, the others the control plane, which knows all.
    Either,
}

pub(crate) struct HostStory {
    pub(crate) name: HostName,
    pub(crate) channel: usize,
    pub(crate) wave: WaveIndex,
    pub(crate) tags: BTreeSet<Tag>,
    pub(crate) source: SourceKind,
    /// Hosts of one channel and role run the same system.
    pub(crate) role: usize,
}

/// How often something goes wrong before it is calm, in a thousand tries.
#[derive(Default)]
pub(crate) struct Rates {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) slow: u64,
    /// The agent dies between two writes or two effects of a turn.
    pub(crate) agent_cut: u64,
    /// The control plane dies between two writes.
    pub(crate) plane_cut: u64,
    /// A leader stands still before it writes.
    pub(crate) plane_stall: u64,
    /// A worker's job goes wrong for a reason of the host's own.
    pub(crate) trouble: u64,
    /// Releases that are not good.
    pub(crate) bad_release: u64,
    /// Disturbances: one every so many ms.
    pub(crate) disturb_every: Option<u64>,
    /// A person does something every so many ms.
    pub(crate) people_every: Option<u64>,
    /// The thief comes, and stays for so long.
    pub(crate) thief: Option<u64>,
}

/// How many roles a channel has.
pub(crate) const ROLES: usize = 2;

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("names of stories are well-formed")
}

impl Story {
    pub(crate) fn draw(dice: &mut Dice, settings: Settings) -> Self {
        let mut channels: Vec<ChannelStory> =
            (0..dice.between(1, 3)).map(|number| ChannelStory::draw(dice, number, settings.faults)).collect();
        if dice.chance(400) {
            budget_of_the_fleet(dice, &mut channels);
        }
        // Nobody who knows nothing of a channel can wait for it.
        let alone = |channel: &&ChannelStory| channel.follows == Follows::TheWebAlone;
        let unknown: Vec<ChannelName> =
            channels.iter().filter(alone).map(|channel| channel.name.clone()).collect();
        for channel in &mut channels {
            channel.policy.after.retain(|first| !unknown.contains(first));
        }
        let waves: Vec<u64> = channels.iter().map(|channel| channel.policy.waves.len() as u64).collect();
        let hosts = (0..u64::from(settings.hosts))
            .map(|number| HostStory::draw(dice, number, &channels, &waves))
            .collect();
        let rates = match settings.faults {
            Faults::None => Rates::default(),
            Faults::All => Rates::draw(dice),
        };
        let releases = match settings.faults {
            Faults::None => 1,
            Faults::All => dice.between(2, 4),
        };
        Self {
            channels,
            hosts,
            rates,
            calm_at: START_MS + releases * dice.between(35, 80) * MINUTE,
            releases,
            look_every: dice.between(8, 18) * MINUTE,
            poll_for: dice.between(8, 14) * MINUTE,
            plan_after: dice.between(5, 25) * SECOND,
            replicas: usize::try_from(dice.pick(&[1, 1, 2, 3])).unwrap_or(1),
            outbox_max: usize::try_from(dice.pick(&[24, 60, 200])).unwrap_or(60),
        }
    }
}

impl Rates {
    fn draw(dice: &mut Dice) -> Self {
        // Not everything at once: a run in which nothing arrives shows little.
        let some = |dice: &mut Dice, most: u64| if dice.chance(500) { dice.below(most) } else { 0 };
        Self {
            lost: some(dice, 120),
            doubled: some(dice, 150),
            slow: some(dice, 150),
            agent_cut: some(dice, 25),
            plane_cut: some(dice, 12),
            plane_stall: some(dice, 200),
            trouble: some(dice, 150),
            bad_release: 350,
            disturb_every: dice.chance(800).then(|| dice.between(20, 240) * SECOND),
            people_every: dice.chance(500).then(|| dice.between(4, 30) * MINUTE),
            thief: dice.chance(200).then(|| dice.between(5, 30) * MINUTE),
        }
    }
}

impl HostStory {
    fn draw(dice: &mut Dice, number: u64, channels: &[ChannelStory], waves: &[u64]) -> Self {
        let channel = dice.index(channels.len());
        // What others wait for is in the first wave, so that no edge stands against the waves.
        let early = dice.chance(300);
        let wave = if early || dice.chance(100) { 0 } else { dice.below(waves[channel]) };
        let mut tags = BTreeSet::from([name(if early { "early" } else { "late" })]);
        if dice.chance(300) {
            tags.insert(name("db"));
        }
        Self {
            name: name(&format!("h{number:04}")),
            channel,
            wave: WaveIndex(u16::try_from(wave).unwrap_or(0)),
            tags,
            source: match channels[channel].follows {
                Follows::TheWebAlone => SourceKind::Static,
                Follows::Either if dice.chance(200) => SourceKind::Static,
                Follows::Either | Follows::TheControlPlane => SourceKind::ControlPlane,
            },
            role: dice.index(ROLES),
        }
    }
}

impl ChannelStory {
    fn draw(dice: &mut Dice, number: u64, faults: Faults) -> Self {
        let name_of = |number: u64| name::<ChannelName>(&format!("c{number}"));
        let after = if number > 0 && dice.chance(300) {
            BTreeSet::from([name_of(dice.below(number))])
        } else {
            BTreeSet::new()
        };
        let hook = || Hook { argv: vec!["/bin/hook".to_owned()], deadline_secs: Secs(60) };
        let hooks = |dice: &mut Dice| if dice.chance(300) { vec![hook()] } else { Vec::new() };
        let policy = Policy {
            waves: waves(dice),
            max_in_flight: budgets(dice),
            edges: edges(dice),
            after,
            stage_in_flight: dice
                .chance(400)
                .then(|| dice.pick(&[Amount::Percent(50), Amount::Percent(20), Amount::Count(3)])),
            max_failures: u32::try_from(dice.below(3)).unwrap_or(0),
            on_failure: dice.pick(&[
                OnFailure::Revert,
                OnFailure::Revert,
                OnFailure::RevertAll,
                OnFailure::RevertAll,
                OnFailure::Halt,
            ]),
            commit: if dice.chance(850) { CommitPolicy::AfterConfirm } else { CommitPolicy::Immediately },
            confirm_within_secs: Secs(u32::try_from(dice.between(120, 400)).unwrap_or(300)),
            windows: windows(dice),
            reboot: RebootPolicy {
                mode: dice.pick(&[RebootMode::WhenNeeded, RebootMode::WhenNeeded, RebootMode::Always]),
                windows: Vec::new(),
                warn_secs: Secs(dice.pick(&[0, 60])),
                before: hooks(dice),
                after: hooks(dice),
            },
            offline_after_secs: Secs(u32::try_from(dice.between(1_800, 5_400)).unwrap_or(3_600)),
        };
        let probes = match dice.below(4) {
            0 => Vec::new(),
            1 => vec![probe("web", ProbeMode::Enforce), probe("db", ProbeMode::Enforce)],
            2 => vec![probe("web", ProbeMode::Enforce), probe("load", ProbeMode::Observe)],
            _ => vec![probe("web", ProbeMode::Enforce)],
        };
        let follows = match dice.below(10) {
            0 => Follows::TheWebAlone,
            1 => Follows::Either,
            _ => Follows::TheControlPlane,
        };
        let mut story = Self { name: name_of(number), policy, probes, follows, good_for: GOOD_FOR };
        match faults {
            // Nobody can approve a wave of hosts that hear of no person.
            Faults::None if follows != Follows::TheControlPlane => {
                story.policy.waves.iter_mut().for_each(|wave| wave.approval = Approval::NotNeeded);
            }
            Faults::All if dice.chance(200) => {
                story.good_for = Secs(u32::try_from(dice.between(1_200, 7_200)).unwrap_or(3_600));
            }
            Faults::None | Faults::All => {}
        }
        story
    }
}

fn waves(dice: &mut Dice) -> Vec<Wave> {
    let count = dice.between(1, 3);
    let mut opens = 0;
    let wave = |number: u64| {
        opens += if number == 0 { 0 } else { dice.pick(&[0, 300, 1_200]) };
        Wave {
            name: name::<WaveName>(&format!("w{number}")),
            opens_after_secs: Secs(opens),
            soak_secs: Secs(u32::try_from(dice.between(60, 400)).unwrap_or(60)),
            approval: if number > 0 && dice.chance(150) { Approval::ByAPerson } else { Approval::NotNeeded },
        }
    };
    (0..count).map(wave).collect()
}

fn budgets(dice: &mut Dice) -> Vec<Budget> {
    let mut out = Vec::new();
    if dice.chance(700) {
        let limit = Amount::Percent(dice.pick(&[10, 20, 40]));
        out.push(Budget { hosts: Selector::All, limit, scope: Scope::Channel });
    }
    if dice.chance(300) {
        let hosts = Selector::Tag(name("db"));
        let limit = Amount::Count(dice.pick(&[2, 5]));
        out.push(Budget { hosts, limit, scope: Scope::Channel });
    }
    out
}

fn edges(dice: &mut Dice) -> Vec<Edge> {
    let tag = |text: &str| Selector::Tag(name(text));
    let mut out = Vec::new();
    if dice.chance(250) {
        out.push(Edge { hosts: tag("late"), after: tag("early") });
    }
    if dice.chance(150) {
        // Some by name, and by what they are not.
        let first = Selector::AllOf(vec![tag("early"), Selector::Not(Box::new(tag("db")))]);
        out.push(Edge { hosts: Selector::AllOf(vec![tag("late"), tag("db")]), after: first });
    }
    if dice.chance(100) {
        let first = Selector::Host(name(&format!("h{:04}", dice.below(12))));
        let after = Selector::AllOf(vec![tag("early"), first]);
        out.push(Edge { hosts: Selector::Not(Box::new(tag("early"))), after });
    }
    out
}

/// A budget of the whole fleet stands in every policy, or in some, with a limit of their own each. It counts everybody.
fn budget_of_the_fleet(dice: &mut Dice, channels: &mut [ChannelStory]) {
    let hosts = if dice.chance(500) { Selector::Tag(name("db")) } else { Selector::All };
    let everywhere = dice.chance(500);
    for channel in channels {
        let limit = match &hosts {
            Selector::All => Amount::Percent(dice.pick(&[10, 30])),
            _ => Amount::Count(dice.pick(&[2, 5])),
        };
        if everywhere || dice.chance(500) {
            channel.policy.max_in_flight.push(Budget { hosts: hosts.clone(), limit, scope: Scope::Fleet });
        }
    }
}

/// Open half of the day, in a zone that is not the control plane's.
fn windows(dice: &mut Dice) -> Vec<Window> {
    let window = || Window {
        days: Vec::new(),
        from: name("08:00"),
        until: name("20:30"),
        zone: name("Europe/Berlin"),
    };
    if dice.chance(120) { vec![window()] } else { Vec::new() }
}

fn probe(called: &str, mode: ProbeMode) -> ProbeSpec {
    ProbeSpec {
        name: name(called),
        kind: ProbeKind::Tcp(TcpProbe { address: "localhost:80".to_owned() }),
        mode,
        interval_secs: Secs(20),
        timeout_secs: Secs(5),
        after_secs: Secs(0),
        failures: 3,
    }
}
