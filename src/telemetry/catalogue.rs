//! Every metric: name, kind, unit, labels, help. The only place that names one.

use metrics::Unit;

/// The kind of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric as it is documented. Rooms use it through its constant:
/// `catalogue::EVENTS_PLANNED.count(1, &[…])`.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Metric {
    /// Adds to a counter. `values` stand in the order of `labels`.
    pub fn count(&self, by: u64, values: &[&'static str]) {
        debug_assert_eq!(self.kind, Kind::Counter);
        #[expect(clippy::disallowed_macros, reason = "the one place that records")]
        metrics::counter!(self.name, self.pairs(values)).increment(by);
    }

    /// Sets a gauge.
    pub fn set(&self, value: f64, values: &[&'static str]) {
        debug_assert_eq!(self.kind, Kind::Gauge);
        #[expect(clippy::disallowed_macros, reason = "the one place that records")]
        metrics::gauge!(self.name, self.pairs(values)).set(value);
    }

    /// Records into a histogram, in its unit.
    pub fn observe(&self, value: f64, values: &[&'static str]) {
        debug_assert_eq!(self.kind, Kind::Histogram);
        #[expect(clippy::disallowed_macros, reason = "the one place that records")]
        metrics::histogram!(self.name, self.pairs(values)).record(value);
    }

    /// The counter itself, for hot places that must not look it up each time. Make it after the
    /// recorder is installed; an earlier one counts nowhere.
    #[expect(clippy::disallowed_macros, reason = "the one place that records")]
    pub fn counter(&self, values: &[&'static str]) -> metrics::Counter {
        debug_assert_eq!(self.kind, Kind::Counter);
        metrics::counter!(self.name, self.pairs(values))
    }

    /// The histogram itself; see [`Metric::counter`].
    #[expect(clippy::disallowed_macros, reason = "the one place that records")]
    pub fn histogram(&self, values: &[&'static str]) -> metrics::Histogram {
        debug_assert_eq!(self.kind, Kind::Histogram);
        metrics::histogram!(self.name, self.pairs(values))
    }

    fn pairs(&self, values: &[&'static str]) -> Vec<metrics::Label> {
        debug_assert_eq!(
            self.labels.len(),
            values.len(),
            "{} wants labels {:?}",
            self.name,
            self.labels
        );
        self.labels
            .iter()
            .zip(values)
            .map(|(name, value)| metrics::Label::from_static_parts(name, value))
            .collect()
    }
}

macro_rules! catalogue {
    ($($(#[doc = $help:literal])+ $konst:ident: $kind:ident $unit:ident $name:literal [$($label:literal),*];)+) => {
        $($(#[doc = $help])+ pub const $konst: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: concat!($($help),+).trim_ascii_start(),
        };)+

        /// All of them, in the order of this file. `docs/metrics.md` is made from it.
        pub const ALL: &[Metric] = &[$($konst),+];
    };
}

catalogue! {
    /// Time from a request's last byte read to its answer, by source and status.
    RECEIVE_SECONDS: Histogram Seconds "hookswitch_receive_seconds" ["source", "status"];
    /// Requests that were refused before they became events, by source and cause.
    REJECTIONS: Counter Count "hookswitch_rejections_total" ["source", "cause"];
    /// Verified events of types that their endpoint ignores: answered, not stored.
    EVENTS_IGNORED: Counter Count "hookswitch_receive_ignored_total" ["source"];
    /// Open ingress connections.
    CONNECTIONS: Gauge Count "hookswitch_receive_connections" [];
    /// Time until a published event was durable, or refused.
    PUBLISH_SECONDS: Histogram Seconds "hookswitch_queue_publish_seconds" ["outcome"];
    /// Time of one fsync of the log.
    FSYNC_SECONDS: Histogram Seconds "hookswitch_queue_fsync_seconds" [];
    /// Events made durable by one fsync.
    GROUP_EVENTS: Histogram Count "hookswitch_queue_group_events" [];
    /// Events in the queue that are not acked.
    QUEUE_EVENTS: Gauge Count "hookswitch_queue_events" [];
    /// Bytes in the queue that are not acked.
    QUEUE_BYTES: Gauge Bytes "hookswitch_queue_bytes" [];
    /// Age of the oldest event that is not acked.
    QUEUE_OLDEST_SECONDS: Gauge Seconds "hookswitch_queue_oldest_seconds" [];
    /// Queues of the broker that do not answer this process while others do.
    QUEUE_SILENT_PARTS: Gauge Count "hookswitch_queue_silent_parts" [];
    /// Bytes cut from a torn tail when the log was opened.
    QUEUE_TORN_BYTES: Counter Bytes "hookswitch_queue_torn_bytes_total" [];
    /// Free bytes of the disk of the embedded queue or the spool.
    DISK_FREE_BYTES: Gauge Bytes "hookswitch_disk_free_bytes" [];
    /// Free bytes of that disk below which intake stops.
    DISK_FREE_BYTES_MIN: Gauge Bytes "hookswitch_disk_free_bytes_min" [];
    /// Time to plan one batch: expressions, templates, sealing and the transaction.
    PLAN_SECONDS: Histogram Seconds "hookswitch_plan_seconds" [];
    /// Events by what planning came to: planned, unwanted, duplicate, recorded, callback, dead,
    /// quarantined, again (by hand, or for a rule that could not be read); and held_for_a_rule: a
    /// part of an event that waits for a rule that cannot be read.
    EVENTS_PLANNED: Counter Count "hookswitch_plan_events_total" ["outcome"];
    /// Stored rules that cannot be read: their parts of events wait.
    RULES_UNREADABLE: Gauge Count "hookswitch_rules_unreadable" [];
    /// Organisations whose settings cannot be read: parts of events for rules that ask for them
    /// wait.
    SETTINGS_UNREADABLE: Gauge Count "hookswitch_settings_unreadable" [];
    /// Events that wait in the database before they are planned, by cause: organisation_unknown,
    /// data_key, order, replay.
    HELD_EVENTS: Gauge Count "hookswitch_held_events" ["cause"];
    /// Age of the oldest event that waits in the database before it is planned.
    HELD_OLDEST_SECONDS: Gauge Seconds "hookswitch_held_oldest_seconds" [];
    /// Dead events that wait for an operator.
    DEAD_EVENTS: Gauge Count "hookswitch_dead_events" [];
    /// Rows deleted by age: events with their actions and attempts, jobs, dead_events, quarantine,
    /// audit, keys, days.
    RETENTION_DELETED: Counter Count "hookswitch_retention_deleted_total" ["what"];
    /// Rows of actions that were not written, because the organisation had planned twice its
    /// actions of the day already.
    ACTIONS_OVER_BUDGET: Counter Count "hookswitch_plan_actions_over_budget_total" [];
    /// Actions planned, by kind.
    ACTIONS_PLANNED: Counter Count "hookswitch_plan_actions_total" ["action"];
    /// Attempts, by provider and outcome.
    ATTEMPTS: Counter Count "hookswitch_attempts_total" ["provider", "outcome"];
    /// Time of one exchange with a provider.
    ATTEMPT_SECONDS: Histogram Seconds "hookswitch_attempt_seconds" ["provider"];
    /// Look-ups of unknown outcomes, by provider and result.
    LOOK_UPS: Counter Count "hookswitch_look_ups_total" ["provider", "outcome"];
    /// Deliveries after the provider had accepted the action, by provider and status: sent,
    /// delivered, read, undelivered, failed.
    DELIVERIES: Counter Count "hookswitch_deliveries_total" ["provider", "status"];
    /// Organisations whose calls to a provider fail one after the other, by provider: their actions
    /// there wait.
    BREAKERS_OPEN: Gauge Count "hookswitch_breakers_open" ["provider"];
    /// Looks for actions that are due, each a transaction, by whether it found some: true, false.
    CLAIMS: Counter Count "hookswitch_claims_total" ["found"];
    /// Attempts running now.
    ATTEMPTS_RUNNING: Gauge Count "hookswitch_attempts_running" [];
    /// Refreshes of tokens, by provider and what they came to: refreshed, refused, failed.
    TOKEN_REFRESHES: Counter Count "hookswitch_token_refreshes_total" ["provider", "outcome"];
    /// Looks at assistants that are kept at Vapi, by what they came to: in_step, drifted,
    /// made_again, adopted, missing, failed.
    ASSISTANT_CHECKS: Counter Count "hookswitch_assistant_checks_total" ["outcome"];
    /// Leases that ended without a record.
    LEASES_EXPIRED: Counter Count "hookswitch_leases_expired_total" [];
    /// Age of the oldest action that is due, by provider.
    ACTIONS_OLDEST_DUE_SECONDS: Gauge Seconds "hookswitch_actions_oldest_due_seconds" ["provider"];
    /// Age of the oldest action whose outcome is unknown.
    ACTIONS_UNKNOWN_OLDEST_SECONDS: Gauge Seconds "hookswitch_actions_unknown_oldest_seconds" [];
    /// Actions that will not go on by themselves, by state: parked, unknown, dead.
    ACTIONS_STUCK: Gauge Count "hookswitch_actions_stuck" ["state"];
    /// Hits of a cache.
    CACHE_HITS: Counter Count "hookswitch_cache_hits_total" ["cache"];
    /// Misses of a cache.
    CACHE_MISSES: Counter Count "hookswitch_cache_misses_total" ["cache"];
    /// Entries in a cache.
    CACHE_ENTRIES: Gauge Count "hookswitch_cache_entries" ["cache"];
    /// Routes in memory.
    ROUTES: Gauge Count "hookswitch_routes" [];
    /// Looks at the database for changed routes: periodic ones, those that refused requests asked
    /// for (10 a second at most), and those that events of the platform asked for (100 at most).
    ROUTE_LOOKS: Counter Count "hookswitch_route_looks_total" [];
    /// Data keys that no key of the ring opens.
    DATA_KEYS_UNOPENABLE: Gauge Count "hookswitch_data_keys_unopenable" [];
    /// Time since the route snapshot was last known to be current.
    ROUTE_SNAPSHOT_AGE_SECONDS: Gauge Seconds "hookswitch_route_snapshot_age_seconds" [];
    /// The database's clock less ours.
    CLOCK_OFFSET_SECONDS: Gauge Seconds "hookswitch_clock_offset_seconds" [];
    /// Time that the worker's consumer has been idle while the queue holds events.
    CONSUMER_IDLE_WITH_BACKLOG_SECONDS: Gauge Seconds "hookswitch_consumer_idle_with_backlog_seconds" [];
    /// Integrations whose secret is due to be rotated, by provider.
    ROTATIONS_DUE: Gauge Count "hookswitch_credentials_rotation_due" ["provider"];
    /// Events that the platform's own account signed and that lead to no organisation.
    QUARANTINE_EVENTS: Gauge Count "hookswitch_quarantine_events" [];
    /// Age of the oldest of them.
    QUARANTINE_OLDEST_SECONDS: Gauge Seconds "hookswitch_quarantine_oldest_seconds" [];
    /// Pauses by operators, by scope: all, org, provider, rule.
    PAUSED: Gauge Count "hookswitch_paused" ["scope"];
    /// Whether events go through the spool now: 1 or 0.
    SPOOL_ACTIVE: Gauge Count "hookswitch_spool_active" [];
    /// Switches to the spool, because the broker did not take an event.
    SPOOL_SWITCHES: Counter Count "hookswitch_spool_switches_total" [];
    /// Events of the spool by outcome: spooled, drained, dead.
    SPOOL_EVENTS: Counter Count "hookswitch_spool_events_total" ["outcome"];
    /// Events in the spool.
    SPOOL_HELD_EVENTS: Gauge Count "hookswitch_spool_held_events" [];
    /// Age of the oldest event in the spool.
    SPOOL_OLDEST_SECONDS: Gauge Seconds "hookswitch_spool_oldest_seconds" [];
    /// Share of the spool's limit that is used.
    SPOOL_FILL_RATIO: Gauge Count "hookswitch_spool_fill_ratio" [];
    /// Whether the database answered at this scrape: 1 or 0.
    STORE_UP: Gauge Count "hookswitch_store_up" [];
    /// Bytes of the database: SQLite's file, or the tables with their indexes on Postgres. Read
    /// once a minute.
    STORE_BYTES: Gauge Bytes "hookswitch_store_bytes" [];
    /// Time of one transaction that writes, from its request to its commit, by lane: urgent, bulk.
    STORE_WRITE_SECONDS: Histogram Seconds "hookswitch_store_write_seconds" ["lane"];
    /// Requests to the admin API, by status.
    ADMIN_REQUESTS: Counter Count "hookswitch_admin_requests_total" ["status"];
    /// Streams of the admin API that are open: pages that look at an organisation's lists.
    ADMIN_STREAMS: Gauge Count "hookswitch_admin_streams" [];
    /// Spans and error events that no OTLP receiver took.
    OTLP_DROPPED: Counter Count "hookswitch_otlp_dropped_total" [];
    /// Memory of this process in RAM.
    PROCESS_RESIDENT_BYTES: Gauge Bytes "hookswitch_process_resident_bytes" [];
    /// Files and sockets that this process has open.
    PROCESS_DESCRIPTORS: Gauge Count "hookswitch_process_descriptors" [];
    /// Most files and sockets that this process may have open.
    PROCESS_DESCRIPTORS_MAX: Gauge Count "hookswitch_process_descriptors_max" [];
    /// The version that runs, always 1.
    BUILD_INFO: Gauge Count "hookswitch_build_info" ["version"];
}

/// Sources as a label says them; `unknown` is what never named one.
pub const SOURCES: &[&str] = &["vapi", "twilio", "unknown"];

/// Why a request was refused, as `receiver` says it.
pub const REJECTION_CAUSES: &[&str] = &[
    "bad_signature",
    "too_old",
    "unknown_route",
    "conflicting_route",
    "not_the_format",
    "too_large",
    "unsupported_media_type",
    "headers_too_large",
    "path_too_long",
    "timeout",
    "not_found",
    "method_not_allowed",
    "rate_limited",
    "hop_limit",
    "unavailable",
];

/// Providers that actions call.
const ACTING_PROVIDERS: &[&str] = &["twilio", "resend", "google_calendar", "http"];

/// Label values of counters, so that each series is 0 before its first event. A rate over a series
/// that appears with 1 misses that event.
pub const ZEROED: &[(Metric, &[&[&str]])] = &[
    (REJECTIONS, &[SOURCES, REJECTION_CAUSES]),
    (EVENTS_IGNORED, &[&["vapi", "twilio"]]),
    (CLAIMS, &[&["true", "false"]]),
    (QUEUE_TORN_BYTES, &[]),
    (
        EVENTS_PLANNED,
        &[&[
            "planned",
            "unwanted",
            "duplicate",
            "again",
            "recorded",
            "callback",
            "dead",
            "quarantined",
            "held_for_a_rule",
        ]],
    ),
    (
        ATTEMPTS,
        &[
            ACTING_PROVIDERS,
            &[
                "succeeded",
                "retry",
                "unknown",
                "parked",
                "suppressed",
                "dead",
                "interrupted",
            ],
        ],
    ),
    (
        LOOK_UPS,
        &[
            ACTING_PROVIDERS,
            &["succeeded", "proved_absent", "absent", "ambiguous", "failed", "unknown"],
        ],
    ),
    (LEASES_EXPIRED, &[]),
    (
        RETENTION_DELETED,
        &[&["events", "jobs", "dead_events", "quarantine", "audit", "keys", "days"]],
    ),
    (ACTIONS_OVER_BUDGET, &[]),
    (
        DELIVERIES,
        &[&["twilio"], &["sent", "delivered", "read", "undelivered", "failed"]],
    ),
    (ROUTE_LOOKS, &[]),
    (SPOOL_SWITCHES, &[]),
    (OTLP_DROPPED, &[]),
    (SPOOL_EVENTS, &[&["spooled", "drained", "dead"]]),
];

/// `docs/metrics.md`: this file as people read it.
#[must_use]
pub fn document() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# Metrics\n\n\
         Served at `/metrics` of the operations listener. Labels come from closed lists: no organisation, id,\n\
         URL or error text is ever one. This page is made from `src/telemetry/catalogue.rs` by\n\
         `cargo test --test it operations::metrics`.\n\n\
         | metric | kind | unit | labels | |\n|---|---|---|---|---|\n",
    );
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = if metric.labels.is_empty() {
            "–".to_owned()
        } else {
            metric
                .labels
                .iter()
                .map(|l| format!("`{l}`"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        writeln!(
            page,
            "| `{}` | {kind} | {} | {labels} | {} |",
            metric.name,
            metric.unit.as_str(),
            metric.help
        )
        .expect("to a string");
    }
    page
}
