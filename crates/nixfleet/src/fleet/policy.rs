//! The policy of a channel: as in `nixfleet_core::model::policy`, with times in words, and with the choice of hosts for
//! each wave, which a signed policy does not have any more, since every entry names its wave.

use std::collections::BTreeSet;

use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::model::names::WaveName;
use nixfleet_core::model::policy::{Approval, Budget, Edge, OnFailure, Policy, Scope, Wave};
use nixfleet_core::model::schedule::{Hook, RebootMode, RebootPolicy, Weekday, Window, ZoneName};
use nixfleet_core::model::select::{Amount, Selector};
use nixfleet_core::model::time::Secs;

use super::decode::{self, Fields, each, one_of, parsed, secs, whole32};
use super::faults::Faults;
use super::suggest::did_you_mean;
use crate::spanned::{Node, Span, Value};
use crate::waves::Choice;

/// A policy with what is needed to resolve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPolicy {
    /// What is signed.
    pub policy: Policy,
    /// Whom each wave takes, in the order of the waves.
    pub choices: Vec<Choice>,
    /// Where each selector stands, for the check that it means somebody.
    pub(super) places: Places,
}

/// Where the parts of a policy stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Places {
    pub(super) waves: Vec<Span>,
    /// Tags that selectors name.
    pub(super) tags: Vec<(Span, nixfleet_core::model::names::Tag)>,
    /// Hosts that selectors name.
    pub(super) hosts: Vec<(Span, nixfleet_core::model::names::HostName)>,
    pub(super) edges: Vec<Span>,
    pub(super) budgets: Vec<Span>,
    pub(super) stage_in_flight: Option<Span>,
    /// Time zones that windows name.
    pub(super) zones: Vec<(Span, ZoneName)>,
    pub(super) confirm_within: Option<Span>,
    pub(super) hooks: Option<Span>,
    pub(super) whole: Option<Span>,
}

/// From the switch to the confirmation, unless the policy says otherwise.
const CONFIRM_WITHIN: Secs = Secs(300);
/// A host that was silent for three days blocks nobody, unless the policy says otherwise: a long weekend.
const OFFLINE_AFTER: Secs = Secs(3 * 86_400);
/// The shortest patience. A poll says nothing for most of a minute, so a control plane looks every ten seconds who waits:
/// twice that, or hosts that only wait would count as lost.
const OFFLINE_AFTER_MIN: Secs = Secs(20);

/// Reads a policy.
pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<ChannelPolicy> {
    let mut fields = Fields::of(node, "a policy", faults)?;
    let mut places = Places { whole: Some(fields.opening()), ..Places::default() };
    let waves = fields.required("waves", faults).and_then(|node| waves(node, &mut places, faults));
    let budgets = match fields.optional("max_in_flight") {
        Some(node) => budgets(node, &mut places, faults),
        None => Some(Vec::new()),
    };
    let edges = match fields.optional("edges") {
        Some(node) => edges(node, &mut places, faults),
        None => Some(Vec::new()),
    };
    let stage_in_flight = match fields.optional("stage_in_flight") {
        Some(node) => {
            places.stage_in_flight = Some(node.span);
            amount(node, "`stage_in_flight`", faults).map(Some)
        }
        None => Some(None),
    };
    let max_failures =
        fields.optional("max_failures").map_or(Some(0), |n| whole32(n, "`max_failures`", faults));
    let on_failure = fields
        .optional("on_failure")
        .map_or(Some(OnFailure::Revert), |node| one_of(node, "`on_failure`", &ON_FAILURE, faults));
    let commit = fields
        .optional("commit")
        .map_or(Some(CommitPolicy::AfterConfirm), |node| one_of(node, "`commit`", &COMMIT, faults));
    let confirm = fields.optional("confirm_within");
    places.confirm_within = confirm.map(|node| node.span);
    let confirm_within = confirm.map_or(Some(CONFIRM_WITHIN), |n| secs(n, "`confirm_within`", faults));
    let windows =
        fields.optional("windows").map_or(Some(Vec::new()), |node| windows(node, &mut places, faults));
    let reboot = match fields.optional("reboot") {
        Some(node) => reboot(node, &mut places, faults),
        None => Some(RebootPolicy::default()),
    };
    let offline_after =
        fields.optional("offline_after").map_or(Some(OFFLINE_AFTER), |n| offline_after(n, faults));
    fields.end(faults);
    let (waves, choices) = waves?;
    Some(ChannelPolicy {
        policy: Policy {
            waves,
            max_in_flight: budgets?,
            edges: edges?,
            // The description says it of the channel; a release is given it when it is assembled.
            after: BTreeSet::new(),
            stage_in_flight: stage_in_flight?,
            max_failures: max_failures?,
            on_failure: on_failure?,
            commit: commit?,
            confirm_within_secs: confirm_within?,
            windows: windows?,
            reboot: reboot?,
            offline_after_secs: offline_after?,
        },
        choices,
        places,
    })
}

