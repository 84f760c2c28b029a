//! Follows the log, and plans: every replica knows what the plan is, the one that holds the lease carries it out.
//!
//! A round: what is new in the log is read, polls of hosts that were asked for something are woken, a plan is made. One that
//! says anything is made again within a write, when nobody else can write and exactly what the log says is known; the
//! second opinion looks at it, and the facts of what it has nothing against are written in that same transaction. So no
//! order stands in the log behind an act that forbids it, two leaders cannot order the same twice, and a leader that dies
//! leaves either all of a plan or nothing.
//!
//! Nothing is kept here that cannot be read again. A round that fails is made again at the next tick.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::rollout::reason::in_short;
use nixfleet_core::rollout::{Opinion, Plan, PlanReport, Reason, Snapshot, Sound, What, plan, sound_part};
use nixfleet_sys::random;
use nixfleet_sys::text::chain;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::heard::Heard;
use crate::listening::Listening;
use crate::metrics::Metrics;
use crate::mirror::{Mirror, News};
use crate::say;
use crate::store::fact::{About, Fact};
use crate::store::lease::Lease;
use crate::store::planned::{PlannedHost, Reading, Touched};
use crate::store::write::{Committed, Write};
use crate::store::{Store, StoreError};
use crate::trouble::Writer;
use crate::wakes::Wakes;

/// The lease of who plans.
pub const LEASE: &str = "plan";
/// For how long it is taken: a leader that vanished is missed for so long at most.
const LEASE_SECS: u32 = 6;
/// How long before its end it is taken again: three ticks.
const LEASE_LEFT: Secs = Secs(3);
/// A holder that has not taken it again for so long, by the clock of nobody, has vanished: four times as long as it waits.
const LEASE_MISSED_AFTER: Duration = Duration::from_secs(12);
/// The log is looked at so often for what other processes wrote, and the lease for its end.
const TICK: Duration = Duration::from_secs(1);
/// Signs of life that other replicas took are read so often, and looked at in a plan.
const HEARD_EVERY: Duration = Duration::from_secs(10);
/// Signs of life are written by each replica every ten seconds, by its own clock.
const HEARD_OVERLAP_MS: u64 = 60_000;
/// Orders that are written in one transaction, while reports wait: about a second, with some 30 MB of hosts in memory. A wave
/// of so many hosts is told in one go: in parts, the reports that the first part leads to are written before the second one.
/// Those that are left are planned again at once.
const ORDERS_AT_ONCE: usize = 10_000;
/// After plans the planner rests for so many times what it took to make them, so that they take a fifth of a core at most.
const REST: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(1);
/// How long an answer waits for what was written before it was asked for.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// Plans in a row that are carried out at the same event's time. One is enough, as a plan leaves nothing to plan; more means
/// that something else happens all the time.
const ROUNDS_MAX: u32 = 8;

/// What is planned now.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// The newest event that it knows of.
    pub event: u64,
    /// When it was made.
    pub at: UnixMs,
    /// What there is to do and nothing is wrong with; nothing, when it was carried out.
    pub plan: Option<Arc<Plan>>,
    /// Why nothing is done with everybody else.
    pub report: Arc<PlanReport>,
    /// What the second opinion has against the rest, which is withheld.
    pub objections: Vec<String>,
    /// The channels that stand still by that.
    pub withheld: BTreeSet<ChannelName>,
    /// Since when there is something that is objected to.
    pub objected_since: Option<UnixMs>,
}

/// What a plan is made from, and what was planned: read by whoever answers people. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Planning {
    known: Arc<RwLock<(Mirror, Outlook)>>,
    /// The newest event that a round has looked at.
    seen: watch::Sender<u64>,
    /// Who looks at plans.
    opinion: Opinion,
}

impl Planning {
    fn new(listening_since: UnixMs, opinion: Opinion) -> Self {
        let known = (Mirror::new(listening_since), Outlook::default());
        Self { known: Arc::new(RwLock::new(known)), seen: watch::Sender::new(0), opinion }
    }

    /// What would be planned with this fleet.
    pub fn looked_at(&self, snapshot: &Snapshot, now: UnixMs) -> Looked {
        looked_at(snapshot, now, usize::MAX, self.opinion)
    }

