//! Old events go, and whatever is known stays, whenever that happens: a story of [`crate::stores`], told on both engines, and
//! again and again with old events going at other moments.

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::releases::{self, Draft, Taken};
use nixfleet_control_plane::store::Store;
use nixfleet_control_plane::store::fact::{About, Fact};
use nixfleet_control_plane::store::fleet::{EventFilter, HostListed};
use nixfleet_control_plane::store::write::Folding;
use nixfleet_core::host::saved::SavedState;
use nixfleet_core::model::layout;
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::rollout::{Decision, RolloutId, Transition, Verb, What};
use nixfleet_core::wire::Wish;
use proptest::prelude::*;

use crate::fleet::{Documents, Fleet, Host, channel, host_name, kept_orders, now, system};
use crate::stores::{open, ordered};

/// After each of the steps of the story: what was that many hours ago may go, if it is said.
type Ages = Vec<Option<u32>>;

/// How many steps the story has.
const STEPS: usize = 10;
const HOUR: Secs = Secs(3_600);

/// A fleet whose database is told a story, an hour at each step.
struct Told {
    store: Store,
    fleet: Fleet,
    root: Vec<u8>,
    at: UnixMs,
    hosts: [Host; 2],
}

impl Told {
    async fn begin(database: &Database) -> Self {
        let (store, fleet) = (open(database).await, Fleet::of(&["web-1", "web-2"]));
        let root = fleet.root(1);
        releases::begin(&store, &root, now()).await.expect("a root");
        Self { store, fleet, root, at: now(), hosts: [Host::started("web-1"), Host::started("web-2")] }
    }

    async fn take(&self, documents: &Documents) {
        let mut draft = Draft::begin(&self.store, &self.root, self.at).await.expect("a draft");
        draft.release(&documents.release).expect("a good release");
        for (_, entry) in &documents.entries {
            draft.entry(entry).expect("a good entry");
        }
        let intake = draft.finish(&self.store, &self.root).await.expect("it is whole");
        assert_eq!(intake.taken, Taken::New(documents.id.clone()));
    }

    async fn add(&self, about: About, fact: Fact) {
        let mut write = self.store.begin(self.at).await.expect("a write");
        write.append(&about, &fact).await.expect("it fits");
        write.commit().await.expect("on the disk");
    }

    async fn order(&self, host: &str, documents: &Documents, what: What) {
        let host = host_name(host);
        self.add(About::Host(host.clone()), ordered(&host, documents, what)).await;
    }

    async fn hold(&self, host: &str) -> Wish {
        let (host, until_ms) = (host_name(host), None);
        self.ask(Verb::Hold { host: host.clone(), until_ms }, host).await;
        Wish::Hold { by: "ann".to_owned(), why: "audit".to_owned(), until_ms }
    }

    async fn ask(&self, verb: Verb, host: HostName) {
        let (by, why) = ("ann".to_owned(), "audit".to_owned());
        self.add(About::Host(host), Fact::Acted { by, verb, why }).await;
    }

    async fn decide(&self, documents: &Documents, becomes: Transition) {
        let rollout = RolloutId::from(&documents.id);
        self.add(About::Channel(channel()), Fact::Decided { decision: Decision { rollout, becomes } }).await;
    }

    async fn report(&self) {
        let mut write = self.store.begin(self.at).await.expect("a write");
        for host in &self.hosts {
            for record in host.log.clone() {
                if let Folding::Diverged(_) = write.report(&host.name, record).await.expect("asked") {
                    // Of a release that has gone: it is asked for its state then.
                    let state = Box::new(SavedState(host.state.clone()));
                    let fact = Fact::StateSent { state, agent: "0.1.0".to_owned() };
                    write.append(&About::Host(host.name.clone()), &fact).await.expect("it fits");
                }
            }
        }
        write.commit().await.expect("on the disk");
    }

    /// Everything that must not be lost, a line for each thing.
    async fn known(&self) -> Vec<String> {
        let mut known = Vec::new();
        for host in self.store.hosts("", None, 10).await.expect("read") {
            let orders = kept_orders(&self.store, &host.name, 0).await;
            let HostListed { name, system, release_seq, state, fault, .. } = host;
            known.push(format!("{name} {system} {release_seq:?} {fault:?} {state:?}"));
            known.push(format!("{orders:?}"));
        }
        known.push(format!("{:?}", self.store.newest_releases().await.expect("read")));
        known.extend(self.store.rollouts().await.expect("read").iter().map(|rollout| format!("{rollout:?}")));
        // What the planner would go by.
        let mut reading = self.store.reading().await.expect("a connection");
        for mut host in reading.hosts(self.hosts.iter().map(|host| &host.name)).await.expect("read") {
            // That a host reported is in none of the states that are kept.
            host.host.heard_ms = None;
            known.push(format!("{host:?}"));
        }
        known
    }