const ON_FAILURE: [(&str, OnFailure); 3] =
    [("revert", OnFailure::Revert), ("halt", OnFailure::Halt), ("revert-all", OnFailure::RevertAll)];
const SCOPE: [(&str, Scope); 2] = [("channel", Scope::Channel), ("fleet", Scope::Fleet)];
const COMMIT: [(&str, CommitPolicy); 2] =
    [("immediately", CommitPolicy::Immediately), ("after-confirm", CommitPolicy::AfterConfirm)];
const APPROVAL: [(&str, Approval); 2] =
    [("not-needed", Approval::NotNeeded), ("by-a-person", Approval::ByAPerson)];
/// The words for whether a host restarts by itself.
pub(super) const REBOOT: [(&str, RebootMode); 3] =
    [("never", RebootMode::Never), ("when-needed", RebootMode::WhenNeeded), ("always", RebootMode::Always)];
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Mon),
    ("tue", Weekday::Tue),
    ("wed", Weekday::Wed),
    ("thu", Weekday::Thu),
    ("fri", Weekday::Fri),
    ("sat", Weekday::Sat),
    ("sun", Weekday::Sun),
];

struct ReadWave {
    name: WaveName,
    choice: Choice,
    opens_after: Option<Secs>,
    soak: Secs,
    approval: Approval,
}

/// The waves, with their earliest openings filled in: a wave without one opens when the one in front of it could be
/// done soaking at the earliest, since it could not before.
fn waves(node: &Node, places: &mut Places, faults: &mut Faults) -> Option<(Vec<Wave>, Vec<Choice>)> {
    let read = each(node, "`waves`", faults, |node, faults| {
        places.waves.push(node.span);
        wave(node, places, faults)
    })?;
    let (mut waves, mut choices) = (Vec::new(), Vec::new());
    let mut earliest = Secs(0);
    for ReadWave { name, choice, opens_after, soak, approval } in read {
        let opens_after = opens_after.unwrap_or(earliest);
        earliest = Secs(opens_after.0.saturating_add(soak.0));
        waves.push(Wave { name, opens_after_secs: opens_after, soak_secs: soak, approval });
        choices.push(choice);
    }
    Some((waves, choices))
}

fn wave(node: &Node, places: &mut Places, faults: &mut Faults) -> Option<ReadWave> {
    let mut fields = Fields::of(node, "a wave", faults)?;
    let name = fields.required("name", faults).and_then(|node| parsed(node, "`name`", faults));
    let hosts = match fields.optional("hosts") {
        Some(node) => selector(node, places, faults),
        None => Some(Selector::All),
    };
    let take = match fields.optional("take") {
        Some(node) => amount(node, "`take`", faults).map(Some),
        None => Some(None),
    };
    let opens_after = match fields.optional("opens_after") {
        Some(node) => secs(node, "`opens_after`", faults).map(Some),
        None => Some(None),
    };
    let soak = fields.required("soak", faults).and_then(|node| secs(node, "`soak`", faults));
    let approval = fields
        .optional("approval")
        .map_or(Some(Approval::NotNeeded), |node| one_of(node, "`approval`", &APPROVAL, faults));
    fields.end(faults);
    Some(ReadWave {
        name: name?,
        choice: Choice { hosts: hosts?, take: take? },
        opens_after: opens_after?,
        soak: soak?,
        approval: approval?,
    })
}

