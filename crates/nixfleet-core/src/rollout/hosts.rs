//! The hosts of a channel as a table by name.
//!
//! Which hosts a channel has changes only with a release, and then the table is laid out anew; between releases single
//! rows change. So a host has a place, which plans and reports use in place of its name, and the names are shared with
//! every report that was made of them. One row is found in O(log n); all rows lie one behind the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::snapshot::Host;
use crate::model::names::HostName;

/// Hosts by name, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts {
    /// Sorted, each once.
    names: Arc<[HostName]>,
    /// By place: as many as there are names.
    rows: Vec<Host>,
}

impl Hosts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The names in their order, to keep.
    pub fn names(&self) -> &Arc<[HostName]> {
        &self.names
    }

    /// The place of a host.
    pub fn place(&self, name: &HostName) -> Option<usize> {
        self.names.binary_search(name).ok()
    }

    /// The host called so.
    pub fn get(&self, name: &HostName) -> Option<&Host> {
        self.rows.get(self.place(name)?)
    }

    /// The host called so, to change.
    pub fn get_mut(&mut self, name: &HostName) -> Option<&mut Host> {
        let place = self.place(name)?;
        self.rows.get_mut(place)
    }

    /// Whether there is a host called so.
    pub fn contains_key(&self, name: &HostName) -> bool {
        self.place(name).is_some()
    }

    /// Puts a host in, in place of the one called so. The table is laid out anew for a name that it does not have; for
    /// many of them, collect.
    pub fn insert(&mut self, name: HostName, host: Host) -> Option<Host> {
        match self.names.binary_search(&name) {
            Ok(place) => self.rows.get_mut(place).map(|row| std::mem::replace(row, host)),
            Err(place) => {
                let mut names = self.names.to_vec();
                names.insert(place, name);
                self.names = names.into();
                self.rows.insert(place, host);
                None
            }
        }
    }

    /// Takes a host out. The table is laid out anew.
    pub fn remove(&mut self, name: &HostName) -> Option<Host> {
        let place = self.place(name)?;
        let mut names = self.names.to_vec();
        names.remove(place);
        self.names = names.into();
        Some(self.rows.remove(place))
    }

    /// All names in their order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &HostName> {
        self.names.iter()
    }

    /// All hosts by place, without their names.
    pub fn rows(&self) -> &[Host] {
        &self.rows
    }

    /// All hosts by place, to change.
    pub fn rows_mut(&mut self) -> &mut [Host] {
        &mut self.rows
    }

    /// All hosts with their names, by place.
    pub fn iter(&self) -> std::iter::Zip<std::slice::Iter<'_, HostName>, std::slice::Iter<'_, Host>> {
        self.into_iter()
    }

    /// Takes hosts out: one pass over the table, however many they are.
    pub(super) fn take_out(&mut self, gone: &BTreeSet<&HostName>) {
        let names = Arc::clone(&self.names);
        let kept: Vec<bool> = names.iter().map(|name| !gone.contains(name)).collect();
        let mut keeps = kept.iter().copied();
        self.rows.retain(|_| keeps.next().unwrap_or(true));
        let stay = names.iter().zip(kept).filter(|(_, kept)| *kept);
        self.names = stay.map(|(name, _)| name.clone()).collect();
    }
}

impl<'a> IntoIterator for &'a Hosts {
    type Item = (&'a HostName, &'a Host);
    type IntoIter = std::iter::Zip<std::slice::Iter<'a, HostName>, std::slice::Iter<'a, Host>>;

    fn into_iter(self) -> Self::IntoIter {
        self.names.iter().zip(&self.rows)
    }
}

impl From<BTreeMap<HostName, Host>> for Hosts {
    fn from(hosts: BTreeMap<HostName, Host>) -> Self {
        let (names, rows): (Vec<_>, Vec<_>) = hosts.into_iter().unzip();
        Self { names: names.into(), rows }
    }
}

impl FromIterator<(HostName, Host)> for Hosts {
    /// In any order; of two with one name the later one counts.
    fn from_iter<I: IntoIterator<Item = (HostName, Host)>>(hosts: I) -> Self {
        Self::from(hosts.into_iter().collect::<BTreeMap<_, _>>())
    }
}

impl Serialize for Hosts {
    /// As a map by name.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(from).map(Self::from)
    }
}
