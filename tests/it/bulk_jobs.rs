//! A job over many actions whose process is killed in the middle: a process that lives notices it
//! and ends it, and each action is changed once.

use crate::{
    ledger::suite::{action, audit as entry, envelope},
    support::{
        client,
        dev::Directory,
        postgres::PostgresDatabase,
        serve::{KEY, Serve, token},
        until,
    },
};
use hookswitch::{
    domain::*,
    store::{
        self, Store,
        bulk::JobState,
        history::ActionFilter,
        ledger::{Occasion, PlannedAction, PlannedEvent},
        pauses::{Pause, Paused},
    },
    vault::{Keyring, Purpose, Vault},
};
use reqwest::RequestBuilder;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Eight steps of a job.
const ACTIONS: usize = 4_000;

async fn open(url: &str) -> Arc<dyn Store> {
    store::connect(url, Arc::new(SystemClock))
        .await
        .expect("the store opens")
}

/// An organisation whose actions wait, because its operator has paused all of it.
async fn with_waiting_actions(store: Arc<dyn Store>) -> OrgId {
    let (org, now) = (OrgId::generate(), SystemClock.now());
    let made = store.create_organisation(org, "one with a backlog", entry(org));
    made.await.expect("created");
    let pause = Pause {
        paused: Paused::All,
        reason: "the test looks at what waits".to_owned(),
        actor: "test".to_owned(),
        since: now,
    };
    store.pause(pause, entry(INSTALLATION)).await.expect("paused");
    let keyring = Keyring::from_hex(&[SecretBytes::from(KEY.to_owned())]).expect("a key");
    let vault = Vault::new(keyring, Arc::clone(&store) as _);
    let sealed = vault.seal(org, Purpose::Payload, b"{}").await.expect("sealed");
    for _ in 0..ACTIONS / 500 {
        let events = (0..500).map(|_| planned(org, &sealed, now)).collect::<Vec<_>>();
        store.plan(events.into()).await.expect("planned");
    }
    org
}

fn planned(org: OrgId, sealed: &SealedBytes, now: Timestamp) -> PlannedEvent {
    let id = EventId::generate();
    PlannedEvent {
        org,
        envelope: Envelope {
            id,
            time: now,
            received_at: now,
            dedupe_key: DedupeKey(*id.as_bytes()),
            ..envelope(org, 0)
        },
        body: sealed.clone(),
        actions: vec![PlannedAction {
            request: Some(sealed.clone()),
            expires_at: now + Duration::from_hours(24),
            ..action()
        }],
        occasion: Occasion::Receipt,
    }
}

fn as_owner(request: RequestBuilder, org: OrgId) -> RequestBuilder {
    request.bearer_auth(token(Some(org)))
}

async fn job(serve: &Serve, org: OrgId, id: &Value) -> Option<Value> {
    let path = format!("/api/jobs/{}", id.as_str().expect("an id"));
    let answer = as_owner(client().get(serve.url(1, &path)), org).send().await.ok()?;
    answer.json().await.ok()
}

/// Begins to cancel everything, and kills the process once some of it is done.
async fn killed_in_the_middle(serve: &mut Serve, org: OrgId) -> Value {
    let request = client()
        .post(serve.url(1, "/api/actions/cancel"))
        .json(&json!({ "state": "pending" }));
    let begun = as_owner(request, org).send().await.expect("an answer");
    assert_eq!(begun.status(), 202);
    let begun: Value = begun.json().await.expect("JSON");
    assert_eq!(begun["planned"], ACTIONS);
    loop {
        let shown = job(serve, org, &begun["id"]).await.expect("a job");
        assert_eq!(shown["state"], "running", "too few actions for this machine: {shown}");
        if shown["done"].as_u64().expect("a number") > 0 {
            break;
        }
    }
    serve.signal(Signal::KILL);
    serve.ended().await;
    begun["id"].clone()
}

