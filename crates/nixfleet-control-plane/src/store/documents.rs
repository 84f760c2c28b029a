//! The documents that are served, byte for byte as they were verified, by their path in the layout; and what is trusted.

use nixfleet_core::model::layout;
use nixfleet_core::model::names::ChannelName;
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::random;
use sqlx::Row;

use super::write::Write;
use super::{LOG, Store, StoreError, sql};

/// The folder of a document, by which those of one release are found.
pub(super) fn part_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Store {
    /// A document.
    pub async fn document(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sql("SELECT bytes FROM documents WHERE path = $1")
            .bind(path.to_owned())
            .fetch_optional(self.readers())
            .await?;
        Ok(row.map(|row| row.try_get("bytes")).transpose()?)
    }

    /// The document with the newest release of a channel, from memory if it is there: every host on trial asks for it.
    pub async fn latest(&self, channel: &ChannelName) -> Result<Option<Vec<u8>>, StoreError> {
        // Before the question: what is taken in meanwhile makes the answer void.
        let released = self.board.released();
        if let Some(document) = self.board.latest(channel) {
            return Ok(Some(document));
        }
        let document = self.document(&layout::latest(channel)).await?;
        if let (Some(released), Some(document)) = (released, &document) {
            self.board.note_latest(released, channel, document);
        }
        Ok(document)
    }

    /// What was saved under `name`.
    pub async fn setting(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sql("SELECT value FROM settings WHERE name = $1")
            .bind(name)
            .fetch_optional(self.readers())
            .await?;
        Ok(row.map(|row| row.try_get("value")).transpose()?)
    }
}

impl Store {
    /// Which log this is: drawn when it is begun, and drawn anew when a backup is put back.
    pub async fn log(&self) -> Result<String, StoreError> {
        let fresh = format!("{:016x}", random::number());
        sql("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(LOG)
            .bind(fresh.into_bytes())
            .execute(&self.writer)
            .await?;
        let known = self.setting(LOG).await?.unwrap_or_default();
        String::from_utf8(known).map_err(|_| StoreError::corrupt("the name of the log"))
    }
}

/// The setting that is written to see whether there is room.
const ROOM: &str = "room";
/// How many numbers it has: 32 KB are more than the page that an event may need, and less than anybody would miss.
const ROOM_NUMBERS: usize = 4_096;

impl Store {
    /// Writes something that says nothing, in the place of what was written so before: whether there is room for an event.
    pub async fn try_room(&self, now: UnixMs) -> Result<(), StoreError> {
        // Not to be compressed.
        let bytes: Vec<u8> = (0..ROOM_NUMBERS).flat_map(|_| random::number().to_le_bytes()).collect();
        let mut write = self.begin(now).await?;
        write.set(ROOM, &bytes).await?;
        write.commit().await?;
        Ok(())
    }
}

impl Write {
    /// What was saved under `name`, with what this write changed.
    pub async fn setting(&mut self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        let row =
            sql("SELECT value FROM settings WHERE name = $1").bind(name).fetch_optional(self.raw()).await?;
        Ok(row.map(|row| row.try_get("value")).transpose()?)
    }

    /// Saves something under `name`.
    pub async fn set(&mut self, name: &'static str, value: &[u8]) -> Result<(), StoreError> {
        sql("INSERT INTO settings (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        .bind(name)
        .bind(value.to_vec())
        .execute(self.raw())
        .await?;
        Ok(())
    }
}
