//! One claimed action through its exchange, to the record of its outcome.

use super::{
    Policy,
    credentials::{Credentials, Loaded, NoCredential},
    outcome::{Conclusion, Ended},
};
use crate::{
    action::{self, Action, Attempt, Detail, FrozenRequest, LookUp, OnUnknown},
    domain::{
        ActionKind, ActionState, AttemptOutcome, Cause, Clock, IntegrationState, OrgId, Outcome, Provider, SecretBytes,
        Timestamp, sign_hops,
    },
    killpoint::{Step, reach},
    oauth::Refresher,
    provider::Providers,
    store::{
        Store,
        credentials::{CredentialError, CredentialHealth},
        ledger::{Claim, Record},
    },
    telemetry::catalogue,
    vault::{CacheStats, Purpose, Vault, VaultError},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, warn};

/// Wait where nothing could be begun because the store was away.
const STORE_AWAY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct EngineSettings {
    pub policy: Policy,
    /// For one whole exchange with a provider.
    pub deadline: Duration,
    /// The time that a lease must have left beyond the exchange.
    pub margin: Duration,
    /// Scheme and host under which providers reach this installation.
    pub public_url: Option<String>,
    pub credentials_max: usize,
    pub credentials_time_to_live: Duration,
}

/// Runs attempts. One for a process; every method takes `&self`.
pub struct Engine {
    settings: EngineSettings,
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    providers: Providers,
    clock: Arc<dyn Clock>,
    credentials: Credentials,
    /// Uniform in `[0, 1)`.
    random: Box<dyn Fn() -> f64 + Send + Sync>,
    /// The action of a kind.
    actions: fn(ActionKind) -> &'static dyn Action,
}

/// A claim and the moment, on this process's monotonic clock, from which its lease counts: taken
/// before the claim was asked for.
#[derive(Debug)]
pub struct Leased {
    pub claim: Claim,
    pub lease_ends: Instant,
    /// Once it is cancelled nothing more is sent: an attempt that has not begun its exchange gives
    /// its claim back.
    pub stop: CancellationToken,
}

/// The end of an attempt, with the credential that it used.
struct Ending {
    conclusion: Conclusion,
    credential_version: Option<i64>,
    /// `None` where no credential was loaded.
    credential: Option<Arc<Loaded>>,
}

impl From<Conclusion> for Ending {
    fn from(conclusion: Conclusion) -> Self {
        Self {
            conclusion,
            credential_version: None,
            credential: None,
        }
    }
}

impl From<NoCredential> for Ending {
    fn from(error: NoCredential) -> Self {
        match error {
            NoCredential::Park { cause, detail, version } => Self {
                credential_version: version,
                ..Conclusion::Park { cause, detail }.into()
            },
            NoCredential::Unavailable => store_away().into(),
            NoCredential::Later { pause, detail } => Conclusion::NotBegun { pause, why: detail }.into(),
        }
    }
}

/// Why a frozen request cannot be read.
enum OpenError {
    /// The data keys could not be read: nothing is known.
    StoreAway,
    CannotOpen(String),
}

/// The provider refused the credential. The caller decides whether that counts.
struct CredentialRefused(Detail);

impl Engine {
    #[must_use]
    pub fn new(
        settings: EngineSettings,
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        providers: Providers,
        clock: Arc<dyn Clock>,
        random: Box<dyn Fn() -> f64 + Send + Sync>,
    ) -> Self {
        let refresher = Arc::new(Refresher::new(
            store.clone(),
            vault.clone(),
            providers.google.clone(),
            clock.clone(),
        ));
        let (max, time_to_live) = (settings.credentials_max, settings.credentials_time_to_live);
        let credentials = Credentials::new(
            store.clone(),
            vault.clone(),
            clock.clone(),
            refresher,
            max,
            time_to_live,
        );
        Self {
            settings,
            store,
            vault,
            providers,
            clock,
            credentials,
            random,
            actions: action::get,
        }
    }

