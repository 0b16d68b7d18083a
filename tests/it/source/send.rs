//! `hookswitch send` against a receiver that verifies: what is sent is what its provider would
//! sign.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    routing::post,
};
use hookswitch::{
    cli::{
        dev_state::DevState,
        samples::{SAMPLES, Sample},
        send::Sender,
    },
    domain::{Clock, OrgId, SecretBytes, Source, SystemClock},
    source::{Request, SigningKey, plan_default, read},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use std::{collections::HashSet, sync::Arc, sync::Mutex};
use tokio::net::TcpListener;

struct Receiver {
    base: String,
    dev: DevState,
    keys: Mutex<HashSet<String>>,
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> StatusCode {
    let source = uri.path().split('/').nth(2).expect("/webhooks/SOURCE");
    let source: Source = source.parse().expect("a source");
    let secret = if source == Source::Vapi {
        &receiver.dev.vapi_secret
    } else {
        &receiver.dev.twilio_auth_token
    };
    let key = SigningKey::new(
        &plan_default(source).expect("a default"),
        &SecretBytes::from(secret.clone()),
    )
    .expect("a good secret");
    let url = format!("{}{uri}", receiver.base);
    let request = Request {
        method: method.as_str(),
        url: &url,
        headers: &headers,
        body: &body,
    };
    if key.verify(&request, SystemClock.now()).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(reading) = read(source, &request) else {
        return StatusCode::BAD_REQUEST;
    };
    let fresh = receiver
        .keys
        .lock()
        .expect("no panic holds it")
        .insert(reading.dedupe_key.to_string());
    if fresh { StatusCode::OK } else { StatusCode::CONFLICT }
}

async fn start() -> Arc<Receiver> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let text = |text: &str| text.to_owned();
    let dev = DevState {
        ingress: base.clone(),
        admin: text("http://127.0.0.1:1"),
        operations: text("http://127.0.0.1:1"),
        sandbox: text("http://127.0.0.1:1"),
        admin_token: text("a"),
        operator_token: text("o"),
        org_id: OrgId::generate(),
        assistant_id: text("assistant-of-mine"),
        phone_number: text("+15550009001"),
        vapi_secret: text("d6706284aac1f6c0f0b7922d46e9af3cac8bc74fbd4bff11"),
        twilio_account_sid: text("AC00000000000000000000000000000abc"),
        twilio_auth_token: text("0fa54772703c5bf4938ad079a515af8b"),
        customer_number: text("+15550009002"),
        jwt_secret: text("j"),
        operator_jwt_secret: text("k"),
        vapi_api_key: text("v"),
        is_seeded: true,
    };
    let receiver = Arc::new(Receiver {
        base,
        dev,
        keys: Mutex::default(),
    });
    let router = Router::new()
        .route("/webhooks/{source}", post(receive))
        .route("/webhooks/{source}/{endpoint}", post(receive))
        .with_state(Arc::clone(&receiver));
    #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
    let _server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router.clone());
            connections
                .spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    receiver
}

#[tokio::test]
async fn every_sample_verifies_and_none_is_a_duplicate() {
    let receiver = start().await;
    let sender = Sender::new(&receiver.dev, None).expect("good settings");
    for sample in SAMPLES {
        for _ in 0..2 {
            let answer = sender.send(sample).await.expect("an answer");
            assert_eq!(answer.status, StatusCode::OK, "{}", sample.name);
        }
    }
}

#[tokio::test]
async fn nobody_there_is_said_with_what_to_do() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port")
        .local_addr()
        .expect("an address");
    let receiver = start().await;
    let sender = Sender::new(&receiver.dev, Some(&format!("http://{closed}"))).expect("good settings");
    let error = sender
        .send(Sample::find("vapi/hang").expect("a sample"))
        .await
        .err()
        .expect("nobody answers");
    assert!(error.to_string().contains("is `hookswitch dev` running?"), "{error}");
}

#[test]
fn without_dev_the_next_step_is_named() {
    let error = DevState::load_started(std::path::Path::new("/nowhere/.hookswitch"))
        .err()
        .expect("there is none");
    assert!(error.to_string().contains("start `hookswitch dev` first"), "{error}");
}
