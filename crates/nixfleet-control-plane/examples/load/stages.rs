//! What is measured, one stage after the other, on one server with one fleet.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::Agent;
use crate::person::{Looking, Person, must};
use crate::server::{Prepared, Running, socket_bytes, used_by_us};
use crate::wire::Way;
use crate::world::World;
use crate::{attack, say};

/// How long an idle fleet is watched: more than the longest poll takes.
const IDLE: Duration = Duration::from_mins(1);
/// How long reports are taken in, for each size of a batch.
const TAKEN_FOR: Duration = Duration::from_secs(8);
/// Agents that report at the same time, over connections that stay open.
const REPORTING: usize = 512;
/// Records of a batch: one, what a switch brings, and many after an outage.
const BATCHES: [usize; 3] = [2, 12, 100];

/// What is measured, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Stage {
    /// A release over all hosts is pushed.
    Push,
    /// All agents are switched on.
    Connect,
    /// Nothing happens.
    Idle,
    /// A wave of all hosts but one is opened, and they go.
    Go,
    /// Reports come as fast as they are taken.
    Reports,
    /// Slow and silent connections attack.
    Attack,
    /// The server ends, and another one takes its place.
    Restart,
}

/// A fleet and its server.
pub(crate) struct Bench {
    pub(crate) prepared: Prepared,
    pub(crate) server: Running,
    pub(crate) world: Arc<World>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) person: Person,
    pub(crate) looking: Looking,
    /// As whom attackers come: nobody.
    pub(crate) stranger: Way,
    /// The rows of the table so far.
    pub(crate) rows: Vec<(String, String)>,
    pub(crate) is_quick: bool,
    /// The last stage that is wanted.
    pub(crate) up_to: Stage,
}

impl Bench {
    /// All stages that are wanted.
    pub(crate) async fn run(&mut self, living: &mut JoinSet<()>) -> Result<()> {
        let up_to = self.up_to;
        for stage in Stage::value_variants().iter().filter(|stage| **stage <= up_to) {
            match stage {
                Stage::Push => self.push().await?,
                Stage::Connect => self.connect(living).await?,
                Stage::Idle => self.idle().await?,
                Stage::Go => self.go().await?,
                Stage::Reports => self.reports().await?,
                Stage::Attack => attack::run(self).await?,
                Stage::Restart => self.restart().await?,
            }
        }
        Ok(())
    }

    fn row(&mut self, what: impl Into<String>, value: impl Into<String>) {
        let (what, value) = (what.into(), value.into());
        say(&format!("{what}: {value}"));
        self.rows.push((what, value));
    }

    /// How well the server was during a stage.
    pub(crate) fn well(&mut self, stage: &str) {
        let told = self.looking.take().told();
        self.row(format!("`/readyz` {stage}, median / most"), told);
        let failures = self.world.failures();
        if failures != "none" {
            self.row(format!("agents' failures {stage}"), failures);
        }
    }

    async fn push(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.person.push(&self.world.documents).await?;
        self.row("a release over all is taken in", secs(begun.elapsed()));
        self.well("while a release is taken in");
        Ok(())
    }

    async fn connect(&mut self, living: &mut JoinSet<()>) -> Result<()> {
        let (count, begun) = (self.agents.len(), Instant::now());
        let (before, sockets) = (self.server.used()?, socket_bytes()?);
        for agent in &self.agents {
            living.spawn(agent.clone().run());
        }
        let within = Duration::from_secs(60 + count as u64 / 100);
        let all = |metrics: &crate::person::Metrics| metrics.of("nixfleet_polls_waiting") as usize >= count;
        self.person.until(within, "all agents poll", all).await?;
        self.row("all agents are switched on: greeted, known, and polling", secs(begun.elapsed()));
        // All but the canary, which goes on by itself.
        let staged = |metrics: &crate::person::Metrics| metrics.hosts("staged") >= count - 1;
        self.person.until(within, "all have fetched", staged).await?;
        self.row("all have fetched what they were told to", secs(begun.elapsed()));
        let canary = |metrics: &crate::person::Metrics| metrics.hosts("converged") >= 1;
        self.person.until(within, "the canary has converged", canary).await?;
        let after = self.server.used()?;
        let spent = after.processor_ms - before.processor_ms;
        self.row(
            "processor for switching on, per 1,000 agents",
            format!("{} ms", per_thousand(spent, count)),
        );
        let grown = after.resident.saturating_sub(before.resident);
        self.row("server's memory per connected agent", kib(grown, count));
        self.row("server's memory in all, most", format!("{} MiB", after.resident_max >> 20));
        let sockets = socket_bytes()?.saturating_sub(sockets);
        self.row("kernel's memory for sockets per agent, both ends", kib(sockets, count));
        self.well("while they are switched on");
        Ok(())
    }

    async fn idle(&mut self) -> Result<()> {
        let for_long = if self.is_quick { IDLE / 6 } else { IDLE };
        let (count, before) = (self.agents.len(), self.server.used()?);
        sleep(for_long).await;
        let spent = self.server.used()?.processor_ms - before.processor_ms;
        let a_minute = spent * 60_000 / u64::try_from(for_long.as_millis())?;
        let value = format!("{} ms", per_thousand(a_minute, count));
        self.row("processor per 1,000 idle agents, in a minute", value);
        self.well("while all is idle");
        Ok(())
    }

