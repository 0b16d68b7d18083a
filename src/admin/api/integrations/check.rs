//! Checking a credential at its provider.

use super::view::{AccountView, NotCheckedView};
use crate::{
    admin::{
        state::AdminState,
        web::{
            problem::{Code, FieldError, Problem},
            view::Time,
        },
    },
    domain::{Cause, IntegrationState, Provider, Timestamp},
    provider::{CallError, Credential, ProviderRefusal, Verified, google::Granted, table::Form},
};
use std::time::Duration;

/// Time for asking the provider. It is below the deadline of a request, so that the answer can
/// still name an outage of the provider.
const VERIFY_MAX: Duration = Duration::from_secs(6);
/// Time for asking about a setting, after the credential was accepted.
const WARNING_MAX: Duration = Duration::from_secs(3);

/// When to check again where the provider names no time.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// The longest wait that a provider is believed.
const TRY_AGAIN_MAX: Duration = Duration::from_hours(24);

/// Asks the provider whether it accepts a credential, and for which account.
///
/// # Errors
/// The provider could not be asked.
pub async fn ask(state: &AdminState, credential: &Credential) -> Result<Verified, CallError> {
    match credential {
        Credential::Vapi(vapi) => state.providers.vapi.verify(vapi, VERIFY_MAX).await,
        Credential::Twilio(twilio) => state.providers.twilio.verify(twilio, VERIFY_MAX).await,
        Credential::Resend(resend) => state.providers.resend.verify(resend, VERIFY_MAX).await,
        Credential::ElevenLabs(elevenlabs) => state.providers.elevenlabs.verify(elevenlabs, VERIFY_MAX).await,
        Credential::Google(google) => match state.providers.google.probe(google, state.now(), VERIFY_MAX).await {
            Ok(()) => Ok(match Granted::read(&google.scope).missing() {
                None => Verified::Accepted { account: None },
                Some(missing) => Verified::Limited {
                    account: None,
                    missing: missing.to_owned(),
                },
            }),
            Err(CallError::Refused(refused)) if refused.http_status == 401 => Ok(Verified::Refused(refused)),
            Err(error) => Err(error),
        },
        Credential::Http(_) => Ok(Verified::Accepted { account: None }),
    }
}

/// A credential that the provider accepted, or that was saved without asking.
pub struct VerifiedCredential {
    pub account: Option<AccountView>,
    /// The permissions that the credential lacks.
    pub missing: Option<String>,
    /// `None`: nobody asked the provider.
    pub verified_at: Option<Timestamp>,
}

impl VerifiedCredential {
    /// # Errors
    /// The provider refused it.
    pub fn of(verified: Verified, now: Timestamp) -> Result<Self, ProviderRefusal> {
        let account = |account: Option<crate::provider::Account>| {
            account.map(|account| AccountView {
                id: account.id,
                name: account.name,
            })
        };
        match verified {
            Verified::Accepted { account: found } => Ok(Self {
                account: account(found),
                missing: None,
                verified_at: Some(now),
            }),
            Verified::Limited {
                account: found,
                missing,
            } => Ok(Self {
                account: account(found),
                missing: Some(missing),
                verified_at: Some(now),
            }),
            Verified::Refused(refused) => Err(refused),
        }
    }

    /// A credential that nobody asked the provider about.
    pub const fn unchecked() -> Self {
        Self {
            account: None,
            missing: None,
            verified_at: None,
        }
    }

    /// The state that it is stored with.
    pub const fn state(&self) -> IntegrationState {
        if self.missing.is_some() {
            IntegrationState::Limited
        } else {
            IntegrationState::Connected
        }
    }
}

fn name_of(provider: Provider) -> &'static str {
    Form::of(provider).map_or("The provider", |form| form.name)
}

/// The refusal of a credential, at the field that holds its secret.
pub fn refusal(provider: Provider, credential: &Credential, refused: &ProviderRefusal) -> Problem {
    let problem = Problem::refused_by(name_of(provider), refused);
    match credential.secrets_set().first() {
        Some(field) => problem.and_field(*field, "the provider refuses it"),
        None => problem,
    }
}

/// The provider could not be asked, so nothing is known about the credential.
pub fn unreachable(provider: Provider, error: &CallError, now: Timestamp) -> Problem {
    let why = not_checked(provider, error, now);
    Problem::new(Code::ProviderUnreachable)
        .detail(why.detail)
        .retry_after(why.try_again_at.0.since(now))
}

/// Why a check says nothing about the credential, and when the next one may.
pub fn not_checked(provider: Provider, error: &CallError, now: Timestamp) -> NotCheckedView {
    tracing::warn!(provider = %provider, error = %error, "A provider could not be asked about a credential");
    let name = name_of(provider);
    let refused = match error {
        CallError::Refused(refused) => Some(refused),
        _ => None,
    };
    let (cause, happened) = match (error, refused.map(|refused| refused.http_status)) {
        (_, Some(429)) => (
            Cause::RateLimited,
            format!("{name} answered 429: it gets too many requests of this account just now."),
        ),
        (_, Some(status)) => (
            Cause::ProviderUnavailable,
            format!("{name} answered {status}, which says nothing about the credential."),
        ),
        (CallError::NotSent { .. }, None) => (Cause::ConnectFailed, format!("{name} could not be reached.")),
        (_, None) => (Cause::NoAnswer, format!("{name} gave no usable answer.")),
    };
    let asked = refused.and_then(|refused| refused.retry_after);
    NotCheckedView {
        cause,
        detail: format!("{happened} Try again later."),
        http_status: refused.map(|refused| refused.http_status),
        code: refused.and_then(|refused| refused.code.as_deref().map(str::to_owned)),
        try_again_at: Time(asked.unwrap_or(now + TRY_AGAIN).clamp(now, now + TRY_AGAIN_MAX)),
    }
}

/// Settings that the provider does not confirm although it accepts the credential: a sender that is
/// not the account's own. A provider that cannot be asked gives no warning.
pub async fn warnings(state: &AdminState, credential: &Credential) -> Vec<FieldError> {
    let warning = |field: &str, problem: &str| {
        vec![FieldError {
            field: field.to_owned(),
            problem: problem.to_owned(),
        }]
    };
    match credential {
        Credential::Twilio(twilio) => {
            let Some(number) = &twilio.phone_number else {
                return Vec::new();
            };
            match state.providers.twilio.find_number(twilio, number, WARNING_MAX).await {
                Ok(None) => warning("phone_number", "is not a number of this account"),
                Ok(Some(_)) | Err(_) => Vec::new(),
            }
        }
        Credential::Resend(resend) => {
            let domain = resend.from.as_deref().and_then(|from| {
                let (_, domain) = from.trim_end_matches('>').rsplit_once('@')?;
                Some(domain)
            });
            let Some(domain) = domain else { return Vec::new() };
            match state
                .providers
                .resend
                .is_verified_domain(resend, domain, WARNING_MAX)
                .await
            {
                Ok(false) => warning("from", "is not of a domain that is verified at Resend"),
                Ok(true) | Err(_) => Vec::new(),
            }
        }
        Credential::Vapi(_) | Credential::ElevenLabs(_) | Credential::Google(_) | Credential::Http(_) => Vec::new(),
    }
}
