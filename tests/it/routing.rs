//! Routes in memory on a real store: loaded, kept current by signal and by poll, and still there
//! when the database is not.

mod damaged;

use crate::support::db::{Database, NOW, VERSION, blob};
use hookswitch::{
    domain::{Clock, EndpointId, ManualClock, OrgId, RouteKey, RouteKind, SecretId, Source},
    routing::{Asker, RouteTable},
    store::{Base, SqliteStore, Store, keys::DataKeyRow, keys::DataKeys, snapshot::Snapshots},
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

async fn load(database: &Database, store: &Arc<SqliteStore>) -> Arc<RouteTable> {
    RouteTable::load(
        Arc::clone(store) as Arc<dyn Store>,
        Arc::clone(&database.clock) as Arc<dyn Clock>,
    )
    .await
    .expect("routes load")
}

fn assistant(org: OrgId, value: &str, state: &str) -> String {
    format!(
        "INSERT INTO assistant_org_mapping (id, org_id, assistant_id, state, created_at, updated_at, changed_version) \
        VALUES ({}, {}, '{value}', '{state}', 0, 0, {VERSION}) \
         ON CONFLICT (org_id, assistant_id) DO UPDATE SET state = excluded.state, changed_version = \
         excluded.changed_version",
        blob(uuid::Uuid::now_v7().as_bytes()),
        blob(org.as_bytes())
    )
}

fn number(org: OrgId, provider: &str, number: &str, account: &str, provider_number_id: &str) -> String {
    format!(
        "INSERT INTO phone_numbers (id, org_id, number, provider, account_id, provider_number_id, state, created_at, \
        updated_at, changed_version) \
         VALUES ({}, {}, '{number}', '{provider}', nullif('{account}', ''), nullif('{provider_number_id}', ''), \
         'live', 0, 0, {VERSION})",
        blob(uuid::Uuid::now_v7().as_bytes()),
        blob(org.as_bytes())
    )
}

fn credential(org: OrgId, account: &str, verified: bool) -> String {
    let verified = if verified { "1" } else { "NULL" };
    format!(
        "INSERT INTO org_credentials (id, org_id, provider, name, is_active, sealed, state, account_id, \
        last_verified_at, created_at, updated_at, changed_version) \
         VALUES ({}, {}, 'twilio', '', 1, x'00', 'connected', '{account}', {verified}, 0, 0, {VERSION}) \
         ON CONFLICT (org_id, provider, name) DO UPDATE SET is_active = 1, sealed = x'00', state = 'connected', \
         account_id = excluded.account_id, \
         last_verified_at = excluded.last_verified_at, changed_version = excluded.changed_version",
        blob(uuid::Uuid::now_v7().as_bytes()),
        blob(org.as_bytes())
    )
}

fn get(table: &RouteTable, kind: RouteKind, value: &str) -> Option<OrgId> {
    table.get(&RouteKey::new(kind, value))
}

fn holds(table: &RouteTable, value: &str) -> Option<OrgId> {
    get(table, RouteKind::VapiAssistant, value)
}

/// Asks until the snapshot is current: on a full machine a look may take longer than a request
/// waits for it.
async fn look(table: &RouteTable) {
    crate::support::until("the snapshot is current", || async {
        table.refresh_now(Asker::Unproven).await.then_some(())
    })
    .await;
}

/// Waits until it holds, 10 seconds at most.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "it never came true: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn every_kind_of_route_is_loaded_when_it_is_live() {
    let database = Database::new();
    let store = database.open().await;
    let (a, b) = (database.organisation().await, database.organisation().await);
    database
        .configure(&[
            assistant(a, "asst-a", "live"),
            assistant(b, "asst-pending", "pending"),
            assistant(b, "asst-released", "released"),
            number(a, "twilio", "+15550001", "AC1", "PN1"),
            number(b, "twilio", "+15550001", "AC2", "PN2"),
            number(b, "vapi", "+15550002", "", "vapi-number"),
            number(a, "vapi", "+15550003", "", ""),
            credential(a, "AC1", true),
            credential(b, "AC2", false),
        ])
        .await;
    let table = load(&database, &store).await;
    let expected = [
        (RouteKind::VapiAssistant, "asst-a", Some(a)),
        (RouteKind::VapiAssistant, "asst-pending", None),
        (RouteKind::VapiAssistant, "asst-released", None),
        (RouteKind::TwilioNumber, "AC1/+15550001", Some(a)),
        (RouteKind::TwilioNumber, "AC2/+15550001", Some(b)),
        (RouteKind::TwilioNumber, "+15550001", None),
        (RouteKind::VapiNumber, "+15550001", None),
        (RouteKind::VapiNumber, "+15550002", Some(b)),
        (RouteKind::VapiPhoneNumber, "vapi-number", Some(b)),
        (RouteKind::VapiNumber, "+15550003", Some(a)),
        (RouteKind::VapiPhoneNumber, "", None),
        (RouteKind::TwilioAccount, "AC1", Some(a)),
        (RouteKind::TwilioAccount, "AC2", None),
    ];
    for (kind, value, org) in expected {
        assert_eq!(get(&table, kind, value), org, "{kind} {value}");
    }
    assert_eq!(
        table.routes_len(),
        expected.iter().filter(|(_, _, org)| org.is_some()).count()
    );
    store.close().await;
}

