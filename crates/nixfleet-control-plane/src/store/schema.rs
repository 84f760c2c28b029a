//! The tables, as a list of steps that only grows: each is applied once, in order, in a transaction of its own.
//!
//! One text for both engines. Columns are `BIGINT`, `TEXT` and bytes only, flags are 0 and 1, times are milliseconds
//! since 1970 (lesson 33). A step may take away what an older program reads, so all replicas of that end before the first of a
//! newer one starts: agents keep their reports meanwhile. The engines spell bytes differently, and PostgreSQL is told to order texts as SQLite does, by
//! their bytes and not by the customs of a country.

use super::{Engine, StoreError, sql};

/// PostgreSQL's lock for whoever makes the first table: `nixfleet` in ASCII. Each database has its own locks of this kind.
const FIRST_TABLE: i64 = 0x6e69_7866_6c65_6574;

/// The steps; never edited after a release, only added to.
const STEPS: &[&[&str]] = &[
    &[
        // The newest number of an event. Every writer updates it first, so it is also what puts writers in a row.
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
        "INSERT INTO counters (name, value) VALUES ('event', 0)",
        "CREATE TABLE settings (name TEXT PRIMARY KEY, value {bytes} NOT NULL)",
        // The truth.
        "CREATE TABLE events (id BIGINT PRIMARY KEY, at_ms BIGINT NOT NULL, kind TEXT NOT NULL, host TEXT, channel TEXT, \
     body TEXT NOT NULL)",
        "CREATE INDEX events_of_host ON events (host, id)",
        // What is served, byte for byte as it was verified.
        "CREATE TABLE documents (path TEXT PRIMARY KEY, part_of TEXT NOT NULL, bytes {bytes} NOT NULL)",
        "CREATE INDEX documents_of ON documents (part_of)",
        // From here on projections, which `rebuild` makes again. The newest release of a channel is the one that was taken in
        // last: after its owner has set the channel back, it has not the highest number.
        "CREATE TABLE releases (channel TEXT NOT NULL, seq BIGINT NOT NULL, digest TEXT NOT NULL, created_ms BIGINT NOT NULL, \
     taken_ms BIGINT NOT NULL, event BIGINT NOT NULL, PRIMARY KEY (channel, seq))",
        "CREATE TABLE hosts (name TEXT PRIMARY KEY, channel TEXT NOT NULL, release_seq BIGINT NOT NULL, \
     wave BIGINT NOT NULL, tags TEXT NOT NULL, system TEXT NOT NULL, seq BIGINT NOT NULL, phase TEXT NOT NULL, \
     state TEXT NOT NULL, reported_ms BIGINT NOT NULL, fault TEXT)",
        "CREATE INDEX hosts_of_channel ON hosts (channel, name)",
        "CREATE TABLE host_keys (key_id TEXT PRIMARY KEY, host TEXT NOT NULL)",
        "CREATE INDEX keys_of_host ON host_keys (host)",
        "CREATE TABLE orders (host TEXT NOT NULL, topic TEXT NOT NULL, number BIGINT NOT NULL, body TEXT NOT NULL, \
     PRIMARY KEY (host, topic))",
        "CREATE TABLE rollouts (channel TEXT PRIMARY KEY, body TEXT NOT NULL)",
        // From here on what is in no event: who may act, who plans, who was heard.
        "CREATE TABLE heard (host TEXT PRIMARY KEY, at_ms BIGINT NOT NULL)",
        "CREATE TABLE tokens (name TEXT PRIMARY KEY, role TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, \
     created_ms BIGINT NOT NULL)",
        "CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until_ms BIGINT NOT NULL)",
        "CREATE TABLE strangers (key_id TEXT PRIMARY KEY, first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL, \
     times BIGINT NOT NULL, address TEXT NOT NULL)",
    ],
    &[
        // What the planner remembers of a host.
        "ALTER TABLE hosts ADD COLUMN remembered TEXT",
    ],
    &[
        // How far the host's clock was ahead when it was heard; nothing if it did not say.
        "ALTER TABLE heard ADD COLUMN ahead_ms BIGINT",
    ],
    &[
        // In a table of its own: an order changes it, and nothing else of a host's row, which is twenty times as long.
        "CREATE TABLE remembered (host TEXT PRIMARY KEY, body TEXT NOT NULL)",
        "INSERT INTO remembered (host, body) SELECT name, remembered FROM hosts WHERE remembered IS NOT NULL",
        "ALTER TABLE hosts DROP COLUMN remembered",
    ],
    &[
        // What is old is found by its time, and what takes its place by whom it is about.
        "CREATE INDEX events_by_time ON events (at_ms, id)",
        "CREATE INDEX events_of_channel ON events (channel, id) WHERE channel IS NOT NULL",
        "CREATE INDEX states_of_host ON events (host, id) WHERE kind = 'compacted'",
    ],
];

/// Tables that `rebuild` empties and fills again.
pub(super) const PROJECTIONS: [&str; 6] = [
    "DELETE FROM releases",
    "DELETE FROM hosts",
    "DELETE FROM host_keys",
    "DELETE FROM orders",
    "DELETE FROM remembered",
    "DELETE FROM rollouts",
];

/// How many steps this database has; none if it is new, and an error if it is a newer program's.
pub(super) async fn steps(pool: &sqlx::AnyPool, engine: Engine) -> Result<usize, StoreError> {
    let there = match engine {
        Engine::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE name = 'schema_steps'",
        Engine::Postgres => {
            "SELECT COUNT(*) FROM pg_catalog.pg_tables WHERE tablename = 'schema_steps' AND schemaname = current_schema()"
        }
    };
    if sqlx::query_scalar::<_, i64>(there).fetch_one(pool).await? == 0 {
        return Ok(0);
    }
    let found: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM schema_steps").fetch_one(pool).await?;
    match usize::try_from(found) {
        Ok(steps) if steps <= STEPS.len() => Ok(steps),
        Ok(_) | Err(_) => Err(StoreError::Newer { found, known: STEPS.len() }),
    }
}

