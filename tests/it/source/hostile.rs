//! Signatures and timestamps that are nearly right. Only the documented forms
//! verify.

use hookswitch::{
    domain::{SecretBytes, Timestamp},
    source::{Plan, Refusal, Request, SigningKey, VapiPlan, sign},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const SECRET: &str = "d6706284aac1f6c0f0b7922d46e9af3cac8bc74fbd4bff11";
const NOW: i64 = 1_800_000_000;
const URL: &str = "https://a.example/webhooks/x";
const BODY: &[u8] = br#"{"message":{"type":"hang"}}"#;
const FORM: [(&str, &str); 2] = [("AccountSid", "AC1"), ("Body", "hi")];

fn now() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

fn plan(json: &str) -> Plan {
    serde_json::from_str(json).expect("a good plan")
}

fn secret() -> SecretBytes {
    SecretBytes::from(SECRET.to_owned())
}

fn verify(plan: &Plan, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), Refusal> {
    SigningKey::new(plan, &secret())?.verify(
        &Request {
            method: "POST",
            url: URL,
            headers,
            body,
        },
        now,
    )
}

fn vapi_headers(at: Timestamp) -> HeaderMap {
    sign::sign_vapi(&VapiPlan::default(), &secret(), at, "POST", URL, BODY)
        .expect("a good secret")
        .into_iter()
        .collect()
}

/// A signature over whatever text the timestamp header holds.
fn with_timestamp(text: &[u8]) -> HeaderMap {
    use hookswitch::source::{HmacAlgorithm, HmacKey};
    let signature = HmacKey::new(HmacAlgorithm::Sha256, SECRET.as_bytes()).sign([text, b".", BODY]);
    let mut headers = HeaderMap::new();
    headers.insert(
        "x-signature",
        HeaderValue::from_str(&hex::encode(signature.as_bytes())).expect("hex"),
    );
    headers.insert("x-timestamp", HeaderValue::from_bytes(text).expect("a header value"));
    headers
}

#[test]
fn timestamps_are_plain_seconds_or_milliseconds_within_the_window() {
    let hmac = plan(r#"{"type":"hmac"}"#);
    let judged = |text: &str| verify(&hmac, &with_timestamp(text.as_bytes()), BODY, now());
    for good in [
        "1800000000",
        "1799999700",
        "1800000300",
        "1800000000000",
        "1799999700000",
        "1800000300000",
    ] {
        assert_eq!(judged(good), Ok(()), "{good}");
    }
    for (text, refusal) in [
        ("1799999699", Refusal::TooOld),
        ("1799999699999", Refusal::TooOld),
        ("1800000301", Refusal::TooFarAhead),
        ("1800000300001", Refusal::TooFarAhead),
        ("1", Refusal::TooOld),
    ] {
        assert_eq!(judged(text), Err(refusal), "{text}");
    }
    for text in [
        "",
        "0",
        "-1800000000",
        "+1800000000",
        "1800000000.0",
        "1.8e9",
        "01800000000",
        "0x6b49d200",
        "1800000000 1",
        "1800000000000000",
        "1800000000000000000",
        "9223372036854775808",
        "99999999999999999999999999",
        "NaN",
        "2027-01-15T08:00:00Z",
        "١٨٠٠٠٠٠٠٠٠",
    ] {
        assert_eq!(judged(text), Err(Refusal::TimestampMalformed), "{text:?}");
    }
    // A request that does not verify never learns that it is too old.
    let mut forged = with_timestamp(b"1");
    forged.insert(
        "x-signature",
        HeaderValue::from_static("0000000000000000000000000000000000000000000000000000000000000000"),
    );
    assert_eq!(verify(&hmac, &forged, BODY, now()), Err(Refusal::SignatureMismatch));
    // The window is the plan's, inclusive on both ends.
    let minute = plan(r#"{"type":"hmac","replayWindowSeconds":60}"#);
    for (seconds, verdict) in [(60, Ok(())), (61, Err(Refusal::TooOld))] {
        assert_eq!(
            verify(
                &minute,
                &vapi_headers(now() - Duration::from_secs(seconds)),
                BODY,
                now()
            ),
            verdict
        );
    }
}

#[test]
fn a_timestamp_that_is_not_signed_is_not_judged() {
    let body_only = plan(r#"{"type":"hmac","payloadFormat":"{body}"}"#);
    let Plan::Vapi(vapi) = &body_only else {
        panic!("a Vapi plan")
    };
    let mut headers: HeaderMap = sign::sign_vapi(vapi, &secret(), now(), "POST", URL, BODY)
        .expect("a good secret")
        .into_iter()
        .collect();
    assert!(!headers.contains_key("x-timestamp"));
    assert_eq!(verify(&body_only, &headers, BODY, now()), Ok(()));
    headers.insert("x-timestamp", HeaderValue::from_static("1"));
    assert_eq!(
        verify(&body_only, &headers, BODY, now()),
        Ok(()),
        "whoever replays could set it anew: it says nothing"
    );
    assert!(!body_only.signs_time() && body_only.signs_body());
    assert!(plan(r#"{"type":"hmac"}"#).signs_time());
    assert!(!plan(r#"{"type":"bearer"}"#).signs_body());
}

#[test]
fn a_header_that_occurs_twice_is_refused_in_either_order() {
    let good = vapi_headers(now());
    let hmac = plan(r#"{"type":"hmac"}"#);
    for name in ["x-signature", "x-timestamp"] {
        for good_first in [true, false] {
            let mut headers = good.clone();
            let right = headers.remove(name).expect("signed");
            let wrong = HeaderValue::from_static("1");
            let (first, second) = if good_first { (right, wrong) } else { (wrong, right) };
            headers.append(HeaderName::from_static(name), first);
            headers.append(HeaderName::from_static(name), second);
            assert!(verify(&hmac, &headers, BODY, now()).is_err(), "{name}");
        }
    }
    let mut twice: HeaderMap = HeaderMap::new();
    for _ in 0..2 {
        twice.append("x-twilio-signature", sign::sign_twilio(&secret(), URL, &[]));
    }
    assert_eq!(
        verify(&plan(r#"{"type":"auth_token"}"#), &twice, b"", now()),
        Err(Refusal::SignatureRepeated)
    );
    let mut bearer = HeaderMap::new();
    for _ in 0..2 {
        bearer.append(
            "authorization",
            HeaderValue::from_str(&format!("Bearer {SECRET}")).expect("ASCII"),
        );
    }
    assert_eq!(
        verify(&plan(r#"{"type":"bearer"}"#), &bearer, BODY, now()),
        Err(Refusal::SignatureRepeated)
    );
}

#[test]
fn only_the_documented_form_of_a_signature_verifies() {
    let hmac = plan(r#"{"type":"hmac"}"#);
    let good = vapi_headers(now())["x-signature"].to_str().expect("ASCII").to_owned();
    let with = |value: Vec<u8>| {
        let mut headers = vapi_headers(now());
        headers.insert("x-signature", HeaderValue::from_bytes(&value).expect("a header value"));
        verify(&hmac, &headers, BODY, now())
    };
    assert_eq!(with(good.clone().into_bytes()), Ok(()));
    let variants: Vec<Vec<u8>> = vec![
        Vec::new(),
        good.to_uppercase().into_bytes(),
        format!("sha256={good}").into_bytes(),
        format!(" {good}").into_bytes(),
        format!("{good} ").into_bytes(),
        format!("{good},{good}").into_bytes(),
        good.as_bytes()[..63].to_vec(),
        good.as_bytes()[..62].to_vec(),
        format!("{good}00").into_bytes(),
        good.replace(|c: char| c.is_ascii_digit(), "g").into_bytes(),
        vec![0xff; 64],
        vec![b'a'; 1 << 20],
    ];
    for value in variants {
        assert_eq!(
            with(value.clone()),
            Err(Refusal::SignatureMalformed),
            "{}",
            String::from_utf8_lossy(&value[..value.len().min(80)])
        );
    }

    let token = plan(r#"{"type":"auth_token"}"#);
    let form = sign::form_body(&FORM);
    let good = sign::TwilioSigner::auth_token(&secret()).sign_form(URL, &FORM)[0]
        .1
        .to_str()
        .expect("ASCII")
        .to_owned();
    let with = |value: &str| {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-twilio-signature"),
            HeaderValue::from_str(value).expect("ASCII"),
        )]);
        verify(&token, &headers, form.as_bytes(), now())
    };
    assert_eq!(with(&good), Ok(()));
    let url_safe = good.replace('+', "-").replace('/', "_");
    for value in [
        "",
        "=",
        good.trim_end_matches('='),
        &format!("{good}="),
        &format!("{good}===="),
        &good[..24],
        &format!(" {good}"),
        &"A".repeat(1 << 20),
    ] {
        assert!(with(value).is_err() || value == good, "{value:.40}");
    }
    assert!(url_safe == good || with(&url_safe).is_err());
}

#[test]
fn an_empty_or_short_secret_never_verifies() {
    for (json, short) in [
        (r#"{"type":"hmac"}"#, "fifteen bytes.."),
        (r#"{"type":"bearer"}"#, "fifteen bytes.."),
        (r#"{"type":"auth_token"}"#, "12345"),
        // Twenty characters, but fifteen bytes of key.
        (r#"{"type":"hmac","secretIsBase64":true}"#, "Zmlmdee54ABieXRlcy4u"),
        (r#"{"type":"hmac"}"#, ""),
    ] {
        let refused = SigningKey::new(&plan(json), &SecretBytes::from(short.to_owned())).expect_err("a short secret");
        assert_eq!(refused, Refusal::SecretTooShort, "{json}");
    }
    assert!(
        SigningKey::new(
            &plan(r#"{"type":"hmac"}"#),
            &SecretBytes::from("sixteen bytes...".to_owned())
        )
        .is_ok()
    );
    for json in [r#"{"type":"hmac"}"#, r#"{"type":"bearer"}"#, r#"{"type":"auth_token"}"#] {
        assert!(
            SigningKey::for_diagnosis(&plan(json), &SecretBytes::from(String::new())).is_err(),
            "no key of nothing, not even to explain"
        );
    }
    let not_base64 = SigningKey::new(
        &plan(r#"{"type":"hmac","secretIsBase64":true}"#),
        &SecretBytes::from("not base64, surely".to_owned()),
    );
    assert_eq!(not_base64.expect_err("not base64"), Refusal::SecretMalformed);
}

#[test]
fn a_shared_key_verifies_only_what_names_it() {
    let shared = |id: &str| plan(&format!(r#"{{"type":"shared_key","key":"{id}"}}"#));
    let form = sign::form_body(&FORM);
    let signed = |id: &str| -> HeaderMap {
        sign::TwilioSigner::shared_key(id, &secret(), hookswitch::source::HmacAlgorithm::Sha256)
            .expect("a good id")
            .sign_form(URL, &FORM)
            .into_iter()
            .collect()
    };
    assert_eq!(
        verify(
            &shared("webhooks_sharedkey_a"),
            &signed("webhooks_sharedkey_a"),
            form.as_bytes(),
            now()
        ),
        Ok(())
    );
    assert_eq!(
        verify(
            &shared("webhooks_sharedkey_a"),
            &signed("webhooks_sharedkey_b"),
            form.as_bytes(),
            now()
        ),
        Err(Refusal::OtherKey)
    );
    let by_token: HeaderMap = sign::TwilioSigner::auth_token(&secret())
        .sign_form(URL, &FORM)
        .into_iter()
        .collect();
    assert_eq!(
        verify(&shared("webhooks_sharedkey_a"), &by_token, form.as_bytes(), now()),
        Err(Refusal::OtherKey)
    );
}

#[test]
fn a_request_that_twilio_did_not_sign_is_refused() {
    let token = plan(r#"{"type":"auth_token"}"#);
    let headers: HeaderMap = sign::TwilioSigner::auth_token(&secret())
        .sign_form(URL, &FORM)
        .into_iter()
        .collect();
    let key = SigningKey::new(&token, &secret()).expect("a good secret");
    let request = |method, url, body| Request {
        method,
        url,
        headers: &headers,
        body,
    };
    let good = sign::form_body(&FORM).into_bytes();
    assert_eq!(key.verify(&request("POST", URL, &good), now()), Ok(()));
    for (method, url, body) in [
        ("POST", URL, b"AccountSid=AC1&Body=hi&x=%00".as_slice()),
        ("POST", URL, b"AccountSid=AC1&Body=hi%FF"),
        ("POST", URL, b"AccountSid=AC1"),
        ("POST", "https://a.example/webhooks/x?y=1", &good),
        ("GET", URL, &good),
        ("PUT", URL, &good),
    ] {
        assert!(
            key.verify(&request(method, url, body), now()).is_err(),
            "{method} {url} {}",
            String::from_utf8_lossy(body)
        );
    }
    let many = b"a=1&".repeat(10_000);
    assert!(key.verify(&request("POST", URL, &many), now()).is_err());
    // A signed URL does not cover the body beside it.
    let url_signed: HeaderMap = sign::TwilioSigner::auth_token(&secret())
        .sign_form::<&str, &str>(URL, &[])
        .into_iter()
        .collect();
    for (method, content_type) in [("GET", "text/plain"), ("POST", "application/json")] {
        let mut headers = url_signed.clone();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        assert_eq!(
            key.verify(
                &Request {
                    method,
                    url: URL,
                    headers: &headers,
                    body: b"{}"
                },
                now()
            ),
            Err(Refusal::BodyHashMismatch),
            "{method}"
        );
    }
}