#[tokio::test]
async fn a_route_moves_and_its_former_owner_cannot_take_it_out() {
    let database = Database::new();
    let store = database.open().await;
    let (a, b) = (database.organisation().await, database.organisation().await);
    database.configure(&[assistant(a, "x", "live")]).await;
    let table = load(&database, &store).await;
    assert_eq!(holds(&table, "x"), Some(a));
    database
        .configure(&[assistant(a, "x", "released"), assistant(b, "x", "live")])
        .await;
    look(&table).await;
    assert_eq!(holds(&table, "x"), Some(b));
    // The released row changes once more: it leads to another now.
    database.configure(&[assistant(a, "x", "released")]).await;
    look(&table).await;
    assert_eq!(holds(&table, "x"), Some(b));
    database.configure(&[assistant(b, "x", "released")]).await;
    look(&table).await;
    assert_eq!((holds(&table, "x"), table.routes_len()), (None, 0));
    store.close().await;
}

#[tokio::test]
async fn a_twilio_account_routes_only_while_one_organisation_claims_it() {
    let database = Database::new();
    let store = database.open().await;
    let (a, b, c) = (
        database.organisation().await,
        database.organisation().await,
        database.organisation().await,
    );
    let table = load(&database, &store).await;
    // Each step, what AC1 and AC2 lead to by changes, and what they lead to for one who loads
    // afresh.
    let steps = [
        (credential(a, "AC1", true), Some(a), None),
        (credential(b, "AC1", true), None, None),
        (credential(c, "AC1", false), None, None),
        // The second claimant goes to another account: nothing of the first one's row changed.
        (credential(b, "AC2", true), Some(a), Some(b)),
        (credential(a, "AC2", true), None, None),
        (
            format!(
                "UPDATE org_credentials SET is_active = 0, sealed = NULL, changed_version = {VERSION} WHERE org_id = \
                {}",
                blob(b.as_bytes())
            ),
            None,
            Some(a),
        ),
        (credential(b, "AC1", true), Some(b), Some(a)),
        // Saved again unverified: it claims nothing until it is verified.
        (credential(a, "AC2", false), Some(b), None),
    ];
    for (index, (statement, first, second)) in steps.into_iter().enumerate() {
        database.configure(&[statement]).await;
        look(&table).await;
        for (how, table) in [("by changes", &table), ("afresh", &load(&database, &store).await)] {
            let found = ["AC1", "AC2"].map(|account| get(table, RouteKind::TwilioAccount, account));
            assert_eq!(found, [first, second], "step {index} {how}");
        }
    }
    store.close().await;
}

