//! How many instructions the hot paths take: run by `scripts/counts` under callgrind, which counts
//! inside of [`counted_path`] and nowhere else.
//!
//! `counts PATH` does one path's work 200 times; without a name it prints the names. The counts are
//! of this thread's own work. A group's write and fsync belong to the appender's thread. Valgrind's
//! processor has no SHA instructions and no AVX-512, so hashes count as their portable code. Bodies
//! are small here, so that our own code is most of a count.

use futures_util::FutureExt;
use hookswitch::{
    domain::{
        Clock, DedupeKey, Envelope, EventId, EventType, OrgId, RouteKey, RouteKind, RuleSpec, SecretBytes, Source,
        Subject, SystemClock, Timestamp, VerifiedEvent,
    },
    queue::{EventQueue, LogQueue, LogSettings, decode, encode},
    routing::RouteTable,
    rule::{Budget, Compiled, Context, Sample},
    source::{Plan, Request, SigningKey, read, sign},
    store::{SqliteStore, Store},
};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{hint::black_box, path::Path, sync::Arc};

const ROUNDS: usize = 200;
const PATHS: [&str; 9] = [
    "verify_vapi",
    "verify_twilio",
    "ids_vapi",
    "ids_twilio",
    "route",
    "encode",
    "decode",
    "append",
    "plan",
];
const URL: &str = "https://hooks.hookswitch.example/webhooks/x";
const STATUS: &str = include_str!("../tests/data/payloads/vapi/status-update.squad.json");
const SMS: &str = include_str!("../tests/data/payloads/twilio/sms.inbound.form");

