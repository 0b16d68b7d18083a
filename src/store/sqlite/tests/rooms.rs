//! Statements, settings, damaged rows.

use super::*;
use crate::{domain::OrgId, store::snapshot::Snapshots};
use sqlx::{Executor, SqlSafeStr, SqlStr, Statement};

/// The tables that a plan may walk: tables of a row an organisation or of one row, subqueries with
/// a limit, and the one row of a statement without a table of its own.
const SMALL: &[&str] = &[
    "CONSTANT ROW",
    "turns",
    "pauses",
    "p",
    "config_version",
    "t",
    "stuck",
    "oldest",
    "held",
    "dead",
    "page",
    // A row a process, a row a wrapped key, and those of waiting events.
    "instances",
    "recoveries",
    "data_keys",
    "held_events",
    "held_parts",
    "dead_events",
    "quarantine",
    "due",
];

#[tokio::test]
async fn every_statement_prepares_binds_its_organisation_and_scans_no_ledger() {
    // Over all organisations on purpose: operators, gauges, refreshes of memory, the ring, and the
    // proof that a claim is stale.
    const OVER_ALL: &[&str] = &[
        "FROM organizations",
        "INTO organizations",
        "rejections",
        "config_version",
        "changed_version > $1",
        "SELECT org_id FROM assistant_org_mapping",
        "FROM turns t",
        "SELECT state, count(*)",
        "SELECT min(first_sent_at)",
        "FROM oauth_consents
    WHERE id = $1",
        "FROM dead_events",
        "FROM held_events",
        // Of the installation alone.
        "instances",
        "FROM turns WHERE",
        "FROM pauses",
        "recoveries",
        "max(id) AS id FROM events",
        "WHERE state = 'running'",
        "quarantine",
        "SELECT provider FROM org_credentials",
        "SELECT org_id FROM actions WHERE id = $1",
        "primary_kek",
        "    FROM data_keys
    GROUP BY kek_id",
        // Deletion by age.
        "FROM (SELECT id, received_at FROM events",
        "FROM actions WHERE event_id IN",
        "DELETE FROM actions",
        "DELETE FROM events",
        "DELETE FROM bulk_jobs
    WHERE ended_at",
        "DELETE FROM audit_log",
        "DELETE FROM action_days",
    ];
    let scratch = Scratch::new();
    let store = scratch.open().await;
    for (room, statements) in sql::STATEMENTS {
        for statement in statements.iter().map(|sql| sql.sqlite).filter(|text| !text.is_empty()) {
            let prepared = (&mut *store.readers.acquire().await.expect("a reader"))
                .prepare(SqlStr::from_static(statement))
                .await;
            prepared
                .unwrap_or_else(|error| panic!("{room}: {error}\n{statement}"))
                .sql();
            assert!(
                statement.contains("org_id") || OVER_ALL.iter().any(|part| statement.contains(part)),
                "{room}: binds no organisation\n{statement}"
            );
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
                .fetch_all(&store.readers)
                .await
                .expect("a plan");
            // A new parent makes SQLite look for its children, because a trigger may write more
            // than one row: once for an organisation, over rules that have a partial index only.
            let is_new_parent = statement.contains("INTO organizations");
            for step in plan {
                let step: String = step.get("detail");
                if is_new_parent && step == "SCAN rules" {
                    continue;
                }
                let walks_a_table = step.starts_with("SCAN ")
                    && !statement.contains(" NOT INDEXED ") // the whole snapshot, on purpose
                    && !step.contains(" USING ")
                    && !step.contains(" VIRTUAL TABLE ") // the ids of a page, as JSON
                    && !step.contains("(subquery")
                    && !SMALL.iter().any(|small| step.ends_with(small));
                assert!(!walks_a_table, "{room}: {step}\n{statement}");
            }
        }
    }
}

