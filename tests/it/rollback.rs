//! A release runs on what another one left: the log of the release before, and envelopes with
//! attributes that only a newer release knows, in the log and on a broker. `start` has the rows of
//! a newer schema, on both databases.

use crate::{
    conformance::queue::{delivered, event, take},
    ledger::{
        Directory,
        suite::{self, Bench},
    },
    queue_embedded::{Scratch, open},
    support::app::{TestApp, worker::report},
};
use hookswitch::{
    domain::{ActionId, ActionState, Clock, Envelope, ManualClock, OrgId, Timestamp},
    queue::{EventQueue, attributes, encode, from_attributes},
    store::{self, ledger::ClaimLimits},
};
use serde_json::Value;
use sqlx::{Connection, Executor};
use std::{fs, path::Path};
use std::{sync::Arc, time::Duration};

/// Written by 0.1.0 and closed cleanly: six events, of which the first two were acked.
/// `events.json` beside it has the attributes of the rest, as they have to come out.
const EARLIER: &str = "tests/data/log/0.1.0";

fn as_json(envelope: &Envelope) -> Value {
    let named = attributes(envelope);
    let mut json: serde_json::Map<_, _> = named
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.into()))
        .collect();
    json.insert("body".to_owned(), hex::encode(&envelope.body).into());
    json.into()
}

fn copy_of(folder: &Path) -> Scratch {
    let scratch = Scratch::new();
    for file in fs::read_dir(folder).expect("the log of an earlier release") {
        let file = file.expect("a file").path();
        if file.extension().is_none_or(|ending| ending != "json") {
            fs::copy(&file, scratch.0.join(file.file_name().expect("a name"))).expect("copied");
        }
    }
    scratch
}

#[tokio::test]
async fn the_log_of_an_earlier_release_is_read_from_its_mark_to_its_end_and_goes_on() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(EARLIER);
    let wanted: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(folder.join("events.json")).expect("its events")).expect("JSON");
    let place = copy_of(&folder);
    let queue = open(&place.0).await;
    assert_eq!(queue.state().events, wanted.len() as u64);
    let more = event(OrgId::generate(), "call", "{\"n\":7}");
    queue.publish(&more).await.expect("it fits");
    let mut deliveries = queue.consume().await.expect("a consumer");
    let taken = take(&mut deliveries, wanted.len() + 1).await;
    let read: Vec<Value> = taken.iter().map(|delivery| as_json(delivered(delivery))).collect();
    assert_eq!(read[..wanted.len()], wanted[..]);
    assert_eq!(
        read[wanted.len()],
        as_json(more.envelope()),
        "what is written after it comes after it"
    );
    let tags: Vec<_> = taken.iter().map(|delivery| delivery.tag).collect();
    deliveries.ack(&tags).await.expect("acked");
    drop(deliveries);
    queue.close().await;
    assert_eq!(open(&place.0).await.state().events, 0, "its mark moves on");
}

#[tokio::test]
async fn an_attribute_that_only_a_newer_release_knows_is_passed_over_in_the_log() {
    let place = Scratch::new();
    let queue = open(&place.0).await;
    let known = event(OrgId::generate(), "call", "{\"n\":1}");
    let mut bytes = Vec::new();
    encode(known.envelope(), &mut bytes);
    // Behind the version: a code that is not given out, a length, a value.
    bytes.splice(1..1, [200, 5, 0, 0, 0, b'n', b'e', b'w', b'e', b'r']);
    queue.publish_bytes(&bytes).await.expect("it fits");
    let mut deliveries = queue.consume().await.expect("a consumer");
    let taken = take(&mut deliveries, 1).await;
    assert_eq!(delivered(&taken[0]), known.envelope());
}

