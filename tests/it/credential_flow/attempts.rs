//! Attempts with a grant that ends: a token that is over, one that Google refuses, and a consent
//! that was taken back (invariant 6).

use super::*;
use crate::ledger::suite;
use hookswitch::{
    attempt::{Backoff, Engine, EngineSettings, Leased, Policy},
    domain::{ActionKind, ActionState, Cause, Clock, DedupeKey, Envelope, EventId, EventType, Provider, Source},
    provider::Providers,
    sandbox::{Accounts, Drop, Fault, ResendKey},
    store::ledger::{ClaimLimits, Occasion, PlannedAction, PlannedEvent, Record},
    vault::Purpose,
};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

fn engine(app: &TestApp) -> Engine {
    let settings = EngineSettings {
        policy: Policy {
            backoff: Backoff {
                min: Duration::from_secs(1),
                max: Duration::from_hours(1),
            },
            attempts_max: 5,
            look_up_delay: Duration::from_mins(1),
        },
        deadline: Duration::from_secs(5),
        margin: Duration::from_secs(1),
        public_url: None,
        credentials_max: 10,
        credentials_time_to_live: Duration::from_hours(1),
    };
    let providers = Providers::new(&app.settings.provider, None).unwrap();
    Engine::new(
        settings,
        app.store.clone(),
        app.vault.clone(),
        providers,
        app.clock.clone(),
        Box::new(|| 0.5),
    )
}

/// Plans one booking of organisation A, claims it and runs it to its record, which is written.
async fn attempt(app: &TestApp, engine: &Engine) -> Record {
    let request =
        json!({ "summary": "Cleaning", "start": "2026-03-01T14:00:00+01:00", "end": "2026-03-01T14:30:00+01:00" });
    plan(app, ActionKind::GoogleCalendarCreateEvent, &request).await;
    run_due(app, engine).await
}

/// Plans one action of organisation A.
async fn plan(app: &TestApp, kind: ActionKind, request: &Value) {
    let (org, now, id) = (app.a, app.clock.now(), EventId::generate());
    let request = request.to_string();
    let envelope = Envelope {
        id,
        event_type: EventType::new(Source::Vapi, "hang"),
        time: now,
        received_at: now,
        dedupe_key: DedupeKey(*id.as_bytes()),
        ..suite::envelope(org, 0)
    };
    let planned = PlannedAction {
        rule_name: "book".into(),
        kind,
        request: Some(app.vault.seal(org, Purpose::Payload, request.as_bytes()).await.unwrap()),
        expires_at: now + Duration::from_hours(24),
        ..suite::action()
    };
    let body = app.vault.seal(org, Purpose::Payload, b"{}").await.unwrap();
    app.store
        .plan(
            vec![PlannedEvent {
                org,
                envelope,
                body,
                actions: vec![planned],
                occasion: Occasion::Receipt,
            }]
            .into(),
        )
        .await
        .unwrap();
}

/// Claims what is due and runs it to its record, which is written.
async fn run_due(app: &TestApp, engine: &Engine) -> Record {
    let record = engine.run(&claim_due(app, 1).await.remove(0)).await;
    app.store.record(vec![record.clone()]).await.unwrap();
    record
}

async fn claim_due(app: &TestApp, count: u32) -> Vec<Leased> {
    let limits = ClaimLimits {
        count_max: count,
        turn_max: count,
        allowances: Vec::new(),
        deferred: Arc::default(),
        lease: Duration::from_mins(1),
    };
    let claims = app.store.claim(limits, app.clock.now()).await.unwrap();
    let leased = claims.into_iter().map(|claim| Leased {
        claim,
        lease_ends: Instant::now() + Duration::from_mins(1),
        stop: CancellationToken::new(),
    });
    leased.collect()
}

