//! How an integration looks in answers.

use super::request::source_of;
use crate::{
    admin::{
        api::endpoints::SecretView,
        credentials::{self, Opened},
        state::{AdminState, Answer},
        web::{etag, view::Time},
    },
    domain::{ActionState, Cause, IntegrationState, OrgId, Provider, Timestamp},
    provider::{Credential, TwilioAuth},
    store::{
        credentials::{CredentialError, StoredCredential},
        endpoints::StoredSecret,
        history::OpenActions,
    },
};
use http::{HeaderMap, header};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

#[derive(Serialize, utoipa::ToSchema)]
pub struct AccountView {
    pub id: String,
    pub name: Option<String>,
}

/// How many actions have not gone out by a credential. Dead ones are those of the last day.
#[derive(Clone, Copy, Default, Serialize, utoipa::ToSchema)]
struct ActionsView {
    parked: u64,
    waiting: u64,
    unknown: u64,
    dead: u64,
}

/// The newest problem among the actions that have not gone out.
#[derive(Serialize, utoipa::ToSchema)]
struct ProblemView {
    action_id: String,
    at: Time,
    cause: Option<Cause>,
    detail: Option<String>,
}

/// Why a check says nothing about the credential.
#[derive(Serialize, utoipa::ToSchema)]
pub struct NotCheckedView {
    /// `rate_limited`: the provider asks to wait. `provider_unavailable`, `connect_failed` or
    /// `no_answer`: it has an outage, or cannot be reached.
    pub cause: Cause,
    pub detail: String,
    pub http_status: Option<u16>,
    /// The provider's own.
    pub code: Option<String>,
    /// When another check makes sense: as the provider says, else soon. Nothing checks by itself.
    pub try_again_at: Time,
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
    error: Option<CredentialError>,
    /// The permissions that a limited credential lacks.
    missing: Option<String>,
    checked_at: Option<Time>,
    first_failed_at: Option<Time>,
    /// When Hookswitch tries again by itself, while the state is `failing`.
    next_try_at: Option<Time>,
    last_used_at: Option<Time>,
    /// `null` for a credential that was saved while the provider could not be reached.
    last_verified_at: Option<Time>,
    account: Option<AccountView>,
    /// Of the secret that signs in: the API key, the auth token or the API key's secret. `null` for
    /// a short one, which they would give away.
    last_four: Option<String>,
    /// Whole days since the secret was stored, or the consent given.
    age_days: Option<u64>,
    /// After how many days another secret is due; 0 is never.
    rotate_after_days: Option<u32>,
    /// Another secret is due. Nothing stops working by itself.
    rotation_due: bool,
    /// Of the answer of `verify` alone: the provider gave no answer about the credential.
    not_checked: Option<NotCheckedView>,
    actions: ActionsView,
    last_problem: Option<ProblemView>,
    /// The stored fields that are no secret, by their names in the form.
    settings: BTreeMap<&'static str, String>,
    /// The names of the secret fields that are stored.
    secrets_set: Vec<&'static str>,
    /// The valid secrets that sign the organisation's webhooks of this provider, newest first.
    signing_secrets: Vec<SecretView>,
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
            age_days: None,
            rotate_after_days: None,
            rotation_due: false,
            not_checked: None,
            actions: ActionsView::default(),
            last_problem: None,
            settings: BTreeMap::new(),
            secrets_set: Vec::new(),
            signing_secrets: Vec::new(),
            version: None,
            etag: None,
        }
    }

    fn new(opened: Opened, signing: Signing, etag: String, now: Timestamp, open: Option<&OpenActions>) -> Self {
        let Opened { row, credential } = opened;
        let age = now.since(row.secret_since);
        let rotation_due = row.rotation_at().is_some_and(|due| due <= now);
        let (provider, id) = (row.provider, Some(row.id.to_string()));
        let (mut settings, mut secrets_set, mut undecryptable) = (BTreeMap::new(), signing.fields, None);
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
        let (state, cause, error) = match undecryptable {
            Some(words) => (
                IntegrationState::Undecryptable,
                Some("undecryptable".to_owned()),
                Some(CredentialError::in_words(words)),
            ),
            None => state_by_sends(&row, open),
        };
        let health = row.health;
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
            rotation_due,
            age_days: Some(age.as_secs() / DAY_SECONDS),
            rotate_after_days: Some(row.rotate_after_days),
            last_four: row.last_four,
            settings,
            secrets_set,
            signing_secrets: signing.secrets.into_iter().map(SecretView::from).collect(),
            version: Some(row.version),
            etag: Some(etag),
            ..Self::absent(provider)
        }
        .with_actions(open)
    }

    fn with_actions(mut self, open: Option<&OpenActions>) -> Self {
        if let Some(open) = open {
            self.actions = ActionsView {
                parked: open.parked,
                waiting: open.waiting,
                unknown: open.unknown,
                dead: open.dead,
            };
            let last = &open.last_problem;
            self.last_problem = Some(ProblemView {
                action_id: last.action.to_string(),
                at: Time(last.at),
                cause: last.cause,
                detail: last.detail.clone(),
            });
        }
        self
    }

    /// The view after the provider was asked and gave no answer. It is not stored, because an
    /// outage of a provider says nothing about a credential. A provider that asks to wait has none:
    /// the state is the one from before.
    pub fn not_checked(mut self, why: NotCheckedView) -> Self {
        if self.state.is_connected() && why.cause != Cause::RateLimited {
            self.state = IntegrationState::Failing;
            self.cause = Some("provider_unreachable".to_owned());
            self.error = Some(CredentialError {
                message: why.detail.clone(),
                http_status: why.http_status,
                code: why.code.clone(),
            });
        }
        self.not_checked = Some(why);
        self
    }
}

