//! Hostile and broken input at ingress: bytes in, a status and the connection's state out, nothing
//! published. Names begin with the number of the entry in the list of hostile inputs that they work
//! through.

#![expect(clippy::format_collect, reason = "inputs read best as they are written")]

use crate::support::{
    db::NOW,
    ingress::{Answer, Ingress, Tenant, Wire, request, settings},
};
use hookswitch::config::ReceiverSettings;
use std::time::{Duration, Instant};

/// What becomes of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Closed,
    Open,
}

/// Sends each input on a connection of its own: the status, then whether a good request on the same
/// connection still gets an answer; at the end nothing was published but those, and a fresh
/// connection works.
async fn refuses(ingress: &Ingress, tenant: &Tenant, cases: &[(&str, Vec<u8>, u16, Then)]) {
    let good = tenant.request("/webhooks/vapi", &tenant.body());
    let before = ingress.queue.events().len();
    let mut taken = 0;
    for (name, bytes, status, then) in cases {
        let mut wire = ingress.connect().await;
        wire.send(bytes).await;
        let answer = wire
            .answer()
            .await
            .unwrap_or_else(|| panic!("{name}: closed without an answer"));
        assert_eq!(answer.status, *status, "{name}: {}", answer.head);
        echoes_nothing(name, &answer);
        wire.send(&good).await;
        let next = wire.answer().await;
        match then {
            Then::Open => {
                assert_eq!(
                    next.map(|answer| answer.status),
                    Some(200),
                    "{name}: the connection goes on"
                );
                taken += 1;
            }
            Then::Closed => assert_eq!(
                next.map(|answer| answer.status),
                None,
                "{name}: the connection is closed"
            ),
        }
        assert_eq!(
            ingress.queue.events().len(),
            before + taken,
            "{name}: nothing is published"
        );
    }
    assert_eq!(ingress.exchange(&good).await.status, 200, "a fresh connection works");
}

fn echoes_nothing(name: &str, answer: &Answer) {
    assert!(
        !answer.head.contains("evil") && !String::from_utf8_lossy(&answer.body).contains("evil"),
        "{name}: echoes the request"
    );
}

