//! Envelopes to bytes and back.

use super::routing::ORG;
use bytes::Bytes;
use divan::{Bencher, black_box};
use hookswitch::{
    domain::{Clock, DedupeKey, Envelope, EventId, EventType, Source, Subject, SystemClock},
    queue::{decode, encode},
};
use serde_json::json;

/// An end-of-call report of 2 kB, as a receiver would have verified it.
pub fn report() -> Envelope {
    let call = "7420f27a-30fd-4f49-a995-5549ae7cc00d";
    let transcript = "The caller asks for an appointment next week. ".repeat(38);
    let body = json!({ "message": {
        "type": "end-of-call-report", "call": { "id": call, "assistantId": "bd38a607-499f-45b3-acf8-adf2a1085da2" },
        "customer": { "number": "+15552010188" }, "endedReason": "customer-ended-call",
        "artifact": { "transcript": transcript },
    } });
    let now = SystemClock.now();
    Envelope {
        id: EventId::generate(),
        source: Source::Vapi,
        event_type: EventType::new(Source::Vapi, "end-of-call-report"),
        time: now,
        received_at: now,
        subject: Subject(call.into()),
        org: Some(ORG),
        endpoint: None,
        secret: None,
        dedupe_key: DedupeKey([7; 16]),
        traceparent: None,
        content_type: "application/json".into(),
        path: "/webhooks/vapi".into(),
        query: "".into(),
        headers: vec![("user-agent".into(), "axios/1.7.2".into())],
        hops: 0,
        body: body.to_string().into(),
    }
}

#[divan::bench]
fn envelope_encode(bencher: Bencher) {
    let (report, mut into) = (report(), Vec::with_capacity(1 << 14));
    bencher.bench_local(move || {
        into.clear();
        encode(black_box(&report), &mut into);
        into.len()
    });
}

#[divan::bench]
fn envelope_decode(bencher: Bencher) {
    let mut bytes = Vec::new();
    encode(&report(), &mut bytes);
    let bytes = Bytes::from(bytes);
    bencher.bench(|| decode(black_box(&bytes)).expect("an envelope"));
}