#[test]
fn every_file_of_statements_lists_them() {
    for (room, statements) in sql::STATEMENTS {
        let text = std::fs::read_to_string(format!("{}/src/store/sql/{room}.rs", env!("CARGO_MANIFEST_DIR")))
            .expect("the file");
        let named = |kind: &str| {
            let is_one = |line: &&str| {
                line.trim_start_matches("pub ")
                    .trim_start_matches("pub(super) ")
                    .starts_with("const ")
                    && line.contains(kind)
            };
            text.lines().filter(is_one).count()
        };
        // A constant of `Rows` is two statements; `DOING` is none.
        let written = named(": &str =") + named(": Sql =") + 2 * named(": Rows =") - named(" DOING: &str =");
        assert_eq!(
            written,
            statements.len(),
            "{room}: a statement is missing in STATEMENTS"
        );
    }
}

/// The text of each constant that is one literal: what the rooms that list nothing hold.
fn literals(text: &str) -> Vec<String> {
    let constants = text
        .split("const ")
        .skip(1)
        .filter_map(|rest| rest.split_once(": &str = \""))
        .filter(|(name, _)| name.len() < 40);
    let bodies = constants.filter_map(|(_, body)| body.split_once("\";").map(|(literal, _)| literal));
    bodies
        .map(|literal| {
            literal
                .split("\\\n")
                .map(str::trim_start)
                .collect::<String>()
                .replace("\\\"", "\"")
        })
        .collect()
}

#[tokio::test]
async fn statements_of_every_file_prepare() {
    let scratch = Scratch::new();
    let store = scratch.open().await;
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/sqlite"))];
    let mut prepared = 0;
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
        {
            if file.is_dir() {
                folders.extend((!file.ends_with("tests")).then_some(file));
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("a source file");
            let is_sql = |text: &String| {
                ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "]
                    .iter()
                    .any(|verb| text.trim_start().starts_with(verb))
            };
            // The first lines of statements that continue in a macro are no statements.
            for statement in literals(&text).into_iter().filter(is_sql) {
                let result = (&mut *store.readers.acquire().await.expect("a reader"))
                    .prepare(AssertSqlSafe(statement.clone()).into_sql_str())
                    .await;
                result
                    .unwrap_or_else(|error| panic!("{}: {error}\n{statement}", file.display()))
                    .sql();
                prepared += 1;
            }
        }
    }
    assert!(
        prepared > 10,
        "only {prepared} were found: has the way they are written changed?"
    );
    store.close().await;
}

#[tokio::test]
async fn durability_is_as_it_was_asked_for_and_readers_cannot_write() {
    let scratch = Scratch::new();
    let store = scratch.open().await;
    let pragmas = store
        .write(Access::ALL_ORGS, "read pragmas", |tx| {
            Box::pin(async move {
                let mut found = Vec::new();
                for pragma in [
                    "PRAGMA synchronous",
                    "PRAGMA foreign_keys",
                    "PRAGMA journal_size_limit",
                    "PRAGMA mmap_size",
                ] {
                    let value: Option<i64> = sqlx::query_scalar(pragma)
                        .fetch_optional(&mut *tx.connection)
                        .await
                        .map_err(failed("read a pragma"))?;
                    found.push(value.unwrap_or_default());
                }
                let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
                    .fetch_one(&mut *tx.connection)
                    .await
                    .map_err(failed("read a pragma"))?;
                let version: String = sqlx::query_scalar("SELECT sqlite_version()")
                    .fetch_one(tx.connection)
                    .await
                    .map_err(failed("read the version"))?;
                Ok((found, mode, version))
            })
        })
        .await
        .expect("pragmas");
    assert_eq!(
        (&pragmas.0[..], pragmas.1.as_str()),
        (&[2, 1, 67_108_864, 0][..], "wal")
    );
    assert!(!is_too_old(&pragmas.2), "{}", pragmas.2);
    let written = sqlx::query("UPDATE config_version SET version = 9")
        .execute(&store.readers)
        .await
        .expect_err("a reader cannot write");
    assert!(matches!(failed("write")(written), StoreError::Unavailable { .. }));
    assert_eq!(store.config_version().await.expect("a version"), 1);
    let orphan = execute(
        &store,
        "INSERT INTO rules (id, org_id, spec, created_at, updated_at, changed_version) VALUES \
        (x'01', x'02', '{}', 1, 1, 1)",
    )
    .await;
    assert!(
        matches!(orphan, Err(StoreError::Data { .. })),
        "foreign keys hold: {orphan:?}"
    );
    store.close().await;
    assert!(
        !scratch.0.join("store.db-wal").exists(),
        "closing folds the write-ahead log into the file"
    );
}