#[tokio::test]
async fn a_number_that_changes_its_account_leaves_no_stale_route() {
    let database = Database::new();
    let store = database.open().await;
    let a = database.organisation().await;
    database
        .configure(&[
            number(a, "twilio", "+1555", "AC1", "PN1"),
            number(a, "vapi", "+1666", "", "old"),
        ])
        .await;
    let table = load(&database, &store).await;
    database
        .configure(&[format!(
            "UPDATE phone_numbers SET account_id = 'AC2', provider_number_id = 'new', changed_version = {VERSION}"
        )])
        .await;
    look(&table).await;
    let found = [
        (RouteKind::TwilioNumber, "AC1/+1555"),
        (RouteKind::VapiPhoneNumber, "old"),
    ]
    .map(|(kind, value)| get(&table, kind, value));
    assert_eq!(found, [None, None]);
    let found = [
        (RouteKind::TwilioNumber, "AC2/+1555"),
        (RouteKind::VapiPhoneNumber, "new"),
        (RouteKind::VapiNumber, "+1666"),
    ];
    assert_eq!(found.map(|(kind, value)| get(&table, kind, value)), [Some(a); 3]);
    store.close().await;
}

#[tokio::test]
async fn organisations_carry_their_secrets_and_data_keys_newest_first() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    let endpoint = EndpointId::generate();
    let secrets: [SecretId; 4] = std::array::from_fn(|_| SecretId::generate());
    let secret = |id: SecretId, endpoint: Option<EndpointId>, not_after: Option<i64>| {
        format!(
            "INSERT INTO endpoint_secrets (id, org_id, endpoint_id, source, plan, sealed, not_after, created_at, \
            changed_version) \
             VALUES ({}, {}, {}, 'vapi', '{{\"type\":\"bearer\"}}', x'0102', {}, 0, {VERSION})",
            blob(id.as_bytes()),
            blob(org.as_bytes()),
            endpoint.map_or("NULL".to_owned(), |id| blob(id.as_bytes())),
            not_after.map_or("NULL".to_owned(), |time| time.to_string()),
        )
    };
    database
        .configure(&[
            format!(
                "INSERT INTO endpoints (id, org_id, source, name, ignored_types, created_at, updated_at, \
                changed_version) \
                 VALUES ({}, {}, 'vapi', 'main', '[\"transcript\"]', 0, 0, {VERSION})",
                blob(endpoint.as_bytes()),
                blob(org.as_bytes())
            ),
            secret(secrets[0], None, Some((NOW - Duration::from_hours(2)).as_micros())),
            secret(secrets[1], None, Some((NOW + Duration::from_hours(2)).as_micros())),
            secret(secrets[2], Some(endpoint), None),
        ])
        .await;
    let key = |version| DataKeyRow {
        org,
        version,
        kek: hookswitch::domain::KeyId("k".into()),
        wrapped: [1].into(),
        seals: 0,
    };
    store.insert_data_key(key(1)).await.unwrap();
    let table = load(&database, &store).await;
    let entry = table.org(org).unwrap();
    assert!(entry.is_active);
    let ids = |entry: &hookswitch::routing::OrgEntry| entry.secrets.iter().map(|secret| secret.id).collect::<Vec<_>>();
    assert_eq!(
        ids(&entry),
        [secrets[2], secrets[1]],
        "one that ended long ago is not there"
    );
    assert_eq!(
        (
            entry.secrets[0].endpoint,
            entry.secrets[1].endpoint,
            entry.secrets[0].source
        ),
        (Some(endpoint), None, Source::Vapi)
    );
    assert!(
        Arc::ptr_eq(&entry.secrets[0].plan, &entry.secrets[1].plan),
        "equal plans are kept once"
    );
    assert_eq!(entry.data_keys, [key(1)]);
    let found = table.endpoint(endpoint).unwrap();
    assert_eq!(
        (found.org, found.source, &*found.ignored_types),
        (org, Source::Vapi, &["transcript".to_owned()][..])
    );

    // One is erased, one added, a key too; the endpoint and the organisation are switched off.
    store.insert_data_key(key(2)).await.unwrap();
    database
        .configure(&[
            format!(
                "UPDATE endpoint_secrets SET sealed = NULL, is_active = 0, changed_version = {VERSION} WHERE id = {}",
                blob(secrets[2].as_bytes())
            ),
            secret(secrets[3], None, None),
            format!("UPDATE endpoints SET is_active = 0, changed_version = {VERSION}"),
            format!("UPDATE organizations SET is_active = 0, changed_version = {VERSION}"),
        ])
        .await;
    look(&table).await;
    let changed = table.org(org).unwrap();
    assert_eq!(
        (ids(&changed), changed.is_active),
        (vec![secrets[3], secrets[1]], false)
    );
    assert_eq!(changed.data_keys, [key(2), key(1)]);
    assert!(table.endpoint(endpoint).is_none());
    // A reader that holds an entry sees one whole state of it.
    assert_eq!((ids(&entry), entry.is_active), (vec![secrets[2], secrets[1]], true));
    assert!(table.org(OrgId::generate()).is_none());
    store.close().await;
}

