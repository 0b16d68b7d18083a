//! The demo organisation, made through the public admin API, so that each first start tests this
//! API.

use crate::cli::dev_state::DevState;
use crate::{
    domain::{Endpoint, SecretId, Source},
    store::{
        Store,
        audit::{AuditEntry, Changes},
        endpoints::NewSecret,
    },
    vault::{Purpose, Vault},
};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// The name of the demo's destination for `http.post`.
const DESTINATION: &str = "demo";
/// The two ways in which the demo's Vapi secret signs: Vapi's own default, and the body alone in
/// `x-vapi-signature`.
const VAPI_PLANS: [&str; 2] = [
    r#"{"type":"hmac","algorithm":"sha256"}"#,
    r#"{"type":"hmac","algorithm":"sha256","includeTimestamp":false,"payloadFormat":"{body}","signatureHeader":"x-vapi-signature"}"#,
];

/// Makes the missing parts of the demo. It may run again after an interruption.
///
/// # Errors
/// Names the step that failed, with the problem that the API answered.
pub async fn seed(state: &DevState, store: &Arc<dyn Store>, vault: &Arc<Vault>) -> anyhow::Result<()> {
    let api = Api::new(state)?;
    if store.find_organisation(state.org_id).await?.is_none() {
        api.operator(
            "/operator/organizations",
            json!({ "id": state.org_id, "name": "Birchwood Dental (demo)" }),
        )
        .await?;
    }
    vapi_endpoint(state, store, vault).await?;
    api.post("/api/integrations/vapi", json!({ "api_key": state.vapi_api_key }))
        .await?;
    api.post(
        "/api/integrations/twilio",
        json!({ "account_sid": state.twilio_account_sid, "auth_token": state.twilio_auth_token, "phone_number": state.phone_number }),
    )
    .await?;
    api.post(
        "/api/assistants",
        json!({ "assistant_id": state.assistant_id, "role": "inbound" }),
    )
    .await?;
    api.post(
        "/api/phone-numbers",
        json!({ "number": state.phone_number, "provider": "twilio" }),
    )
    .await?;
    if !api
        .names("/api/destinations")
        .await?
        .iter()
        .any(|name| name == DESTINATION)
    {
        api.post(
            "/api/destinations",
            json!({ "name": DESTINATION, "url": format!("{}/sink/demo", state.sandbox) }),
        )
        .await?;
    }
    let rules = api.names("/api/rules").await?;
    for rule in demo_rules() {
        if !rules.iter().any(|name| rule["name"] == name.as_str()) {
            api.post("/api/rules", rule).await?;
        }
    }
    Ok(())
}

fn demo_rules() -> [Value; 2] {
    [
        json!({
            "name": "After a call, text the caller",
            "source": "vapi",
            "event_type": "end-of-call-report",
            "when": "message.customer is defined and message.customer.number is defined",
            "action": "twilio.send_sms",
            "parameters": {
                "to": "{{ message.customer.number }}",
                "body": "Thank you for calling Birchwood Dental. Reply here if we can help with anything else."
            }
        }),
        json!({
            "name": "After a call, post to my URL",
            "source": "vapi",
            "event_type": "end-of-call-report",
            "action": "http.post",
            "parameters": {
                "destination": DESTINATION,
                "body": {
                    "call_id": "{{ message.call.id }}",
                    "ended_reason": "{{ message.endedReason }}"
                }
            }
        }),
    ]
}

/// Two plans of one secret, both valid for good: a rotation through the API would end the first.
async fn vapi_endpoint(state: &DevState, store: &Arc<dyn Store>, vault: &Arc<Vault>) -> anyhow::Result<()> {
    if !store.list_endpoints(state.org_id, None, 1).await?.is_empty() {
        return Ok(());
    }
    let id = state.vapi_endpoint_id();
    let mut secrets = Vec::new();
    for plan in VAPI_PLANS {
        let sealed = vault
            .seal(
                state.org_id,
                Purpose::SigningSecret(Source::Vapi),
                state.vapi_secret.as_bytes(),
            )
            .await?;
        let last_four = state
            .vapi_secret
            .get(state.vapi_secret.len().saturating_sub(4)..)
            .map(str::to_owned);
        secrets.push(NewSecret {
            id: SecretId::generate(),
            org: state.org_id,
            endpoint: Some(id),
            source: Source::Vapi,
            plan: plan.to_owned(),
            sealed,
            last_four,
        });
    }
    let now = crate::domain::Clock::now(&crate::domain::SystemClock);
    let endpoint = Endpoint {
        id,
        org: state.org_id,
        source: Source::Vapi,
        name: "Demo assistant".to_owned(),
        is_active: true,
        ignored_types: Vec::new(),
        version: 1,
        created_at: now,
    };
    let audit = AuditEntry {
        org: state.org_id,
        at: now,
        actor: "dev".to_owned(),
        verb: "create",
        target_kind: "endpoint",
        target_id: id.to_string(),
        changes: Changes::from(&["name", "source", "secret"]),
        address: None,
    };
    store
        .create_endpoint(endpoint, secrets, audit)
        .await
        .context("cannot make the demo's Vapi endpoint")
}

/// The admin API as a client sees it.
struct Api<'a> {
    client: reqwest::Client,
    state: &'a DevState,
}

impl<'a> Api<'a> {
    fn new(state: &'a DevState) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()?;
        Ok(Self { client, state })
    }

    async fn post(&self, path: &str, body: Value) -> anyhow::Result<()> {
        self.send(path, &self.state.admin_token, body).await
    }

    async fn operator(&self, path: &str, body: Value) -> anyhow::Result<()> {
        self.send(path, &self.state.operator_token, body).await
    }

    async fn send(&self, path: &str, token: &str, body: Value) -> anyhow::Result<()> {
        let answer = self
            .client
            .post(format!("{}{path}", self.state.admin))
            .bearer_auth(token)
            .json(&body)
            .send()
            .await?;
        if !answer.status().is_success() {
            let status = answer.status();
            bail!(
                "the demo could not be set up: POST {path} answered {status}: {}",
                answer.text().await.unwrap_or_default()
            );
        }
        Ok(())
    }

    /// The `name`s of a listed resource.
    async fn names(&self, path: &str) -> anyhow::Result<Vec<String>> {
        let answer = self
            .client
            .get(format!("{}{path}?limit=200", self.state.admin))
            .bearer_auth(&self.state.admin_token)
            .send()
            .await?
            .error_for_status()?;
        let body: Value = answer.json().await?;
        Ok(body["data"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["name"].as_str().map(str::to_owned))
            .collect())
    }
}
