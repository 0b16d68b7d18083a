//! Rows to domain types: a bad value names its table and column, never itself.

use super::StoreError;
use crate::domain::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

/// One row of a known table. Every read that fails is [`StoreError::Corrupt`] with that table and
/// the column.
#[derive(Clone, Copy)]
pub(super) struct Fields<'r> {
    row: &'r PgRow,
    table: &'static str,
}

impl<'r> Fields<'r> {
    pub(super) const fn of(row: &'r PgRow, table: &'static str) -> Self {
        Self { row, table }
    }

    pub(super) const fn corrupt(self, column: &'static str) -> StoreError {
        StoreError::Corrupt {
            table: self.table,
            column,
        }
    }

    pub(super) fn get<T>(self, column: &'static str) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.row.try_get(column).map_err(|_| self.corrupt(column))
    }

    pub(super) fn time(self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.get::<i64>(column).map(Timestamp::from_micros)
    }

    pub(super) fn time_opt(self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp::from_micros))
    }

    /// Text of a closed set.
    pub(super) fn parse<T>(self, column: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        parse(self.get::<&str>(column)?).ok_or(self.corrupt(column))
    }

    pub(super) fn parse_opt<T>(
        self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        self.get::<Option<&str>>(column)?
            .map(|text| parse(text).ok_or(self.corrupt(column)))
            .transpose()
    }

    pub(super) fn json<T: DeserializeOwned>(self, column: &'static str) -> Result<T, StoreError> {
        self.parse(column, |text| serde_json::from_str(text).ok())
    }

    /// An integer that the domain keeps in a narrower type.
    pub(super) fn number<T: TryFrom<i64>>(self, column: &'static str) -> Result<T, StoreError> {
        T::try_from(self.get::<i64>(column)?).map_err(|_| self.corrupt(column))
    }

    pub(super) fn number_opt<T: TryFrom<i64>>(self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.get::<Option<i64>>(column)?
            .map(|n| T::try_from(n).map_err(|_| self.corrupt(column)))
            .transpose()
    }

    pub(super) fn id<T>(self, column: &'static str, from: impl FnOnce(Uuid) -> T) -> Result<T, StoreError> {
        self.get::<Uuid>(column).map(from)
    }

    pub(super) fn id_opt<T>(self, column: &'static str, from: impl FnOnce(Uuid) -> T) -> Result<Option<T>, StoreError> {
        Ok(self.get::<Option<Uuid>>(column)?.map(from))
    }
}
