//! Which hosts a policy can never let be done, even if every host succeeds: edges, or edges and waves, form a circle.
//!
//! Whoever waits for nobody is let go in thought, then whoever waited only for those, and so on; who is left waits for
//! ever. Each edge is gone through once for each of its hosts. The command line asks before anything is signed, a
//! control plane when it takes a release in, and the planner when it meets hosts that wait.

use std::collections::{BTreeSet, VecDeque};

use super::names::{HostName, Tag};
use super::policy::{Policy, WaveIndex};

/// A host of a channel.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a HostName,
    /// What selectors choose it by.
    pub tags: &'a BTreeSet<Tag>,
    /// Its wave.
    pub wave: WaveIndex,
}

/// A host that can never be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host {host} would wait for ever: {after} must be done before it, and cannot be")]
pub struct Stuck {
    /// The edge by which it waits: its place in the policy.
    pub edge: usize,
    /// The host; the first by name of those that wait by this edge.
    pub host: HostName,
    /// A host that must be done first, and cannot be.
    pub after: HostName,
}

/// Hosts that can never be done under `policy`: of each edge the first.
pub fn stuck(policy: &Policy, members: &[Member<'_>]) -> Vec<Stuck> {
    let means = |selector: &super::select::Selector| -> Vec<bool> {
        members.iter().map(|member| selector.means(member.name, member.tags)).collect()
    };
    let edges: Vec<(Vec<bool>, Vec<bool>)> =
        policy.edges.iter().map(|edge| (means(&edge.hosts), means(&edge.after))).collect();
    let waiting = |member: &Member<'_>| {
        let wave = Some(usize::from(member.wave.0)).filter(|wave| *wave < policy.waves.len());
        Waiting { is_open: true, needs: wave.or(Some(usize::MAX)), holds: wave }
    };
    let hosts = members.iter().map(waiting).collect();
    let waits = |edge: usize, place: usize| edges[edge].0[place];
    let first = |edge: usize, place: usize| edges[edge].1[place];
    let open = Thought::new(hosts, edges.len(), waits, first).who_is_left();
    let left = |means: &[bool], not: Option<usize>| {
        (0..members.len()).find(|place| means[*place] && open[*place] && Some(*place) != not)
    };
    let of_edge = |(edge, (waits, first)): (usize, &(Vec<bool>, Vec<bool>))| {
        let host = left(waits, None)?;
        let after = left(first, Some(host))?;
        let (host, after) = (members[host].name.clone(), members[after].name.clone());
        Some(Stuck { edge, host, after })
    };
    edges.iter().enumerate().filter_map(of_edge).collect()
}

/// A host, as edges and waves see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    /// Whether it is not done.
    pub(crate) is_open: bool,
    /// The wave that must open for it; `None` if that is open.
    pub(crate) needs: Option<usize>,
    /// The wave that is not over before it is done; `None` if nobody waits for that.
    pub(crate) holds: Option<usize>,
}

/// A fleet in which everybody succeeds.
pub(crate) struct Thought<W, F> {
    hosts: Vec<Waiting>,
    /// Whether a host, by place, waits by an edge.
    waits: W,
    /// Whether a host, by place, must be done first by an edge.
    first: F,
    /// By edge, how many who must be first are not done.
    open_of_edge: Vec<usize>,
    /// By wave, how many who hold it are not done.
    open_of_wave: Vec<usize>,
    /// The waves up to this one are open.
    wave: usize,
    /// By place, how many edges keep the host.
    kept_by: Vec<usize>,
    free: VecDeque<usize>,
}

impl<W: Fn(usize, usize) -> bool, F: Fn(usize, usize) -> bool> Thought<W, F> {
    /// Begins with who is not done.
    pub(crate) fn new(hosts: Vec<Waiting>, edges: usize, waits: W, first: F) -> Self {
        let open: Vec<usize> = (0..hosts.len()).filter(|place| hosts[*place].is_open).collect();
        let of_edge = |edge| open.iter().filter(|place| first(edge, **place)).count();
        let open_of_edge: Vec<usize> = (0..edges).map(of_edge).collect();
        let holds = || open.iter().filter_map(|place| hosts[*place].holds);
        let mut open_of_wave = vec![0; holds().max().map_or(0, |last| last + 1)];
        holds().for_each(|wave| open_of_wave[wave] += 1);
        // Nobody waits for itself.
        let keeps = |edge: usize, place| {
            waits(edge, place) && open_of_edge[edge] > usize::from(hosts[place].is_open && first(edge, place))
        };
        let kept_by = |place| (0..edges).filter(|edge| keeps(*edge, place)).count();
        let kept_by = (0..hosts.len()).map(kept_by).collect();
        let (wave, free) = (0, VecDeque::new());
        Self { hosts, waits, first, open_of_edge, open_of_wave, wave, kept_by, free }
    }

