//! Whose webhook it is: ids choose which secrets to try, and the owner of the one that verifies is
//! the organisation (invariant 17).

use super::{answer::Cause, limits::Place};
use crate::{
    domain::{EndpointId, OrgId, SecretBytes, SecretId, Source, Timestamp},
    routing::{OrgEntry, RouteTable, SigningSecret},
    source::{self, Plan, Reading, Refusal, Request, SigningKey},
    vault::{Purpose, SecretCache, Vault, VaultError},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Secrets tried for one request. More would let ids that lead to many organisations buy time.
const CANDIDATES_MAX: usize = 16;
const KEYS_TIME_TO_LIVE: Duration = Duration::from_mins(10);

/// Who signed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Signer {
    pub org: OrgId,
    /// The endpoint whose own secret verified.
    pub endpoint: Option<EndpointId>,
}

/// Why nobody vouches for it, and whose it claims to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unverified {
    pub cause: Cause,
    pub org: Option<OrgId>,
}

pub(super) struct Verifier {
    routes: Arc<RouteTable>,
    vault: Arc<Vault>,
    keys: SecretCache<SecretId, SigningKey>,
    /// Keys that verify nothing: a request that leads nowhere takes as long as one that does.
    nobodys: [(Source, SigningKey); 2],
    warned_at: Mutex<Option<Instant>>,
}

/// Secrets that may vouch for a request, with the organisation that each belongs to.
struct Candidates {
    /// The first organisation that the ids or the endpoint lead to.
    claimed: Option<OrgId>,
    secrets: Vec<(Arc<OrgEntry>, usize)>,
}

impl Candidates {
    fn iter(&self) -> impl Iterator<Item = (&OrgEntry, &SigningSecret)> {
        self.secrets.iter().map(|(org, at)| (&**org, &org.secrets[*at]))
    }

    fn same_as(&self, other: &Self) -> bool {
        self.claimed == other.claimed
            && self
                .iter()
                .map(|(_, secret)| secret.id)
                .eq(other.iter().map(|(_, secret)| secret.id))
    }
}

impl Verifier {
    /// `keys_max` keys are held ready, one a secret.
    pub(super) fn new(routes: Arc<RouteTable>, vault: Arc<Vault>, keys_max: usize) -> Self {
        let nobody = SecretBytes::new(vec![0x5a; 32]);
        let nobodys = [Source::Vapi, Source::Twilio].map(|source| {
            let plan = source::plan_default(source).expect("both sources have a default plan");
            (
                source,
                SigningKey::new(&plan, &nobody).expect("32 bytes are a key of every default plan"),
            )
        });
        Self {
            routes,
            vault,
            keys: SecretCache::new("signing_keys", keys_max, KEYS_TIME_TO_LIVE),
            nobodys,
            warned_at: Mutex::new(None),
        }
    }

    pub(super) fn gather_gauges(&self) {
        self.keys.gather_gauges();
    }

    /// Memory only, unless nobody vouches: then one shared look whether the snapshot has moved on,
    /// and a second try where it has (invariant 9). `stranger` is asked once when the ids lead
    /// nowhere, and says whether the caller may go on.
    pub(super) async fn verify(
        &self,
        place: Place,
        reading: &Reading,
        request: &Request<'_>,
        now: Timestamp,
        stranger: impl FnOnce() -> bool,
    ) -> Result<Signer, Unverified> {
        let candidates = self.candidates(place, reading, now);
        let refused = match self.try_all(&candidates, place.source, reading, request, now) {
            Ok(signer) => return Ok(signer),
            Err(refused) => refused,
        };
        if candidates.claimed.is_none() && !stranger() {
            return Err(Unverified {
                cause: Cause::RateLimited,
                org: None,
            });
        }
        // Whatever the cause, so that a sender cannot tell one from another by the time that its
        // answer takes.
        self.routes.refresh_now().await;
        let again = self.candidates(place, reading, now);
        // The same secrets say the same again; only where its ids lead can have changed.
        if again.same_as(&candidates) && refused.cause != Cause::ConflictingRoute {
            return Err(refused);
        }
        self.try_all(&again, place.source, reading, request, now)
    }

