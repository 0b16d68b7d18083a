//! Deletion by age while the worker runs.

use crate::ledger::suite::{audit, event, running_job};
use crate::support::{app::TestApp, postgres::PostgresDatabase, until};
use hookswitch::{
    domain::*,
    store::{
        self,
        bulk::{BulkFilter, BulkVerb},
        ledger::PlannedEvent,
    },
};
use std::{sync::Arc, time::Duration};

const DAY: Duration = Duration::from_hours(24);

fn received(org: OrgId, key: u8, at: Timestamp) -> PlannedEvent {
    let mut event = event(org, key, Vec::new());
    event.envelope.received_at = at;
    event
}

/// The installation keeps events for ten days, one organisation for two, one asks for more.
async fn the_shorter_time_counts(mut app: TestApp) {
    app.settings.worker.events_kept_days = 10;
    let now = app.clock.now();
    let third = OrgId::generate();
    app.store
        .create_organisation(third, "a third one", audit(third))
        .await
        .expect("created");
    for (org, days) in [(app.a, 2), (third, 30)] {
        let settings = OrgSettings {
            retention_days: Some(days),
            ..OrgSettings::default()
        };
        app.store
            .save_settings(org, 0, settings, audit(org))
            .await
            .expect("saved");
    }
    let mut planned = Vec::new();
    for org in [app.a, app.b, third] {
        for (key, days) in [(1, 1), (2, 5), (3, 20)] {
            planned.push((org, days, received(org, key, now - DAY * days)));
        }
    }
    // In the order of their ids, which is that of their receipt.
    planned.sort_by_key(|(_, days, _)| std::cmp::Reverse(*days));
    for (_, _, event) in &mut planned {
        event.envelope.id = EventId::generate();
        app.store.plan(vec![event.clone()].into()).await.expect("planned");
    }
    app.start_worker();
    until("what is too old is gone", || async {
        let mut kept = Vec::new();
        for (org, days, event) in &planned {
            if app
                .store
                .find_event(*org, event.envelope.id)
                .await
                .expect("read")
                .is_some()
            {
                kept.push((*org, *days));
            }
        }
        kept.sort_unstable();
        let mut wanted = vec![(app.a, 1), (app.b, 1), (app.b, 5), (third, 1), (third, 5)];
        wanted.sort_unstable();
        (kept == wanted).then_some(())
    })
    .await;
    app.stop_worker().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_kept_for_the_shorter_of_both_times() {
    the_shorter_time_counts(TestApp::working().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_kept_for_the_shorter_of_both_times_on_postgres() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let store = store::connect(&database.url(), Arc::new(SystemClock))
        .await
        .expect("opens");
    the_shorter_time_counts(TestApp::working_over(store).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_kept_as_long_as_events() {
    let mut app = TestApp::working().await;
    app.settings.worker.events_kept_days = 10;
    let settings = OrgSettings {
        retention_days: Some(2),
        ..OrgSettings::default()
    };
    let saved = app.store.save_settings(app.a, 0, settings, audit(app.a)).await;
    saved.expect("saved");
    let mut database = app.open_database().await;
    let mut kept = Vec::new();
    for (org, days, is_kept) in [
        (app.a, 1, true),
        (app.a, 5, false),
        (app.b, 5, true),
        (app.b, 20, false),
    ] {
        let job = ended_job(&app, org).await;
        let ended_at = app.clock.now() - DAY * days;
        sqlx::query("UPDATE bulk_jobs SET ended_at = $1 WHERE id = $2")
            .bind(ended_at.as_micros())
            .bind(job.as_bytes().to_vec())
            .execute(&mut database)
            .await
            .expect("made older");
        kept.push((org, job, is_kept));
    }
    app.start_worker();
    until("what is too old is gone", || async {
        for (org, job, is_kept) in &kept {
            if app.store.find_bulk(*org, *job).await.expect("read").is_some() != *is_kept {
                return None;
            }
        }
        Some(())
    })
    .await;
    app.stop_worker().await;
}

async fn ended_job(app: &TestApp, org: OrgId) -> uuid::Uuid {
    let job = running_job(org, BulkVerb::Cancel, BulkFilter::default(), 0, app.clock.now());
    let id = job.id;
    app.store.begin_bulk(job, audit(org)).await.expect("begun");
    assert!(app.store.stop_bulk(org, id, audit(org)).await.expect("stopped"));
    id
}
