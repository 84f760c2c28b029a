//! What was signed, and what is true of systems: what hosts and control plane may learn only by asking.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use nixfleet_core::host::Terms;
use nixfleet_core::ids::{ClosureDigest, StorePath};
use nixfleet_core::model::names::{FleetId, HostKey, ReleaseId, Seq, Sha256};
use nixfleet_core::model::release::{Closure, Entry, Release, Revision};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::fact::{Current, Placed};

use crate::dice::Dice;
use crate::story::{GOOD_FOR, ROLES, Story};

/// A system, by its place in [`Truth::systems`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct System(pub(crate) u32);

/// What a system does to a host, in a thousand switches to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Quality {
    /// A reboot is needed, always.
    pub(crate) needs_reboot: bool,
    /// It can be switched to, and wants a reboot after that.
    pub(crate) wants_reboot: bool,
    /// Its own check refuses it; nothing changes.
    pub(crate) refused: u64,
    /// Units fail, and the activation goes back by itself.
    pub(crate) units: u64,
    /// A probe fails from the switch on.
    pub(crate) probe: u64,
    /// A probe fails minutes later.
    pub(crate) later: u64,
}

/// A release that was signed, or that somebody made up.
pub(crate) struct Signed {
    pub(crate) id: ReleaseId,
    pub(crate) current: Current,
    /// By the host's place in the story; `None` for hosts of other channels.
    pub(crate) terms: Vec<Option<Arc<Terms>>>,
}

/// All of it.
pub(crate) struct Truth {
    pub(crate) systems: Vec<StorePath>,
    pub(crate) qualities: Vec<Quality>,
    by_path: HashMap<StorePath, System>,
    /// By channel and role, what the newest release has.
    newest: Vec<Vec<System>>,
    /// By channel, in the order of their numbers.
    pub(crate) signed: Vec<Vec<Arc<Signed>>>,
}

/// The round of the good release that ends a run.
pub(crate) const LAST_ROUND: u64 = 1_000;
/// How often a release leaves the systems of a role as they are.
const KEPT_IN_THOUSAND: u64 = 150;
const HASH: &str = "0123456789abcdfghijklmnpqrsvwxyz";

impl Truth {
    pub(crate) fn new(story: &Story) -> Self {
        let mut truth = Self {
            systems: Vec::new(),
            qualities: Vec::new(),
            by_path: HashMap::new(),
            newest: (0..story.channels.len())
                .map(|channel| (0..ROLES).map(|role| Self::first_system(channel, role)).collect())
                .collect(),
            signed: story.channels.iter().map(|_| Vec::new()).collect(),
        };
        for channel in 0..story.channels.len() {
            for role in 0..ROLES {
                truth.make_system(&format!("c{channel}-r{role}-first"), Quality::default());
            }
        }
        truth
    }

    /// What hosts of a channel and role run at the beginning.
    pub(crate) fn first_system(channel: usize, role: usize) -> System {
        System(u32::try_from(channel * ROLES + role).unwrap_or(0))
    }

    pub(crate) fn path(&self, system: System) -> &StorePath {
        &self.systems[system.0 as usize]
    }

    pub(crate) fn quality(&self, system: System) -> Quality {
        self.qualities[system.0 as usize]
    }

    pub(crate) fn system(&self, path: &StorePath) -> Option<System> {
        self.by_path.get(path).copied()
    }

    fn make_system(&mut self, name: &str, quality: Quality) -> System {
        let system = System(u32::try_from(self.systems.len()).unwrap_or(u32::MAX));
        let path: StorePath =
            format!("/nix/store/{HASH}-nixos-system-{name}").parse().expect("it is well-formed");
        self.by_path.insert(path.clone(), system);
        self.systems.push(path);
        self.qualities.push(quality);
        system
    }

    /// The next release of a channel, to be signed.
    pub(crate) fn sign(
        &mut self,
        (story, dice): (&Story, &mut Dice),
        channel: usize,
        (round, now, bad_in_thousand): (u64, u64, u64),
    ) -> Signed {
        let seq = self.signed[channel].last().map_or(1, |last| last.id.seq.get() + 1);
        // The last release of a run is a good one, also where the one before was not.
        let before = if round >= LAST_ROUND { Vec::new() } else { self.newest[channel].clone() };
        let keeps = bad_in_thousand > 0;
        let systems: Vec<System> = (0..ROLES)
            .map(|role| {
                if let Some(kept) = before.get(role).filter(|_| keeps && dice.chance(KEPT_IN_THOUSAND)) {
                    return *kept;
                }
                let quality = draw_quality(dice, bad_in_thousand);
                self.make_system(&format!("c{channel}-r{role}-{seq}"), quality)
            })
            .collect();
        self.newest[channel].clone_from(&systems);
        self.assemble(story, channel, (seq, round, now), &systems)
    }

