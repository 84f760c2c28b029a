//! Who plans: one row with an end, the same on both engines. A holder that vanishes loses it when it ends (lesson 38), or when it
//! has not renewed it for a while: the end was told by a clock that may have been wrong by years.

use nixfleet_core::model::time::UnixMs;
use sqlx::Row;

use super::{Store, StoreError, int, sql, uint};

/// Who holds a lease, and until when by the holder's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who.
    pub holder: String,
    /// Until when.
    pub until: UnixMs,
}

impl Store {
    /// Takes the lease `name` for `me` until `until`, if it is free, over, or mine already. Returns whether it is mine.
    pub async fn lease(
        &self,
        name: &'static str,
        me: &str,
        now: UnixMs,
        until: UnixMs,
    ) -> Result<bool, StoreError> {
        let row = sql("INSERT INTO leases (name, holder, until_ms) VALUES ($1, $2, $3) \
                       ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms \
                       WHERE leases.holder = $2 OR leases.until_ms < $4 RETURNING holder")
        .bind(name)
        .bind(me.to_owned())
        .bind(int(until.get()))
        .bind(int(now.get()))
        .fetch_optional(&self.writer)
        .await?;
        Ok(row.is_some())
    }

    /// Takes the lease `name` for `me` until `until` from a holder that vanished, if it is still as it was `seen`. Returns whether it
    /// is mine.
    pub async fn inherit(
        &self,
        name: &'static str,
        seen: &Lease,
        me: &str,
        until: UnixMs,
    ) -> Result<bool, StoreError> {
        let row = sql("UPDATE leases SET holder = $2, until_ms = $3 \
                       WHERE name = $1 AND holder = $4 AND until_ms = $5 RETURNING holder")
        .bind(name)
        .bind(me.to_owned())
        .bind(int(until.get()))
        .bind(seen.holder.clone())
        .bind(int(seen.until.get()))
        .fetch_optional(&self.writer)
        .await?;
        Ok(row.is_some())
    }

    /// Gives the lease back, if it is mine: the next holder need not wait.
    pub async fn give_back(&self, name: &'static str, me: &str) -> Result<(), StoreError> {
        sql("DELETE FROM leases WHERE name = $1 AND holder = $2")
            .bind(name)
            .bind(me.to_owned())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Who holds it.
    pub async fn holder(&self, name: &'static str) -> Result<Option<Lease>, StoreError> {
        let row = sql("SELECT holder, until_ms FROM leases WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let until = UnixMs::new(uint(row.try_get("until_ms")?)).unwrap_or(UnixMs::MAX);
        Ok(Some(Lease { holder: row.try_get("holder")?, until }))
    }
}

impl super::write::Write {
    /// Whether the lease `name` is `me`'s within this write: nobody can take it before the commit on SQLite, and on
    /// PostgreSQL the row is locked by asking.
    pub async fn still_mine(&mut self, name: &'static str, me: &str) -> Result<bool, StoreError> {
        let now = self.now();
        let row =
            sql("UPDATE leases SET holder = holder WHERE name = $1 AND holder = $2 AND until_ms >= $3 \
                       RETURNING holder")
            .bind(name)
            .bind(me.to_owned())
            .bind(int(now.get()))
            .fetch_optional(self.raw())
            .await?;
        Ok(row.is_some())
    }
}
