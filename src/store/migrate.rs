//! The migrations of a database, as part of the binary: a binary and its schema cannot be parted.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use std::borrow::Cow;

pub(super) fn step(version: i64, description: &'static str, sql: &'static str) -> Migration {
    Migration::new(
        version,
        Cow::Borrowed(description),
        MigrationType::Simple,
        sqlx::SqlStr::from_static(sql),
        false,
    )
}

/// Applies the steps in order, once each.
pub(super) fn migrator(steps: Vec<Migration>) -> Migrator {
    let mut migrator = Migrator::with_migrations(steps);
    // A newer release has added rows of its own; its schema works for this one too.
    migrator.set_ignore_missing(true);
    migrator
}