    /// Returns when the event `newest` is in what is known and planned, or after a while without it: who reads what they
    /// just did sees it.
    pub async fn has_seen(&self, newest: u64) {
        let mut seen = self.seen.subscribe();
        // Safe to cancel. Neither is an error: what is known is answered then.
        let _ = timeout(SEEN_WITHIN, seen.wait_for(|seen| *seen >= newest)).await;
    }

    /// The fleet, and what is planned. Not to be held over anything that waits.
    pub fn read(&self) -> RwLockReadGuard<'_, (Mirror, Outlook)> {
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Mirror, &mut Outlook) -> T) -> T {
        let mut guard = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (mirror, outlook) = &mut *guard;
        change(mirror, outlook)
    }

    /// Plans, on a thread that may take its time, with so many orders at most.
    async fn plan(&self, now: UnixMs, orders_max: usize) -> Planned {
        let planning = self.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let (mirror, _) = &*planning.read();
            let looked = looked_at(&mirror.snapshot, now, orders_max, planning.opinion);
            Planned { event: mirror.event, looked }
        });
        let planned = planned.await;
        // It is cancelled only when the process ends; pure code does not panic.
        planned.unwrap_or_else(|_| Planned::nothing(now))
    }
}

/// A plan, as it was just made.
struct Planned {
    event: u64,
    looked: Looked,
}

impl Planned {
    fn nothing(now: UnixMs) -> Self {
        let plan = Plan { at_ms: now, decisions: Vec::new(), orders: Vec::new() };
        Self { event: 0, looked: Looked::whole(plan, PlanReport::default()) }
    }

    /// What is planned now, where `before` was.
    fn outlook(self, before: &Outlook) -> Outlook {
        let Self { event, looked: Looked { plan, report, objections, withheld } } = self;
        let (at, plan) = (plan.at_ms, (!plan.is_empty()).then(|| Arc::new(plan)));
        let objected_since = (!objections.is_empty()).then(|| before.objected_since.unwrap_or(at));
        Outlook { event, at, plan, report: Arc::new(report), objections, withheld, objected_since }
    }
}

/// A plan that the second opinion has looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The part that it has nothing against.
    pub plan: Plan,
    /// Why nothing is done with everybody else.
    pub report: PlanReport,
    /// What it says of the rest.
    pub objections: Vec<String>,
    /// The channels that stand still by that.
    pub withheld: BTreeSet<ChannelName>,
}

impl Looked {
    fn whole(plan: Plan, report: PlanReport) -> Self {
        Self { plan, report, objections: Vec::new(), withheld: BTreeSet::new() }
    }
}

/// The part of a plan that the second opinion has nothing against, with so many orders at most, and what it says of the rest.
/// Whoever is left out waits a moment longer. What must not begin is taken back before anybody else is told anything.
pub fn looked_at(snapshot: &Snapshot, now: UnixMs, orders_max: usize, opinion: Opinion) -> Looked {
    let (plan, mut report) = plan(snapshot, now);
    if plan.is_empty() {
        return Looked::whole(plan, report);
    }
    let Sound { mut plan, objections, withheld } = sound_part(plan, snapshot, opinion);
    if plan.orders.len() > orders_max {
        plan.orders.sort_by_key(|order| order.what != What::Withdraw);
        plan.orders.truncate(orders_max);
    }
    for (channel, objections) in &withheld {
        report.held.withhold(channel, objections);
    }
    let objections = objections.iter().map(ToString::to_string).collect();
    Looked { plan, report, objections, withheld: withheld.into_keys().collect() }
}

/// What the planner needs.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Where things are kept.
    pub store: Store,
    /// The polls that wait.
    pub wakes: Wakes,
    /// Signs of life.
    pub heard: Heard,
    /// What is counted.
    pub metrics: Metrics,
    /// The clock.
    pub clock: fn() -> UnixMs,
    /// The newest event's number, which this tells as well.
    pub committed: watch::Sender<u64>,
    /// Who looks at plans.
    pub opinion: Opinion,
}

/// The task.
#[derive(Debug)]
pub struct Planner {
    tools: Tools,
    planning: Planning,
    me: String,
    changed: watch::Receiver<u64>,
    lease_until: UnixMs,
    /// The lease of another, as it was first seen and when.
    lease_seen: Option<(Lease, Instant)>,
    is_loaded: bool,
    /// How long plans took since the last rest.
    planned_for: Duration,
    heard_read: Option<Instant>,
    heard_newest: UnixMs,
    /// What was said of the last trouble, so that it is said once.
    trouble: Option<String>,
    /// What was last objected to.
    objected: Vec<String>,
    /// Whether hosts could be heard all the time.
    listening: Listening,
}

