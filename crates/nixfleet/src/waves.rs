//! Which host is in which wave: deterministic, and independent of the order in which hosts are given.
//!
//! Each wave takes of the hosts that no earlier wave took: those that its selector means, or as many of them as it says.
//! A share is one of all hosts of the channel that the selector means, so that `20%` is the same number of hosts in
//! whichever wave it stands. Where only some are taken, hosts with the tag `canary` come first, and then the order of
//! a hash over fleet, channel, release number and host: so it is not always the same hosts that go first.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::model::names::{ChannelName, FleetId, HostName, Seq, Tag};
use nixfleet_core::model::policy::WaveIndex;
use nixfleet_core::model::select::{Amount, Selector};
use sha2::{Digest, Sha256};

/// Hosts with this tag go first.
pub const CANARY: &str = "canary";

/// Whom a wave takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Of these hosts.
    pub hosts: Selector,
    /// So many; all of them if it does not say.
    pub take: Option<Amount>,
}

/// What the order is made from.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// The fleet.
    pub fleet: &'a FleetId,
    /// The channel.
    pub channel: &'a ChannelName,
    /// The release's number.
    pub seq: Seq,
}

/// Hosts that no wave takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOver(pub Vec<HostName>);

/// The wave of each of `hosts`, which are the hosts of one channel with their tags.
pub fn assign(
    choices: &[Choice],
    hosts: &BTreeMap<&HostName, &BTreeSet<Tag>>,
    draw: Draw<'_>,
) -> Result<BTreeMap<HostName, WaveIndex>, LeftOver> {
    let order = order(hosts, draw);
    let mut taken: BTreeMap<HostName, WaveIndex> = BTreeMap::new();
    for (index, choice) in (0u16..).zip(choices) {
        let meant: Vec<&HostName> =
            order.iter().copied().filter(|host| choice.hosts.means(host, hosts[*host])).collect();
        let most = choice.take.map_or(usize::MAX, |take| of(take, meant.len()));
        let free: Vec<&HostName> =
            meant.into_iter().filter(|host| !taken.contains_key(*host)).take(most).collect();
        taken.extend(free.into_iter().map(|host| (host.clone(), WaveIndex(index))));
    }
    let left: Vec<HostName> =
        hosts.keys().filter(|host| !taken.contains_key(**host)).map(|host| (*host).clone()).collect();
    if left.is_empty() { Ok(taken) } else { Err(LeftOver(left)) }
}

fn of(take: Amount, group: usize) -> usize {
    let group = u32::try_from(group).unwrap_or(u32::MAX);
    usize::try_from(take.of(group)).unwrap_or(usize::MAX)
}

/// Canaries first, then by hash.
fn order<'a>(hosts: &BTreeMap<&'a HostName, &BTreeSet<Tag>>, draw: Draw<'_>) -> Vec<&'a HostName> {
    let is_canary = |tags: &BTreeSet<Tag>| tags.iter().any(|tag| tag.as_str() == CANARY);
    let mut keyed: Vec<(bool, [u8; 32], &HostName)> =
        hosts.iter().map(|(host, tags)| (!is_canary(tags), drawn(draw, host), *host)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, _, host)| host).collect()
}

/// Names have no zero byte, so no two draws hash the same text.
fn drawn(Draw { fleet, channel, seq }: Draw<'_>, host: &HostName) -> [u8; 32] {
    Sha256::digest(format!("nixfleet wave\0{fleet}\0{channel}\0{seq}\0{host}")).into()
}

#[cfg(test)]
mod tests;
