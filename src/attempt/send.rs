//! One claimed action through its exchange, to the record of what it came to.

use super::{
    Policy,
    credentials::{Credentials, Loaded, NoCredential},
    outcome::Ended,
};
use crate::{
    action::{self, Action, Attempt, Detail, FrozenRequest, LookUp, OnUnknown},
    domain::{ActionKind, ActionState, Cause, Clock, IntegrationState, OrgId, Outcome, SecretBytes, sign_hops},
    killpoint::{Step, reach},
    oauth::Refresher,
    provider::Providers,
    store::{
        Store,
        credentials::CredentialHealth,
        ledger::{Claim, Record},
    },
    telemetry::catalogue,
    vault::{Purpose, Vault, VaultError},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::warn;

/// Wait where nothing could be begun because the store was away.
const STORE_AWAY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct EngineSettings {
    pub policy: Policy,
    /// For one whole exchange with a provider.
    pub deadline: Duration,
    /// What must be left of a lease beyond the exchange.
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
}

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

    /// What keeps the tokens of this process fresh: to be run beside it, and to be asked by others.
    #[must_use]
    pub fn refresher(&self) -> Arc<Refresher> {
        Arc::clone(&self.credentials.refresher)
    }

    /// Sets the gauges of what is held in memory; called at each scrape.
    pub fn gather_gauges(&self) {
        self.credentials.gather_gauges();
    }

    /// Credentials may have changed: what is cached is loaded again when it is needed.
    pub fn forget_credentials(&self) {
        self.credentials.forget();
    }

    /// The same for one organisation, by an operator's hand.
    pub fn forget_credentials_of(&self, org: OrgId) {
        self.credentials.forget_org(org);
    }

    /// One attempt. Never fails: whatever happens is a record. Dropping the future before its
    /// exchange began leaves the row `running`, and its lease makes it `unknown`.
    pub async fn run(&self, leased: &Leased) -> Record {
        let claim = &leased.claim;
        let action = (self.actions)(claim.kind);
        let on_unknown = action.on_unknown();
        let begun = Instant::now();
        let record = self.attempt(leased, action, on_unknown).await;
        let provider = claim.provider.as_str();
        if claim.is_look_up {
            catalogue::LOOK_UPS.count(1, &[provider, record.outcome]);
        } else {
            catalogue::ATTEMPTS.count(1, &[provider, record.outcome]);
        }
        catalogue::ATTEMPT_SECONDS.observe(begun.elapsed().as_secs_f64(), &[provider]);
        record
    }

    /// The record of a claim that is given back before anything was done with it.
    pub fn release(&self, claim: &Claim, why: &str) -> Record {
        let on_unknown = (self.actions)(claim.kind).on_unknown();
        Policy::interrupted(&self.ended(claim, on_unknown, None), Duration::ZERO, why)
    }

    /// The record of an attempt that broke inside this process: nobody knows what went out.
    pub fn broken(&self, claim: &Claim) -> Record {
        let on_unknown = (self.actions)(claim.kind).on_unknown();
        let detail = Detail {
            text: "the attempt broke inside Hookswitch".into(),
            ..Detail::default()
        };
        self.settings.policy.sent(
            &self.ended(claim, on_unknown, None),
            Outcome::Unknown { cause: Cause::Other },
            detail,
        )
    }

    fn ended<'a>(&self, claim: &'a Claim, on_unknown: OnUnknown, credential_version: Option<i64>) -> Ended<'a> {
        Ended {
            claim,
            on_unknown,
            credential_version,
            now: self.clock.now(),
            random: (self.random)(),
        }
    }

    async fn attempt(&self, leased: &Leased, action: &'static dyn Action, on_unknown: OnUnknown) -> Record {
        let (claim, policy) = (&leased.claim, &self.settings.policy);
        if claim.is_look_up
            && let OnUnknown::SameKeyAgain { window } = on_unknown
        {
            let ended = self.ended(claim, on_unknown, None);
            if claim.first_sent_at.is_none_or(|sent| ended.now >= sent + window) {
                return policy.for_a_person(
                    &ended,
                    "the other side may have forgotten the key of the first try: say whether it arrived",
                );
            }
        }
        let request = match self.open(claim).await {
            Ok(request) => request,
            Err(Some(detail)) => return self.park(claim, on_unknown, None, Cause::Undecryptable, detail),
            Err(None) => {
                return Policy::interrupted(
                    &self.ended(claim, on_unknown, None),
                    STORE_AWAY_PAUSE,
                    "the database was away",
                );
            }
        };
        let loaded = match self
            .credentials
            .get(claim.org, claim.provider, &claim.credential_name)
            .await
        {
            Ok(loaded) => loaded,
            Err(error) => return self.without_credential(claim, on_unknown, error),
        };
        let record = match self.exchange(leased, action, on_unknown, &request, &loaded).await {
            Ok(record) => record,
            // Refused. Under a version that was cached a newer one may stand, or a token can be had
            // anew: that decides (invariant 6).
            Err(refused) => match self.renewed(claim, &loaded).await {
                Ok(newer) if newer.version > loaded.version => {
                    match self.exchange(leased, action, on_unknown, &request, &newer).await {
                        Ok(record) => record,
                        Err(refused) => self.refused(claim, on_unknown, &newer, refused).await,
                    }
                }
                Ok(_) | Err(NoCredential::Unavailable) => self.refused(claim, on_unknown, &loaded, refused).await,
                Err(error) => self.without_credential(claim, on_unknown, error),
            },
        };
        if record.to == ActionState::Succeeded && loaded.is_to_touch(record.ended_at) {
            // Only a note for people: nothing depends on it.
            let _ = self.store.touch_credential(claim.org, loaded.id, record.ended_at).await;
        }
        record
    }

    async fn renewed(&self, claim: &Claim, loaded: &Loaded) -> Result<Arc<Loaded>, NoCredential> {
        self.credentials.renew(claim.org, loaded).await?;
        self.credentials
            .reload(claim.org, claim.provider, &claim.credential_name)
            .await
    }

    /// `Err(None)`: it could not be looked at. `Err(Some)`: it does not open.
    async fn open(&self, claim: &Claim) -> Result<FrozenRequest, Option<String>> {
        let parse = |plaintext: &SecretBytes| serde_json::from_slice::<FrozenRequest>(plaintext.expose_secret());
        match self
            .vault
            .open(claim.org, Purpose::Payload, &claim.request, parse)
            .await
        {
            Ok(Ok(request)) => Ok(request),
            Ok(Err(_)) => Err(Some("the stored request is not one".into())),
            Err(VaultError::Store { .. }) => Err(None),
            Err(error) => Err(Some(error.to_string())),
        }
    }

    fn without_credential(&self, claim: &Claim, on_unknown: OnUnknown, error: NoCredential) -> Record {
        match error {
            NoCredential::Park { cause, detail, version } => self.park(claim, on_unknown, version, cause, detail),
            NoCredential::Unavailable => Policy::interrupted(
                &self.ended(claim, on_unknown, None),
                STORE_AWAY_PAUSE,
                "the database was away",
            ),
            NoCredential::Later { pause, detail } => {
                Policy::interrupted(&self.ended(claim, on_unknown, None), pause, &detail)
            }
        }
    }

    fn park(&self, claim: &Claim, on_unknown: OnUnknown, version: Option<i64>, cause: Cause, detail: String) -> Record {
        let detail = Detail {
            text: detail.into(),
            ..Detail::default()
        };
        self.settings
            .policy
            .sent(&self.ended(claim, on_unknown, version), Outcome::Park { cause }, detail)
    }

    /// The exchange itself. `Err` is a credential that was refused: the caller decides whether that
    /// counts.
    async fn exchange(
        &self,
        leased: &Leased,
        action: &'static dyn Action,
        on_unknown: OnUnknown,
        request: &FrozenRequest,
        loaded: &Loaded,
    ) -> Result<Record, Detail> {
        let (claim, policy) = (&leased.claim, &self.settings.policy);
        let left = leased.lease_ends.saturating_duration_since(Instant::now());
        if left < self.settings.deadline + self.settings.margin {
            return Ok(Policy::interrupted(
                &self.ended(claim, on_unknown, None),
                Duration::ZERO,
                "the lease was too short for a whole exchange",
            ));
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
            status_callback: self
                .settings
                .public_url
                .as_ref()
                .map(|url| format!("{}/webhooks/twilio?action={}", url.trim_end_matches('/'), claim.action)),
            hops: claim.hops,
            hops_header: (claim.kind == ActionKind::HttpPost).then(|| self.hops_header(claim.hops)),
        };
        // The action keeps the deadline itself; this is the net under it.
        let net = self.settings.deadline + self.settings.margin / 2;
        if claim.is_look_up && matches!(on_unknown, OnUnknown::LookUp { .. }) {
            let (seen, detail) = tokio::time::timeout(net, action.look_up(&self.providers, &attempt))
                .await
                .unwrap_or_else(|_| {
                    (
                        LookUp::Failed(Outcome::Unknown { cause: Cause::NoAnswer }),
                        Detail::default(),
                    )
                });
            if matches!(&seen, LookUp::Failed(outcome) if outcome.cause() == Cause::CredentialRefused) {
                return Err(detail);
            }
            let seen = self.without_others(claim, seen).await;
            return Ok(policy.looked_up(&self.ended(claim, on_unknown, Some(loaded.version)), seen, detail));
        }
        reach(Step::SendBegun);
        let (outcome, detail) = tokio::time::timeout(net, action.send(&self.providers, &attempt))
            .await
            .unwrap_or_else(|_| (Outcome::Unknown { cause: Cause::NoAnswer }, Detail::default()));
        reach(Step::AnswerRead);
        if matches!(
            &outcome,
            Outcome::Park {
                cause: Cause::CredentialRefused
            }
        ) {
            return Err(detail);
        }
        Ok(policy.sent(&self.ended(claim, on_unknown, Some(loaded.version)), outcome, detail))
    }

    /// How many posts of ours led to this one, signed so that nobody else can count (invariant 5).
    fn hops_header(&self, hops: u8) -> String {
        sign_hops(hops.saturating_add(1), |text| self.vault.tag_hops(text))
    }

    /// Drops what other actions hold (invariant 2).
    async fn without_others(&self, claim: &Claim, seen: LookUp) -> LookUp {
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

    /// The refusal counts only if the version that was refused still stands: else the action goes
    /// on at once with the newer one (invariant 6).
    async fn refused(&self, claim: &Claim, on_unknown: OnUnknown, loaded: &Loaded, detail: Detail) -> Record {
        let ended = self.ended(claim, on_unknown, Some(loaded.version));
        let health = CredentialHealth {
            state: IntegrationState::NeedsReconnecting,
            cause: Some(Cause::CredentialRefused.as_str().into()),
            error: Some(detail.text.to_string()),
            missing: None,
            checked_at: Some(ended.now),
            first_failed_at: Some(ended.now),
        };
        match self
            .store
            .record_credential_health(claim.org, loaded.id, loaded.version, health, None)
            .await
        {
            Ok(true) => {
                warn!(org.id = %claim.org, provider = %claim.provider, "The credential of organisation {} for {} was \
                    refused: its actions park", claim.org, claim.provider);
            }
            Ok(false) => {
                return Policy::interrupted(
                    &ended,
                    Duration::ZERO,
                    "a newer version of the credential was saved meanwhile",
                );
            }
            // The ledger compares versions again when it records the parked state.
            Err(_) => {}
        }
        self.settings.policy.sent(
            &ended,
            Outcome::Park {
                cause: Cause::CredentialRefused,
            },
            detail,
        )
    }
}