/// What became of a plan.
#[derive(Debug, PartialEq, Eq)]
enum Carried {
    /// It was not carried out: we do not lead, or there are objections to all that is left.
    Not,
    /// A part of it was.
    Part,
    /// All of it was.
    Whole,
}

impl Planner {
    /// A planner that has not read anything yet, and where it leaves what it knows.
    pub fn new(tools: Tools, changed: watch::Receiver<u64>) -> (Self, Planning) {
        let listening_since = (tools.clock)();
        let planning = Planning::new(listening_since, tools.opinion);
        let me = format!("{:016x}", random::number());
        let planner = Self {
            tools,
            planning: planning.clone(),
            me,
            changed,
            lease_until: UnixMs::EPOCH,
            lease_seen: None,
            is_loaded: false,
            planned_for: Duration::ZERO,
            heard_read: None,
            heard_newest: UnixMs::EPOCH,
            trouble: None,
            objected: Vec::new(),
            listening: Listening::since(listening_since, Instant::now()),
        };
        (planner, planning)
    }

    /// Its name, as the holder of the lease.
    pub fn name(&self) -> &str {
        &self.me
    }

    /// Goes on for ever; to be aborted at the end of the process.
    pub async fn run(mut self) {
        let mut is_due = true;
        loop {
            match self.round(is_due).await {
                Ok(()) => {
                    let event = self.planning.read().0.event;
                    self.planning.seen.send_replace(event);
                    if self.trouble.take().is_some() {
                        say::line("planning goes on");
                    }
                }
                Err(error) => self.bear(&error),
            }
            // Also after a round that failed: it is made again.
            sleep((std::mem::take(&mut self.planned_for) * REST).min(REST_MAX)).await;
            is_due = self.wait().await;
        }
    }

    /// What time it is for a plan. Where hosts could not be heard since it was asked last, their silence is counted from now on.
    fn now(&mut self) -> UnixMs {
        let now = (self.tools.clock)();
        if let Some(deaf) = self.listening.look(now, Instant::now()) {
            self.planning.change(|mirror, _| mirror.snapshot.listening_since_ms = now);
            say::line(&format!(
                "the silence of hosts is counted from now on: {deaf}, and nobody could be heard"
            ));
        }
        now
    }

    fn bear(&mut self, error: &StoreError) {
        self.listening.failed();
        self.tools.store.troubles().met(Writer::Planner, error, (self.tools.clock)());
        let why = chain(error);
        if self.trouble.as_ref() != Some(&why) {
            say::error("nothing is planned at the moment", error);
            self.trouble = Some(why);
        }
    }

    /// Waits for news, for the time that the plan named, or for a tick. Says whether that time has come.
    async fn wait(&mut self) -> bool {
        let now = (self.tools.clock)();
        let again = self.planning.read().1.report.again_ms;
        let until = again.map(|at| Duration::from_millis(at.ms_since(now)));
        let pause = until.unwrap_or(TICK).min(TICK);
        tokio::select! {
            // Safe to cancel: a change stays noted. Closed means that the process ends, which aborts us.
            closed = self.changed.changed() => if closed.is_err() { sleep(TICK).await },
            () = sleep(pause) => {}
        }
        again.is_some_and(|at| at <= (self.tools.clock)()) || self.trouble.is_some()
    }

    async fn round(&mut self, is_due: bool) -> Result<(), StoreError> {
        self.changed.mark_unchanged();
        let store = self.tools.store.clone();
        let mut reading = store.within(store.reading()).await?;
        let news = store.within(self.catch_up(&mut reading)).await?;
        drop(reading);
        let leads = store.within(self.lead()).await?;
        let heard = store.within(self.hear()).await?;
        self.now();
        if !(news || heard || is_due || leads == Leads::SinceNow) {
            return Ok(());
        }
        let mut rounds = 0;
        while rounds < ROUNDS_MAX {
            let is_empty = self.look_ahead().await;
            if is_empty || leads == Leads::No {
                return Ok(());
            }
            // Each part has fewer to give, so there is an end to it.
            let mut carried = Carried::Part;
            while carried == Carried::Part {
                carried = store.within(self.carry_out()).await?;
            }
            if carried == Carried::Not {
                // There may be more to see than before: the log was read on.
                self.look_ahead().await;
                return Ok(());
            }
            rounds += 1;
        }
        Ok(())
    }

