//! Reads the attributes that came as texts beside a body: headers of a broker's message.

use super::{EnvelopeError, EventParts, broken, once};
use crate::domain::{DedupeKey, Envelope, EventType, Subject, Timestamp};
use bytes::Bytes;

/// The envelope whose [`attributes`](super::attributes()) these are. A name that this version does
/// not know is passed over, so that an older process reads what a newer one wrote.
///
/// # Errors
/// Says which attribute is wrong, missing, or stands twice. Never panics, whatever the texts are.
pub fn from_attributes<'a>(
    attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: Bytes,
) -> Result<Envelope, EnvelopeError> {
    let mut parts = EventParts::default();
    let mut version = None;
    for (name, text) in attributes {
        match name {
            "specversion" => once(&mut version, text)?,
            name => parts.take_text(name, text)?,
        }
    }
    match version {
        Some("1.0") => parts.finish(body),
        Some(_) => Err(broken("a version of CloudEvents that this process does not know")),
        None => Err(broken("specversion is missing")),
    }
}

impl EventParts {
    fn take_text(&mut self, name: &str, text: &str) -> Result<(), EnvelopeError> {
        match name {
            "id" => once(&mut self.id, text.parse().map_err(|_| broken("id is no UUID"))?),
            "source" => {
                let source = text.strip_prefix("/webhooks/").and_then(|name| name.parse().ok());
                once(&mut self.source, source.ok_or(broken("an unknown source"))?)
            }
            "type" => once(&mut self.event_type, EventType::from_stored(text)),
            "time" => once(&mut self.time, timestamp(text)?),
            "receivedat" => once(&mut self.received_at, timestamp(text)?),
            "subject" => once(&mut self.subject, Subject(text.into())),
            "orgid" => once(&mut self.org, text.parse().map_err(|_| broken("orgid is no UUID"))?),
            "endpointid" => once(
                &mut self.endpoint,
                text.parse().map_err(|_| broken("endpointid is no UUID"))?,
            ),
            "secretid" => once(
                &mut self.secret,
                text.parse().map_err(|_| broken("secretid is no UUID"))?,
            ),
            "dedupekey" => {
                let mut key = [0; 16];
                hex::decode_to_slice(text, &mut key).map_err(|_| broken("dedupekey is not 16 bytes in hex"))?;
                once(&mut self.dedupe_key, DedupeKey(key))
            }
            "traceparent" => once(&mut self.traceparent, text.into()),
            "datacontenttype" => once(&mut self.content_type, text.into()),
            "path" => once(&mut self.path, text.into()),
            "query" => once(&mut self.query, text.into()),
            "hops" => once(
                &mut self.hops,
                text.parse().map_err(|_| broken("hops is not 0 to 255"))?,
            ),
            "headers" if !self.headers.is_empty() => Err(broken("an attribute stands twice")),
            "headers" => {
                self.headers = serde_json::from_str(text).map_err(|_| broken("headers are no JSON array of pairs"))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn timestamp(text: &str) -> Result<Timestamp, EnvelopeError> {
    let time: jiff::Timestamp = text.parse().map_err(|_| broken("a time is not RFC 3339"))?;
    Ok(Timestamp::from_micros(time.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{attributes, envelope::tests::envelopes};
    use proptest::prelude::*;

    fn read(texts: &[(&str, &str)], body: &Bytes) -> Result<Envelope, EnvelopeError> {
        from_attributes(texts.iter().copied(), body.clone())
    }

    proptest! {
        #[test]
        fn what_travels_as_texts_comes_back_the_same(mut envelope in envelopes()) {
            // A time outside the range of RFC 3339 becomes its nearest time.
            for time in [&mut envelope.time, &mut envelope.received_at] {
                *time = Timestamp::from_micros(time.as_micros() % 200_000_000_000_000_000);
            }
            let texts = attributes(&envelope);
            let read = from_attributes(texts.iter().map(|(name, text)| (*name, &**text)), envelope.body.clone());
            prop_assert_eq!(read.unwrap(), envelope);
        }

        #[test]
        fn no_texts_make_it_panic(texts in proptest::collection::vec((0..18_usize, ".{0,60}"), 0..20)) {
            const NAMES: [&str; 18] = [
                "specversion", "id", "source", "type", "time", "subject", "orgid", "endpointid", "dedupekey",
                "receivedat", "traceparent", "datacontenttype", "path", "query", "headers", "hops", "secretid", "other",
            ];
            let _ = from_attributes(texts.iter().map(|(name, text)| (NAMES[*name], &**text)), Bytes::new());
        }
    }

    #[test]
    fn each_fault_is_named() {
        let body = Bytes::from_static(b"{}");
        let reason = |texts: &[(&str, &str)]| read(texts, &body).unwrap_err().reason;
        assert_eq!(reason(&[]), "specversion is missing");
        assert_eq!(
            reason(&[("specversion", "2.0")]),
            "a version of CloudEvents that this process does not know"
        );
        assert_eq!(reason(&[("specversion", "1.0")]), "id is missing");
        assert_eq!(reason(&[("query", ""), ("query", "")]), "an attribute stands twice");
        assert_eq!(reason(&[("source", "vapi")]), "an unknown source");
        assert_eq!(reason(&[("dedupekey", "00")]), "dedupekey is not 16 bytes in hex");
        assert_eq!(reason(&[("time", "yesterday")]), "a time is not RFC 3339");
        assert_eq!(reason(&[("headers", "{}")]), "headers are no JSON array of pairs");
    }
}