fn main() {
    let Some(path) = std::env::args().nth(1).filter(|name| PATHS.contains(&name.as_str())) else {
        println!("{}", PATHS.join("\n"));
        return;
    };
    let place = std::env::temp_dir().join(format!("hookswitch-counts-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&place).expect("a writable directory");
    match path.as_str() {
        "verify_vapi" => verify_vapi(),
        "verify_twilio" => verify_twilio(),
        "ids_vapi" => ids(Source::Vapi, "application/json", STATUS),
        "ids_twilio" => ids(Source::Twilio, "application/x-www-form-urlencoded", SMS),
        "route" => route(&place),
        "append" => append(&place),
        "plan" => plan(),
        envelope => envelopes(envelope),
    }
    let _ = std::fs::remove_dir_all(place);
}

/// The function that callgrind counts. Its name is in `scripts/counts`.
#[inline(never)]
fn counted_path(mut work: impl FnMut(usize)) {
    for round in 0..ROUNDS {
        work(round);
    }
}

fn verify(plan: &str, secret: &str, sign: impl FnOnce(&SecretBytes) -> HeaderMap, body: &[u8]) {
    let secret = SecretBytes::from(secret.to_owned());
    let key = SigningKey::new(&serde_json::from_str(plan).expect("a good plan"), &secret).expect("a good secret");
    let headers = sign(&secret);
    let request = Request {
        method: "POST",
        url: URL,
        headers: &headers,
        body,
    };
    counted_path(|_| {
        key.verify(black_box(&request), Timestamp::from_seconds(1_800_000_000))
            .expect("it was signed");
    });
}

fn verify_vapi() {
    let (plan, body) = (r#"{"type":"hmac","algorithm":"sha256"}"#, [b'x'; 256]);
    let Plan::Vapi(vapi) = serde_json::from_str(plan).expect("a good plan") else {
        panic!("a Vapi plan")
    };
    let sign = |secret: &SecretBytes| {
        let headers = sign::sign_vapi(
            &vapi,
            secret,
            Timestamp::from_seconds(1_800_000_000),
            "POST",
            URL,
            &body,
        )
        .expect("a good secret");
        headers.into_iter().collect()
    };
    verify(plan, "d6706284aac1f6c0f0b7922d46e9af3cac8bc74fbd4bff11", sign, &body);
}

fn verify_twilio() {
    let sign = |secret: &SecretBytes| {
        sign::TwilioSigner::auth_token(secret)
            .sign_form(URL, &sign::form_pairs(SMS))
            .into_iter()
            .collect()
    };
    verify(
        r#"{"type":"auth_token"}"#,
        "0fa54772703c5bf4938ad079a515af8b",
        sign,
        SMS.as_bytes(),
    );
}

fn ids(source: Source, content_type: &'static str, body: &str) {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    let request = Request {
        method: "POST",
        url: URL,
        headers: &headers,
        body: body.as_bytes(),
    };
    counted_path(|_| drop(black_box(read(source, black_box(&request)).expect("a webhook"))));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Each of 1,000 routes is looked up by turns: hashes are keyed anew in each process, and one key
/// alone may lie well or badly.
fn route(place: &Path) {
    let table = runtime().block_on(async {
        let path = place.join("store.db");
        let store: Arc<dyn Store> = Arc::new(
            SqliteStore::open(&path, Arc::new(SystemClock))
                .await
                .expect("the store opens"),
        );
        let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path))
            .await
            .expect("a connection");
        sqlx::raw_sql(
            "INSERT INTO organizations (id, name, created_at, updated_at, changed_version) VALUES (zeroblob(16), 'a', \
            0, 0, 1); \
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999) \
             INSERT INTO assistant_org_mapping (id, org_id, assistant_id, state, created_at, updated_at, \
             changed_version) \
             SELECT unhex(printf('%032x', i)), zeroblob(16), printf('3c8a2f5e-1111-4222-8333-%012x', i), 'live', 0, 0, \
             1 FROM n",
        )
        .execute(&mut connection)
        .await
        .expect("rows");
        connection.close().await.expect("closes");
        RouteTable::load(store, Arc::new(SystemClock))
            .await
            .expect("routes load")
    });
    let keys: Vec<_> = (0..1_000)
        .map(|n| RouteKey::new(RouteKind::VapiAssistant, &format!("3c8a2f5e-1111-4222-8333-{n:012x}")))
        .collect();
    counted_path(|round| {
        for key in &keys[round * 5..round * 5 + 5] {
            black_box(table.get(black_box(key)).expect("a route"));
        }
    });
}

fn report() -> Envelope {
    let body = serde_json::json!({ "message": {
        "type": "end-of-call-report", "call": { "id": "7420f27a-30fd-4f49-a995-5549ae7cc00d" },
        "customer": { "number": "+15552010188" },
        "endedReason": "customer-ended-call", "artifact": { "transcript": "The caller asks for an appointment next \
        week. ".repeat(4) },
    } });
    let now = SystemClock.now();
    Envelope {
        id: EventId::generate(),
        source: Source::Vapi,
        event_type: EventType::new(Source::Vapi, "end-of-call-report"),
        time: now,
        received_at: now,
        subject: Subject("7420f27a-30fd-4f49-a995-5549ae7cc00d".into()),
        org: Some(OrgId::generate()),
        endpoint: None,
        secret: None,
        dedupe_key: DedupeKey([7; 16]),
        traceparent: None,
        content_type: "application/json".into(),
        path: "/webhooks/vapi".into(),
        query: "".into(),
        headers: vec![("user-agent".into(), "axios/1.7.2".into())],
        hops: 0,
        body: body.to_string().into(),
    }
}

fn envelopes(path: &str) {
    let (report, mut into) = (report(), Vec::with_capacity(1 << 12));
    if path == "encode" {
        return counted_path(|_| {
            into.clear();
            encode(black_box(&report), &mut into);
        });
    }
    encode(&report, &mut into);
    let bytes = into.into();
    counted_path(|_| drop(black_box(decode(black_box(&bytes)).expect("an envelope"))));
}

/// Up to where the publisher waits for the fsync: the envelope in the filling group, with its
/// checksums.
fn append(place: &Path) {
    let (runtime, event) = (runtime(), VerifiedEvent::from_verified(report()));
    let settings = LogSettings {
        disk_free_bytes_min: Some(0),
        ..LogSettings::default()
    };
    let queue = runtime
        .block_on(LogQueue::open(place, settings, Arc::new(SystemClock)))
        .expect("a log");
    counted_path(|_| {
        // `None`: it waits. The write goes on without the wait.
        black_box(queue.publish(black_box(&event)).now_or_never());
    });
    runtime.block_on(queue.close());
}

fn plan() {
    let spec: RuleSpec = serde_json::from_value(serde_json::json!({
        "name": "text", "source": "vapi", "event_type": "end-of-call-report", "when": "message.endedReason != \
        \"customer-busy\"", "action": "twilio.send_sms",
        "parameters": { "to": "{{ message.customer.number }}", "body": "Thank you for your call \
        {{ message.call.id }}." },
    }))
    .expect("a good rule");
    let (rule, report) = (Compiled::new(&spec).expect("it compiles"), report());
    counted_path(|_| {
        let (context, mut budget) = (Context::new(&Sample::from(black_box(&report))), Budget::new(100_000));
        assert!(rule.matches(&context, &mut budget).expect("it holds"));
        black_box(rule.render(&context, &mut budget).expect("it renders"));
    });
}
