//! Measures a plan over a large fleet: `cargo run --release -p nixfleet-core --example plan_scale [HOSTS]`.
//!
//! Prints the time of a plan in which all hosts fetch, of one in which some may go, of the check of each, and of one
//! event in this fleet and in one a hundredth its size. The number to hold is in the design: 100,000 hosts and 100
//! channels in 100 ms.

#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::collections::BTreeMap;
use std::time::Instant;

use nixfleet_core::host::waiting::StateName;
use nixfleet_core::model::names::{HostName, ReleaseId, Sha256};
use nixfleet_core::model::policy::{Policy, WaveIndex};
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::rollout::fact::{Current, Placed};
use nixfleet_core::rollout::snapshot::RebootWanted;
use nixfleet_core::rollout::{Fact, Snapshot, Standing, object, plan};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HOSTS: usize = 100_000;
const CHANNELS: usize = 100;
/// How often each is measured; the median is printed.
const TIMES: usize = 11;

const POLICY: &str = r#"{
    "waves": [{ "name": "canary", "opens_after_secs": 0, "soak_secs": 60 },
              { "name": "rest", "opens_after_secs": 0, "soak_secs": 60 }],
    "max_in_flight": [{ "hosts": "all", "limit": "10%" }, { "hosts": { "tag": "db" }, "limit": 1 },
                      { "hosts": "all", "limit": 5000, "scope": "fleet" }],
    "edges": [{ "hosts": { "tag": "web" }, "after": { "tag": "db" } }],
    "windows": [{ "from": "00:00", "until": "23:59", "zone": "Europe/Berlin" }],
    "max_failures": 3, "on_failure": "revert", "commit": "after-confirm", "confirm_within_secs": 300,
    "reboot": { "mode": "when-needed", "warn_secs": 0 }, "offline_after_secs": 86400 }"#;

fn main() -> Result<()> {
    let hosts = std::env::args().nth(1).map_or(Ok(HOSTS), |text| text.parse())?;
    let now = UnixMs::new(1_767_571_200_000)?;
    let mut small = fleet(hosts / CHANNELS, now)?;
    let mut snapshot = fleet(hosts, now)?;
    measure("all fetch", &snapshot, now);
    for fleet in [&mut small, &mut snapshot] {
        all_stand(fleet, StateName::Staged, now)?;
    }
    measure("some go", &snapshot, now);
    all_stand(&mut snapshot, StateName::Converged, now)?;
    measure("all are done", &snapshot, now);
    events("an event, small fleet", &mut small, now)?;
    events("an event", &mut snapshot, now)
}

fn measure(what: &str, snapshot: &Snapshot, now: UnixMs) {
    let (made, _) = plan(snapshot, now);
    let planned = median(|| drop(plan(snapshot, now)));
    let checked = median(|| assert!(object(&made, snapshot).is_empty(), "the planner's own plan"));
    println!("{what}: plan {planned:.1} ms, check {checked:.1} ms, {} orders", made.orders.len());
}

fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..TIMES)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed().as_secs_f64() * 1_000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[TIMES / 2]
}

fn events(what: &str, snapshot: &mut Snapshot, now: UnixMs) -> Result<()> {
    let hosts: Vec<HostName> = snapshot.homes.keys().cloned().collect();
    let count = 20_000;
    let facts: Vec<Fact> = (0..count)
        .map(|number| Fact::HostHeard { host: hosts[number * 7_919 % hosts.len()].clone() })
        .collect();
    let begin = Instant::now();
    for fact in &facts {
        snapshot.fold(fact, now)?;
    }
    let each = begin.elapsed() / u32::try_from(count)?;
    println!("{what}: {each:?}, in a fleet of {}", hosts.len());
    Ok(())
}

fn fleet(hosts: usize, now: UnixMs) -> Result<Snapshot> {
    let mut out = Snapshot::new(now);
    let policy: Policy = serde_json::from_str(POLICY)?;
    for channel in 0..CHANNELS {
        let id = ReleaseId {
            channel: format!("c{channel}").parse()?,
            seq: 1u64.try_into()?,
            digest: Sha256::new([7; 32]),
        };
        let mut placed = BTreeMap::new();
        for number in (channel..hosts).step_by(CHANNELS) {
            let tag = if (number / CHANNELS).is_multiple_of(10) { "db" } else { "web" };
            let system = format!("/nix/store/{number:032}-nixos-system").parse()?;
            let wave = WaveIndex(u16::from(!(number / CHANNELS).is_multiple_of(100)));
            placed.insert(
                format!("host-{number}").parse()?,
                Placed { wave, tags: [tag.parse()?].into(), system },
            );
        }
        let expires_ms = now.plus(Secs(86_400));
        let revision = "abc".parse()?;
        let current = Current { id, revision, created_ms: now, expires_ms, policy: policy.clone() };
        out.fold(&Fact::ReleaseTaken { release: Box::new(current), hosts: placed }, now)?;
    }
    all_stand(&mut out, StateName::Converged, now)?;
    // They have converged on nothing yet.
    for channel in out.channels.values_mut() {
        for standing in channel.hosts.values_mut().filter_map(|host| host.standing.as_mut()) {
            standing.about = None;
        }
    }
    Ok(out)
}

fn all_stand(snapshot: &mut Snapshot, state: StateName, now: UnixMs) -> Result<()> {
    let homes: Vec<_> = snapshot.homes.iter().map(|(host, home)| (host.clone(), home.clone())).collect();
    for (host, home) in homes {
        let about = snapshot.channels.get(&home).map(|channel| channel.current.id.clone());
        let (reboot, since_ms) = (RebootWanted::No, now);
        let (go, reboot_go, failure, hold) = (None, None, None, None);
        let standing = Standing { state, since_ms, about, go, reboot_go, reboot, failure, hold };
        snapshot.fold(&Fact::HostStands { host, standing: Box::new(standing) }, now)?;
    }
    Ok(())
}
