//! Wakes the polls of the hosts that a change concerns, and nobody else (lesson 31).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nixfleet_core::model::names::HostName;
use tokio::sync::Notify;

/// Polls of one host that wait at the same time. An agent has one; those of connections that were cut wait for a minute more.
pub const POLLS_OF_A_HOST_MAX: usize = 16;

/// The polls that wait, by host. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Wakes(Arc<Mutex<HashMap<HostName, Waiter>>>);

#[derive(Debug, Default)]
struct Waiter {
    news: Arc<Notify>,
    polls: usize,
}

/// A poll that waits. The registration ends when this is dropped.
#[derive(Debug)]
pub struct Registered {
    wakes: Wakes,
    host: HostName,
    news: Arc<Notify>,
}

impl Wakes {
    /// Registers a poll of `host`; `None` if too many of it wait already.
    pub fn register(&self, host: &HostName) -> Option<Registered> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiter = waiting.entry(host.clone()).or_default();
        if waiter.polls >= POLLS_OF_A_HOST_MAX {
            return None;
        }
        waiter.polls += 1;
        Some(Registered { wakes: self.clone(), host: host.clone(), news: Arc::clone(&waiter.news) })
    }

    /// Wakes the polls of `host`.
    pub fn wake(&self, host: &HostName) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = waiting.get(host) {
            // Both: whoever waits now, and whoever is between two looks.
            waiter.news.notify_waiters();
            waiter.news.notify_one();
        }
    }

    /// The hosts that wait.
    pub fn hosts(&self) -> Vec<HostName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// How many hosts wait.
    pub fn waiting(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Registered {
    /// Returns when there is news, also such as came between the registration and this.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut waiting = self.wakes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = waiting.get_mut(&self.host) {
            waiter.polls -= 1;
            if waiter.polls == 0 {
                waiting.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn host(name: &str) -> HostName {
        name.parse().expect("a name")
    }

    /// Whether the poll has news at once. What it did not get by then it will not get: nothing else runs here.
    async fn has_news(poll: &Registered) -> bool {
        timeout(Duration::from_millis(20), poll.news()).await.is_ok()
    }

    #[tokio::test]
    async fn a_change_wakes_the_polls_of_its_host_and_nobody_else() {
        let wakes = Wakes::default();
        let register = |name| wakes.register(&host(name)).expect("room");
        let (mine, other) = (register("web-1"), register("web-2"));
        wakes.wake(&host("web-1"));
        assert!(has_news(&mine).await, "what comes before the wait is not lost");
        assert!(!has_news(&mine).await, "and is told once");
        assert!(!has_news(&other).await);
    }

    #[tokio::test]
    async fn whoever_goes_away_waits_no_more_and_a_second_poll_of_a_host_stays() {
        let wakes = Wakes::default();
        let register = || wakes.register(&host("web-1")).expect("room");
        let (first, second) = (register(), register());
        assert_eq!(wakes.waiting(), 1);
        drop(first);
        wakes.wake(&host("web-1"));
        assert!(has_news(&second).await);
        drop(second);
        assert_eq!((wakes.waiting(), wakes.hosts()), (0, Vec::new()));
        wakes.wake(&host("web-1"));
    }
}
