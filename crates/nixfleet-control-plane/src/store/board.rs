//! What is asked of each host, in memory: a poll that brings nothing asks the database nothing. And what every host asks
//! that comes back or is on trial: whose its key is, and which release is the newest of its channel.
//!
//! A note says how things were at an event of the log. A write of this process leaves its notes when it is committed; what
//! other processes wrote is seen in the log some moments later, and whatever it made old goes then. What has no note is read
//! again. So this is never the truth, and two limits say how wrong it may be: no note counts while the log is not being
//! followed, nor when it is older than [`BELIEVED_FOR`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::wire::Order;
use nixfleet_trust::key::KeyId;

use super::planned::Touched;

/// How long a note is believed, whatever the log says: what changes rows without an event (a host whose reports do not fit,
/// another program on the same database) is seen within this time. For 10,000 hosts it is 33 reads a second.
const BELIEVED_FOR: Duration = Duration::from_mins(5);
/// Notes count when the log was read to its end within this time. It is read every second; a round of plans takes a few.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(15);

/// What is asked of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// All of it, oldest first.
    pub orders: Vec<Order>,
    /// Whether the host's state is known here, and its events can be followed.
    pub is_followed: bool,
}

/// The notes of a process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    /// At most one for each host that a release names: nobody else gets as far as to ask.
    hosts: HashMap<HostName, Note>,
    /// Hosts by their keys, and the newest release of channels as it is served: those that were asked for since the newest
    /// release. At most one for each key and channel that a release names.
    keys: HashMap<KeyId, HostName>,
    latest: HashMap<ChannelName, Vec<u8>>,
    /// The event of the newest release. It may change everything, so what was noted before it is void.
    released: u64,
    /// When the log was last read to its end.
    followed: Option<Instant>,
}

#[derive(Debug)]
struct Note {
    asked: Asked,
    /// The event as of which it is so.
    event: u64,
    at: Instant,
}

/// Which releases have been seen: what is remembered beside a connection is void when this is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released(u64);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is asked of `host`, if that is known.
    pub fn look(&self, host: &HostName) -> Option<Asked> {
        let notes = self.lock();
        let note = notes.hosts.get(host).filter(|note| note.at.elapsed() < BELIEVED_FOR)?;
        notes.is_following().then(|| note.asked.clone())
    }

    /// Which releases have been seen, if that is known.
    pub fn released(&self) -> Option<Released> {
        let notes = self.lock();
        notes.is_following().then_some(Released(notes.released))
    }

    /// Whose this key is, if that is known.
    pub fn host_of(&self, key: &KeyId) -> Option<HostName> {
        let notes = self.lock();
        notes.is_following().then(|| notes.keys.get(key).cloned())?
    }

    /// Notes whose this key is, as it was read after `released` was seen.
    pub fn note_key(&self, released: Released, key: &KeyId, host: &HostName) {
        let mut notes = self.lock();
        if notes.released == released.0 {
            notes.keys.insert(key.clone(), host.clone());
        }
    }

    /// The document with the newest release of this channel, if that is known.
    pub fn latest(&self, channel: &ChannelName) -> Option<Vec<u8>> {
        let notes = self.lock();
        notes.is_following().then(|| notes.latest.get(channel).cloned())?
    }

    /// Notes the document with the newest release of this channel, as it was read after `released` was seen.
    pub fn note_latest(&self, released: Released, channel: &ChannelName, document: &[u8]) {
        let mut notes = self.lock();
        if notes.released == released.0 {
            notes.latest.insert(channel.clone(), document.to_vec());
        }
    }

    /// Notes what was so as of the event `event`, unless it is known as of a later one.
    pub fn note(&self, event: u64, hosts: impl IntoIterator<Item = (HostName, Asked)>) {
        let (mut notes, at) = (self.lock(), Instant::now());
        for (host, asked) in hosts {
            let is_known = notes.hosts.get(&host).is_some_and(|note| note.event > event);
            if !is_known && event >= notes.released {
                notes.hosts.insert(host, Note { asked, event, at });
            }
        }
    }

    /// A release was taken in with the event `event`.
    pub fn release_taken(&self, event: u64) {
        self.lock().void_before(event);
    }

    /// Takes in what events were about, whoever wrote them.
    pub fn touched(&self, touched: &Touched) {
        let mut notes = self.lock();
        if let Some(newest) = touched.released.values().max() {
            notes.void_before(*newest);
        }
        for (host, event) in &touched.hosts {
            if notes.hosts.get(host).is_some_and(|note| note.event < *event) {
                notes.hosts.remove(host);
            }
        }
        if !touched.more {
            notes.followed = Some(Instant::now());
        }
    }

    /// Those of `hosts` that have no note.
    pub fn unknown<'a>(&self, hosts: impl IntoIterator<Item = &'a HostName>) -> Vec<String> {
        let notes = self.lock();
        hosts.into_iter().filter(|host| !notes.hosts.contains_key(*host)).map(ToString::to_string).collect()
    }
}

