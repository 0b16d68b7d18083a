//! Each row of the table of states in `docs/operations.md`: may webhooks be sent here?

use crate::{
    faults::proxy::{Mode, Proxy},
    support::{client, dev::Directory, postgres::PostgresDatabase, until},
};
use hookswitch::{
    cli::{App, Listeners, Options, Roles},
    config::Settings,
    domain::{Clock, ManualClock, OrgId, SystemClock},
    queue::{QueueHealth, QueueState},
    store,
    telemetry::Standing,
    vault::{Keyring, Purpose, Vault},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_util::sync::CancellationToken;

const KEY: &str = crate::support::serve::KEY;
const OTHER_KEY: &str = "1b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9fa";

/// An application in this process, on a directory of its own.
struct TestApp {
    app: App,
    directory: Directory,
}

fn settings(directory: &Directory) -> Settings {
    let mut settings = Settings::default();
    settings.receiver.ingress_address = "127.0.0.1:0".into();
    settings.admin.admin_address = "127.0.0.1:0".into();
    settings.admin.operations_address = "127.0.0.1:0".into();
    settings.admin.jwt_secret = Some("a secret of thirty-two characters".to_owned().into());
    settings.store.database_url = format!("sqlite:{}", directory.path().join("store.db").display());
    settings.queue.queue_url = format!("embedded:{}", directory.path().join("queue").display());
    settings.queue.disk_free_bytes_min = Some(1 << 20);
    settings
}

fn ring(key: &str) -> Keyring {
    let settings = hookswitch::config::VaultSettings {
        keyring: Some(key.to_owned().into()),
        ..Default::default()
    };
    Keyring::load(&settings).expect("a ring")
}

impl TestApp {
    async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_at(Arc::new(SystemClock), change).await
    }

    async fn start_at(clock: Arc<dyn Clock>, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_as(Roles::ALL, clock, change).await
    }

    async fn start_as(roles: Roles, clock: Arc<dyn Clock>, change: impl FnOnce(&mut Settings)) -> Self {
        let directory = Directory::new();
        let mut settings = settings(&directory);
        change(&mut settings);
        if settings.store.database_url.starts_with("sqlite:") {
            store::migrate(&settings.store.database_url, clock.clone())
                .await
                .expect("migrated");
        }
        let listeners = Listeners::bind(&settings, roles).await.expect("free ports");
        let options = Options { clock, roles };
        let app = App::start(settings, ring(KEY), listeners, options)
            .await
            .expect("it starts");
        Self { app, directory }
    }

    /// The status of `/readyz`, its word, and the detail of one check.
    async fn readiness(&self, check: &str) -> (u16, String, String) {
        let url = format!("http://{}/readyz", self.app.addresses().operations);
        let answer = client().get(url).send().await.expect("operations answer");
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.expect("JSON");
        let lines = body["checks"].as_array().expect("checks");
        let line = lines.iter().find(|line| line["name"] == check).expect("the check");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (status, text(&body["status"]), text(&line["detail"]))
    }

    /// Waits until `/readyz` says this, with this in the detail of the check.
    async fn says(&self, check: &str, status: u16, word: &str, detail: &str) {
        until(&format!("{check}: {status} {word} {detail}"), || async {
            let (found, said, details) = self.readiness(check).await;
            (found == status && said == word && details.contains(detail)).then_some(())
        })
        .await;
    }

    async fn stop(self) {
        self.app.stop(Duration::from_secs(5)).await;
        drop(self.directory);
    }
}

#[tokio::test]
async fn a_process_that_takes_webhooks_is_ready() {
    let app = TestApp::start(|_| ()).await;
    app.says("process", 200, "ready", "").await;
    app.stop().await;
}

