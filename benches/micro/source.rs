//! Verification by scheme and size, and reading the ids of whole payloads.

use divan::{Bencher, black_box, counter::BytesCount};
use hookswitch::{
    domain::{SecretBytes, Source, Timestamp},
    source::{Plan, Request, SigningKey, read, sign},
};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

const URL: &str = "https://hooks.hookswitch.example/webhooks/x";
const SECRET: &str = "d6706284aac1f6c0f0b7922d46e9af3cac8bc74fbd4bff11";

fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

const HMAC_SHA1: &str = r#"{"type":"hmac","algorithm":"sha1"}"#;
const HMAC_SHA256: &str = r#"{"type":"hmac","algorithm":"sha256"}"#;
const HMAC_SHA512: &str = r#"{"type":"hmac","algorithm":"sha512"}"#;
const BEARER: &str = r#"{"type":"bearer"}"#;

#[divan::bench(args = [HMAC_SHA1, HMAC_SHA256, HMAC_SHA512, BEARER], consts = [2_000, 40_000])]
fn verify_vapi<const BYTES: usize>(bencher: Bencher<'_, '_>, plan: &str) {
    let plan: Plan = serde_json::from_str(plan).expect("a good plan");
    let Plan::Vapi(vapi) = &plan else { panic!("a Vapi plan") };
    let (secret, body) = (SecretBytes::from(SECRET.to_owned()), vec![b'x'; BYTES]);
    let headers: HeaderMap = sign::sign_vapi(vapi, &secret, now(), "POST", URL, &body)
        .expect("a good secret")
        .into_iter()
        .collect();
    let key = SigningKey::new(&plan, &secret).expect("a good secret");
    let request = Request {
        method: "POST",
        url: URL,
        headers: &headers,
        body: &body,
    };
    bencher
        .counter(BytesCount::new(BYTES))
        .bench(|| key.verify(black_box(&request), now()).expect("it was signed"));
}

#[divan::bench]
fn verify_twilio_sms(bencher: Bencher<'_, '_>) {
    let body = include_str!("../../tests/data/payloads/twilio/sms.inbound.form");
    let secret = SecretBytes::from("0fa54772703c5bf4938ad079a515af8b".to_owned());
    let headers: HeaderMap = sign::TwilioSigner::auth_token(&secret)
        .sign_form(URL, &sign::form_pairs(body))
        .into_iter()
        .collect();
    let key = SigningKey::new(
        &serde_json::from_str(r#"{"type":"auth_token"}"#).expect("a good plan"),
        &secret,
    )
    .expect("a good secret");
    let request = Request {
        method: "POST",
        url: URL,
        headers: &headers,
        body: body.as_bytes(),
    };
    bencher
        .counter(BytesCount::of_str(body))
        .bench(|| key.verify(black_box(&request), now()).expect("it was signed"));
}

const STATUS: &str = include_str!("../../tests/data/payloads/vapi/status-update.squad.json");
const TOOL_CALLS: &str = include_str!("../../tests/data/payloads/vapi/tool-calls.single.json");
const REPORT: &str = include_str!("../../tests/data/payloads/vapi/end-of-call-report.full.json");

#[divan::bench(args = ["status-update", "tool-calls", "end-of-call-report"])]
fn read_vapi(bencher: Bencher<'_, '_>, kind: &str) {
    let body = match kind {
        "status-update" => STATUS,
        "tool-calls" => TOOL_CALLS,
        _ => REPORT,
    };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let request = Request {
        method: "POST",
        url: URL,
        headers: &headers,
        body: body.as_bytes(),
    };
    bencher
        .counter(BytesCount::of_str(body))
        .bench(|| read(Source::Vapi, black_box(&request)).expect("a message"));
}

/// The other side of the ratio: `serde_json` over the same bytes, without and with a tree.
#[divan::bench]
fn read_report_by_serde_ignored(bencher: Bencher<'_, '_>) {
    bencher
        .counter(BytesCount::of_str(REPORT))
        .bench(|| serde_json::from_str::<serde::de::IgnoredAny>(black_box(REPORT)).is_ok());
}

#[divan::bench]
fn read_report_by_serde_tree(bencher: Bencher<'_, '_>) {
    bencher
        .counter(BytesCount::of_str(REPORT))
        .bench(|| serde_json::from_str::<serde_json::Value>(black_box(REPORT)).is_ok());
}

#[divan::bench]
fn read_twilio_sms(bencher: Bencher<'_, '_>) {
    let body = include_str!("../../tests/data/payloads/twilio/sms.inbound.form");
    let headers = HeaderMap::from_iter([(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    )]);
    let request = Request {
        method: "POST",
        url: URL,
        headers: &headers,
        body: body.as_bytes(),
    };
    bencher
        .counter(BytesCount::of_str(body))
        .bench(|| read(Source::Twilio, black_box(&request)).expect("a form"));
}
