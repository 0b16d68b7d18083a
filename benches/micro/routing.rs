//! Look-ups at a million routes; how long a start takes to load them from SQLite, and what they
//! take in memory.

use divan::{Bencher, black_box};
use hookswitch::{
    domain::{OrgId, RouteKey, RouteKind, SystemClock},
    routing::RouteTable,
    store::{SqliteStore, Store},
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Instant,
};

const ROUTES: u32 = 1_000_000;
const ORGS: u32 = 10_000;
pub const ORG: OrgId = OrgId::from_uuid(uuid::Uuid::from_u128(1));

/// Prints the load and its bytes before the table of figures.
pub fn report() {
    let world = &*WORLD;
    let per_route = |bytes: u64| bytes as f64 / f64::from(ROUTES);
    println!(
        "{} routes of {ORGS} organisations: loaded from SQLite in {:.2} s; {:.0} bytes a route in the table, {:.0} of \
        resident memory",
        world.table.routes_len(),
        world.load_seconds,
        per_route(world.table.routes_bytes() as u64),
        per_route(world.resident_bytes),
    );
}

pub fn clear() {
    let _ = std::fs::remove_dir_all(&WORLD.directory);
}

/// The resident memory of this process, as the system counts it.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}

pub struct World {
    directory: PathBuf,
    pub store: Arc<SqliteStore>,
    table: Arc<RouteTable>,
    load_seconds: f64,
    /// By how much memory grew with the load.
    resident_bytes: u64,
    /// Keeps the store's writer alive.
    pub runtime: tokio::runtime::Runtime,
}

pub static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let directory = std::env::temp_dir().join(format!("hookswitch-bench-{}", uuid::Uuid::now_v7()));
    let (store, table, load_seconds, resident_bytes) = runtime.block_on(async {
        let path = directory.join("store.db");
        let store = Arc::new(
            SqliteStore::open(&path, Arc::new(SystemClock))
                .await
                .expect("the store opens"),
        );
        fill(&path).await;
        let (begun, resident) = (Instant::now(), resident_bytes());
        let table = RouteTable::load(Arc::clone(&store) as Arc<dyn Store>, Arc::new(SystemClock))
            .await
            .expect("routes load");
        (
            store,
            table,
            begun.elapsed().as_secs_f64(),
            resident_bytes().saturating_sub(resident),
        )
    });
    assert_eq!(table.routes_len(), ROUTES as usize);
    World {
        directory,
        store,
        table,
        load_seconds,
        resident_bytes,
        runtime,
    }
});

async fn fill(path: &std::path::Path) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path))
        .await
        .expect("a connection");
    let numbered =
        |count: u32| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    let statements = format!(
        "BEGIN; {} INSERT INTO organizations (id, name, created_at, updated_at, changed_version) SELECT \
        unhex(printf('%032x', i)), 'a', 0, 0, 1 FROM n; \
         {} INSERT INTO assistant_org_mapping (id, org_id, assistant_id, state, created_at, updated_at, \
         changed_version) \
         SELECT unhex(printf('%032x', i)), unhex(printf('%032x', i % {ORGS} + 1)), \
         printf('3c8a2f5e-1111-4222-8333-%012x', i), 'live', 0, 0, 1 FROM n; COMMIT",
        numbered(ORGS),
        numbered(ROUTES)
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
        .execute(&mut connection)
        .await
        .expect("rows");
    connection.close().await.expect("closes");
}

/// Ids in an order that no cache line follows.
fn keys() -> Vec<RouteKey> {
    let id = |n: u32| {
        format!(
            "3c8a2f5e-1111-4222-8333-{:012x}",
            n.wrapping_mul(2_654_435_761) % ROUTES + 1
        )
    };
    (0..65_536)
        .map(|n| RouteKey::new(RouteKind::VapiAssistant, &id(n)))
        .collect()
}

#[divan::bench(threads = [1, 2], sample_size = 512)]
fn route_lookup_hit(bencher: Bencher) {
    let (table, keys) = (&WORLD.table, keys());
    let next = std::sync::atomic::AtomicUsize::new(0);
    // 16 look-ups an iteration, so that the shared counter of the benchmark is not what is
    // measured.
    bencher.counter(16_usize).bench(|| {
        let at = next.fetch_add(16, std::sync::atomic::Ordering::Relaxed);
        for n in 0..16 {
            black_box(table.get(&keys[(at + n) % keys.len()]).expect("a route"));
        }
    });
}

#[divan::bench]
fn route_lookup_miss(bencher: Bencher) {
    let key = RouteKey::new(RouteKind::VapiAssistant, "3c8a2f5e-9999-4222-8333-000000000001");
    bencher.bench(|| black_box(WORLD.table.get(black_box(&key))));
}

#[divan::bench]
fn organisation_entry(bencher: Bencher) {
    bencher.bench(|| black_box(WORLD.table.org(black_box(ORG))));
}
