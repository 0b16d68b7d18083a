//! Refreshes tokens before they end, once for all instances.

use super::open;
use crate::{
    domain::{Cause, Clock, IntegrationState, OrgId, Provider, Timestamp},
    provider::{
        CallError, Credential, GoogleCredential, ProviderRefusal,
        google::{GoogleClient, Granted, oauth::Tokens},
    },
    store::{
        Store, StoreError,
        credentials::{CredentialError, CredentialHealth, StoredCredential},
        flights::Flights,
        grants::{Lease, Refresh, RefreshDue},
    },
    telemetry::catalogue,
    vault::{Purpose, Vault, VaultError},
};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// For one answer of the provider.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Covers the answer and the writing of it, several times over.
const LEASE: Duration = Duration::from_mins(1);
/// How long a caller waits for a refresh that someone else is at: longer than that one may take.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Between two looks at a row that another instance refreshes.
const POLL_PERIOD: Duration = Duration::from_millis(100);
/// Between two looks for what is due: a hint that is lost costs no more than this.
const PERIOD: Duration = Duration::from_secs(15);
/// Refreshes at once in one process, and looked at in one turn.
const CONCURRENT_MAX: usize = 8;
const DUE_MAX: u32 = 200;
/// Between two tries while the provider does not answer: half of the time that it has failed for,
/// within these.
const RETRY_MIN: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_mins(30);
/// Tries to write what the provider has given: a token that is not written is lost.
const WRITES_MAX: u32 = 5;

/// The token that a caller needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// An access token that is good for so long.
    ValidFor(Duration),
    /// Another token than that of this version, which the provider has refused.
    NewerThan(i64),
    /// The same, and now: a person asks, so a wait after a failure does not count.
    NewerThanNow(i64),
    /// Nothing but what the plan says: the refresher itself.
    Due,
}

/// Why there is no fresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFresh {
    NotConnected,
    /// It will not recover by itself: the person has to consent again.
    NeedsReconnecting {
        words: String,
    },
    /// It may recover: not before this.
    Later {
        until: Timestamp,
        words: String,
    },
    /// It cannot be opened here.
    Undecryptable {
        words: String,
    },
    /// The store was away: nothing is known.
    Unavailable,
}

impl From<StoreError> for NotFresh {
    fn from(_: StoreError) -> Self {
        Self::Unavailable
    }
}

impl From<VaultError> for NotFresh {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store { .. } | VaultError::NoRandomness => Self::Unavailable,
            error => Self::Undecryptable {
                words: error.to_string(),
            },
        }
    }
}

/// Keeps grants fresh. One for a process; clones of its `Arc` share the flights.
pub struct Refresher {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    google: GoogleClient,
    clock: Arc<dyn Clock>,
    flights: Flights<OrgId>,
}

const PROVIDER: Provider = Provider::GoogleCalendar;

