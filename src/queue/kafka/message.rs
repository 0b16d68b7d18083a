//! An envelope as a Kafka message: `CloudEvents` 1.0, binary mode. The attributes are headers with
//! the prefix `ce_`, the body is the provider's bytes, the key is the subject.

use crate::{
    domain::{Envelope, Timestamp},
    queue::{EnvelopeError, envelope::ATTRIBUTES_MAX, for_each_attribute, from_attributes},
};
use bytes::Bytes;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};

/// The binding to Kafka gives this attribute the name of the HTTP header.
const CONTENT_TYPE: (&str, &str) = ("datacontenttype", "content-type");

const PREFIX: &str = "ce_";

/// The headers of an envelope's message.
pub(super) fn headers(envelope: &Envelope) -> OwnedHeaders {
    let mut name = String::with_capacity(24);
    let mut headers = Some(OwnedHeaders::new_with_capacity(ATTRIBUTES_MAX));
    for_each_attribute(envelope, |attribute, value| {
        name.clear();
        if attribute == CONTENT_TYPE.0 {
            name.push_str(CONTENT_TYPE.1);
        } else {
            name.push_str(PREFIX);
            name.push_str(attribute);
        }
        let header = Header {
            key: &name,
            value: Some(value),
        };
        headers = headers.take().map(|headers| headers.insert(header));
    });
    headers.unwrap_or_default()
}

/// Reads the envelope of a message. A message of another program costs only itself.
pub(super) fn envelope(message: &impl Message) -> Result<Envelope, EnvelopeError> {
    let headers = message.headers().ok_or(EnvelopeError {
        reason: "the message has no headers",
    })?;
    let mut texts = Vec::with_capacity(headers.count());
    for header in headers.iter() {
        let name = match header.key.strip_prefix(PREFIX) {
            Some(name) => name,
            None if header.key == CONTENT_TYPE.1 => CONTENT_TYPE.0,
            None => continue,
        };
        let value = std::str::from_utf8(header.value.unwrap_or_default()).map_err(|_| EnvelopeError {
            reason: "a header is not UTF-8",
        })?;
        texts.push((name, value));
    }
    from_attributes(texts, Bytes::copy_from_slice(message.payload().unwrap_or_default()))
}

/// The time of receipt; the time at which the broker stored it where the message names none.
pub(super) fn received_at(message: &impl Message) -> Timestamp {
    let stored_at = message.timestamp().to_millis().unwrap_or_default();
    envelope(message).map_or_else(
        |_| Timestamp::from_micros(stored_at.saturating_mul(1000)),
        |event| event.received_at,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DedupeKey, EventId, EventType, OrgId, Source, Subject};
    use rdkafka::message::{OwnedMessage, Timestamp as KafkaTimestamp};

    fn sample() -> Envelope {
        Envelope {
            id: EventId::generate(),
            source: Source::Twilio,
            event_type: EventType::new(Source::Twilio, "message"),
            time: Timestamp::from_micros(1_780_000_000_123_456),
            received_at: Timestamp::from_micros(1_780_000_001_000_001),
            subject: Subject("SM1".into()),
            org: Some(OrgId::generate()),
            endpoint: None,
            secret: None,
            dedupe_key: DedupeKey([9; 16]),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            content_type: "application/x-www-form-urlencoded".into(),
            path: "/webhooks/twilio".into(),
            query: "a=1".into(),
            headers: vec![("user-agent".into(), "TwilioProxy/1.1".into())],
            hops: 1,
            body: Bytes::from_static(b"MessageSid=SM1"),
        }
    }

    fn message(headers: Option<OwnedHeaders>, payload: Option<&[u8]>) -> OwnedMessage {
        let payload = payload.map(<[u8]>::to_vec);
        OwnedMessage::new(payload, None, "topic".into(), KafkaTimestamp::now(), 0, 0, headers)
    }

    #[test]
    fn an_envelope_comes_back_from_its_message() {
        let sent = sample();
        let got = envelope(&message(Some(headers(&sent)), Some(&sent.body)));
        assert_eq!(got, Ok(sent));
    }

    #[test]
    fn headers_are_those_of_the_cloudevents_binding() {
        let headers = headers(&sample());
        let names: Vec<_> = headers.iter().map(|header| header.key.to_owned()).collect();
        assert!(
            names
                .iter()
                .all(|name| name.starts_with("ce_") || name == "content-type"),
            "{names:?}"
        );
        for name in [
            "ce_specversion",
            "ce_id",
            "ce_source",
            "ce_type",
            "ce_subject",
            "ce_orgid",
            "content-type",
        ] {
            assert!(
                names.iter().any(|other| other == name),
                "{name} is missing in {names:?}"
            );
        }
    }

    #[test]
    fn messages_of_other_programs_are_errors() {
        let reason = |message: &OwnedMessage| envelope(message).unwrap_err().reason;
        assert_eq!(reason(&message(None, Some(b"text"))), "the message has no headers");
        let foreign = OwnedHeaders::new().insert(Header {
            key: "trace",
            value: Some("1"),
        });
        assert_eq!(reason(&message(Some(foreign), None)), "specversion is missing");
        let binary = OwnedHeaders::new().insert(Header {
            key: "ce_id",
            value: Some(&[0xFF_u8][..]),
        });
        assert_eq!(reason(&message(Some(binary), None)), "a header is not UTF-8");
    }
}