/// Brings the tables to the newest form; refuses those of a newer program.
pub(super) async fn migrate(pool: &sqlx::AnyPool, engine: Engine) -> Result<(), StoreError> {
    migrate_to(pool, engine, STEPS.len()).await.map(drop)
}

/// Brings the tables to the form of a program that knew so many steps. Says whether there are so many.
pub(super) async fn migrate_to(
    pool: &sqlx::AnyPool,
    engine: Engine,
    steps: usize,
) -> Result<bool, StoreError> {
    make_list(pool, engine).await?;
    loop {
        let mut tx = pool.begin().await?;
        if engine == Engine::Postgres {
            super::patience::unhurried(&mut tx).await?;
            // Two replicas that start at once; the second waits and then finds it done.
            sql("LOCK TABLE schema_steps IN EXCLUSIVE MODE").execute(&mut *tx).await?;
        }
        let done: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM schema_steps").fetch_one(&mut *tx).await?;
        let at = usize::try_from(done).unwrap_or(usize::MAX);
        if at > STEPS.len() {
            return Err(StoreError::Newer { found: done, known: STEPS.len() });
        }
        let Some(statements) = STEPS.get(at).filter(|_| at < steps) else { return Ok(at == steps) };
        for statement in *statements {
            let text = engine.spelled(statement);
            // Ours from the list above, with nothing of anybody else in it.
            sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut *tx).await?;
        }
        sql("INSERT INTO schema_steps (step) VALUES ($1)").bind(done + 1).execute(&mut *tx).await?;
        tx.commit().await?;
    }
}

/// Makes the list of the steps that were taken, where there is none.
async fn make_list(pool: &sqlx::AnyPool, engine: Engine) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    if engine == Engine::Postgres {
        // Replicas that start at once. Of two that find no table PostgreSQL lets one make it, and tells the other that a key is
        // there twice. There is no table to lock yet.
        sql("SELECT pg_advisory_xact_lock($1)::text").bind(FIRST_TABLE).execute(&mut *tx).await?;
    }
    sql("CREATE TABLE IF NOT EXISTS schema_steps (step BIGINT PRIMARY KEY)").execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name and type of every column that the steps make.
    fn columns() -> Vec<(&'static str, &'static str)> {
        let mut out = Vec::new();
        for statement in STEPS.iter().flat_map(|step| step.iter()) {
            let list = match statement.split_once("CREATE TABLE ") {
                Some((_, table)) => table.split_once('(').expect("a list of columns").1,
                None => statement.split_once(" ADD COLUMN ").map_or("", |(_, column)| column),
            };
            let list = list.split("PRIMARY KEY (").next().expect("the part before it");
            for column in list.split(',').filter(|column| !column.trim().is_empty()) {
                let mut words = column.split_whitespace();
                out.push((
                    words.next().expect("a name"),
                    words.next().expect("a type").trim_end_matches(')'),
                ));
            }
        }
        out
    }

    #[tokio::test]
    async fn what_was_remembered_in_rows_of_hosts_is_remembered_in_the_table_of_its_own() {
        sqlx::any::install_default_drivers();
        let pool = sqlx::any::AnyPoolOptions::new().max_connections(1).connect("sqlite::memory:").await;
        let pool = pool.expect("a database");
        let run = async |text: String| {
            sqlx::query(sqlx::AssertSqlSafe(text)).execute(&pool).await.expect("it runs");
        };
        run("CREATE TABLE schema_steps (step BIGINT PRIMARY KEY)".to_owned()).await;
        for (step, statements) in STEPS.iter().take(2).enumerate() {
            for statement in *statements {
                run(Engine::Sqlite.spelled(statement)).await;
            }
            run(format!("INSERT INTO schema_steps (step) VALUES ({})", step + 1)).await;
        }
        for (name, remembered) in [("web-1", "'{\"retry\":1}'"), ("web-2", "NULL")] {
            run(format!(
                "INSERT INTO hosts (name, channel, release_seq, wave, tags, system, seq, phase, state, reported_ms, \
                 remembered) VALUES ('{name}', 'stable', 1, 0, '[]', 'x', 0, 'converged', '{{}}', 0, {remembered})"
            ))
            .await;
        }
        migrate(&pool, Engine::Sqlite).await.expect("the newest form");
        let kept: Vec<(String, String)> =
            sqlx::query_as("SELECT host, body FROM remembered").fetch_all(&pool).await.expect("rows");
        assert_eq!(kept, [("web-1".to_owned(), "{\"retry\":1}".to_owned())]);
        let hosts: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM hosts").fetch_one(&pool).await.expect("a number");
        assert_eq!(hosts, 2);
    }

    #[test]
    fn a_column_is_an_integer_a_text_or_bytes_and_a_time_is_an_integer_of_milliseconds() {
        let columns = columns();
        assert!(columns.contains(&("at_ms", "BIGINT")) && columns.contains(&("body", "TEXT")));
        for (name, kind) in columns {
            assert!(["BIGINT", "TEXT", "{bytes}"].contains(&kind), "{name} {kind}");
            assert!(kind == "BIGINT" || !name.ends_with("_ms"), "{name} is a time, and {kind}");
            for other in ["_at", "_s", "_secs", "time", "date", "when"] {
                assert!(!name.ends_with(other), "{name} would be a time in another unit");
            }
        }
    }
}