#[tokio::test]
async fn a_token_that_is_over_is_refreshed_before_the_call() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    let engine = engine(&app);
    assert_eq!(attempt(&app, &engine).await.to, ActionState::Succeeded);
    app.clock.advance(Duration::from_hours(2));
    let record = attempt(&app, &engine).await;
    assert_eq!(
        (record.to, record.credential_version),
        (ActionState::Succeeded, Some(2)),
        "the cached credential was not used past its end"
    );
    assert_eq!(
        (
            app.providers().token_refreshes(),
            app.providers().calendar_events().len()
        ),
        (1, 2)
    );
}

#[tokio::test]
async fn a_token_that_google_refuses_is_replaced_once_before_that_is_believed() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    let engine = engine(&app);
    let mut refusing = Fault::of(Provider::GoogleCalendar).status(401);
    refusing.path = Some("/calendar/v3".to_owned());
    app.providers().add_fault(refusing.clone().times(1));
    let record = attempt(&app, &engine).await;
    assert_eq!(
        (record.to, record.credential_version),
        (ActionState::Succeeded, Some(2)),
        "{record:?}"
    );
    // Refused with a token that is as new as can be: that is believed.
    app.providers().add_fault(refusing);
    let record = attempt(&app, &engine).await;
    assert_eq!(
        (record.to, record.cause),
        (ActionState::Parked, Cause::CredentialRefused),
        "{record:?}"
    );
    assert_eq!(
        app.status(app.a, "google_calendar").await["state"],
        "needs_reconnecting"
    );
    assert_eq!(
        app.providers().token_refreshes(),
        2,
        "one new token for each refusal, and no more"
    );
}

#[tokio::test]
async fn a_consent_that_was_taken_back_parks_and_a_reconnect_resumes() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    app.providers().revoke_google_account("google-1");
    let parked = attempt(&app, &engine(&app)).await;
    assert_eq!(
        (parked.to, parked.cause),
        (ActionState::Parked, Cause::CredentialRefused),
        "{parked:?}"
    );
    assert_eq!(
        app.status(app.a, "google_calendar").await["state"],
        "needs_reconnecting"
    );
    connect_google(&app, app.a, "google-1").await;
    let resumed = app.store.find_action(app.a, parked.action).await.unwrap().unwrap();
    assert_eq!((resumed.state, resumed.cause), (ActionState::Pending, None));
}

#[tokio::test]
async fn while_google_gives_no_token_the_action_waits_and_uses_up_no_try() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    app.clock.advance(Duration::from_hours(2));
    let mut away = Fault::of(Provider::GoogleCalendar).status(503);
    away.path = Some("/token".to_owned());
    app.providers().add_fault(away);
    let record = attempt(&app, &engine(&app)).await;
    assert_eq!((record.to, record.counts), (ActionState::Pending, false), "{record:?}");
    assert!(
        record
            .due_at
            .is_some_and(|due| due >= app.clock.now() + Duration::from_secs(30)),
        "not before Google is asked again: {record:?}"
    );
    assert!(app.providers().calendar_events().is_empty());
}

/// Invariant 2: a calendar of another account that does not have the event proves nothing.
#[tokio::test]
async fn a_booking_without_an_answer_belongs_to_the_account_that_it_was_sent_to() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    let engine = engine(&app);
    let mut lost = Fault::of(Provider::GoogleCalendar)
        .dropping(Drop::AfterAccept)
        .method("POST")
        .times(1);
    lost.path = Some("/calendar/v3".to_owned());
    app.providers().add_fault(lost);
    let sent = attempt(&app, &engine).await;
    assert_eq!(sent.to, ActionState::Unknown, "{sent:?}");

    for (account, advance, expected) in [
        (
            "google-2",
            Duration::from_mins(5),
            (ActionState::Unknown, Cause::AccountReplaced),
        ),
        (
            "google-1",
            Duration::from_hours(2),
            (ActionState::Succeeded, Cause::LookedUp),
        ),
    ] {
        app.clock.advance(advance);
        let begun = begin(&app, app.a, "?replace_account=true").await;
        let back = consent(&format!("{}&login_hint={account}", begun.url)).await;
        come_back(&app, &back, Some(&begun.cookie)).await.expect(200);
        engine.forget_credentials_of(&[app.a]);
        let record = run_due(&app, &engine).await;
        assert_eq!((record.to, record.cause), expected, "{account}: {record:?}");
        assert_eq!(app.providers().calendar_events().len(), 1, "{account}");
    }
}

