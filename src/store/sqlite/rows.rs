//! Rows to domain types: a bad value names its table and column.

use super::{StoreError, failed};
use crate::domain::Timestamp;
use sqlx::{Row, sqlite::SqliteRow};

/// A column as `T`, or an error that says which read failed.
pub(super) fn get<'r, T>(row: &'r SqliteRow, column: &'static str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(failed(column))
}

pub(super) fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, StoreError> {
    get::<i64>(row, column).map(Timestamp::from_micros)
}

pub(super) fn time_opt(row: &SqliteRow, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_micros))
}

/// Parses a text column whose values are a closed set, or JSON, or an id.
pub(super) fn parse<T>(row: &SqliteRow, table: &'static str, column: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
    parse(get::<&str>(row, column)?).ok_or(StoreError::Corrupt { table, column })
}

/// A 16-byte id column.
pub(super) fn id<T, E>(row: &SqliteRow, table: &'static str, column: &'static str, from: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<T, StoreError> {
    from(get::<&[u8]>(row, column)?).map_err(|_| StoreError::Corrupt { table, column })
}