/// A signed, good request, with lines of its head replaced.
fn with(tenant: &Tenant, replace: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::from_utf8(tenant.request("/webhooks/vapi", &tenant.body())).unwrap();
    for (from, to) in replace {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    text.into_bytes()
}

fn length_line(tenant: &Tenant) -> String {
    format!("content-length: {}\r\n", tenant.body().len())
}

#[tokio::test]
async fn c1_c2_lengths_and_chunks_that_two_parsers_could_read_differently() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    let length = length_line(&a);
    let line = |with: &str| vec![(length.clone(), with.to_owned())];
    let head = |replace: &[(String, String)]| {
        with(
            &a,
            &replace.iter().map(|(from, to)| (&**from, &**to)).collect::<Vec<_>>(),
        )
    };
    let n = a.body().len();
    let chunked = |size: &str| {
        let bytes = head(&line("transfer-encoding: chunked\r\n"));
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        format!("{head}\r\n\r\n{size}\r\n{body}\r\n0\r\n\r\n").into_bytes()
    };
    let cases = vec![
        (
            "two lengths",
            head(&line(&format!("content-length: {n}\r\ncontent-length: {}\r\n", n + 1))),
            400,
            Then::Closed,
        ),
        (
            "a list of lengths",
            head(&line(&format!("content-length: {n}, {}\r\n", n + 1))),
            400,
            Then::Closed,
        ),
        (
            "a length with a sign",
            head(&line(&format!("content-length: +{n}\r\n"))),
            400,
            Then::Closed,
        ),
        (
            "a length in hex",
            head(&line("content-length: 0x5\r\n")),
            400,
            Then::Closed,
        ),
        (
            "a negative length",
            head(&line("content-length: -1\r\n")),
            400,
            Then::Closed,
        ),
        (
            "a length of 2^64",
            head(&line("content-length: 18446744073709551616\r\n")),
            400,
            Then::Closed,
        ),
        (
            "xchunked",
            head(&line("transfer-encoding: xchunked\r\n")),
            400,
            Then::Closed,
        ),
        (
            "chunked is not last",
            head(&line("transfer-encoding: chunked, identity\r\n")),
            400,
            Then::Closed,
        ),
        ("a chunk of 2^68", chunked("FFFFFFFFFFFFFFFFF"), 400, Then::Closed),
        ("a chunk size that is none", chunked("evil"), 400, Then::Closed),
        (
            "a chunk extension of 64 KiB",
            chunked(&format!("{n:x};{}", "e".repeat(64 << 10))),
            400,
            Then::Closed,
        ),
        ("not HTTP", b"evil\r\n\r\n".to_vec(), 400, Then::Closed),
        (
            "a NUL in a header",
            head(&line(&format!("{length}x: a\0evil\r\n"))),
            400,
            Then::Closed,
        ),
        (
            "a folded header",
            head(&line(&format!("{length}x: a\r\n evil\r\n"))),
            400,
            Then::Closed,
        ),
        (
            "a lone CR in a header",
            head(&line(&format!("{length}x: a\revil\r\n"))),
            400,
            Then::Closed,
        ),
        (
            "a space before the colon",
            head(&line(&format!("{length}x : evil\r\n"))),
            400,
            Then::Closed,
        ),
    ];
    refuses(&ingress, &a, &cases).await;
    // A client that speaks HTTP/2 only could not read an answer.
    let mut wire = ingress.connect().await;
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn c1_a_request_smuggled_behind_two_lengths_reaches_no_handler() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    let smuggled = String::from_utf8(a.request("/webhooks/vapi", &a.body())).unwrap();
    for both in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let mut wire = ingress.connect().await;
        let outer = format!(
            "POST /webhooks/vapi HTTP/1.1\r\nhost: test\r\ncontent-type: \
            application/json\r\n{both}\r\n0\r\n\r\n{smuggled}"
        );
        wire.send(outer.as_bytes()).await;
        // Refused at once, or read by its chunks alone, which is an empty body; in both cases the
        // connection ends there.
        assert_eq!(wire.answer().await.map(|answer| answer.status), Some(400), "{both}");
        assert!(wire.is_closed().await, "{both}");
        assert!(ingress.queue.events().is_empty(), "{both}");
    }
}

#[tokio::test]
async fn c2_chunks_are_a_body_and_trailers_are_no_headers() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    let body = a.body();
    let signed = a.sign("/webhooks/vapi", body.as_bytes(), NOW);
    let lines = |headers: &[(http::HeaderName, http::HeaderValue)]| {
        headers
            .iter()
            .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
            .collect::<String>()
    };
    let head = "POST /webhooks/vapi HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ntransfer-encoding: \
        chunked\r\n";
    let chunks: String = body
        .as_bytes()
        .chunks(7)
        .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()))
        .collect();
    let good = format!("{head}{}\r\n{chunks}0\r\n\r\n", lines(&signed));
    assert_eq!(ingress.exchange(good.as_bytes()).await.status, 200);
    let trailed = format!(
        "{head}trailer: x-signature, x-timestamp\r\n\r\n{chunks}0\r\n{}\r\n",
        lines(&signed)
    );
    assert_eq!(ingress.exchange(trailed.as_bytes()).await.status, 401);
    assert_eq!(ingress.queue.events().len(), 1);
}

#[tokio::test]
async fn c3_a_header_that_may_occur_once_occurs_once() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    let body = a.body();
    let mut cases = Vec::new();
    for (name, value) in a.sign("/webhooks/vapi", body.as_bytes(), NOW) {
        let good = format!("{name}: {}\r\n", value.to_str().unwrap());
        cases.push((
            "good first",
            with(&a, &[(&good, &format!("{good}{name}: evil\r\n"))]),
            401,
            Then::Open,
        ));
        cases.push((
            "good last",
            with(&a, &[(&good, &format!("{name}: evil\r\n{good}"))]),
            401,
            Then::Open,
        ));
        cases.push((
            "twice the same",
            with(&a, &[(&good, &format!("{good}{good}"))]),
            401,
            Then::Open,
        ));
    }
    for name in ["host: test\r\n", "content-type: application/json\r\n"] {
        cases.push(("twice", with(&a, &[(name, &format!("{name}{name}"))]), 400, Then::Open));
    }
    cases.push(("no host", with(&a, &[("host: test\r\n", "")]), 400, Then::Open));
    // The body was not read where the head refused it; hyper reads a short one away and goes on.
    refuses(&ingress, &a, &cases).await;
}

