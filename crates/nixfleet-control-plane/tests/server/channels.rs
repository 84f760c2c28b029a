//! Channels that others must not take from, that end and that begin anew, and a log that a clock must not take away: stories of
//! [`crate::stores`], told on both engines.

use std::time::Duration;

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::mirror::{Mirror, News};
use nixfleet_control_plane::releases::{self, Draft, Intake, IntakeRefused, Taken};
use nixfleet_control_plane::retaining::{self, Believed, Run};
use nixfleet_control_plane::store::Store;
use nixfleet_control_plane::store::fact::{About, Fact};
use nixfleet_control_plane::store::fleet::EventFilter;
use nixfleet_core::model::names::{ChannelName, RootVersion};
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::rollout::What;

use crate::fleet::{Fleet, channel, host_name, kept_orders, now, policy};
use crate::stores::{filler, open, ordered, served, take, try_take};

fn edge() -> ChannelName {
    "edge".parse().expect("a name")
}

/// The hosts of a channel, by name.
async fn names_of(store: &Store, channel: &ChannelName) -> Vec<String> {
    let hosts = store.hosts("", Some(channel), 100).await.expect("read");
    hosts.into_iter().map(|host| host.name.to_string()).collect()
}

pub(crate) async fn what_another_channel_names_is_refused_until_that_lets_it_go(database: Database) {
    let (store, mut fleet) = (open(&database).await, Fleet::of(&["web-1", "web-2"]));
    let root = fleet.root_of(1, 0, &[channel(), edge()]);
    releases::begin(&store, &root, now()).await.expect("a root");
    take(&store, &root, &fleet.release(1)).await;
    let web_2 = fleet.hosts.remove(&host_name("web-2")).expect("it is there");
    let refused = try_take(&store, &root, &fleet.release_in(&edge(), 1, policy())).await.expect_err("a name");
    assert_eq!(refused.to_string(), "web-1 belongs to host web-1 of channel stable");
    assert!(refused.hint().is_some_and(|hint| hint.contains("channel stable without web-1")), "{refused}");
    // Nor does another name with its key.
    let keys = fleet.hosts.remove(&host_name("web-1")).expect("it is there");
    let key = keys.public.id();
    fleet.hosts.insert(host_name("kiosk"), keys);
    let refused = try_take(&store, &root, &fleet.release_in(&edge(), 1, policy())).await.expect_err("a key");
    assert_eq!(refused.to_string(), format!("{key} belongs to host web-1 of channel stable"));
    assert!(matches!(refused, IntakeRefused::Elsewhere(_)));
    assert_eq!(store.host_of_key(&key).await.expect("read"), Some(host_name("web-1")));
    assert_eq!(names_of(&store, &channel()).await, ["web-1", "web-2"]);
    let kiosk = std::mem::replace(&mut fleet.hosts, [(host_name("web-2"), web_2)].into());
    take(&store, &root, &fleet.release(2)).await;
    fleet.hosts = kiosk;
    take(&store, &root, &fleet.release_in(&edge(), 1, policy())).await;
    assert_eq!(store.host_of_key(&key).await.expect("read"), Some(host_name("kiosk")));
    assert_eq!(names_of(&store, &edge()).await, ["kiosk"]);
    // In its own channel a key may go to another name.
    let keys = fleet.hosts.remove(&host_name("kiosk")).expect("it is there");
    fleet.hosts.insert(host_name("desk"), keys);
    take(&store, &root, &fleet.release_in(&edge(), 2, policy())).await;
    assert_eq!(store.host_of_key(&key).await.expect("read"), Some(host_name("desk")));
}