fn budgets(node: &Node, places: &mut Places, faults: &mut Faults) -> Option<Vec<Budget>> {
    each(node, "`max_in_flight`", faults, |node, faults| {
        places.budgets.push(node.span);
        let mut fields = Fields::of(node, "a budget", faults)?;
        let hosts = match fields.optional("hosts") {
            Some(node) => selector(node, places, faults),
            None => Some(Selector::All),
        };
        let limit = fields.required("limit", faults).and_then(|node| amount(node, "`limit`", faults));
        let scope = fields
            .optional("scope")
            .map_or(Some(Scope::Channel), |node| one_of(node, "`scope`", &SCOPE, faults));
        fields.end(faults);
        Some(Budget { hosts: hosts?, limit: limit?, scope: scope? })
    })
}

fn edges(node: &Node, places: &mut Places, faults: &mut Faults) -> Option<Vec<Edge>> {
    each(node, "`edges`", faults, |node, faults| {
        places.edges.push(node.span);
        let mut fields = Fields::of(node, "an edge", faults)?;
        let hosts = fields.required("hosts", faults).and_then(|node| selector(node, places, faults));
        let after = fields.required("after", faults).and_then(|node| selector(node, places, faults));
        fields.end(faults);
        Some(Edge { hosts: hosts?, after: after? })
    })
}

fn windows(node: &Node, places: &mut Places, faults: &mut Faults) -> Option<Vec<Window>> {
    each(node, "`windows`", faults, |node, faults| {
        let mut fields = Fields::of(node, "a window", faults)?;
        let days = match fields.optional("days") {
            Some(node) => each(node, "`days`", faults, |node, faults| one_of(node, "a day", &DAYS, faults)),
            None => Some(Vec::new()),
        };
        let from = fields.required("from", faults).and_then(|node| parsed(node, "`from`", faults));
        let until = fields.required("until", faults).and_then(|node| parsed(node, "`until`", faults));
        let zone = fields.required("zone", faults).and_then(|node| {
            let zone: ZoneName = parsed(node, "`zone`", faults)?;
            places.zones.push((node.span, zone.clone()));
            Some(zone)
        });
        fields.end(faults);
        Some(Window { days: days?, from: from?, until: until?, zone: zone? })
    })
}

fn reboot(node: &Node, places: &mut Places, faults: &mut Faults) -> Option<RebootPolicy> {
    places.hooks = Some(node.span);
    let mut fields = Fields::of(node, "`reboot` of a policy", faults)?;
    let mode = fields.required("mode", faults).and_then(|node| one_of(node, "`mode`", &REBOOT, faults));
    let windows =
        fields.optional("windows").map_or(Some(Vec::new()), |node| self::windows(node, places, faults));
    let warn = fields.optional("warn").map_or(Some(Secs(0)), |node| secs(node, "`warn`", faults));
    let before = fields.optional("before").map_or(Some(Vec::new()), |node| hooks(node, "`before`", faults));
    let after = fields.optional("after").map_or(Some(Vec::new()), |node| hooks(node, "`after`", faults));
    fields.end(faults);
    Some(RebootPolicy { mode: mode?, windows: windows?, warn_secs: warn?, before: before?, after: after? })
}

/// How long a host may be silent.
fn offline_after(node: &Node, faults: &mut Faults) -> Option<Secs> {
    let read = secs(node, "`offline_after`", faults)?;
    if read < OFFLINE_AFTER_MIN {
        let hint = "a host that only waits for orders says nothing for most of a minute; \"10m\" is short, and \"3d\" usual";
        let what = format!("`offline_after` must be {} s or more", OFFLINE_AFTER_MIN.0);
        faults.add_with_hint(node.span, what, Some(hint.to_owned()));
    }
    Some(read)
}

