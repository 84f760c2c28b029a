//! The orders of a plan in a write: many hosts at once, by what the planner knows of them.
//!
//! [`Write::append`] reads a host's whole row to fold an order into it, which takes longer than all the rest. The planner has
//! just read the log to its end within this very write, so its hosts are what the rows say; what an order changes are what is
//! remembered of the host and its desk, and only these are written. Both ways fold by the same code, and a rebuild, which goes
//! the long way, comes to the same.

use std::collections::BTreeMap;

use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::rollout::{Host, NotFolded, Order, Remembered};
use sqlx::Row;

use super::super::fact::{About, Fact};
use super::super::planned::{PlannedHost, name};
use super::super::rows::Among;
use super::super::{StoreError, uint};
use super::desk::{self, Asked, Desk, ORDERS};
use super::{Write, json};

const FOLLOWED: Among = Among { head: "SELECT name FROM hosts WHERE seq > 0 AND fault IS NULL AND name IN" };

/// A host that is ordered something.
struct Told {
    channel: ChannelName,
    host: Host,
    desk: Desk,
    is_followed: bool,
}

impl Write {
    /// Adds these orders and does what follows from them. `known` are their hosts, as they are at this point of this write.
    pub async fn order(&mut self, known: Vec<PlannedHost>, orders: &[Order]) -> Result<(), StoreError> {
        // What was changed before in this write is not known to rows that are read beside it.
        self.ordered.extend(self.planned_hosts()?);
        self.flush_hosts().await?;
        let mut told = self.desks_of(known).await?;
        for order in orders {
            let about = About::Host(order.host.clone());
            let Some(row) = told.get_mut(&order.host) else {
                return Err(NotFolded::NoHost(order.host.clone()).into());
            };
            let id = self.note(&about, &Fact::Ordered { order: order.clone() }).await?;
            // Folding takes away who wants another try.
            let wish = desk::wish(order, row.host.retry.clone());
            row.host.take_order(order, self.now);
            row.desk.make_way(order);
            row.desk.put(id, &wish);
        }
        self.write_told(told).await
    }

    /// What is asked of these hosts so far.
    async fn desks_of(&mut self, known: Vec<PlannedHost>) -> Result<BTreeMap<HostName, Told>, StoreError> {
        let names: Vec<String> = known.iter().map(|host| host.name.to_string()).collect();
        let told = known.into_iter().map(|PlannedHost { name, channel, host }| {
            (name, Told { channel, host, desk: Desk::default(), is_followed: false })
        });
        let mut told: BTreeMap<HostName, Told> = told.collect();
        for row in &FOLLOWED.rows(&mut self.tx, &names).await? {
            if let Some(told) = told.get_mut(&name(row.try_get("name")?, "host")?) {
                told.is_followed = true;
            }
        }
        for row in &ORDERS.rows(&mut self.tx, &names).await? {
            let asked = Asked { number: uint(row.try_get("number")?), body: row.try_get("body")? };
            if let Some(told) = told.get_mut(&name(row.try_get("host")?, "host")?) {
                told.desk.has(row.try_get("topic")?, asked);
            }
        }
        Ok(told)
    }

    async fn write_told(&mut self, told: BTreeMap<HostName, Told>) -> Result<(), StoreError> {
        let remembered = told.iter().map(|(name, row)| (name, json(&Remembered::of(row.host.clone()))));
        self.write_remembered(remembered.collect()).await?;
        self.write_desks(told.iter().map(|(name, row)| (name, &row.desk))).await?;
        for (name, Told { channel, host, desk, is_followed }) in told {
            self.noted.insert(name.clone(), desk.asked(is_followed)?);
            if desk.is_put() {
                self.asked.insert(name.clone());
            }
            self.ordered.push(PlannedHost { name, channel, host });
        }
        Ok(())
    }
}
