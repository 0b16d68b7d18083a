//! Connections: begun and left, cut, listening; migrations and who may open.

use crate::{
    conformance::store as made,
    faults::proxy::{Mode, Proxy},
    support::{postgres::PostgresDatabase, until},
};
use hookswitch::{
    domain::{ManualClock, SystemClock},
    routing::RouteTable,
    store::{self, ConnectError, PostgresStore, Store},
};
use sqlx::AssertSqlSafe;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

async fn open(database: &PostgresDatabase) -> Arc<dyn Store> {
    Arc::new(
        PostgresStore::open(&database.url(), Arc::new(ManualClock::default()))
            .await
            .expect("the store opens"),
    )
}

/// The roles belong to the whole server. The error of a login that may neither make nor grant
/// them says how it may.
#[tokio::test]
async fn a_login_that_may_not_make_the_roles_learns_how_it_may() {
    let Some(database) = PostgresDatabase::empty().await else {
        return;
    };
    let login = format!("it_{}", uuid::Uuid::now_v7().simple());
    let mut owner = database.connect().await;
    let make = format!(
        "CREATE ROLE {login} LOGIN NOCREATEROLE PASSWORD 'secret'; GRANT {login} TO CURRENT_USER; GRANT CREATE, USAGE \
        ON SCHEMA public TO {login}"
    );
    sqlx::raw_sql(AssertSqlSafe(make))
        .execute(&mut owner)
        .await
        .expect("a login");
    let (_, place) = database
        .url()
        .split_once('@')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .expect("a URL");
    let url = format!("postgres://{login}:secret@{place}");
    let refused = store::migrate(&url, Arc::new(SystemClock)).await.expect_err("refused");
    let text = refused.to_string();
    assert!(
        text.contains("deploy/postgres/roles.sh") && text.contains("CREATEROLE"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
    let unmake = format!("DROP OWNED BY {login}; DROP ROLE {login}");
    sqlx::raw_sql(AssertSqlSafe(unmake))
        .execute(&mut owner)
        .await
        .expect("gone");
}

#[tokio::test]
async fn pending_migrations_are_refused_with_the_command_and_applied_once() {
    let Some(database) = PostgresDatabase::empty().await else {
        return;
    };
    // Files have their number and name, with underscores for spaces.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
    let mut all: Vec<String> = std::fs::read_dir(folder)
        .expect("the migrations")
        .map(|file| file.expect("a file").file_name().to_string_lossy().replace('_', " "))
        .map(|name| name.trim_end_matches(".sql").to_owned())
        .collect();
    all.sort();
    let clock = || Arc::new(SystemClock);
    let refused = store::connect(&database.url(), clock()).await.err().expect("refused");
    assert!(
        matches!(&refused, ConnectError::Pending { pending, .. } if pending == &all),
        "{refused}"
    );
    assert!(refused.to_string().contains("hookswitch migrate"), "{refused}");
    assert!(
        !format!("{refused:?}").contains("hookswitch_owner:"),
        "no password in an error"
    );
    assert_eq!(
        store::migration_status(&database.url())
            .await
            .expect("a status")
            .pending,
        all
    );
    for _ in 0..2 {
        store::migrate(&database.url(), clock()).await.expect("migrated");
    }
    let status = store::migration_status(&database.url()).await.expect("a status");
    assert_eq!((status.applied, status.pending), (all, vec![]));
    store::connect(&database.url(), clock())
        .await
        .expect("opens")
        .close()
        .await;
}

#[tokio::test]
async fn a_change_by_another_instance_is_seen_within_a_second_also_after_the_connection_was_cut() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let (here, there) = (open(&database).await, open(&database).await);
    let mut changes = here.config_changes();
    let org = made::org(&there).await;
    let version = there.config_version().await.expect("a version");
    let begun = std::time::Instant::now();
    tokio::time::timeout(Duration::from_secs(20), changes.wait_for(|known| *known >= version))
        .await
        .expect("the change is seen")
        .expect("open");
    println!("seen after {:?}", begun.elapsed());

    // The listener's connection is cut, and a change falls into the gap.
    let mut owner = database.connect().await;
    let cut = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = \
        current_database() AND query LIKE 'LISTEN%') AS cut";
    let listeners: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .fetch_one(&mut owner)
    .await
    .expect("a count");
    assert!(listeners >= 2, "both listen");
    sqlx::query_scalar::<_, i64>(cut)
        .fetch_one(&mut owner)
        .await
        .expect("cut");
    there
        .create_rule(made::rule(org, "in the gap"), made::entry(org, "create"))
        .await
        .expect("created");
    let version = there.config_version().await.expect("a version");
    tokio::time::timeout(Duration::from_secs(20), changes.wait_for(|known| *known >= version))
        .await
        .expect("the change is seen")
        .expect("open");
    here.close().await;
    there.close().await;
}

