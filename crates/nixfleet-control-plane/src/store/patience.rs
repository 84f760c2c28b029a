//! How long the database is waited for, and how long PostgreSQL waits for one of us.
//!
//! Every write of every replica holds the row of the newest number, so whoever stands still within one holds up all. PostgreSQL
//! ends such a transaction, and a wait for a lock; and as its machine may vanish without a word, each write has a limit here as
//! well ([`Store::within`]). A connection that was given up in the middle of something is tried before the next one gets it.

use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, Connection, Error};
use tokio::time::timeout;

use super::{Store, StoreError};

/// How long a query waits for a connection of the pool before it is an error: longer than any write of ours takes.
pub(super) const POOL_WAIT: Duration = Duration::from_secs(30);
/// How long a connection may take to show that it is alive, before it is given to somebody and when it comes back.
const ALIVE_WITHIN: Duration = Duration::from_secs(3);

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a write as a whole: a wave of 10,000 orders takes about a second. A statement of PostgreSQL has no more either.
    pub write: Duration,
    /// For a lock that another one holds.
    pub lock: Duration,
    /// For the next word within a transaction: a plan is made within one, in a tenth of a second.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { write: Duration::from_mins(1), lock: Duration::from_secs(20), idle: Duration::from_secs(15) }
    }
}

/// Connections to PostgreSQL, so many at most.
pub(super) fn postgres(connections: u32, patience: Patience) -> AnyPoolOptions {
    let options = AnyPoolOptions::new().acquire_timeout(POOL_WAIT).max_connections(connections);
    options
        .after_connect(move |connection, _| Box::pin(tell(connection, patience)))
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(is_alive(connection)))
        .after_release(|connection, _| Box::pin(is_alive(connection)))
}

/// Tells a session of PostgreSQL of it. And to ask whether our machine is still there: its locks are given back when it is not.
async fn tell(connection: &mut AnyConnection, patience: Patience) -> Result<(), Error> {
    let millis = |limit: Duration| limit.as_millis().to_string();
    super::sql(
        "SELECT set_config('statement_timeout', $1, FALSE), set_config('lock_timeout', $2, FALSE), \
         set_config('idle_in_transaction_session_timeout', $3, FALSE), set_config('tcp_keepalives_idle', '30', FALSE)",
    )
    .bind(millis(patience.write))
    .bind(millis(patience.lock))
    .bind(millis(patience.idle))
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes the limits from one transaction: of what is done once, and grows with what there is.
pub(super) async fn unhurried(connection: &mut AnyConnection) -> Result<(), Error> {
    for name in ["statement_timeout", "lock_timeout"] {
        super::sql("SELECT set_config($1, '0', TRUE)").bind(name).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Whether it still answers. What was begun over it and given up is rolled back by that.
async fn is_alive(connection: &mut AnyConnection) -> Result<bool, Error> {
    timeout(ALIVE_WITHIN, connection.ping()).await.map_or(Ok(false), |alive| alive.map(|()| true))
}

impl Store {
    /// What becomes of `write` within the limit for one; it is given up then. Whether a commit that was given up took place is
    /// not known: whoever sent it comes again, and the log says what is in it.
    pub async fn within<T>(
        &self,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.patience.write;
        timeout(limit, write).await.unwrap_or(Err(StoreError::Late(limit)))
    }
}
