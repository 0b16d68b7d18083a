//! Ingress: a request becomes a durable event, or is refused and seen.
//!
//! `cli` and tests enter: they build a [`Receiver`] and serve its router. Order: limits → ids →
//! route table → candidate secrets → constant-time verification over the raw bytes → durable
//! publish → 200. **Invariant:** a 200 is said only after the event is durable, and only of what a
//! secret vouches for.

mod answer;
mod envelope;
mod hops;
mod limits;
mod mask;
mod publish;
mod rejection;
mod strangers;
mod verify;

pub use hops::HOPS_HEADER;

use crate::{
    config::ReceiverSettings,
    domain::{Clock, OrgId, RouteKey},
    killpoint::{Step, reach},
    listener::{InvalidNetwork, Limits, ListenerState, Networks, Peer, Refused as HeadRefused},
    queue::EventQueue,
    routing::RouteTable,
    source::{self, Request},
    store::Store,
    telemetry::{Finding, catalogue},
    vault::Vault,
};
use answer::{Cause, Meters, label};
use axum::{Router, body::Body, extract::State, response::Response};
use http::request;
use limits::{Held, Place};
use publish::Turns;
use rejection::{Refused, Ring};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use strangers::Strangers;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use uuid::Uuid;
use verify::{Unverified, Verifier};

/// Our clock may be this far from the database's before "too old" might be our own mistake
/// (invariant 16).
const CLOCK_OFFSET_MAX: Duration = Duration::from_mins(1);

/// What a receiver is built from.
pub struct Parts {
    pub routes: Arc<RouteTable>,
    pub vault: Arc<Vault>,
    pub queue: Arc<dyn EventQueue>,
    /// For rejections only: nothing on the way of an event reads or writes it.
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
    strangers: Strangers,
    held: Held,
    turns: Turns,
    ring: Ring,
    publishes: TaskTracker,
    meters: Meters,
    listener: Arc<ListenerState>,
}

