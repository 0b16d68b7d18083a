//! Organisations apart, whatever a statement forgets: tables from the catalogue, so that one that
//! is added without a policy or a case fails.

use crate::{conformance::store as made, support::postgres::PostgresDatabase};
use hookswitch::{
    domain::{Clock, ManualClock, OrgId, Provider, SystemClock, Timestamp},
    store::{
        PostgresStore, Store,
        audit::{AuditEntry, AuditFilter},
    },
};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::sync::Arc;

const TENANT: &str = "hookswitch_tenant";
const WORKER: &str = "hookswitch_worker";
/// Without an owner, and with none of a tenant's data.
const SHARED: [&str; 7] = [
    "_sqlx_migrations",
    "config_version",
    "instances",
    "primary_kek",
    "quarantine",
    "queue_workers",
    "recoveries",
];

async fn opened() -> Option<(PostgresDatabase, Arc<dyn Store>)> {
    let database = PostgresDatabase::new().await?;
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000_000)));
    let store: Arc<dyn Store> = Arc::new(
        PostgresStore::open(&database.url(), clock)
            .await
            .expect("the store opens"),
    );
    Some((database, store))
}

async fn tables(connection: &mut PgConnection) -> Vec<String> {
    let all: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = \
            'public'::regnamespace ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .expect("the catalogue");
    all.into_iter()
        .filter(|table| !SHARED.contains(&table.as_str()))
        .collect()
}

/// Fills every table with one row of the organisation, by types alone, past foreign keys: what is
/// added later is filled too.
async fn fill(database: &PostgresDatabase, org: OrgId) {
    let mut owner = database.connect().await;
    for table in tables(&mut owner).await {
        let columns = sqlx::query(
            "SELECT attname::text AS name, format_type(atttypid, NULL) AS type FROM pg_attribute \
             WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
        )
        .bind(&table)
        .fetch_all(&mut owner)
        .await
        .expect("the catalogue");
        let (names, values): (Vec<String>, Vec<String>) = columns
            .iter()
            .map(|column| {
                let (name, kind): (String, String) = (column.get("name"), column.get("type"));
                let value = match kind.as_str() {
                    "uuid" | "text" => format!("'{}'", org.as_uuid()),
                    "bigint" => "1".to_owned(),
                    "boolean" => "true".to_owned(),
                    "bytea" => format!("'\\x{}'", hex::encode(org.as_bytes())),
                    other => panic!("{table}.{name} is {other}: say here what a row of it holds"),
                };
                (name, value)
            })
            .unzip();
        // The owner is under its own policies; as the table's owner it may put them aside for a
        // moment, which neither role may.
        let insert = format!(
            "ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY; INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT DO \
            NOTHING; ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            names.join(", "),
            values.join(", ")
        );
        sqlx::raw_sql(AssertSqlSafe(insert))
            .execute(&mut owner)
            .await
            .unwrap_or_else(|error| panic!("{table}: {error}"));
    }
}

/// The effect of a statement, in a transaction that is undone. A privilege that is not there is as
/// good as no row.
async fn touched(connection: &mut PgConnection, org: Option<OrgId>, statement: String) -> u64 {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await.expect("begun");
    if let Some(org) = org {
        sqlx::query("SELECT set_config('hookswitch.org_id', $1, true)")
            .bind(org.as_uuid().to_string())
            .execute(&mut *connection)
            .await
            .expect("set");
    }
    let done = sqlx::query(AssertSqlSafe(statement.clone()))
        .fetch_all(&mut *connection)
        .await;
    sqlx::raw_sql("ROLLBACK").execute(connection).await.expect("undone");
    match done {
        Ok(rows) => rows.len() as u64,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => 0,
        Err(error) => panic!("{statement}: {error}"),
    }
}

