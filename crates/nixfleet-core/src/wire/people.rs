//! What a control plane and people's programs say to each other, as JSON: views of the fleet, verbs, and problems.
//!
//! The control plane answers with these types and the operator's command line reads them, so a shape has one definition.
//! Fields may be added that may be missing; a reader passes over fields that it does not know.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::log::Fact;
use crate::host::state::Refused;
use crate::host::waiting::Doing;
use crate::model::names::{ChannelName, HostName, ReleaseId, RootVersion, Tag};
use crate::model::time::UnixMs;

/// What the `type` of every problem begins with.
pub const PROBLEM_PREFIX: &str = "urn:nixfleet:problem:";

/// The fleet at a glance: `GET /v1/fleet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetView {
    /// The newest release of each channel.
    pub releases: Vec<ReleaseId>,
    /// How many hosts are in which state, by channel.
    pub hosts: BTreeMap<String, BTreeMap<String, u64>>,
    /// The newest event's number.
    pub newest_event: u64,
    /// What keeps the control plane from working as it should. One of before has no word for it.
    #[serde(default)]
    pub troubles: Vec<TroubleView>,
}

/// What keeps a control plane from working as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleView {
    /// What it is.
    pub kind: TroubleKind,
    /// Since when.
    pub since_ms: UnixMs,
    /// In words.
    pub text: String,
}

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TroubleKind {
    /// There is no room left where the database is.
    DatabaseFull,
    /// The database does not answer.
    DatabaseAway,
    /// It answers, and refuses.
    DatabaseFailing,
    /// The root that is in force ends soon.
    RootEnding,
    /// What is planned breaks rules that it must keep, so channels stand still: a mistake in the control plane's program.
    PlanObjected,
}

/// A host, as the control plane knows it: `GET /v1/hosts/HOST`, and in pages `GET /v1/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its name.
    pub name: HostName,
    /// Its channel.
    pub channel: ChannelName,
    /// The newest release that names it.
    pub release_seq: u64,
    /// Its wave in that release, from 0.
    pub wave: u16,
    /// Its tags.
    pub tags: BTreeSet<Tag>,
    /// The system that it shall run.
    pub system: String,
    /// The system that it runs, by its last report.
    pub current: Option<String>,
    /// The agent's version.
    pub agent: Option<String>,
    /// What it is doing, by its last report; `None` before the first.
    pub doing: Option<Doing>,
    /// When it last reported something new.
    pub reported_ms: Option<UnixMs>,
    /// When it was last heard of.
    pub heard_ms: Option<UnixMs>,
    /// How far its clock was ahead of the control plane's when it was last heard of; negative if it was behind. An agent of before
    /// does not say.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
    /// What it refuses to take of what it is served, by its last report.
    #[serde(default)]
    pub refused: Option<Refused>,
    /// Why its events cannot be followed at the moment.
    pub fault: Option<String>,
}

/// A page of something, with where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// What there is.
    pub items: Vec<T>,
    /// What to ask for next with `after`; `None` at the end.
    pub next: Option<String>,
}

/// An event of the control plane's log: in pages `GET /v1/events`, and as it comes `GET /v1/events/live`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its number.
    pub id: u64,
    /// When it was taken in.
    pub at_ms: UnixMs,
    /// The host that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<HostName>,
    /// The channel that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub channel: Option<ChannelName>,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// A key that no release names: `GET /v1/strangers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrangerView {
    /// Its fingerprint.
    pub key: String,
    /// When it first came.
    pub first_ms: UnixMs,
    /// When it last came.
    pub last_ms: UnixMs,
    /// How often it came, at most once a minute.
    pub times: u64,
    /// From where it last came.
    pub address: String,
}

/// Why somebody acts: the body of every verb that needs no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// The reason.
    pub why: String,
}

/// Why and for how long a host is kept: the body of `POST /v1/hosts/HOST/hold`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldBody {
    /// The reason.
    pub why: String,
    /// Until then, in milliseconds since 1970; without it, until somebody lets it go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<UnixMs>,
}

/// What became of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// The event that says so; the host has it when its own event follows.
    pub event: u64,
}

/// What became of a push: the answer to `POST /v1/releases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// Whether it was new.
    pub outcome: PushOutcome,
    /// Which release it was.
    pub release: Option<ReleaseId>,
    /// The roots that were new, oldest first, whatever became of the release. A control plane of before does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<RootVersion>,
}

/// Whether what was pushed was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushOutcome {
    /// The release was new, and is served from now on.
    Taken,
    /// The release was there already.
    KnownBefore,
    /// There were roots and no release.
    RootsOnly,
}

/// What went wrong, for the caller: a problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Names the kind of problem; stable, for programs.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// The kind of problem in words.
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// What it was in this case.
    pub detail: String,
    /// What can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// The kind without what all kinds begin with; the whole kind if it is not one of ours.
    pub fn short_kind(&self) -> &str {
        self.kind.strip_prefix(PROBLEM_PREFIX).unwrap_or(&self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_read_with_and_without_a_hint() {
        let text = r#"{"type":"urn:nixfleet:problem:not-found","title":"There is no such thing","status":404,"detail":"x"}"#;
        let problem: Problem = serde_json::from_str(text).expect("a problem");
        assert_eq!((problem.short_kind(), &problem.hint), ("not-found", &None));
        assert_eq!(serde_json::to_string(&problem).expect("JSON"), text);
        let foreign = text.replace("urn:nixfleet:problem:not-found", "about:blank");
        assert_eq!(serde_json::from_str::<Problem>(&foreign).expect("a problem").short_kind(), "about:blank");
    }

    #[test]
    fn a_push_is_read_whether_or_not_it_names_roots() {
        let old = r#"{"outcome":"roots-only","release":null}"#;
        let pushed: Pushed = serde_json::from_str(old).expect("an answer");
        assert_eq!((&*pushed.roots, serde_json::to_string(&pushed).expect("JSON").as_str()), (&[][..], old));
        let new = r#"{"outcome":"roots-only","release":null,"roots":[2,3]}"#;
        let pushed: Pushed = serde_json::from_str(new).expect("an answer");
        assert_eq!(pushed.roots.iter().map(|root| root.get()).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(serde_json::to_string(&pushed).expect("JSON"), new);
    }

    #[test]
    fn a_hold_without_an_end_does_not_name_one() {
        let body = HoldBody { why: "exams".to_owned(), until_ms: None };
        assert_eq!(serde_json::to_string(&body).expect("JSON"), r#"{"why":"exams"}"#);
    }
}
