//! What is asked of a host, in a write: one order for each topic, as the database has them and as they become.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_core::model::names::HostName;
use nixfleet_core::rollout::progress::By;
use nixfleet_core::rollout::{Order, What};
use nixfleet_core::wire::{Topic, Wish};

use super::super::fleet::order;
use super::super::rows::{Among, Insert};
use super::super::{StoreError, board, int, sql};
use super::{Write, json};

/// What withdraws an order leaves none of these behind, and a newer release neither.
const TOPICS_OF_A_RELEASE: [Topic; 5] = [Topic::Stage, Topic::Go, Topic::Reboot, Topic::Retry, Topic::Revert];

/// The orders of hosts.
pub(super) const ORDERS: Among = Among { head: "SELECT host, topic, number, body FROM orders WHERE host IN" };
const PUT_ORDERS: Insert = Insert {
    head: "INSERT INTO orders (host, topic, number, body) VALUES",
    columns: 4,
    tail: "ON CONFLICT (host, topic) DO UPDATE SET number = excluded.number, body = excluded.body",
};

/// The orders of a host, by topic.
#[derive(Debug, Default)]
pub(super) struct Desk {
    orders: BTreeMap<String, Asked>,
    /// Topics of which the order is another one than the database has, or none.
    moved: BTreeSet<String>,
}

/// An order as it is kept.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) body: String,
}

impl Desk {
    /// Takes in an order that the database has.
    pub(super) fn has(&mut self, topic: String, asked: Asked) {
        self.orders.insert(topic, asked);
    }

    /// Puts an order there, in the place of an older one about the same.
    pub(super) fn put(&mut self, number: u64, wish: &Wish) {
        let topic = wish.topic().name().to_owned();
        self.moved.insert(topic.clone());
        self.orders.insert(topic, Asked { number, body: json(wish) });
    }

    /// Takes the order about `topic` away, if there is one.
    pub(super) fn drop_about(&mut self, topic: Topic) {
        if self.orders.remove(topic.name()).is_some() {
            self.moved.insert(topic.name().to_owned());
        }
    }

    /// Whether this very order waits for the host.
    pub(super) fn asks(&self, wish: &Wish) -> bool {
        self.orders.get(wish.topic().name()).is_some_and(|asked| asked.body == json(wish))
    }

    /// Takes this very order away, if it is there.
    pub(super) fn drop_this(&mut self, wish: &Wish) {
        if self.asks(wish) {
            self.drop_about(wish.topic());
        }
    }

    /// The numbers of what is on it.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.orders.values().map(|asked| asked.number).collect()
    }

    /// Takes all orders away but those of these numbers.
    pub(super) fn keep(&mut self, numbers: &[u64]) {
        let gone = self.orders.extract_if(.., |_, asked| !numbers.contains(&asked.number));
        self.moved.extend(gone.map(|(topic, _)| topic));
    }

    /// Takes away what an order of the planner makes void.
    pub(super) fn make_way(&mut self, order: &Order) {
        match order.what {
            // What was ordered for a release and is not known to have arrived is taken back; so it is by the way back from it.
            What::Withdraw | What::Revert => {
                for topic in TOPICS_OF_A_RELEASE {
                    self.drop_about(topic);
                }
            }
            // It is newer than whatever was taken back, and a host that asks anew must not take it for that.
            What::Go | What::Retry | What::Reboot => {
                let release = || order.release.clone();
                self.drop_this(&Wish::Withdraw { release: release() });
                self.drop_this(&Wish::Revert { release: release() });
            }
            // Nothing that was taken back is ordered again by it.
            What::Stage => {}
        }
    }

    /// Whether it is another one than the database has.
    pub(super) fn is_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// Whether there is something new on it.
    pub(super) fn is_put(&self) -> bool {
        self.moved.iter().any(|topic| self.orders.contains_key(topic))
    }

    /// What the host finds when it asks.
    pub(super) fn asked(&self, is_followed: bool) -> Result<board::Asked, StoreError> {
        let kept = self.orders.values().map(|asked| order(asked.number, &asked.body));
        let mut orders = kept.collect::<Result<Vec<_>, StoreError>>()?;
        orders.sort_by_key(|order| order.number);
        Ok(board::Asked { orders, is_followed })
    }
}

/// What an order is to its host. `retry` is who wants another try.
pub(super) fn wish(order: &Order, retry: Option<By>) -> Wish {
    let release = order.release.clone();
    match order.what {
        What::Stage => Wish::Stage { release },
        What::Go => Wish::Go { release },
        What::Retry => Wish::Retry { by: retry.map_or_else(|| "the control plane".to_owned(), |by| by.who) },
        What::Reboot => Wish::Reboot { release },
        What::Revert => Wish::Revert { release },
        What::Withdraw => Wish::Withdraw { release },
    }
}

impl Write {
    /// Writes what is another thing than before on these desks.
    pub(super) async fn write_desks(
        &mut self,
        desks: impl Iterator<Item = (&HostName, &Desk)>,
    ) -> Result<(), StoreError> {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (host, desk) in desks {
            for topic in &desk.moved {
                match desk.orders.get(topic) {
                    Some(asked) => put.push((host, topic, asked)),
                    None => gone.push((host, topic)),
                }
            }
        }
        PUT_ORDERS
            .run(&mut self.tx, &put, |query, (host, topic, Asked { number, body })| {
                let query = query.bind(host.to_string()).bind((*topic).clone());
                query.bind(int(*number)).bind(body.clone())
            })
            .await?;
        for (host, topic) in gone {
            sql("DELETE FROM orders WHERE host = $1 AND topic = $2")
                .bind(host.to_string())
                .bind(topic.clone())
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }
}
