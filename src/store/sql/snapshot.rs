//! The rows of the routing table, in one read transaction, row by row.

use super::{Access, Dialect, READ_VERSION, Reader, Row, Sql, SqlStore, Statement, keys::data_key, raise};
use crate::{
    domain::{OrgId, Provider, RouteKey, RouteKind, RouteState, SealedBytes, Source},
    store::{
        StoreError,
        routes::PLATFORM,
        snapshot::{EndpointRow, OrganisationRow, RouteRow, SecretRow, SnapshotChanges, Snapshots},
    },
};
use async_trait::async_trait;
use tracing::warn;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    ORGANISATIONS.all,
    ORGANISATIONS.changed,
    DATA_KEYS.all,
    DATA_KEYS.changed,
    ENDPOINTS.all,
    ENDPOINTS.changed,
    SECRETS.all,
    SECRETS.changed,
    ASSISTANTS.all,
    ASSISTANTS.changed,
    ASSISTANTS_IN_PAGES,
    PLATFORM_ASSISTANTS,
    NUMBERS.all,
    NUMBERS.changed,
    ACCOUNTS.all,
    ACCOUNTS.changed,
    DATABASE_CLOCK,
];

const DOING: &str = "load routes";

/// Two statements for one table. Changed rows are read by the index on `changed_version`. A full
/// load reads live rows only. On SQLite it walks the table (`NOT INDEXED`), which is several times
/// faster than a look-up for each entry of that index.
#[derive(Clone, Copy)]
struct Rows {
    all: Sql,
    changed: Sql,
}

macro_rules! rows {
    (select: $sqlite:literal | $postgres:literal, of: $own:literal, live: $live:literal $(,)?) => {
        Rows {
            all: Sql {
                sqlite: concat!($sqlite, " NOT INDEXED WHERE changed_version > $1", $own, $live),
                postgres: concat!($postgres, " WHERE changed_version > $1", $own, $live),
            },
            changed: Sql {
                sqlite: concat!($sqlite, " WHERE changed_version > $1", $own),
                postgres: concat!($postgres, " WHERE changed_version > $1", $own),
            },
        }
    };
    (select: $both:literal, live: $live:literal $(,)?) => {
        rows!(select: $both | $both, of: "", live: $live)
    };
}

const ORGANISATIONS: Rows = rows!(
    select: "
    SELECT id, is_active
    FROM organizations",
    live: "",
);
const DATA_KEYS: Rows = rows!(
    select: "
    SELECT org_id, version, kek_id, wrapped, seals
    FROM data_keys",
    live: "",
);
const ENDPOINTS: Rows = rows!(
    select: "
    SELECT id, org_id, source, is_active, ignored_types
    FROM endpoints",
    live: " AND is_active = true",
);
const SECRETS: Rows = rows!(
    select: "
    SELECT id, org_id, endpoint_id, source, plan, CASE WHEN is_active = true THEN sealed END AS sealed, not_after
    FROM endpoint_secrets",
    live: " AND is_active = true AND sealed IS NOT NULL",
);
const ASSISTANTS: Rows = rows!(
    select: "
    SELECT org_id, assistant_id, state, managed_by
    FROM assistant_org_mapping",
    live: " AND state = 'live'",
);
const NUMBERS: Rows = rows!(
    select: "
    SELECT id, org_id, number, provider, account_id, provider_number_id, state, managed_by
    FROM phone_numbers",
    live: " AND state = 'live'",
);
/// An account that was saved without verification claims nothing. Otherwise an organisation could
/// name another's account and take its route (invariant 18). On Postgres the worker's role may not
/// read the ciphertext, only whether there is one.
const ACCOUNTS: Rows = rows!(
    select: "
    SELECT id, org_id, account_id, (is_active = true AND sealed IS NOT NULL AND last_verified_at IS NOT NULL
        AND state <> 'not_connected') AS is_claim
    FROM org_credentials" | "
    SELECT id, org_id, account_id, (is_active = true AND has_sealed AND last_verified_at IS NOT NULL
        AND state <> 'not_connected') AS is_claim
    FROM org_credentials",
    of: " AND provider = 'twilio' AND name = ''",
    live: " AND is_active = true",
);

/// All live assistants of SQLite, many in one row, because each row costs several times its
/// content. A line is the organisation's id in hex, then the assistant's id. The admin API refuses
/// an id with a line break. Such an id could pass for another organisation's line, so this
/// statement leaves it out. Postgres sends rows in one stream and needs no pages.
const ASSISTANTS_IN_PAGES: Sql = Sql {
    sqlite: "
    SELECT max(id) AS last, group_concat(hex(org_id) || assistant_id, char(10)) AS lines
    FROM (
        SELECT id, org_id, assistant_id
        FROM assistant_org_mapping NOT INDEXED
        WHERE id > $1 AND state = 'live' AND instr(assistant_id, char(10)) = 0
        ORDER BY id
        LIMIT 4096)",
    postgres: "",
};
/// The pages do not tell these few from the others.
const PLATFORM_ASSISTANTS: Sql = Sql {
    sqlite: "
    SELECT org_id, assistant_id, state, managed_by
    FROM assistant_org_mapping INDEXED BY assistant_platform
    WHERE managed_by = 'platform' AND state = 'live'",
    postgres: "",
};
/// An embedded database has no clock of its own, so its time is this process's.
const DATABASE_CLOCK: Sql = Sql {
    sqlite: "",
    postgres: "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now",
};

