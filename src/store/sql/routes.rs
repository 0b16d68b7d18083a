//! Claims to external ids. A proof releases the former live claim in the same transaction. So the
//! unique indexes over live claims never fail; they guard against a mistake here.

use super::{Access, Dialect, Row, Sql, SqlStore, Statement, Transaction, audit, can_be_stored};
use crate::{
    domain::{AssistantRole, OrgId, Provider, RouteState},
    store::{
        StoreError,
        audit::{ACTOR_SYSTEM, AuditEntry, Changes},
        routes::*,
    },
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(DISPLACE_ASSISTANT),
    Sql::both(SAVE_ASSISTANT),
    Sql::both(LIST_ASSISTANTS),
    Sql::both(FIND_ASSISTANT),
    Sql::both(FIND_ASSISTANT_HOLDER),
    Sql::both(RELEASE_ASSISTANT),
    Sql::both(DISPLACE_NUMBER),
    SAVE_NUMBER,
    Sql::both(LIST_NUMBERS),
    Sql::both(FIND_NUMBER),
    Sql::both(FIND_NUMBER_HOLDER),
    Sql::both(RELEASE_NUMBER),
];

/// Changes other organisations' rows on purpose: a live claim of the same id, which the proof has
/// shown to be stale (invariant 18).
const DISPLACE_ASSISTANT: &str = "
    UPDATE assistant_org_mapping
    SET state = 'released', version = version + 1, updated_at = $3, changed_version = $4
    WHERE assistant_id = $2 AND state = 'live' AND org_id <> $1
    RETURNING org_id";
const SAVE_ASSISTANT: &str = "
    INSERT INTO assistant_org_mapping
        (id, org_id, assistant_id, role, name, state, proof, proven_at, version, created_at, updated_at,
         changed_version, managed_by)
    VALUES ($1, $2, $3, $4, $5, 'live', $6, $7, 1, $8, $9, $10, $11)
    ON CONFLICT (org_id, assistant_id) DO UPDATE
    SET role = excluded.role, name = excluded.name, state = 'live', proof = excluded.proof,
        proven_at = excluded.proven_at, version = assistant_org_mapping.version + 1,
        updated_at = excluded.updated_at, changed_version = excluded.changed_version,
        managed_by = excluded.managed_by";
const LIST_ASSISTANTS: &str = "
    SELECT org_id, assistant_id, role, name, state, proof, proven_at, managed_by, version, created_at
    FROM assistant_org_mapping
    WHERE org_id = $1 AND assistant_id > $2 AND state IN ('live', 'pending')
    ORDER BY assistant_id
    LIMIT $3";
const FIND_ASSISTANT: &str = "
    SELECT org_id, assistant_id, role, name, state, proof, proven_at, managed_by, version, created_at
    FROM assistant_org_mapping
    WHERE org_id = $1 AND assistant_id = $2 AND state IN ('live', 'pending')";
/// Over all organisations: finds the holder.
const FIND_ASSISTANT_HOLDER: &str = "
    SELECT org_id FROM assistant_org_mapping
    WHERE assistant_id = $1 AND state = 'live'";
const RELEASE_ASSISTANT: &str = "
    UPDATE assistant_org_mapping
    SET state = 'released', version = version + 1, updated_at = $3, changed_version = $4
    WHERE org_id = $1 AND assistant_id = $2 AND state IN ('live', 'pending')";

/// Live rows whose route the proven claim takes. They have the same number and provider. For Twilio
/// the account is the same too; for Vapi the same id also counts. The organisation's own other rows
/// for that number, of an account that it has left, are displaced as well. The row that is about to
/// be saved stays.
const DISPLACE_NUMBER: &str = "
    UPDATE phone_numbers
    SET state = 'released', version = version + 1, updated_at = $6, changed_version = $7
    WHERE provider = $3 AND state = 'live'
    AND NOT (org_id = $1 AND number = $2
        AND (provider <> 'twilio' OR coalesce(account_id, '') = coalesce($4, '')))
    AND ((number = $2
            AND (provider <> 'twilio' OR org_id = $1 OR coalesce(account_id, '') = coalesce($4, '')))
        OR (provider <> 'twilio' AND provider_number_id = $5))
    RETURNING org_id, number";
