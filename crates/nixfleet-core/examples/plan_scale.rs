//! Measures plans over a large fleet: `cargo xtask bench planner`, or for another size
//! `cargo run --release -p nixfleet-core --example plan_scale HOSTS`.
//!
//! The fleet goes through a rollout; in each of its states the plan and the second opinion on it are timed, and at the
//! end one event in this fleet and in one a hundredth its size. The number to hold is in the design: 100,000 hosts and
//! 100 channels in 100 ms.

#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::collections::BTreeMap;
use std::time::Instant;

use nixfleet_core::activation::outcome::FailureClass;
use nixfleet_core::host::waiting::StateName;
use nixfleet_core::model::names::{HostName, ReleaseId, Sha256};
use nixfleet_core::model::policy::{Policy, WaveIndex};
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::rollout::fact::{Current, Placed};
use nixfleet_core::rollout::snapshot::{Host, RebootWanted, StandingFailure, Then};
use nixfleet_core::rollout::{Fact, Snapshot, Standing, What, object, plan};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HOSTS: usize = 100_000;
const CHANNELS: usize = 100;
/// How often each is measured.
const TIMES: usize = 11;

const POLICY: &str = r#"{
    "waves": [{ "name": "canary", "opens_after_secs": 0, "soak_secs": 60 },
              { "name": "rest", "opens_after_secs": 0, "soak_secs": 60 }],
    "max_in_flight": [{ "hosts": "all", "limit": "10%" }, { "hosts": { "tag": "db" }, "limit": 1 },
                      { "hosts": "all", "limit": 5000, "scope": "fleet" }],
    "edges": [{ "hosts": { "tag": "web" }, "after": { "tag": "first" } }],
    "windows": [{ "from": "00:00", "until": "23:59", "zone": "Europe/Berlin" }],
    "max_failures": 3, "on_failure": "revert", "commit": "after-confirm", "confirm_within_secs": 300,
    "reboot": { "mode": "when-needed", "warn_secs": 0 }, "offline_after_secs": 86400 }"#;

fn main() -> Result<()> {
    let hosts = std::env::args().nth(1).map_or(Ok(HOSTS), |text| text.parse())?;
    let now = UnixMs::new(1_767_571_200_000)?;
    let mut small = released(Snapshot::new(now), hosts / CHANNELS, 1, now)?;
    let mut fleet = released(Snapshot::new(now), hosts, 1, now)?;
    println!(
        "| {hosts} hosts, {CHANNELS} channels | orders | plan, ms | second opinion, ms |\n|---|---|---|---|"
    );
    measure("all fetch", &fleet, now);
    fleet = rollout(fleet, now)?;
    let newer = released(fleet.clone(), hosts, 2, now)?;
    measure("a newer release comes in the middle of the wave", &newer, now);
    measure_halt(fleet, now)?;
    println!("\n| an event, of 20,000 | ns each |\n|---|---|");
    events(&mut small, now)?;
    events(&mut released(Snapshot::new(now), hosts, 1, now)?, now)
}

/// Takes a fleet through its rollout, and returns it as it was in the middle of the second wave.
fn rollout(mut fleet: Snapshot, now: UnixMs) -> Result<Snapshot> {
    carry_out(&mut fleet, now)?;
    every_host(&mut fleet, |_| true, |host| stands(host, StateName::Staged));
    measure("all have fetched, the first wave goes", &fleet, now);
    carry_out(&mut fleet, now)?;
    let canary = |host: &Host| host.placed.wave == WaveIndex(0);
    every_host(&mut fleet, canary, |host| stands(host, StateName::Converged));
    measure("the second wave opens", &fleet, now);
    carry_out(&mut fleet, now)?;
    let told = |host: &Host| host.ordered.as_ref().is_some_and(|ordered| ordered.what == What::Go);
    every_host(&mut fleet, told, |host| stands(host, StateName::Activating));
    measure("in the middle of the second wave, its budgets used up", &fleet, now);
    let mut done = fleet.clone();
    every_host(&mut done, |_| true, |host| stands(host, StateName::Converged));
    measure("the last host is done", &done, now);
    carry_out(&mut done, now)?;
    measure("all idle", &done, now);
    Ok(fleet)
}

fn measure_halt(mut fleet: Snapshot, now: UnixMs) -> Result<()> {
    let moves = |host: &Host| host.standing.as_ref().is_some_and(|at| at.state == StateName::Activating);
    every_host(&mut fleet, moves, |host| {
        let mut standing = stands(host, StateName::Reverted)?;
        let quarantined = Some(host.placed.system.clone());
        standing.failure =
            Some(StandingFailure { class: FailureClass::Probe, then: Then::Stays, quarantined });
        Some(standing)
    });
    measure("a tenth has failed, all channels halt", &fleet, now);
    carry_out(&mut fleet, now)?;
    measure("halted", &fleet, now);
    Ok(())
}

