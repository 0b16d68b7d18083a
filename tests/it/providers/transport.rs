//! Connections, answers and deadlines that fail: nothing is sent twice, and no error shows a
//! secret.

use super::Try;
use crate::outside::*;
use hookswitch::{
    domain::{Cause, Outcome},
    provider::twilio::NewMessage,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn nothing_was_sent_only_where_no_connection_was() {
    let refused = providers("http://127.0.0.1:1");
    assert_eq!(
        Try::sms("x").send(&refused).await,
        Outcome::Retry {
            cause: Cause::ConnectFailed,
            not_before: None
        }
    );
    let unnamed = providers("http://no-such-host.invalid");
    assert_eq!(
        Try::sms("x").send(&unnamed).await,
        Outcome::Retry {
            cause: Cause::ConnectFailed,
            not_before: None
        }
    );
    // TLS towards a port that speaks none: the request stays here.
    let plain = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("a free port");
    let tls = providers(&format!("https://{}", plain.local_addr().expect("bound")));
    let sms = Try::sms("x");
    let (outcome, ()) = tokio::join!(sms.send(&tls), async {
        let (mut stream, _) = plain.accept().await.expect("a connection");
        let _ = stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            .await;
    });
    assert_eq!(
        outcome,
        Outcome::Retry {
            cause: Cause::ConnectFailed,
            not_before: None
        }
    );
}

#[tokio::test]
async fn broken_answers_to_a_post_leave_it_unknown() {
    let huge = format!(
        "HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{}",
        2 << 20,
        " ".repeat(2 << 20)
    );
    let gzip: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-encoding: \
        gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00";
    let cases: [(&str, Vec<u8>); 12] = [
        ("no bytes", Vec::new()),
        ("half a head", b"HTTP/1.1 201 Cre".to_vec()),
        ("no HTTP", b"hello\r\n\r\n".to_vec()),
        (
            "not JSON",
            b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello".to_vec(),
        ),
        (
            "JSON without a sid",
            b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
        ),
        (
            "JSON null",
            b"HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\nnull".to_vec(),
        ),
        (
            "a body cut off",
            b"HTTP/1.1 201 Created\r\ncontent-length: 50\r\n\r\n{\"sid\":".to_vec(),
        ),
        (
            "a chunk cut off",
            b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{}".to_vec(),
        ),
        ("1 MiB and more", huge.into_bytes()),
        (
            "a claim of 1 GB",
            b"HTTP/1.1 201 Created\r\ncontent-length: 1000000000\r\n\r\n{}".to_vec(),
        ),
        ("gzip that nobody asked for", gzip.to_vec()),
        (
            "another protocol",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec(),
        ),
    ];
    for (name, bytes) in cases {
        let rogue = Rogue::answering(bytes).await;
        assert_eq!(
            Try::sms("x").send(&providers(&rogue.base())).await,
            Outcome::Unknown { cause: Cause::NoAnswer },
            "{name}"
        );
    }
    // A status that says "not done" says so whatever its body is; HTTP/1.0 with a good body is an
    // answer.
    let refused = Rogue::answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 50\r\n\r\n{\"code\":").await;
    assert_eq!(
        Try::sms("x").send(&providers(&refused.base())).await,
        Outcome::Dead {
            cause: Cause::InvalidRequest
        }
    );
    let old = Rogue::answering("HTTP/1.0 201 Created\r\n\r\n{\"sid\":\"SM1\",\"status\":\"queued\"}").await;
    let outcome = Try::sms("x").send(&providers(&old.base())).await;
    assert_eq!(
        outcome,
        Outcome::Succeeded {
            cause: Cause::Accepted,
            provider_ref: Some("SM1".into())
        }
    );
}

#[tokio::test]
async fn a_deadline_holds_against_silence_and_against_a_byte_now_and_then() {
    let silent = Rogue::start(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let trickling = Rogue::start(|mut stream, _| async move {
        let _ = stream
            .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 100000\r\n\r\n")
            .await;
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for rogue in [&silent, &trickling] {
        let mut sms = Try::sms("x");
        sms.deadline = Duration::from_millis(300);
        let began = Instant::now();
        assert_eq!(
            sms.send(&providers(&rogue.base())).await,
            Outcome::Unknown { cause: Cause::NoAnswer }
        );
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn redirects_of_a_provider_are_not_followed() {
    let sentinel = Arc::new(AtomicUsize::new(0));
    let count = sentinel.clone();
    let target = Rogue::start(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    for status in [301, 302, 303, 307, 308] {
        let head = format!(
            "HTTP/1.1 {status} Moved\r\nlocation: {}/x\r\ncontent-length: 0\r\n\r\n",
            target.base()
        );
        let rogue = Rogue::answering(head).await;
        let outcome = Try::sms("x").send(&providers(&rogue.base())).await;
        assert_eq!(
            outcome,
            Outcome::Dead {
                cause: Cause::RedirectNotFollowed
            },
            "{status}"
        );
    }
    assert_eq!(sentinel.load(Ordering::SeqCst), 0);
}

/// The peer closes each connection as soon as it answered. Every send is done or unknown, and the
/// client repeats none.
#[tokio::test]
async fn a_connection_that_dies_between_two_sends_repeats_nothing() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let rogue = Rogue::start(move |mut stream, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            // Promises to stay and goes.
            let _ = stream
                .write_all(
                    b"HTTP/1.1 201 Created\r\ncontent-length: 13\r\nconnection: keep-alive\r\n\r\n{\"sid\":\"SM1\"}",
                )
                .await;
        }
    })
    .await;
    let providers = providers(&rogue.base());
    let (mut done, mut unknown) = (0, 0);
    for _ in 0..200 {
        match Try::sms("x").send(&providers).await {
            Outcome::Succeeded { .. } => done += 1,
            Outcome::Unknown { .. } => unknown += 1,
            other => panic!("{other:?}"),
        }
    }
    let seen = seen.load(Ordering::SeqCst);
    assert!(
        done <= seen && seen <= done + unknown,
        "{done} done, {unknown} unknown, {seen} seen by the server"
    );
    assert_eq!(done + unknown, 200);
}

#[tokio::test]
async fn one_connection_serves_many_calls() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let rogue = Rogue::start(move |mut stream, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            loop {
                if stream
                    .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 13\r\n\r\n{\"sid\":\"SM1\"}")
                    .await
                    .is_err()
                {
                    return;
                }
                if read_request(&mut stream).await.is_empty() {
                    return;
                }
            }
        }
    })
    .await;
    let providers = providers(&rogue.base());
    for _ in 0..20 {
        assert!(matches!(
            Try::sms("x").send(&providers).await,
            Outcome::Succeeded { .. }
        ));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn no_error_carries_a_secret_a_body_or_a_number() {
    let rogue = Rogue::answering(
        "HTTP/1.1 400 Bad\r\ncontent-length: \
            66\r\n\r\n{\"code\":21211,\"message\":\"The number +12025550111 is not a number\"}  ",
    )
    .await;
    let message = NewMessage {
        to: TO,
        from: Some(FROM),
        messaging_service_sid: None,
        body: "canary-body",
        status_callback: None,
    };
    for base in [
        rogue.base(),
        "http://127.0.0.1:1".to_owned(),
        "http://no-such-host.invalid".to_owned(),
    ] {
        let error = providers(&base)
            .twilio
            .send_message(&twilio(), message, LONG)
            .await
            .expect_err("refused");
        let text = format!("{error} {error:?}");
        assert!(
            !text.contains(TOKEN) && !text.contains("canary") && !text.contains("2025550111") && !text.contains(SID),
            "{text}"
        );
    }
}