fn hooks(node: &Node, what: &str, faults: &mut Faults) -> Option<Vec<Hook>> {
    each(node, what, faults, |node, faults| {
        let mut fields = Fields::of(node, "a hook", faults)?;
        let argv = fields.required("argv", faults).and_then(|node| argv(node, faults));
        let deadline = fields.required("deadline", faults).and_then(|n| secs(n, "`deadline`", faults));
        fields.end(faults);
        Some(Hook { argv: argv?, deadline_secs: deadline? })
    })
}

/// A program and its arguments.
pub(super) fn argv(node: &Node, faults: &mut Faults) -> Option<Vec<String>> {
    each(node, "`argv`", faults, |node, faults| decode::text(node, "an argument", faults).map(str::to_owned))
}

/// `5`, or `"20%"`.
fn amount(node: &Node, what: &str, faults: &mut Faults) -> Option<Amount> {
    let read = match &node.value {
        Value::Number(text) => text.parse().ok().map(Amount::Count),
        Value::Text(text) if text.ends_with('%') => text.parse().ok(),
        Value::Text(_) | Value::Null | Value::Bool(_) | Value::List(_) | Value::Object(_) => None,
    };
    if read.is_none() {
        let hint = Some("write 5, or \"20%\"".to_owned());
        faults.add_with_hint(node.span, format!("{what} must be a whole number or a share"), hint);
    }
    read
}

const SELECTORS: [&str; 5] = ["tag", "host", "not", "all-of", "any-of"];

/// `"all"`, `{"tag": …}`, `{"host": …}`, `{"not": …}`, `{"all-of": […]}`, `{"any-of": […]}`.
fn selector(node: &Node, places: &mut Places, faults: &mut Faults) -> Option<Selector> {
    let fields = match &node.value {
        Value::Text(text) if text == "all" => return Some(Selector::All),
        Value::Object(fields) => fields,
        Value::Text(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) => {
            let hint = "write \"all\", {\"tag\": \"web\"}, {\"host\": \"web-1\"}, or {\"not\": …}, {\"all-of\": […]}, \
                        {\"any-of\": […]} of these";
            faults.add_with_hint(node.span, "this does not choose hosts", Some(hint.to_owned()));
            return None;
        }
    };
    let [field] = fields.as_slice() else {
        let what = format!("a choice of hosts has one field, and this has {}", fields.len());
        faults.add_with_hint(node.span, what, Some("put them into {\"all-of\": […]}".to_owned()));
        return None;
    };
    let inner = &field.node;
    match field.name.as_str() {
        "tag" => {
            let tag: nixfleet_core::model::names::Tag = parsed(inner, "`tag`", faults)?;
            places.tags.push((inner.span, tag.clone()));
            Some(Selector::Tag(tag))
        }
        "host" => {
            let host: nixfleet_core::model::names::HostName = parsed(inner, "`host`", faults)?;
            places.hosts.push((inner.span, host.clone()));
            Some(Selector::Host(host))
        }
        "not" => selector(inner, places, faults).map(|inner| Selector::Not(Box::new(inner))),
        "all-of" => each(inner, "`all-of`", faults, |node, faults| selector(node, places, faults))
            .map(Selector::AllOf),
        "any-of" => each(inner, "`any-of`", faults, |node, faults| selector(node, places, faults))
            .map(Selector::AnyOf),
        other => {
            let hint = did_you_mean(other, SELECTORS)
                .unwrap_or_else(|| format!("known are `{}`", SELECTORS.join("`, `")));
            let what = format!("hosts cannot be chosen by `{}`", decode::shown(other));
            faults.add_with_hint(field.at, what, Some(hint));
            None
        }
    }
}
