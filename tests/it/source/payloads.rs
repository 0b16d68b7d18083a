//! The reading of every payload: kind, subject, routes, time and answer, against a table. Dedupe
//! keys in both directions (invariant 8).

use hookswitch::{
    domain::{DedupeKey, Source},
    source::{AnswerKind, NotTheFormat, Reading, Request, read},
};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use serde_json::Value;
use std::{collections::HashMap, fmt::Write as _, path::PathBuf};

type Change = fn(&mut Value);

const URL: &str = "https://hooks.hookswitch.example/webhooks/x";

fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/payloads")
        .join(path)
}

pub fn payload(path: &str) -> Vec<u8> {
    std::fs::read(data(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files of a source, by name.
pub fn payloads(source: Source) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(data(source.as_str()))
        .expect("the payloads are part of the checkout")
        .map(|entry| {
            entry
                .expect("a readable directory")
                .file_name()
                .into_string()
                .expect("an ASCII name")
        })
        .map(|name| {
            let body = payload(&format!("{source}/{name}"));
            (name, body)
        })
        .collect();
    files.sort();
    files
}

fn is_form(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| extension == "form")
}

pub fn try_reading(source: Source, name: &str, url: &str, body: &[u8]) -> Result<Reading, NotTheFormat> {
    let content_type = if is_form(name) {
        "application/x-www-form-urlencoded; charset=UTF-8"
    } else {
        "application/json"
    };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    read(
        source,
        &Request {
            method: "POST",
            url,
            headers: &headers,
            body,
        },
    )
}

fn reading(source: Source, name: &str, body: &[u8]) -> Reading {
    try_reading(source, name, URL, body).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn key(source: Source, name: &str, body: &[u8]) -> DedupeKey {
    reading(source, name, body).dedupe_key
}

/// A Vapi payload with some fields changed.
fn vapi(file: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(&payload(&format!("vapi/{file}.json"))).expect("payloads are JSON");
    change(&mut body["message"]);
    serde_json::to_vec(&body).expect("a value serialises")
}

fn vapi_key(body: &[u8]) -> DedupeKey {
    key(Source::Vapi, "x.json", body)
}

/// A Twilio form with a parameter set, or removed where the value is empty.
fn twilio(file: &str, name: &str, value: &str) -> Vec<u8> {
    let form = String::from_utf8(payload(&format!("twilio/{file}.form"))).expect("forms are ASCII");
    let mut pairs: Vec<String> = form
        .split('&')
        .filter(|pair| !pair.starts_with(&format!("{name}=")))
        .map(str::to_owned)
        .collect();
    if !value.is_empty() {
        pairs.push(format!("{name}={value}"));
    }
    pairs.join("&").into_bytes()
}

fn twilio_key(body: &[u8]) -> DedupeKey {
    key(Source::Twilio, "x.form", body)
}

#[test]
fn every_payload_is_read_as_the_table_says() {
    let mut table = String::new();
    for source in [Source::Vapi, Source::Twilio] {
        for (name, body) in payloads(source) {
            let Reading {
                event_type,
                routes,
                subject,
                time,
                answer,
                ..
            } = reading(source, &name, &body);
            let routes: Vec<_> = routes
                .iter()
                .map(|route| format!("{}={}", route.kind, route.value))
                .collect();
            let time = time.map_or("-".to_owned(), |time| time.as_micros().to_string());
            writeln!(
                table,
                "{source}/{name} | {event_type} | {} | {} | {time} | {answer:?}",
                subject.0,
                routes.join(" ")
            )
            .expect("a String takes it");
        }
    }
    let expected = String::from_utf8(payload("readings.txt")).expect("the table is text");
    assert!(
        table == expected,
        "tests/data/payloads/readings.txt should be:\n{table}"
    );
}

/// Files that stand for each other: one event delivered twice, one tool call in several shapes, or
/// one moment of one call in two messages. All other pairs are siblings.
const SAME: [&[&str]; 4] = [
    &[
        "vapi/status-update.ended.json",
        "vapi/status-update.ended-assistant-request-failed.json",
    ],
    &["vapi/status-update.in-progress.json", "vapi/status-update.squad.json"],
    &[
        "vapi/end-of-call-report.full.json",
        "vapi/end-of-call-report.full-observed-extras.json",
    ],
    &[
        "vapi/tool-calls.flat-arguments.json",
        "vapi/tool-calls.flat-parameters.json",
        "vapi/tool-calls.object-arguments.json",
    ],
];

/// Invariant 8.
#[test]
fn a_redelivery_is_equal_and_every_sibling_is_distinct() {
    let mut groups: HashMap<DedupeKey, Vec<String>> = HashMap::new();
    for source in [Source::Vapi, Source::Twilio] {
        for (name, body) in payloads(source) {
            assert_eq!(
                key(source, &name, &body),
                key(source, &name, &body.clone()),
                "{name} delivered again"
            );
            groups
                .entry(key(source, &name, &body))
                .or_default()
                .push(format!("{source}/{name}"));
        }
    }
    let mut shared: Vec<Vec<String>> = groups.into_values().filter(|files| files.len() > 1).collect();
    for files in &mut shared {
        files.sort();
    }
    shared.sort();
    let mut expected: Vec<Vec<String>> = SAME
        .iter()
        .map(|files| files.iter().map(ToString::to_string).collect())
        .collect();
    for files in &mut expected {
        files.sort();
    }
    expected.sort();
    assert_eq!(shared, expected);
}

/// Invariant 8.
#[test]
fn what_a_redelivery_may_change_has_no_part_in_a_vapi_key() {
    for (name, body) in payloads(Source::Vapi) {
        let file = name.trim_end_matches(".json");
        let again = vapi(file, |message| {
            if message["call"].is_object() {
                message["call"]["updatedAt"] = "2030-01-01T00:00:00.000Z".into();
            }
            message["artifact"]["recordingUrl"] = "https://storage.example/signed-anew".into();
        });
        assert_ne!(again, body);
        assert_eq!(vapi_key(&again), vapi_key(&vapi(file, |_| ())), "{name}");
    }
}

/// Invariant 8.
#[test]
fn vapi_once_a_call_are_four_kinds_and_no_others() {
    let later = |file| vapi(file, |message| message["timestamp"] = 1_799_999_999_999_u64.into());
    for file in [
        "end-of-call-report.full",
        "assistant-request",
        "call.deleted",
        "status-update.ended",
    ] {
        assert_eq!(
            vapi_key(&later(file)),
            vapi_key(&vapi(file, |_| ())),
            "{file} came twice for one call"
        );
        let other_call = vapi(file, |message| message["call"]["id"] = "another".into());
        assert_ne!(
            vapi_key(&other_call),
            vapi_key(&vapi(file, |_| ())),
            "{file} of another call"
        );
    }
    for file in [
        "transfer-destination-request",
        "handoff-destination-request",
        "status-update.in-progress",
        "hang",
        "transcript.final",
        "chat.created",
        "campaign.predial",
    ] {
        assert_ne!(
            vapi_key(&later(file)),
            vapi_key(&vapi(file, |_| ())),
            "a second {file} of one subject is an event of its own"
        );
    }
    // Tool calls are known by their ids, whatever the clock says.
    assert_eq!(
        vapi_key(&later("tool-calls.single")),
        vapi_key(&vapi("tool-calls.single", |_| ()))
    );
}

/// Invariant 8.
#[test]
fn vapi_siblings_of_one_moment_are_told_apart_by_their_own_fields() {
    let cases: [(&str, Change); 7] = [
        ("tool-calls.single", |message| {
            message["toolCallList"][0]["function"]["arguments"] = "{\"service\":\"other\"}".into();
        }),
        ("tool-calls.single", |message| {
            message["toolCallList"][0]["id"] = "call_2".into();
        }),
        ("handoff-destination-request", |message| {
            message["parameters"]["reason"] = "other".into();
        }),
        ("knowledge-base-request", |message| {
            message["messages"] = serde_json::json!([]);
        }),
        ("model-output.token", |message| message["output"] = "next".into()),
        ("speech-update.user-started", |message| {
            message["role"] = "assistant".into();
        }),
        ("status-update.ringing", |message| message["status"] = "queued".into()),
    ];
    for (file, change) in cases {
        assert_ne!(vapi_key(&vapi(file, change)), vapi_key(&vapi(file, |_| ())), "{file}");
    }
}

/// Invariant 8.
#[test]
fn a_vapi_key_with_an_absent_part_is_the_hash_of_the_body() {
    let cases: [(&str, Change); 4] = [
        ("end-of-call-report.full", |message| message["call"]["id"] = Value::Null),
        ("hang", |message| message["timestamp"] = Value::Null),
        ("tool-calls.single", |message| {
            message["toolCallList"][0]["id"] = Value::Null;
        }),
        ("assistant-request", |message| message["call"] = Value::Null),
    ];
    for (file, remove) in cases {
        let (without, with_more) = (
            vapi(file, remove),
            vapi(file, |message| {
                remove(message);
                message["unread"] = 1.into();
            }),
        );
        assert_eq!(vapi_key(&without), vapi_key(&without));
        assert_ne!(
            vapi_key(&without),
            vapi_key(&with_more),
            "{file}: any other byte is another event"
        );
    }
}

/// Invariant 8.
#[test]
fn twilio_siblings_are_distinct_and_redeliveries_equal() {
    for (file, name, value, distinct) in [
        ("voice.gather", "Digits", "3", true),
        ("voice.inbound", "CallStatus", "in-progress", true),
        ("voice.inbound", "Direction", "outbound-api", true),
        ("voice.inbound", "CallToken", "another", true),
        ("message-status.sent", "MessageStatus", "delivered", true),
        ("message-status.sent", "RawDlrDoneDate", "2603091507", false),
        ("sms.inbound", "Body", "again", false),
        ("call-status.2-in-progress", "SequenceNumber", "4", true),
        ("call-status.2-in-progress", "CallStatus", "ringing", true),
        ("call-status.2-in-progress", "CallDuration", "5", false),
        ("recording.completed", "RecordingStatus", "failed", true),
        ("recording.completed", "RecordingDuration", "54", false),
    ] {
        let (changed, original) = (
            twilio_key(&twilio(file, name, value)),
            twilio_key(&payload(&format!("twilio/{file}.form"))),
        );
        assert_eq!(changed != original, distinct, "{file} with {name}={value}");
    }
    // The order of the pairs is not the sender's word.
    for (name, body) in payloads(Source::Twilio).into_iter().filter(|(name, _)| is_form(name)) {
        let mut pairs: Vec<&[u8]> = body.split(|&b| b == b'&').collect();
        pairs.reverse();
        assert_eq!(
            twilio_key(&pairs.join(&b'&')),
            twilio_key(&body),
            "{name} in another order"
        );
    }
}

/// The signature covers names and values without anything between them, so these carry the
/// signature of the original.
#[test]
fn a_twilio_form_with_moved_boundaries_is_one_other_event_at_most() {
    let whole = String::from_utf8(payload("twilio/message-status.delivered.form")).expect("ASCII");
    // Twilio says SID and status twice, and the other name still tells the event; a sender that
    // says them once is the harder case.
    let once = whole.replace("SmsSid=SM5eed0000000000000000000000000a41&SmsStatus=delivered&", "");
    assert_ne!(once, whole);
    let moved = |form: &str| {
        let status_swallows_its_neighbour = form
            .replace(
                "MessageStatus=delivered&",
                "MessageStatus=deliveredMessagingServiceSidMG5eed0000000000000000000000000b01&",
            )
            .replace("&MessagingServiceSid=MG5eed0000000000000000000000000b01", "");
        let sid_swallows_its_neighbour = form
            .replace(
                "MessageSid=SM5eed0000000000000000000000000a41",
                "MessageSid=SM5eed0000000000000000000000000a41MessageStatusdelivered",
            )
            .replace("MessageStatus=delivered&", "");
        assert!(status_swallows_its_neighbour != *form && sid_swallows_its_neighbour != *form);
        [status_swallows_its_neighbour, sid_swallows_its_neighbour].map(|form| twilio_key(form.as_bytes()))
    };
    assert_eq!(moved(&whole)[0], twilio_key(whole.as_bytes()));
    let [status, sid] = moved(&once);
    assert_eq!(status, sid, "however it is cut, it is one text");
}

#[test]
fn twilio_voice_asks_several_urls_for_one_call() {
    let body = payload("twilio/voice.inbound.form");
    let at = |url: &str| {
        try_reading(Source::Twilio, "x.form", url, &body)
            .expect("a form")
            .dedupe_key
    };
    assert_eq!(
        at("https://a.example/webhooks/twilio?step=1"),
        at("https://a.example/webhooks/twilio?step=1")
    );
    assert_ne!(
        at("https://a.example/webhooks/twilio?step=1"),
        at("https://a.example/webhooks/twilio?step=2")
    );
    // A status is one event at whatever URL it arrives.
    let body = payload("twilio/message-status.sent.form");
    let at = |url: &str| {
        try_reading(Source::Twilio, "x.form", url, &body)
            .expect("a form")
            .dedupe_key
    };
    assert_eq!(
        at("https://a.example/webhooks/twilio"),
        at("https://a.example/webhooks/twilio?action=0190a6e2-5b4c-7c3a-9d11-2f5a6b7c8d9e")
    );
}

#[test]
fn twilio_idempotency_tokens_have_no_part_in_a_key() {
    let body = payload("twilio/sms.inbound.form");
    let with_token = |token: &'static str| {
        let headers = HeaderMap::from_iter([(
            "i-twilio-idempotency-token".parse().expect("a name"),
            HeaderValue::from_static(token),
        )]);
        read(
            Source::Twilio,
            &Request {
                method: "POST",
                url: URL,
                headers: &headers,
                body: &body,
            },
        )
        .expect("a form")
        .dedupe_key
    };
    assert_eq!(with_token("a"), with_token("b"));
}

#[test]
fn an_sms_conversation_is_one_subject_both_ways() {
    let inbound = reading(Source::Twilio, "x.form", &payload("twilio/sms.inbound.form"));
    let status = reading(Source::Twilio, "x.form", &payload("twilio/message-status.sent.form"));
    assert_eq!(inbound.subject, status.subject);
    assert_eq!(&*inbound.subject.0, "+15552010100:+15552010188");
    assert_eq!(
        inbound.routes, status.routes,
        "ours is `To` of what comes in and `From` of what goes out"
    );
}

/// Half a surrogate is no text (RFC 8259, section 8.2), and only the value that holds it is lost.
#[test]
fn half_a_surrogate_in_an_id_costs_the_id_and_not_the_event() {
    let body = br#"{"message":{"type":"hang","timestamp":1,"call":{"id":"\ud800"}}}"#;
    let reading = try_reading(Source::Vapi, "x.json", URL, body).expect("an event without a call id");
    assert_eq!(reading.event_type.to_string(), "vapi.hang");
    assert!(!reading.subject.0.contains('\u{fffd}'), "{:?}", reading.subject);
}

#[test]
fn what_is_not_the_format_is_refused_and_never_repeated() {
    let call = |fields: &str| format!(r#"{{"message":{{"type":"hang","timestamp":1,"call":{{{fields}}}}}}}"#);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("x.json", b"".to_vec()),
        ("x.json", b"[]".to_vec()),
        ("x.json", b"\"text\"".to_vec()),
        ("x.json", b"{}".to_vec()),
        ("x.json", br#"{"message":[]}"#.to_vec()),
        ("x.json", br#"{"message":{}}"#.to_vec()),
        ("x.json", br#"{"message":{"type":""}}"#.to_vec()),
        ("x.json", br#"{"message":{"type":"hang"}} {}"#.to_vec()),
        ("x.json", b"\xef\xbb\xbf{\"message\":{\"type\":\"hang\"}}".to_vec()),
        ("x.json", b"{\"message\":{\"type\":\"hang\",\"x\":\"\xff\"}}".to_vec()),
        ("x.json", call(r#""assistantId":"B","assistantId":"A""#).into_bytes()),
        (
            "x.json",
            call(r#""assistantId":"B","assistant\u0049d":"A""#).into_bytes(),
        ),
        ("x.json", call(r#""id":"a\u0000b""#).into_bytes()),
    ];
    for (name, body) in &cases {
        let refused = try_reading(Source::Vapi, name, URL, body).expect_err(&String::from_utf8_lossy(body));
        assert!(!refused.to_string().contains("assistantId"), "{refused}");
    }
    // A form of parameters that a person chose leads nowhere, and is a form all the same.
    let other = try_reading(Source::Twilio, "x.form", URL, b"a=b").expect("a form");
    assert_eq!((other.event_type.as_str(), other.routes.len()), ("twilio.other", 0));
    let cases: [(&str, Vec<u8>); 9] = [
        ("x.form", b"".to_vec()),
        ("x.form", b"AccountSid=AC1&AccountSid=AC2".to_vec()),
        ("x.form", b"AccountSid=AC1&Account%53id=AC2".to_vec()),
        ("x.form", b"AccountSid=%ff".to_vec()),
        ("x.form", b"AccountSid=A%00C".to_vec()),
        ("x.form", [b"AccountSid=AC1".to_vec(), b"&a=1".repeat(1000)].concat()),
        ("x.json", b"".to_vec()),
        ("x.json", b"[]".to_vec()),
        ("x.json", b"3".to_vec()),
    ];
    for (name, body) in &cases {
        assert!(
            try_reading(Source::Twilio, name, URL, body).is_err(),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    assert!(
        try_reading(
            Source::Twilio,
            "x.form",
            URL,
            &[b"AccountSid=AC1".to_vec(), b"&a=1".repeat(999)].concat()
        )
        .is_ok(),
        "1000 are not too many"
    );
    assert!(
        try_reading(Source::Resend, "x.json", URL, b"{}").is_err(),
        "a source that is not served"
    );
}

#[test]
fn ids_are_texts_and_numbers_keep_their_digits() {
    let body =
        br#"{"message":{"type":"hang","timestamp":1,"call":{"id":9007199254740993,"assistantId":9007199254740993}}}"#;
    let reading = reading(Source::Vapi, "x.json", body);
    assert_eq!(&*reading.subject.0, "9007199254740993");
    assert_eq!(&*reading.routes[0].value, "9007199254740993");
    let long = "x".repeat(129);
    let body = format!(r#"{{"message":{{"type":"hang","timestamp":1,"call":{{"id":"c","assistantId":"{long}"}}}}}}"#);
    assert!(
        self::reading(Source::Vapi, "x.json", body.as_bytes()).routes.is_empty(),
        "an id over the limit is nobody's"
    );
    assert_eq!(
        self::reading(Source::Vapi, "x.json", body.as_bytes()).answer,
        AnswerKind::VapiAck
    );
}
