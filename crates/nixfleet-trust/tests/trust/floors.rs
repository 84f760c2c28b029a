//! No sequence of documents lowers a floor or is accepted without a threshold, compared with a model that is written from
//! the rules and shares no code with the crate.

use std::collections::BTreeSet;

use nixfleet_trust::trust::Trust;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::support::*;

const CHANNELS: [&str; 2] = ["stable", "edge"];
const HOUR: u64 = 3_600_000;

/// What happens to a host. Sets of keys are bits; bit 4 is a stranger's key in every set.
#[derive(Debug, Clone)]
enum Happening {
    Release(ReleaseIdea),
    Root(RootIdea),
    /// Any document from earlier, once more, on either channel.
    Again(Index, usize),
    /// The clock jumps.
    Clock(u64),
    Restart,
}

#[derive(Debug, Clone)]
struct ReleaseIdea {
    asked_on: usize,
    channel: usize,
    our_fleet: bool,
    seq: u64,
    revision: u8,
    created: u64,
    lasts: u64,
    signers: u8,
    tampered: bool,
}

#[derive(Debug, Clone)]
struct RootIdea {
    version: i64,
    our_fleet: bool,
    created: u64,
    lasts: u64,
    root_keys: u8,
    root_threshold: u32,
    channels: [ChannelIdea; 2],
    signers: u8,
    tampered: bool,
}

#[derive(Debug, Clone)]
struct ChannelIdea {
    keys: u8,
    threshold: u32,
    seq_floor: u64,
    resets: u32,
    not_before: u64,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => release_idea().prop_map(Happening::Release),
        4 => root_idea().prop_map(Happening::Root),
        3 => (any::<Index>(), 0usize..2).prop_map(|(which, on)| Happening::Again(which, on)),
        2 => (0u64..400).prop_map(|hours| Happening::Clock(hours * HOUR)),
        1 => Just(Happening::Restart),
    ]
}

/// Mostly true, so that sequences get somewhere.
fn mostly() -> impl Strategy<Value = bool> {
    prop::sample::select(vec![true, true, true, true, true, true, true, true, false])
}

/// Mostly many keys.
fn keys() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0b0_1111u8), 3 => Just(0b0_0111), 2 => 0u8..32]
}

fn release_idea() -> impl Strategy<Value = ReleaseIdea> {
    let who = (0usize..2, mostly(), mostly(), mostly(), keys());
    let what = (0u64..8, 0u8..2, 0u64..300, prop_oneof![Just(1000u64), 1u64..50]);
    (who, what).prop_map(|((asked_on, same, our_fleet, intact, signers), (seq, revision, created, lasts))| {
        let channel = if same { asked_on } else { 1 - asked_on };
        let (created, lasts) = (created * HOUR, lasts * HOUR);
        ReleaseIdea {
            asked_on,
            channel,
            our_fleet,
            seq,
            revision,
            created,
            lasts,
            signers,
            tampered: !intact,
        }
    })
}

fn root_idea() -> impl Strategy<Value = RootIdea> {
    let channel = || {
        (keys(), 0u32..4, prop_oneof![3 => Just(0u64), 1 => 0u64..8], 0u32..3, 0u64..100).prop_map(
            |(keys, threshold, seq_floor, resets, not_before)| ChannelIdea {
                keys: keys & 0b1111,
                threshold,
                seq_floor,
                resets,
                not_before: not_before * HOUR,
            },
        )
    };
    let who = (prop_oneof![8 => Just(1i64), 1 => -1i64..4], mostly(), mostly(), keys(), keys());
    let when = (0u64..300, prop_oneof![3 => Just(2000u64), 1 => 1u64..50]);
    (who, when, 0u32..4, channel(), channel()).prop_map(|(who, (created, lasts), root_threshold, a, b)| {
        let (version, our_fleet, intact, root_keys, signers) = who;
        RootIdea {
            version,
            our_fleet,
            created: created * HOUR,
            lasts: lasts * HOUR,
            root_keys: root_keys & 0b1111,
            root_threshold,
            channels: [a, b],
            signers,
            tampered: !intact,
        }
    })
}

/// The keys of each set: 0 to 3 are the fleet's, 4 is a stranger's.
struct Keys {
    root: Vec<Key>,
    channels: [Vec<Key>; 2],
}

fn set(first: u8) -> Vec<Key> {
    (first..first + 5).map(Key::ed25519).collect()
}

fn chosen(keys: &[Key], bits: u8) -> Vec<&Key> {
    keys.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, key)| key).collect()
}

/// A document with what the model must know of it.
#[derive(Clone)]
struct Document {
    bytes: Vec<u8>,
    meaning: Meaning,
}

#[derive(Clone)]
enum Meaning {
    Release(ReleaseIdea),
    Root(RootIdea, u64),
}

const BEGIN: u64 = NOW;

