//! The fleet description `fleet.json`: which hosts there are, what each shall run, and how it gets there.
//!
//! Written by hand, by `nix eval --json`, or by any program. It is read strictly: what is not known is a fault, nothing
//! is guessed, and all faults are reported together, each with its place.
//!
//! # An example
//!
//! ```json
#![doc = include_str!("fleet/example.json")]
//! ```
//!
//! # Reference
//!
//! | field | is |
//! |---|---|
//! | `fleet` | the fleet's id, as in its root |
//! | `channels` | an object: a channel by its name |
//! | `hosts` | an object: a host by its name |
//!
//! **A channel**
//!
//! | field | is |
//! |---|---|
//! | `policy` | how a release goes out |
//! | `after` | channels that must have converged on the same source revision first (none) |
//!
//! **A host**
//!
//! | field | is |
//! |---|---|
//! | `channel` | the channel that it follows |
//! | `system` | a store path, or an installable for `nix build`, read from the folder of `fleet.json` |
//! | `key` or `keys` | its public key, or two while one replaces the other: `ssh-ed25519 …` or `ecdsa-sha2-nistp256 …` |
//! | `tags` | words that selectors choose it by (none) |
//! | `probes` | what a healthy host answers (the built-in probes) |
//! | `reboot` | `never`, `when-needed` or `always` (as the policy says) |
//! | `pin` | keeps it on another system: `system`, `reason`, and perhaps `until` (not pinned) |
//!
//! **A policy**
//!
//! | field | is |
//! |---|---|
//! | `waves` | a list, in order |
//! | `max_in_flight` | a list of `{"hosts": SELECTOR, "limit": AMOUNT}`; every one holds (no limit); with `"scope": "fleet"` it counts all channels |
//! | `stage_in_flight` | how many hosts a control plane lets fetch at the same time: an AMOUNT (all of them) |
//! | `edges` | a list of `{"hosts": SELECTOR, "after": SELECTOR}`: the first wait for the second (none) |
//! | `max_failures` | the rollout halts when more hosts than that have failed (0) |
//! | `on_failure` | `revert`, `halt` or `revert-all` (`revert`) |
//! | `commit` | `after-confirm` or `immediately`: when a system becomes the boot default (`after-confirm`) |
//! | `confirm_within` | from the switch to the confirmation (`5m`) |
//! | `windows` | when hosts may switch: a list of `{"days": [], "from": "22:00", "until": "04:00", "zone": "UTC"}` (always) |
//! | `reboot` | `{"mode": …, "windows": [], "warn": TIME, "before": [HOOK], "after": [HOOK]}` (`never`) |
//! | `offline_after` | a host that was silent for that long blocks nobody, and is lost if it was moving; at least `20s`, and `3m` where several control planes share a database (`3d`) |
//!
//! **A wave**: `name`, `soak` (how long a host is watched before it counts as done), and perhaps `hosts` (a selector;
//! all), `take` (an amount of these; all that are left), `opens_after` (the earliest opening from the release's creation;
//! that of the wave in front of it and its soak) and `approval` (`not-needed` or `by-a-person`). Who goes into which
//! wave is described in [`crate::waves`]. The waves together must take every host of the channel.
//!
//! **A probe**: `name`, `kind`, and perhaps `mode` (`enforce`, `observe`, `disabled`), `interval` (`10s`), `timeout`
//! (`5s`), `after` (`0s`) and `failures` (3). Only `enforce` decides; where no probe of a host does, the built-in ones do.
//! Kinds: `{"http": {"url": …, "status": {"min": 200, "max": 399}, "body_contains": …, "tls": …, "redirects": …}}`,
//! `{"tcp": {"address": "HOST:PORT"}}`, `{"exec": {"argv": […]}}`,
//! `{"unit": {"unit": "nginx.service"}}`, `{"http-metric": {"url": …, "tls": …, "redirects": …, "metric": …,
//! "good": {"at-most": 5}}}`. `tls` is `"system-roots"`, `{"pinned-key": "sha256:…"}` or `{"ca-file": "/etc/…/ca.pem"}`, a
//! file of the host that its agent can read (nothing below `/home`, `/root` or `/tmp`), read anew for each question.
//! `redirects` is `"refuse"` (a redirect is a failure that names the other address, unless `status` begins at 300) or
//! `"follow"` (5 in a row at most, never from https to http, all within the timeout; `tls` counts for each). A **hook** is `{"argv": […], "deadline": TIME}`.
//!
//! A **selector** is `"all"`, `{"tag": "web"}`, `{"host": "web-1"}`, or `{"not": …}`, `{"all-of": […]}`,
//! `{"any-of": […]}` of these. An **amount** is `5` or `"20%"`. A **time** has its unit: `"90s"`, `"1h 30m"`, `"3d"`. A
//! **point in time** is a day or RFC 3339.