/// The state of a credential, by its check and by the outcomes of its sends since then.
fn state_by_sends(
    row: &StoredCredential,
    open: Option<&OpenActions>,
) -> (IntegrationState, Option<String>, Option<CredentialError>) {
    use IntegrationState::{Connected, Failing, Limited, Unverified};
    let health = &row.health;
    let stored = match health.state {
        // A send that has succeeded since the save is a check too.
        Connected if row.last_verified_at.is_none() && row.last_used_at.is_none_or(|used| used < row.updated_at) => {
            Unverified
        }
        state => state,
    };
    let failure = open
        .filter(|_| matches!(stored, Connected | Limited | Unverified))
        .map(|open| &open.last_problem)
        .filter(|last| row.last_used_at.is_none_or(|used| used < last.at))
        .filter(|last| match last.cause {
            // The organisation has to correct it: the sender is not its own, or the domain is not
            // verified.
            Some(Cause::Misconfigured) => last.state == ActionState::Parked,
            Some(Cause::ProviderUnavailable | Cause::ConnectFailed | Cause::NoAnswer) => {
                row.last_verified_at.is_none_or(|verified| verified < last.at)
            }
            _ => false,
        });
    match failure {
        Some(last) => (
            Failing,
            last.cause.map(|cause| cause.as_str().to_owned()),
            Some(CredentialError::in_words(last.detail.clone().unwrap_or_default())),
        ),
        None => (stored, health.cause.clone(), health.error.clone()),
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

const DAY_SECONDS: u64 = 24 * 3600;

/// Dead actions are counted for so long.
const DEAD_COUNTED: Duration = Duration::from_hours(24);

/// The actions of an organisation that have not gone out.
pub async fn open_actions(state: &AdminState, org: OrgId) -> Answer<Vec<OpenActions>> {
    Ok(state.store.list_open_actions(org, state.now() - DEAD_COUNTED).await?)
}

/// The view of a row. It is opened to find out whether this installation can use it.
pub async fn view(
    state: &AdminState,
    org: OrgId,
    provider: Provider,
    row: Option<StoredCredential>,
) -> Answer<IntegrationView> {
    let open = open_actions(state, org).await?;
    view_beside(state, provider, row, &open).await
}

/// The same beside actions that were read already.
pub async fn view_beside(
    state: &AdminState,
    provider: Provider,
    row: Option<StoredCredential>,
    open: &[OpenActions],
) -> Answer<IntegrationView> {
    let open = open
        .iter()
        .find(|open| open.provider == provider && open.credential_name.is_empty());
    let Some(row) = row else {
        return Ok(IntegrationView::absent(provider).with_actions(open));
    };
    let (id, org) = (row.id.to_string(), row.org);
    let Some(opened) = credentials::open(state, row).await? else {
        return Ok(IntegrationView {
            id: Some(id),
            ..IntegrationView::absent(provider)
        }
        .with_actions(open));
    };
    let signing = signing(state, org, &opened).await?;
    let etag = tag(state, &opened.row);
    Ok(IntegrationView::new(opened, signing, etag, state.now(), open))
}

/// The signing secrets that are stored beside a credential.
#[derive(Default)]
struct Signing {
    /// The fields of the form that hold one which is valid without an end.
    fields: Vec<&'static str>,
    secrets: Vec<StoredSecret>,
}

async fn signing(state: &AdminState, org: OrgId, opened: &Opened) -> Answer<Signing> {
    let (field, expected) = match &opened.credential {
        Ok(Credential::Vapi(_)) => ("webhook_secret", 1),
        // The auth token is the first signing secret.
        Ok(Credential::Twilio(twilio)) => match twilio.auth {
            TwilioAuth::AuthToken(_) => ("auth_token_secondary", 2),
            TwilioAuth::ApiKey { .. } => ("auth_token_secondary", 1),
        },
        _ => return Ok(Signing::default()),
    };
    let Some(source) = source_of(opened.row.provider) else {
        return Ok(Signing::default());
    };
    let secrets = state.store.list_secrets(org, source, None).await?;
    let lasting = secrets.iter().filter(|secret| secret.not_after.is_none()).count();
    let fields = if lasting >= expected { vec![field] } else { Vec::new() };
    Ok(Signing { fields, secrets })
}
