//! What the planner decided and what people asked for, in a write: folded into the rows of one channel and one host by the
//! core's own fold.

use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::{
    Channel, Decision, Fact as PlanFact, Host, Hosts, NotFolded, Order, Remembered, Snapshot, Standing, Verb,
};
use nixfleet_core::wire::Wish;

use super::super::fact::{About, Fact, Progress};
use super::super::planned::{PlannedHost, PlannedRows, read_current, read_progress};
use super::super::{StoreError, int, sql};
use super::desk;
use super::host::HostRow;
use super::{Write, json};

/// A channel in a write, without its hosts.
#[derive(Debug)]
pub(super) struct ChannelRow {
    channel: Channel,
    is_changed: bool,
}

impl Write {
    /// Folds what somebody asked for; for a hold, the host is told as well.
    pub(super) async fn project_act(
        &mut self,
        (id, at): (u64, UnixMs),
        about: &About,
        fact: &Fact,
    ) -> Result<(), StoreError> {
        let Fact::Acted { by, verb, why } = fact else { return Err(StoreError::corrupt("an act")) };
        let asked = PlanFact::Asked { verb: verb.clone(), who: by.clone(), why: why.clone() };
        let (by, why) = (by.clone(), why.clone());
        let wish = match verb {
            Verb::Hold { host: _, until_ms } => Some(Wish::Hold { by, why, until_ms: *until_ms }),
            Verb::Unhold { host: _ } => Some(Wish::Unhold { by }),
            Verb::Pause { .. }
            | Verb::Resume { .. }
            | Verb::Abort { .. }
            | Verb::Approve { .. }
            | Verb::Retry { .. }
            | Verb::Skip { .. } => None,
        };
        // First, so that a rebuild finds it also when what it was about was folded long ago.
        if let (Some(wish), Some(host)) = (wish, about.host()) {
            self.put_order(id, host, &wish).await?;
        }
        self.fold_planned(at, about, &asked).await
    }

    /// Folds an order, and puts it where the host finds it.
    pub(super) async fn project_order(
        &mut self,
        (id, at): (u64, UnixMs),
        order: &Order,
    ) -> Result<(), StoreError> {
        let host = &order.host;
        let Some(row) = self.host(host).await? else {
            // For a rebuild, as above.
            self.put_order(id, host, &desk::wish(order, None)).await?;
            return Err(NotFolded::NoHost(host.clone()).into());
        };
        // Folding takes it away.
        let retry = row.remembered.retry.clone();
        self.fold_planned(at, &About::Host(host.clone()), &PlanFact::Ordered(order.clone())).await?;
        let wish = desk::wish(order, retry);
        if let Some(row) = self.host(host).await? {
            row.desk.make_way(order);
        }
        self.put_order(id, host, &wish).await
    }

    /// Folds a decision.
    pub(super) async fn project_decision(
        &mut self,
        at: UnixMs,
        about: &About,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        self.fold_planned(at, about, &PlanFact::Decided(decision.clone())).await
    }

    /// Puts what was remembered of a channel in the place of what was folded.
    pub(super) async fn project_kept(
        &mut self,
        about: &About,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let Some(name) = about.channel() else { return Err(StoreError::corrupt("a rollout of no channel")) };
        if let Some(row) = self.channel(name).await? {
            let Progress { rollout, quarantine } = progress.clone();
            (row.channel.rollout, row.channel.quarantine, row.is_changed) = (rollout, quarantine, true);
        }
        Ok(())
    }

    /// What the planner needs of the hosts that were ordered something, and of what is about to be written. Not for a write that takes a release in.
    pub fn planned(&self) -> Result<PlannedRows, StoreError> {
        let changed = self.channels.iter().filter(|(_, row)| row.is_changed);
        let channels = changed.map(|(name, row)| {
            let Channel { current: _, hosts: _, rollout, quarantine } = row.channel.clone();
            (name.clone(), Progress { rollout, quarantine })
        });
        let mut hosts = self.ordered.clone();
        hosts.extend(self.planned_hosts()?);
        Ok((channels.collect(), hosts))
    }

    /// Hosts that are about to be written.
    pub(super) fn planned_hosts(&self) -> Result<Vec<PlannedHost>, StoreError> {
        let changed = self.hosts.iter().filter(|(_, row)| row.is_changed || row.is_recalled);
        let planned = changed.map(|(name, row)| {
            let (name, channel) = (name.clone(), row.named.channel.clone());
            Ok(PlannedHost { name, channel, host: row.planned()? })
        });
        planned.collect()
    }

