//! A Postgres database of a test's own: a copy of a template that has the schema, so that making
//! one costs no migration.

use hookswitch::{domain::SystemClock, store};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    io::Write,
    net::SocketAddr,
    sync::{Arc, Once},
    time::Duration,
};
use tokio::sync::OnceCell;

/// The server's URL. `None` where there is none: then it is said on the terminal, and in CI it is a
/// failure.
pub fn server() -> Option<String> {
    static SAID: Once = Once::new();
    let url = std::env::var("HOOKSWITCH_TEST_POSTGRES_URL")
        .ok()
        .filter(|url| !url.is_empty());
    if url.is_none() {
        let how = "run scripts/test, or: export $(scripts/services up postgres)";
        assert!(
            std::env::var("CI").is_err(),
            "HOOKSWITCH_TEST_POSTGRES_URL is not set, so Postgres would not be tested; {how}"
        );
        SAID.call_once(|| {
            // Past the test runner, which keeps what a passing test prints.
            let _ = writeln!(
                std::io::stderr(),
                "\nNOT RUN: the tests over Postgres, because HOOKSWITCH_TEST_POSTGRES_URL is not set; {how}\n"
            );
        });
    }
    url
}

fn named(server: &str, database: &str) -> String {
    let (address, _) = server.rsplit_once('/').expect("a URL with a database");
    format!("{address}/{database}")
}

async fn run(url: &str, statement: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let done = sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .map(drop);
    connection.close().await?;
    done
}

/// All migrations, one after the other.
fn migrations() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the migrations")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read_to_string(file).expect("a migration"))
        .collect()
}

/// The template of this test binary's schema; made by whoever comes first, of all processes.
async fn template(server: &str) -> String {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let schema: u64 = migrations()
                .bytes()
                .fold(5381, |hash, byte| hash.wrapping_mul(33) ^ u64::from(byte));
            let name = format!("hookswitch_template_{schema:x}");
            let mut lock = PgConnection::connect(server).await.expect("Postgres answers");
            sqlx::query("SELECT pg_advisory_lock(4711)")
                .execute(&mut lock)
                .await
                .expect("locked");
            let is_there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(&name)
                .fetch_one(&mut lock)
                .await
                .expect("a look");
            if !is_there {
                // Renamed once it is whole: a process that was killed here leaves no half of a
                // template.
                let made = format!("{name}_{}", std::process::id());
                run(server, format!("CREATE DATABASE {made}")).await.expect("created");
                store::migrate(&named(server, &made), Arc::new(SystemClock))
                    .await
                    .expect("migrated");
                run(server, format!("ALTER DATABASE {made} RENAME TO {name}"))
                    .await
                    .expect("renamed");
            }
            lock.close().await.expect("closes");
            name
        })
        .await
        .clone()
}

/// Gone with the test.
pub struct PostgresDatabase {
    server: String,
    name: String,
}

impl PostgresDatabase {
    /// With the schema. `None` where there is no server.
    pub async fn new() -> Option<Self> {
        let server = server()?;
        let template = template(&server).await;
        let name = format!("it_{}", uuid::Uuid::now_v7().simple());
        run(&server, format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await
            .expect("a database for the test");
        Some(Self { server, name })
    }

    /// A copy, as a backup that was put back. Nobody may be connected.
    pub async fn copy(&self) -> Self {
        let name = format!("it_{}", uuid::Uuid::now_v7().simple());
        let statement = format!("CREATE DATABASE {name} TEMPLATE {}", self.name);
        run(&self.server, statement).await.expect("a copy");
        let server = self.server.clone();
        Self { server, name }
    }

    /// Without a schema.
    pub async fn empty() -> Option<Self> {
        let server = server()?;
        let name = format!("it_{}", uuid::Uuid::now_v7().simple());
        run(&server, format!("CREATE DATABASE {name}"))
            .await
            .expect("a database for the test");
        Some(Self { server, name })
    }

    pub fn url(&self) -> String {
        named(&self.server, &self.name)
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        super::address_in(&self.server)
    }

    /// The URL of this database behind a proxy.
    pub fn url_at(&self, proxy: SocketAddr) -> String {
        self.url().replace(&self.address().to_string(), &proxy.to_string())
    }

    /// As a person does it before a failover. Open connections are ended, so that all see it.
    pub async fn set_read_only(&self) {
        let mut owner = self.connect().await;
        let statement = format!(
            "ALTER DATABASE {} SET default_transaction_read_only = on; SELECT pg_terminate_backend(pid) FROM \
            pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
            self.name
        );
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut owner)
            .await
            .expect("read only");
    }

    /// A connection as the owner, to whom row-level security shows nothing.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.expect("the database answers")
    }

    /// A connection as one of the two roles.
    pub async fn connect_as(&self, role: &str) -> PgConnection {
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(format!("SET ROLE {role}")))
            .execute(&mut connection)
            .await
            .expect("the role");
        connection
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        let (server, statement) = (
            self.server.clone(),
            format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name),
        );
        // A test that failed may be unwinding inside its runtime: this one has its own.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let _ = runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(20), run(&server, statement)).await });
        })
        .join();
    }
}
