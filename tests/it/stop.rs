//! How a process stops: within its deadline whatever hangs, and at once by a second signal.

use crate::{
    faults::proxy::{Mode, Proxy},
    support::{
        dev::{Dev, Directory, port_base},
        hooks,
        postgres::PostgresDatabase,
        serve::Serve,
        until,
    },
};
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A `dev` with one SMS under way at a provider that does not answer.
async fn with_an_attempt_that_hangs(directory: &Directory) -> Dev {
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let fault = json!({ "provider": "twilio", "method": "POST", "delay_ms": 60_000 });
    let answer = crate::support::client()
        .post(format!("{}/_faults", dev.get("sandbox")))
        .json(&fault)
        .send()
        .await
        .expect("the sandbox answers");
    assert_eq!(answer.status(), 201);
    let body = hooks::end_of_call(&hooks::call_id(), &dev.get("assistant_id"));
    assert_eq!(hooks::post(&dev, body).await, 200);
    until("the attempt", || async {
        let actions = dev.admin("/api/actions?state=running").await;
        actions["data"].as_array().and_then(|all| all.first().cloned())
    })
    .await;
    dev
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let directory = Directory::new();
        let mut dev = with_an_attempt_that_hangs(&directory).await;
        let operations = format!("{}/readyz", dev.get("operations"));
        dev.process.signal(Signal::TERM);
        until("the stop to begin", || async {
            let answer = crate::support::client().get(&operations).send().await.ok()?;
            (answer.status() == 503).then_some(())
        })
        .await;
        dev.process.signal(second);
        let (status, took) = dev.process.ended();
        assert_eq!(status.code(), Some(code), "{}", dev.process.stderr());
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test]
async fn sighup_stops_as_sigterm_does() {
    let directory = Directory::new();
    let mut dev = Dev::start(directory.path(), port_base(), &[]).await;
    dev.process.signal(Signal::HUP);
    let (status, took) = dev.process.ended();
    assert!(status.success(), "{status}: {}", dev.process.stderr());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// A server that accepts connections and never answers, as behind a network partition.
#[tokio::test]
async fn a_stop_ends_by_its_deadline_while_the_database_hangs() {
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let guard = CancellationToken::new();
    let proxy = Proxy::start(database.address(), guard.clone()).await;
    for (second, drain_seconds) in [(None, "4"), (Some(Signal::TERM), "25")] {
        proxy.set(Mode::Pass);
        let mut serve = Serve::spawn(&[
            ("HOOKSWITCH_DATABASE_URL", database.url_at(proxy.address())),
            ("HOOKSWITCH_ATTEMPT_SECONDS_MAX", "1".to_owned()),
            ("HOOKSWITCH_DRAIN_SECONDS", drain_seconds.to_owned()),
        ]);
        serve.is_ready(200).await;
        proxy.set(Mode::Blackhole);
        until("the database to be missed", || async {
            let (status, body) = serve.readiness().await?;
            (status == 200 && body["status"] == "degraded").then_some(())
        })
        .await;
        serve.signal(Signal::TERM);
        if let Some(second) = second {
            serve.is_ready(503).await;
            serve.signal(second);
        }
        let (status, took) = serve.ended().await;
        let (code, longest) = if second.is_some() { (143, 2) } else { (0, 6) };
        assert_eq!(status.code(), Some(code), "{}", serve.log());
        assert!(took < Duration::from_secs(longest), "{took:?}");
        // Nothing was under way; the connections that hang are what is left behind.
        assert!(serve.log().contains("Stopping, within"), "{}", serve.log());
    }
    guard.cancel();
}
