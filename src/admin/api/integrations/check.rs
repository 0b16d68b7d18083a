//! Checking a credential at its provider.

use super::view::AccountView;
use crate::{
    admin::{
        state::AdminState,
        web::problem::{Code, FieldError, Problem},
    },
    domain::{IntegrationState, Provider, Timestamp},
    provider::{CallError, Credential, ProviderRefusal, Verified, google::Granted, table::Form},
};
use std::time::Duration;

/// Time for asking the provider. It is below the deadline of a request, so that the answer can
/// still name an outage of the provider.
const VERIFY_MAX: Duration = Duration::from_secs(6);
/// Time for asking about a setting, after the credential was accepted.
const WARNING_MAX: Duration = Duration::from_secs(3);

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
    tracing::warn!(provider = %provider, error = %error, "A provider could not be asked about a credential");
    let name = name_of(provider);
    let (happened, after) = match error {
        CallError::Refused(refused) if refused.http_status == 429 => (
            format!("{name} answered 429: it gets too many requests of this account just now."),
            refused.retry_after.map(|at| at.since(now)),
        ),
        CallError::Refused(refused) => (
            format!(
                "{name} answered {}, which says nothing about the credential.",
                refused.http_status
            ),
            refused.retry_after.map(|at| at.since(now)),
        ),
        CallError::NotSent { .. } => (format!("{name} could not be reached."), None),
        _ => (format!("{name} gave no usable answer."), None),
    };
    Problem::new(Code::ProviderUnreachable)
        .detail(format!("{happened} Try again later."))
        .retry_after(after.unwrap_or(Duration::from_secs(10)))
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
