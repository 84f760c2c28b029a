//! Whoever folds what an outbox sends arrives at the host's state: with the real machine, little room, crashes between any
//! two writes, a receiver that forgets, and lines that the disk altered.

use std::path::PathBuf;

use nixfleet_core::host::event::Event;
use nixfleet_core::host::world::{Reboots, Setup, SourceKind, World};
use nixfleet_core::host::{Advance, Context, Follower, HostState, Now, UpMs, advance};
use nixfleet_core::model::time::{Secs, UnixMs};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const SEED: u64 = 7;
/// Room for two or three states and some twenty other records.
const LIMITS: Limits = Limits { file_bytes_max: 12_000, receiver: Receiver::Acknowledges };

#[derive(Debug, Clone)]
enum Act {
    /// Something happens to the host, so many times.
    Happens(u8, u8),
    /// The receiver is sent a batch, and acknowledges it or not.
    Sends { count: u8, is_acknowledged: bool },
    /// The receiver lost everything.
    Forgets,
    /// The agent dies after the log, before the state.
    DiesUnsaved,
    /// It starts again.
    Restarts,
    /// A byte of the file is altered while no agent runs.
    Rots(u16),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0u8..6, 1u8..20).prop_map(|(what, times)| Act::Happens(what, times)),
        4 => (1u8..30, any::<bool>()).prop_map(|(count, is_acknowledged)| Act::Sends { count, is_acknowledged }),
        1 => Just(Act::Forgets),
        1 => Just(Act::DiesUnsaved),
        1 => Just(Act::Restarts),
        1 => any::<u16>().prop_map(Act::Rots),
    ]
}

/// A host of which only the log and the state are real.
struct Reporter {
    _dir: TempDir,
    path: PathBuf,
    outbox: Outbox,
    saved: HostState,
    now: Now,
    receiver: Follower,
    lost: usize,
}

