//! Every statement of the registry, run by the tenant's role as organisation B with the ids of
//! organisation A: no row of A's comes back, and none changes.
//!
//! Nothing here names a statement: parameters are made from their types, and rows from the
//! catalogue of columns, so that a new statement or table is tried without a word. Each statement
//! is also run as A. Those that find no row even then (pages, counts, keys that are taken) are
//! printed; that the others find theirs shows that the ids lead somewhere.

use super::statements_on_rows;
use crate::store::postgres::migrate;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, ValueRef, postgres::PgRow};
use std::{collections::BTreeSet, fmt::Write};
use uuid::Uuid;

/// Texts of the row of each table: an enum's column gets each in turn, so that a condition on a
/// state holds once.
pub(super) const STATES: [&str; 9] = [
    "",
    "pending",
    "running",
    "waiting",
    "unknown",
    "parked",
    "dead",
    "live",
    "connected",
];

/// Of ten statements, how many have to find rows of their own organisation.
const REACHED_OF_TEN: usize = 4;

pub(super) async fn run(connection: &mut PgConnection, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await
}

async fn texts(connection: &mut PgConnection, sql: String) -> Vec<(String, String)> {
    let rows = run(connection, sql).await.expect("the catalogue");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// A value of this type that a row of the organisation holds.
pub(super) fn literal(kind: &str, org: Uuid, text: &str, number: i64, truth: bool) -> String {
    if let Some(kind) = kind.strip_suffix("[]") {
        return format!("ARRAY[{}]::{kind}[]", literal(kind, org, text, number, truth));
    }
    match kind {
        "uuid" => format!("'{org}'::uuid"),
        "text" if text.is_empty() => format!("'{org}'"),
        "text" => format!("'{text}'"),
        "bigint" | "integer" | "smallint" => format!("{number}::{kind}"),
        "boolean" => truth.to_string(),
        "bytea" => format!("'\\x{}'::bytea", hex::encode(org.as_bytes())),
        "double precision" => "1".to_owned(),
        "json" | "jsonb" => format!("'[\"{org}\"]'::{kind}"),
        other => panic!("a parameter or a column is {other}: say here what its value is"),
    }
}

/// Tables with the columns of each.
pub(super) async fn columns(connection: &mut PgConnection) -> Vec<(String, Vec<(String, String)>)> {
    let tables = texts(
        connection,
        "SELECT relname::text, '' FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace \
         AND relname NOT IN ('_sqlx_migrations', 'config_version') ORDER BY 1"
            .to_owned(),
    )
    .await;
    let mut all = Vec::new();
    for (table, _) in tables {
        let columns = format!(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = '{table}'::regclass \
             AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
        );
        let columns = texts(connection, columns).await;
        // A table of the worker's alone has no organisation; `postgres_isolation` lists those.
        if table == "organizations" || columns.iter().any(|(name, _)| name == "org_id") {
            all.push((table, columns));
        }
    }
    all
}

/// Prepares each statement as `s0`, `s1` and so on, and returns the types of its parameters.
pub(super) async fn kinds_of(connection: &mut PgConnection, all: &[&str]) -> Vec<Vec<String>> {
    let mut kinds = Vec::new();
    for (index, statement) in all.iter().enumerate() {
        run(connection, format!("PREPARE s{index} AS {statement}"))
            .await
            .unwrap_or_else(|error| panic!("{error}: {statement}"));
        let types = format!(
            "SELECT array_to_string(parameter_types, ' ; '), '' FROM pg_prepared_statements WHERE name = 's{index}'"
        );
        let types = texts(connection, types).await.remove(0).0;
        let types = types.split(" ; ").filter(|kind| !kind.is_empty()).map(str::to_owned);
        kinds.push(types.collect());
    }
    kinds
}

/// One row of the organisation in each table, past foreign keys and policies; states are `state`.
pub(super) async fn fill(owner: &mut PgConnection, tables: &[(String, Vec<(String, String)>)], org: Uuid, state: &str) {
    // The owner is under its own policies. As the tables' owner it may lift them for a moment;
    // neither role may.
    let force = |word: &str| {
        let all = tables
            .iter()
            .map(|(table, _)| format!("ALTER TABLE {table} {word} ROW LEVEL SECURITY;"));
        all.collect::<String>()
    };
    let mut all = force("NO FORCE");
    // Rows that others refer to are deleted last and made first.
    for (table, _) in tables.iter().rev().filter(|(table, _)| table != "organizations") {
        write!(all, "DELETE FROM {table} WHERE org_id = '{org}';").expect("to a string");
    }
    let is_first = |table: &str| table == "organizations";
    let ordered = tables.iter().filter(|(table, _)| is_first(table));
    for (table, columns) in ordered.chain(tables.iter().filter(|(table, _)| !is_first(table))) {
        let names: Vec<&str> = columns.iter().map(|(name, _)| &**name).collect();
        let values: Vec<String> = columns
            .iter()
            .map(|(name, kind)| {
                let text = if matches!(&**name, "state" | "status") {
                    state
                } else {
                    ""
                };
                literal(kind, org, text, 1, !name.starts_with("is_d"))
            })
            .collect();
        write!(
            all,
            "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT DO NOTHING;",
            names.join(", "),
            values.join(", ")
        )
        .expect("to a string");
    }
    all.push_str(&force("FORCE"));
    run(owner, all).await.expect("one row of each table");
}

/// The rows of an organisation as it sees them, as one text; `readable` are the tables that the
/// role may read.
async fn seen(tenant: &mut PgConnection, readable: &[String], org: Uuid) -> String {
    let looks: Vec<String> = readable
        .iter()
        .map(|table| format!("SELECT '{table}' || md5(coalesce(string_agg(t::text, '|'), '')) FROM {table} t"))
        .collect();
    let all = format!(
        "SELECT set_config('hookswitch.org_id', '{org}', true); {}",
        looks.join(" UNION ALL ")
    );
    let rows = run(tenant, all).await.expect("a look");
    rows.iter().map(|row| row.get::<&str, _>(0)).collect()
}

/// Runs a statement as `org` with the ids of `of`, and undoes it. Returns whether a row of `of`
/// came back or changed.
async fn touched(
    tenant: &mut PgConnection,
    readable: &[String],
    (org, of): (Uuid, Uuid),
    before: &str,
    execute: String,
) -> bool {
    run(
        tenant,
        format!("BEGIN; SELECT set_config('hookswitch.org_id', '{org}', true)"),
    )
    .await
    .expect("begun");
    let did = run(tenant, execute).await;
    let touched = match did {
        // A privilege, a policy, a value that is none: nothing came back, and nothing stays.
        Err(_) => false,
        Ok(rows) => {
            let (text, bytes) = (of.to_string(), hex::encode(of.as_bytes()));
            let came_back = rows.iter().any(|row| {
                (0..row.len()).any(|index| {
                    let value = row.try_get_raw(index).expect("a value");
                    !value.is_null()
                        && value
                            .as_str()
                            .is_ok_and(|value| value.contains(&text) || value.contains(&bytes))
                })
            });
            came_back || seen(tenant, readable, of).await != before
        }
    };
    run(tenant, "ROLLBACK".to_owned()).await.expect("undone");
    touched
}

pub(super) fn beginning(statement: &str) -> String {
    let words: Vec<&str> = statement.split_whitespace().collect();
    let mut text = words.join(" ");
    text.truncate(text.char_indices().nth(80).map_or(text.len(), |(at, _)| at));
    text
}

#[tokio::test]
async fn every_statement_as_another_organisation_reads_and_changes_nothing() {
    let Some((mut owner, url, name)) = super::database().await else {
        return;
    };
    migrate(&url).await.expect("migrated");
    let mut admin = PgConnection::connect(&url).await.expect("connects");
    let mut tenant = PgConnection::connect(&url).await.expect("connects");
    run(&mut tenant, "SET ROLE hookswitch_tenant".to_owned())
        .await
        .expect("the role");
    let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
    let tables = columns(&mut admin).await;
    let readable: Vec<String> = texts(
        &mut tenant,
        "SELECT relname::text, '' FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace \
         AND has_table_privilege(oid, 'SELECT') AND relname NOT IN ('_sqlx_migrations', 'config_version')"
            .to_owned(),
    )
    .await
    .into_iter()
    .map(|(table, _)| table)
    .collect();
    assert!(readable.len() > 10, "{readable:?}");
    let all: Vec<&str> = statements_on_rows();
    let kinds = kinds_of(&mut tenant, &all).await;
    fill(&mut admin, &tables, b, "").await;
    let (mut reached, mut leaks) = (BTreeSet::new(), Vec::new());
    for state in STATES {
        fill(&mut admin, &tables, a, state).await;
        run(&mut tenant, "BEGIN".to_owned()).await.expect("begun");
        let before = seen(&mut tenant, &readable, a).await;
        run(&mut tenant, "ROLLBACK".to_owned()).await.expect("undone");
        for (index, statement) in all.iter().enumerate() {
            // Values at, below and above what the rows hold.
            for (text, number, truth) in [("", 1, true), (state, 1, true), ("", 100, false), ("", 0, true)] {
                let values: Vec<String> = kinds[index]
                    .iter()
                    .map(|kind| literal(kind, a, text, number, truth))
                    .collect();
                let execute = match &values[..] {
                    [] => format!("EXECUTE s{index}"),
                    values => format!("EXECUTE s{index}({})", values.join(", ")),
                };
                if touched(&mut tenant, &readable, (b, a), &before, execute.clone()).await {
                    leaks.push(format!("{execute}\n{statement}"));
                }
                if !reached.contains(&index) && touched(&mut tenant, &readable, (a, a), &before, execute).await {
                    reached.insert(index);
                }
            }
        }
    }
    for connection in [admin, tenant] {
        connection.close().await.expect("closes");
    }
    run(&mut owner, format!("DROP DATABASE {name} WITH (FORCE)"))
        .await
        .expect("gone");
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n\n"));
    let unreached: Vec<String> = all
        .iter()
        .enumerate()
        .filter(|(index, _)| !reached.contains(index))
        .map(|(_, statement)| beginning(statement))
        .collect();
    println!(
        "these found no row as their own organisation:\n{}",
        unreached.join("\n")
    );
    assert!(
        reached.len() * 10 >= all.len() * REACHED_OF_TEN,
        "{} of {} statements find a row of their own organisation: too few for this test to show anything",
        reached.len(),
        all.len()
    );
}