    fn candidates(&self, place: Place, reading: &Reading, now: Timestamp) -> Candidates {
        let mut candidates = Candidates {
            claimed: None,
            secrets: Vec::new(),
        };
        if let Some(id) = place.endpoint {
            let Some(endpoint) = self
                .routes
                .endpoint(id)
                .filter(|endpoint| endpoint.source == place.source)
            else {
                return candidates;
            };
            let Some(org) = self.active(endpoint.org) else {
                return candidates;
            };
            candidates.claimed = Some(org.org);
            candidates.add(&org, now, |secret| {
                secret.source == place.source && secret.endpoint == Some(id)
            });
            if candidates.secrets.is_empty() {
                candidates.add(&org, now, |secret| {
                    secret.source == place.source && secret.endpoint.is_none()
                });
            }
            return candidates;
        }
        let mut seen: Option<OrgId> = None;
        for key in &reading.routes {
            let Some(org) = self.routes.get(key) else { continue };
            // Ids of one request nearly always lead to one organisation: comparing with the last
            // one found is enough to add each once.
            if seen == Some(org) || candidates.secrets.iter().any(|(known, _)| known.org == org) {
                continue;
            }
            seen = Some(org);
            let Some(org) = self.active(org) else { continue };
            candidates.claimed.get_or_insert(org.org);
            candidates.add(&org, now, |secret| secret.source == place.source);
        }
        candidates
    }

    fn active(&self, org: OrgId) -> Option<Arc<OrgEntry>> {
        self.routes.org(org).filter(|entry| entry.is_active)
    }

    fn try_all(
        &self,
        candidates: &Candidates,
        source: Source,
        reading: &Reading,
        request: &Request<'_>,
        now: Timestamp,
    ) -> Result<Signer, Unverified> {
        let org = candidates.claimed;
        let mut cause = if org.is_some() {
            Cause::BadSignature
        } else {
            Cause::UnknownRoute
        };
        let mut is_tried = false;
        for (owner, secret) in candidates.iter() {
            let key = match self.key(owner, secret) {
                Ok(key) => key,
                Err(NoKey::Unusable) => continue,
                // Ours to mend, so never the sender's fault: it may come back.
                Err(NoKey::Sealed(error)) => {
                    self.warn(&error);
                    cause = Cause::Unavailable;
                    continue;
                }
            };
            is_tried = true;
            match key.verify(request, now) {
                Ok(()) => {
                    let leads_elsewhere = reading
                        .routes
                        .iter()
                        .any(|key| self.routes.get(key).is_some_and(|org| org != owner.org));
                    if leads_elsewhere {
                        return Err(Unverified {
                            cause: Cause::ConflictingRoute,
                            org,
                        });
                    }
                    return Ok(Signer {
                        org: owner.org,
                        endpoint: secret.endpoint,
                    });
                }
                Err(Refusal::TooOld | Refusal::TooFarAhead) => cause = Cause::TooOld,
                Err(_) => {}
            }
        }
        if !is_tried && let Some((_, key)) = self.nobodys.iter().find(|(of, _)| *of == source) {
            std::hint::black_box(key.verify(request, now).is_ok());
        }
        Err(Unverified { cause, org })
    }

    fn key(&self, owner: &OrgEntry, secret: &SigningSecret) -> Result<Arc<SigningKey>, NoKey> {
        self.keys.get_or_make(&secret.id, || {
            let plan: Plan = serde_json::from_str(&secret.plan).map_err(|_| NoKey::Unusable)?;
            let purpose = Purpose::SigningSecret(secret.source);
            self.vault
                .open_with(&owner.data_keys, owner.org, purpose, &secret.sealed, |plaintext| {
                    SigningKey::new(&plan, plaintext)
                })
                .map_err(NoKey::Sealed)?
                .map_err(|_| NoKey::Unusable)
        })
    }

    /// At most once in a while: every webhook of that organisation would say it again.
    fn warn(&self, error: &VaultError) {
        const EVERY: Duration = Duration::from_secs(10);
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|at| at.elapsed() >= EVERY) {
            *warned_at = Some(Instant::now());
            tracing::error!(error = %error, "A signing secret cannot be opened; webhooks that it would verify get 503");
        }
    }
}

/// Why a secret makes no key.
enum NoKey {
    /// Its plan or its bytes are not what a key is made of: it verifies nothing.
    Unusable,
    Sealed(VaultError),
}

impl Candidates {
    fn add(&mut self, org: &Arc<OrgEntry>, now: Timestamp, wanted: impl Fn(&SigningSecret) -> bool) {
        let valid = |secret: &SigningSecret| wanted(secret) && secret.not_after.is_none_or(|end| now <= end);
        let room = CANDIDATES_MAX.saturating_sub(self.secrets.len());
        let found = org
            .secrets
            .iter()
            .enumerate()
            .filter(|(_, secret)| valid(secret))
            .take(room);
        self.secrets.extend(found.map(|(at, _)| (Arc::clone(org), at)));
    }
}