    /// Plans all that there is, for people to see. Says whether there is nothing.
    async fn look_ahead(&mut self) -> bool {
        let now = self.now();
        let planned = self.plan(now, usize::MAX).await;
        self.tools.metrics.plans.add(1);
        let is_sound = planned.looked.objections.is_empty();
        let is_empty = planned.looked.plan.is_empty() && is_sound;
        if is_sound {
            // What is objected to later is another matter, also if it reads the same: people see nothing of this one any more.
            self.objected.clear();
        }
        self.planning.change(|_, known| *known = planned.outlook(known));
        is_empty
    }

    async fn plan(&mut self, now: UnixMs, orders_max: usize) -> Planned {
        let begun = Instant::now();
        let planned = self.planning.plan(now, orders_max).await;
        self.planned_for += begun.elapsed();
        planned
    }

    /// Takes in what the log has, and wakes whoever was asked for something. Says whether there was anything.
    async fn catch_up(&mut self, reading: &mut Reading<'_>) -> Result<bool, StoreError> {
        let mut any = false;
        if !self.is_loaded {
            let news = News::all(reading).await?;
            self.planning.change(|mirror, _| mirror.take(news));
            (self.is_loaded, any) = (true, true);
        }
        loop {
            let event = self.planning.read().0.event;
            let touched = reading.touched(event).await?;
            self.tools.store.board().touched(&touched);
            if touched.newest > event {
                let news = News::about(reading, &touched).await?;
                any |= !touched.is_empty();
                // First, as it is read again by the next round if this fails.
                self.note_asked(reading, &touched).await?;
                self.planning.change(|mirror, _| mirror.take(news));
                self.tell(touched.newest);
            }
            if !touched.more {
                return Ok(any);
            }
        }
    }

    /// Tells whoever waits for them that there are new events.
    fn tell(&self, newest: u64) {
        self.tools
            .committed
            .send_if_modified(|known| newest > *known && std::mem::replace(known, newest) != newest);
    }

    /// Wakes whoever was asked for something; what that is was noted when it was written here, or is read now.
    async fn note_asked(&self, reading: &mut Reading<'_>, touched: &Touched) -> Result<(), StoreError> {
        let unknown = self.tools.store.board().unknown(&touched.asked);
        if !unknown.is_empty() {
            let (event, asked) = reading.asked(&unknown).await?;
            self.tools.store.board().note(event, asked);
        }
        for host in &touched.asked {
            self.tools.wakes.wake(host);
        }
        Ok(())
    }

    /// Takes in who was heard of. Says whether a plan may be another by that.
    async fn hear(&mut self) -> Result<bool, StoreError> {
        let fresh = self.tools.heard.take_fresh();
        let is_back = {
            let guard = self.planning.read();
            let away = |host: &HostName| {
                matches!(guard.1.report.held.get(host), Some(Reason::Offline { .. } | Reason::NeverReported))
            };
            fresh.keys().any(away)
        };
        self.planning.change(|mirror, _| mirror.heard(fresh));
        if self.heard_read.is_some_and(|at| at.elapsed() < HEARD_EVERY) {
            return Ok(is_back);
        }
        // What a clock that was ahead has dated hides nothing that is dated rightly.
        let since = self.heard_newest.min((self.tools.clock)()).get().saturating_sub(HEARD_OVERLAP_MS);
        let heard = self.tools.store.heard_since(UnixMs::new(since).unwrap_or(UnixMs::EPOCH)).await?;
        self.heard_newest =
            heard.iter().map(|(_, at)| *at).max().unwrap_or(UnixMs::EPOCH).max(self.heard_newest);
        self.heard_read = Some(Instant::now());
        // A poll is held for most of a minute, and whoever waits is there.
        let (waiting, now) = (self.tools.wakes.hosts(), (self.tools.clock)());
        let changed = self.planning.change(|mirror, _| {
            let heard = mirror.heard(heard);
            mirror.waiting(waiting, now) || heard
        });
        Ok(changed || is_back)
    }

