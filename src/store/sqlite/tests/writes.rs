//! The writer: commands alone and in a crowd.

use super::*;
use crate::store::audit::{AuditEntry, AuditLog, Changes};
use futures_util::future::{join, join_all};
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::oneshot;

const CREATE: &str = "CREATE TABLE t (n INTEGER NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID";
const COUNT: &str = "SELECT count(*) FROM t";

async fn opened(scratch: &Scratch) -> SqliteStore {
    let store = scratch.open().await;
    execute(&store, CREATE).await.expect("a table");
    store
}

/// Holds the writer until it is released, so that later commands wait in the lanes.
fn hold(
    store: &SqliteStore,
) -> (
    oneshot::Receiver<()>,
    oneshot::Sender<()>,
    impl Future<Output = Result<(), StoreError>>,
) {
    let (started, has_started) = oneshot::channel();
    let (go, may_go) = oneshot::channel::<()>();
    let held = store.write(Access::ALL_ORGS, "hold", move |_| {
        Box::pin(async move {
            let _ = started.send(());
            let _ = may_go.await;
            Ok(())
        })
    });
    (has_started, go, held)
}

#[tokio::test]
async fn a_failing_command_undoes_only_itself() {
    let scratch = Scratch::new();
    let store = opened(&scratch).await;
    let (has_started, go, held) = hold(&store);
    let both = |n: i64, then_fail: bool| {
        store.write(Access::ALL_ORGS.in_bulk(), "insert", move |tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO t (n) VALUES (?1)")
                    .bind(n)
                    .execute(&mut *tx.connection)
                    .await
                    .map_err(failed("insert"))?;
                if then_fail {
                    Err(StoreError::Conflict { what: "the test" })
                } else {
                    Ok(n)
                }
            })
        })
    };
    let let_go = async {
        has_started.await.expect("held");
        go.send(()).expect("let go");
    };
    let work = join_all((0..10).map(|n| both(n, n % 2 == 1)));
    let ((held, ended), ()) = join(join(held, work), let_go).await;
    held.expect("held");
    for (n, end) in ended.into_iter().enumerate() {
        assert_eq!(end.is_ok(), n % 2 == 0, "{n}");
    }
    assert_eq!(count(&store, COUNT).await, 5);
    assert!(matches!(
        execute(&store, "INSERT INTO t (n) VALUES (0)").await,
        Err(StoreError::Conflict { .. })
    ));
    assert!(
        matches!(
            execute(&store, "INSERT INTO t (n) VALUES ('x')").await,
            Err(StoreError::Data { .. })
        ),
        "a datatype"
    );
    assert!(matches!(
        execute(&store, "INSERT INTO t (n) VALUES (NULL)").await,
        Err(StoreError::Data { .. })
    ));
    store.close().await;
}

#[tokio::test]
async fn a_panic_in_a_command_is_its_own_error() {
    let scratch = Scratch::new();
    let store = opened(&scratch).await;
    let ended: Result<(), _> = store
        .write(Access::ALL_ORGS.in_bulk(), "panic", |tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO t (n) VALUES (1)")
                    .execute(tx.connection)
                    .await
                    .map_err(failed("insert"))?;
                panic!("a fault of ours");
            })
        })
        .await;
    assert!(
        matches!(ended, Err(StoreError::Data { doing: "panic", .. })),
        "{ended:?}"
    );
    assert_eq!(
        execute(&store, "INSERT INTO t (n) VALUES (2)")
            .await
            .expect("the writer lives"),
        1
    );
    assert_eq!(
        count(&store, "SELECT n FROM t").await,
        2,
        "what the command had written is undone"
    );
    store.close().await;
}

#[tokio::test]
async fn urgent_goes_first_and_close_finishes_what_waits() {
    let scratch = Scratch::new();
    let store = opened(&scratch).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let (has_started, go, held) = hold(&store);
    let note = |lane: Lane| {
        let order = order.clone();
        store.write(
            Access {
                lane,
                ..Access::ALL_ORGS
            },
            "note",
            move |_| {
                Box::pin(async move {
                    order.lock().expect("not poisoned").push(lane);
                    Ok(())
                })
            },
        )
    };
    let work = join(
        join_all((0..4).map(|_| note(Lane::Bulk))),
        join_all((0..4).map(|_| note(Lane::Urgent))),
    );
    let released = async {
        go.send(()).expect("let go");
        store.close().await;
    };
    let work = async {
        // The writer is busy, so it cannot take the first command before the others are there.
        has_started.await.expect("held");
        // Polled in this order: all commands wait in their lanes before the writer is released, and
        // the stop is known before they are done.
        join(work, released).await.0
    };
    let (held, (bulk, urgent)) = join(held, work).await;
    assert!(
        held.is_ok() && bulk.iter().chain(&urgent).all(Result::is_ok),
        "what waited was done"
    );
    assert_eq!(
        *order.lock().expect("not poisoned"),
        [[Lane::Urgent; 4], [Lane::Bulk; 4]].concat()
    );
    assert!(
        matches!(execute(&store, COUNT).await, Err(StoreError::Unavailable { .. })),
        "what comes later is refused"
    );
    assert!(store.writer.is_done(), "close waits for the writer");
}

