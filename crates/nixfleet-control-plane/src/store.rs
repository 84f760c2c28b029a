//! What is kept: an event log that is the truth, projections of it that are written in the same transaction, the
//! documents that are served, and the few things that are in no event.
//!
//! One SQL text for SQLite (one process, one file, WAL, every commit on the disk) and PostgreSQL (any number of
//! replicas). Every write begins with the row of the newest event number ([`Store::begin`]): that puts all writers of all
//! replicas in a row, so numbers have no gaps, commit in their order, and no projection is made from an old row.
//! Readers do not wait for writers.
//!
//! [`schema`] has the tables, [`rows`] writes many of their rows with one statement, [`fact`] what an event says, [`mod@write`] the one way to add events and what each does to the
//! projections, [`patience`] how long each waits for the other, [`board`] keeps in memory what polls ask for, [`ingest`] takes in what agents report, many hosts in one transaction, [`planned`] reads what the planner needs, the
//! others read.

pub mod backup;
pub mod board;
pub mod documents;
pub mod fact;
pub mod fleet;
pub mod ingest;
pub mod lease;
pub mod patience;
pub mod planned;
pub mod retention;
mod rows;
mod schema;
pub mod tokens;
pub mod write;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::any::{AnyArguments, AnyPoolOptions};
use sqlx::query::Query;
use sqlx::{Any, AnyPool, AssertSqlSafe, Connection};

use crate::config::Database;
use crate::trouble::Troubles;
use board::Board;
use nixfleet_core::wire::people::TroubleKind;
use nixfleet_sys::fs::{self, FsError};
use patience::{POOL_WAIT, Patience};

/// How long a readiness check waits: who asks would not wait for longer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// The setting with the name of the log.
const LOG: &str = "log";
/// Connections that read, per process. Reading takes microseconds; more would only wait for the cores.
const READERS: u32 = 4;
/// Connections that write to PostgreSQL, per process: reports, the planner, and signs of life or a person.
const WRITERS: u32 = 3;
/// Pages that the writer of a SQLite file keeps, and each reader, in KiB. The kernel has them as well, at a microsecond each.
const WRITER_CACHE_KIB: u32 = 32 * 1024;
const READER_CACHE_KIB: u32 = 8 * 1024;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// One file.
    Sqlite,
    /// A server.
    Postgres,
}

impl Engine {
    /// A statement that makes a table, as this engine spells it.
    fn spelled(self, statement: &str) -> String {
        match self {
            Self::Sqlite => statement.replace("{bytes}", "BLOB"),
            Self::Postgres => statement.replace("{bytes}", "BYTEA").replace(" TEXT", " TEXT COLLATE \"C\""),
        }
    }
}

/// Why something could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file, or its folder.
    #[error(transparent)]
    File(#[from] FsError),
    /// The database refused, or is not there.
    #[error("the database does not do what it should")]
    Sql(#[from] sqlx::Error),
    /// A newer program has been here.
    #[error(
        "the database has {found} steps of its schema, and this program knows {known}: it was rolled back"
    )]
    Newer {
        /// How many it has.
        found: i64,
        /// How many are known.
        known: usize,
    },
    /// What was read is not what was written.
    #[error("the database holds something unreadable: {what}")]
    Corrupt {
        /// What.
        what: String,
    },
    /// What was decided or asked for does not fit to how things are. Nothing was written.
    #[error(transparent)]
    Unfit(#[from] nixfleet_core::rollout::NotFolded),
    /// It did not answer in time.
    #[error("the database did not answer within {0:?}")]
    Late(Duration),
    /// The task that writes is gone; the process is ending.
    #[error("nothing is written any more: the process is ending")]
    Ending,
    /// Another process has it.
    #[error("a server serves the database `{0}`: end it first")]
    InUse(String),
    /// A verb that only one engine has.
    #[error("{0}")]
    OtherEngine(&'static str),
}

impl StoreError {
    /// What this says of the database; nothing, if it is about what was asked of it.
    pub fn trouble(&self) -> Option<TroubleKind> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => Some(match error.code().as_deref() {
                // SQLITE_FULL, and PostgreSQL's disk_full.
                Some("13" | "53100") => TroubleKind::DatabaseFull,
                // Connections that are refused or ended by a server that starts or ends.
                Some(code) if code.starts_with("57P") || code.starts_with("08") => TroubleKind::DatabaseAway,
                // What PostgreSQL gave up: a wait for a lock, a statement that took too long, a transaction that stood still.
                Some("55P03" | "57014" | "25P03") => TroubleKind::DatabaseAway,
                Some(_) | None => TroubleKind::DatabaseFailing,
            }),
            Self::Sql(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_)) => {
                Some(TroubleKind::DatabaseAway)
            }
            Self::Late(_) => Some(TroubleKind::DatabaseAway),
            Self::Sql(_) | Self::File(_) | Self::Corrupt { .. } => Some(TroubleKind::DatabaseFailing),
            Self::Newer { .. } | Self::Unfit(_) | Self::Ending | Self::InUse(_) | Self::OtherEngine(_) => {
                None
            }
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }
}

/// A statement; `text` is ours, as the type says.
pub(crate) fn sql<'q>(text: &'static str) -> Query<'q, Any, AnyArguments> {
    sqlx::query(text)
}