/// Two keys that Resend knows.
fn register_resend(app: &TestApp) {
    let key = |api_key: &str| ResendKey {
        api_key: api_key.to_owned(),
        domains: vec!["ours.example".to_owned()],
        is_sending_only: true,
    };
    app.providers().register(Accounts {
        resend: vec![key("re_first"), key("re_second")],
        ..Accounts::default()
    });
}

async fn connect_resend(app: &TestApp, api_key: &str) {
    let body = json!({ "api_key": api_key, "from": "us@ours.example" });
    let path = "/api/integrations/resend";
    app.post(app.a, path, &body).await.expect(200);
}

/// `connected` means checked and working: the state follows what the sends come to, and the card
/// has the newest problem.
#[tokio::test]
async fn the_state_of_an_integration_follows_what_its_sends_come_to() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    register_resend(&app);
    app.providers().add_fault(Fault::of(Provider::Resend).status(503));
    let body = json!({ "api_key": "re_first", "from": "us@ours.example" });
    let path = "/api/integrations/resend?unverified=true";
    app.post(app.a, path, &body).await.expect(200);
    let status = async || app.status(app.a, "resend").await;
    let none = json!({ "parked": 0, "waiting": 0, "unknown": 0, "dead": 0 });
    let before = status().await;
    assert_eq!(
        (&before["state"], &before["actions"], &before["last_problem"]),
        (&json!("unverified"), &none, &Value::Null)
    );
    let engine = engine(&app);
    let request = json!({ "to": "ann@example.com", "subject": "Hi", "text": "x" });
    plan(&app, ActionKind::ResendSendEmail, &request).await;
    let failed = run_due(&app, &engine).await;
    let failing = status().await;
    assert_eq!(
        (&failing["state"], &failing["connected"]),
        (&json!("failing"), &json!(true)),
        "{failing}"
    );
    assert_eq!(failing["cause"], failed.cause.as_str());
    assert_eq!(failing["last_problem"]["cause"], failed.cause.as_str());
    assert_eq!(failing["last_problem"]["action_id"], failed.action.to_string());
    assert_eq!(failing["actions"][failed.to.as_str()], 1, "{failing}");
    // The other organisation has nothing of it.
    assert_eq!(app.status(app.b, "resend").await["actions"], none);

    app.providers().clear_faults();
    app.clock.advance(Duration::from_mins(5));
    assert_eq!(run_due(&app, &engine).await.to, ActionState::Succeeded);
    let well = status().await;
    assert_eq!(
        (&well["state"], &well["actions"], &well["last_problem"], &well["error"]),
        (&json!("connected"), &none, &Value::Null, &Value::Null),
        "a send that goes well is a check: {well}"
    );

    // Faults that only the organisation can correct.
    app.clock.advance(Duration::from_mins(5));
    let request = json!({ "from": "us@not-ours.example", "to": "ann@example.com", "subject": "Hi", "text": "x" });
    plan(&app, ActionKind::ResendSendEmail, &request).await;
    let parked = run_due(&app, &engine).await;
    assert_eq!(
        (parked.to, parked.cause),
        (ActionState::Parked, Cause::Misconfigured),
        "{parked:?}"
    );
    let wrong = status().await;
    assert_eq!(
        (&wrong["state"], &wrong["cause"], &wrong["actions"]["parked"]),
        (&json!("failing"), &json!("misconfigured"), &json!(1))
    );
    let action = app
        .get(app.a, &format!("/api/actions/{}", parked.action))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&action["attempts"], &action["attempts_counted"], &action["can"]),
        (&json!(1), &json!(0), &json!(["retry", "cancel"])),
        "{action}"
    );
}

