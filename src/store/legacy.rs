//! The database of the earlier system, for the import. Only `cli` enters.
//!
//! **Invariant:** the source is read in one transaction that the database itself holds to reading.

use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// The tables that are read, each where it exists.
const TABLES: [&str; 3] = ["organizations", "org_credentials", "assistant_org_mapping"];
const BEGIN: &str = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
const IS_THERE: &str = "SELECT to_regclass($1) IS NOT NULL";

/// Why the source could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LegacyReadError {
    #[error("the source database could not be read: {doing}")]
    Database {
        doing: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("the source database has none of the tables {}", TABLES.join(", "))]
    NoTables,
    #[error("a row of the table {table} is no object")]
    Row { table: &'static str },
}

fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> LegacyReadError {
    move |source| LegacyReadError::Database { doing, source }
}

/// Every row of the known tables as an object with the names of its columns, and of its table as
/// `table`.
///
/// # Errors
/// The source does not answer, or has none of the tables.
pub async fn read_legacy(url: &str) -> Result<Vec<Map<String, Value>>, LegacyReadError> {
    let mut source = PgConnection::connect(url).await.map_err(failed("connect"))?;
    sqlx::raw_sql(BEGIN)
        .execute(&mut source)
        .await
        .map_err(failed("begin reading"))?;
    let (mut rows, mut found) = (Vec::new(), false);
    for table in TABLES {
        let is_there: bool = sqlx::query_scalar(IS_THERE)
            .bind(table)
            .fetch_one(&mut source)
            .await
            .map_err(failed("look for its tables"))?;
        if !is_there {
            continue;
        }
        found = true;
        let statement = format!("SELECT to_jsonb(one)::text FROM {table} AS one ORDER BY 1");
        let texts: Vec<String> = sqlx::query_scalar(AssertSqlSafe(statement))
            .fetch_all(&mut source)
            .await
            .map_err(failed("read its rows"))?;
        for text in texts {
            let Ok(Value::Object(mut row)) = serde_json::from_str(&text) else {
                return Err(LegacyReadError::Row { table });
            };
            row.insert("table".to_owned(), table.into());
            rows.push(row);
        }
    }
    // Nothing was changed, so an error on closing changes nothing.
    let _ = source.close().await;
    if found {
        Ok(rows)
    } else {
        Err(LegacyReadError::NoTables)
    }
}
