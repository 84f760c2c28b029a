//! Which orders of a host are delivered, on both engines.

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::store::fact::{About, Fact};
use nixfleet_control_plane::store::write::Folding;
use nixfleet_core::host::saved::SavedState;
use nixfleet_core::host::waiting::StateName;
use nixfleet_core::host::{Event, Record};
use nixfleet_core::model::names::{ReleaseId, Seq};
use nixfleet_core::rollout::{Verb, What};
use nixfleet_core::wire::Wish;

use super::{ordered, served, take};
use crate::fleet::{Documents, Host, host_name, kept_orders, now};

pub(super) async fn a_newer_order_on_the_same_topic_takes_the_place_of_the_older(database: Database) {
    let (store, _, _, documents) = served(&database, &["web-1"]).await;
    let host = host_name("web-1");
    let hold = |why: &str| Wish::Hold { by: "ann".to_owned(), why: why.to_owned(), until_ms: None };
    let by_ann = |why: &str| Fact::Acted {
        by: "ann".to_owned(),
        verb: Verb::Hold { host: host.clone(), until_ms: None },
        why: why.to_owned(),
    };
    let go = Wish::Go { release: documents.id.clone() };
    for fact in [by_ann("one"), ordered(&host, &documents, What::Go), by_ann("two")] {
        let mut write = store.begin(now()).await.expect("a write");
        write.append(&About::Host(host.clone()), &fact).await.expect("kept");
        write.commit().await.expect("on the disk");
    }
    let orders = kept_orders(&store, &host, 0).await;
    let wishes: Vec<&Wish> = orders.iter().map(|order| &order.what).collect();
    assert_eq!(wishes, [&go, &hold("two")]);
    assert!(orders[0].number < orders[1].number);
    assert_eq!(kept_orders(&store, &host, orders[0].number).await, orders[1..]);
    assert_eq!(kept_orders(&store, &host_name("web-2"), 0).await, []);
}

pub(super) async fn what_is_taken_back_or_superseded_is_not_delivered_any_more(database: Database) {
    let (store, fleet, root, first) = served(&database, &["web-1"]).await;
    let host = host_name("web-1");
    let give = async |documents: &Documents, what: What| {
        let mut write = store.begin(now()).await.expect("a write");
        let fact = ordered(&host, documents, what);
        write.append(&About::Host(host.clone()), &fact).await.expect("kept");
        write.commit().await.expect("on the disk");
    };
    let wishes = async || {
        let orders = kept_orders(&store, &host, 0).await;
        orders.into_iter().map(|order| order.what).collect::<Vec<_>>()
    };
    for what in [What::Stage, What::Go, What::Reboot] {
        give(&first, what).await;
    }
    assert_eq!(wishes().await.len(), 3);
    give(&first, What::Revert).await;
    let revert = Wish::Revert { release: first.id.clone() };
    assert_eq!(wishes().await, [revert], "the way back takes the place of what it undoes");
    give(&first, What::Retry).await;
    assert!(
        !wishes().await.iter().any(|wish| matches!(wish, Wish::Revert { .. })),
        "and is over with the next try"
    );
    give(&first, What::Withdraw).await;
    assert_eq!(wishes().await, [Wish::Withdraw { release: first.id.clone() }]);
    give(&first, What::Reboot).await;
    let reboot = Wish::Reboot { release: first.id.clone() };
    assert_eq!(wishes().await, [reboot], "a host that asks anew would take it for what is taken back");
    give(&first, What::Withdraw).await;
    give(&first, What::Go).await;
    assert_eq!(wishes().await, [Wish::Go { release: first.id.clone() }], "it may be ordered again");
    give(&first, What::Withdraw).await;
    let (second, withdraw) = (fleet.release(2), Wish::Withdraw { release: first.id.clone() });
    take(&store, &root, &second).await;
    assert_eq!(wishes().await, [withdraw], "the host may begin before it sees the newer release");
    give(&second, What::Go).await;
    assert_eq!(wishes().await, [Wish::Go { release: second.id.clone() }]);
    take(&store, &root, &fleet.release(3)).await;
    assert_eq!(wishes().await, [], "an order for an older release is not delivered after a newer one");
}

