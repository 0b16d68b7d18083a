//! Public keys of an identity provider, for RS256 and ES256 tokens.
//!
//! **Invariant:** no token can cause more than one fetch in ten seconds, and a failed fetch never
//! removes known keys.

use super::token::Key;
use crate::{
    domain::{Clock, Timestamp},
    provider::http::HttpClient,
};
use async_trait::async_trait;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Least time between two fetches.
const COOLDOWN: Duration = Duration::from_secs(10);
/// Age from which keys are fetched again although they serve.
const FRESH: Duration = Duration::from_mins(5);
/// Age up to which keys serve while no fetch succeeds.
const STALE_MAX: Duration = Duration::from_hours(24);
const KEYS_MAX: usize = 64;
/// Time for one fetch, because requests wait for its result.
const FETCH_MAX: Duration = Duration::from_secs(5);

/// Gets the document. HTTP in production; tests count the fetches.
#[async_trait]
pub trait FetchKeys: Send + Sync + 'static {
    /// # Errors
    /// The cause, for the log.
    async fn fetch(&self) -> Result<Vec<u8>, String>;
}

/// The document at a URL of the settings.
pub struct HttpKeys {
    pub http: HttpClient,
    pub url: String,
}

#[async_trait]
impl FetchKeys for HttpKeys {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        let answer = self
            .http
            .get_document(&self.url, FETCH_MAX)
            .await
            .map_err(|error| error.to_string())?;
        match (answer.status, answer.body) {
            (200, Ok(body)) => Ok(body.to_vec()),
            (200, Err(reason)) => Err(reason.to_owned()),
            (status, _) => Err(format!("the answer was {status}")),
        }
    }
}

/// The result of looking up a key id.
#[derive(Debug)]
pub enum KeyLookup {
    Key(Key),
    /// The identity provider does not have it.
    Unknown,
    /// It could not be asked.
    Unavailable,
}

pub struct Jwks {
    source: Arc<dyn FetchKeys>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// One fetch runs at a time. Requests that wait for the lock use its result.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: HashMap<String, Key>,
    fetched_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
    last_try_failed: bool,
}

#[derive(Deserialize)]
struct Document {
    /// Each key is parsed alone, so that a key of an unknown kind does not hide the others.
    keys: Vec<serde_json::Value>,
}

impl Jwks {
    #[must_use]
    pub fn new(source: Arc<dyn FetchKeys>, clock: Arc<dyn Clock>) -> Self {
        Self {
            source,
            clock,
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// The key of an id. Fetches when the key is unknown or old, at most once in ten seconds. A
    /// known key serves while newer keys are fetched: only the request that fetches waits.
    pub async fn find(&self, key_id: &str) -> KeyLookup {
        let (is_usable, is_fresh) = {
            let state = self.state();
            let age = self.age(state.fetched_at);
            (state.keys.contains_key(key_id) && age <= STALE_MAX, age < FRESH)
        };
        if !is_usable {
            let _one_fetch = self.fetching.lock().await;
            self.fetch_if_due().await;
        } else if !is_fresh && let Ok(_one_fetch) = self.fetching.try_lock() {
            self.fetch_if_due().await;
        }
        let state = self.state();
        match state.keys.get(key_id) {
            Some(key) if self.age(state.fetched_at) <= STALE_MAX => KeyLookup::Key(key.clone()),
            None if !state.last_try_failed => KeyLookup::Unknown,
            _ => KeyLookup::Unavailable,
        }
    }

    async fn fetch_if_due(&self) {
        {
            let mut state = self.state();
            if self.age(state.tried_at) < COOLDOWN {
                return;
            }
            state.tried_at = Some(self.clock.now());
        }
        let fetched = self.source.fetch().await.and_then(|document| read(&document));
        let mut state = self.state();
        state.last_try_failed = fetched.is_err();
        match fetched {
            Ok(keys) => {
                state.keys = keys;
                state.fetched_at = Some(self.clock.now());
            }
            Err(reason) => tracing::warn!(reason, "The keys of tokens could not be fetched"),
        }
    }

    /// Held for a look or a change, never while keys are fetched.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn age(&self, at: Option<Timestamp>) -> Duration {
        at.map_or(Duration::MAX, |at| self.clock.now().since(at))
    }
}

fn read(document: &[u8]) -> Result<HashMap<String, Key>, String> {
    let document: Document =
        serde_json::from_slice(document).map_err(|_| "the document is not a set of JWKs".to_owned())?;
    let keys = document
        .keys
        .into_iter()
        .take(KEYS_MAX)
        .filter_map(|value| serde_json::from_value::<Jwk>(value).ok());
    Ok(keys
        .filter_map(|jwk| Some((jwk.common.key_id.clone()?, usable(&jwk)?)))
        .collect())
}

/// The kind of the key decides the algorithm. A key that names another algorithm is not used.
fn usable(jwk: &Jwk) -> Option<Key> {
    let (algorithm, named) = match &jwk.algorithm {
        // 2,048 bits in base64url are 342 characters.
        AlgorithmParameters::RSA(rsa) if rsa.n.len() >= 342 => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|own| own != named) {
        return None;
    }
    if jwk
        .common
        .public_key_use
        .as_ref()
        .is_some_and(|usage| *usage != PublicKeyUse::Signature)
    {
        return None;
    }
    // RFC 7517, section 4.3: a key that lists its operations is used for no other.
    if jwk
        .common
        .key_operations
        .as_ref()
        .is_some_and(|operations| !operations.contains(&KeyOperations::Verify))
    {
        return None;
    }
    Some(Key {
        algorithm,
        key: DecodingKey::from_jwk(jwk).ok()?,
    })
}