impl Refresher {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, vault: Arc<Vault>, google: GoogleClient, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            vault,
            google,
            clock,
            flights: Flights::default(),
        }
    }

    /// When a token that ends then is to be refreshed: `before` ahead of it, but never sooner than
    /// half of what is left.
    #[must_use]
    pub fn refresh_at(&self, expires_at: Timestamp) -> Timestamp {
        let now = self.clock.now();
        expires_at - self.google.refresh_before().min(expires_at.since(now) / 2)
    }

    /// Makes sure that the stored token is what is wanted; returns the version that stands.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn ensure(&self, org: OrgId, want: Want) -> Result<i64, NotFresh> {
        let flight = self.flights.of(org);
        let _alone = flight.lock().await;
        let until = Instant::now() + WAIT_MAX;
        let mut waits_after_failures = !matches!(want, Want::NewerThanNow(_));
        loop {
            let (row, google) = self.read(org).await?;
            if self.has(&row, &google, want) {
                return Ok(row.version);
            }
            let words = || words_of(row.health.error.as_ref());
            if row.health.state == IntegrationState::NeedsReconnecting {
                return Err(NotFresh::NeedsReconnecting { words: words() });
            }
            let now = self.clock.now();
            if let Some(next) = row
                .refresh_at
                .filter(|next| row.health.state == IntegrationState::Failing && *next > now)
                .filter(|_| std::mem::replace(&mut waits_after_failures, true))
            {
                return Err(NotFresh::Later {
                    until: next,
                    words: words(),
                });
            }
            match self
                .store
                .take_lease(org, &format!("refresh:{}", row.id), LEASE)
                .await?
            {
                Some(lease) => {
                    if let Some(done) = self.refresh(lease, row.version).await {
                        return done;
                    }
                }
                None => tokio::time::sleep(POLL_PERIOD).await,
            }
            if Instant::now() > until {
                return Err(NotFresh::Later {
                    until: now + POLL_PERIOD,
                    words: "another instance refreshes it".to_owned(),
                });
            }
        }
    }

    async fn read(&self, org: OrgId) -> Result<(StoredCredential, GoogleCredential), NotFresh> {
        let row = self
            .store
            .find_credential(org, PROVIDER, "")
            .await?
            .filter(|row| row.is_active)
            .ok_or(NotFresh::NotConnected)?;
        let Some(sealed) = &row.sealed else {
            return Err(NotFresh::NotConnected);
        };
        let google = open(&self.vault, org, PROVIDER, sealed).await?;
        let google = google.ok_or_else(|| NotFresh::Undecryptable {
            words: "the stored grant is not in the form that this version reads".to_owned(),
        })?;
        Ok((row, google))
    }

    fn has(&self, row: &StoredCredential, google: &GoogleCredential, want: Want) -> bool {
        let now = self.clock.now();
        match want {
            Want::ValidFor(time) => google.expires_at >= now + time,
            Want::NewerThan(version) | Want::NewerThanNow(version) => row.version > version,
            Want::Due => row.refresh_at.is_none_or(|at| at > now),
        }
    }

    /// One refresh under a lease. `None`: someone else's version stands, look again.
    async fn refresh(&self, lease: Lease, version: i64) -> Option<Result<i64, NotFresh>> {
        let org = lease.org;
        // Read again under the lease, because its former holder may have refreshed.
        let read = match self.read(org).await {
            Ok((row, google)) if row.version == version => Ok((row, google)),
            Ok(_) => Err(None),
            Err(error) => Err(Some(error)),
        };
        let (row, google) = match read {
            Ok(read) => read,
            Err(end) => {
                // A lease that is not given back ends by itself.
                let _ = self.store.release_lease(&lease).await;
                return end.map(Err);
            }
        };
        let answer = self.google.refresh(&google.refresh_token, ANSWER_MAX).await;
        let label = match &answer {
            Ok(_) => "refreshed",
            Err(CallError::Refused(refused)) if is_final(refused) => "refused",
            Err(_) => "failed",
        };
        catalogue::TOKEN_REFRESHES.count(1, &[PROVIDER.as_str(), label]);
        let refresh = match answer {
            Ok(tokens) => self.refreshed(lease, &row, google, tokens).await,
            Err(CallError::Refused(refused)) if is_final(&refused) => {
                // Believed only of what still stands: a reconnect or another instance may have put
                // a good grant in its place meanwhile.
                match self.store.find_credential(org, PROVIDER, "").await {
                    Ok(Some(now)) if now.version == row.version && now.is_active => {
                        Ok(ended(lease, &row, &refused, self.clock.now()))
                    }
                    _ => {
                        let _ = self.store.release_lease(&lease).await;
                        return None;
                    }
                }
            }
            Err(error) => Ok(failed(lease, &row, &error, self.clock.now())),
        };
        let refresh = match refresh {
            Ok(refresh) => refresh,
            Err(error) => return Some(Err(error)),
        };
        let (health, next, has_tokens) = (refresh.health.clone(), refresh.refresh_at, refresh.sealed.is_some());
        match self.write(refresh).await {
            Err(error) => Some(Err(error)),
            Ok(None) => None,
            Ok(Some(version)) if has_tokens => Some(Ok(version)),
            Ok(Some(_)) => {
                let words = words_of(health.error.as_ref());
                if let Some(until) = next {
                    return Some(Err(NotFresh::Later { until, words }));
                }
                warn!(org.id = %org, provider = %PROVIDER, "The grant of organisation {org} for {PROVIDER} was \
                    revoked: it has to be connected again, and its actions park");
                Some(Err(NotFresh::NeedsReconnecting { words }))
            }
        }
    }

    async fn refreshed(
        &self,
        lease: Lease,
        row: &StoredCredential,
        old: GoogleCredential,
        tokens: Tokens,
    ) -> Result<Refresh, NotFresh> {
        let expires_at = self.clock.now() + tokens.expires_in;
        let new = GoogleCredential {
            access_token: tokens.access_token,
            // Google's answer has none, as a rule: the former one stays.
            refresh_token: tokens.refresh_token.unwrap_or(old.refresh_token),
            expires_at,
            scope: tokens.scope.unwrap_or(old.scope),
        };
        let missing = Granted::read(&new.scope).missing().map(str::to_owned);
        let stored = Credential::Google(new).to_stored();
        let sealed = self
            .vault
            .seal(lease.org, Purpose::Credential(PROVIDER), stored.expose_secret())
            .await?;
        let state = if missing.is_some() {
            IntegrationState::Limited
        } else {
            IntegrationState::Connected
        };
        let health = CredentialHealth {
            missing,
            ..CredentialHealth::of(state)
        };
        Ok(Refresh {
            lease,
            id: row.id,
            version: row.version,
            health,
            refresh_at: Some(self.refresh_at(expires_at)),
            sealed: Some(sealed),
        })
    }

    /// The new refresh token stands before anyone uses the access token: a store that is away for a
    /// moment is waited for.
    async fn write(&self, refresh: Refresh) -> Result<Option<i64>, NotFresh> {
        let mut pause = POLL_PERIOD;
        for _ in 1..WRITES_MAX {
            match self.store.record_refresh(refresh.clone()).await {
                Err(StoreError::Unavailable { .. }) => tokio::time::sleep(pause).await,
                written => return Ok(written?),
            }
            pause *= 2;
        }
        Ok(self.store.record_refresh(refresh).await?)
    }

    /// Refreshes what is due until `stop`; what was begun is finished.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            match self.store.list_refreshes_due(self.clock.now(), DUE_MAX).await {
                Ok(due) => self.run_due(due, &stop).await,
                Err(error) => info!(%error, "Tokens cannot be looked at for now"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    async fn run_due(self: &Arc<Self>, due: Vec<RefreshDue>, stop: &CancellationToken) {
        let mut tasks = JoinSet::new();
        for one in due.into_iter().filter(|one| one.provider == PROVIDER) {
            if tasks.len() >= CONCURRENT_MAX {
                tasks.join_next().await;
            }
            if stop.is_cancelled() {
                break;
            }
            let refresher = Arc::clone(self);
            tasks.spawn(async move { refresher.ensure(one.org, Want::Due).await });
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// Errors that no later try mends (RFC 6749, section 5.2; Google: revoked, unused for six months,
/// password changed, time-limited consent over).
fn is_final(refused: &ProviderRefusal) -> bool {
    refused.http_status == 400 && refused.code.as_deref() == Some("invalid_grant")
}

fn ended(lease: Lease, row: &StoredCredential, refused: &ProviderRefusal, now: Timestamp) -> Refresh {
    let health = CredentialHealth {
        state: IntegrationState::NeedsReconnecting,
        cause: Some(Cause::CredentialRefused.as_str().to_owned()),
        error: Some(CredentialError {
            message: format!(
                "Google does not accept the consent any more: {} Connect the calendar again.",
                sentence(&refused.message)
            ),
            http_status: Some(refused.http_status),
            code: refused.code.as_deref().map(str::to_owned),
        }),
        missing: row.health.missing.clone(),
        checked_at: Some(now),
        first_failed_at: row.health.first_failed_at.or(Some(now)),
    };
    Refresh {
        lease,
        id: row.id,
        version: row.version,
        health,
        refresh_at: None,
        sealed: None,
    }
}

fn failed(lease: Lease, row: &StoredCredential, error: &CallError, now: Timestamp) -> Refresh {
    let first = row.health.first_failed_at.unwrap_or(now);
    let (cause, words, wait) = match error {
        CallError::Refused(refused)
            if refused.http_status == 401
                || matches!(refused.code.as_deref(), Some("invalid_client" | "unauthorized_client")) =>
        {
            error!(
                "Google refuses this installation's OAuth client: look at HOOKSWITCH_GOOGLE_CLIENT_ID and \
                HOOKSWITCH_GOOGLE_CLIENT_SECRET"
            );
            (
                Cause::Misconfigured,
                "Google refuses this installation's client. Whoever runs it has to look at its settings.".to_owned(),
                RETRY_MAX,
            )
        }
        error => {
            let cause = if matches!(error, CallError::NotSent { .. }) {
                Cause::ConnectFailed
            } else {
                Cause::ProviderUnavailable
            };
            (
                cause,
                format!("Google gave no new token: {}", reason(error)),
                now.since(first) / 2,
            )
        }
    };
    let refused = match error {
        CallError::Refused(refused) => Some(refused),
        _ => None,
    };
    let asked = refused.and_then(|refused| refused.retry_after);
    let next = now + wait.clamp(RETRY_MIN, RETRY_MAX);
    let next = asked.map_or(next, |asked| next.max(asked.min(now + RETRY_MAX)));
    let health = CredentialHealth {
        state: IntegrationState::Failing,
        cause: Some(cause.as_str().to_owned()),
        error: Some(CredentialError {
            message: words,
            http_status: refused.map(|refused| refused.http_status),
            code: refused.and_then(|refused| refused.code.as_deref().map(str::to_owned)),
        }),
        missing: row.health.missing.clone(),
        checked_at: Some(now),
        first_failed_at: Some(first),
    };
    Refresh {
        lease,
        id: row.id,
        version: row.version,
        health,
        refresh_at: Some(next),
        sealed: None,
    }
}

fn words_of(error: Option<&CredentialError>) -> String {
    error.map(|error| error.message.clone()).unwrap_or_default()
}

/// Why there was no token. A provider that is down has no words of its own.
fn reason(error: &CallError) -> String {
    match error {
        CallError::Refused(refused) if refused.message.trim().is_empty() => {
            format!("it answered {}.", refused.http_status)
        }
        CallError::Refused(refused) => format!("it answered {}: {}", refused.http_status, sentence(&refused.message)),
        error => sentence(&error.to_string()),
    }
}

fn sentence(words: &str) -> String {
    let words = words.trim();
    if words.is_empty() {
        "it gives no reason.".to_owned()
    } else {
        format!("{}.", words.trim_end_matches('.'))
    }
}
