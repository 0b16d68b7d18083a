//! The envelope's bytes: a version, the attributes as (code, length, value), an end, then the
//! provider's body untouched.
//!
//! The log and every broker backend enter. **Invariant:** [`decode`] of [`encode`] is the same
//! envelope, and no bytes make [`decode`] panic.
//!
//! Attributes carry the names of `CloudEvents` 1.0; the log writes a one-byte code for each name,
//! brokers write [`attributes`] as headers. A code that this version does not know is passed over,
//! so that an older process reads what a newer one wrote.

mod attributes;

pub use attributes::from_attributes;

use crate::domain::{DedupeKey, EndpointId, Envelope, EventId, EventType, OrgId, SecretId, Source, Subject, Timestamp};
use bytes::Bytes;
use std::fmt::{self, Write as _};

const VERSION: u8 = 1;

/// The bytes are no envelope. Carries the reason, never the bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an envelope: {reason}")]
pub struct EnvelopeError {
    pub reason: &'static str,
}

const fn broken(reason: &'static str) -> EnvelopeError {
    EnvelopeError { reason }
}

/// The codes of attributes' names on disk. A code never gets a second meaning.
mod code {
    pub const END: u8 = 0;
    pub const ID: u8 = 1;
    pub const SOURCE: u8 = 2;
    pub const TYPE: u8 = 3;
    pub const TIME: u8 = 4;
    pub const SUBJECT: u8 = 5;
    pub const ORG: u8 = 6;
    pub const ENDPOINT: u8 = 7;
    pub const DEDUPE_KEY: u8 = 8;
    pub const RECEIVED_AT: u8 = 9;
    pub const TRACEPARENT: u8 = 10;
    pub const CONTENT_TYPE: u8 = 11;
    pub const PATH: u8 = 12;
    pub const QUERY: u8 = 13;
    pub const HEADER: u8 = 14;
    pub const HOPS: u8 = 15;
    pub const SECRET: u8 = 16;
}

/// Code and length of an attribute.
const ATTRIBUTE_HEAD: usize = 5;

/// Appends the envelope's bytes.
pub fn encode(envelope: &Envelope, into: &mut Vec<u8>) {
    into.push(VERSION);
    put(into, code::ID, envelope.id.as_bytes());
    put(into, code::SOURCE, envelope.source.as_str().as_bytes());
    put(into, code::TYPE, envelope.event_type.as_str().as_bytes());
    put(into, code::TIME, &envelope.time.as_micros().to_le_bytes());
    put(into, code::SUBJECT, envelope.subject.0.as_bytes());
    if let Some(org) = &envelope.org {
        put(into, code::ORG, org.as_bytes());
    }
    if let Some(endpoint) = &envelope.endpoint {
        put(into, code::ENDPOINT, endpoint.as_bytes());
    }
    if let Some(secret) = &envelope.secret {
        put(into, code::SECRET, secret.as_bytes());
    }
    put(into, code::DEDUPE_KEY, &envelope.dedupe_key.0);
    put(into, code::RECEIVED_AT, &envelope.received_at.as_micros().to_le_bytes());
    if let Some(traceparent) = &envelope.traceparent {
        put(into, code::TRACEPARENT, traceparent.as_bytes());
    }
    put(into, code::CONTENT_TYPE, envelope.content_type.as_bytes());
    put(into, code::PATH, envelope.path.as_bytes());
    put(into, code::QUERY, envelope.query.as_bytes());
    for (name, value) in &envelope.headers {
        into.push(code::HEADER);
        into.extend_from_slice(&length(4 + name.len() + value.len()));
        into.extend_from_slice(&length(name.len()));
        into.extend_from_slice(name.as_bytes());
        into.extend_from_slice(value.as_bytes());
    }
    if envelope.hops > 0 {
        put(into, code::HOPS, &[envelope.hops]);
    }
    into.push(code::END);
    into.extend_from_slice(&envelope.body);
}

fn put(into: &mut Vec<u8>, code: u8, value: &[u8]) {
    into.push(code);
    into.extend_from_slice(&length(value.len()));
    into.extend_from_slice(value);
}

