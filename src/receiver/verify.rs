//! Finds the organisation of a webhook: ids choose the secrets to try, and the owner of the secret
//! that verifies is the organisation (invariant 17).

use super::{answer::Cause, limits::WebhookPath, platform::PlatformKeys, uses::SecretUses};
use crate::{
    domain::{EndpointId, OrgId, SecretBytes, SecretId, Source, Timestamp},
    routing::{Asker, OrgEntry, RouteTable, SigningSecret},
    source::{self, Plan, Reading, Refusal, Request, SigningKey},
    vault::{CacheStats, Purpose, SecretCache, Vault, VaultError},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Organisations whose secrets are tried for one request. More would let ids that lead to many
/// organisations buy time. All valid secrets of an organisation are tried: `admin` limits their
/// number when they are saved, so that no valid secret is ever left out here.
const ORGANISATIONS_MAX: usize = 4;
const KEYS_TIME_TO_LIVE: Duration = Duration::from_mins(10);

/// The owner of the secret that verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Signer<'r> {
    /// `None`: the platform signed, and the ids lead nowhere.
    pub org: Option<OrgId>,
    /// The endpoint whose own secret verified.
    pub endpoint: Option<EndpointId>,
    /// `None`: a secret of the platform.
    pub secret: Option<SecretId>,
    /// The secret itself, where the request carries it.
    pub secret_carried: Option<&'r [u8]>,
}

/// Why no secret verified the request, and the organisation that its ids lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unverified {
    pub cause: Cause,
    pub org: Option<OrgId>,
}

impl Unverified {
    /// Whether no secret of an organisation fits. Other causes stand whoever else signed.
    const fn is_open(self) -> bool {
        matches!(self.cause, Cause::BadSignature | Cause::UnknownRoute)
    }
}

pub(super) struct Verifier {
    platform: PlatformKeys,
    routes: Arc<RouteTable>,
    vault: Arc<Vault>,
    keys: SecretCache<SecretId, SigningKey>,
    /// Keys that verify nothing. A request whose ids lead nowhere tries one, so that its answer
    /// takes as long as another's.
    decoy_keys: [(Source, SigningKey); 2],
    /// When each secret verified last.
    pub(super) uses: SecretUses,
    warned_at: Mutex<Option<Instant>>,
}

