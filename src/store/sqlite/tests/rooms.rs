//! Statements, settings, damaged rows.

use super::*;
use sqlx::{Executor, SqlStr, Statement};

const ROOMS: &[(&str, &[&str])] = &[
    ("audit", audit::STATEMENTS),
    ("credentials", credentials::STATEMENTS),
    ("endpoints", endpoints::STATEMENTS),
    ("history", history::STATEMENTS),
    ("keys", keys::STATEMENTS),
    ("organisations", organisations::STATEMENTS),
    ("rejections", rejections::STATEMENTS),
    ("routes", routes::STATEMENTS),
    ("rules", rules::STATEMENTS),
];

#[tokio::test]
async fn every_statement_prepares_binds_its_organisation_and_scans_no_ledger() {
    // Over all organisations on purpose: operators, gauges, refreshes of memory, the ring, and the proof that a claim is stale.
    const OVER_ALL: &[&str] = &[
        "FROM organizations",
        "INTO organizations",
        "rejections",
        "config_version",
        "changed_version > ?1",
        "SELECT org_id FROM assistant_org_mapping",
        "FROM turns t",
        "SELECT state, count(*)",
        "SELECT min(first_sent_at)",
    ];
    let scratch = Scratch::new();
    let store = scratch.open().await;
    for (room, statements) in ROOMS {
        for statement in *statements {
            let prepared = (&mut *store.readers().acquire().await.expect("a reader")).prepare(SqlStr::from_static(statement)).await;
            prepared.unwrap_or_else(|error| panic!("{room}: {error}\n{statement}")).sql();
            assert!(statement.contains("org_id") || OVER_ALL.iter().any(|part| statement.contains(part)), "{room}: binds no organisation\n{statement}");
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"))).fetch_all(store.readers()).await.expect("a plan");
            for step in plan {
                let step: String = step.get("detail");
                let walks_a_table = step.starts_with("SCAN ")
                    && !step.contains(" USING ")
                    && !["turns", "config_version", "(subquery", "t"].iter().any(|t| step.ends_with(t) || step.contains("(subquery"));
                assert!(!walks_a_table, "{room}: {step}\n{statement}");
            }
        }
    }
}

#[test]
fn every_file_of_statements_lists_them() {
    for (room, statements) in ROOMS {
        let text = std::fs::read_to_string(format!("{}/src/store/sqlite/{room}.rs", env!("CARGO_MANIFEST_DIR"))).expect("the file");
        let written = text.lines().filter(|line| line.starts_with("const ") && line.contains(": &str =")).count();
        assert_eq!(written, statements.len(), "{room}: a statement is missing in STATEMENTS");
    }
}