/// Requests are limited to far less than 4 GiB; a longer text would be cut off by the queue's own
/// limit before it is written.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// As many bytes as [`encode`] appends, exactly.
#[must_use]
pub fn encoded_bytes_max(envelope: &Envelope) -> usize {
    let texts = [
        envelope.source.as_str(),
        envelope.event_type.as_str(),
        &envelope.subject.0,
        &envelope.content_type,
        &envelope.path,
        &envelope.query,
    ];
    let fixed = 1 + (16 + 8 + 16 + 8) + ATTRIBUTE_HEAD * 10 + 1;
    let optional = [
        envelope.org.map(|_| 16),
        envelope.endpoint.map(|_| 16),
        envelope.secret.map(|_| 16),
        envelope.traceparent.as_ref().map(|text| text.len()),
        (envelope.hops > 0).then_some(1),
    ];
    fixed
        + texts.iter().map(|text| text.len()).sum::<usize>()
        + optional
            .iter()
            .flatten()
            .map(|bytes| bytes + ATTRIBUTE_HEAD)
            .sum::<usize>()
        + envelope
            .headers
            .iter()
            .map(|(name, value)| ATTRIBUTE_HEAD + 4 + name.len() + value.len())
            .sum::<usize>()
        + envelope.body.len()
}

/// Reads an envelope; the body is a slice of `bytes`, not a copy.
///
/// # Errors
/// Says what is wrong with the bytes. Never panics, whatever they are.
pub fn decode(bytes: &Bytes) -> Result<Envelope, EnvelopeError> {
    let mut rest = AttributeReader { bytes, at: 0 };
    match rest.byte()? {
        VERSION => {}
        _ => return Err(broken("a version that this process does not know")),
    }
    let mut parts = EventParts::default();
    loop {
        match rest.byte()? {
            code::END => break,
            code => {
                let value = rest.value()?;
                parts.take(code, value)?;
            }
        }
    }
    parts.finish(bytes.slice(rest.at..))
}

struct AttributeReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> AttributeReader<'a> {
    fn byte(&mut self) -> Result<u8, EnvelopeError> {
        let byte = *self.bytes.get(self.at).ok_or(broken("it ends inside the attributes"))?;
        self.at += 1;
        Ok(byte)
    }

    fn value(&mut self) -> Result<&'a [u8], EnvelopeError> {
        let (length, rest) = self
            .bytes
            .get(self.at..)
            .and_then(<[u8]>::split_first_chunk::<4>)
            .ok_or(broken("it ends inside the attributes"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let value = rest
            .get(..length)
            .ok_or(broken("an attribute is longer than the event"))?;
        self.at += 4 + length;
        Ok(value)
    }
}

#[derive(Default)]
struct EventParts {
    id: Option<EventId>,
    source: Option<Source>,
    event_type: Option<EventType>,
    time: Option<Timestamp>,
    received_at: Option<Timestamp>,
    subject: Option<Subject>,
    org: Option<OrgId>,
    endpoint: Option<EndpointId>,
    secret: Option<SecretId>,
    dedupe_key: Option<DedupeKey>,
    traceparent: Option<Box<str>>,
    content_type: Option<Box<str>>,
    path: Option<Box<str>>,
    query: Option<Box<str>>,
    headers: Vec<(Box<str>, Box<str>)>,
    hops: Option<u8>,
}

