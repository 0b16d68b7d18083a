//! The state that all handlers share.

use crate::{
    admin::{
        samples::{self, Samples},
        statistics::KeptHistory,
        streams::Streams,
        web::{
            auth::{KnownOrgs, OperatorName, Tokens},
            cors::Origins,
            jwks::{FetchKeys, HttpKeys, Jwks},
            problem::Problem,
            rate::Rates,
            token::Member,
        },
    },
    assistants::AssistantManager,
    config::{ConfigError, Fault, Settings},
    domain::{Clock, INSTALLATION, OrgId, Timestamp},
    jobs::Jobs,
    listener::Networks,
    oauth::{Consents, Refresher},
    provider::Providers,
    store::{
        Store,
        audit::{AuditEntry, Changes},
    },
    vault::{CacheStats, Vault},
};
use std::{fmt::Display, sync::Arc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The parts that the admin API is built from.
pub struct AdminNeeds {
    pub store: Arc<dyn Store>,
    pub vault: Arc<Vault>,
    pub providers: Providers,
    pub clock: Arc<dyn Clock>,
    /// Scheme and host of ingress, as the settings or `dev` say; endpoints' URLs begin with it.
    pub public_url: Option<String>,
    /// Drops the decrypted credentials of an organisation that this process has cached.
    pub drop_credentials: Arc<dyn Fn(OrgId) + Send + Sync>,
    /// The use of the caches of this process.
    pub cache_stats: Arc<dyn Fn() -> Vec<CacheStats> + Send + Sync>,
    /// Events in the queue that are not acked, as this process knows it. `None`: it uses no queue.
    pub queue_events: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
    /// Tasks in which writes finish after their caller has gone. `lifecycle` waits for them.
    pub tasks: TaskTracker,
    /// Works on jobs in this process, or in another one.
    pub jobs: Arc<Jobs>,
    /// A source of the keys of RS256 and ES256 tokens in the place of HTTP, for tests.
    pub jwks: Option<Arc<dyn FetchKeys>>,
    /// Refreshes OAuth tokens in this process. `None`: the state makes its own.
    pub refresher: Option<Arc<Refresher>>,
}

/// Built once in a process.
pub struct AdminState {
    pub(super) store: Arc<dyn Store>,
    pub(super) vault: Arc<Vault>,
    pub(super) providers: Providers,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) public_url: Option<String>,
    pub(super) tasks: TaskTracker,
    pub(super) tokens: Tokens,
    /// Origins whose pages may use this API.
    pub(super) origins: Origins,
    /// Proxies whose `X-Forwarded-For` names the caller for the audit.
    pub(super) trusted_proxies: Networks,
    pub(super) rates: Rates,
    pub(super) known_orgs: KnownOrgs,
    pub(super) streams: Arc<Streams>,
    pub(super) history: KeptHistory,
    pub(super) template_fuel: u64,
    /// Days that the installation keeps ended events; 0 is for ever.
    pub(super) events_kept_days: u32,
    /// Held from the counting of rules to the adding of one, so that no limit is passed by two
    /// writers.
    pub(super) rule_writes: tokio::sync::Mutex<()>,
    pub(super) refresher: Arc<Refresher>,
    pub(super) consents: Consents,
    pub(super) assistants: Arc<AssistantManager>,
    pub(super) jobs: Arc<Jobs>,
    drop_credentials: Arc<dyn Fn(OrgId) + Send + Sync>,
    pub(super) cache_stats: Arc<dyn Fn() -> Vec<CacheStats> + Send + Sync>,
    queue_events: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
    pub(super) samples: Samples,
}

