//! Three processes on one PostgreSQL behind a balancer that knows nothing: any may be killed at any time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nixfleet_control_plane::store::Store;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;
use crate::fleet::{Fleet, policy};
use crate::plans::{NAMES, Story, decided, ordered, soaking};
use crate::program::{Program, configured, free_port};
use crate::running::{Running, SOON};

/// How many processes there are.
const REPLICAS: usize = 3;
/// How long all are well between two deaths: a round of the planner, and little more.
const LIFE: Duration = Duration::from_millis(400);
/// For a rollout whose leaders are killed: each death may cost a lease, which is 6 s.
const WITHOUT_LEADERS: Duration = Duration::from_mins(4);
/// From one end of all connections to the next at least: several times what a write takes on a busy machine.
const CONNECTED: Duration = Duration::from_millis(1_500);

/// Sends each connection to the next process that takes it.
async fn balance(listener: TcpListener, ports: Vec<u16>) {
    let next = Arc::new(AtomicUsize::new(0));
    while let Ok((mut client, _)) = listener.accept().await {
        let (next, ports) = (Arc::clone(&next), ports.clone());
        tokio::spawn(async move {
            for _ in 0..ports.len() {
                let port = ports[next.fetch_add(1, Ordering::Relaxed) % ports.len()];
                if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                    // Either side may end it at any time.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
        });
    }
}

/// Processes of the control plane; they end with this.
struct Replicas {
    ports: Vec<u16>,
    configs: Vec<PathBuf>,
    running: Mutex<Vec<Option<Program>>>,
}

impl Replicas {
    fn start(running: &Running, ports: &[u16]) -> Self {
        let config = |(at, port): (usize, &u16)| configured(running, &format!("replica-{at}"), *port);
        let configs: Vec<PathBuf> = ports.iter().enumerate().map(config).collect();
        let programs = configs.iter().map(|config| Some(Program::start(config.clone()))).collect();
        Self { ports: ports.to_vec(), configs, running: Mutex::new(programs) }
    }

    /// Starts one, and returns when it takes connections.
    async fn begin(&self, at: usize) {
        let program = Program::start(self.configs[at].clone());
        self.running.lock().expect("no panic")[at] = Some(program);
        let taken = async {
            while TcpStream::connect(("127.0.0.1", self.ports[at])).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, taken).await.unwrap_or_else(|_| panic!("replica {at} takes connections"));
    }

    async fn kill(&self, at: usize) {
        let program = self.running.lock().expect("no panic")[at].take();
        if let Some(program) = program {
            program.kill().await;
        }
    }
}

/// A fleet over three processes behind a balancer. What is last ends with the test.
async fn begin(cluster: &Cluster, name: &str) -> (Story, Arc<Replicas>, JoinHandle<()>) {
    let fleet = Fleet::of(&NAMES);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address: SocketAddr = listener.local_addr().expect("bound");
    let running = Running::apart(&fleet, cluster.database(name).await, address).await;
    let mut ports = Vec::new();
    for _ in 0..REPLICAS {
        ports.push(free_port().await);
    }
    let replicas = Arc::new(Replicas::start(&running, &ports));
    let balancer = tokio::spawn(balance(listener, ports));
    (Story::over(fleet, running, &NAMES), replicas, balancer)
}

/// Releases in a row, in which each host is ordered once.
async fn roll_out(story: &Story, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        story.release(seq, soaking(1)).await;
        let converged = |events: &[Value]| decided(events, seq, "converged").is_some();
        let events = story.until_within(WITHOUT_LEADERS, "convergence", converged).await;
        for host in NAMES {
            assert_eq!(
                ordered(&events, host, seq, "go").len(),
                1,
                "{host} is ordered once for release {seq}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_replica_is_killed_no_order_is_lost_and_none_is_doubled() {
    let Some(cluster) = Cluster::start().await else { return };
    let (story, replicas, balancer) = begin(&cluster, "killed").await;
    story.release(1, policy()).await;
    story.until_converged(1).await;
    let deaths = Arc::new(AtomicUsize::new(0));
    let killing = tokio::spawn({
        let (replicas, deaths) = (Arc::clone(&replicas), Arc::clone(&deaths));
        async move {
            loop {
                let at = deaths.fetch_add(1, Ordering::Relaxed) % REPLICAS;
                replicas.kill(at).await;
                sleep(LIFE).await;
                replicas.begin(at).await;
                sleep(LIFE).await;
            }
        }
    });
    let mut seq = 2;
    // Also where processes take their time to start: until each was killed.
    while seq <= 4 || deaths.load(Ordering::Relaxed) < REPLICAS {
        assert!(!killing.is_finished(), "nobody is killed any more");
        roll_out(&story, seq..=seq).await;
        seq += 1;
    }
    killing.abort();
    balancer.abort();
}

/// Returns when something was written after the event `newest`, and what is the newest by then.
async fn written_after(store: &Store, newest: u64) -> u64 {
    loop {
        match store.newest_event().await {
            Ok(written) if written > newest => return written,
            // Its connections are ended as well.
            Ok(_) | Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_ends_every_connection_again_and_again_stops_nothing() {
    let Some(cluster) = Cluster::start().await else { return };
    let cluster = Arc::new(cluster);
    let (story, _replicas, balancer) = begin(&cluster, "ended").await;
    story.release(1, policy()).await;
    story.until_converged(1).await;
    let ending = tokio::spawn({
        let (cluster, log) = (Arc::clone(&cluster), story.running.store.clone());
        async move {
            let mut newest = 0;
            loop {
                cluster.end_connections().await;
                sleep(CONNECTED).await;
                // However slow this is, something is written between two ends.
                newest = written_after(&log, newest).await;
            }
        }
    });
    roll_out(&story, 2..=3).await;
    assert!(!ending.is_finished(), "nobody ends them any more");
    ending.abort();
    balancer.abort();
}
