//! The differences between the databases: how values go in and come out, and which errors are about
//! data. Each method is a line; one macro writes them for both.

use crate::store::StoreError;
use futures_util::{TryStreamExt, future::BoxFuture};
use sqlx::Database;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// A statement with what is bound to it so far.
pub type Query<D> = sqlx::query::Query<'static, D, <D as Database>::Arguments>;

/// Takes one row after the other; an error ends the statement.
pub type EachRow<'c, D> = &'c mut (dyn FnMut(&<D as Database>::Row) -> Result<(), StoreError> + Send);

/// The text of one statement: the same for both databases, or one for each where they differ in
/// truth. A statement without a text does nothing on that database and returns no row.
#[derive(Clone, Copy, Debug)]
pub struct Sql {
    pub sqlite: &'static str,
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only SQLite is built in"))]
    pub postgres: &'static str,
}

impl Sql {
    pub const fn both(text: &'static str) -> Self {
        Self {
            sqlite: text,
            postgres: text,
        }
    }

    /// A lock or a savepoint that SQLite does not need: it has one writer, and a failed statement
    /// there undoes itself alone.
    pub const fn postgres_only(text: &'static str) -> Self {
        Self {
            sqlite: "",
            postgres: text,
        }
    }
}

/// A value on its way into a statement; `None` is NULL.
pub enum Value<'v> {
    Text(Option<&'v str>),
    Id(Option<Uuid>),
    Number(Option<i64>),
    Bytes(Option<&'v [u8]>),
    Flag(bool),
}

pub trait Dialect: Database {
    /// The text of a statement on this database.
    fn text_of(sql: Sql) -> &'static str;

    fn bind(query: Query<Self>, value: Value<'_>) -> Query<Self>;

    /// How many rows it changed.
    fn execute(query: Query<Self>, on: &mut Self::Connection) -> BoxFuture<'_, Result<u64, sqlx::Error>>;

    /// Hands over row by row, so that a list of a million is never held twice.
    fn each<'c>(
        query: Query<Self>,
        on: &'c mut Self::Connection,
        read: EachRow<'c, Self>,
        doing: &'static str,
    ) -> BoxFuture<'c, Result<(), StoreError>>;

    fn text<'r>(row: &'r Self::Row, column: &str) -> Result<Option<&'r str>, sqlx::Error>;
    fn id(row: &Self::Row, column: &str) -> Result<Option<Uuid>, sqlx::Error>;
    fn number(row: &Self::Row, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn bytes<'r>(row: &'r Self::Row, column: &str) -> Result<Option<&'r [u8]>, sqlx::Error>;
    fn flag(row: &Self::Row, column: &str) -> Result<bool, sqlx::Error>;

    /// Whether the statement failed on its data, so that it fails again. All other errors are the
    /// database's own. A caller that took one for bad data would store good events as dead.
    fn is_about_data(code: Option<&str>) -> bool;
}

macro_rules! dialect {
    ($database:ty, $text:ident, $is_about_data:path) => {
        impl Dialect for $database {
            fn text_of(sql: Sql) -> &'static str {
                sql.$text
            }

            fn bind(query: Query<Self>, value: Value<'_>) -> Query<Self> {
                match value {
                    Value::Text(text) => query.bind(text),
                    Value::Id(id) => query.bind(id),
                    Value::Number(number) => query.bind(number),
                    Value::Bytes(bytes) => query.bind(bytes),
                    Value::Flag(flag) => query.bind(flag),
                }
            }

            fn execute(query: Query<Self>, on: &mut Self::Connection) -> BoxFuture<'_, Result<u64, sqlx::Error>> {
                Box::pin(async move { query.execute(on).await.map(|done| done.rows_affected()) })
            }

            fn each<'c>(
                query: Query<Self>,
                on: &'c mut Self::Connection,
                read: EachRow<'c, Self>,
                doing: &'static str,
            ) -> BoxFuture<'c, Result<(), StoreError>> {
                Box::pin(async move {
                    let mut rows = query.fetch(on);
                    while let Some(row) = rows.try_next().await.map_err(failed::<Self>(doing))? {
                        read(&row)?;
                    }
                    Ok(())
                })
            }

            fn text<'r>(row: &'r Self::Row, column: &str) -> Result<Option<&'r str>, sqlx::Error> {
                sqlx::Row::try_get(row, column)
            }

            fn id(row: &Self::Row, column: &str) -> Result<Option<Uuid>, sqlx::Error> {
                sqlx::Row::try_get(row, column)
            }

            fn number(row: &Self::Row, column: &str) -> Result<Option<i64>, sqlx::Error> {
                sqlx::Row::try_get(row, column)
            }

            fn bytes<'r>(row: &'r Self::Row, column: &str) -> Result<Option<&'r [u8]>, sqlx::Error> {
                sqlx::Row::try_get(row, column)
            }

            fn flag(row: &Self::Row, column: &str) -> Result<bool, sqlx::Error> {
                sqlx::Row::try_get(row, column)
            }

            fn is_about_data(code: Option<&str>) -> bool {
                $is_about_data(code)
            }
        }
    };
}

dialect!(sqlx::Sqlite, sqlite, crate::store::sqlite::is_about_data);
#[cfg(feature = "postgres")]
dialect!(sqlx::Postgres, postgres, crate::store::postgres::is_about_data);

/// Maps a database error, with the statement's purpose. For `map_err`.
pub fn failed<D: Dialect>(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |error| match error {
        sqlx::Error::Database(e) if e.is_unique_violation() => StoreError::Conflict { what: doing },
        // The message alone: a detail would show the row.
        sqlx::Error::Database(e) if D::is_about_data(e.code().as_deref()) => StoreError::Data {
            doing,
            reason: e.message().into(),
        },
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnNotFound(_) => StoreError::Data {
            doing,
            reason: "a column does not have the expected type".into(),
        },
        error => {
            log_cause(doing, &error);
            StoreError::Unavailable { doing }
        }
    }
}

const LOG_EVERY: Duration = Duration::from_secs(10);

/// Logs the cause of a database error, at most once in 10 seconds. A database that is away fails
/// every caller, and their own lines carry no cause.
fn log_cause(doing: &'static str, error: &sqlx::Error) {
    static LOGGED_AT: Mutex<Option<Instant>> = Mutex::new(None);
    let mut logged_at = LOGGED_AT.lock().unwrap_or_else(PoisonError::into_inner);
    if logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
        *logged_at = Some(Instant::now());
        tracing::warn!(because = %error, "The database could not {doing}");
    }
}
