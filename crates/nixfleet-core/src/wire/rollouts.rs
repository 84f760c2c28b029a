//! What people's programs are told of rollouts: how far they are, who waits on what, and what a plan would do. The words
//! and kinds are the planner's ([`crate::rollout`]); reasons are open here, so that a reader can show one that is newer
//! than itself by its words.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::host::waiting::StateName;
use crate::ids::StorePath;
use crate::model::names::{ChannelName, HostName, ReleaseId, Seq, WaveName};
use crate::model::policy::{Approval, WaveIndex};
use crate::model::release::Revision;
use crate::model::time::{Secs, UnixMs};
use crate::rollout::progress::{By, FailedHow};
use crate::rollout::reason::WaveWaits;
use crate::rollout::snapshot::Ordered;
use crate::rollout::{Decision, Order, Reason, Status, Verb, What};

/// How many hosts are how far; each is counted once besides in `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostCounts {
    /// All of them.
    pub total: u64,
    /// They run the release, and were watched for long enough.
    pub done: u64,
    /// They run it and are watched.
    pub soaking: u64,
    /// They were told to move, or are at it.
    pub moving: u64,
    /// They failed.
    pub failed: u64,
    /// They were not heard of for too long.
    pub offline: u64,
    /// People left them out: held or skipped.
    pub left_out: u64,
    /// They wait for their turn.
    pub waiting: u64,
}

/// A rollout: `GET /v1/rollouts/CHANNEL`, and in a page `GET /v1/rollouts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutView {
    /// Its name: `channel/seq`.
    pub rollout: String,
    /// The channel.
    pub channel: ChannelName,
    /// The release's number.
    pub seq: Seq,
    /// The release.
    pub release: ReleaseId,
    /// The source revision; `None` while a newer release is about to take its place.
    pub revision: Option<Revision>,
    /// When it was opened.
    pub opened_ms: UnixMs,
    /// When every host was done or excused.
    pub converged_ms: Option<UnixMs>,
    /// Whether it goes on.
    pub status: Status,
    /// Its hosts.
    pub hosts: HostCounts,
    /// The failures that count.
    pub failures: Vec<FailureView>,
    /// Systems that are not offered in the channel any more.
    pub quarantine: Vec<QuarantineView>,
    /// Its waves, in their order.
    pub waves: Vec<WaveView>,
}

/// A host's failure, as it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// The host.
    pub host: HostName,
    /// How.
    pub how: FailedHow,
    /// The system that is not to be offered to others.
    pub system: Option<StorePath>,
    /// When it was counted.
    pub at_ms: UnixMs,
    /// In words.
    pub text: String,
}

/// A system that is not offered in the channel any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineView {
    /// The system.
    pub system: StorePath,
    /// Where it failed.
    pub host: HostName,
    /// In which rollout: `channel/seq`.
    pub rollout: String,
    /// Since when.
    pub since_ms: UnixMs,
}

/// A wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaveView {
    /// Its place, from 0.
    pub wave: WaveIndex,
    /// Its name.
    pub name: WaveName,
    /// When it was opened; `None` while it is shut.
    pub opened_ms: Option<UnixMs>,
    /// How long its hosts are watched.
    pub soak_secs: Secs,
    /// Whether a person must open it.
    pub approval: Approval,
    /// Who did.
    pub approved: Option<By>,
    /// Its hosts.
    pub hosts: HostCounts,
    /// What it waits for while it is shut.
    pub waits: Option<WaveWaits>,
    /// That in words.
    pub text: Option<String>,
    /// Why its hosts do not move, the most frequent first.
    pub reasons: Vec<ReasonCount>,
}

/// A reason and how many hosts it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// Its name.
    pub reason: String,
    /// In words.
    pub text: String,
    /// How many hosts.
    pub hosts: u64,
    /// The first of them by name.
    pub first: HostName,
}

/// A reason: its name, and fields of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonView {
    /// Its name.
    pub reason: String,
    /// What else it says.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl From<&Reason> for ReasonView {
    fn from(reason: &Reason) -> Self {
        let json = serde_json::to_value(reason).expect("texts and numbers are always JSON");
        serde_json::from_value(json).expect("every reason says which one it is")
    }
}

impl ReasonView {
    /// The plan has an order for the host, which is about to be given.
    pub fn ordered(what: What) -> Self {
        let what = serde_json::to_value(what).expect("a word is always JSON");
        Self { reason: "ordered".to_owned(), fields: Map::from_iter([("what".to_owned(), what)]) }
    }
}

