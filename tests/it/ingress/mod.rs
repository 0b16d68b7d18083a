//! From a signed request to a durable event, through a real socket.

mod forms;
mod numbers;
mod outages;
mod platform;
mod uses;

use crate::support::{
    app::{
        TestApp,
        ingress::{PUBLIC_URL, Tenant, settings, sign, vapi_body},
    },
    db::NOW,
    wire::request,
};
use hookswitch::{
    config::ReceiverSettings,
    domain::{OrgId, SecretBytes},
};
use std::{sync::Arc, time::Duration};

#[tokio::test]
async fn a_signed_webhook_is_published_once_with_its_owner_and_answered_as_vapi_expects() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let path = "/webhooks/vapi?x=1&y=%2F";
    let mut headers = a.sign(path, a.body().as_bytes(), NOW);
    for (name, value) in [
        ("user-agent", "Vapi/1"),
        ("authorization", "Bearer do-not-keep"),
        ("x-vapi-secret", "do-not-keep"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ] {
        headers.push((name.parse().unwrap(), value.parse().unwrap()));
    }
    let answer = app
        .exchange(&request(path, "application/json", &headers, a.body().as_bytes()))
        .await;
    assert_eq!(
        (answer.status, answer.text(), answer.header("content-type")),
        (200, "{}", Some("application/json"))
    );
    let events = app.queue().events();
    let [event] = &events[..] else {
        panic!("one event, not {}", events.len())
    };
    assert_eq!(
        (event.org, event.endpoint, event.event_type.as_str()),
        (Some(a.org), None, "vapi.status-update")
    );
    assert_eq!(
        (&*event.path, &*event.query, &*event.content_type),
        ("/webhooks/vapi", "x=1&y=%2F", "application/json")
    );
    assert_eq!((event.received_at, event.time, event.hops), (NOW, NOW, 0));
    assert_eq!(event.body, a.body().as_bytes());
    assert_eq!(
        event.traceparent.as_deref(),
        Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    );
    assert_eq!(event.headers, [("user-agent".into(), "Vapi/1".into())]);
}

#[tokio::test]
async fn twilio_is_verified_over_the_url_that_it_saw_and_gets_twiml() {
    let (app, [a, b]) = TestApp::receiving(settings()).await;
    let path = "/webhooks/twilio?lang=de";
    let params = [
        ("MessageSid", "SM1"),
        ("From", "+15550001"),
        ("Body", "Grüße & +"),
        ("SmsStatus", "received"),
        ("NumMedia", "0"),
    ];
    let answer = app.exchange(&a.twilio(path, &params)).await;
    assert_eq!(
        (answer.status, answer.text(), answer.header("content-type")),
        (200, "<Response/>", Some("text/xml"))
    );
    let event = &app.queue().events()[0];
    assert_eq!(
        (event.org, event.event_type.as_str()),
        (Some(a.org), "twilio.message-received")
    );
    // The host is the setting's, whatever the request or an unknown sender's header says of it.
    let request = String::from_utf8(a.twilio(path, &params))
        .unwrap()
        .replace("host: test", "host: evil.example\r\nx-forwarded-host: evil.example");
    assert_eq!(app.exchange(request.as_bytes()).await.status, 200);
    // Another organisation's token over the first one's number.
    let wrong = resigned(&a, &b, path, &params);
    assert_eq!(app.exchange(&wrong).await.status, 401);
    assert_eq!(app.queue().events().len(), 2);
    // The compared URL is shown without its query, so that a person can see a wrong public URL.
    let rejection = app.rejections(1).await.remove(0);
    assert_eq!(rejection.cause, "bad_signature");
    let shown = format!("{PUBLIC_URL}/webhooks/twilio?…");
    assert_eq!(rejection.signed_url, Some(shown));
}

/// Sixteen further endpoints and more once made the organisation's own secret the seventeenth.
#[tokio::test]
async fn every_valid_secret_of_an_organisation_verifies_however_many_it_has() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    for number in 0..40 {
        let secret = SecretBytes::from(format!("the secret of endpoint {number}"));
        app.add_endpoint(&a, &[], Some(&secret)).await;
    }
    let path = "/webhooks/vapi";
    let signed = request(
        path,
        "application/json",
        &a.sign(path, a.body().as_bytes(), NOW),
        a.body().as_bytes(),
    );
    assert_eq!(app.exchange(&signed).await.status, 200);
    // Of an endpoint's own secret on the shared URL as well, whichever was made first.
    for number in [0, 20, 39] {
        let mut by_endpoint = a.clone();
        by_endpoint.secret = SecretBytes::from(format!("the secret of endpoint {number}"));
        let signed = request(
            path,
            "application/json",
            &by_endpoint.sign(path, a.body().as_bytes(), NOW),
            a.body().as_bytes(),
        );
        assert_eq!(app.exchange(&signed).await.status, 200, "endpoint {number}");
    }
}

