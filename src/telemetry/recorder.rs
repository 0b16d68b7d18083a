//! Where metrics go: a Prometheus recorder, one a process, rendered by `/metrics`.

use super::catalogue::{self, Kind, Metric};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{sync::OnceLock, time::Duration};
use tokio_util::sync::CancellationToken;

/// From half a millisecond, an fsync of a good disk, to half a minute. 20 seconds is the deadline
/// of an exchange with a provider.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0,
];
const EVENTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// How often samples are folded into buckets. Without it a histogram grows without bound between
/// scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

impl Recorder {
    /// Installs the process's recorder, describes every metric and sets counters to 0. Idempotent:
    /// a second call returns the same recorder. Metrics and handles from before the first call
    /// count nowhere.
    #[must_use]
    pub fn install() -> Self {
        static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = INSTALLED.get_or_init(|| {
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)
                .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_events".into()), EVENTS))
                .expect("the lists of buckets are not empty")
                .build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                ::tracing::warn!("Another metrics recorder was installed first: /metrics stays empty");
            }
            describe();
            handle
        });
        Self(handle.clone())
    }

    /// The text of `/metrics`.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds samples every 5 seconds until `stop`.
    pub async fn run_upkeep(self, stop: CancellationToken) {
        let mut every = tokio::time::interval(UPKEEP_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = every.tick() => self.0.run_upkeep(),
            }
        }
    }
}

fn describe() {
    for metric in catalogue::ALL {
        let Metric {
            name, kind, unit, help, ..
        } = *metric;
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }
    catalogue::BUILD_INFO.set(1.0, &[env!("CARGO_PKG_VERSION")]);
    for (metric, labels) in catalogue::ZEROED {
        zero(metric, labels, &mut Vec::new());
    }
}

/// Every combination of the labels' values, at 0.
fn zero(metric: &Metric, labels: &[&'static [&'static str]], chosen: &mut Vec<&'static str>) {
    let Some((first, rest)) = labels.split_first() else {
        metric.count(0, chosen);
        return;
    };
    for value in *first {
        chosen.push(value);
        zero(metric, rest, chosen);
        chosen.pop();
    }
}