impl Receiver {
    /// Built after [`crate::telemetry::Recorder::install`], or its metrics go nowhere.
    ///
    /// # Errors
    /// Which setting cannot be used.
    pub fn new(parts: Parts) -> Result<Self, ReceiverError> {
        let Parts {
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
                settings.signing_keys_cached_max,
            ),
            strangers: Strangers::new(settings.unknown_per_second_max),
            held: Held::new(settings.requests_max.max(1).saturating_mul(settings.body_bytes_max)),
            turns: Turns::new(settings.requests_max, settings.turn_seconds_max),
            trusted: Networks::parse(&settings.trusted_proxies)?,
            ring: Ring::new(),
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

    /// What the ingress listener allows.
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
            on_refused: count_refused,
            state: Arc::clone(&self.0.listener),
            ..Limits::default()
        }
    }

    /// Sets the gauges of what is held in memory; called at each scrape.
    pub fn gather_gauges(&self) {
        catalogue::CONNECTIONS.set(self.0.listener.open() as f64, &[]);
        self.0.verifier.gather_gauges();
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

    /// Flushes rejections until `stop`, then waits for publishes that outlive their senders.
    pub async fn run_background(self, stop: CancellationToken) {
        self.0
            .ring
            .run(Arc::clone(&self.0.store), self.0.settings.rejections_max, stop)
            .await;
        self.0.publishes.close();
        self.0.publishes.wait().await;
    }

    /// Writes rejections soon rather than within a second.
    pub fn flush_rejections(&self) {
        self.0.ring.flush_soon();
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

fn count_refused(refused: HeadRefused) {
    let cause = match refused {
        HeadRefused::HeadTooLarge => Cause::HeadersTooLarge,
        HeadRefused::NotHttp => Cause::NotTheFormat,
        HeadRefused::HeadTooSlow => Cause::Timeout,
        HeadRefused::TooManyFromAddress => Cause::RateLimited,
    };
    catalogue::REJECTIONS.count(1, &[label(None), cause.as_str()]);
}

async fn receive(State(inner): State<Arc<Inner>>, request: http::Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let begun = Instant::now();
    let place = match limits::check_head(&head, inner.settings.path_bytes_max, inner.settings.body_bytes_max) {
        Ok(place) => place,
        Err((cause, place)) => return inner.refuse_head(cause, place, begun),
    };
    let span = tracing::debug_span!(
        "webhook.receive",
        source = place.source.as_str(),
        org.id = tracing::field::Empty,
        event.id = tracing::field::Empty
    );
    inner.receive(place, head, body).instrument(span).await
}

impl Inner {
    /// Refused by its head: no body was read, and only what came to a known path is worth a line
    /// for people.
    fn refuse_head(&self, cause: Cause, place: Option<Place>, begun: Instant) -> Response {
        let response = if let Some(place) = place {
            self.refuse(place, cause, None, &[], &[], 0)
        } else {
            catalogue::REJECTIONS.count(1, &[label(None), cause.as_str()]);
            answer::refused(cause, Uuid::now_v7())
        };
        self.meters.received(
            place.map(|place| place.source),
            cause.status(),
            begun.elapsed().as_secs_f64(),
        );
        response
    }

    async fn receive(&self, place: Place, head: request::Parts, body: Body) -> Response {
        let Some(peer) = head.extensions.get::<Peer>() else {
            tracing::error!("The receiver's router is not served by the listener, which tells it who is asking");
            return answer::refused(Cause::Unavailable, Uuid::now_v7());
        };
        let (body_bytes_max, body_seconds_max) = (self.settings.body_bytes_max, self.settings.body_seconds_max);
        let (body, _holding) = match limits::collect(body, body_bytes_max, body_seconds_max, peer, &self.held).await {
            Ok(collected) => collected,
            Err(cause) => {
                self.meters.received(Some(place.source), cause.status(), 0.0);
                return self.refuse(place, cause, None, &[], &[], 0);
            }
        };
        reach(Step::BytesRead);
        let begun = Instant::now();
        let response = self.decide(place, &head, peer, body).await;
        self.meters
            .received(Some(place.source), response.status(), begun.elapsed().as_secs_f64());
        response
    }

    async fn decide(&self, place: Place, head: &request::Parts, peer: &Peer, body: bytes::Bytes) -> Response {
        let now = self.clock.now();
        let url = limits::public_url(self.public_url.as_deref(), &self.trusted, peer, head);
        let request = Request {
            method: head.method.as_str(),
            url: &url,
            headers: &head.headers,
            body: &body,
        };
        let mut reading = match source::read(place.source, &request) {
            Ok(reading) => reading,
            Err(error) => {
                tracing::debug!(error = %error, "Refused");
                let org = place
                    .endpoint
                    .and_then(|id| self.routes.endpoint(id))
                    .map(|endpoint| endpoint.org);
                return self.refuse(place, Cause::NotTheFormat, org, &[], &body, body.len());
            }
        };
        let stranger = || {
            self.strangers
                .may(strangers::caller(peer, &head.headers, &self.trusted), Instant::now())
        };
        let verified = self
            .verifier
            .verify(place, &reading, &request, now, stranger)
            .await
            .and_then(|signer| {
                let hops = hops::hops(&head.headers, &self.vault);
                if u32::from(hops) > self.settings.hops_max {
                    return Err(Unverified {
                        cause: Cause::HopLimit,
                        org: Some(signer.org),
                    });
                }
                Ok((signer, hops))
            });
        let (signer, hops) = match verified {
            Ok(verified) => verified,
            Err(Unverified { cause, org }) => {
                let cause = self.or_unavailable(cause);
                return self.refuse(place, cause, org, &reading.routes, &body, body.len());
            }
        };
        let answer = reading.answer;
        if self.is_ignored(place, &signer, reading.event_type.kind()) {
            catalogue::EVENTS_IGNORED.count(1, &[place.source.as_str()]);
            return answer::taken(answer, &body);
        }
        let ids = std::mem::take(&mut reading.routes);
        let event = envelope::vouch(signer, place, reading, head, body.clone(), hops, now);
        tracing::Span::current()
            .record("org.id", tracing::field::display(signer.org))
            .record("event.id", tracing::field::display(event.envelope().id));
        reach(Step::Verified);
        match publish::publish(
            &self.queue,
            &self.turns,
            &self.publishes,
            event,
            self.settings.publish_seconds_max,
        )
        .await
        {
            Ok(()) => {
                reach(Step::Confirmed);
                answer::taken(answer, &body)
            }
            Err(cause) => self.refuse(place, cause, Some(signer.org), &ids, &[], body.len()),
        }
    }

    /// What would be 401 is 503 while it might be our own mistake: stale routes (invariant 9), or a
    /// clock that is off (invariant 16).
    fn or_unavailable(&self, cause: Cause) -> Cause {
        let is_unsure = match cause {
            Cause::BadSignature | Cause::UnknownRoute | Cause::ConflictingRoute => {
                self.routes.age() > self.settings.snapshot_stale_seconds
            }
            Cause::TooOld => {
                self.routes.clock_offset_micros().unsigned_abs()
                    > u64::try_from(CLOCK_OFFSET_MAX.as_micros()).unwrap_or(u64::MAX)
                    || self.routes.age() > self.settings.snapshot_stale_seconds
            }
            _ => false,
        };
        if is_unsure { Cause::Unavailable } else { cause }
    }

    /// The endpoint that it came to, or whose secret verified it, does not want this kind
    /// (invariant 22).
    fn is_ignored(&self, place: Place, signer: &verify::Signer, kind: &str) -> bool {
        let endpoint = place
            .endpoint
            .or(signer.endpoint)
            .and_then(|id| self.routes.endpoint(id));
        endpoint.is_some_and(|endpoint| endpoint.ignored_types.iter().any(|ignored| ignored == kind))
    }

    /// Counts, keeps for people to see, and answers. A flood of strangers is counted only: it would
    /// push out what somebody looks for.
    fn refuse(
        &self,
        place: Place,
        cause: Cause,
        org: Option<OrgId>,
        ids: &[RouteKey],
        body: &[u8],
        bytes: usize,
    ) -> Response {
        let id = Uuid::now_v7();
        catalogue::REJECTIONS.count(1, &[label(Some(place.source)), cause.as_str()]);
        if cause != Cause::RateLimited {
            self.ring.keep(&Refused {
                id,
                at: self.clock.now(),
                place,
                cause,
                org,
                bytes: bytes as u64,
                ids,
                body,
            });
        }
        answer::refused(cause, id)
    }
}