macro_rules! save_number {
    ($coalesce:literal) => {
        concat!(
            "
    INSERT INTO phone_numbers
        (id, org_id, number, provider, account_id, provider_number_id, state, proof, proven_at, version, created_at,
         updated_at, changed_version, managed_by, sms_at_vapi, sms_read_at)
    VALUES ($1, $2, $3, $4, $5, $6, 'live', $7, $8, 1, $9, $10, $11, $12, $13, $14)
    ON CONFLICT (org_id, number, provider, (CASE provider WHEN 'twilio' THEN ",
            $coalesce,
            "(account_id, '') ELSE '' END))
    DO UPDATE
    SET account_id = excluded.account_id, provider_number_id = excluded.provider_number_id, state = 'live',
        proof = excluded.proof, proven_at = excluded.proven_at, version = phone_numbers.version + 1,
        updated_at = excluded.updated_at, changed_version = excluded.changed_version,
        managed_by = excluded.managed_by,
        sms_at_vapi = coalesce(excluded.sms_at_vapi, phone_numbers.sms_at_vapi),
        sms_read_at = coalesce(excluded.sms_read_at, phone_numbers.sms_read_at)"
        )
    };
}
/// Each database names the index of the conflict in its own way.
const SAVE_NUMBER: Sql = Sql {
    sqlite: save_number!("ifnull"),
    postgres: save_number!("coalesce"),
};
const LIST_NUMBERS: &str = "
    SELECT org_id, number, provider, account_id, provider_number_id, state, proof, proven_at, managed_by, version,
        created_at, sms_at_vapi, sms_read_at
    FROM phone_numbers
    WHERE org_id = $1 AND number > $2 AND state IN ('live', 'pending')
    ORDER BY number, provider
    LIMIT $3";
const FIND_NUMBER: &str = "
    SELECT org_id, number, provider, account_id, provider_number_id, state, proof, proven_at, managed_by, version,
        created_at, sms_at_vapi, sms_read_at
    FROM phone_numbers
    WHERE org_id = $1 AND number = $2 AND state IN ('live', 'pending')
        AND (CAST($3 AS text) IS NULL OR provider = $3)
    ORDER BY (state = 'live') DESC, provider
    LIMIT 1";
/// Over all organisations: finds the holder. A Twilio number routes with its account, a Vapi number
/// by its id.
const FIND_NUMBER_HOLDER: &str = "
    SELECT org_id FROM phone_numbers
    WHERE provider = $1 AND state = 'live'
    AND ((number = $2 AND (provider <> 'twilio' OR coalesce(account_id, '') = coalesce($3, '')))
        OR (provider <> 'twilio' AND provider_number_id = $4))
    LIMIT 1";
const RELEASE_NUMBER: &str = "
    UPDATE phone_numbers
    SET state = 'released', version = version + 1, updated_at = $3, changed_version = $4
    WHERE org_id = $1 AND number = $2 AND state IN ('live', 'pending')
        AND (CAST($5 AS text) IS NULL OR provider = $5)";

fn assistant<D: Dialect>(row: Row<'_, D>) -> Result<AssistantClaim, StoreError> {
    let row = row.table("assistant_org_mapping");
    Ok(AssistantClaim {
        org: row.id("org_id")?,
        assistant_id: row.string("assistant_id")?,
        role: row.parse_opt("role")?,
        name: row.string_opt("name")?,
        state: row.parse("state")?,
        proof: row.parse_opt("proof")?,
        proven_at: row.time_opt("proven_at")?,
        is_platform_managed: row.text_opt("managed_by")? == Some(PLATFORM),
        version: row.number("version")?,
        created_at: row.time("created_at")?,
    })
}

fn number<D: Dialect>(row: Row<'_, D>) -> Result<NumberClaim, StoreError> {
    let row = row.table("phone_numbers");
    Ok(NumberClaim {
        org: row.id("org_id")?,
        number: row.string("number")?,
        provider: row.parse("provider")?,
        account_id: row.string_opt("account_id")?,
        provider_number_id: row.string_opt("provider_number_id")?,
        state: row.parse("state")?,
        proof: row.parse_opt("proof")?,
        proven_at: row.time_opt("proven_at")?,
        is_platform_managed: row.text_opt("managed_by")? == Some(PLATFORM),
        sms_at_vapi: row.known_opt("sms_at_vapi")?.zip(row.time_opt("sms_read_at")?),
        version: row.number("version")?,
        created_at: row.time("created_at")?,
    })
}

fn state_changes(before: RouteState, after: RouteState) -> Changes {
    Changes::default().value("state", before.as_str(), after.as_str())
}

fn managed_by(is_platform: bool) -> Option<&'static str> {
    is_platform.then_some(PLATFORM)
}

fn assistant_changes(before: Option<&AssistantClaim>, after: &AssistantClaim) -> Changes {
    let role = |claim: &AssistantClaim| claim.role.map(AssistantRole::as_str);
    let name = |claim: &AssistantClaim| claim.name.clone();
    Changes::default()
        .value(
            "assistant_id",
            before.map(|claim| &claim.assistant_id),
            &after.assistant_id,
        )
        .value("role", before.and_then(role), role(after))
        .value("name", before.and_then(name), name(after))
        .value(
            "managed_by",
            before.and_then(|claim| managed_by(claim.is_platform_managed)),
            managed_by(after.is_platform_managed),
        )
        .value(
            "state",
            before.map(|claim| claim.state.as_str()),
            RouteState::Live.as_str(),
        )
}

fn number_changes(before: Option<&NumberClaim>, after: &NumberClaim) -> Changes {
    let account = |claim: &NumberClaim| claim.account_id.clone();
    let provider_number = |claim: &NumberClaim| claim.provider_number_id.clone();
    Changes::default()
        .value("number", before.map(|claim| &claim.number), &after.number)
        .value(
            "provider",
            before.map(|claim| claim.provider.as_str()),
            after.provider.as_str(),
        )
        .value("account_id", before.and_then(account), account(after))
        .value(
            "provider_number_id",
            before.and_then(provider_number),
            provider_number(after),
        )
        .value(
            "state",
            before.map(|claim| claim.state.as_str()),
            RouteState::Live.as_str(),
        )
}

/// Writes the audit entry of the former holder. It names neither the new one nor its address.
async fn audit_displaced<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    from: OrgId,
    target_id: String,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let released = AuditEntry {
        org: from,
        actor: ACTOR_SYSTEM.to_owned(),
        address: None,
        verb: "release",
        target_id,
        changes: state_changes(RouteState::Live, RouteState::Released),
        ..entry.clone()
    };
    audit::insert(tx, from, &released).await
}

