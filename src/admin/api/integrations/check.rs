//! Checking a credential at its provider.

use super::view::AccountView;
use crate::{
    admin::state::AdminState,
    domain::{IntegrationState, Timestamp},
    provider::{CallError, Credential, ProviderRefusal, Verified, google::Granted},
};
use std::time::Duration;

/// Time for asking the provider. It is below the deadline of a request, so that the answer can
/// still name an outage of the provider.
const VERIFY_MAX: Duration = Duration::from_secs(8);

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
                None => Verified::Good { account: None },
                Some(missing) => Verified::Limited {
                    account: None,
                    missing: missing.to_owned(),
                },
            }),
            Err(CallError::Refused(refused)) if refused.http_status == 401 => Ok(Verified::Refused(refused)),
            Err(error) => Err(error),
        },
        Credential::Http(_) => Ok(Verified::Good { account: None }),
    }
}

/// A credential that the provider accepted, or that was saved without asking.
pub struct VerifiedCredential {
    pub account: Option<AccountView>,
    /// What the credential is not allowed to do.
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
            Verified::Good { account: found } => Ok(Self {
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

    /// The state that it is stored with.
    pub const fn state(&self) -> IntegrationState {
        if self.missing.is_some() {
            IntegrationState::Limited
        } else {
            IntegrationState::Connected
        }
    }
}