/// Secrets that may verify a request, with the organisation that each belongs to.
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
    pub(super) fn new(routes: Arc<RouteTable>, vault: Arc<Vault>, platform: PlatformKeys, keys_max: usize) -> Self {
        let decoy = SecretBytes::new(vec![0x5a; 32]);
        let decoy_keys = [Source::Vapi, Source::Twilio].map(|source| {
            let plan = source::plan_default(source).expect("both sources have a default plan");
            (
                source,
                SigningKey::new(&plan, &decoy).expect("32 bytes are a key of every default plan"),
            )
        });
        Self {
            platform,
            routes,
            vault,
            keys: SecretCache::new("signing_keys", keys_max, KEYS_TIME_TO_LIVE),
            decoy_keys,
            uses: SecretUses::default(),
            warned_at: Mutex::new(None),
        }
    }

    pub(super) fn gather_gauges(&self) {
        self.keys.gather_gauges();
    }

    pub(super) fn cache_stats(&self) -> CacheStats {
        self.keys.stats()
    }

    /// Works in memory only, unless no secret verifies: then it refreshes the snapshot once, and
    /// tries again where that changed anything (invariant 9). `try_take_token` is called once when
    /// the ids lead nowhere; `false` ends the request.
    pub(super) async fn verify<'r>(
        &self,
        path: WebhookPath,
        reading: &Reading,
        request: &Request<'r>,
        now: Timestamp,
        try_take_token: impl FnOnce() -> bool,
    ) -> Result<Signer<'r>, Unverified> {
        let candidates = self.candidates(path, reading, now);
        let refused = match self.try_all(&candidates, path.source, reading, request, now) {
            Ok(signer) => return Ok(self.noted(signer, now)),
            Err(refused) => refused,
        };
        let is_platform =
            path.endpoint.is_none() && refused.is_open() && self.platform.verify(path.source, request, now);
        if candidates.claimed.is_none() && !is_platform && !try_take_token() {
            return Err(Unverified {
                cause: Cause::RateLimited,
                org: None,
            });
        }
        // Every cause waits for this, so that a sender cannot tell causes apart by the time of an
        // answer. The platform's account waits because a route decides whose its event is: one that
        // was taken back or given to another organisation counts at once.
        let asker = if is_platform { Asker::Proven } else { Asker::Unproven };
        self.routes.refresh_now(asker).await;
        let again = self.candidates(path, reading, now);
        // The same secrets give the same result; only the routes of its ids can have changed.
        let refused = if again.same_as(&candidates) && refused.cause != Cause::ConflictingRoute {
            refused
        } else {
            match self.try_all(&again, path.source, reading, request, now) {
                Ok(signer) => return Ok(self.noted(signer, now)),
                Err(refused) => refused,
            }
        };
        if is_platform && refused.is_open() {
            return self.of_platform(path.source, reading, refused, now);
        }
        Err(refused)
    }

    /// The organisation that the platform signed for: every unique id that leads somewhere leads to
    /// it by a route of the platform's, and it has no secret of its own for the source (invariant
    /// 19). Where no id leads anywhere the event has no organisation yet.
    fn of_platform(
        &self,
        source: Source,
        reading: &Reading,
        refused: Unverified,
        now: Timestamp,
    ) -> Result<Signer<'static>, Unverified> {
        let mut owner = None;
        for key in reading.routes.iter().filter(|key| key.kind.is_unique_at_provider()) {
            let Some(org) = self.routes.get(key) else { continue };
            if owner.is_some_and(|owner| owner != org) {
                return Err(Unverified {
                    cause: Cause::ConflictingRoute,
                    org: owner,
                });
            }
            if !self.routes.is_platform_managed(key, org) {
                return Err(refused);
            }
            owner = Some(org);
        }
        if let Some(owner) = owner {
            let is_own =
                |secret: &SigningSecret| secret.source == source && secret.not_after.is_none_or(|end| now <= end);
            let entry = self.active(owner).ok_or(refused)?;
            if entry.secrets.iter().any(is_own) {
                return Err(refused);
            }
        }
        Ok(Signer {
            org: owner,
            endpoint: None,
            secret: None,
            secret_carried: None,
        })
    }

    fn noted<'r>(&self, signer: Signer<'r>, now: Timestamp) -> Signer<'r> {
        if let Some((org, secret)) = signer.org.zip(signer.secret) {
            self.uses.note(org, secret, now);
        }
        signer
    }

    fn candidates(&self, path: WebhookPath, reading: &Reading, now: Timestamp) -> Candidates {
        let mut candidates = Candidates {
            claimed: None,
            secrets: Vec::new(),
        };
        if let Some(id) = path.endpoint {
            let Some(endpoint) = self
                .routes
                .endpoint(id)
                .filter(|endpoint| endpoint.source == path.source)
            else {
                return candidates;
            };
            let Some(org) = self.active(endpoint.org) else {
                return candidates;
            };
            candidates.claimed = Some(org.org);
            candidates.add(&org, now, |secret| {
                secret.source == path.source && secret.endpoint == Some(id)
            });
            if candidates.secrets.is_empty() {
                candidates.add(&org, now, |secret| {
                    secret.source == path.source && secret.endpoint.is_none()
                });
            }
            return candidates;
        }
        let mut seen: Option<OrgId> = None;
        let mut organisations = 0;
        for key in &reading.routes {
            // A plain number chooses secrets only where no unique id does (invariant 18). It stands
            // behind the unique ids.
            if !key.kind.is_unique_at_provider() && candidates.claimed.is_some() {
                continue;
            }
            let Some(org) = self.routes.get(key) else { continue };
            // Ids of one request nearly always lead to one organisation: comparing with the last
            // one found is enough to add each once.
            if seen == Some(org) || candidates.secrets.iter().any(|(known, _)| known.org == org) {
                continue;
            }
            seen = Some(org);
            let Some(org) = self.active(org) else { continue };
            organisations += 1;
            if organisations > ORGANISATIONS_MAX {
                break;
            }
            candidates.claimed.get_or_insert(org.org);
            candidates.add(&org, now, |secret| secret.source == path.source);
        }
        candidates
    }

    fn active(&self, org: OrgId) -> Option<Arc<OrgEntry>> {
        self.routes.org(org).filter(|entry| entry.is_active)
    }

    fn try_all<'r>(
        &self,
        candidates: &Candidates,
        source: Source,
        reading: &Reading,
        request: &Request<'r>,
        now: Timestamp,
    ) -> Result<Signer<'r>, Unverified> {
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
                // The fault is ours, so the sender may try again.
                Err(NoKey::Sealed(error)) => {
                    self.warn(&error);
                    cause = Cause::Unavailable;
                    continue;
                }
            };
            is_tried = true;
            match key.verify(request, now) {
                Ok(()) => {
                    // Only a unique id can contradict the secret. A plain number leads to the last
                    // organisation that proved it, which may have lost or merely typed it.
                    let leads_elsewhere = reading.routes.iter().any(|key| {
                        key.kind.is_unique_at_provider() && self.routes.get(key).is_some_and(|org| org != owner.org)
                    });
                    if leads_elsewhere {
                        return Err(Unverified {
                            cause: Cause::ConflictingRoute,
                            org,
                        });
                    }
                    return Ok(Signer {
                        org: Some(owner.org),
                        endpoint: secret.endpoint,
                        secret: Some(secret.id),
                        secret_carried: key.secret_carried(request),
                    });
                }
                Err(Refusal::TooOld | Refusal::TooFarAhead) => cause = Cause::TooOld,
                Err(_) => {}
            }
        }
        if !is_tried && let Some((_, key)) = self.decoy_keys.iter().find(|(of, _)| *of == source) {
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

    /// Warns at most every 10 seconds, because every webhook of that organisation meets the fault.
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
        let found = org.secrets.iter().enumerate().filter(|(_, secret)| valid(secret));
        self.secrets.extend(found.map(|(at, _)| (Arc::clone(org), at)));
    }
}
