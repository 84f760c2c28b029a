//! A copy of the whole SQLite file while it is in use. PostgreSQL has its own tools for that.

use std::path::Path;

use nixfleet_sys::fs;

use super::{Engine, LOG, Store, StoreError, sql};
use crate::config::Database;

const ASK_POSTGRES: &str =
    "a backup of PostgreSQL is for its own tools: pg_dump, or a base backup with its log";

impl Store {
    /// Writes a copy of the database to `to`, which must not exist. Others go on reading and writing.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        match self.engine {
            Engine::Postgres => return Err(StoreError::OtherEngine(ASK_POSTGRES)),
            Engine::Sqlite => {}
        }
        if to.exists() {
            return Err(StoreError::OtherEngine("the file for the backup is there already; name another"));
        }
        // Beside its place first: a copy that was cut off is never taken for one.
        let fresh = to.with_extension("part");
        fs::remove(&fresh)?;
        // It has the hashes of tokens in it, and SQLite would make it for everybody to read; an empty file it takes as it is.
        drop(fs::make_private_file(&fresh)?);
        sql("VACUUM INTO $1").bind(fresh.display().to_string()).execute(&self.readers).await?;
        fs::sync_file_system(&fresh)?;
        std::fs::rename(&fresh, to).map_err(|source| renaming(to, source))?;
        fs::sync_parent(to).map_err(|source| renaming(to, source))?;
        Ok(())
    }
}

/// Takes the database for this process alone, until what is returned is dropped; nothing for PostgreSQL, which many may serve.
///
/// The lock that root takes belongs to whom the database belongs, or the server could not take it later.
pub fn hold(database: &Database) -> Result<Option<fs::Lock>, StoreError> {
    let Database::Sqlite(file) = database else { return Ok(None) };
    let path = beside(file, ".lock");
    let Some(lock) = fs::Lock::try_take(&path)? else {
        return Err(StoreError::InUse(file.display().to_string()));
    };
    if rustix::process::geteuid().is_root() {
        match lock.give_to(&path, owner_of(file)?) {
            // Root that may not give files away, in a container for one, is who runs the server there.
            Err(error) if error.is_not_permitted() => {}
            given => given?,
        }
    }
    Ok(Some(lock))
}

/// Whose the files of a database are to be: the owner's of the file that is there. Where there is none, or root made it in the
/// folder of a server that is not root, the owner's of the folder.
fn owner_of(file: &Path) -> Result<fs::Owner, StoreError> {
    let folder = fs::owner(&fs::resolve(folder_of(file))?)?;
    match fs::owner(file) {
        Ok(owner) if owner.user != 0 || folder.user == 0 => Ok(owner),
        Ok(_) => Ok(folder),
        Err(error) if error.is_not_found() => Ok(folder),
        Err(error) => Err(error.into()),
    }
}

/// Puts the backup `from` in the place of the database, which no process may have open. What was there is kept beside
/// it, under a name that no older one has. The copy is opened and brought to the newest form before anything is replaced. It is
/// private, and belongs to whom the old file belonged, or its folder: whoever restores is root, and the server is not.
pub async fn restore(database: &Database, from: &Path) -> Result<(), StoreError> {
    let file = match database {
        Database::Postgres(_) => return Err(StoreError::OtherEngine(ASK_POSTGRES)),
        Database::Sqlite(file) => file,
    };
    let _held = hold(database)?;
    let owner = owner_of(file)?;
    let fresh = file.with_extension("restored");
    for name in [fresh.clone(), beside(&fresh, "-wal"), beside(&fresh, "-shm")] {
        fs::remove(&name)?;
    }
    let made = copy_private(from, &fresh).map_err(|source| renaming(&fresh, source))?;
    let copy = Store::open(&Database::Sqlite(fresh.clone())).await?;
    let whole: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&copy.readers).await?;
    // Its numbers will be given again, so agents must not compare those that they know.
    sql("DELETE FROM settings WHERE name = $1").bind(LOG).execute(&copy.writer).await?;
    copy.close().await;
    if whole != "ok" {
        return Err(StoreError::corrupt(format!("the backup: {whole}")));
    }
    fs::give_to(&made, &fresh, owner)?;
    fs::sync_file_system(&fresh)?;
    let before = free(file);
    for suffix in ["", "-wal", "-shm"] {
        let (old, kept) = (beside(file, suffix), beside(&before, suffix));
        if old.exists() {
            std::fs::rename(&old, &kept).map_err(|source| renaming(&old, source))?;
        }
    }
    std::fs::rename(&fresh, file).map_err(|source| renaming(file, source))?;
    fs::sync_parent(file).map_err(|source| renaming(file, source))
}

/// Copies the contents only: the mode of the backup is whatever it was brought with. What is returned is the copy.
fn copy_private(from: &Path, fresh: &Path) -> std::io::Result<std::fs::File> {
    let mut to = fs::make_private_file(fresh).map_err(|error| error.source)?;
    std::io::copy(&mut std::fs::File::open(from)?, &mut to)?;
    Ok(to)
}

/// The folder that holds `file`.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where what was there is kept: nobody restores so often that this would not end.
fn free(file: &Path) -> std::path::PathBuf {
    let first = file.with_extension("before-restore");
    let others = (2_u32..).map(|number| file.with_extension(format!("before-restore-{number}")));
    let taken = |name: &std::path::PathBuf| ["", "-wal", "-shm"].iter().any(|end| beside(name, end).exists());
    std::iter::once(first.clone()).chain(others).find(|name| !taken(name)).unwrap_or(first)
}

fn beside(file: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn renaming(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::File(fs::FsError { action: "replace", path: path.to_owned(), source })
}
