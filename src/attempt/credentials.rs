//! The credential of an attempt: cached under its version, loaded from the store and opened by the
//! vault. Never from the environment.

use crate::{
    domain::{Cause, Clock, CredentialId, IntegrationState, OrgId, Provider, Timestamp},
    oauth::{NotFresh, Refresher, Want},
    provider::Credential,
    store::{Store, StoreError, credentials::account_mark},
    vault::{CacheStats, Purpose, SecretCache, Vault, VaultError},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// The life that a token must have left for an exchange to begin: more than an exchange takes.
const TOKEN_LEFT_MIN: Duration = Duration::from_mins(1);
/// The shortest wait for a token that Google does not give now.
const TOKEN_PAUSE_MIN: Duration = Duration::from_secs(1);

/// A good use is noted at most this often.
const TOUCH_EVERY: Duration = Duration::from_mins(1);

pub(super) struct Loaded {
    pub credential: Credential,
    pub id: CredentialId,
    pub version: i64,
    /// As [`account_mark`] names it.
    pub account: Option<String>,
    touched_at: AtomicI64,
}

impl Loaded {
    /// Whether this good use is one to note.
    pub fn is_to_touch(&self, now: Timestamp) -> bool {
        let before = self.touched_at.load(Ordering::Relaxed);
        now.since(Timestamp::from_micros(before)) >= TOUCH_EVERY
            && self
                .touched_at
                .compare_exchange(before, now.as_micros(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// Why there is no credential.
#[derive(Clone, Debug)]
pub(super) enum NoCredential {
    /// It is missing, erased, or cannot be opened: the action parks.
    Park {
        cause: Cause,
        detail: String,
        version: Option<i64>,
    },
    /// It could not be read, so nothing is known about it. The action waits.
    Unavailable,
    /// Its token has ended and there is no new one yet. The action waits, and the wait uses up no
    /// try.
    Later { pause: Duration, detail: String },
}

impl From<StoreError> for NoCredential {
    fn from(_: StoreError) -> Self {
        Self::Unavailable
    }
}

type Key = (OrgId, Provider, Box<str>);

struct RefusedVersion {
    org: OrgId,
    version: i64,
    /// The provider's.
    words: Box<str>,
}

pub(super) struct Credentials {
    cache: SecretCache<Key, Loaded>,
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    pub refresher: Arc<Refresher>,
    /// Versions that a provider has refused, until their rows say so: attempts that were claimed
    /// before the first refusal do not ask again. Bounded by the credentials that fail at once,
    /// because each change of its organisation's credentials takes an entry out.
    refused: Mutex<HashMap<CredentialId, RefusedVersion>>,
}

impl Credentials {
    pub fn new(
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        clock: Arc<dyn Clock>,
        refresher: Arc<Refresher>,
        entries_max: usize,
        time_to_live: Duration,
    ) -> Self {
        Self {
            cache: SecretCache::new("credentials", entries_max, time_to_live),
            store,
            vault,
            clock,
            refresher,
            refused: Mutex::default(),
        }
    }

    /// A provider has refused this version, in these words.
    pub fn mark_refused(&self, org: OrgId, loaded: &Loaded, words: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, words) = (loaded.version, words.into());
        refused.insert(loaded.id, RefusedVersion { org, version, words });
    }

    /// The words of a refusal of this version.
    pub fn refusal_of(&self, loaded: &Loaded) -> Option<Box<str>> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let known = refused.get(&loaded.id)?;
        (known.version == loaded.version).then(|| known.words.clone())
    }

    pub async fn get(&self, org: OrgId, provider: Provider, name: &str) -> Result<Arc<Loaded>, NoCredential> {
        let key = (org, provider, name.into());
        let loaded = self.cache.get_or_load(&key, self.load(org, provider, name)).await?;
        if self.token_left(&loaded).is_none_or(|left| left >= TOKEN_LEFT_MIN) {
            return Ok(loaded);
        }
        // Ask the store first, because another instance may have refreshed the token. Only the
        // holder of the lease asks the provider.
        let fresh = self.refresher.ensure(org, Want::ValidFor(TOKEN_LEFT_MIN)).await;
        match fresh {
            Ok(_) => {
                self.cache.remove(&key);
                self.cache.get_or_load(&key, self.load(org, provider, name)).await
            }
            // Use the token for the little time that it has left, because Google gives no new one
            // now.
            Err(NotFresh::Later { .. }) if self.token_left(&loaded).is_some_and(|left| !left.is_zero()) => Ok(loaded),
            Err(error) => Err(self.not_fresh(provider, loaded.version, error)),
        }
    }

    /// The time that an access token has left. `None` for a credential that does not expire.
    fn token_left(&self, loaded: &Loaded) -> Option<Duration> {
        match &loaded.credential {
            Credential::Google(google) => Some(google.expires_at.since(self.clock.now())),
            _ => None,
        }
    }

    fn not_fresh(&self, provider: Provider, version: i64, error: NotFresh) -> NoCredential {
        let park = |cause, detail| NoCredential::Park {
            cause,
            detail,
            version: Some(version),
        };
        match error {
            NotFresh::NotConnected => park(Cause::NotConnected, missing(provider, "")),
            NotFresh::NeedsReconnecting { words } => park(Cause::CredentialRefused, words),
            NotFresh::Undecryptable { words } => park(Cause::Undecryptable, words),
            NotFresh::Later { until, words } => NoCredential::Later {
                pause: until.since(self.clock.now()).max(TOKEN_PAUSE_MIN),
                detail: words,
            },
            NotFresh::Unavailable => NoCredential::Unavailable,
        }
    }

    /// The provider refused the token of a version. Before the refusal is believed, ask once for
    /// another token. A credential without a token to refresh stays as it is.
    pub async fn renew(&self, org: OrgId, loaded: &Loaded) -> Result<(), NoCredential> {
        let Credential::Google(_) = &loaded.credential else {
            return Ok(());
        };
        match self.refresher.ensure(org, Want::NewerThan(loaded.version)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.not_fresh(Provider::GoogleCalendar, loaded.version, error)),
        }
    }

    pub fn gather_gauges(&self) {
        self.cache.gather_gauges();
    }

    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Reads past the cache, after an error of authentication under a version that may be old
    /// (invariant 6).
    pub async fn reload(&self, org: OrgId, provider: Provider, name: &str) -> Result<Arc<Loaded>, NoCredential> {
        self.cache.remove(&(org, provider, name.into()));
        self.get(org, provider, name).await
    }

    /// Drops the cached credentials of these organisations, because they may have changed. Those of
    /// all others stay.
    pub fn forget(&self, orgs: &[OrgId]) {
        if orgs.is_empty() {
            return;
        }
        let orgs: HashSet<OrgId> = orgs.iter().copied().collect();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, refused| !orgs.contains(&refused.org));
        drop(refused);
        self.cache.remove_where(|(owner, _, _)| orgs.contains(owner));
    }

    async fn load(&self, org: OrgId, provider: Provider, name: &str) -> Result<Loaded, NoCredential> {
        let park = |cause, detail: String, version| NoCredential::Park { cause, detail, version };
        let not_connected = |version| park(Cause::NotConnected, missing(provider, name), version);
        let Some(stored) = self.store.find_credential(org, provider, name).await? else {
            return Err(not_connected(None));
        };
        let version = Some(stored.version);
        let Some(sealed) = stored.sealed.filter(|_| stored.is_active) else {
            return Err(not_connected(version));
        };
        // The provider has refused this version: it is not asked again until a person changes it
        // (invariant 6).
        if stored.health.state == IntegrationState::NeedsReconnecting {
            let detail = stored.health.error.map(|error| error.message).unwrap_or_default();
            return Err(park(Cause::CredentialRefused, detail, version));
        }
        match self
            .vault
            .open(org, Purpose::Credential(provider), &sealed, |plaintext| {
                Credential::parse(provider, plaintext)
            })
            .await
        {
            Ok(Ok(credential)) => Ok(Loaded {
                credential,
                id: stored.id,
                version: stored.version,
                account: account_mark(provider, stored.account_fingerprint.as_deref(), stored.version),
                touched_at: AtomicI64::new(0),
            }),
            Ok(Err(error)) => Err(park(Cause::Misconfigured, error.to_string(), version)),
            Err(VaultError::Store { .. }) => Err(NoCredential::Unavailable),
            Err(error) => Err(park(Cause::Undecryptable, error.to_string(), version)),
        }
    }
}

fn missing(provider: Provider, name: &str) -> String {
    if name.is_empty() {
        format!("{provider} is not connected: connect it, and the action goes on")
    } else {
        format!("there is no {provider} destination of the name that the rule gives: create it, and the action goes on")
    }
}
