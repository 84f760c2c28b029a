//! The process: opens what it needs, starts the tasks, serves, and ends in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::{Opinion, object};
use nixfleet_sys::fs;
use nixfleet_sys::text::chain;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::api::{App, Parts, router};
use crate::config::Config;
use crate::config::ready::{NotReady, now};
use crate::heard::{Heard, Strangers};
use crate::metrics::Metrics;
use crate::planner::{LEASE, Planner, Tools};
use crate::releases::folder::{self, FolderRefused};
use crate::releases::{self, IntakeRefused, Taken};
use crate::room::Room;
use crate::serve::{self, Handshakes, Limits, Serving, serve};
use crate::store::ingest::Ingest;
use crate::store::{Store, StoreError, backup};
use crate::tls::Certificate;
use crate::trouble::Writer;
use crate::wakes::Wakes;
use crate::{certificate, retaining, say, tls};

/// How often signs of life are written down.
const HEARD_EVERY: Duration = Duration::from_secs(10);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// A file of the configuration.
    #[error(transparent)]
    Ready(#[from] NotReady),
    /// The certificate and the key.
    #[error("the certificate and its key are of no use")]
    Tls(#[source] rustls::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first root, or what was trusted before.
    #[error("it cannot be told what this fleet trusts")]
    Trust(#[source] IntakeRefused),
    /// The threads that shake hands.
    #[error("cannot start the threads that shake hands")]
    Threads(#[source] std::io::Error),
    /// The address.
    #[error("cannot listen at {at}")]
    Listen {
        /// The address.
        at: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A server that is ready to serve.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    app: App,
    serving: Serving,
    tasks: Vec<JoinHandle<()>>,
    planner_name: String,
    ingest: JoinHandle<()>,
    /// The database is ours alone, if it is a file.
    held: Option<fs::Lock>,
}

/// By what a server goes that no configuration names: the program takes what is usual, and tests something else.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// The clock.
    pub clock: fn() -> UnixMs,
    /// Who looks at plans.
    pub opinion: Opinion,
    /// What clients may take their time for.
    pub limits: Limits,
}

impl Default for Means {
    fn default() -> Self {
        Self { clock: now, opinion: object, limits: Limits::default() }
    }
}

/// What tells a server to end.
#[derive(Debug)]
pub struct Ender(watch::Sender<bool>);

impl Ender {
    /// Announces the end: nothing new is taken, what is being answered is answered.
    pub fn end(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// Opens everything and starts the tasks.
    pub async fn start(config: &Config) -> Result<(Self, Ender), NotStarted> {
        Self::start_by(config, Means::default()).await
    }

    /// [`Server::start`], by these means.
    pub async fn start_by(config: &Config, means: Means) -> Result<(Self, Ender), NotStarted> {
        let Means { clock, opinion, limits } = means;
        let first_root: Arc<[u8]> = config.first_root()?.into();
        let certificate = Arc::new(Certificate::new(config.identity()?).map_err(NotStarted::Tls)?);
        let tls = Arc::new(tls::server(Arc::clone(&certificate)).map_err(NotStarted::Tls)?);
        let held = backup::hold(&config.database)?;
        let store = Store::open(&config.database).await?;
        releases::begin(&store, &first_root, clock()).await.map_err(NotStarted::Trust)?;
        let at = config.listen;
        let listener = serve::listen(at).map_err(|source| NotStarted::Listen { at, source })?;
        let (ender, ending) = watch::channel(false);
        let (committed, changed) = watch::channel(store.newest_event().await?);
        let (ingest, ingesting) = Ingest::start(store.clone(), clock, committed.clone());
        let (wakes, heard, metrics) = (Wakes::default(), Heard::default(), Metrics::default());
        let tools = Tools {
            store: store.clone(),
            wakes: wakes.clone(),
            heard: heard.clone(),
            metrics: metrics.clone(),
            clock,
            committed: committed.clone(),
            opinion,
        };
        let (planner, planning) = Planner::new(tools, changed.clone());
        let planner_name = planner.name().to_owned();
        let app = App::new(Parts {
            log: store.log().await?.into(),
            store,
            ingest,
            room: Room::default(),
            body_within: limits.body,
            wakes,
            planning,
            changed,
            committed,
            ending: ending.clone(),
            first_root,
            clock,
            heard,
            strangers: Strangers::default(),
            metrics,
            certificate: Arc::clone(&certificate),
        });
        let mut tasks = vec![
            tokio::spawn(planner.run()),
            tokio::spawn(write_heard(app.clone())),
            tokio::spawn(certificate::renew(config.clone(), certificate)),
            tokio::spawn(retaining::go(app.store.clone(), clock, config.keep_events)),
        ];
        if let Some(folder) = &config.releases {
            tasks.push(tokio::spawn(watch_folder(app.clone(), folder.clone())));
        }
        let handshakes = Handshakes::begin().map_err(NotStarted::Threads)?;
        let serving = Serving { tls, handshakes, connections_max: config.connections_max, limits, ending };
        Ok((Self { listener, app, serving, tasks, planner_name, ingest: ingesting, held }, Ender(ender)))
    }

    /// The address that it listens at.
    pub fn address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// Where things are kept.
    pub fn store(&self) -> &Store {
        &self.app.store
    }

    /// Serves until the end is announced, answers what is being asked, and writes what is in memory.
    pub async fn run(self) {
        let Self { listener, app, serving, tasks, planner_name, ingest, held } = self;
        serve(listener, router(app.clone()), serving).await;
        for task in tasks {
            task.abort();
            // A write in progress is given up before the lease is.
            let _ = task.await;
        }
        let (store, heard) = (app.store.clone(), app.heard.clone());
        drop(app);
        // It ends when nobody can hand in any more, after what was handed in.
        let _ = tokio::time::timeout(Duration::from_secs(10), ingest).await;
        if let Err(error) = heard.flush(&store).await {
            say::error("signs of life could not be written", &error);
        }
        if let Err(error) = store.give_back(LEASE, &planner_name).await {
            say::error("the lease of the planner could not be given back; it ends by itself", &error);
        }
        store.close().await;
        drop(held);
    }
}

async fn write_heard(app: App) {
    loop {
        sleep(HEARD_EVERY).await;
        let flushed = app.heard.flush(&app.store).await;
        app.store.troubles().note(Writer::SignsOfLife, &flushed, (app.clock)());
        if app.store.troubles().has(Writer::People) {
            let tried = app.store.within(app.store.try_room((app.clock)())).await;
            app.store.troubles().note(Writer::People, &tried, (app.clock)());
        }
    }
}

async fn watch_folder(app: App, path: PathBuf) {
    let mut said = String::new();
    loop {
        let mut trouble = String::new();
        let changes = folder::watch(&path);
        for outcome in folder::look(&path, &app.store, &app.first_root, (app.clock)()).await {
            match outcome {
                Ok(Taken::New(release)) => {
                    app.store.troubles().over(Writer::People);
                    say::line(&format!("release {release} was found in `{}`", path.display()));
                }
                Ok(Taken::Known(_) | Taken::RootsOnly) => {}
                Err(refused) => {
                    if let Some(error) = refused.not_kept() {
                        app.store.troubles().met(Writer::People, error, (app.clock)());
                    }
                    trouble.push_str(&say_refused(&refused));
                }
            }
        }
        // The same trouble is said once, not at each look.
        if trouble != said && !trouble.is_empty() {
            say::line(trouble.trim_end());
        }
        said = trouble;
        match app.store.within(app.store.newest_event()).await {
            Ok(newest) => app.tell(newest),
            Err(error) => say::error("the log cannot be read", &error),
        }
        changes.next().await;
    }
}

fn say_refused(refused: &FolderRefused) -> String {
    let hint = refused.hint().map(|hint| format!("\nhint: {hint}\n")).unwrap_or_default();
    format!("error: {}\n{hint}", chain(refused))
}
