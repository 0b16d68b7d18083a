//! What the routing table holds, from Postgres: one read transaction, row by row.

use super::{PostgresStore, Scope, StoreError, failed, keys::data_key, rows::Fields};
use crate::{
    domain::{EndpointId, OrgId, Provider, RouteKey, RouteKind, RouteState, SealedBytes, SecretId, Timestamp},
    store::keys::DataKeyRow,
    store::snapshot::{EndpointRow, OrganisationRow, RouteRow, SecretRow, SnapshotChanges, Snapshots},
};
use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::{PgConnection, postgres::PgRow};

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    VERSION,
    NOW,
    ORGANISATIONS,
    DATA_KEYS,
    ENDPOINTS,
    SECRETS,
    ASSISTANTS,
    NUMBERS,
    ACCOUNTS,
    ALL_ORGANISATIONS,
    ALL_DATA_KEYS,
    ALL_ENDPOINTS,
    ALL_SECRETS,
    ALL_ASSISTANTS,
    ALL_NUMBERS,
    ALL_ACCOUNTS,
];

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
const VERSION: &str = "SELECT version FROM config_version WHERE id = 1";

// Twice each: what changed, and everything without what is not live.
const ORGANISATIONS: &str = concat!("SELECT id, is_active FROM organizations", " WHERE changed_version > $1");
const ALL_ORGANISATIONS: &str = concat!("SELECT id, is_active FROM organizations", " WHERE changed_version > $1");

macro_rules! data_keys {
    () => {
        "SELECT org_id, version, kek_id, wrapped, seals FROM data_keys"
    };
}
const DATA_KEYS: &str = concat!(data_keys!(), " WHERE changed_version > $1");
const ALL_DATA_KEYS: &str = concat!(data_keys!(), " WHERE changed_version > $1");

macro_rules! endpoints {
    () => {
        "SELECT id, org_id, source, is_active, ignored_types FROM endpoints"
    };
}
const ENDPOINTS: &str = concat!(endpoints!(), " WHERE changed_version > $1");
const ALL_ENDPOINTS: &str = concat!(endpoints!(), " WHERE changed_version > $1 AND is_active = true");

macro_rules! secrets {
    () => {
        "SELECT id, org_id, endpoint_id, source, plan, CASE WHEN is_active = true THEN sealed END AS sealed, not_after \
        FROM endpoint_secrets"
    };
}
const SECRETS: &str = concat!(secrets!(), " WHERE changed_version > $1");
const ALL_SECRETS: &str = concat!(
    secrets!(),
    " WHERE changed_version > $1 AND is_active = true AND sealed IS NOT NULL"
);

macro_rules! assistants {
    () => {
        "SELECT org_id, assistant_id, state FROM assistant_org_mapping"
    };
}
const ASSISTANTS: &str = concat!(assistants!(), " WHERE changed_version > $1");
const ALL_ASSISTANTS: &str = concat!(assistants!(), " WHERE changed_version > $1 AND state = 'live'");

macro_rules! numbers {
    () => {
        "SELECT id, org_id, number, provider, account_id, provider_number_id, state FROM phone_numbers"
    };
}
const NUMBERS: &str = concat!(numbers!(), " WHERE changed_version > $1");
const ALL_NUMBERS: &str = concat!(numbers!(), " WHERE changed_version > $1 AND state = 'live'");

/// An account that was saved without being verified claims nothing: else anybody could name
/// another's and take its route from it (invariant 18).
macro_rules! accounts {
    () => {
        "SELECT id, org_id, account_id, (is_active = true AND has_sealed AND last_verified_at IS NOT NULL AND state <> \
        'not_connected') AS is_claim \
         FROM org_credentials"
    };
}
const ACCOUNTS: &str = concat!(
    accounts!(),
    " WHERE changed_version > $1 AND provider = 'twilio' AND name = ''"
);
const ALL_ACCOUNTS: &str = concat!(
    accounts!(),
    " WHERE changed_version > $1 AND provider = 'twilio' AND name = '' AND is_active = true"
);

/// What one read works with: everything, or what changed above a version.
#[derive(Clone, Copy)]
struct Above(i64);