#[tokio::test]
async fn a_running_table_follows_the_signal_and_the_poll() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    let table = load(&database, &store).await;
    let stop = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    let task = tokio::spawn(Arc::clone(&table).run(stop.clone()));
    // Through the store: its signal. (The first poll is at once; the second row can only come by
    // the signal or a second later.)
    store
        .insert_data_key(DataKeyRow {
            org,
            version: 1,
            kek: hookswitch::domain::KeyId("k".into()),
            wrapped: [1].into(),
            seals: 0,
        })
        .await
        .unwrap();
    until("the data key is there", || {
        table.org(org).is_some_and(|entry| entry.data_keys.len() == 1)
    })
    .await;
    // Beside the store: nobody is signalled.
    database.configure(&[assistant(org, "polled", "live")]).await;
    until("the polled route is there", || holds(&table, "polled") == Some(org)).await;
    stop.cancel();
    task.await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn while_the_database_is_away_the_last_good_snapshot_serves_and_grows_old() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    database.configure(&[assistant(org, "x", "live")]).await;
    let table = load(&database, &store).await;
    let mut connection = database.connect().await;
    sqlx::raw_sql("ALTER TABLE config_version RENAME TO gone")
        .execute(&mut connection)
        .await
        .unwrap();
    let before = table.age();
    assert!(
        !table.refresh_now(Asker::Unproven).await,
        "a look that failed cannot say that the snapshot is current"
    );
    assert!(table.age() > before);
    assert_eq!(holds(&table, "x"), Some(org));
    sqlx::raw_sql("ALTER TABLE gone RENAME TO config_version")
        .execute(&mut connection)
        .await
        .unwrap();
    database.configure(&[assistant(org, "y", "live")]).await;
    let before = table.age();
    look(&table).await;
    assert!(table.age() < before);
    assert_eq!((holds(&table, "x"), holds(&table, "y")), (Some(org), Some(org)));
    store.close().await;
    assert!(!table.refresh_now(Asker::Unproven).await);
    assert_eq!(holds(&table, "x"), Some(org));
}

#[tokio::test]
async fn many_who_ask_share_a_look_and_each_learns_what_was_there_when_it_asked() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    let table = load(&database, &store).await;
    let begun = tokio::time::Instant::now();
    for round in 0..5 {
        let name = format!("asst-{round}");
        database.configure(&[assistant(org, &name, "live")]).await;
        crate::support::until("all learn what is there", || async {
            let answers = futures_util::future::join_all((0..200).map(|_| table.refresh_now(Asker::Unproven))).await;
            let is_there = holds(&table, &name) == Some(org);
            assert!(
                is_there || !answers.contains(&true),
                "an old snapshot was called current"
            );
            (!answers.contains(&false)).then_some(())
        })
        .await;
    }
    // Five looks, 100 ms apart: unknown senders cannot have more.
    assert!(begun.elapsed() >= Duration::from_millis(400));
    store.close().await;
}