/// A host had the order to go when it was taken back, and was told to go again before it reported either.
pub(super) async fn what_an_older_order_undoes_is_ordered_once_more(database: Database) {
    let (store, _, _, first) = served(&database, &["web-1"]).await;
    let mut host = Host::started("web-1");
    host.verified(&first);
    host.staged(&first);
    let mut write = store.begin(now()).await.expect("a write");
    for record in host.log.clone() {
        write.report(&host.name, record).await.expect("asked");
    }
    for what in [What::Go, What::Withdraw, What::Go] {
        let fact = ordered(&host.name, &first, what);
        write.append(&About::Host(host.name.clone()), &fact).await.expect("kept");
    }
    write.commit().await.expect("on the disk");
    let reported = host.log.len();
    // Where it waits for a window it has not begun.
    host.take(&Event::Held { by: "ann".to_owned(), why: "a demo".to_owned(), until_ms: None }, None);
    host.take(&Event::OrderedToGo { release: first.id.clone() }, None);
    host.take(&Event::OrderWithdrawn { release: first.id.clone() }, None);
    let mut write = store.begin(now()).await.expect("a write");
    for record in host.log.split_off(reported) {
        assert_eq!(write.report(&host.name, record).await.expect("asked"), Folding::Taken);
    }
    write.commit().await.expect("on the disk");
    let orders = async || kept_orders(&store, &host.name, 0).await;
    let after = orders().await;
    let wishes: Vec<&Wish> = after.iter().map(|order| &order.what).collect();
    assert_eq!(wishes, [&Wish::Go { release: first.id.clone() }], "it does not have the second one");
    store.rebuild(now()).await.expect("it folds");
    assert_eq!(orders().await, after);
}

/// Whoever held the control plane told a host to go to the newest release, and then to one that never was. Its owner, who has it
/// again, tells it to go before it reports either: by the first report it looks as if the host had heard of that.
pub(super) async fn what_a_thief_ordered_in_its_place_is_ordered_once_more(database: Database) {
    let (store, fleet, root, first) = served(&database, &["web-1"]).await;
    let mut host = Host::started("web-1");
    host.verified(&first);
    host.staged(&first);
    // Where it waits for something else it has not begun.
    host.take(&Event::Held { by: "ann".to_owned(), why: "a demo".to_owned(), until_ms: None }, None);
    let mut write = store.begin(now()).await.expect("a write");
    for record in host.log.clone() {
        write.report(&host.name, record).await.expect("asked");
    }
    let fact = ordered(&host.name, &first, What::Go);
    write.append(&About::Host(host.name.clone()), &fact).await.expect("kept");
    write.commit().await.expect("on the disk");
    let report = async |record: Record| {
        let mut write = store.begin(now()).await.expect("a write");
        assert_eq!(write.report(&host_name("web-1"), record).await.expect("asked"), Folding::Taken);
        write.commit().await.expect("on the disk");
        let orders = kept_orders(&store, &host_name("web-1"), 0).await;
        orders.into_iter().map(|order| order.what).collect::<Vec<_>>()
    };
    let never_was = ReleaseId { seq: Seq::MAX, ..first.id.clone() };
    host.take(&Event::OrderedToGo { release: first.id.clone() }, None);
    assert_eq!(report(host.log.last().expect("new").clone()).await, [], "it seems to have it");
    host.take(&Event::OrderedToGo { release: never_was }, None);
    let go = Wish::Go { release: first.id.clone() };
    assert_eq!(report(host.log.last().expect("new").clone()).await, [go], "it does not");
    take(&store, &root, &fleet.release(2)).await;
    host.take(&Event::Unheld { by: "ann".to_owned() }, None);
    let after = report(host.log.last().expect("new").clone()).await;
    assert_eq!(after, [], "what was ordered for an older release is not ordered again");
}

/// The policy does not bring all back, so the host notes the order and stays where it is.
pub(super) async fn a_whole_state_says_that_the_host_has_its_order_to_go_back(database: Database) {
    let (store, _, _, first) = served(&database, &["web-1"]).await;
    let mut host = Host::started("web-1");
    host.verified(&first);
    host.staged(&first);
    host.take(&Event::OrderedToGo { release: first.id.clone() }, None);
    while host.go_on(&|_| true) {}
    while host.state.phase.name() == StateName::Soaking {
        host.take(&Event::Woke, None);
    }
    assert_eq!(host.state.phase.name(), StateName::Converged);
    let tell = async |fact: Fact| {
        let mut write = store.begin(now()).await.expect("a write");
        write.append(&About::Host(host_name("web-1")), &fact).await.expect("kept");
        write.commit().await.expect("on the disk");
        let orders = kept_orders(&store, &host_name("web-1"), 0).await;
        orders.into_iter().map(|order| order.what).collect::<Vec<_>>()
    };
    let whole = |host: &Host| {
        let state = Box::new(SavedState(host.state.clone()));
        Fact::StateSent { state, agent: "0.1.0".to_owned() }
    };
    let _ = tell(whole(&host)).await;
    let revert = [Wish::Revert { release: first.id.clone() }];
    assert_eq!(tell(ordered(&host.name, &first, What::Revert)).await, revert);
    assert_eq!(tell(whole(&host)).await, revert, "it does not have it");
    host.take(&Event::OrderedToRevert { release: first.id.clone() }, None);
    assert_eq!(host.state.phase.name(), StateName::Converged);
    assert_eq!(tell(whole(&host)).await, [], "it has it");
}
