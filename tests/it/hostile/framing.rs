//! Requests whose framing, head or body breaks HTTP or a limit.

#![expect(clippy::format_collect, reason = "inputs read best as they are written")]

use super::{Then, length_line, refuses, with};
use crate::support::{
    app::{TestApp, ingress::settings},
    db::NOW,
    wire::request,
};

#[tokio::test]
async fn lengths_and_chunks_that_two_parsers_could_read_differently() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
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
    refuses(&app, &a, &cases).await;
    // A client that speaks HTTP/2 only could not read an answer.
    let mut wire = app.connect().await;
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn a_request_smuggled_behind_two_lengths_reaches_no_handler() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let smuggled = String::from_utf8(a.request("/webhooks/vapi", &a.body())).unwrap();
    for both in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let mut wire = app.connect().await;
        let outer = format!(
            "POST /webhooks/vapi HTTP/1.1\r\nhost: test\r\ncontent-type: \
            application/json\r\n{both}\r\n0\r\n\r\n{smuggled}"
        );
        wire.send(outer.as_bytes()).await;
        // Refused at once, or read by its chunks alone, which is an empty body; in both cases the
        // connection ends there.
        assert_eq!(wire.answer().await.map(|answer| answer.status), Some(400), "{both}");
        assert!(wire.is_closed().await, "{both}");
        assert!(app.queue().events().is_empty(), "{both}");
    }
}

#[tokio::test]
async fn chunks_are_a_body_and_trailers_are_no_headers() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
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
    assert_eq!(app.exchange(good.as_bytes()).await.status, 200);
    let trailed = format!(
        "{head}trailer: x-signature, x-timestamp\r\n\r\n{chunks}0\r\n{}\r\n",
        lines(&signed)
    );
    assert_eq!(app.exchange(trailed.as_bytes()).await.status, 401);
    assert_eq!(app.queue().events().len(), 1);
}

#[tokio::test]
async fn a_header_that_may_occur_once_occurs_once() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
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
    refuses(&app, &a, &cases).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_only_the_bad_one_is_refused() {
    let (app, [a, b]) = TestApp::receiving(settings()).await;
    let good = a.request("/webhooks/vapi", &a.body());
    let bad = request(
        "/webhooks/vapi",
        "application/json",
        &b.sign("/webhooks/vapi", a.body().as_bytes(), NOW),
        a.body().as_bytes(),
    );
    let mut wire = app.connect().await;
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
    assert_eq!(app.queue().events().len(), 49);
}
