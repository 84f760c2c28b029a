//! The way from the tables of every older program to ours, with rows in them.

use nixfleet_control_plane::config::Database;
use nixfleet_control_plane::mirror::{Mirror, News};
use nixfleet_control_plane::store::Store;
use nixfleet_control_plane::store::fact::{About, Fact};
use nixfleet_control_plane::store::fleet::{EventFilter, HostListed, Logged};
use nixfleet_control_plane::store::tokens::Role;
use nixfleet_core::model::names::ReleaseId;
use nixfleet_core::model::policy::WaveIndex;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::rollout::{Decision, RolloutId, Snapshot, Transition, Verb, What};
use nixfleet_core::wire::Order;
use sqlx::any::AnyRow;
use sqlx::{AnyPool, AssertSqlSafe, Row};

use super::{ordered, raw, served};
use crate::fleet::{Host, host_name, kept_orders, now};

/// How a column is kept.
#[derive(Clone, Copy)]
enum Kind {
    Int,
    Text,
    Bytes,
}

use Kind::{Bytes, Int, Text};

/// The tables that the first step makes, as it makes them. What hosts are remembered for came later.
const TABLES: [(&str, &[(&str, Kind)]); 10] = [
    ("settings", &[("name", Text), ("value", Bytes)]),
    (
        "events",
        &[("id", Int), ("at_ms", Int), ("kind", Text), ("host", Text), ("channel", Text), ("body", Text)],
    ),
    ("documents", &[("path", Text), ("part_of", Text), ("bytes", Bytes)]),
    (
        "releases",
        &[
            ("channel", Text),
            ("seq", Int),
            ("digest", Text),
            ("created_ms", Int),
            ("taken_ms", Int),
            ("event", Int),
        ],
    ),
    (
        "hosts",
        &[
            ("name", Text),
            ("channel", Text),
            ("release_seq", Int),
            ("wave", Int),
            ("tags", Text),
            ("system", Text),
            ("seq", Int),
            ("phase", Text),
            ("state", Text),
            ("reported_ms", Int),
            ("fault", Text),
        ],
    ),
    ("host_keys", &[("key_id", Text), ("host", Text)]),
    ("orders", &[("host", Text), ("topic", Text), ("number", Int), ("body", Text)]),
    ("rollouts", &[("channel", Text), ("body", Text)]),
    ("heard", &[("host", Text), ("at_ms", Int)]),
    ("tokens", &[("name", Text), ("role", Text), ("hash", Text), ("created_ms", Int)]),
];

/// A value of a row.
#[derive(Clone)]
enum Kept {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// All rows of a table, to be written again.
struct Rows {
    insert: String,
    rows: Vec<Vec<Kept>>,
}

impl Rows {
    async fn of(pool: &AnyPool, table: &str, columns: &[(&str, Kind)]) -> Self {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        let select = AssertSqlSafe(format!("SELECT {names} FROM {table}"));
        let rows = sqlx::query(select).fetch_all(pool).await.expect("rows");
        let places: Vec<String> = (1..=columns.len()).map(|at| format!("${at}")).collect();
        let insert = format!("INSERT INTO {table} ({names}) VALUES ({})", places.join(", "));
        let value = |row: &AnyRow, (name, kind): &(&str, Kind)| match kind {
            Kind::Int => Kept::Int(row.try_get(name).expect("a number")),
            Kind::Text => Kept::Text(row.try_get(name).expect("a text")),
            Kind::Bytes => Kept::Bytes(row.try_get(name).expect("bytes")),
        };
        let values = |row: &AnyRow| columns.iter().map(|column| value(row, column)).collect();
        Self { insert, rows: rows.iter().map(values).collect() }
    }

    async fn write(&self, pool: &AnyPool) {
        for row in &self.rows {
            let mut insert = sqlx::query(AssertSqlSafe(self.insert.clone()));
            for value in row.clone() {
                insert = match value {
                    Kept::Int(value) => insert.bind(value),
                    Kept::Text(value) => insert.bind(value),
                    Kept::Bytes(value) => insert.bind(value),
                };
            }
            insert.execute(pool).await.expect("kept");
        }
    }
}

async fn run(pool: &AnyPool, text: &str) {
    sqlx::query(AssertSqlSafe(text.to_owned())).execute(pool).await.expect("it runs");
}

/// What a program of `steps` steps kept of hosts beside their rows: first nothing, then in their rows, then in a table of its
/// own.
async fn write_remembered(pool: &AnyPool, steps: usize, remembered: &[(String, String)]) {
    for (host, body) in remembered {
        let text = match steps {
            ..=1 => continue,
            2..=3 => "UPDATE hosts SET remembered = $2 WHERE name = $1",
            _ => "INSERT INTO remembered (host, body) VALUES ($1, $2)",
        };
        sqlx::query(text).bind(host.clone()).bind(body.clone()).execute(pool).await.expect("kept");
    }
}

/// All that is known.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    hosts: Vec<HostListed>,
    events: Vec<Logged>,
    releases: Vec<ReleaseId>,
    orders: Vec<Order>,
    people: Vec<String>,
    snapshot: Snapshot,
}

