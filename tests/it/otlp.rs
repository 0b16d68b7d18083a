//! Spans and error events reach an OTLP receiver: a small one stands in this test.

use crate::support::{
    dev::{Dev, Directory, port_base, run},
    until,
};
use axum::{Json, Router, extract::State, routing::post};
use hookswitch::cli::{dev_state::DevState, samples::Sample, send::Sender};
use http::HeaderMap;
use serde_json::Value;
use std::sync::{Arc, Mutex};

/// A path's last part, the headers and the body of a post.
type Post = (&'static str, HeaderMap, Value);

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Post>>>);

impl Collector {
    /// Starts one, and returns it with its base URL.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let keep = |path: &'static str| {
            move |State(this): State<Self>, headers: HeaderMap, Json(body): Json<Value>| async move {
                this.0.lock().expect("not poisoned").push((path, headers, body));
                Json(serde_json::json!({}))
            }
        };
        let router = Router::new()
            .route("/v1/traces", post(keep("traces")))
            .route("/v1/logs", post(keep("logs")))
            .with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = tokio_util::sync::CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(hookswitch::listener::serve(
            listener,
            router,
            hookswitch::listener::Limits::default(),
            stop.clone(),
            stop,
        ));
        (collector, url)
    }

    fn all(&self, of: &str, outer: &str, scope: &str, inner: &str) -> Vec<Value> {
        let posts = self.0.lock().expect("not poisoned");
        let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
        posts
            .iter()
            .filter(|(path, ..)| *path == of)
            .flat_map(|(_, _, body)| list(body, outer))
            .flat_map(|resource| list(&resource, scope))
            .flat_map(|scope| list(&scope, inner))
            .collect()
    }

    fn spans(&self, name: &str) -> Vec<Value> {
        let all = self.all("traces", "resourceSpans", "scopeSpans", "spans");
        all.into_iter().filter(|span| span["name"] == name).collect()
    }

    fn logs(&self) -> Vec<Value> {
        self.all("logs", "resourceLogs", "scopeLogs", "logRecords")
    }
}

fn attribute<'s>(span: &'s Value, key: &str) -> &'s str {
    let all = span["attributes"].as_array().expect("attributes");
    let found = all.iter().find(|attribute| attribute["key"] == key);
    found
        .and_then(|found| found["value"]["stringValue"].as_str())
        .unwrap_or_default()
}

fn nanoseconds(span: &Value, name: &str) -> u128 {
    span[name].as_str().expect("a text").parse().expect("nanoseconds")
}