pub(crate) async fn a_channel_that_the_root_no_longer_names_is_gone_with_all_that_it_had(database: Database) {
    let (store, fleet) = (open(&database).await, Fleet::of(&["web-1"]));
    let kiosks = fleet.with_hosts(&["kiosk"]);
    let root = fleet.root_of(1, 0, &[channel(), edge()]);
    releases::begin(&store, &root, now()).await.expect("a root");
    take(&store, &root, &fleet.release(1)).await;
    let release = kiosks.release_in(&edge(), 1, policy());
    take(&store, &root, &release).await;
    let kiosk = host_name("kiosk");
    let mut write = store.begin(now()).await.expect("a write");
    write.append(&About::Host(kiosk.clone()), &ordered(&kiosk, &release, What::Stage)).await.expect("kept");
    write.commit().await.expect("on the disk");
    let mut reading = store.reading().await.expect("it reads");
    let mut mirror = Mirror::new(UnixMs::EPOCH);
    mirror.take(News::all(&mut reading).await.expect("read"));
    assert_eq!((mirror.snapshot.channels.len(), mirror.snapshot.homes.len()), (2, 2));

    let mut draft = Draft::begin(&store, &root, now()).await.expect("a draft");
    draft.root(&fleet.root_of(2, 0, &[channel()])).expect("a good root");
    let intake = draft.finish(&store, &root).await.expect("it is whole");
    let version = RootVersion::new(2).expect("a version");
    assert_eq!(intake, Intake { roots: vec![version], taken: Taken::RootsOnly });
    let newest = store.events(&EventFilter::default(), 100).await.expect("read").pop().expect("an event");
    assert_eq!((newest.about, newest.fact), (About::Channel(edge()), Fact::ChannelRemoved { root: version }));
    let touched = reading.touched(mirror.event).await.expect("read");
    mirror.take(News::about(&mut reading, &touched).await.expect("read"));
    drop(reading);
    assert_eq!(mirror.snapshot.channels.keys().collect::<Vec<_>>(), [&channel()]);
    assert_eq!(mirror.snapshot.homes.keys().collect::<Vec<_>>(), [&host_name("web-1")]);
    let key = kiosks.hosts[&kiosk].public.id();
    let is_gone = async || {
        assert_eq!(store.newest_releases().await.expect("read").len(), 1);
        assert_eq!(names_of(&store, &edge()).await, [""; 0]);
        assert_eq!(kept_orders(&store, &kiosk, 0).await, []);
        assert_eq!(store.host_of_key(&key).await.expect("read"), None);
        let latest = nixfleet_core::model::layout::latest(&edge());
        assert_eq!(store.document(&latest).await.expect("read"), None);
        assert_eq!(names_of(&store, &channel()).await, ["web-1"]);
    };
    is_gone().await;
    store.rebuild(now()).await.expect("it folds");
    is_gone().await;
    // What still stands in the log is found when it is folded.
    store.retain(now(), UnixMs::EPOCH).await.expect("asked");
    store.rebuild(now()).await.expect("it folds");
    is_gone().await;
    let later = now().plus(Secs(10));
    store.retain(later, later).await.expect("asked");
    let path = nixfleet_core::model::layout::release(&edge(), release.id.seq);
    assert_eq!(store.document(&path).await.expect("read"), None, "its documents go with its events");
    store.rebuild(later).await.expect("it folds");
    is_gone().await;

    let mut draft = Draft::begin(&store, &root, now()).await.expect("a draft");
    draft.root(&fleet.root_of(3, 0, &[channel(), edge()])).expect("a good root");
    draft.finish(&store, &root).await.expect("it is whole");
    take(&store, &root, &kiosks.release_in(&edge(), 2, policy())).await;
    assert_eq!(names_of(&store, &edge()).await, ["kiosk"], "it may come back");
    store.retain(now(), UnixMs::EPOCH).await.expect("asked");
    store.rebuild(now()).await.expect("it folds");
    assert_eq!(store.host_of_key(&key).await.expect("read"), Some(kiosk));
}

pub(crate) async fn a_number_that_is_used_again_after_a_reset_names_the_hosts_of_its_new_release_only(
    database: Database,
) {
    let (store, mut fleet, root, _) = served(&database, &["web-1", "web-2"]).await;
    let mut draft = Draft::begin(&store, &root, now()).await.expect("a draft");
    draft.root(&fleet.root_after_resets(2, 1)).expect("a good root");
    draft.finish(&store, &root).await.expect("it is whole");
    let gone = fleet.hosts.remove(&host_name("web-2")).expect("it is there");
    let again = fleet.release(1);
    assert_eq!(take(&store, &root, &again).await, Taken::New(again.id.clone()));
    assert_eq!(names_of(&store, &channel()).await, ["web-1"]);
    assert_eq!(store.host_of_key(&gone.public.id()).await.expect("read"), None);
    store.rebuild(now()).await.expect("it folds");
    assert_eq!(names_of(&store, &channel()).await, ["web-1"]);
}

pub(crate) async fn a_clock_that_jumped_removes_nothing(database: Database) {
    let (store, ..) = served(&database, &["web-1"]).await;
    let mut write = store.begin(now()).await.expect("a write");
    write.append(&About::Fleet, &filler("ann")).await.expect("kept");
    write.commit().await.expect("on the disk");
    let (keep, day) = (Duration::from_hours(24), Duration::from_hours(24));
    let jumped = now().plus(Secs(400 * 86_400));
    let mut believed = Believed::begin(&store, jumped).await.expect("read");
    let run = async |believed: &mut Believed, now, up| {
        retaining::run(&store, believed, keep, (now, up)).await.expect("asked")
    };
    assert_eq!(run(&mut believed, jumped, Duration::ZERO).await, Run::Doubted, "before it has run once");
    let mut believed = Believed::begin(&store, now()).await.expect("read");
    assert!(matches!(run(&mut believed, now(), Duration::ZERO).await, Run::Removed(_)));
    assert_eq!(run(&mut believed, jumped, Duration::from_hours(6)).await, Run::Doubted);
    let mut believed = Believed::begin(&store, jumped).await.expect("read");
    assert_eq!(run(&mut believed, jumped, Duration::ZERO).await, Run::Doubted, "after a restart as well");
    assert_eq!(store.newest_event().await.expect("read"), 2);
    let events = store.events(&EventFilter::default(), 10).await.expect("read");
    assert_eq!(events.len(), 2, "{events:?}");
    // Half of that day goes by, and the server is started anew each few hours.
    for hours in [6_u32, 12, 18] {
        let clock = jumped.plus(Secs(hours * 3_600));
        let mut anew = Believed::begin(&store, clock).await.expect("read");
        assert_eq!(run(&mut anew, clock, Duration::ZERO).await, Run::Doubted, "after {hours} hours");
    }
    let clock = jumped.plus(Secs(25 * 3_600));
    let mut anew = Believed::begin(&store, clock).await.expect("read");
    let Run::Removed(removed) = run(&mut anew, clock, Duration::ZERO).await else {
        panic!("it ran evenly for a day, whoever asked it");
    };
    assert!(removed.events > 0, "{removed:?}");
    // Set right, it is believed at once, and removes less.
    let mut right = Believed::begin(&store, now()).await.expect("read");
    assert!(matches!(run(&mut right, now(), Duration::ZERO).await, Run::Removed(_)));
    let Run::Removed(_) = run(&mut believed, jumped.plus(Secs(86_400)), day).await else {
        panic!("the one that went on believes it as well");
    };
}
