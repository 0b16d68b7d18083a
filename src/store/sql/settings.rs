//! Settings of organisations, a row each.

#[cfg(test)]
use super::Sql;
use super::{Dialect, Reader, Row, SqlStore, Statement, audit};
use crate::{
    domain::{OpeningHours, OrgId, OrgSettings, QuietHours, Zone},
    store::{StoreError, audit::AuditEntry, settings::*},
};
use async_trait::async_trait;
use serde_json::Value;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(FIND),
    Sql::both(INSERT),
    Sql::both(UPDATE),
    Sql::both(CHANGED),
];

const FIND: &str = "
    SELECT org_id, time_zone, opening_hours, quiet_hours, retention_days, version, updated_at
    FROM organization_settings
    WHERE org_id = $1";
const INSERT: &str = "
    INSERT INTO organization_settings (org_id, time_zone, opening_hours, quiet_hours, retention_days, version,
        created_at, updated_at, changed_version)
    VALUES ($1, $2, $3, $4, $5, 1, $6, $6, $7)
    ON CONFLICT (org_id) DO NOTHING";
const UPDATE: &str = "
    UPDATE organization_settings
    SET time_zone = $2, opening_hours = $3, quiet_hours = $4, retention_days = $5, version = version + 1,
        updated_at = $6, changed_version = $7
    WHERE org_id = $1 AND version = $8";

/// Over all organisations, because a worker serves them all.
const CHANGED: &str = "
    SELECT org_id, time_zone, opening_hours, quiet_hours, retention_days, version, updated_at
    FROM organization_settings
    WHERE changed_version > $1";

/// A column that cannot be read is named, and the others count.
fn stored<D: Dialect>(row: Row<'_, D>) -> Result<StoredSettings, StoreError> {
    let row = row.table("organization_settings");
    let mut damaged = Vec::new();
    let settings = OrgSettings {
        time_zone: column("time_zone", row.text_opt("time_zone"), Zone::find, &mut damaged),
        opening_hours: column(
            "opening_hours",
            row.text_opt("opening_hours"),
            |text| OpeningHours::read("", &json(text)?).ok(),
            &mut damaged,
        ),
        quiet_hours: column(
            "quiet_hours",
            row.text_opt("quiet_hours"),
            |text| QuietHours::read("", &json(text)?).ok(),
            &mut damaged,
        ),
        retention_days: column(
            "retention_days",
            row.number_opt::<u32>("retention_days"),
            |days| Some(days).filter(|days| *days > 0),
            &mut damaged,
        ),
    };
    Ok(StoredSettings {
        settings,
        damaged,
        version: row.number("version")?,
        updated_at: Some(row.time("updated_at")?),
    })
}

fn column<S, T>(
    name: &'static str,
    stored: Result<Option<S>, StoreError>,
    read: impl FnOnce(S) -> Option<T>,
    damaged: &mut Vec<&'static str>,
) -> Option<T> {
    let value = match stored {
        Ok(None) => return None,
        Ok(Some(stored)) => read(stored),
        Err(_) => None,
    };
    if value.is_none() {
        damaged.push(name);
    }
    value
}

fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// `org_id`, the four columns, the time and the version of the configuration.
fn write<D: Dialect>(
    doing: &'static str,
    sql: &'static str,
    org: OrgId,
    settings: &OrgSettings,
) -> Result<Statement<D>, StoreError> {
    let text = |value: Option<Value>| value.map(|value| value.to_string());
    let hours = settings.opening_hours.as_ref().map(serde_json::to_value).transpose();
    let quiet = settings.quiet_hours.as_ref().map(serde_json::to_value).transpose();
    let (Ok(hours), Ok(quiet)) = (hours, quiet) else {
        let reason = "a value cannot be written as JSON".into();
        return Err(StoreError::Data { doing, reason });
    };
    Ok(Statement::new(doing, sql)
        .id(org)
        .text_opt(settings.time_zone.as_ref().map(Zone::name))
        .text_opt(text(hours).as_deref())
        .text_opt(text(quiet).as_deref())
        .number_opt(settings.retention_days.map(i64::from)))
}

/// The rows that were changed above a version.
pub(super) async fn load_changed<D: Dialect>(
    reader: &mut Reader<D>,
    version: i64,
    into: &mut Vec<(OrgId, StoredSettings)>,
) -> Result<(), StoreError> {
    Statement::new("load changed settings", CHANGED)
        .number(version)
        .each(reader, |row| {
            // A row that names no organisation concerns nobody.
            if let Ok(org) = row.table("organization_settings").id("org_id") {
                into.push((org, stored(row)?));
            }
            Ok(())
        })
        .await
}

#[async_trait]
impl<S: SqlStore> Settings for S {
    async fn find_settings(&self, org: OrgId) -> Result<StoredSettings, StoreError> {
        let mut reader = self.read(org).await?;
        let found = Statement::new("find the settings", FIND)
            .id(org)
            .optional(&mut reader, stored)
            .await?;
        Ok(found.unwrap_or_default())
    }

    async fn save_settings(
        &self,
        org: OrgId,
        version: i64,
        settings: OrgSettings,
        audit: AuditEntry,
    ) -> Result<StoredSettings, StoreError> {
        const DOING: &str = "save the settings";
        self.configure(org, DOING, move |mut tx, changed_version| {
            Box::pin(async move {
                let sql = if version == 0 { INSERT } else { UPDATE };
                let mut save = write(DOING, sql, org, &settings)?.time(tx.now).number(changed_version);
                if version != 0 {
                    save = save.number(version);
                }
                if save.execute(&mut tx).await? == 0 {
                    return Err(StoreError::Stale { what: "the settings" });
                }
                audit::insert(&mut tx, org, &audit).await?;
                Ok(StoredSettings {
                    settings,
                    damaged: Vec::new(),
                    version: version + 1,
                    updated_at: Some(tx.now),
                })
            })
        })
        .await
    }
}
