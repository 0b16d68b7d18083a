//! Ten thousand connections of unknown senders, all held at once, against the real binary. It is a
//! process of its own, so that its descriptors, memory and database reads can be counted.

use crate::support::{
    app::{TestApp, ingress::settings},
    dev::{Dev, Directory, port_base},
    hooks,
    wire::Wire,
};
use futures_util::StreamExt;
use hookswitch::config::ReceiverSettings;
use serde_json::json;
use std::{net::SocketAddr, time::Duration, time::Instant};
use tokio::net::TcpSocket;

/// The uses that an unknown sender makes of its connection, one after the other.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Behaviour {
    Silent,
    HalfAHead,
    Unsigned,
    WronglySigned,
    UnknownIds,
}

const KINDS: [Behaviour; 5] = [
    Behaviour::Silent,
    Behaviour::HalfAHead,
    Behaviour::Unsigned,
    Behaviour::WronglySigned,
    Behaviour::UnknownIds,
];
const CONNECTIONS: usize = 10_000;

impl Behaviour {
    fn bytes(self, dev: &Dev) -> Vec<u8> {
        let of = |assistant: &str, signature: Option<&str>| {
            let body = hooks::vapi("status-update", &hooks::call_id(), assistant, &json!({}));
            let signature = signature
                .map(|secret| format!("x-vapi-signature: {}\r\n", hooks::sign(secret, &body)))
                .unwrap_or_default();
            let head = format!(
                "POST /webhooks/vapi HTTP/1.1\r\nhost: test\r\ncontent-type: \
                application/json\r\n{signature}content-length: {}\r\n\r\n",
                body.len()
            );
            [head.into_bytes(), body].concat()
        };
        match self {
            Self::Silent => Vec::new(),
            Self::HalfAHead => b"POST /web".to_vec(),
            Self::Unsigned => of(&dev.get("assistant_id"), None),
            Self::WronglySigned => of(&dev.get("assistant_id"), Some("not the secret of anyone at all")),
            Self::UnknownIds => of(
                &uuid::Uuid::now_v7().to_string(),
                Some("not the secret of anyone at all"),
            ),
        }
    }

    /// A sender of a whole request is answered and stays connected.
    const fn is_answered(self) -> bool {
        !matches!(self, Self::Silent | Self::HalfAHead)
    }
}

/// Connects from one of eight addresses, does what its kind does, and stays.
async fn unknown(dev: &Dev, ingress: SocketAddr, n: usize) -> (Wire, Option<u16>) {
    let kind = KINDS[n % KINDS.len()];
    let socket = TcpSocket::new_v4().expect("a descriptor");
    socket
        .bind(
            format!("127.0.1.{}:0", n / KINDS.len() % 8 + 1)
                .parse()
                .expect("an address"),
        )
        .expect("a port");
    let mut wire = Wire::new(socket.connect(ingress).await.expect("accepted, or waiting to be"));
    wire.send(&kind.bytes(dev)).await;
    let status = if kind.is_answered() {
        wire.answer().await.map(|answer| answer.status)
    } else {
        None
    };
    assert_eq!(
        status.is_some(),
        kind.is_answered(),
        "{kind:?} was closed without an answer"
    );
    (wire, status)
}

