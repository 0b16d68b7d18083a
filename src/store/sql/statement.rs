//! A statement with its values, and the rows that it returns.

use super::{
    Connected,
    dialect::{Dialect, Query, Sql, Value, failed},
};
use crate::{
    domain::{Timestamp, Word},
    store::StoreError,
};
use serde::{Serialize, de::DeserializeOwned};
use std::str::FromStr;
use tracing::warn;
use uuid::Uuid;

/// One statement and its values so far. `$1` is the first value that is added.
pub struct Statement<D: Dialect> {
    doing: &'static str,
    query: Query<D>,
    is_empty: bool,
}

impl<D: Dialect> Statement<D> {
    /// `doing` completes "the database refused to …".
    pub fn new(doing: &'static str, sql: impl Into<Sql>) -> Self {
        let text = D::text_of(sql.into());
        Self {
            doing,
            query: sqlx::query(text),
            is_empty: text.is_empty(),
        }
    }

    fn bind(self, value: Value<'_>) -> Self {
        Self {
            query: D::bind(self.query, value),
            ..self
        }
    }

    pub fn id(self, id: impl Into<Uuid>) -> Self {
        self.bind(Value::Id(Some(id.into())))
    }

    pub fn id_opt(self, id: Option<impl Into<Uuid>>) -> Self {
        self.bind(Value::Id(id.map(Into::into)))
    }

    pub fn text(self, text: &str) -> Self {
        self.bind(Value::Text(Some(text)))
    }

    pub fn text_opt(self, text: Option<&str>) -> Self {
        self.bind(Value::Text(text))
    }

    pub fn number(self, number: impl Into<i64>) -> Self {
        self.bind(Value::Number(Some(number.into())))
    }

    pub fn number_opt(self, number: Option<i64>) -> Self {
        self.bind(Value::Number(number))
    }