    /// Takes the lease, or keeps it, if it can be had.
    async fn lead(&mut self) -> Result<Leads, StoreError> {
        let now = (self.tools.clock)();
        let led = self.lease_until > now;
        let until = now.plus(Secs(LEASE_SECS));
        // An end that is further away is of a clock that was set back: nobody else could tell whether we are there.
        if self.lease_until > now.plus(LEASE_LEFT) && self.lease_until <= until {
            return Ok(Leads::Yes);
        }
        let leads = self.tools.store.lease(LEASE, &self.me, now, until).await;
        self.tools.store.troubles().note(Writer::Planner, &leads, now);
        let leads = leads? || self.inherit(until).await?;
        self.lease_until = if leads { until } else { UnixMs::EPOCH };
        self.tools.metrics.leads.set(u64::from(leads));
        Ok(match (leads, led) {
            (true, true) => Leads::Yes,
            (true, false) => Leads::SinceNow,
            (false, _) => Leads::No,
        })
    }

    /// Takes the lease of a holder that does not take it again, whatever its end says.
    async fn inherit(&mut self, until: UnixMs) -> Result<bool, StoreError> {
        let Some(held) = self.tools.store.holder(LEASE).await? else { return Ok(false) };
        match &self.lease_seen {
            Some((seen, since)) if *seen == held => {
                let is_missed = since.elapsed() >= LEASE_MISSED_AFTER;
                Ok(is_missed && self.tools.store.inherit(LEASE, &held, &self.me, until).await?)
            }
            Some(_) | None => {
                self.lease_seen = Some((held, Instant::now()));
                Ok(false)
            }
        }
    }

    /// Plans within a write, and writes what comes out.
    async fn carry_out(&mut self) -> Result<Carried, StoreError> {
        let asked = self.now();
        let mut write = self.tools.store.begin(asked).await?;
        // Others may have written for long.
        let now = self.now();
        write.begun_at(now);
        if !write.still_mine(LEASE, &self.me).await? {
            self.lease_until = UnixMs::EPOCH;
            return Ok(Carried::Not);
        }
        self.catch_up(&mut Reading::Within(&mut write)).await?;
        let Looked { plan, report: _, objections, withheld: _ } = self.plan(now, ORDERS_AT_ONCE).await.looked;
        self.alarm(&mut write, &objections).await?;
        let known = self.planning.read().0.hosts(plan.orders.iter().map(|order| &order.host));
        note(&mut write, known, &plan).await?;
        // The log was read to its end within this write, so this is all that is new in it.
        let rows = write.planned()?;
        let Committed { newest, events: _, asked } = write.commit().await?;
        let is_withheld = plan.is_empty() && !objections.is_empty();
        self.objected = objections;
        for host in &asked {
            self.tools.wakes.wake(host);
        }
        self.tools.metrics.orders.add(plan.orders.len() as u64);
        self.planning.change(|mirror, _| mirror.take(News::written(newest, rows)));
        self.tell(newest);
        Ok(match plan.orders.len() {
            _ if is_withheld => Carried::Not,
            orders if orders < ORDERS_AT_ONCE => Carried::Whole,
            _ => Carried::Part,
        })
    }

    /// What is objected to is not carried out; a person is called, once for the same matter.
    async fn alarm(&self, write: &mut Write, objections: &[String]) -> Result<(), StoreError> {
        if objections.is_empty() {
            return Ok(());
        }
        self.tools.metrics.plans_objected.add(1);
        if self.objected == objections {
            return Ok(());
        }
        say::line(&format!(
            "ALARM: channels stand still, since what is planned for them breaks rules that it must keep; this is a \
             mistake in this program: {}",
            in_short(objections, "; ", None)
        ));
        let fact = Fact::Objected { objections: objections.to_vec() };
        write.append(&About::Fleet, &fact).await?;
        Ok(())
    }
}

/// Whether this process leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leads {
    No,
    Yes,
    /// It did not a moment ago: everything is to be looked at.
    SinceNow,
}

/// Writes the facts of a plan, which was made from these hosts.
async fn note(write: &mut Write, known: Vec<PlannedHost>, plan: &Plan) -> Result<(), StoreError> {
    let Plan { at_ms: _, decisions, orders } = plan;
    for decision in decisions {
        let about = About::Channel(decision.rollout.channel.clone());
        write.append(&about, &Fact::Decided { decision: decision.clone() }).await?;
    }
    write.order(known, orders).await
}
