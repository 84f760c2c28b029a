//! What a plan leaves behind, on both engines.

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::mirror::{Mirror, News};
use nixfleet_control_plane::store::Store;
use nixfleet_control_plane::store::fact::{About, Fact};
use nixfleet_control_plane::store::write::Folding;
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::policy::WaveIndex;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::{Decision, Order, RolloutId, Transition, What};

use super::{ordered, served};
use crate::fleet::{Host, channel, host_name, kept_orders, now};

/// What the planner knows, read anew.
async fn mirror_of(store: &Store) -> Mirror {
    let mut mirror = Mirror::new(UnixMs::EPOCH);
    let mut reading = store.reading().await.expect("a connection");
    mirror.take(News::all(&mut reading).await.expect("read"));
    mirror
}

pub(super) async fn a_mirror_that_takes_in_what_was_written_is_the_one_that_is_read_anew(database: Database) {
    let (store, _, _, release) = served(&database, &["web-1", "web-2", "web-3"]).await;
    let read = async || mirror_of(&store).await;
    let mut mirror = read().await;
    let rollout = RolloutId { channel: channel(), seq: release.id.seq };
    let opened = Transition::Opened { release: release.id.clone() };
    let decided = |becomes| Fact::Decided { decision: Decision { rollout: rollout.clone(), becomes } };
    for (becomes, what) in [(opened, What::Stage), (Transition::WaveOpened { wave: WaveIndex(0) }, What::Go)]
    {
        let mut write = store.begin(now()).await.expect("a write");
        write.append(&About::Channel(channel()), &decided(becomes)).await.expect("it fits");
        for host in ["web-1", "web-3"].map(host_name) {
            write.append(&About::Host(host.clone()), &ordered(&host, &release, what)).await.expect("it fits");
        }
        let rows = write.planned().expect("sound rows");
        assert_eq!((rows.0.len(), rows.1.len()), (1, 2));
        let newest = write.commit().await.expect("on the disk").newest;
        mirror.take(News::written(newest, rows));
        let anew = read().await;
        assert_eq!((mirror.event, &mirror.snapshot), (anew.event, &anew.snapshot), "{what:?}");
    }
}

/// They are written at once and by what the planner knows; a rebuild reads each host's row and folds one order after the other.
pub(super) async fn the_orders_of_a_plan_are_what_a_rebuild_makes_of_them(database: Database) {
    let (store, _, _, release) = served(&database, &["web-1", "web-2", "web-3", "web-4"]).await;
    let hosts = ["web-1", "web-2", "web-3"].map(host_name);
    let mut write = store.begin(now()).await.expect("a write");
    let mut reporting = Host::started("web-2");
    reporting.verified(&release);
    for record in reporting.log.clone() {
        assert_eq!(write.report(&hosts[1], record).await.expect("asked"), Folding::Taken);
    }
    write.commit().await.expect("on the disk");
    let known = async || (kept_orders(&store, &hosts[0], 0).await, kept_orders(&store, &hosts[1], 0).await);
    let mut mirror = mirror_of(&store).await;
    let all = [What::Stage, What::Go, What::Withdraw, What::Go, What::Retry, What::Reboot, What::Revert];
    for (at, what) in all.into_iter().enumerate() {
        let order = |host: &HostName| Order { host: host.clone(), release: release.id.clone(), what };
        // One of them is told twice, and one not each time.
        let orders: Vec<Order> = hosts.iter().skip(at % 2).chain([&hosts[1]]).map(order).collect();
        let mut write = store.begin(now()).await.expect("a write");
        let told = mirror.hosts(orders.iter().map(|order| &order.host));
        write.order(told, &orders).await.expect("they fit");
        let rows = write.planned().expect("sound rows");
        let committed = write.commit().await.expect("on the disk");
        assert_eq!(committed.events, orders.len() as u64);
        assert_eq!(committed.asked, orders.iter().map(|order| order.host.clone()).collect());
        mirror.take(News::written(committed.newest, rows));
        let anew = mirror_of(&store).await;
        assert_eq!((mirror.event, &mirror.snapshot), (anew.event, &anew.snapshot), "{what:?}");
        let kept = known().await;
        store.rebuild(now()).await.expect("it folds");
        assert_eq!(known().await, kept);
        let rebuilt = mirror_of(&store).await;
        assert_eq!(rebuilt.snapshot.channels, mirror.snapshot.channels, "{what:?}");
    }
    let mut write = store.begin(now()).await.expect("a write");
    let nobody = Order { host: host_name("web-9"), release: release.id.clone(), what: What::Go };
    assert!(write.order(Vec::new(), &[nobody]).await.is_err(), "no release names it");
}