fn measure(what: &str, snapshot: &Snapshot, now: UnixMs) {
    let (made, _) = plan(snapshot, now);
    let planned = times(|| plan(snapshot, now));
    let checked = times(|| assert_eq!(object(&made, snapshot), [], "the planner's own plan"));
    println!("| {what} | {} | {planned} | {checked} |", made.orders.len());
}

/// The least, the median and the most, without the time in which the result is dropped.
fn times<T>(mut run: impl FnMut() -> T) -> String {
    let mut times: Vec<f64> = (0..TIMES)
        .map(|_| {
            let begin = Instant::now();
            let result = run();
            let took = begin.elapsed().as_secs_f64() * 1_000.0;
            drop(result);
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    format!("{:.0} / {:.0} / {:.0}", times[0], times[TIMES / 2], times[TIMES - 1])
}

fn carry_out(snapshot: &mut Snapshot, now: UnixMs) -> Result<()> {
    let (made, _) = plan(snapshot, now);
    for decision in made.decisions {
        snapshot.fold(&Fact::Decided(decision), now)?;
    }
    for order in made.orders {
        snapshot.fold(&Fact::Ordered(order), now)?;
    }
    Ok(())
}

/// Lets each host that is meant say how it stands, as if it had just reported.
fn every_host(
    snapshot: &mut Snapshot,
    means: impl Fn(&Host) -> bool,
    stands: impl Fn(&Host) -> Option<Standing>,
) {
    for channel in snapshot.channels.values_mut() {
        let release = channel.current.id.clone();
        for host in channel.hosts.rows_mut().iter_mut().filter(|host| means(host)) {
            let about = Some(release.clone());
            host.standing = stands(host).map(|standing| Standing { about, ..standing });
            host.ordered = None;
        }
    }
}

fn stands(host: &Host, state: StateName) -> Option<Standing> {
    let about = host.ordered.as_ref().map(|ordered| ordered.release.clone());
    let go = about.clone().filter(|_| state != StateName::Staged);
    let (since_ms, reboot) = (host.heard_ms?, RebootWanted::No);
    Some(Standing {
        state,
        since_ms,
        about,
        go,
        reboot_go: None,
        reboot,
        no_way_back: None,
        restart_by: None,
        failure: None,
        hold: None,
    })
}

fn events(snapshot: &mut Snapshot, now: UnixMs) -> Result<()> {
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
    println!("| in a fleet of {} | {} |", hosts.len(), each.as_nanos());
    Ok(())
}

/// The fleet with a release `seq` of every channel, and all hosts fresh if they were not known.
fn released(mut out: Snapshot, hosts: usize, seq: u64, now: UnixMs) -> Result<Snapshot> {
    let policy: Policy = serde_json::from_str(POLICY)?;
    for channel in 0..CHANNELS {
        let mut digest = [7; 32];
        digest[0] = u8::try_from(seq)?;
        let digest = Sha256::new(digest);
        let id = ReleaseId { channel: format!("c{channel}").parse()?, seq: seq.try_into()?, digest };
        let placed = (channel..hosts).step_by(CHANNELS).map(|number| placed(number, seq));
        let placed = placed.collect::<Result<BTreeMap<_, _>>>()?;
        let expires_ms = now.plus(Secs(86_400));
        let revision = format!("rev{seq}").parse()?;
        let current = Current { id, revision, created_ms: now, expires_ms, policy: policy.clone() };
        out.fold(&Fact::ReleaseTaken { release: Box::new(current), hosts: placed }, now)?;
    }
    for channel in out.channels.values_mut() {
        for host in channel.hosts.rows_mut() {
            host.heard_ms = Some(now);
            if host.standing.is_none() {
                host.standing = stands(host, StateName::Converged);
            }
        }
    }
    Ok(out)
}

/// A host and its entry: every hundredth of a channel is a canary, every tenth a database.
fn placed(number: usize, seq: u64) -> Result<(HostName, Placed)> {
    let in_channel = number / CHANNELS;
    let is_canary = in_channel.is_multiple_of(100);
    let tag = match in_channel {
        in_channel if is_canary && in_channel == 0 => "first",
        in_channel if in_channel.is_multiple_of(10) => "db",
        _ => "web",
    };
    let system = format!("/nix/store/{number:031}{seq}-nixos-system").parse()?;
    let placed = Placed { wave: WaveIndex(u16::from(!is_canary)), tags: [tag.parse()?].into(), system };
    Ok((format!("host-{number}").parse()?, placed))
}
