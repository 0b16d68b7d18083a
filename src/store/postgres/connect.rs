//! Opening: options of each role, migrations, and what is refused at the start.

use super::{PostgresStore, READ_VERSION, listen};
use crate::{
    domain::Clock,
    store::{
        ConnectError, DatabaseLook, LEASE_NOTICED_WITHIN, MigrationStatus,
        migrate::{self, Step},
    },
};
use sqlx::{
    Connection, PgConnection, PgPool, Row,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const TENANT_ROLE: &str = "hookswitch_tenant";
const WORKER_ROLE: &str = "hookswitch_worker";

/// Connections of each role. A transaction holds a connection for a few round trips; more
/// connections would only queue inside the database.
const CONNECTIONS_MAX: u32 = 16;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

const STEPS: &[Step] = &[
    (1, "init", include_str!("../../../migrations/postgres/0001_init.sql")),
    (
        2,
        "account of an action",
        include_str!("../../../migrations/postgres/0002_account_of_an_action.sql"),
    ),
    (
        3,
        "parts that wait for a rule",
        include_str!("../../../migrations/postgres/0003_parts_that_wait_for_a_rule.sql"),
    ),
    (
        4,
        "delivery of an action",
        include_str!("../../../migrations/postgres/0004_delivery_of_an_action.sql"),
    ),
    (
        5,
        "sessions and request keys",
        include_str!("../../../migrations/postgres/0005_sessions_and_request_keys.sql"),
    ),
    (
        6,
        "events that wait",
        include_str!("../../../migrations/postgres/0006_events_that_wait.sql"),
    ),
    (
        7,
        "retention",
        include_str!("../../../migrations/postgres/0007_retention.sql"),
    ),
    (
        8,
        "shares of queues",
        include_str!("../../../migrations/postgres/0008_shares_of_queues.sql"),
    ),
    (
        9,
        "signed urls and subjects",
        include_str!("../../../migrations/postgres/0009_signed_urls_and_subjects.sql"),
    ),
    (
        10,
        "key rotation",
        include_str!("../../../migrations/postgres/0010_key_rotation.sql"),
    ),
    (
        11,
        "replays",
        include_str!("../../../migrations/postgres/0011_replays.sql"),
    ),
    (
        12,
        "pauses",
        include_str!("../../../migrations/postgres/0012_pauses.sql"),
    ),
    (
        13,
        "bulk jobs",
        include_str!("../../../migrations/postgres/0013_bulk_jobs.sql"),
    ),
    (
        14,
        "audit values",
        include_str!("../../../migrations/postgres/0014_audit_values.sql"),
    ),
    (
        15,
        "rotation of credentials",
        include_str!("../../../migrations/postgres/0015_rotation_of_credentials.sql"),
    ),
    (
        16,
        "uses of secrets",
        include_str!("../../../migrations/postgres/0016_uses_of_secrets.sql"),
    ),
    (
        17,
        "platform routes",
        include_str!("../../../migrations/postgres/0017_platform_routes.sql"),
    ),
    (
        18,
        "recoveries",
        include_str!("../../../migrations/postgres/0018_recoveries.sql"),
    ),
    (
        19,
        "organization settings",
        include_str!("../../../migrations/postgres/0019_organization_settings.sql"),
    ),
    (
        20,
        "jobs that outlive a process",
        include_str!("../../../migrations/postgres/0020_jobs_that_outlive_a_process.sql"),
    ),
    (
        21,
        "texts at vapi",
        include_str!("../../../migrations/postgres/0021_texts_at_vapi.sql"),
    ),
];

fn migrator() -> Migrator {
    migrate::migrator(STEPS)
}

/// Host and database of a URL, for messages: never its user or password.
pub(in crate::store) fn shown_url(url: &str) -> Result<String, ConnectError> {
    parse(url).map(|options| shown(&options))
}

fn shown(options: &PgConnectOptions) -> String {
    format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    )
}

fn parse(url: &str) -> Result<PgConnectOptions, ConnectError> {
    let options: PgConnectOptions = url.parse().map_err(|_| ConnectError::UnknownUrl)?;
    Ok(options.application_name("hookswitch").statement_cache_capacity(256))
}

fn open_failed(path: &str) -> impl FnOnce(sqlx::Error) -> ConnectError {
    let path = path.to_owned();
    move |source| {
        if is_away(&source) {
            ConnectError::Away { path, source }
        } else {
            ConnectError::Open { path, source }
        }
    }
}

/// Whether a later try may work: no server answers, or it accepts no connection for now. A wrong
/// password or a missing database is no reason to wait.
fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        // Starting up or shutting down, cut off, too many connections.
        sqlx::Error::Database(e) => matches!(e.code().as_deref(), Some("57P01" | "57P02" | "57P03" | "53300")),
        _ => false,
    }
}

/// Time for a server to take a connection on.
const CONNECT_MAX: Duration = Duration::from_secs(10);

async fn connection(options: &PgConnectOptions, path: &str) -> Result<PgConnection, ConnectError> {
    tokio::time::timeout(CONNECT_MAX, PgConnection::connect_with(options))
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(open_failed(path))
}

/// Brings the schema up to date. The URL's user has to own the database and may create roles,
/// unless the two roles are there and granted to it.
///
/// # Errors
/// See [`ConnectError`].
pub async fn migrate(url: &str) -> Result<(), ConnectError> {
    let options = parse(url)?;
    let path = shown(&options);
    let mut connection = connection(&options, &path).await?;
    // A user who may not change the schema may run this where nothing is pending.
    if !status(&mut connection)
        .await
        .map_err(open_failed(&path))?
        .pending
        .is_empty()
    {
        migrator().run(&mut connection).await.map_err(|source| {
            if is_about_roles(&source) {
                ConnectError::MayNotMakeRoles { path, source }
            } else {
                ConnectError::Migrate { path, source }
            }
        })?;
    }
    // The migrations are committed. An error on closing changes nothing.
    let _ = connection.close().await;
    Ok(())
}