    /// A release that nobody signed: another digest, a number of the thief's choice, systems of his own.
    pub(crate) fn forge(&mut self, story: &Story, channel: usize, seq: u64, now: u64) -> Arc<Signed> {
        let systems: Vec<System> = (0..ROLES)
            .map(|role| self.make_system(&format!("c{channel}-r{role}-evil-{seq}"), Quality::default()))
            .collect();
        let mut forged = self.assemble(story, channel, (seq, 1_000_000, now), &systems);
        let digest = Sha256::new([0xee; 32]);
        forged.id.digest = digest;
        forged.current.id.digest = digest;
        for terms in forged.terms.iter_mut().flatten() {
            Arc::make_mut(terms).release.digest = digest;
        }
        Arc::new(forged)
    }

    /// What a release that was signed says to a host.
    pub(crate) fn terms(&self, channel: usize, host: usize, id: &ReleaseId) -> Option<&Terms> {
        let signed = self.signed[channel].iter().find(|signed| signed.id == *id)?;
        signed.terms.get(host)?.as_deref()
    }

    /// Whether it was signed.
    pub(crate) fn is_signed(&self, channel: usize, id: &ReleaseId) -> bool {
        self.signed[channel].iter().any(|signed| signed.id == *id)
    }

    fn assemble(
        &self,
        story: &Story,
        channel: usize,
        (seq, round, now): (u64, u64, u64),
        systems: &[System],
    ) -> Signed {
        let story_of = &story.channels[channel];
        let mut digest = [u8::try_from(channel).unwrap_or(0); 32];
        digest[24..].copy_from_slice(&seq.to_be_bytes());
        let seq = Seq::new(seq).expect("numbers of stories are small");
        let id = ReleaseId { channel: story_of.name.clone(), seq, digest: Sha256::new(digest) };
        let created_ms = UnixMs::new(now).unwrap_or(UnixMs::MAX);
        let revision: Revision = format!("rev{round}").parse().expect("it is well-formed");
        let release = Release {
            fleet: FLEET.parse::<FleetId>().expect("it is well-formed"),
            channel: story_of.name.clone(),
            seq,
            created_ms,
            expires_ms: created_ms.plus(if round >= LAST_ROUND { GOOD_FOR } else { story_of.good_for }),
            revision: revision.clone(),
            policy: story_of.policy.clone(),
            hosts: u32::try_from(story.hosts.len()).unwrap_or(u32::MAX),
            entries_root: Sha256::new(digest),
            previous: None,
            info: BTreeMap::new(),
        };
        let terms = (0..story.hosts.len())
            .map(|host| {
                let host = &story.hosts[host];
                let entry = (host.channel == channel).then(|| self.entry(story, host, systems[host.role]))?;
                Some(Arc::new(Terms::new(id.clone(), &release, &entry).expect("waves of stories exist")))
            })
            .collect();
        let current = Current {
            id: id.clone(),
            revision,
            created_ms,
            expires_ms: release.expires_ms,
            policy: release.policy,
        };
        Signed { id, current, terms }
    }

    fn entry(&self, story: &Story, host: &crate::story::HostStory, system: System) -> Entry {
        Entry {
            host: host.name.clone(),
            keys: vec![KEY.parse::<HostKey>().expect("it is well-formed")],
            tags: host.tags.clone(),
            wave: host.wave,
            system: self.path(system).clone(),
            closure: Closure {
                digest: ClosureDigest::from_sha256(&[u8::try_from(system.0 % 251).unwrap_or(0); 32]),
                fetch_bytes: 1_000,
                unpacked_bytes: 3_000,
            },
            probes: story.channels[host.channel].probes.clone(),
            reboot: None,
        }
    }
}

const FLEET: &str = "fleet-1";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEx1";

impl Signed {
    /// The hosts that it names, as the planner knows them.
    pub(crate) fn placed(&self, story: &Story) -> BTreeMap<nixfleet_core::model::names::HostName, Placed> {
        let named = self.terms.iter().zip(&story.hosts);
        let placed = named.filter_map(|(terms, host)| {
            let terms = terms.as_ref()?;
            let (wave, tags, system) = (host.wave, host.tags.clone(), terms.system.clone());
            Some((host.name.clone(), Placed { wave, tags, system }))
        });
        placed.collect()
    }
}

fn draw_quality(dice: &mut Dice, bad_in_thousand: u64) -> Quality {
    let mut quality = Quality { needs_reboot: dice.chance(150), ..Quality::default() };
    quality.wants_reboot = !quality.needs_reboot && dice.chance(150);
    if !dice.chance(bad_in_thousand) {
        return quality;
    }
    // Some fail on every host, some on a few.
    let share = dice.pick(&[30, 200, 1_000]);
    match dice.below(4) {
        0 => quality.refused = share,
        1 => quality.units = share,
        2 => quality.probe = share,
        _ => quality.later = share,
    }
    quality
}
