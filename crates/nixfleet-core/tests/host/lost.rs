//! Reports that were lost: whoever folds what is left arrives at the host's state all the same, and knows when it does not
//! have it.

use nixfleet_core::host::event::Weight;
use nixfleet_core::host::follow::Taken;
use nixfleet_core::host::{Event, Follower, HostState, Record, retry};
use nixfleet_core::model::names::{HostName, ReleaseId};
use proptest::prelude::*;

use crate::sim::Sim;
use crate::support::{Host, release, terms};
use nixfleet_core::host::world::SourceKind;

fn seed() -> u64 {
    retry::seed_of(&"web-1".parse::<HostName>().unwrap())
}

fn take(follower: &mut Follower, host: &Host, record: &Record) -> Taken {
    let find = |named: &ReleaseId| host.releases.iter().find(|terms| terms.release == *named);
    let read = Record::from_json(record.to_json().as_bytes()).unwrap();
    follower.take(read, seed(), &find).unwrap_or_else(|diverged| panic!("{}: {diverged:?}", record.seq))
}

/// That the records from `from` up to that of `last` are gone.
fn lost(from: u64, last: &Record) -> Record {
    Record { fact: Event::ReportsLost { from }, ..last.clone() }
}

/// The log without those that `goes` says; a marker in the place of each row of them.
fn without(log: &[Record], goes: impl Fn(&Record) -> bool) -> Vec<Record> {
    let mut left: Vec<Record> = Vec::new();
    for record in log {
        match left.last_mut() {
            Some(Record { fact: Event::ReportsLost { from }, .. }) if goes(record) => {
                let from = *from;
                *left.last_mut().unwrap() = lost(from, record);
            }
            Some(_) | None if goes(record) => left.push(lost(record.seq, record)),
            Some(_) | None => left.push(record.clone()),
        }
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any records may be lost, also those that tell a state; what comes may come twice, and in any order within a batch.
    #[test]
    fn whoever_folds_what_is_left_of_a_log_arrives_at_the_hosts_state(
        throws in prop::collection::vec(any::<u8>(), 0..400),
        gone in prop::collection::vec(any::<bool>(), 1..40),
        batch in 1usize..9,
    ) {
        let mut sim = Sim::new(throws);
        sim.play();
        let newest = sim.host.state.seq;
        sim.tells();
        let host = &sim.host;
        let goes = |record: &Record| {
            record.seq <= newest && gone[usize::try_from(record.seq).unwrap() % gone.len()]
        };
        let left = without(&host.log, goes);
        let mut follower = Follower::default();
        for records in left.chunks(batch) {
            for record in records.iter().rev().chain(records) {
                take(&mut follower, host, record);
            }
            let last = records.last().unwrap();
            prop_assert_eq!(follower.told(), last.seq, "nothing is asked for that is gone");
            if !follower.is_behind() {
                prop_assert_eq!(follower.state(), &host.states[&last.seq]);
            }
            follower = Follower::resume(follower.state().clone(), follower.told());
        }
        prop_assert!(!follower.is_behind());
        prop_assert_eq!(follower.state(), &host.state);
    }

    /// What the outbox drops is progress; a verdict among it is still told, and the state comes with the next telling.
    #[test]
    fn verdicts_between_lost_progress_are_still_taken_in(throws in prop::collection::vec(any::<u8>(), 50..400)) {
        let mut sim = Sim::new(throws);
        sim.play();
        sim.tells();
        let host = &sim.host;
        let newest = host.state.seq;
        let goes = |record: &Record| record.fact.weight() == Weight::Progress && record.seq < newest;
        let mut follower = Follower::default();
        for record in without(&host.log, goes) {
            prop_assert!(matches!(take(&mut follower, host, &record), Taken::Folded(_)));
        }
        prop_assert_eq!(follower.state(), &host.state);
    }
}

#[test]
fn a_marker_that_grew_since_it_was_sent_is_taken_for_what_it_says_now() {
    let mut host = Host::started(SourceKind::Static);
    host.offer(terms(1));
    let before = host.state.clone();
    host.feed(Event::StateTold { state: Box::new(before) });
    let log = host.log.clone();
    let told = log.last().unwrap();
    let mut follower = Follower::default();
    assert_eq!(take(&mut follower, &host, &log[0]), Taken::Folded(1));
    assert_eq!(take(&mut follower, &host, &lost(2, &log[1])), Taken::Folded(1));
    assert!(follower.is_behind());
    assert_eq!(follower.state(), &host.states[&1], "the last that is known");
    // Later the agent dropped more, and begins the batch with what it says now.
    assert_eq!(take(&mut follower, &host, &lost(1, &log[2])), Taken::Folded(1));
    assert_eq!(take(&mut follower, &host, &lost(2, &log[1])), Taken::Repeat);
    assert_eq!(take(&mut follower, &host, told), Taken::Early(4));
    assert_eq!(take(&mut follower, &host, &lost(4, &log[log.len() - 2])), Taken::Folded(2));
    assert_eq!((follower.is_behind(), follower.state()), (false, &host.state));
}

#[test]
fn a_state_that_is_not_the_one_that_was_followed_is_refused_and_moves_nobody() {
    let mut host = Host::started(SourceKind::Static);
    let other = HostState { go: Some(release(7)), ..host.state.clone() };
    let before = host.state.clone();
    let refused = host.try_feed(&Event::StateTold { state: Box::new(other) });
    assert!(refused.is_err(), "the host itself is not moved by it");
    assert!(host.try_feed(&Event::ReportsLost { from: 1 }).is_err());
    assert_eq!(host.state, before);
}
