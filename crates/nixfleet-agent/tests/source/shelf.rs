//! Documents in memory, as a source and to be put elsewhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nixfleet_agent::source::documents::{Connection, Documents, Got, NoAnswer, Wanted};
use nixfleet_agent::source::look::{Found, Looker, look};
use nixfleet_agent::source::refused::Refused;
use nixfleet_core::model::names::Seq;
use nixfleet_core::model::time::UnixMs;
use nixfleet_trust::trust::Trust;
use serde_json::Value;

use crate::fleet::{Fleet, NOW, at, proven, stable};

/// Documents by their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shelf(pub(crate) BTreeMap<String, Vec<u8>>);

impl Shelf {
    /// A shelf with releases `1..=newest` of `stable`, each with the entries of all hosts.
    pub(crate) fn up_to(fleet: &Fleet, newest: u64) -> Self {
        let mut shelf = Self::default();
        for seq in 1..=newest {
            shelf.publish(fleet, seq);
        }
        shelf
    }

    /// Puts release `seq` there, as its publisher does: `latest` comes last.
    pub(crate) fn publish(&mut self, fleet: &Fleet, seq: u64) {
        self.put_release(seq, fleet.sign(&fleet.release(seq)), &fleet.entries());
        self.latest(seq);
    }

    pub(crate) fn put_release(&mut self, seq: u64, release: Vec<u8>, entries: &[Value]) {
        self.put(format!("channels/stable/{seq}/release.json"), release);
        for (index, entry) in entries.iter().enumerate() {
            let host = entry["host"].as_str().expect("a name");
            self.put(format!("channels/stable/{seq}/hosts/{host}.json"), proven(entries, index));
        }
    }

    pub(crate) fn latest(&mut self, seq: u64) {
        self.put("channels/stable/latest".to_owned(), format!("{seq}\n"));
    }

    pub(crate) fn put(&mut self, path: String, bytes: impl Into<Vec<u8>>) {
        self.0.insert(path, bytes.into());
    }

    pub(crate) fn remove(&mut self, path: &str) {
        self.0.remove(path).expect("it was there");
    }

    /// Writes all of it to a folder, in the order in which a publisher should: `latest` last.
    pub(crate) fn write_to(&self, folder: &Path) {
        let (latest, others): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|(path, _)| path.ends_with("latest"));
        for (path, bytes) in others.into_iter().chain(latest) {
            let path = folder.join(path);
            nixfleet_sys::fs::make_dir(path.parent().expect("it has one")).expect("made");
            nixfleet_sys::fs::write_atomic(&path, bytes).expect("written");
        }
    }
}

impl Documents for Shelf {
    async fn get(&mut self, wanted: Wanted<'_>) -> Result<Got, NoAnswer> {
        Ok(match self.0.get(wanted.path) {
            Some(bytes) => {
                let bytes = bytes.iter().copied().take(wanted.bytes_max + 1).collect();
                Got::Bytes { bytes, version: None }
            }
            None => Got::Missing,
        })
    }
    fn begin(&mut self, _: Connection) {}
    async fn news(&mut self) {
        std::future::pending::<()>().await;
    }
}

pub(crate) fn looker(fleet: &Fleet, host: usize) -> Looker {
    Looker { channel: stable(), me: fleet.me(host) }
}

/// What came of a look, and what is trusted after it.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) trust: Trust,
    pub(crate) found: Found,
}

/// What host `web-0` makes of `shelf` now.
pub(crate) async fn looked(shelf: &Shelf, fleet: &Fleet, trust: &Trust) -> Looked {
    looked_at(shelf, fleet, trust, at(NOW)).await
}

pub(crate) async fn looked_at(shelf: &Shelf, fleet: &Fleet, trust: &Trust, clock: UnixMs) -> Looked {
    let mut trust = trust.clone();
    let found = look(&mut shelf.clone(), &looker(fleet, 0), &mut trust, None, clock).await;
    Looked { trust, found }
}

/// The number of the release that is offered, and what is trusted then.
pub(crate) async fn offered(shelf: &Shelf, fleet: &Fleet, trust: &Trust) -> (Seq, Trust) {
    let Looked { trust, found } = looked(shelf, fleet, trust).await;
    match found {
        Found::Release(offer, settled) => {
            assert_eq!(offer.moved.trust, trust.to_saved(), "what is offered comes with what to trust");
            assert_eq!(offer.terms.release.seq, settled.seq());
            (settled.seq(), trust)
        }
        other => panic!("nothing was offered: {other:?}"),
    }
}

/// How `shelf` is refused. Whatever was wrong, no floor was lowered.
pub(crate) async fn refusal(shelf: &Shelf, fleet: &Fleet, trust: &Trust) -> Refused {
    let Looked { trust: after, found } = looked(shelf, fleet, trust).await;
    assert!(after.floor(&stable()).map(|floor| floor.seq) >= trust.floor(&stable()).map(|floor| floor.seq));
    match found {
        Found::Refused(refused) => refused,
        other => panic!("it was not refused: {other:?}"),
    }
}

/// A clock that tests set.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Mutex<u64>>);

impl Clock {
    pub(crate) fn new(ms: u64) -> Self {
        Self(Arc::new(Mutex::new(ms)))
    }
    pub(crate) fn set(&self, ms: u64) {
        *self.0.lock().expect("no test panics while it holds it") = ms;
    }
    pub(crate) fn now(&self) -> UnixMs {
        at(*self.0.lock().expect("no test panics while it holds it"))
    }
}
