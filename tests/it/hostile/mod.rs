//! Hostile and broken input at ingress: bytes in, a status and the connection's state out, nothing
//! published.

mod content;
mod framing;
mod limits;

use crate::support::{
    app::{TestApp, ingress::Tenant},
    wire::Answer,
};

/// The connection after the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Closed,
    Open,
}

/// Sends each input on a connection of its own, and compares the status. Then a good request on the
/// same connection gets an answer or not. At the end only good requests were published, and a fresh
/// connection works.
async fn refuses(app: &TestApp, tenant: &Tenant, cases: &[(&str, Vec<u8>, u16, Then)]) {
    let good = tenant.request("/webhooks/vapi", &tenant.body());
    let before = app.queue().events().len();
    let mut taken = 0;
    for (name, bytes, status, then) in cases {
        let mut wire = app.connect().await;
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
            app.queue().events().len(),
            before + taken,
            "{name}: nothing is published"
        );
    }
    assert_eq!(app.exchange(&good).await.status, 200, "a fresh connection works");
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