pub mod faults;
pub mod suggest;

mod check;
mod decode;
mod policy;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use nixfleet_core::ids::StorePath;
use nixfleet_core::model::names::{ChannelName, FleetId, HostKey, HostName, Tag};
use nixfleet_core::model::probe::ProbeSpec;
use nixfleet_core::model::schedule::RebootMode;
use nixfleet_core::model::time::UnixMs;

use crate::spanned::{self, Field, Node, Span};
use decode::{Fields, each, named, object, one_of, parsed};
use faults::{Fault, Faults};

pub use decode::{read_secs, read_time};
pub use policy::ChannelPolicy;

/// The example that `nixfleet init` writes, with `@FLEET@` for the fleet's id and `@KEY@` for a host's key.
pub const EXAMPLE: &str = include_str!("fleet/example.json");

/// A fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Its id.
    pub fleet: FleetId,
    /// Its channels.
    pub channels: BTreeMap<ChannelName, Channel>,
    /// Its hosts.
    pub hosts: BTreeMap<HostName, Host>,
}

/// A line of releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// How a release goes out.
    pub policy: ChannelPolicy,
    /// Channels that must have converged on the same source revision first.
    pub after: BTreeSet<ChannelName>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The channel that it follows.
    pub channel: ChannelName,
    /// What selectors choose it by.
    pub tags: BTreeSet<Tag>,
    /// What it shall run.
    pub system: System,
    /// Its key, or two.
    pub keys: Vec<HostKey>,
    /// What a healthy host answers; where none is enforced, the built-in probes decide.
    pub probes: Vec<ProbeSpec>,
    /// Whether it restarts by itself; `None` means as the policy says.
    pub reboot: Option<RebootMode>,
    /// Keeps it on another system.
    pub pin: Option<Pin>,
}

impl Host {
    /// What it shall run at `now`: what it is pinned to, until the pin ends.
    pub fn system_at(&self, now: UnixMs) -> &System {
        match &self.pin {
            Some(pin) if pin.holds_at(now) => &pin.system,
            Some(_) | None => &self.system,
        }
    }
}

/// Keeps a host on a system of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The system.
    pub system: System,
    /// Why, for people.
    pub reason: String,
    /// Until when; `None` means until it is taken away.
    pub until: Option<UnixMs>,
}

impl Pin {
    /// Whether it has not ended.
    pub fn holds_at(&self, now: UnixMs) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// A system: there already, or to be built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum System {
    /// A store path, which is fetched if it is not there.
    Path(StorePath),
    /// What `nix build` takes, such as `.#nixosConfigurations.web-1.config.system.build.toplevel`.
    Installable(String),
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Installable(text) => f.write_str(text),
        }
    }
}

/// Why a text is no system.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotASystem {
    /// It begins like a store path.
    #[error(transparent)]
    Path(nixfleet_core::ids::NotAStorePath),
    /// How to build something is not what was built.
    #[error("`{0}` is a derivation, not what it builds: write `{0}^out`")]
    Derivation(StorePath),
    /// Nothing that `nix build` would take for an installable.
    #[error(
        "`{0}` is neither a store path nor an installable such as `.#nixosConfigurations.web-1.config.system.build.toplevel`"
    )]
    Installable(String),
}