/// Faults 35 and 37 of `tests/it/faults`: idle connections, and a flood of unknown ids.
#[tokio::test]
async fn ten_thousand_unknown_callers_cost_bounded_memory_and_no_database_reads_and_keep_nobody_out() {
    let limit = hookswitch::listener::raise_file_limit();
    assert!(
        limit > CONNECTIONS as u64 + 1_000,
        "this test holds {CONNECTIONS} connections and the file limit is {limit}: raise it (ulimit -Hn), as \
        scripts/test does"
    );
    let directory = Directory::new();
    // Longer than the test: all of them are held at once.
    let settings = [
        ("HOOKSWITCH_HEAD_SECONDS_MAX", "120"),
        ("HOOKSWITCH_CONNECTIONS_MAX", "11000"),
        ("HOOKSWITCH_CONNECTIONS_PER_ADDRESS_MAX", "2000"),
    ];
    let dev = Dev::start_with(directory.path(), port_base(), &[], &settings).await;
    let ingress: SocketAddr = dev
        .get("ingress")
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let send = async || {
        let begun = Instant::now();
        let body = hooks::vapi("status-update", &hooks::call_id(), &dev.get("assistant_id"), &json!({}));
        assert_eq!(hooks::post(&dev, body).await, 200, "a real sender");
        begun.elapsed()
    };
    send().await;
    let (peak_before, looks_before, begun) = (
        dev.process.peak_kib(),
        dev.metric("hookswitch_route_looks_total").await,
        Instant::now(),
    );

    let mut arriving = futures_util::stream::iter(0..CONNECTIONS)
        .map(|n| unknown(&dev, ingress, n))
        .buffer_unordered(256);
    let (mut held, mut refused, mut limited, mut slowest) = (Vec::with_capacity(CONNECTIONS), 0, 0, Duration::ZERO);
    while let Some((wire, status)) = arriving.next().await {
        match status {
            Some(401) => refused += 1,
            Some(429) => limited += 1,
            None => {}
            other => panic!("an unknown sender got {other:?}"),
        }
        held.push(wire);
        if held.len() % 500 == 0 {
            slowest = slowest.max(send().await);
        }
    }
    drop(arriving);
    for _ in 0..50 {
        slowest = slowest.max(send().await);
    }
    let open = dev.metric("hookswitch_receive_connections").await;
    let looks = dev.metric("hookswitch_route_looks_total").await - looks_before;
    let grown_kib = dev.process.peak_kib() - peak_before;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{open} connections held, {refused} × 401, {limited} × 429, {looks} looks in {seconds:.1} s, {grown_kib} KiB \
        more at the peak, slowest real sender {slowest:?}"
    );
    assert!(open >= CONNECTIONS as f64, "{open} are held");
    assert_eq!(refused + limited, CONNECTIONS / KINDS.len() * 3);
    // Ten a second for all who ask together, one a second of its own accord; nothing for each
    // unknown sender.
    assert!(
        looks <= 11.0 * seconds + 5.0,
        "{looks} looks at the database in {seconds} s"
    );
    assert!(
        grown_kib / (CONNECTIONS as u64) < KIB_A_STRANGER_MAX,
        "{grown_kib} KiB for {CONNECTIONS} unknown senders"
    );
    assert!(slowest < Duration::from_secs(10), "a real sender waited {slowest:?}");
}

/// Measured at 17 in a debug build: the task of a connection with its buffers, and what was
/// refused, in its bounded ring.
const KIB_A_STRANGER_MAX: u64 = 32;

/// Fault 35 of `tests/it/faults`: idle connections.
#[tokio::test]
async fn more_unknown_callers_than_connections_do_not_keep_a_known_route_out() {
    let patience = Duration::from_millis(300);
    let settings = ReceiverSettings {
        connections_max: 256,
        connections_per_address_max: 64,
        head_seconds_max: patience,
        ..settings()
    };
    let (app, [a, _]) = TestApp::receiving(settings).await;
    // 2,000 connections that say half a word and stay, 256 of which fit at a time; they come from
    // eight addresses.
    let mut unknown = Vec::new();
    for n in 0..2_000 {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(format!("127.0.1.{}:0", n % 8 + 1).parse().unwrap())
            .unwrap();
        let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::from_secs(5), socket.connect(app.address())).await
        else {
            continue;
        };
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"POST /web").await;
        unknown.push(stream);
        if n % 500 == 250 {
            assert_eq!(
                app.exchange(&a.request("/webhooks/vapi", &a.body())).await.status,
                200,
                "after {n} unknown senders"
            );
        }
    }
    assert!(app.receiver().listener_state().open() <= 256);
    assert_eq!(app.exchange(&a.request("/webhooks/vapi", &a.body())).await.status, 200);
    drop(unknown);
    assert_eq!(app.queue().events().len(), 5);
}
