//! Paths, types, bodies, ids and signatures that are nearly right.

#![expect(clippy::format_collect, reason = "inputs read best as they are written")]

use super::{Then, refuses, with};
use crate::support::{
    app::{TestApp, ingress::settings},
    db::NOW,
    wire::request,
};

#[tokio::test]
async fn encodings_and_content_types_that_the_source_does_not_send_are_refused() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let content_type = "content-type: application/json\r\n";
    let mut cases = Vec::new();
    for encoding in ["gzip", "br", "zstd", "deflate", "identity, gzip"] {
        cases.push((
            encoding,
            with(
                &a,
                &[(content_type, &format!("{content_type}content-encoding: {encoding}\r\n"))],
            ),
            415,
            Then::Open,
        ));
    }
    for other in [
        "multipart/form-data; boundary=evil",
        "text/plain",
        "application/json; charset=utf-16",
        "application/x-www-form-urlencoded",
        "*/*",
    ] {
        cases.push((
            other,
            with(&a, &[(content_type, &format!("content-type: {other}\r\n"))]),
            415,
            Then::Open,
        ));
    }
    cases.push(("none", with(&a, &[(content_type, "")]), 415, Then::Open));
    refuses(&app, &a, &cases).await;
    let identity = with(
        &a,
        &[(
            content_type,
            "content-type: application/json; charset=UTF-8\r\ncontent-encoding: identity\r\n",
        )],
    );
    assert_eq!(app.exchange(&identity).await.status, 200);
}

#[tokio::test]
async fn paths_are_not_normalised_and_methods_are_not_reflected() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let path = |path: &str| with(&a, &[("POST /webhooks/vapi ", &format!("POST {path} "))]);
    let method = |method: &str| with(&a, &[("POST ", &format!("{method} "))]);
    let mut cases = Vec::new();
    for tricky in [
        "/webhooks//vapi",
        "/webhooks/twilio/../vapi",
        "/webhooks/%2e%2e/webhooks/vapi",
        "/webhooks/vapi%2F",
        "/webhooks/vapi/",
        "/webhooks/vapi;evil",
        "/Webhooks/vapi",
        "/webhooks/VAPI",
        "//evil/webhooks/vapi",
        "/webhooks/vapi/0190a6e2%2D5b4c-7c3a-9d11-2f5a6b7c8d9e",
        "/webhooks/resend",
        "/",
        "/healthz",
        "/metrics",
    ] {
        cases.push((tricky, path(tricky), 404, Then::Open));
    }
    for name in ["PUT", "GET", "TRACE", "DELETE", "OPTIONS", "PATCH", "EVIL"] {
        cases.push((name, method(name), 405, Then::Open));
    }
    refuses(&app, &a, &cases).await;
    assert_eq!(app.exchange(&method("PUT")).await.header("allow"), Some("POST"));
}

