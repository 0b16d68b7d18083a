//! Ingress: a request becomes a durable event, or is refused and kept for people to see.
//!
//! `cli` and tests enter: they build a [`Receiver`] and serve its router. Order: limits → ids →
//! route table → candidate secrets → constant-time verification over the raw bytes → durable
//! publish → 200. **Invariant:** a 200 is said only after the event is durable, and only of an
//! event that a secret verified.

mod answer;
mod envelope;
mod limits;
mod mask;
mod platform;
mod publish;
mod rejection;
mod unknown_ids;
mod uses;
mod verify;

use crate::{
    config::ReceiverSettings,
    domain::{
        CLOCK_OFFSET_INGRESS_MAX, Clock, Envelope, EventId, HOPS_HEADER, InvalidNetwork, OrgId, Source, Timestamp,
        VerifiedEvent, read_hops,
    },
    killpoint::{Step, reach},
    listener::{EarlyRefusal, Limits, ListenerState, Networks, Peer},
    queue::EventQueue,
    routing::RouteTable,
    source::{self, Reading, Request},
    store::Store,
    telemetry::{Finding, catalogue},
    vault::{CacheStats, Vault},
};
use answer::{Cause, Meters, label};
use axum::{Router, body::Body, extract::State, response::Response};
use http::{HeaderMap, request};
use limits::{BodyMemory, WebhookPath};
use platform::PlatformKeys;
use publish::PublishPermits;
use rejection::{Refusal, RejectionRing};
use std::{sync::Arc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use unknown_ids::UnknownIdLimiter;
use uuid::Uuid;
use verify::{Signer, Unverified, Verifier};

/// The parts that a receiver is built from.
pub struct ReceiverParts {
    pub routes: Arc<RouteTable>,
    pub vault: Arc<Vault>,
    pub queue: Arc<dyn EventQueue>,
    /// For rejections only: the way of an event neither reads nor writes it.
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub settings: ReceiverSettings,
}

/// A setting that only the receiver can judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverError {
    #[error("HOOKSWITCH_TRUSTED_PROXIES: {0}")]
    TrustedProxies(#[from] InvalidNetwork),
    #[error("HOOKSWITCH_PUBLIC_URL: expected scheme and host only, such as https://hooks.example.com")]
    PublicUrl,
    #[error("{0}: each secret needs at least 16 bytes")]
    ShortSecret(&'static str),
}

#[derive(Clone)]
pub struct Receiver(Arc<Inner>);

struct Inner {
    routes: Arc<RouteTable>,
    vault: Arc<Vault>,
    queue: Arc<dyn EventQueue>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: ReceiverSettings,
    public_url: Option<String>,
    trusted: Networks,
    verifier: Verifier,
    unknown_ids: UnknownIdLimiter,
    body_memory: BodyMemory,
    permits: PublishPermits,
    ring: RejectionRing,
    publishes: TaskTracker,
    meters: Meters,
    listener: Arc<ListenerState>,
}

impl Receiver {
    /// Built after [`crate::telemetry::Recorder::install`], or its metrics go nowhere.
    ///
    /// # Errors
    /// Which setting cannot be used.
    pub fn new(parts: ReceiverParts) -> Result<Self, ReceiverError> {
        let ReceiverParts {
            routes,
            vault,
            queue,
            store,
            clock,
            settings,
        } = parts;
        let public_url = settings.public_url.as_deref().map(base_url).transpose()?;
        Ok(Self(Arc::new(Inner {
            verifier: Verifier::new(
                Arc::clone(&routes),
                Arc::clone(&vault),
                PlatformKeys::new(&settings),
                settings.signing_keys_cached_max,
            ),
            unknown_ids: UnknownIdLimiter::new(settings.unknown_per_second_max),
            body_memory: BodyMemory::new(settings.requests_max.max(1).saturating_mul(settings.body_bytes_max)),
            permits: PublishPermits::new(settings.requests_max, settings.turn_seconds_max),
            trusted: Networks::parse(&settings.trusted_proxies)?,
            ring: RejectionRing::new(),
            publishes: TaskTracker::new(),
            meters: Meters::new(),
            listener: Arc::default(),
            routes,
            vault,
            queue,
            store,
            clock,
            public_url,
            settings,
        })))
    }

    /// For [`crate::listener::serve`], with [`Receiver::limits`].
    pub fn router(&self) -> Router {
        Router::new().fallback(receive).with_state(Arc::clone(&self.0))
    }

    /// The limits of the ingress listener.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let settings = &self.0.settings;
        Limits {
            name: "ingress",
            connections_max: settings.connections_max,
            connections_per_address_max: settings.connections_per_address_max,
            trusted: self.0.trusted.clone(),
            head_bytes_max: settings.head_bytes_max,
            headers_max: settings.headers_max,
            head_seconds_max: settings.head_seconds_max,
            idle_seconds_max: settings.idle_seconds_max,
            on_refused: count_refused,
            state: Arc::clone(&self.0.listener),
            ..Limits::default()
        }
    }

    /// Sets the gauges of connections and cached keys; called at each scrape.
    pub fn gather_gauges(&self) {
        catalogue::CONNECTIONS.set(self.0.listener.open() as f64, &[]);
        self.0.verifier.gather_gauges();
    }

    /// The use of the cache of signing keys.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.0.verifier.cache_stats()
    }

    /// Connections of the ingress listener.
    #[must_use]
    pub fn listener_state(&self) -> Arc<ListenerState> {
        Arc::clone(&self.0.listener)
    }

    /// Whether the ingress listener takes connections, for `/readyz`.
    #[must_use]
    pub fn check(&self) -> Finding {
        if self.0.listener.is_full() {
            Finding::degraded("no further connection is taken for now")
        } else {
            Finding::ok()
        }
    }

    /// Whether the routes are known to be current, for `/readyz`.
    #[must_use]
    pub fn check_routes(&self) -> Finding {
        self.0.routes.check_age(self.0.settings.snapshot_stale_seconds)
    }

    /// Flushes rejections and uses of secrets until `stop`, then waits for publishes that outlive
    /// their senders.
    pub async fn run_background(self, stop: CancellationToken) {
        let (store, kept_max) = (&self.0.store, self.0.settings.rejections_max);
        tokio::join!(
            self.0.ring.run(Arc::clone(store), kept_max, stop.clone()),
            self.0.verifier.uses.run(Arc::clone(store), stop),
        );
        self.0.publishes.close();
        self.0.publishes.wait().await;
    }

    /// Writes the last uses of secrets soon rather than within a minute.
    pub fn flush_secret_uses(&self) {
        self.0.verifier.uses.flush_soon();
    }

    /// Writes rejections soon rather than within a second.
    pub fn flush_rejections(&self) {
        self.0.ring.flush_soon();
    }
}