/// Sends a probe on a fresh connection, before anything else of the process runs.
fn probe(app: &TestApp) -> TcpStream {
    let mut probe = std::net::TcpStream::connect(app.app.addresses().operations).expect("it listens");
    std::io::Write::write_all(
        &mut probe,
        b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .expect("sent");
    probe.set_nonblocking(true).expect("a socket");
    TcpStream::from_std(probe).expect("a socket")
}

/// Until everything is loaded another acceptor has the same socket. At its end it must take no
/// connection that it does not answer.
#[tokio::test(flavor = "current_thread")]
async fn each_probe_right_after_the_start_is_answered() {
    let app = TestApp::start(|_| ()).await;
    let mut answers = String::new();
    // The kernel reports it to both acceptors.
    let mut first = probe(&app);
    first.read_to_string(&mut answers).await.expect("an answer");
    // Timers that end meanwhile are late together, and this test is the first to go on.
    #[expect(clippy::disallowed_methods, reason = "the handle is joined")]
    let busy = tokio::spawn(async { std::thread::sleep(Duration::from_millis(50)) });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut second = probe(&app);
    second.read_to_string(&mut answers).await.expect("an answer");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    busy.await.expect("it only sleeps");
    app.stop().await;
}

#[tokio::test]
async fn a_process_that_stops_is_not_ready() {
    let app = TestApp::start(|_| ()).await;
    app.app.lifecycle().leaving().cancel();
    app.says("process", 503, "unavailable", "stopping").await;
    app.stop().await;
}

#[tokio::test]
async fn below_the_limit_of_the_disk_it_is_not_ready() {
    let app = TestApp::start(|settings| settings.queue.disk_free_bytes_min = Some(1 << 60)).await;
    app.says("queue", 503, "unavailable", "senders get 503").await;
    app.stop().await;
}

#[test]
fn a_queue_that_is_full_or_has_failed_is_not_ready() {
    // With a spool the broker's absence costs no sender a 200.
    for (health, standing, behind_spool) in [
        (QueueHealth::Ready, Standing::Ok, Standing::Ok),
        (QueueHealth::Refusing, Standing::Failed, Standing::Degraded),
        (QueueHealth::Away, Standing::Failed, Standing::Degraded),
        (QueueHealth::Damaged, Standing::Degraded, Standing::Degraded),
        (QueueHealth::Failed, Standing::Failed, Standing::Failed),
    ] {
        let state = QueueState {
            health,
            ..QueueState::default()
        };
        assert_eq!(state.check().standing, standing, "{health:?}");
        assert_eq!(state.check_behind_spool().standing, behind_spool, "{health:?}");
    }
}

/// Another instance seals with a key that this one lacks.
#[tokio::test]
async fn a_ring_that_opens_no_data_key_is_not_ready_and_one_that_opens_some_is_degraded() {
    let app = TestApp::start(|_| ()).await;
    let store = app.app.store().clone();
    for (key, status, word, detail) in [
        (OTHER_KEY, 503, "unavailable", "opens no data key"),
        (KEY, 200, "degraded", "(1 data key)"),
    ] {
        let org = OrgId::generate();
        let entry = crate::conformance::store::entry(org, "create");
        store.create_organisation(org, "Any", entry).await.expect("created");
        Vault::new(ring(key), store.clone())
            .seal(org, Purpose::Payload, b"any")
            .await
            .expect("sealed");
        app.says("keys", status, word, detail).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn without_room_for_a_connection_it_is_degraded() {
    let app = TestApp::start(|settings| settings.receiver.connections_max = 1).await;
    let held = tokio::net::TcpStream::connect(app.app.addresses().ingress.expect("ingress"))
        .await
        .expect("connected");
    app.says("ingress", 200, "degraded", "no further connection").await;
    drop(held);
    app.says("ingress", 200, "ready", "").await;
    app.stop().await;
}

#[tokio::test]
async fn a_database_that_is_away_or_hangs_is_degraded() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let guard = CancellationToken::new();
    let proxy = Proxy::start(database.address(), guard.clone()).await;
    let app = TestApp::start(|settings| settings.store.database_url = database.url_at(proxy.address())).await;
    app.says("database", 200, "ready", "").await;
    for mode in [Mode::Blackhole, Mode::Reset] {
        proxy.set(mode);
        app.says("database", 200, "degraded", "ingress goes on").await;
    }
    app.says("routes", 200, "degraded", "older than 10 seconds").await;
    proxy.set(Mode::Pass);
    app.says("database", 200, "ready", "").await;
    app.stop().await;
    guard.cancel();
}

/// Senders do not wait for it, so what is degraded for a receiver is all that it has to do.
#[cfg(feature = "rabbitmq")]
#[tokio::test]
async fn a_worker_alone_is_not_ready_without_its_database_or_its_broker() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let Some(broker) = crate::support::amqp::AmqpPlace::new(1) else {
        return;
    };
    let guard = CancellationToken::new();
    let to_database = Proxy::start(database.address(), guard.clone()).await;
    let to_broker = Proxy::start(broker.server_address(), guard.clone()).await;
    let roles = Roles {
        receiver: false,
        admin: false,
        ..Roles::ALL
    };
    let app = TestApp::start_as(roles, Arc::new(SystemClock), |settings| {
        settings.store.database_url = database.url_at(to_database.address());
        settings.queue.queue_url = broker.url_through(to_broker.address());
        settings.queue.amqp_prefix = broker.settings().prefix;
        settings.queue.amqp_queues = 1;
    })
    .await;
    app.says("queue", 200, "ready", "").await;
    to_database.set(Mode::Reset);
    app.says("database", 503, "unavailable", "work waits").await;
    to_database.set(Mode::Pass);
    app.says("database", 200, "ready", "").await;
    to_broker.set(Mode::Reset);
    app.says("queue", 503, "unavailable", "no event can be taken").await;
    to_broker.set(Mode::Pass);
    app.says("queue", 200, "ready", "").await;
    app.stop().await;
    guard.cancel();
}

#[tokio::test]
async fn a_database_that_is_read_only_is_degraded() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let app = TestApp::start(|settings| settings.store.database_url = database.url()).await;
    database.set_read_only().await;
    app.says("database", 200, "degraded", "read-only").await;
    app.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_a_minute_off_is_not_ready_and_one_that_is_ten_seconds_off_is_degraded() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    for (ahead, status, word, detail) in [
        (Duration::from_secs(10), 200, "degraded", "more than 5 seconds"),
        (Duration::from_mins(2), 503, "unavailable", "more than a minute"),
    ] {
        let clock = Arc::new(ManualClock::at(SystemClock.now() + ahead));
        let app = TestApp::start_at(clock, |settings| settings.store.database_url = database.url()).await;
        let (found, said, details) = app.readiness("clock").await;
        assert_eq!((found, said.as_str()), (status, word), "{details}");
        assert!(details.contains(detail), "{details}");
        app.stop().await;
    }
}

