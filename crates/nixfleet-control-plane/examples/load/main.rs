//! `cargo xtask bench load`: a control plane under the load of a whole fleet, with both engines. Markdown on stdout.
//!
//! The server is the program in a process of its own, on a real disk. The agents are simulated in this process: each has a
//! key that a release names, a connection by mutual TLS on which it polls, and another for its reports while it has any
//! ([`agent`]); it folds its events as the real one does. What an agent keeps besides, such as the second connection for
//! another 90 s, is not simulated. Both processes, and PostgreSQL, share the machine's processors.
//!
//! [`stages`] says what is measured, [`attack`] who disturbs it, [`server`] is the server and what the kernel says of it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tables are the result, the rest is for who waits"
)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "numbers for people")]

mod agent;
mod attack;
mod person;
mod server;
mod stages;
mod wire;
mod world;

#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../tests/server/acting.rs"]
mod acting;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../tests/server/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../tests/server/fleet.rs"]
mod fleet;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use nixfleet_control_plane::config::Database;
use nixfleet_core::model::policy::{Approval, Policy};
use nixfleet_sys::pin;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::task::JoinSet;

use agent::Agent;
use cluster::{Cluster, Synced};
use fleet::{Fleet, Host, HostKeys};
use person::{Looking, Person};
use server::Prepared;
use stages::{Bench, Stage};
use wire::{Way, source};
use world::{REPORTS_MAX, World};

/// File descriptors besides those of polls: connections of those who report or attack, and some hundred.
const DESCRIPTORS_BESIDES: usize = REPORTS_MAX + 3_000;

/// Measures a control plane under the load of a fleet
#[derive(Debug, Parser)]
struct Args {
    /// The program
    #[arg(long)]
    program: PathBuf,
    /// How many agents
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// Which engine; both, if none is named
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Watch the idle fleet for 10 s and not for 60
    #[arg(long)]
    quick: bool,
    /// End after this stage
    #[arg(long, value_enum, default_value_t = Stage::Restart)]
    up_to: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Sqlite,
    Postgres,
}

pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

fn main() -> Result<()> {
    let args = Args::parse();
    let agents = affordable(args.agents)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let engines = match args.engine {
        Some(engine) => vec![engine],
        None => vec![Engine::Sqlite, Engine::Postgres],
    };
    say(&format!("making the keys and the release of {agents} hosts"));
    let names: Vec<String> = (0..agents).map(|at| format!("host-{at:06}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fleet = Fleet::of(&names);
    let mut tables = Vec::new();
    for engine in engines {
        if let Some(rows) = runtime.block_on(measured(&args, &fleet, engine))? {
            tables.push((engine, rows));
        }
    }
    print((agents, args.agents), &tables);
    Ok(())
}

/// How many of so many agents this process can have, after it has raised its limit of open files: a connection for each, those for
/// reports, and as many in the server, which inherits the limit.
fn affordable(agents: usize) -> Result<usize> {
    let wanted = (agents + DESCRIPTORS_BESIDES) as u64;
    let now = getrlimit(Resource::Nofile);
    let maximum = now.maximum.map_or(wanted, |maximum| maximum.max(wanted));
    let raised = Rlimit { current: Some(maximum), maximum: Some(maximum) };
    let raised = setrlimit(Resource::Nofile, raised)
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }));
    raised.context("the number of open files cannot be raised")?;
    let Some(allowed) = getrlimit(Resource::Nofile).current else { return Ok(agents) };
    let affordable = usize::try_from(allowed)?.saturating_sub(DESCRIPTORS_BESIDES).min(agents);
    ensure!(
        affordable > 1,
        "{allowed} open files are allowed, which is too few: raise the limit (`ulimit -Hn`)"
    );
    if affordable < agents {
        say(&format!(
            "LEFT OUT: {agents} agents need {wanted} open files, and {allowed} are allowed here: there are {affordable} agents"
        ));
    }
    Ok(affordable)
}

type Rows = Vec<(String, String)>;

async fn measured(args: &Args, fleet: &Fleet, engine: Engine) -> Result<Option<Rows>> {
    say(&format!("{engine:?}"));
    let dir = tempfile::tempdir()?;
    let mut kept = None;
    let database = match engine {
        Engine::Sqlite => Database::Sqlite(dir.path().join("control-plane.db")),
        Engine::Postgres => {
            let Some(cluster) = Cluster::start_with(Synced::Yes).await else { return Ok(None) };
            kept.insert(cluster).database("load").await
        }
    };
    let prepared = Prepared::make(dir.path(), &args.program, fleet, &database).await?;
    let server = prepared.start()?;
    let world = Arc::new(World::new(fleet.release_with(1, policy())));
    let agents: Vec<Agent> = fleet
        .hosts
        .iter()
        .enumerate()
        .map(|(at, (name, keys))| {
            let way =
                Way { from: source(at), to: prepared.address, tls: Arc::new(tls(&prepared, Some(keys))) };
            Agent::new(Host::started(name.as_str()), way, Arc::clone(&world))
        })
        .collect();
    let stranger =
        Way { from: [127, 0, 2, 1].into(), to: prepared.address, tls: Arc::new(tls(&prepared, None)) };
    wait_for(&stranger).await?;
    let mut bench = Bench {
        person: Person::new(stranger.clone(), prepared.token.clone()),
        looking: Looking::begin(stranger.clone()),
        stranger,
        rows: Rows::new(),
        is_quick: args.quick,
        up_to: args.up_to,
        prepared,
        server,
        world,
        agents,
    };
    let mut living = JoinSet::new();
    bench.run(&mut living).await?;
    living.shutdown().await;
    Ok(Some(bench.rows))
}

async fn wait_for(way: &Way) -> Result<()> {
    for _ in 0..600 {
        if way.open().await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the server does not come up")
}

/// A canary that goes by itself, and a wave of all others that a person opens.
fn policy() -> Policy {
    let mut policy = fleet::policy();
    policy.waves[1].approval = Approval::ByAPerson;
    policy
}

fn tls(prepared: &Prepared, keys: Option<&HostKeys>) -> ClientConfig {
    let builder = pin::trusting(BTreeSet::from([prepared.pin]));
    let mut config = match keys {
        None => builder.with_no_client_auth(),
        Some(keys) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(keys.pair.serialize_der()));
            builder.with_client_auth_cert(vec![keys.certificate().into()], key).expect("a pair")
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // There is one server; the default would keep room for 32.
    config.resumption = Resumption::in_memory_sessions(8);
    config
}

/// One table for both engines.
fn print((agents, wanted): (usize, usize), tables: &[(Engine, Rows)]) {
    let heads: Vec<_> = tables.iter().map(|(engine, _)| format!(" {engine:?} |")).collect();
    let of = if agents < wanted { format!(" (of {wanted}: open files)") } else { String::new() };
    println!("| {agents} agents{of} |{}\n|---|{}", heads.concat(), "---|".repeat(tables.len()));
    let mut said: Vec<&String> = Vec::new();
    for (what, _) in tables.iter().flat_map(|(_, rows)| rows) {
        if said.contains(&what) {
            continue;
        }
        said.push(what);
        let values = tables.iter().map(|(_, rows)| {
            rows.iter().find(|(row, _)| row == what).map_or("none", |(_, value)| value.as_str())
        });
        println!("| {what} | {} |", values.collect::<Vec<_>>().join(" | "));
    }
}