/// A firewall that forgets a connection, or a server that dies, says nothing to the listener.
/// Nothing is sent at the commit: the look of every second finds the version behind it, and tells
/// the other rooms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_no_notification_tells_is_found_by_polling() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let mut owner = database.connect().await;
    sqlx::raw_sql("ALTER TABLE config_version DISABLE TRIGGER notify")
        .execute(&mut owner)
        .await
        .expect("no notification any more");
    let (here, there) = (open(&database).await, open(&database).await);
    let table = RouteTable::load(here.clone(), Arc::new(SystemClock))
        .await
        .expect("routes");
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(table.clone().run(stop.clone()));
    let mut changes = here.config_changes();
    for count in 1..=2 {
        made::org(&there).await;
        let version = there.config_version().await.expect("a version");
        until("the organisation", || async {
            (table.organisations_len() == count).then_some(())
        })
        .await;
        let known = changes.wait_for(|known| *known >= version);
        tokio::time::timeout(Duration::from_secs(20), known)
            .await
            .expect("the other rooms hear of it")
            .expect("open");
    }
    stop.cancel();
    tasks.join_all().await;
}

#[tokio::test]
async fn a_change_is_seen_although_the_connection_that_would_tell_it_is_half_open() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let guard = CancellationToken::new();
    let proxy = Proxy::start(database.address(), guard.clone()).await;
    let url = database.url_at(proxy.address());
    let behind = PostgresStore::open(&url, Arc::new(ManualClock::default()));
    let behind: Arc<dyn Store> = Arc::new(behind.await.expect("the store opens"));
    let there = open(&database).await;
    let mut changes = behind.config_changes();
    made::org(&there).await;
    let version = there.config_version().await.expect("a version");
    let seen = async |changes: &mut watch::Receiver<i64>, version: i64| {
        tokio::time::timeout(Duration::from_secs(20), changes.wait_for(|known| *known >= version))
            .await
            .expect("the change is seen")
            .expect("open");
    };
    seen(&mut changes, version).await;

    proxy.set(Mode::DropReplies);
    let before = proxy.connections();
    made::org(&there).await;
    let version = there.config_version().await.expect("a version");
    until("another connection", || async {
        (proxy.connections() > before).then_some(())
    })
    .await;
    assert!(*changes.borrow() < version, "nothing came through");
    proxy.set(Mode::Pass);
    seen(&mut changes, version).await;
    drop(guard.drop_guard());
}

