//! The operator: pushes the release, approves the wave, and reads the metrics. And somebody who looks all the time whether
//! the server is well.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::{Method, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::fleet::{Documents, channel};
use crate::wire::{Line, NoUse, Way};

/// How often it is looked whether the server is well.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Somebody with a token.
pub(crate) struct Person {
    way: Way,
    token: String,
    line: Option<Line>,
}

impl Person {
    pub(crate) fn new(way: Way, token: String) -> Self {
        Self { way, token, line: None }
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, String), NoUse> {
        if self.line.is_none() {
            self.line = Some(self.way.open().await?);
        }
        let line = self.line.as_mut().expect("it was opened above");
        let answer = line.raw(method, path, kind, Some(&self.token), body).await;
        if answer.is_err() {
            self.line = None;
        }
        answer.map(|(status, bytes)| (status, String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn must(&mut self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Result<String> {
        match self.ask(method, path, kind, body).await {
            Ok((status, text)) if status.is_success() => Ok(text),
            Ok((status, text)) => bail!("`{path}` was answered with {status}: {text}"),
            Err(why) => bail!("`{path}` was not answered: {why:?}"),
        }
    }

    /// Pushes a release.
    pub(crate) async fn push(&mut self, documents: &Documents) -> Result<()> {
        self.must(Method::POST, "/v1/releases", "application/x-ndjson", documents.pushed()).await.map(drop)
    }

    /// Opens a wave.
    pub(crate) async fn approve(&mut self, documents: &Documents, wave: u16) -> Result<()> {
        let path = format!("/v1/rollouts/{}/{}/approve", channel(), documents.id.seq.get());
        let body = serde_json::json!({ "why": "measuring", "wave": wave }).to_string();
        self.must(Method::POST, &path, "application/json", body.into_bytes()).await.map(drop)
    }

    /// When the orders to go were written, of which there are `count` behind the event `after`: each transaction has one time,
    /// at which it began.
    pub(crate) async fn ordered(&mut self, mut after: u64, count: usize) -> Result<Written> {
        let (mut approved, mut times) = (None, Vec::with_capacity(count));
        while times.len() < count {
            let path = format!("/v1/events?limit=1000&after={after}");
            let page = self.must(Method::GET, &path, "application/json", Vec::new()).await?;
            let page: serde_json::Value = serde_json::from_str(&page)?;
            for event in page["items"].as_array().context("a page")? {
                let at = event["at_ms"].as_u64().context("a time")?;
                if event["fact"] == "acted" {
                    approved = approved.or(Some(at));
                } else if event["order"]["what"] == "go" {
                    times.push(at);
                }
            }
            match page["next"].as_str() {
                Some(next) => after = next.parse()?,
                None => ensure!(times.len() >= count, "the log has {} orders to go", times.len()),
            }
        }
        let (approved, first, last) = (approved.context("the approval")?, times[0], times[count - 1]);
        let since = |at: u64| Duration::from_millis(at.saturating_sub(approved));
        Ok(Written { first: since(first), last: since(last) })
    }

    /// The metrics, if they are to be had.
    pub(crate) async fn metrics(&mut self) -> Option<Metrics> {
        let (status, text) = self.ask(Method::GET, "/metrics", "text/plain", Vec::new()).await.ok()?;
        (status == StatusCode::OK).then_some(Metrics(text))
    }

    /// The metrics, once `is_so` of them.
    pub(crate) async fn until(
        &mut self,
        within: Duration,
        what: &str,
        is_so: impl Fn(&Metrics) -> bool,
    ) -> Result<Metrics> {
        let (begun, mut last) = (Instant::now(), None);
        loop {
            let asked = Instant::now();
            let metrics = self.metrics().await;
            if let Some(metrics) = metrics {
                if is_so(&metrics) {
                    return Ok(metrics);
                }
                last = Some(metrics);
            }
            if begun.elapsed() > within {
                let last = last.map(|last| last.0).unwrap_or_default();
                bail!("after {within:?} it is not so that {what}; the metrics were:\n{last}");
            }
            // Not more than a fifth of the server's time for being looked at.
            sleep((asked.elapsed() * 4).max(Duration::from_millis(50))).await;
        }
    }
}

/// When orders were written, since they could be.
pub(crate) struct Written {
    pub(crate) first: Duration,
    pub(crate) last: Duration,
}

/// The text of the metrics.
pub(crate) struct Metrics(String);

impl Metrics {
    /// The value of a metric without labels.
    pub(crate) fn of(&self, name: &str) -> u64 {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Hosts in a state.
    pub(crate) fn hosts(&self, state: &str) -> usize {
        let state = format!("state=\"{state}\"");
        let lines =
            self.0.lines().filter(|line| line.starts_with("nixfleet_hosts{") && line.contains(&state));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    }
}

/// What was seen by looking whether the server is well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    times: Vec<Duration>,
    unanswered: u32,
}

impl Health {
    /// Median, most, and how often there was no answer.
    pub(crate) fn told(mut self) -> String {
        self.times.sort_unstable();
        let (Some(median), Some(most)) = (self.times.get(self.times.len() / 2), self.times.last()) else {
            return format!("no answer of {}", self.unanswered);
        };
        let none = match self.unanswered {
            0 => String::new(),
            times => format!(", {times} without an answer"),
        };
        format!("{} / {} ms{none}", median.as_millis(), most.as_millis())
    }
}

/// Asks `/readyz` over a connection of its own, as whoever restarts servers does.
pub(crate) struct Looking {
    seen: Arc<Mutex<Health>>,
    task: JoinHandle<()>,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Looking {
    pub(crate) fn begin(way: Way) -> Self {
        let seen = Arc::new(Mutex::new(Health::default()));
        let task = tokio::spawn(look(way, Arc::clone(&seen)));
        Self { seen, task }
    }

    /// What was seen since this was last asked.
    pub(crate) fn take(&self) -> Health {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn look(way: Way, seen: Arc<Mutex<Health>>) {
    let mut line = None;
    loop {
        let begun = Instant::now();
        let is_well = is_well(&way, &mut line).await;
        if !is_well {
            line = None;
        }
        note(&seen, is_well.then(|| begun.elapsed()));
        sleep(LOOK_EVERY).await;
    }
}

/// Notes after how long there was an answer, if there was one.
fn note(seen: &Mutex<Health>, after: Option<Duration>) {
    let mut health = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match after {
        Some(after) => health.times.push(after),
        None => health.unanswered += 1,
    }
}

async fn is_well(way: &Way, line: &mut Option<Line>) -> bool {
    if line.is_none() {
        *line = way.open().await.ok();
    }
    let Some(line) = line else { return false };
    let answer = line.raw(Method::GET, "/readyz", "text/plain", None, Vec::new()).await;
    answer.is_ok_and(|(status, _)| status == StatusCode::OK)
}

/// What has no answer is an error here.
pub(crate) fn must(text: Option<Metrics>) -> Result<Metrics> {
    text.context("the metrics are not to be had")
}