/// Writes a proven claim as live within a transaction, with the audit entry of the former holder.
pub async fn prove<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    version: i64,
    claim: AssistantClaim,
    displaces: Displaces,
    audit: &AuditEntry,
) -> Result<Option<OrgId>, StoreError> {
    const DOING: &str = "prove the assistant";
    let holder = Statement::new(DOING, DISPLACE_ASSISTANT)
        .id(claim.org)
        .text(&claim.assistant_id)
        .time(tx.now)
        .number(version)
        .optional(tx, |row| row.table("assistant_org_mapping").id("org_id"))
        .await?;
    if let Some(holder) = holder {
        displaces.allow(holder, "the claim to this assistant")?;
    }
    let before = Statement::new(DOING, FIND_ASSISTANT)
        .id(claim.org)
        .text(&claim.assistant_id)
        .optional(tx, assistant)
        .await?;
    let audit = &AuditEntry {
        changes: assistant_changes(before.as_ref(), &claim).and_values(&audit.changes),
        ..audit.clone()
    };
    Statement::new(DOING, SAVE_ASSISTANT)
        .id(Uuid::now_v7())
        .id(claim.org)
        .text(&claim.assistant_id)
        .text_opt(claim.role.map(AssistantRole::as_str))
        .text_opt(claim.name.as_deref())
        .text_opt(claim.proof.map(Proof::as_str))
        .time(claim.proven_at.unwrap_or(tx.now))
        .time(claim.created_at)
        .time(tx.now)
        .number(version)
        .text_opt(managed_by(claim.is_platform_managed))
        .execute(tx)
        .await?;
    if let Some(holder) = holder {
        audit_displaced(tx, holder, claim.assistant_id, audit).await?;
    }
    audit::insert(tx, claim.org, audit).await?;
    Ok(holder)
}

