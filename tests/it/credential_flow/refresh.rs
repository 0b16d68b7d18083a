//! Tokens are refreshed before they end, by one instance at a time. The new tokens are written by
//! compare-and-swap, and only the refusal of the current token ends a grant.

use super::*;
use hookswitch::{
    config::ProviderSettings,
    domain::{Clock, IntegrationState, Provider},
    oauth::{NotFresh, Refresher, Want},
    provider::Providers,
    sandbox::{Drop as Dropped, Fault},
    store::{Store, credentials::StoredCredential},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Another instance: it shares the store and the keys, and nothing else.
fn instance(app: &TestApp) -> Arc<Refresher> {
    let providers = Providers::new(&app.settings.provider, None).unwrap();
    let (store, clock): (Arc<dyn Store>, Arc<dyn Clock>) = (app.store.clone(), app.clock.clone());
    Arc::new(Refresher::new(store, app.vault.clone(), providers.google, clock))
}

async fn row(app: &TestApp) -> StoredCredential {
    app.store
        .find_credential(app.a, Provider::GoogleCalendar, "")
        .await
        .unwrap()
        .unwrap()
}

fn away(status: u16) -> Fault {
    let mut fault = Fault::of(Provider::GoogleCalendar).status(status);
    fault.path = Some("/token".to_owned());
    fault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixteen_callers_in_two_instances_one_asks_google() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    app.clock.advance(Duration::from_hours(2));
    let mut slow = Fault::of(Provider::GoogleCalendar).times(1);
    (slow.path, slow.delay_ms) = (Some("/token".to_owned()), Some(300));
    app.providers().add_fault(slow);
    let (one, two) = (instance(&app), instance(&app));
    let wants =
        (0..16).map(|n| if n % 2 == 0 { &one } else { &two }.ensure(app.a, Want::ValidFor(Duration::from_mins(1))));
    for fresh in futures_util::future::join_all(wants).await {
        assert_eq!(fresh, Ok(2), "all have the one new version");
    }
    assert_eq!(app.providers().token_refreshes(), 1);
}

#[tokio::test]
async fn the_refresher_renews_before_the_end_and_nobody_else_has_to() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    let refresh_at = row(&app).await.refresh_at.unwrap();
    assert_eq!(refresh_at, app.clock.now() + Duration::from_secs(3599 - 600));
    let refresher = instance(&app);
    assert_eq!(refresher.ensure(app.a, Want::Due).await, Ok(1));
    app.clock.set(refresh_at);
    let stop = CancellationToken::new();
    let task = tokio::task::JoinSet::from_iter([refresher.run(stop.clone())]);
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while row(&app).await.version == 1 {
        assert!(tokio::time::Instant::now() < until, "nobody refreshed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    task.join_all().await;
    let after = row(&app).await;
    assert!(after.refresh_at > Some(refresh_at) && after.health.state == IntegrationState::Connected);
    assert_eq!(app.providers().token_refreshes(), 1);
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_keeps_the_former_one_and_a_new_one_is_kept() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    let refresher = instance(&app);
    for version in 1..=3 {
        assert_eq!(
            refresher.ensure(app.a, Want::NewerThan(version)).await,
            Ok(version + 1),
            "Google gives none: the first one goes on working"
        );
    }
    app.providers().rotate_refresh_tokens(true);
    for version in 4..=6 {
        assert_eq!(
            refresher.ensure(app.a, Want::NewerThan(version)).await,
            Ok(version + 1),
            "each is worth one refresh: the newest is the one stored"
        );
    }
    assert_eq!(app.providers().google_grants(), 1);
}

#[tokio::test]
async fn a_revoked_grant_needs_reconnecting_and_a_reconnect_mends_it() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let first = connect_google(&app, app.a, "google-1").await;
    app.providers().revoke_google_account("google-1");
    let refresher = instance(&app);
    let NotFresh::NeedsReconnecting { words } = refresher.ensure(app.a, Want::NewerThan(1)).await.expect_err("revoked")
    else {
        panic!("final")
    };
    assert!(
        words.contains("expired or revoked") && words.contains("Connect"),
        "{words}"
    );
    let status = app.status(app.a, "google_calendar").await;
    assert_eq!(
        (&status["state"], &status["connected"], &status["cause"]),
        (
            &json!("needs_reconnecting"),
            &json!(false),
            &json!("credential_refused")
        )
    );
    assert_eq!(row(&app).await.refresh_at, None, "nobody asks again by himself");
    let refreshes = app.providers().request_count(Provider::GoogleCalendar);
    assert!(
        refresher
            .ensure(app.a, Want::ValidFor(Duration::from_hours(9)))
            .await
            .is_err()
    );
    assert_eq!(
        app.providers().request_count(Provider::GoogleCalendar),
        refreshes,
        "what is dead is not asked about"
    );
    let again = connect_google(&app, app.a, "google-1").await;
    assert_eq!(
        (&again["state"], &again["id"], &again["error"]),
        (&json!("connected"), &first["id"], &Value::Null)
    );
}

#[tokio::test]
async fn an_invalid_grant_is_not_believed_where_someone_reconnected_meanwhile() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    app.providers().revoke_google_account("google-1");
    let mut slow = Fault::of(Provider::GoogleCalendar).times(1);
    (slow.path, slow.delay_ms) = (Some("/token".to_owned()), Some(400));
    let refresher = instance(&app);
    // The old grant's answer is on its way while the person connects anew.
    app.providers().add_fault(slow);
    let (late, reconnected) = tokio::join!(refresher.ensure(app.a, Want::NewerThan(1)), async {
        crate::outside::eventually("the refresh is on its way", || {
            app.providers()
                .requests(Provider::GoogleCalendar)
                .iter()
                .any(|request| request.form_field("grant_type") == Some("refresh_token"))
        })
        .await;
        connect_google(&app, app.a, "google-1").await
    });
    assert_eq!(reconnected["state"], "connected");
    assert_eq!(late, Ok(2), "the newer version is what the caller gets");
    assert_eq!(app.status(app.a, "google_calendar").await["state"], "connected");
}

