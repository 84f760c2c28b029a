//! What the planner knows of the fleet, in memory: a mirror of the projections, kept up with the log.
//!
//! Facts are folded once, in the transaction that writes them ([`crate::store::write`]); here only the rows that they
//! touched are read again. So a mirror cannot come to another result than the database, and one that is lost is read anew.
//! What a mirror has beside it is when hosts were heard of, which is written only now and then.

use std::collections::BTreeMap;

use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::{Channel, Host, Snapshot};

use crate::store::StoreError;
use crate::store::fact::Progress;
use crate::store::planned::{PlannedChannel, PlannedHost, PlannedRows, Reading, Touched};

/// The fleet as of an event.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    /// The newest event that is in it.
    pub event: u64,
    /// The fleet.
    pub snapshot: Snapshot,
}

/// Rows that take the place of older ones.
#[derive(Debug, Default)]
pub struct News {
    newest: u64,
    removed: Vec<ChannelName>,
    released: Vec<(ChannelName, PlannedChannel, BTreeMap<HostName, PlannedHost>)>,
    progressed: Vec<(ChannelName, Progress)>,
    hosts: Vec<PlannedHost>,
}

impl News {
    /// Everything.
    pub async fn all(reading: &mut Reading<'_>) -> Result<Self, StoreError> {
        // Before the rows: what comes meanwhile is read once more.
        let newest = reading.newest().await?;
        let released = reading.channels().await?.into_iter().map(|channel| (channel, newest)).collect();
        Self::about(reading, &Touched { newest, released, ..Touched::default() }).await
    }

    /// The rows that a write has written, which ended with the event `newest`.
    pub fn written(newest: u64, (progressed, hosts): PlannedRows) -> Self {
        Self { newest, progressed, hosts, ..Self::default() }
    }

    /// The rows that were touched.
    pub async fn about(reading: &mut Reading<'_>, touched: &Touched) -> Result<Self, StoreError> {
        let mut news = Self { newest: touched.newest, ..Self::default() };
        for name in touched.released.keys() {
            match reading.channel(name).await? {
                Some(channel) => {
                    let hosts = reading.hosts_of(name).await?;
                    news.released.push((name.clone(), channel, hosts));
                }
                None => news.removed.push(name.clone()),
            }
        }
        for name in &touched.progressed {
            if touched.released.contains_key(name) {
                continue;
            }
            if let Some(channel) = reading.channel(name).await? {
                news.progressed.push((name.clone(), channel.progress));
            }
        }
        news.hosts = reading.hosts(touched.hosts.keys()).await?;
        Ok(news)
    }
}

impl Mirror {
    /// Of nothing, by a process that listens since then.
    pub fn new(listening_since: UnixMs) -> Self {
        Self { event: 0, snapshot: Snapshot::new(listening_since) }
    }

    /// Takes rows in.
    pub fn take(&mut self, news: News) {
        let News { newest, removed, released, progressed, hosts } = news;
        for name in removed {
            for gone in self.snapshot.channels.remove(&name).iter().flat_map(|channel| channel.hosts.keys()) {
                self.snapshot.homes.remove(gone);
            }
        }
        for (name, channel, hosts) in released {
            self.take_channel(name, channel, hosts);
        }
        for (name, Progress { rollout, quarantine }) in progressed {
            if let Some(channel) = self.snapshot.channels.get_mut(&name) {
                (channel.rollout, channel.quarantine) = (rollout, quarantine);
            }
        }
        for PlannedHost { name, channel, host } in hosts {
            // One that moved to another channel comes with that channel's release.
            if self.snapshot.homes.get(&name) == Some(&channel)
                && let Some(channel) = self.snapshot.channels.get_mut(&channel)
            {
                let old = channel.hosts.get(&name).and_then(|old| old.heard_ms);
                channel.hosts.insert(name, heard_at_least(host, old));
            }
        }
        self.event = self.event.max(newest);
    }

    fn take_channel(
        &mut self,
        name: ChannelName,
        channel: PlannedChannel,
        hosts: BTreeMap<HostName, PlannedHost>,
    ) {
        let Snapshot { listening_since_ms: _, channels, homes } = &mut self.snapshot;
        let before = channels.remove(&name).map(|before| before.hosts).unwrap_or_default();
        for gone in before.keys() {
            homes.remove(gone);
        }
        let mut known = BTreeMap::new();
        for (host, planned) in hosts {
            let elsewhere = homes.insert(host.clone(), name.clone());
            let elsewhere = elsewhere.and_then(|home| channels.get_mut(&home)?.hosts.remove(&host)?.heard_ms);
            let old = before.get(&host).and_then(|old| old.heard_ms).or(elsewhere);
            known.insert(host, heard_at_least(planned.host, old));
        }
        let PlannedChannel { current, progress: Progress { rollout, quarantine } } = channel;
        channels.insert(name, Channel { current, hosts: known.into(), rollout, quarantine });
    }

    /// These hosts, as far as there are such.
    pub fn hosts<'a>(&self, names: impl Iterator<Item = &'a HostName>) -> Vec<PlannedHost> {
        let found = names.filter_map(|name| {
            let (channel, host) = self.snapshot.host(name)?;
            Some(PlannedHost {
                name: name.clone(),
                channel: channel.current.id.channel.clone(),
                host: host.clone(),
            })
        });
        found.collect()
    }

    /// Takes in when hosts were heard of. Returns whether it changes anything.
    pub fn heard(&mut self, heard: impl IntoIterator<Item = (HostName, UnixMs)>) -> bool {
        let mut changed = false;
        for (name, at) in heard {
            let Snapshot { listening_since_ms: _, channels, homes } = &mut self.snapshot;
            let host = homes.get(&name).and_then(|home| channels.get_mut(home)?.hosts.get_mut(&name));
            if let Some(host) = host.filter(|host| host.heard_ms < Some(at)) {
                host.heard_ms = Some(at);
                changed = true;
            }
        }
        changed
    }

    /// Takes in that these hosts wait for orders at this time. Those that were just ordered something and do not say that they
    /// have it are left out: that an order was sent does not say that it arrived. One that has it, and waits for a window or a
    /// fetch before it begins, says nothing else for as long as its poll is held.
    pub fn waiting(&mut self, hosts: Vec<HostName>, at: UnixMs) -> bool {
        let is_there = |name: &HostName| {
            self.snapshot.host(name).is_some_and(|(_, host)| !host.may_not_have_its_order())
        };
        let there: Vec<(HostName, UnixMs)> =
            hosts.into_iter().filter(is_there).map(|name| (name, at)).collect();
        self.heard(there)
    }
}

fn heard_at_least(host: Host, at: Option<UnixMs>) -> Host {
    Host { heard_ms: host.heard_ms.max(at), ..host }
}
