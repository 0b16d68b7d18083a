//! How an integration looks in answers.

use super::request::source_of;
use crate::{
    admin::{
        credentials::{self, Opened},
        state::{AdminState, Answer},
        web::{etag, view::Time},
    },
    domain::{IntegrationState, OrgId, Provider},
    provider::{Credential, TwilioAuth},
    store::credentials::StoredCredential,
};
use http::{HeaderMap, header};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize, utoipa::ToSchema)]
pub struct AccountView {
    pub id: String,
    pub name: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct IntegrationView {
    /// Stays the same through reconnects; `null` before the first.
    id: Option<String>,
    provider: Provider,
    /// It works, or may work again by itself: `connected`, `limited` or `failing`.
    connected: bool,
    state: IntegrationState,
    cause: Option<String>,
    /// The provider's words, or which key of the installation is missing.
    error: Option<String>,
    /// What a limited credential cannot do.
    missing: Option<String>,
    checked_at: Option<Time>,
    first_failed_at: Option<Time>,
    /// When Hookswitch tries again by itself, while the state is `failing`.
    next_try_at: Option<Time>,
    last_used_at: Option<Time>,
    /// `null` for a credential that was saved while the provider could not be reached.
    last_verified_at: Option<Time>,
    account: Option<AccountView>,
    last_four: Option<String>,
    /// The stored fields that are no secret, by their names in the form.
    settings: BTreeMap<&'static str, String>,
    /// The names of the secret fields that are stored.
    secrets_set: Vec<&'static str>,
    version: Option<i64>,
    /// For `If-Match` of the next change; `null` where nothing is stored.
    etag: Option<String>,
}

impl IntegrationView {
    fn absent(provider: Provider) -> Self {
        Self {
            id: None,
            provider,
            connected: false,
            state: IntegrationState::NotConnected,
            cause: None,
            error: None,
            missing: None,
            checked_at: None,
            first_failed_at: None,
            next_try_at: None,
            last_used_at: None,
            last_verified_at: None,
            account: None,
            last_four: None,
            settings: BTreeMap::new(),
            secrets_set: Vec::new(),
            version: None,
            etag: None,
        }
    }

    /// `signing`: the names of the fields whose signing secrets are valid without an end.
    fn new(opened: Opened, signing: Vec<&'static str>, etag: String) -> Self {
        let Opened { row, credential } = opened;
        let (provider, id) = (row.provider, Some(row.id.to_string()));
        let (mut settings, mut secrets_set, mut undecryptable) = (BTreeMap::new(), signing, None);
        match credential {
            Ok(credential) => {
                settings.extend(
                    credential
                        .settings()
                        .into_iter()
                        .map(|(name, value)| (name, value.to_owned())),
                );
                secrets_set.splice(0..0, credential.secrets_set());
            }
            Err(error) => undecryptable = Some(error.words),
        }
        let health = row.health;
        let (state, cause, error) = match undecryptable {
            Some(words) => (
                IntegrationState::Undecryptable,
                Some("undecryptable".to_owned()),
                Some(words),
            ),
            None if health.state == IntegrationState::Connected && row.last_verified_at.is_none() => {
                (IntegrationState::Unverified, health.cause, health.error)
            }
            None => (health.state, health.cause, health.error),
        };
        Self {
            id,
            provider,
            connected: state.is_connected(),
            next_try_at: row.refresh_at.filter(|_| state == IntegrationState::Failing).map(Time),
            state,
            cause,
            error,
            missing: health.missing,
            checked_at: health.checked_at.map(Time),
            first_failed_at: health.first_failed_at.map(Time),
            last_used_at: row.last_used_at.map(Time),
            last_verified_at: row.last_verified_at.map(Time),
            account: row.account_id.map(|id| AccountView {
                id,
                name: row.account_name,
            }),
            last_four: row.last_four,
            settings,
            secrets_set,
            version: Some(row.version),
            etag: Some(etag),
        }
    }
}

/// The entity tag of a stored credential.
fn tag(state: &AdminState, row: &StoredCredential) -> String {
    etag::tag(&state.vault, row.org, "integration", row.provider, row.version)
}

/// Compares `If-Match`, where it is sent, with the stored credential. Where nothing is stored no
/// tag is the current one.
pub fn check_etag(state: &AdminState, headers: &HeaderMap, row: Option<&StoredCredential>) -> Answer<()> {
    match row.filter(|row| row.is_active) {
        Some(row) => etag::check(headers, &tag(state, row)),
        None if headers.contains_key(header::IF_MATCH) => Err(etag::stale()),
        None => Ok(()),
    }
}

/// The view of a row. It is opened to find out whether this installation can use it.
pub async fn view(state: &AdminState, provider: Provider, row: Option<StoredCredential>) -> Answer<IntegrationView> {
    let Some(row) = row else {
        return Ok(IntegrationView::absent(provider));
    };
    let (id, org) = (row.id.to_string(), row.org);
    let Some(opened) = credentials::open(state, row).await? else {
        return Ok(IntegrationView {
            id: Some(id),
            ..IntegrationView::absent(provider)
        });
    };
    let signing = signing_fields(state, org, &opened).await?;
    let etag = tag(state, &opened.row);
    Ok(IntegrationView::new(opened, signing, etag))
}

/// The fields of the form whose signing secrets are stored beside the credential.
async fn signing_fields(state: &AdminState, org: OrgId, opened: &Opened) -> Answer<Vec<&'static str>> {
    let (field, expected) = match &opened.credential {
        Ok(Credential::Vapi(_)) => ("webhook_secret", 1),
        // The auth token is the first signing secret.
        Ok(Credential::Twilio(twilio)) => match twilio.auth {
            TwilioAuth::AuthToken(_) => ("auth_token_secondary", 2),
            TwilioAuth::ApiKey { .. } => ("auth_token_secondary", 1),
        },
        _ => return Ok(Vec::new()),
    };
    let Some(source) = source_of(opened.row.provider) else {
        return Ok(Vec::new());
    };
    let secrets = state.store.list_secrets(org, source, None).await?;
    let lasting = secrets.iter().filter(|secret| secret.not_after.is_none()).count();
    Ok(if lasting >= expected { vec![field] } else { Vec::new() })
}