impl FromStr for System {
    type Err = NotASystem;
    fn from_str(text: &str) -> Result<Self, NotASystem> {
        let in_store = text.starts_with("/nix/store/") && !text.contains(['^', '#']);
        if in_store {
            let path: StorePath = text.parse().map_err(NotASystem::Path)?;
            let is_derivation = path.name().rsplit_once('.').is_some_and(|(_, suffix)| suffix == "drv");
            return if is_derivation { Err(NotASystem::Derivation(path)) } else { Ok(Self::Path(path)) };
        }
        // A leading dash would be an option.
        let good = !text.is_empty() && !text.starts_with('-') && !text.chars().any(char::is_control);
        if good {
            Ok(Self::Installable(text.to_owned()))
        } else {
            Err(NotASystem::Installable(decode::shown(text)))
        }
    }
}

/// Reads a description from the text of `fleet.json`; finds every fault at once, in the order of their places.
pub fn read(text: &str) -> Result<Fleet, Vec<Fault>> {
    let node =
        spanned::read(text).map_err(|not| vec![Fault { span: not.span, what: not.what, hint: None }])?;
    let mut faults = Faults::default();
    let fleet = fleet(&node, &mut faults);
    match fleet {
        Some(fleet) if faults.count() == 0 => Ok(fleet),
        Some(_) | None => Err(faults.sorted()),
    }
}

/// What was read of a description, with the places that the checks between its parts point at.
struct Read {
    channels: BTreeMap<ChannelName, ReadChannel>,
    hosts: BTreeMap<HostName, ReadHost>,
    /// Every channel's name, also of those that could not be read.
    channel_names: BTreeSet<String>,
}

struct ReadChannel {
    policy: Option<ChannelPolicy>,
    after: Vec<(Span, ChannelName)>,
}

struct ReadHost {
    at: Span,
    channel: Option<(Span, ChannelName)>,
    tags: BTreeSet<Tag>,
    keys: Vec<(Span, HostKey)>,
    rest: Option<Rest>,
}

struct Rest {
    system: System,
    probes: Vec<ProbeSpec>,
    reboot: Option<RebootMode>,
    pin: Option<Pin>,
}

fn fleet(node: &Node, faults: &mut Faults) -> Option<Fleet> {
    let mut fields = Fields::of(node, "a fleet description", faults)?;
    let id = fields.required("fleet", faults).and_then(|node| parsed(node, "`fleet`", faults));
    let channels = fields.required("channels", faults).and_then(|node| object(node, "`channels`", faults));
    let hosts = fields.required("hosts", faults).and_then(|node| object(node, "`hosts`", faults));
    fields.end(faults);
    let (channels, hosts) = (channels.unwrap_or_default(), hosts.unwrap_or_default());
    let read = Read {
        channel_names: channels.iter().map(|field| field.name.clone()).collect(),
        channels: channels.iter().filter_map(|field| channel(field, faults)).collect(),
        hosts: hosts.iter().filter_map(|field| host(field, faults)).collect(),
    };
    check::check(id.as_ref(), &read, faults);
    if faults.count() > 0 {
        return None;
    }
    Some(Fleet { fleet: id?, channels: whole_channels(read.channels)?, hosts: whole_hosts(read.hosts)? })
}

fn whole_channels(read: BTreeMap<ChannelName, ReadChannel>) -> Option<BTreeMap<ChannelName, Channel>> {
    let whole = |(name, ReadChannel { policy, after })| {
        let after = after.into_iter().map(|(_, name)| name).collect();
        Some((name, Channel { policy: policy?, after }))
    };
    read.into_iter().map(whole).collect()
}

fn whole_hosts(read: BTreeMap<HostName, ReadHost>) -> Option<BTreeMap<HostName, Host>> {
    let whole = |(name, ReadHost { at: _, channel, tags, keys, rest })| {
        let Rest { system, probes, reboot, pin } = rest?;
        let (_, channel) = channel?;
        let keys = keys.into_iter().map(|(_, key)| key).collect();
        Some((name, Host { channel, tags, system, keys, probes, reboot, pin }))
    };
    read.into_iter().map(whole).collect()
}