fn release_document(keys: &Keys, idea: &ReleaseIdea) -> Document {
    let release = json!({
        "fleet": if idea.our_fleet { "acme" } else { "globex" },
        "channel": CHANNELS[idea.channel],
        "seq": idea.seq,
        "created_ms": BEGIN + idea.created,
        "expires_ms": BEGIN + idea.created + idea.lasts,
        "revision": format!("r{}", idea.revision),
        "policy": policy(),
        "hosts": 1,
        "entries_root": hex_digest(b"of no interest here"),
    });
    // Signed by keys of the channel that it is asked for on.
    let signers = chosen(&keys.channels[idea.asked_on], idea.signers);
    Document {
        bytes: tampered(signed(RELEASE, &release, &signers), idea.tampered),
        meaning: Meaning::Release(idea.clone()),
    }
}

fn root_document(keys: &Keys, idea: &RootIdea, version: u64) -> Document {
    let mut all = serde_json::Map::new();
    let mut role = |set: &[Key], bits: u8, threshold: u32| {
        let members = chosen(set, bits);
        all.extend(members.iter().map(|key| (key.id(), Value::from(key.line()))));
        json!({ "keys": members.iter().map(|key| key.id()).collect::<Vec<_>>(), "threshold": threshold })
    };
    let root_role = role(&keys.root, idea.root_keys, idea.root_threshold);
    let mut channels = serde_json::Map::new();
    for ((name, set), idea) in CHANNELS.iter().zip(&keys.channels).zip(&idea.channels) {
        channels.insert(
            (*name).to_owned(),
            json!({
                "release": role(set, idea.keys, idea.threshold),
                "seq_floor": idea.seq_floor,
                "resets": idea.resets,
                "not_before_ms": BEGIN + idea.not_before,
            }),
        );
    }
    let root = json!({
        "fleet": if idea.our_fleet { "acme" } else { "globex" },
        "version": version,
        "created_ms": BEGIN + idea.created,
        "expires_ms": BEGIN + idea.created + idea.lasts,
        "keys": all,
        "root": root_role,
        "channels": channels,
    });
    Document {
        bytes: tampered(signed(ROOT, &root, &chosen(&keys.root, idea.signers)), idea.tampered),
        meaning: Meaning::Root(idea.clone(), version),
    }
}

/// Changes a byte in the payload: the 200th character of its base64.
fn tampered(mut bytes: Vec<u8>, tampered: bool) -> Vec<u8> {
    if tampered {
        bytes[300] = if bytes[300] == b'A' { b'B' } else { b'A' };
    }
    bytes
}

/// The rules, as plainly as they can be said.
struct Model {
    version: u64,
    root: RootIdea,
    /// Per channel: resets followed, the floor, the revision of the release that stands there.
    floors: [(u32, u64, Option<Vec<u8>>); 2],
    newest_signed: u64,
    clock: u64,
}

impl Model {
    fn count(role: u8, signers: u8) -> u32 {
        (role & signers & 0b1111).count_ones()
    }

    fn enough(role: u8, threshold: u32, signers: u8) -> bool {
        threshold >= 1 && Self::count(role, signers) >= threshold
    }

    fn not_from_the_future(&self, created: u64) -> bool {
        created <= self.newest_signed.max(self.clock + 60_000)
    }

    fn takes_release(&self, document: &Document, asked_on: usize) -> bool {
        let Meaning::Release(idea) = &document.meaning else { return false };
        let rules = &self.root.channels[asked_on];
        let now = self.newest_signed.max(self.clock);
        let (_, floor, there) = self.floors[asked_on].clone();
        let created = BEGIN + idea.created;
        !idea.tampered
            // Signed with the keys of the channel that it was made to be asked for on.
            && idea.asked_on == asked_on
            && Self::enough(rules.keys, rules.threshold, idea.signers)
            && idea.our_fleet
            && idea.channel == asked_on
            && (idea.seq > floor || (idea.seq == floor && there.is_none_or(|it| it == payload(&document.bytes))))
            && self.not_from_the_future(created)
            && created >= BEGIN + rules.not_before
            && created + idea.lasts > now
            && BEGIN + self.root.created + self.root.lasts > now
    }

    fn follow(&mut self, document: &Document, asked_on: usize) {
        let Meaning::Release(idea) = &document.meaning else { unreachable!("only releases are followed") };
        let resets = self.floors[asked_on].0;
        self.floors[asked_on] = (resets, idea.seq, Some(payload(&document.bytes)));
        self.newest_signed = self.newest_signed.max(BEGIN + idea.created);
    }

    fn takes_root(&self, document: &Document) -> bool {
        let Meaning::Root(idea, version) = &document.meaning else { return false };
        let good_role = |keys: u8, threshold: u32| threshold >= 1 && keys.count_ones() >= threshold;
        !idea.tampered
            && Self::enough(self.root.root_keys, self.root.root_threshold, idea.signers)
            && Self::enough(idea.root_keys, idea.root_threshold, idea.signers)
            && idea.our_fleet
            && *version == self.version + 1
            && idea.channels.iter().all(|channel| good_role(channel.keys, channel.threshold))
            && (0..2).all(|n| idea.channels[n].resets >= self.root.channels[n].resets)
            && self.not_from_the_future(BEGIN + idea.created)
    }