impl AdminState {
    /// # Errors
    /// All settings of tokens that cannot be used, and of proxies.
    pub fn new(settings: &Settings, needs: AdminNeeds) -> Result<Arc<Self>, ConfigError> {
        let source = needs.jwks.clone().or_else(|| configured_keys(settings, &needs));
        let jwks = source.map(|source| Jwks::new(source, Arc::clone(&needs.clock)));
        let (google, clock) = (&needs.providers.google, &needs.clock);
        let own = || {
            Arc::new(Refresher::new(
                needs.store.clone(),
                needs.vault.clone(),
                google.clone(),
                clock.clone(),
            ))
        };
        let refresher = needs.refresher.clone().unwrap_or_else(own);
        let assistants = Arc::new(AssistantManager::new(
            needs.store.clone(),
            needs.vault.clone(),
            needs.providers.vapi.clone(),
            clock.clone(),
            needs.public_url.clone(),
        ));
        let consents = Consents::new(needs.store.clone(), needs.vault.clone(), google.clone(), clock.clone());
        let tokens =
            Tokens::new(&settings.admin, jwks, Arc::clone(&needs.clock)).map_err(|faults| ConfigError { faults })?;
        let trusted_proxies = Networks::parse(&settings.receiver.trusted_proxies).map_err(|error| ConfigError {
            faults: vec![Fault {
                name: "HOOKSWITCH_TRUSTED_PROXIES".to_owned(),
                problem: error.to_string(),
            }],
        })?;
        Ok(Arc::new(Self {
            trusted_proxies,
            refresher,
            consents,
            assistants,
            tokens,
            origins: Origins::parse(&settings.admin.admin_origins).unwrap_or_default(),
            rates: Rates::new(settings.admin.admin_requests_per_minute_max),
            known_orgs: KnownOrgs::new(Arc::clone(&needs.store), Arc::clone(&needs.clock)),
            history: KeptHistory::default(),
            streams: Streams::new(
                Arc::clone(&needs.store),
                needs.tasks.clone(),
                settings.admin.admin_streams_max,
                settings.admin.admin_streams_per_organisation_max,
            ),
            store: needs.store,
            vault: needs.vault,
            providers: needs.providers,
            clock: needs.clock,
            public_url: needs.public_url.map(|url| url.trim_end_matches('/').to_owned()),
            tasks: needs.tasks,
            jobs: needs.jobs,
            template_fuel: settings.worker.template_fuel_max,
            events_kept_days: settings.worker.events_kept_days,
            rule_writes: tokio::sync::Mutex::default(),
            drop_credentials: needs.drop_credentials,
            cache_stats: needs.cache_stats,
            queue_events: needs.queue_events,
            samples: Samples::default(),
        }))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Takes a sample of the queue and the caches now and every ten seconds, until `stop`.
    pub async fn sample(self: Arc<Self>, stop: CancellationToken) {
        let take = || {
            self.take_sample();
        };
        samples::run(take, stop).await;
    }

    /// When it was taken, and whether this process uses the queue.
    pub(super) fn take_sample(&self) -> (Timestamp, bool) {
        let (now, queue_events) = (self.now(), (self.queue_events)());
        self.samples.take(now, queue_events, &(self.cache_stats)());
        (now, queue_events.is_some())
    }

    pub(super) fn audit(
        &self,
        member: &Member,
        verb: &'static str,
        target_kind: &'static str,
        target_id: impl Display,
        changes: impl Into<Changes>,
    ) -> AuditEntry {
        AuditEntry {
            org: member.org,
            at: self.now(),
            actor: member.subject.clone(),
            address: member.address,
            verb,
            target_kind,
            target_id: target_id.to_string(),
            changes: changes.into(),
        }
    }

    /// The entry of an operator's act: of an organisation, or of the installation where it concerns
    /// none.
    pub(super) fn audit_of_operator(
        &self,
        operator: &OperatorName,
        org: Option<OrgId>,
        verb: &'static str,
        target_kind: &'static str,
        target_id: impl Display,
    ) -> AuditEntry {
        AuditEntry {
            org: org.unwrap_or(INSTALLATION),
            at: self.now(),
            actor: format!("operator:{operator}"),
            address: operator.address,
            verb,
            target_kind,
            target_id: target_id.to_string(),
            changes: Changes::default(),
        }
    }

    /// Drops the decrypted credentials of an organisation and its cached state (active or not).
    pub(super) fn forget(&self, org: OrgId) {
        (self.drop_credentials)(org);
        self.known_orgs.forget(org);
    }
}

/// The keys of tokens that the settings name.
fn configured_keys(settings: &Settings, needs: &AdminNeeds) -> Option<Arc<dyn FetchKeys>> {
    let url = settings.admin.jwt_jwks_url.clone()?;
    Some(Arc::new(HttpKeys {
        http: needs.providers.http.clone(),
        url,
    }))
}

/// The result of a handler.
pub(super) type Answer<T> = Result<T, Problem>;