/// One load: everything, or the changes above a version.
struct Load<D: Dialect> {
    reader: Reader<D>,
    above: i64,
}

impl<D: Dialect> Load<D> {
    async fn rows<F>(&mut self, rows: Rows, read: F) -> Result<(), StoreError>
    where
        F: FnMut(Row<'_, D>) -> Result<(), StoreError> + Send,
    {
        Statement::new(DOING, if self.above == 0 { rows.all } else { rows.changed })
            .number(self.above)
            .each_readable(&mut self.reader, read)
            .await
    }

    async fn assistants(&mut self, into: &mut Vec<RouteRow>) -> Result<(), StoreError> {
        if self.above > 0 || D::text_of(ASSISTANTS_IN_PAGES).is_empty() {
            return self.rows(ASSISTANTS, |row| push(into, assistant(row))).await;
        }
        let mut after: Vec<u8> = Vec::new();
        loop {
            let last = Statement::new(DOING, ASSISTANTS_IN_PAGES)
                .bytes(&after)
                .one(&mut self.reader, |row| page_of_assistants(row, into))
                .await?;
            match last {
                Some(last) => after = last.into_bytes().to_vec(),
                None => break,
            }
        }
        Statement::new(DOING, PLATFORM_ASSISTANTS)
            .each_readable(&mut self.reader, |row| push(into, assistant(row)))
            .await
    }
}

#[async_trait]
impl<S: SqlStore> Snapshots for S {
    async fn load_changes(&self, version: i64) -> Result<SnapshotChanges, StoreError> {
        let mut reader = self.read_moment(Access::ALL_ORGS).await?;
        // The first read fixes the moment that the whole transaction sees.
        let current = Statement::new(DOING, READ_VERSION)
            .one(&mut reader, |row| row.table("config_version").number("version"))
            .await?;
        raise(self.known_version(), Some(current));
        let database_now = Statement::new(DOING, DATABASE_CLOCK)
            .optional(&mut reader, |row| row.time("now"))
            .await?
            .unwrap_or_else(|| self.clock().now());
        let mut changes = SnapshotChanges {
            version: current,
            database_now,
            ..SnapshotChanges::default()
        };
        let mut load = Load { reader, above: version };
        if current != version {
            load.rows(ORGANISATIONS, |row| push(&mut changes.organisations, organisation(row)))
                .await?;
            load.rows(DATA_KEYS, |row| push(&mut changes.data_keys, data_key(row)))
                .await?;
            load.rows(ENDPOINTS, |row| push(&mut changes.endpoints, endpoint(row)))
                .await?;
            load.rows(SECRETS, |row| push(&mut changes.secrets, secret(row)))
                .await?;
            load.assistants(&mut changes.routes).await?;
            load.rows(NUMBERS, |row| number(row, &mut changes.routes)).await?;
            load.rows(ACCOUNTS, |row| push(&mut changes.routes, account(row)))
                .await?;
        }
        load.reader.end(DOING).await?;
        Ok(changes)
    }
}

fn push<T>(into: &mut Vec<T>, read: Result<T, StoreError>) -> Result<(), StoreError> {
    into.push(read?);
    Ok(())
}

/// What takes a row out, where the rest of it cannot be read: one that said something else before
/// must not go on.
fn or_gone<T>(org: OrgId, gone: T, read: Result<T, StoreError>) -> T {
    read.unwrap_or_else(|error| {
        warn!(org.id = %org, %error, "A row counts as deleted until it is mended");
        gone
    })
}

fn organisation<D: Dialect>(row: Row<'_, D>) -> Result<OrganisationRow, StoreError> {
    let row = row.table("organizations");
    let org = row.id("id")?;
    let is_active = or_gone(org, false, row.flag("is_active"));
    Ok(OrganisationRow { org, is_active })
}

fn endpoint<D: Dialect>(row: Row<'_, D>) -> Result<EndpointRow, StoreError> {
    let row = row.table("endpoints");
    let (id, org) = (row.id("id")?, row.id("org_id")?);
    let gone = EndpointRow {
        id,
        org,
        source: Source::Standard,
        is_active: false,
        ignored_types: Vec::new(),
    };
    let read = || {
        Ok(EndpointRow {
            id,
            org,
            source: row.parse("source")?,
            is_active: row.flag("is_active")?,
            ignored_types: row.json("ignored_types")?,
        })
    };
    Ok(or_gone(org, gone, read()))
}

fn secret<D: Dialect>(row: Row<'_, D>) -> Result<SecretRow, StoreError> {
    let row = row.table("endpoint_secrets");
    let (id, org) = (row.id("id")?, row.id("org_id")?);
    let gone = SecretRow {
        id,
        org,
        endpoint: None,
        source: Source::Standard,
        plan: String::new(),
        sealed: None,
        not_after: None,
    };
    let read = || {
        Ok(SecretRow {
            id,
            org,
            endpoint: row.id_opt("endpoint_id")?,
            source: row.parse("source")?,
            plan: row.string("plan")?,
            sealed: row.bytes_opt("sealed")?.map(|sealed| SealedBytes(sealed.into())),
            not_after: row.time_opt("not_after")?,
        })
    };
    Ok(or_gone(org, gone, read()))
}

fn assistant<D: Dialect>(row: Row<'_, D>) -> Result<RouteRow, StoreError> {
    let row = row.table("assistant_org_mapping");
    let org = row.id("org_id")?;
    Ok(RouteRow {
        key: RouteKey::new(RouteKind::VapiAssistant, row.text("assistant_id")?),
        org,
        is_live: is_live(row, org),
        is_platform_managed: is_platform_managed(row)?,
        slot: None,
    })
}

/// Reads a page and returns the id of its last row; `None` for an empty page.
fn page_of_assistants<D: Dialect>(row: Row<'_, D>, into: &mut Vec<RouteRow>) -> Result<Option<Uuid>, StoreError> {
    let row = row.table("assistant_org_mapping");
    let last = row.id_opt("last")?;
    if last.is_some() {
        for line in row.text("lines")?.split('\n') {
            match assistant_of_line(row, line) {
                Ok(route) => into.push(route),
                Err(error) => warn!(%error, "An assistant is left out of memory"),
            }
        }
    }
    Ok(last)
}

fn assistant_of_line<D: Dialect>(row: Row<'_, D>, line: &str) -> Result<RouteRow, StoreError> {
    let (org, assistant) = line.split_at_checked(32).ok_or(row.corrupt("org_id"))?;
    let org = Uuid::try_parse(org).map_err(|_| row.corrupt("org_id"))?;
    Ok(RouteRow {
        key: RouteKey::new(RouteKind::VapiAssistant, assistant),
        org: OrgId::from_uuid(org),
        is_live: true,
        is_platform_managed: false,
        slot: None,
    })
}

fn number<D: Dialect>(row: Row<'_, D>, into: &mut Vec<RouteRow>) -> Result<(), StoreError> {
    let row = row.table("phone_numbers");
    let org = row.id("org_id")?;
    let (is_live, is_platform_managed) = (is_live(row, org), is_platform_managed(row)?);
    let slot = Some(row.id::<Uuid>("id")?.into_bytes());
    let number = row.text("number")?;
    // A missing part makes a row that only takes out the former claim.
    let claim = |kind, value: Option<&str>| RouteRow {
        is_live: is_live && value.is_some(),
        is_platform_managed,
        key: RouteKey::new(kind, value.unwrap_or_default()),
        org,
        slot,
    };
    match or_gone(org, None, row.parse("provider").map(Some)) {
        Some(Provider::Twilio) => {
            let account = row.text_opt("account_id")?;
            let value = account.map(|account| format!("{account}/{number}"));
            into.push(claim(RouteKind::TwilioNumber, value.as_deref()));
        }
        Some(Provider::Vapi) => {
            into.push(claim(RouteKind::VapiNumber, Some(number)));
            into.push(claim(RouteKind::VapiPhoneNumber, row.text_opt("provider_number_id")?));
        }
        _ => {
            let kinds = [
                RouteKind::TwilioNumber,
                RouteKind::VapiNumber,
                RouteKind::VapiPhoneNumber,
            ];
            into.extend(kinds.map(|kind| claim(kind, None)));
        }
    }
    Ok(())
}

fn account<D: Dialect>(row: Row<'_, D>) -> Result<RouteRow, StoreError> {
    let row = row.table("org_credentials");
    let account = row.text_opt("account_id")?;
    Ok(RouteRow {
        key: RouteKey::new(RouteKind::TwilioAccount, account.unwrap_or_default()),
        org: row.id("org_id")?,
        is_live: row.flag("is_claim")? && account.is_some(),
        is_platform_managed: false,
        slot: Some(row.id::<Uuid>("id")?.into_bytes()),
    })
}

fn is_live<D: Dialect>(row: Row<'_, D>, org: OrgId) -> bool {
    let state = row.parse("state").map(|state: RouteState| state == RouteState::Live);
    or_gone(org, false, state)
}

fn is_platform_managed<D: Dialect>(row: Row<'_, D>) -> Result<bool, StoreError> {
    Ok(row.text_opt("managed_by")? == Some(PLATFORM))
}