    /// Lets go whoever can; by place, whether a host can never be done.
    pub(crate) fn who_is_left(mut self) -> Vec<bool> {
        self.open_waves();
        (0..self.hosts.len()).for_each(|place| self.try_free(place));
        while let Some(place) = self.free.pop_front() {
            if std::mem::replace(&mut self.hosts[place].is_open, false) {
                self.is_done(place);
            }
        }
        self.hosts.into_iter().map(|host| host.is_open).collect()
    }

    fn try_free(&mut self, place: usize) {
        let host = self.hosts[place];
        if host.is_open && self.kept_by[place] == 0 && host.needs.is_none_or(|wave| wave <= self.wave) {
            self.free.push_back(place);
        }
    }

    fn is_done(&mut self, place: usize) {
        for edge in 0..self.open_of_edge.len() {
            if (self.first)(edge, place) {
                self.open_of_edge[edge] -= 1;
                self.lets_go(edge);
            }
        }
        if let Some(wave) = self.hosts[place].holds {
            self.open_of_wave[wave] -= 1;
            let before = self.wave;
            self.open_waves();
            if self.wave > before {
                (0..self.hosts.len()).for_each(|place| self.try_free(place));
            }
        }
    }

    /// When one is left whom others wait for, that one does not wait any more, and when none is left nobody does.
    fn lets_go(&mut self, edge: usize) {
        let left = self.open_of_edge[edge];
        if left > 1 {
            return;
        }
        for place in 0..self.hosts.len() {
            let meant = self.hosts[place].is_open && (self.waits)(edge, place);
            if meant && (left == 0 || (self.first)(edge, place)) {
                self.kept_by[place] -= 1;
                self.try_free(place);
            }
        }
    }

    fn open_waves(&mut self) {
        while self.open_of_wave.get(self.wave) == Some(&0) {
            self.wave += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(edges: &serde_json::Value) -> Policy {
        let wave = |name: &str| serde_json::json!({ "name": name, "opens_after_secs": 0, "soak_secs": 0 });
        serde_json::from_value(serde_json::json!({
            "waves": [wave("one"), wave("two"), wave("three")], "edges": edges, "max_failures": 0,
            "on_failure": "revert", "commit": "after-confirm", "confirm_within_secs": 300,
            "reboot": { "mode": "never", "warn_secs": 0 }, "offline_after_secs": 86_400,
        }))
        .expect("a policy")
    }

    /// Each edge as `(who waits, for whom)`, by tag; each host as `(name, tag, wave)`.
    fn found(edges: &[(&str, &str)], hosts: &[(&str, &str, u16)]) -> Vec<String> {
        let tag = |tag: &str| serde_json::json!({ "tag": tag });
        let edges = edges
            .iter()
            .map(|(hosts, after)| serde_json::json!({ "hosts": tag(hosts), "after": tag(after) }));
        let owned: Vec<(HostName, BTreeSet<Tag>, WaveIndex)> = hosts
            .iter()
            .map(|(name, tag, wave)| {
                (name.parse().expect("a name"), [tag.parse().expect("a tag")].into(), WaveIndex(*wave))
            })
            .collect();
        let members: Vec<Member<'_>> =
            owned.iter().map(|(name, tags, wave)| Member { name, tags, wave: *wave }).collect();
        let stuck = stuck(&policy(&edges.collect()), &members);
        stuck.iter().map(|Stuck { edge, host, after }| format!("{edge}: {host} after {after}")).collect()
    }

    #[test]
    fn a_chain_is_no_circle_however_it_is_named() {
        let chain = [("a", "b"), ("b", "c"), ("c", "d")];
        assert_eq!(found(&chain, &[("1", "a", 0), ("2", "b", 0), ("3", "c", 0), ("4", "d", 0)]), [""; 0]);
        assert_eq!(found(&chain, &[("4", "a", 2), ("3", "b", 1), ("2", "c", 1), ("1", "d", 0)]), [""; 0]);
    }

    #[test]
    fn every_edge_of_a_circle_is_named_and_one_that_hangs_on_it() {
        let circle = [("a", "b"), ("b", "a"), ("c", "a"), ("a", "d")];
        let hosts = [("1", "a", 0), ("2", "b", 0), ("3", "c", 0), ("4", "d", 0)];
        assert_eq!(found(&circle, &hosts), ["0: 1 after 2", "1: 2 after 1", "2: 3 after 1"]);
    }

    #[test]
    fn a_group_after_itself_is_a_circle_unless_it_is_one_host() {
        assert_eq!(found(&[("a", "a")], &[("1", "a", 0)]), [""; 0]);
        assert_eq!(found(&[("a", "a")], &[("1", "a", 0), ("2", "a", 0)]), ["0: 1 after 2"]);
    }

    #[test]
    fn an_edge_against_the_order_of_waves_is_a_circle() {
        assert_eq!(found(&[("a", "b")], &[("1", "a", 0), ("2", "b", 1)]), ["0: 1 after 2"]);
        assert_eq!(found(&[("a", "b")], &[("1", "a", 1), ("2", "b", 0)]), [""; 0]);
        assert_eq!(found(&[("a", "b")], &[("1", "a", 1), ("2", "b", 1)]), [""; 0]);
    }
}