#[tokio::test]
async fn a_ring_that_opens_none_of_the_data_keys_is_refused_at_the_start() {
    let directory = Directory::new();
    let settings = settings(&directory);
    store::migrate(&settings.store.database_url, Arc::new(SystemClock))
        .await
        .expect("migrated");
    let store = store::connect(&settings.store.database_url, Arc::new(SystemClock))
        .await
        .expect("opens");
    let org = OrgId::generate();
    let entry = crate::conformance::store::entry(org, "create");
    store.create_organisation(org, "Any", entry).await.expect("created");
    Vault::new(ring(OTHER_KEY), store.clone())
        .seal(org, Purpose::Payload, b"any")
        .await
        .expect("sealed");
    store.close().await;
    drop(store);
    let listeners = Listeners::bind(&settings, Roles::ALL).await.expect("free ports");
    let refused = App::start(settings.clone(), ring(KEY), listeners, Options::default()).await;
    let details = refused.err().expect("refused").to_string();
    let missing = &ring(OTHER_KEY).ids()[0];
    assert!(
        details.contains("belongs to another database") && details.contains(&*missing.0),
        "{details}"
    );
    // With the missing key behind the ring's own the process starts, and reads.
    let listeners = Listeners::bind(&settings, Roles::ALL).await.expect("free ports");
    let both = ring(&format!("{KEY},{OTHER_KEY}"));
    let app = App::start(settings, both, listeners, Options::default())
        .await
        .expect("it starts");
    app.stop(Duration::from_secs(5)).await;
}
