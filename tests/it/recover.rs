//! `hookswitch recover` as a process, over both databases: SMS go out after a backup, the backup is
//! put back, and none goes out again (invariant 29).

use crate::{
    conformance::store::{entry, org},
    ledger::Directory,
    support::{
        app::{
            TestApp,
            worker::{ACCOUNT, report},
        },
        dev::run,
        postgres::PostgresDatabase,
        serve::KEY,
        until,
    },
};
use hookswitch::{
    domain::*,
    store::{
        self, Store,
        pauses::{Pause, Paused},
        rotation::Instance,
    },
};
use std::{process::Output, sync::Arc, time::Duration};

/// A database that can be copied while nobody has it open.
enum Kept {
    File(Directory),
    Server(PostgresDatabase),
}

impl Kept {
    fn url(&self) -> String {
        match self {
            Self::File(directory) => format!("sqlite:{}", directory.0.join("store.db").display()),
            Self::Server(database) => database.url(),
        }
    }

    async fn copy(&self) -> Self {
        match self {
            Self::File(directory) => {
                let copy = Directory::new();
                std::fs::copy(directory.0.join("store.db"), copy.0.join("store.db")).expect("copied");
                Self::File(copy)
            }
            Self::Server(database) => Self::Server(database.copy().await),
        }
    }

    async fn open(&self) -> Arc<dyn Store> {
        store::create(&self.url(), Arc::new(SystemClock)).await.expect("opens")
    }

    fn recover(&self, arguments: &[&str]) -> Output {
        let all = [&["recover"][..], arguments].concat();
        let url = self.url();
        let environment = [
            ("HOOKSWITCH_DATABASE_URL", &*url),
            ("HOOKSWITCH_KEYRING", KEY),
            ("HOOKSWITCH_SETTLE_SECONDS", "0.1"),
        ];
        run(&all, &environment)
    }
}

async fn both() -> Vec<Kept> {
    let mut all = vec![Kept::File(Directory::new())];
    all.extend(PostgresDatabase::new().await.map(Kept::Server));
    all
}

fn words(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn moment() -> String {
    hookswitch::admin::Time(SystemClock.now()).to_string()
}

async fn pause(store: &Arc<dyn Store>) {
    let pause = Pause {
        paused: Paused::All,
        reason: "for a backup".into(),
        actor: "operator:a person".into(),
        since: SystemClock.now(),
    };
    let paused = store.pause(pause, entry(INSTALLATION, "pause")).await;
    assert!(paused.expect("paused"));
}

async fn resume(store: &Arc<dyn Store>) {
    let resumed = store.resume(Paused::All, entry(INSTALLATION, "resume")).await;
    assert!(resumed.expect("resumed"), "everything was paused");
}

async fn in_state(app: &TestApp, state: ActionState, count: usize) {
    until(&format!("{count} actions {state}"), || async {
        let actions = app.actions().await;
        (actions.iter().filter(|one| one.state == state).count() == count).then_some(())
    })
    .await;
}

/// Three texts wait at the backup and go out after it.
async fn what_was_sent_after_the_backup_is_not_sent_again(kept: Kept) {
    let mut app = TestApp::working_over(kept.open().await).await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    pause(&app.store).await;
    app.start_worker();
    for key in 0..3 {
        app.deliver(app.a, key, &report(&format!("+1555000000{key}")));
    }
    in_state(&app, ActionState::Pending, 3).await;
    let tenant = app.a;
    app.stop_worker().await;
    let (backup, taken_at) = (kept.copy().await, moment());

    let mut app = TestApp::working_over(kept.open().await).await;
    app.a = tenant;
    resume(&app.store).await;
    app.start_worker();
    in_state(&app, ActionState::Succeeded, 3).await;
    assert_eq!(app.twilio().count(), (3, 3));
    let sent = app.twilio().0.lock().expect("lock").messages.clone();
    app.stop_worker().await;

    let planned = backup.recover(&["--restored-to", &taken_at]);
    assert!(planned.status.success(), "{}", words(&planned));
    assert!(
        words(&planned).contains(&format!("{tenant}: 3 actions")),
        "{}",
        words(&planned)
    );
    assert!(words(&planned).contains("Nothing was changed"), "{}", words(&planned));
    let store = backup.open().await;
    assert_eq!(
        store.find_recovery().await.expect("a look"),
        None,
        "a plan changes nothing"
    );
    store.close().await;
    let done = backup.recover(&["--restored-to", &taken_at, "--yes"]);
    assert!(words(&done).contains("3 actions are unknown now"), "{}", words(&done));

    let mut app = TestApp::working_over(backup.open().await).await;
    app.a = tenant;
    app.twilio().0.lock().expect("lock").messages = sent;
    app.start_worker();
    in_state(&app, ActionState::Unknown, 3).await;
    resume(&app.store).await;
    in_state(&app, ActionState::Succeeded, 3).await;
    assert_eq!(app.twilio().count(), (0, 3), "nothing went out a second time");
    app.stop_worker().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_after_a_backup_of_sqlite_is_not_sent_again() {
    what_was_sent_after_the_backup_is_not_sent_again(Kept::File(Directory::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_after_a_backup_of_postgres_is_not_sent_again() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    what_was_sent_after_the_backup_is_not_sent_again(Kept::Server(database)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_not_put_back_is_refused() {
    for kept in both().await {
        let app = TestApp::working_over(kept.open().await).await;
        // An event of now.
        app.claimed(Duration::from_mins(1)).await;
        app.store.close().await;
        let refused = kept.recover(&["--restored-to", "2026-01-01T00:00:00Z", "--yes"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            words(&refused).contains("put the backup back first"),
            "{}",
            words(&refused)
        );
        let store = kept.open().await;
        assert!(store.list_pauses(None).await.expect("a list").is_empty());
        store.close().await;
        for wrong in ["yesterday", "2999-01-01T00:00:00Z"] {
            assert!(!kept.recover(&["--restored-to", wrong]).status.success(), "{wrong}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_runs_is_named_and_nothing_changes() {
    for kept in both().await {
        let store = kept.open().await;
        org(&store).await;
        let instance = Instance {
            id: uuid::Uuid::now_v7(),
            name: "host:4711".into(),
            roles: "worker".into(),
            ring: vec![KeyId("00".into())],
            sealing: KeyId("00".into()),
            started_at: SystemClock.now(),
        };
        store.report_instance(instance).await.expect("reported");
        let refused = kept.recover(&["--restored-to", &moment(), "--yes"]);
        assert_eq!(refused.status.code(), Some(1));
        let wanted = if store.is_shared() {
            "host:4711 (worker)"
        } else {
            "is in use"
        };
        assert!(words(&refused).contains(wanted), "{}", words(&refused));
        assert!(store.list_pauses(None).await.expect("a list").is_empty());
        store.close().await;
    }
}