impl Reporter {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("outbox.jsonl");
        let (outbox, _) = Outbox::open(&path, 0, LIMITS).expect("it opens");
        let now = Now { at: UnixMs::new(1_700_000_000_000).expect("in range"), up: UpMs(1_000) };
        let (saved, receiver) = (HostState::fresh(), Follower::default());
        let mut new = Self { _dir: dir, path, outbox, saved, now, receiver, lost: 0 };
        new.starts();
        new
    }

    fn advance(&self, event: &Event) -> Advance {
        let context = Context { seed: SEED, terms: None };
        advance(&self.saved, event, &context, self.now).expect("it is taken")
    }

    /// A turn of the reducer, and one more for a state that is owed: as in `Following::take`.
    fn takes(&mut self, event: &Event) {
        self.turn(event);
        self.tells_owed();
    }

    /// As in `Following::tell_owed`.
    fn tells_owed(&mut self) {
        if self.outbox.owes_state() {
            self.turn(&Event::StateTold { state: Box::new(self.saved.clone()) });
        }
        assert!(!self.outbox.owes_state());
    }

    fn turn(&mut self, event: &Event) {
        let next = self.advance(event);
        self.lost += self.outbox.append(&next.records).expect("room").dropped;
        self.saved = next.next;
    }

    fn starts(&mut self) {
        self.outbox = Outbox::open(&self.path, self.saved.seq, LIMITS).expect("it opens").0;
        let setup = Setup {
            agent: "0.1.0".into(),
            host: "web-1".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            source: SourceKind::ControlPlane,
            reboots: Reboots::default(),
        };
        self.takes(&Event::AgentStarted { setup, world: World::default(), journal: None, root: None });
        // As the answer to its hello has it: the line that said so may be the one that the disk altered.
        if self.receiver.told() < self.outbox.acknowledged() {
            let _ = self.outbox.send_again_from(self.receiver.told() + 1).expect("room");
            self.tells_owed();
        }
    }

    fn happens(&mut self, what: u8) {
        self.now = Now { at: self.now.at.plus(Secs(1)), up: self.now.up.plus(Secs(1)) };
        let by = || format!("{}", self.now.at.get());
        let release = nixfleet_core::model::names::ReleaseId {
            channel: "stable".parse().expect("a name"),
            seq: nixfleet_core::model::names::Seq::new(self.now.at.get() % 1_000 + 1).expect("not zero"),
            digest: nixfleet_core::model::names::Sha256::new([7; 32]),
        };
        let event = match what {
            // Two kinds of progress that change the state by turns.
            0 => Event::SourceFailed { why: by() },
            1 => Event::SourceAnswered { watch: None },
            2 => Event::Held { by: by(), why: "a sale".into(), until_ms: None },
            3 => Event::OrderedToGo { release },
            4 => Event::OrderWithdrawn { release: self.saved.go.clone().unwrap_or(release) },
            _ => Event::Unheld { by: by() },
        };
        self.takes(&event);
    }

    fn sends(&mut self, count: usize, is_acknowledged: bool) {
        for record in self.outbox.unsent(count, usize::MAX) {
            self.receiver.take(record, SEED, &|_| None).expect("it can be followed");
        }
        if is_acknowledged {
            let _ = self.outbox.acknowledge(self.receiver.told()).expect("room");
            self.tells_owed();
        }
        if !self.receiver.is_behind() && self.receiver.told() == self.saved.seq {
            assert_eq!(self.receiver.state(), &self.saved);
        }
    }

    fn does(&mut self, act: &Act) {
        match act {
            Act::Happens(what, times) => {
                for turn in 0..*times {
                    self.happens(if *what < 2 { turn % 2 } else { *what });
                }
            }
            Act::Sends { count, is_acknowledged } => self.sends(usize::from(*count), *is_acknowledged),
            Act::Forgets => {
                self.receiver = Follower::default();
                let _ = self.outbox.send_again_from(1).expect("room");
                self.tells_owed();
            }
            Act::DiesUnsaved => {
                let records =
                    self.advance(&Event::Held { by: "ada".into(), why: "lost".into(), until_ms: None });
                let _ = self.outbox.append(&records.records).expect("room");
                self.starts();
            }
            Act::Restarts => self.starts(),
            Act::Rots(at) => {
                let mut bytes = std::fs::read(&self.path).expect("there");
                let at = usize::from(*at) % bytes.len();
                // A lost newline is another fault: it makes one damaged line of two, or a torn one of the last.
                if bytes[at] != b'\n' {
                    bytes[at] ^= 0x40;
                    nixfleet_sys::fs::write_atomic(&self.path, &bytes).expect("written");
                }
                self.starts();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whoever_folds_what_an_outbox_sends_arrives_at_the_hosts_state(
        acts in prop::collection::vec(any_act(), 1..40),
    ) {
        let mut host = Reporter::new();
        for act in &acts {
            host.does(act);
        }
        host.sends(usize::MAX, true);
        prop_assert!(!host.receiver.is_behind());
        prop_assert_eq!(host.receiver.state(), &host.saved);
    }
}

#[test]
fn a_state_that_was_told_stays_where_verdicts_take_all_the_room() {
    let mut host = Reporter::new();
    // Verdicts that nobody has, progress that gives way to them, and a line that the disk altered.
    for (what, times) in [(2, 13), (0, 6), (5, 1), (2, 3), (2, 16), (2, 13), (2, 17)] {
        host.does(&Act::Happens(what, times));
    }
    host.does(&Act::Rots(307));
    host.sends(usize::MAX, true);
    assert_eq!((host.receiver.is_behind(), host.receiver.state()), (false, &host.saved));
}

#[test]
fn a_receiver_that_is_away_until_progress_is_dropped_still_knows_where_the_host_stands() {
    let mut host = Reporter::new();
    host.does(&Act::Happens(2, 3));
    for _ in 0..30 {
        host.does(&Act::Happens(0, 20));
    }
    assert!(host.lost > 100, "{} were dropped", host.lost);
    while !host.outbox.unsent(1, usize::MAX).is_empty() {
        host.sends(7, true);
    }
    assert_eq!((host.receiver.is_behind(), host.receiver.state()), (false, &host.saved));
}