#[test]
fn versions_that_lose_writes_are_known() {
    for (version, is_old) in [
        ("3.51.2", true),
        ("3.51.3", false),
        ("3.52.0", false),
        ("4.0", false),
        ("3.6.21", true),
        ("3.510.0", false),
        ("", true),
        ("x", true),
    ] {
        assert_eq!(is_too_old(version), is_old, "{version}");
    }
}

#[test]
fn only_what_is_about_data_is_called_data() {
    for code in ["1", "18", "19", "20", "25", "275", "787", "1299", "3091"] {
        assert!(is_about_data(Some(code)), "{code}");
    }
    // Busy, snapshot, full, I/O with its kinds, no memory, damaged, cannot open, read only, not a
    // database.
    for code in [
        "5", "517", "13", "10", "266", "522", "778", "1034", "4874", "7", "11", "14", "8", "264", "26",
    ] {
        assert!(!is_about_data(Some(code)), "{code}");
    }
    assert!(!is_about_data(None) && !is_about_data(Some("?")));
    assert!(matches!(
        failed("look")(sqlx::Error::PoolTimedOut),
        StoreError::Unavailable { doing: "look" }
    ));
}

#[tokio::test]
async fn a_full_disk_is_not_bad_data_and_passes() {
    let scratch = Scratch::new();
    let store = scratch.open().await;
    execute(&store, "CREATE TABLE t (x BLOB NOT NULL) STRICT")
        .await
        .expect("a table");
    // SQLite says FULL at its page limit as it does at the disk's end.
    let page_limit = |statement: &'static str| {
        store.write(Access::ALL_ORGS, "limit", move |tx| {
            Box::pin(async move {
                sqlx::query(statement)
                    .fetch_all(tx.connection)
                    .await
                    .map(drop)
                    .map_err(failed("limit"))
            })
        })
    };
    page_limit("PRAGMA max_page_count = 1").await.expect("limited");
    let full = execute(&store, "INSERT INTO t (x) VALUES (zeroblob(1000000))").await;
    assert!(matches!(full, Err(StoreError::Unavailable { .. })), "{full:?}");
    assert_eq!(store.config_version().await.expect("reading goes on"), 1);
    page_limit("PRAGMA max_page_count = 1000000").await.expect("room again");
    assert_eq!(
        execute(&store, "INSERT INTO t (x) VALUES (zeroblob(1000000))")
            .await
            .expect("writing goes on"),
        1
    );
    store.close().await;
}

