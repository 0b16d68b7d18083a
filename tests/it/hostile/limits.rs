//! Heads, bodies and senders at their limits and beyond them.

#![expect(clippy::format_collect, reason = "inputs read best as they are written")]

use super::{Then, length_line, refuses, with};
use crate::support::{
    app::{TestApp, ingress::settings},
    wire::{Answer, Wire},
};
use hookswitch::config::ReceiverSettings;
use std::time::{Duration, Instant};

#[tokio::test]
async fn heads_over_their_limits_are_refused() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
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
    refuses(&app, &a, refused).await;
    assert_eq!(app.exchange(&last.1).await.status, last.2, "{}", last.0);
}

fn small() -> ReceiverSettings {
    ReceiverSettings {
        body_bytes_max: 1_000,
        ..settings()
    }
}

#[tokio::test]
async fn bodies_at_the_limit_are_taken_and_one_over_it_are_refused() {
    let (app, [a, _]) = TestApp::receiving(small()).await;
    let body = |bytes: usize| {
        let body = a.body();
        format!("{body}{}", " ".repeat(bytes - body.len()))
    };
    assert_eq!(
        app.exchange(&a.request("/webhooks/vapi", &body(1_000))).await.status,
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
        app.exchange(&chunked(1_000)).await.status,
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
        ("expects a continue", expecting_head, 413, Then::Closed),
    ];
    refuses(&app, &a, &cases).await;
}

#[tokio::test]
async fn a_chunked_body_without_end_is_cut_at_the_limit() {
    let (app, [a, _]) = TestApp::receiving(small()).await;
    let text = String::from_utf8(with(&a, &[(&length_line(&a), "transfer-encoding: chunked\r\n")])).unwrap();
    let mut wire = app.connect().await;
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
async fn expecting_senders_are_told_to_go_on() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let length = length_line(&a);
    let bytes = with(&a, &[(&length, &format!("{length}expect: 100-continue\r\n"))]);
    let head = bytes.len() - a.body().len();
    let mut wire = app.connect().await;
    wire.send(&bytes[..head]).await;
    assert_eq!(wire.answer().await.map(|answer| answer.status), Some(100));
    wire.send(&bytes[head..]).await;
    assert_eq!(wire.answer().await.map(|answer| answer.status), Some(200));
}

#[tokio::test]
async fn huge_bodies_cost_bounded_time() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
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
        let answer = app.exchange(&a.request("/webhooks/vapi", &body)).await;
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
async fn slow_senders_are_cut_off_within_their_limits() {
    let limit = Duration::from_millis(300);
    let (app, [a, _]) = TestApp::receiving(ReceiverSettings {
        head_seconds_max: limit,
        body_seconds_max: limit,
        ..settings()
    })
    .await;
    let bytes = a.request("/webhooks/vapi", &a.body());
    let head = bytes.len() - a.body().len();
    // One byte each 20 ms: of the body after a whole head, and of the head from its first byte.
    for begin in [head, 0] {
        let mut wire = app.connect().await;
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
    assert!(app.queue().events().is_empty());
    assert_eq!(app.rejections(1).await[0].cause, "timeout");
    assert_eq!(app.exchange(&bytes).await.status, 200);
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
