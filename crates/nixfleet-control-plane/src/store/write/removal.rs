//! What a release must not take and what it must not find in a write: hosts and keys of other channels, and what is left of
//! channels that the root no longer names.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, HostName, RootVersion, Seq};
use nixfleet_trust::key::KeyId;
use sqlx::Row;

use super::super::documents::part_of;
use super::super::fact::{About, Fact};
use super::super::rows::Among;
use super::super::{StoreError, sql};
use super::Write;

const HOMES: Among = Among { head: "SELECT name AS host, channel, name AS named FROM hosts WHERE name IN" };
const KEYS: Among = Among {
    head: "SELECT h.name AS host, h.channel AS channel, k.key_id AS named \
           FROM host_keys AS k JOIN hosts AS h ON h.name = k.host WHERE k.key_id IN",
};

/// A host that the newest release of another channel names, or whose key it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The name or the key that both have.
    pub named: String,
    /// The host there.
    pub host: HostName,
    /// The other channel.
    pub channel: ChannelName,
}

impl Write {
    /// The first of these hosts and keys that belongs to a channel other than this one.
    pub async fn elsewhere(
        &mut self,
        channel: &ChannelName,
        hosts: impl Iterator<Item = &HostName>,
        keys: &[KeyId],
    ) -> Result<Option<Elsewhere>, StoreError> {
        let hosts: Vec<String> = hosts.map(ToString::to_string).collect();
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let mut rows = HOMES.rows(self.raw(), &hosts).await?;
        rows.extend(KEYS.rows(self.raw(), &keys).await?);
        for row in &rows {
            let home: String = row.try_get("channel")?;
            if home == channel.as_str() {
                continue;
            }
            let bad = |what: &str| StoreError::corrupt(format!("a {what}'s name"));
            let host: String = row.try_get("host")?;
            return Ok(Some(Elsewhere {
                named: row.try_get("named")?,
                host: host.parse().map_err(|_| bad("host"))?,
                channel: home.parse().map_err(|_| bad("channel"))?,
            }));
        }
        Ok(None)
    }

    /// Removes the entries of an older release that had this number, before its owner set the channel back.
    pub async fn empty_release(&mut self, channel: &ChannelName, seq: Seq) -> Result<(), StoreError> {
        let entry = layout::entry(channel, seq, &"x".parse().expect("a host name"));
        sql("DELETE FROM documents WHERE part_of = $1")
            .bind(part_of(&entry).to_owned())
            .execute(self.raw())
            .await?;
        Ok(())
    }

    /// Ends the channels that have a release and are not among `named`, by the root of this version.
    pub async fn remove_channels(
        &mut self,
        named: &BTreeSet<ChannelName>,
        root: RootVersion,
    ) -> Result<Vec<ChannelName>, StoreError> {
        let rows =
            sql("SELECT DISTINCT channel FROM releases ORDER BY channel").fetch_all(self.raw()).await?;
        let mut removed = Vec::new();
        for row in &rows {
            let channel: String = row.try_get("channel")?;
            let channel: ChannelName =
                channel.parse().map_err(|_| StoreError::corrupt("a channel's name"))?;
            if named.contains(&channel) {
                continue;
            }
            sql("DELETE FROM documents WHERE path = $1")
                .bind(layout::latest(&channel))
                .execute(self.raw())
                .await?;
            self.append(&About::Channel(channel.clone()), &Fact::ChannelRemoved { root }).await?;
            removed.push(channel);
        }
        Ok(removed)
    }

    /// Nothing of the channel is left but what the log says of it.
    pub(super) async fn project_removal(&mut self, about: &About) -> Result<(), StoreError> {
        let Some(channel) = about.channel() else {
            return Err(StoreError::corrupt("a channel without a name"));
        };
        self.flush_hosts().await?;
        self.channel_moved(channel).await?;
        // What polls are told of its hosts is as of before.
        (self.is_released, self.noted) = (true, BTreeMap::new());
        for statement in [
            "DELETE FROM host_keys WHERE host IN (SELECT name FROM hosts WHERE channel = $1)",
            "DELETE FROM orders WHERE host IN (SELECT name FROM hosts WHERE channel = $1)",
            "DELETE FROM remembered WHERE host IN (SELECT name FROM hosts WHERE channel = $1)",
            "DELETE FROM heard WHERE host IN (SELECT name FROM hosts WHERE channel = $1)",
            "DELETE FROM hosts WHERE channel = $1",
            "DELETE FROM rollouts WHERE channel = $1",
            "DELETE FROM releases WHERE channel = $1",
        ] {
            sql(statement).bind(channel.to_string()).execute(self.raw()).await?;
        }
        Ok(())
    }
}
