//! Room for what agents send: how much of it is in memory at the same time, of all hosts together and of each.
//!
//! Room is taken before a body is read and given back with the answer. Whoever finds none waits for a while, and is then told
//! to come again later: an agent keeps its reports, so a server that is behind sends the queue back to where it is safe. One
//! host cannot take the room of all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nixfleet_core::model::names::HostName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes of bodies that are in memory: what is taken in within a few seconds, at some 20 MB/s. Parsed they take up to five
/// times as much.
const KIB_MAX: u32 = 64 * 1024;
/// How long somebody waits for room; an agent gives a report a minute.
const WITHIN: Duration = Duration::from_secs(15);
/// Bodies of one host: an agent sends one at a time, and after a connection was cut an older one may still be here.
pub const OF_A_HOST_MAX: usize = 4;

/// The room that there is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Room {
    kib_max: u32,
    kib: Arc<Semaphore>,
    within: Duration,
    hosts: Arc<Mutex<HashMap<HostName, usize>>>,
}

/// Room that was taken; it is given back when this is dropped.
#[derive(Debug)]
pub struct Taken {
    _turn: Turn,
    _kib: OwnedSemaphorePermit,
}

/// One of the turns of a host.
#[derive(Debug)]
struct Turn {
    host: HostName,
    hosts: Arc<Mutex<HashMap<HostName, usize>>>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The host sends more at the same time than an agent does.
    #[error("{OF_A_HOST_MAX} requests of this host are being taken in already")]
    OfThisHost,
    /// Others send more than can be taken in.
    #[error("more is being sent than can be taken in at the moment")]
    AtAll,
}

impl Default for Room {
    fn default() -> Self {
        Self::of(KIB_MAX, WITHIN)
    }
}

impl Room {
    /// So much of it, for which one waits so long.
    pub fn of(kib_max: u32, within: Duration) -> Self {
        Self { kib_max, kib: Arc::new(Semaphore::new(kib_max as usize)), within, hosts: Arc::default() }
    }

    /// Takes room for `bytes` of `host`, or all that there is if that is less.
    pub async fn take(&self, host: &HostName, bytes: usize) -> Result<Taken, NoRoom> {
        let turn = self.turn(host)?;
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(self.kib_max);
        // In the order in which they came, so that a large one is not overtaken for ever.
        let kib = timeout(self.within, Arc::clone(&self.kib).acquire_many_owned(kib)).await;
        // It is never closed.
        let kib = kib.ok().and_then(Result::ok).ok_or(NoRoom::AtAll)?;
        Ok(Taken { _turn: turn, _kib: kib })
    }

    fn turn(&self, host: &HostName) -> Result<Turn, NoRoom> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = hosts.entry(host.clone()).or_default();
        if *taken >= OF_A_HOST_MAX {
            return Err(NoRoom::OfThisHost);
        }
        *taken += 1;
        Ok(Turn { host: host.clone(), hosts: Arc::clone(&self.hosts) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = hosts.get_mut(&self.host) {
            *taken -= 1;
            if *taken == 0 {
                hosts.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        name.parse().expect("a name")
    }

    fn of(kib: u32) -> Room {
        Room::of(kib, Duration::from_millis(20))
    }

    #[tokio::test]
    async fn a_host_that_sends_too_much_at_once_is_refused_and_others_are_not() {
        let room = of(100);
        let mut taken = Vec::new();
        for _ in 0..OF_A_HOST_MAX {
            taken.push(room.take(&host("web-1"), 10).await.expect("room"));
        }
        assert_eq!(room.take(&host("web-1"), 10).await.err(), Some(NoRoom::OfThisHost));
        room.take(&host("web-2"), 10).await.expect("room");
        taken.pop();
        room.take(&host("web-1"), 10).await.expect("room again");
        drop(taken);
        assert!(room.hosts.lock().expect("no panic").is_empty(), "nothing is kept of who has gone");
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_and_is_then_refused_and_what_is_too_large_for_all_of_it_gets_all_of_it()
    {
        let room = of(8);
        let most = room.take(&host("web-1"), 7 * 1024).await.expect("room");
        assert_eq!(room.take(&host("web-2"), 1).await.err(), Some(NoRoom::AtAll));
        let (patient, large) = (Room { within: Duration::from_mins(1), ..room.clone() }, host("web-3"));
        let (waited, ()) = tokio::join!(patient.take(&large, 1 << 40), async {
            tokio::task::yield_now().await;
            drop(most);
        });
        waited.expect("all of it, when it was free");
        assert!(room.hosts.lock().expect("no panic").is_empty());
        assert_eq!(room.kib.available_permits(), 8);
    }
}