#[tokio::test]
async fn receipt_plan_and_attempt_of_an_event_are_one_trace_through_the_queue() {
    let (collector, url) = Collector::start().await;
    let directory = Directory::new();
    let settings = [
        ("HOOKSWITCH_OTLP_URL", url.as_str()),
        ("HOOKSWITCH_OTLP_HEADERS", "x-api-key=planted key,x-other=2"),
    ];
    let dev = Dev::start_with(directory.path(), port_base(), &[], &settings).await;
    let state = DevState::load(directory.path()).expect("a state").expect("one");
    let sample = Sample::find("vapi/end-of-call-report").expect("a sample");
    Sender::new(&state, None)
        .expect("a sender")
        .send(sample)
        .await
        .expect("sent");
    dev.wait_for_sms(1).await;
    let (receive, attempts) = until("spans of the way", || async {
        let receive = collector
            .spans("webhook.receive")
            .into_iter()
            .find(|span| !attribute(span, "event.id").is_empty())?;
        let attempts: Vec<Value> = collector
            .spans("action.attempt")
            .into_iter()
            .filter(|span| attribute(span, "event.id") == attribute(&receive, "event.id"))
            .collect();
        (attempts.len() == 2).then_some((receive, attempts))
    })
    .await;
    let plans = collector.spans("event.plan");
    let plan = plans
        .iter()
        .find(|plan| plan["traceId"] == receive["traceId"])
        .expect("the plan is in the trace");
    assert_eq!(receive["traceId"], attribute(&receive, "event.id").replace('-', ""));
    assert_eq!((&receive["kind"], attribute(&receive, "status")), (&2.into(), "200"));
    assert!(receive["parentSpanId"].is_null());
    let mut ids = std::collections::BTreeSet::from([receive["spanId"].to_string()]);
    for span in attempts.iter().chain([plan]) {
        assert_eq!(span["traceId"], receive["traceId"], "{span}");
        assert_eq!(span["parentSpanId"], receive["spanId"], "{span}");
        assert_eq!(attribute(span, "org.id"), state.org_id.to_string());
        assert_eq!(span["spanId"].as_str().expect("an id").len(), 16);
        assert!(ids.insert(span["spanId"].to_string()), "{span}");
        assert!(nanoseconds(span, "startTimeUnixNano") <= nanoseconds(span, "endTimeUnixNano"));
        assert!(nanoseconds(&receive, "startTimeUnixNano") <= nanoseconds(span, "startTimeUnixNano"));
    }
    for attempt in &attempts {
        assert_eq!(
            (attribute(attempt, "outcome"), &attempt["kind"]),
            ("succeeded", &3.into())
        );
    }
    let posts = collector.0.lock().expect("not poisoned");
    for (_, headers, body) in posts.iter() {
        assert_eq!(headers["x-api-key"], "planted key");
        // A span must not hold anything that a log must not hold.
        let text = body.to_string();
        for secret in [&*state.vapi_secret, "+1555", "planted key"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

/// A replay waits in the store: its plan is in the trace of its event, as the first one is.
#[tokio::test]
async fn an_event_that_is_planned_out_of_the_store_has_a_span_too() {
    let (collector, url) = Collector::start().await;
    let directory = Directory::new();
    let settings = [("HOOKSWITCH_OTLP_URL", url.as_str())];
    let dev = Dev::start_with(directory.path(), port_base(), &[], &settings).await;
    let state = DevState::load(directory.path()).expect("a state").expect("one");
    let sample = Sample::find("vapi/end-of-call-report").expect("a sample");
    let sent = Sender::new(&state, None).expect("a sender").send(sample).await;
    let id = sent.expect("sent").request_id.expect("an id");
    let plans = || {
        let mut plans = collector.spans("event.plan");
        plans.retain(|plan| attribute(plan, "event.id") == id);
        plans
    };
    dev.wait_for_sms(1).await;
    until("the first plan", || async { (plans().len() == 1).then_some(()) }).await;
    let path = format!("/api/events/{id}/replay");
    let (status, _) = dev.admin_post(&path, &serde_json::json!({ "force": true })).await;
    assert_eq!(status, 202);
    dev.wait_for_sms(2).await;
    until("the plan out of the store", || async {
        (plans().len() == 2).then_some(())
    })
    .await;
    for plan in plans() {
        assert_eq!(plan["traceId"], id.replace('-', ""), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_sent_before_the_process_ends() {
    let (collector, url) = Collector::start().await;
    let ran = tokio::task::spawn_blocking(move || {
        run(
            &["serve"],
            &[("HOOKSWITCH_KEYRING", "no key"), ("HOOKSWITCH_OTLP_URL", &url)],
        )
    });
    assert_eq!(ran.await.expect("ran").status.code(), Some(1));
    let logs = collector.logs();
    assert!(
        logs.iter().any(|log| log["severityText"] == "ERROR"
            && log["body"]["stringValue"]
                .as_str()
                .is_some_and(|text| text.contains("hookswitch ends"))),
        "{logs:?}"
    );
}

#[tokio::test]
async fn a_receiver_that_is_away_holds_up_nothing() {
    let directory = Directory::new();
    // No receiver listens there.
    let away = format!("http://127.0.0.1:{}", port_base());
    let dev = Dev::start_with(directory.path(), port_base(), &[], &[("HOOKSWITCH_OTLP_URL", &away)]).await;
    let state = DevState::load(directory.path()).expect("a state").expect("one");
    let sample = Sample::find("vapi/end-of-call-report").expect("a sample");
    Sender::new(&state, None)
        .expect("a sender")
        .send(sample)
        .await
        .expect("sent");
    dev.wait_for_sms(1).await;
    until("the drop to be counted", || async {
        (dev.metric("hookswitch_otlp_dropped_total").await > 0.0).then_some(())
    })
    .await;
}