/// Every setting of ingress that cannot be used.
#[must_use]
pub fn check_settings(settings: &ReceiverSettings) -> Vec<ReceiverError> {
    let url = settings.public_url.as_deref().map(base_url).transpose().err();
    let proxies = Networks::parse(&settings.trusted_proxies).err();
    url.into_iter()
        .chain(proxies.map(ReceiverError::TrustedProxies))
        .chain(platform::short_settings(settings).map(ReceiverError::ShortSecret))
        .collect()
}

impl ReceiverError {
    /// The setting that cannot be used.
    #[must_use]
    pub const fn setting(&self) -> &'static str {
        match self {
            Self::TrustedProxies(_) => "HOOKSWITCH_TRUSTED_PROXIES",
            Self::PublicUrl => "HOOKSWITCH_PUBLIC_URL",
            Self::ShortSecret(name) => name,
        }
    }
}

/// Scheme and host, without a slash at the end.
fn base_url(text: &str) -> Result<String, ReceiverError> {
    let base = text.strip_suffix('/').unwrap_or(text);
    let host = base
        .strip_prefix("https://")
        .or_else(|| base.strip_prefix("http://"))
        .ok_or(ReceiverError::PublicUrl)?;
    let is_host = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'?' | b'#' | b'@' | b'\\'));
    if is_host {
        Ok(base.to_owned())
    } else {
        Err(ReceiverError::PublicUrl)
    }
}

fn count_refused(refused: EarlyRefusal) {
    let cause = match refused {
        EarlyRefusal::HeadTooLarge => Cause::HeadersTooLarge,
        EarlyRefusal::NotHttp => Cause::NotTheFormat,
        EarlyRefusal::HeadTooSlow => Cause::Timeout,
        EarlyRefusal::TooManyFromAddress => Cause::RateLimited,
    };
    catalogue::REJECTIONS.count(1, &[label(None), cause.as_str()]);
}