#[tokio::test]
async fn c4_heads_over_their_limits() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    let length = length_line(&a);
    let more = |count: usize, bytes: usize| {
        let lines: String = (0..count)
            .map(|n| format!("x-{n}: {}\r\n", "e".repeat(bytes)))
            .collect();
        with(&a, &[(&length, &format!("{length}{lines}"))])
    };
    let long = |bytes: usize| {
        with(
            &a,
            &[("/webhooks/vapi", &format!("/webhooks/vapi?{}", "e".repeat(bytes)))],
        )
    };
    let cases = [
        ("200 headers", more(200, 1), 431, Then::Closed),
        ("a header of 64 KiB", more(1, 64 << 10), 431, Then::Closed),
        ("a path of 10 KiB", long(10 << 10), 414, Then::Open),
        ("a path of 70 KiB", long(70 << 10), 431, Then::Closed),
        (
            "a path of one over the limit",
            long(4096 - "/webhooks/vapi?".len() + 1),
            414,
            Then::Open,
        ),
        (
            "a path at the limit, signed for another",
            long(4096 - "/webhooks/vapi?".len()),
            200,
            Then::Open,
        ),
    ];
    // The default plan does not sign the URL: the last one is good, and shows where the limit is.
    let (last, refused) = cases.split_last().unwrap();
    refuses(&ingress, &a, refused).await;
    assert_eq!(ingress.exchange(&last.1).await.status, last.2, "{}", last.0);
}

fn small() -> ReceiverSettings {
    ReceiverSettings {
        body_bytes_max: 1_000,
        ..settings()
    }
}

#[tokio::test]
async fn c5_bodies_at_the_limit_and_one_over_it() {
    let (ingress, [a, _]) = Ingress::start(small()).await;
    let body = |bytes: usize| {
        let body = a.body();
        format!("{body}{}", " ".repeat(bytes - body.len()))
    };
    assert_eq!(
        ingress
            .exchange(&a.request("/webhooks/vapi", &body(1_000)))
            .await
            .status,
        200,
        "at the limit"
    );
    let chunked = |bytes: usize| {
        let body = body(bytes);
        let text = String::from_utf8(a.request("/webhooks/vapi", &body)).unwrap();
        let head = text
            .split_once("\r\n\r\n")
            .unwrap()
            .0
            .replace(&format!("content-length: {bytes}"), "transfer-encoding: chunked");
        format!("{head}\r\n\r\n{bytes:x}\r\n{body}\r\n0\r\n\r\n").into_bytes()
    };
    assert_eq!(
        ingress.exchange(&chunked(1_000)).await.status,
        200,
        "at the limit, in chunks"
    );
    let huge = with(&a, &[(&length_line(&a), "content-length: 1000000000\r\n")]);
    let expecting = with(
        &a,
        &[(
            &length_line(&a),
            "content-length: 1000000000\r\nexpect: 100-continue\r\n",
        )],
    );
    let expecting_head = expecting.split(|byte| *byte == b'{').next().unwrap().to_vec();
    let cases = vec![
        (
            "one over it",
            a.request("/webhooks/vapi", &body(1_001)),
            413,
            Then::Closed,
        ),
        ("one over it, in chunks", chunked(1_001), 413, Then::Closed),
        ("10^9 announced, little sent", huge, 413, Then::Closed),
        ("expects to be told to go on", expecting_head, 413, Then::Closed),
    ];
    refuses(&ingress, &a, &cases).await;
}