/// Where one that proves nothing waits for its time, one that is proven looks first, and both learn
/// from that look.
#[tokio::test]
async fn who_is_proven_does_not_wait_for_who_is_not() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    let table = load(&database, &store).await;
    database.configure(&[assistant(org, "x", "live")]).await;
    // The unproven one asks first. On a full machine its time may have come before the other asks.
    crate::support::until("the proven one is first", || async {
        look(&table).await;
        let mut unproven = Box::pin(table.refresh_now(Asker::Unproven));
        if futures_util::poll!(&mut unproven).is_ready() {
            return None;
        }
        let is_proven_first = tokio::select! {
            biased;
            is_current = table.refresh_now(Asker::Proven) => is_current,
            _ = &mut unproven => return None,
        };
        (is_proven_first && unproven.await).then_some(())
    })
    .await;
    store.close().await;
}

#[tokio::test]
async fn who_is_proven_causes_a_hundred_looks_a_second_at_most() {
    let database = Database::new();
    let store = database.open().await;
    let table = load(&database, &store).await;
    let begun = tokio::time::Instant::now();
    for _ in 0..20 {
        futures_util::future::join_all((0..200).map(|_| table.refresh_now(Asker::Proven))).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    store.close().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_in_the_middle_of_a_look_leaves_it_to_the_next() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    let table = load(&database, &store).await;
    database.configure(&[assistant(org, "x", "live")]).await;
    let mut first = Box::pin(table.refresh_now(Asker::Unproven));
    let mut second = Box::pin(table.refresh_now(Asker::Unproven));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    if !second.await {
        look(&table).await;
    }
    assert_eq!(holds(&table, "x"), Some(org));
    store.close().await;
}

#[tokio::test]
async fn a_look_that_is_dropped_at_any_moment_leaves_no_old_snapshot_behind() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    for round in 0..161_u64 {
        let mut look = Box::pin(store.load_changes(0));
        for _ in 0..round % 23 {
            if futures_util::poll!(&mut look).is_ready() {
                break;
            }
            std::thread::sleep(Duration::from_micros(round % 7 * 10));
        }
        drop(look);
        let name = format!("asst-{round}");
        database.configure(&[assistant(org, &name, "live")]).await;
        for _ in 0..4 {
            let changes = store.load_changes(0).await.unwrap();
            assert_eq!(changes.routes.len() as u64, round + 1, "round {round}");
        }
    }
    store.close().await;
}

#[tokio::test]
async fn the_databases_clock_is_compared_with_ours() {
    let database = Database::new();
    let store = database.open().await;
    let ours = Arc::new(ManualClock::at(NOW - Duration::from_mins(6)));
    let table = RouteTable::load(
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::clone(&ours) as Arc<dyn Clock>,
    )
    .await
    .unwrap();
    assert_eq!(table.clock_offset_micros(), 360_000_000);
    ours.set(NOW);
    look(&table).await;
    // Half of what the look took is all that can be off.
    assert!(
        (0..10_000_000).contains(&table.clock_offset_micros()),
        "{}",
        table.clock_offset_micros()
    );
    store.close().await;
}

#[tokio::test]
async fn changes_are_those_above_a_version_and_everything_is_what_is_live() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    database
        .configure(&[assistant(org, "old", "released"), assistant(org, "x", "live")])
        .await;
    let all = store.load_changes(0).await.unwrap();
    assert_eq!(
        (all.version, all.database_now, all.organisations.len()),
        (store.config_version().await.unwrap(), NOW, 1)
    );
    assert_eq!(
        all.routes
            .iter()
            .map(|row| (&*row.key.value, row.is_live))
            .collect::<Vec<_>>(),
        [("x", true)]
    );
    let none = store.load_changes(all.version).await.unwrap();
    assert!(none.version == all.version && none.organisations.is_empty() && none.routes.is_empty());
    database.configure(&[assistant(org, "x", "released")]).await;
    let changes = store.load_changes(all.version).await.unwrap();
    assert_eq!((changes.version, changes.organisations.len()), (all.version + 1, 0));
    assert_eq!(
        changes
            .routes
            .iter()
            .map(|row| (&*row.key.value, row.is_live))
            .collect::<Vec<_>>(),
        [("x", false)]
    );
    store.close().await;
}