/// With a synchronous standby a COMMIT that is cut off reports success and may be lost by a
/// failover. A trigger that runs within the COMMIT sees the time-out that holds there.
#[tokio::test]
async fn no_time_out_of_statements_holds_for_a_commit() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let store = open(&database).await;
    let mut owner = database.connect().await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse_a_time_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF current_setting('statement_timeout') <> '0' THEN
                RAISE EXCEPTION 'COMMIT may be cut off after %', current_setting('statement_timeout');
            END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER refuse_a_time_out AFTER INSERT ON organizations
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_a_time_out();",
    )
    .execute(&mut owner)
    .await
    .expect("a trigger");
    let org = made::org(&store).await;
    // The setting ends with its transaction: the next one on that connection has the time-out
    // again.
    sqlx::raw_sql(
        "ALTER TABLE organizations DISABLE TRIGGER refuse_a_time_out; ALTER TABLE rules ADD COLUMN seen text",
    )
    .execute(&mut owner)
    .await
    .expect("a column");
    sqlx::raw_sql(
        "CREATE FUNCTION see_the_time_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            NEW.seen := current_setting('statement_timeout');
            RETURN NEW;
        END $$;
        CREATE TRIGGER see_the_time_out BEFORE INSERT ON rules FOR EACH ROW EXECUTE FUNCTION see_the_time_out();",
    )
    .execute(&mut owner)
    .await
    .expect("a trigger");
    store
        .create_rule(made::rule(org, "next"), made::entry(org, "create"))
        .await
        .expect("created");
    sqlx::raw_sql("ALTER TABLE rules NO FORCE ROW LEVEL SECURITY")
        .execute(&mut owner)
        .await
        .expect("as the owner");
    let seen: String = sqlx::query_scalar("SELECT seen FROM rules")
        .fetch_one(&mut owner)
        .await
        .expect("the rule");
    assert_eq!(seen, "15s");
    store.close().await;
}

#[tokio::test]
async fn a_change_by_hand_is_stamped_and_announced() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let store = open(&database).await;
    let org = made::org(&store).await;
    let before = store.config_version().await.expect("a version");
    let mut changes = store.config_changes();
    let mut by_hand = database.connect_as("hookswitch_tenant").await;
    let rule = made::rule(org, "by hand");
    store
        .create_rule(rule.clone(), made::entry(org, "create"))
        .await
        .expect("created");
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "BEGIN; SELECT set_config('hookswitch.org_id', '{}', true); UPDATE rules SET is_deleted = true WHERE id = \
        '{}'; COMMIT",
        org.as_uuid(),
        rule.id.as_uuid()
    )))
    .execute(&mut by_hand)
    .await
    .expect("changed");
    tokio::time::timeout(Duration::from_secs(20), changes.wait_for(|known| *known == before + 2))
        .await
        .expect("the change is seen")
        .expect("open");
    let changes = store.load_rule_changes(before + 1).await.expect("loaded");
    assert!(
        changes
            .rules
            .iter()
            .any(|(changed, is_deleted)| changed.id == rule.id && *is_deleted),
        "{changes:?}"
    );
    store.close().await;
}

/// A caller that goes away while its transaction begins leaves no other caller in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_while_a_transaction_begins_poison_no_connection() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let store = open(&database).await;
    let org = made::org(&store).await;
    for micros in 0..300_u64 {
        let abandoned = tokio::time::timeout(Duration::from_micros(micros * 10), store.list_rules(org, None, 1)).await;
        drop(abandoned);
        let abandoned = tokio::time::timeout(Duration::from_micros(micros * 10), store.find_organisation(org)).await;
        drop(abandoned);
    }
    for n in 0..40 {
        store
            .create_rule(made::rule(org, &format!("rule {n}")), made::entry(org, "create"))
            .await
            .expect("created");
    }
    // Read by somebody else: what was reported done is there, not in a transaction that some
    // borrower left open.
    let mut beside = database.connect_as("hookswitch_worker").await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM rules")
        .fetch_one(&mut beside)
        .await
        .expect("a count");
    assert_eq!(count, 40);
    store.close().await;
}

#[tokio::test]
async fn a_restart_of_the_database_costs_no_caller_more_than_one_try() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let store = open(&database).await;
    let org = made::org(&store).await;
    futures_util::future::join_all((0..12).map(|_| store.list_rules(org, None, 9))).await;
    let mut owner = database.connect().await;
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> \
        pg_backend_pid()",
    )
    .fetch_all(&mut owner)
    .await
    .expect("all are cut");
    store
        .list_rules(org, None, 9)
        .await
        .expect("dead connections are passed over");
    store
        .create_rule(made::rule(org, "after"), made::entry(org, "create"))
        .await
        .expect("created");
    until("a ping", || async { store.ping().await.ok() }).await;
    store.close().await;
}
