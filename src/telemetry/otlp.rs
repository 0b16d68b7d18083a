//! Spans and error events for an OTLP receiver, as OTLP/HTTP in JSON. `cli` posts them.
//!
//! **Invariant:** telemetry never holds up work. An item that does not fit into the outbox is
//! dropped and counted, and nothing waits for a receiver that is away.
//!
//! A trace is one event's way. Its id *is* the event's id, and the span that received the event has
//! the id's second half as its own. So each process that knows the event's id, from the envelope or
//! from the ledger, adds spans to the same trace. A `traceparent` that a sender gave is a link: the
//! trace is ours, because the work goes on long after the sender's has ended.

use super::catalogue::OTLP_DROPPED;
use crate::domain::{Clock, SystemClock, Timestamp};
use ::tracing::{
    Event, Id, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
};
use serde_json::{Value, json};
use std::fmt::{self, Write as _};
use tokio::sync::mpsc;
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};
use uuid::Uuid;

/// Spans that leave the process, with OTLP's kind of each: server, internal, client.
const SPANS: [(&str, u8); 3] = [(RECEIVE, 2), ("event.plan", 1), ("action.attempt", 3)];
const RECEIVE: &str = "webhook.receive";

/// Items that wait for the next post at most.
const OUTBOX_MAX: usize = 8192;
/// Items of one post at most.
const BATCH_MAX: usize = 512;
/// Characters of one value at most.
const VALUE_CHARACTERS_MAX: usize = 1024;

enum Item {
    Span(Value),
    Log(Value),
}

/// The bodies of two posts: to `/v1/traces` and to `/v1/logs`, `None` where there is nothing.
#[derive(Debug)]
pub struct Batch {
    pub traces: Option<Value>,
    pub logs: Option<Value>,
    pub items: u64,
}

/// Where spans and error events wait for the next post.
pub struct Outbox(mpsc::Receiver<Item>);

impl Outbox {
    /// Waits for the next items and takes as many as there are. `None` once every sender is gone.
    pub async fn next_batch(&mut self) -> Option<Batch> {
        let mut items = Vec::new();
        (self.0.recv_many(&mut items, BATCH_MAX).await > 0).then(|| batch(items))
    }

    /// The last batch, at the end of a process.
    pub fn rest(&mut self) -> Option<Batch> {
        let items: Vec<Item> = std::iter::from_fn(|| self.0.try_recv().ok()).collect();
        (!items.is_empty()).then(|| batch(items))
    }
}

/// `name=value,name=value`, as the setting and OpenTelemetry's own variable have it.
pub fn headers(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim(), value.trim()))
}

/// Counts items of a batch that no receiver took.
pub fn dropped(items: u64) {
    OTLP_DROPPED.count(items, &[]);
}

fn batch(items: Vec<Item>) -> Batch {
    let count = items.len() as u64;
    let (mut spans, mut logs) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Span(span) => spans.push(span),
            Item::Log(log) => logs.push(log),
        }
    }
    let resource = json!({ "attributes": [
        attribute("service.name", "hookswitch"),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
    ] });
    let scope = json!({ "name": "hookswitch" });
    Batch {
        traces: (!spans.is_empty()).then(|| {
            json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "scope": scope, "spans": spans }] }] })
        }),
        logs: (!logs.is_empty()).then(|| {
            json!({ "resourceLogs": [{ "resource": resource, "scopeLogs": [{ "scope": scope, "logRecords": logs }] }] })
        }),
        items: count,
    }
}

fn attribute(key: &str, value: &str) -> Value {
    let value: String = value.chars().take(VALUE_CHARACTERS_MAX).collect();
    json!({ "key": key, "value": { "stringValue": value } })
}

/// Takes spans and error events from `tracing`.
pub(super) struct OtlpLayer {
    outbox: mpsc::Sender<Item>,
}

impl OtlpLayer {
    pub fn new() -> (Self, Outbox) {
        let (outbox, rest) = mpsc::channel(OUTBOX_MAX);
        (Self { outbox }, Outbox(rest))
    }

    /// The spans and events that the layer records.
    pub fn wants(metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("hookswitch")
            && if metadata.is_span() {
                SPANS.iter().any(|(name, _)| *name == metadata.name())
            } else {
                *metadata.level() == Level::ERROR
            }
    }

    fn offer(&self, item: Item) {
        if self.outbox.try_send(item).is_err() {
            dropped(1);
        }
    }
}

/// A span that has not ended.
struct Open {
    began: Timestamp,
    fields: Fields,
}

#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, text)| &**text)
    }

    fn attributes(&self) -> Vec<Value> {
        let ours = self
            .0
            .iter()
            .filter(|(name, _)| !["message", "traceparent"].contains(name));
        ours.map(|(name, text)| attribute(name, text)).collect()
    }

    /// The event that a span is about.
    fn event(&self) -> Option<Uuid> {
        self.get("event.id")?.parse().ok()
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.retain(|(name, _)| *name != field.name());
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

/// The second half of an event's id: the span that received it.
fn receive_span(event: Uuid) -> String {
    hex::encode(&event.as_bytes()[8..])
}

fn nanoseconds(at: Timestamp) -> String {
    (i128::from(at.as_micros()) * 1000).to_string()
}

impl Open {
    fn end(self, name: &'static str, kind: u8, ended: Timestamp) -> Value {
        let Self { began, fields } = self;
        // A request that became no event has a trace of its own.
        let event = fields.event();
        let own = Uuid::now_v7();
        let trace = event.unwrap_or(own);
        let span = if name == RECEIVE {
            receive_span(trace)
        } else {
            receive_span(own)
        };
        let parent = event.filter(|_| name != RECEIVE).map(receive_span);
        let mut json = json!({
            "traceId": hex::encode(trace.as_bytes()),
            "spanId": span,
            "name": name,
            "kind": kind,
            "startTimeUnixNano": nanoseconds(began),
            "endTimeUnixNano": nanoseconds(ended),
            "attributes": fields.attributes(),
        });
        if let Some(parent) = parent {
            json["parentSpanId"] = parent.into();
        }
        if let Some(link) = fields.get("traceparent").and_then(link) {
            json["links"] = json!([link]);
        }
        json
    }
}

/// The sender's span, from a `traceparent` that ingress found to be one.
fn link(traceparent: &str) -> Option<Value> {
    let mut parts = traceparent.split('-').skip(1);
    Some(json!({ "traceId": parts.next()?, "spanId": parts.next()? }))
}

impl<S> Layer<S> for OtlpLayer
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            let began = SystemClock.now();
            span.extensions_mut().insert(Open { began, fields });
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            values.record(&mut open.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut log = json!({
            "timeUnixNano": nanoseconds(SystemClock.now()),
            "severityNumber": 17,
            "severityText": "ERROR",
            "body": { "stringValue": fields.get("message").unwrap_or_default() },
            "attributes": fields.attributes(),
        });
        let of_span = context
            .event_scope(event)
            .into_iter()
            .flatten()
            .find_map(|span| span.extensions().get::<Open>().and_then(|open| open.fields.event()));
        if let Some(event) = fields.event().or(of_span) {
            log["traceId"] = hex::encode(event.as_bytes()).into();
            log["spanId"] = receive_span(event).into();
        }
        self.offer(Item::Log(log));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<Open>() else {
            return;
        };
        if let Some((name, kind)) = SPANS.iter().find(|(name, _)| *name == span.name()) {
            self.offer(Item::Span(open.end(name, *kind, SystemClock.now())));
        }
    }
}
