//! A host in a write: its row, and the folding of what it reports.

use std::collections::BTreeSet;

use nixfleet_core::host::Phase;
use nixfleet_core::host::Terms;
use nixfleet_core::host::follow::Taken;
use nixfleet_core::host::retry::seed_of;
use nixfleet_core::host::{Event, Follower, HostState, Record};
use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId, Seq};
use nixfleet_core::model::policy::WaveIndex;
use nixfleet_core::model::release::Entry;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::fact::Placed;
use nixfleet_core::rollout::{Remembered, RolloutId, Standing};
use nixfleet_core::wire::{Topic, Wish};
use nixfleet_trust::envelope::EntryEnvelope;
use sqlx::Row;

use super::super::board;
use super::super::fact::{About, Fact};
use super::super::rows::{Among, Filled, Insert};
use super::super::{StoreError, int, uint};
use super::desk::{Asked, Desk, ORDERS};
use super::{Write, json};
use nixfleet_sys::text::chain;

/// A host, with its state as far as it reported.
#[derive(Debug)]
pub struct HostRow {
    /// What releases say of it.
    pub named: Named,
    /// Its state, followed.
    pub(super) follower: Follower,
    /// What the planner remembers of it.
    pub(super) remembered: Remembered,
    /// When it last reported something new, by our clock.
    pub reported_ms: UnixMs,
    /// Why its events cannot be followed at the moment.
    pub fault: Option<String>,
    /// Whether its state is another one than before.
    pub(super) is_changed: bool,
    /// Whether what is remembered of it is another thing than before.
    pub(super) is_recalled: bool,
    /// What is asked of it.
    pub(super) desk: Desk,
}

/// What the newest release that names a host says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The channel.
    pub channel: ChannelName,
    /// The release's number.
    pub seq: Seq,
    /// The entry's wave, tags and system, as they are kept.
    pub(super) wave: i64,
    pub(super) tags: String,
    pub(super) system: String,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folding {
    /// It is in the log now.
    Taken,
    /// It was before.
    Repeat,
    /// Those from this number on are missing.
    Gap,
    /// It cannot follow from what is known. The host's state is wanted.
    Diverged(String),
}

impl HostRow {
    /// The host's state as far as it was followed.
    pub fn state(&self) -> &HostState {
        self.follower.state()
    }

    /// The number up to which every record was taken in or is lost: what may be acknowledged.
    pub fn told(&self) -> u64 {
        self.follower.told()
    }

    /// [`HostRow::told`], while reports are lost and the host has not told its state since.
    pub(in crate::store) fn told_ahead(&self) -> Option<u64> {
        self.follower.is_behind().then(|| self.told())
    }

    /// The numbers of the orders that wait for it.
    pub(in crate::store) fn waiting(&self) -> Vec<u64> {
        self.desk.numbers()
    }

    /// What the planner remembers of it.
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// What the host finds when it asks.
    fn asked(&self) -> Result<board::Asked, StoreError> {
        self.desk.asked(self.told() > 0 && self.fault.is_none())
    }

    /// Orders that a whole state shows to have been noted.
    fn forget_heeded(&mut self, state: &HostState) {
        if let Some(release) = state.phase.target().map(|terms| terms.release.clone()) {
            self.desk.drop_this(&Wish::Stage { release });
        }
        let go = state.go.clone().map(|release| Wish::Go { release });
        let reboot = state.reboot_go.clone().map(|release| Wish::Reboot { release });
        let revert = state.revert_go.clone().map(|release| Wish::Revert { release });
        for wish in go.into_iter().chain(reboot).chain(revert) {
            self.desk.drop_this(&wish);
        }
    }

    /// Takes in that the state is another one: what was ordered may have begun.
    fn stands(&mut self) {
        let Some(ordered) = &self.remembered.ordered else { return };
        if ordered.is_over(&Standing::of(self.follower.state())) {
            (self.remembered.ordered, self.is_recalled) = (None, true);
        }
    }
}

impl Named {
    /// What its entry says, for the planner.
    pub(super) fn placed(&self) -> Result<Placed, StoreError> {
        read_placed(self.wave, &self.tags, &self.system)
    }
}