impl Notes {
    fn is_following(&self) -> bool {
        self.followed.is_some_and(|at| at.elapsed() < FOLLOWED_WITHIN)
    }

    fn void_before(&mut self, event: u64) {
        self.released = self.released.max(event);
        let released = self.released;
        self.keys.clear();
        self.latest.clear();
        self.hosts.retain(|_, note| note.event >= released);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn host() -> HostName {
        "web-1".parse().expect("a name")
    }

    /// Something that differs by the event as of which it is so.
    fn asked(is_followed: bool) -> Asked {
        Asked { orders: Vec::new(), is_followed }
    }

    fn key() -> KeyId {
        format!("SHA256:{}", "A".repeat(43)).parse().expect("a fingerprint")
    }

    fn about(event: u64) -> Touched {
        Touched { newest: event, hosts: BTreeMap::from([(host(), event)]), ..Touched::default() }
    }

    #[test]
    fn nothing_counts_before_the_log_is_followed() {
        let board = Board::default();
        board.note(5, [(host(), asked(true))]);
        assert_eq!((board.look(&host()), board.released()), (None, None));
        board.touched(&Touched { newest: 5, more: true, ..Touched::default() });
        assert_eq!(board.look(&host()), None, "there is more to be read");
        board.touched(&Touched { newest: 6, ..Touched::default() });
        assert_eq!(board.look(&host()), Some(asked(true)));
    }

    #[test]
    fn what_was_noted_as_of_an_earlier_event_takes_no_later_ones_place() {
        let board = Board::default();
        board.touched(&Touched::default());
        board.note(7, [(host(), asked(true))]);
        board.note(6, [(host(), asked(false))]);
        assert_eq!(board.look(&host()), Some(asked(true)));
        board.note(7, [(host(), asked(false))]);
        assert_eq!(board.look(&host()), Some(asked(false)), "of one event, the last word counts");
    }

    #[test]
    fn an_event_of_another_process_ends_the_note_of_its_host_and_one_of_our_own_does_not() {
        let board = Board::default();
        board.note(7, [(host(), asked(true))]);
        board.touched(&about(7));
        assert_eq!(board.look(&host()), Some(asked(true)), "it is as of that event");
        board.touched(&about(8));
        assert_eq!(board.look(&host()), None);
        assert_eq!(board.unknown([&host()]), ["web-1"]);
    }

    #[test]
    fn whose_a_key_is_and_what_is_newest_count_until_there_is_another_release() {
        let (board, key, channel) = (Board::default(), key(), "stable".parse().expect("a name"));
        board.touched(&Touched::default());
        let before = board.released().expect("the log is followed");
        board.note_key(before, &key, &host());
        board.note_latest(before, &channel, b"1");
        assert_eq!((board.host_of(&key), board.latest(&channel)), (Some(host()), Some(b"1".to_vec())));
        board.release_taken(9);
        assert_eq!((board.host_of(&key), board.latest(&channel)), (None, None));
        board.note_key(before, &key, &host());
        board.note_latest(before, &channel, b"1");
        assert_eq!((board.host_of(&key), board.latest(&channel)), (None, None), "read before the release");
    }

    #[test]
    fn a_release_ends_everything_that_was_noted_before_it() {
        let board = Board::default();
        board.touched(&Touched::default());
        board.note(7, [(host(), asked(true))]);
        let before = board.released();
        board.release_taken(9);
        assert_eq!(board.look(&host()), None);
        assert_ne!(board.released(), before);
        board.note(8, [(host(), asked(true))]);
        assert_eq!(board.look(&host()), None, "it was read before the release");
        board.note(9, [(host(), asked(true))]);
        assert_eq!(board.look(&host()), Some(asked(true)));
    }
}
