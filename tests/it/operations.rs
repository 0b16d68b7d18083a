//! The answers for machines that watch the process: metrics and readiness.

use crate::{
    faults::proxy::{Mode, Proxy},
    support::{postgres::PostgresDatabase, serve::Serve, until},
};
use hookswitch::{
    listener::{self, Limits},
    telemetry::{Checks, Finding, Operations, Recorder, catalogue},
};
use regex_lite::Regex;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

async fn start(operations: Operations) -> (String, tokio_util::sync::DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "ends with the guard")]
    tokio::spawn(listener::serve(
        listener,
        operations.router(),
        Limits::default(),
        stop.clone(),
        stop.clone(),
    ));
    (base, stop.drop_guard())
}

async fn get(url: &str) -> (u16, String) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    #[expect(clippy::disallowed_methods, reason = "a test's client")]
    let answer = reqwest::Client::new().get(url).send().await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[test]
fn metrics_are_documented() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let wanted = catalogue::document();
    if std::fs::read_to_string(&page).is_ok_and(|found| found == wanted) {
        return;
    }
    std::fs::write(&page, wanted).unwrap();
    panic!("docs/metrics.md was out of date and has been written again: look at it and commit it");
}

#[test]
fn metrics_are_named_by_the_rules() {
    let mut names: Vec<_> = catalogue::ALL.iter().map(|metric| metric.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), catalogue::ALL.len(), "two metrics share a name");
    for metric in catalogue::ALL {
        assert!(metric.name.starts_with("hookswitch_"), "{}", metric.name);
        assert!(metric.help.ends_with('.'), "{} wants help in a sentence", metric.name);
        assert_eq!(
            metric.name.ends_with("_total"),
            metric.kind == catalogue::Kind::Counter,
            "{}: counters end in _total, and only they",
            metric.name
        );
        if metric.unit == metrics::Unit::Seconds {
            assert!(metric.name.contains("_seconds"), "{}", metric.name);
        }
        if metric.unit == metrics::Unit::Bytes {
            assert!(metric.name.contains("_bytes"), "{}", metric.name);
        }
        for label in metric.labels {
            assert!(
                !["org", "org_id", "id", "url", "error", "path"].contains(label),
                "{} has the label {label}",
                metric.name
            );
        }
    }
}

