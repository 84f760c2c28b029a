//! What the store promises, on both engines: each story gets an empty database.

mod older;
mod orders;
mod planned;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::pin::Pin;
use std::time::Duration;

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::heard::Sign;
use nixfleet_control_plane::releases::{self, Draft, Taken};
use nixfleet_control_plane::store::fact::{About, Fact, TokenChange};
use nixfleet_control_plane::store::fleet::EventFilter;
use nixfleet_control_plane::store::ingest::{Ingest, NotTaken, Sent};
use nixfleet_control_plane::store::tokens::{Made, Role};
use nixfleet_control_plane::store::write::Folding;
use nixfleet_control_plane::store::{Store, StoreError};
use nixfleet_core::host::saved::SavedState;
use nixfleet_core::host::{Event, HostState};
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::rollout::{Order, What};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::channels::{
    a_channel_that_the_root_no_longer_names_is_gone_with_all_that_it_had,
    a_clock_that_jumped_removes_nothing,
    a_number_that_is_used_again_after_a_reset_names_the_hosts_of_its_new_release_only,
    what_another_channel_names_is_refused_until_that_lets_it_go,
};
use crate::cluster::Cluster;
use crate::fleet::{Documents, Fleet, Host, channel, host_name, kept_orders, now};
use crate::retaining::whatever_is_known_is_known_after_old_events_went_at_any_moment;
use older::what_any_older_program_kept_is_known_and_can_be_made_again;
use orders::{
    a_newer_order_on_the_same_topic_takes_the_place_of_the_older,
    a_whole_state_says_that_the_host_has_its_order_to_go_back,
    what_a_thief_ordered_in_its_place_is_ordered_once_more, what_an_older_order_undoes_is_ordered_once_more,
    what_is_taken_back_or_superseded_is_not_delivered_any_more,
};
use planned::{
    a_mirror_that_takes_in_what_was_written_is_the_one_that_is_read_anew,
    the_orders_of_a_plan_are_what_a_rebuild_makes_of_them,
};

type Told = Pin<Box<dyn Future<Output = ()> + Send>>;
type Story = (&'static str, fn(Database) -> Told);

macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        const STORIES: &[Story] = &[$((stringify!($name), |database| Box::pin($name(database)))),*];
    };
}

stories![
    numbers_have_no_gaps_whoever_writes_at_the_same_time,
    a_write_that_is_dropped_leaves_nothing,
    bytes_come_back_as_they_were,
    hosts_are_listed_by_the_bytes_of_their_names_page_by_page,
    a_newer_order_on_the_same_topic_takes_the_place_of_the_older,
    what_is_taken_back_or_superseded_is_not_delivered_any_more,
    what_an_older_order_undoes_is_ordered_once_more,
    what_a_thief_ordered_in_its_place_is_ordered_once_more,
    a_whole_state_says_that_the_host_has_its_order_to_go_back,
    what_polls_are_told_from_memory_is_what_is_kept_whoever_wrote_it,
    a_mirror_that_takes_in_what_was_written_is_the_one_that_is_read_anew,
    the_orders_of_a_plan_are_what_a_rebuild_makes_of_them,
    a_queue_of_reports_that_is_full_refuses_and_takes_in_again,
    a_lease_has_one_holder_and_ends,
    a_token_has_one_name_and_is_found_by_itself_only,
    strangers_are_counted_and_bounded,
    reports_in_any_order_and_number_fold_to_the_state_of_the_host,
    rebuild_and_retention_keep_what_is_known,
    a_schema_of_a_newer_program_is_refused,
    what_any_older_program_kept_is_known_and_can_be_made_again,
    what_only_looks_leaves_the_tables_of_an_older_program_as_they_are,
    a_channel_that_was_set_back_goes_on_from_the_lower_number,
    two_drafts_at_once_do_not_overwrite_each_other,
    what_another_channel_names_is_refused_until_that_lets_it_go,
    a_channel_that_the_root_no_longer_names_is_gone_with_all_that_it_had,
    a_number_that_is_used_again_after_a_reset_names_the_hosts_of_its_new_release_only,
    a_clock_that_jumped_removes_nothing,
    whatever_is_known_is_known_after_old_events_went_at_any_moment,
];