    /// The same with other actions, for tests of the engine.
    #[must_use]
    pub fn with_actions(mut self, actions: fn(ActionKind) -> &'static dyn Action) -> Self {
        self.actions = actions;
        self
    }

    /// The refresher of this process's tokens. The caller runs it beside the engine, and other
    /// rooms ask it.
    #[must_use]
    pub fn refresher(&self) -> Arc<Refresher> {
        Arc::clone(&self.credentials.refresher)
    }

    /// The use of the cache of credentials.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.credentials.cache_stats()
    }

    /// Whether the organisation has a usable credential. It is loaded as an attempt loads it: for
    /// the benchmark of the cache.
    pub async fn has_credential(&self, org: OrgId, provider: Provider) -> bool {
        self.credentials.get(org, provider, "").await.is_ok()
    }

    /// Sets the gauges of what is held in memory; called at each scrape.
    pub fn gather_gauges(&self) {
        self.credentials.gather_gauges();
    }

    /// Drops the cached credentials of these organisations, because they may have changed. The next
    /// use loads them again.
    pub fn forget_credentials_of(&self, orgs: &[OrgId]) {
        self.credentials.forget(orgs);
    }

    /// One attempt. It never fails: every end is a record. Dropping the future before its exchange
    /// began leaves the row `running`, and its lease makes it `unknown`.
    pub async fn run(&self, leased: &Leased) -> Record {
        let claim = &leased.claim;
        let span = debug_span!(
            "action.attempt",
            action.id = %claim.action,
            event.id = %claim.event,
            org.id = %claim.org,
            subject = claim.subject.as_ref().map(|subject| tracing::field::display(subject.shown())),
            provider = claim.provider.as_str(),
            is_look_up = claim.is_look_up,
            outcome = tracing::field::Empty
        );
        let record = self.run_in_span(leased).instrument(span.clone()).await;
        span.record("outcome", record.outcome.as_str());
        record
    }

    async fn run_in_span(&self, leased: &Leased) -> Record {
        let claim = &leased.claim;
        let begun = Instant::now();
        let ending = self.attempt(leased).await;
        let record = self.record(claim, ending.credential_version, ending.conclusion);
        if record.to == ActionState::Succeeded
            && let Some(loaded) = ending.credential
            && loaded.is_to_touch(record.ended_at)
        {
            // Only a note for people: nothing depends on it.
            let _ = self.store.touch_credential(claim.org, loaded.id, record.ended_at).await;
        }
        let provider = claim.provider.as_str();
        if claim.is_look_up {
            catalogue::LOOK_UPS.count(1, &[provider, record.outcome.as_str()]);
        } else {
            catalogue::ATTEMPTS.count(1, &[provider, record.outcome.as_str()]);
        }
        catalogue::ATTEMPT_SECONDS.observe(begun.elapsed().as_secs_f64(), &[provider]);
        if record.outcome == AttemptOutcome::Interrupted && !leased.stop.is_cancelled() {
            warn!(
                action.id = %claim.action,
                event.id = %claim.event,
                org.id = %claim.org,
                provider,
                "Action {} was not begun: {}; it is claimed again",
                claim.action,
                record.detail
            );
        }
        debug!(
            action.id = %claim.action,
            event.id = %claim.event,
            org.id = %claim.org,
            provider,
            outcome = record.outcome.as_str(),
            provider_ref = record.provider_ref.as_deref().unwrap_or_default(),
            "Action {} was attempted: {}",
            claim.action,
            record.outcome.as_str()
        );
        record
    }

    /// The record of an attempt that broke inside this process: it may have been sent.
    pub fn broken(&self, claim: &Claim) -> Record {
        let outcome = Outcome::Unknown { cause: Cause::Other };
        let detail = Detail::in_words("the attempt broke inside Hookswitch");
        self.record(claim, None, Conclusion::Sent(outcome, detail))
    }

    /// The one place that makes a record.
    fn record(&self, claim: &Claim, credential_version: Option<i64>, conclusion: Conclusion) -> Record {
        let ended = Ended {
            claim,
            on_unknown: (self.actions)(claim.kind).on_unknown(),
            credential_version,
            now: self.clock.now(),
            random: (self.random)(),
        };
        self.settings.policy.record(&ended, conclusion)
    }

    async fn attempt(&self, leased: &Leased) -> Ending {
        let claim = &leased.claim;
        let action = (self.actions)(claim.kind);
        if is_key_forgotten(claim, action.on_unknown(), self.clock.now()) {
            let why = "the other side may have forgotten the key of the first try: say whether it arrived";
            let cause = Cause::Ambiguous;
            return Conclusion::AskPerson { cause, why }.into();
        }
        if is_first_try_lost(claim, action.on_unknown()) {
            let why = "its first try belongs to a database that was replaced by a backup: look there, and say whether \
                it arrived";
            let cause = Cause::Ambiguous;
            return Conclusion::AskPerson { cause, why }.into();
        }
        let request = match self.open(claim).await {
            Ok(request) => request,
            Err(OpenError::StoreAway) => return store_away().into(),
            Err(OpenError::CannotOpen(detail)) => {
                let cause = Cause::Undecryptable;
                return Conclusion::Park { cause, detail }.into();
            }
        };
        let name = &claim.credential_name;
        let loaded = match self.credentials.get(claim.org, claim.provider, name).await {
            Ok(loaded) => loaded,
            Err(error) => return error.into(),
        };
        let loaded = match self.of_the_claimed_account(claim, loaded).await {
            Ok(loaded) => loaded,
            Err(error) => return error.into(),
        };
        let (answer, loaded) = match self.exchange(leased, action, &request, &loaded).await {
            Ok(conclusion) => (Ok(conclusion), loaded),
            // The provider refused it. A newer version may stand behind a cached one, or a new
            // token may be given. That decides (invariant 6).
            Err(refused) => match self.renew_credential(claim, &loaded).await {
                Ok(newer) if newer.version > loaded.version => {
                    (self.exchange(leased, action, &request, &newer).await, newer)
                }
                Ok(_) | Err(NoCredential::Unavailable) => {
                    self.credentials.mark_refused(claim.org, &loaded, &refused.0.text);
                    (Err(refused), loaded)
                }
                Err(error) => return error.into(),
            },
        };
        let conclusion = match answer {
            Ok(conclusion) => conclusion,
            Err(refused) => self.credential_refused(claim, &loaded, refused).await,
        };
        Ending {
            conclusion,
            credential_version: Some(loaded.version),
            credential: Some(loaded),
        }
    }

    /// A cached credential may be older than the claim: where it opens another account it is loaded
    /// again.
    async fn of_the_claimed_account(&self, claim: &Claim, loaded: Arc<Loaded>) -> Result<Arc<Loaded>, NoCredential> {
        if claim.account.is_none() || claim.account == loaded.account {
            return Ok(loaded);
        }
        let name = &claim.credential_name;
        self.credentials.reload(claim.org, claim.provider, name).await
    }

    async fn renew_credential(&self, claim: &Claim, loaded: &Loaded) -> Result<Arc<Loaded>, NoCredential> {
        self.credentials.renew(claim.org, loaded).await?;
        self.credentials
            .reload(claim.org, claim.provider, &claim.credential_name)
            .await
    }

    async fn open(&self, claim: &Claim) -> Result<FrozenRequest, OpenError> {
        let parse = |plaintext: &SecretBytes| serde_json::from_slice::<FrozenRequest>(plaintext.expose_secret());
        match self
            .vault
            .open(claim.org, Purpose::Payload, &claim.request, parse)
            .await
        {
            Ok(Ok(request)) => Ok(request),
            Ok(Err(_)) => Err(OpenError::CannotOpen("the stored request is not one".into())),
            Err(VaultError::Store { .. }) => Err(OpenError::StoreAway),
            Err(error) => Err(OpenError::CannotOpen(error.to_string())),
        }
    }

    /// The exchange itself: a look-up of an unknown outcome, or a send.
    async fn exchange(
        &self,
        leased: &Leased,
        action: &'static dyn Action,
        request: &FrozenRequest,
        loaded: &Loaded,
    ) -> Result<Conclusion, CredentialRefused> {
        let claim = &leased.claim;
        if claim.account.is_some() && claim.account != loaded.account {
            return Ok(other_account(claim));
        }
        if let Some(words) = self.credentials.refusal_of(loaded) {
            let cause = Cause::CredentialRefused;
            return Ok(Conclusion::Park {
                cause,
                detail: words.into(),
            });
        }
        let not_begun = |why: &str| Conclusion::NotBegun {
            pause: Duration::ZERO,
            why: why.to_owned(),
        };
        if leased.stop.is_cancelled() {
            return Ok(not_begun("the process stopped before it was sent"));
        }
        if self.lease_left(leased) < self.settings.deadline + self.settings.margin {
            return Ok(not_begun("the lease was too short for a whole exchange"));
        }
        let attempt = Attempt {
            action: claim.action,
            org: claim.org,
            event: claim.event,
            request,
            idempotency_key: &claim.idempotency_key,
            credential: &loaded.credential,
            planned_at: claim.planned_at,
            first_sent_at: claim.first_sent_at,
            deadline: self.settings.deadline,
            public_url: self.settings.public_url.as_deref(),
            hops: claim.hops,
            hops_header: (claim.kind == ActionKind::HttpPost).then(|| self.hops_header(claim.hops)),
        };
        if claim.is_look_up && matches!(action.on_unknown(), OnUnknown::LookUp { .. }) {
            self.look_up(action, claim, &attempt).await
        } else {
            self.send(action, &attempt).await
        }
    }

    /// By the clock that jumps least. A monotonic clock stands still while a virtual machine is
    /// suspended, and the wall clock can be set back.
    fn lease_left(&self, leased: &Leased) -> Duration {
        let monotonic = leased.lease_ends.saturating_duration_since(Instant::now());
        monotonic.min(leased.claim.lease_until.since(self.clock.now()))
    }

    async fn send(&self, action: &'static dyn Action, attempt: &Attempt<'_>) -> Result<Conclusion, CredentialRefused> {
        reach(Step::SendBegun);
        let (outcome, detail) = tokio::time::timeout(self.time_limit(), action.send(&self.providers, attempt))
            .await
            .unwrap_or_else(|_| (Outcome::Unknown { cause: Cause::NoAnswer }, Detail::default()));
        reach(Step::AnswerRead);
        match outcome {
            Outcome::Park {
                cause: Cause::CredentialRefused,
            } => Err(CredentialRefused(detail)),
            outcome => Ok(Conclusion::Sent(outcome, detail)),
        }
    }

    async fn look_up(
        &self,
        action: &'static dyn Action,
        claim: &Claim,
        attempt: &Attempt<'_>,
    ) -> Result<Conclusion, CredentialRefused> {
        let no_answer = || LookUp::Failed(Outcome::Unknown { cause: Cause::NoAnswer });
        let (seen, detail) = tokio::time::timeout(self.time_limit(), action.look_up(&self.providers, attempt))
            .await
            .unwrap_or_else(|_| (no_answer(), Detail::default()));
        match seen {
            LookUp::Failed(outcome) if outcome.cause() == Cause::CredentialRefused => Err(CredentialRefused(detail)),
            seen => Ok(Conclusion::LookedUp(
                self.drop_ids_of_other_actions(claim, seen).await,
                detail,
            )),
        }
    }

    /// The action keeps the deadline itself; this longer limit holds where an action does not.
    fn time_limit(&self) -> Duration {
        self.settings.deadline + self.settings.margin / 2
    }

    /// The number of our posts that led to this one, signed so that no other sender can set it
    /// (invariant 5).
    fn hops_header(&self, hops: u8) -> String {
        sign_hops(hops.saturating_add(1), |text| self.vault.tag_hops(text))
    }

    /// Drops the ids that other actions hold (invariant 2).
    async fn drop_ids_of_other_actions(&self, claim: &Claim, seen: LookUp) -> LookUp {
        let LookUp::Matches(matches) = seen else { return seen };
        let mut free = Vec::with_capacity(matches.len());
        for provider_ref in matches {
            match self
                .store
                .is_ref_taken(claim.org, claim.provider, &provider_ref, claim.action)
                .await
            {
                Ok(true) => {}
                Ok(false) => free.push(provider_ref),
                Err(_) => return LookUp::Failed(Outcome::Interrupted),
            }
        }
        LookUp::Matches(free)
    }

    /// The refusal counts only while the refused version is the stored one. Else the action goes on
    /// at once with the newer version (invariant 6).
    async fn credential_refused(
        &self,
        claim: &Claim,
        loaded: &Loaded,
        CredentialRefused(detail): CredentialRefused,
    ) -> Conclusion {
        let now = self.clock.now();
        let health = CredentialHealth {
            state: IntegrationState::NeedsReconnecting,
            cause: Some(Cause::CredentialRefused.as_str().into()),
            error: Some(CredentialError {
                message: detail.text.to_string(),
                http_status: detail.http_status,
                code: detail.provider_code.as_deref().map(str::to_owned),
            }),
            missing: None,
            checked_at: Some(now),
            first_failed_at: Some(now),
        };
        match self
            .store
            .record_credential_health(claim.org, loaded.id, loaded.version, health, None, None)
            .await
        {
            Ok(true) => {
                warn!(org.id = %claim.org, provider = %claim.provider, "The credential of organisation {} for {} was \
                    refused: its actions park", claim.org, claim.provider);
            }
            Ok(false) => {
                return Conclusion::NotBegun {
                    pause: Duration::ZERO,
                    why: "a newer version of the credential was saved meanwhile".to_owned(),
                };
            }
            // The ledger compares versions again when it records the parked state.
            Err(_) => {}
        }
        let cause = Cause::CredentialRefused;
        Conclusion::Sent(Outcome::Park { cause }, detail)
    }
}