async fn prove_number<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    version: i64,
    claim: NumberClaim,
    displaces: Displaces,
    audit: &AuditEntry,
) -> Result<Option<OrgId>, StoreError> {
    const DOING: &str = "prove the number";
    let before = Statement::new(DOING, FIND_NUMBER)
        .id(claim.org)
        .text(&claim.number)
        .text(claim.provider.as_str())
        .optional(tx, number)
        .await?;
    let audit = &AuditEntry {
        changes: number_changes(before.as_ref(), &claim),
        ..audit.clone()
    };
    let displaced: Vec<(OrgId, String)> = Statement::new(DOING, DISPLACE_NUMBER)
        .id(claim.org)
        .text(&claim.number)
        .text(claim.provider.as_str())
        .text_opt(claim.account_id.as_deref())
        .text_opt(claim.provider_number_id.as_deref())
        .time(tx.now)
        .number(version)
        .all(tx, |row| {
            let row = row.table("phone_numbers");
            Ok((row.id("org_id")?, row.string("number")?))
        })
        .await?;
    for (holder, _) in displaced.iter().filter(|(holder, _)| *holder != claim.org) {
        displaces.allow(*holder, "the claim to this number")?;
    }
    Statement::new(DOING, SAVE_NUMBER)
        .id(Uuid::now_v7())
        .id(claim.org)
        .text(&claim.number)
        .text(claim.provider.as_str())
        .text_opt(claim.account_id.as_deref())
        .text_opt(claim.provider_number_id.as_deref())
        .text_opt(claim.proof.map(Proof::as_str))
        .time(claim.proven_at.unwrap_or(tx.now))
        .time(claim.created_at)
        .time(tx.now)
        .number(version)
        .text_opt(managed_by(claim.is_platform_managed))
        .text_opt(claim.sms_at_vapi.map(|(sms, _)| sms.as_str()))
        .time_opt(claim.sms_at_vapi.map(|(_, read_at)| read_at))
        .execute(tx)
        .await?;
    let mut holder = None;
    for (from, number) in displaced {
        if from != claim.org {
            audit_displaced(tx, from, number, audit).await?;
            holder.get_or_insert(from);
        }
    }
    audit::insert(tx, claim.org, audit).await?;
    Ok(holder)
}

/// One kind of claim: how its row is found, and how it is released.
struct Kind {
    what: &'static str,
    table: &'static str,
    find: &'static str,
    release: &'static str,
    /// Two providers may have one: the last value of both statements says which.
    is_at_provider: bool,
}

const ASSISTANTS: Kind = Kind {
    what: "the claim to this assistant",
    table: "assistant_org_mapping",
    find: FIND_ASSISTANT,
    release: RELEASE_ASSISTANT,
    is_at_provider: false,
};
const NUMBERS: Kind = Kind {
    what: "the claim to this number",
    table: "phone_numbers",
    find: FIND_NUMBER,
    release: RELEASE_NUMBER,
    is_at_provider: true,
};

impl Kind {
    fn at<D: Dialect>(&self, provider: Option<Provider>, statement: Statement<D>) -> Statement<D> {
        if self.is_at_provider {
            statement.text_opt(provider.map(Provider::as_str))
        } else {
            statement
        }
    }
}

async fn release<S: SqlStore>(
    store: &S,
    kind: &'static Kind,
    (org, external_id, provider): (OrgId, &str, Option<Provider>),
    expected: Option<i64>,
    audit: AuditEntry,
) -> Result<bool, StoreError> {
    const DOING: &str = "release the claim";
    let external_id = external_id.to_owned();
    store
        .configure_if(org, DOING, move |mut tx, version| {
            Box::pin(async move {
                let find = Statement::new(DOING, kind.find).id(org).text(&external_id);
                let found: Option<(i64, RouteState)> = kind
                    .at(provider, find)
                    .optional(&mut tx, |row| {
                        let row = row.table(kind.table);
                        Ok((row.number("version")?, row.parse("state")?))
                    })
                    .await?;
                let Some((stored, state)) = found else {
                    return Ok((false, false));
                };
                if expected.is_some_and(|expected| expected != stored) {
                    return Err(StoreError::Stale { what: kind.what });
                }
                let release = Statement::new(DOING, kind.release)
                    .id(org)
                    .text(&external_id)
                    .time(tx.now)
                    .number(version);
                let released = kind.at(provider, release).execute(&mut tx).await?;
                if released == 0 {
                    return Ok((false, false));
                }
                let audit = AuditEntry {
                    changes: state_changes(state, RouteState::Released),
                    ..audit
                };
                audit::insert(&mut tx, org, &audit).await?;
                Ok((true, true))
            })
        })
        .await
}