    /// A count, which no database holds above `i64::MAX`.
    pub fn count(self, count: u64) -> Self {
        self.number(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub fn time(self, time: Timestamp) -> Self {
        self.number(time.as_micros())
    }

    pub fn time_opt(self, time: Option<Timestamp>) -> Self {
        self.bind(Value::Number(time.map(Timestamp::as_micros)))
    }

    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.bind(Value::Bytes(Some(bytes)))
    }

    pub fn bytes_opt(self, bytes: Option<&[u8]>) -> Self {
        self.bind(Value::Bytes(bytes))
    }

    pub fn flag(self, flag: bool) -> Self {
        self.bind(Value::Flag(flag))
    }

    /// # Errors
    /// [`StoreError::Data`] where it cannot be written as JSON.
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> Result<Self, StoreError> {
        let text = serde_json::to_string(value).map_err(|_| StoreError::Data {
            doing: self.doing,
            reason: "a value cannot be written as JSON".into(),
        })?;
        Ok(self.text(&text))
    }

    /// How many rows it changed.
    ///
    /// # Errors
    /// See [`failed`].
    pub async fn execute<C: Connected<Db = D>>(self, on: &mut C) -> Result<u64, StoreError> {
        if self.is_empty {
            return Ok(0);
        }
        D::execute(self.query, on.connection())
            .await
            .map_err(failed::<D>(self.doing))
    }

    /// Hands each row to `read`.
    ///
    /// # Errors
    /// See [`failed`]; and the first error of `read`.
    pub async fn each<C, F>(self, on: &mut C, mut read: F) -> Result<(), StoreError>
    where
        C: Connected<Db = D>,
        F: FnMut(Row<'_, D>) -> Result<(), StoreError> + Send,
    {
        if self.is_empty {
            return Ok(());
        }
        D::each(self.query, on.connection(), &mut |row| read(Row::of(row)), self.doing).await
    }

    /// All rows, read.
    ///
    /// # Errors
    /// See [`Statement::each`].
    pub async fn all<C, T, F>(self, on: &mut C, mut read: F) -> Result<Vec<T>, StoreError>
    where
        C: Connected<Db = D>,
        T: Send,
        F: FnMut(Row<'_, D>) -> Result<T, StoreError> + Send,
    {
        let mut all = Vec::new();
        self.each(on, |row| {
            all.push(read(row)?);
            Ok(())
        })
        .await?;
        Ok(all)
    }

    /// As [`Statement::each`], for reads over all organisations: a row that cannot be read is one
    /// organisation's, and is left out (invariant 15).
    ///
    /// # Errors
    /// See [`failed`].
    pub async fn each_readable<C, F>(self, on: &mut C, mut read: F) -> Result<(), StoreError>
    where
        C: Connected<Db = D>,
        F: FnMut(Row<'_, D>) -> Result<(), StoreError> + Send,
    {
        let doing = self.doing;
        self.each(on, |row| {
            if let Err(error) = read(row) {
                warn!(%error, "A row is left out, to {doing}");
            }
            Ok(())
        })
        .await
    }

    /// As [`Statement::all`], without the rows that cannot be read.
    ///
    /// # Errors
    /// See [`failed`].
    pub async fn readable<C, T, F>(self, on: &mut C, mut read: F) -> Result<Vec<T>, StoreError>
    where
        C: Connected<Db = D>,
        T: Send,
        F: FnMut(Row<'_, D>) -> Result<T, StoreError> + Send,
    {
        let mut all = Vec::new();
        self.each_readable(on, |row| {
            all.push(read(row)?);
            Ok(())
        })
        .await?;
        Ok(all)
    }

    /// The first row, read, or `None` where there is none.
    ///
    /// # Errors
    /// See [`Statement::each`].
    pub async fn optional<C, T, F>(self, on: &mut C, mut read: F) -> Result<Option<T>, StoreError>
    where
        C: Connected<Db = D>,
        T: Send,
        F: FnMut(Row<'_, D>) -> Result<T, StoreError> + Send,
    {
        let mut first = None;
        self.each(on, |row| {
            if first.is_none() {
                first = Some(read(row)?);
            }
            Ok(())
        })
        .await?;
        Ok(first)
    }

    /// The row of a statement that always returns one.
    ///
    /// # Errors
    /// See [`Statement::each`].
    pub async fn one<C, T, F>(self, on: &mut C, read: F) -> Result<T, StoreError>
    where
        C: Connected<Db = D>,
        T: Send,
        F: FnMut(Row<'_, D>) -> Result<T, StoreError> + Send,
    {
        let doing = self.doing;
        self.optional(on, read).await?.ok_or(StoreError::Unavailable { doing })
    }
}

/// One row. Every read that fails is [`StoreError::Corrupt`] with the table and the column, never
/// with the value.
pub struct Row<'r, D: Dialect> {
    row: &'r D::Row,
    table: &'static str,
}

impl<D: Dialect> Clone for Row<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Dialect> Copy for Row<'_, D> {}

impl<'r, D: Dialect> Row<'r, D> {
    pub const fn of(row: &'r D::Row) -> Self {
        Self {
            row,
            table: "of a joined row",
        }
    }

    /// Names the table for errors.
    pub const fn table(self, table: &'static str) -> Self {
        Self { table, ..self }
    }

    pub const fn corrupt(self, column: &'static str) -> StoreError {
        StoreError::Corrupt {
            table: self.table,
            column,
        }
    }

    fn there<T>(self, column: &'static str, value: Result<Option<T>, sqlx::Error>) -> Result<T, StoreError> {
        value.ok().flatten().ok_or(self.corrupt(column))
    }

    fn maybe<T>(self, column: &'static str, value: Result<Option<T>, sqlx::Error>) -> Result<Option<T>, StoreError> {
        value.map_err(|_| self.corrupt(column))
    }

    pub fn text(self, column: &'static str) -> Result<&'r str, StoreError> {
        self.there(column, D::text(self.row, column))
    }

    pub fn text_opt(self, column: &'static str) -> Result<Option<&'r str>, StoreError> {
        self.maybe(column, D::text(self.row, column))
    }

    /// Text in memory of its own.
    pub fn string(self, column: &'static str) -> Result<String, StoreError> {
        self.text(column).map(str::to_owned)
    }

    pub fn string_opt(self, column: &'static str) -> Result<Option<String>, StoreError> {
        Ok(self.text_opt(column)?.map(str::to_owned))
    }

    /// Text of a closed set.
    pub fn parse<T: FromStr>(self, column: &'static str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|_| self.corrupt(column))
    }

    pub fn parse_opt<T: FromStr>(self, column: &'static str) -> Result<Option<T>, StoreError> {
        let text = self.text_opt(column)?;
        text.map(|text| text.parse().map_err(|_| self.corrupt(column)))
            .transpose()
    }

    /// Text of a set that grows. `None` also for what only a newer release knows: the row is shown
    /// without it, so that a roll back hides no list.
    pub fn known_opt<T: FromStr>(self, column: &'static str) -> Result<Option<T>, StoreError> {
        Ok(self.text_opt(column)?.and_then(|text| text.parse().ok()))
    }

    /// Text of a set that grows, with the text itself where only a newer release knows it.
    pub fn word<T: FromStr + Copy>(self, column: &'static str) -> Result<Word<T>, StoreError> {
        self.text(column).map(Word::read)
    }

    pub fn json<T: DeserializeOwned>(self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(self.text(column)?).map_err(|_| self.corrupt(column))
    }

    pub fn id<T: From<Uuid>>(self, column: &'static str) -> Result<T, StoreError> {
        self.there(column, D::id(self.row, column)).map(T::from)
    }

    pub fn id_opt<T: From<Uuid>>(self, column: &'static str) -> Result<Option<T>, StoreError> {
        Ok(self.maybe(column, D::id(self.row, column))?.map(T::from))
    }

    /// An integer, which the domain may keep in a narrower type.
    pub fn number<T: TryFrom<i64>>(self, column: &'static str) -> Result<T, StoreError> {
        let number = self.there(column, D::number(self.row, column))?;
        T::try_from(number).map_err(|_| self.corrupt(column))
    }

    pub fn number_opt<T: TryFrom<i64>>(self, column: &'static str) -> Result<Option<T>, StoreError> {
        let number = self.maybe(column, D::number(self.row, column))?;
        number
            .map(|number| T::try_from(number).map_err(|_| self.corrupt(column)))
            .transpose()
    }

    pub fn time(self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.number(column).map(Timestamp::from_micros)
    }

    pub fn time_opt(self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.number_opt(column)?.map(Timestamp::from_micros))
    }

    pub fn bytes(self, column: &'static str) -> Result<&'r [u8], StoreError> {
        self.there(column, D::bytes(self.row, column))
    }

    pub fn bytes_opt(self, column: &'static str) -> Result<Option<&'r [u8]>, StoreError> {
        self.maybe(column, D::bytes(self.row, column))
    }

    pub fn flag(self, column: &'static str) -> Result<bool, StoreError> {
        D::flag(self.row, column).map_err(|_| self.corrupt(column))
    }
}
