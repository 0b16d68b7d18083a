//! `hookswitch verify`: verdicts, hints and faults as a person sees them.

use hookswitch::{
    cli::verify::{Format, report},
    domain::{ManualClock, SecretBytes, Source, Timestamp},
    source::sign::TwilioSigner,
};
use serde_json::{Value, json};

type Change = fn(&mut Value);

const NOW: i64 = 1_773_068_005;

fn run(source: Source, file: &Value, format: Format) -> (bool, String) {
    let mut out = Vec::new();
    let clock = ManualClock::at(Timestamp::from_seconds(NOW));
    let all_good = report(source, file.to_string().as_bytes(), format, &clock, &mut out).expect("a good file");
    (all_good, String::from_utf8(out).expect("text"))
}

fn lines(source: Source, file: &Value) -> Vec<Value> {
    run(source, file, Format::Json)
        .1
        .lines()
        .map(|line| serde_json::from_str(line).expect("one object a line"))
        .collect()
}

fn vectors(source: Source) -> Value {
    let path = format!("{}/tests/data/vectors/{source}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).expect("part of the checkout")).expect("JSON")
}

/// The case of a vectors file, changed.
fn vector(source: Source, name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut case = vectors(source)["cases"]
        .as_array()
        .expect("cases")
        .iter()
        .find(|case| case["name"] == name)
        .unwrap_or_else(|| panic!("no {name:?}"))
        .clone();
    case.as_object_mut().expect("an object").remove("expect");
    change(&mut case);
    case
}

fn hint(source: Source, name: &str, change: impl FnOnce(&mut Value)) -> String {
    let case = vector(source, name, change);
    let lines = lines(source, &case);
    assert_eq!(lines[0]["verdict"], "invalid", "{name}: {lines:?}");
    assert!(
        !lines[0]
            .to_string()
            .contains(case["secret"].as_str().expect("a secret")),
        "the secret is never printed"
    );
    lines[0]["hint"].as_str().unwrap_or("none").to_owned()
}

#[test]
fn all_vectors_are_as_expected_a_line_each() {
    for (source, count) in [(Source::Vapi, 20), (Source::Twilio, 53)] {
        let file = vectors(source);
        assert!(!run(source, &file, Format::Json).0, "some of the vectors are invalid");
        let lines = lines(source, &file);
        assert_eq!(lines.len(), count);
        for (line, case) in lines.iter().zip(file["cases"].as_array().expect("cases")) {
            let mut keys: Vec<_> = line
                .as_object()
                .expect("an object")
                .keys()
                .map(String::as_str)
                .collect();
            keys.sort_unstable();
            assert_eq!(keys, ["hint", "name", "reason", "verdict"]);
            assert_eq!((&line["name"], &line["verdict"]), (&case["name"], &case["expect"]));
            assert!(line["verdict"] == "invalid" || line["hint"].is_null(), "{line}");
        }
        let human = run(source, &file, Format::Human).1;
        assert_eq!(human.lines().count(), count);
        assert!(!human.contains("expected"), "{human}");
    }
}

#[test]
fn a_case_fails_where_it_is_invalid_or_not_as_expected() {
    let case = |name, expect: Option<&str>| vector(Source::Vapi, name, |case| case["expect"] = expect.into());
    for (file, all_good) in [
        (case("defaults", None), true),
        (case("defaults", Some("valid")), true),
        (case("defaults", Some("invalid")), false),
        (case("body changed", None), false),
        (case("body changed", Some("invalid")), false),
        (case("body changed", Some("valid")), false),
        (
            json!({"cases": [case("defaults", None), case("body changed", None)]}),
            false,
        ),
        (
            json!({"cases": [case("defaults", None), case("body changed", Some("invalid"))]}),
            false,
        ),
    ] {
        assert_eq!(run(Source::Vapi, &file, Format::Human).0, all_good, "{file}");
    }
    assert!(
        run(Source::Vapi, &case("defaults", Some("invalid")), Format::Human)
            .1
            .contains("(expected invalid)")
    );
}

#[test]
fn twilio_near_misses_are_named() {
    let twilio = |name, change: fn(&mut Value)| hint(Source::Twilio, name, change);
    let same = |_: &mut Value| ();
    for (name, said) in [
        ("http signed as https", "with https as the URL's scheme"),
        ("trailing slash", "without the trailing slash"),
        ("mixed-case path", "path in lower case"),
        ("different port", "none"),
        ("query reordered by a proxy", "query in another order"),
        ("signature in hex", "in base64, not in hex"),
        ("signature without padding", "with the padding"),
        ("sha256 without the settings header", "algorithm=HMAC_SHA256"),
        (
            "shared key header says sha256, signature is sha1",
            "algorithm=HMAC_SHA1",
        ),
        ("unknown algorithm", "algorithm=HMAC_SHA1"),
        ("parameter added", "without the parameter"),
        ("json body re-serialised", "JSON"),
        ("wrong auth token", "none"),
        ("value changed", "none"),
    ] {
        let hint = twilio(name, same);
        assert!(hint.contains(said), "{name}: {hint}");
    }
    assert!(
        twilio("inbound sms", |case| case["secret"] =
            format!("{} ", case["secret"].as_str().expect("text")).into())
        .contains("secret trimmed")
    );
    assert!(
        twilio("inbound sms", |case| case["headers"]["Content-Type"] =
            "application/json".into())
        .contains("content type of a form")
    );
    assert!(
        twilio("inbound sms", |case| case["url"] =
            "http://10.0.0.7/webhooks/twilio".into())
        .contains("none")
    );
}

/// Something on the way trimmed a value that Twilio signed with its blank.
#[test]
fn a_trimmed_parameter_is_named() {
    let hint = hint(Source::Twilio, "inbound sms", |case| {
        let token = SecretBytes::from(case["secret"].as_str().expect("text").to_owned());
        let url = case["url"].as_str().expect("text");
        let signed = TwilioSigner::auth_token(&token).sign_form(url, &[("AccountSid", "AC1"), ("Body", "yes ")]);
        case["headers"]["X-Twilio-Signature"] = signed[0].1.to_str().expect("ASCII").into();
        case["body"] = "AccountSid=AC1&Body=yes".into();
    });
    assert!(
        hint.contains("with a space at the end of the parameter \"Body\""),
        "{hint}"
    );
}

#[test]
fn a_host_seen_by_the_proxy_is_named() {
    let hint = hint(Source::Twilio, "inbound sms", |case| {
        case["url"] = "https://10.0.0.7/webhooks/twilio".into();
        case["headers"]["X-Forwarded-Host"] = "hooks.hookswitch.example".into();
    });
    assert!(
        hint.contains("x-forwarded-host") && hint.contains("HOOKSWITCH_PUBLIC_URL"),
        "{hint}"
    );
}

#[test]
fn vapi_near_misses_are_named() {
    let vapi = |name, change: fn(&mut Value)| hint(Source::Vapi, name, change);
    let cases: [(&str, Change, &str); 16] = [
        ("prefix missing", |_| (), "without signaturePrefix"),
        (
            "prefix",
            |case| case["plan"]["signaturePrefix"] = Value::Null,
            "\"sha256=\"",
        ),
        ("stale", |_| (), "600 s before `now`"),
        ("defaults", |case| case["now"] = 1_773_067_000.into(), "s after `now`"),
        (
            "defaults",
            |case| case["headers"]["x-timestamp"] = "1773068003000".into(),
            "timestamp as seconds",
        ),
        (
            "timestamp in milliseconds",
            |case| case["plan"] = json!({"type":"hmac","algorithm":"sha512"}),
            "algorithm \"sha256\"",
        ),
        (
            "defaults",
            |case| case["secret"] = format!("{}\n", case["secret"].as_str().expect("text")).into(),
            "secret trimmed",
        ),
        (
            "defaults",
            |case| case["body"] = format!("{}\n", case["body"].as_str().expect("text")).into(),
            "without the white space at the body's end",
        ),
        (
            "defaults",
            |case| case["body"] = case["body"].as_str().expect("text").replace(':', ": ").into(),
            "without white space",
        ),
        (
            "defaults",
            |case| {
                case["headers"]["x-signature"] = case["headers"]["x-signature"]
                    .as_str()
                    .expect("text")
                    .to_uppercase()
                    .into();
            },
            "in lower case",
        ),
        (
            "body only",
            |case| case["plan"] = json!({"type":"hmac","signatureHeader":"X-Vapi-Signature"}),
            "payloadFormat \"{body}\"",
        ),
        (
            "base64 secret",
            |case| case["plan"] = json!({"type":"hmac"}),
            "decoded from base64",
        ),
        (
            "sha512 base64",
            |case| case["plan"] = json!({"type":"hmac","algorithm":"sha512"}),
            "signatureEncoding \"base64\"",
        ),
        (
            "method and url",
            |case| case["url"] = "http://hooks.hookswitch.example/webhooks/vapi".into(),
            "with https",
        ),
        (
            "secret in the wrong header",
            |_| (),
            "headerName \"authorization\" and bearerPrefixEnabled true",
        ),
        ("wrong secret", |_| (), "none"),
    ];
    for (name, change, said) in cases {
        let hint = vapi(name, change);
        assert!(hint.contains(said), "{name}: expected {said:?} in {hint:?}");
    }
}

#[test]
fn bad_files_are_refused_by_field() {
    let good = vector(Source::Vapi, "defaults", |_| ());
    let with = |field: &str, value: Value| {
        let mut case = good.clone();
        case[field] = value;
        case
    };
    let without = |field: &str| {
        let mut case = good.clone();
        case.as_object_mut().expect("an object").remove(field);
        case
    };
    for (file, said) in [
        (json!([]), "expected an object"),
        (json!({"cases": 3}), "`cases`: expected an array"),
        (json!({"cases": []}), "`cases`: there is none"),
        (
            json!({"cases": [good, {"name": "second"}]}),
            "case 2 of `cases`, \"second\"",
        ),
        (without("headers"), "`headers` is missing"),
        (without("secret"), "`secret` is missing"),
        (with("secret", 5.into()), "`secret`: expected a text"),
        (with("body", json!({})), "`body`: expected a text"),
        (with("now", "yesterday".into()), "`now`: expected whole seconds"),
        (with("now", json!(1.5)), "`now`: expected whole seconds"),
        (with("expect", "maybe".into()), "`expect`: expected"),
        (
            with("headers", json!({"x y": "z"})),
            "`headers`: \"x y\" is not a header name",
        ),
        (with("headers", json!({"x": 3})), "`headers`: expected a text for \"x\""),
        (with("headers", json!({"x": "a\nb"})), "cannot stand in a header"),
        (
            with("plan", json!({"type": "magic"})),
            "`plan`: type: expected hmac or bearer",
        ),
        (
            with("plan", json!({"type": "hmac", "payloadFormat": "{x}"})),
            "`plan`: payloadFormat: unknown placeholder",
        ),
        (
            with("plan", json!({"type": "auth_token"})),
            "`plan`: it is one of twilio",
        ),
    ] {
        let error = report(
            Source::Vapi,
            file.to_string().as_bytes(),
            Format::Human,
            &ManualClock::default(),
            &mut Vec::new(),
        )
        .expect_err("a bad file");
        let chain = format!("{error:#}");
        assert!(chain.contains(said), "expected {said:?} in {chain:?}");
    }
    let error = report(
        Source::Vapi,
        b"{",
        Format::Human,
        &ManualClock::default(),
        &mut Vec::new(),
    )
    .expect_err("not JSON");
    assert!(format!("{error:#}").starts_with("not JSON"), "{error:#}");
    let error = report(
        Source::Resend,
        b"{}",
        Format::Human,
        &ManualClock::default(),
        &mut Vec::new(),
    )
    .expect_err("not served");
    assert!(error.to_string().contains("resend are not served"), "{error}");
    let error = report(
        Source::Twilio,
        json!({"headers":{},"secret":"x"}).to_string().as_bytes(),
        Format::Human,
        &ManualClock::default(),
        &mut Vec::new(),
    );
    assert!(error.expect_err("no URL").to_string().contains("`url` is missing"));
}

#[test]
fn a_repeated_header_is_seen_and_said() {
    let case = vector(Source::Twilio, "inbound sms", |case| {
        let good = case["headers"]["X-Twilio-Signature"].take();
        case["headers"]["X-Twilio-Signature"] = json!([good, "AAAA"]);
    });
    let line = &lines(Source::Twilio, &case)[0];
    assert_eq!(
        line["reason"],
        "the header that carries the signature occurs more than once"
    );
    assert!(
        line["hint"].as_str().expect("a hint").contains("one signature"),
        "{line}"
    );
}

#[test]
fn without_now_the_clock_judges() {
    let mut case = vector(Source::Vapi, "defaults", |_| ());
    case.as_object_mut().expect("an object").remove("now");
    assert!(run(Source::Vapi, &case, Format::Human).0);
    assert!(
        run(Source::Vapi, &case, Format::Human)
            .1
            .starts_with("defaults: valid: the signature matches")
    );
}