#[async_trait]
impl<S: SqlStore> Routes for S {
    async fn prove_assistant(
        &self,
        claim: AssistantClaim,
        displaces: Displaces,
        audit: AuditEntry,
    ) -> Result<Option<OrgId>, StoreError> {
        self.configure(Access::ALL_ORGS, "prove the assistant", move |mut tx, version| {
            Box::pin(async move { prove(&mut tx, version, claim, displaces, &audit).await })
        })
        .await
    }

    async fn list_assistants(
        &self,
        org: OrgId,
        after: Option<&str>,
        count_max: u32,
    ) -> Result<Vec<AssistantClaim>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("list assistants", LIST_ASSISTANTS)
            .id(org)
            .text(after.unwrap_or_default())
            .number(count_max)
            .all(&mut reader, assistant)
            .await
    }

    async fn find_assistant(&self, org: OrgId, assistant_id: &str) -> Result<Option<AssistantClaim>, StoreError> {
        if !can_be_stored(assistant_id) {
            return Ok(None);
        }
        let mut reader = self.read(org).await?;
        Statement::new("find the assistant", FIND_ASSISTANT)
            .id(org)
            .text(assistant_id)
            .optional(&mut reader, assistant)
            .await
    }

    async fn find_assistant_holder(&self, assistant_id: &str) -> Result<Option<OrgId>, StoreError> {
        if !can_be_stored(assistant_id) {
            return Ok(None);
        }
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("find the assistant's holder", FIND_ASSISTANT_HOLDER)
            .text(assistant_id)
            .optional(&mut reader, |row| row.table("assistant_org_mapping").id("org_id"))
            .await
    }

    async fn release_assistant(
        &self,
        org: OrgId,
        assistant_id: &str,
        version: Option<i64>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        release(self, &ASSISTANTS, (org, assistant_id, None), version, audit).await
    }

    async fn prove_number(
        &self,
        claim: NumberClaim,
        displaces: Displaces,
        audit: AuditEntry,
    ) -> Result<Option<OrgId>, StoreError> {
        self.configure(Access::ALL_ORGS, "prove the number", move |mut tx, version| {
            Box::pin(async move { prove_number(&mut tx, version, claim, displaces, &audit).await })
        })
        .await
    }

    async fn list_numbers(
        &self,
        org: OrgId,
        after: Option<&str>,
        count_max: u32,
    ) -> Result<Vec<NumberClaim>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("list numbers", LIST_NUMBERS)
            .id(org)
            .text(after.unwrap_or_default())
            .number(count_max)
            .all(&mut reader, number)
            .await
    }

    async fn find_number(
        &self,
        org: OrgId,
        wanted: &str,
        provider: Option<Provider>,
    ) -> Result<Option<NumberClaim>, StoreError> {
        if !can_be_stored(wanted) {
            return Ok(None);
        }
        let mut reader = self.read(org).await?;
        Statement::new("find the number", FIND_NUMBER)
            .id(org)
            .text(wanted)
            .text_opt(provider.map(Provider::as_str))
            .optional(&mut reader, number)
            .await
    }

    async fn find_number_holder(
        &self,
        provider: Provider,
        number: &str,
        account_id: Option<&str>,
        provider_number_id: Option<&str>,
    ) -> Result<Option<OrgId>, StoreError> {
        if !can_be_stored(number) {
            return Ok(None);
        }
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("find the number's holder", FIND_NUMBER_HOLDER)
            .text(provider.as_str())
            .text(number)
            .text_opt(account_id)
            .text_opt(provider_number_id)
            .optional(&mut reader, |row| row.table("phone_numbers").id("org_id"))
            .await
    }

    async fn release_number(
        &self,
        org: OrgId,
        (number, provider): (&str, Option<Provider>),
        version: Option<i64>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError> {
        release(self, &NUMBERS, (org, number, provider), version, audit).await
    }
}
