//! The migrations of a database, as part of the binary: a binary and its schema cannot be parted.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use std::borrow::Cow;

/// Version, description and SQL of a migration.
pub(super) type Step = (i64, &'static str, &'static str);

/// Applies the steps in order, once each.
pub(super) fn migrator(steps: &[Step]) -> Migrator {
    let migrations = steps.iter().map(|&(version, description, sql)| {
        Migration::new(
            version,
            Cow::Borrowed(description),
            MigrationType::Simple,
            sqlx::SqlStr::from_static(sql),
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // A newer release has added rows of its own; its schema works for this one too.
    migrator.set_ignore_missing(true);
    migrator
}