impl Above {
    const fn pick(self, all: &'static str, changed: &'static str) -> &'static str {
        if self.0 == 0 { all } else { changed }
    }

    async fn each<T>(
        self,
        connection: &mut PgConnection,
        [all, changed]: [&'static str; 2],
        into: &mut Vec<T>,
        mut read: impl FnMut(&PgRow, &mut Vec<T>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = sqlx::query(self.pick(all, changed)).bind(self.0).fetch(connection);
        while let Some(row) = rows.try_next().await.map_err(failed("load routes"))? {
            read(&row, into)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Snapshots for PostgresStore {
    async fn load_changes(&self, version: i64) -> Result<SnapshotChanges, StoreError> {
        let mut transaction = self.reader(Scope::Worker).await?;
        let connection = &mut *transaction;
        // The first read fixes what the whole transaction sees.
        let current: i64 = sqlx::query_scalar(VERSION)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("load routes"))?;
        let database_now: i64 = sqlx::query_scalar(NOW)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("load routes"))?;
        let mut changes = SnapshotChanges {
            version: current,
            database_now: Timestamp::from_micros(database_now),
            ..SnapshotChanges::default()
        };
        if current != version {
            let above = Above(version);
            above
                .each(
                    connection,
                    [ALL_ORGANISATIONS, ORGANISATIONS],
                    &mut changes.organisations,
                    organisation,
                )
                .await?;
            above
                .each(
                    connection,
                    [ALL_DATA_KEYS, DATA_KEYS],
                    &mut changes.data_keys,
                    wrapped_key,
                )
                .await?;
            above
                .each(connection, [ALL_ENDPOINTS, ENDPOINTS], &mut changes.endpoints, endpoint)
                .await?;
            above
                .each(connection, [ALL_SECRETS, SECRETS], &mut changes.secrets, secret)
                .await?;
            above
                .each(connection, [ALL_ASSISTANTS, ASSISTANTS], &mut changes.routes, assistant)
                .await?;
            above
                .each(connection, [ALL_NUMBERS, NUMBERS], &mut changes.routes, number)
                .await?;
            above
                .each(connection, [ALL_ACCOUNTS, ACCOUNTS], &mut changes.routes, account)
                .await?;
        }
        transaction.rollback().await.map_err(failed("load routes"))?;
        Ok(changes)
    }
}

fn wrapped_key(row: &PgRow, into: &mut Vec<DataKeyRow>) -> Result<(), StoreError> {
    into.push(data_key(row)?);
    Ok(())
}

fn organisation(row: &PgRow, into: &mut Vec<OrganisationRow>) -> Result<(), StoreError> {
    let row = Fields::of(row, "organizations");
    into.push(OrganisationRow {
        org: row.id("id", OrgId::from_uuid)?,
        is_active: row.get("is_active")?,
    });
    Ok(())
}

fn endpoint(row: &PgRow, into: &mut Vec<EndpointRow>) -> Result<(), StoreError> {
    let row = Fields::of(row, "endpoints");
    into.push(EndpointRow {
        id: row.id("id", EndpointId::from_uuid)?,
        org: row.id("org_id", OrgId::from_uuid)?,
        source: row.parse("source", |text| text.parse().ok())?,
        is_active: row.get("is_active")?,
        ignored_types: row.json("ignored_types")?,
    });
    Ok(())
}

fn secret(row: &PgRow, into: &mut Vec<SecretRow>) -> Result<(), StoreError> {
    let row = Fields::of(row, "endpoint_secrets");
    into.push(SecretRow {
        id: row.id("id", SecretId::from_uuid)?,
        org: row.id("org_id", OrgId::from_uuid)?,
        endpoint: row.id_opt("endpoint_id", EndpointId::from_uuid)?,
        source: row.parse("source", |text| text.parse().ok())?,
        plan: row.get("plan")?,
        sealed: row.get::<Option<Box<[u8]>>>("sealed")?.map(SealedBytes),
        not_after: row.time_opt("not_after")?,
    });
    Ok(())
}

fn assistant(row: &PgRow, into: &mut Vec<RouteRow>) -> Result<(), StoreError> {
    let row = Fields::of(row, "assistant_org_mapping");
    into.push(RouteRow {
        key: RouteKey::new(RouteKind::VapiAssistant, row.get("assistant_id")?),
        org: row.id("org_id", OrgId::from_uuid)?,
        is_live: is_live(row)?,
        slot: None,
    });
    Ok(())
}

fn number(row: &PgRow, into: &mut Vec<RouteRow>) -> Result<(), StoreError> {
    let row = Fields::of(row, "phone_numbers");
    let (org, is_live) = (row.id("org_id", OrgId::from_uuid)?, is_live(row)?);
    let slot = Some(row.id("id", |id| *id.as_bytes())?);
    let number: &str = row.get("number")?;
    // A part that is missing makes a row that only takes out what it claimed before.
    let claim = |kind, value: Option<String>| RouteRow {
        is_live: is_live && value.is_some(),
        key: RouteKey::new(kind, value.as_deref().unwrap_or_default()),
        org,
        slot,
    };
    match row.parse("provider", |text| text.parse().ok())? {
        Provider::Twilio => {
            let account: Option<&str> = row.get("account_id")?;
            into.push(claim(
                RouteKind::TwilioNumber,
                account.map(|account| format!("{account}/{number}")),
            ));
        }
        Provider::Vapi => {
            into.push(claim(RouteKind::VapiNumber, Some(number.to_owned())));
            into.push(claim(RouteKind::VapiPhoneNumber, row.get("provider_number_id")?));
        }
        _ => return Err(row.corrupt("provider")),
    }
    Ok(())
}

fn account(row: &PgRow, into: &mut Vec<RouteRow>) -> Result<(), StoreError> {
    let row = Fields::of(row, "org_credentials");
    let account: Option<&str> = row.get("account_id")?;
    into.push(RouteRow {
        key: RouteKey::new(RouteKind::TwilioAccount, account.unwrap_or_default()),
        org: row.id("org_id", OrgId::from_uuid)?,
        is_live: row.get::<bool>("is_claim")? && account.is_some(),
        slot: Some(row.id("id", |id| *id.as_bytes())?),
    });
    Ok(())
}

fn is_live(row: Fields<'_>) -> Result<bool, StoreError> {
    Ok(RouteState::Live == row.parse("state", |text| text.parse().ok())?)
}