    /// What is remembered of a channel.
    pub(crate) async fn progress(&mut self, name: &ChannelName) -> Result<Option<Progress>, StoreError> {
        let row = self.channel(name).await?;
        Ok(row.map(|row| Progress {
            rollout: row.channel.rollout.clone(),
            quarantine: row.channel.quarantine.clone(),
        }))
    }

    /// The core folds into a whole fleet; here it gets the one channel and the one host that the fact is about.
    async fn fold_planned(&mut self, at: UnixMs, about: &About, fact: &PlanFact) -> Result<(), StoreError> {
        let (name, host) = match about {
            About::Fleet => return Err(StoreError::corrupt("a plan about nothing")),
            About::Channel(channel) => (channel.clone(), None),
            About::Host(host) => match self.host(host).await? {
                Some(row) => (row.named.channel.clone(), Some((host.clone(), row.planned()?))),
                None => return Err(NotFolded::NoHost(host.clone()).into()),
            },
        };
        let Some(row) = self.channel(&name).await? else {
            return Err(NotFolded::NoChannel(name).into());
        };
        let mut snapshot = Snapshot::new(UnixMs::EPOCH);
        let mut channel = row.channel.clone();
        if let Some((host, planned)) = host.clone() {
            snapshot.homes.insert(host.clone(), name.clone());
            channel.hosts.insert(host, planned);
        }
        snapshot.channels.insert(name.clone(), channel);
        snapshot.fold(fact, at)?;
        let Some(mut folded) = snapshot.channels.remove(&name) else { return Ok(()) };
        let after = host.and_then(|(host, before)| {
            let after = folded.hosts.remove(&host)?;
            (after != before).then_some((host, after))
        });
        if folded != row.channel {
            (row.channel, row.is_changed) = (folded, true);
        }
        if let Some((host, after)) = after
            && let Some(row) = self.host(&host).await?
        {
            row.remember(after);
        }
        Ok(())
    }

    async fn channel(&mut self, name: &ChannelName) -> Result<Option<&mut ChannelRow>, StoreError> {
        if !self.channels.contains_key(name) {
            let Some(current) = read_current(self.raw(), name).await? else { return Ok(None) };
            let Progress { rollout, quarantine } = read_progress(self.raw(), name).await?;
            let channel = Channel { current, hosts: Hosts::default(), rollout, quarantine };
            self.channels.insert(name.clone(), ChannelRow { channel, is_changed: false });
        }
        Ok(self.channels.get_mut(name))
    }

    async fn put_order(&mut self, id: u64, host: &HostName, wish: &Wish) -> Result<(), StoreError> {
        if let Some(row) = self.host(host).await? {
            row.desk.put(id, wish);
            return Ok(());
        }
        // In a rebuild from a log of which the beginning is gone: the release that names it comes later.
        sql("INSERT INTO orders (host, topic, number, body) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (host, topic) DO UPDATE SET number = excluded.number, body = excluded.body")
        .bind(host.to_string())
        .bind(wish.topic().name())
        .bind(int(id))
        .bind(json(wish))
        .execute(self.raw())
        .await?;
        Ok(())
    }

    /// What was known of a channel is not its newest release any more.
    pub(super) async fn channel_moved(&mut self, name: &ChannelName) -> Result<(), StoreError> {
        self.flush_channels().await?;
        self.channels.remove(name);
        Ok(())
    }

    /// Writes the channels that changed.
    pub(super) async fn flush_channels(&mut self) -> Result<(), StoreError> {
        let texts: Vec<(String, String)> = self
            .channels
            .iter_mut()
            .filter_map(|(name, row)| std::mem::take(&mut row.is_changed).then_some((name, row)))
            .map(|(name, row)| {
                let Channel { current: _, hosts: _, rollout, quarantine } = &row.channel;
                let progress = Progress { rollout: rollout.clone(), quarantine: quarantine.clone() };
                (name.to_string(), json(&progress))
            })
            .collect();
        for (name, body) in texts {
            sql("INSERT INTO rollouts (channel, body) VALUES ($1, $2) \
                 ON CONFLICT (channel) DO UPDATE SET body = excluded.body")
            .bind(name)
            .bind(body)
            .execute(self.raw())
            .await?;
        }
        Ok(())
    }
}

impl HostRow {
    /// The host as the planner sees it, but for when it was heard of.
    fn planned(&self) -> Result<Host, StoreError> {
        let state = self.state();
        let standing = state.setup.is_some().then(|| Standing::of(state));
        Ok(self.remembered.clone().host(self.named.placed()?, standing, None))
    }

    fn remember(&mut self, host: Host) {
        (self.remembered, self.is_recalled) = (Remembered::of(host), true);
    }
}
