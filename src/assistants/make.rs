//! Makes an assistant at Vapi, or changes the one that there is, under a lease.

use super::{
    ANSWER_MAX, AssistantError, AssistantManager, Audits, SealedAssistant, TakenLease, Wanted, changes, check_version,
    wanted,
};
use crate::{
    domain::{
        AssistantRole, Endpoint, EndpointId, ManagedAssistantState, OrgId, RouteState, SealedBytes, SecretId, Source,
        Timestamp,
    },
    killpoint::{Step, reach},
    provider::{CallError, VapiCredential, vapi::assistants::Fields},
    source::{BearerPlan, BearerPlanText, Plan, VapiPlan},
    store::{
        audit::AuditEntry,
        endpoints::NewSecret,
        managed::ManagedAssistant,
        routes::{AssistantClaim, Proof},
    },
    vault::{Purpose, VaultError},
};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// A search for a marker begins so long before the row: the clock of Vapi is not ours.
const CLOCK_SKEW_MAX: Duration = Duration::from_hours(1);

impl AssistantManager {
    pub(super) async fn make(
        &self,
        credential: &VapiCredential,
        lease: &TakenLease,
        (role, expects): (AssistantRole, Option<i64>),
        wanted: Wanted,
        audits: Audits,
    ) -> Result<ManagedAssistant, AssistantError> {
        let org = lease.org;
        let found = self.store.find_managed_assistant(org, role).await?;
        check_version(expects, found.as_ref().map_or(0, |row| row.version))?;
        let (row, is_new) = match found {
            Some(row) => (row, false),
            None => (self.begin(lease, role, &wanted, audits.endpoint).await?, true),
        };
        let kept = self.open(&row).await?;
        // A marker that was made just now stands nowhere.
        let actual = if is_new {
            None
        } else {
            self.find(credential, &row).await?
        };
        let body = self.body(&row, &wanted, &kept.secret)?;
        let id = match &actual {
            Some(actual) => {
                let id = id_of(actual)?;
                let differing = wanted::changes(&kept.wanted, &wanted, &body, actual);
                if !differing.is_empty() {
                    lease.covers_a_write()?;
                    self.vapi
                        .update_assistant(credential, &id, &differing, ANSWER_MAX)
                        .await?;
                }
                id
            }
            None => self.create(credential, lease, &row, &body).await?,
        };
        let is_as_before = row.state == ManagedAssistantState::InStep
            && row.error.is_none()
            && row.assistant_id.as_ref() == Some(&id)
            && kept.wanted == wanted;
        if is_as_before {
            return Ok(row);
        }
        let now = self.clock.now();
        // Before Vapi has answered, nothing was made.
        let former = row.assistant_id.is_some().then_some(&kept.wanted);
        let audit = AuditEntry {
            changes: changes::of_config(former, Some(&wanted)),
            ..audits.assistant
        };
        let made = ManagedAssistant {
            sealed: self.seal(org, &wanted, &kept.secret).await?,
            ..in_step(row, &id, now)
        };
        let claim = claim(&made, wanted.name, now);
        self.save(made, Some(claim), lease, Some(audit)).await
    }

    /// Keeps the marker, before Vapi is asked for anything, and makes the endpoint that the
    /// webhooks will come to.
    async fn begin(
        &self,
        lease: &TakenLease,
        role: AssistantRole,
        wanted: &Wanted,
        audit: AuditEntry,
    ) -> Result<ManagedAssistant, AssistantError> {
        let org = lease.org;
        if self.public_url.is_none() {
            return Err(AssistantError::NoPublicUrl);
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| VaultError::NoRandomness)?;
        let secret = hex::encode(bytes);
        let endpoint = self.make_endpoint(org, role, &secret, audit).await?;
        let now = self.clock.now();
        let row = ManagedAssistant {
            org,
            role,
            marker: Uuid::now_v7().to_string(),
            assistant_id: None,
            endpoint,
            sealed: self.seal(org, wanted, &secret).await?,
            state: ManagedAssistantState::Making,
            drift: Vec::new(),
            error: None,
            checked_at: Some(now),
            version: 0,
            created_at: now,
            updated_at: now,
        };
        self.save(row, None, lease, None).await
    }

    async fn make_endpoint(
        &self,
        org: OrgId,
        role: AssistantRole,
        secret: &str,
        audit: AuditEntry,
    ) -> Result<EndpointId, AssistantError> {
        let id = EndpointId::generate();
        let plan = BearerPlan::try_from(BearerPlanText {
            header_name: Some("x-vapi-secret".into()),
            bearer_prefix_enabled: Some(false),
        })
        .expect("a header that is known");
        let plan = Plan::Vapi(VapiPlan::Bearer(plan));
        let source = Source::Vapi;
        let sealed = self
            .vault
            .seal(org, Purpose::SigningSecret(source), secret.as_bytes())
            .await?;
        let secret = NewSecret {
            id: SecretId::generate(),
            org,
            endpoint: Some(id),
            source,
            plan: serde_json::to_string(&plan).expect("a plan is texts and numbers"),
            sealed,
            last_four: None,
        };
        let endpoint = Endpoint {
            id,
            org,
            source,
            name: format!("Vapi assistant, {role}"),
            is_active: true,
            ignored_types: Vec::new(),
            version: 1,
            created_at: self.clock.now(),
        };
        let audit = AuditEntry {
            target_id: id.to_string(),
            changes: changes::of_endpoint(None, Some(&endpoint)),
            ..audit
        };
        self.store.create_endpoint(endpoint, vec![secret], audit).await?;
        Ok(id)
    }

