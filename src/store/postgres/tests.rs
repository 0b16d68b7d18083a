//! Statements prepare on a real server, and errors are sorted by what their caller does next.

mod isolation;
mod worker;

use super::*;
use sqlx::{Connection, Executor, PgConnection, SqlSafeStr};
use std::io::Write;

#[test]
fn only_what_is_about_data_is_called_data() {
    for code in ["22021", "22P02", "22P05", "23502", "23503", "23514", "42501", "54000"] {
        assert!(is_about_data(Some(code)), "{code}");
    }
    // Deadlock, lock and statement timeouts, full disk, too many connections, shutdown, no such
    // table, aborted transaction.
    for code in [
        "40P01", "40001", "55P03", "57014", "53100", "53300", "57P01", "42P01", "25P02", "08006", "",
    ] {
        assert!(!is_about_data(Some(code)), "{code}");
    }
    assert!(!is_about_data(None));
    assert!(matches!(
        failed("look")(sqlx::Error::PoolTimedOut),
        StoreError::Unavailable { doing: "look" }
    ));
}

fn statements() -> Vec<&'static str> {
    let rooms = sql::STATEMENTS
        .iter()
        .flat_map(|(_, statements)| statements.iter().copied());
    rooms
        .chain(sql::ledger::statements())
        .map(|sql| sql.postgres)
        .filter(|text| !text.is_empty())
        .chain(ledger::statements())
        .collect()
}

/// Those that read or change rows.
fn statements_on_rows() -> Vec<&'static str> {
    let is_control = |text: &str| {
        ["SAVEPOINT", "RELEASE", "ROLLBACK"]
            .iter()
            .any(|verb| text.trim_start().starts_with(verb))
    };
    statements().into_iter().filter(|text| !is_control(text)).collect()
}

/// The owner's connection to the server, and a fresh database's URL and name. `None` where there is
/// no server: then the terminal says so, and in CI it is a failure.
async fn database() -> Option<(PgConnection, String, String)> {
    let Some(server) = std::env::var("HOOKSWITCH_TEST_POSTGRES_URL")
        .ok()
        .filter(|url| !url.is_empty())
    else {
        assert!(
            std::env::var("CI").is_err(),
            "HOOKSWITCH_TEST_POSTGRES_URL is not set, so Postgres would not be tested: run scripts/test"
        );
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: statements of Postgres, because HOOKSWITCH_TEST_POSTGRES_URL is not set"
        );
        return None;
    };
    let name = format!("lib_{}", uuid::Uuid::now_v7().simple());
    let (address, _) = server.rsplit_once('/').expect("a URL with a database");
    let url = format!("{address}/{name}");
    let mut owner = PgConnection::connect(&server).await.expect("Postgres answers");
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut owner)
        .await
        .expect("created");
    Some((owner, url, name))
}

#[tokio::test]
async fn every_statement_prepares() {
    let Some((mut owner, url, name)) = database().await else {
        return;
    };
    migrate(&url).await.expect("migrated");
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let all = statements();
    assert!(all.len() > 90, "{} statements", all.len());
    let mut wrong = Vec::new();
    for statement in all {
        if let Err(error) = (&mut connection)
            .prepare(AssertSqlSafe(statement.to_owned()).into_sql_str())
            .await
        {
            wrong.push(format!("{error}\n{statement}"));
        }
    }
    connection.close().await.expect("closes");
    sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
        .execute(&mut owner)
        .await
        .expect("gone");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