#[tokio::test]
async fn c5_a_chunked_body_without_end_is_cut_at_the_limit() {
    let (ingress, [a, _]) = Ingress::start(small()).await;
    let text = String::from_utf8(with(&a, &[(&length_line(&a), "transfer-encoding: chunked\r\n")])).unwrap();
    let mut wire = ingress.connect().await;
    wire.send(format!("{}\r\n\r\n", text.split_once("\r\n\r\n").unwrap().0).as_bytes())
        .await;
    let chunk = [b"10\r\n".as_slice(), &[b' '; 16], b"\r\n"].concat();
    for _ in 0..63 {
        wire.send(&chunk).await;
    }
    assert_eq!(
        wire.answer().await.map(|answer| answer.status),
        Some(413),
        "at 1,008 of 1,000 bytes, and the body goes on"
    );
    wire.send(&chunk.repeat(1_000)).await;
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn c5_expecting_senders_are_told_to_go_on() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    let length = length_line(&a);
    let bytes = with(&a, &[(&length, &format!("{length}expect: 100-continue\r\n"))]);
    let head = bytes.len() - a.body().len();
    let mut wire = ingress.connect().await;
    wire.send(&bytes[..head]).await;
    assert_eq!(wire.answer().await.map(|answer| answer.status), Some(100));
    wire.send(&bytes[head..]).await;
    assert_eq!(wire.answer().await.map(|answer| answer.status), Some(200));
}

#[tokio::test]
async fn c6_c20_encodings_and_content_types_that_the_source_does_not_send() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
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
    refuses(&ingress, &a, &cases).await;
    let identity = with(
        &a,
        &[(
            content_type,
            "content-type: application/json; charset=UTF-8\r\ncontent-encoding: identity\r\n",
        )],
    );
    assert_eq!(ingress.exchange(&identity).await.status, 200);
}

#[tokio::test]
async fn c7_pipelined_requests_are_answered_in_order_and_only_the_bad_one_is_refused() {
    let (ingress, [a, b]) = Ingress::start(settings()).await;
    let good = a.request("/webhooks/vapi", &a.body());
    let bad = request(
        "/webhooks/vapi",
        "application/json",
        &b.sign("/webhooks/vapi", a.body().as_bytes(), NOW),
        a.body().as_bytes(),
    );
    let mut wire = ingress.connect().await;
    let all: Vec<u8> = (0..50)
        .flat_map(|n| if n == 25 { bad.clone() } else { good.clone() })
        .collect();
    wire.send(&all).await;
    for n in 0..50 {
        assert_eq!(
            wire.answer().await.map(|answer| answer.status),
            Some(if n == 25 { 401 } else { 200 }),
            "request {n}"
        );
    }
    assert_eq!(ingress.queue.events().len(), 49);
}

#[tokio::test]
async fn c8_c9_paths_are_not_normalised_and_methods_are_not_reflected() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
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
        "http://evil/webhooks/vapi",
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
    refuses(&ingress, &a, &cases).await;
    assert_eq!(ingress.exchange(&method("PUT")).await.header("allow"), Some("POST"));
}

#[tokio::test]
async fn c10_to_c13_bodies_that_are_not_the_format_and_times_in_other_units() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
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
            assert!(matches!(ingress.exchange(&bytes).await.status, 400 | 401), "{name}");
        } else {
            refuses(&ingress, &a, &[(name, bytes, status, then)]).await;
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
    refuses(&ingress, &a, &cases).await;
}

#[tokio::test]
async fn c10_authentic_bytes_that_nobody_reads_are_taken_untouched() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
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
            ingress.exchange(&a.request("/webhooks/vapi", &unread)).await.status,
            200,
            "{odd}"
        );
        assert_eq!(ingress.queue.events()[n].body, unread.as_bytes());
    }
}