/// Why a host does not move: `GET /v1/hosts/HOST/why`, and in pages `GET /v1/rollouts/CHANNEL/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyView {
    /// The host.
    pub host: HostName,
    /// Its channel.
    pub channel: ChannelName,
    /// Its wave, from 0.
    pub wave: WaveIndex,
    /// The rollout of its channel's newest release: `channel/seq`.
    pub rollout: String,
    /// The reason.
    pub reason: ReasonView,
    /// In words.
    pub text: String,
    /// What was ordered and is not yet seen to have begun.
    pub ordered: Option<Ordered>,
    /// Its own state, by its last report.
    pub state: Option<StateName>,
    /// When it was last heard of.
    pub heard_ms: Option<UnixMs>,
}

/// Who plans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderView {
    /// The process.
    pub holder: String,
    /// Until then, unless it says again that it is there.
    pub until_ms: UnixMs,
}

/// A plan: `GET /v1/plan`, and as if a verb had been asked for `POST /v1/plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// The newest event that it knows of.
    pub event: u64,
    /// When it was made.
    pub at_ms: UnixMs,
    /// Who carries plans out.
    pub leader: Option<LeaderView>,
    /// What becomes of rollouts.
    pub decisions: Vec<Decision>,
    /// What hosts are asked to do; the first thousand.
    pub orders: Vec<Order>,
    /// How many orders there are.
    pub orders_total: u64,
    /// What the second opinion objects to. The channels that it is about stand still, and nothing of them is among what is told
    /// here.
    pub objections: Vec<String>,
    /// Why the rest does not move.
    pub held: Vec<ReasonCount>,
    /// When a plan may say something else although nothing happened.
    pub again_ms: Option<UnixMs>,
}

/// What a plan is asked for: the body of `POST /v1/plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanAsked {
    /// As if this had been asked for.
    pub verb: Verb,
}

/// Which wave and why: the body of `POST /v1/rollouts/CHANNEL/SEQ/approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveBody {
    /// The reason.
    pub why: String,
    /// The wave, from 0.
    pub wave: WaveIndex,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_is_newer_than_the_reader_keeps_its_fields() {
        let text = r#"{"reason":"moon-phase","wants":"full","in_days":3}"#;
        let reason: ReasonView = serde_json::from_str(text).expect("a reason");
        assert_eq!(reason.reason, "moon-phase");
        let back: Value = serde_json::to_value(&reason).expect("JSON");
        assert_eq!(back, serde_json::from_str::<Value>(text).expect("JSON"));
    }

    #[test]
    fn the_planners_reasons_are_reasons_here() {
        let read = ReasonView::from(&Reason::Edge { after: "db-1".parse().expect("a name") });
        assert_eq!((read.reason.as_str(), read.fields["after"].as_str()), ("edge", Some("db-1")));
    }

    #[test]
    fn a_rollout_is_read_as_the_description_of_the_api_shows_it() {
        let digest = "ab".repeat(32);
        let text = format!(
            r#"{{"rollout": "stable/3", "channel": "stable", "seq": 3,
             "release": {{"channel": "stable", "seq": 3, "digest": "sha256:{digest}"}},
             "revision": "9c1f2e4", "opened_ms": 1, "converged_ms": null,
             "status": {{"status": "paused", "who": "ann", "why": "lunch", "at_ms": 2}},
             "hosts": {{"total": 12, "done": 3, "soaking": 1, "moving": 1, "failed": 0, "offline": 1, "left_out": 0,
                        "waiting": 6, "newer": 1}},
             "failures": [{{"host": "web-1", "how": {{"how": "reported", "class": "probe"}}, "system": null, "at_ms": 1,
                            "text": "probe"}}],
             "quarantine": [],
             "waves": [{{"wave": 0, "name": "canary", "opened_ms": null, "soak_secs": 60, "approval": "by-a-person",
                         "approved": null, "hosts": {{"total": 1}}, "waits": {{"on": "approval", "wave": 0}},
                         "text": "wave 1 waits for a person's approval",
                         "reasons": [{{"reason": "wave", "text": "t", "hosts": 1, "first": "web-1"}}]}}]}}"#
        );
        let view: RolloutView = serde_json::from_str(&text).expect("a rollout");
        assert!(matches!(view.status, Status::Paused(By { ref who, .. }) if who == "ann"));
        assert_eq!((view.hosts.waiting, view.waves[0].hosts.total, view.waves[0].hosts.done), (6, 1, 0));
        assert_eq!(view.waves[0].waits, Some(WaveWaits::Approval { wave: WaveIndex(0) }));
    }
}