#[tokio::test]
async fn bulk_work_is_taken_along_under_urgent_load_without_end() {
    let scratch = Scratch::new();
    let store = Arc::new(opened(&scratch).await);
    let (has_started, go, held) = hold(&store);
    let done = Arc::new(AtomicU64::new(0));
    // More urgent commands wait than one transaction takes. The bulk command still comes before
    // those of the second transaction.
    let urgent = join_all((0..600).map(|_| {
        let done = done.clone();
        store.write(Access::ALL_ORGS, "urgent", move |_| {
            Box::pin(async move {
                done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        })
    }));
    let seen = done.clone();
    let bulk = store.write(Access::ALL_ORGS.in_bulk(), "bulk", move |_| {
        Box::pin(async move { Ok(seen.load(Ordering::SeqCst)) })
    });
    let let_go = async {
        has_started.await.expect("held");
        go.send(()).expect("let go");
    };
    let (((held, bulk), urgent), ()) = join(join(join(held, bulk), urgent), let_go).await;
    held.expect("held");
    assert!(urgent.iter().all(Result::is_ok));
    assert!(bulk.expect("done") <= 256, "at the end of the first transaction");
    store.close().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_undoes_nothing() {
    let scratch = Scratch::new();
    let store = opened(&scratch).await;
    let (has_started, go, held) = hold(&store);
    let mut gone = Box::pin(execute(&store, "INSERT INTO t (n) VALUES (1)"));
    let let_go = async {
        has_started.await.expect("held");
        assert!(futures_util::poll!(&mut gone).is_pending(), "handed over, not done");
        drop(gone);
        go.send(()).expect("let go");
    };
    join(held, let_go).await.0.expect("held");
    execute(&store, "INSERT INTO t (n) VALUES (2)")
        .await
        .expect("the next one");
    assert_eq!(count(&store, COUNT).await, 2, "what was handed over is done");
    store.close().await;
}

#[tokio::test]
async fn a_change_is_told_though_its_caller_went_away() {
    let scratch = Scratch::new();
    let store = scratch.open().await;
    let mut changes = store.config_changes();
    let before = *changes.borrow_and_update();
    let (has_started, go, held) = hold(&store);
    let mut gone = Box::pin(SqlStore::configure(&store, Access::ALL_ORGS, "change", |_, _| {
        Box::pin(async { Ok(()) })
    }));
    let let_go = async {
        has_started.await.expect("held");
        assert!(futures_util::poll!(&mut gone).is_pending());
        drop(gone);
        go.send(()).expect("let go");
    };
    join(held, let_go).await.0.expect("held");
    let deadline = Duration::from_secs(5);
    assert_eq!(
        *tokio::time::timeout(deadline, changes.wait_for(|version| *version > before))
            .await
            .expect("in time")
            .expect("open"),
        before + 1
    );
    store.close().await;
}

#[tokio::test]
async fn a_store_that_is_dropped_ends_its_writer_and_lets_the_file_go() {
    let scratch = Scratch::new();
    let store = opened(&scratch).await;
    let (has_started, go, held) = hold(&store);
    let mut held = Box::pin(held);
    assert!(futures_util::poll!(&mut held).is_pending());
    has_started.await.expect("held");
    let task = store.writer.task();
    drop(held);
    drop(store);
    let refused = SqliteStore::open(&scratch.path(), Arc::new(ManualClock::default()))
        .await
        .err();
    assert!(
        matches!(refused, Some(ConnectError::InUse { .. })),
        "a command is still being written"
    );
    go.send(()).expect("let go");
    tokio::time::timeout(Duration::from_secs(5), task.wait())
        .await
        .expect("the writer ends");
    scratch.open().await.close().await;
}

/// Invariant: the log only grows, whoever holds the file's connection.
#[tokio::test]
async fn an_audit_entry_is_never_changed() {
    let scratch = Scratch::new();
    let store = scratch.open().await;
    let org = crate::domain::OrgId::generate();
    let entry = AuditEntry {
        org,
        at: Timestamp::from_seconds(5),
        actor: "somebody".into(),
        address: None,
        verb: "update",
        target_kind: "rule",
        target_id: "x".into(),
        changes: Changes::default().value("name", "a", "b"),
    };
    store.record_audit(entry).await.expect("written");
    for statement in [
        "UPDATE audit_log SET actor = 'nobody'",
        "UPDATE audit_log SET changes = NULL, address = '192.0.2.1'",
    ] {
        let before = entries(&store).await;
        let _ = execute(&store, statement).await;
        assert_eq!(entries(&store).await, before, "{statement}");
    }
    let refused = execute(&store, "UPDATE audit_log SET actor = 'nobody'").await;
    assert!(refused.is_err(), "{refused:?}");
}

async fn entries(store: &SqliteStore) -> Vec<(String, Option<String>)> {
    sqlx::query_as("SELECT actor, changes FROM audit_log ORDER BY id")
        .fetch_all(&store.readers)
        .await
        .expect("the log")
}