/// Whether a migration failed because its user may not make roles, or not grant them.
fn is_about_roles(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    let refused = error
        .as_database_error()
        .filter(|e| e.code().as_deref() == Some("42501"));
    refused.is_some_and(|e| e.message().contains("role"))
}

/// Which migrations the database has, and which it waits for.
///
/// # Errors
/// See [`ConnectError`].
pub async fn migration_status(url: &str) -> Result<MigrationStatus, ConnectError> {
    let options = parse(url)?;
    let path = shown(&options);
    let mut connection = connection(&options, &path).await?;
    let status = status(&mut connection).await.map_err(open_failed(&path))?;
    let _ = connection.close().await;
    Ok(status)
}

/// See [`crate::store::look`].
pub async fn look(url: &str, clock: &dyn Clock) -> Result<DatabaseLook, ConnectError> {
    let options = parse(url)?;
    let path = shown(&options);
    let mut connection = connection(&options.options([("role", WORKER_ROLE)]), &path).await?;
    let before = clock.now();
    let theirs: i64 = sqlx::query_scalar(DATABASE_NOW)
        .fetch_one(&mut connection)
        .await
        .map_err(open_failed(&path))?;
    // Half of the way there and back.
    let ours = before + clock.now().since(before) / 2;
    let ended: i64 = sqlx::query_scalar(ENDED_LEASES)
        .bind(theirs - i64::try_from(LEASE_NOTICED_WITHIN.as_micros()).unwrap_or(0))
        .fetch_one(&mut connection)
        .await
        .map_err(open_failed(&path))?;
    let _ = connection.close().await;
    Ok(DatabaseLook {
        clock_offset_micros: Some(theirs - ours.as_micros()),
        ended_leases: ended.unsigned_abs(),
    })
}

const DATABASE_NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
const ENDED_LEASES: &str = "SELECT count(*) FROM actions WHERE state = 'running' AND lease_until < $1";
const HAS_MIGRATIONS: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success";

async fn status(connection: &mut PgConnection) -> Result<MigrationStatus, sqlx::Error> {
    let has_any: bool = sqlx::query_scalar(HAS_MIGRATIONS).fetch_one(&mut *connection).await?;
    let applied: Vec<i64> = if has_any {
        sqlx::query_scalar(APPLIED).fetch_all(connection).await?
    } else {
        Vec::new()
    };
    Ok(MigrationStatus::of(&migrator(), &applied))
}

/// Row-level security binds neither a superuser nor a role that may bypass it.
const ROLES: &str = "
    SELECT rolname, rolsuper OR rolbypassrls AS is_free FROM pg_roles
    WHERE rolname IN ('hookswitch_tenant', 'hookswitch_worker')";

/// Refuses a schema that is not up to date, and roles that row-level security does not bind.
/// Returns the version of the configuration.
async fn check_database(connection: &mut PgConnection, path: &str) -> Result<i64, ConnectError> {
    let status = status(connection).await.map_err(open_failed(path))?;
    if !status.pending.is_empty() {
        return Err(ConnectError::Pending {
            path: path.to_owned(),
            pending: status.pending,
        });
    }
    let roles = sqlx::query(ROLES).fetch_all(&mut *connection).await;
    for row in roles.map_err(open_failed(path))? {
        if row.try_get::<bool, _>("is_free").map_err(open_failed(path))? {
            return Err(ConnectError::FreeRole {
                role: row.try_get("rolname").map_err(open_failed(path))?,
            });
        }
    }
    sqlx::query_scalar(READ_VERSION)
        .fetch_one(connection)
        .await
        .map_err(open_failed(path))
}

/// The connections of one role. They are opened when they are needed.
fn pool(options: &PgConnectOptions, role: &'static str, size: u32) -> PgPool {
    let options = options.clone().options([
        ("role", role),
        // No statement of ours takes this long. One that does fails, and its caller tries again,
        // instead of waiting for ever.
        ("statement_timeout", "15s"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "30s"),
        // Each transaction begins with a ROLLBACK, mostly of nothing. Postgres would warn of each.
        ("client_min_messages", "error"),
    ]);
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // The first statement finds a dead connection, and is tried on another one.
        .test_before_acquire(false)
        .connect_lazy_with(options)
}

impl PostgresStore {
    /// Opens the pools of both roles. Refuses a schema that is not up to date, and roles that
    /// row-level security does not bind.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Self, ConnectError> {
        let options = parse(url)?;
        let path = shown(&options);
        let mut connection = connection(&options, &path).await?;
        let version = check_database(&mut connection, &path).await?;
        let _ = connection.close().await;

        let pool = |role, size| pool(&options, role, size);
        let (tenant, worker) = (pool(TENANT_ROLE, CONNECTIONS_MAX), pool(WORKER_ROLE, CONNECTIONS_MAX));
        // A pool whose role cannot be assumed fails here, not at the first request.
        for pool in [&tenant, &worker] {
            drop(pool.acquire().await.map_err(open_failed(&path))?);
        }
        let (changes, _) = watch::channel(version);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let connect = {
            let options = options.clone();
            move || self::pool(&options, WORKER_ROLE, 1)
        };
        tasks.spawn(listen::run(connect, changes.clone(), stop.clone()));
        Ok(Self {
            tenant,
            worker,
            changes,
            configuring: Mutex::default(),
            clock,
            tasks,
            stop,
        })
    }
}