    fn put_in_force(&mut self, document: &Document) {
        let Meaning::Root(idea, version) = &document.meaning else {
            unreachable!("only roots are put in force")
        };
        let mut reset = false;
        for (floor, rules) in self.floors.iter_mut().zip(&idea.channels) {
            let (resets, seq, _) = floor.clone();
            if rules.resets > resets {
                reset = true;
                *floor = (rules.resets, rules.seq_floor, None);
            } else if rules.seq_floor > seq {
                *floor = (resets, rules.seq_floor, None);
            }
        }
        let created = BEGIN + idea.created;
        self.newest_signed = if reset { created } else { self.newest_signed.max(created) };
        (self.version, self.root) = (*version, idea.clone());
    }
}

/// The payload's base64: what tells one release from another.
fn payload(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|&byte| byte == b'"').nth(7).expect("an envelope").to_vec()
}

/// The first root: all four keys of each set, thresholds of two.
fn first_root() -> RootIdea {
    let channel = ChannelIdea { keys: 0b1111, threshold: 2, seq_floor: 1, resets: 0, not_before: 0 };
    RootIdea {
        version: 0,
        our_fleet: true,
        created: 0,
        lasts: 2000 * HOUR,
        root_keys: 0b1111,
        root_threshold: 2,
        channels: [channel.clone(), channel],
        signers: 0b1111,
        tampered: false,
    }
}

/// Plays `happenings`, compares each step with the model, and returns how many documents were accepted.
fn play(happenings: &[Happening]) -> Result<u32, TestCaseError> {
    let keys = Keys { root: set(1), channels: [set(11), set(21)] };
    let first = root_document(&keys, &first_root(), 1);
    let mut trust = Trust::begin(&first.bytes).expect("the first root is sound");
    let floors_at_first = [(0, 1, None), (0, 1, None)];
    let mut model =
        Model { version: 1, root: first_root(), floors: floors_at_first, newest_signed: BEGIN, clock: BEGIN };
    let (mut documents, mut accepted) = (vec![first.clone()], 0);
    for happening in happenings {
        let (document, asked_on) = match happening {
            Happening::Clock(offset) => {
                model.clock = BEGIN + offset;
                continue;
            }
            Happening::Restart => {
                let again = Trust::open(&first.bytes, Some(&trust.to_saved().to_bytes()));
                prop_assert!(again.is_ok_and(|again| again == trust), "a restart changes something");
                continue;
            }
            Happening::Release(idea) => (release_document(&keys, idea), idea.asked_on),
            Happening::Root(idea) => {
                let version = model.version.saturating_add_signed(idea.version).max(1);
                (root_document(&keys, idea, version), 0)
            }
            Happening::Again(which, asked_on) => (which.get(&documents).clone(), *asked_on),
        };
        let floors_before = floors(&trust);
        let next = match &document.meaning {
            Meaning::Release(_) => trust
                .accept_release(
                    &CHANNELS[asked_on].parse().expect("a name"),
                    &document.bytes,
                    at(model.clock),
                )
                .ok()
                .map(|accepted| accepted.trust),
            Meaning::Root(..) => trust.accept_root(&document.bytes, at(model.clock)).ok(),
        };
        let expected = match &document.meaning {
            Meaning::Release(_) => model.takes_release(&document, asked_on),
            Meaning::Root(..) => model.takes_root(&document),
        };
        prop_assert_eq!(next.is_some(), expected, "{:?}", happening);
        if let Some(next) = next {
            accepted += 1;
            trust = next;
            match &document.meaning {
                Meaning::Release(_) => model.follow(&document, asked_on),
                Meaning::Root(..) => model.put_in_force(&document),
            }
            // Resets first: only a root that the owner signed for that purpose lowers a number.
            for (before, after) in floors_before.iter().zip(floors(&trust)) {
                prop_assert!(*before <= after, "{before:?} fell to {after:?} by {happening:?}");
            }
        }
        for channel in 0..2 {
            let (resets, seq, _) = model.floors[channel].clone();
            prop_assert_eq!(floors(&trust)[channel], (resets, seq));
        }
        documents.push(document);
    }
    Ok(accepted)
}

fn floors(trust: &Trust) -> [(u32, u64); 2] {
    CHANNELS.map(|name| {
        let floor = trust.floor(&name.parse().expect("a name")).expect("both roots know it");
        (floor.resets, floor.seq.get())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_documents_lowers_a_floor_or_is_accepted_without_a_threshold(
        happenings in prop::collection::vec(happening(), 1..40),
    ) {
        play(&happenings)?;
    }
}

#[test]
fn the_sequences_get_somewhere() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let sequences = prop::collection::vec(happening(), 40);
    let accepted: Vec<u32> = (0..30)
        .map(|_| play(&sequences.new_tree(&mut runner).expect("a tree").current()).expect("it plays"))
        .collect();
    let different: BTreeSet<_> = accepted.iter().collect();
    assert!(accepted.iter().sum::<u32>() >= 60, "{accepted:?}");
    assert!(different.len() >= 3, "{accepted:?}");
}
