//! The envelope of a verified request: its body and the facts that travel beside it.

use super::{
    limits::WebhookPath,
    mask::{body_masked, query_masked},
    verify::Signer,
};
use crate::{
    domain::{Envelope, EventId, IngressHeader, Timestamp, VerifiedEvent},
    source::Reading,
};
use bytes::Bytes;
use http::{HeaderMap, header, request};
use std::time::Duration;

/// Headers that rules may read. Only these travel: never a signature, `Authorization` or a secret.
const HEADERS: [&str; 2] = ["user-agent", "i-twilio-idempotency-token"];
const HEADER_BYTES_MAX: usize = 256;
/// A sender's clock may be this far ahead; beyond it, its time is taken for a mistake.
const AHEAD_MAX: Duration = Duration::from_mins(5);

/// Makes the event of a request whose signature matched. No other function at ingress makes one.
pub(super) fn verified_event(
    signer: Signer<'_>,
    path: WebhookPath,
    reading: Reading,
    head: &request::Parts,
    body: Bytes,
    hops: u8,
    received_at: Timestamp,
) -> VerifiedEvent {
    VerifiedEvent::from_verified(Envelope {
        id: EventId::generate(),
        source: path.source,
        event_type: reading.event_type,
        time: reading
            .time
            .filter(|time| *time <= received_at + AHEAD_MAX)
            .unwrap_or(received_at),
        received_at,
        subject: reading.subject,
        org: signer.org,
        endpoint: signer.endpoint,
        secret: signer.secret,
        dedupe_key: reading.dedupe_key,
        traceparent: traceparent(&head.headers).map(Into::into),
        content_type: head
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .into(),
        path: head.uri.path().into(),
        query: head.uri.query().map(query_masked).unwrap_or_default().into(),
        headers: HEADERS
            .iter()
            .filter_map(|name| header_to_carry(&head.headers, name))
            .collect(),
        hops,
        body: match signer.secret_carried {
            Some(secret) => body_masked(body, secret),
            None => body,
        },
    })
}

fn header_to_carry(headers: &HeaderMap, name: &'static str) -> Option<IngressHeader> {
    let value = headers.get(name)?.to_str().ok()?;
    // Visible ASCII, so that any byte is a boundary.
    Some((name.into(), value[..value.len().min(HEADER_BYTES_MAX)].into()))
}

/// W3C trace context, version 00, as one valid header; else none.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() || value.len() != 55 {
        return None;
    }
    let mut parts = value.split('-');
    let mut hex = |length: usize, may_be_zero: bool| {
        parts.next().is_some_and(|part| {
            part.len() == length
                && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                && (may_be_zero || part.bytes().any(|b| b != b'0'))
        })
    };
    let is_valid = value.starts_with("00-")
        && hex(2, true)
        && hex(32, false)
        && hex(16, false)
        && hex(2, true)
        && parts.next().is_none();
    is_valid.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_travels_only_when_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("traceparent", value.parse().unwrap());
            }
            traceparent(&headers).map(str::to_owned)
        };
        assert_eq!(read(&[good]).as_deref(), Some(good));
        assert_eq!(read(&[good, good]), None);
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
        ] {
            assert_eq!(read(&[bad]), None, "{bad}");
        }
    }
}