fn channel(field: &Field, faults: &mut Faults) -> Option<(ChannelName, ReadChannel)> {
    let name = named(field, faults);
    let mut fields = Fields::of(&field.node, "a channel", faults)?;
    let policy = fields.required("policy", faults).and_then(|node| policy::read(node, faults));
    let after = fields.optional("after").map_or(Some(Vec::new()), |node| {
        each(node, "`after`", faults, |node, faults| Some((node.span, parsed(node, "a channel", faults)?)))
    });
    fields.end(faults);
    Some((name?, ReadChannel { policy, after: after.unwrap_or_default() }))
}

fn host(field: &Field, faults: &mut Faults) -> Option<(HostName, ReadHost)> {
    let name = named(field, faults);
    let mut fields = Fields::of(&field.node, "a host", faults)?;
    let channel = fields
        .required("channel", faults)
        .and_then(|node| Some((node.span, parsed(node, "`channel`", faults)?)));
    let system = fields.required("system", faults).and_then(|node| parsed(node, "`system`", faults));
    let keys = keys(&mut fields, faults);
    // Those that can be read count even if another cannot: or each selector for them would be a fault as well.
    let tags =
        fields.optional("tags").and_then(|node| decode::list(node, "`tags`", faults)).unwrap_or_default();
    let tags: BTreeSet<Tag> = tags.iter().filter_map(|node| parsed(node, "a tag", faults)).collect();
    let probes = fields
        .optional("probes")
        .map_or(Some(Vec::new()), |node| each(node, "`probes`", faults, probe::read));
    let reboot = match fields.optional("reboot") {
        Some(node) => one_of(node, "`reboot`", &policy::REBOOT, faults).map(Some),
        None => Some(None),
    };
    let pin = match fields.optional("pin") {
        Some(node) => pin(node, faults).map(Some),
        None => Some(None),
    };
    fields.end(faults);
    let rest = match (system, probes, reboot, pin) {
        (Some(system), Some(probes), Some(reboot), Some(pin)) => Some(Rest { system, probes, reboot, pin }),
        _ => None,
    };
    Some((name?, ReadHost { at: field.at, channel, tags, keys, rest }))
}

/// Either `key` or `keys`.
fn keys(fields: &mut Fields<'_>, faults: &mut Faults) -> Vec<(Span, HostKey)> {
    let (one, more) = (fields.optional("key"), fields.optional("keys"));
    let key = |node: &Node, faults: &mut Faults| check::host_key(node, faults).map(|key| (node.span, key));
    match (one, more) {
        (Some(node), None) => key(node, faults).into_iter().collect(),
        (None, Some(node)) => each(node, "`keys`", faults, key).unwrap_or_default(),
        (None, None) => {
            let hint = "the host has it in /etc/ssh/ssh_host_ed25519_key.pub; `ssh-keyscan -t ed25519 HOST` asks for it";
            faults.add_with_hint(fields.opening(), "a host has no `key`", Some(hint.to_owned()));
            Vec::new()
        }
        (Some(_), Some(node)) => {
            faults.add(node.span, "a host has either `key` or `keys`");
            Vec::new()
        }
    }
}

fn pin(node: &Node, faults: &mut Faults) -> Option<Pin> {
    let mut fields = Fields::of(node, "a pin", faults)?;
    let system = fields.required("system", faults).and_then(|node| parsed(node, "`system`", faults));
    let reason = fields.required("reason", faults).and_then(|node| decode::text(node, "`reason`", faults));
    let until = match fields.optional("until") {
        Some(node) => decode::at(node, "`until`", faults).map(Some),
        None => Some(None),
    };
    fields.end(faults);
    Some(Pin { system: system?, reason: reason?.to_owned(), until: until? })
}

#[cfg(test)]
mod tests;
