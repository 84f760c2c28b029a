//! Counters and gauges in Prometheus' text form. No label names a host (`facts/stack.md`, section 11): per-host facts
//! are in the API.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nixfleet_core::model::time::UnixMs;
use nixfleet_core::wire::people::{TroubleKind, TroubleView};

/// Something counted since the process began.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets it, for what goes up and down.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Counters>);

/// The counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records that agents sent, repeats too.
    pub events_received: Counter,
    /// Answers with status 500 and above.
    pub answers_failed: Counter,
    /// All answers.
    pub answers: Counter,
    /// Plans that were made.
    pub plans: Counter,
    /// Plans that the second opinion objected to.
    pub plans_objected: Counter,
    /// Orders that this process gave to hosts.
    pub orders: Counter,
    /// 1 while this process plans for all.
    pub leads: Counter,
}

impl std::ops::Deref for Metrics {
    type Target = Counters;
    fn deref(&self) -> &Counters {
        &self.0
    }
}

/// What is looked up when metrics are asked for.
#[derive(Debug)]
pub struct Gauges {
    /// Hosts by channel and state.
    pub hosts: Vec<(String, String, u64)>,
    /// Hosts whose polls wait here.
    pub polling: usize,
    /// The newest event's number.
    pub newest_event: u64,
    /// What keeps the database from being written.
    pub troubles: Vec<TroubleView>,
    /// The newest rollout of each channel, and what it is, of [`ROLLOUT_STATUS`].
    pub rollouts: Vec<(String, &'static str)>,
    /// When the newest release of each channel ends.
    pub releases_end: Vec<(String, UnixMs)>,
    /// When the root in force ends.
    pub root_ends: UnixMs,
    /// When the server's certificate ends, if that is known.
    pub certificate_ends: Option<UnixMs>,
    /// When a plan was last made, if one was.
    pub planned: Option<UnixMs>,
    /// Channels that stand still, since what is planned for them is objected to.
    pub withheld: usize,
}

/// What a rollout may be.
pub const ROLLOUT_STATUS: [&str; 5] = ["going", "converged", "paused", "halted", "aborted"];

impl Metrics {
    /// All of it as text.
    pub fn render(&self, gauges: &Gauges) -> String {
        let Counters { events_received, answers_failed, answers, plans, plans_objected, orders, leads } =
            &*self.0;
        let mut out = String::new();
        let counters = [
            ("events_received_total", "Records that agents sent, repeats too.", events_received),
            ("http_answers_total", "Answers to requests.", answers),
            ("http_answers_failed_total", "Answers with status 500 and above.", answers_failed),
            ("plans_total", "Plans that were made.", plans),
            (
                "plans_objected_total",
                "Plans that break rules and were not carried out: alarm on any.",
                plans_objected,
            ),
            ("orders_total", "Orders that this process gave to hosts.", orders),
        ];
        for (name, help, counter) in counters {
            family(&mut out, name, help, "counter");
            sample(&mut out, name, "", counter.get());
        }
        family(&mut out, "hosts", "Hosts by channel and state.", "gauge");
        for (channel, state, count) in &gauges.hosts {
            // Names have no character that would have to be escaped.
            sample(&mut out, "hosts", &format!("{{channel=\"{channel}\",state=\"{state}\"}}"), *count);
        }
        family(
            &mut out,
            "database_trouble",
            "1 while the database does not take what is written: alarm on any.",
            "gauge",
        );
        for kind in [TroubleKind::DatabaseFull, TroubleKind::DatabaseAway, TroubleKind::DatabaseFailing] {
            let is_now = gauges.troubles.iter().any(|trouble| trouble.kind == kind);
            sample(&mut out, "database_trouble", &format!("{{kind=\"{}\"}}", name(kind)), u64::from(is_now));
        }
        render_ends(&mut out, gauges);
        let single = [
            ("polls_waiting", "Hosts whose long polls wait in this process.", gauges.polling as u64),
            ("newest_event", "The newest event's number.", gauges.newest_event),
            (
                "channels_withheld",
                "Channels that stand still, since what is planned for them breaks rules: alarm on any.",
                gauges.withheld as u64,
            ),
            ("planner_leads", "Whether this process plans for all.", leads.get()),
        ];
        for (name, help, value) in single {
            family(&mut out, name, help, "gauge");
            sample(&mut out, name, "", value);
        }
        out
    }
}

/// How rollouts stand, and what ends when: Unix times, so that an alarm subtracts `time()`.
fn render_ends(out: &mut String, gauges: &Gauges) {
    family(out, "rollout", "1 for what the newest rollout of a channel is: alarm on halted.", "gauge");
    for (channel, status) in &gauges.rollouts {
        for one in ROLLOUT_STATUS {
            let labels = format!("{{channel=\"{channel}\",status=\"{one}\"}}");
            sample(out, "rollout", &labels, u64::from(one == *status));
        }
    }
    let name = "release_expires_timestamp_seconds";
    family(out, name, "When the newest release of a channel ends.", "gauge");
    for (channel, ends) in &gauges.releases_end {
        sample(out, name, &format!("{{channel=\"{channel}\"}}"), ends.get() / 1_000);
    }
    for (name, help, at) in [
        ("root_expires_timestamp_seconds", "When the root in force ends.", Some(gauges.root_ends)),
        (
            "certificate_expires_timestamp_seconds",
            "When the server's certificate ends.",
            gauges.certificate_ends,
        ),
        ("planned_timestamp_seconds", "When a plan was last made.", gauges.planned),
    ] {
        if let Some(at) = at {
            family(out, name, help, "gauge");
            sample(out, name, "", at.get() / 1_000);
        }
    }
}

fn name(kind: TroubleKind) -> &'static str {
    match kind {
        TroubleKind::DatabaseFull => "full",
        TroubleKind::DatabaseAway => "away",
        TroubleKind::DatabaseFailing => "failing",
        TroubleKind::RootEnding => "root-ending",
        TroubleKind::PlanObjected => "plan-objected",
    }
}

fn family(out: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP nixfleet_{name} {help}\n# TYPE nixfleet_{name} {kind}");
}

fn sample(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "nixfleet_{name}{labels} {value}");
}