/// The request to `to`, signed by `by`.
fn resigned(to: &Tenant, by: &Tenant, path: &str, params: &[(&str, &str)]) -> Vec<u8> {
    let forged = Tenant {
        org: to.org,
        assistant: to.assistant.clone(),
        secret: by.secret.clone(),
    };
    forged.twilio(path, params)
}

#[tokio::test]
async fn a_request_that_no_secret_verifies_gets_one_answer_and_is_kept_with_its_cause() {
    let (app, [a, b]) = TestApp::receiving(settings()).await;
    let path = "/webhooks/vapi";
    let body = a.body();
    let tampered = body.replace("ringing", "ringinG");
    let unknown = vapi_body("asst-nobody");
    let conflicting = body.replace(r#""call":"#, r#""assistant":{"id":"asst-b"},"call":"#);
    let second = Duration::from_secs(1);
    let plain = |headers: &[_], body: &str| request(path, "application/json", headers, body.as_bytes());
    let cases = [
        (
            plain(&a.sign(path, body.as_bytes(), NOW), &tampered),
            "bad_signature",
            Some(a.org),
        ),
        (
            plain(&b.sign(path, body.as_bytes(), NOW), &body),
            "bad_signature",
            Some(a.org),
        ),
        (plain(&[], &body), "bad_signature", Some(a.org)),
        (
            plain(&a.sign(path, body.as_bytes(), NOW - 301 * second), &body),
            "too_old",
            Some(a.org),
        ),
        (
            plain(&a.sign(path, body.as_bytes(), NOW + 301 * second), &body),
            "too_old",
            Some(a.org),
        ),
        (
            plain(&a.sign(path, unknown.as_bytes(), NOW), &unknown),
            "unknown_route",
            None,
        ),
        // A signs what names B: A's secret verifies it, and it is neither A's nor B's event
        // (invariant 17).
        (
            plain(&a.sign(path, conflicting.as_bytes(), NOW), &conflicting),
            "conflicting_route",
            Some(a.org),
        ),
    ];
    let mut answers = Vec::new();
    for (bytes, cause, org) in &cases {
        let answer = app.exchange(bytes).await;
        assert_eq!(answer.status, 401, "{cause}");
        answers.push(answer.without_date_and_id());
        let newest = &app.rejections(answers.len()).await[0];
        assert_eq!(
            newest.id.to_string(),
            answer.request_id(),
            "the id in the answer finds the rejection"
        );
        assert_eq!(
            (&*newest.cause, newest.org, newest.status, newest.is_claimed),
            (*cause, *org, 401, org.is_some())
        );
        assert_eq!(
            usize::try_from(newest.bytes).unwrap(),
            bytes.len() - bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() - 4
        );
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "one answer for all: {answers:?}"
    );
    assert!(app.queue().events().is_empty());
    // The organisation sees those that carry its ids, without what an unknown sender wrote in them;
    // another one sees nothing.
    let own = app.rejections_of(Some(a.org), 6).await;
    assert!(
        own.len() == 6
            && own
                .iter()
                .all(|rejection| rejection.is_claimed && rejection.head.is_empty() && !rejection.ids.is_empty()),
        "{own:?}"
    );
    assert!(app.rejections_of(Some(b.org), 0).await.is_empty());
    // Inside the window, to the second, on both sides.
    for at in [NOW - 300 * second, NOW + 300 * second] {
        assert_eq!(
            app.exchange(&plain(&a.sign(path, body.as_bytes(), at), &body))
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn an_endpoint_is_verified_by_its_own_secret_and_without_one_by_its_organisations() {
    let (app, [a, b]) = TestApp::receiving(settings()).await;
    let own = SecretBytes::from("own-".repeat(8));
    let with = app.add_endpoint(&a, &[], Some(&own)).await;
    let without = app.add_endpoint(&a, &[], None).await;
    let body = a.body();
    let post = |path: &str, secret: &SecretBytes| {
        request(
            path,
            "application/json",
            &sign(secret, path, body.as_bytes(), NOW),
            body.as_bytes(),
        )
    };
    for (path, secret, status, endpoint) in [
        (format!("/webhooks/vapi/{with}"), &own, 200, Some(with)),
        (format!("/webhooks/vapi/{with}"), &a.secret, 401, None),
        (format!("/webhooks/vapi/{without}"), &a.secret, 200, None),
        (format!("/webhooks/vapi/{without}"), &b.secret, 401, None),
        (format!("/webhooks/twilio/{with}"), &own, 401, None),
        (format!("/webhooks/vapi/{}", OrgId::generate()), &a.secret, 401, None),
        ("/webhooks/vapi".into(), &own, 200, Some(with)),
    ] {
        let before = app.queue().events().len();
        assert_eq!(app.exchange(&post(&path, secret)).await.status, status, "{path}");
        let events = app.queue().events();
        if status == 200 {
            assert_eq!(
                (events.last().unwrap().org, events.last().unwrap().endpoint),
                (Some(a.org), endpoint),
                "{path}"
            );
        } else {
            assert_eq!(events.len(), before, "{path}");
        }
    }
    // On its own URL a rejection is not only claimed to be the organisation's.
    let seen = app.rejections_of(Some(a.org), 1).await;
    assert!(
        seen.iter().any(|rejection| rejection.endpoint == Some(with)
            && !rejection.is_claimed
            && rejection.head.contains("status-update")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn types_that_an_endpoint_ignores_are_verified_and_answered_and_go_nowhere() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let id = app.add_endpoint(&a, &["speech-update"], None).await;
    let path = format!("/webhooks/vapi/{id}");
    let ignored = a.body().replace("status-update", "speech-update");
    assert_eq!(app.exchange(&a.request(&path, &ignored)).await.status, 200);
    assert!(app.queue().events().is_empty());
    let unsigned = request(&path, "application/json", &[], ignored.as_bytes());
    assert_eq!(app.exchange(&unsigned).await.status, 401, "ignored is not unverified");
    assert_eq!(app.exchange(&a.request(&path, &a.body())).await.status, 200);
    assert_eq!(app.queue().events().len(), 1);
}

#[tokio::test]
async fn a_question_is_made_durable_like_all_others_and_answered_with_something_valid() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let body = a.body().replace("status-update", "tool-calls").replace(
        r#""status":"ringing""#,
        r#""toolCallList":[{"id":"t1","type":"function","function":{"name":"book","arguments":"{}"}}]"#,
    );
    let answer = app.exchange(&a.request("/webhooks/vapi", &body)).await;
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (
            answer.status,
            &json["results"][0]["toolCallId"],
            &json["results"][0]["name"]
        ),
        (200, &"t1".into(), &"book".into())
    );
    assert_eq!(app.queue().events().len(), 1);
}

/// Invariant 5.
#[tokio::test]
async fn hops_are_counted_by_a_signed_header_and_refused_above_the_limit() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let signed = |hops: u8| {
        let tag = app
            .vault
            .fingerprint(OrgId::from_uuid(uuid::Uuid::nil()), format!("hops:{hops}").as_bytes());
        format!("{hops}.{}", tag.0)
    };
    let other = signed(1).split_once('.').unwrap().1.to_owned();
    for (header, status, hops) in [
        (signed(1), 200, 1),
        (signed(3), 200, 3),
        (signed(4), 401, 0),
        (format!("4.{other}"), 200, 0),
        ("nonsense".into(), 200, 0),
    ] {
        let mut headers = a.sign("/webhooks/vapi", a.body().as_bytes(), NOW);
        headers.push((
            hookswitch::domain::HOPS_HEADER.parse().unwrap(),
            header.parse().unwrap(),
        ));
        let answer = app
            .exchange(&request(
                "/webhooks/vapi",
                "application/json",
                &headers,
                a.body().as_bytes(),
            ))
            .await;
        assert_eq!(answer.status, status, "{header}");
        if status == 200 {
            assert_eq!(app.queue().events().last().unwrap().hops, hops, "{header}");
        }
    }
    assert_eq!(app.rejections(1).await[0].cause, "hop_limit");
}

/// Invariant 21.
#[tokio::test]
async fn a_flood_of_unknown_ids_gets_429_and_known_routes_are_always_verified() {
    let (app, [a, b]) = TestApp::receiving(ReceiverSettings {
        unknown_per_second_max: 1,
        ..settings()
    })
    .await;
    let unknown = a.request("/webhooks/vapi", &vapi_body("asst-nobody"));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(app.exchange(&unknown).await);
    }
    assert_eq!(statuses[0].status, 401);
    let limited = statuses
        .iter()
        .find(|answer| answer.status == 429)
        .expect("one over the limit");
    assert_eq!(limited.header("retry-after"), Some("1"));
    // From the same address, at the same time: right and wrong signatures of known ids get
    // different answers as before.
    for _ in 0..20 {
        assert_eq!(app.exchange(&a.request("/webhooks/vapi", &a.body())).await.status, 200);
    }
    let forged = request(
        "/webhooks/vapi",
        "application/json",
        &b.sign("/webhooks/vapi", a.body().as_bytes(), NOW),
        a.body().as_bytes(),
    );
    assert_eq!(app.exchange(&forged).await.status, 401);
    assert_eq!(app.queue().events().len(), 20);
}

#[tokio::test]
async fn a_captured_request_verifies_only_where_it_was_sent_and_not_for_ever() {
    let (app, [a, b]) = TestApp::receiving(settings()).await;
    let own = SecretBytes::from("own-".repeat(8));
    let (first, other) = (
        app.add_endpoint(&a, &[], Some(&own)).await,
        app.add_endpoint(&b, &[], None).await,
    );
    let path = format!("/webhooks/vapi/{first}");
    let body = a.body();
    let captured = request(
        &path,
        "application/json",
        &sign(&own, &path, body.as_bytes(), NOW),
        body.as_bytes(),
    );
    assert_eq!(app.exchange(&captured).await.status, 200);
    let again = app.exchange(&captured).await;
    assert_eq!(again.status, 200, "inside the window");
    let events = app.queue().events();
    assert_eq!(
        events[0].dedupe_key, events[1].dedupe_key,
        "and the same event by its key"
    );
    let elsewhere = String::from_utf8(captured.clone())
        .unwrap()
        .replace(&first.to_string(), &other.to_string());
    assert_eq!(
        app.exchange(elsewhere.as_bytes()).await.status,
        401,
        "another organisation's endpoint"
    );
    app.clock.advance(Duration::from_secs(301));
    assert_eq!(app.exchange(&captured).await.status, 401, "after the window");
    assert_eq!(app.queue().events().len(), 2);
}

#[tokio::test]
async fn the_same_event_fifty_times_at_once_is_taken_each_time_under_one_key() {
    let (app, [a, _]) = TestApp::receiving(settings()).await;
    let bytes = a.request("/webhooks/vapi", &a.body());
    let answers = futures_util::future::join_all((0..50).map(|_| app.exchange(&bytes))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let events = app.queue().events();
    assert_eq!(events.len(), 50);
    assert!(events.iter().all(|event| event.dedupe_key == events[0].dedupe_key));
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_named() {
    use hookswitch::receiver::{Receiver, ReceiverParts};
    let (app, _) = TestApp::receiving(settings()).await;
    let routes = hookswitch::routing::RouteTable::load(Arc::clone(&app.store) as _, Arc::clone(&app.clock) as _)
        .await
        .unwrap();
    let build = |settings: ReceiverSettings| {
        let (routes, vault) = (Arc::clone(&routes), Arc::clone(&app.vault));
        let parts = ReceiverParts {
            routes,
            vault,
            queue: Arc::clone(app.queue()) as _,
            store: Arc::clone(&app.store) as _,
            clock: Arc::clone(&app.clock) as _,
            settings,
        };
        Receiver::new(parts).err().map(|error| error.to_string())
    };
    for url in [
        "hooks.example",
        "ftp://hooks.example",
        "https://",
        "https://a/b",
        "https://a?b",
        "https://a@b",
        "https://a b",
    ] {
        let settings = ReceiverSettings {
            public_url: Some(url.into()),
            ..ReceiverSettings::default()
        };
        let error = build(settings).expect(url);
        assert!(error.contains("HOOKSWITCH_PUBLIC_URL"), "{error}");
    }
    let settings = ReceiverSettings {
        trusted_proxies: vec!["everyone".into()],
        ..ReceiverSettings::default()
    };
    assert!(build(settings).unwrap().contains("HOOKSWITCH_TRUSTED_PROXIES"));
}