fn store_away() -> Conclusion {
    Conclusion::NotBegun {
        pause: STORE_AWAY_PAUSE,
        why: "the database was away".to_owned(),
    }
}

/// Whether an earlier try of this action may have gone out.
fn may_have_gone_out(claim: &Claim) -> bool {
    claim.is_look_up || claim.first_sent_at.is_some_and(|sent| sent < claim.claimed_at)
}

/// Whether the same request may have a second effect now, because the provider has forgotten its
/// key. A person's retry is no exception (invariant 4).
fn is_key_forgotten(claim: &Claim, on_unknown: OnUnknown, now: Timestamp) -> bool {
    match on_unknown {
        OnUnknown::SameKeyAgain { window } if may_have_gone_out(claim) => {
            claim.first_sent_at.is_none_or(|sent| now >= sent + window)
        }
        OnUnknown::SameKeyAgain { .. } | OnUnknown::LookUp { .. } => false,
    }
}

/// Whether a look-up would ask for the id of this row, and the first try was another row's: one
/// that was sent before this one was planned (invariant 29).
fn is_first_try_lost(claim: &Claim, on_unknown: OnUnknown) -> bool {
    let is_by_own_id = matches!(on_unknown, OnUnknown::LookUp { is_by_own_id: true, .. });
    is_by_own_id && claim.is_look_up && claim.first_sent_at.is_some_and(|sent| sent < claim.planned_at)
}

/// The connected account is not the one of the claim. Another account's list says nothing about an
/// earlier try, and another account's keys absorb nothing of it.
fn other_account(claim: &Claim) -> Conclusion {
    if may_have_gone_out(claim) {
        Conclusion::AskPerson {
            cause: Cause::AccountReplaced,
            why: "it may have gone out by the account that was connected before: look there, and say whether it did",
        }
    } else {
        Conclusion::NotBegun {
            pause: Duration::ZERO,
            why: "another account was connected meanwhile".to_owned(),
        }
    }
}