    /// The assistant as it is at Vapi: by its id, else by its marker.
    pub(super) async fn find(
        &self,
        credential: &VapiCredential,
        row: &ManagedAssistant,
    ) -> Result<Option<Fields>, AssistantError> {
        if let Some(id) = &row.assistant_id
            && let Some(fields) = self.vapi.read_assistant(credential, id, ANSWER_MAX).await?
        {
            return Ok(Some(fields));
        }
        self.find_marked(credential, row).await
    }

    pub(super) async fn find_marked(
        &self,
        credential: &VapiCredential,
        row: &ManagedAssistant,
    ) -> Result<Option<Fields>, AssistantError> {
        let since = row.created_at - CLOCK_SKEW_MAX;
        Ok(self
            .vapi
            .find_marked_assistant(credential, &row.marker, since, ANSWER_MAX)
            .await?)
    }

    /// Makes it at Vapi. Where that fails the row keeps why: without an answer the next look finds
    /// by the marker what may have been made.
    pub(super) async fn create(
        &self,
        credential: &VapiCredential,
        lease: &TakenLease,
        row: &ManagedAssistant,
        body: &Fields,
    ) -> Result<String, AssistantError> {
        // There is nothing to clear.
        let fields: Fields = body
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        lease.covers_a_write()?;
        let error = match self.vapi.create_assistant(credential, &fields, ANSWER_MAX).await {
            Ok(made) => {
                reach(Step::AssistantMade);
                return id_of(&made);
            }
            Err(error) => error,
        };
        let failed = ManagedAssistant {
            error: Some(error.to_string()),
            checked_at: Some(self.clock.now()),
            ..row.clone()
        };
        self.save(failed, None, lease, None).await?;
        Err(error.into())
    }

    pub(super) fn body(&self, row: &ManagedAssistant, wanted: &Wanted, secret: &str) -> Result<Fields, AssistantError> {
        let base = self.public_url.as_ref().ok_or(AssistantError::NoPublicUrl)?;
        let url = format!("{base}/webhooks/vapi/{}", row.endpoint);
        Ok(wanted.body(&row.marker, &url, secret))
    }

    pub(super) async fn save(
        &self,
        row: ManagedAssistant,
        claim: Option<AssistantClaim>,
        lease: &TakenLease,
        audit: Option<AuditEntry>,
    ) -> Result<ManagedAssistant, AssistantError> {
        let saved = self.store.save_managed_assistant(row, claim, lease, audit).await?;
        saved.ok_or(AssistantError::Busy)
    }

    async fn seal(&self, org: OrgId, wanted: &Wanted, secret: &str) -> Result<SealedBytes, AssistantError> {
        let kept = SealedAssistant {
            wanted: wanted.clone(),
            secret: secret.to_owned(),
        };
        let text = zeroize::Zeroizing::new(serde_json::to_vec(&kept).expect("JSON and a text"));
        Ok(self.vault.seal(org, Purpose::Payload, &text).await?)
    }
}

/// # Errors
/// Vapi's answer has none.
pub(super) fn id_of(fields: &Fields) -> Result<String, AssistantError> {
    let id = fields.get("id").and_then(Value::as_str).map(str::to_owned);
    id.ok_or_else(|| {
        AssistantError::Unreachable(CallError::NoAnswer {
            host: "Vapi".to_owned(),
            reason: "the assistant has no id".to_owned(),
        })
    })
}

pub(super) fn in_step(row: ManagedAssistant, id: &str, now: Timestamp) -> ManagedAssistant {
    ManagedAssistant {
        assistant_id: Some(id.to_owned()),
        state: ManagedAssistantState::InStep,
        drift: Vec::new(),
        error: None,
        checked_at: Some(now),
        ..row
    }
}

/// The route of its webhooks. We made the assistant, which is the proof (invariant 18).
pub(super) fn claim(row: &ManagedAssistant, name: String, now: Timestamp) -> AssistantClaim {
    AssistantClaim {
        org: row.org,
        assistant_id: row.assistant_id.clone().unwrap_or_default(),
        role: Some(row.role),
        name: Some(name),
        state: RouteState::Live,
        proof: Some(Proof::MadeByUs),
        proven_at: Some(now),
        is_platform_managed: false,
        version: 1,
        created_at: now,
    }
}