/// Where everything is kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    writer: AnyPool,
    readers: AnyPool,
    /// One connection, to ask whether the database is there: not behind a fleet that reads.
    asking: AnyPool,
    /// How often a statement was sent to the database for an answer.
    reads: Arc<AtomicU64>,
    board: Board,
    troubles: Troubles,
    patience: Patience,
}

impl Store {
    /// Opens it, making it where there is none, and brings its tables to the newest form.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        Self::open_with(database, Patience::default()).await
    }

    /// [`Store::open`], with other limits.
    pub async fn open_with(database: &Database, patience: Patience) -> Result<Self, StoreError> {
        let store = Self::connect(database, patience).await?;
        schema::migrate(&store.writer, store.engine).await?;
        Ok(store)
    }

    /// Opens it as it is, also in the form of an older program, which may be serving it. One that is new gets its tables.
    pub async fn open_as_it_is(database: &Database) -> Result<Self, StoreError> {
        let store = Self::connect(database, Patience::default()).await?;
        if schema::steps(&store.writer, store.engine).await? == 0 {
            schema::migrate(&store.writer, store.engine).await?;
        }
        Ok(store)
    }

    /// Makes the tables of a new one as a program left them that knew so many steps, for tests of the way from there.
    /// Says whether there are so many.
    pub async fn make_older(database: &Database, steps: usize) -> Result<bool, StoreError> {
        let store = Self::connect(database, Patience::default()).await?;
        let made = schema::migrate_to(&store.writer, store.engine, steps).await;
        store.close().await;
        made
    }

    async fn connect(database: &Database, patience: Patience) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let mut store = match database {
            Database::Sqlite(path) => Self::open_sqlite(path).await?,
            Database::Postgres(address) => {
                let pool = |connections: u32| patience::postgres(connections, patience);
                // Apart, so that who writes does not wait behind a fleet that reads.
                let (writer, readers) =
                    (pool(WRITERS).connect(address).await?, pool(READERS).connect(address).await?);
                Self::new(Engine::Postgres, writer, readers, pool(1).connect_lazy(address)?)
            }
        };
        store.patience = patience;
        Ok(store)
    }

    async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            fs::make_dir(folder)?;
        }
        // With mode 0600, which the files beside it take over: hashes of tokens are in there.
        drop(fs::open_append(path)?);
        let address = format!("sqlite:{}?mode=rwc", path.display());
        let pool = |connections: u32, cache_kib: u32| {
            let options = AnyPoolOptions::new().acquire_timeout(POOL_WAIT).max_connections(connections);
            options.after_connect(move |connection, _| {
                Box::pin(async move {
                    for pragma in [
                        "PRAGMA busy_timeout = 20000",
                        "PRAGMA journal_mode = WAL",
                        // What is acknowledged is on the disk (lesson 24).
                        "PRAGMA synchronous = FULL",
                    ] {
                        sql(pragma).execute(&mut *connection).await?;
                    }
                    // A number of ours.
                    let cache = AssertSqlSafe(format!("PRAGMA cache_size = -{cache_kib}"));
                    sqlx::query(cache).execute(&mut *connection).await?;
                    Ok(())
                })
            })
        };
        // One writer: two would only wait for each other, and one of them in vain.
        // A statement that finds the disk full ends the transaction, and the driver, which cannot end it once more, goes on
        // counting it. Everything later would be written within that one: acknowledged, and never committed. Readers begin none.
        let writer = pool(1, WRITER_CACHE_KIB).after_release(|connection, _| {
            Box::pin(async move {
                // The driver rolls back on its own thread; this waits for it.
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        });
        let writer = writer.connect(&address).await?;
        let readers = pool(READERS, READER_CACHE_KIB).connect(&address).await?;
        Ok(Self::new(Engine::Sqlite, writer, readers, pool(1, READER_CACHE_KIB).connect_lazy(&address)?))
    }

    fn new(engine: Engine, writer: AnyPool, readers: AnyPool, asking: AnyPool) -> Self {
        let (reads, board, troubles) = Default::default();
        let patience = Patience::default();
        Self { engine, writer, readers, asking, reads, board, troubles, patience }
    }

    /// What keeps it from being written.
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// Which engine.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// What is asked of hosts, in memory.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// How often something was read for an answer. What planning and writing read is not in it.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Where one statement is read for an answer; it is counted.
    pub(crate) fn readers(&self) -> &AnyPool {
        self.reads.fetch_add(1, Ordering::Relaxed);
        &self.readers
    }

    /// Whether it answers: what a readiness check asks.
    pub async fn answers(&self) -> Result<(), StoreError> {
        let newest = sqlx::query_scalar::<_, i64>("SELECT value FROM counters WHERE name = 'event'")
            .fetch_one(&self.asking);
        let newest = tokio::time::timeout(ANSWERS_WITHIN, newest).await;
        newest.map_err(|_| StoreError::Sql(sqlx::Error::PoolTimedOut))?.map_err(StoreError::Sql)?;
        Ok(())
    }

    /// Closes all connections; SQLite folds its log into the file by that.
    pub async fn close(&self) {
        self.asking.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A number as the database keeps it. Ours have at most 53 bits.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as it was kept.
pub(crate) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