impl EventParts {
    fn take(&mut self, code: u8, value: &[u8]) -> Result<(), EnvelopeError> {
        match code {
            code::ID => once(
                &mut self.id,
                EventId::from_slice(value).map_err(|_| broken("id is not 16 bytes"))?,
            ),
            code::SOURCE => once(
                &mut self.source,
                text(value)?.parse().map_err(|_| broken("an unknown source"))?,
            ),
            code::TYPE => once(&mut self.event_type, EventType::from_stored(text(value)?)),
            code::TIME => once(&mut self.time, timestamp(value)?),
            code::RECEIVED_AT => once(&mut self.received_at, timestamp(value)?),
            code::SUBJECT => once(&mut self.subject, Subject(text(value)?.into())),
            code::ORG => once(
                &mut self.org,
                OrgId::from_slice(value).map_err(|_| broken("orgid is not 16 bytes"))?,
            ),
            code::ENDPOINT => once(
                &mut self.endpoint,
                EndpointId::from_slice(value).map_err(|_| broken("endpointid is not 16 bytes"))?,
            ),
            code::SECRET => once(
                &mut self.secret,
                SecretId::from_slice(value).map_err(|_| broken("secretid is not 16 bytes"))?,
            ),
            code::DEDUPE_KEY => once(
                &mut self.dedupe_key,
                DedupeKey(value.try_into().map_err(|_| broken("dedupekey is not 16 bytes"))?),
            ),
            code::TRACEPARENT => once(&mut self.traceparent, text(value)?.into()),
            code::CONTENT_TYPE => once(&mut self.content_type, text(value)?.into()),
            code::PATH => once(&mut self.path, text(value)?.into()),
            code::QUERY => once(&mut self.query, text(value)?.into()),
            code::HOPS => once(
                &mut self.hops,
                *value
                    .first()
                    .filter(|_| value.len() == 1)
                    .ok_or(broken("hops is not one byte"))?,
            ),
            code::HEADER => {
                let mut pair = AttributeReader { bytes: value, at: 0 };
                let name = text(pair.value()?)?.into();
                self.headers.push((name, text(&value[pair.at..])?.into()));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(self, body: Bytes) -> Result<Envelope, EnvelopeError> {
        Ok(Envelope {
            id: self.id.ok_or(broken("id is missing"))?,
            source: self.source.ok_or(broken("source is missing"))?,
            event_type: self.event_type.ok_or(broken("type is missing"))?,
            time: self.time.ok_or(broken("time is missing"))?,
            received_at: self.received_at.ok_or(broken("receivedat is missing"))?,
            subject: self.subject.ok_or(broken("subject is missing"))?,
            org: self.org,
            endpoint: self.endpoint,
            secret: self.secret,
            dedupe_key: self.dedupe_key.ok_or(broken("dedupekey is missing"))?,
            traceparent: self.traceparent,
            content_type: self.content_type.ok_or(broken("datacontenttype is missing"))?,
            path: self.path.ok_or(broken("path is missing"))?,
            query: self.query.ok_or(broken("query is missing"))?,
            headers: self.headers,
            hops: self.hops.unwrap_or(0),
            body,
        })
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), EnvelopeError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(broken("an attribute stands twice")),
    }
}

fn text(value: &[u8]) -> Result<&str, EnvelopeError> {
    std::str::from_utf8(value).map_err(|_| broken("an attribute is not UTF-8"))
}

fn timestamp(value: &[u8]) -> Result<Timestamp, EnvelopeError> {
    Ok(Timestamp::from_micros(i64::from_le_bytes(
        value.try_into().map_err(|_| broken("a time is not 8 bytes"))?,
    )))
}

/// Most attributes that an envelope has as texts.
pub(super) const ATTRIBUTES_MAX: usize = 17;

/// The attributes of [`for_each_attribute`], to keep.
#[must_use]
pub fn attributes(envelope: &Envelope) -> Vec<(&'static str, String)> {
    let mut attributes = Vec::with_capacity(ATTRIBUTES_MAX);
    for_each_attribute(envelope, |name, text| attributes.push((name, text.to_owned())));
    attributes
}

/// Hands out the attributes as `CloudEvents` names and texts, for the headers of brokers.
/// `schemas/envelope.json` describes them. The body is not among them: it is the message itself.
/// Each event passes here, so that texts share one buffer.
pub fn for_each_attribute(envelope: &Envelope, mut take: impl FnMut(&'static str, &str)) {
    let mut buffer = String::with_capacity(64);
    let buffer = &mut buffer;
    take("specversion", "1.0");
    take("id", written(buffer, envelope.id));
    take("source", written(buffer, format_args!("/webhooks/{}", envelope.source)));
    take("type", envelope.event_type.as_str());
    take("time", written(buffer, rfc3339(envelope.time)));
    take("subject", &envelope.subject.0);
    if let Some(org) = envelope.org {
        take("orgid", written(buffer, org));
    }
    if let Some(endpoint) = envelope.endpoint {
        take("endpointid", written(buffer, endpoint));
    }
    if let Some(secret) = envelope.secret {
        take("secretid", written(buffer, secret));
    }
    take("dedupekey", written(buffer, envelope.dedupe_key));
    take("receivedat", written(buffer, rfc3339(envelope.received_at)));
    if let Some(traceparent) = &envelope.traceparent {
        take("traceparent", traceparent);
    }
    take("datacontenttype", &envelope.content_type);
    take("path", &envelope.path);
    take("query", &envelope.query);
    if !envelope.headers.is_empty() {
        let pairs = serde_json::to_string(&envelope.headers).expect("pairs of texts are JSON");
        take("headers", &pairs);
    }
    if envelope.hops > 0 {
        take("hops", written(buffer, envelope.hops));
    }
}

fn written(buffer: &mut String, value: impl fmt::Display) -> &str {
    buffer.clear();
    write!(buffer, "{value}").expect("a text takes all that is written to it");
    buffer
}

/// A time outside the range of RFC 3339 becomes its nearest time.
fn rfc3339(time: Timestamp) -> jiff::Timestamp {
    let nearest = if time.as_micros() < 0 {
        jiff::Timestamp::UNIX_EPOCH
    } else {
        jiff::Timestamp::MAX
    };
    jiff::Timestamp::from_microsecond(time.as_micros()).unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, strategy::ValueTree};

    pub(super) fn envelopes() -> impl Strategy<Value = Envelope> {
        let times = (any::<i64>(), any::<i64>());
        let ids = (
            any::<[u8; 16]>(),
            any::<[u8; 16]>(),
            proptest::option::of(any::<[u8; 16]>()),
            proptest::option::of(any::<[u8; 16]>()),
        );
        let texts = (
            ".{0,40}",
            ".{0,40}",
            proptest::option::of(".{0,60}"),
            ".{0,40}",
            ".{0,40}",
            ".{0,40}",
        );
        let rest = (
            proptest::collection::vec((".{0,20}", ".{0,40}"), 0..5),
            any::<u8>(),
            proptest::collection::vec(any::<u8>(), 0..300),
            0..Source::ALL.len(),
        );
        (times, ids, texts, rest).prop_map(
            |((time, received_at), (id, dedupe_key, org, endpoint), texts, (headers, hops, body, source))| {
                let source = Source::ALL[source];
                let (kind, subject, traceparent, content_type, path, query) = texts;
                Envelope {
                    id: EventId::from_slice(&id).expect("sixteen bytes"),
                    source,
                    event_type: EventType::new(source, &kind),
                    time: Timestamp::from_micros(time),
                    received_at: Timestamp::from_micros(received_at),
                    subject: Subject(subject.into()),
                    org: org.map(|org| OrgId::from_slice(&org).expect("sixteen bytes")),
                    endpoint: endpoint.map(|endpoint| EndpointId::from_slice(&endpoint).expect("sixteen bytes")),
                    secret: endpoint.map(|_| SecretId::from_slice(&dedupe_key).expect("sixteen bytes")),
                    dedupe_key: DedupeKey(dedupe_key),
                    traceparent: traceparent.map(Into::into),
                    content_type: content_type.into(),
                    path: path.into(),
                    query: query.into(),
                    headers: headers
                        .into_iter()
                        .map(|(name, value)| (name.into(), value.into()))
                        .collect(),
                    hops,
                    body: body.into(),
                }
            },
        )
    }

    fn encoded(envelope: &Envelope) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(envelope, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(envelope in envelopes()) {
            let bytes = encoded(&envelope);
            prop_assert_eq!(bytes.len(), encoded_bytes_max(&envelope));
            prop_assert_eq!(decode(&bytes.into()).unwrap(), envelope);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes.clone().into());
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = decode(&bytes.into());
        }

        #[test]
        fn a_changed_or_cut_envelope_is_another_or_an_error(
            envelope in envelopes(),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let whole = encoded(&envelope);
            let at = at.index(whole.len());
            let mut changed = whole.clone();
            changed[at] ^= flip;
            if let Ok(decoded) = decode(&changed.into()) {
                // Only hops of zero may be left out or written.
                prop_assert!(decoded != envelope);
            }
            let attributes = whole.len() - envelope.body.len();
            prop_assert_eq!(decode(&Bytes::copy_from_slice(&whole[..at])).is_ok(), at >= attributes);
        }
    }

    fn sample() -> Envelope {
        envelopes()
            .new_tree(&mut proptest::test_runner::TestRunner::deterministic())
            .expect("a sample")
            .current()
    }

    #[test]
    fn the_body_is_borrowed_from_what_was_read() {
        let envelope = Envelope {
            body: Bytes::from_static(b"untouched"),
            ..sample()
        };
        let bytes = Bytes::from(encoded(&envelope));
        let decoded = decode(&bytes).unwrap();
        assert_eq!(decoded.body.as_ptr(), bytes[bytes.len() - 9..].as_ptr());
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let envelope = sample();
        let mut bytes = encoded(&envelope);
        let mut added = Vec::new();
        put(&mut added, 200, b"from the future");
        bytes.splice(1..1, added);
        assert_eq!(decode(&bytes.into()), Ok(envelope));
    }

    #[test]
    fn each_fault_is_named() {
        let bytes = encoded(&sample());
        let reason = |bytes: Vec<u8>| decode(&bytes.into()).unwrap_err().reason;
        assert_eq!(reason(Vec::new()), "it ends inside the attributes");
        assert_eq!(
            reason([&[9][..], &bytes[1..]].concat()),
            "a version that this process does not know"
        );
        assert_eq!(reason(vec![VERSION, code::END]), "id is missing");
        let id_twice = [&bytes[..22], &bytes[1..]].concat();
        assert_eq!(reason(id_twice), "an attribute stands twice");
        assert_eq!(
            reason([&[VERSION, code::ID][..], &u32::MAX.to_le_bytes()].concat()),
            "an attribute is longer than the event"
        );
        assert_eq!(
            reason([&[VERSION, code::SUBJECT][..], &1_u32.to_le_bytes(), &[0xFF]].concat()),
            "an attribute is not UTF-8"
        );
    }

    /// Later versions must read the bytes that this version wrote. This text never changes; a later
    /// format gets its own.
    #[test]
    fn version_one_stays_readable() {
        let stored = hex::decode(concat!(
            "01",
            "0110000000",
            "01900000000070008000000000000001",
            "0204000000",
            "76617069",
            "0309000000",
            "766170692e63616c6c",
            "0408000000",
            "40420f0000000000",
            "0501000000",
            "63",
            "0810000000",
            "07070707070707070707070707070707",
            "0908000000",
            "80841e0000000000",
            "0b0a000000",
            "746578742f706c61696e",
            "0c01000000",
            "2f",
            "0d00000000",
            "0e06000000",
            "01000000",
            "6876",
            "0f01000000",
            "02",
            "00",
            "626f6479"
        ));
        let envelope = decode(&stored.unwrap().into()).unwrap();
        assert_eq!(envelope.id.to_string(), "01900000-0000-7000-8000-000000000001");
        assert_eq!(
            (envelope.event_type.as_str(), &*envelope.subject.0, envelope.hops),
            ("vapi.call", "c", 2)
        );
        assert_eq!(
            (envelope.time.as_micros(), envelope.received_at.as_micros()),
            (1_000_000, 2_000_000)
        );
        assert_eq!(
            (&*envelope.content_type, &*envelope.path, &*envelope.query),
            ("text/plain", "/", "")
        );
        assert_eq!(
            (envelope.headers, envelope.body),
            (vec![("h".into(), "v".into())], Bytes::from_static(b"body"))
        );
    }
}