    async fn go(&mut self) -> Result<()> {
        let count = self.agents.len();
        let newest = must(self.person.metrics().await)?.of("nixfleet_newest_event");
        let (reported, before, begun) = (self.world.sent(), self.server.used()?, Instant::now());
        let within = Duration::from_secs(60 + count as u64 / 100);
        self.arrives(within).await?;
        let converged = |metrics: &crate::person::Metrics| metrics.hosts("converged") >= count;
        self.person.until(within, "all have converged", converged).await?;
        self.row("until all have switched, which takes 2 to 10 s, and reported", secs(begun.elapsed()));
        self.row("reports of that", (self.world.sent() - reported).to_string());
        let spent = self.server.used()?.processor_ms - before.processor_ms;
        self.row("processor for all of it, per 1,000 agents", format!("{} ms", per_thousand(spent, count)));
        self.well("while all go");
        let written = self.person.ordered(newest, count - 1).await?;
        let written = format!("{} / {}", secs(written.first), secs(written.last));
        self.row("of that, from the approval to the transactions with the first / last orders", written);
        Ok(())
    }

    /// A wave of all hosts but one is opened. A go has arrived when the answer with the order was read by its agent; that it is
    /// obeyed and acknowledged comes after that.
    async fn arrives(&mut self, within: Duration) -> Result<()> {
        let others = self.agents.len() - 1;
        let early = self.world.gone().len();
        ensure!(early == 1, "{early} hosts went before the wave was opened");
        let (server, ours, begun) = (self.server.used()?, used_by_us()?, Instant::now());
        self.person.approve(&self.world.documents, 1).await?;
        let arrived = timeout(within, self.world.until_gone(1 + others)).await;
        let (server_then, ours_then) = (self.server.used()?, used_by_us()?);
        let gone: Vec<_> = self.world.gone().split_off(1);
        ensure!(arrived.is_ok() && gone.len() == others, "of {others} hosts {} may go", gone.len());
        let after = |at: usize| secs(gone[at].saturating_duration_since(begun.into_std()));
        let told = format!("{} / {} / {}", after(0), after(others / 2), after(others - 1));
        self.row("from \"go\" to the agents, first / median / last", told);
        let spent = [(server_then, server), (ours_then, ours)]
            .map(|(then, before)| then.processor_ms - before.processor_ms);
        let spent = format!("{} / {} ms", spent[0], spent[1]);
        self.row("processor until then: of the server / of all agents", spent);
        Ok(())
    }

    async fn reports(&mut self) -> Result<()> {
        for size in BATCHES {
            let before = self.server.used()?;
            let newest = must(self.person.metrics().await)?.of("nixfleet_newest_event");
            let begun = Instant::now();
            let mut reporting = JoinSet::new();
            for agent in self.agents.iter().take(REPORTING) {
                reporting.spawn(report_until(agent.clone(), size, begun + TAKEN_FOR));
            }
            let mut slowest = Duration::ZERO;
            while let Some(done) = reporting.join_next().await {
                slowest = slowest.max(done.context("an agent panicked")??);
            }
            let taken = must(self.person.metrics().await)?.of("nixfleet_newest_event") - newest;
            let ms = u64::try_from(begun.elapsed().as_millis())?;
            let spent = self.server.used()?.processor_ms - before.processor_ms;
            let rate = taken * 1000 / ms.max(1);
            let per_event = spent * 1000 / taken.max(1);
            let value = format!(
                "{rate} events/s, {per_event} µs of processor each, slowest answer {}",
                secs(slowest)
            );
            self.row(format!("taken in, in batches of {size}"), value);
        }
        self.well("while reports are taken in");
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        let count = self.agents.len();
        let ended = self.server.end().await?;
        self.row("the server ends in order in", secs(ended));
        // While there is no server there are no answers.
        drop(self.looking.take());
        let begun = Instant::now();
        self.server = self.prepared.start()?;
        let within = Duration::from_secs(330);
        let half =
            |metrics: &crate::person::Metrics| metrics.of("nixfleet_polls_waiting") as usize >= count / 2;
        self.person.until(within, "half of the agents are back", half).await?;
        let half = begun.elapsed();
        let all = |metrics: &crate::person::Metrics| {
            metrics.of("nixfleet_polls_waiting") as usize >= count && metrics.of("nixfleet_plans_total") > 0
        };
        let metrics = self.person.until(within, "all agents are back", all).await?;
        self.row(
            "a new server is started: half are back, all are back and planned for",
            format!("{} / {}", secs(half), secs(begun.elapsed())),
        );
        self.row(
            "answers with status 500 or above",
            metrics.of("nixfleet_http_answers_failed_total").to_string(),
        );
        let used = self.server.used()?;
        self.row(
            "processor for coming back, per 1,000 agents",
            format!("{} ms", per_thousand(used.processor_ms, count)),
        );
        self.row(
            "server's memory when they are back, now / most",
            format!("{} / {} MiB", used.resident >> 20, used.resident_max >> 20),
        );
        self.well("while they come back");
        Ok(())
    }
}

/// Reports until `end`. Returns how long the slowest answer took.
async fn report_until(agent: Agent, size: usize, end: Instant) -> Result<Duration> {
    let line = agent.way.open().await;
    let mut line = line.map_err(|why| anyhow::anyhow!("there is no connection for reports: {why:?}"))?;
    let mut reporter = agent.reporter.lock().await;
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        reporter.is_held_and_let_go(size / 2);
        let begun = Instant::now();
        let sent = reporter.report(&mut line).await;
        sent.map_err(|why| anyhow::anyhow!("a report was not taken: {why:?}"))?;
        slowest = slowest.max(begun.elapsed());
    }
    Ok(slowest)
}

fn secs(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn per_thousand(ms: u64, agents: usize) -> u64 {
    ms * 1000 / (agents as u64).max(1)
}

fn kib(bytes: u64, agents: usize) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0 / agents as f64)
}