/// What an entry says, as it was kept.
pub(in crate::store) fn read_placed(wave: i64, tags: &str, system: &str) -> Result<Placed, StoreError> {
    let bad = |what: &str| StoreError::corrupt(format!("a host's {what}"));
    Ok(Placed {
        wave: WaveIndex(u16::try_from(wave).map_err(|_| bad("wave"))?),
        tags: serde_json::from_str(tags).map_err(|_| bad("tags"))?,
        system: system.parse().map_err(|_| bad("system"))?,
    })
}

/// What is remembered of a host, as it was kept; nothing in a row of an older program.
pub(in crate::store) fn read_remembered(text: Option<&str>) -> Result<Remembered, StoreError> {
    let read =
        |text| serde_json::from_str(text).map_err(|_| StoreError::corrupt("what is remembered of a host"));
    text.map_or_else(|| Ok(Remembered::default()), read)
}

const HOSTS: Among = Among {
    head: "SELECT name, channel, release_seq, wave, tags, system, seq, state, reported_ms, fault, \
           (SELECT body FROM remembered WHERE remembered.host = hosts.name) AS remembered FROM hosts WHERE name IN",
};
/// Each of them is there, since it was read in the same transaction; what releases say of it stays as it is.
const UPDATE_HOSTS: Insert = Insert {
    head: "UPDATE hosts SET seq = v.column2, phase = v.column3, state = v.column4, reported_ms = v.column5, \
           fault = v.column6 FROM (VALUES",
    columns: 6,
    tail: ") AS v WHERE hosts.name = v.column1",
};
const PUT_REMEMBERED: Insert = Insert {
    head: "INSERT INTO remembered (host, body) VALUES",
    columns: 2,
    tail: "ON CONFLICT (host) DO UPDATE SET body = excluded.body",
};

impl Write {
    /// The host `name`; `None` if no release that is served names it.
    pub async fn host(&mut self, name: &HostName) -> Result<Option<&mut HostRow>, StoreError> {
        self.fetch_hosts([name]).await?;
        Ok(self.hosts.get_mut(name))
    }