#[tokio::test]
async fn a_damaged_row_names_its_table_and_column() {
    let scratch = Scratch::new();
    let store = scratch.open().await;
    let org = crate::domain::OrgId::from_uuid(uuid::Uuid::from_u128(1));
    let id = "x'00000000000000000000000000000001'";
    let run = |statement: String| {
        store.write(Access::ALL_ORGS, "damage", move |tx| {
            Box::pin(async move {
                sqlx::query(AssertSqlSafe(statement))
                    .execute(tx.connection)
                    .await
                    .map(drop)
                    .map_err(failed("damage"))
            })
        })
    };
    run(format!(
        "INSERT INTO organizations (id, name, created_at, updated_at, changed_version) VALUES ({id}, 'a', 1, 1, 1)"
    ))
    .await
    .expect("written");
    run(format!(
        "INSERT INTO rules (id, org_id, spec, created_at, updated_at, changed_version) VALUES ({id}, {id}, \
        '{{\"name\"', 1, 1, 2)"
    ))
    .await
    .expect("written");
    run(format!(
        "INSERT INTO org_credentials (id, org_id, provider, state, created_at, updated_at, changed_version) VALUES \
        ({id}, {id}, 'fax', 'connected', 1, 1, 2)"
    ))
    .await
    .expect("written");
    run(format!(
        "INSERT INTO actions (id, org_id, event_id, rule_id, rule_name, kind, provider, state, idempotency_key, \
        due_at, expires_at, http_status, created_at, updated_at) \
         VALUES ({id}, {id}, x'02', {id}, 'r', 'http.post', 'http', 'dead', 'k', 1, 1, 99999, 1, 1)"
    ))
    .await
    .expect("written");
    let at = |error: StoreError| match error {
        StoreError::Corrupt { table, column } => format!("{table}.{column}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(store.list_rules(org, None, 9).await.expect("readable ones"), []);
    let unreadable = store.list_unreadable_rules(org).await.expect("named");
    assert_eq!((unreadable[0].org, unreadable[0].column), (org, "spec"));
    // Rules of everybody are loaded together: a damaged one is named beside the others.
    let changes = store.load_rule_changes(0).await.expect("loaded");
    assert_eq!(
        changes
            .unreadable
            .iter()
            .map(|rule| (rule.org, rule.column))
            .collect::<Vec<_>>(),
        [(org, "spec")]
    );
    assert_eq!(
        store.list_credentials(org).await.expect("the others"),
        [],
        "of a provider that only a newer release knows"
    );
    run("UPDATE org_credentials SET provider = 'twilio', state = 'odd'".into())
        .await
        .expect("written");
    assert_eq!(
        at(store.list_credentials(org).await.expect_err("damaged")),
        "org_credentials.state"
    );
    assert_eq!(
        at(store
            .list_actions(org, crate::store::history::ActionFilter::default(), None, 9)
            .await
            .expect_err("damaged")),
        "actions.event_id"
    );
    run(format!("UPDATE actions SET event_id = {id}"))
        .await
        .expect("mended");
    let number = store
        .find_action(org, crate::domain::ActionId::from_uuid(uuid::Uuid::from_u128(1)))
        .await
        .expect_err("damaged");
    assert_eq!(at(number), "actions.http_status");
    run("UPDATE organizations SET is_active = 7, id = x'0102'".into())
        .await
        .expect_err("foreign keys hold its id");
    assert_eq!(
        store.find_organisation(org).await.expect("a look").map(|o| o.name),
        Some("a".into()),
        "other rows are read as ever"
    );
    store.close().await;
}

#[tokio::test]
async fn a_start_loads_every_page_of_assistants_and_no_line_passes_for_two() {
    let scratch = Scratch::new();
    let store = scratch.open().await;
    // One more than two pages; the last id would be a row of organisation 9 if its line break
    // counted.
    for statement in [
        "INSERT INTO organizations (id, name, created_at, updated_at, changed_version) VALUES (zeroblob(16), 'a', 1, \
        1, 1)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8193) \
         INSERT INTO assistant_org_mapping (id, org_id, assistant_id, state, created_at, updated_at, changed_version) \
         SELECT unhex(printf('%032x', i)), zeroblob(16), 'assistant-' || i, 'live', 1, 1, 1 FROM n",
        "INSERT INTO assistant_org_mapping (id, org_id, assistant_id, state, created_at, updated_at, changed_version) \
         VALUES (unhex(printf('%032x', 9000)), zeroblob(16), 'a' || char(10) || printf('%032x', 9) || 'theirs', \
         'live', 1, 1, 1), \
         (unhex(printf('%032x', 9001)), zeroblob(16), 'not-live', 'pending', 1, 1, 1)",
    ] {
        execute(&store, statement).await.expect("written");
    }
    let routes = store.load_changes(0).await.expect("loaded").routes;
    assert!(
        routes
            .iter()
            .all(|row| row.org == OrgId::from_uuid(uuid::Uuid::nil()) && row.is_live)
    );
    let found: std::collections::HashSet<_> = routes.iter().map(|row| &*row.key.value).collect();
    let expected: Vec<_> = (1..=8193).map(|i| format!("assistant-{i}")).collect();
    assert_eq!(
        (routes.len(), found),
        (8193, expected.iter().map(String::as_str).collect())
    );
}