/// The first refusal of a credential is the last call with it: what was claimed before parks
/// without one, and uses up no try.
#[tokio::test]
async fn what_is_claimed_parks_without_a_call_once_its_credential_was_refused() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    register_resend(&app);
    connect_resend(&app, "re_first").await;
    let engine = engine(&app);
    let request = json!({ "to": "ann@example.com", "subject": "Hi", "text": "x" });
    for _ in 0..3 {
        plan(&app, ActionKind::ResendSendEmail, &request).await;
    }
    let claims = claim_due(&app, 3).await;
    assert_eq!(claims.len(), 3);
    app.providers().add_fault(Fault::of(Provider::Resend).status(401));
    let calls = || app.providers().requests(Provider::Resend).len();
    let before = calls();
    for leased in claims {
        let record = engine.run(&leased).await;
        assert_eq!(
            (record.to, record.cause, record.counts),
            (ActionState::Parked, Cause::CredentialRefused, false),
            "{record:?}"
        );
    }
    assert_eq!(calls() - before, 1, "one call with a credential that is refused");
}

/// Invariant 2: another key may be another team's, whose keys absorb nothing. Resend names no
/// account, so that each saved key counts as one.
#[tokio::test]
async fn an_email_without_an_answer_is_not_sent_again_under_another_key() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    register_resend(&app);
    connect_resend(&app, "re_first").await;
    let engine = engine(&app);
    let lost = Fault::of(Provider::Resend)
        .dropping(Drop::AfterAccept)
        .method("POST")
        .times(1);
    app.providers().add_fault(lost);
    let request = json!({ "to": "ann@example.com", "subject": "Hi", "text": "x" });
    plan(&app, ActionKind::ResendSendEmail, &request).await;
    let sent = run_due(&app, &engine).await;
    assert_eq!(
        (sent.to, app.providers().emails().len()),
        (ActionState::Unknown, 1),
        "{sent:?}"
    );
    connect_resend(&app, "re_second").await;
    engine.forget_credentials_of(&[app.a]);
    app.clock.advance(Duration::from_mins(5));
    let asked = run_due(&app, &engine).await;
    assert_eq!(
        (asked.to, asked.cause),
        (ActionState::Unknown, Cause::AccountReplaced),
        "{asked:?}"
    );
    assert_eq!(app.providers().emails().len(), 1);
}

/// Invariant 4: past the window of its key an e-mail is not sent again, not even by a person's
/// retry. The first try may have gone out.
#[tokio::test]
async fn a_persons_retry_past_the_keys_window_is_not_sent_again() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    register_resend(&app);
    connect_resend(&app, "re_first").await;
    let engine = engine(&app);
    app.providers()
        .add_fault(Fault::of(Provider::Resend).dropping(Drop::AfterAccept).method("POST"));
    let request = json!({ "to": "ann@example.com", "subject": "Hi", "text": "x" });
    plan(&app, ActionKind::ResendSendEmail, &request).await;
    let mut record = run_due(&app, &engine).await;
    while record.to == ActionState::Unknown {
        app.clock.advance(Duration::from_hours(1));
        record = run_due(&app, &engine).await;
    }
    assert_eq!((record.to, record.cause), (ActionState::Dead, Cause::AttemptsUsedUp));
    assert!(record.detail.starts_with("it may have gone out"), "{record:?}");
    app.providers().clear_faults();
    app.clock.advance(Duration::from_hours(25));
    let now = app.clock.now();
    let until = now + Duration::from_hours(1);
    let audit = suite::audit(app.a);
    let retried = app.store.retry(app.a, record.action, until, now, audit).await;
    retried.expect("answered");
    let before = app.providers().emails().len();
    let asked = run_due(&app, &engine).await;
    assert_eq!(
        (asked.to, asked.cause),
        (ActionState::Unknown, Cause::Ambiguous),
        "{asked:?}"
    );
    assert_eq!(app.providers().emails().len(), before, "nothing went out");
}