async fn receive(State(inner): State<Arc<Inner>>, request: http::Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let begun = Instant::now();
    let path = match limits::check_head(&head, inner.settings.path_bytes_max, inner.settings.body_bytes_max) {
        Ok(path) => path,
        Err((cause, path)) => return inner.refuse_head(cause, path, begun),
    };
    let span = tracing::debug_span!(
        "webhook.receive",
        source = path.source.as_str(),
        org.id = tracing::field::Empty,
        event.id = tracing::field::Empty,
        event.type = tracing::field::Empty,
        status = tracing::field::Empty,
        traceparent = tracing::field::Empty
    );
    inner.receive(path, head, body).instrument(span).await
}

impl Inner {
    /// Refuses a request by its head: no body was read. Only a request to a known path is kept for
    /// people to see.
    fn refuse_head(&self, cause: Cause, path: Option<WebhookPath>, begun: Instant) -> Response {
        // A path that is nearly an endpoint's is kept for the endpoint's owner alone.
        let org = path.and_then(|path| self.owner_of_endpoint(path));
        let response = if let Some(path) = path.filter(|_| cause != Cause::NotFound || org.is_some()) {
            self.refuse(&Refusal {
                org,
                ..Refusal::unread(path, cause)
            })
        } else {
            catalogue::REJECTIONS.count(1, &[label(None), cause.as_str()]);
            answer::refused(cause, Uuid::now_v7())
        };
        self.meters.received(
            path.map(|path| path.source),
            cause.status(),
            begun.elapsed().as_secs_f64(),
        );
        response
    }

    async fn receive(&self, path: WebhookPath, head: request::Parts, body: Body) -> Response {
        let Some(peer) = head.extensions.get::<Peer>() else {
            tracing::error!("The receiver's router is not served by the listener, which tells it who is asking");
            return answer::refused(Cause::Unavailable, Uuid::now_v7());
        };
        let (body_bytes_max, body_seconds_max) = (self.settings.body_bytes_max, self.settings.body_seconds_max);
        let collected = limits::collect(body, body_bytes_max, body_seconds_max, peer, &self.body_memory).await;
        let (body, _reservation) = match collected {
            Ok(collected) => collected,
            Err(cause) => {
                self.meters.received(Some(path.source), cause.status(), 0.0);
                return self.refuse(&Refusal {
                    org: self.owner_of_endpoint(path),
                    ..Refusal::unread(path, cause)
                });
            }
        };
        reach(Step::BytesRead);
        let begun = Instant::now();
        let response = self.decide(path, &head, peer, body).await;
        tracing::Span::current().record("status", response.status().as_u16());
        self.meters
            .received(Some(path.source), response.status(), begun.elapsed().as_secs_f64());
        response
    }

    /// Verifies a request and makes its event durable.
    async fn decide(&self, path: WebhookPath, head: &request::Parts, peer: &Peer, body: bytes::Bytes) -> Response {
        let now = self.clock.now();
        let url = limits::public_url(self.public_url.as_deref(), &self.trusted, peer, head);
        let request = Request {
            method: head.method.as_str(),
            url: &url,
            headers: &head.headers,
            body: &body,
        };
        // Read the ids, the kind and the dedupe key, without believing any of them.
        let mut reading = match source::read(path.source, &request) {
            Ok(reading) => reading,
            Err(error) => {
                tracing::debug!(error = %error, "Refused");
                return self.refuse(&Refusal {
                    org: self.owner_of_endpoint(path),
                    body: &body,
                    bytes: body.len(),
                    ..Refusal::unread(path, Cause::NotTheFormat)
                });
            }
        };
        // Find the secret that verifies the request: its owner is the organisation.
        let (signer, hops) = match self.verify(path, &reading, &request, head, peer, now).await {
            Ok(verified) => verified,
            Err(Unverified { cause, org }) => {
                return self.refuse(&Refusal {
                    org,
                    ids: &reading.routes,
                    body: &body,
                    bytes: body.len(),
                    signed_url: (path.source == Source::Twilio).then_some(&*url),
                    ..Refusal::unread(path, self.or_unavailable(cause))
                });
            }
        };
        // Answer a kind that the endpoint ignores without storing it.
        let answer = reading.answer;
        if self.is_ignored(path, &signer, reading.event_type.kind()) {
            catalogue::EVENTS_IGNORED.count(1, &[path.source.as_str()]);
            return answer::accepted(answer, &body);
        }
        // Make the event.
        let ids = std::mem::take(&mut reading.routes);
        let event = envelope::verified_event(signer, path, reading, head, body.clone(), hops, now);
        name_in_span(event.envelope(), signer.org);
        reach(Step::Verified);
        // Make it durable before the sender hears of it.
        match self.make_durable(event, signer.org).await {
            Ok(event_id) => answer::with_id(answer::accepted(answer, &body), event_id.as_uuid()),
            Err(cause) => self.refuse(&Refusal {
                org: signer.org,
                ids: &ids,
                bytes: body.len(),
                ..Refusal::unread(path, cause)
            }),
        }
    }

