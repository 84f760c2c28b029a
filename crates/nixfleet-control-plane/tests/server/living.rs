//! Agents that live by themselves: they follow the orders of a server over TLS, fold events as the real ones do, and report.
//! What they do not do is to switch anything: a switch ends at once, well or badly, by the system's name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nixfleet_core::host::Event;
use nixfleet_core::ids::StorePath;
use nixfleet_core::model::names::HostName;
use nixfleet_core::wire::{Orders, Then, Wish};
use nixfleet_sys::random;
use reqwest::StatusCode;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fleet::{Documents, Host};
use crate::running::Caller;

/// How long an agent rests when there is nothing to do.
const REST: Duration = Duration::from_millis(10);

/// What lies between an agent and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Everything arrives, once.
    Good,
    /// Answers get lost, so that the same is sent again; reports of long ago come once more.
    Bad,
}

/// What agents can see besides their server. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Outside(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    releases: Vec<Arc<Documents>>,
    bad: BTreeSet<StorePath>,
    away: BTreeSet<HostName>,
    /// Whose poll is under way.
    asking: BTreeSet<HostName>,
}

impl Outside {
    /// Agents may find this release from now on, if they are told to look.
    pub(crate) fn offer(&self, documents: &Arc<Documents>) {
        self.0.lock().expect("no panic").releases.push(Arc::clone(documents));
    }

    /// This system does not pass its probes.
    pub(crate) fn is_bad(&self, system: StorePath) {
        self.0.lock().expect("no panic").bad.insert(system);
    }

    /// It does after all.
    pub(crate) fn is_well(&self, system: &StorePath) {
        self.0.lock().expect("no panic").bad.remove(system);
    }

    /// This host is cut off: nothing of it arrives, and nothing arrives there. Returns when its poll is given up.
    pub(crate) async fn cut_off(&self, host: &HostName) {
        self.0.lock().expect("no panic").away.insert(host.clone());
        while self.is_asking(host) {
            sleep(REST).await;
        }
    }

    /// It is back.
    pub(crate) fn restore(&self, host: &HostName) {
        self.0.lock().expect("no panic").away.remove(host);
    }

    fn is_away(&self, host: &HostName) -> bool {
        self.0.lock().expect("no panic").away.contains(host)
    }

    fn is_asking(&self, host: &HostName) -> bool {
        self.0.lock().expect("no panic").asking.contains(host)
    }

    /// Whether the host may ask for orders, which is noted until [`Outside::has_asked`].
    fn begins_to_ask(&self, host: &HostName) -> bool {
        let mut seen = self.0.lock().expect("no panic");
        let may = !seen.away.contains(host);
        if may {
            seen.asking.insert(host.clone());
        }
        may
    }

    fn has_asked(&self, host: &HostName) {
        self.0.lock().expect("no panic").asking.remove(host);
    }

    /// Returns when the host is cut off.
    async fn until_away(&self, host: &HostName) {
        while !self.is_away(host) {
            sleep(REST).await;
        }
    }

    fn newest(&self) -> Option<Arc<Documents>> {
        self.0.lock().expect("no panic").releases.last().cloned()
    }

    fn passes(&self, system: &StorePath) -> bool {
        !self.0.lock().expect("no panic").bad.contains(system)
    }
}

/// An agent; it ends when this is dropped.
pub(crate) struct Agent(JoinHandle<()>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    /// Starts one that asks as `caller`, which has its key.
    pub(crate) fn start(name: &str, caller: Caller, outside: &Outside) -> Self {
        Self::start_as(Host::started(name), caller, outside, Wire::Good)
    }

    /// Starts this one, behind this wire.
    pub(crate) fn start_as(host: Host, caller: Caller, outside: &Outside, wire: Wire) -> Self {
        let living = Living { host, caller: Arc::new(caller), outside: outside.clone(), next: 1, wire };
        Self(tokio::spawn(living.run()))
    }
}

struct Living {
    host: Host,
    caller: Arc<Caller>,
    outside: Outside,
    /// The first record that the server does not have.
    next: u64,
    wire: Wire,
}

impl Living {
    async fn run(mut self) {
        let (given, mut taken) = mpsc::channel(8);
        let polling = tokio::spawn(poll(self.line(), given));
        let _ended_with_us = Agent(polling);
        loop {
            while let Ok(wish) = taken.try_recv() {
                match wish {
                    Wish::Stage { .. } => self.look(),
                    wish => self.host.take(&wish.event(), None),
                }
            }
            while self.host.go_on(&|system| self.outside.passes(system)) {}
            self.report().await;
            sleep(REST).await;
            self.host.take(&Event::Woke, None);
        }
    }

    fn line(&self) -> Line {
        let (caller, outside) = (Arc::clone(&self.caller), self.outside.clone());
        Line { caller, outside, host: self.host.name.clone(), wire: self.wire }
    }

    fn look(&mut self) {
        if let Some(documents) = self.outside.newest() {
            self.host.verified(&documents);
        }
    }

    /// Sends what the server does not have; what does not arrive is sent again.
    async fn report(&mut self) {
        let from = usize::try_from(self.next - 1).expect("short").min(self.host.log.len());
        if from == self.host.log.len() || self.outside.is_away(&self.host.name) {
            return;
        }
        if self.wire == Wire::Bad {
            // Something of long ago, and what is new without its beginning; and then the answer is lost.
            let old = from.min(usize::try_from(random::number() % 64).unwrap_or(0));
            let _ = self.caller.try_report(&self.host.log[old..from]).await;
            let _ = self.caller.try_report(&self.host.log[from + 1..]).await;
            sleep(Duration::from_millis(random::number() % 100)).await;
            let _ = self.caller.try_report(&self.host.log[from..]).await;
        }
        let Some(taken) = self.caller.try_report(&self.host.log[from..]).await else { return };
        self.next = taken.next;
        if taken.then == Then::SendState
            && let Some(taken) = self.caller.try_hello(&self.host).await
        {
            self.next = taken.next;
        }
    }
}

/// What the half that asks for orders needs.
struct Line {
    caller: Arc<Caller>,
    outside: Outside,
    host: HostName,
    wire: Wire,
}

/// Asks for orders for ever, as the link of an agent does.
async fn poll(Line { caller, outside, host, wire }: Line, given: mpsc::Sender<Wish>) {
    let (mut after, mut log) = (0, None::<String>);
    loop {
        let known = log.as_ref().map(|log| format!("&log={log}")).unwrap_or_default();
        if !outside.begins_to_ask(&host) {
            sleep(REST).await;
            continue;
        }
        let path = format!("/v1/agent/orders?after={after}{known}");
        let answer = tokio::select! {
            answer = caller.try_get(&path) => answer,
            // The connection is gone with the link.
            () = outside.until_away(&host) => None,
        };
        outside.has_asked(&host);
        let Some((StatusCode::OK, value)) = answer else {
            sleep(REST).await;
            continue;
        };
        let orders: Orders = serde_json::from_value(value).expect("what was promised");
        if wire == Wire::Bad && random::number().is_multiple_of(2) {
            // It was sent, and did not arrive.
            sleep(REST).await;
            continue;
        }
        if log != orders.log {
            (after, log) = (0, orders.log);
        }
        for order in orders.orders {
            after = after.max(order.number);
            for _ in 0..if wire == Wire::Bad { 2 } else { 1 } {
                if given.send(order.what.clone()).await.is_err() {
                    return;
                }
            }
        }
        sleep(REST).await;
    }
}
