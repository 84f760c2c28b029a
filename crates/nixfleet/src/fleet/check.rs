//! What can only be seen by looking at several parts of a description: names that nobody has, keys of two hosts, hosts
//! that wait for each other.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::host::window;
use nixfleet_core::model::circles::{self, Member, Stuck};
use nixfleet_core::model::faults::{EntryFault, HOST_KEYS_MAX, ReleaseFault};
use nixfleet_core::model::names::{ChannelName, FleetId, HostKey, HostName, Seq, Tag};
use nixfleet_core::model::policy::WaveIndex;
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
        window_faults(policy, faults);
        // A channel without hosts is one that is being set up: nothing in it can mean anybody yet.
        if !members.is_empty() {
            selector_faults(name, policy, &members, faults);
            wave_faults(fleet, name, policy, &members, faults);
            edge_faults(fleet, name, policy, &members, faults);
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
            ReleaseFault::NobodyMayFetch => places.stage_in_flight.unwrap_or(whole),
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

/// Hosts that wait for each other would wait for ever, and so would a host that waits for one of a later wave. Where
/// waves take some hosts of many, which host is where is known when a release is made, and it is looked at again then.
fn edge_faults(
    fleet: Option<&FleetId>,
    channel: &ChannelName,
    policy: &ChannelPolicy,
    members: &Members<'_>,
    faults: &mut Faults,
) {
    let draw = fleet.map(|fleet| Draw { fleet, channel, seq: Seq::ZERO });
    let is_drawn = policy.choices.iter().any(|choice| choice.take.is_some());
    let waves =
        draw.filter(|_| !is_drawn).and_then(|draw| waves::assign(&policy.choices, members, draw).ok());
    let wave = |host| waves.as_ref().and_then(|waves| waves.get(host)).copied().unwrap_or(WaveIndex(0));
    let members: Vec<Member<'_>> =
        members.iter().map(|(name, tags)| Member { name, tags, wave: wave(name) }).collect();
    for Stuck { edge, host, after } in circles::stuck(&policy.policy, &members) {
        let span = policy.places.edges.get(edge).copied().or(policy.places.whole);
        let what = format!("host {host} would wait for ever: {after} must be done before it, and cannot be");
        let hint = "no edges in a circle, and none from a host to one of a later wave";
        faults.add_with_hint(span.unwrap_or(Span { from: 0, to: 0 }), what, Some(hint.to_owned()));
    }
}

/// A window in a zone that nobody knows never opens.
fn window_faults(policy: &ChannelPolicy, faults: &mut Faults) {
    for (span, zone) in policy.places.zones.iter().filter(|(_, zone)| !window::knows(zone)) {
        let hint = "write the name of a zone such as Europe/Berlin or UTC, as in the IANA database";
        faults.add_with_hint(*span, format!("there is no time zone {zone}"), Some(hint.to_owned()));
    }
}