#[tokio::test]
async fn bodies_that_are_not_the_format_and_times_in_other_units_are_refused() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let bytes = |body: &[u8]| {
        request(
            "/webhooks/vapi",
            "application/json",
            &a.sign("/webhooks/vapi", body, NOW),
            body,
        )
    };
    let text = a.body();
    let deep = format!(r#"{{"message":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let cases = vec![
        ("empty", bytes(b""), 400, Then::Open),
        (
            "invalid UTF-8 in an id",
            bytes(
                &[
                    br#"{"message":{"type":"hang","call":{"assistantId":"asst-"#.as_slice(),
                    b"\xff",
                    br#""}}}"#,
                ]
                .concat(),
            ),
            400,
            Then::Open,
        ),
        (
            "trailing garbage",
            bytes(format!("{text}evil").as_bytes()),
            400,
            Then::Open,
        ),
        (
            "two documents",
            bytes(format!("{text}{text}").as_bytes()),
            400,
            Then::Open,
        ),
        (
            "NaN",
            bytes(text.replace("\"ringing\"", "NaN").as_bytes()),
            400,
            Then::Open,
        ),
        ("truncated", bytes(&text.as_bytes()[..text.len() - 1]), 400, Then::Open),
        (
            "100,000 arrays deep, and no type",
            bytes(deep.as_bytes()),
            400,
            Then::Open,
        ),
        (
            "an id twice",
            bytes(
                text.replace(r#""assistantId":"#, r#""assistantId":"asst-b","assistantId":"#)
                    .as_bytes(),
            ),
            400,
            Then::Open,
        ),
        (
            "an id twice, once escaped",
            bytes(
                text.replace(r#""assistantId":"#, r#""assistant\u0049d":"asst-b","assistantId":"#)
                    .as_bytes(),
            ),
            400,
            Then::Open,
        ),
        (
            "the message twice",
            bytes(text.replace(r#"{"message""#, r#"{"message":{},"message""#).as_bytes()),
            400,
            Then::Open,
        ),
        // In a field that is read; where nobody reads them they are taken (see below).
        (
            "half a surrogate pair",
            bytes(text.replace("status-update", "\\ud800").as_bytes()),
            400,
            Then::Open,
        ),
        ("a text", bytes(br#""evil""#), 400, Then::Open),
        ("no message", bytes(br#"{"evil":1}"#), 400, Then::Open),
        ("ids missing", bytes(br#"{"message":{"type":"hang"}}"#), 401, Then::Open),
        (
            "an id that is no text",
            bytes(text.replace(r#""asst-a""#, "9007199254740993").as_bytes()),
            400,
            Then::Open,
        ),
    ];
    // Whether an id of another shape is a wrong format or nobody's is the source's to say; it is
    // never taken.
    for (name, bytes, status, then) in cases {
        if name == "an id that is no text" {
            assert!(matches!(app.exchange(&bytes).await.status, 400 | 401), "{name}");
        } else {
            refuses(&app, &a, &[(name, bytes, status, then)]).await;
        }
    }
    let signed_at = |timestamp: &str| {
        let plain = a.sign("/webhooks/vapi", text.as_bytes(), NOW);
        let good = format!(
            "x-timestamp: {}\r\n",
            plain
                .iter()
                .find(|(name, _)| name == "x-timestamp")
                .unwrap()
                .1
                .to_str()
                .unwrap()
        );
        with(&a, &[(&good, &format!("x-timestamp: {timestamp}\r\n"))])
    };
    let cases: Vec<_> = [
        "",
        "+1800000000",
        "1800000000.0",
        "-1",
        "NaN",
        "2027-01-15T08:00:00Z",
        "9223372036854775808",
        "1800000000000000000",
    ]
    .into_iter()
    .map(|timestamp| (timestamp, signed_at(timestamp), 401, Then::Open))
    .collect();
    refuses(&app, &a, &cases).await;
}

#[tokio::test]
async fn authentic_bytes_that_nobody_reads_are_taken_untouched() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    for (n, odd) in [
        r#""\u0000""#,
        &deep,
        "-0",
        "9007199254740993",
        r#""cut within an emoji \ud83d""#,
        "1e400",
    ]
    .into_iter()
    .enumerate()
    {
        let unread = a
            .body()
            .replace(r#""message":{"#, &format!(r#""message":{{"unread":{odd},"#));
        assert_eq!(
            app.exchange(&a.request("/webhooks/vapi", &unread)).await.status,
            200,
            "{odd}"
        );
        assert_eq!(app.queue().events()[n].body, unread.as_bytes());
    }
}

#[tokio::test]
async fn signatures_in_undocumented_forms_are_refused() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let (name, good) = a
        .sign("/webhooks/vapi", a.body().as_bytes(), NOW)
        .into_iter()
        .find(|(name, _)| name == "x-signature")
        .unwrap();
    let good = good.to_str().unwrap();
    let line = format!("{name}: {good}\r\n");
    let forms = [
        String::new(),
        good[..good.len() - 1].to_owned(),
        good[..good.len() - 2].to_owned(),
        format!("{good}00"),
        format!("v1,{good}"),
        format!("{good},{good}"),
        "zz".repeat(32),
        "e".repeat(20 << 10),
        "\u{fffd}".to_owned(),
        "00".repeat(32),
    ];
    let cases: Vec<_> = forms
        .iter()
        .map(|form| {
            (
                &**form,
                with(&a, &[(&line, &format!("{name}: {form}\r\n"))]),
                401,
                Then::Open,
            )
        })
        .collect();
    refuses(&app, &a, &cases).await;
}

#[tokio::test]
async fn twilio_forms_that_were_changed_after_they_were_signed_are_refused() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let path = "/webhooks/twilio";
    let params = [
        ("MessageSid", "SM1"),
        ("From", "+15550001"),
        ("Body", "hi there"),
        ("SmsStatus", "received"),
    ];
    let good = a.twilio(path, &params);
    assert_eq!(app.exchange(&good).await.status, 200);
    let text = String::from_utf8(good.clone()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let changed = |path: &str, body: &str| {
        let head: String = head
            .lines()
            .map(|line| {
                if line.starts_with("content-length") {
                    format!("content-length: {}\r\n", body.len())
                } else {
                    format!("{line}\r\n")
                }
            })
            .collect();
        format!(
            "{}\r\n{body}",
            head.replacen(" /webhooks/twilio ", &format!(" {path} "), 1)
        )
        .into_bytes()
    };
    let many: String = (0..1_001).map(|n| format!("&p{n}=evil")).collect();
    let cases = vec![
        (
            "another query",
            changed("/webhooks/twilio?evil=1", body),
            401,
            Then::Open,
        ),
        (
            "one more parameter",
            changed(path, &format!("{body}&Extra=evil")),
            401,
            Then::Open,
        ),
        (
            "another text",
            changed(path, &body.replace("there", "evil")),
            401,
            Then::Open,
        ),
        (
            "bytes that are no text",
            changed(path, &format!("{body}&X=%FF%00")),
            401,
            Then::Open,
        ),
        (
            "1,001 parameters more",
            changed(path, &format!("{body}{many}")),
            400,
            Then::Open,
        ),
        ("empty", changed(path, ""), 400, Then::Open),
    ];
    refuses(&app, &a, &cases).await;
    // Twilio signs the sorted pairs: their order on the wire is nothing.
    let reordered = body.split('&').rev().collect::<Vec<_>>().join("&");
    assert_eq!(app.exchange(&changed(path, &reordered)).await.status, 200);
}

#[tokio::test]
async fn ids_are_compared_byte_for_byte() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let cases: Vec<_> = [
        "ASST-A",
        "asst-a ",
        " asst-a",
        "аsst-a",
        "asst\u{2010}a",
        "asst-a\u{200b}",
        "\u{202e}asst-a",
        "asst-\u{ff41}",
        "asst-a\\u0000",
        "",
    ]
    .into_iter()
    .map(|id| {
        (
            id,
            a.request("/webhooks/vapi", &a.body().replace("asst-a", id)),
            401,
            Then::Open,
        )
    })
    .collect();
    for (id, bytes, ..) in cases {
        let status = app.exchange(&bytes).await.status;
        assert!(matches!(status, 400 | 401), "{id:?}: {status}");
    }
    assert!(app.queue().events().is_empty());
    assert_eq!(
        app.exchange(&a.request("/webhooks/vapi", &a.body().replace("asst-a", "asst\\u002da")))
            .await
            .status,
        200,
        "the same id, escaped"
    );
}

#[tokio::test]
async fn a_refused_body_is_kept_as_one_masked_line() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let evil =
        r#"{"message":{"type":"x\u001b]0;","secret":"canary-secret","to":"+15552010188","mail":"ann@canary.example"}}"#
            .to_owned()
            + "\u{1b}]\r\n";
    app.exchange(&request(
        "/webhooks/vapi?token=canary-query",
        "application/json",
        &[],
        evil.as_bytes(),
    ))
    .await;
    app.exchange(&a.request("/webhooks/vapi", "not json my-secret=canary-secret\r\n\u{1b}[2J"))
        .await;
    for rejection in app.rejections(2).await {
        let shown = format!("{rejection:?}");
        assert!(
            !["canary", "15552010188", "\\r", "\\n", "\\u{1b}"]
                .iter()
                .any(|secret| rejection.head.contains(secret)),
            "{shown}"
        );
        assert!(
            !rejection.head.chars().any(char::is_control) && rejection.head.len() <= 1_024,
            "{shown}"
        );
    }
}