#[tokio::test(flavor = "multi_thread")]
async fn every_story_holds_on_sqlite() {
    for (name, story) in STORIES {
        println!("{name}");
        let dir = tempfile::tempdir().expect("a folder");
        story(Database::Sqlite(dir.path().join("fleet.db"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_may_read_the_database() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(&Database::Sqlite(dir.path().join("fleet.db"))).await.expect("a database");
    let files = std::fs::read_dir(dir.path()).expect("a folder").map(|file| file.expect("a file"));
    let modes: Vec<_> =
        files.map(|file| (file.file_name(), file.metadata().expect("there").mode() & 0o777)).collect();
    assert!(modes.len() > 1 && modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_story_holds_on_postgresql() {
    let Some(cluster) = Cluster::start().await else { return };
    for (at, (name, story)) in STORIES.iter().enumerate() {
        println!("{name}");
        story(cluster.database(&format!("story_{at}")).await).await;
    }
}

pub(crate) async fn open(database: &Database) -> Store {
    Store::open(database).await.expect("it opens")
}

pub(crate) async fn take(store: &Store, root: &[u8], documents: &Documents) -> Taken {
    try_take(store, root, documents).await.expect("it is whole")
}

pub(crate) async fn try_take(
    store: &Store,
    root: &[u8],
    documents: &Documents,
) -> Result<Taken, releases::IntakeRefused> {
    let mut draft = Draft::begin(store, root, now()).await.expect("a draft");
    draft.release(&documents.release).expect("a good release");
    for (_, entry) in &documents.entries {
        draft.entry(entry).expect("a good entry");
    }
    draft.finish(store, root).await.map(|intake| intake.taken)
}

/// A store that serves release 1 of a fleet with these hosts.
pub(crate) async fn served(database: &Database, names: &[&str]) -> (Store, Fleet, Vec<u8>, Documents) {
    let (store, fleet) = (open(database).await, Fleet::of(names));
    let root = fleet.root(1);
    releases::begin(&store, &root, now()).await.expect("a root");
    let documents = fleet.release(1);
    assert_eq!(take(&store, &root, &documents).await, Taken::New(documents.id.clone()));
    (store, fleet, root, documents)
}

/// What a plan orders.
pub(crate) fn ordered(host: &HostName, documents: &Documents, what: What) -> Fact {
    Fact::Ordered { order: Order { host: host.clone(), release: documents.id.clone(), what } }
}

/// An event that leads to nothing.
pub(crate) fn filler(name: &str) -> Fact {
    Fact::TokenChanged { name: name.to_owned(), change: TokenChange::Made, role: None }
}

async fn numbers_have_no_gaps_whoever_writes_at_the_same_time(database: Database) {
    // Two processes, as far as the database can tell.
    let stores = [open(&database).await, open(&database).await];
    let mut tasks = Vec::new();
    for writer in 0..8 {
        let store = stores[writer % 2].clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..10 {
                let mut write = store.begin(now()).await.expect("its turn");
                for _ in 0..3 {
                    write.append(&About::Fleet, &filler(&writer.to_string())).await.expect("kept");
                }
                write.commit().await.expect("on the disk");
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    let events = stores[0].events(&EventFilter::default(), 1_000).await.expect("read");
    let numbers: Vec<u64> = events.iter().map(|event| event.id).collect();
    assert_eq!(numbers, (1..=240).collect::<Vec<_>>());
    for three in events.chunks(3) {
        assert!(three.iter().all(|event| event.fact == three[0].fact), "writes do not mix: {three:?}");
    }
    assert_eq!(stores[1].newest_event().await.expect("read"), 240);
}

async fn a_write_that_is_dropped_leaves_nothing(database: Database) {
    let store = open(&database).await;
    let mut write = store.begin(now()).await.expect("a write");
    write.append(&About::Fleet, &filler("ann")).await.expect("kept");
    write.put_document("root/9.json", b"x").await.expect("kept");
    drop(write);
    assert_eq!(store.newest_event().await.expect("read"), 0);
    assert_eq!(store.document("root/9.json").await.expect("read"), None);
    let mut write = store.begin(now()).await.expect("the next has its turn");
    assert_eq!(write.append(&About::Fleet, &filler("bob")).await.expect("kept"), 1);
    write.commit().await.expect("on the disk");
}

async fn bytes_come_back_as_they_were(database: Database) {
    let store = open(&database).await;
    let all: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let mut write = store.begin(now()).await.expect("a write");
    write.put_document("channels/stable/1/hosts/ü.json", &all).await.expect("kept");
    write.set("x", &[]).await.expect("kept");
    write.set("x", &all).await.expect("kept");
    write.commit().await.expect("on the disk");
    assert_eq!(store.document("channels/stable/1/hosts/ü.json").await.expect("read"), Some(all.clone()));
    assert_eq!(store.setting("x").await.expect("read"), Some(all));
    assert_eq!(store.setting("y").await.expect("read"), None);
}

async fn hosts_are_listed_by_the_bytes_of_their_names_page_by_page(database: Database) {
    let names = ["web-1", "web.1", "web_1", "web1", "a", "zz", "web-10", "web-2"];
    let (store, ..) = served(&database, &names).await;
    let mut sorted = names.map(host_name);
    sorted.sort();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = store.hosts(&after, Some(&channel()), 3).await.expect("read");
        let Some(last) = page.last() else { break };
        after = last.name.to_string();
        seen.extend(page.into_iter().map(|host| host.name));
    }
    assert_eq!(seen, sorted);
    let other = "edge".parse().expect("a name");
    assert_eq!(store.hosts("", Some(&other), 3).await.expect("read"), []);
    assert_eq!(store.counts().await.expect("read"), [("stable".to_owned(), "never-reported".to_owned(), 8)]);
}

async fn what_polls_are_told_from_memory_is_what_is_kept_whoever_wrote_it(database: Database) {
    let (ours, fleet, root, first) = served(&database, &["web-1"]).await;
    let (others, host) = (open(&database).await, host_name("web-1"));
    let follow = async |after: u64| {
        let touched = ours.reading().await.expect("a connection").touched(after).await.expect("read");
        ours.board().touched(&touched);
        touched.newest
    };
    let told = async || {
        let (reads, asked) = (ours.reads(), ours.asked(&host).await.expect("read"));
        let was_read = ours.reads() != reads;
        let kept = kept_orders(&ours, &host, 0).await;
        let (_, again) =
            ours.reading().await.expect("a connection").asked(&[host.to_string()]).await.expect("read");
        assert_eq!(again, [(host.clone(), asked.clone())]);
        (asked.orders == kept, asked.is_followed, was_read)
    };
    let mut newest = follow(0).await;
    assert_eq!(told().await, (true, false, true), "nothing was known");
    assert_eq!(told().await, (true, false, false));
    for (store, is_read) in [(&ours, false), (&others, true)] {
        for what in [What::Stage, What::Go, What::Withdraw] {
            let mut write = store.begin(now()).await.expect("a write");
            write.append(&About::Host(host.clone()), &ordered(&host, &first, what)).await.expect("kept");
            let asked = write.commit().await.expect("on the disk").asked;
            assert_eq!(asked, BTreeSet::from([host.clone()]));
            newest = follow(newest).await;
            assert_eq!(told().await, (true, false, is_read), "{what:?}");
        }
        let mut write = store.begin(now()).await.expect("a write");
        let mut started = Host::started("web-1");
        started.take(&Event::Unheld { by: store.reads().to_string() }, None);
        for record in started.log {
            write.report(&host, record).await.expect("asked");
        }
        write.commit().await.expect("on the disk");
        newest = follow(newest).await;
        assert!(told().await.1, "it has reported");
        take(store, &root, &fleet.release(if is_read { 3 } else { 2 })).await;
        newest = follow(newest).await;
        assert_eq!(told().await, (true, true, true), "after a release all is read again");
        if !is_read {
            let mut write = ours.begin(now()).await.expect("a write");
            let mut anew = HostState::fresh();
            anew.seq = 0;
            let state = Fact::StateSent { state: Box::new(SavedState(anew)), agent: "0.1.0".to_owned() };
            write.append(&About::Host(host.clone()), &state).await.expect("kept");
            write.commit().await.expect("on the disk");
            newest = follow(newest).await;
            assert_eq!(told().await, (true, false, false), "begun anew");
        }
    }
}

async fn a_queue_of_reports_that_is_full_refuses_and_takes_in_again(database: Database) {
    let (store, ..) = served(&database, &["web-1"]).await;
    let (host, mut reports) = (host_name("web-1"), JoinSet::new());
    let (committed, _) = watch::channel(0);
    let within = Duration::from_secs(4);
    let (ingest, _) = Ingest::start_with((1, within), store.clone(), now, committed);
    // Nobody else can write meanwhile.
    let write = store.begin(now()).await.expect("a write");
    let report = || {
        let (ingest, host, log) = (ingest.clone(), host.clone(), Host::started("web-1").log);
        async move { ingest.take(host, Sent::Records(log)).await }
    };
    // One that is being written at most, one that waits, and one too many.
    for _ in 0..3 {
        reports.spawn(report());
    }
    let refused = reports.join_next().await.expect("three").expect("no panic");
    assert!(matches!(refused, Err(NotTaken::Full)), "{refused:?}");
    drop(write);
    // Where the first one was not taken up in time, the third found no room either. What had a place is kept.
    let mut kept = 0;
    while let Some(taken) = reports.join_next().await {
        match taken.expect("no panic") {
            Ok(_) => kept += 1,
            Err(refused) => assert!(matches!(refused, NotTaken::Full), "{refused:?}"),
        }
    }
    assert!(kept > 0, "what had a place");
    report().await.expect("there is room");
}

async fn a_lease_has_one_holder_and_ends(database: Database) {
    let (store, start) = (open(&database).await, now());
    let at = |secs: u32| start.plus(Secs(secs));
    let take =
        async |me: &str, secs: u32| store.lease("plan", me, at(secs), at(secs + 10)).await.expect("asked");
    assert!(take("a", 0).await);
    assert!(!take("b", 5).await, "it is a's");
    assert!(take("a", 8).await, "a goes on");
    assert!(!take("b", 18).await, "not before its end");
    assert!(take("b", 19).await);
    assert!(!take("a", 20).await);
    let mut write = store.begin(at(21)).await.expect("a write");
    assert!(!write.still_mine("plan", "a").await.expect("asked"));
    assert!(write.still_mine("plan", "b").await.expect("asked"));
    drop(write);
    store.give_back("plan", "a").await.expect("asked");
    assert_eq!(store.holder("plan").await.expect("read").map(|lease| lease.holder), Some("b".to_owned()));
    store.give_back("plan", "b").await.expect("asked");
    assert!(take("a", 22).await);
}

async fn a_token_has_one_name_and_is_found_by_itself_only(database: Database) {
    let store = open(&database).await;
    let Made::Token(token) = store.make_token("ann", Role::Operator, now()).await.expect("kept") else {
        panic!("the name is free")
    };
    assert!(matches!(store.make_token("ann", Role::Viewer, now()).await, Ok(Made::NameTaken)));
    let person = store.person(&token).await.expect("read").expect("it is known");
    assert_eq!((person.name.as_str(), person.role), ("ann", Role::Operator));
    for wrong in [&token[..token.len() - 1], &format!("{token}x"), "", "nixfleet_"] {
        assert_eq!(store.person(wrong).await.expect("read"), None, "{wrong}");
    }
    assert_eq!(store.people().await.expect("read").len(), 1);
    assert!(store.remove_token("ann", now()).await.expect("kept"));
    assert!(!store.remove_token("ann", now()).await.expect("kept"));
    assert_eq!(store.person(&token).await.expect("read"), None);
    let events = store.events(&EventFilter::default(), 10).await.expect("read");
    assert_eq!(events.len(), 2, "both are in the log: {events:?}");
}

async fn strangers_are_counted_and_bounded(database: Database) {
    let store = open(&database).await;
    let id = crate::fleet::HostKeys::new().public.id();
    store.note_stranger(&id, "192.0.2.1", now()).await.expect("kept");
    for _ in 0..1_010 {
        let other = crate::fleet::HostKeys::new().public.id();
        store.note_stranger(&other, "192.0.2.7", now()).await.expect("kept");
    }
    store.note_stranger(&id, "192.0.2.2", now().plus(Secs(5))).await.expect("kept");
    let strangers = store.strangers().await.expect("read");
    assert_eq!(strangers.len(), 1_000);
    assert_eq!((strangers[0].key.clone(), strangers[0].times), (id.to_string(), 2));
    assert_eq!(strangers[0].address, "192.0.2.2");
}

async fn reports_in_any_order_and_number_fold_to_the_state_of_the_host(database: Database) {
    let (store, fleet, root, first) = served(&database, &["web-1", "web-2"]).await;
    let mut host = Host::started("web-1");
    host.verified(&first);
    host.staged(&first);
    let second = fleet.release(2);
    take(&store, &root, &second).await;
    host.verified(&second);
    let all = host.log.clone();
    let mut taken = BTreeSet::new();
    // A fixed shuffle with repeats, gaps and steps backwards.
    for step in 0..200_usize {
        let from = step * 7 % all.len();
        let mut write = store.begin(now()).await.expect("a write");
        for record in all.iter().skip(from).take(1 + step % 3) {
            match write.report(&host.name, record.clone()).await.expect("asked") {
                Folding::Taken => assert!(taken.insert(record.seq), "once only: {}", record.seq),
                Folding::Repeat => assert!(taken.contains(&record.seq)),
                Folding::Gap => assert!(!taken.contains(&(record.seq - 1))),
                Folding::Diverged(why) => panic!("{why}"),
            }
        }
        write.commit().await.expect("on the disk");
    }
    assert_eq!(taken.len(), all.len());
    let (state, fault) = store.state(&host.name).await.expect("read").expect("named");
    assert_eq!((state, fault), (host.state.clone(), None));
    let events =
        store.events(&EventFilter { after: 0, host: Some(host.name.clone()) }, 100).await.expect("read");
    let logged: Vec<_> = events
        .into_iter()
        .map(|event| match event.fact {
            Fact::Reported { record } => *record,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(logged, all);
    let at = now();
    let ahead = UnixMs::new(at.get() + 86_400_000).expect("in range");
    for (clock, wanted) in [(Some(ahead), Some(86_400_000)), (None, None), (Some(UnixMs::EPOCH), Some(-1))] {
        store.note_heard(&[(host.name.clone(), Sign::of(at, clock))]).await.expect("kept");
        let listed = store.host(&host.name).await.expect("read").expect("named");
        assert_eq!(listed.heard_ms, Some(at));
        let shown = listed.clock_ahead_ms.map(|ahead| ahead.max(-1));
        assert_eq!(shown, wanted, "of {clock:?}: one that does not say is not taken for one that is right");
    }
}

async fn rebuild_and_retention_keep_what_is_known(database: Database) {
    let (store, fleet, root, first) = served(&database, &["web-1", "web-2"]).await;
    let mut hosts = [Host::started("web-1"), Host::started("web-2")];
    let second = fleet.release(2);
    for documents in [&first, &second] {
        take(&store, &root, documents).await;
        for host in &mut hosts {
            host.verified(documents);
            let mut write = store.begin(now()).await.expect("a write");
            for record in host.log.clone() {
                write.report(&host.name, record).await.expect("asked");
            }
            let fact = ordered(&host.name, documents, What::Go);
            write.append(&About::Host(host.name.clone()), &fact).await.expect("kept");
            write.commit().await.expect("on the disk");
        }
    }
    let look = async || {
        let hosts = store.hosts("", None, 10).await.expect("read");
        let orders = kept_orders(&store, &host_name("web-1"), 0).await;
        (hosts, orders, store.newest_releases().await.expect("read"))
    };
    let before = look().await;
    assert_eq!(
        before.0.iter().map(|host| host.state.clone()).collect::<Vec<_>>(),
        hosts.map(|host| host.state)
    );
    let folded = store.rebuild(now()).await.expect("it folds");
    assert_eq!(look().await, before);
    assert_eq!(store.retain(now(), UnixMs::EPOCH).await.expect("asked").events, 0, "nothing is that old");
    let removed = store.retain(now(), now().plus(Secs(1))).await.expect("asked");
    assert_eq!((removed.compacted, removed.releases), (2, 1), "{removed:?}");
    assert!(removed.events > 0);
    let again = store.rebuild(now()).await.expect("it folds");
    assert!(again < folded, "{again} {folded}");
    let after = look().await;
    let states = |hosts: &[nixfleet_control_plane::store::fleet::HostListed]| {
        hosts
            .iter()
            .map(|host| (host.name.clone(), host.state.clone(), host.fault.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(states(&after.0), states(&before.0));
    assert_eq!((after.1, after.2), (before.1, before.2));
    let second_time = store.retain(now(), now().plus(Secs(1))).await.expect("asked");
    assert_eq!((second_time.compacted, second_time.events), (0, 0), "there is an end to it");
}

async fn a_schema_of_a_newer_program_is_refused(database: Database) {
    sqlx::any::install_default_drivers();
    let store = open(&database).await;
    store.close().await;
    let pool = raw(&database).await;
    sqlx::query("INSERT INTO schema_steps (step) VALUES (99)").execute(&pool).await.expect("kept");
    pool.close().await;
    assert!(matches!(Store::open(&database).await, Err(StoreError::Newer { .. })));
    assert!(matches!(Store::open_as_it_is(&database).await, Err(StoreError::Newer { .. })));
}

/// The database without us.
pub(crate) async fn raw(database: &Database) -> sqlx::AnyPool {
    let address = match database {
        Database::Sqlite(path) => format!("sqlite:{}", path.display()),
        Database::Postgres(address) => address.clone(),
    };
    sqlx::AnyPool::connect(&address).await.expect("it is there")
}

async fn what_only_looks_leaves_the_tables_of_an_older_program_as_they_are(database: Database) {
    // One that is not there yet is made whole, so that a token may come before the first start.
    let new = Store::open_as_it_is(&database).await.expect("it opens");
    assert!(matches!(new.make_token("ann", Role::Viewer, now()).await.expect("kept"), Made::Token(_)));
    new.close().await;
    let pool = raw(&database).await;
    let last = "DELETE FROM schema_steps WHERE step = (SELECT MAX(step) FROM schema_steps)";
    sqlx::query(last).execute(&pool).await.expect("kept");
    let steps = async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM schema_steps");
        count.fetch_one(&pool).await.expect("read")
    };
    let before = steps().await;
    assert!(before > 0);
    let looking = Store::open_as_it_is(&database).await.expect("it opens");
    assert_eq!(looking.people().await.expect("read").len(), 1);
    looking.answers().await.expect("it answers");
    looking.close().await;
    assert_eq!(steps().await, before);
    pool.close().await;
}

async fn a_channel_that_was_set_back_goes_on_from_the_lower_number(database: Database) {
    let (store, fleet, root, _) = served(&database, &["web-1"]).await;
    let highest = fleet.release(9_000_000);
    take(&store, &root, &highest).await;
    let mut draft = Draft::begin(&store, &root, now()).await.expect("a draft");
    draft.root(&fleet.root_after_resets(2, 1)).expect("a good root");
    assert_eq!(draft.finish(&store, &root).await.expect("it is whole").taken, Taken::RootsOnly);
    let second = fleet.release(2);
    assert_eq!(take(&store, &root, &second).await, Taken::New(second.id.clone()));
    assert_eq!(store.newest_release(&channel()).await.expect("read"), Some(second.id.clone()));
    store.retain(now(), now().plus(Secs(1))).await.expect("asked");
    let path = nixfleet_core::model::layout::release(&channel(), second.id.seq);
    assert_eq!(store.document(&path).await.expect("read"), Some(second.release), "it is still served");
    store.rebuild(now()).await.expect("it folds");
    assert_eq!(store.newest_releases().await.expect("read"), [second.id]);
}

async fn two_drafts_at_once_do_not_overwrite_each_other(database: Database) {
    let (store, fleet, root, _) = served(&database, &["web-1"]).await;
    let (second, third) = (fleet.release(2), fleet.release(3));
    let mut slow = Draft::begin(&store, &root, now()).await.expect("a draft");
    slow.release(&second.release).expect("a good release");
    slow.entry(&second.entries[0].1).expect("a good entry");
    take(&store, &root, &third).await;
    let overtaken = slow.finish(&store, &root).await;
    assert!(matches!(overtaken, Err(releases::IntakeRefused::Overtaken)), "{overtaken:?}");
    assert_eq!(store.newest_release(&channel()).await.expect("read"), Some(third.id));
}