    /// Publishes the event, or says why it is not durable.
    async fn make_durable(&self, event: VerifiedEvent, org: Option<OrgId>) -> Result<EventId, Cause> {
        let event_id = event.envelope().id;
        let seconds_max = self.settings.publish_seconds_max;
        publish::publish(&self.queue, &self.permits, &self.publishes, event, seconds_max).await?;
        reach(Step::Confirmed);
        let owner = org.map(tracing::field::display);
        tracing::debug!(event.id = %event_id, org.id = owner, "Event {event_id} is received");
        Ok(event_id)
    }

    /// The signer of a request, and how many of our own posts led to it.
    async fn verify<'r>(
        &self,
        path: WebhookPath,
        reading: &Reading,
        request: &Request<'r>,
        head: &request::Parts,
        peer: &Peer,
        now: Timestamp,
    ) -> Result<(Signer<'r>, u8), Unverified> {
        let try_take_token = || {
            let caller = unknown_ids::caller(peer, &head.headers, &self.trusted);
            self.unknown_ids.try_take(caller, Instant::now())
        };
        let signer = self
            .verifier
            .verify(path, reading, request, now, try_take_token)
            .await?;
        // Old routes do not show that an id leads nowhere.
        if signer.org.is_none() && self.routes.age() > self.settings.snapshot_stale_seconds {
            return Err(Unverified {
                cause: Cause::Unavailable,
                org: None,
            });
        }
        let hops = self.hops(&head.headers);
        if u32::from(hops) > self.settings.hops_max {
            return Err(Unverified {
                cause: Cause::HopLimit,
                org: signer.org,
            });
        }
        Ok((signer, hops))
    }

    /// Hops by the signed header. A missing or unverified header counts as 0, because anyone may
    /// send one.
    fn hops(&self, headers: &HeaderMap) -> u8 {
        let values = headers.get_all(HOPS_HEADER).iter();
        values
            .filter_map(|value| read_hops(value.to_str().ok()?, |text| self.vault.tag_hops(text)))
            .max()
            .unwrap_or(0)
    }

    fn owner_of_endpoint(&self, path: WebhookPath) -> Option<OrgId> {
        path.endpoint
            .and_then(|id| self.routes.endpoint(id))
            .map(|endpoint| endpoint.org)
    }

    /// Turns a 401 into a 503 while the fault may be ours: stale routes (invariant 9), or a clock
    /// that is off (invariant 16).
    fn or_unavailable(&self, cause: Cause) -> Cause {
        let is_stale = self.routes.age() > self.settings.snapshot_stale_seconds;
        let is_unsure = match cause {
            Cause::BadSignature | Cause::UnknownRoute | Cause::ConflictingRoute => is_stale,
            Cause::TooOld => is_stale || self.routes.clock_offset() > CLOCK_OFFSET_INGRESS_MAX,
            _ => false,
        };
        if is_unsure { Cause::Unavailable } else { cause }
    }

    /// Whether the endpoint ignores this kind: the endpoint of the path, or else the one whose
    /// secret verified the request (invariant 22).
    fn is_ignored(&self, path: WebhookPath, signer: &Signer<'_>, kind: &str) -> bool {
        let endpoint = path
            .endpoint
            .or(signer.endpoint)
            .and_then(|id| self.routes.endpoint(id));
        endpoint.is_some_and(|endpoint| endpoint.ignored_types.iter().any(|ignored| ignored == kind))
    }

    /// Counts a refusal, keeps it for people to see, and answers. A flood of unknown ids is counted
    /// only, because it would push other rejections out of the ring.
    fn refuse(&self, refusal: &Refusal<'_>) -> Response {
        let id = Uuid::now_v7();
        catalogue::REJECTIONS.count(1, &[label(Some(refusal.path.source)), refusal.cause.as_str()]);
        if refusal.cause != Cause::RateLimited {
            self.ring.keep(id, self.clock.now(), refusal);
        }
        answer::refused(refusal.cause, id)
    }
}

/// Names the event in the span of its request.
fn name_in_span(event: &Envelope, org: Option<OrgId>) {
    tracing::Span::current()
        .record("org.id", org.map(tracing::field::display))
        .record("event.id", tracing::field::display(event.id))
        .record("event.type", event.event_type.as_str())
        .record("traceparent", event.traceparent.as_deref());
}