#[tokio::test]
async fn an_outage_of_hours_disconnects_nobody_and_is_asked_about_less_and_less() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    app.providers().add_fault(away(503));
    let refresher = instance(&app);
    let (mut asked, mut waits) = (0, Vec::new());
    for _ in 0..200 {
        app.clock.advance(Duration::from_mins(3));
        let before = app.providers().request_count(Provider::GoogleCalendar);
        let Err(NotFresh::Later { until, .. }) = refresher.ensure(app.a, Want::NewerThan(1)).await else {
            panic!("it may recover")
        };
        if app.providers().request_count(Provider::GoogleCalendar) > before {
            asked += 1;
            waits.push(until.since(app.clock.now()));
        }
    }
    assert!((20..=40).contains(&asked), "{asked} in ten hours");
    assert!(
        waits[0] >= Duration::from_secs(30) && waits.iter().all(|wait| *wait <= Duration::from_mins(30)),
        "{waits:?}"
    );
    let status = app.status(app.a, "google_calendar").await;
    assert_eq!(
        (&status["state"], &status["connected"], &status["cause"]),
        (&json!("failing"), &json!(true), &json!("provider_unavailable"))
    );
    assert!(
        status["first_failed_at"].is_string() && status["next_try_at"].is_string(),
        "{status}"
    );
    app.providers().clear_faults();
    app.clock.advance(Duration::from_mins(31));
    assert_eq!(refresher.ensure(app.a, Want::Due).await, Ok(2));
    assert_eq!(app.status(app.a, "google_calendar").await["state"], "connected");
}