#[tokio::test]
async fn c11_huge_bodies_cost_bounded_time() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    let keys: String = (0..60_000).map(|n| format!(r#""k{n}":{n},"#)).collect();
    for body in [
        a.body().replace(r#""message":{"#, r#""message":{"n":1e400,"#),
        a.body().replace(r#""message":{"#, &format!(r#""message":{{{keys}"#)),
        a.body().replace(
            r#""message":{"#,
            &format!(r#""message":{{"s":"{}","#, "e".repeat(900_000)),
        ),
        a.body().replace(
            r#""message":{"#,
            &format!(r#""message":{{"n":{},"#, "9".repeat(900_000)),
        ),
    ] {
        let begun = Instant::now();
        let answer = ingress.exchange(&a.request("/webhooks/vapi", &body)).await;
        assert!(matches!(answer.status, 200 | 400), "{}", answer.status);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?} for {} bytes in a debug build",
            begun.elapsed(),
            body.len()
        );
    }
}

#[tokio::test]
async fn c14_signatures_in_other_forms() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
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
    refuses(&ingress, &a, &cases).await;
}

#[tokio::test]
async fn c17_twilio_forms_that_were_changed_after_they_were_signed() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    let path = "/webhooks/twilio";
    let params = [
        ("MessageSid", "SM1"),
        ("From", "+15550001"),
        ("Body", "hi there"),
        ("SmsStatus", "received"),
    ];
    let good = a.twilio(path, &params);
    assert_eq!(ingress.exchange(&good).await.status, 200);
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
    refuses(&ingress, &a, &cases).await;
    // Twilio signs the sorted pairs: their order on the wire is nothing.
    let reordered = body.split('&').rev().collect::<Vec<_>>().join("&");
    assert_eq!(ingress.exchange(&changed(path, &reordered)).await.status, 200);
}

#[tokio::test]
async fn c18_ids_are_compared_byte_for_byte() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
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
        let status = ingress.exchange(&bytes).await.status;
        assert!(matches!(status, 400 | 401), "{id:?}: {status}");
    }
    assert!(ingress.queue.events().is_empty());
    assert_eq!(
        ingress
            .exchange(&a.request("/webhooks/vapi", &a.body().replace("asst-a", "asst\\u002da")))
            .await
            .status,
        200,
        "the same id, escaped"
    );
}

#[tokio::test]
async fn c38_what_a_stranger_writes_is_kept_as_one_masked_line() {
    let (ingress, [a, _]) = Ingress::start(settings()).await;
    let evil =
        r#"{"message":{"type":"x\u001b]0;","secret":"canary-secret","to":"+15552010188","mail":"ann@canary.example"}}"#
            .to_owned()
            + "\u{1b}]\r\n";
    ingress
        .exchange(&request(
            "/webhooks/vapi?token=canary-query",
            "application/json",
            &[],
            evil.as_bytes(),
        ))
        .await;
    ingress
        .exchange(&a.request("/webhooks/vapi", "not json my-secret=canary-secret\r\n\u{1b}[2J"))
        .await;
    for rejection in ingress.rejections(2).await {
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

#[tokio::test]
async fn slow_senders_are_cut_off_within_their_limits() {
    let limit = Duration::from_millis(300);
    let (ingress, [a, _]) = Ingress::start(ReceiverSettings {
        head_seconds_max: limit,
        body_seconds_max: limit,
        ..settings()
    })
    .await;
    let bytes = a.request("/webhooks/vapi", &a.body());
    let head = bytes.len() - a.body().len();
    // One byte each 20 ms: of the body after a whole head, and of the head from its first byte.
    for begin in [head, 0] {
        let mut wire = ingress.connect().await;
        wire.send(&bytes[..begin]).await;
        let begun = Instant::now();
        let answer = dribble(&mut wire, &bytes[begin..]).await;
        assert_eq!(answer.map(|answer| answer.status), Some(408), "from byte {begin}");
        assert!(wire.is_closed().await);
        assert!(
            begun.elapsed() >= limit && begun.elapsed() < limit + Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
    }
    assert!(ingress.queue.events().is_empty());
    assert_eq!(ingress.rejections(1).await[0].cause, "timeout");
    assert_eq!(ingress.exchange(&bytes).await.status, 200);
}

/// Sends byte by byte until an answer comes.
async fn dribble(wire: &mut Wire, bytes: &[u8]) -> Option<Answer> {
    for byte in bytes {
        wire.send(&[*byte]).await;
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(20), wire.answer()).await {
            return answer;
        }
    }
    wire.answer().await
}
