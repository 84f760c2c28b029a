//! What can only be seen by looking at several parts of a description: names that nobody has, keys of two hosts, hosts
//! that wait for each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nixfleet_core::model::faults::{EntryFault, HOST_KEYS_MAX, ReleaseFault};
use nixfleet_core::model::names::{ChannelName, FleetId, HostKey, HostName, Seq, Tag};
use nixfleet_core::model::policy::Edge;
use nixfleet_trust::key::PublicKey;

use super::decode::text;
use super::faults::Faults;
use super::policy::ChannelPolicy;
use super::suggest::did_you_mean;
use super::{Read, ReadHost};
use crate::spanned::{Node, Span};
use crate::waves::{self, Draw, LeftOver};

/// The hosts of a channel with their tags.
type Members<'a> = BTreeMap<&'a HostName, &'a BTreeSet<Tag>>;

/// Notes everything that is wrong between the parts.
pub(super) fn check(fleet: Option<&FleetId>, read: &Read, faults: &mut Faults) {
    for (name, host) in &read.hosts {
        host_faults(name, host, read, faults);
    }
    keys_of_two(read, faults);
    after_faults(read, faults);
    for (name, channel) in &read.channels {
        let Some(policy) = &channel.policy else { continue };
        let members: Members<'_> = read
            .hosts
            .iter()
            .filter(|(_, host)| host.channel.as_ref().is_some_and(|(_, follows)| follows == name))
            .map(|(host, read)| (host, &read.tags))
            .collect();
        policy_faults(policy, faults);
        // A channel without hosts is one that is being set up: nothing in it can mean anybody yet.
        if !members.is_empty() {
            selector_faults(name, policy, &members, faults);
            wave_faults(fleet, name, policy, &members, faults);
            edge_faults(policy, &members, faults);
        }
    }
}

/// A host's key; the form is the core's to check, and the key itself is read here.
pub(super) fn host_key(node: &Node, faults: &mut Faults) -> Option<HostKey> {
    // The comment at the end of a `.pub` file says nothing.
    let line = text(node, "a key", faults)?;
    let without_comment: Vec<&str> = line.split_ascii_whitespace().take(2).collect();
    let read = without_comment.join(" ").parse::<HostKey>().map_err(|error| error.to_string());
    let read = read.and_then(|key| match PublicKey::of_host(&key) {
        Ok(_) => Ok(key),
        Err(refused) => Err(refused.0.to_string()),
    });
    read.map_err(|what| faults.add(node.span, what)).ok()
}

fn host_faults(name: &HostName, host: &ReadHost, read: &Read, faults: &mut Faults) {
    if let Some((span, channel)) = &host.channel
        && !read.channel_names.contains(channel.as_str())
    {
        let hint = did_you_mean(channel.as_str(), read.channel_names.iter().map(String::as_str));
        faults.add_with_hint(
            *span,
            format!("host {name} follows {channel}, and there is no such channel"),
            hint,
        );
    }
    if host.keys.len() > HOST_KEYS_MAX {
        let fault = EntryFault::TooManyKeys(host.keys.len());
        faults.add(host.at, format!("host {name}: {fault}"));
    }
    let mut names = BTreeSet::new();
    for probe in host.rest.iter().flat_map(|rest| &rest.probes) {
        if !names.insert(&probe.name) {
            let fault = EntryFault::ProbeNameTwice(probe.name.clone());
            faults.add(host.at, format!("host {name}: {fault}"));
        }
    }
}

/// One could act as the other.
fn keys_of_two(read: &Read, faults: &mut Faults) {
    let mut owners: BTreeMap<&HostKey, &HostName> = BTreeMap::new();
    for (name, host) in &read.hosts {
        for (span, key) in &host.keys {
            match owners.insert(key, name) {
                Some(first) if first == name => faults.add(*span, format!("host {name} has this key twice")),
                Some(first) => faults.add(*span, format!("hosts {first} and {name} have the same key")),
                None => {}
            }
        }
    }
}

fn after_faults(read: &Read, faults: &mut Faults) {
    for (name, channel) in &read.channels {
        for (span, after) in &channel.after {
            if !read.channel_names.contains(after.as_str()) {
                let hint = did_you_mean(after.as_str(), read.channel_names.iter().map(String::as_str));
                faults.add_with_hint(*span, format!("there is no channel {after}"), hint);
            } else if reaches(read, after, name) {
                faults.add(*span, format!("channel {name} would wait for itself"));
            }
        }
    }
}

/// Whether `from` waits, perhaps by others, for `to`, or is it.
fn reaches(read: &Read, from: &ChannelName, to: &ChannelName) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            open.extend(read.channels.get(at).into_iter().flat_map(|c| c.after.iter().map(|(_, name)| name)));
        }
    }
    false
}