impl Known {
    async fn of(store: &Store) -> Self {
        let mut reading = store.reading().await.expect("it reads");
        let mut mirror = Mirror::new(UnixMs::EPOCH);
        mirror.take(News::all(&mut reading).await.expect("read"));
        drop(reading);
        let people = store.people().await.expect("read");
        Self {
            hosts: store.hosts("", None, 100).await.expect("read"),
            events: store.events(&EventFilter::default(), 1_000).await.expect("read"),
            releases: store.newest_releases().await.expect("read"),
            orders: kept_orders(store, &host_name("web-2"), 0).await,
            people: people.into_iter().map(|person| format!("{} {}", person.name, person.role)).collect(),
            snapshot: mirror.snapshot,
        }
    }

    /// Without what the first program did not keep but in its log.
    fn without_remembered(mut self) -> Self {
        for channel in self.snapshot.channels.values_mut() {
            for name in self.hosts.iter().map(|host| &host.name) {
                if let Some(host) = channel.hosts.get_mut(name) {
                    (host.ordered, host.hold, host.skip, host.retry) = (None, None, None, None);
                }
            }
        }
        self
    }
}

/// A database with something of everything.
async fn filled(database: &Database) {
    let (store, _, _, release) = served(database, &["web-1", "web-2"]).await;
    store.make_token("ann", Role::Operator, now()).await.expect("kept");
    let mut write = store.begin(now()).await.expect("a write");
    let rollout = RolloutId::from(&release.id);
    for becomes in
        [Transition::Opened { release: release.id.clone() }, Transition::WaveOpened { wave: WaveIndex(0) }]
    {
        let decision = Decision { rollout: rollout.clone(), becomes };
        let about = About::Channel(rollout.channel.clone());
        write.append(&about, &Fact::Decided { decision }).await.expect("kept");
    }
    for name in ["web-1", "web-2"] {
        let mut host = Host::started(name);
        host.verified(&release);
        host.staged(&release);
        for record in host.log {
            write.report(&host.name, record).await.expect("kept");
        }
    }
    let web_1 = host_name("web-1");
    let verb = Verb::Hold { host: web_1.clone(), until_ms: None };
    let held = Fact::Acted { by: "ann".to_owned(), verb, why: "an audit".to_owned() };
    write.append(&About::Host(web_1), &held).await.expect("kept");
    let web_2 = host_name("web-2");
    write.append(&About::Host(web_2.clone()), &ordered(&web_2, &release, What::Go)).await.expect("kept");
    write.commit().await.expect("on the disk");
    store.close().await;
}

/// Removes everything.
async fn emptied(database: &Database) {
    match database {
        Database::Sqlite(path) => {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
            }
        }
        Database::Postgres(_) => {
            let pool = raw(database).await;
            run(&pool, "DROP SCHEMA public CASCADE").await;
            run(&pool, "CREATE SCHEMA public").await;
            pool.close().await;
        }
    }
}

pub(super) async fn what_any_older_program_kept_is_known_and_can_be_made_again(database: Database) {
    filled(&database).await;
    let store = Store::open(&database).await.expect("it opens");
    let wanted = Known::of(&store).await;
    store.close().await;
    assert!(wanted.events.len() > 10 && wanted.orders.len() == 1, "{wanted:#?}");
    let pool = raw(&database).await;
    let mut kept = Vec::new();
    for (table, columns) in TABLES {
        kept.push(Rows::of(&pool, table, columns).await);
    }
    assert!(kept.iter().filter(|table| !table.rows.is_empty()).count() > 8, "nearly each has something");
    let remembered: Vec<(String, String)> =
        sqlx::query_as("SELECT host, body FROM remembered").fetch_all(&pool).await.expect("rows");
    assert_eq!(remembered.len(), 2);
    pool.close().await;

    let mut steps = 1;
    loop {
        emptied(&database).await;
        if !Store::make_older(&database, steps).await.expect("tables") {
            break;
        }
        let pool = raw(&database).await;
        for table in &kept {
            table.write(&pool).await;
        }
        write_remembered(&pool, steps, &remembered).await;
        let newest = wanted.events.len();
        run(&pool, &format!("UPDATE counters SET value = {newest} WHERE name = 'event'")).await;
        pool.close().await;
        let store = Store::open(&database).await.expect("it opens");
        let known = Known::of(&store).await;
        if steps == 1 {
            assert_eq!(known.without_remembered(), wanted.clone().without_remembered(), "from step 1");
        } else {
            assert_eq!(known, wanted, "from step {steps}");
        }
        store.rebuild(now()).await.expect("it folds");
        assert_eq!(Known::of(&store).await, wanted, "made again from the log of step {steps}");
        store.close().await;
        steps += 1;
    }
    assert!(steps > 5, "so many steps there were when this was written");
}