    /// Reads those of these hosts that were not read yet: of many, much faster than one by one.
    pub async fn fetch_hosts(
        &mut self,
        names: impl IntoIterator<Item = &HostName>,
    ) -> Result<(), StoreError> {
        let wanted: BTreeSet<&HostName> =
            names.into_iter().filter(|name| !self.hosts.contains_key(*name)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<String> = wanted.into_iter().map(ToString::to_string).collect();
        for row in &HOSTS.rows(&mut self.tx, &wanted).await? {
            let (name, host) = read_host(row)?;
            self.hosts.insert(name, host);
        }
        for row in &ORDERS.rows(&mut self.tx, &wanted).await? {
            let name: String = row.try_get("host")?;
            let name: HostName = name.parse().map_err(|_| StoreError::corrupt("a host's name"))?;
            let asked = Asked { number: uint(row.try_get("number")?), body: row.try_get("body")? };
            if let Some(host) = self.hosts.get_mut(&name) {
                host.desk.has(row.try_get("topic")?, asked);
            }
        }
        Ok(())
    }

    /// Takes a record in, and adds it to the log if it is new and fits.
    pub async fn report(&mut self, host: &HostName, record: Record) -> Result<Folding, StoreError> {
        let folding = self.fold(self.now, host, &record).await?;
        match &folding {
            Folding::Taken => {
                let record = Box::new(record);
                self.note(&About::Host(host.clone()), &Fact::Reported { record }).await?;
                self.order_again(host).await?;
            }
            Folding::Diverged(why) => {
                if let Some(row) = self.host(host).await? {
                    row.fault = Some(why.clone());
                    row.is_changed = true;
                }
            }
            Folding::Repeat | Folding::Gap => {}
        }
        Ok(folding)
    }

    async fn fold(&mut self, at: UnixMs, host: &HostName, record: &Record) -> Result<Folding, StoreError> {
        let terms = match record.fact.release_verified() {
            Some(release) => self.terms(host, release).await?,
            None => None,
        };
        let Some(row) = self.host(host).await? else {
            return Ok(Folding::Diverged("no release that is served names this host".to_owned()));
        };
        let next = row.told() + 1;
        if record.seq < next {
            return Ok(Folding::Repeat);
        }
        // One that says what is lost begins before its own number.
        if record.first_seq() > next {
            return Ok(Folding::Gap);
        }
        let was_to_be_retried = matches!(row.state().phase, Phase::Failed(_) | Phase::Reverted(_));
        let find = |wanted: &ReleaseId| terms.as_ref().filter(|terms| terms.release == *wanted);
        match row.follower.take(record.clone(), seed_of(host), &find) {
            Ok(Taken::Folded(_)) => {}
            // The numbers were compared above.
            Ok(Taken::Repeat | Taken::Early(_) | Taken::TooEarly(_)) => return Ok(Folding::Gap),
            Err(diverged) => return Ok(Folding::Diverged(chain(&diverged))),
        }
        (row.is_changed, row.reported_ms, row.fault) = (true, at, None);
        row.stands();
        let stages = row.state().phase.target().map(|terms| terms.release.clone());
        let may_be_retried = matches!(row.state().phase, Phase::Failed(_) | Phase::Reverted(_));
        if let Event::StateTold { state } = &record.fact {
            // It may have noted orders in records that are lost.
            row.forget_heeded(state);
        }
        if let Some(noted) = Wish::noted_by(&record.fact) {
            // An order that the host noted is done with (lesson 25).
            row.desk.drop_this(&noted);
        }
        if was_to_be_retried && !may_be_retried {
            // It went on by itself, so nothing is left to be tried again; a later failure is another matter.
            row.desk.drop_about(Topic::Retry);
        }
        if let Some(release) = stages {
            // That it fetches is all that this order wanted, and it is no event of the host.
            row.desk.drop_this(&Wish::Stage { release });
        }
        Ok(Folding::Taken)
    }

    /// Folds a record of the log again.
    pub(super) async fn project_report(
        &mut self,
        at: UnixMs,
        about: &About,
        record: &Record,
    ) -> Result<(), StoreError> {
        let Some(host) = about.host().cloned() else { return Err(StoreError::corrupt("a report of nobody")) };
        if let Folding::Diverged(why) = self.fold(at, &host, record).await?
            && let Some(row) = self.host(&host).await?
        {
            row.fault = Some(why);
        }
        Ok(())
    }

    /// Puts a state that a host sent, or that was kept, in the place of what was followed; records up to `told` were taken in.
    pub(super) async fn project_state(
        &mut self,
        at: UnixMs,
        about: &About,
        (state, told): (&HostState, u64),
    ) -> Result<(), StoreError> {
        let Some(host) = about.host().cloned() else { return Err(StoreError::corrupt("a state of nobody")) };
        if let Some(row) = self.host(&host).await? {
            row.follower = Follower::resume(state.clone(), told);
            (row.is_changed, row.reported_ms, row.fault) = (true, row.reported_ms.max(at), None);
            row.stands();
            row.forget_heeded(state);
        }
        Ok(())
    }

    /// Orders once more what a host lacks by what it reported, and what does not wait for it any more. The log has it as an order
    /// of its own, so a rebuild comes to the same.
    pub(in crate::store) async fn order_again(&mut self, host: &HostName) -> Result<(), StoreError> {
        let Some(row) = self.host(host).await? else { return Ok(()) };
        let newest = || RolloutId { channel: row.named.channel.clone(), seq: row.named.seq };
        let ordered = row.remembered.ordered.as_ref();
        let lacking = ordered.filter(|ordered| ordered.is_missing_in(row.state(), &newest()));
        let Some((order, wish)) = lacking.and_then(|ordered| Some((ordered.again(host), ordered.wish()?)))
        else {
            return Ok(());
        };
        if row.desk.asks(&wish) {
            return Ok(());
        }
        // Boxed, since an order is projected by the same code that reports are.
        Box::pin(self.append(&About::Host(host.clone()), &Fact::Ordered { order })).await?;
        Ok(())
    }

    /// Puts what was remembered of a host in the place of what was folded. Of its orders those stay that were `waiting`: what
    /// would show that the host has the others may be gone.
    pub(super) async fn project_remembered(
        &mut self,
        about: &About,
        remembered: &Remembered,
        waiting: Option<&[u64]>,
    ) -> Result<(), StoreError> {
        let Some(host) = about.host() else { return Err(StoreError::corrupt("a host without a name")) };
        if let Some(row) = self.host(host).await? {
            (row.remembered, row.is_recalled) = (remembered.clone(), true);
            if let Some(waiting) = waiting {
                row.desk.keep(waiting);
            }
        }
        Ok(())
    }

    /// What a release that is served says to a host; `None` if it is not served, or does not name the host.
    async fn terms(&mut self, host: &HostName, id: &ReleaseId) -> Result<Option<Terms>, StoreError> {
        let Some(known) = self.known_release(&id.channel, id.seq).await? else { return Ok(None) };
        if known.digest != id.digest {
            return Ok(None);
        }
        let release = known.release.clone();
        let path = layout::entry(&id.channel, id.seq, host);
        let Some(bytes) = self.document(&path).await? else { return Ok(None) };
        let entry = read_entry(&bytes).ok_or_else(|| StoreError::corrupt(path))?;
        Ok(Terms::new(id.clone(), &release, &entry).ok())
    }

    /// Writes the hosts that changed, and what is asked of them. What the board says of them is kept for the commit.
    pub(super) async fn flush_hosts(&mut self) -> Result<(), StoreError> {
        // Bounded by what one transaction touches; a rebuild touches all.
        let hosts = std::mem::take(&mut self.hosts);
        let changed: Vec<_> = hosts.iter().filter(|(_, row)| row.is_changed).collect();
        UPDATE_HOSTS.run(&mut self.tx, &changed, |query, (name, row)| fill_host(query, name, row)).await?;
        let recalled = hosts.iter().filter(|(_, row)| row.is_recalled);
        self.write_remembered(recalled.map(|(name, row)| (name, json(&row.remembered))).collect()).await?;
        for (name, row) in &hosts {
            if row.is_changed || row.desk.is_moved() {
                self.noted.insert(name.clone(), row.asked()?);
            }
            if row.desk.is_put() {
                self.asked.insert(name.clone());
            }
        }
        self.write_desks(hosts.iter().map(|(name, row)| (name, &row.desk))).await
    }

    /// Writes what is remembered of hosts.
    pub(super) async fn write_remembered(
        &mut self,
        remembered: Vec<(&HostName, String)>,
    ) -> Result<(), StoreError> {
        let fill = |query: Filled, (name, body): &(&HostName, String)| {
            query.bind(name.to_string()).bind(body.clone())
        };
        Ok(PUT_REMEMBERED.run(&mut self.tx, &remembered, fill).await?)
    }
}

fn fill_host(query: Filled, name: &HostName, row: &HostRow) -> Filled {
    let state = row.follower.state();
    let query = query.bind(name.to_string());
    let query = query.bind(int(row.told())).bind(state.phase.name().to_string()).bind(json(state));
    query.bind(int(row.reported_ms.get())).bind(row.fault.clone())
}

/// An entry whose proof was checked when it was taken in.
pub(super) fn read_entry(bytes: &[u8]) -> Option<Entry> {
    let envelope = EntryEnvelope::read(bytes).ok()?;
    nixfleet_trust::json::read(envelope.payload()).ok()
}

fn read_host(row: &sqlx::any::AnyRow) -> Result<(HostName, HostRow), StoreError> {
    let bad = |what: &str| StoreError::corrupt(format!("a host's {what}"));
    let state: HostState = serde_json::from_str(row.try_get("state")?).map_err(|_| bad("state"))?;
    let name = row.try_get::<String, _>("name")?.parse().map_err(|_| bad("name"))?;
    let row = HostRow {
        named: Named {
            channel: row.try_get::<String, _>("channel")?.parse().map_err(|_| bad("channel"))?,
            seq: Seq::new(uint(row.try_get("release_seq")?)).map_err(|_| bad("release"))?,
            wave: row.try_get("wave")?,
            tags: row.try_get("tags")?,
            system: row.try_get("system")?,
        },
        follower: Follower::resume(state, uint(row.try_get("seq")?)),
        reported_ms: UnixMs::new(uint(row.try_get("reported_ms")?)).map_err(|_| bad("time"))?,
        remembered: read_remembered(row.try_get("remembered")?)?,
        fault: row.try_get("fault")?,
        is_changed: false,
        is_recalled: false,
        desk: Desk::default(),
    };
    Ok((name, row))
}