#[tokio::test]
async fn every_table_forces_row_level_security_and_has_a_policy_for_both_roles() {
    let Some((database, store)) = opened().await else {
        return;
    };
    let mut owner = database.connect().await;
    let rows = sqlx::query(
        "SELECT c.relname::text AS name, c.relrowsecurity AND c.relforcerowsecurity AS is_forced, \
         ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid ORDER BY 1) AS policies \
         FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut owner)
    .await
    .expect("the catalogue");
    assert!(rows.len() > 20, "{} tables", rows.len());
    for row in rows {
        let name: String = row.get("name");
        if SHARED.contains(&name.as_str()) {
            continue;
        }
        assert!(
            row.get::<bool, _>("is_forced"),
            "{name}: row-level security is not forced"
        );
        let kept = if name == "audit_log" { &["kept"][..] } else { &[] };
        let wanted = [kept, &["tenant", "worker"]].concat();
        assert_eq!(row.get::<Vec<String>, _>("policies"), wanted, "{name}");
    }
    let owned: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_class WHERE relowner IN ($1::regrole, $2::regrole)")
        .bind(TENANT)
        .bind(WORKER)
        .fetch_one(&mut owner)
        .await
        .expect("a count");
    assert_eq!(owned, 0, "an owner may put its policies aside");
    store.close().await;
}

#[tokio::test]
async fn audit_entries_are_added_and_never_changed_or_taken_out_early() {
    let Some((database, store)) = opened().await else {
        return;
    };
    // One entry of long ago, by the making of the organisation, and one of now.
    let org = made::org(&store).await;
    let fresh = AuditEntry {
        at: SystemClock.now(),
        ..made::entry(org, "update")
    };
    store.record_audit(fresh).await.expect("written");
    let mut tenant = database.connect_as(TENANT).await;
    let mut worker = database.connect_as(WORKER).await;
    for statement in [
        "UPDATE audit_log SET actor = 'nobody' RETURNING id",
        "UPDATE audit_log SET at = 1 RETURNING id",
        "DELETE FROM audit_log RETURNING id",
        "TRUNCATE audit_log",
    ] {
        assert_eq!(
            touched(&mut tenant, Some(org), statement.to_owned()).await,
            0,
            "{statement}"
        );
        if !statement.starts_with("DELETE") {
            assert_eq!(touched(&mut worker, None, statement.to_owned()).await, 0, "{statement}");
        }
    }
    let by_age = "DELETE FROM audit_log RETURNING id".to_owned();
    assert_eq!(touched(&mut worker, None, by_age).await, 1, "the old one only");
    let left = store
        .list_audit(org, AuditFilter::default(), None, 10)
        .await
        .expect("a list");
    assert_eq!(left.len(), 2, "the look was undone");
    store.close().await;
}

#[tokio::test]
async fn another_organisation_or_none_sees_and_changes_no_row_of_any_table() {
    let Some((database, store)) = opened().await else {
        return;
    };
    let a = made::org(&store).await;
    let b = made::org(&store).await;
    fill(&database, a).await;
    let mut tenant = database.connect_as(TENANT).await;
    let tables = tables(&mut tenant).await;
    let mut seen = 0;
    for table in &tables {
        let key = if table == "organizations" { "id" } else { "org_id" };
        seen += touched(
            &mut tenant,
            Some(a),
            format!("SELECT 1 FROM {table} WHERE {key} = '{}'", a.as_uuid()),
        )
        .await;
        for org in [Some(b), None] {
            let whole = format!("SELECT 1 FROM {table} WHERE {key} = '{}'", a.as_uuid());
            assert_eq!(
                touched(&mut tenant, org, whole).await,
                0,
                "{table} shows a row of another's to {org:?}"
            );
            let move_here = format!(
                "UPDATE {table} SET {key} = {key} WHERE {key} = '{}' RETURNING 1",
                a.as_uuid()
            );
            assert_eq!(
                touched(&mut tenant, org, move_here).await,
                0,
                "{table} lets {org:?} change another's"
            );
            let delete = format!("DELETE FROM {table} WHERE {key} = '{}' RETURNING 1", a.as_uuid());
            assert_eq!(
                touched(&mut tenant, org, delete).await,
                0,
                "{table} lets {org:?} delete another's"
            );
            let insert = format!("INSERT INTO {table} ({key}) VALUES ('{}') RETURNING 1", a.as_uuid());
            assert_eq!(
                refused(&mut tenant, org, insert).await.as_deref(),
                Some("42501"),
                "{table} lets {org:?} write a row of another's"
            );
        }
    }
    assert!(
        seen >= 16,
        "the owner of the rows sees its own in {seen} tables: else this test shows nothing"
    );
    store.close().await;
}

/// The code that a statement is refused with.
async fn refused(connection: &mut PgConnection, org: Option<OrgId>, statement: String) -> Option<String> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await.expect("begun");
    if let Some(org) = org {
        sqlx::query("SELECT set_config('hookswitch.org_id', $1, true)")
            .bind(org.as_uuid().to_string())
            .execute(&mut *connection)
            .await
            .expect("set");
    }
    let done = sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await;
    sqlx::raw_sql("ROLLBACK").execute(connection).await.expect("undone");
    match done {
        Err(sqlx::Error::Database(error)) => error.code().map(|code| code.to_string()),
        // NOT NULL is looked at after policies: whatever comes later shows that the policy let it
        // pass.
        Err(_) | Ok(_) => None,
    }
}

#[tokio::test]
async fn the_worker_reads_no_ciphertext_of_a_credential_no_body_and_no_audit_entry() {
    let Some((database, store)) = opened().await else {
        return;
    };
    let org = made::org(&store).await;
    store
        .save_credential(
            made::credential(org, Provider::Twilio, "", "s"),
            made::entry(org, "connect"),
        )
        .await
        .expect("saved");
    let mut worker = database.connect_as(WORKER).await;
    for what in [
        "sealed FROM org_credentials",
        "body_sealed FROM events",
        "actor FROM audit_log",
        "envelope FROM dead_events",
    ] {
        assert_eq!(
            refused(&mut worker, None, format!("SELECT {what}")).await.as_deref(),
            Some("42501"),
            "{what}"
        );
    }
    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM org_credentials WHERE has_sealed")
        .fetch_one(&mut worker)
        .await
        .expect("a count");
    assert_eq!(known, 1, "it knows that there is one");
    store.close().await;
}

#[tokio::test]
async fn the_two_control_queries_run_as_they_stand() {
    let Some((database, store)) = opened().await else {
        return;
    };
    let org = made::org(&store).await;
    store
        .save_credential(
            made::credential(org, Provider::Twilio, "", "s"),
            made::entry(org, "connect"),
        )
        .await
        .expect("saved");
    let mut worker = database.connect_as(WORKER).await;
    let rows = sqlx::query(
        "SELECT org_id, provider, is_active, last_verified_at FROM org_credentials ORDER BY created_at DESC",
    )
    .fetch_all(&mut worker)
    .await;
    assert_eq!(rows.expect("runs").len(), 1);
    let rows = sqlx::query(
        "SELECT tablename, rowsecurity FROM pg_tables WHERE tablename IN ('org_credentials', 'assistant_org_mapping')",
    )
    .fetch_all(&mut worker)
    .await
    .expect("runs");
    assert_eq!(rows.iter().filter(|row| row.get("rowsecurity")).count(), 2);
    store.close().await;
}
