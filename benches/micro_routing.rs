//! Look-ups at a million routes, and what a secret costs: sealed, opened cold, opened with its data key in memory.
//!
//! `cargo bench --bench micro_routing`. Prints the time that a start takes to load the routes from SQLite, and their bytes.

use divan::{Bencher, black_box, counter::BytesCount};
use futures_util::FutureExt;
use hookswitch::{
    domain::{OrgId, Provider, RouteKey, RouteKind, SealedBytes, SecretBytes, SystemClock},
    routing::RouteTable,
    store::{SqliteStore, Store, keys::DataKeyRow, keys::DataKeys},
    vault::{Keyring, Purpose, Vault},
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Instant,
};

const ROUTES: u32 = 1_000_000;
const ORGS: u32 = 10_000;
const ORG: OrgId = OrgId::from_uuid(uuid::Uuid::from_u128(1));

fn main() {
    let world = &*WORLD;
    println!(
        "{} routes of {ORGS} organisations: loaded from SQLite in {:.2} s, {} bytes a route in memory",
        world.table.routes_len(),
        world.load_seconds,
        world.table.routes_bytes() / world.table.routes_len()
    );
    divan::main();
    let _ = std::fs::remove_dir_all(&world.directory);
}

struct World {
    directory: PathBuf,
    store: Arc<SqliteStore>,
    table: Arc<RouteTable>,
    load_seconds: f64,
    /// Keeps the store's writer alive.
    runtime: tokio::runtime::Runtime,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let directory = std::env::temp_dir().join(format!("hookswitch-bench-{}", uuid::Uuid::now_v7()));
    let (store, table, load_seconds) = runtime.block_on(async {
        let path = directory.join("store.db");
        let store = Arc::new(SqliteStore::open(&path, Arc::new(SystemClock)).await.expect("the store opens"));
        fill(&path).await;
        let begun = Instant::now();
        let table = RouteTable::load(Arc::clone(&store) as Arc<dyn Store>, Arc::new(SystemClock)).await.expect("routes load");
        (store, table, begun.elapsed().as_secs_f64())
    });
    assert_eq!(table.routes_len(), ROUTES as usize);
    World { directory, store, table, load_seconds, runtime }
});

async fn fill(path: &std::path::Path) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.expect("a connection");
    let numbered = |count: u32| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    let statements = format!(
        "BEGIN; {} INSERT INTO organizations (id, name, created_at, updated_at, changed_version) SELECT unhex(printf('%032x', i)), 'a', 0, 0, 1 FROM n; \
         {} INSERT INTO assistant_org_mapping (id, org_id, assistant_id, state, created_at, updated_at, changed_version) \
         SELECT unhex(printf('%032x', i)), unhex(printf('%032x', i % {ORGS} + 1)), printf('3c8a2f5e-1111-4222-8333-%012x', i), 'live', 0, 0, 1 FROM n; COMMIT",
        numbered(ORGS),
        numbered(ROUTES)
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut connection).await.expect("rows");
    connection.close().await.expect("closes");
}

/// Ids in an order that no cache line follows.
fn keys() -> Vec<RouteKey> {
    let id = |n: u32| format!("3c8a2f5e-1111-4222-8333-{:012x}", n.wrapping_mul(2_654_435_761) % ROUTES + 1);
    (0..65_536).map(|n| RouteKey::new(RouteKind::VapiAssistant, &id(n))).collect()
}

#[divan::bench(threads = [1, 2])]
fn route_lookup_hit(bencher: Bencher) {
    let (table, keys) = (&WORLD.table, keys());
    let next = std::sync::atomic::AtomicUsize::new(0);
    // 16 look-ups an iteration, so that the shared counter of the benchmark is not what is measured.
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

const TOKEN: Purpose = Purpose::Credential(Provider::Twilio);

fn vault() -> Vault {
    let key = SecretBytes::from("a1".repeat(32));
    Vault::new(Keyring::from_hex(&[key]).expect("a key"), Arc::clone(&WORLD.store) as Arc<dyn DataKeys>)
}

fn sealed(vault: &Vault, purpose: Purpose, plaintext: &[u8]) -> (SealedBytes, Vec<DataKeyRow>) {
    WORLD.runtime.block_on(async {
        let sealed = vault.seal(ORG, purpose, plaintext).await.expect("sealed");
        (sealed, WORLD.store.load_data_keys(ORG).await.expect("data keys"))
    })
}

#[divan::bench]
fn decrypt_cold(bencher: Bencher) {
    let (sealed, keys) = sealed(&vault(), TOKEN, &[7; 32]);
    bencher.with_inputs(vault).bench_refs(|vault| vault.open_with(&keys, ORG, TOKEN, &sealed, SecretBytes::len).expect("opens"));
}

#[divan::bench(threads = [1, 2])]
fn decrypt_cached(bencher: Bencher) {
    let vault = vault();
    let (sealed, keys) = sealed(&vault, TOKEN, &[7; 32]);
    bencher.bench(|| vault.open_with(&keys, ORG, TOKEN, &sealed, SecretBytes::len).expect("opens"));
}

#[divan::bench(args = [32, 2_048, 16_384])]
fn seal_cached(bencher: Bencher, bytes: usize) {
    let (vault, plaintext) = (vault(), vec![7; bytes]);
    sealed(&vault, Purpose::Payload, &plaintext);
    // Once in 16,384 seals a block is counted in the store: what waits for it is let go of, and the next one asks again.
    bencher.counter(BytesCount::new(bytes)).bench(|| match vault.seal(ORG, Purpose::Payload, &plaintext).now_or_never() {
        Some(sealed) => sealed.expect("sealed"),
        None => self::sealed(&vault, Purpose::Payload, &plaintext).0,
    });
}