    /// An hour goes by, what is so old goes, and all is made anew from what is left.
    async fn goes_on(&mut self, age: Option<u32>) {
        self.at = self.at.plus(HOUR);
        let before = self.known().await;
        if let Some(hours) = age {
            let limit = UnixMs::new(self.at.get() - u64::from(hours) * 3_600_000 - 1).expect("a time");
            self.store.retain(self.at, limit).await.expect("it removes");
            same(&self.known().await, &before, "removed");
        }
        self.store.rebuild(self.at).await.expect("it folds");
        same(&self.known().await, &before, "made anew");
    }

    async fn documents(&self, documents: &Documents) -> bool {
        let path = layout::release(&documents.id.channel, documents.id.seq);
        self.store.document(&path).await.expect("read").is_some()
    }
}

/// Fails with where the first thing that differs does so: the things are long.
fn same(now: &[String], before: &[String], when: &str) {
    assert_eq!(now.len(), before.len(), "{when}");
    for (now, before) in now.iter().zip(before) {
        let at = now.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
        let around = |text: &str| text.chars().skip(at.saturating_sub(100)).take(300).collect::<String>();
        assert!(now == before, "{when}:\n{}\nand before:\n{}", around(now), around(before));
    }
}

/// Two releases, of which the first fails, is tried again and taken back, and two more, of which the first is for one host only.
async fn tell(database: Database, ages: &[Option<u32>]) {
    let mut told = Told::begin(&database).await;
    let first = told.fleet.release(1);
    told.take(&first).await;
    told.hosts[0].verified(&first);
    told.hosts[0].staged(&first);
    told.report().await;
    told.goes_on(ages[0]).await;
    told.decide(&first, Transition::Opened { release: first.id.clone() }).await;
    told.order("web-1", &first, What::Go).await;
    told.hosts[0].take(&Wish::Go { release: first.id.clone() }.event(), None);
    while told.hosts[0].go_on(&|_| false) {}
    told.report().await;
    for host in [host_name("web-1"), host_name("web-2")] {
        told.decide(&first, Transition::Quarantined { system: system(&host, 1), host }).await;
    }
    told.goes_on(ages[1]).await;
    // It lifts the quarantine: what is asked about a host is about its channel as well.
    let host = host_name("web-1");
    told.ask(Verb::Retry { host: host.clone() }, host).await;
    told.goes_on(ages[2]).await;
    told.hold("web-2").await;
    told.order("web-1", &first, What::Withdraw).await;
    told.goes_on(ages[3]).await;
    let second = told.fleet.release(2);
    told.take(&second).await;
    told.goes_on(ages[4]).await;
    told.hosts[0].verified(&second);
    // Of a host that hears of everything late.
    told.hosts[1].verified(&first);
    told.report().await;
    let hold = told.hold("web-1").await;
    told.order("web-1", &second, What::Go).await;
    told.goes_on(ages[5]).await;
    for heeded in [hold, Wish::Go { release: second.id.clone() }] {
        told.hosts[0].take(&heeded.event(), None);
    }
    told.report().await;
    told.goes_on(ages[6]).await;
    let web_2 = told.fleet.hosts.remove(&host_name("web-2")).expect("it is there");
    let third = told.fleet.release(3);
    told.take(&third).await;
    told.goes_on(ages[7]).await;
    told.fleet.hosts.insert(host_name("web-2"), web_2);
    let fourth = told.fleet.release(4);
    told.take(&fourth).await;
    told.goes_on(ages[8]).await;
    told.hosts[1] = Host::started("web-2");
    told.hosts[1].verified(&fourth);
    told.report().await;
    told.goes_on(ages[9]).await;
    there_is_an_end(told, [&first, &second, &third, &fourth]).await;
}

/// When all of it is old, the newest release is left, a state of each host, and what has not arrived.
async fn there_is_an_end(told: Told, [first, second, third, fourth]: [&Documents; 4]) {
    let Told { store, at, .. } = &told;
    let later = at.plus(HOUR);
    let known = told.known().await;
    store.retain(later, later).await.expect("it removes");
    store.rebuild(later).await.expect("it folds");
    same(&told.known().await, &known, "at the end");
    for (documents, is_there) in [(first, false), (second, false), (third, false), (fourth, true)] {
        assert_eq!(told.documents(documents).await, is_there, "{}", documents.id);
    }
    let again = store.retain(later, later).await.expect("it removes");
    assert_eq!((again.compacted, again.events, again.releases), (0, 0, 0), "there is an end to it");
    let left = store.events(&EventFilter::default(), 100).await.expect("read");
    assert!(left.len() < 8, "{left:?}");
}

pub(crate) async fn whatever_is_known_is_known_after_old_events_went_at_any_moment(database: Database) {
    // States are written between two releases, and the first of these goes while the second is young.
    let ages = [None, None, Some(1), Some(0), Some(1), Some(2), None, Some(1), Some(1), Some(3)];
    Box::pin(tell(database, &ages)).await;
}

fn ages() -> impl Strategy<Value = Ages> {
    prop::collection::vec(prop::option::weighted(0.7, 0_u32..5), STEPS)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whenever_old_events_go_nothing_that_is_known_is_lost(ages in ages()) {
        let dir = tempfile::tempdir().expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(tell(Database::Sqlite(dir.path().join("fleet.db")), &ages));
    }
}