#[tokio::test]
async fn a_scrape_gathers_gauges_shows_help_and_buckets_and_counters_at_zero() {
    let seen = Arc::new(AtomicU64::new(41));
    let operations = Operations::new(Recorder::install(), Checks::default())
        .gather({
            let seen = Arc::clone(&seen);
            move || catalogue::SPOOL_FILL_RATIO.set((seen.fetch_add(1, Ordering::SeqCst) + 1) as f64, &[])
        })
        .gather_async(std::future::pending);
    catalogue::FSYNC_SECONDS.observe(0.002, &[]);
    let (base, _running) = start(operations).await;
    // The gauge that hangs costs its own time only.
    let (status, text) = tokio::time::timeout(Duration::from_secs(10), get(&format!("{base}/metrics")))
        .await
        .expect("a scrape ends");
    assert_eq!(status, 200);
    assert!(text.contains("hookswitch_spool_fill_ratio 42"), "{text}");
    assert!(
        text.contains("# HELP hookswitch_queue_fsync_seconds Time of one fsync of the log."),
        "{text}"
    );
    assert!(
        text.contains("# TYPE hookswitch_queue_fsync_seconds histogram"),
        "{text}"
    );
    assert!(
        text.contains("hookswitch_queue_fsync_seconds_bucket{le=\"0.0025\"}"),
        "{text}"
    );
    assert!(
        text.contains("hookswitch_rejections_total{source=\"unknown\",cause=\"hop_limit\"} "),
        "{text}"
    );
    assert!(
        text.contains(concat!(
            "hookswitch_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        )),
        "{text}"
    );
}

#[tokio::test]
async fn readiness_is_the_worst_check_and_only_failing_is_503() {
    for (findings, status, said) in [
        (vec![], 200, "ready"),
        (vec![Finding::ok()], 200, "ready"),
        (
            vec![
                Finding::ok(),
                Finding::degraded("the broker is away, the spool takes over"),
            ],
            200,
            "degraded",
        ),
        (
            vec![Finding::failed("the log failed"), Finding::degraded("x")],
            503,
            "unavailable",
        ),
    ] {
        let checks = findings.iter().cloned().fold(Checks::default(), |checks, finding| {
            checks.with("queue", move || std::future::ready(finding.clone()))
        });
        let (base, _running) = start(Operations::new(Recorder::install(), checks)).await;
        let (found, body) = get(&format!("{base}/readyz")).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((found, &body["status"]), (status, &said.into()), "{body}");
        assert_eq!(body["checks"].as_array().unwrap().len(), findings.len());
        if let Some(first) = findings.first() {
            assert_eq!(body["checks"][0]["name"], "queue");
            assert_eq!(body["checks"][0]["detail"], *first.detail);
        }
        assert_eq!(
            get(&format!("{base}/healthz")).await.0,
            200,
            "the process lives whatever its checks say"
        );
    }
}

#[tokio::test]
async fn a_check_that_hangs_has_failed() {
    let (base, _running) = start(Operations::new(
        Recorder::install(),
        Checks::default().with("database", std::future::pending),
    ))
    .await;
    let (status, body) = get(&format!("{base}/readyz")).await;
    assert_eq!(status, 503);
    assert!(body.contains("no answer within a second"), "{body}");
}

/// The value of a series at `/metrics` of a process.
async fn value(serve: &Serve, series: &str) -> Option<f64> {
    let (_, text) = get(&serve.url(2, "/metrics")).await;
    let line = text.lines().find(|line| line.starts_with(&format!("{series} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn the_database_tells_its_size_its_writes_and_whether_it_answers() {
    let guard = CancellationToken::new();
    let database = PostgresDatabase::new().await;
    let mut settings = vec![(vec![], None)];
    if let Some(database) = &database {
        let proxy = Proxy::start(database.address(), guard.clone()).await;
        let url = database.url_at(proxy.address());
        settings.push((vec![("HOOKSWITCH_DATABASE_URL", url)], Some(proxy)));
    }
    for (settings, proxy) in settings {
        let serve = Serve::spawn(&settings);
        serve.is_ready(200).await;
        let writes = "hookswitch_store_write_seconds_count{lane=\"urgent\"}";
        until("the gauges of the database", || async {
            let has_size = value(&serve, "hookswitch_store_bytes").await? > 4096.0;
            let is_up = value(&serve, "hookswitch_store_up").await? > 0.0;
            (has_size && is_up && value(&serve, writes).await? > 0.0).then_some(())
        })
        .await;
        let never = "hookswitch_attempts_total{provider=\"http\",outcome=\"unknown\"}";
        assert_eq!(value(&serve, never).await, Some(0.0), "a rate misses no first one");
        let Some(proxy) = proxy else { continue };
        proxy.set(Mode::Blackhole);
        until("it to be missed", || async {
            (value(&serve, "hookswitch_store_up").await? < 1.0).then_some(())
        })
        .await;
    }
    guard.cancel();
}

fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if !path.ends_with("telemetry/catalogue.rs") {
            into.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// A metric that nothing measures says that all is well.
#[test]
fn every_metric_is_measured_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let catalogue = std::fs::read_to_string(root.join("telemetry/catalogue.rs")).unwrap();
    let mut text = String::new();
    sources(&root, &mut text);
    let line = Regex::new(r"(?m)^    ([A-Z_]+): (Counter|Gauge|Histogram) ").unwrap();
    let mut count = 0;
    for found in line.captures_iter(&catalogue) {
        count += 1;
        let (name, kind) = (&found[1], &found[2]);
        let measured = match kind {
            "Gauge" => Regex::new(&format!(r"\b{name}\s*\.set\(\s*([^,]+),")).unwrap(),
            _ => Regex::new(&format!(r"\b{name}\b(.)")).unwrap(),
        };
        let is_measured = measured.captures_iter(&text).any(|value| value[1].trim() != "0.0");
        assert!(is_measured, "{name}: nothing measures it");
    }
    assert_eq!(count, catalogue::ALL.len());
}