/// When each cancelled action was changed last.
async fn cancelled(store: &dyn Store, org: OrgId) -> HashMap<ActionId, Timestamp> {
    let filter = ActionFilter {
        state: Some(ActionState::Cancelled),
        ..ActionFilter::default()
    };
    let (mut all, mut before) = (HashMap::new(), None);
    loop {
        let page = store
            .list_actions(org, filter.clone(), before, 500)
            .await
            .expect("a page");
        let Some(last) = page.last() else { return all };
        before = Some(last.id);
        all.extend(page.into_iter().map(|action| (action.id, action.updated_at)));
    }
}

async fn half_done(store: &dyn Store, org: OrgId, id: &Value) -> HashMap<ActionId, Timestamp> {
    let id = id.as_str().expect("an id").parse().expect("an id");
    let left = store.find_bulk(org, id).await.expect("a look").expect("a job");
    assert_eq!(left.state, JobState::Running);
    let done = cancelled(store, org).await;
    assert_eq!(done.len() as u64, left.done, "a step and its progress are one");
    assert!((1..ACTIONS).contains(&done.len()), "{}", done.len());
    done
}

async fn is_done_once(store: &dyn Store, org: OrgId, done: Value, before: HashMap<ActionId, Timestamp>) {
    assert_eq!(
        (&done["state"], &done["done"], &done["skipped"]),
        (&json!("done"), &json!(ACTIONS), &json!(0))
    );
    let after = cancelled(store, org).await;
    assert_eq!(after.len(), ACTIONS);
    for (action, at) in before {
        assert_eq!(after[&action], at, "{action} was changed a second time");
    }
}

/// Waits for the end without any request to a process, so that nothing but its own look takes the
/// job up.
async fn ends(store: &dyn Store, org: OrgId, id: &Value) {
    let id = id.as_str().expect("an id").parse().expect("an id");
    let end = Instant::now() + Duration::from_mins(3);
    loop {
        let job = store.find_bulk(org, id).await.expect("a look").expect("a job");
        if job.state != JobState::Running {
            return;
        }
        assert!(Instant::now() < end, "nobody ends it: {job:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_job_whose_process_was_killed_is_ended_by_the_next_process_on_its_files() {
    let directory = Directory::new();
    let url = format!("sqlite:{}", directory.path().join("store.db").display());
    let migrated = crate::support::dev::run(&["migrate"], &[("HOOKSWITCH_DATABASE_URL", &url)]);
    assert!(migrated.status.success(), "{migrated:?}");
    let store = open(&url).await;
    let org = with_waiting_actions(store.clone()).await;
    store.close().await;
    let mut serve = Serve::start_in(directory, &[]);
    serve.is_ready(200).await;
    let id = killed_in_the_middle(&mut serve, org).await;
    let store = open(&url).await;
    let before = half_done(&*store, org, &id).await;
    store.close().await;

    let mut next = Serve::start_in(serve.into_directory(), &[]);
    next.is_ready(200).await;
    until("everything to be cancelled without a look at the job", || async {
        let path = next.url(1, "/api/actions/cancel?plan=true");
        let request = as_owner(client().post(path).json(&json!({ "state": "pending" })), org);
        let planned: Value = request.send().await.ok()?.json().await.ok()?;
        (planned["count"] == 0).then_some(())
    })
    .await;
    let done = until("the end of the job", || async {
        job(&next, org, &id).await.filter(|job| job["state"] != "running")
    })
    .await;
    next.signal(Signal::KILL);
    next.ended().await;
    let store = open(&url).await;
    is_done_once(&*store, org, done, before).await;
    store.close().await;
}

/// The other process runs all the while, and nobody asks it for anything.
#[tokio::test]
async fn a_job_whose_process_was_killed_is_ended_by_a_process_beside_it_over_postgres() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let store = open(&database.url()).await;
    let org = with_waiting_actions(store.clone()).await;
    let start = || Serve::start_in(Directory::new(), &[("HOOKSWITCH_DATABASE_URL", database.url())]);
    let (mut one, other) = (start(), start());
    one.is_ready(200).await;
    other.is_ready(200).await;
    let id = killed_in_the_middle(&mut one, org).await;
    let before = half_done(&*store, org, &id).await;
    ends(&*store, org, &id).await;
    let done = job(&other, org, &id).await.expect("a job");
    is_done_once(&*store, org, done, before).await;
}
