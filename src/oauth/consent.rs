//! Consent: a state that is signed, used once, and bound to who began it and to their browser;
//! PKCE; the exchange.

use super::open;
use crate::{
    domain::{Clock, Fingerprint, INSTALLATION, OrgId, Provider, SecretBytes, Timestamp},
    provider::{
        CallError, GoogleCredential,
        google::{
            GoogleClient, Granted,
            oauth::{Tokens, verifier},
        },
    },
    store::{Store, StoreError, grants::Consent},
    vault::{Purpose, Vault, VaultError},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// How long a consent may take.
const CONSENT_MAX: Duration = Duration::from_mins(10);
const EXCHANGE_MAX: Duration = Duration::from_secs(8);
/// Longest code that is passed on: Google's own are 256 bytes at most.
const CODE_BYTES_MAX: usize = 1024;
const PROVIDER: Provider = Provider::GoogleCalendar;
/// Google's codes that are about the client of this installation (RFC 6749, 5.2).
const CLIENT_REFUSALS: [&str; 4] = [
    "invalid_client",
    "unauthorized_client",
    "redirect_uri_mismatch",
    "deleted_client",
];

pub struct Consents {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    google: GoogleClient,
    clock: Arc<dyn Clock>,
}

/// A consent that was begun and is not finished.
#[derive(Debug)]
pub struct StartedConsent {
    /// Where to send the person.
    pub url: String,
    /// A value that only the browser that began the consent can show.
    pub browser: String,
    pub expires_at: Timestamp,
}

/// The result of a code.
#[derive(Debug)]
pub struct Exchanged {
    pub credential: GoogleCredential,
    /// Google's own number of the account.
    pub account: String,
    /// Its address.
    pub account_name: Option<String>,
    /// Which of our features the boxes that were not ticked take away.
    pub missing: Option<&'static str>,
}

/// Why a code gave no grant.
#[derive(Debug)]
pub enum ExchangeError {
    /// Not a code, or Google refuses it: wrong, used, expired, or begun elsewhere.
    Refused {
        words: String,
    },
    /// Google refuses this installation: its client id, its secret or its redirect URL.
    ClientRefused {
        words: String,
    },
    /// No box was ticked.
    NoScopes {
        words: &'static str,
    },
    /// Google gave no refresh token, or no name of the account.
    Unusable {
        words: &'static str,
    },
    Unreachable(CallError),
    Vault(VaultError),
}

impl Consents {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, vault: Arc<Vault>, google: GoogleClient, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            vault,
            google,
            clock,
        }
    }

    /// Begins one. `Ok(None)`: Google is not set up in this installation.
    ///
    /// # Errors
    /// No randomness, or the store is away.
    pub async fn begin(
        &self,
        org: OrgId,
        subject: &str,
        return_to: Option<String>,
        may_replace: bool,
    ) -> Result<Option<StartedConsent>, VaultError> {
        let (mut id, mut random) = ([0; 16], zeroize::Zeroizing::new([0; 32]));
        getrandom::fill(&mut id)
            .and_then(|()| getrandom::fill(random.as_mut_slice()))
            .map_err(|_| VaultError::NoRandomness)?;
        let (id, verifier) = (Uuid::from_bytes(id), verifier(&random));
        let state = self.state(id, return_to.as_deref());
        let Some(url) = self.google.consent_url(&state, &verifier) else {
            return Ok(None);
        };
        let expires_at = self.clock.now() + CONSENT_MAX;
        // Sealed as what it will become: it opens for this organisation and provider only.
        let verifier = self
            .vault
            .seal(org, Purpose::Credential(PROVIDER), verifier.as_bytes())
            .await?;
        let consent = Consent {
            id,
            org,
            provider: PROVIDER,
            subject: subject.to_owned(),
            verifier,
            return_to,
            may_replace,
            expires_at,
        };
        self.store
            .begin_consent(consent)
            .await
            .map_err(|source| VaultError::Store { org, source })?;
        Ok(Some(StartedConsent {
            url,
            browser: self.signature("browser", id).0.into(),
            expires_at,
        }))
    }

    /// The page stands in it, so that a person whose consent is used or too old gets back to it.
    fn state(&self, id: Uuid, return_to: Option<&str>) -> String {
        let page = URL_SAFE_NO_PAD.encode(return_to.unwrap_or_default());
        let mark = self.vault.fingerprint(INSTALLATION, &signed_state(id, &page));
        format!("{}.{}.{page}", id.simple(), mark.0)
    }

    /// Reads our part of a `state`, and the page that it leads back to, without a look at the
    /// store. So a made-up `state` costs nothing.
    #[must_use]
    pub fn read_state(&self, state: &str) -> Option<(Uuid, Option<String>)> {
        let (id, rest) = state.split_once('.')?;
        let (mark, page) = rest.split_once('.')?;
        let id = Uuid::try_parse(id).ok().filter(|_| id.len() == 32)?;
        let mark = Fingerprint(mark.into());
        if !self
            .vault
            .is_fingerprint_of(&mark, INSTALLATION, &signed_state(id, page))
        {
            return None;
        }
        let page = String::from_utf8(URL_SAFE_NO_PAD.decode(page).ok()?).ok()?;
        Some((id, Some(page).filter(|page| !page.is_empty())))
    }

    /// Whether this is the browser that began it.
    #[must_use]
    pub fn is_browser_of(&self, id: Uuid, shown: &str) -> bool {
        self.vault
            .is_fingerprint_of(&Fingerprint(shown.into()), INSTALLATION, &signed_text("browser", id))
    }

    /// Takes the consent out. Only the first caller can finish it.
    ///
    /// # Errors
    /// The store is away.
    pub async fn take(&self, id: Uuid) -> Result<Option<Consent>, StoreError> {
        self.store.take_consent(id).await
    }

    /// Turns the code into a grant.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub async fn exchange(&self, consent: &Consent, code: &str) -> Result<Exchanged, ExchangeError> {
        if code.is_empty() || code.len() > CODE_BYTES_MAX || !code.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ExchangeError::Refused {
                words: "the code is not one".to_owned(),
            });
        }
        let tokens = self.tokens_of(consent, code).await?;
        self.granted(tokens).await
    }

    async fn tokens_of(&self, consent: &Consent, code: &str) -> Result<Tokens, ExchangeError> {
        let read =
            |plain: &SecretBytes| zeroize::Zeroizing::new(String::from_utf8_lossy(plain.expose_secret()).into_owned());
        let verifier = self
            .vault
            .open(consent.org, Purpose::Credential(PROVIDER), &consent.verifier, read)
            .await
            .map_err(ExchangeError::Vault)?;
        match self.google.exchange(code, &verifier, EXCHANGE_MAX).await {
            Ok(tokens) => Ok(tokens),
            Err(CallError::Refused(refused)) if refused.http_status < 500 && refused.http_status != 429 => {
                let reason = refused.code.as_deref().unwrap_or("no reason");
                let words = format!("{} ({reason})", refused.message);
                Err(if CLIENT_REFUSALS.contains(&reason) {
                    ExchangeError::ClientRefused { words }
                } else {
                    ExchangeError::Refused { words }
                })
            }
            Err(error) => Err(ExchangeError::Unreachable(error)),
        }
    }

    /// Tokens to a credential, where they are of use.
    async fn granted(&self, tokens: Tokens) -> Result<Exchanged, ExchangeError> {
        let granted = Granted::read(tokens.scope.as_deref().unwrap_or_default());
        let unusable = |words| ExchangeError::Unusable { words };
        if !granted.events && !granted.free_busy {
            self.revoke_token(&tokens.access_token).await;
            return Err(ExchangeError::NoScopes {
                words: "No box was ticked on Google's page, so there is nothing that this connection could do. Connect \
                        again and tick them.",
            });
        }
        let Some(refresh_token) = tokens.refresh_token else {
            return Err(unusable(
                "Google gave no refresh token, so the connection would end within the hour. Remove the access at \
                Google and connect again.",
            ));
        };
        let Some(account) = tokens.subject else {
            return Err(unusable("Google did not say whose account it is. Connect again."));
        };
        let credential = GoogleCredential {
            access_token: tokens.access_token,
            refresh_token,
            expires_at: self.clock.now() + tokens.expires_in,
            scope: tokens.scope.unwrap_or_default(),
        };
        if !credential.is_usable() {
            return Err(unusable("Google's tokens are not in a form that can be kept."));
        }
        Ok(Exchanged {
            credential,
            account,
            account_name: tokens.email,
            missing: granted.missing(),
        })
    }

    /// Revokes a stored grant at the provider, as far as it answers. `true` when it is revoked
    /// there.
    pub async fn revoke(&self, org: OrgId, sealed: &crate::domain::SealedBytes) -> bool {
        match open(&self.vault, org, PROVIDER, sealed).await {
            Ok(Some(google)) => self.revoke_token(&google.refresh_token).await,
            // A grant that cannot be opened cannot be revoked.
            Ok(None) | Err(_) => false,
        }
    }

    /// Gives a token back that is not kept, as far as Google answers.
    pub async fn revoke_token(&self, token: &SecretBytes) -> bool {
        match self.google.revoke(token, EXCHANGE_MAX).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "A grant could not be revoked at Google");
                false
            }
        }
    }

    fn signature(&self, what: &str, id: Uuid) -> Fingerprint {
        self.vault.fingerprint(INSTALLATION, &signed_text(what, id))
    }
}

fn signed_state(id: Uuid, page: &str) -> Vec<u8> {
    let mut text = signed_text("state", id);
    text.push(b':');
    text.extend_from_slice(page.as_bytes());
    text
}

fn signed_text(what: &str, id: Uuid) -> Vec<u8> {
    format!("oauth-{what}:{}", id.simple()).into_bytes()
}