#[tokio::test]
async fn an_answer_that_is_lost_on_the_way_is_no_death() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    app.providers().add_fault({
        let mut fault = Fault::of(Provider::GoogleCalendar)
            .times(1)
            .dropping(Dropped::AfterAccept);
        fault.path = Some("/token".to_owned());
        fault
    });
    let refresher = instance(&app);
    assert!(matches!(
        refresher.ensure(app.a, Want::NewerThan(1)).await,
        Err(NotFresh::Later { .. })
    ));
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(
        refresher.ensure(app.a, Want::NewerThan(1)).await,
        Ok(2),
        "Google does not rotate: the token is good"
    );
    // With a provider that rotates the answer took the grant along: that is known at the next try,
    // and not before.
    app.providers().rotate_refresh_tokens(true);
    app.providers().add_fault({
        let mut fault = Fault::of(Provider::GoogleCalendar)
            .times(1)
            .dropping(Dropped::AfterAccept);
        fault.path = Some("/token".to_owned());
        fault
    });
    assert!(matches!(
        refresher.ensure(app.a, Want::NewerThan(2)).await,
        Err(NotFresh::Later { .. })
    ));
    app.clock.advance(Duration::from_mins(1));
    assert!(matches!(
        refresher.ensure(app.a, Want::NewerThan(2)).await,
        Err(NotFresh::NeedsReconnecting { .. })
    ));
}

#[tokio::test]
async fn a_wrong_client_of_ours_is_our_fault_and_not_the_persons() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    let settings = ProviderSettings {
        google_client_secret: Some("rotated".to_owned().into()),
        ..app.settings.provider.clone()
    };
    let providers = Providers::new(&settings, None).unwrap();
    let refresher = Refresher::new(
        app.store.clone(),
        app.vault.clone(),
        providers.google,
        app.clock.clone(),
    );
    assert!(matches!(
        refresher.ensure(app.a, Want::NewerThan(1)).await,
        Err(NotFresh::Later { .. })
    ));
    let status = app.status(app.a, "google_calendar").await;
    assert_eq!(
        (&status["state"], &status["cause"]),
        (&json!("failing"), &json!("misconfigured"))
    );
    assert!(
        status["error"]["message"].as_str().unwrap().contains("Whoever runs it"),
        "{status}"
    );
    app.clock.advance(Duration::from_mins(31));
    assert_eq!(instance(&app).ensure(app.a, Want::NewerThan(1)).await, Ok(2));
}

#[tokio::test]
async fn verifying_refreshes_and_says_what_google_says() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    let verify = async || {
        app.post(app.a, "/api/integrations/google_calendar/verify", &json!({}))
            .await
    };
    let well = verify().await.expect(200).json();
    assert_eq!(
        (&well["state"], app.providers().token_refreshes()),
        (&json!("connected"), 1)
    );
    // A person who asks again is answered by Google, whatever wait a failure has begun.
    app.providers()
        .add_fault(Fault::of(Provider::GoogleCalendar).status(500));
    let failing = verify().await.expect(200).json();
    assert_eq!(failing["state"], "failing");
    let words = failing["error"]["message"].as_str().unwrap();
    assert!(words.ends_with("it answered 500."), "{words}");
    app.providers().clear_faults();
    assert_eq!(
        verify().await.expect(200).json()["state"],
        "connected",
        "the clock has not moved"
    );
    app.providers().revoke_google_account("google-1");
    assert_eq!(verify().await.expect(200).json()["state"], "needs_reconnecting");
    assert_eq!(
        app.post(app.b, "/api/integrations/google_calendar/verify", &json!({}))
            .await
            .expect(409)
            .code(),
        "not_connected"
    );
}

#[tokio::test]
async fn what_was_disconnected_is_not_refreshed_back_to_life() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    let mut slow = Fault::of(Provider::GoogleCalendar).times(1);
    (slow.path, slow.delay_ms) = (Some("/token".to_owned()), Some(300));
    app.providers().add_fault(slow);
    let refresher = instance(&app);
    let (late, ()) = tokio::join!(refresher.ensure(app.a, Want::NewerThan(1)), async {
        crate::outside::eventually("the refresh is on its way", || {
            app.providers()
                .requests(Provider::GoogleCalendar)
                .iter()
                .any(|request| request.form_field("grant_type") == Some("refresh_token"))
        })
        .await;
        app.delete(app.a, "/api/integrations/google_calendar").await.expect(204);
    });
    assert_eq!(late, Err(NotFresh::NotConnected));
    let row = row(&app).await;
    assert!(!row.is_active && row.sealed.is_none());
}