#[test]
fn an_attribute_that_only_a_newer_release_knows_is_passed_over_on_a_broker() {
    let known = event(OrgId::generate(), "call", "{\"n\":1}");
    let mut named = attributes(known.envelope());
    named.push(("tracestate", "vendor=1".into()));
    named.push(("newer", "x".into()));
    let texts = named.iter().map(|(name, text)| (*name, &**text));
    let read = from_attributes(texts, known.envelope().body.clone()).expect("an envelope");
    assert_eq!(&read, known.envelope());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_with_a_cause_that_only_a_newer_release_knows_is_listed() {
    let mut app = TestApp::texting().await;
    let org = app.a;
    app.deliver(org, 1, &report("+15550001111"));
    app.start_worker();
    app.action_in(ActionState::Succeeded).await;
    let mut database = app.open_database().await;
    sqlx::raw_sql("UPDATE actions SET cause = 'of_a_newer_release'")
        .execute(&mut database)
        .await
        .expect("written");
    let listed = app.actions().await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].state, listed[0].cause), (ActionState::Succeeded, None));
    app.stop_worker().await;
}

/// An action of an organisation of its own, which is due.
async fn planned(b: &Bench) -> ActionId {
    let org = OrgId::generate();
    let created = b.store.create_organisation(org, "an organisation", suite::audit(org));
    created.await.expect("created");
    let action = suite::action();
    let id = action.id;
    let events = [suite::event(org, 1, vec![action])];
    b.store.plan(Arc::new(events)).await.expect("planned");
    id
}

async fn claimed(b: &Bench) -> Vec<ActionId> {
    let limits = ClaimLimits {
        count_max: 10,
        turn_max: 10,
        allowances: Vec::new(),
        deferred: Arc::default(),
        lease: suite::LEASE,
    };
    let claims = b.store.claim(limits, b.clock.now()).await.expect("claims");
    claims.iter().map(|claim| claim.action).collect()
}

/// Half a minute, after which it is tried again.
const PUT_OFF_FOR: Duration = Duration::from_secs(30);

async fn what_cannot_be_read_waits<C>(b: &Bench, database: &mut C)
where
    for<'c> &'c mut C: Executor<'c>,
{
    for (write, restore) in [
        (
            "UPDATE actions SET kind = 'of_a_newer_release'",
            "UPDATE actions SET kind = 'twilio.send_sms'",
        ),
        (
            "UPDATE turns SET provider = 'of_a_newer_release'",
            "UPDATE turns SET provider = 'twilio'",
        ),
    ] {
        let newer = planned(b).await;
        database.execute(write).await.expect("written");
        let known = planned(b).await;
        assert_eq!(claimed(b).await, [known], "{write}");
        database.execute(restore).await.expect("written");
        assert_eq!(claimed(b).await, [], "{write}: it waits");
        b.clock.advance(PUT_OFF_FOR);
        assert_eq!(claimed(b).await, [newer], "{write}: it was left as it was");
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_seconds(1_000)))
}

#[tokio::test]
async fn an_action_that_only_a_newer_release_can_read_holds_up_no_other() {
    let (directory, clock) = (Directory::new(), clock());
    let path = directory.0.join("store.db");
    let url = format!("sqlite:{}", path.display());
    let store = store::create(&url, clock.clone()).await.expect("opens");
    let mut database = sqlx::SqliteConnection::connect(&url).await.expect("connects");
    what_cannot_be_read_waits(
        &Bench {
            store: store.clone(),
            clock,
        },
        &mut database,
    )
    .await;
    store.close().await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_only_a_newer_release_can_read_holds_up_no_other_over_postgres() {
    let Some(database) = crate::support::postgres::PostgresDatabase::new().await else {
        return;
    };
    let clock = clock();
    let store = store::PostgresStore::open(&database.url(), clock.clone())
        .await
        .expect("opens");
    let store: Arc<dyn store::Store> = Arc::new(store);
    let mut worker = database.connect_as("hookswitch_worker").await;
    what_cannot_be_read_waits(
        &Bench {
            store: store.clone(),
            clock,
        },
        &mut worker,
    )
    .await;
    store.close().await;
}