fn policy_faults(policy: &ChannelPolicy, faults: &mut Faults) {
    let places = &policy.places;
    let whole = places.whole.unwrap_or(Span { from: 0, to: 0 });
    let wave = |name: &nixfleet_core::model::names::WaveName| {
        let at = policy.policy.waves.iter().rposition(|wave| wave.name == *name);
        at.and_then(|at| places.waves.get(at)).copied().unwrap_or(whole)
    };
    for fault in policy.policy.faults() {
        let span = match &fault {
            ReleaseFault::WaveNameTwice(name) | ReleaseFault::WaveBeforeItsTurn(name) => wave(name),
            ReleaseFault::BudgetOfNobody(hosts) => {
                let at = policy.policy.max_in_flight.iter().position(|budget| budget.hosts == *hosts);
                at.and_then(|at| places.budgets.get(at)).copied().unwrap_or(whole)
            }
            ReleaseFault::NoTimeToConfirm => places.confirm_within.unwrap_or(whole),
            ReleaseFault::Hook(_) => places.hooks.unwrap_or(whole),
            ReleaseFault::NoWaves | ReleaseFault::ExpiresBeforeCreated | ReleaseFault::NoHosts => whole,
        };
        faults.add(span, fault.to_string());
    }
}

/// A tag or host that nobody in the channel has is a slip of the pen, and would choose nobody in silence.
fn selector_faults(
    channel: &ChannelName,
    policy: &ChannelPolicy,
    members: &Members<'_>,
    faults: &mut Faults,
) {
    let tags: BTreeSet<&Tag> = members.values().copied().flatten().collect();
    for (span, tag) in policy.places.tags.iter().filter(|(_, tag)| !tags.contains(tag)) {
        let hint = did_you_mean(tag.as_str(), tags.iter().map(|tag| tag.as_str()));
        faults.add_with_hint(*span, format!("no host of channel {channel} has the tag {tag}"), hint);
    }
    for (span, host) in policy.places.hosts.iter().filter(|(_, host)| !members.contains_key(host)) {
        let hint = did_you_mean(host.as_str(), members.keys().map(|host| host.as_str()));
        faults.add_with_hint(*span, format!("channel {channel} has no host {host}"), hint);
    }
}

fn wave_faults(
    fleet: Option<&FleetId>,
    channel: &ChannelName,
    policy: &ChannelPolicy,
    members: &Members<'_>,
    faults: &mut Faults,
) {
    let Some(fleet) = fleet else { return };
    // How many are left over does not depend on the number of the release.
    let draw = Draw { fleet, channel, seq: Seq::ZERO };
    if let Err(LeftOver(hosts)) = waves::assign(&policy.choices, members, draw)
        && let Some(last) = policy.places.waves.last()
    {
        let what =
            format!("{} hosts of channel {channel} are in no wave, for example {}", hosts.len(), hosts[0]);
        let hint = "end with a wave that has neither `hosts` nor `take`: it takes all that are left";
        faults.add_with_hint(*last, what, Some(hint.to_owned()));
    }
}

/// Hosts that wait for each other would wait for ever: each edge must be free before the hosts that wait on it.
fn edge_faults(policy: &ChannelPolicy, members: &Members<'_>, faults: &mut Faults) {
    let edges = &policy.policy.edges;
    let holds = waits(edges, members);
    // Peels off hosts that wait for nobody, then edges whose hosts have all been peeled off, and so on.
    let mut blocked_by: BTreeMap<&HostName, usize> = members.keys().map(|host| (*host, 0)).collect();
    for edge in &holds {
        for host in &edge.waiting {
            *blocked_by.entry(host).or_default() += 1;
        }
    }
    let mut open_in: Vec<usize> = holds.iter().map(|edge| edge.waited_for.len()).collect();
    let mut edges_of: BTreeMap<&HostName, Vec<usize>> = BTreeMap::new();
    for (index, edge) in holds.iter().enumerate() {
        for host in &edge.waited_for {
            edges_of.entry(host).or_default().push(index);
        }
    }
    let mut free: VecDeque<&HostName> = VecDeque::new();
    let mut release = |index: usize, free: &mut VecDeque<_>| {
        for host in &holds[index].waiting {
            if let Some(count) = blocked_by.get_mut(*host) {
                *count -= 1;
                if *count == 0 {
                    free.push_back(*host);
                }
            }
        }
    };
    let unblocked: Vec<&HostName> = members
        .keys()
        .copied()
        .filter(|host| !holds.iter().any(|edge| edge.waiting.contains(host)))
        .collect();
    free.extend(unblocked);
    for (index, _) in open_in.iter().enumerate().filter(|(_, open)| **open == 0) {
        release(index, &mut free);
    }
    while let Some(host) = free.pop_front() {
        for index in edges_of.get(host).into_iter().flatten() {
            open_in[*index] -= 1;
            if open_in[*index] == 0 {
                release(*index, &mut free);
            }
        }
    }
    for (index, _) in open_in.iter().enumerate().filter(|(_, open)| **open > 0) {
        let span = policy.places.edges.get(index).copied().unwrap_or(Span { from: 0, to: 0 });
        faults.add(span, "hosts of this edge would wait for each other for ever");
    }
}

struct Waits<'a> {
    waiting: BTreeSet<&'a HostName>,
    waited_for: BTreeSet<&'a HostName>,
}

fn waits<'a>(edges: &[Edge], members: &Members<'a>) -> Vec<Waits<'a>> {
    let meant = |selector: &nixfleet_core::model::select::Selector| {
        members.iter().filter(|(host, tags)| selector.means(host, tags)).map(|(host, _)| *host).collect()
    };
    edges.iter().map(|edge| Waits { waiting: meant(&edge.hosts), waited_for: meant(&edge.after) }).collect()
}
